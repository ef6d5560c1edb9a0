"""Reads, lists and watches under faults: exact bytes or a typed error within a bound; no name is missed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import NatsError, StaleConnectionError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from natsproto.testing import CUT, DROP, DUPLICATE, HOLD, FaultProxy, corrupt
from natsproto.wire import Msg
from objstore import IntegrityError, ObjectInfo, ObjectStore
from objstore.bucket.bucket import RECHECK_DELAYS
from objstore.maintenance import verify as _verify
from objstore.read import get as _get
from support.objects import CHUNK, MIB, impatient, pattern, stream
from support.waits import held

LIMIT = 30.0
DATA = pattern(40 * CHUNK + 7)


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture(params=["direct", "leader only"])
async def plain(
    request: pytest.FixtureRequest, js: JetStreamContext, bucket_name: str
) -> AsyncIterator[ObjectStore]:
    """A bucket read in batches or through a consumer; ``a`` is in it."""
    store = await js.create_object_store(bucket=bucket_name, allow_direct=request.param == "direct")
    await store.put("a", DATA)
    yield store
    await js.delete_object_store(bucket_name)


@pytest.fixture
async def faulty(
    proxy: FaultProxy, plain: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    """The same bucket through the proxy, with short patience."""
    monkeypatch.setattr("objstore.read.window.PROGRESS", 0.5)
    monkeypatch.setattr("objstore.read.feed.HEARTBEAT", 0.2)
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        yield await impatient(client, plain.bucket, 0.5)
        proxy.to_server = proxy.to_client = None
        proxy.blackhole(False)


def chunk_frames(n: int, action: Any) -> tuple[Callable[[Any, bytes], Any], asyncio.Event]:
    """A hook that acts on the n-th chunk that comes, once; the last one counts as -1."""
    seen = 0
    hit = asyncio.Event()
    number = 40 if n < 0 else n

    def hook(event: Any, raw: bytes) -> Any:
        nonlocal seen
        if isinstance(event, Msg) and len(event.payload) in (CHUNK, 7):
            seen += 1
            if seen == number + 1:
                hit.set()
                return action() if callable(action) else action
        return None

    return hook, hit


@pytest.mark.parametrize("n", [0, 20, -1])
@pytest.mark.parametrize("action", [DROP, DUPLICATE, CUT], ids=str)
async def test_chunk(proxy: FaultProxy, faulty: ObjectStore, tmp_path: Path, n: int, action: Any) -> None:
    """C1: lost, doubled, cut off: read all the same."""
    out = tmp_path / "out"
    for read in ("get", "get_file"):
        proxy.to_client, hit = chunk_frames(n, action)
        async with asyncio.timeout(LIMIT):
            if read == "get":
                assert await faulty.get("a") == DATA
            else:
                await faulty.get_file("a", out)
                assert out.read_bytes() == DATA
                out.unlink()
        assert hit.is_set() or n < 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("n", [0, 20])
async def test_chunks_swapped(proxy: FaultProxy, faulty: ObjectStore, n: int) -> None:
    hold, hit = chunk_frames(n, HOLD)

    def hook(event: Any, raw: bytes) -> Any:
        result = hold(event, raw)
        if result is None and proxy.held:
            asyncio.get_running_loop().call_soon(proxy.release)
        return result

    proxy.to_client = hook
    async with asyncio.timeout(LIMIT):
        assert await faulty.get("a") == DATA
    assert hit.is_set()


@pytest.mark.parametrize("n", [0, 20])
async def test_bit_flip(proxy: FaultProxy, faulty: ObjectStore, tmp_path: Path, n: int) -> None:
    """The digest notices; no file is left."""
    (tmp_path / "out").write_bytes(b"before")
    for read in ("get", "get_file"):
        proxy.to_client = None
        async with asyncio.timeout(LIMIT):
            await faulty.get("a")  # nats-server 2.9 shows with the first read that it has no batches
            proxy.to_client, hit = chunk_frames(n, corrupt())
            with pytest.raises(IntegrityError):
                await (faulty.get("a") if read == "get" else faulty.get_file("a", tmp_path / "out"))
        assert hit.is_set()
    assert (tmp_path / "out").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("size", [7, 3 * CHUNK + 7])
async def test_a_copy_of_a_chunk_that_is_removed_meanwhile(
    plain: ObjectStore, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that came twice is there until its writer hears of it: nothing is damaged."""
    for module in (
        _get,
        _verify,
    ):  # on a busy machine that may take a while
        monkeypatch.setattr(module, "RECHECK_DELAYS", (*RECHECK_DELAYS, 1.0, 2.0, 4.0))
    js, name = plain.js, stream(plain)
    info = await plain.put("b", DATA[:size])
    subject = f"$O.{plain.bucket}.C.{info.nuid}"

    async def removed_soon(read: Awaitable[Any]) -> Any:
        copy = await js.publish(subject, DATA[max(0, size - CHUNK) : size])
        reading = asyncio.ensure_future(read)
        await held(0.1)
        await js.delete_message(name, copy.seq)
        return await reading

    assert await removed_soon(plain.get("b")) == DATA[:size]
    assert await removed_soon(plain.get_range("b", 2, size)) == DATA[2:size]
    assert (await removed_soon(plain.verify(deep=True))).ok
    with contextlib.suppress(StaleConnectionError):  # what was read goes to waste: read again
        await removed_soon(plain.get_file("b", tmp_path / "b"))
        assert (tmp_path / "b").read_bytes() == DATA[:size]


