"""Small frames leave together, and a network that does not keep up is felt by every sender."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from natsproto.aio.client import Client
from natsproto.aio.connection import LARGE, State
from natsproto.aio.options import Options
from natsproto.aio.session import FLUSH_AT, Session
from support.fake_session import turns

LIMIT = 20.0


class Wire:
    """A transport that takes everything and says when it is full."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.congested = False
        self.free = asyncio.Event()

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def write_parts(self, parts: Sequence[Any]) -> None:
        self.write(b"".join(parts))

    async def drain(self) -> None:
        if self.congested:
            await self.free.wait()

    def relieve(self) -> None:
        self.congested = False
        self.free.set()


@pytest.fixture
async def client() -> Client:
    client = Client(Options(reconnect=False))
    connection = client.connection
    session = Session(connection, connection.pool.servers[0])
    session.transport = Wire()  # type: ignore[assignment]
    connection.session = session
    connection.state = State.CONNECTED
    return client


def wire(client: Client) -> Wire:
    session = client.connection.session
    assert session is not None
    assert isinstance(session.transport, Wire)
    return session.transport


async def test_one_turn_is_one_write(client: Client) -> None:
    for n in range(10):
        await client.publish("a", b"%d" % n)
        await client.publish("b", b"%d" % n, reply="c")
    assert wire(client).writes == []
    await turns()
    assert len(wire(client).writes) == 1
    assert wire(client).writes[0] == b"".join(
        b"PUB a 1\r\n%d\r\nPUB b c 1\r\n%d\r\n" % (n, n) for n in range(10)
    )


async def test_much_does_not_wait_for_the_end_of_the_turn(client: Client) -> None:
    frame = len(b"PUB a 1000\r\n") + 1002
    for _ in range(2 * FLUSH_AT // frame + 2):
        await client.publish("a", bytes(1000))
    assert len(wire(client).writes) == 2
    assert all(FLUSH_AT <= len(data) < FLUSH_AT + frame for data in wire(client).writes)


@pytest.mark.parametrize("size", [10, LARGE - 1, LARGE, 100_000])
async def test_full(client: Client, size: int) -> None:
    """Whoever publishes after the transport has become full waits, also when small frames made it so."""
    wire(client).congested = True
    await client.publish("a", b"first")
    await turns()  # the end of the turn hands it over; only now can anybody know
    tasks = [asyncio.ensure_future(client.publish("a", bytes(size))) for _ in range(3)]
    await turns()
    assert not any(task.done() for task in tasks)
    wire(client).relieve()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*tasks)
        await client.publish("a", bytes(size))
    await turns()
    data = b"".join(wire(client).writes)
    assert data.count(b"PUB a %d\r\n" % size) == 4


async def test_a_loop_of_small_publishes_is_held_back(client: Client) -> None:
    """No more than one write gets past a full transport, however often the loop turns in between."""
    wire(client).congested = True

    async def flood() -> None:
        while True:
            await client.publish("a", b"x" * 100)
            await asyncio.sleep(0)

    task = asyncio.ensure_future(flood())
    await turns(200)
    assert sum(map(len, wire(client).writes)) < 1000
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wire(client).relieve()
    async with asyncio.timeout(LIMIT):
        await client.publish("a", b"goes on")


@pytest.mark.parametrize("congested", [False, True])
async def test_a_run_of_pings_is_answered_by_one_write(client: Client, congested: bool) -> None:
    """A peer decides how often it asks; a write is a system call."""
    wire(client).congested = congested
    session = client.connection.session
    assert session is not None
    session._connect_sent = True
    session.data_received(b"PING\r\n" * 1000)
    await turns()
    assert wire(client).writes == [b"PONG\r\n" * 1000]
    assert session.lost is None
