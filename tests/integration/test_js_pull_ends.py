"""How pulls end on real servers; pauses and priority groups, where servers have them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import APIError, NatsError, UnsupportedFeatureError
from natsproto.jetstream.api.models import ConsumerConfig, StreamConfig
from natsproto.jetstream.api.statuses import (
    BadPullError,
    ConsumerDeletedError,
    MaxBytesError,
    MaxWaitingError,
    MissedHeartbeatError,
    NotPullConsumerError,
    PinIdMismatchError,
    PullLimitError,
)
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.pull import PullConsumer
from natsproto.server import LocalServer
from support.fake_session import until

LIMIT = 20.0


@pytest.fixture
async def name(js: JetStreamContext) -> AsyncIterator[str]:
    """The name of a fresh stream on ``<name>.>``."""
    name = "e" + uuid.uuid4().hex[:12]
    await js.create_stream(StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory"))
    yield name
    await js.delete_stream(name)


@pytest.fixture
async def new(new_server: LocalServer) -> AsyncIterator[JetStreamContext]:
    """A stream ``S`` on ``s.*``, on a server that has everything."""
    async with natsproto.connect(new_server.url) as nc:
        js = nc.jetstream()
        await js.create_stream(StreamConfig(name="S", subjects=["s.*"], storage="memory"))
        yield js
        await js.delete_stream("S")


async def pull(js: JetStreamContext, stream: str, **config: Any) -> PullConsumer:
    return await js.pull_consumer(stream, config={"durable_name": "c", "ack_policy": "explicit", **config})


# -- ends -----------------------------------------------------------------------------------------


async def test_limits_of_the_consumer(js: JetStreamContext, name: str) -> None:
    consumer = await pull(js, name, max_batch=5, max_expires=2_000_000_000, max_bytes=1000, max_waiting=1)
    await js.publish(f"{name}.a", bytes(500))
    for options, words in (
        ({"batch": 6}, "Exceeded MaxRequestBatch of 5"),
        ({"timeout": 3}, "Exceeded MaxRequestExpires of 2s"),
        ({"max_bytes": 2000}, "Exceeded MaxRequestMaxBytes of 1000"),
    ):
        with pytest.raises(PullLimitError) as caught:
            await consumer.fetch(**{"timeout": 1.5, **options})
        assert (caught.value.code, caught.value.description) == (409, words)
    with pytest.raises(MaxBytesError, match="Message Size Exceeds MaxBytes"):
        await consumer.fetch(timeout=1.5, max_bytes=100)
    assert len(await consumer.fetch(timeout=1.5)) == 1
    first = asyncio.ensure_future(consumer.fetch(timeout=1.5))
    await js.client.flush()
    async with asyncio.timeout(LIMIT):
        while (await js.consumer_info(name, "c")).raw["num_waiting"] == 0:
            pass
    with pytest.raises(MaxWaitingError):
        await consumer.fetch(timeout=1.5)
    await js.publish(f"{name}.a", b"1")
    assert len(await first) == 1


async def test_heartbeats(js: JetStreamContext, name: str) -> None:
    consumer = await pull(js, name)
    async with asyncio.timeout(LIMIT):
        assert await consumer.fetch(1, timeout=0.5, idle_heartbeat=0.1) == []
        assert consumer.last_end is None
        waiting = asyncio.ensure_future(anext(consumer.messages(timeout=10, idle_heartbeat=0.1)))
        await js.client.flush()
        await js.publish(f"{name}.a", b"1")
        assert (await waiting).data == b"1"


async def test_deleted_and_of_another_kind(js: JetStreamContext, name: str) -> None:
    consumer = await pull(js, name)
    messages = consumer.messages(timeout=10)
    waiting = asyncio.ensure_future(anext(messages))
    async with asyncio.timeout(LIMIT):
        while (await js.consumer_info(name, "c")).raw["num_waiting"] == 0:
            pass
        await consumer.delete()
        with pytest.raises(ConsumerDeletedError):
            await waiting
        async with await js.push_consumer(name, config={"durable_name": "c", "ack_policy": "explicit"}):
            with pytest.raises(NotPullConsumerError):
                await consumer.fetch(timeout=5)


async def test_a_server_that_hangs() -> None:
    """It answers no PING either: that is the connection's affair, or the heartbeats' if they are first."""
    with LocalServer() as server:
        async with natsproto.connect(
            server.url, ping_interval=0.2, max_outstanding_pings=1, reconnect=False
        ) as nc:
            js = nc.jetstream()
            await js.create_stream(StreamConfig(name="S", subjects=["s.*"], storage="memory"))
            consumer = await pull(js, "S")
            waiting = asyncio.ensure_future(consumer.fetch(1, timeout=30, idle_heartbeat=0.1))
            await nc.flush()
            server.pause()
            try:
                async with asyncio.timeout(LIMIT):
                    with pytest.raises((ConnectionError, MissedHeartbeatError)):
                        await waiting
            finally:
                server.resume()


# -- pauses ---------------------------------------------------------------------------------------


async def test_paused(new: JetStreamContext) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    consumer = await pull(new, "S")
    await new.publish("s.a", b"1")
    paused = await new.pause_consumer("S", "c", until)
    assert paused.paused
    assert paused.pause_until == until
    assert paused.pause_remaining is not None
    assert timedelta(minutes=59) < paused.pause_remaining <= timedelta(hours=1)
    assert await consumer.fetch(timeout=0.2) == []
    assert (await new.consumer_info("S", "c")).raw["paused"] is True
    assert not (await new.resume_consumer("S", "c")).paused
    assert [msg.data for msg in await consumer.fetch(timeout=5)] == [b"1"]
    config = {"pause_until": until.isoformat().replace("+00:00", "Z"), "ack_policy": "none"}
    later = await new.pull_consumer("S", config=config)
    assert await later.fetch(timeout=0.1) == []
    with pytest.raises(APIError):
        await new.pause_consumer("S", "nothing", until)


# -- priority groups ------------------------------------------------------------------------------


async def test_overflow(new: JetStreamContext) -> None:
    consumer = await pull(new, "S", priority_groups=["g"], priority_policy="overflow")
    for _ in range(5):
        await new.publish("s.a", b"1")
    assert await consumer.fetch(timeout=0.1, group="g", min_pending=6) == []
    assert len(await consumer.fetch(timeout=5, group="g", min_pending=5)) == 1
    assert await consumer.fetch(timeout=0.1, group="g", min_ack_pending=2) == []
    assert len(await consumer.fetch(2, timeout=5, group="g")) == 2
    assert len(await consumer.fetch(timeout=5, group="g", min_ack_pending=2)) == 1


async def test_pinned(new: JetStreamContext) -> None:
    config = {
        "priority_groups": ["g"],
        "priority_policy": "pinned_client",
        "priority_timeout": 60_000_000_000,
    }
    one = await pull(new, "S", **config)
    two = await new.pull_consumer("S", "c")
    for n in range(6):
        await new.publish("s.a", b"%d" % n)
    (first,) = await one.fetch(timeout=5, group="g")
    assert one.pin_id
    assert await two.fetch(timeout=0.2, group="g") == []
    assert two.pin_id is None
    assert len(await one.fetch(2, timeout=5, group="g")) == 2
    await new.unpin_consumer("S", "c", "g")
    (other,) = await two.fetch(timeout=5, group="g")
    assert two.pin_id not in (None, one.pin_id)
    with pytest.raises(PinIdMismatchError):
        await one.fetch(timeout=5, group="g")
    assert one.pin_id is None
    assert await one.fetch(timeout=0.2, group="g") == []
    assert [first.data, other.data] == [b"0", b"3"]
    with pytest.raises(APIError, match="10160"):
        await new.unpin_consumer("S", "c", "other")


async def test_an_iteration_changes_hands(new: JetStreamContext) -> None:
    """The one that was pinned waits, without an error, until it is its turn again."""
    reported: list[NatsError] = []
    config = {"priority_groups": ["g"], "priority_policy": "pinned_client"}
    await pull(new, "S", **config)
    url = new.client.connected_url
    assert url is not None
    found: dict[str, list[bytes]] = {"one": [], "two": []}
    async with (
        natsproto.connect(url, error_cb=reported.append) as one,
        natsproto.connect(url, error_cb=reported.append) as two,
    ):

        async def work(nc: natsproto.Client, name: str) -> None:
            consumer = await nc.jetstream().pull_consumer("S", "c")
            async for msg in consumer.messages(batch=5, timeout=1, group="g"):
                await msg.ack()
                found[name].append(msg.data)

        tasks = [asyncio.ensure_future(work(one, "one")), asyncio.ensure_future(work(two, "two"))]
        try:
            async with asyncio.timeout(LIMIT):
                for n in range(5):
                    await new.publish("s.a", b"%d" % n)
                    await until(lambda n=n: sum(map(len, found.values())) > n)
                assert not all(found.values())
                while not all(found.values()):
                    await new.unpin_consumer("S", "c", "g")
                    await new.publish("s.a", b"more")
                    await new.client.flush()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(exc) for exc in reported} <= {PinIdMismatchError}


async def test_prioritized(new: JetStreamContext) -> None:
    consumer = await pull(new, "S", priority_groups=["g"], priority_policy="prioritized")
    low = asyncio.ensure_future(consumer.fetch(timeout=1, group="g", priority=9))
    await new.client.flush()
    high = asyncio.ensure_future(consumer.fetch(timeout=5, group="g", priority=0))
    async with asyncio.timeout(LIMIT):
        while (await new.consumer_info("S", "c")).raw["num_waiting"] != 2:
            pass
        await new.publish("s.a", b"1")
        assert [msg.data for msg in await high] == [b"1"]
        await new.publish("s.a", b"2")
        assert [msg.data for msg in await low] == [b"2"]


async def test_a_group_that_the_server_does_not_know(new: JetStreamContext) -> None:
    """What this client thinks of the consumer may be out of date."""
    consumer = await pull(new, "S", priority_groups=["g"], priority_policy="overflow")
    config = dict(consumer.info.raw["config"])  # type: ignore[call-overload]
    config["priority_groups"] = ["h"]
    consumer.info.raw["config"] = config
    with pytest.raises(BadPullError, match="Invalid Priority Group"):
        await consumer.fetch(timeout=5, group="h")


async def test_servers_that_have_neither(old_server: LocalServer) -> None:
    async with natsproto.connect(old_server.url) as nc:
        js = nc.jetstream(timeout=1)
        await js.create_stream(StreamConfig(name="S", subjects=["s.*"], storage="memory"))
        await js.create_consumer("S", ConsumerConfig(durable_name="c", ack_policy="explicit"))
        until = datetime.now(UTC) + timedelta(hours=1)
        calls = (
            js.pause_consumer("S", "c", until),
            js.unpin_consumer("S", "c", "g"),
            pull(js, "S", durable_name="d", priority_groups=["g"], priority_policy="overflow"),
            pull(js, "S", durable_name="e", pause_until="2040-01-01T00:00:00Z"),
        )
        for found in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(found, UnsupportedFeatureError)
            assert found.minimum == "2.11.0"
        await js.delete_stream("S")
