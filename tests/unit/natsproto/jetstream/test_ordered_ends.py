"""The ends of an ordered consumer: streams that go, starts and stops at any moment, callbacks that raise."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from natsproto.aio.options import DEFAULT_RETRY_BUDGET
from natsproto.errors import (
    ConnectionClosedError,
    PermissionsViolationError,
    StaleConnectionError,
    UnsupportedFeatureError,
)
from natsproto.jetstream.api.errors import StreamNotFoundError
from natsproto.jetstream.ordered import OrderedConsumer
from natsproto.wire import Msg, Pub
from support.fake_session import turns, until
from support.fake_stream import Reader, Stream, finish


@pytest.fixture
async def stream() -> Stream:
    return Stream()


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


async def test_a_user_who_may_create_none(stream: Stream) -> None:
    """There is none to delete, which may be forbidden as well: the error callback would hear of it."""
    asked: list[str] = []

    def answer(verb: str, pub: Pub) -> bool:
        asked.append(verb)
        said = f'Permissions Violation for Publish to "{pub.subject.decode()}"'
        server: Any = stream.server
        asyncio.get_running_loop().call_soon(server.connection.server_error, server.session, said)
        return True

    stream.answer = answer
    reader = Reader(stream)
    with pytest.raises(PermissionsViolationError):
        await reader.consumer.start()
    await turns()
    assert asked == ["CONSUMER.CREATE"] * 2  # with the filter in the subject, and without
    stream.answer = lambda verb, pub: False
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
    async with asyncio.timeout(6):
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


def patient(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader that waits for answers for long, if it waits at all."""
    monkeypatch.setattr("natsproto.jetstream.ordered.DELETE_TIMEOUT", 60.0)
    reader = Reader(stream)
    reader.consumer._js.timeout = 60.0
    return reader


async def test_stop_while_disconnected_does_not_wait(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = patient(stream, monkeypatch)
    await reader.consumer.start()
    stream.server.lose()
    async with asyncio.timeout(5):
        await reader.consumer.stop()
    stream.server.connect()
    deletes = [pub for pub in stream.server.pubs if b".CONSUMER.DELETE." in pub.subject]
    assert [pub.subject.split(b".")[-1].decode() for pub in deletes] == list(stream.live)


async def test_stop_with_a_server_that_does_not_answer(stream: Stream) -> None:
    stream.answer = lambda verb, pub: verb == "CONSUMER.DELETE"
    reader = Reader(stream)
    await reader.consumer.start()
    reader.consumer._js.timeout = 0.02
    async with asyncio.timeout(6):
        await reader.consumer.stop()


async def test_the_client_is_closed(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = patient(stream, monkeypatch)
    await reader.consumer.start()
    await stream.server.client.close()
    assert [type(exc) for exc in reader.failures] == [ConnectionClosedError]  # at once, by nobody's heartbeat
    async with asyncio.timeout(5):
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
        consumer.fail(StaleConnectionError("x"))
    else:
        assert [type(exc) for exc in failures] == [ZeroDivisionError]
    await consumer.stop()
    assert stream.live == {}


async def test_a_server_without_headers(stream: Stream) -> None:
    """Its heartbeats and flow control would be empty messages."""
    reader = Reader(stream)
    stream.server.connection.headers = False
    with pytest.raises(UnsupportedFeatureError, match="an ordered consumer"):
        await reader.consumer.start()
    assert (stream.live, stream.configs, stream.server.pubs) == ({}, [], [])


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
    assert DEFAULT_RETRY_BUDGET >= 15
