"""Streams whose size the caller says: limits, progress, and what has more or fewer bytes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from objstore import BadBucketError, BadObjectMetaError, ObjectStore, SourceChangedError
from objstore.write.source import open_source
from support.memory_server import MemoryServer

PIECES = [b"x" * 700, bytearray(b"y" * 1300), memoryview(b"z" * 500)]
DATA = b"".join(PIECES)


class Reader:
    """A reader of unknown size."""

    def __init__(self) -> None:
        self.pieces = iter(PIECES)

    def read(self, size: int) -> bytes:
        return bytes(next(self.pieces, b""))


class AsyncReader(Reader):
    async def read(self, size: int) -> bytes:  # type: ignore[override]
        return bytes(next(self.pieces, b""))


async def aiterated() -> AsyncIterator[Any]:
    for piece in PIECES:
        yield piece


def iterated() -> Iterator[Any]:
    yield from PIECES


STREAMS: list[Callable[[], Any]] = [iterated, aiterated, Reader, AsyncReader, lambda: list(PIECES)]
IDS = ["generator", "async generator", "reader", "async reader", "list"]


@pytest.fixture(params=STREAMS, ids=IDS)
def stream(request: pytest.FixtureRequest) -> Any:
    return request.param()


def leftovers(server: MemoryServer) -> list[str]:
    return [each.subject for each in server.stream().of("$O.b.C.>")]


async def test_exactly(store: ObjectStore, stream: Any) -> None:
    told: list[tuple[int, int | None]] = []
    info = await store.put("a", stream, size=len(DATA), progress=lambda *now: told.append(now))
    assert info.size == len(DATA)
    assert {total for _, total in told} == {len(DATA)}
    assert await store.get("a") == DATA


@pytest.mark.parametrize(
    ("size", "told"), [(len(DATA) - 1, "at least 2500"), (len(DATA) + 1, "has 2500"), (0, "")]
)
async def test_another_number(
    server: MemoryServer, store: ObjectStore, stream: Any, size: int, told: str
) -> None:
    """Nothing is stored, and the previous object stays."""
    await store.put("a", b"previous")
    before = leftovers(server)
    with pytest.raises(SourceChangedError, match=f"size is {size}, .*{told}.* nothing was stored"):
        await store.put("a", stream, size=size, chunk_size=1000)
    assert await store.get("a") == b"previous"
    assert leftovers(server) == before


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
async def test_all_or_nothing(server: MemoryServer, size: int) -> None:
    store = await server.js.create_object_store(bucket="b", allow_atomic=True)
    with pytest.raises(SourceChangedError):
        await store.create("a", aiterated(), size=size, atomic=True)
    assert (await store.create("a", aiterated(), size=len(DATA), atomic=True)).size == len(DATA)
    with pytest.raises(BadObjectMetaError, match="at most 999 chunks"):
        await store.put("a", iter([]), size=1000, chunk_size=1, atomic=True)


@pytest.mark.parametrize("size", [1, 999, 1001, 5000])
async def test_a_writer(server: MemoryServer, store: ObjectStore, size: int) -> None:
    """More is refused by a write, or by the end of the block; fewer by the end."""
    with pytest.raises(SourceChangedError):
        async with store.open_writer("a", size=size) as writer:
            await writer.write(b"x" * 400)
            await writer.write(b"x" * 600)
    assert not await store.exists("a")
    assert leftovers(server) == []
    async with store.open_writer("a", size=1000) as writer:
        await writer.write(b"x" * 1000)
    assert (await store.get_info("a")).size == 1000


@pytest.mark.parametrize("size", [-1, 1.0, "3", True])
async def test_what_is_no_size(server: MemoryServer, store: ObjectStore, size: Any) -> None:
    server.asked.clear()
    with pytest.raises(BadObjectMetaError, match="size must be a number of bytes"):
        await store.put("a", iterated(), size=size)
    assert (server.asked, leftovers(server)) == ([], [])


async def test_data_of_another_known_size(server: MemoryServer, store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    server.asked.clear()
    for data in (b"abc", io.BytesIO(b"abc"), tmp_path / "file"):
        with pytest.raises(BadObjectMetaError, match="size is 4, and the data has 3 bytes"):
            await store.put("a", data, size=4)
    with pytest.raises(BadObjectMetaError, match="has 3 bytes"):
        await store.put_file("a", tmp_path / "file", size=2)
    assert (server.asked, leftovers(server)) == ([], [])
    assert (await store.put_file("a", tmp_path / "file", size=3)).size == 3


async def test_limits_are_checked_first(server: MemoryServer, store: ObjectStore) -> None:
    server.stream().config["max_msgs_per_subject"] = 2
    store = await server.js.object_store("b")
    taken = []

    def pieces() -> Iterator[bytes]:
        taken.append(1)
        yield DATA

    with pytest.raises(BadBucketError):
        await store.put("a", pieces(), size=len(DATA), chunk_size=1000)
    assert (taken, leftovers(server)) == ([], [])


async def test_what_is_no_bytes_is_refused_as_ever(store: ObjectStore) -> None:
    with pytest.raises(TypeError) as plain:
        await store.put("a", iter(["text"]))
    with pytest.raises(TypeError) as sized:
        await store.put("a", iter(["text"]), size=4)
    assert str(sized.value) == str(plain.value)


async def test_a_source_that_is_left_is_closed() -> None:
    """As without a size: the generator of a put that fails ends at once."""
    left = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"abc"
            yield b"def"
        finally:
            left.set()

    given = pieces()
    counted = open_source(given).sized(6).pieces()
    assert await anext(counted) == b"abc"
    await counted.aclose()  # type: ignore[attr-defined]
    await given.aclose()  # type: ignore[attr-defined]
    assert left.is_set()


async def test_a_copy_knows_its_size(store: ObjectStore) -> None:
    await store.put("a", DATA, chunk_size=1000)
    told: list[int | None] = []
    await store.copy("a", "c", progress=lambda done, total: told.append(total))
    assert set(told) == {len(DATA)}
