"""Fast-ingest batches; how they behave is tested with their asyncio twin."""

from __future__ import annotations

import json

import pytest

from natsproto.errors import ConfigError, UnsupportedFeatureError
from natsproto.wire import Pub
from objstore.sync import Client
from support.memory_server import MemoryServer


def accept_batches(nc: Client, server: MemoryServer) -> list[bytes]:
    """Answer as a leader that stores batches; return the payloads that it gets."""
    payloads: list[bytes] = []

    def on_pub(pub: Pub) -> None:
        assert pub.reply is not None
        if not pub.reply.endswith(b".$FI"):
            return server.on_pub(pub)  # reads: there is no such stream
        batch, _, _, seq, operation, _ = pub.reply.split(b".")[-6:]
        if operation == b"3":
            count = int(seq) - 1
        else:
            count = int(seq)
            payloads.append(bytes(pub.payload))
        answer: dict[str, object] = {"type": "ack", "seq": 0, "msgs": 10}
        if operation in (b"2", b"3"):
            answer = {"stream": "S", "seq": count, "batch": batch.decode(), "count": count}
        if operation != b"1":
            inbox = pub.reply.rsplit(b".", 5)[0] + b".>"
            server.send(inbox, json.dumps(answer).encode(), subject=pub.reply)
        return None

    async def install() -> None:
        server.session.info["api_lvl"] = 4
        server.session.on_pub = on_pub

    nc._link.call(install)
    return payloads


def test_a_batch(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    payloads = accept_batches(nc, connected[1])
    js = nc.jetstream()
    with js.fast_publisher("S") as batch:
        assert [batch.add("s.a", b"1"), batch.add("s.a", b"2", msg_id="2")] == [1, 2]
    assert (batch.sent, batch.acknowledged, batch.lost, batch.refused) == (2, 2, 0, [])
    ack = batch.close()
    assert ack is not None
    assert (ack.count, payloads) == (2, [b"1", b"2"])
    assert js.fast_publisher("S").commit("s.a", b"3", headers={"A": "1"}).count == 1
    assert repr(batch) == "<FastPublisher 'S' committed 2/2>"


def test_an_exception_commits_nothing(nc: Client, connected: tuple[Client, MemoryServer]) -> None:
    payloads = accept_batches(nc, connected[1])
    with pytest.raises(ZeroDivisionError), nc.jetstream().fast_publisher("S") as batch:
        batch.add("s.a", b"1")
        raise ZeroDivisionError
    assert payloads == [b"1"]
    with pytest.raises(ConfigError):
        batch.add("s.a", b"2")


def test_a_server_without_it(nc: Client) -> None:
    with pytest.raises(UnsupportedFeatureError):
        nc.jetstream().fast_publisher("S").add("s.a", b"1")
