"""The ordered consumer on real servers: flow control, faults of the network, what is deleted under it."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.jetstream.api.acks import Delivery
from natsproto.jetstream.api.errors import StreamNotFoundError
from natsproto.jetstream.api.models import StreamConfig
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.ordered import OrderedConsumer
from natsproto.server import LocalServer, find_server
from natsproto.testing import DROP, DUPLICATE, HOLD, FaultProxy
from natsproto.wire import Msg, Pub
from support.skips import left_out
from support.waits import standstill

LIMIT = 30.0
CHUNK = 128 * 1024


class Reader:
    """Collects what one ordered consumer hands on."""

    def __init__(self, js: JetStreamContext, stream: str, **options: Any) -> None:
        self.seqs: list[int] = []
        self.digest = hashlib.sha256()
        self.bytes = 0
        self.failure: BaseException | None = None
        self.idle = 0
        self.changed = asyncio.Event()
        self.then: Callable[[], None] = lambda: None
        self.consumer = OrderedConsumer(
            js,
            stream,
            f"{stream}.>",
            on_message=self.on_message,
            on_failure=self.on_failure,
            on_idle=self.on_idle,
            **{"heartbeat": 0.5, **options},
        )

    def on_message(self, msg: Msg, delivery: Delivery) -> None:
        self.seqs.append(delivery.stream_seq)
        self.digest.update(msg.payload)
        self.bytes += len(msg.payload)
        self.changed.set()
        self.then()

    def on_failure(self, exc: BaseException) -> None:
        self.failure = exc
        self.changed.set()

    def on_idle(self) -> None:
        self.idle += 1
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def read(self, count: int) -> None:
        """Wait for ``count`` messages in all; they must be the stream's first ones, in order."""
        await self.until(lambda: len(self.seqs) >= count or self.failure is not None)
        assert self.failure is None
        assert self.seqs == list(range(1, count + 1))


