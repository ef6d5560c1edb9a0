"""Push consumers on real servers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import ConfigError, NatsError, PermissionsViolationError, RequestTimeoutError
from natsproto.jetstream.api.errors import ConsumerNotFoundError
from natsproto.jetstream.api.models import ConsumerConfig, StreamConfig
from natsproto.jetstream.api.statuses import ConsumerDeletedError, ConsumerInUseError
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.push import PushConsumer
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from support.fake_session import until

LIMIT = 20.0
HEARTBEAT = timedelta(milliseconds=100)


@pytest.fixture
async def name(js: JetStreamContext) -> AsyncIterator[str]:
    """The name of a fresh stream on ``<name>.>`` with ten messages."""
    name = "p" + uuid.uuid4().hex[:12]
    await js.create_stream(StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory"))
    for n in range(10):
        await js.publish(f"{name}.a", b"%d" % n)
    yield name
    await js.delete_stream(name)


async def read(consumer: PushConsumer, count: int) -> list[bytes]:
    found = []
    async with asyncio.timeout(LIMIT):
        for _ in range(count):
            msg = await consumer.next_msg()
            await msg.ack()
            found.append(msg.data)
    return found


async def settled(js: JetStreamContext, stream: str, consumer: str, **wanted: Any) -> None:
    """Wait until the consumer's state has these values; what is false, servers leave out."""
    async with asyncio.timeout(LIMIT):
        while True:
            raw = (await js.consumer_info(stream, consumer)).raw
            if all(raw.get(key, False) == value for key, value in wanted.items()):
                return


async def test_ephemeral(js: JetStreamContext, name: str) -> None:
    config = ConsumerConfig(ack_policy="explicit", idle_heartbeat=HEARTBEAT, flow_control=True)
    async with await js.push_consumer(name, config=config) as consumer:
        assert consumer.info.config.ack_policy == "explicit"
        assert await read(consumer, 10) == [b"%d" % n for n in range(10)]
        await settled(js, name, consumer.name, num_ack_pending=0, push_bound=True)
        with pytest.raises(TimeoutError):
            await consumer.next_msg(0.3)  # heartbeats are no messages
        await js.publish(f"{name}.b", b"new")
        assert await read(consumer, 1) == [b"new"]
    assert await js.consumer_names(name) == []


async def test_durable(js: JetStreamContext, name: str) -> None:
    """It keeps its position, and its deliver subject, for whoever binds to it next."""
    config = {"durable_name": "d", "ack_policy": "explicit"}
    async with await js.push_consumer(name, config=config) as consumer:
        assert await read(consumer, 3) == [b"0", b"1", b"2"]
        with pytest.raises(ConsumerInUseError):
            await js.push_consumer(name, "d")
        with pytest.raises(ConfigError, match="push consumer"):
            await js.pull_consumer(name, "d")
    subject = (await js.consumer_info(name, "d")).config.deliver_subject
    async with await js.push_consumer(name, config={**config, "ack_wait": 60_000_000_000}) as again:
        assert again.info.config.deliver_subject == subject
        await js.publish(f"{name}.b", b"new")
        assert (await read(again, 1)) == [b"new"]  # the others wait for ack_wait
    bound = await js.push_consumer(name, "d")
    assert bound.info.config.ack_wait == timedelta(minutes=1)
    await bound.delete()
    with pytest.raises(ConsumerNotFoundError):
        await js.push_consumer(name, "d")


@pytest.mark.parametrize("filters", [{"filter_subject": "a"}, {}], ids=["one", "all"])
async def test_created_by_somebody_with_another_filter(
    js: JetStreamContext, nc: Client, name: str, filters: dict[str, str]
) -> None:
    """Who may read the one subject only would get what ours may read, at the subject that it has named."""
    other = {"durable_name": "d", "filter_subject": f"{name}.other", "deliver_subject": f"{name}-elsewhere"}
    await js.create_consumer(name, {**other, "ack_policy": "explicit"})
    ours = {key: f"{name}.{value}" for key, value in filters.items()}
    async with (
        await js.push_consumer(
            name, config={"durable_name": "d", "ack_policy": "explicit", **ours}
        ) as consumer,
        await nc.subscribe(f"{name}-elsewhere") as elsewhere,
    ):
        assert str(consumer.info.config.deliver_subject).startswith("_INBOX.")
        await js.publish(f"{name}.a", b"new")
        assert (await read(consumer, 1)) in ([b"0"], [b"new"])
        await settled(js, name, "d", push_bound=True)
        assert elsewhere.pending_msgs == 0


async def test_queue_group(js: JetStreamContext, name: str, server: LocalServer) -> None:
    config = {
        "durable_name": "q",
        "ack_policy": "explicit",
        "deliver_group": "workers",
        "deliver_subject": f"{name}-q",
    }
    async with (
        natsproto.connect(server.url) as other,
        await js.push_consumer(name, config=config) as one,
        await other.jetstream().push_consumer(name, "q") as two,
    ):
        await other.flush()
        for n in range(200):
            await js.publish(f"{name}.b", b"b%d" % n)
        found: list[set[bytes]] = [set(), set()]

        async def work(consumer: PushConsumer, mine: set[bytes]) -> None:
            async for msg in consumer:
                mine.add(msg.data)
                await msg.ack()

        tasks = [asyncio.ensure_future(work(*each)) for each in zip((one, two), found, strict=True)]
        await settled(js, name, "q", num_pending=0, num_ack_pending=0)
        await one.unsubscribe()
        await two.unsubscribe()
        await asyncio.gather(*tasks)
        assert len(found[0]) + len(found[1]) == 210
        assert len(found[0] | found[1]) == 210
        assert all(found)


