"""A watch: the state at the start, then each change in order; the last state of every name always comes."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError
from natsproto.jetstream.ordered import OrderedConsumer
from objstore import BucketNotFoundError, ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.format.naming import meta_subject
from objstore.listing.decode import warn_invalid
from objstore.listing.watch import Watch, weight
from support.fake_session import turns
from support.memory_server import MemoryServer


async def watch(server: MemoryServer, **options: Any) -> Watch:
    options = {
        "updates_only": False,
        "ignore_deletes": False,
        "from_revision": None,
        "prefix": "",
        "on_invalid": warn_invalid,
        **options,
    }
    return Watch(await bind(server.js, "b"), **options)


async def take(watch: Watch, count: int) -> list[ObjectInfo]:
    async with asyncio.timeout(10):
        return [await watch.next() for _ in range(count)]


def names(infos: list[ObjectInfo]) -> list[str]:
    return [info.name for info in infos]


async def test_the_state_and_then_changes(server: MemoryServer, store: ObjectStore) -> None:
    await store.put("a", b"1")
    await store.put("b", b"2")
    one = await watch(server)
    await one.wait_caught_up()
    assert names(await take(one, 2)) == ["a", "b"]
    await store.put("c", b"3")
    await store.delete("a")
    changes = await take(one, 2)
    assert [(info.name, info.deleted) for info in changes] == [("c", False), ("a", True)]
    await one.stop()
    assert server.stream().consumers == {}
    with pytest.raises(StopAsyncIteration):
        await one.next()
    with pytest.raises(ConnectionClosedError):
        await one.start()


async def test_a_slow_reader_gets_the_last_states(server: MemoryServer, store: ObjectStore) -> None:
    one = await watch(server)
    await one.wait_caught_up()
    for number in range(20):
        await store.put(f"n{number % 2}", b"", f"{number}")
    await turns()
    assert [(info.name, info.description) for info in await take(one, 2)] == [("n0", "18"), ("n1", "19")]
    await one.stop()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"updates_only": True}, ["later", "x/2"]),
        ({"prefix": "x/"}, ["x/1", "x/2"]),
        ({"ignore_deletes": True}, ["a", "x/1", "later", "x/2"]),
        ({"from_revision": 3}, ["x/1", "gone", "later", "x/2"]),
        ({}, ["a", "x/1", "gone", "later", "x/2"]),
    ],
)
async def test_what_is_told(
    server: MemoryServer, store: ObjectStore, options: dict[str, Any], told: list[str]
) -> None:
    for name in ("a", "gone", "x/1"):
        await store.put(name, b"")
    await store.delete("gone")
    one = await watch(server, **options)
    await one.wait_caught_up()
    for name in ("later", "x/2"):
        await store.put(name, b"")
    assert names(await take(one, len(told))) == told
    await one.stop()


async def test_an_empty_bucket_is_caught_up(server: MemoryServer, store: ObjectStore) -> None:
    one = await watch(server)
    async with asyncio.timeout(5):
        await one.wait_caught_up()
    await one.stop()


async def test_a_replica_that_has_nothing_more_is_no_proof(server: MemoryServer) -> None:
    store = await server.bucket(replicas=3)
    await store.put("a", b"")
    one = await watch(server)
    async with asyncio.timeout(5):
        await one.wait_caught_up()
    assert "STREAM.MSG.GET" in server.verbs()
    await one.stop()
    assert len(server.connection.mux) == 0


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_heartbeat_of_somebody_elses_pull_is_no_proof(
    server: MemoryServer, store: ObjectStore, replicas: int
) -> None:
    """It may say that nothing is due while the server waits for an answer to flow control."""
    server.stream().config["num_replicas"] = replicas
    due = server.stream().due

    def some(consumer: Any, found: list[Any]) -> None:
        if "deliver_subject" in consumer.config:
            for left, each in enumerate(reversed(found)):
                if each.seq < last:
                    server.stream().deliver(consumer, each, left, consumer.config["deliver_subject"].encode())
        else:
            due(consumer, found)

    await store.put("a", b"1")
    last = (await store.put("b", b"2")).revision
    server.stream().due = some  # type: ignore[method-assign]
    one = await watch(server)
    await one.start()
    assert names(await take(one, 1)) == ["a"]
    (consumer,) = server.stream().consumers.values()
    inbox = consumer.config["deliver_subject"].encode()
    heartbeat = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 9\r\n\r\n"
    for _ in range(3):
        server.send(inbox, header=heartbeat)
        await turns(50)
        assert not one._caught_up
    server.stream().deliver(consumer, server.stream().messages[last], 0, inbox)
    await one.wait_caught_up()
    await one.stop()


async def test_a_slow_reader_holds_the_server_back(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name waits with its last state: new names would take any memory."""
    monkeypatch.setattr("objstore.listing.watch.MOST_WAITING", 2000)
    for number in range(10):
        await store.put(f"before{number}", b"x", description="d" * 500)
    held: list[bool] = []
    monkeypatch.setattr(OrderedConsumer, "pause", lambda self: held.append(True))
    monkeypatch.setattr(OrderedConsumer, "resume", lambda self: held.append(False))
    one = await watch(server)
    await one.wait_caught_up()
    assert held == [], "who waits for that may read nothing before"
    for number in range(10):
        await store.put(f"n{number}", b"x", description="d" * 500)
    await turns()
    assert held == [True]
    assert names(await take(one, 20)) == [
        f"{word}{number}" for word in ("before", "n") for number in range(10)
    ]
    assert held == [True, False]
    await one.stop()


