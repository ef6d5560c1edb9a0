"""Push consumers against a scripted server: what is passed on, what is answered, how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from natsproto.errors import (
    ConfigError,
    ConnectionClosedError,
    InvalidNameError,
    NatsError,
    PermissionsViolationError,
    RequestTimeoutError,
    SlowConsumerError,
    UnsupportedFeatureError,
)
from natsproto.jetstream.api.errors import ConsumerNotFoundError
from natsproto.jetstream.api.models import ConsumerConfig
from natsproto.jetstream.api.statuses import ConsumerDeletedError, ConsumerInUseError, MissedHeartbeatError
from natsproto.jetstream.push import CHECK_INTERVAL, PushConsumer
from natsproto.wire import Pub
from support.fake_session import FakeServer, turns, until

FC = b"NATS/1.0 100 FlowControl Request\r\n\r\n"
HEARTBEAT = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n"
PUSH = {"durable_name": "c", "deliver_subject": "to.me", "ack_policy": "explicit"}
SLOW = {"idle_heartbeat": 60_000_000_000, "flow_control": True}


class Pushed:
    """A server with one consumer, ``config``, if it exists."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.reported: list[NatsError] = []
        self.server.connection.report = self.reported.append  # type: ignore[method-assign]
        self.js = self.server.client.jetstream(timeout=0.5)
        self.config: dict[str, Any] | None = None
        self.bound = False
        self.silent = False
        self.refused: str | None = None
        self.asked: list[bytes] = []
        self.deleted: list[bytes] = []
        self.listen()

    def listen(self) -> None:
        self.server.session.on_pub = self.on_pub

    def on_pub(self, pub: Pub) -> None:
        if not pub.subject.startswith(b"$JS.API.CONSUMER."):
            return
        verb, _, name = pub.subject.split(b".")[3:]
        self.asked.append(verb)
        if self.silent:
            return
        if self.refused == verb.decode():
            self.server.refuse(pub.subject.decode())
            return
        if verb == b"CREATE":
            self.config = json.loads(bytes(pub.payload))["config"]
        if verb == b"DELETE":
            self.deleted.append(name)
            self.config = None
            self.server.reply(pub, {"success": True})
        elif self.config is None:
            self.server.reply(pub, {"error": {"code": 404, "err_code": 10014, "description": "not found"}})
        else:
            info = {
                "stream_name": "S",
                "name": name.decode(),
                "config": self.config,
                "push_bound": self.bound,
            }
            self.server.reply(pub, info)

    def deliver(self, consumer: PushConsumer, seq: int, **changes: Any) -> None:
        reply = b"$JS.ACK.S.%b.1.%d.%d.1700000000000000000.0" % (consumer.name.encode(), seq, seq)
        frame = {"payload": b"m%d" % seq, "subject": b"s.a", "reply": reply, **changes}
        self.server.send(consumer._deliveries.subject, **frame)

    def status(self, consumer: PushConsumer, header: bytes, reply: bytes | None = None) -> None:
        self.server.send(consumer._deliveries.subject, header=header, reply=reply)

    @property
    def answers(self) -> list[bytes]:
        return [pub.subject for pub in self.server.pubs if pub.subject.startswith(b"$JS.FC.")]


@pytest.fixture
async def pushed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pushed]:
    monkeypatch.setattr("natsproto.jetstream.push.CHECK_PAUSE", 0.0)
    monkeypatch.setattr("natsproto.jetstream.push.FREE_PAUSES", (0.0, 0.0))
    pushed = Pushed()
    yield pushed
    await pushed.server.client.close()
    await turns()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in tasks if task.get_name() == "natsproto-push"]


async def bound(pushed: Pushed, **config: Any) -> PushConsumer:
    pushed.config = {**PUSH, **config}
    return await pushed.js.push_consumer("S", "c")


# -- binding --------------------------------------------------------------------------------------