@pytest.fixture
async def name(js: JetStreamContext) -> AsyncIterator[str]:
    """The name of a fresh stream on ``<name>.>``; no consumer may be left on it."""
    name = "o-" + uuid.uuid4().hex[:12]
    await js.create_stream(StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory"))
    yield name
    try:
        left = await js.consumer_names(name)
        await js.delete_stream(name)
    except StreamNotFoundError:
        return
    assert left == []


async def fill(js: JetStreamContext, name: str, count: int, size: int = 1) -> str:
    digest = hashlib.sha256()
    window = js.publish_window(f"{name}.a", name)
    for n in range(count):
        payload = (b"%08d" % n) * (size // 8) if size >= 8 else b"x"
        digest.update(payload)
        await window.publish(payload)
    await window.settle()
    window.close()
    return digest.hexdigest()


async def test_everything_in_order_with_flow_control(js: JetStreamContext, name: str) -> None:
    """16 MiB are eight times the window the server begins with."""
    wanted = await fill(js, name, 128, CHUNK)
    reader = Reader(js, name, heartbeat=2.0)
    info = await reader.consumer.start()
    assert info.num_pending == 128
    await reader.read(128)
    assert reader.digest.hexdigest() == wanted
    await reader.until(lambda: reader.idle > 0)
    assert reader.consumer.restarts == 0
    await reader.consumer.stop()


async def test_a_slow_reader_holds_the_server_back(js: JetStreamContext, name: str) -> None:
    wanted = await fill(js, name, 128, CHUNK)
    reader = Reader(js, name, heartbeat=5.0)
    reader.then = reader.consumer.pause
    await reader.consumer.start()
    rounds = 0
    async with asyncio.timeout(LIMIT):
        while len(reader.seqs) < 128:
            before = len(reader.seqs)
            stalled = reader.consumer._held
            if stalled is None:
                reader.changed.clear()
                await reader.changed.wait()
                continue
            if rounds == 0:
                # The window is spent and nothing more comes, for as long as the answer is held back.
                await js.client.flush()
                assert before * CHUNK <= 4 * 1024 * 1024
            rounds += 1
            reader.consumer.resume()
            await js.client.flush()
    assert rounds >= 2
    assert reader.digest.hexdigest() == wanted
    assert reader.seqs == list(range(1, 129))
    assert reader.consumer.restarts == 0
    await reader.consumer.stop()


async def test_flow_control_that_is_lost(server: LocalServer, js: JetStreamContext, name: str) -> None:
    """Then the heartbeats say that the consumer is stalled."""
    wanted = await fill(js, name, 64, CHUNK)
    lost: list[int] = []

    def drop(event: Any, raw: bytes) -> Any:
        if isinstance(event, Msg) and event.header is not None and b"FlowControl Request" in event.header:
            lost.append(1)
            return DROP
        return None

    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as nc:
        proxy.to_client = drop
        reader = Reader(nc.jetstream(), name)
        await reader.consumer.start()
        await reader.read(64)
        assert lost
        assert reader.consumer.restarts == 0
        await reader.consumer.stop()
    assert reader.digest.hexdigest() == wanted


async def test_an_answer_to_flow_control_that_is_lost(
    server: LocalServer, js: JetStreamContext, name: str
) -> None:
    await fill(js, name, 64, CHUNK)
    lost: list[int] = []

    def drop(event: Any, raw: bytes) -> Any:
        if isinstance(event, Pub) and event.subject.startswith(b"$JS.FC.") and len(lost) < 2:
            lost.append(1)
            return DROP
        return None

    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as nc:
        proxy.to_server = drop
        reader = Reader(nc.jetstream(), name)
        await reader.consumer.start()
        await reader.read(64)
        assert len(lost) == 2
        await reader.consumer.stop()


@pytest.mark.parametrize("fault", [DROP, DUPLICATE, HOLD], ids=lambda fault: fault.kind)
@pytest.mark.parametrize("at", [1, 7, 20], ids=["first", "middle", "last"])
async def test_a_message_lost_or_twice_or_late(
    server: LocalServer, js: JetStreamContext, name: str, fault: Any, at: int
) -> None:
    await fill(js, name, 20)
    done: list[int] = []

    def hook(event: Any, raw: bytes) -> Any:
        if isinstance(event, Msg) and event.reply is not None and b".%d." % at in event.reply and not done:
            done.append(1)
            return fault
        return None

    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as nc:
        proxy.to_client = hook
        reader = Reader(nc.jetstream(), name)
        await reader.consumer.start()
        await reader.read(20)
        assert done
        proxy.release()
        await nc.flush()
        await reader.consumer.stop()
        assert len(reader.seqs) == 20


async def test_the_consumer_is_deleted(js: JetStreamContext, name: str) -> None:
    await fill(js, name, 3)
    reader = Reader(js, name, heartbeat=1.0)
    await reader.consumer.start()
    await reader.read(3)
    (consumer,) = await js.consumer_names(name)
    await js.delete_consumer(name, consumer)
    await fill(js, name, 2)
    await reader.read(5)
    assert reader.consumer.restarts == 1
    await reader.consumer.stop()


async def test_a_reconnect(server: LocalServer, js: JetStreamContext, name: str) -> None:
    await fill(js, name, 3)
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url, reconnect_wait=0.01) as nc:
        reader = Reader(nc.jetstream(), name, heartbeat=5.0)
        await reader.consumer.start()
        await reader.read(3)
        proxy.refuse()
        proxy.cut()
        await fill(js, name, 3)  # while nobody listens
        proxy.refuse(False)
        await reader.read(6)
        for _ in range(3):
            proxy.cut()
            await fill(js, name, 1)
        await reader.read(9)
        await reader.consumer.stop()


async def test_a_reconnect_before_the_first_message(
    server: LocalServer, js: JetStreamContext, name: str
) -> None:
    """``new`` means: from the moment of the start."""
    await fill(js, name, 3)
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url, reconnect_wait=0.01) as nc:
        reader = Reader(nc.jetstream(), name, heartbeat=5.0, deliver_policy="new")
        await reader.consumer.start()
        proxy.refuse()
        proxy.cut()
        await fill(js, name, 2)
        proxy.refuse(False)
        await reader.until(lambda: len(reader.seqs) == 2)
        assert reader.seqs == [4, 5]
        await reader.consumer.stop()


async def test_cut_in_the_middle_of_large_messages(
    server: LocalServer, js: JetStreamContext, name: str
) -> None:
    wanted = await fill(js, name, 48, CHUNK)
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url, reconnect_wait=0.01) as nc:
        reader = Reader(nc.jetstream(), name)
        cut = [5, 17, 40]

        def then() -> None:
            if cut and len(reader.seqs) >= cut[0]:
                del cut[0]
                proxy.cut()

        await reader.consumer.start()
        reader.then = then  # not sooner: messages may come before the answer to the creation
        await reader.read(48)
        assert cut == []
        await reader.consumer.stop()
    assert reader.digest.hexdigest() == wanted


async def test_the_server_restarts(name: str) -> None:
    async with LocalServer() as server, natsproto.connect(server.url, reconnect_wait=0.02) as nc:
        js = nc.jetstream()
        await js.create_stream(StreamConfig(name="S", subjects=["S.>"]))
        await fill(js, "S", 5)
        reader = Reader(js, "S")
        await reader.consumer.start()
        await reader.read(5)
        server.kill()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(LIMIT):
            await nc.connection.wait_connected()
        await js.publish("S.a", b"x")
        await reader.read(6)
        await reader.consumer.stop()
        assert await js.consumer_names("S") == []


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "made anew"])
async def test_the_stream_goes(js: JetStreamContext, name: str, again: bool) -> None:
    await fill(js, name, 3)
    created = (await js.stream_info(name)).created
    reader = Reader(js, name, created=created, heartbeat=0.1)
    await reader.consumer.start()
    await reader.read(3)
    await js.delete_stream(name)
    if again:
        await js.create_stream(StreamConfig(name=name, subjects=[f"{name}.>"], storage="memory"))
    await reader.until(lambda: reader.failure is not None)
    assert isinstance(reader.failure, StreamNotFoundError)
    await reader.consumer.stop()


