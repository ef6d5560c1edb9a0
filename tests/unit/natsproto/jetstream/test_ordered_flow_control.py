"""The ordered consumer and flow control: what is answered, what is not, and servers that send nothing."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.errors import RequestTimeoutError
from support.fake_session import turns, until
from support.fake_stream import Reader, Stream, finish


@pytest.fixture
async def stream() -> Stream:
    return Stream()


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