async def test_three_cuts(proxy: FaultProxy, faulty: ObjectStore, plain: ObjectStore) -> None:
    """C3: resumed from the cursor, not from the start."""
    count = 0

    def hook(event: Any, raw: bytes) -> Any:
        nonlocal count
        if isinstance(event, Msg) and len(event.payload) == CHUNK:
            count += 1
            if count in (8, 20, 35):
                return CUT
        return None

    proxy.to_client = hook
    async with asyncio.timeout(LIMIT):
        assert await faulty.get("a") == DATA
    assert proxy.accepted >= 4


async def test_blackhole(proxy: FaultProxy, faulty: ObjectStore) -> None:
    """Silence is noticed; when the network comes back the read goes on."""

    async def silence() -> None:
        proxy.blackhole()
        await held(0.8)
        proxy.blackhole(False)

    tasks: list[asyncio.Task[None]] = []
    proxy.to_client, hit = chunk_frames(5, lambda: tasks.append(asyncio.ensure_future(silence())))
    async with asyncio.timeout(LIMIT):
        assert await faulty.get("a") == DATA
    assert hit.is_set()
    await tasks[0]


@pytest.mark.parametrize("direct", [True, False])
async def test_server_killed(direct: bool) -> None:
    async with (
        LocalServer() as server,
        FaultProxy(server.url) as proxy,
        natsproto.connect(proxy.url, reconnect_wait=0.02) as client,
    ):
        store = await client.jetstream().create_object_store(bucket="b", allow_direct=direct)
        await store.put("a", DATA)

        def crash() -> None:
            server.kill()
            server.start()

        async def kill() -> Any:
            # The hook is cancelled when the connection ends; the restart must not be.
            await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(crash)))
            return CUT

        proxy.to_client, hit = chunk_frames(12, kill)
        async with asyncio.timeout(LIMIT):
            assert await store.get("a") == DATA
        assert hit.is_set()


