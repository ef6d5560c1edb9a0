"""Whether an ordered consumer is there: a heartbeat is no proof, as it may be that of somebody's pull."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.wire import Pub
from support.fake_session import turns, until
from support.fake_stream import Reader, Stream, finish


@pytest.fixture
async def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.setattr("natsproto.jetstream.ordered.PROOF_INTERVAL", 0.05)
    return Stream()


def asked(stream: Stream, answer: Any) -> list[str]:
    """Answer the questions for the consumer; returns the names that were asked for."""
    names: list[str] = []

    def info(verb: str, pub: Pub) -> bool:
        if verb != "CONSUMER.INFO":
            return False
        names.append(pub.subject.decode().rpartition(".")[2])
        answer(pub, names[-1])
        return True

    stream.answer = info
    return names


async def test_it_is_gone_while_heartbeats_come(stream: Stream) -> None:
    reader = Reader(stream, heartbeat=0.01)
    await reader.consumer.start()
    stream.deliver(7, 1)
    names = asked(stream, lambda pub, name: stream.error(pub, 10014))
    async with asyncio.timeout(5):
        while len(stream.configs) == 1:
            stream.heartbeat(1)
            await turns(1)
    assert names[0] == stream.configs[0]["name"]
    await until(lambda: reader.consumer.current is not None)
    assert (stream.configs[1]["opt_start_seq"], reader.restarts) == (8, 1)
    stream.answer = lambda verb, pub: False
    await finish(stream, reader)


async def test_it_is_there(stream: Stream) -> None:
    reader = Reader(stream, heartbeat=0.01)
    await reader.consumer.start()
    names = asked(
        stream, lambda pub, name: stream.reply(pub, {"stream_name": "S", "name": name, "config": {}})
    )
    async with asyncio.timeout(5):
        while len(names) < 3:
            stream.heartbeat(0)
            await turns(1)
    assert (len(stream.configs), reader.restarts, reader.failures) == (1, 0, [])
    await finish(stream, reader)


async def test_a_delivery_is_proof(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natsproto.jetstream.ordered.PROOF_INTERVAL", 30.0)
    reader = Reader(stream, heartbeat=10)
    await reader.consumer.start()
    names = asked(stream, lambda pub, name: None)
    for seq in range(1, 4):
        reader.consumer.proven -= 31
        stream.deliver(seq, seq)
        reader.consumer._check()
        await turns()
        assert names == []
    reader.consumer.proven -= 31
    reader.consumer._check()
    await until(lambda: names == [stream.configs[0]["name"]])
    await finish(stream, reader)


async def test_a_user_who_may_not_ask(stream: Stream) -> None:
    """A new consumer continues after the last message, from time to time: the old one may be gone."""
    reader = Reader(stream, heartbeat=0.01)
    await reader.consumer.start()
    stream.deliver(7, 1)
    names = asked(stream, lambda pub, name: stream.server.refuse(pub.subject.decode()))
    async with asyncio.timeout(5):
        while len(stream.configs) < 4:
            stream.heartbeat(int(len(stream.configs) == 1))
            await turns(1)
    assert names == [stream.configs[0]["name"]], "the server logs each refusal"
    assert {config["opt_start_seq"] for config in stream.configs[1:]} == {8}
    assert reader.failures == []
    await until(lambda: reader.consumer.current is not None)
    reader.consumer.pause()  # then what a new one delivers would come on top
    created, end = len(stream.configs), reader.consumer.loop.time() + 0.2
    while reader.consumer.loop.time() < end:
        stream.heartbeat(0)
        await turns(1)
    assert len(stream.configs) == created
    reader.consumer.resume()
    async with asyncio.timeout(5):
        while len(stream.configs) == created:
            stream.heartbeat(0)
            await turns(1)
    await until(lambda: reader.consumer.current is not None)
    stream.answer = lambda verb, pub: False
    await finish(stream, reader)


async def test_messages_of_others_are_no_sign_of_life(stream: Stream) -> None:
    """Whoever sees the deliver subject can have answers and other streams' messages sent there."""
    reader = Reader(stream, heartbeat=0.01)
    await reader.consumer.start()
    async with asyncio.timeout(5):
        while len(stream.configs) == 1:
            stream.server.send(stream.inbox(0), b"{}")
            stream.server.send(stream.inbox(0), b"x", reply=b"$JS.ACK.OWN.c.1.1.1.1700000000000000000.0")
            stream.server.send(stream.inbox(0), header=b"NATS/1.0 404 No Messages\r\n\r\n")
            await turns(1)
    assert reader.consumer.silent == 1
    await until(lambda: reader.consumer.current is not None)
    await finish(stream, reader)
