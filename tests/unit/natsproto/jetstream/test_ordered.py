"""The ordered consumer against a scripted stream: gaps, silence, restarts."""

from __future__ import annotations

import asyncio
import json

import pytest

from natsproto.errors import ConfigError, NatsError, RequestTimeoutError
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


async def test_how_long_the_server_waits_for_a_listener(stream: Stream) -> None:
    for given, sent in (({}, 5_000_000_000), ({"inactive_threshold": 0.25}, 250_000_000)):
        reader = Reader(stream, **given)
        await reader.consumer.start()
        assert stream.configs[-1]["inactive_threshold"] == sent
        await finish(stream, reader)
    for threshold in (0, -1, float("nan"), 2e9):
        with pytest.raises(ConfigError, match="inactive_threshold"):
            Reader(stream, inactive_threshold=threshold)


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


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("s.>", b"s.a", b"t.a"),
        ("s.a", b"s.a", b"s.a2"),
        ("s.*.c", b"s.b.c", b"s.b.d"),
        (">", b"t", None),
    ],
)
async def test_a_consumer_that_others_have_changed(
    stream: Stream, pattern: str, good: bytes, bad: bytes | None
) -> None:
    """Whoever may create consumers can give it another filter: what was not asked for counts as a gap."""
    reader = Reader(stream, filter_subject=pattern)
    await reader.consumer.start()
    stream.deliver(1, 1, subject=good)
    if bad is not None:
        stream.deliver(2, 2, subject=bad)
        await until(lambda: len(stream.configs) == 2)
        stream.deliver(3, 1, subject=good)
    assert reader.seqs == ([1] if bad is None else [1, 3])
    assert not reader.failures
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
    reader.consumer.active -= 10.0
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
    reader.consumer.active -= 1000.0
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
        assert reader.consumer.current is not None
        reader.consumer.current.since -= 16.0  # of 30 between heartbeats
        stream.heartbeat(0)
        stream.heartbeat(9)
        await until(lambda n=n: len(stream.configs) == n)
        await turns()
    assert reader.failures == []
    await finish(stream, reader)
