"""Writing an object as a stream: committed on a clean exit, gone otherwise; back-pressure in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError
from objstore import ObjectStore, StoreFullError
from objstore.write.writer import ObjectWriter
from support.fake_session import turns
from support.memory_server import SILENCE, MemoryServer, error


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    store = await server.bucket()
    await store.put("a", b"old")
    return store


async def test_a_clean_exit_commits(server: MemoryServer, store: ObjectStore) -> None:
    async with store.open_writer("a", chunk_size=10) as writer:
        assert writer.info is None
        buffer = bytearray(b"0123456789abc")
        assert await writer.write(buffer) == 13
        buffer[:] = bytes(13)  # it may be used again
        assert await writer.write(memoryview(b"x" * 20)) == 20
        assert await writer.write(b"") == 0
        assert writer.tell() == 33
        assert await store.get("a") == b"old"
    assert writer.info is not None
    assert (writer.info.size, writer.info.chunks) == (33, 4)
    assert await store.get("a") == b"0123456789abc" + b"x" * 20
    async with store.open_writer("empty"):
        pass
    assert await store.get("empty") == b""


async def test_an_exception_leaves_what_was(server: MemoryServer, store: ObjectStore) -> None:
    before = server.chunks()
    with pytest.raises(KeyError):
        async with store.open_writer("a", chunk_size=10) as writer:
            await writer.write(b"x" * 100)
            raise KeyError
    assert await store.get("a") == b"old"
    assert server.chunks() == before
    await writer.abort()
    with pytest.raises(ConnectionClosedError):
        await writer.commit()


@pytest.mark.parametrize("ended", ["aborted", "committed"])
async def test_what_has_ended_is_not_entered(server: MemoryServer, store: ObjectStore, ended: str) -> None:
    """A put that nobody gives anything to would wait for ever."""
    writer = store.open_writer("a")
    await (writer.abort() if ended == "aborted" else writer.commit())
    with pytest.raises(ConnectionClosedError, match="the writer is closed"):
        async with writer:
            pass
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "objstore-writer"]


async def test_without_a_block(server: MemoryServer, store: ObjectStore) -> None:
    writer = store.open_writer("b")
    await writer.write(b"content")
    info = await writer.commit()
    assert writer.info == info
    await writer.abort()
    assert await store.get("b") == b"content"
    with pytest.raises(ConnectionClosedError, match="the writer is closed"):
        await writer.write(b"x")
    aborted = store.open_writer("c")
    await aborted.write(b"content")
    await aborted.abort()
    assert not await store.exists("c")


async def test_a_put_that_fails_is_told_by_the_next_write(server: MemoryServer, store: ObjectStore) -> None:
    before = server.chunks()
    server.on_publish = lambda subject, header, payload: error(503, 10077, "maximum bytes exceeded")
    writer = store.open_writer("a", chunk_size=10, window=10)
    with pytest.raises(StoreFullError):
        for _ in range(10):
            await writer.write(b"x" * 10)
    with pytest.raises(StoreFullError):
        await writer.write(b"more")
    await writer.abort()
    server.on_publish = None
    assert server.chunks() == before


async def test_more_than_the_window_is_waited_for(server: MemoryServer, store: ObjectStore) -> None:
    """That is the back-pressure."""
    held: list[Any] = []
    server.on_publish = lambda subject, header, payload: held.append(subject) or SILENCE  # type: ignore[func-returns-value]
    writer = store.open_writer("a", chunk_size=10, window=10)
    writing = asyncio.ensure_future(writer.write(b"x" * 100))
    await turns()
    assert not writing.done()
    assert len(held) == 1
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(ConnectionClosedError):
        await writer.write(b"x")  # taken over or not: a retry would write it twice


@pytest.mark.parametrize("data", ["text", 7, None])
async def test_what_is_no_bytes(store: ObjectStore, data: Any) -> None:
    async with store.open_writer("b") as writer:
        with pytest.raises(TypeError):
            await writer.write(data)
        await writer.write(b"goes on")
    assert await store.get("b") == b"goes on"


async def test_one_that_is_dropped_aborts(server: MemoryServer, store: ObjectStore) -> None:
    before = server.chunks()

    async def begin() -> None:
        writer = store.open_writer("b", chunk_size=10)
        assert isinstance(writer, ObjectWriter)
        await writer.write(b"x" * 100)

    with pytest.warns(ResourceWarning, match="use it with 'async with'"):
        await begin()
    await turns(100)
    assert server.chunks() == before
