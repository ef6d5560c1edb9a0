"""Readers of large messages: the server does not end a connection because too much waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

import natsproto
from natsproto.jetstream import consumers, in_flight
from natsproto.jetstream.api.models import ConsumerConfig, StreamConfig
from natsproto.jetstream.api.statuses import MaxBytesError
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.message import JetStreamMsg
from natsproto.jetstream.pull import PullConsumer
from natsproto.server import LocalServer
from support.servers import old_binary

KIB, MIB = 1024, 1024 * 1024
LIMIT = 60.0
SIZE = 100_000
COUNT = 150
"""Messages: twice as many bytes as the server keeps for one connection."""


@pytest.fixture(params=["new", "old"])
async def js(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[JetStreamContext]:
    """A stream with large messages, and small ones between them."""
    monkeypatch.setattr(consumers, "MOST_BYTES", 1 * MIB)
    monkeypatch.setattr(consumers, "UNLIMITED_BYTES", 2 * MIB)
    binary = {"binary": old_binary()} if request.param == "old" else {}
    with LocalServer(config="max_pending: 8MiB\n", max_payload=128 * KIB, **binary) as server:
        async with natsproto.connect(server.url) as client:
            js = client.jetstream()
            await js.create_stream(StreamConfig(name="S", subjects=["s.*"], storage="memory"))
            for n in range(COUNT):
                await js.publish(f"s.{n}", bytes(SIZE if n % 10 else 100))
            yield js
            assert client.stats.reconnects == 0


async def consumer(js: JetStreamContext, **config: Any) -> PullConsumer:
    return await js.pull_consumer(
        "S", config=ConsumerConfig(**{"durable_name": "c", "ack_policy": "explicit", **config})
    )


async def everything(
    js: JetStreamContext, way: str, reader: PullConsumer, count: int = COUNT
) -> list[JetStreamMsg]:
    """Read and acknowledge so many messages."""
    found: list[JetStreamMsg] = []
    async with asyncio.timeout(LIMIT):
        if way == "messages":
            async for msg in reader.messages():
                found.append(msg)
                await msg.ack()
                if len(found) == count:
                    break
        while len(found) < count:
            some = await reader.fetch(100, no_wait=way == "no_wait", timeout=1)
            assert some
            found += some
            for msg in some:
                await msg.ack()
    return found


@pytest.mark.parametrize("way", ["messages", "fetch", "no_wait"])
@pytest.mark.parametrize("policy", ["all", "last_per_subject"])
async def test_each_message_comes_once(js: JetStreamContext, way: str, policy: str) -> None:
    reader = await consumer(js, deliver_policy=policy, filter_subject="s.*")
    found = await everything(js, way, reader)
    assert [msg.seq for msg in found] == list(range(1, COUNT + 1))
    assert {msg.metadata.delivered for msg in found} == {1}
    assert await reader.fetch(100, no_wait=True) == []


@pytest.mark.parametrize("way", ["messages", "fetch"])
async def test_each_second_delivery_comes(js: JetStreamContext, way: str) -> None:
    """A server before 2.10.16 counts a delivery that did not fit, so a limit of bytes would lose it."""
    reader = await consumer(js, max_deliver=2)
    first: list[JetStreamMsg] = []
    while len(first) < COUNT:
        first += await reader.fetch(5, no_wait=True)
    for msg in first:
        await msg.nak()
    found = await everything(js, way, reader)
    assert Counter(msg.seq for msg in found) == Counter(range(1, COUNT + 1))
    assert {msg.metadata.delivered for msg in found} == {2}


async def test_several_readers_at_once(js: JetStreamContext) -> None:
    readers = [await consumer(js, durable_name=f"c{n}") for n in range(3)]
    for found in await asyncio.gather(*[everything(js, "messages", reader) for reader in readers]):
        assert len({msg.seq for msg in found}) == COUNT


@pytest.mark.parametrize("way", ["messages", "fetch"])
async def test_a_limit_of_the_consumer(js: JetStreamContext, way: str) -> None:
    """Less than the default, and less than some messages have."""
    found = await everything(js, way, await consumer(js, max_bytes=50_000))
    assert [msg.seq for msg in found] == list(range(1, COUNT + 1))


async def test_a_limit_that_is_set_later(js: JetStreamContext) -> None:
    reader = await consumer(js)
    await consumer(js, max_bytes=300_000)
    found = await everything(js, "messages", reader)
    assert [msg.seq for msg in found] == list(range(1, COUNT + 1))


async def test_headers_alone(js: JetStreamContext) -> None:
    """Only what is sent counts."""
    reader = await consumer(js, headers_only=True)
    found: list[JetStreamMsg] = []
    while len(found) < COUNT:
        found += (some := await reader.fetch(100, timeout=1))
        assert len(some) in {100, COUNT - 100}


async def test_why_a_fetch_ends(js: JetStreamContext) -> None:
    reader = await consumer(js)
    found = await reader.fetch(100)
    new = isinstance(reader.last_end, MaxBytesError)
    assert sum(len(msg.data) for msg in found) < 1 * MIB if new else len(found) < 100
    assert ("metadata" in reader.info.raw["config"]) is new


@pytest.mark.parametrize("policy", ["overflow", "pinned_client"])
@pytest.mark.parametrize("js", ["new"], indirect=True)
async def test_priority_groups(js: JetStreamContext, policy: str) -> None:
    reader = await consumer(js, extra={"priority_groups": ["g"], "priority_policy": policy})
    found: list[int] = []
    async with asyncio.timeout(LIMIT):
        async for msg in reader.messages(group="g", idle_heartbeat=1):
            found.append(msg.seq)
            await msg.ack()
            if len(found) == COUNT:
                break
    assert found == list(range(1, COUNT + 1))
    assert (reader.pin_id is not None) is (policy == "pinned_client")


@pytest.mark.parametrize("js", ["new"], indirect=True)
async def test_many_batches_at_once(js: JetStreamContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "FIRST", 2 * MIB)
    monkeypatch.setattr(in_flight, "LIMIT", 3 * MIB)
    await js.update_stream({**(await js.stream_info("S")).config.to_json(), "allow_direct": True})

    async def batches() -> int:
        count = seq = 0
        while count < COUNT:
            async for msg in js.get_batch("S", seq=seq + 1, max_bytes=1 * MIB):
                count, seq = count + 1, msg.seq
        return seq

    async def newest() -> int:
        return len([msg.seq async for msg in js.get_last_messages("S", ["s.>"], max_bytes=1 * MIB)])

    found = await asyncio.gather(*[read() for read in 10 * (batches, newest)])
    assert found == 20 * [COUNT]
    assert in_flight.in_flight(js.client.connection).bytes == 0