async def test_an_existing_one(pushed: Pushed) -> None:
    consumer = await bound(pushed)
    assert (consumer.stream, consumer.name, consumer.info.name) == ("S", "c", "c")
    assert pushed.server.subscribed(b"to.me")
    pushed.deliver(consumer, 7, header=b"NATS/1.0\r\nKind: a\r\n\r\n")
    pushed.deliver(consumer, 8)
    assert (consumer.pending_msgs, consumer.dropped) == (2, 0)
    assert consumer.pending_bytes > 0
    msg = await consumer.next_msg(1)
    assert (msg.seq, msg.data, msg.subject, msg.metadata.stream) == (7, b"m7", "s.a", "S")
    assert msg.headers is not None
    await msg.ack()
    assert pushed.server.pubs[-1].subject == b"$JS.ACK.S.c.1.7.7.1700000000000000000.0"
    assert (await anext(aiter(consumer))).seq == 8
    with pytest.raises(RequestTimeoutError):
        await consumer.next_msg(0.01)
    assert repr(consumer) == "<PushConsumer S/c pending_msgs=0>"
    async with consumer:
        pass
    assert not pushed.server.subscribed(b"to.me")
    assert pushed.deleted == []
    with pytest.raises(ConnectionClosedError):
        await consumer.next_msg()


async def test_a_new_one_without_a_name(pushed: Pushed) -> None:
    config = ConsumerConfig(ack_policy="explicit")
    async with await pushed.js.push_consumer("S", config=config) as consumer:
        assert pushed.config is not None
        assert pushed.config["name"] == consumer.name
        inbox = pushed.config["deliver_subject"].encode()
        assert inbox.startswith(b"_INBOX.")
        assert pushed.server.subscribed(inbox)
        assert pushed.asked == [b"CREATE"]
    assert pushed.deleted == [consumer.name.encode()]
    assert not pushed.server.subscribed(inbox)
    async with await pushed.js.push_consumer("S", config={}):
        pushed.refused = "DELETE"  # it expires by itself


async def test_a_durable_keeps_its_subject(pushed: Pushed) -> None:
    config = {"durable_name": "d", "ack_policy": "explicit"}
    async with await pushed.js.push_consumer("S", config=config):
        assert pushed.config is not None
        subject = pushed.config["deliver_subject"]
    assert pushed.deleted == []
    async with await pushed.js.push_consumer("S", config=config) as again:
        assert pushed.config["deliver_subject"] == subject
        assert again.name == "d"
    assert config == {"durable_name": "d", "ack_policy": "explicit"}
    await again.delete()
    assert pushed.deleted == [b"d"]


async def test_a_queue_group(pushed: Pushed) -> None:
    one = await bound(pushed, deliver_group="workers")
    pushed.bound = True  # by the first one; both may
    two = await pushed.js.push_consumer("S", "c")
    assert [c._deliveries.queue for c in (one, two)] == [b"workers", b"workers"]


async def test_one_that_delivers_to_somebody_else(pushed: Pushed) -> None:
    pushed.bound = True
    with pytest.raises(ConsumerInUseError):
        await bound(pushed)
    with pytest.raises(ConsumerInUseError):
        await pushed.js.push_consumer("S", config={"durable_name": "c"})
    assert not pushed.server.subscribed(b"to.me")
    assert len(pushed.asked) == 6


async def test_one_whose_listener_has_just_gone(pushed: Pushed) -> None:
    """The server notices that a moment later."""
    pushed.config, pushed.bound = dict(PUSH), True
    binding = asyncio.ensure_future(pushed.js.push_consumer("S", "c"))
    await until(lambda: len(pushed.asked) == 2)
    pushed.bound = False
    assert (await binding).name == "c"


