"""Pull consumers on real servers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import APIError, PermissionsViolationError
from natsproto.jetstream.api.errors import ConsumerExistsError, ConsumerNotFoundError
from natsproto.jetstream.api.models import ConsumerConfig, StreamConfig
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.pull import PullConsumer
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy

LIMIT = 20.0


@pytest.fixture
async def name(js: JetStreamContext) -> AsyncIterator[str]:
    """The name of a fresh stream on ``<name>.>`` with ten messages."""
    name = "f-" + uuid.uuid4().hex[:12]
    await js.create_stream(StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory"))
    for n in range(10):
        await js.publish(f"{name}.a", b"%d" % n, headers={"N": str(n)})
    yield name
    await js.delete_stream(name)


@pytest.fixture(autouse=True)
def grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on a busy machine says late that a fetch has expired."""
    monkeypatch.setattr("natsproto.jetstream.pull.GRACE", 10.0)


@pytest.fixture
async def pull(js: JetStreamContext, name: str) -> PullConsumer:
    return await js.pull_consumer(
        name, config=ConsumerConfig(durable_name="c", ack_policy="explicit", ack_wait=timedelta(seconds=30))
    )


async def test_fetch(js: JetStreamContext, name: str, pull: PullConsumer) -> None:
    first = await pull.fetch(3)
    assert [m.data for m in first] == [b"0", b"1", b"2"]
    assert first[1].headers is not None
    assert first[1].headers["N"] == "1"
    assert (first[1].subject, first[1].seq, first[1].metadata.num_pending) == (f"{name}.a", 2, 8)
    rest = await pull.fetch(100, timeout=0.2)
    assert len(rest) == 7
    async with asyncio.timeout(LIMIT):
        assert await pull.fetch(1, timeout=0.05) == []
        assert await pull.fetch(1, timeout=30, no_wait=True) == []
    again = await js.pull_consumer(name, "c")
    assert again.info.raw["num_ack_pending"] == 10


async def test_a_delivery_of_another_stream(js: JetStreamContext, name: str, server: LocalServer) -> None:
    """Whoever sees the request may have a consumer of the same name deliver its own messages there."""
    pull = await js.pull_consumer(name, config=ConsumerConfig(durable_name="c", filter_subject=f"{name}.b"))
    async with natsproto.connect(server.url) as other:
        asked = await other.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{name}.c")
        await other.flush()
        fetching = asyncio.ensure_future(pull.fetch(1, timeout=LIMIT))
        inbox = (await asked.next_msg(LIMIT)).reply
        evil = other.jetstream()
        await evil.create_stream(
            StreamConfig(name=f"{name}-evil", subjects=[f"{name}-evil"], storage="memory")
        )
        await evil.publish(f"{name}-evil", b"forged")
        config = ConsumerConfig(durable_name="c", deliver_subject=inbox, ack_policy="none")
        await evil.create_consumer(f"{name}-evil", config)
        await evil.publish(f"{name}-evil", b"forged too")
        await evil.publish(f"{name}.b", b"right")
        assert [msg.data for msg in await fetching] == [b"right"]
        await evil.delete_stream(f"{name}-evil")


async def test_max_bytes(pull: PullConsumer) -> None:
    found = await pull.fetch(10, max_bytes=400, timeout=1)
    assert 0 < len(found) < 10
    with pytest.raises(APIError, match="MaxBytes"):
        await pull.fetch(10, max_bytes=10, timeout=1)


async def test_max_bytes_of_the_newest_of_each_subject(js: JetStreamContext, name: str) -> None:
    """What the documentation warns of: the message that did not fit never comes."""
    for n in range(20):
        await js.publish(f"{name}.b.{n}", b"x" * 500)
    for policy, lacking in (("all", False), ("last_per_subject", True)):
        pull = await js.pull_consumer(
            name,
            config=ConsumerConfig(durable_name=policy, deliver_policy=policy, filter_subject=f"{name}.b.*"),
        )
        found, count = 0, -1
        async with asyncio.timeout(LIMIT):
            while count:
                count = len(await pull.fetch(100, max_bytes=5000, timeout=1))
                found += count
        assert (found < 20) is lacking


