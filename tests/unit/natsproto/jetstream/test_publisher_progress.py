"""The publish window when nothing comes back, or nothing goes out: how long it waits, and what ends it."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.errors import (
    RequestTimeoutError,
)
from natsproto.jetstream import publisher
from support.fake_session import FakeServer, turns
from support.publish_windows import ack, make, refuse
from support.simulation import in_virtual_time, passing


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


async def test_progress_timeout(server: FakeServer) -> None:
    server.session.pongs = False
    window = make(server, progress_timeout=0.03)
    await window.publish(b"x")
    with pytest.raises(RequestTimeoutError, match=r"0\.03 s"):
        await window.settle()
    assert server.session._pings, "the server was not asked whether it is alive"
    assert list(window.unproven) == [0]
    async with asyncio.timeout(6):
        await window.quiesce(60)
    ack(server, 0, 1)  # too late
    assert list(window.unproven) == [0]
    window.close()
    await server.client.close()


async def test_what_was_sent_before_a_pong_counts_as_lost(server: FakeServer) -> None:
    """The server is there and has read everything: the rest of the time is for sending it again."""
    window = make(server, progress_timeout=60)
    await window.publish(b"x")
    for n in range(1, publisher.LOST_AFTER + 1):
        assert window.failure is None
        window.on_timeout()
        assert window.silent == pytest.approx(n * 6)
    assert isinstance(window.failure, RequestTimeoutError)
    assert list(window.unproven) == [0]
    window.close()


async def test_progress_is_looked_at_often(server: FakeServer) -> None:
    """An acknowledgement just after the beginning does not double the time."""
    server.session.pongs = False
    window = make(server, progress_timeout=60)
    await window.publish(b"x")
    await window.publish(b"y")
    ack(server, 0, 1)
    window.on_timeout()
    assert window.silent == 0
    for _ in range(publisher.CHECKS):
        assert window.failure is None
        window.on_timeout()
    assert isinstance(window.failure, RequestTimeoutError)
    assert len(server.session._pings) >= 1
    window.close()
    await server.client.close()


async def test_waiting_for_the_application_is_no_silence(server: FakeServer) -> None:
    window = make(server, progress_timeout=60)
    await window.publish(b"x")
    window.on_timeout()
    ack(server, 0, 1)
    for _ in range(3 * publisher.CHECKS):
        window.on_timeout()
    assert (window.failure, window.silent) == (None, 0)
    await window.publish(b"y")
    window.on_timeout()
    assert window.failure is None
    ack(server, 1, 2)
    await window.settle()
    window.close()


def test_progress_counts_not_the_whole() -> None:
    """Each acknowledgement gives the rest another interval."""

    async def work() -> None:
        server = FakeServer()
        window = make(server, progress_timeout=1.0)
        for _ in range(4):
            await window.publish(b"x")
        settling = asyncio.ensure_future(window.settle())
        for n in range(4):
            await passing(0.5)
            ack(server, n, n + 1)
        await settling
        window.close()

    in_virtual_time(work)


async def test_quiesce_is_bounded(server: FakeServer) -> None:
    window = make(server)
    await window.publish(b"x")
    async with asyncio.timeout(6):
        await window.quiesce(0.01)
    window.close()


async def test_congestion_is_waited_for(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    drained: list[None] = []

    async def drain() -> None:
        drained.append(None)

    monkeypatch.setattr(server.connection, "drain", drain)
    server.session.congested = True
    window = make(server)
    await window.publish(b"x")
    assert drained == [None]
    window.close()


class Full:
    """A transport that takes nothing more, and has not been lost."""

    congested = True
    taken = None

    async def drain(self) -> None:
        await asyncio.Event().wait()


def fill(server: FakeServer) -> None:
    server.session.congested = True
    server.session.transport = Full()  # type: ignore[assignment]


async def test_the_progress_timeout_counts_while_the_network_is_full(server: FakeServer) -> None:
    """The connection lives on while anything comes: it is no bound for a publish that waits for room."""
    window = make(server, progress_timeout=0.1)
    fill(server)
    async with asyncio.timeout(0.1 + 5):
        await window.publish(b"a")  # it is under way: the failure is told by the next call
        with pytest.raises(RequestTimeoutError, match="no acknowledgement"):
            await window.publish(b"b")
        with pytest.raises(RequestTimeoutError):
            await window.settle()
    assert list(window.unproven) == [0]
    assert len(server.pubs) == 1
    window.close()


@pytest.mark.parametrize("how", ["refused", "lost", "cancelled"])
async def test_what_ends_a_publish_that_waits_for_room(server: FakeServer, how: str) -> None:
    window = make(server)
    fill(server)
    task = asyncio.ensure_future(window.publish(b"a"))
    await turns()
    assert not task.done()
    if how == "refused":
        refuse(server, 0, 10077)
    elif how == "lost":
        server.lose()
    else:
        task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([task])
    assert task.cancelled() == (how == "cancelled")
    assert (window.failure is None) == (how == "cancelled")
    window.close()
