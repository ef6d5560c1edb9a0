"""The next batch is asked for while one arrives: lost, doubled or overtaken, the bytes are right."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from natsproto.testing import CUT, DROP, DUPLICATE, HOLD, FaultProxy, cut_after
from natsproto.wire import Event, Msg, Pub
from objstore import IntegrityError, ObjectStore
from objstore.read.feed import HEARTBEAT
from objstore.read.window import PROGRESS
from support.objects import CHUNK, impatient, pattern
from support.waits import eventually

LIMIT = 30.0
SIZE = 40 * CHUNK + 7
DATA = pattern(SIZE)
WINDOW = 4 * CHUNK

Read = Callable[[ObjectStore, Path], Awaitable[bytes]]


async def get(store: ObjectStore, directory: Path) -> bytes:
    return await store.get("a", window=WINDOW)


async def get_file(store: ObjectStore, directory: Path) -> bytes:
    await store.get_file("a", directory / "out", window=WINDOW)
    return (directory / "out").read_bytes()


async def read_all(store: ObjectStore, directory: Path) -> bytes:
    async with store.open_reader("a", window=WINDOW) as reader:
        return await reader.read()


async def read_from_inside(store: ObjectStore, directory: Path) -> bytes:
    """Nobody checks a digest here: what was received must be right."""
    async with store.open_reader("a", window=WINDOW) as reader:
        await reader.seek(CHUNK + 1)
        return DATA[: CHUNK + 1] + await reader.read()


async def large_range(store: ObjectStore, directory: Path) -> bytes:
    return DATA[:5] + await store.get_range("a", 5, SIZE)


READS = [get, get_file, read_all, read_from_inside, large_range]


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture
async def faulty(
    proxy: FaultProxy, js: JetStreamContext, bucket_name: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    """A bucket with ``a`` in it, through the proxy; short patience, small windows where none can be given."""
    from objstore.read.feed import ChunkFeed

    monkeypatch.setattr("objstore.read.window.PROGRESS", 0.5)
    monkeypatch.setattr("objstore.read.feed.HEARTBEAT", 0.2)
    monkeypatch.setattr("objstore.read.ranges.read_by_sequence", unpicked)
    monkeypatch.setitem(ChunkFeed.__init__.__kwdefaults__, "window", WINDOW)
    await (await js.create_object_store(bucket=bucket_name)).put("a", DATA)
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        yield await impatient(client, bucket_name, 0.5)
        proxy.to_server = proxy.to_client = None
    await js.delete_object_store(bucket_name)


@pytest.fixture
def patient(faulty: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The same with the usual patience: nothing is asked for again because a machine is busy."""
    monkeypatch.setattr("objstore.read.window.PROGRESS", PROGRESS)
    monkeypatch.setattr("objstore.read.feed.HEARTBEAT", HEARTBEAT)
    faulty.js.timeout = 5.0
    return faulty


async def unpicked(*args: Any) -> None:
    """No range is read chunk by chunk: the windows are what is tested."""
    return


def is_chunk(event: Event) -> bool:
    return isinstance(event, Msg) and len(event.payload) in (CHUNK, 7)


