"""The ordered consumer against a scripted stream: gaps, silence, flow control, restarts."""

from __future__ import annotations

import asyncio
import json

import pytest

from natsproto.errors import NatsError, RequestTimeoutError
from natsproto.wire import Pub
from support.fake_session import turns, until
from support.fake_stream import FC, Reader, Stream, finish


@pytest.fixture
async def stream() -> Stream:
    return Stream()


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
    others = (b"$JS.ACK.S.other.1.1.1.1.0", b"$JS.ACK.T." + name + b".1.1.1.1.0")
    for reply in (None, b"x", *others, b"$JS.ACK.S." + name + b".1.1.1.1"):
        stream.server.send(stream.inbox(), b"x", subject=b"s.a", reply=reply)
    stream.server.send(stream.inbox(), b"x", header=FC, reply=b"$JS.FC.x")  # a payload: no status
    stream.server.send(stream.inbox(), header=FC, reply=b"$JS.FC.x", subject=b"s.a")  # a message's subject
    stream.server.send(stream.inbox(), header=b"NATS/1.0 503\r\n\r\n")
    assert (reader.seqs, reader.restarts, stream.answers) == ([], 0, [])
    stream.deliver(1, 1)
    assert reader.seqs == [1]
    await finish(stream, reader)


def ours(stream: Stream, token: int) -> bytes:
    """Where the server asks for the flow control of the newest consumer."""
    return b"$JS.FC.S.%b.%d" % (stream.configs[-1]["name"].encode(), token)


