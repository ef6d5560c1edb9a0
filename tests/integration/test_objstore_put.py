"""Storing objects: every kind of source, sizes at the chunk borders, overwriting, conditions."""

from __future__ import annotations

import array
import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.errors import InvalidNameError
from natsproto.server import LocalServer
from objstore import (
    BadObjectMetaError,
    IntegrityError,
    ObjectAlreadyExists,
    ObjectLink,
    ObjectMetaOptions,
    ObjectStore,
    RevisionConflictError,
)
from objstore.bucket.bucket import Bucket
from support.objects import CHUNK, KIB, assert_exact, chunk_counts, pattern, read_raw, wire_digest


async def check(store: ObjectStore, name: str, data: bytes, chunk: int = CHUNK) -> None:
    info = await store.get_info(name)
    assert info.size == len(data)
    assert info.chunks == -(-len(data) // chunk)
    assert info.digest == "SHA-256=" + hashlib.sha256(data).hexdigest()
    assert await store.get(name) == data
    await assert_exact(store)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 4 * CHUNK, 4 * CHUNK + 1])
async def test_sizes(store: ObjectStore, size: int) -> None:
    """B11: empty, one byte, around one chunk, exact multiples."""
    await store.put("a", pattern(size))
    await check(store, "a", pattern(size))


@pytest.mark.parametrize(("size", "chunk"), [(257, 1), (999, 1000), (1000, 1000), (1001, 1000), (5000, 999)])
async def test_chunk_sizes(store: ObjectStore, size: int, chunk: int) -> None:
    await store.put("a", pattern(size), chunk_size=chunk)
    await check(store, "a", pattern(size), chunk)
    document = await read_raw(store, "a")
    assert document["options"] == {"max_chunk_size": chunk}


async def test_largest_chunk(store: ObjectStore) -> None:
    data = pattern(2 * 1024 * KIB + 5)
    await store.put("a", data, options=ObjectMetaOptions(max_chunk_size=1024 * KIB))
    await check(store, "a", data, 1024 * KIB)


async def test_empty_object_on_the_wire(store: ObjectStore) -> None:
    """No chunk message, and the digest of nothing."""
    info = await store.put("a", b"")
    assert (info.size, info.chunks) == (0, 0)
    assert (await read_raw(store, "a"))["digest"] == "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="
    assert await chunk_counts(store) == {}
    assert await store.get("a") == b""


async def test_meta_on_the_wire(store: ObjectStore) -> None:
    """D12: what other clients read: list-valued headers, base64 digest, a valid mtime, no empty keys."""
    data = pattern(300 * KIB)
    info = await store.put(
        "a",
        data,
        "about",
        "a.bin",
        {"One": "1", "Two": ["2", "22"]},
        metadata={"k": "v"},
    )
    document = await read_raw(store, "a")
    mtime = document.pop("mtime")
    assert mtime.endswith("Z")
    assert document == {
        "name": "a",
        "description": "about",
        "headers": {"One": ["1"], "Two": ["2", "22"]},
        "metadata": {"k": "v", "filename": "a.bin"},
        "options": {"max_chunk_size": CHUNK},
        "bucket": store.bucket,
        "nuid": info.nuid,
        "size": len(data),
        "chunks": 3,
        "digest": wire_digest(data),
    }
    assert info.filename == "a.bin"
    assert info.headers is not None
    assert info.headers.get_all("Two") == ["2", "22"]
    plain = await store.put("b", b"x")
    assert set(await read_raw(store, "b")) == {
        "name",
        "options",
        "bucket",
        "nuid",
        "size",
        "mtime",
        "chunks",
        "digest",
    }
    assert plain.revision == (await store.get_info("b")).revision


DATA = pattern(700 * KIB + 3)


def pieces(size: int = 100_001) -> Iterator[bytes]:
    for start in range(0, len(DATA), size):
        yield DATA[start : start + size]


