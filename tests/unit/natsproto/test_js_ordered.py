"""The ordered consumer against a scripted stream: gaps, silence, flow control, restarts, clean ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from support.fake_session import FakeServer, turns, until

from natsproto.errors import ConnectionClosedError, NatsError, RequestTimeoutError, StaleConnectionError
from natsproto.jetstream import ordered
from natsproto.jetstream.api.errors import StreamNotFoundError
from natsproto.jetstream.ordered import OrderedConsumer
from natsproto.wire import Msg, Pub

CREATED = "2024-01-01T00:00:00Z"
FC = b"NATS/1.0 100 FlowControl Request\r\n\r\n"


class Stream:
    """Answers what an ordered consumer asks; delivers what the test says."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.created = CREATED
        self.pending = 0
        self.last_seq = 0
        self.configs: list[dict[str, Any]] = []
        self.live: dict[str, dict[str, Any]] = {}
        self.answer: Callable[[str, Pub], bool] = lambda verb, pub: False
        self.answers: list[bytes] = []
        self.attach()

    def attach(self) -> None:
        self.server.session.on_pub = self.on_pub

    def reconnect(self) -> None:
        self.server.lose()
        self.server.connect()
        self.attach()

    def on_pub(self, pub: Pub) -> None:
        subject = pub.subject.decode()
        if subject.startswith("$JS.FC."):
            self.answers.append(pub.subject)
            return
        verb = ".".join(subject.split(".")[2:4])
        if not self.answer(verb, pub):
            self.default(verb, pub)

    def default(self, verb: str, pub: Pub) -> None:
        name = pub.subject.decode().split(".")[-1]
        if verb == "CONSUMER.CREATE":
            config = json.loads(bytes(pub.payload))["config"]
            self.configs.append(config)
            self.live[name] = config
            document: dict[str, Any] = {"stream_name": "S", "name": name, "config": config}
            document |= {
                "num_pending": self.pending,
                "delivered": {"consumer_seq": 0, "stream_seq": self.last_seq},
            }
        elif verb == "CONSUMER.DELETE":
            document = {"success": self.live.pop(name, None) is not None}
        else:
            document = {"config": {"name": "S"}, "state": {}, "created": self.created}
        self.reply(pub, document)

    def reply(self, pub: Pub, document: dict[str, Any]) -> None:
        asyncio.get_running_loop().call_soon(self.server.reply, pub, document)

    def error(self, pub: Pub, err_code: int, code: int = 404) -> bool:
        self.reply(pub, {"error": {"code": code, "err_code": err_code, "description": "no"}})
        return True

    def deliver(
        self, stream_seq: int, consumer_seq: int, *, pending: int = 0, payload: bytes = b"x", at: int = -1
    ) -> None:
        config = self.configs[at]
        self.server.send(
            config["deliver_subject"].encode(),
            payload,
            subject=b"s.a",
            reply=b"$JS.ACK.S.%b.1.%d.%d.1700000000000000000.%d"
            % (config["name"].encode(), stream_seq, consumer_seq, pending),
        )

    def heartbeat(self, last_consumer: int, *, stalled: bytes | None = None, at: int = -1) -> None:
        header = (
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: %d\r\nNats-Last-Stream: 0\r\n"
            % last_consumer
        )
        if stalled is not None:
            header += b"Nats-Consumer-Stalled: %b\r\n" % stalled
        self.server.send(self.inbox(at), header=header + b"\r\n")

    def flow_control(self, reply: bytes, at: int = -1) -> None:
        self.server.send(self.inbox(at), header=FC, reply=reply)

    def inbox(self, at: int = -1) -> bytes:
        inbox: bytes = self.configs[at]["deliver_subject"].encode()
        return inbox


class Reader:
    """An ordered consumer and what it handed on."""

    def __init__(self, stream: Stream, **options: Any) -> None:
        self.seqs: list[int] = []
        self.failures: list[BaseException] = []
        self.idle = 0
        self.restarts = 0
        options = {"heartbeat": 30.0, **options}
        options.setdefault("on_message", lambda msg, delivery: self.seqs.append(delivery.stream_seq))
        options.setdefault("on_idle", self._on_idle)
        options.setdefault("on_restart", self._on_restart)
        self.consumer = OrderedConsumer(
            stream.server.client.jetstream(timeout=0.5),
            "S",
            "s.>",
            on_failure=self.failures.append,
            **options,
        )

    def _on_idle(self) -> None:
        self.idle += 1

    def _on_restart(self) -> None:
        self.restarts += 1


