"""Many batches at once: how many are under way, and what lets the next one go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    ConnectionClosedError,
    MaxPayloadError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.in_flight import FIRST, LIMIT, InFlight, in_flight
from natsproto.jetstream.reads import BATCH_BYTES
from support.api_answers import body, eob, stored
from support.fake_session import FakeServer, turns, until

MIB = 1024 * 1024
HALF = FIRST // 2 - MIB
"""``max_bytes`` of batches of which a new connection has two under way; the last message may exceed it."""


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=20)


@pytest.fixture
def count(server: FakeServer) -> InFlight:
    return in_flight(server.connection)


async def read(js: JetStreamContext, **options: Any) -> list[int]:
    return [message.seq async for message in js.get_batch("S", **{"max_bytes": HALF, **options})]


def start(number: int, js: JetStreamContext, **options: Any) -> list[asyncio.Task[list[int]]]:
    return [asyncio.ensure_future(read(js, **options)) for _ in range(number)]


def answer(server: FakeServer, number: int) -> None:
    """Send the whole batch that was asked for as that one."""
    server.reply(server.pubs[number], b"a", stored(3, 0))
    up_to = 99 if "multi_last" in body(server.pubs[number]) else None
    server.reply(server.pubs[number], b"", eob(0, 3, up_to))


async def test_they_take_turns(server: FakeServer, js: JetStreamContext, count: InFlight) -> None:
    batches = start(9, js)
    for number in range(9):
        await turns()
        assert number < len(server.pubs)
        assert count.bytes <= count.limit <= LIMIT
        answer(server, number)
    assert await asyncio.gather(*batches) == 9 * [[3]]
    assert count.bytes == 0
    assert count.limit == LIMIT  # the answers came quickly


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({"batch": 1}, 8),  # as many as have room at their largest
        ({"batch": 2}, 4),
        ({"max_bytes": BATCH_BYTES}, 1),
        ({"max_bytes": HALF}, 2),
        ({"max_bytes": 0}, 1),  # the server decides
        ({"max_bytes": 100 * LIMIT, "batch": 1000}, 1),
    ],
)
async def test_what_a_batch_counts_for(
    server: FakeServer, js: JetStreamContext, options: dict[str, Any], number: int
) -> None:
    batches = start(20, js, **options)
    await turns()
    assert len(server.pubs) == number
    await server.client.close()
    await asyncio.wait(batches)


async def test_newest_messages_take_turns_too(server: FakeServer, js: JetStreamContext) -> None:
    async def newest() -> list[int]:
        return [message.seq async for message in js.get_last_messages("S", ["s.a"], max_bytes=HALF)]

    batches = [*start(2, js), asyncio.ensure_future(newest())]
    await turns()
    assert len(server.pubs) == 2
    answer(server, 0)
    await until(lambda: len(server.pubs) == 3)
    assert "multi_last" in body(server.pubs[2])
    answer(server, 1)
    answer(server, 2)
    assert await asyncio.gather(*batches) == 3 * [[3]]


async def test_what_has_come_does_not_count(
    server: FakeServer, js: JetStreamContext, count: InFlight
) -> None:
    """Whoever reads a batch may read others meanwhile, however slowly."""
    server.session.on_pub = lambda pub: answer(server, -1)
    outer = [js.get_batch("S", max_bytes=HALF) for _ in range(5)]
    for batch in outer:
        assert (await anext(batch)).seq == 3
    assert await read(js) == [3]
    assert count.bytes == 0
    for batch in outer:
        await batch.aclose()
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3))  # a server without batches
    for _ in range(5):
        assert (await anext(js.get_batch("S", max_bytes=HALF))).seq == 3
    assert count.bytes == 0


@pytest.mark.parametrize("how", ["refused", "cancelled", "left"])
async def test_the_next_one_gets_its_room(
    server: FakeServer, js: JetStreamContext, count: InFlight, how: str
) -> None:
    first = js.get_batch("S", max_bytes=FIRST)
    reading = asyncio.ensure_future(anext(first))
    await turns()
    (second,) = start(1, js)
    await turns()
    assert len(server.pubs) == 1
    if how == "refused":
        server.reply(server.pubs[0], b"", b"NATS/1.0 408 Bad Request\r\n\r\n")
        with pytest.raises(APIError):
            await reading
    elif how == "cancelled":
        reading.cancel()
    else:
        server.reply(server.pubs[0], b"a", stored(3, 1))
        await reading
        await first.aclose()
    await until(lambda: len(server.pubs) == 2)
    answer(server, 1)
    assert await second == [3]
    assert count.bytes == 0


async def test_who_is_cancelled_meanwhile(server: FakeServer, js: JetStreamContext, count: InFlight) -> None:
    first, second, third = start(3, js, max_bytes=FIRST)
    await turns()
    second.cancel()
    await turns()
    answer(server, 0)
    await until(lambda: len(server.pubs) == 2)
    answer(server, 1)
    assert (await first, await third) == ([3], [3])
    assert second.cancelled()
    assert count.bytes == 0


async def test_the_connection_is_lost(server: FakeServer, js: JetStreamContext, count: InFlight) -> None:
    """Those that wait go on with the next one."""
    batches = start(3, js)
    await turns()
    server.lose()
    await asyncio.wait(batches[:2])
    assert [type(batch.exception()) for batch in batches[:2]] == 2 * [StaleConnectionError]
    server.connect()
    await until(lambda: server.pubs)
    answer(server, 0)
    assert await batches[2] == [3]
    assert count.bytes == 0


async def test_the_client_is_closed(server: FakeServer, js: JetStreamContext, count: InFlight) -> None:
    batches = start(5, js)
    await turns()
    await server.client.close()
    async with asyncio.timeout(5):
        await asyncio.wait(batches)
    assert {type(batch.exception()) for batch in batches} == {ConnectionClosedError}
    assert len(server.pubs) == 2
    assert count.bytes == 0


async def test_a_request_that_is_not_sent(server: FakeServer, js: JetStreamContext, count: InFlight) -> None:
    subjects = [f"s.{'a' * 1000}.{number}" for number in range(1100)]
    with pytest.raises(MaxPayloadError):
        await anext(js.get_last_messages("S", subjects))
    assert count.bytes == 0
    assert len(server.connection.mux) == 0


async def test_nobody_waits_longer_than_for_an_answer(
    server: FakeServer, js: JetStreamContext, count: InFlight
) -> None:
    """If none comes to anybody; then each asks, and has its own time-out."""
    assert count.take(FIRST)
    js.timeout = 0.02
    with pytest.raises(RequestTimeoutError):
        await read(js)
    assert len(server.pubs) == 1
    assert count.bytes == FIRST