async def async_pieces(size: int = 100_001) -> AsyncIterator[bytes]:
    for piece in pieces(size):
        await asyncio.sleep(0)
        yield piece


def refilled() -> Iterator[bytearray]:
    """One buffer, overwritten for each piece and once more at the end."""
    buffer = bytearray(CHUNK)
    for start in range(0, len(DATA), CHUNK):
        piece = DATA[start : start + CHUNK]
        if len(piece) < CHUNK:
            del buffer[len(piece) :]
        buffer[:] = piece
        yield buffer
    buffer[:] = bytes(len(buffer))


async def async_refilled() -> AsyncIterator[memoryview]:
    buffer = bytearray(64 * KIB)
    for start in range(0, len(DATA), len(buffer)):
        piece = DATA[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]
    buffer[:] = bytes(len(buffer))


class Refilling:
    """A file object whose ``read`` gives the same buffer each time."""

    def __init__(self) -> None:
        self.file = io.BytesIO(DATA)
        self.buffer = bytearray(1024 * KIB)

    def read(self, size: int) -> memoryview:
        size = self.file.readinto(memoryview(self.buffer)[: min(size, 50_000)])
        return memoryview(self.buffer)[:size]


class ShortReads(io.RawIOBase):
    """A file that gives less than it was asked for."""

    def __init__(self) -> None:
        self.file = io.BytesIO(DATA)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.file.read(min(size, 33_333))


