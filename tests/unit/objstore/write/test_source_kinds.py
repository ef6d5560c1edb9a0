"""What counts as a source, what does not and is refused at once, and files that change under the reader."""

from __future__ import annotations

import array
import asyncio
import ctypes
import functools
import gzip
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from objstore import SourceChangedError
from objstore.bucket.operation import check_callback
from objstore.bucket.threads import RELEASE
from objstore.format.chunking import Chunker, flat_view
from objstore.write import source as _source
from objstore.write.source import open_source
from support.waits import eventually, eventually_here

DATA = bytes(range(256)) * 10


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_source, "READ_BLOCK", 100)


async def read(data: Any) -> bytes:
    return b"".join([bytes(piece) async for piece in open_source(data).pieces()])


class Upload:
    """Nothing but an asynchronous read()."""

    def __init__(self) -> None:
        self.file = io.BytesIO(DATA)
        self.closed = False

    async def read(self, size: int = -1) -> Any:
        return self.file.read(size)

    async def close(self) -> None:
        self.closed = True


class Lines(Upload):
    """Also iterable, by lines, as stream readers and asynchronous files are."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        raise ValueError("a line is too long")
        yield b""


class Seekable(Upload):
    """With asynchronous versions of everything else, as asynchronous files have them."""

    async def readable(self) -> bool:
        return True

    async def seekable(self) -> bool:
        return True

    async def tell(self) -> int:
        return self.file.tell()

    async def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)


class Refilling(Upload):
    """Gives the same buffer again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = bytearray(70)

    async def read(self, size: int = -1) -> Any:
        return memoryview(self.buffer)[: self.file.readinto(self.buffer)]


class Partly(Upload):
    def __init__(self) -> None:
        super().__init__()
        self.read = functools.partial(Upload.read, self)  # type: ignore[method-assign]


class Called:
    async def __call__(self, size: int) -> bytes:
        return await self.upload.read(size)

    def __init__(self, upload: Upload) -> None:
        self.upload = upload


class ByObject(Upload):
    def __init__(self) -> None:
        super().__init__()
        self.read = Called(Upload())  # type: ignore[assignment]


