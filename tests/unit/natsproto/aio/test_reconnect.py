"""Attempts to connect: the first ones in the background, those that are forced, and those at another pool."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from natsproto.aio.reconnect import SHORT_LIFE
from natsproto.errors import (
    AuthorizationError,
    ConfigError,
    ConnectionClosedError,
    NoServersError,
    RequestTimeoutError,
    StaleConnectionError,
)
from support.calls import Calls
from support.fake_network import Network, lose, until
from support.fake_session import turns
from support.simulation import in_virtual_time, passing

A, B, C = "nats://a:1", "nats://b:1", "nats://c:1"
GONE = StaleConnectionError("gone")


def refused() -> Exception:
    return ConnectionRefusedError(111, "refused")


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


# -- the first connect, in the background ----------------------------------------------------------


def test_it_connects_in_the_background(network: Network) -> None:
    async def life() -> None:
        network.waits = 1.0
        network.outcome = refused
        told: dict[str, Calls] = {name: Calls() for name in ("error", "reconnect_error", "connected")}
        back, gone = Calls(), Calls()
        client = await network.client(
            [A, B],
            randomize=False,
            retry_on_failed_connect=True,
            reconnected_cb=back,
            disconnected_cb=gone,
            **{f"{name}_cb": each for name, each in told.items()},
        )
        assert network.tried == []
        assert (client.state, client.is_connected, client.server_info) == ("connecting", False, {})
        await until(lambda: len(told["error"]) > 1)
        assert network.tried[:4] == [A, B, A, B]
        for each in told["error"].items:
            assert isinstance(each, NoServersError)
            assert [url for url, _ in each.attempts] == [A, B]
        assert [each.attempts[0][0] for each in told["reconnect_error"].items[:4]] == [A, B, A, B]
        network.outcome = lambda: None
        await client.flush(20)
        assert (client.state, client.stats.reconnects) == ("connected", 0)
        lose(client, GONE)
        await until(lambda: client.is_connected)
        await turns()
        assert client.stats.reconnects == len(back) == len(gone) == len(told["connected"]) == 1
        await client.close()

    in_virtual_time(life)


def test_a_server_that_does_not_answer(network: Network) -> None:
    async def life() -> None:
        failures = Calls()
        network.waits = 10.0
        client = await network.client(
            A, retry_on_failed_connect=True, connect_timeout=3, reconnect_error_cb=failures, error_cb=Calls()
        )
        await passing(4)
        (failure,) = failures.items
        assert str(failure) == f"cannot connect to {A}: no answer within 3 s"
        await client.close()

    in_virtual_time(life)


def test_without_a_server_left_it_is_closed(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def life(error: Exception, most: int, attempts: int) -> None:
        network.tried.clear()
        network.outcome = lambda: error
        closed, gone, errors = Calls(), Calls(), Calls()
        client = await network.client(
            retry_on_failed_connect=True,
            max_reconnects=most,
            closed_cb=closed,
            disconnected_cb=gone,
            error_cb=errors,
        )
        waiting = asyncio.ensure_future(client.flush(1e6))
        with pytest.raises(ConnectionClosedError, match="no server left to connect to"):
            await waiting
        await turns()
        assert (len(closed), len(gone), network.attempts) == (1, 0, attempts)
        reason = client.connection.close_reason
        assert isinstance(reason, ConnectionClosedError)
        assert error in (reason.__cause__, getattr(reason.__cause__, "__cause__", None))
        assert errors.items[-1] is reason
        with pytest.raises(ConnectionClosedError, match="no server left to connect to"):
            await client.publish("a")
        await client.close()
        assert len(closed) == 1

    caplog.set_level("INFO", "natsproto")
    in_virtual_time(partial(life, ConnectionRefusedError(111, "refused"), 3, 4))
    in_virtual_time(partial(life, AuthorizationError("refused"), -1, 2))
    texts = [record.getMessage() for record in caplog.records]
    assert len([text for text in texts if text.startswith("closed before a server was reached: no ")]) == 2


@pytest.mark.parametrize("how", ["close", "drain"])
@pytest.mark.parametrize("after", [0.0, 0.5, 30.0])
def test_it_can_be_closed_before_it_is_connected(network: Network, how: str, after: float) -> None:
    """At once, in the middle of an attempt, in a pause: nothing is left, and nobody connects later."""

    async def life() -> None:
        network.waits = 1.0
        network.outcome = refused
        closed, gone = Calls(), Calls()
        client = await network.client(
            retry_on_failed_connect=True, closed_cb=closed, disconnected_cb=gone, error_cb=Calls()
        )
        subscription = await client.subscribe("s")
        await client.publish("s", b"kept")
        if after:
            await passing(after)
        with suppress(RequestTimeoutError):  # of drain(): the server has taken nothing
            await getattr(client, how)()
        with pytest.raises(ConnectionClosedError):
            await subscription.next_msg(timeout=1)
        assert (len(closed), len(gone), client.state) == (1, 0, "closed")
        before = network.attempts
        await passing(100)
        assert network.attempts == before
        assert len(asyncio.all_tasks()) == 1

    in_virtual_time(life)


def test_what_is_asked_meanwhile_waits_or_ends(network: Network) -> None:
    async def life() -> None:
        network.outcome = refused
        client = await network.client(retry_on_failed_connect=True, error_cb=Calls(), max_reconnects=-1)
        with pytest.raises(RequestTimeoutError):
            await client.request("service", timeout=3)
        with pytest.raises(RequestTimeoutError):
            await client.flush(3)
        with pytest.raises(StaleConnectionError, match="not connected"):
            await client.rtt()
        await client.publish("kept", b"1")
        network.outcome = lambda: None
        await client.flush(100)
        session: Any = client.connection.session
        assert [pub.subject for pub in session.pubs] == [b"kept"], "nobody waits for the request any more"
        await client.close()

    in_virtual_time(life)


def test_without_reconnecting_the_first_connect_is_retried_all_the_same(network: Network) -> None:
    async def life() -> None:
        network.outcome = refused
        client = await network.client(retry_on_failed_connect=True, reconnect=False, error_cb=Calls())
        await passing(10)
        network.outcome = lambda: None
        await client.flush(20)
        lose(client, GONE)
        assert client.is_closed

    in_virtual_time(life)


# -- at once ---------------------------------------------------------------------------------------


def test_a_forced_reconnect_goes_to_the_next_server(network: Network) -> None:
    async def life() -> None:
        reasons: list[StaleConnectionError] = []
        back = Calls()
        client = await network.client(
            [A, B, C], randomize=False, disconnected_cb=reasons.append, reconnected_cb=back
        )
        old: Any = client.connection.session
        network.waits = 0.01
        await client.publish("s", b"before")
        await client.force_reconnect()
        assert client.state == "reconnecting"
        assert [pub.payload for pub in old.pubs] == [b"before"]
        await client.publish("s", b"after")
        await client.flush(20)
        assert (client.connected_url, client.stats.reconnects) == (B, 1)
        new: Any = client.connection.session
        assert [pub.payload for pub in new.pubs] == [b"after"]
        await turns()
        assert [str(reason) for reason in reasons] == ["force_reconnect() was called"]
        assert len(back) == 1
        await client.close()

    in_virtual_time(life)


def test_forced_at_once_by_many(network: Network) -> None:
    """They all mean the same connection; and however often, no pause grows from it."""

    async def life() -> None:
        back = Calls()
        client = await network.client([A, B, C], randomize=False, reconnected_cb=back)
        session: Any = client.connection.session
        session.pongs = False
        waiting = [asyncio.ensure_future(client.force_reconnect()) for _ in range(50)]
        await turns()
        assert client.is_connected
        assert session.pings_sent == 1
        session.answer_pings()
        await asyncio.gather(*waiting)
        await until(lambda: client.is_connected)
        assert client.stats.reconnects == 1
        began = asyncio.get_running_loop().time()
        for _ in range(300):
            await client.force_reconnect()
            await client.flush(1)
        assert asyncio.get_running_loop().time() - began < 1, "no pause"
        assert network.tried == [A, *[B, C, A] * 100, B]
        await client.close()

    in_virtual_time(life)


def test_forced_and_then_lost_by_itself(network: Network) -> None:
    """Being forced says nothing about the next session: one that ends at once is still no storm."""

    async def life() -> None:
        client = await network.client(A, max_reconnects=-1)
        await client.force_reconnect()
        for _ in range(20):
            await until(lambda: client.is_connected)
            lose(client, GONE)
        began = asyncio.get_running_loop().time()
        await until(lambda: client.is_connected)
        assert asyncio.get_running_loop().time() - began > 1
        await client.close()

    in_virtual_time(life)


def test_forced_in_a_pause(network: Network) -> None:
    async def life() -> None:
        client = await network.client(A, reconnect_wait=1e5, reconnect_wait_max=1e5, max_reconnects=-1)
        network.outcome = refused
        lose(client, GONE)
        await passing(1)
        assert network.attempts == 2
        for n in range(3):
            await client.force_reconnect()
            await passing(1)
            assert network.attempts == 3 + n, "one attempt, then a pause again"
        network.outcome = lambda: None
        await asyncio.gather(client.force_reconnect(), client.force_reconnect())
        await turns()
        assert client.is_connected
        assert client.stats.reconnects == 1
        await client.close()

    in_virtual_time(life)


def test_forced_in_an_attempt(network: Network) -> None:
    """The pause after that attempt is left out; if it succeeds, nothing is left of the call."""

    async def life() -> None:
        client = await network.client(A, reconnect_wait=1e5, reconnect_wait_max=1e5, max_reconnects=-1)
        network.outcome = refused
        network.waits = 1.0
        lose(client, GONE)
        await passing(0.5)
        await client.force_reconnect()
        network.outcome = lambda: refused() if network.attempts < 3 else None
        await passing(1)
        await client.force_reconnect()
        await until(lambda: client.is_connected)
        assert network.attempts == 3
        await passing(2 * SHORT_LIFE)
        network.outcome = refused
        lose(client, GONE)
        await passing(1000)
        assert network.attempts == 4
        await client.close()

    in_virtual_time(life)


def test_a_first_connect_is_forced(network: Network) -> None:
    async def life() -> None:
        network.outcome = refused
        client = await network.client(
            A, retry_on_failed_connect=True, reconnect_wait=1e5, reconnect_wait_max=1e5, error_cb=Calls()
        )
        await passing(1)
        network.outcome = lambda: None
        await client.force_reconnect()
        await client.flush(1)
        assert network.attempts == 2
        await client.close()

    in_virtual_time(life)


def test_what_cannot_be_forced(network: Network) -> None:
    async def life() -> None:
        fixed = await network.client(reconnect=False)
        with pytest.raises(ConfigError, match="reconnect=False"):
            await fixed.force_reconnect()
        assert fixed.is_connected
        await fixed.close()
        for each in (fixed, await network.client()):
            await each.close()
            with pytest.raises(ConnectionClosedError):
                await each.force_reconnect()
        draining = await network.client()
        session: Any = draining.connection.session
        await draining.subscribe("s")
        session.pongs = False
        task = asyncio.ensure_future(draining.drain())
        await turns()
        with pytest.raises(ConnectionClosedError, match="draining"):
            await draining.force_reconnect()
        assert draining.is_connected
        session.answer_pings()
        session.pongs = True
        await task
        closing = await network.client()
        closing.connection.operations.refusing = True
        with pytest.raises(ConnectionClosedError, match="draining or closed"):
            await closing.connection.force_reconnect()
        await closing.close()

    in_virtual_time(life)


@pytest.mark.parametrize("end", ["close", "cancel", "lose"])
def test_it_ends_while_it_is_forced(network: Network, end: str) -> None:
    async def life() -> None:
        client = await network.client(A)
        session: Any = client.connection.session
        session.pongs = False
        forcing = asyncio.ensure_future(client.force_reconnect())
        await turns()
        if end == "close":
            await client.close()
            await forcing
            assert client.is_closed
            return
        if end == "cancel":
            forcing.cancel()
            await asyncio.wait([forcing])
            session.answer_pings()
        else:
            lose(client, GONE)
            await forcing
        await until(lambda: client.stats.reconnects == 1)
        assert client.is_connected
        await client.close()

    in_virtual_time(life)


# -- another pool ----------------------------------------------------------------------------------


def test_another_pool(network: Network) -> None:
    async def life() -> None:
        client = await network.client([A, B], randomize=False)
        client.set_server_pool("nats://u:CANARY@c:1")
        assert (client.servers, client.connected_url) == ([C], A)
        assert "CANARY" not in repr(client) + str(client.servers)
        await client.force_reconnect()
        await client.flush(1)
        assert network.tried == [A, C]
        for bad in ([], "", "http://h", ["nats://a", "ws://b"], ["ws://b"], 7):
            with pytest.raises((ConfigError, TypeError)):
                client.set_server_pool(bad)  # type: ignore[arg-type]
            assert client.servers == [C]
        client.connection.options.tls = False
        with pytest.raises(ConfigError, match="tls=False"):
            client.set_server_pool("tls://h")
        await client.close()
        with pytest.raises(ConnectionClosedError):
            client.set_server_pool(A)

    in_virtual_time(life)


def test_another_pool_while_it_reconnects(network: Network) -> None:
    """What is under way ends; then only the new servers are tried, at once, without a pause."""

    async def life() -> None:
        client = await network.client(
            [A, B], randomize=False, reconnect_wait=1e5, reconnect_wait_max=1e5, max_reconnects=-1
        )
        network.outcome = refused
        network.waits = 1.0
        lose(client, GONE)
        await passing(0.5)
        client.set_server_pool([C, "nats://d:1"])
        await passing(5)
        assert network.tried[:2] == [A, B]
        assert sorted(network.tried[2:]) == [C, "nats://d:1"]
        client.set_server_pool(A)  # in a pause
        await passing(5)
        assert network.attempts == 4
        network.outcome = lambda: None
        await client.force_reconnect()
        await client.flush(5)
        assert (network.tried[4:], client.connected_url) == ([A], A)
        await client.close()

    in_virtual_time(life)


def test_a_pool_that_cannot_be_reached(network: Network) -> None:
    """The connection stays; once it is lost, the client ends as always."""

    async def life() -> None:
        client = await network.client(A, max_reconnects=2, error_cb=Calls())
        client.set_server_pool([B, C])
        await passing(10)
        assert client.is_connected
        network.outcome = refused
        await client.force_reconnect()
        await until(lambda: client.is_closed)
        assert sorted(network.tried[1:]) == sorted([B, C] * 3)

    in_virtual_time(life)


def test_each_failed_attempt_is_told(network: Network) -> None:
    async def life() -> None:
        failures: list[Exception] = []

        def note(error: Exception) -> None:
            failures.append(error)
            raise ValueError("of the callback")

        client = await network.client([A, B], randomize=False, reconnect_error_cb=note, max_reconnects=-1)
        answers = [refused(), AuthorizationError("no"), StaleConnectionError("late")]
        network.outcome = lambda: answers.pop(0) if answers else None
        lose(client, GONE)
        await until(lambda: client.is_connected)
        first, second, third = failures
        assert isinstance(first, NoServersError)
        assert str(first) == f"cannot connect to {B}: connection refused"
        assert isinstance(second, AuthorizationError)
        assert isinstance(third, NoServersError)
        await client.close()

    in_virtual_time(life)