SOURCES: dict[str, Any] = {
    "bytes": lambda: DATA,
    "bytearray": lambda: bytearray(DATA),
    "memoryview": lambda: memoryview(DATA),
    "readonly slice": lambda: memoryview(b"--" + DATA)[2:],
    "strided": lambda: memoryview(bytes(2 * len(DATA)))[::2],
    "array": lambda: array.array("B", DATA),
    "BytesIO": lambda: io.BytesIO(DATA),
    "generator": pieces,
    "list": lambda: list(pieces()),
    "tiny pieces": lambda: pieces(1021),
    "empty pieces": lambda: [b"", DATA[:10], b"", b"", DATA[10:], b""],
    "async generator": async_pieces,
    "refilled": refilled,
    "async refilled": async_refilled,
    "refilling file": Refilling,
    "short reads": ShortReads,
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_sources(store: ObjectStore, kind: str) -> None:
    expected = bytes(len(DATA)) if kind == "strided" else DATA
    info = await store.put("a", SOURCES[kind]())
    assert info.size == len(DATA)
    await check(store, "a", expected)


async def test_wide_array(store: ObjectStore) -> None:
    data = array.array("d", range(50_000))
    info = await store.put("a", data)  # type: ignore[arg-type]
    assert info.size == 400_000
    assert await store.get("a") == data.tobytes()


async def test_files(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "fünf.bin"
    path.write_bytes(DATA)
    await store.put("path", path)
    with path.open("rb") as file:
        file.seek(100)
        await store.put("from here", file)
    info = await store.put_file("file", path, headers={"a": "b"}, chunk_size=50_000)
    assert (info.filename, info.options.max_chunk_size if info.options else 0) == ("fünf.bin", 50_000)
    assert await store.get("path") == DATA
    assert await store.get("from here") == DATA[100:]
    assert await store.get("file") == DATA
    await store.put_file("str", os.fspath(path), "d", "other.bin")
    assert (await store.get_info("str")).filename == "other.bin"


async def test_progress(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(DATA)
    seen: list[tuple[int, int | None]] = []
    await store.put_file("a", path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


async def test_overwrite_keeps_exactly_one(store: ObjectStore) -> None:
    first = await store.put("a", pattern(5 * CHUNK, 1))
    second = await store.put("a", pattern(3 * CHUNK, 2))
    assert second.nuid != first.nuid
    assert second.revision > first.revision
    assert await store.get("a") == pattern(3 * CHUNK, 2)
    await store.put("a", b"")
    assert await chunk_counts(store) == {}


async def test_names(store: ObjectStore) -> None:
    """D10: any text is a name; NFC and NFD are two names."""
    names = [" ", "..", "/x", "a\r\nb", "\0", "🙂", "é", "e\u0301", "שלום", "a.b.*.>", "x" * 2900, "ü" * 1450]
    for name in names:
        await store.put(name, name.encode())
    for name in names:
        assert await store.get(name) == name.encode()
    assert [info.name for info in await store.list()] == names
    for name in names:
        await store.delete(name)
    await assert_exact(store)


@pytest.mark.parametrize("name", ["", "x" * 2901, "x" * 5000, "\ud800", None, 5, b"a"])
async def test_unusable_names(store: ObjectStore, name: Any) -> None:
    sent = store.js.client.stats.out_msgs
    for call in (
        store.put(name, b"x"),
        store.get(name),
        store.get_info(name),
        store.delete(name),
        store.exists(name),
    ):
        with pytest.raises(InvalidNameError):
            await call
    assert store.js.client.stats.out_msgs == sent
    await store.put("a", b"the connection is alive")


@pytest.mark.parametrize("prefix", ["p" * 150, "p" * 180, "p" * 1000])
async def test_long_names_with_a_long_inbox(server: LocalServer, store: ObjectStore, prefix: str) -> None:
    """The reply subject is on the same line: what does not fit is refused, and costs no connection."""
    async with natsproto.connect(server.url, inbox_prefix=prefix) as client:
        same = await client.jetstream().object_store(store.bucket)
        stored = 0
        for size in (2900, 2850, 2000):
            try:
                await same.put("n" * size, b"x")
                stored += 1
                assert await same.get("n" * size) == b"x"
            except InvalidNameError:
                pass
        assert stored
        assert client.stats.reconnects == 0


async def test_refused_before_any_byte(store: ObjectStore) -> None:
    sent = store.js.client.stats.out_msgs
    for size in (0, -1, 1024 * KIB + 1, True, 1.5, "1"):
        with pytest.raises(BadObjectMetaError):
            await store.put("a", b"x", chunk_size=size)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"put_file.*\.encode\(\)"):
        await store.put("a", "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await store.put("a", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rb"):
        await store.put("a", io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await store.put("a", b"x", nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        await store.put_file("a", "x", nonsense=1)
    for headers in ({"a": 5}, {"": "x"}, {5: "x"}, "a", {"a": "\ud800"}):
        with pytest.raises(BadObjectMetaError):
            await store.put("a", b"x", headers=headers)  # type: ignore[arg-type]
    with pytest.raises(BadObjectMetaError):
        await store.put("a", b"x", metadata={"a": 1})  # type: ignore[dict-item]
    with pytest.raises(BadObjectMetaError):
        await store.put("a", b"x", 5)  # type: ignore[arg-type]
    with pytest.raises(BadObjectMetaError, match="link"):
        await store.put("a", b"x", options=ObjectMetaOptions(ObjectLink("b", "c")))
    for revision in (-1, "1", True):
        with pytest.raises(BadObjectMetaError):
            await store.put("a", b"x", if_revision=revision)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        await store.put_file("a", "/does/not/exist")
    assert store.js.client.stats.out_msgs == sent
    assert await store.list() == []


async def test_headers_are_json_not_protocol(store: ObjectStore) -> None:
    """CR, LF and space in an object's headers live in JSON: they round trip and inject nothing."""
    headers = {"a b": "x\r\nNats-Rollup: all", "c": " \n", "ü": "\0"}
    await store.put("other", b"1")
    await store.put("a", b"2", headers=headers)
    assert (await store.get_info("a")).headers == headers
    assert await store.get("other") == b"1"


async def test_create(store: ObjectStore) -> None:
    info = await store.create("a", b"1", "d", "f", {"h": "v"})
    assert (info.description, info.filename) == ("d", "f")
    with pytest.raises(ObjectAlreadyExists) as caught:
        await store.create("a", pattern(3 * CHUNK))
    assert caught.value.revision == info.revision
    await store.delete("a")
    await store.create("a", b"2")  # a deleted object does not exist
    assert await store.get("a") == b"2"
    await assert_exact(store)


async def test_if_revision(store: ObjectStore) -> None:
    info = await store.put("a", b"1", if_revision=0)
    with pytest.raises(RevisionConflictError) as caught:
        await store.put("a", pattern(2 * CHUNK), if_revision=0)
    assert (caught.value.expected, caught.value.current) == (0, info.revision)
    second = await store.put("a", b"2", if_revision=info.revision)
    with pytest.raises(RevisionConflictError):
        await store.put("a", b"3", if_revision=info.revision)
    with pytest.raises(RevisionConflictError):
        await store.delete("a", if_revision=info.revision)
    await store.delete("a", if_revision=second.revision)
    await store.put("a", b"4", if_revision=0)
    with pytest.raises(RevisionConflictError):
        await store.put("missing", b"", if_revision=7)
    assert await store.get("a") == b"4"
    await assert_exact(store)


class Breaks(Exception):
    pass


def breaks_after(size: int) -> Iterator[bytes]:
    yield from (pattern(1000, n) for n in range(size // 1000))
    raise Breaks


class BadReads:
    def __init__(self, answer: Any, after: int = 3) -> None:
        self.answer = answer
        self.left = after

    def read(self, size: int) -> Any:
        self.left -= 1
        if self.left < 0:
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer
        return bytes(CHUNK)


@pytest.mark.parametrize("size", [0, 1000, 128_000, 132_000, 1_000_000])
async def test_source_raises(store: ObjectStore, size: int) -> None:
    """B4: the source's own exception arrives, the previous object is intact, no chunk is left."""
    await store.put("a", pattern(2 * CHUNK))
    with pytest.raises(Breaks):
        await store.put("a", breaks_after(size))
    assert await store.get("a") == pattern(2 * CHUNK)
    await assert_exact(store)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("text", TypeError),
        (None, BlockingIOError),
        (5, TypeError),
        (OSError("disk"), OSError),
        ([], TypeError),
    ],
)
async def test_source_misbehaves(store: ObjectStore, answer: Any, error: type[Exception]) -> None:
    await store.put("a", b"before")
    with pytest.raises(error):
        await store.put("a", BadReads(answer))
    with pytest.raises(TypeError):
        await store.put("a", [bytes(CHUNK), bytes(CHUNK), "text"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        await store.put("a", [bytes(CHUNK), None])  # type: ignore[list-item]
    assert await store.get("a") == b"before"
    await assert_exact(store)


async def test_progress_raises(store: ObjectStore) -> None:
    def progress(done: int, total: int | None) -> None:
        raise Breaks

    with pytest.raises(Breaks):
        await store.put("a", pattern(2 * CHUNK), progress=progress)
    await assert_exact(store)


async def test_a_count_that_is_behind_is_taken_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that is not one any more answers until it notices; what it lacks is not missing."""
    behind = [0, 1]
    real = Bucket.stored_chunks

    async def stored_chunks(bucket: Bucket, nuid: str, wanted: int = 1) -> int:
        return behind.pop() if behind else await real(bucket, nuid, wanted)

    async def once() -> AsyncIterator[bytes]:
        yield pattern(3 * CHUNK)

    monkeypatch.setattr(Bucket, "stored_chunks", stored_chunks)
    monkeypatch.setattr("objstore.write.chunks.LONG", -1.0)  # count always
    await store.put("a", once())
    assert behind == []
    assert await store.get("a") == pattern(3 * CHUNK)
    behind[:] = [2] * 9
    with pytest.raises(IntegrityError, match="2 chunks are stored where 3 were sent"):
        await store.put("a", once())
    assert await store.get("a") == pattern(3 * CHUNK)
