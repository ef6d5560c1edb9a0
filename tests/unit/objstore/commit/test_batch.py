"""A batch of messages: no step of it waits for ever."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.errors import APIError, RequestTimeoutError
from natsproto.headers import header_value
from natsproto.jetstream.api.acks import AckCheck
from natsproto.wire import Pub
from objstore.commit.batch import Batch
from support.fake_session import FakeServer
from support.memory_server import error


class Full:
    """A transport that takes nothing more, and has not been lost."""

    congested = True
    taken = None

    async def drain(self) -> None:
        await asyncio.Event().wait()


async def test_a_network_that_takes_nothing_more() -> None:
    server = FakeServer()
    server.session.on_pub = lambda pub: server.reply(pub) if pub.reply else None
    acks = AckCheck("S", None)
    bucket: Any = SimpleNamespace(client=server.client, connection=server.connection, acks=acks)
    batch = Batch(bucket, 0.1)
    await batch.add(b"s.a", b"first", b"NATS/1.0\r\n\r\n")
    server.session.congested = True
    server.session.transport = Full()  # type: ignore[assignment]
    async with asyncio.timeout(0.1 + 5):
        with pytest.raises(RequestTimeoutError, match=r"took no more of a batch within 0\.1 s"):
            await batch.add(b"s.a", b"second", b"NATS/1.0\r\n\r\n")
    await server.client.close()


@pytest.mark.parametrize("refused", [False, True])
async def test_answers_to_messages_of_others(refused: bool) -> None:
    """Whoever may publish to the same stream has it answer a message of theirs, with our reply subject."""
    server = FakeServer()
    acks = AckCheck("S", None)
    bucket: Any = SimpleNamespace(
        client=server.client,
        connection=server.connection,
        acks=acks,
        own_ack=lambda msg: acks.parse(msg.payload),
    )
    batch = Batch(bucket, 0.5)

    def on_pub(pub: Pub) -> None:
        name = header_value(pub.header, b"Nats-Batch-Id") or b""
        others: list[dict[str, Any]] = [
            {**error(400, 10168, "message counters is disabled"), "stream": "S"},
            {"stream": "S", "seq": 4, "duplicate": True},
            {"stream": "S", "seq": 4},
            {"stream": "S", "seq": 4, "batch": "other", "count": 2},
            {"stream": "S", "seq": 4, "batch": name.decode(), "count": 1},
        ]
        if len(server.pubs) == 1:
            server.reply(pub, others[0])
            server.reply(pub)
            return
        for each in others:
            server.reply(pub, each)
        if refused:  # for the header of the first message
            server.reply(pub, {**error(400, 10166, "per-message TTL is disabled"), "stream": "S"})
        server.reply(pub, {"stream": "S", "seq": 9, "batch": name.decode(), "count": 2})

    server.session.on_pub = on_pub
    await batch.add(b"s.a", b"first", b"NATS/1.0\r\nNats-TTL: 5s\r\n\r\n")
    if refused:
        with pytest.raises(APIError, match="TTL is disabled"):
            await batch.end(b"s.a", b"last", b"NATS/1.0\r\n\r\n")
    else:
        assert (await batch.end(b"s.a", b"last", b"NATS/1.0\r\n\r\n")).seq == 9
    await server.client.close()
