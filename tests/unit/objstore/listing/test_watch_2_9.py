"""Watching on nats-server 2.9, whose consumers skip messages: they are signs, the metas are read alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from objstore import ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.format.naming import meta_subject
from objstore.listing.decode import warn_invalid
from objstore.listing.watch_2_9 import ReadingWatch
from support.memory_server import Consumer, MemoryServer, Stored


@pytest.fixture
async def server() -> AsyncIterator[MemoryServer]:
    server = MemoryServer("2.9.10")
    yield server
    await server.client.close()


def lose_all_but_the_last(server: MemoryServer) -> None:
    """What a roll-up does to consumers there."""
    stream = server.stream()
    deliver = stream.deliver
    stream.lost = 0  # type: ignore[attr-defined]

    def some(consumer: Consumer, each: Stored, left: int, inbox: bytes) -> None:
        stream.lost += 1  # type: ignore[attr-defined]
        if stream.lost % 3 == 0:  # type: ignore[attr-defined]
            deliver(consumer, each, left, inbox)

    stream.deliver = some  # type: ignore[method-assign]


async def watch(server: MemoryServer, **options: Any) -> ReadingWatch:
    options = {
        "updates_only": False,
        "ignore_deletes": False,
        "from_revision": None,
        "prefix": "",
        "on_invalid": warn_invalid,
        **options,
    }
    return ReadingWatch(await bind(server.js, "b"), **options)


async def take(watch: ReadingWatch, count: int) -> list[ObjectInfo]:
    async with asyncio.timeout(10):
        return [await watch.next() for _ in range(count)]


async def test_none_is_left_out(server: MemoryServer, store: ObjectStore) -> None:
    for name in ("a", "b"):
        await store.put(name, b"")
    one = await watch(server)
    await one.wait_caught_up()
    assert {info.name for info in await take(one, 2)} == {"a", "b"}
    lose_all_but_the_last(server)
    for number in range(9):
        await store.put(f"n{number}", b"")
    assert [info.name for info in await take(one, 9)] == [f"n{number}" for number in range(9)]
    await one.stop()
    assert server.stream().consumers == {}


async def test_what_no_consumer_tells_of_is_noticed_at_a_heartbeat(
    server: MemoryServer, store: ObjectStore
) -> None:
    one = await watch(server)
    await one.wait_caught_up()
    server.stream().deliver = lambda *args: None  # type: ignore[method-assign]
    await store.put("a", b"")
    assert [info.name for info in await take(one, 1)] == ["a"]
    await one.stop()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"updates_only": True}, ["later"]),
        ({"from_revision": 2}, ["b", "later"]),
        ({"prefix": "l"}, ["later"]),
        ({}, ["a", "b", "later"]),
    ],
)
async def test_where_it_begins(
    server: MemoryServer, store: ObjectStore, options: dict[str, Any], told: list[str]
) -> None:
    for name in ("a", "b"):
        await store.put(name, b"")
    one = await watch(server, **options)
    await one.wait_caught_up()
    await store.put("later", b"")
    assert [info.name for info in await take(one, len(told))] == told
    await one.stop()


async def test_metas_that_cannot_be_read_are_reported_once(server: MemoryServer, store: ObjectStore) -> None:
    told: list[Any] = []
    server.put_raw(meta_subject("b", "bad"), b"no JSON")
    one = await watch(server, on_invalid=told.append)
    await one.wait_caught_up()
    server.put_raw(meta_subject("b", "worse"), b"no JSON")
    await store.put("a", b"")
    assert [info.name for info in await take(one, 1)] == ["a"]
    assert [each.subject for each in told] == [meta_subject("b", "bad"), meta_subject("b", "worse")]
    await one.stop()


async def test_a_reading_that_fails_is_told(server: MemoryServer, store: ObjectStore) -> None:
    one = await watch(server)
    await one.wait_caught_up()
    server.refused = {"STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.CREATE"}
    server.put_raw(meta_subject("b", "a"), b"{}")
    with pytest.raises(PermissionError):
        await take(one, 1)
    server.refused = set()
    await one.stop()
