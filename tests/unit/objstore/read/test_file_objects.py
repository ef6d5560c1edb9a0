"""Objects into open files: plain ones in a thread, asynchronous ones, stream writers; slow and odd ones."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from objstore import DigestMismatchError, ObjectInfo, ObjectStore, ObjectTooLargeError
from objstore.bucket.bucket import Bucket
from objstore.read import file_objects as module
from objstore.read.file_objects import get_into, writer_of
from support.memory_server import MemoryServer

DATA = bytes(range(256)) * 40
CHUNK = 1000


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objstore.read.get.RECHECK_DELAYS", (0.0, 0.0))


@pytest.fixture
async def info(store: ObjectStore) -> ObjectInfo:
    await store.put("a", DATA, chunk_size=CHUNK)
    return await store.get_info("a")


class Asynchronous:
    """An asynchronous file that takes at most ``most`` bytes at a time, and keeps what it is given."""

    def __init__(self, most: int = 1 << 20) -> None:
        self.most = most
        self.kept: list[bytes] = []

    async def write(self, data: bytes) -> int:
        await asyncio.sleep(0)
        self.kept.append(data[: self.most])
        return len(self.kept[-1])


class Plain:
    """A file of which only ``write`` is known, with an answer of its own."""

    def __init__(self, answer: Callable[[bytes], object]) -> None:
        self.data = b""
        self._answer = answer

    def write(self, data: bytes) -> object:
        self.threads = threading.current_thread()
        answer = self._answer(data)
        self.data += data[:answer] if type(answer) is int else data
        return answer


class Raw(io.RawIOBase):
    def __init__(self, answer: int | None) -> None:
        self.answer = answer

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        return self.answer


async def test_binary_files(store: ObjectStore, info: ObjectInfo, tmp_path: Path) -> None:
    """From their position on; they stay open, and nothing of them is closed or flushed."""
    memory = io.BytesIO(b"before")
    memory.seek(0, os.SEEK_END)
    done: list[tuple[int, int | None]] = []
    found = await store.get_file("a", memory, progress=lambda *now: done.append(now), window=3 * CHUNK)
    assert found == info
    assert memory.getvalue() == b"before" + DATA
    assert done[-1] == (len(DATA), len(DATA))
    with open(tmp_path / "out", "wb", 0) as raw:
        await store.get_file("a", raw)
        await store.get_file("a", raw)
    assert (tmp_path / "out").read_bytes() == DATA * 2
    with gzip.open(tmp_path / "out.gz", "wb") as packed:
        await store.get("a", writeinto=packed)
    assert gzip.decompress((tmp_path / "out.gz").read_bytes()) == DATA
    with tempfile.NamedTemporaryFile() as named, tempfile.SpooledTemporaryFile() as spooled:
        for file in (named, spooled):
            await store.get_file("a", file)
            file.seek(0)
            assert file.read() == DATA


@pytest.mark.parametrize("most", [1 << 20, 700])
async def test_asynchronous_files(store: ObjectStore, info: ObjectInfo, most: int) -> None:
    """What they keep stays as it was: no buffer is used again."""
    file = Asynchronous(most)
    assert await store.get_file("a", file, window=2 * CHUNK) == info
    assert b"".join(file.kept) == DATA
    assert all(type(piece) is bytes for piece in file.kept)


async def test_into_another_object(store: ObjectStore, info: ObjectInfo) -> None:
    async with store.open_writer("b") as writer:
        await store.get_file("a", writer)
    assert await store.get("b") == DATA


async def test_a_stream_writer(store: ObjectStore, info: ObjectInfo) -> None:
    ours, theirs = socket.socketpair()
    reader, other = await asyncio.open_connection(sock=theirs)
    _, writer = await asyncio.open_connection(sock=ours)
    assert await store.get("a", writeinto=writer) == info
    writer.close()
    assert await reader.read() == DATA
    for each in (writer, other):
        each.close()
        await each.wait_closed()


@pytest.mark.parametrize(
    "answer", [len, lambda data: min(700, len(data)), lambda data: None, lambda data: True, lambda data: "x"]
)
async def test_what_write_says(
    store: ObjectStore, info: ObjectInfo, answer: Callable[[bytes], object]
) -> None:
    """A number is how many bytes were taken; anything else means all of them."""
    file = Plain(answer)
    await store.get_file("a", file)
    assert file.data == DATA
    assert file.threads is not threading.main_thread()


async def test_a_plain_function_that_gives_awaitables(store: ObjectStore, info: ObjectInfo) -> None:
    taken = []

    def write(data: bytes) -> Awaitable[int]:
        async def later() -> int:
            taken.append(data)
            return len(data)

        return later()

    class File:
        pass

    file: Any = File()
    file.write = write
    await store.get_file("a", file)
    assert b"".join(taken) == DATA


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (Raw(None), BlockingIOError),
        (Raw(0), OSError),
        (Plain(lambda data: -1), OSError),
        (Plain(lambda data: 1 / 0), ZeroDivisionError),
    ],
    ids=["non-blocking", "nothing", "less than nothing", "broken"],
)
async def test_files_that_take_nothing(
    store: ObjectStore, info: ObjectInfo, file: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await store.get_file("a", file)


def closed() -> io.BytesIO:
    file = io.BytesIO()
    file.close()
    return file


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (io.StringIO(), TypeError),
        (7, TypeError),
        (None, TypeError),
        (io.BytesIO, TypeError),
        (closed(), ValueError),
        (io.BufferedReader(io.BytesIO()), io.UnsupportedOperation),
    ],
    ids=["text", "a number", "none", "a class", "closed", "read only"],
)
async def test_what_is_no_file_for_it(
    server: MemoryServer, store: ObjectStore, info: ObjectInfo, file: Any, error: type[Exception]
) -> None:
    """It is refused before anything is asked."""
    server.asked.clear()
    with pytest.raises(error):
        await store.get_file("a", file)
    if file is not None:
        with pytest.raises(error):
            await store.get("a", writeinto=file)
    with pytest.raises(ValueError, match="resume"):
        await store.get_file("a", io.BytesIO(), resume=True)
    assert server.asked == []


async def test_a_text_file(tmp_path: Path) -> None:
    with open(tmp_path / "text", "w") as text, pytest.raises(TypeError, match="'wb'"):
        writer_of(text)  # type: ignore[arg-type]


async def test_bytes_that_are_wrong(server: MemoryServer, store: ObjectStore, info: ObjectInfo) -> None:
    """The file has them by then; the error says so."""
    (chunk, *_) = server.stream().of("$O.b.C.>")
    chunk.payload = bytes(CHUNK)
    file = io.BytesIO()
    with pytest.raises(DigestMismatchError):
        await store.get_file("a", file)
    assert await store.get_file("a", io.BytesIO(), verify=False)


async def test_too_large(store: ObjectStore, info: ObjectInfo, bucket: Bucket) -> None:
    file = io.BytesIO()
    with pytest.raises(ObjectTooLargeError):
        await store.get("a", writeinto=file, max_size=len(DATA) - 1)
    assert file.getvalue() == b""
    await get_into(bucket, "a", writer_of(file), max_size=len(DATA), verify=True)
    assert file.getvalue() == DATA


async def test_a_file_that_takes_nothing_more(
    store: ObjectStore, info: ObjectInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled call leaves its thread behind: the pipe may be full for ever."""
    monkeypatch.setattr(module, "RELEASE", 0.01)
    release, started = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stuck(data: bytes) -> int:
        loop.call_soon_threadsafe(started.set)
        release.wait(10)
        raise OSError("nobody hears of it")

    file = Plain(stuck)
    task = asyncio.ensure_future(store.get_file("a", file))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await asyncio.to_thread(file.threads.join, 10)


