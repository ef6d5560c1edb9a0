"""Moving between real servers: forced, chosen, replaced; and a server that is started later."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import natsproto
import objstore.sync
from natsproto.errors import (
    ConnectionClosedError,
    NoServersError,
    SecureConnectionRequiredError,
    StaleConnectionError,
)
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from support.calls import Calls
from support.certs import make_certs
from support.tls import url


async def test_from_one_server_to_the_next(new_server: LocalServer, old_server: LocalServer) -> None:
    """Everything published before is processed, subscriptions are restored, what comes meanwhile is kept."""
    urls = [new_server.url, old_server.url]
    lost, back = Calls(), Calls()
    async with (
        natsproto.connect(new_server.url) as other,
        natsproto.connect(old_server.url) as old_other,
        natsproto.connect(urls, randomize=False, disconnected_cb=lost, reconnected_cb=back) as nc,
    ):
        there = await other.subscribe("before")
        await other.flush()
        sub = await nc.subscribe("s")
        for n in range(1000):
            await nc.publish("before", b"%d" % n)
        await nc.force_reconnect()
        await nc.publish("s", b"kept")
        await nc.flush()
        assert (nc.connected_url, nc.stats.reconnects) == (old_server.url, 1)
        assert [(await there.next_msg(timeout=20)).data for _ in range(1000)] == [
            b"%d" % n for n in range(1000)
        ]
        assert (await sub.next_msg(timeout=20)).data == b"kept"
        await old_other.publish("s", b"from the other server")
        assert (await sub.next_msg(timeout=20)).data == b"from the other server"
        assert 0 < await nc.rtt() < 20
        await asyncio.gather(*(nc.force_reconnect() for _ in range(10)))
        await nc.flush()
        assert (nc.connected_url, nc.stats.reconnects) == (new_server.url, 2)
        await back.until(2)
        assert len(lost) == 2


async def test_a_request_under_way_fails_at_once(server: LocalServer) -> None:
    async with natsproto.connect(server.url) as nc:
        await nc.subscribe("silent")
        asking = asyncio.create_task(nc.request("silent", timeout=60))
        await nc.flush()
        await nc.force_reconnect()
        with pytest.raises(StaleConnectionError, match="force_reconnect"):
            await asking


async def test_a_server_that_does_not_answer_is_left(server: LocalServer) -> None:
    async with FaultProxy(server.url) as proxy:
        async with natsproto.connect([proxy.url, server.url], randomize=False) as nc:
            proxy.blackhole()
            async with asyncio.timeout(1 + 5):
                await nc.force_reconnect()
                await nc.flush()
            assert nc.connected_url == server.url
        proxy.blackhole(False)


async def test_another_pool(new_server: LocalServer, old_server: LocalServer) -> None:
    async with natsproto.connect(new_server.url) as nc:
        nc.set_server_pool([old_server.url])
        await nc.flush()
        assert (nc.connected_url, nc.servers) == (new_server.url, [old_server.url])
        await nc.force_reconnect()
        await nc.flush()
        assert nc.connected_url == old_server.url


async def test_the_next_server_is_chosen(new_server: LocalServer, old_server: LocalServer) -> None:
    """By a callback; one of the servers refuses, and the callback learns of it."""
    chosen: list[tuple[str, dict[str, int]]] = []
    nobody = "nats://127.0.0.1:1"

    def choose(pool: list[str], failures: dict[str, int]) -> str:
        best = nobody if not failures[nobody] else old_server.url
        chosen.append((best, failures))
        return best

    failures = Calls()
    async with natsproto.connect(
        [new_server.url, nobody, old_server.url],
        randomize=False,
        next_server_cb=choose,
        reconnect_delay_cb=lambda attempt, round: 0,
        reconnect_error_cb=failures,
    ) as nc:
        await nc.force_reconnect()
        await nc.flush()
        assert nc.connected_url == old_server.url
        assert [url for url, _ in chosen] == [nobody, old_server.url]
        (failure,) = await failures.until(1)
        assert isinstance(failure, NoServersError)
        assert [url for url, _ in failure.attempts] == [nobody]


async def test_a_server_that_is_started_later(server: LocalServer) -> None:
    async with LocalServer(binary=server.binary.path) as own:
        own.kill()
        connected, failures = Calls(), Calls()
        async with natsproto.connect(
            own.url,
            retry_on_failed_connect=True,
            connected_cb=connected,
            reconnect_error_cb=failures,
            error_cb=Calls(),
            reconnect_wait_max=0.2,
        ) as nc:
            assert nc.state == "connecting"
            sub = await nc.subscribe("s")
            await nc.publish("s", b"early")
            await failures.until(2)
            opening = asyncio.create_task(nc.jetstream().object_store("media", create=True))
            await asyncio.to_thread(own.start)
            assert (await sub.next_msg(timeout=20)).data == b"early"
            store = await opening
            await store.put("a", b"1")
            assert await store.get("a") == b"1"
            await connected.until(1)


def test_without_asyncio(server: LocalServer) -> None:
    with LocalServer(binary=server.binary.path, jetstream=False) as own:
        with objstore.sync.connect([server.url, own.url], randomize=False) as nc:
            assert nc.rtt() > 0
            nc.force_reconnect()
            nc.flush()
            assert nc.connected_url == own.url
            nc.set_server_pool(server.url)
            nc.force_reconnect()
            nc.flush()
            assert nc.connected_url == server.url
        own.kill()
        with objstore.sync.connect(own.url, retry_on_failed_connect=True, reconnect_wait_max=0.2) as nc:
            assert nc.state == "connecting"
            own.start()
            nc.flush()
            assert nc.state == "connected"
        own.kill()
        with objstore.sync.connect(own.url, retry_on_failed_connect=True) as nc:
            pass
        with pytest.raises(ConnectionClosedError):
            nc.flush()


async def test_tls_sticks(server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was reached through TLS is not reached without, whatever a list or callback says."""
    certs = make_certs(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certs.ca_file))
    tls = {"cert_file": certs.cert_file, "key_file": certs.key_file}
    async with LocalServer(binary=server.binary.path, jetstream=False, tls=tls) as own:
        failures, closed = Calls(), Calls()
        plain = url(own, "nats")
        nc = await natsproto.connect(
            url(own),
            error_cb=Calls(),
            reconnect_error_cb=failures,
            closed_cb=closed,
            max_reconnects=2,
            next_server_cb=lambda pool, failures: plain,
            user="ada",
            password="CANARY",
        )
        nc.set_server_pool(plain)
        await nc.force_reconnect()
        await nc.flush()
        session = nc.connection.session
        assert session is not None
        assert session.secure
        own.kill()
        own._tls = None
        await asyncio.to_thread(own.start)
        await closed.until(1)
        assert isinstance(failures.items[-1], SecureConnectionRequiredError)
        assert "nothing was sent" in str(failures.items[-1])
        await nc.close()