async def test_no_push_consumer(pushed: Pushed) -> None:
    with pytest.raises(ConsumerNotFoundError):
        await pushed.js.push_consumer("S", "c")
    with pytest.raises(ConfigError, match="pull consumer"):
        await bound(pushed, deliver_subject="")
    with pytest.raises(ConfigError, match="pull consumer"):
        await pushed.js.push_consumer("S", config={"durable_name": "c"})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"consumer": "c", "config": {}},
        {"consumer": "a.b"},
        {"config": {"name": "a b"}},
        {"config": {"durable_name": 5}},
        {"config": {"deliver_subject": "a.*"}},
        {"config": {"deliver_subject": 5}},
        {"config": {"deliver_group": "a b"}},
        {"config": {"deliver_group": "q", "idle_heartbeat": 1_000_000_000}},
        {"config": {"deliver_group": "q", "flow_control": True}},
        {"config": {"flow_control": True}},
        {"config": {}, "pending_msgs_limit": 0},
        {"config": {}, "pending_bytes_limit": "1"},
        {"config": {}, "pending_bytes_limit": -1},
    ],
)
async def test_what_cannot_work_is_not_sent(pushed: Pushed, options: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, ValueError)):
        await pushed.js.push_consumer("S", **options)
    with pytest.raises(InvalidNameError):
        await pushed.js.push_consumer("S.", "c")
    assert pushed.server.pubs == []


async def test_a_server_without_headers(pushed: Pushed) -> None:
    """It could neither send heartbeats nor ask for flow control."""
    pushed.server.connection.headers = False
    with pytest.raises(UnsupportedFeatureError):
        await pushed.js.push_consumer("S", "c")
    assert pushed.server.pubs == []


async def test_a_creation_that_fails_leaves_nothing(pushed: Pushed) -> None:
    handlers = len(pushed.server.connection.handlers)
    pushed.refused = "CREATE"
    with pytest.raises(PermissionsViolationError):
        await pushed.js.push_consumer("S", config={"deliver_subject": "to.me"})
    assert len(pushed.server.connection.handlers) == handlers + 1  # of replies
    assert not pushed.server.subscribed(b"to.me")


async def test_the_subject_is_refused_during_the_creation(pushed: Pushed) -> None:
    pushed.silent = True
    creating = asyncio.ensure_future(pushed.js.push_consumer("S", config={"deliver_subject": "to.me"}))
    await until(lambda: pushed.asked)
    pushed.server.refuse("to.me", "Subscription")
    asking = pushed.server.pubs[-1]
    name = asking.subject.rpartition(b".")[2].decode()
    pushed.server.reply(asking, {"stream_name": "S", "name": name, "config": PUSH})
    consumer = await creating
    assert consumer._timer is None
    with pytest.raises(PermissionsViolationError):
        await consumer.next_msg()


async def test_the_subject_is_refused(pushed: Pushed) -> None:
    consumer = await bound(pushed)
    pushed.server.refuse("to.me", "Subscription")
    with pytest.raises(PermissionsViolationError):
        await consumer.next_msg()


# -- what comes -----------------------------------------------------------------------------------


async def test_forged_deliveries_are_dropped(pushed: Pushed) -> None:
    consumer = await bound(pushed)
    for reply in (None, b"x", b"$JS.ACK.S.other.1.1.1.1.0", b"$JS.ACK.T.c.1.1.1.1.0", b"$JS.ACK.S.c.1"):
        pushed.deliver(consumer, 1, reply=reply)
    pushed.deliver(consumer, 1, reply=None, subject=None, header=FC)
    pushed.status(consumer, b"NATS/1.0\r\nStatus: 100\r\n\r\n", b"$JS.FC.S.c.x")  # no status
    assert consumer.pending_msgs == 0
    # A stored message may look like a status.
    pushed.deliver(consumer, 2, payload=b"", header=b"NATS/1.0 409 Consumer Deleted\r\n\r\n")
    assert (await consumer.next_msg()).seq == 2
    assert pushed.asked == [b"INFO"]


async def test_a_full_queue(pushed: Pushed) -> None:
    pushed.config = dict(PUSH)
    consumer = await pushed.js.push_consumer("S", "c", pending_msgs_limit=2)
    for seq in (1, 2, 3):
        pushed.deliver(consumer, seq)
    assert (consumer.pending_msgs, consumer.dropped) == (2, 1)
    assert [type(exc) for exc in pushed.reported] == [SlowConsumerError]


