"""Open files: what is read, and what is visible when."""

from __future__ import annotations

import errno
import gzip
import io
import pickle
import shutil
from collections.abc import Callable
from typing import IO

import fsspec
import pytest
from fsspec.asyn import sync
from fsspec.caching import caches
from fsspec.core import OpenFile

from objstore import DigestMismatchError, StoreFullError
from objstore.filesystem import NatsObjectFileSystem, reading
from objstore.filesystem.files import ObjectFile, PackedFile
from objstore.filesystem.reading import Pinned, RunningDigest
from objstore.filesystem.writing import Writing
from support.memory_server import MemoryServer
from support.objects import forge, pattern, wire_digest

DATA = pattern(300_000)
LARGE = b"x" * (5 << 20)


def forge_digest(fs: NatsObjectFileSystem, name: str) -> None:
    async def forge_it() -> None:
        await forge(await fs._store("b"), name, digest=wire_digest(b"x"))

    sync(fs.loop, forge_it)


def test_reading(fs: NatsObjectFileSystem) -> None:
    fs.pipe_file("b/a", DATA)
    with fs.open("b/a", "rb", block_size=50_000) as file:
        assert file.read(10) == DATA[:10]
        assert file.seek(-10, 2) == 299_990
        assert file.read() == DATA[-10:]
        assert file.seek(100_000) == 100_000
        assert file.read(150_000) == DATA[100_000:250_000]
        assert file.size == 300_000
        assert file.info()["digest"] == fs.ukey("b/a")
        buffer = bytearray(5)
        file.seek(7)
        assert file.readinto(buffer) == 5
        assert buffer == DATA[7:12]
    with fs.open("b/a", "rb", cache_type="none") as file:
        assert file.read() == DATA
    with pytest.raises(FileNotFoundError):
        fs.open("b/none", "rb")
    with pytest.raises(IsADirectoryError):
        fs.open("b", "rb")
    with pytest.raises(NotImplementedError):
        fs.open("b/a", "r+b")


def test_a_file_stays_what_it_was(fs: NatsObjectFileSystem) -> None:
    fs.pipe_file("b/a", DATA)
    with fs.open("b/a", "rb", block_size=1000) as file:
        assert file.read(10) == DATA[:10]
        fs.pipe_file("b/a", DATA[::-1])
        with pytest.raises(OSError, match="replaced") as caught:
            file.seek(200_000) and file.read(10)
        assert caught.value.errno == errno.ESTALE


MMAP_LEAVES_A_FILE = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""fsspec's cache of that name does."""


def pieces(file: IO[bytes]) -> bytes:
    return b"".join(iter(lambda: file.read(70_001), b""))


def copied(file: IO[bytes]) -> bytes:
    target = io.BytesIO()
    shutil.copyfileobj(file, target)
    return target.getvalue()


def exactly(file: IO[bytes]) -> bytes:
    """Without the read that would return nothing."""
    return b"".join(file.read(30_000) for _ in range(10))


def into(file: IO[bytes]) -> bytes:
    found, buffer = b"", bytearray(123_456)
    while size := file.readinto(buffer):  # type: ignore[attr-defined]
        found += buffer[:size]
    return found


def overlapping(file: IO[bytes]) -> bytes:
    found = b""
    while data := file.read(100_000):
        found += data
        found = found[: file.seek(max(file.tell() - 10, 0 if len(found) < len(DATA) else len(DATA)))]
    return found


CACHES = sorted(name for name in caches if name not in (None, "parts"))


@MMAP_LEAVES_A_FILE
@pytest.mark.parametrize("read", [pieces, copied, exactly, into, overlapping])
@pytest.mark.parametrize("cache", CACHES)
def test_read_to_its_end(
    fs: NatsObjectFileSystem,
    caplog: pytest.LogCaptureFixture,
    cache: str,
    read: Callable[[IO[bytes]], bytes],
) -> None:
    """A file is verified, whichever cache fetches its pieces; and again when it is read again."""
    fs.pipe({"b/a": DATA, "b/bad": DATA})
    forge_digest(fs, "bad")
    for size in (50_000, 200_000):
        with fs.open("b/a", "rb", block_size=size, cache_type=cache) as file:
            for _ in range(2):
                file.seek(0)
                assert read(file) == DATA
        with pytest.raises(OSError, match="digest") as caught:  # noqa: SIM117
            with fs.open("b/bad", "rb", block_size=size, cache_type=cache) as file:
                with pytest.raises(OSError, match="digest") as first:
                    read(file)
                assert first.value.errno == errno.EIO
                file.seek(0)
                read(file)
        assert caught.value.errno == errno.EIO
        assert isinstance(caught.value.__cause__, DigestMismatchError)