@pytest.fixture
async def stream() -> Stream:
    return Stream()


async def finish(stream: Stream, reader: Reader) -> None:
    """Nothing may be left: neither on the server nor here."""
    await reader.consumer.stop()
    await turns()
    assert stream.live == {}
    left = [
        h.subject
        for h in stream.server.connection.handlers.values()
        if h is not stream.server.connection._mux
    ]
    assert left == []
    assert len(stream.server.connection.mux) == 0


async def test_messages_in_order(stream: Stream) -> None:
    stream.pending = 2
    reader = Reader(stream)
    info = await reader.consumer.start()
    assert info.num_pending == 2
    stream.deliver(5, 1, pending=1)
    stream.deliver(9, 2)
    stream.heartbeat(2)
    assert (reader.seqs, reader.idle, reader.consumer.stream_seq) == ([5, 9], 1, 9)
    assert stream.configs[0]["filter_subject"] == "s.>"
    assert stream.configs[0]["idle_heartbeat"] == 30_000_000_000
    await finish(stream, reader)
    await reader.consumer.stop()


async def test_a_gap_makes_a_new_consumer(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    stream.deliver(1, 1)
    stream.deliver(3, 3)  # 2 is missing
    stream.deliver(4, 4)
    assert (reader.seqs, reader.restarts) == ([1], 1)
    await until(lambda: len(stream.configs) == 2)
    await turns()
    assert stream.configs[1]["deliver_policy"] == "by_start_sequence"
    assert stream.configs[1]["opt_start_seq"] == 2
    assert stream.configs[1]["name"] != stream.configs[0]["name"]
    assert list(stream.live) == [stream.configs[1]["name"]]
    stream.deliver(5, 5, at=0)  # of the old one
    stream.deliver(2, 1)
    stream.deliver(3, 2)
    assert reader.seqs == [1, 2, 3]
    await finish(stream, reader)


async def test_a_gap_seen_at_the_heartbeat(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    stream.deliver(1, 1)
    stream.heartbeat(2)
    assert (reader.idle, reader.restarts) == (0, 1)
    await until(lambda: len(stream.configs) == 2)
    assert stream.configs[1]["opt_start_seq"] == 2
    await turns()
    await finish(stream, reader)


async def test_a_message_twice_counts_once(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    for seq in (1, 1, 2, 2, 1):
        stream.deliver(seq, seq)
    assert (reader.seqs, reader.restarts) == ([1, 2], 0)
    await finish(stream, reader)


async def test_forged_messages_are_dropped(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    name = stream.configs[0]["name"].encode()
    for reply in (None, b"x", b"$JS.ACK.S.other.1.1.1.1.0", b"$JS.ACK.S." + name + b".1.1.1.1"):
        stream.server.send(stream.inbox(), b"x", subject=b"s.a", reply=reply)
    stream.server.send(stream.inbox(), b"x", header=FC, reply=b"$JS.FC.x")  # a payload: no status
    stream.server.send(stream.inbox(), header=FC, reply=b"$JS.FC.x", subject=b"s.a")  # a message's subject
    stream.server.send(stream.inbox(), header=b"NATS/1.0 503\r\n\r\n")
    assert (reader.seqs, reader.restarts, stream.answers) == ([], 0, [])
    stream.deliver(1, 1)
    assert reader.seqs == [1]
    await finish(stream, reader)


async def test_flow_control(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    stream.flow_control(b"$JS.FC.S.c.1")
    assert stream.answers == [b"$JS.FC.S.c.1"]
    reader.consumer.pause()
    stream.flow_control(b"$JS.FC.S.c.2")
    stream.heartbeat(0, stalled=b"$JS.FC.S.c.2")
    assert len(stream.answers) == 1
    reader.consumer.resume()
    assert stream.answers == [b"$JS.FC.S.c.1", b"$JS.FC.S.c.2"]
    reader.consumer.resume()
    assert len(stream.answers) == 2
    stream.heartbeat(0, stalled=b"$JS.FC.S.c.3")  # the request itself was lost
    assert stream.answers[-1] == b"$JS.FC.S.c.3"
    assert reader.idle == 0
    stream.heartbeat(0, stalled=b"$JS.FC.S.c 4\r")  # would break the control line
    assert len(stream.answers) == 3
    await finish(stream, reader)


async def test_an_answer_held_back_is_not_given_to_the_next_consumer(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    reader.consumer.pause()
    stream.flow_control(b"$JS.FC.S.c.1")
    stream.heartbeat(5)
    await until(lambda: len(stream.configs) == 2)
    reader.consumer.resume()
    assert stream.answers == []
    await turns()
    await finish(stream, reader)


async def test_a_reconnect(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    stream.deliver(7, 1)
    stream.reconnect()
    await until(lambda: len(stream.configs) == 2)
    await turns()
    assert stream.configs[1]["opt_start_seq"] == 8
    assert reader.restarts == 1
    stream.deliver(8, 1)
    assert reader.seqs == [7, 8]
    await finish(stream, reader)


async def test_a_reconnect_before_the_first_message_of_a_policy_new(stream: Stream) -> None:
    """Otherwise what was published meanwhile is never seen."""
    stream.last_seq = 40
    reader = Reader(stream, deliver_policy="new")
    await reader.consumer.start()
    assert stream.configs[0]["deliver_policy"] == "new"
    stream.reconnect()
    await until(lambda: len(stream.configs) == 2)
    assert stream.configs[1]["deliver_policy"] == "by_start_sequence"
    assert stream.configs[1]["opt_start_seq"] == 41
    await turns()
    await finish(stream, reader)


@pytest.mark.parametrize("policy", ["all", "last_per_subject"])
async def test_a_reconnect_before_the_first_message(stream: Stream, policy: str) -> None:
    reader = Reader(stream, deliver_policy=policy)
    await reader.consumer.start()
    stream.reconnect()
    await until(lambda: len(stream.configs) == 2)
    assert stream.configs[1]["deliver_policy"] == policy
    assert "opt_start_seq" not in stream.configs[1]
    await turns()
    await finish(stream, reader)


async def test_by_start_sequence(stream: Stream) -> None:
    reader = Reader(stream, deliver_policy="by_start_sequence", start_seq=12, headers_only=True)
    await reader.consumer.start()
    assert stream.configs[0]["opt_start_seq"] == 12
    assert stream.configs[0]["headers_only"] is True
    stream.deliver(14, 1)
    stream.heartbeat(3)
    await until(lambda: len(stream.configs) == 2)
    assert stream.configs[1]["opt_start_seq"] == 15
    await turns()
    await finish(stream, reader)


async def test_silence_makes_a_new_consumer(stream: Stream) -> None:
    """A push consumer that was deleted says nothing."""
    reader = Reader(stream, heartbeat=0.01)
    await reader.consumer.start()
    stream.deliver(1, 1)
    await until(lambda: len(stream.configs) >= 2)
    assert stream.configs[1]["opt_start_seq"] == 2
    await finish(stream, reader)


async def test_silence_of_the_application_is_none_of_the_server(stream: Stream) -> None:
    """What lay in the socket while the application did not run is processed before the PONG."""
    reader = Reader(stream, heartbeat=0.01)
    await reader.consumer.start()
    reader.consumer._active -= 10.0
    session = stream.server.session
    asked = asyncio.Event()

    def ping(waiter: asyncio.Future[None] | None) -> None:
        assert waiter is not None
        asked.set()
        stream.heartbeat(0)
        waiter.set_result(None)

    session.ping = ping  # type: ignore[method-assign]
    async with asyncio.timeout(1):
        await asked.wait()
    await turns()
    assert (len(stream.configs), reader.restarts) == (1, 0)
    await finish(stream, reader)


async def test_a_sign_of_life_just_after_the_check(stream: Stream) -> None:
    """It comes before the PING is sent; that nothing follows it at once is no silence."""
    reader = Reader(stream)
    await reader.consumer.start()
    reader.consumer._active -= 1000.0
    reader.consumer._check()
    stream.heartbeat(0)
    await turns()
    assert (len(stream.configs), reader.restarts) == (1, 0)
    await finish(stream, reader)


async def test_lost_after_messages_but_before_the_answer_to_the_creation(stream: Stream) -> None:
    def answer(verb: str, pub: Pub) -> bool:
        if verb == "CONSUMER.CREATE" and len(stream.configs) == 1:
            config = json.loads(bytes(pub.payload))["config"]
            stream.configs.append(config)
            stream.live[config["name"]] = config
            stream.deliver(1, 1)
            stream.reconnect()
            return True
        return False

    stream.answer = answer
    reader = Reader(stream)
    await reader.consumer.start()
    stream.heartbeat(1)
    await until(lambda: len(stream.configs) == 3 or reader.failures)
    assert reader.failures == []
    await until(lambda: list(stream.live) == [stream.configs[2]["name"]])
    stream.deliver(2, 1)
    assert reader.seqs == [1, 2]
    await finish(stream, reader)


async def test_creating_is_retried(stream: Stream) -> None:
    failing = iter([10008, 10009, 10167])

    def answer(verb: str, pub: Pub) -> bool:
        code = next(failing, 0) if verb == "CONSUMER.CREATE" and stream.configs else 0
        return stream.error(pub, code, 503) if code else False

    stream.answer = answer
    reader = Reader(stream)
    await reader.consumer.start()
    stream.heartbeat(1)
    await until(lambda: len(stream.configs) == 2)
    await turns()
    assert reader.failures == []
    await finish(stream, reader)


async def test_creating_is_given_up(stream: Stream) -> None:
    stream.answer = lambda verb, pub: (
        stream.error(pub, 10008, 503) if verb == "CONSUMER.CREATE" and stream.configs else False
    )
    reader = Reader(stream, retry_budget=0.05)
    await reader.consumer.start()
    stream.heartbeat(1)
    await until(lambda: reader.failures)
    assert isinstance(reader.failures[0], NatsError)
    await finish(stream, reader)
    assert len(reader.failures) == 1


async def test_an_answer_that_was_lost_leaves_no_consumer(stream: Stream) -> None:
    """The creation timed out here, but the server has made the consumer."""

    def answer(verb: str, pub: Pub) -> bool:
        if verb == "CONSUMER.CREATE" and len(stream.configs) == 1:
            config = json.loads(bytes(pub.payload))["config"]
            stream.configs.append(config)
            stream.live[config["name"]] = config
            return True
        return False

    stream.answer = answer
    reader = Reader(stream)
    reader.consumer._js.timeout = 0.02
    await reader.consumer.start()
    stream.heartbeat(1)
    await until(lambda: len(stream.configs) == 3)
    await turns()
    assert list(stream.live) == [stream.configs[2]["name"]]
    await finish(stream, reader)


async def test_a_gap_while_creating_leaves_no_consumer(stream: Stream) -> None:
    """In a cluster deliveries may overtake the answer to the creation."""

    def answer(verb: str, pub: Pub) -> bool:
        if verb == "CONSUMER.CREATE" and len(stream.configs) == 1:
            stream.default(verb, pub)
            stream.deliver(5, 2)
            return True
        return False

    stream.answer = answer
    reader = Reader(stream)
    await reader.consumer.start()
    stream.heartbeat(1)
    await until(lambda: len(stream.configs) == 3)
    await turns()
    assert list(stream.live) == [stream.configs[2]["name"]]
    await finish(stream, reader)


async def test_gaps_without_end_are_given_up(stream: Stream) -> None:
    """A consumer whose first message never comes is no progress, however often it is made anew."""
    reader = Reader(stream, retry_budget=0.3)
    await reader.consumer.start()
    seen = 0
    async with asyncio.timeout(3):
        while not reader.failures:
            if len(stream.configs) > seen:
                seen = len(stream.configs)
                await turns()
                stream.deliver(2, 2)
            await asyncio.sleep(0)
    assert isinstance(reader.failures[0], RequestTimeoutError)
    assert seen < 20, "no back-off"
    await finish(stream, reader)


async def test_restarts_of_an_idle_consumer_are_no_failure(stream: Stream) -> None:
    reader = Reader(stream, retry_budget=0.0)
    await reader.consumer.start()
    for n in range(2, 8):
        stream.heartbeat(0)
        stream.reconnect()
        await until(lambda n=n: len(stream.configs) == n)
        await turns()
    assert reader.failures == []
    await finish(stream, reader)


async def test_the_stream_is_gone(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    stream.answer = lambda verb, pub: stream.error(pub, 10059)
    stream.heartbeat(1)
    await until(lambda: reader.failures)
    assert isinstance(reader.failures[0], StreamNotFoundError)
    stream.live.clear()
    await finish(stream, reader)


async def test_the_stream_was_made_anew(stream: Stream) -> None:
    reader = Reader(stream, created=datetime(2024, 1, 1, tzinfo=UTC))
    await reader.consumer.start()
    stream.heartbeat(1)
    await until(lambda: len(stream.configs) == 2)
    await turns()
    stream.created = "2024-01-01T00:00:01Z"
    stream.heartbeat(1)
    await until(lambda: reader.failures)
    assert isinstance(reader.failures[0], StreamNotFoundError)
    await finish(stream, reader)


async def test_start_fails(stream: Stream) -> None:
    stream.answer = lambda verb, pub: stream.error(pub, 10059)
    reader = Reader(stream)
    with pytest.raises(StreamNotFoundError):
        await reader.consumer.start()
    await finish(stream, reader)
    stream.answer = lambda verb, pub: False
    await reader.consumer.start()  # may be tried again
    stream.deliver(1, 1)
    assert reader.seqs == [1]
    await finish(stream, reader)


async def test_start_while_disconnected(stream: Stream) -> None:
    stream.server.lose()
    reader = Reader(stream)
    starting = asyncio.ensure_future(reader.consumer.start())
    await turns()
    # The buffered creation goes out with the reconnect, before anybody can look at it.
    stream.server.connect()
    stream.attach()
    for pub in stream.server.pubs:
        stream.on_pub(pub)
    await starting
    await turns()
    assert len(stream.configs) == 1
    stream.deliver(1, 1)
    assert reader.seqs == [1]
    await finish(stream, reader)


async def test_start_is_cancelled(stream: Stream) -> None:
    hold: list[Pub] = []

    def answer(verb: str, pub: Pub) -> bool:
        if verb == "CONSUMER.CREATE":
            hold.append(pub)
            config = json.loads(bytes(pub.payload))["config"]
            stream.live[config["name"]] = config
            return True
        return False

    stream.answer = answer
    reader = Reader(stream)
    starting = asyncio.ensure_future(reader.consumer.start())
    await until(lambda: hold)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await finish(stream, reader)


async def test_stop_while_starting(stream: Stream) -> None:
    hold: list[Pub] = []

    def answer(verb: str, pub: Pub) -> bool:
        if verb == "CONSUMER.CREATE":
            hold.append(pub)
        return verb == "CONSUMER.CREATE"

    stream.answer = answer
    reader = Reader(stream)
    starting = asyncio.ensure_future(reader.consumer.start())
    await until(lambda: hold)
    stopping = asyncio.ensure_future(reader.consumer.stop())
    await turns()
    stream.default("CONSUMER.CREATE", hold[0])
    await asyncio.gather(starting, stopping, return_exceptions=True)
    stream.live.clear()  # here the deletion overtook the creation; a server answers in order
    await finish(stream, reader)
    assert reader.consumer._timer is None or reader.consumer._timer.cancelled()


async def test_stop_while_making_anew(stream: Stream) -> None:
    stream.answer = lambda verb, pub: verb == "CONSUMER.CREATE" and len(stream.configs) == 1
    reader = Reader(stream)
    await reader.consumer.start()
    stream.heartbeat(1)
    await turns()
    async with asyncio.timeout(1):
        await finish(stream, reader)
    assert reader.failures == []


async def test_stop_is_cancelled(stream: Stream) -> None:
    """Whatever happens to the wait for the server, nothing stays subscribed."""
    stream.answer = lambda verb, pub: verb == "CONSUMER.DELETE"
    reader = Reader(stream)
    await reader.consumer.start()
    inbox = stream.inbox()
    stopping = asyncio.ensure_future(reader.consumer.stop())
    await turns()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert not stream.server.subscribed(inbox)
    stream.answer = lambda verb, pub: False
    await finish(stream, reader)


async def test_stop_while_disconnected_does_not_wait(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    stream.server.lose()
    async with asyncio.timeout(0.2):
        await reader.consumer.stop()
    stream.server.connect()
    deletes = [pub for pub in stream.server.pubs if b".CONSUMER.DELETE." in pub.subject]
    assert [pub.subject.split(b".")[-1].decode() for pub in deletes] == list(stream.live)


async def test_stop_with_a_server_that_does_not_answer(stream: Stream) -> None:
    stream.answer = lambda verb, pub: verb == "CONSUMER.DELETE"
    reader = Reader(stream)
    await reader.consumer.start()
    reader.consumer._js.timeout = 0.02
    async with asyncio.timeout(1):
        await reader.consumer.stop()


async def test_the_client_is_closed(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    await stream.server.client.close()
    assert [type(exc) for exc in reader.failures] == [ConnectionClosedError]  # at once, by nobody's heartbeat
    async with asyncio.timeout(0.2):
        await reader.consumer.stop()


async def test_the_client_is_closed_while_making_anew(stream: Stream) -> None:
    stream.answer = lambda verb, pub: verb == "CONSUMER.CREATE" and len(stream.configs) == 1
    reader = Reader(stream)
    await reader.consumer.start()
    stream.heartbeat(1)
    await turns()
    await stream.server.client.close()
    await until(lambda: reader.failures)
    assert isinstance(reader.failures[0], ConnectionClosedError)
    await reader.consumer.stop()


async def test_closed_for_good(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    stream.server.session.fail(StaleConnectionError("cut"))  # reconnect=False
    await until(lambda: reader.failures)
    assert len(reader.failures) == 1
    await reader.consumer.stop()


@pytest.mark.parametrize("which", ["on_message", "on_idle", "on_restart", "placer", "on_failure"])
async def test_a_callback_that_raises_does_not_reach_the_reader(stream: Stream, which: str) -> None:
    def broken(*args: Any) -> Any:
        raise ZeroDivisionError

    failures: list[BaseException] = []
    options: dict[str, Any] = {
        "on_message": lambda msg, delivery: None,
        "on_failure": failures.append,
        which: broken,
    }
    consumer = OrderedConsumer(stream.server.client.jetstream(), "S", "s.>", heartbeat=30.0, **options)
    await consumer.start()
    handler = next(h for h in stream.server.connection.handlers.values() if h.subject == stream.inbox())
    reply = b"$JS.ACK.S.%b.1.1.1.1.0" % stream.configs[0]["name"].encode()
    assert handler.place(Msg(b"s.a", handler.sid, reply), 10) is None
    stream.deliver(1, 1)
    stream.heartbeat(1)
    stream.heartbeat(9)
    await turns()
    if which == "on_failure":
        consumer._fail(StaleConnectionError("x"))
    else:
        assert [type(exc) for exc in failures] == [ZeroDivisionError]
    await consumer.stop()
    assert stream.live == {}


async def test_places(stream: Stream) -> None:
    place = bytearray(10)
    asked: list[int] = []

    def placer(msg: Msg, size: int) -> bytearray:
        asked.append(size)
        return place

    reader = Reader(stream, placer=placer)
    await reader.consumer.start()
    handler = next(h for h in stream.server.connection.handlers.values() if h.subject == stream.inbox())
    name = stream.configs[0]["name"].encode()

    def ask(consumer_seq: int, consumer: bytes = name) -> Any:
        return handler.place(
            Msg(b"s.a", handler.sid, b"$JS.ACK.S.%b.1.1.%d.1.0" % (consumer, consumer_seq)), 10
        )

    assert ask(1) is place
    stream.deliver(1, 1)
    assert ask(1) is None  # delivered already
    assert ask(2, b"other") is None
    assert handler.place(Msg(b"s.a", handler.sid, None), 10) is None
    assert ask(2) is place
    await finish(stream, reader)
    assert ask(3) is None
    assert asked == [10, 10]


def test_the_budget_outlasts_an_election() -> None:
    assert ordered.RETRY_BUDGET >= 15