@pytest.mark.parametrize(("most", "caught_up"), [(2000, True), (1 << 20, False)])
async def test_others_write_faster_than_it_reads(
    server: MemoryServer,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    caught_up: bool,
) -> None:
    """The server never tells that nothing is pending: what there was at the beginning is the end then."""
    monkeypatch.setattr("objstore.listing.watch.MOST_WAITING", most)
    for number in range(5):
        await store.put(f"before{number}", b"x", description="d" * 500)
    stream = server.stream()
    deliver = stream.deliver
    monkeypatch.setattr(
        stream, "deliver", lambda consumer, each, left, inbox: deliver(consumer, each, 7, inbox)
    )
    one = await watch(server)
    await one.start()
    await turns(50)
    assert one._caught_up is caught_up
    await one.stop()


@pytest.mark.parametrize("version", ["2.9.10", "2.15.1"])
async def test_a_revision_that_the_bucket_has_not_reached(
    server: MemoryServer, store: ObjectStore, version: str
) -> None:
    """It was deleted and created again, or restored: nothing would be seen for long."""
    server.version = server.session.info["version"] = version
    newest = (await store.put("a", b"1")).revision
    one = await watch(server, from_revision=newest + 2)
    with pytest.raises(BucketNotFoundError, match=f"ends at revision {newest}"):
        await one.wait_caught_up()
    one = await watch(server, from_revision=newest + 1)
    await one.wait_caught_up()
    await store.put("b", b"2")
    assert names(await take(one, 1)) == ["b"]
    await one.stop()
    assert server.stream().consumers == {}


async def test_metas_that_cannot_be_read(server: MemoryServer, store: ObjectStore) -> None:
    told: list[Any] = []
    one = await watch(server, on_invalid=told.append)
    await one.wait_caught_up()
    server.put_raw(meta_subject("b", "bad"), b"no JSON")
    await store.put("a", b"")
    assert names(await take(one, 1)) == ["a"]
    assert len(told) == 1
    await one.stop()


async def test_a_bucket_that_is_not_there(server: MemoryServer, store: ObjectStore) -> None:
    one = await watch(server)
    server.streams.clear()
    for call in (one.start(), one.next(), one.wait_caught_up()):
        with pytest.raises(BucketNotFoundError):
            await call
    await one.stop()
    assert len(server.connection.handlers) == 1, "only the reply inbox"


async def test_stopping_wakes_who_waits(server: MemoryServer, store: ObjectStore) -> None:
    one = await watch(server)
    waiting = asyncio.ensure_future(one.next())
    await one.start()
    await turns()
    stopping = asyncio.ensure_future(one.stop())
    with pytest.raises(StopAsyncIteration):
        await waiting
    stopping.cancel()
    await turns()
    assert server.stream().consumers == {}, "carried out although its caller was cancelled"
    await one.stop()


async def test_abandoned_from_another_thread(server: MemoryServer, store: ObjectStore) -> None:
    one = await watch(server)
    one.abandon()  # not begun: there is nothing to end
    await one.start()
    thread = threading.Thread(target=one.abandon)
    thread.start()
    thread.join()
    await turns(60)
    assert server.stream().consumers == {}


def test_small_and_wide_metas_weigh_what_they_take() -> None:
    """Else many tiny ones, or texts with one rare character, take several times the limit."""
    assert weight(b'{"name":"1f"}') > 600
    assert weight("é".encode() + b"x" * 1000) > 4000
    assert weight(json.dumps("\U0001f600" + "x" * 1000).encode()) > 4000
    assert weight(b"x" * 1000) < 2000