def test_read_to_its_end_as_text(fs: NatsObjectFileSystem) -> None:
    for name, data in (("text", DATA.hex().encode()), ("packed", gzip.compress(DATA.hex().encode(), 0))):
        fs.pipe_file(f"b/{name}", data)
        forge_digest(fs, name)
        compression = "gzip" if name == "packed" else None
        with (
            pytest.raises(OSError, match="digest"),
            fs.open(f"b/{name}", "r", block_size=100_000, compression=compression) as file,
        ):
            while file.read(1000):
                pass


@MMAP_LEAVES_A_FILE
@pytest.mark.parametrize("cache", [None, *CACHES])
def test_what_is_read_with_seeks_is_a_range(fs: NatsObjectFileSystem, cache: str | None) -> None:
    fs.pipe_file("b/a", DATA)
    forge_digest(fs, "a")
    if cache == "all":
        with pytest.raises(OSError, match="digest"):
            fs.open("b/a", "rb", cache_type=cache)
        return
    with fs.open("b/a", "rb", block_size=1000, cache_type=cache) as file:
        for start in (299_000, 150_000, 5, 290_000):
            file.seek(start)
            assert file.read(7000) == DATA[start : start + 7000]


def test_known_parts_are_the_callers(fs: NatsObjectFileSystem) -> None:
    fs.pipe_file("b/a", DATA)
    forge_digest(fs, "a")
    known = {(0, 100): DATA[:100], (299_900, 300_000): DATA[-100:]}
    with fs.open("b/a", "rb", cache_type="parts", cache_options={"data": known}) as file:
        assert file.read(100) == DATA[:100]
        file.seek(299_900)
        assert file.read(100) == DATA[-100:]