async def test_flow_control_is_answered_when_the_messages_before_it_were_read(pushed: Pushed) -> None:
    consumer = await bound(pushed, **SLOW)
    pushed.status(consumer, FC, b"$JS.FC.S.c.one")
    assert pushed.answers == [b"$JS.FC.S.c.one"]
    pushed.deliver(consumer, 1)
    pushed.deliver(consumer, 2)
    pushed.status(consumer, FC, b"$JS.FC.S.c.two")
    pushed.deliver(consumer, 3)
    stalled = HEARTBEAT[:-2] + b"Nats-Consumer-Stalled: $JS.FC.S.c.two\r\n\r\n"
    pushed.status(consumer, stalled)  # the same request again
    await consumer.next_msg()
    assert pushed.answers == [b"$JS.FC.S.c.one"]
    await consumer.next_msg()
    assert pushed.answers == [b"$JS.FC.S.c.one", b"$JS.FC.S.c.two"]
    await consumer.next_msg()
    assert len(pushed.answers) == 2


async def test_flow_control_of_others_is_not_answered(pushed: Pushed) -> None:
    """Answering would publish where somebody wants us to."""
    consumer = await bound(pushed, **SLOW)
    for reply in (
        b"$JS.API.STREAM.PURGE.S",
        b"$JS.FC.S.other.x",
        b"$JS.FC.T.c.x",
        b"$JS.FC.S.c.*",
        b"victim",
    ):
        pushed.status(consumer, FC, reply)
    pushed.status(consumer, FC)
    pushed.status(consumer, HEARTBEAT)
    assert pushed.answers == []
    assert pushed.asked == [b"INFO"]


async def test_flow_control_that_the_consumer_does_not_have_is_not_answered(pushed: Pushed) -> None:
    """Nor what repeats it in a heartbeat. The server is asked: the consumer may be another one now."""
    stalled = HEARTBEAT[:-2] + b"Nats-Consumer-Stalled: $JS.FC.S.c.two\r\n\r\n"
    consumer = await bound(pushed)
    pushed.status(consumer, FC, b"$JS.FC.S.c.one")
    await until(lambda: len(pushed.asked) == 2)
    await turns()
    assert pushed.config is not None
    pushed.config.update(SLOW)
    pushed.status(consumer, stalled)
    assert pushed.answers == []
    await until(lambda: len(pushed.asked) == 3)
    await turns()
    pushed.status(consumer, stalled)
    assert pushed.answers == [b"$JS.FC.S.c.two"]


async def test_flow_control_while_the_connection_takes_no_more(pushed: Pushed) -> None:
    """Nothing is queued: the server repeats it."""
    consumer = await bound(pushed, **SLOW)
    pushed.server.session.congested = True
    for _ in range(3):
        pushed.status(consumer, FC, b"$JS.FC.S.c.one")
    assert pushed.answers == []
    pushed.server.session.congested = False
    pushed.status(consumer, FC, b"$JS.FC.S.c.one")
    assert pushed.answers == [b"$JS.FC.S.c.one"]


# -- the end --------------------------------------------------------------------------------------


async def test_missed_heartbeats_are_reported_once(pushed: Pushed) -> None:
    consumer = await bound(pushed, idle_heartbeat=10_000_000)
    pings = pushed.server.session.pings_sent
    await until(lambda: len(pushed.asked) > 3)
    assert [type(exc) for exc in pushed.reported] == [MissedHeartbeatError]
    assert pushed.server.session.pings_sent > pings
    pushed.deliver(consumer, 1)
    await until(lambda: len(pushed.reported) == 2)
    assert (await consumer.next_msg()).seq == 1