async def test_a_pause_of_the_application(js: JetStreamContext, name: str) -> None:
    """An application that does not run for many heartbeats is not a server that went silent."""
    await fill(js, name, 50)
    reader = Reader(js, name, heartbeat=0.3)

    def then() -> None:
        if len(reader.seqs) in (1, 25, 50):
            standstill(1.0)

    reader.then = then
    await reader.consumer.start()
    await reader.read(50)
    idle = reader.idle
    await reader.until(lambda: reader.idle > idle)
    standstill(1.0)
    await fill(js, name, 10)
    await reader.read(60)
    assert reader.consumer.restarts == 0
    await reader.consumer.stop()


async def test_a_callback_that_raises_hurts_nobody_else(nc: Client, js: JetStreamContext, name: str) -> None:
    await fill(js, name, 3)
    reader = Reader(js, name)
    other = Reader(js, name)
    await other.consumer.start()

    def then() -> None:
        raise ZeroDivisionError

    reader.then = then
    await reader.consumer.start()
    await reader.until(lambda: reader.failure is not None)
    assert isinstance(reader.failure, ZeroDivisionError)
    await other.read(3)
    assert nc.stats.reconnects == 0
    await reader.consumer.stop()
    await other.consumer.stop()


async def test_filter_headers_only_and_start(js: JetStreamContext, name: str) -> None:
    for n in range(6):
        await js.publish(f"{name}.{n % 2}", b"x" * n)
    found: list[tuple[int, int, int]] = []
    changed = asyncio.Event()

    def on_message(msg: Msg, delivery: Delivery) -> None:
        found.append((delivery.stream_seq, len(msg.payload), delivery.num_pending))
        changed.set()

    consumer = OrderedConsumer(
        js,
        name,
        f"{name}.1",
        on_message=on_message,
        on_failure=lambda exc: None,
        deliver_policy="by_start_sequence",
        start_seq=3,
        headers_only=True,
    )
    assert (await consumer.start()).num_pending == 2
    async with asyncio.timeout(LIMIT):
        while len(found) < 2:
            changed.clear()
            await changed.wait()
    assert found == [(4, 0, 1), (6, 0, 0)]
    await consumer.stop()


async def test_a_single_message(js: JetStreamContext, name: str) -> None:
    """The others stay where they are: the server waits for an acknowledgement."""
    await fill(js, name, 20, CHUNK)
    reader = Reader(js, name, single=True)
    assert (await reader.consumer.start()).num_pending == 20
    await reader.read(1)
    idle = reader.idle
    await reader.until(lambda: reader.idle >= idle + 2)
    assert reader.seqs == [1]
    await reader.consumer.stop()


async def test_longer_acknowledgement_subjects() -> None:
    """nats-server can be told to write the form with domain and account (``js_ack_fc_v2``)."""
    if find_server().version_info < (2, 14):
        left_out("the server has one form only")
    config = "feature_flags { js_ack_fc_v2: true }"
    async with LocalServer(config=config, domain="hub") as server, natsproto.connect(server.url) as nc:
        js = nc.jetstream()
        await js.create_stream(StreamConfig(name="S", subjects=["S.>"], storage="memory", allow_direct=True))
        wanted = await fill(js, "S", 64, CHUNK)
        replies: list[bytes | None] = []
        reader = Reader(js, "S", heartbeat=5.0)
        deliver = reader.consumer.on_message

        def on_message(msg: Msg, delivery: Delivery) -> None:
            replies.append(msg.reply)
            assert (delivery.stream, delivery.domain) == ("S", "hub")
            deliver(msg, delivery)

        reader.consumer.on_message = on_message
        await reader.consumer.start()
        await reader.read(64)
        assert reader.digest.hexdigest() == wanted
        assert reader.consumer.restarts == 0
        await reader.consumer.stop()
        assert replies[0] is not None
        assert len(replies[0].split(b".")) >= 11, "the flag had no effect"

        pull = await js.pull_consumer("S", config={"durable_name": "c", "ack_policy": "explicit"})
        messages = await pull.fetch(3)
        assert [m.seq for m in messages] == [1, 2, 3]
        await messages[0].ack_sync()
        await messages[1].nak()
        rest = await pull.fetch(62)
        assert [m.metadata.delivered for m in rest if m.seq == 2] == [2]
        assert [m.seq async for m in js.get_batch("S", batch=2)] == [1, 2]

        store = await js.create_object_store(bucket="b")
        data = bytes(range(256)) * 20_000
        await store.put("a", data)
        assert await store.get("a") == data
        async with store.watch() as watcher:
            assert (await anext(aiter(watcher))).name == "a"