async def test_a_cancelled_call_lets_its_thread_finish(store: ObjectStore, info: ObjectInfo) -> None:
    started = asyncio.Event()
    loop = asyncio.get_running_loop()
    release = threading.Event()

    def slow(data: bytes) -> int:
        loop.call_soon_threadsafe(started.set)
        release.wait(10)
        return len(data)

    file = Plain(slow)
    task = asyncio.ensure_future(store.get_file("a", file))
    await started.wait()
    task.cancel()
    loop.call_soon(release.set)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert file.data == DATA[: len(file.data)] != b""


@pytest.mark.parametrize("kind", ["object", "link", "another client's"])
async def test_deleted_objects(
    server: MemoryServer, store: ObjectStore, info: ObjectInfo, tmp_path: Path, kind: str
) -> None:
    """As GetObjectShowDeleted of nats.go: an object without bytes, whatever its marker says."""
    name = "a"
    if kind == "link":
        name = "link"
        await store.add_link(name, info)
    await store.delete(name)
    if kind == "another client's":
        (marker,) = server.stream().of("$O.b.M.YQ==")
        marker.payload = marker.payload.replace(b'"size":0', b'"size":77').replace(
            b'"chunks":0', b'"chunks":3'
        )
    file = io.BytesIO()
    assert await store.get(name, show_deleted=True) == b""
    for found in (
        await store.get(name, show_deleted=True, writeinto=file),
        await store.get_file(name, file, show_deleted=True),
        await store.get_file(name, tmp_path / "out", show_deleted=True),
        await store.get_file(name, tmp_path / "resumed", show_deleted=True, resume=True),
    ):
        assert (found.name, found.deleted, found.size) == (name, True, 0)
    assert file.getvalue() == (tmp_path / "out").read_bytes() == (tmp_path / "resumed").read_bytes() == b""
    async with store.open_reader(name, show_deleted=True) as reader:
        assert (await reader.read(), reader.info.deleted) == (b"", True)
        assert [piece async for piece in reader] == []
    for call in (store.get(name), store.get_file(name, file)):
        with pytest.raises(LookupError):
            await call
    if kind == "link":
        assert await store.get("a", show_deleted=True) == DATA, "what is not deleted is as always"
    with pytest.raises(LookupError):
        await store.get("nothing", show_deleted=True)


async def test_a_link_to_what_is_deleted(store: ObjectStore, info: ObjectInfo) -> None:
    await store.add_link("link", info)
    await store.delete("a")
    with pytest.raises(Exception, match="does not exist"):
        await store.get("link", show_deleted=True)