async def test_slow_sink(js: JetStreamContext, bucket_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C6, C8: the reader is slower than the server: no chunk is lost, no wedge, memory stays bounded."""

    data = pattern(40 * MIB)
    for direct in (True, False):
        store = await js.create_object_store(bucket=bucket_name, allow_direct=direct)
        await store.put("a", data)
        info = await store.get_info("a")
        got = bytearray()

        def write(block: Any, got: bytearray = got) -> None:
            for piece in block:
                got.extend(piece)

        async def in_thread(function: Any, block: Any, got: bytearray = got) -> None:
            if len(got) < 8 * MIB:  # every early block waits until the feed has nothing more to do
                for _ in range(50):
                    await asyncio.sleep(0)
            function(block)

        monkeypatch.setattr(_get, "in_thread", in_thread)
        async with asyncio.timeout(LIMIT):
            await _get.copy_blocks(store._bucket, info, write, verify=True, progress=None)
        assert bytes(got) == data
        assert await js.consumer_names(stream(store)) == []
        await js.delete_object_store(bucket_name)


# -- memory: B12, S11 -----------------------------------------------------------------------------------

PROGRAM = """
    import asyncio, sys, natsproto
    url, verb, path, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

    def status(key):
        for line in open("/proc/self/status"):
            if line.startswith(key):
                return int(line.split()[1])

    async def main():
        async with natsproto.connect(url) as nc:
            store = await nc.jetstream().object_store("rss")
            before = status("VmRSS")
            if verb == "put":
                info = await store.put_file("a", path)
            else:
                info = await store.get_file("a", path)
            assert info.size == size
            print((status("VmHWM") - before) // 1024)

    asyncio.run(main())
"""


async def test_memory(server: LocalServer, js: JetStreamContext, tmp_path: Path) -> None:
    """256 MiB to and from a file in less than 64 MiB."""
    size = 256 * MIB
    path = tmp_path / "in"
    with path.open("wb") as file:
        block = pattern(MIB)
        for n in range(256):
            file.write(n.to_bytes(4, "big") + block[4:])
    await js.create_object_store(bucket="rss")
    try:
        for verb, name in (("put", "in"), ("get", "out")):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                textwrap.dedent(PROGRAM),
                server.url,
                verb,
                os.fspath(tmp_path / name),
                str(size),
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.fspath(Path(natsproto.__file__).parent.parent)},
            )
            output, _ = await process.communicate()
            assert process.returncode == 0
            assert int(output) < 64, f"{verb}: {int(output)} MiB"
        with path.open("rb") as one, (tmp_path / "out").open("rb") as two:
            while block := one.read(MIB):
                assert two.read(MIB) == block
    finally:
        await js.delete_object_store("rss")


async def test_size_bomb(store: ObjectStore) -> None:
    """A meta that claims a gigabyte costs no gigabyte."""
    from support.objects import forge

    await store.put("a", b"small")
    await forge(store, "a", size=(1 << 30) - 1, chunks=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IntegrityError):
        await store.get("a")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


# -- list and watch: D4, D6 -------------------------------------------------------------------------------


@pytest.mark.parametrize("updates_only", [False, True])
async def test_watch_with_cuts(
    server: LocalServer, proxy: FaultProxy, store: ObjectStore, updates_only: bool
) -> None:
    """I7: the last state of every name, each revision at most once, in order, over three cuts."""
    names = [f"n{n}" for n in range(60)]
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        mine = await client.jetstream().object_store(store.bucket)
        async with mine.watch(updates_only=updates_only) as watcher:
            seen: list[ObjectInfo] = []

            async def read() -> None:
                async for info in watcher:
                    seen.append(info)
                    if info.name == "end":
                        return

            reading = asyncio.create_task(read())
            for n, name in enumerate(names):
                await store.put(name, b"")
                await store.put("hot", b"", str(n))
                if n in (0, 20, 40):
                    proxy.cut()
            await store.put("end", b"")
            async with asyncio.timeout(LIMIT):
                await reading
            assert len(await store.js.consumer_names(stream(store))) <= 2
        last = {info.name: info.revision for info in seen}
        assert last == {info.name: info.revision for info in await store.list()}
        revisions = [info.revision for info in seen]
        assert revisions == sorted(set(revisions))


async def test_watch_server_killed(tmp_path: Path) -> None:
    async with LocalServer() as server, natsproto.connect(server.url, reconnect_wait=0.02) as client:
        store = await client.jetstream().create_object_store(bucket="b")
        for n in range(20):
            await store.put(str(n), b"")
        async with store.watch() as watcher:
            async with asyncio.timeout(LIMIT):
                found = [await anext(watcher) for _ in range(20)]
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                await store.put("new", b"")
                found.append(await anext(watcher))
        assert [info.name for info in found] == [*map(str, range(20)), "new"]


async def test_many_reconnects(proxy: FaultProxy, server: LocalServer, store: ObjectStore) -> None:
    """D6: consumers do not pile up."""
    reconnected = asyncio.Event()
    async with natsproto.connect(
        proxy.url, reconnect_wait=0.01, reconnect_wait_max=0.02, reconnected_cb=reconnected.set
    ) as client:
        mine = await client.jetstream().object_store(store.bucket)
        async with mine.watch() as watcher:
            for _ in range(10):
                reconnected.clear()
                proxy.cut()
                async with asyncio.timeout(LIMIT):
                    await reconnected.wait()
            await store.put("a", b"")
            async with asyncio.timeout(LIMIT):
                assert (await anext(watcher)).name == "a"
            assert len(await store.js.consumer_names(stream(store))) <= 2


async def test_list_cut_off(proxy: FaultProxy, store: ObjectStore, nc: Client) -> None:
    """A list that lost its connection half-way is complete, or an error."""
    names = [f"n{n:03}" for n in range(200)]
    await asyncio.gather(*(store.put(name, b"") for name in names))
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        mine = await client.jetstream().object_store(store.bucket)
        prefix = f"$O.{store.bucket}.M.".encode()
        for action in (CUT, DROP):
            count = 0

            def hook(event: Any, raw: bytes, action: Any = action) -> Any:
                nonlocal count
                if isinstance(event, Msg) and event.subject.startswith(prefix):
                    count += 1
                    if count == 100:
                        return action
                return None

            proxy.to_client = hook
            async with asyncio.timeout(LIMIT):
                try:
                    assert sorted(info.name for info in await mine.list()) == names
                except NatsError:
                    pytest.fail("a list is resumed")
