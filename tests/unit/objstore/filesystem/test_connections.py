"""One connection for each loop, closed when nobody needs it; none crosses a fork."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator

import pytest

import natsproto
from natsproto.aio.client import Client
from objstore import BadBucketError, BucketNotFoundError
from objstore.filesystem import connections
from objstore.filesystem.connections import Connections, missing
from support.memory_server import MemoryServer
from support.waits import eventually


@pytest.fixture
def opened() -> list[Client]:
    return []


@pytest.fixture(autouse=True)
def servers(monkeypatch: pytest.MonkeyPatch, opened: list[Client]) -> Iterator[None]:
    """Each connection leads to a server of its own, in this process."""

    async def connect(self: natsproto.connect) -> Client:
        server = MemoryServer()
        await server.bucket("b")
        opened.append(server.client)
        return server.client

    monkeypatch.setattr(natsproto.connect, "_open", connect)
    yield
    for client in opened:
        assert client.is_closed


def made() -> Connections:
    return Connections(natsproto.connect(), None, None)


async def test_one_connection_for_all_calls_of_a_loop(opened: list[Client]) -> None:
    mine = made()
    first, again = await asyncio.gather(mine.store("b"), mine.store("b"))
    assert first.client is again.client
    assert await mine.store("b") in (first, again)
    with pytest.raises(BucketNotFoundError):
        await mine.store("none")
    with pytest.raises(BadBucketError):
        await mine.store("no bucket")
    assert len(opened) == 1
    await mine.close()
    await mine.close()


async def test_forgotten_buckets_are_opened_again() -> None:
    mine = made()
    store = await mine.store("b")
    mine.forget("other")
    assert await mine.store("b") is store
    for bucket in ("b", None):
        mine.forget(bucket)
        other = await mine.store("b")
        assert other is not store
        store = other
    await mine.close()


def test_each_loop_has_its_own(opened: list[Client]) -> None:
    mine = made()

    async def use() -> None:
        await mine.store("b")
        await mine.close()

    async def use_without_closing() -> None:
        store = await mine.store("b")
        asyncio.get_running_loop().call_soon(lambda: None)
        await store.client.close()  # by somebody else

    asyncio.run(use())
    asyncio.run(use_without_closing())
    asyncio.run(use())
    assert len(opened) == 3
    assert len(mine._held) == 0


async def test_a_client_that_is_closed_is_replaced(opened: list[Client]) -> None:
    mine = made()
    store = await mine.store("b")
    await store.client.close()
    assert (await mine.store("b")).client is not store.client
    await mine.close()
    assert len(opened) == 2


async def test_closed_with_its_file_system(opened: list[Client]) -> None:
    mine = made()
    await mine.js()
    del mine
    gc.collect()
    await eventually(lambda: opened[0].is_closed)


async def test_closed_at_the_end_of_the_interpreter(opened: list[Client]) -> None:
    mine = made()
    await mine.js()
    await asyncio.to_thread(connections._close_all)
    assert opened[0].is_closed
    assert mine.close_soon() is not None


async def test_not_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = made()
    await mine.js()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 1)
        with pytest.raises(RuntimeError, match="forked child"):
            await mine.js()
        assert mine.close_soon() == []
    await mine.close()


def test_a_bucket_that_cannot_be() -> None:
    error = missing("no bucket", BadBucketError("because"))
    assert "because" in str(error)
    assert error.bucket == "no bucket"