def test_replaced_before_its_end_is_read(fs: NatsObjectFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are wrong since the object is another one are told as such."""
    fs.pipe_file("b/a", DATA)
    forge_digest(fs, "a")
    take = RunningDigest.take

    def replaced(self: RunningDigest, start: int, data: bytes) -> None:
        if start + len(data) == len(DATA):
            fs.pipe_file("b/a", b"another")
        take(self, start, data)

    monkeypatch.setattr(RunningDigest, "take", replaced)
    with fs.open("b/a", "rb", block_size=100_000) as file, pytest.raises(OSError, match="replaced") as caught:
        pieces(file)
    assert caught.value.errno == errno.ESTALE


@MMAP_LEAVES_A_FILE
def test_a_fetch_that_fails_is_done_again(fs: NatsObjectFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec's mmap cache takes blocks for there before they are, and would return zeros."""
    fs.pipe_file("b/a", DATA)
    part = reading.part
    fail: list[int] = []

    async def failing(pinned: Pinned, start: int, end: int) -> bytes:
        if fail and start >= fail.pop():
            raise StoreFullError("of the test")
        return await part(pinned, start, end)

    monkeypatch.setattr(reading, "part", failing)
    for cache in ("mmap", "readahead", "blockcache", "bytes", "none", "first"):
        with fs.open("b/a", "rb", block_size=50_000, cache_type=cache) as file:
            assert file.read(60_000) == DATA[:60_000]
            fail.append(0)
            with pytest.raises(OSError, match="of the test"):
                file.seek(100_000) and file.read(100_000)
            file.seek(0)
            assert pieces(file) == DATA


def test_a_file_can_be_pickled(fs: NatsObjectFileSystem) -> None:
    fs.pipe_file("b/a", DATA)
    with fs.open("b/a", "rb") as file:
        file.seek(10)
        make, arguments = file.__reduce__()
        with make(*arguments) as copy:
            assert copy.tell() == 10
            assert copy.read(5) == DATA[10:15]
    with fs.open("b/w", "wb") as file, pytest.raises(RuntimeError):
        pickle.dumps(file)


@pytest.mark.parametrize("data", [b"", b"small", LARGE])
@pytest.mark.parametrize("mode", ["wb", "xb"])
def test_visible_when_it_is_closed(fs: NatsObjectFileSystem, mode: str, data: bytes) -> None:
    with fs.open("b/a", mode) as file:
        assert file.write(data) == len(data)
        assert file.tell() == len(data)
        assert not fs.exists("b/a")
    assert fs.cat_file("b/a") == data
    with pytest.raises(ValueError, match=r"closed|not in write mode"):
        file.write(b"more")


def test_modes_that_find_something(fs: NatsObjectFileSystem) -> None:
    fs.pipe_file("b/a", b"old")
    with pytest.raises(FileExistsError):
        fs.open("b/a", "xb")
    with fs.open("b/a", "ab") as file:
        assert file.tell() == 3
        file.write(b"new")
    with fs.open("b/a", "a") as file:
        file.write("er")
    assert fs.cat_file("b/a") == b"oldnewer"


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_two_that_create_the_same(fs: NatsObjectFileSystem, data: bytes) -> None:
    one, other = fs.open("b/a", "xb"), fs.open("b/a", "xb")
    for file in (one, other):
        file.write(data)
    one.close()
    with pytest.raises(FileExistsError):
        other.close()
    assert other.closed


Opener = Callable[[NatsObjectFileSystem], object]


@pytest.mark.parametrize("size", [5, 50_000])
@pytest.mark.parametrize(
    "opener",
    [
        lambda fs: fs.open("b/a", "wb"),
        lambda fs: fs.open("b/a", "w"),
        lambda fs: fs.open("b/a", "wb", compression="gzip"),
        lambda fs: fs.open("b/a", "w", compression="gzip"),
        lambda fs: OpenFile(fs, "b/a", "wb"),
        lambda fs: OpenFile(fs, "b/a", "wt"),
        lambda fs: OpenFile(fs, "b/a", "wt", compression="gzip"),
    ],
)
def test_an_exception_discards(
    fs: NatsObjectFileSystem,
    memory: MemoryServer,
    opener: Opener,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ObjectFile, "DEFAULT_BLOCK_SIZE", 10_000)
    fs.pipe_file("b/a", b"old")
    with pytest.raises(KeyError), opener(fs) as file:  # type: ignore[attr-defined]
        data = pattern(size)
        file.write(
            data if "b" in getattr(file, "mode", "b") and not hasattr(file, "encoding") else data.hex()
        )
        raise KeyError("of the application")
    assert fs.cat_file("b/a") == b"old"
    assert len(memory.chunks()) == 1


def test_an_exception_that_was_handled_discards_nothing(fs: NatsObjectFileSystem) -> None:
    late = fs.open("b/late", "wb")
    try:
        raise KeyError("of the application")
    except KeyError:
        with OpenFile(fs, "b/a", "wt") as file:
            file.write("told")
        with fs.open("b/c", "w") as file:
            file.write("told")
        late.write(b"told")
        late.close()
    assert fs.cat(["b/a", "b/c", "b/late"]) == dict.fromkeys(("b/a", "b/c", "b/late"), b"told")


def test_dropped_files_are_discarded(fs: NatsObjectFileSystem) -> None:
    dropped = [fs.open("b/a", "wb")]
    dropped[0].write(b"x")
    with pytest.warns(ResourceWarning, match="dropped unclosed"):
        dropped.clear()
    assert not fs.exists("b/a")


@pytest.mark.parametrize("text", [True, False])
def test_compressed(fs: NatsObjectFileSystem, text: bool) -> None:
    with fs.open("b/a.gz", "w" if text else "wb", compression="infer") as file:
        assert file.writable()
        file.write("hello" if text else b"hello")
        file.flush()
    assert gzip.decompress(fs.cat_file("b/a.gz")) == b"hello"
    with fs.open("b/a.gz", "r" if text else "rb", compression="gzip") as file:
        assert file.read() == ("hello" if text else b"hello")


def test_text(fs: NatsObjectFileSystem) -> None:
    with fs.open("b/a", "w", encoding="latin-1", newline="\r\n") as file:
        file.write("é\n")
    assert fs.cat_file("b/a").decode("latin-1") == "é\r\n"
    with fs.open("b/a", "rt", encoding="latin-1") as file:
        assert list(file) == ["é\n"]


def test_transactions(fs: NatsObjectFileSystem) -> None:
    with fs.transaction:
        for name in ("one", "two"):
            with fs.open(f"b/{name}", "wb") as file:
                file.write(LARGE if name == "two" else b"1")
        left_open = fs.open("b/three", "wb")
        left_open.write(b"3")
        with pytest.raises(KeyError), fs.open("b/failed", "wb") as file:
            raise KeyError
        assert fs.find("b") == []
    assert fs.find("b") == ["b/one", "b/three", "b/two"]
    with pytest.raises(KeyError), fs.transaction:
        with fs.open("b/four", "wb") as file:
            file.write(b"4")
        raise KeyError
    assert not fs.exists("b/four")
    with fs.transaction, fs.open("b/five.gz", "wb", compression="gzip") as file:
        file.write(b"5")
    assert gzip.decompress(fs.cat_file("b/five.gz")) == b"5"


def test_options_of_what_is_written(fs: NatsObjectFileSystem) -> None:
    options = {"description": "d", "headers": {"Content-Type": "text/csv"}, "metadata": {"k": "v"}}
    with fs.open("b/a", "w", chunk_size=10, **options) as file:
        file.write("x" * 25)
    entry = fs.info("b/a")
    assert (entry["description"], entry["metadata"]) == ("d", {"k": "v"})
    assert entry["headers"] == {"Content-Type": ["text/csv"]}
    with pytest.raises(TypeError, match="descriptoin"), fs.open("b/a", "wb", descriptoin="d") as file:
        file.write(b"x")


def test_a_full_bucket(fs: NatsObjectFileSystem) -> None:
    fs.mkdir("small", max_bytes=1000)
    with pytest.raises(OSError, match=r"full|room|bytes") as caught, fs.open("small/a", "wb") as file:
        file.write(LARGE)
    assert caught.value.errno == errno.ENOSPC
    assert not fs.exists("small/a")


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_close_that_fails(
    fs: NatsObjectFileSystem, memory: MemoryServer, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    """It says so once, and leaves nothing behind."""

    async def fail(self: Writing) -> None:
        raise StoreFullError("no room")

    monkeypatch.setattr(ObjectFile, "DEFAULT_BLOCK_SIZE", 1000)
    monkeypatch.setattr(Writing, "commit", fail)
    file = fs.open("b/a", "wb", compression=compression)
    file.write(pattern(100_000))
    with pytest.raises(OSError, match="no room"):
        file.close()
    assert file.closed
    file.close()
    assert memory.chunks() == {}


def test_a_packer_that_fails(fs: NatsObjectFileSystem, memory: MemoryServer) -> None:
    class Broken(io.BytesIO):
        def close(self) -> None:
            if not self.closed:
                super().close()
                raise ZeroDivisionError

    file = PackedFile(fs.open("b/a", "wb"), Broken())
    file.write(b"x")
    with pytest.raises(ZeroDivisionError):
        file.close()
    assert not fs.exists("b/a")


async def test_asynchronous(memory: MemoryServer) -> None:
    """In the loop of the caller, on a server that lives there."""
    from .conftest import InMemory

    server = MemoryServer()
    await server.bucket()
    fs = NatsObjectFileSystem(asynchronous=True, skip_instance_cache=True)
    fs._connections = InMemory(server)
    for mode in ("wb", "xb"):
        async with await fs.open_async(f"b/{mode}", mode) as file:
            for piece in (DATA, DATA):
                await file.write(piece)
        async with await fs.open_async(f"b/{mode}") as file:
            assert await file.read(7) == DATA[:7]
            assert file.seek(300_001) == 300_001
            assert await file.read() == DATA[1:]
    async with await fs.open_async("b/wb", "ab", block_size=10) as file:
        await file.write(b"more than one block")
    assert (await fs._cat_file("b/wb", -5)) == b"block"
    store = await fs._store("b")
    await store.put("bad", LARGE)
    await forge(store, "bad", digest=wire_digest(b"x"))
    for size in (1000_000, 3 << 20):
        async with await fs.open_async("b/bad") as file:
            with pytest.raises(OSError, match="digest") as caught:
                while await file.read(size):
                    pass
            assert caught.value.errno == errno.EIO
            with pytest.raises(OSError, match="digest"):
                await file.read()
        async with await fs.open_async("b/bad") as file:
            file.seek(1)
            assert await file.read() == LARGE[1:]
    with pytest.raises(FileExistsError):
        await fs.open_async("b/wb", "xb")
    with pytest.raises(ValueError, match="mode"):
        await fs.open_async("b/wb", "r")
    with pytest.raises(KeyError):
        async with await fs.open_async("b/failed", "wb", block_size=10) as file:
            await file.write(DATA)
            raise KeyError
    assert not await fs._exists("b/failed")
    with pytest.MonkeyPatch.context() as patch:

        async def fail(self: Writing) -> None:
            raise StoreFullError("no room")

        patch.setattr(Writing, "commit", fail)
        file = await fs.open_async("b/failed", "wb")
        with pytest.raises(OSError, match="no room"):
            await file.close()
    del file
    dropped = [await fs.open_async("b/dropped", "wb")]
    with pytest.warns(ResourceWarning, match="dropped unclosed"):
        dropped.clear()
    await server.client.close()
    assert fsspec.asyn.get_loop() is not fs.loop
