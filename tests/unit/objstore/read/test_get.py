"""Reading objects whole, in part and block by block; replaced and damaged ones, and a meta that lies."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError
from objstore import (
    DigestMismatchError,
    IntegrityError,
    ObjectChangedError,
    ObjectInfo,
    ObjectNotFoundError,
    ObjectStore,
    ObjectTooLargeError,
)
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subject
from objstore.read import feed
from objstore.read import get as module
from objstore.read.feed import DEFAULT_WINDOW
from objstore.read.get import (
    DEFAULT_MAX_SIZE,
    blocks,
    buffers,
    chunk_size_of,
    copy_blocks,
    get_bytes,
    get_part,
    get_range,
    in_thread,
    only_chunk,
    reading_window,
)
from objstore.read.parts import NotWhole
from support.fake_session import turns
from support.memory_server import NO_MESSAGE, ROLL_UP, MemoryServer

DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECHECK_DELAYS", (0.0, 0.0))


@pytest.fixture(params=[True, False], ids=["direct", "leader"])
async def store(request: pytest.FixtureRequest, server: MemoryServer) -> ObjectStore:
    return await server.bucket(allow_direct=request.param)


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


def forge(server: MemoryServer, info: ObjectInfo, **changes: Any) -> None:
    server.put_raw(meta_subject("b", info.name), encode_meta(replace(info, **changes)), ROLL_UP)


async def read(bucket: Bucket, name: str = "a", **options: Any) -> bytes:
    options = {"max_size": DEFAULT_MAX_SIZE, "verify": True, **options}
    return await get_bytes(bucket, name, **options)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000, len(DATA)])
@pytest.mark.parametrize("window", [1, 250, DEFAULT_WINDOW])
async def test_whole(store: ObjectStore, bucket: Bucket, size: int, window: int) -> None:
    await store.put("a", DATA[:size], chunk_size=100)
    seen: list[tuple[int, int | None]] = []
    data = await read(bucket, window=window, progress=lambda done, total: seen.append((done, total)))
    assert type(data) is bytes
    assert data == DATA[:size]
    assert seen == sorted(seen)
    if size:
        assert seen[-1] == (size, size)


async def test_the_only_chunk_is_one_request(server: MemoryServer) -> None:
    store = await server.bucket()
    bucket = await bind(server.js, "b")
    info = await store.put("a", DATA)
    server.verbs()
    assert await read(bucket) == DATA
    assert server.verbs() == ["DIRECT.GET", "DIRECT.GET"]
    server.stream().of(f"$O.b.C.{info.nuid}")[0].payload = b"x" * len(DATA)
    assert await only_chunk(bucket, info) is None, "the slow way sees what it means"


async def test_an_object_that_was_replaced_meanwhile(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """The new one is read; if that is replaced as well, somebody has to decide."""
    info = await store.put("a", DATA, chunk_size=100)
    stream = server.stream()
    stream.remove(each.seq for each in stream.of("$O.b.C.*"))
    newer = await store.put("newer", DATA, chunk_size=100)
    raced = False

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal raced
        if (verb != "STREAM.MSG.GET" and verb != "DIRECT.GET") or raced:
            return
        if info.nuid in json.dumps(body):
            raced = True
            forge(server, info, nuid=newer.nuid)

    server.hook = hook
    assert await read(bucket) == DATA
    assert raced


async def test_missing_chunks(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", DATA, chunk_size=100)
    server.stream().remove([server.stream().of(f"$O.b.C.{info.nuid}")[5].seq])
    with pytest.raises(IntegrityError, match="chunks are missing"):
        await read(bucket)
    with pytest.raises(IntegrityError):
        await get_range(bucket, "a", 0, len(DATA))
    server.stream().config["max_age"] = 10**12
    with pytest.raises(ObjectNotFoundError, match="has expired"):
        await read(await bind(server.js, "b"))


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("refused", [set(), {"CONSUMER.CREATE"}])
async def test_that_none_are_there_proves_no_damage(
    server: MemoryServer, store: ObjectStore, size: int, refused: set[str]
) -> None:
    """Whoever may ask the leader can have that sent to our inbox; the number of chunks decides."""
    server.stream().config["allow_direct"] = False
    info = await store.put("a", DATA, chunk_size=size)
    bucket = await bind(server.js, "b")
    server.refused = refused
    wrong = 5

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal wrong
        if verb == "STREAM.MSG.GET" and info.nuid in json.dumps(body) and wrong:
            wrong -= 1
            return NO_MESSAGE
        return None

    server.hook = hook
    assert await read(bucket) == DATA
    server.hook = None
    stream = server.stream()
    stream.remove([stream.of(f"$O.b.C.{info.nuid}")[-1].seq])
    with pytest.raises(IntegrityError, match="chunks are missing"):
        await read(bucket)


async def test_wrong_bytes(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", DATA, chunk_size=100)
    chunk = server.stream().of(f"$O.b.C.{info.nuid}")[5]
    chunk.payload = b"x" * 100
    with pytest.raises(DigestMismatchError):
        await read(bucket)
    unverified = await read(bucket, verify=False)
    assert unverified[500:600] == b"x" * 100
    chunk.payload = b"x" * 101
    with pytest.raises(IntegrityError):
        await read(bucket, verify=False)


@pytest.mark.parametrize(("size", "chunks"), [(11, 1), (1, 0), (2000, 1)])
@pytest.mark.parametrize(
    "refused",
    [set(), {"STREAM.MSG.GET"}, {"STREAM.MSG.GET", "CONSUMER.CREATE"}, {"STREAM.MSG.GET", "DIRECT.GET"}],
    ids=["nothing", "leader", "leader and consumers", "leader and direct get"],
)
async def test_fewer_bytes_than_recorded(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, refused: set[str], size: int, chunks: int
) -> None:
    """As many chunks as are stored were read: nobody waits for more, whichever rights there are."""
    forge(server, await store.put("a", b"x" * 10), size=size, chunks=chunks)
    server.refused = refused
    no_way = "CONSUMER.CREATE" in refused and not bucket.direct
    async with asyncio.timeout(8):
        with pytest.raises(PermissionsViolationError if no_way else IntegrityError):
            await read(bucket)


@pytest.mark.parametrize("chunks", [0, 1])
async def test_no_chunks_at_all(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    """A consumer says at once that it has none: its reader does not wait until it is idle."""
    monkeypatch.setattr(feed, "HEARTBEAT", 100.0)
    forge(server, await store.put("a", b"x"), size=1, chunks=chunks, nuid="none")
    server.refused = {"STREAM.MSG.GET", "DIRECT.GET"}
    async with asyncio.timeout(8):
        with pytest.raises(IntegrityError):
            await read(bucket)
    assert "CONSUMER.CREATE" in server.verbs()


async def test_a_meta_that_lies_about_the_size(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    info = await store.put("a", DATA)
    with pytest.raises(ObjectTooLargeError) as told:
        await read(bucket, max_size=len(DATA) - 1)
    assert (told.value.size, told.value.max_size) == (len(DATA), len(DATA) - 1)
    forge(server, info, size=1 << 62, chunks=1 << 40)
    with pytest.raises(ObjectTooLargeError, match="max_size"):
        await read(bucket)
    with pytest.raises((ObjectTooLargeError, IntegrityError)):
        await read(bucket, max_size=1 << 63)
    with pytest.raises((ObjectTooLargeError, IntegrityError)):
        await get_range(bucket, "a", 0, 1 << 61)


@pytest.mark.parametrize(
    ("start", "end"), [(0, 0), (0, 1), (99, 101), (100, 200), (5, 10_000), (10_239, 99_999), (10_240, 99_999)]
)
async def test_ranges(store: ObjectStore, bucket: Bucket, start: int, end: int) -> None:
    await store.put("a", DATA, chunk_size=100)
    for _ in range(2):  # what was learnt of the object is remembered
        assert await get_range(bucket, "a", start, end) == DATA[start:end]


async def test_ranges_that_cannot_be(store: ObjectStore, bucket: Bucket) -> None:
    await store.put("a", DATA)
    for start, end in ((-1, 5), (5, 4), (len(DATA) + 1, len(DATA) + 2)):
        with pytest.raises(ValueError, match="range"):
            await get_range(bucket, "a", start, end)
    wrong: list[Any] = [("0", 1), (0, 1.5), (True, 5), (0, None)]
    for start, end in wrong:
        with pytest.raises(TypeError, match="integers"):
            await get_range(bucket, "a", start, end)


async def test_block_by_block(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", DATA, chunk_size=100)
    data = b""
    async for block in blocks(bucket, info, window=500):
        data += b"".join(bytes(buffer) for buffer in block)
    assert data == DATA
    assert b"".join([bytes(each) async for each in buffers(bucket, info)]) == DATA
    empty = await store.put("empty", b"")
    assert [block async for block in blocks(bucket, empty)] == []
    await store.put("a", b"newer")
    with pytest.raises(ObjectChangedError):
        async for _ in blocks(bucket, info):
            pass


async def test_left_early_nothing_runs_on(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", DATA, chunk_size=100)
    reading = blocks(bucket, info, window=100)
    await anext(reading)
    await reading.aclose()
    await turns()
    assert server.stream().consumers == {}


async def test_blocks_go_to_a_writer_in_a_thread(store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", DATA, chunk_size=100)
    written: list[bytes] = []
    threads: set[int] = set()

    def write(block: list[Any]) -> None:
        threads.add(threading.get_ident())
        written.extend(map(bytes, block))

    done: list[int] = []
    await copy_blocks(bucket, info, write, verify=True, progress=lambda n, _: done.append(n), window=1000)
    assert b"".join(written) == DATA
    assert threading.get_ident() not in threads
    assert done[-1] == len(DATA)


async def test_a_cancellation_waits_for_the_thread() -> None:
    go, given_up, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        go.wait(10)
        ended.set()

    def give_up() -> None:
        given_up.set()
        go.set()

    task = asyncio.ensure_future(in_thread(work, give_up=give_up))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert given_up.is_set()
    assert ended.is_set()
    assert await in_thread(lambda a, b: a + b, 1, 2) == 3


async def test_the_chunk_size_of_a_copy(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", DATA, chunk_size=100)
    assert await chunk_size_of(bucket, info, 10**6) == 100
    assert await chunk_size_of(bucket, info, 50) == 50
    assert await chunk_size_of(bucket, replace(info, options=None), 100) is None
    lying = replace(info, chunks=2)
    assert await chunk_size_of(bucket, lying, 10**6) == len(DATA) // 2, (
        "never below what they have on average"
    )
    server.put_raw(f"$O.b.C.{info.nuid}", b"1")
    server.put_raw(f"$O.b.C.{info.nuid}", b"2")
    with pytest.raises(IntegrityError, match="are stored"):
        await chunk_size_of(bucket, info, 10**6)


def test_windows() -> None:
    assert reading_window(None) == DEFAULT_WINDOW
    assert reading_window(1) == 1
    wrong: list[Any] = [0, -1, True, 1.5, "1"]
    for window in wrong:
        with pytest.raises(ValueError, match="window must be a positive number"):
            reading_window(window)


async def test_parts_of_one_revision(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", DATA, chunk_size=1000)
    assert await get_part(bucket, info, 0, len(DATA)) == DATA
    assert await get_part(bucket, info, 1500, 2500) == DATA[1500:2500]
    assert await get_part(bucket, info, 5, 5) == b""
    wrong = replace(info, digest="SHA-256=" + "00" * 32)
    forge(server, wrong)
    with pytest.raises(DigestMismatchError):
        await get_part(bucket, wrong, 0, len(DATA))
    await store.put("a", DATA[::-1], chunk_size=1000)
    for start, end in ((0, len(DATA)), (1500, 2500)):
        with pytest.raises(ObjectChangedError):
            await get_part(bucket, info, start, end)
    huge = replace(info, size=1 << 62, chunks=1 << 40)
    with pytest.raises((ObjectTooLargeError, ObjectChangedError)):
        await get_part(bucket, huge, 0, 1 << 62)


@pytest.mark.parametrize("damaged", [False, True])
async def test_a_copy_that_is_gone_when_its_number_is_asked_for(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, damaged: bool
) -> None:
    """More was read than there should be; now as many chunks are there as there should be."""
    info = await store.put("a", DATA, chunk_size=1000)
    if damaged:
        for each in server.stream().of(f"$O.b.C.{info.nuid}"):
            each.payload += b"x"
    more = IntegrityError("more bytes than recorded are stored", bucket="b", name="a")
    with pytest.raises(IntegrityError if damaged else NotWhole):
        await module.again(bucket, info, more)
