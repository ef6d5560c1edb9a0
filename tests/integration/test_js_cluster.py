"""Three servers, replicated streams: what a change of leaders does to publishing and reading."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

import natsproto
from natsproto.errors import NatsError, NoRespondersError
from natsproto.jetstream.api.acks import Delivery
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.api.models import StreamConfig
from natsproto.jetstream.api.statuses import LeadershipChangeError, MissedHeartbeatError
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.fast_publisher import BatchIncompleteError
from natsproto.jetstream.message import JetStreamMsg
from natsproto.jetstream.ordered import OrderedConsumer
from natsproto.server import LocalCluster
from natsproto.wire import Msg
from support.fake_session import until

pytestmark = pytest.mark.cluster

LIMIT = 60.0

T = TypeVar("T")


@pytest.fixture(scope="module")
def cluster() -> AsyncIterator[LocalCluster]:
    with LocalCluster(3) as cluster:
        yield cluster


async def for_certain(call: Callable[[], Awaitable[T]]) -> T:
    """Call again after whatever may pass."""
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                return await call()
            except NatsError as exc:
                if not retryable(exc):
                    raise


async def publish(js: JetStreamContext, subject: str, payload: bytes, msg_id: str) -> int:
    """Publish for certain, with an id: once."""
    return (await for_certain(lambda: js.publish(subject, payload, msg_id=msg_id, timeout=1))).seq


async def test_step_down_while_publishing_and_reading(cluster: LocalCluster) -> None:
    async with natsproto.connect(cluster.urls, reconnect_wait=0.05) as nc:
        js = nc.jetstream()
        info = await js.create_stream(StreamConfig(name="R", subjects=["R.>"], num_replicas=3))
        assert info.config.num_replicas == 3
        digest, read = hashlib.sha256(), hashlib.sha256()
        seqs: list[int] = []
        failures: list[BaseException] = []
        changed = asyncio.Event()

        def on_message(msg: Msg, delivery: Delivery) -> None:
            seqs.append(delivery.stream_seq)
            read.update(msg.payload)
            changed.set()

        consumer = OrderedConsumer(
            js,
            "R",
            "R.>",
            on_message=on_message,
            on_failure=failures.append,
            heartbeat=0.5,
            created=info.created,
        )
        await consumer.start()
        stored = []
        for n in range(60):
            payload = b"%d" % n
            digest.update(payload)
            stored.append(await publish(js, "R.a", payload, f"id{n}"))
            if n in (20, 40):
                await js.request("STREAM.LEADER.STEPDOWN.R")
        assert stored == sorted(set(stored))
        async with asyncio.timeout(LIMIT):
            while len(seqs) < 60 and not failures:
                changed.clear()
                await changed.wait()
        assert failures == []
        assert seqs == stored
        assert read.hexdigest() == digest.hexdigest()
        await consumer.stop()
        assert await js.consumer_names("R") == []
        await js.delete_stream("R")


async def test_the_leader_reads_what_was_just_written(cluster: LocalCluster) -> None:
    """From every server of the cluster."""
    async with (
        natsproto.connect(cluster.urls[0], connect_timeout=10) as one,
        natsproto.connect(cluster.urls[1], connect_timeout=10) as two,
    ):
        js, other = one.jetstream(), two.jetstream()
        await js.create_stream(
            StreamConfig(
                name="L", subjects=["L.>"], num_replicas=3, max_msgs_per_subject=1, allow_direct=True
            )
        )
        for n in range(200):
            ack = await js.publish("L.a", b"%d" % n)
            assert (await other.get_message("L", last_by_subject="L.a")).seq == ack.seq
        await js.delete_stream("L")


async def test_the_server_we_are_connected_to_is_killed(cluster: LocalCluster) -> None:
    """It leads nothing, so that no election has to be waited for (about 7 s)."""
    async with natsproto.connect(cluster.urls) as any_server:
        created = await any_server.jetstream().create_stream(
            StreamConfig(name="K", subjects=["K.>"], num_replicas=3)
        )
    leaders = (created.raw["cluster"]["leader"], getattr(cluster.meta_leader, "name", None))
    victim = next(server for server in cluster.servers if server.name not in leaders)
    others = [server.url for server in cluster.servers if server is not victim]
    async with natsproto.connect(
        [victim.url, *others], reconnect_wait=0.05, randomize=False, connect_timeout=10
    ) as nc:
        js = nc.jetstream()
        info = await js.stream_info("K")
        js.timeout = 1.0  # the server may place the new consumer on the dead one, and say nothing
        seqs: list[int] = []
        changed = asyncio.Event()

        def on_message(msg: Msg, delivery: Delivery) -> None:
            seqs.append(delivery.stream_seq)
            changed.set()

        consumer = OrderedConsumer(
            js,
            "K",
            "K.>",
            on_message=on_message,
            on_failure=lambda exc: changed.set(),
            heartbeat=0.5,
            created=info.created,
        )
        await consumer.start()
        for n in range(10):
            await publish(js, "K.a", b"x", f"a{n}")
        assert nc.connected_url == victim.url
        victim.kill()
        try:
            for n in range(10):
                await publish(js, "K.a", b"x", f"b{n}")
            async with asyncio.timeout(LIMIT):
                while len(seqs) < 20:
                    changed.clear()
                    await changed.wait()
            assert seqs == sorted(set(seqs))
            await consumer.stop()
        finally:
            await asyncio.to_thread(victim.start)
            await asyncio.to_thread(cluster.wait_ready)
        assert nc.stats.reconnects == 1
        await nc.jetstream().delete_stream("K")


@pytest.mark.parametrize("continue_on_gap", [False, True])
async def test_step_down_during_a_batch(cluster: LocalCluster, continue_on_gap: bool) -> None:
    """Either the batch ends and its acknowledged messages are all there is, or it goes on without a few."""
    async with asyncio.timeout(LIMIT), natsproto.connect(cluster.urls, reconnect_wait=0.05) as nc:
        js = nc.jetstream()
        name = f"B{continue_on_gap:d}"
        await js.create_stream(
            StreamConfig(name=name, subjects=[f"{name}.>"], num_replicas=3, allow_batched=True)
        )
        batch = js.fast_publisher(name, continue_on_gap=continue_on_gap)
        try:
            for n in range(2000):
                await batch.add(f"{name}.a", b"%d" % n)
            stepping_down = asyncio.ensure_future(js.request(f"STREAM.LEADER.STEPDOWN.{name}"))
            for n in range(2000, 6000):
                await batch.add(f"{name}.a", b"%d" % n)
            await batch.close()
        except (BatchIncompleteError, NoRespondersError):
            assert not continue_on_gap
        await stepping_down
        js.timeout = 1
        stored = (await for_certain(lambda: js.stream_info(name))).messages
        newest = await for_certain(lambda: js.get_message(name, last_by_subject=f"{name}.a"))
        if continue_on_gap:
            assert newest.data == b"5999"
            assert 1000 < stored <= 6000 - batch.lost  # the report of a gap may be lost, too
        else:
            assert newest.data == b"%d" % (stored - 1)
            assert stored >= batch.acknowledged


async def test_the_leader_of_a_consumer_changes(cluster: LocalCluster) -> None:
    """A fetch ends, and says why; iterations and push consumers continue."""
    async with natsproto.connect(cluster.urls, reconnect_wait=0.05) as nc:
        js = nc.jetstream()
        await js.create_stream(StreamConfig(name="C", subjects=["C.>"], num_replicas=3))
        config = {"ack_policy": "explicit", "ack_wait": 1_000_000_000}
        pull = await js.pull_consumer("C", config={**config, "durable_name": "pull"})
        push = await js.push_consumer(
            "C",
            config={**config, "durable_name": "push", "idle_heartbeat": 500_000_000, "flow_control": True},
        )
        found: dict[str, set[bytes]] = {"pull": set(), "push": set()}
        failures: list[BaseException] = []

        async def read(name: str, messages: AsyncIterator[JetStreamMsg]) -> None:
            try:
                async for msg in messages:
                    found[name].add(msg.data)
                    await msg.ack()
            except NatsError as exc:
                failures.append(exc)

        waiting = asyncio.ensure_future(pull.fetch(1, timeout=30, idle_heartbeat=1))
        async with asyncio.timeout(LIMIT):
            while (await js.consumer_info("C", "pull")).raw["num_waiting"] == 0:
                pass
            await step_down(js, "pull")
            try:
                assert await waiting == []
                assert isinstance(pull.last_end, LeadershipChangeError)
            except (MissedHeartbeatError, NoRespondersError):
                pass  # the new leader had not heard of the request
            tasks = [
                asyncio.ensure_future(read("pull", pull.messages(timeout=2, idle_heartbeat=0.5))),
                asyncio.ensure_future(read("push", push)),
            ]
            for n in range(30):
                await publish(js, "C.a", b"%d" % n, f"c{n}")
                if n in (10, 20):
                    await step_down(js, "pull")
                    await step_down(js, "push")
            await until(lambda: failures or all(len(each) == 30 for each in found.values()))
        assert failures == []
        await push.unsubscribe()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await js.delete_stream("C")


async def step_down(js: JetStreamContext, consumer: str) -> None:
    """Let another server lead a consumer, as soon as it has a leader."""
    while True:
        try:
            await js.request(f"CONSUMER.LEADER.STEPDOWN.C.{consumer}", timeout=1)
            return
        except NatsError as exc:
            if not retryable(exc):
                raise