async def test_silence_without_a_pong_is_the_connections(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natsproto.jetstream.push.PONG_TIMEOUT", 0.01)
    await bound(pushed, idle_heartbeat=10_000_000)
    session = pushed.server.session
    session.pongs = False
    before = session.pings_sent
    await until(lambda: session.pings_sent >= before + 3)
    assert pushed.reported == []
    assert pushed.asked == [b"INFO"]


async def test_what_came_before_the_pong_counts(pushed: Pushed) -> None:
    consumer = await bound(pushed, idle_heartbeat=100_000_000)
    session = pushed.server.session
    session.pongs = False
    await until(lambda: session.pings_sent)
    pushed.status(consumer, HEARTBEAT)
    session.pongs = True
    session.answer_pings()
    await turns()
    assert pushed.reported == []
    assert pushed.asked == [b"INFO"]


@pytest.mark.parametrize("config", [{"idle_heartbeat": 10_000_000}, {}, {"deliver_group": "q"}])
async def test_a_consumer_that_is_gone(
    pushed: Pushed, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server says so: one without heartbeats is looked for."""
    monkeypatch.setattr("natsproto.jetstream.push.CHECK_INTERVAL", 0.01)
    consumer = await bound(pushed, **config)
    pushed.deliver(consumer, 1)
    pushed.config = None
    found = []
    with pytest.raises(ConsumerDeletedError):
        async for msg in consumer:
            found += [msg.seq]
    assert found == [1]
    assert not pushed.server.subscribed(b"to.me")
    with pytest.raises(ConsumerNotFoundError):
        await consumer.next_msg()


async def test_heartbeats_prove_nothing(pushed: Pushed) -> None:
    """They may be those of somebody's pull. A delivery proves that the consumer is there."""
    consumer = await bound(pushed, **SLOW)
    pushed.asked.clear()
    consumer._proven -= 2 * CHECK_INTERVAL
    pushed.deliver(consumer, 1)
    consumer._tick()
    await turns()
    assert pushed.asked == []
    consumer._proven -= 2 * CHECK_INTERVAL
    for _ in range(2):
        pushed.status(consumer, HEARTBEAT)
        consumer._tick()
        await turns()
        assert pushed.asked == [b"INFO"], "once: it is there"


async def test_heartbeats_of_somebody_elses_pull(pushed: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natsproto.jetstream.push.CHECK_INTERVAL", 0.05)
    consumer = await bound(pushed, idle_heartbeat=10_000_000)
    pushed.config = None
    async with asyncio.timeout(10):
        while pushed.server.subscribed(b"to.me"):
            pushed.status(consumer, HEARTBEAT)
            await turns(1)
    assert pushed.reported == []
    with pytest.raises(ConsumerDeletedError):
        await consumer.next_msg()


async def test_without_the_right_to_flow_control(pushed: Pushed) -> None:
    """The server waits for the answer, and sends no more."""
    consumer = await bound(pushed, **SLOW)
    pushed.deliver(consumer, 1)
    pushed.server.refuse("a.b")
    assert await consumer.next_msg()
    pushed.status(consumer, FC, reply=b"$JS.FC.S.c.xyz")
    pushed.server.refuse("$JS.FC.S.c.xyz")
    with pytest.raises(PermissionsViolationError, match=r"\$JS\.FC\.S\.c"):
        await consumer.next_msg()
    assert not pushed.server.subscribed(b"to.me")


async def test_a_consumer_that_delivers_elsewhere_now(pushed: Pushed) -> None:
    consumer = await bound(pushed, idle_heartbeat=10_000_000)
    pushed.config = {**PUSH, "deliver_subject": "to.others"}
    with pytest.raises(ConsumerInUseError):
        await consumer.next_msg()


async def test_what_others_say_about_the_end_is_not_believed(pushed: Pushed) -> None:
    consumer = await bound(pushed)
    for _ in range(100):
        pushed.status(consumer, b"NATS/1.0 409 Consumer Deleted\r\n\r\n")
    await until(lambda: len(pushed.asked) == 2)
    await turns()
    assert pushed.asked == [b"INFO", b"INFO"]
    pushed.deliver(consumer, 1)
    assert (await consumer.next_msg()).seq == 1
    pushed.config = None
    pushed.status(consumer, b"NATS/1.0 409 Consumer Deleted\r\n\r\n")
    with pytest.raises(ConsumerDeletedError):
        await consumer.next_msg()


async def test_checks_are_not_more_frequent_than_that(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natsproto.jetstream.push.CHECK_PAUSE", 0.05)
    consumer = await bound(pushed)
    clock = asyncio.get_running_loop().time
    times = []
    for count in (2, 3, 4):
        pushed.status(consumer, b"NATS/1.0 409 x\r\n\r\n")
        await until(lambda count=count: len(pushed.asked) == count)
        times.append(clock())
        await turns()
    assert times[2] - times[0] > 0.09


async def test_a_user_who_may_not_ask(pushed: Pushed) -> None:
    consumer = await bound(pushed, idle_heartbeat=10_000_000)
    pushed.refused = "INFO"
    await until(lambda: pushed.reported)
    asked = len(pushed.asked)
    pushed.deliver(consumer, 1)
    await until(lambda: len(pushed.reported) == 2)
    assert len(pushed.asked) == asked == 2
    assert {type(exc) for exc in pushed.reported} == {MissedHeartbeatError}


async def test_reconnected(pushed: Pushed) -> None:
    consumer = await bound(pushed, **SLOW)
    pushed.deliver(consumer, 1)
    pushed.status(consumer, FC, b"$JS.FC.S.c.one")
    pushed.deliver(consumer, 2)
    pushed.server.lose()
    assert (await consumer.next_msg()).seq == 1  # which would answer the request
    pushed.server.connect()
    pushed.listen()
    await until(lambda: len(pushed.asked) == 2)
    assert (await consumer.next_msg()).seq == 2
    assert pushed.answers == []  # it was of the former connection
    pushed.deliver(consumer, 3)
    assert (await consumer.next_msg()).seq == 3
    pushed.config = None
    pushed.server.lose()
    pushed.server.connect()
    pushed.listen()
    with pytest.raises(ConsumerDeletedError):
        await consumer.next_msg()


async def test_nothing_is_asked_while_disconnected(pushed: Pushed) -> None:
    consumer = await bound(pushed, idle_heartbeat=10_000_000)
    pushed.server.lose()
    first = consumer._timer
    await until(lambda: consumer._timer is not first and consumer._active + 0.03 < consumer._loop.time())
    assert consumer._task is None
    assert pushed.asked == [b"INFO"]


async def test_reconnected_during_a_check(pushed: Pushed) -> None:
    """Its question is lost with the connection."""
    consumer = await bound(pushed)
    pushed.silent = True
    pushed.status(consumer, b"NATS/1.0 409 x\r\n\r\n")
    await until(lambda: len(pushed.asked) == 2)
    pushed.config, pushed.silent = None, False
    pushed.server.lose()
    pushed.server.connect()
    pushed.listen()
    with pytest.raises(ConsumerDeletedError):
        await consumer.next_msg()


async def test_drained(pushed: Pushed) -> None:
    consumer = await bound(pushed, **SLOW)
    pushed.deliver(consumer, 1)
    draining = asyncio.ensure_future(consumer.drain(5))
    await turns()
    assert not pushed.server.subscribed(b"to.me")
    assert not draining.done()
    assert [msg.seq async for msg in consumer] == [1]
    await draining


async def test_the_client_is_closed(pushed: Pushed) -> None:
    consumer = await bound(pushed, idle_heartbeat=10_000_000)
    pushed.silent = True
    await until(lambda: len(pushed.asked) == 2)  # a check is under way
    await pushed.server.client.close()
    assert [msg async for msg in consumer] == []
    with pytest.raises(ConnectionClosedError):
        await pushed.js.push_consumer("S", "c")
    async with consumer:
        pass
