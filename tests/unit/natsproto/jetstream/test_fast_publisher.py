"""Fast-ingest batches against scripted answers: messages, the pace, ends, what is refused before a byte."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.errors import (
    BadSubjectError,
    ConfigError,
    MaxPayloadError,
    NatsError,
    UnsupportedFeatureError,
)
from natsproto.jetstream import fast_batch
from natsproto.jetstream.context import JetStreamContext
from support.fake_session import FakeServer, turns, until
from support.fast_batches import Leader, answer, batches, flow, parts


@pytest.fixture
async def server() -> FakeServer:
    server = FakeServer()
    server.session.info["api_lvl"] = 4
    return server


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=5)


async def test_a_batch(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    batch = js.fast_publisher("S", flow=50)
    assert (batch.sent, batch.acknowledged, batch.lost, batch.refused) == (0, 0, 0, [])
    assert await batch.add("s.a", b"1") == 1
    assert await batch.add("s.b", bytearray(b"2"), headers={"A": "1"}, msg_id="x") == 2
    ack = await batch.commit("s.c", b"3")
    assert (ack.stream, ack.seq, ack.count) == ("S", 103, 3)
    assert (batch.sent, batch.acknowledged) == (3, 3)
    assert [parts(pub)[1:] for pub in server.pubs] == [
        (50, "fail", 1, 0),
        (50, "fail", 2, 1),
        (50, "fail", 3, 2),
    ]
    assert len({parts(pub)[0] for pub in server.pubs}) == 1
    assert server.pubs[1].header == b"NATS/1.0\r\nA: 1\r\nNats-Msg-Id: x\r\n\r\n"
    for call in (batch.add, batch.commit):
        with pytest.raises(ConfigError):
            await call("s.a", b"4")
    assert await batch.close() == ack
    assert batches(server) == []


async def test_a_batch_that_is_closed(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    async with js.fast_publisher("S", continue_on_gap=True) as batch:
        await batch.add("s.a", b"1")
    assert [parts(pub)[2:] for pub in server.pubs] == [("ok", 1, 0), ("ok", 2, 3)]
    assert (batch.sent, batch.acknowledged, repr(batch)) == (1, 1, "<FastPublisher 'S' committed 1/1>")
    async with js.fast_publisher("S") as batch:
        pass
    assert await batch.close() is None
    assert len(server.pubs) == 2


async def test_a_batch_of_one_message(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    assert (await js.fast_publisher("S").commit("s.a", b"1")).count == 1
    assert parts(server.pubs[0])[3:] == (1, fast_batch.COMMIT)


async def test_an_exception_commits_nothing(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    with pytest.raises(ZeroDivisionError):
        async with js.fast_publisher("S") as batch:
            await batch.add("s.a", b"1")
            raise ZeroDivisionError
    assert len(server.pubs) == 1
    assert batches(server) == []
    with pytest.raises(ConfigError):
        await batch.add("s.a", b"2")


async def test_the_first_message_waits(server: FakeServer, js: JetStreamContext) -> None:
    """Whoever gives up waiting has not begun a batch that another message may follow."""
    batch = js.fast_publisher("S")
    adding = asyncio.ensure_future(batch.add("s.a", b"1"))
    await until(lambda: server.pubs)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    adding = asyncio.ensure_future(batch.add("s.a", b"2"))
    await turns()
    assert len(server.pubs) == 1
    answer(server, server.pubs[0], flow(0, 10))
    assert await adding == 2
    Leader(server)
    await batch.close()


async def test_the_server_sets_the_pace(server: FakeServer, js: JetStreamContext) -> None:
    """Two acknowledgements may be due, of as many messages as the server says, but never more than asked."""
    leader = Leader(server, msgs=2)
    batch = js.fast_publisher("S", flow=5)
    for _ in range(4):
        await batch.add("s.a", b"x")
    adding = asyncio.ensure_future(batch.add("s.a", b"x"))
    await turns()
    assert len(server.pubs) == 4
    leader.say(flow(2, 1))  # slower: one message per acknowledgement
    await turns()
    assert not adding.done()
    leader.say(flow(4, 1000))
    assert await adding == 5
    for _ in range(9):
        await batch.add("s.a", b"x")
    adding = asyncio.ensure_future(batch.add("s.a", b"x"))
    await turns()
    assert len(server.pubs) == 14
    leader.say(flow(3, 5))  # an older one, that was overtaken
    assert batch.acknowledged == 4
    leader.say(flow(14, 0))
    assert await adding == 15
    assert batch.acknowledged == 14
    await batch.close()


@pytest.mark.parametrize(("size", "wanted"), [(0, 100), (1000, 100), (100_000, 20), (1 << 20, 2)])
async def test_large_messages_are_acknowledged_more_often(
    server: FakeServer, js: JetStreamContext, size: int, wanted: int
) -> None:
    Leader(server)
    await js.fast_publisher("S").commit("s.a", b"x" * size)
    assert parts(server.pubs[0])[1] == wanted


# -- servers without it -----------------------------------------------------------------------------


async def test_an_older_server(server: FakeServer, js: JetStreamContext) -> None:
    """It would store the messages as others: not even the first one is sent."""
    server.session.info["api_lvl"] = 2
    server.session.on_pub = lambda pub: answer(server, pub, {"api": {"level": 2}})
    batch = js.fast_publisher("S")
    for call in (batch.add, batch.commit):
        with pytest.raises(UnsupportedFeatureError, match=r"2\.14\.0"):
            await call("s.a", b"x")
    assert await batch.close() is None
    assert [pub.subject for pub in server.pubs] == [b"$JS.API.INFO"]


async def test_an_older_server_behind_it(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: answer(server, pub, {"stream": "S", "seq": 7})
    batch = js.fast_publisher("S")
    with pytest.raises(UnsupportedFeatureError, match="stored the first message as 7"):
        await batch.add("s.a", b"x")
    with pytest.raises(UnsupportedFeatureError):
        await batch.close()
    assert len(server.pubs) == 1


# -- what makes no sense ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"flow": 0},
        {"flow": -1},
        {"flow": 65536},
        {"flow": 1.5},
        {"flow": True},
        {"max_outstanding_acks": 0},
        {"max_outstanding_acks": 4},
        {"max_outstanding_acks": None},
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"timeout": "5"},
    ],
)
async def test_options_that_make_no_sense(js: JetStreamContext, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        js.fast_publisher("S", **options)


async def test_messages_that_are_none(server: FakeServer, js: JetStreamContext) -> None:
    """They leave the batch as it was, also the first one."""
    leader = Leader(server)
    server.connection.max_payload = 50
    batch = js.fast_publisher("S")
    for subject, payload, options, kind in (
        ("s a", b"", {}, BadSubjectError),
        ("s.*", b"", {}, BadSubjectError),
        ("s." + "x" * 4050, b"", {}, BadSubjectError),
        ("s.a", b"x" * 51, {}, MaxPayloadError),
        ("s.a", "text", {}, NatsError),
        ("s.a", b"", {"expected_last_seq": -1}, ConfigError),
        ("s.a", b"", {"expected": 1}, TypeError),
    ):
        for _ in range(2):
            with pytest.raises(kind):
                await batch.add(subject, payload, **options)  # type: ignore[arg-type]
    assert (server.pubs, batch.sent, batches(server)) == ([], 0, [])
    await batch.add("s.a", b"x")
    with pytest.raises(MaxPayloadError):
        await batch.add("s.a", b"x" * 51)
    with pytest.raises(BadSubjectError):
        await batch.add("s." + "x" * 4050, b"")
    assert (batch.sent, leader.server.pubs[0].subject) == (1, b"s.a")
    await batch.close()
