"""An open object: iterate, read, readinto, seek; verified at its end, and nothing left when it is closed."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError
from objstore import DigestMismatchError, IntegrityError, ObjectChangedError, ObjectNotFoundError, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.read import get as _get
from objstore.read.reader import LITTLE, ObjectReader, OpenReader
from support.fake_session import turns
from support.memory_server import MemoryServer

DATA = bytes(range(256)) * 400
CHUNK = 1000


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_get, "RECHECK_DELAYS", (0.0, 0.0))


@pytest.fixture(params=[True, False], ids=["direct", "leader"])
async def store(request: pytest.FixtureRequest, server: MemoryServer) -> ObjectStore:
    store = await server.bucket(allow_direct=request.param)
    await store.put("a", DATA, chunk_size=CHUNK)
    return store


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


@pytest.fixture
async def reader(bucket: Bucket) -> AsyncIterator[ObjectReader]:
    async with OpenReader(bucket, "a", verify=True, window=10 * CHUNK) as reader:
        yield reader


def chunks(server: MemoryServer, reader: ObjectReader) -> list[Any]:
    return server.stream().of(f"$O.b.C.{reader.info.nuid}")


async def test_every_way_of_reading(bucket: Bucket, reader: ObjectReader) -> None:
    assert await reader.read(10) == DATA[:10]
    assert await reader.read(0) == b""
    assert await reader.read(LITTLE + 5) == DATA[10 : LITTLE + 15]
    buffer = bytearray(20)
    assert await reader.readinto(buffer) == 20
    assert buffer == DATA[LITTLE + 15 : LITTLE + 35]
    assert await reader.read() == DATA[LITTLE + 35 :]
    assert (await reader.read(), await reader.read(5), reader.tell()) == (b"", b"", len(DATA))
    async with OpenReader(bucket, "a", verify=True, window=CHUNK) as other:
        assert b"".join([piece async for piece in other]) == DATA
    alone = await OpenReader(bucket, "a", verify=True, window=CHUNK)
    assert await alone.read() == DATA
    await alone.aclose()


async def test_an_empty_object(store: ObjectStore, bucket: Bucket) -> None:
    await store.put("empty", b"")
    async with OpenReader(bucket, "empty", verify=True, window=CHUNK) as reader:
        assert await reader.read() == b""
        assert [piece async for piece in reader] == []


async def test_seeking(reader: ObjectReader) -> None:
    for offset, whence, position in (
        (5000, os.SEEK_SET, 5000),
        (-1500, os.SEEK_END, len(DATA) - 1500),
        (100, os.SEEK_SET, 100),
    ):
        assert await reader.seek(offset, whence) == position
        assert await reader.read(10) == DATA[position : position + 10]
    assert await reader.seek(40, io.SEEK_CUR) == 150
    assert await reader.read(10) == DATA[150:160]
    assert await reader.seek(len(DATA) + 5) == len(DATA) + 5
    assert await reader.read() == b""
    for offset, whence in ((-1, 0), (-len(DATA) - 1, 2), (0, 3)):
        with pytest.raises(ValueError, match=r"seek|whence"):
            await reader.seek(offset, whence)
    await reader.seek(0)
    assert await reader.read() == DATA


async def test_the_last_byte_comes_when_all_is_verified(server: MemoryServer, reader: ObjectReader) -> None:
    chunks(server, reader)[50].payload = b"x" * CHUNK
    assert len(await reader.read(len(DATA) - 1)) == len(DATA) - 1
    for _ in range(2):
        with pytest.raises(DigestMismatchError):
            await reader.read(1)
    assert reader.tell() == len(DATA) - 1
    await reader.seek(50 * CHUNK)
    assert await reader.read(1) == b"x", "after a seek only lengths are checked"


async def test_chunks_of_a_wrong_length(server: MemoryServer, reader: ObjectReader) -> None:
    await reader.seek(5 * CHUNK)
    chunks(server, reader)[5].payload = b"x" * (CHUNK - 1)
    with pytest.raises(IntegrityError):
        await reader.read(10)


async def test_an_object_that_is_replaced(store: ObjectStore, reader: ObjectReader) -> None:
    await store.put("a", b"newer")
    with pytest.raises(ObjectChangedError):
        await reader.read()


async def test_a_read_that_is_cancelled_loses_nothing(server: MemoryServer, reader: ObjectReader) -> None:
    await reader.read(10)
    buffer = bytearray(len(DATA) - 10)
    task = asyncio.ensure_future(reader.readinto(buffer))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reader.tell() == 10
    assert await reader.read() == DATA[10:]


@pytest.mark.parametrize("buffer", [b"read only", memoryview(b"x"), memoryview(bytearray(10))[::2]])
async def test_buffers_that_cannot_be_filled(reader: ObjectReader, buffer: Any) -> None:
    with pytest.raises(TypeError, match="readinto"):
        await reader.readinto(buffer)
    assert await reader.read(5) == DATA[:5]


async def test_buffers_of_other_shapes(reader: ObjectReader) -> None:
    buffer = bytearray(12)
    assert await reader.readinto(memoryview(buffer).cast("B", (3, 4))) == 12
    assert buffer == DATA[:12]
    assert await reader.readinto(bytearray()) == 0


async def test_closed(server: MemoryServer, bucket: Bucket, reader: ObjectReader) -> None:
    await reader.read(10)
    await reader.aclose()
    await reader.aclose()
    for call in (reader.read(1), reader.readinto(bytearray(1)), reader.seek(0), anext(reader)):
        with pytest.raises(ConnectionClosedError, match="the reader is closed"):
            await call
    await turns()
    assert server.stream().consumers == {}
    with pytest.raises(ObjectNotFoundError):
        await OpenReader(bucket, "nowhere", verify=True, window=CHUNK)
    assert "b/a at 10" in repr(reader)


async def test_drain_waits_for_it(server: MemoryServer, bucket: Bucket) -> None:
    async with OpenReader(bucket, "a", verify=True, window=CHUNK) as reader:
        await reader.read(10)
        draining = asyncio.ensure_future(server.client.drain())
        await turns()
        assert not draining.done()
        assert await reader.read() == DATA[10:]
    async with asyncio.timeout(5):
        await draining
