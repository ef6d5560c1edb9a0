"""One server has a bucket's stream, as a handle has learnt: somebody may give it replicas at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from objstore import ObjectNotFoundError, ObjectStore
from objstore.bucket import bucket as _bucket
from objstore.bucket.bucket import ALONE_AGE
from support.clock import Clock
from support.memory_server import SILENCE, MemoryServer


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    await (await server.bucket()).put("a", b"1")
    found: ObjectStore = await server.js.object_store("b")  # as somebody who only reads
    server.verbs()
    return found


async def test_known_for_a_while(server: MemoryServer, store: ObjectStore) -> None:
    clock = Clock()
    clock.forward(ALONE_AGE / 2)
    await store.get_info("a")
    assert server.verbs() == ["DIRECT.GET"]
    clock.forward(ALONE_AGE / 2)
    await store.get_info("a")
    assert sorted(server.verbs()) == ["DIRECT.GET", "STREAM.INFO"]
    await store.get_info("a")
    assert server.verbs() == ["DIRECT.GET"]


async def test_one_asks_for_all(server: MemoryServer, store: ObjectStore) -> None:
    Clock().forward(ALONE_AGE)
    await asyncio.gather(*(store.get_info("a") for _ in range(32)))
    assert server.verbs().count("STREAM.INFO") == 1


async def test_replicas_are_noticed(server: MemoryServer, store: ObjectStore) -> None:
    server.stream().config["num_replicas"] = 3
    Clock().forward(ALONE_AGE)
    await asyncio.gather(*(store.get_info("a") for _ in range(3)))
    assert server.verbs().count("STREAM.MSG.GET") == 3, "all that have waited for the answer"
    await store.get_info("a")
    assert server.verbs() == ["STREAM.MSG.GET"]


@pytest.mark.parametrize("answer", [SILENCE, {"error": {"code": 500, "err_code": 1, "description": "x"}}])
async def test_the_leader_where_nothing_is_learnt(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(_bucket, "DIRECT_TIMEOUT", 0.05)
    Clock().forward(ALONE_AGE)
    server.hook = lambda verb, body: answer if verb == "STREAM.INFO" else None
    for _ in range(2):
        assert (await store.get_info("a")).size == 1
        assert sorted(server.verbs()) == ["DIRECT.GET", "STREAM.INFO", "STREAM.MSG.GET"]
    server.hook = None
    await store.get_info("a")
    await store.get_info("a")
    assert "STREAM.MSG.GET" not in server.verbs()


async def test_who_asks_may_be_cancelled(server: MemoryServer, store: ObjectStore) -> None:
    Clock().forward(ALONE_AGE)
    tasks = [asyncio.create_task(store.get_info("a")) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert (await tasks[1]).size == 1
    assert server.verbs().count("STREAM.INFO") == 1


async def listed(store: ObjectStore) -> None:
    assert [info.name for info in await store.list()] == ["a"]


async def iterated(store: ObjectStore) -> None:
    assert [info.name async for info in store.iter()] == ["a"]


async def named(store: ObjectStore) -> None:
    assert await store.names(live=True) == ["a"]


async def watched(store: ObjectStore) -> None:
    async with store.watch() as watcher:
        assert (await anext(watcher)).name == "a"


@pytest.mark.parametrize("way", [listed, iterated, named, watched], ids=lambda way: way.__name__)
async def test_lists_begin_with_it(
    server: MemoryServer, store: ObjectStore, way: Callable[[ObjectStore], Awaitable[None]]
) -> None:
    server.stream().config["num_replicas"] = 3
    await way(store)
    Clock().forward(ALONE_AGE)
    await way(store)
    server.verbs()
    with pytest.raises(ObjectNotFoundError):
        await store.get_info("nothing")
    assert "DIRECT.GET" not in server.verbs(), "the leader is asked from now on"
