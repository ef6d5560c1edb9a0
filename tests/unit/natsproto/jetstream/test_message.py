"""A delivered message, and the words that acknowledge it."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import (
    ConfigError,
    ConnectionClosedError,
    MaxPayloadError,
    NoRespondersError,
    RequestTimeoutError,
)
from natsproto.jetstream.api.acks import parse_ack_subject
from natsproto.jetstream.message import JetStreamMsg
from natsproto.wire import Msg
from support.fake_session import FakeServer, turns

ACK = b"$JS.ACK.S.c.2.17.5.1700000000000000000.3"


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


def message(server: FakeServer) -> JetStreamMsg:
    frame = Msg(b"orders.new", b"1", ACK, b"NATS/1.0\r\nKind: a\r\n\r\n", b"payload")
    metadata = parse_ack_subject(ACK)
    assert metadata is not None
    return JetStreamMsg(frame, server.client, metadata)


async def test_what_it_holds(server: FakeServer) -> None:
    msg = message(server)
    assert (msg.subject, msg.data, msg.seq) == ("orders.new", b"payload", 17)
    assert msg.headers is not None
    assert msg.headers["Kind"] == "a"
    assert (msg.metadata.consumer, msg.metadata.consumer_seq) == ("c", 5)
    assert repr(msg) == "<JetStreamMsg 'orders.new' seq=17>"
    bare = JetStreamMsg(Msg(b"a", b"1", ACK, None, b""), server.client, msg.metadata)
    assert (bare.headers, bare.data) == (None, b"")


async def test_the_words(server: FakeServer) -> None:
    """They go to the subject the message came with, and nobody waits for them."""
    msg = message(server)
    await msg.ack()
    await msg.nak()
    await msg.nak(1.5)
    await msg.in_progress()
    await msg.term()
    assert {pub.subject for pub in server.pubs} == {ACK}
    words = [bytes(pub.payload) for pub in server.pubs]
    assert [words[n] for n in (0, 1, 3, 4)] == [b"+ACK", b"-NAK", b"+WPI", b"+TERM"]
    word, _, document = words[2].partition(b" ")
    assert (word, json.loads(document)) == (b"-NAK", {"delay": 1_500_000_000})
    assert all(pub.reply is None for pub in server.pubs)


async def test_the_end_of_a_message_with_a_reason(server: FakeServer) -> None:
    """Servers that know no reason do not know the word with one: 2.9. They announce no API level."""
    msg = message(server)
    await msg.term("not för us")
    assert [bytes(pub.payload) for pub in server.pubs] == ["+TERM not för us".encode(), b"+TERM"]
    server.session.info["api_lvl"] = 2
    await msg.term("\udc80")
    assert [bytes(pub.payload) for pub in server.pubs[2:]] == [b"+TERM \\udc80"]


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 2e9, "1", timedelta(seconds=1)])
async def test_words_that_are_not_sent(server: FakeServer, delay: Any) -> None:
    msg = message(server)
    with pytest.raises(ConfigError):
        await msg.nak(delay)
    for reason in (" ", 5):
        with pytest.raises(ConfigError):
            await msg.term(reason)  # type: ignore[arg-type]
    with pytest.raises(MaxPayloadError):
        await msg.term("x" * (1 << 20))
    assert server.pubs == []


async def test_a_confirmed_acknowledgement(server: FakeServer) -> None:
    msg = message(server)
    acking = asyncio.ensure_future(msg.ack_sync())
    await turns()
    (pub,) = server.pubs
    assert (pub.subject, bytes(pub.payload)) == (ACK, b"+ACK")
    assert not acking.done()
    server.reply(pub)
    assert await acking is None
    with pytest.raises(RequestTimeoutError):
        await msg.ack_sync(timeout=0.01)
    server.session.on_pub = lambda pub: server.reply(pub, b"", b"NATS/1.0 503\r\n\r\n")
    with pytest.raises(NoRespondersError):
        await msg.ack_sync()


@pytest.mark.parametrize(
    ("payload", "header", "reply"),
    [
        (b"x", None, None),
        (b'{"stream":"OWN","seq":7}', None, None),
        (b"", b"NATS/1.0\r\nNats-Stream: OWN\r\nNats-Subject: own.x\r\nNats-Sequence: 1\r\n\r\n", None),
        (b"", b"NATS/1.0 404 Message Not Found\r\n\r\n", None),
        (b"", None, b"$JS.ACK.OWN.c.1.1.1.1700000000000000000.0"),
    ],
    ids=["data", "an acknowledgement of a stream", "a stored message", "a status", "a delivery"],
)
async def test_what_confirms_nothing(
    server: FakeServer, payload: bytes, header: bytes | None, reply: bytes | None
) -> None:
    """A peer that sees the acknowledgement can have the server send such messages in its place."""
    msg = message(server)
    acking = asyncio.ensure_future(msg.ack_sync(timeout=5))
    await turns()
    (pub,) = server.pubs
    assert pub.reply is not None
    server.reply_to(pub.reply, payload, header, reply)
    await turns()
    assert not acking.done()
    server.reply(pub)
    await acking


async def test_a_network_that_is_full_is_waited_for(server: FakeServer) -> None:
    msg = message(server)
    waited = []

    class Full:
        congested = False

        async def drain(self) -> None:
            waited.append(len(server.pubs))

    server.session.transport, server.session.congested = Full(), True  # type: ignore[assignment]
    await msg.ack()
    assert waited == [1]


async def test_after_the_end(server: FakeServer) -> None:
    msg = message(server)

    async def elsewhere() -> None:
        with pytest.raises(ConnectionClosedError, match="another event loop"):
            await msg.ack()

    await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    await server.client.close()
    for call in (msg.ack(), msg.nak(1), msg.in_progress(), msg.term(), msg.ack_sync()):
        with pytest.raises(ConnectionClosedError):
            await call
    assert server.pubs == []