@pytest.mark.parametrize("n", [3, 4, 9, 20, 39])
@pytest.mark.parametrize("action", [DROP, DUPLICATE, CUT, cut_after(CHUNK // 2)], ids=str)
@pytest.mark.parametrize("read", READS)
async def test_one_chunk(
    proxy: FaultProxy, faulty: ObjectStore, tmp_path: Path, read: Read, action: Any, n: int
) -> None:
    seen = 0

    def hook(event: Event, raw: bytes) -> Any:
        nonlocal seen
        seen += is_chunk(event)
        return action if is_chunk(event) and seen == n + 1 else None

    proxy.to_client = hook
    async with asyncio.timeout(LIMIT):
        try:
            assert await read(faulty, tmp_path) == DATA
        except IntegrityError:
            assert action.kind != "cut"
    assert seen > n


@pytest.mark.parametrize("read", READS)
async def test_windows_that_overtake_each_other(
    proxy: FaultProxy, patient: ObjectStore, tmp_path: Path, read: Read
) -> None:
    """Two replicas answer: what the second sends comes while the first has not ended."""
    asked: list[bytes] = []
    seen: dict[bytes, int] = {}
    overtaken = 0

    def to_server(event: Event, raw: bytes) -> None:
        if isinstance(event, Pub) and event.payload.find(b'"batch"') > 0 and event.reply:
            asked.append(event.reply)

    async def to_client(event: Event, raw: bytes) -> Any:
        nonlocal overtaken
        if not isinstance(event, Msg) or event.subject not in asked:
            return None
        window = asked.index(event.subject)
        seen[event.subject] = number = seen.get(event.subject, 0) + 1
        if number == 3:  # two went on to the client, which asks for the next window
            with contextlib.suppress(TimeoutError):
                await eventually(lambda: len(asked) > window + 1 or not event.payload, within=2)
        if number >= 3 and len(asked) > window + 1 and window % 2 == 0:
            return HOLD
        if proxy.held and number == 2:
            overtaken += 1
            asyncio.get_running_loop().call_soon(proxy.release)
        return None

    proxy.to_server, proxy.to_client = to_server, to_client
    async with asyncio.timeout(LIMIT):
        assert await read(patient, tmp_path) == DATA
    if patient._bucket.batch_counts_are_right:  # nats-server 2.11
        assert overtaken >= 4
        assert len(asked) <= 11  # one for each window, none of them again


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("read", READS)
async def test_chunks_between(
    js: JetStreamContext, patient: ObjectStore, tmp_path: Path, read: Read, seed: int
) -> None:
    """Chunks of another object lie between: a window asked for too early brings some twice."""
    rng = random.Random(seed)
    store = await js.object_store(patient.bucket)
    async with store.open_writer("a") as one, store.open_writer("b") as other:
        for start in range(0, SIZE, CHUNK):
            await one.write(DATA[start : start + CHUNK])
            if rng.random() < (0.1, 0.3, 0.6, 1.0)[seed]:
                await other.write(bytes(CHUNK))
    before = patient.js.client.stats.in_bytes
    async with asyncio.timeout(LIMIT):
        assert await read(patient, tmp_path) == DATA
    assert patient.js.client.stats.in_bytes - before < 1.5 * SIZE


async def test_the_next_window_is_on_its_way_before_one_ends(proxy: FaultProxy, patient: ObjectStore) -> None:
    """As many requests as windows, and all but the first are sent before the one before has ended."""
    asked: list[int] = []
    ended = 0

    def to_server(event: Event, raw: bytes) -> None:
        if isinstance(event, Pub) and event.payload.find(b'"next_by_subj"') > 0:
            asked.append(ended)

    async def to_client(event: Event, raw: bytes) -> None:
        nonlocal ended
        if isinstance(event, Msg) and event.header and event.header.startswith(b"NATS/1.0 204"):
            with contextlib.suppress(TimeoutError):  # the client has time to ask before it knows of the end
                await eventually(lambda: len(asked) > ended + 1 or ended == 10, within=5)
            ended += 1

    proxy.to_server, proxy.to_client = to_server, to_client
    assert await patient.get("a", window=WINDOW) == DATA
    if patient._bucket.batches:  # nats-server 2.11
        assert len(asked) == 11
        assert asked == [0, *range(10)]


@pytest.mark.parametrize("window", [0, -1, True, 1.5, "1"])
async def test_bad_windows(faulty: ObjectStore, tmp_path: Path, window: Any) -> None:
    for call in (
        lambda: faulty.get("a", window=window),
        lambda: faulty.get_file("a", tmp_path / "out", window=window),
    ):
        with pytest.raises(ValueError, match="window must be a positive number of bytes"):
            await call()
    with pytest.raises(ValueError, match="window must be a positive number of bytes"):
        faulty.open_reader("a", window=window)


@pytest.mark.parametrize("window", [1, CHUNK + 1, 1 << 40])
async def test_any_window_will_do(faulty: ObjectStore, tmp_path: Path, window: int) -> None:
    assert await faulty.get("a", window=window) == DATA
    await faulty.get_file("a", tmp_path / "out", window=window)
    assert (tmp_path / "out").read_bytes() == DATA
    async with faulty.open_reader("a", window=window) as reader:
        assert await reader.read() == DATA
