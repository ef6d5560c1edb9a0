"""Messages, and subscriptions that are iterated."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from natsproto.errors import (
    ConfigError,
    ConnectionClosedError,
    NatsError,
    NoRespondersError,
    RequestTimeoutError,
)
from objstore.sync import Client, Msg
from support.blocking import just_made
from support.fake_session import turns
from support.memory_server import MemoryServer


def send(nc: Client, server: MemoryServer, *payloads: bytes) -> None:
    """Messages on the subject ``x``; they wait in the queue afterwards."""

    async def deliver() -> None:
        for payload in payloads:
            server.send(b"x", payload, reply=b"r", header=b"NATS/1.0\r\nA: b\r\n\r\n")

    nc._link.call(deliver)


def test_a_message(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    subscription = nc.subscribe("x")
    send(nc, connected[1], b"1")
    msg = subscription.next_msg()
    assert (msg.subject, msg.reply, msg.data, msg.status) == ("x", "r", b"1", None)
    assert msg.headers is not None
    assert msg.headers["a"] == "b"
    assert msg.raw_header == b"NATS/1.0\r\nA: b\r\n\r\n"
    assert "'x'" in repr(msg)
    msg.respond(b"2", headers={"C": "d"})
    assert [(pub.subject, pub.payload) for pub in connected[1].pubs] == [(b"r", b"2")]


def test_iterated(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    subscription = nc.subscribe("x")
    send(nc, connected[1], *(b"%d" % number for number in range(600)))
    assert subscription.pending_msgs == 600
    assert subscription.pending_bytes > 600
    assert next(subscription).data == b"0"
    assert subscription.pending_msgs == 599, "those that were handed over ahead count"
    assert subscription.next_msg(timeout=1).data == b"1"
    assert [msg.data for msg in subscription.messages(timeout=0.01)] == [b"%d" % n for n in range(2, 600)]
    with pytest.raises(RequestTimeoutError):
        subscription.next_msg(timeout=0.01)
    send(nc, connected[1], b"more")
    subscription.unsubscribe()
    assert [msg.data for msg in subscription] == [b"more"]
    assert subscription.dropped == 0
    assert list(subscription.messages(timeout=60)) == []
    with pytest.raises(ConnectionClosedError):
        subscription.next_msg()


def test_each_message_goes_to_one_thread(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    subscription = nc.subscribe("x")
    found: list[bytes] = []
    workers = [
        threading.Thread(target=lambda: found.extend(msg.data for msg in subscription)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    sent = [b"%d" % number for number in range(1000)]
    send(nc, connected[1], *sent)
    subscription.drain(timeout=20)
    for worker in workers:
        worker.join(20)
    assert sorted(found) == sorted(sent)


def test_its_end(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    server = connected[1]
    with nc.subscribe("x", queue="q", max_msgs=3):
        assert server.subscribed(b"x")
    assert not server.subscribed(b"x")
    dropped = nc.subscribe("x")
    assert server.subscribed(b"x")
    del dropped
    nc.flush()
    assert not server.subscribed(b"x")


def test_interrupted_just_when_it_was_made(
    nc: Client, connected: tuple[Client, MemoryServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has got the subscription: it is dropped."""
    subscribe = nc._client.subscribe
    made: list[object] = []

    async def interrupted(*args: Any, **kwargs: Any) -> object:
        await just_made()
        made.append(await subscribe(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(nc._client, "subscribe", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        nc.subscribe("x")
    assert len(made) == 1
    del caught  # its traceback refers to what the call has returned
    gc.collect()
    nc.flush()
    assert not connected[1].subscribed(b"x")


def test_the_error_of_the_connection(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    subscription = nc.subscribe("x")

    async def lose() -> None:
        connected[1].refuse("x", "Subscription")

    nc._link.call(lose)
    with pytest.raises(NatsError, match="x"):
        next(subscription)


# -- the answers to one request --------------------------------------------------------------------


@pytest.fixture
def server(connected: tuple[Client, MemoryServer]) -> MemoryServer:
    """It answers nothing by itself."""
    connected[1].session.on_pub = None
    return connected[1]


def answer(nc: Client, server: MemoryServer, *payloads: bytes, header: bytes | None = None) -> None:
    """Answers to the newest request; they wait in the queue afterwards."""

    async def deliver() -> None:
        for payload in payloads:
            server.reply(server.pubs[-1], payload, header)

    nc._link.call(deliver)


def test_answers(nc: Client, server: MemoryServer) -> None:
    responses = nc.request_many("x", b"?", max_messages=600, headers={"A": "b"})
    answer(nc, server, *(b"%d" % number for number in range(600)))
    assert next(responses).data == b"0"
    assert responses.pending_msgs == 599
    assert [msg.data for msg in responses] == [b"%d" % number for number in range(1, 600)]
    assert (responses.ended_by, responses.last, responses.pending_msgs) == ("max_messages", None, 0)
    assert list(responses) == []


def test_answers_end_by_a_sentinel_or_a_status(nc: Client, server: MemoryServer) -> None:
    responses = nc.request_many("x", sentinel=lambda msg: not msg.data)
    answer(nc, server, b"1", b"", b"2")
    assert [msg.data for msg in responses] == [b"1"]
    assert responses.ended_by == "sentinel"
    assert responses.last is not None
    assert responses.pending_msgs == 0
    responses = nc.request_many("x")
    answer(nc, server, b"", header=b"NATS/1.0 204 EOB\r\n\r\n")
    assert list(responses) == []
    assert responses.last is not None
    assert (responses.ended_by, responses.last.status) == ("status", 204)
    responses = nc.request_many("x")
    answer(nc, server, b"", header=b"NATS/1.0 503\r\n\r\n")
    with pytest.raises(NoRespondersError):
        next(responses)


def test_a_sentinel_that_raises(nc: Client, server: MemoryServer) -> None:
    def sentinel(msg: Msg) -> bool:
        raise ZeroDivisionError

    responses = nc.request_many("x", sentinel=sentinel)
    answer(nc, server, b"1", b"2")
    with pytest.raises(ZeroDivisionError):
        next(responses)
    assert list(responses) == []
    with pytest.raises(ConfigError, match="sentinel"):
        nc.request_many("x", sentinel=7)  # type: ignore[arg-type]


def test_answers_that_are_left(nc: Client, server: MemoryServer) -> None:
    with nc.request_many("x") as responses:
        mux = server.connection.mux
        answer(nc, server, b"1", b"2")
        assert next(responses).data == b"1"
        assert len(mux) == 1
    assert len(mux) == 0
    assert (responses.ended_by, list(responses)) == ("closed", [])
    dropped = nc.request_many("x")
    assert len(mux) == 1
    del dropped
    nc._link.call(turns)
    assert len(mux) == 0