async def test_a_group_whose_filter_changes(js: JetStreamContext, name: str, server: LocalServer) -> None:
    """New instances of a program join those that are there, at their inbox."""
    config = {"durable_name": "q", "ack_policy": "explicit", "deliver_group": "g"}
    async with (
        natsproto.connect(server.url) as other,
        await js.push_consumer(name, config={**config, "filter_subject": f"{name}.b"}) as old,
        await other.jetstream().push_consumer(name, config={**config, "filter_subject": f"{name}.*"}) as new,
    ):
        assert new.info.config.deliver_subject == old.info.config.deliver_subject
        await old.unsubscribe()
        if not server.version.startswith("2.9."):  # which delivers nothing more once a filter was changed
            await js.publish(f"{name}.c", b"new")
            assert await read(new, 1) == [b"new"]


async def test_acknowledgements(js: JetStreamContext, name: str) -> None:
    config = ConsumerConfig(durable_name="c", ack_policy="explicit", ack_wait=timedelta(milliseconds=800))
    async with await js.push_consumer(name, config=config) as consumer:
        msgs = [await consumer.next_msg(LIMIT) for _ in range(10)]
        await msgs[0].ack_sync(LIMIT)
        await msgs[1].nak()
        await msgs[2].nak(0.05)
        await msgs[3].term()
        await msgs[4].term("not for us")  # a server of 2.9 knows no reason
        for msg in msgs[6:]:
            await msg.ack()
        async with asyncio.timeout(LIMIT):
            again = [await consumer.next_msg() for _ in range(2)]
            assert [(m.seq, m.metadata.delivered) for m in again] == [(2, 2), (3, 2)]
            for msg in again:
                await msg.ack()
            for _ in range(4):  # longer than ack_wait
                await msgs[5].in_progress()
                with pytest.raises(RequestTimeoutError):
                    await consumer.next_msg(0.25)
            late = await consumer.next_msg()
            assert (late.seq, late.metadata.delivered) == (6, 2)
            await late.ack_sync(LIMIT)
        await settled(js, name, "c", num_ack_pending=0)


async def test_flow_control(js: JetStreamContext, name: str) -> None:
    """A reader that is slow gets everything, and never more than the window at once."""
    config = {
        "ack_policy": "none",
        "idle_heartbeat": 500_000_000,
        "flow_control": True,
        "filter_subject": f"{name}.f",
    }
    for _ in range(600):
        await js.client.publish(f"{name}.f", bytes(10_000))
    await js.client.flush()
    async with await js.push_consumer(name, config=config, pending_bytes_limit=4_000_000) as consumer:
        count = 0
        async with asyncio.timeout(LIMIT):
            await until(lambda: consumer._held is not None)
            await js.client.flush()
            assert (await js.consumer_info(name, consumer.name)).num_pending > 0  # the server waits for us
            while count < 600:
                await consumer.next_msg()
                count += 1
                if count % 10 == 0:
                    await asyncio.sleep(0)
        assert consumer.dropped == 0


async def test_deleted(js: JetStreamContext, name: str) -> None:
    config = {"ack_policy": "none", "idle_heartbeat": 100_000_000}
    consumer = await js.push_consumer(name, config=config)
    assert len(await read(consumer, 10)) == 10
    await js.delete_consumer(name, consumer.name)
    async with asyncio.timeout(LIMIT):
        with pytest.raises(ConsumerDeletedError):
            await consumer.next_msg()


async def test_reconnected(server: LocalServer, js: JetStreamContext, name: str) -> None:
    """The subscription comes back with the connection; a consumer that is gone by then ends it."""
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url, reconnect_wait=0.01) as nc:
        # What the server had sent before it noticed comes again after ack_wait.
        config = {"ack_policy": "explicit", "idle_heartbeat": 1_000_000_000, "ack_wait": 500_000_000}
        consumer = await nc.jetstream().push_consumer(name, config=config)
        assert len(await read(consumer, 10)) == 10
        await nc.flush()  # or the acknowledgements are lost with the connection
        proxy.cut()
        await js.publish(f"{name}.b", b"meanwhile")
        assert await read(consumer, 1) == [b"meanwhile"]
        await js.delete_consumer(name, consumer.name)
        proxy.cut()
        async with asyncio.timeout(LIMIT):
            with pytest.raises(ConsumerDeletedError):
                await consumer.next_msg()


async def test_drained(nc: Client, js: JetStreamContext, name: str) -> None:
    consumer = await js.push_consumer(name, config={"durable_name": "d", "ack_policy": "explicit"})
    first = await consumer.next_msg(LIMIT)
    await settled(js, name, "d", num_pending=0)
    draining = asyncio.ensure_future(consumer.drain())
    rest = [msg.data async for msg in consumer]
    await draining
    assert [first.data, *rest] == [b"%d" % n for n in range(10)]


async def test_who_may_not() -> None:
    config = """
    authorization {
      users: [{user: u, password: p, permissions: {
        publish: {deny: "$JS.API.CONSUMER.INFO.>"}, subscribe: {deny: "secret"}
      }}]
    }
    """
    reported: list[NatsError] = []
    async with (
        LocalServer(config=config) as server,
        natsproto.connect(server.url, user="u", password="p", error_cb=reported.append) as nc,
    ):
        js = nc.jetstream()
        await js.create_stream(StreamConfig(name="S", subjects=["s.*"], storage="memory"))
        await js.publish("s.a", b"1")
        async with asyncio.timeout(LIMIT):
            async with await js.push_consumer("S", config={"ack_policy": "none"}) as consumer:
                assert (await consumer.next_msg()).data == b"1"
            refused = await js.push_consumer("S", config={"ack_policy": "none", "deliver_subject": "secret"})
            with pytest.raises(PermissionsViolationError):
                await refused.next_msg()
