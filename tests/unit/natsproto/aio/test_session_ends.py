"""A session that is over keeps no memory: neither its parser nor its error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from weakref import ref

import pytest

from natsproto.aio.client import Client
from natsproto.aio.options import Options
from natsproto.aio.session import Session
from natsproto.errors import RemoteProtocolError, StaleConnectionError
from natsproto.wire.memory import _writable


class Wire:
    """A transport that can be ended."""

    def write(self, data: object) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    client = Client(Options(reconnect=False))
    session = Session(client.connection, client.connection.pool.servers[0])
    session.transport = Wire()  # type: ignore[assignment]
    yield session
    await client.close()


def receive_half(session: Session) -> ref[object]:
    """The first bytes of a large payload; returns who owns the memory of the rest."""
    assert session.parser.feed(b"MSG a 1 1000000\r\n" + bytes(100_000)) == []
    place = session.parser.get_buffer()
    assert len(place) == 900_000
    return ref(place.obj)


@pytest.mark.skipif(_writable() is None, reason="left out: this Python cannot write to new bytes")
@pytest.mark.parametrize("how", ["fail", "close"])
async def test_half_a_message_is_given_up(session: Session, how: str) -> None:
    memory = receive_half(session)
    assert memory() is not None
    if how == "fail":
        session.fail(StaleConnectionError("lost"))
    else:
        async with asyncio.timeout(5):
            await session.close()
    assert memory() is None
    assert len(session.get_buffer(-1)) > 0  # what TLS still holds goes somewhere
    session.buffer_updated(10)


async def test_the_error_of_a_broken_peer_keeps_no_frames(session: Session) -> None:
    session.data_received(b"RUBBISH\r\n")
    assert isinstance(session.lost, RemoteProtocolError)
    assert session.lost.position == 0
    assert session.lost.__traceback__ is None