async def test_acknowledgements(js: JetStreamContext, name: str, pull: PullConsumer) -> None:
    messages = await pull.fetch(4)
    await messages[0].ack()
    await messages[1].ack_sync()
    await messages[2].term()
    await messages[3].in_progress()
    await js.client.flush()
    async with asyncio.timeout(LIMIT):  # acknowledgements are worked off later than they arrive
        while (await js.consumer_info(name, "c")).raw["num_ack_pending"] != 1:
            pass
    await messages[3].nak()
    rest = await pull.fetch(7, timeout=10)
    (again,) = [m for m in rest if m.seq == 4]
    assert (len(rest), again.metadata.delivered) == (7, 2)
    await again.nak(0.05)
    (later,) = await pull.fetch(1, timeout=10)
    assert (later.seq, later.metadata.delivered) == (4, 3)


async def test_redelivery(js: JetStreamContext, name: str) -> None:
    config = ConsumerConfig(durable_name="c", ack_policy="explicit", ack_wait=timedelta(milliseconds=200))
    pull = await js.pull_consumer(name, config=config)
    await pull.fetch(1)
    found = await pull.fetch(10, timeout=10)
    assert {m.seq for m in found} == set(range(1, 11))
    assert max(m.metadata.delivered for m in found) == 2


async def test_iteration(pull: PullConsumer) -> None:
    seen = []
    async for message in pull.messages(batch=4, timeout=1):
        seen.append(message.seq)
        if len(seen) == 10:
            break
    assert seen == list(range(1, 11))


async def test_deleted_while_waiting(js: JetStreamContext, name: str, pull: PullConsumer) -> None:
    await pull.fetch(10)
    waiting = asyncio.ensure_future(pull.fetch(1, timeout=30))
    async with asyncio.timeout(LIMIT):
        while (await js.consumer_info(name, "c")).raw["num_waiting"] == 0:
            pass
        await pull.delete()
        with pytest.raises(ConsumerNotFoundError):
            await waiting


async def test_missing(
    js: JetStreamContext, name: str, pull: PullConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natsproto.jetstream.pull.GRACE", 0.1)
    await pull.delete()
    async with asyncio.timeout(LIMIT):
        with pytest.raises(ConsumerNotFoundError):
            await pull.fetch(1, timeout=0.2)
    with pytest.raises(ConsumerNotFoundError):
        await js.pull_consumer(name, "c")
    with pytest.raises(ConsumerNotFoundError):
        await pull.delete()


async def test_names(js: JetStreamContext, name: str) -> None:
    for n in range(5):
        await js.create_consumer(
            name, {"name": f"c{n}", "ack_policy": "none", "inactive_threshold": 60_000_000_000}
        )
    assert sorted(await js.consumer_names(name)) == ["c0", "c1", "c2", "c3", "c4"]
    with pytest.raises(ConsumerNotFoundError):
        await js.consumer_info(name, "other")


async def test_the_same_and_another_configuration(nc: Client, js: JetStreamContext, name: str) -> None:
    config = {"durable_name": "d", "ack_policy": "explicit", "deliver_policy": "all"}
    first = await js.create_consumer(name, config)
    assert (await js.create_consumer(name, config)).raw["created"] == first.raw["created"]
    with pytest.raises((ConsumerExistsError, APIError)):
        await js.create_consumer(name, {**config, "deliver_policy": "new"})


async def test_large_messages(js: JetStreamContext, name: str, pull: PullConsumer) -> None:
    await pull.fetch(10)
    data = bytes(range(256)) * 2000
    await js.publish(f"{name}.b", data)
    (message,) = await pull.fetch(1)
    assert message.data == data


async def test_the_connection_comes_back(server: LocalServer, name: str, pull: PullConsumer) -> None:
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url, reconnect_wait=0.01) as nc:
        through = await nc.jetstream().pull_consumer(name, "c")
        await through.fetch(10)
        waiting = asyncio.ensure_future(through.fetch(1, timeout=30))
        await nc.flush()
        proxy.cut()
        async with asyncio.timeout(LIMIT):
            with pytest.raises(ConnectionError):
                await waiting
            assert await through.fetch(1, timeout=3) == []  # that long it may take to connect again


async def test_not_permitted() -> None:
    config = """
    authorization {
      users: [{user: u, password: p, permissions: {publish: {deny: "$JS.API.CONSUMER.MSG.NEXT.>"}}}]
    }
    """
    async with (
        LocalServer(config=config) as server,
        natsproto.connect(server.url, user="u", password="p") as nc,
    ):
        js = nc.jetstream()
        await js.create_stream(StreamConfig(name="S", subjects=["s.*"], storage="memory"))
        pull = await js.pull_consumer("S", config={"ack_policy": "explicit"})
        async with asyncio.timeout(6):
            with pytest.raises(PermissionsViolationError):
                await pull.fetch(1, timeout=30)
