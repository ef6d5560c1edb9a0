"""A connection that only seems to be there is given up, and one that delivers bytes is not (rows A6, A17)."""

from __future__ import annotations

import asyncio
import time

import pytest

import natsproto
from natsproto.aio import liveness as liveness_module
from natsproto.errors import (
    RequestTimeoutError,
)
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy, ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from natsproto.wire import Ping, Sub
from support.calls import Calls
from support.clock import Clock
from support.fake_session import turns

FAST = {"reconnect_wait": 0.02, "reconnect_wait_max": 0.1}


async def test_a6_a_stopped_server_is_noticed_by_ping(own_server: LocalServer) -> None:
    """Within three intervals."""
    lost, clock = Calls(), Clock()
    async with natsproto.connect(own_server.url, ping_interval=20, disconnected_cb=lost, **FAST) as nc:
        await nc.flush()
        own_server.pause()
        try:
            await turns()  # what it said before
            for _ in range(3):
                assert len(lost) == 0
                clock.forward(20)
                await turns()
            await lost.until(1)
            assert "does not answer PING" in str(nc.last_error)
        finally:
            own_server.resume()
        await nc.flush()


async def test_a6_a_stopped_server_is_noticed_after_a_request_timeout(
    own_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness_module, "PROBE_TIMEOUT", 0.2)
    async with LocalServer(jetstream=False) as other, FaultProxy(own_server.url) as proxy:
        back = Calls()
        urls = [proxy.url, other.url]
        async with natsproto.connect(urls, randomize=False, reconnected_cb=back, **FAST) as nc:
            await nc.subscribe("a")
            await nc.flush()
            proxy.blackhole()
            start = time.monotonic()
            with pytest.raises(RequestTimeoutError):
                await nc.request("a", timeout=0.1)
            await back.until(1)
            assert time.monotonic() - start < 0.1 + 0.2 + 5
            assert nc.connected_url == other.url
            proxy.blackhole(False)


async def test_each_request_timeout_probes_anew(
    own_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answered probe must not stand in the way of the next one."""
    async with FaultProxy(own_server.url) as proxy:
        lost = Calls()
        async with natsproto.connect(proxy.url, disconnected_cb=lost, **FAST) as nc:
            await nc.subscribe("a")
            with pytest.raises(RequestTimeoutError):
                await nc.request("a", timeout=0.05)
            await nc.flush()
            monkeypatch.setattr(liveness_module, "PROBE_TIMEOUT", 0.3)
            proxy.blackhole()
            with pytest.raises(RequestTimeoutError):
                await nc.request("a", timeout=0.05)
            await lost.until(1)
            proxy.blackhole(False)


async def test_flush_that_times_out_probes(own_server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness_module, "PROBE_TIMEOUT", 0.1)
    async with FaultProxy(own_server.url) as proxy:
        lost = Calls()
        async with natsproto.connect(proxy.url, disconnected_cb=lost, **FAST) as nc:
            proxy.blackhole()
            with pytest.raises(RequestTimeoutError):
                await nc.flush(0.05)
            await lost.until(1)
            proxy.blackhole(False)
            await nc.flush()


async def test_many_flushes_at_a_ping_are_no_missed_pongs() -> None:
    """PINGs of the application do not count as unanswered ones of the timer."""
    ticks = asyncio.Event()

    async def script(conn: ScriptedConnection) -> None:
        conn.auto_pong = False
        await conn.info()
        await conn.expect(Ping)
        await conn.pong()
        for _ in range(5):
            await conn.expect(Ping)
        await conn.expect(Ping)  # the timer's
        for _ in range(6):
            await conn.pong()
        ticks.set()
        conn.auto_pong = True
        await conn.serve()

    async with ScriptedServer(script) as server:
        lost = Calls()
        async with natsproto.connect(server.url, ping_interval=0.2, disconnected_cb=lost) as nc:
            await asyncio.gather(*(nc.flush() for _ in range(5)))
            assert ticks.is_set()
            assert len(lost) == 0


@pytest.mark.parametrize("means", ["ping", "probe"])
async def test_a17_a_link_that_delivers_bytes_is_alive(means: str) -> None:
    """On a slow link a PING waits behind megabytes of data; bytes that keep coming are a sign of life."""
    count = 10
    more = asyncio.Semaphore(0)

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        if means == "probe":
            await conn.expect("no.answer")
        for n in range(count):  # no PONG to whatever is asked
            await more.acquire()
            await conn.msg("s", b"%d" % n, sid=1)
        await conn.serve()

    async with ScriptedServer(script, timeout=1000) as server:
        lost, clock = Calls(), Clock()
        interval, wait = (20, 20) if means == "ping" else (1000, liveness_module.PROBE_TIMEOUT)
        async with natsproto.connect(server.url, ping_interval=interval, disconnected_cb=lost) as nc:
            sub = await nc.subscribe("s")
            if means == "probe":
                with pytest.raises(RequestTimeoutError):
                    await nc.request("no.answer", timeout=0.05)
            for n in range(count):
                more.release()
                assert (await sub.next_msg(timeout=10)).data == b"%d" % n
                clock.forward(wait)
                await turns()
            assert len(lost) == 0
            await nc.flush()