async def test_flow_control(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    first, second, third = (ours(stream, token) for token in (1, 2, 3))
    stream.flow_control(first)
    assert stream.answers == [first]
    reader.consumer.pause()
    stream.flow_control(second)
    stream.heartbeat(0, stalled=second)
    assert len(stream.answers) == 1
    reader.consumer.resume()
    assert stream.answers == [first, second]
    reader.consumer.resume()
    assert len(stream.answers) == 2
    stream.heartbeat(0, stalled=third)  # the request itself was lost
    assert stream.answers[-1] == third
    assert reader.idle == 0
    await finish(stream, reader)


@pytest.mark.parametrize(
    "form",
    [
        "$JS.API.STREAM.DELETE.S",
        "$JS.FC.S.{other}.1",
        "$JS.FC.T.{name}.1",
        "$JS.FC.S.{name}." + "1" * 4050,
        "$JS.FC.S.{name}",
        "$JS.FC.S.{name}.1.2",
        "$JS.FC.d.S.{name}.1",
        "$JS.FC.d.a.T.{name}.1",
        "$JS.FC.d.a.x.S.{name}.1",
        "$JS.FC.S.{name}.",
        "$JS.FC.S.{name}.*",
        "$JS.FC.S.{name}.>",
        "$JS.FC.S.{name} 1.1",
        "$JS.FC.S.{name}.1 4\r",
        "$JS.ACK.S.{name}.1",
        "x.FC.S.{name}.1",
        "",
    ],
)
@pytest.mark.parametrize("paused", [False, True])
async def test_nothing_is_published_for_others(stream: Stream, form: str, paused: bool) -> None:
    """Whoever knows the inbox can send anything there; it is answered only where the server asks."""
    reader = Reader(stream)
    await reader.consumer.start()
    published: list[bytes] = []
    before = stream.server.session.on_pub
    stream.server.session.on_pub = lambda pub: (published.append(pub.subject), before(pub))
    name = stream.configs[0]["name"]
    subject = form.format(name=name, other=name[:-1]).encode()
    if paused:
        reader.consumer.pause()
    stream.flow_control(subject)
    stream.heartbeat(0, stalled=subject)
    reader.consumer.resume()
    await turns()
    assert published == []
    stream.server.session.on_pub = before
    await finish(stream, reader)


async def test_flow_control_with_domain_and_account(stream: Stream) -> None:
    """Servers with ``js_ack_fc_v2`` ask there."""
    reader = Reader(stream)
    await reader.consumer.start()
    subject = b"$JS.FC._.hash.S.%b.x7" % stream.configs[0]["name"].encode()
    stream.flow_control(subject)
    assert stream.answers == [subject]
    await finish(stream, reader)


async def test_an_answer_held_back_is_not_given_to_the_next_consumer(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    reader.consumer.pause()
    stream.flow_control(ours(stream, 1))
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
    # Not "new" to the server: a consumer that starts over with it would leave out what came meanwhile.
    assert stream.configs[0]["deliver_policy"] == "by_start_sequence"
    assert stream.configs[0]["opt_start_seq"] == 41
    stream.last_seq = 45
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
    async with asyncio.timeout(6):
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
    async with asyncio.timeout(8):
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


async def gaps_without_end(stream: Stream, reader: Reader, *before: int) -> int:
    """Have a gap follow what each consumer says first; returns how many consumers that took to fail."""
    seen = 0
    async with asyncio.timeout(8):
        while not reader.failures:
            if len(stream.configs) > seen:
                seen = len(stream.configs)
                await turns()
                for consumer_seq, stream_seq in enumerate(before, 1):
                    stream.deliver(stream_seq, consumer_seq)
                stream.heartbeat(len(before))
                stream.heartbeat(9)
            await asyncio.sleep(0)
    assert isinstance(reader.failures[0], RequestTimeoutError)
    return seen


@pytest.mark.parametrize("old", [(), (3,), (1, 2, 3)], ids=["nothing", "one", "all"])
async def test_old_messages_are_no_progress(stream: Stream, old: tuple[int, ...]) -> None:
    """Nor is an idle heartbeat that comes as soon as the consumer is there."""
    reader = Reader(stream, retry_budget=0.3)
    await reader.consumer.start()
    for seq in (1, 2, 3):
        stream.deliver(seq, seq)
    assert await gaps_without_end(stream, reader, *old) < 20, "no back-off"
    await finish(stream, reader)


async def test_an_idle_heartbeat_in_its_time_is_progress(stream: Stream) -> None:
    reader = Reader(stream, retry_budget=0.0)
    await reader.consumer.start()
    for n in range(2, 6):
        assert reader.consumer._current is not None
        reader.consumer._current.since -= 16.0  # of 30 between heartbeats
        stream.heartbeat(0)
        stream.heartbeat(9)
        await until(lambda n=n: len(stream.configs) == n)
        await turns()
    assert reader.failures == []
    await finish(stream, reader)


# -- a server that says that we hold it back, and sends nothing ---------------------------------------------


async def stalled(stream: Stream, reader: Reader, checks: int = 200) -> None:
    """Heartbeats that are not idle, and the checks that follow them."""
    for number in range(checks):
        stream.heartbeat(len(reader.seqs), stalled=ours(stream, number))
        reader.consumer._check()
        await asyncio.sleep(0)


async def test_a_stalled_consumer_has_a_limit(stream: Stream) -> None:
    reader = Reader(stream, limit=100.0)
    await reader.consumer.start()
    await stalled(stream, reader, 3)
    stream.deliver(1, 1)
    await stalled(stream, reader, 4)
    assert reader.failures == []  # the first of them has seen the message
    await stalled(stream, reader, 1)
    (failure,) = reader.failures
    assert isinstance(failure, RequestTimeoutError)
    await finish(stream, reader)


async def test_who_waits_for_news_has_none(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    await stalled(stream, reader)
    assert (reader.failures, reader.restarts) == ([], 0)
    await finish(stream, reader)


async def test_nor_has_who_is_paused(stream: Stream) -> None:
    reader = Reader(stream, limit=100.0)
    await reader.consumer.start()
    reader.consumer.pause()
    await stalled(stream, reader)
    reader.consumer.resume()
    await stalled(stream, reader, 3)
    assert reader.failures == []
    await stalled(stream, reader, 1)
    assert len(reader.failures) == 1
    await finish(stream, reader)


async def test_the_limit_holds_across_reconnects(stream: Stream) -> None:
    """They are no progress to who reads what there is."""
    reader = Reader(stream, limit=0.0, retry_budget=0.3)
    await reader.consumer.start()
    seen = 0
    async with asyncio.timeout(8):
        while not reader.failures:
            if len(stream.configs) > seen:
                seen = len(stream.configs)
                await turns()
                stream.reconnect()
            await asyncio.sleep(0)
    assert isinstance(reader.failures[0], RequestTimeoutError)
    await finish(stream, reader)


async def test_each_consumer_has_all_of_the_limit(stream: Stream) -> None:
    """How many are made is what the budget bounds."""
    reader = Reader(stream, limit=100.0)
    await reader.consumer.start()
    await stalled(stream, reader, 3)
    stream.heartbeat(5)
    await until(lambda: len(stream.configs) == 2)
    await turns()
    await stalled(stream, reader, 3)
    assert reader.failures == []
    await finish(stream, reader)


# -- a server that asks for flow control and does not read the answers --------------------------------------


class FullTransport:
    """Takes no more until :attr:`room` is set."""

    def __init__(self) -> None:
        self.room = asyncio.Event()

    async def drain(self) -> None:
        await self.room.wait()

    @property
    def congested(self) -> bool:
        return not self.room.is_set()


def fill_up(stream: Stream) -> FullTransport:
    session = stream.server.session
    full = FullTransport()
    session.transport, session.congested = full, True  # type: ignore[assignment]
    return full


async def test_only_the_last_request_is_answered(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    full = fill_up(stream)
    for token in range(100):
        stream.flow_control(ours(stream, token))
        stream.heartbeat(0, stalled=ours(stream, token))
    await turns()
    assert stream.answers == []
    full.room.set()
    await turns()
    assert stream.answers == [ours(stream, 99)]
    stream.flow_control(ours(stream, 100))
    assert stream.answers[1:] == [ours(stream, 100)]  # at once again
    await finish(stream, reader)


@pytest.mark.parametrize("meanwhile", ["paused", "made anew", "lost"])
async def test_a_request_that_no_longer_counts(stream: Stream, meanwhile: str) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    full = fill_up(stream)
    stream.flow_control(asked := ours(stream, 1))
    await turns()
    if meanwhile == "paused":
        reader.consumer.pause()
    elif meanwhile == "made anew":
        stream.heartbeat(5)
        await until(lambda: len(stream.configs) == 2)
    else:
        stream.server.lose()
    full.room.set()
    await turns()
    assert stream.answers == []
    if meanwhile == "paused":
        reader.consumer.resume()
        assert stream.answers == [asked]
    if meanwhile != "lost":
        await finish(stream, reader)
    await reader.consumer.stop()


async def test_no_answer_is_waited_for_after_the_end(stream: Stream) -> None:
    reader = Reader(stream)
    await reader.consumer.start()
    full = fill_up(stream)
    stream.flow_control(ours(stream, 1))
    await turns()
    answering = reader.consumer._answering
    assert answering is not None
    async with asyncio.timeout(1 + 5):
        await finish(stream, reader)
    assert answering.cancelled()
    full.room.set()
    await turns()
    assert stream.answers == []