def wrapped(function: Callable[..., Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Awaitable[bytes]:
        return function(*args)

    return wrapper


class Decorated(Upload):
    read = wrapped(Upload.read)  # type: ignore[assignment]


class Plain(Upload):
    """A plain function that gives a coroutine: only its result tells."""

    def read(self, size: int = -1) -> Any:  # type: ignore[override]
        return Upload.read(self, size)


class IterableOnly:
    """Asynchronously iterable, with a read() that is something else."""

    def read(self) -> bytes:
        raise AssertionError("not this one")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(DATA), 100):
            yield DATA[at : at + 100]


class WholeOnly(IterableOnly):
    async def read(self) -> bytes:  # type: ignore[override]
        raise AssertionError("not this one")


ASYNC = [Upload, Lines, Seekable, Refilling, Partly, ByObject, Decorated, Plain, IterableOnly, WholeOnly]


@pytest.mark.parametrize("kind", ASYNC)
async def test_asynchronous(kind: Any) -> None:
    source = kind()
    assert not open_source(source).restartable or kind is Plain
    assert await read(source) == DATA
    assert not getattr(source, "closed", False)


@pytest.mark.parametrize("kind", [Upload, Lines, Seekable, Refilling, Plain])
async def test_from_where_it_stands(kind: Any) -> None:
    source = kind()
    source.file.seek(1000)
    assert await read(source) == DATA[1000:]


async def test_stream_reader() -> None:
    reader = asyncio.StreamReader(limit=64)  # a line longer than that is an error to its iteration
    reader.feed_data(DATA)
    reader.feed_eof()
    assert await reader.readexactly(10) == DATA[:10]
    assert await read(reader) == DATA[10:]


async def test_given_up_while_a_plain_function_is_read() -> None:
    """A coroutine that was read ahead is not left to the garbage collector."""
    pieces = open_source(Plain()).pieces()
    assert bytes(await anext(pieces)) == DATA[:100]
    await pieces.aclose()  # type: ignore[attr-defined]


class Text(Upload):
    encoding = "utf-8"


class Whole:
    async def read(self) -> bytes:
        raise AssertionError("not to be called")


class SyncWhole:
    def read(self) -> bytes:
        raise AssertionError("not to be called")


async def coroutine() -> bytes:
    return b""


@pytest.mark.parametrize(
    "data",
    [
        Text(),
        Whole(),
        SyncWhole(),
        io.StringIO("x"),
        coroutine,
        5,
        None,
        object(),
    ],
    ids=lambda data: type(data).__name__,
)
def test_refused_at_once(data: Any) -> None:
    with pytest.raises(TypeError):
        open_source(data)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file, pytest.raises(io.UnsupportedOperation, match="rb"):
        open_source(file)
    with pytest.raises(ValueError, match="closed"):
        open_source(file)
    with pytest.raises(IsADirectoryError):
        open_source(tmp_path)
    with path.open("w") as text, pytest.raises(TypeError, match="rb"):
        open_source(text)
    with tempfile.SpooledTemporaryFile(mode="w+") as text, pytest.raises(TypeError, match="rb"):
        open_source(text)
    with tempfile.NamedTemporaryFile("w+") as text, pytest.raises(TypeError, match="rb"):
        open_source(text)


@pytest.mark.parametrize("wrong", ["text", 5, None])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_read_gives_no_bytes(wrong: Any, asynchronous: bool) -> None:
    class Async:
        async def read(self, size: int) -> Any:
            return wrong

    class Sync:
        def read(self, size: int) -> Any:
            return wrong

    with pytest.raises((TypeError, BlockingIOError)):
        await read(Async() if asynchronous else Sync())


# -- buffers -------------------------------------------------------------------------------------------


class BigEndian(ctypes.BigEndianStructure):
    _fields_ = (("a", ctypes.c_uint32),)


BUFFERS: dict[str, tuple[Any, bytes]] = {
    "empty, one dimension": (memoryview(array.array("d")), b""),
    "empty, two dimensions": ((ctypes.c_int * 0 * 3)(), b""),
    "empty, the other way": ((ctypes.c_int * 3 * 0)(), b""),
    "empty slice": (memoryview(b"abc")[3:], b""),
    "empty, strided": (memoryview(b"abc")[3::2], b""),
    "two dimensions": (memoryview(b"abcdef").cast("B", (2, 3)), b"abcdef"),
    "no dimension": (ctypes.c_uint16(0x4141), b"AA"),
    "strided": (memoryview(b"a-b-c-")[::2], b"abc"),
    "backwards": (memoryview(b"abc")[::-1], b"cba"),
    "wide": (array.array("H", [0x4141, 0x4242]), b"AABB"),
    "wide and strided": (memoryview(array.array("H", [0x4141, 0, 0x4242, 0]))[::2], b"AABB"),
    "another byte order": (BigEndian(0x41424344), b"ABCD"),
    "characters": (memoryview(b"abc").cast("c"), b"abc"),
}


@pytest.mark.parametrize(("data", "held"), BUFFERS.values(), ids=BUFFERS)
async def test_buffers(data: Any, held: bytes) -> None:
    view = flat_view(data)
    assert (view.format, view.ndim, view.tobytes()) == ("B", 1, held)
    source = open_source(data)
    assert source.size == len(held)
    for copy in (True, False):
        chunker = Chunker(2, copy=copy)
        chunks = [bytes(chunk) for piece in (data, b"", data) for chunk in chunker.push(piece)]
        last = chunker.finish()
        assert b"".join(chunks) + (b"" if last is None else bytes(last)) == held * 2
    assert b"".join([bytes(piece) async for piece in open_source([data, data]).pieces()]) == held * 2


def test_no_copy_where_none_is_needed() -> None:
    data = bytearray(b"abcdef")
    view = flat_view(memoryview(data).cast("B", (2, 3)))
    view[0] = 65
    assert data == b"Abcdef"


# -- files that change ---------------------------------------------------------------------------------


def changes(path: Path, data: Any, size: int, after: int) -> Callable[[], Any]:
    """Start a pass that changes the file's size once so many pieces came."""

    async def run() -> bytes:
        found = b""
        count = 0
        async for piece in open_source(data).pieces():
            count += 1
            if count == after:
                os.truncate(path, size)
            found += piece
        return found

    return run


@pytest.mark.parametrize("opened", ["path", "file", "raw", "temporary", "update"])
@pytest.mark.parametrize(("size", "after"), [(1000, 1), (0, 1), (2559, 2), (2561, 1), (100_000, 1)])
async def test_changed_while_it_is_read(tmp_path: Path, opened: str, size: int, after: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(DATA)
    if opened == "path":
        with pytest.raises(SourceChangedError, match="2560 bytes"):
            await changes(path, path, size, after)()
        return
    with tempfile.NamedTemporaryFile(buffering=128, dir=tmp_path) as temporary:
        temporary.write(DATA)
        temporary.flush()
        temporary.seek(0)
        if opened == "temporary":
            path = Path(temporary.name)
            data: Any = temporary
        else:
            mode, buffering = {"file": ("rb", 128), "raw": ("rb", 0), "update": ("r+b", 128)}[opened]
            data = path.open(mode, buffering)
        try:
            with pytest.raises(SourceChangedError):
                await changes(path, data, size, after)()
            assert not data.closed
        finally:
            data.close()


async def test_the_part_after_the_position_counts(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(DATA)
    with path.open("rb", 128) as file:
        file.seek(2000)
        assert open_source(file).size == 560
        assert await read(file) == DATA[2000:]
        file.seek(5000)
        assert await read(file) == b""
        file.seek(2000)
        with pytest.raises(SourceChangedError):
            await changes(path, file, 2400, 1)()


TEMPORARY = [tempfile.TemporaryFile, tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile]


@pytest.mark.parametrize("kind", TEMPORARY)
@pytest.mark.parametrize("size", [10, 5000, 50_000])
async def test_written_just_now(kind: Any, size: int) -> None:
    """What its own buffer has not written to disk yet belongs to the file."""
    data = (DATA * 20)[:size]
    with kind() as file:
        file.write(data)
        file.seek(0)
        assert open_source(file).size == size
        assert await read(file) == data
        file.write(b"more")
        file.seek(3)
        assert await read(file) == data[3:] + b"more"


async def test_memory_that_changes() -> None:
    data = io.BytesIO(DATA)
    pieces = open_source(data).pieces()
    await anext(pieces)
    data.truncate(1000)
    with pytest.raises(SourceChangedError):
        async for _ in pieces:
            pass


async def test_growing_for_ever(tmp_path: Path) -> None:
    """A log that grows faster than it is read is refused at its first byte too many."""
    path = tmp_path / "log"
    path.write_bytes(DATA)
    read_in_all = 0
    with pytest.raises(SourceChangedError, match="and more"):
        async for piece in open_source(path).pieces():
            read_in_all += len(piece)
            with path.open("ab") as log:
                log.write(DATA)
    assert read_in_all <= len(DATA)


async def test_empty_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    source = open_source(path)
    path.write_bytes(b"data")
    with pytest.raises(SourceChangedError):
        async for _ in source.pieces():
            pass


MADE_UP = ["/proc/version", "/proc/cmdline", "/sys/kernel/mm/transparent_hugepage/enabled"]


@pytest.mark.parametrize("path", [path for path in MADE_UP if os.path.exists(path)])
async def test_files_whose_size_is_made_up(path: str) -> None:
    data = await read(Path(path))
    assert data
    with open(path, "rb") as file:
        assert len(await read(file)) == len(data)


async def test_what_is_no_plain_file_has_no_size(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(DATA))
    with gzip.open(path) as file:
        assert open_source(file).size is None
        assert await read(file) == DATA

    class Decoding(io.BufferedReader):
        """Reads something else than what its file holds."""

        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size).hex().encode()

    plain = tmp_path / "x"
    plain.write_bytes(DATA)
    with Decoding(plain.open("rb", 0)) as decoding:  # type: ignore[arg-type]
        assert await read(decoding) == DATA.hex().encode()


async def test_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    source = open_source(path)
    assert (source.size, source.restartable) == (None, False)
    writing = asyncio.create_task(asyncio.to_thread(path.write_bytes, DATA))
    assert b"".join([bytes(piece) async for piece in source.pieces()]) == DATA
    await writing


def named(name: str) -> set[int]:
    """Threads of this process."""
    return {thread.native_id for thread in threading.enumerate() if thread.name == name and thread.native_id}


def threads(pid: int) -> set[int]:
    return {int(name) for name in os.listdir(f"/proc/{pid}/task")}


def asleep(pid: int, which: set[int]) -> bool:
    """Whether there are any of these threads, and all of them wait in the kernel."""
    stats = [Path(f"/proc/{pid}/task/{tid}/stat").read_text() for tid in which]
    return bool(stats) and all(stat.rpartition(") ")[2].startswith("S") for stat in stats)


@pytest.mark.parametrize("opened", [False, True], ids=["path", "file"])
async def test_a_pipe_that_stays_silent(tmp_path: Path, opened: bool) -> None:
    """Whoever gives up waiting for it need not wait for its next byte."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    keep = os.open(path, os.O_RDWR) if opened else -1
    file = path.open("rb") if opened else None
    reading = asyncio.create_task(read(path if file is None else file))
    await eventually(lambda: asleep(os.getpid(), named("objstore-read")))  # so it is at the pipe
    reading.cancel()
    async with asyncio.timeout(RELEASE + 5):
        await asyncio.wait([reading])
    assert reading.cancelled()
    if file is None:
        keep = os.open(path, os.O_RDWR)  # its opener goes on, reads the end, and closes it
    os.close(keep)
    for thread in threading.enumerate():
        if thread.name == "objstore-read":
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()
    await asyncio.sleep(0)
    if file is not None:
        file.close()


@pytest.mark.parametrize("how", ["path", "file"])
def test_one_interrupt_ends_the_program(tmp_path: Path, how: str) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    keep = os.open(path, os.O_RDWR) if how == "file" else -1
    program = f"""if True:
        import asyncio, pathlib, signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us may ignore it
        from objstore.write.source import open_source
        path = pathlib.Path({str(path)!r})

        async def main():
            source = open_source(path if {how!r} == "path" else path.open("rb"))
            print("reading", flush=True)
            async for piece in source.pieces():
                pass

        asyncio.run(main())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reading\n"
        eventually_here(lambda: asleep(process.pid, threads(process.pid) - {process.pid}))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=RELEASE + 10)
    finally:
        process.kill()
        process.wait()
        if keep >= 0:
            os.close(keep)
    assert b"KeyboardInterrupt" in err
    assert b"Fatal" not in err


# -- callbacks -----------------------------------------------------------------------------------------


async def an_async_function(done: int, total: int | None) -> None: ...


async def an_async_generator(done: int, total: int | None) -> AsyncIterator[None]:
    yield


class CalledAsync:
    async def __call__(self, done: int, total: int | None) -> None: ...

    async def method(self, done: int, total: int | None) -> None: ...


@pytest.mark.parametrize(
    "callback",
    [
        an_async_function,
        an_async_generator,
        CalledAsync(),
        CalledAsync().method,
        functools.partial(an_async_function, 1),
        wrapped(an_async_function),  # type: ignore[arg-type]
        5,
        "text",
    ],
    ids=lambda callback: getattr(callback, "__name__", type(callback).__name__),
)
def test_callbacks_that_would_never_run(callback: Any) -> None:
    with pytest.raises(TypeError, match="progress"):
        check_callback("progress", callback)


@pytest.mark.parametrize(
    "callback", [None, print, [].append, lambda done, total: None, functools.partial(print)]
)
def test_callbacks(callback: Any) -> None:
    check_callback("progress", callback)
