"""Sources on a real server: every verb takes them, and what is no source or changes leaves nothing behind."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.server import LocalServer
from objstore import ObjectInfo, ObjectStore, SourceChangedError, sync
from objstore.bucket.threads import RELEASE
from objstore.write.atomic import AtomicPut
from objstore.write.source import open_source
from support.objects import CHUNK, assert_exact, chunk_counts, pattern
from support.waits import eventually

DATA = pattern(2_500_001)
OLD = pattern(CHUNK + 1, 9)

Verb = Callable[[ObjectStore, Any], Awaitable[ObjectInfo]]


async def send(store: ObjectStore, data: Any) -> ObjectInfo:
    upload = await store.begin_upload("a")
    try:
        return await upload.send(data)
    except BaseException:
        await upload.abort()
        raise


VERBS: dict[str, Verb] = {
    "put": lambda store, data: store.put("a", data),
    "put in small chunks": lambda store, data: store.put("a", data, chunk_size=1000),
    "create": lambda store, data: store.create("a", data),
    "upload": send,
}
EVERY = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


class Upload:
    """As web frameworks give it."""

    def __init__(self, data: bytes = DATA) -> None:
        self.file = io.BytesIO(data)
        self.closed = False

    async def read(self, size: int = -1) -> bytes:
        await asyncio.sleep(0)
        return self.file.read(size)

    async def close(self) -> None:
        self.closed = True


@EVERY
async def test_an_upload(store: ObjectStore, verb: Verb) -> None:
    source = Upload()
    source.file.seek(17)
    info = await verb(store, source)
    assert info.size == len(DATA) - 17
    assert await store.get("a") == DATA[17:]
    assert not source.closed
    await assert_exact(store)


@EVERY
async def test_a_reader_of_our_own(store: ObjectStore, verb: Verb) -> None:
    await store.put("source", DATA)
    async with store.open_reader("source") as reader:
        assert await reader.read(100) == DATA[:100]
        await verb(store, reader)
        assert reader.tell() == len(DATA)  # still open
        await reader.seek(5)
        assert await reader.read(5) == DATA[5:10]
    assert await store.get("a") == DATA[100:]
    await assert_exact(store)


@EVERY
async def test_a_stream(store: ObjectStore, verb: Verb) -> None:
    """From a socket, without a line break in it."""
    data = DATA.replace(b"\n", b"-")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port, limit=1000)
        await verb(store, reader)
        writer.close()
        await writer.wait_closed()
    assert await store.get("a") == data


async def test_replacing_itself(store: ObjectStore) -> None:
    """The object that is read is the one that is replaced."""
    await store.put("a", DATA)
    async with store.open_reader("a") as reader:
        await store.put("a", reader)
    assert await store.get("a") == DATA
    await assert_exact(store)


class Failing(Upload):
    async def read(self, size: int = -1) -> Any:
        piece = await super().read(size)
        if self.file.tell() > 1_500_000:
            raise ConnectionResetError("the client is gone")
        return piece


class Wrong(Failing):
    async def read(self, size: int = -1) -> Any:
        try:
            return await super().read(size)
        except ConnectionResetError:
            return "text"


@pytest.mark.parametrize(("source", "error"), [(Failing, ConnectionResetError), (Wrong, TypeError)])
@pytest.mark.parametrize("verb", ["put", "upload"])
async def test_a_source_that_fails(
    store: ObjectStore, verb: str, source: Callable[[], Any], error: type[Exception]
) -> None:
    await store.put("a", OLD)
    with pytest.raises(error):
        await VERBS[verb](store, source())
    assert await store.get("a") == OLD
    await assert_exact(store)


async def test_cancelled_while_the_source_is_silent(store: ObjectStore) -> None:
    await store.put("a", OLD)
    silent = asyncio.Event()

    class Silent(Upload):
        async def read(self, size: int = -1) -> bytes:
            if self.file.tell():
                silent.set()
                await asyncio.Event().wait()
            return await super().read(size)

    task = asyncio.ensure_future(store.put("a", Silent()))
    await asyncio.wait_for(silent.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.get("a") == OLD
    await assert_exact(store)


@EVERY
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
async def test_a_device_without_an_end(store: ObjectStore, device: str, verb: Verb) -> None:
    """It ends when its caller gives up, and leaves nothing."""
    before = await store.put("b", OLD)
    task = asyncio.ensure_future(verb(store, Path(device)))
    async with asyncio.timeout(20):
        while not (await chunk_counts(store)).keys() - {before.nuid}:
            assert not task.done()
    task.cancel()
    async with asyncio.timeout(RELEASE + 10):
        await asyncio.wait([task])
    assert task.cancelled()
    assert await store.names() == ["b"]
    await assert_exact(store)


async def test_a_terminal(store: ObjectStore) -> None:
    """It is read as it is typed on, and a put of one on which nobody types ends with its task."""
    keyboard, screen = os.openpty()
    # Who leads a session and has no terminal gets this one by opening it, and a signal when it is gone.
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        path = Path(os.ttyname(screen))
        os.write(keyboard, b"typed\n\x04")
        await store.put_file("a", path)
        assert await store.get("a") == b"typed\n"
        task = asyncio.ensure_future(store.put_file("a", path))
        await eventually(lambda: any(thread.name == "objstore-read" for thread in threading.enumerate()))
        task.cancel()
        async with asyncio.timeout(RELEASE + 10):
            await asyncio.wait([task])
        assert task.cancelled()
        assert await store.get("a") == b"typed\n"
        await assert_exact(store)
    finally:
        os.close(keyboard)  # its reader finds the end
        os.close(screen)
        signal.signal(signal.SIGHUP, hangup)
    await eventually(lambda: not any(thread.name == "objstore-read" for thread in threading.enumerate()))


async def test_a_device_that_cannot_be_opened(store: ObjectStore, server: LocalServer) -> None:
    """As /dev/tty is for whoever has no terminal."""
    code = """if True:
        import sys
        from objstore import sync
        with sync.connect(sys.argv[1]) as client:
            try:
                client.jetstream().object_store(sys.argv[2]).put_file("a", "/dev/tty")
            except OSError as exc:
                print(type(exc), exc.filename)
    """
    words = [sys.executable, "-c", code, server.url, store.bucket]
    done = await asyncio.to_thread(
        subprocess.run, words, capture_output=True, start_new_session=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"<class 'OSError'> /dev/tty\n", b"")
    assert await store.names() == []
    await assert_exact(store)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
async def test_empty_arrays(store: ObjectStore, shape: tuple[int, int]) -> None:
    import ctypes

    view = memoryview((ctypes.c_double * shape[1] * shape[0])())
    for data in (view, [view, view], [view, b"x", view]):
        info = await store.put("a", data)
        assert await store.get("a") == (b"x" if info.size else b"")
    async with store.open_writer("a") as writer:
        await writer.write(view)
        await writer.write(memoryview(b"a-b-")[::2])
    assert await store.get("a") == b"ab"
    async with store.open_reader("a") as reader:
        assert await reader.readinto(view) == 0
        for refused in (memoryview(b"read only"), memoryview(bytearray(4))[::2]):
            with pytest.raises(TypeError):
                await reader.readinto(refused)
        assert await reader.read() == b"ab"


@pytest.fixture
async def atomic(new_server: LocalServer, bucket_name: str) -> AsyncIterator[ObjectStore]:
    async with natsproto.connect(new_server.url) as nc:
        js = nc.jetstream()
        yield await js.create_object_store(bucket=bucket_name, allow_atomic=True)
        await js.delete_object_store(bucket_name)


async def test_all_or_nothing(atomic: ObjectStore, tmp_path: Path) -> None:
    """The same sources, and the same errors, as one batch."""
    await atomic.put("a", Upload(), atomic=True)
    assert await atomic.get("a") == DATA
    async with atomic.open_reader("a") as reader:
        await atomic.put("b", reader, atomic=True)
    assert await atomic.get("b") == DATA
    with pytest.raises(ConnectionResetError):
        await atomic.put("a", Failing(), atomic=True)
    with pytest.raises(TypeError, match="called, not awaited"):
        await atomic.put("a", b"1", atomic=True, progress=coroutine_function)  # type: ignore[arg-type]
    path = tmp_path / "x"
    path.write_bytes(DATA)
    source = open_source(path)  # as put() begins
    os.truncate(path, len(DATA) - 1)
    whole = AtomicPut(atomic._bucket, await atomic.get_info("a"), chunk_size=CHUNK, ttl=None)
    with pytest.raises(SourceChangedError):
        await whole.load(source, None)
    assert await atomic.get("a") == DATA
    await assert_exact(atomic)


# -- files that change ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1_700_000, len(DATA) - 1, len(DATA) + 1, 2 * len(DATA)])
@pytest.mark.parametrize("how", ["path", "file", "put_file"])
@pytest.mark.parametrize("verb", ["put", "upload"])
async def test_a_file_that_changes(
    store: ObjectStore, tmp_path: Path, verb: str, how: str, size: int
) -> None:
    await store.put("a", OLD)
    path = tmp_path / "x"
    path.write_bytes(DATA)
    changed = False

    def change(done: int, total: int | None) -> None:
        nonlocal changed
        assert total == len(DATA)
        if not changed:
            changed = True
            os.truncate(path, size)

    with path.open("rb", 512) as file, pytest.raises(SourceChangedError):
        if how == "put_file":
            await store.put_file("a", path, progress=change, window=CHUNK)
        elif verb == "put":
            await store.put("a", path if how == "path" else file, progress=change, window=CHUNK)
        else:
            upload = await store.begin_upload("a")
            try:
                await upload.send(path if how == "path" else file, progress=change)
            finally:
                await upload.abort()
    assert await store.get("a") == OLD
    await assert_exact(store)


# -- refused before a byte -----------------------------------------------------------------------------


async def coroutine_function(done: int, total: int | None) -> None: ...


async def test_coroutine_functions_as_callbacks(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", OLD)
    upload = await store.begin_upload("up")
    sent = store.js.client.stats.out_msgs
    callback: Any = coroutine_function
    for call in (
        lambda: store.put("x", b"1", progress=callback),
        lambda: store.create("x", b"1", progress=callback),
        lambda: store.put_file("x", __file__, progress=callback),
        lambda: store.copy("a", "x", progress=callback),
        lambda: upload.send(b"1", progress=callback),
        lambda: store.get("a", progress=callback),
        lambda: store.get_file("a", tmp_path / "x", progress=callback),
        lambda: store.list(on_invalid=callback),
    ):
        with pytest.raises(TypeError, match="called, not awaited"):
            await call()
    for made in (
        lambda: store.open_writer("x", progress=callback),
        lambda: store.iter(on_invalid=callback),
        lambda: store.watch(on_invalid=callback),
    ):
        with pytest.raises(TypeError, match="called, not awaited"):
            made()
    assert store.js.client.stats.out_msgs == sent
    assert os.listdir(tmp_path) == []
    assert list(await chunk_counts(store)) == [(await store.get_info("a")).nuid]


class Whole:
    async def read(self) -> bytes:
        return b""


class TextUpload(Upload):
    encoding = "utf-8"


async def lines() -> AsyncIterator[bytes]:
    yield b""


@pytest.mark.parametrize(
    "data",
    ["text", 5, None, Whole(), TextUpload(), io.StringIO("text"), lines, Upload],
    ids=lambda data: getattr(data, "__name__", type(data).__name__),
)
async def test_no_source(store: ObjectStore, data: Any) -> None:
    upload = await store.begin_upload("a")
    sent = store.js.client.stats.out_msgs
    for call in (store.put, store.create):
        with pytest.raises(TypeError):
            await call("a", data)
    with pytest.raises(TypeError):
        await upload.send(data)
    assert store.js.client.stats.out_msgs == sent


@pytest.mark.parametrize("size", [len(DATA), len(DATA) - 1, len(DATA) + 1], ids=["right", "fewer", "more"])
async def test_streams_of_a_size(store: ObjectStore, server: LocalServer, size: int) -> None:
    """Of another size nothing is stored; the previous object stays."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(DATA), 100_000):
            yield DATA[at : at + 100_000]

    async def write(store: ObjectStore) -> None:
        async with store.open_writer("a", size=size) as writer:
            async for piece in pieces():
                await writer.write(piece)

    def blocking() -> None:
        with sync.connect(server.url) as client:
            there = client.jetstream().object_store(store.bucket)
            there.put("a", (DATA[at : at + 100_000] for at in range(0, len(DATA), 100_000)), size=size)

    old = await store.put("a", OLD)
    ways = (store.put("a", Upload(), size=size), write(store), asyncio.to_thread(blocking))
    for way in ways:
        if size == len(DATA):
            await way
            assert await store.get("a") == DATA
            continue
        with pytest.raises(SourceChangedError, match=f"size is {size}"):
            await way
        assert (await store.get_info("a")).nuid == old.nuid
    await assert_exact(store)
