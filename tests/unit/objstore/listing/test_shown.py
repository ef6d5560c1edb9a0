"""What a consumer shows, even while its server is behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.errors import RequestTimeoutError
from objstore import ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.naming import meta_subject
from objstore.listing.shown import SHOWN, SHOWN_AT_ONCE, show_metas, show_newest
from support.at_once import Calls
from support.memory_server import ROLL_UP, MemoryServer, Stored


async def fill(store: ObjectStore, count: int) -> list[ObjectInfo]:
    return [await store.put(f"n{number:02}", b"") for number in range(count)]


@pytest.mark.parametrize("late", [1, 5])
async def test_a_meta_that_consumers_show_late(server: MemoryServer, late: int) -> None:
    """Their servers are behind: they are asked until they have what the leader has."""
    store = await server.bucket(replicas=3)
    info = (await fill(store, 1))[0]
    subject = meta_subject("b", "n00")
    bucket = await bind(server.js, "b")
    stream = server.stream()
    older = stream.messages[info.revision]
    seq = server.put_raw(subject, older.payload, ROLL_UP)
    consume, every = stream.consume, stream.of
    left = late

    def behind(name: str, config: dict[str, Any]) -> Any:
        nonlocal left
        left -= 1
        stream.of = (lambda pattern: [older]) if left >= 0 else every  # type: ignore[method-assign]
        try:
            return consume(name, config)
        finally:
            del stream.of

    stream.consume = behind  # type: ignore[method-assign]
    newest = await show_newest(bucket, subject, await bucket.leader_message(subject))
    assert newest is not None
    assert newest.seq == seq
    assert left == -1


async def shown(bucket: Bucket) -> dict[str, int]:
    found: dict[str, int] = {}
    await show_metas(
        bucket, lambda msg, info: found.update({msg.subject.decode(): info.revision if info else 0})
    )
    return found


@pytest.mark.parametrize("also", [0, 3])
async def test_metas_that_expire_before_their_turn(
    server: MemoryServer, store: ObjectStore, also: int
) -> None:
    """They were announced, and are never delivered; what is stored meanwhile comes in the next round."""
    infos = await fill(store, 6)
    bucket = await bind(server.js, "b")
    stream = server.stream()
    due = stream.due

    def some(consumer: Any, found: list[Stored]) -> None:
        stream.due = due  # type: ignore[method-assign]
        gone = {infos[1].revision, infos[5].revision}
        stream.remove(gone)
        due(consumer, [each for each in found if each.seq not in gone])
        live, stream.consumers = stream.consumers, {}  # as if the server had told the end before
        for number in range(also):
            server.put_raw(meta_subject("b", f"late{number}"), b"no JSON")
        stream.consumers = live

    stream.due = some  # type: ignore[method-assign]
    left = {meta_subject("b", infos[n].name): infos[n].revision for n in (0, 2, 3, 4)}
    late = {meta_subject("b", f"late{number}"): 0 for number in range(also)}
    assert await shown(bucket) == left | late


@pytest.mark.parametrize("older", [0, 3])
async def test_metas_that_come_and_go_all_the_time(
    server: MemoryServer, store: ObjectStore, older: int
) -> None:
    """What comes after the beginning need not be shown. Writers without roll-up leave older metas behind."""
    for _ in range(older):
        server.put_raw(meta_subject("b", "twice"), b"no JSON")
    infos = await fill(store, 6)
    bucket = await bind(server.js, "b")
    stream = server.stream()
    due = stream.due
    rounds = 0

    def come_and_go(consumer: Any, found: list[Stored]) -> None:
        nonlocal rounds
        if "deliver_subject" not in consumer.config:
            return  # it counts
        rounds += 1
        gone = [found.pop()] if found else []
        stream.remove([each.seq for each in gone])
        due(consumer, found)
        live, stream.consumers = stream.consumers, {}  # as if the server had told the end before
        for name in ("some", "more"):
            server.put_raw(meta_subject("b", f"{name}{rounds}"), b"no JSON")
        stream.consumers = live

    stream.due = come_and_go  # type: ignore[method-assign]
    found = await shown(bucket)
    assert found.keys() >= {meta_subject("b", info.name) for info in infos[:-1]}
    assert rounds < SHOWN


@pytest.mark.parametrize("hidden", [0, 3])
async def test_a_meta_that_a_changed_consumer_leaves_out(
    server: MemoryServer, store: ObjectStore, hidden: int
) -> None:
    infos = await fill(store, 6)
    bucket = await bind(server.js, "b")
    stream = server.stream()
    due = stream.due
    stream.due = lambda consumer, found: due(  # type: ignore[method-assign]
        consumer, [each for each in found if each.seq != infos[hidden].revision]
    )
    with pytest.raises(RequestTimeoutError, match="do not deliver what they count"):
        await shown(bucket)


async def test_the_header_of_a_payload_that_was_left_out(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """Anybody may store it, with an empty message."""
    await fill(store, 2)
    header = b"NATS/1.0\r\nNats-Msg-Size: 7\r\n\r\n"
    server.put_raw(meta_subject("b", "empty"), b"", header)
    assert len(await shown(bucket)) == 3
    consume = server.stream().consume
    server.stream().consume = lambda name, config: consume(  # type: ignore[method-assign]
        name, {**config, "headers_only": True}
    )
    with pytest.raises(RequestTimeoutError, match="do not deliver what they count"):
        await shown(bucket)


async def test_empty_metas_are_asked_for_at_once(
    server: MemoryServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(SHOWN_AT_ONCE + 5):
        server.put_raw(meta_subject("b", f"{number}"), b"", b"NATS/1.0\r\nNats-Msg-Size: 7\r\n\r\n")
    ask = Calls(bucket.leader_message)
    monkeypatch.setattr(Bucket, "leader_message", lambda self, *args: ask(*args))
    assert len(await shown(bucket)) == SHOWN_AT_ONCE + 5
    assert ask.most == SHOWN_AT_ONCE


async def test_it_ends_beside_a_writer_that_never_pauses(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored meanwhile is announced, too."""
    monkeypatch.setattr("objstore.bucket.collect.HEARTBEAT", 60.0)
    infos = await fill(store, 6)
    stream = server.stream()
    deliver = stream.deliver
    monkeypatch.setattr(
        stream, "deliver", lambda consumer, each, left, inbox: deliver(consumer, each, left + 9, inbox)
    )
    async with asyncio.timeout(20):
        found = await shown(await bind(server.js, "b"))
    assert len(found) == len(infos)
