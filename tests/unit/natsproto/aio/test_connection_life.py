"""From the first connection to the last: what the log tells, what a callback learns, what ends a client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from natsproto.aio.callbacks import MOST_LINES
from natsproto.aio.connection import State
from natsproto.errors import (
    AuthorizationError,
    ConnectionClosedError,
    NoServersError,
    RemoteProtocolError,
    StaleConnectionError,
)
from support.calls import Calls
from support.fake_network import Network, lose, until
from support.fake_session import turns
from support.simulation import in_virtual_time, passing

EVIL = "evil\n\x1b[31m\u202e"


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """Level and text of the log's lines so far."""
    caplog.set_level(logging.INFO, "natsproto")
    return lambda: [(each.levelname, each.getMessage()) for each in caplog.records]


# -- the log ---------------------------------------------------------------------------------------


def test_the_log_tells_of_every_change(network: Network, told: Callable[[], list[tuple[str, str]]]) -> None:
    async def life() -> None:
        client = await network.client()
        lose(client, ConnectionResetError(104, "Connection reset by peer"))
        network.info["server_name"] = "n2"
        await until(lambda: client.is_connected)
        await client.close()
        await client.close()

    in_virtual_time(life)
    assert told() == [
        ("INFO", "connected to nats://h:1 (n1, 2.15.1)"),
        ("WARNING", "lost the connection to nats://h:1 (n1, 2.15.1): Connection reset by peer"),
        ("INFO", "reconnected to nats://h:1 (n2, 2.15.1)"),
        ("INFO", "closed the connection to nats://h:1"),
    ]


def test_the_log_tells_what_closed_it(network: Network, told: Callable[[], list[tuple[str, str]]]) -> None:
    async def life() -> None:
        client = await network.client(reconnect=False, error_cb=Calls())
        lose(client, StaleConnectionError("gone"))
        await client.close()

    in_virtual_time(life)
    assert told()[1:] == [
        ("WARNING", "lost the connection to nats://h:1 (n1, 2.15.1): gone"),
        ("INFO", "closed the connection to nats://h:1: gone"),
    ]


def test_a_first_connect_that_fails_only_raises(
    network: Network, told: Callable[[], list[tuple[str, str]]]
) -> None:
    async def life() -> None:
        network.outcome = lambda: ConnectionRefusedError(111, "refused")
        with pytest.raises(NoServersError):
            await network.client()

    in_virtual_time(life)
    assert told() == []


@pytest.mark.parametrize("exc", [RemoteProtocolError(EVIL), OSError(5, EVIL), ValueError(EVIL)], ids=repr)
def test_what_others_write_is_one_short_line(
    network: Network, told: Callable[[], list[tuple[str, str]]], exc: Exception
) -> None:
    network.info = {"server_name": EVIL + "x" * 5000, "version": ["no text"]}

    async def life() -> None:
        client = await network.client(reconnect=False)
        lose(client, exc)
        await client.close()

    in_virtual_time(life)
    assert [level for level, _ in told()][:2] == ["INFO", "WARNING"]
    assert "evil" in told()[0][1]
    assert "evil" in told()[1][1]
    for _, text in told():
        assert text.isprintable()
        assert len(text) < 700
        assert "CANARY" not in text


def test_a_server_that_comes_and_goes_does_not_fill_the_log(
    network: Network, told: Callable[[], list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natsproto.aio.callbacks.time.monotonic", lambda: 100.0)

    async def life() -> None:
        client = await network.client(reconnect_wait=1e-6, reconnect_wait_max=1e-6)
        for _ in range(5 * MOST_LINES):
            lose(client, StaleConnectionError("gone"))
            await until(lambda: client.is_connected)
        await client.close()

    in_virtual_time(life)
    for what in ("lost", "reconnected"):
        assert len([text for _, text in told() if text.startswith(what)]) == MOST_LINES
        assert len([text for _, text in told() if f"more of that ({what})" in text]) == 1


# -- disconnected_cb -------------------------------------------------------------------------------


def test_a_callback_learns_why(network: Network) -> None:
    reasons: list[StaleConnectionError] = []
    again = asyncio.Event()

    async def tell(reason: StaleConnectionError) -> None:
        reasons.append(reason)

    async def life() -> None:
        client = await network.client(disconnected_cb=reasons.append)
        cause = ConnectionResetError(104, "Connection reset by peer")
        lose(client, cause)
        await until(lambda: client.is_connected)
        assert isinstance(reasons[0], StaleConnectionError)
        assert reasons[0].__cause__ is cause
        client.connection.options.disconnected_cb = tell
        own = StaleConnectionError("silence", silent=True)
        lose(client, own)
        await until(lambda: client.is_connected)
        assert reasons[1:] == [own]
        client.connection.options.disconnected_cb = again.set
        lose(client, own)
        await until(again.is_set)
        await client.close()
        assert len(reasons) == 2

    in_virtual_time(life)


@pytest.mark.parametrize("how", ["close", "drain", "block", "lost"])
def test_the_end_is_told_in_order(network: Network, how: str) -> None:
    """Once each, and then the client is closed."""

    async def life() -> None:
        events: list[tuple[str, bool]] = []

        def note(what: str) -> None:
            events.append((what, client.is_closed))

        client = await network.client(
            reconnect=False,
            error_cb=Calls(),
            connected_cb=lambda: note("connected"),
            disconnected_cb=lambda reason: note(str(reason)),
            closed_cb=lambda: note("closed"),
        )
        await turns()
        if how == "block":
            async with client:
                pass
        elif how == "lost":
            lose(client, StaleConnectionError("gone"))
            await client.close()
        else:
            await getattr(client, how)()
        await client.close()
        await client.drain()
        why = "gone" if how == "lost" else "the client was closed"
        assert events == [("connected", False), (why, True), ("closed", True)]

    in_virtual_time(life)


def test_closed_while_it_reconnects_it_is_not_lost_again(network: Network) -> None:
    async def life() -> None:
        gone, closed = Calls(), Calls()
        client = await network.client(disconnected_cb=gone, closed_cb=closed)
        network.outcome = lambda: ConnectionRefusedError(111, "refused")
        lose(client, StaleConnectionError("gone"))
        await passing(1)
        await client.close()
        assert (len(gone), len(closed)) == (1, 1)

    in_virtual_time(life)


# -- discovery -------------------------------------------------------------------------------------


def test_the_first_info_discovers_nothing(network: Network) -> None:
    """Its servers join the pool all the same; those of a later connection are news."""

    async def life() -> None:
        found = Calls()
        network.info["connect_urls"] = ["10.0.0.1:4222"]
        client = await network.client("nats://h:1", discovered_server_cb=found, randomize=False)
        await turns()
        assert (client.discovered_servers, len(found)) == (["nats://10.0.0.1:4222"], 0)
        network.info["connect_urls"] = ["10.0.0.1:4222", "10.0.0.2:4222"]
        lose(client, StaleConnectionError("gone"))
        await until(lambda: client.is_connected)
        await turns()
        assert (len(client.discovered_servers), len(found)) == (2, 1)
        await client.close()

    in_virtual_time(life)


# -- what ends a client for good -------------------------------------------------------------------


def test_a_server_is_tried_for_ever(network: Network) -> None:
    """Without a limit not even a day of failures ends it."""

    async def life() -> None:
        client = await network.client(max_reconnects=-1, error_cb=Calls())
        network.outcome = lambda: ConnectionRefusedError(111, "refused")
        lose(client, StaleConnectionError("gone"))
        await passing(24 * 3600)
        assert client.state == "reconnecting"
        assert network.attempts > 20_000
        network.outcome = lambda: None
        await until(lambda: client.is_connected)
        assert client.stats.reconnects == 1
        await client.close()

    in_virtual_time(life)


@pytest.mark.parametrize("most", [0, 1, 60])
def test_failures_in_a_row_end_it(network: Network, most: int) -> None:
    async def life() -> None:
        closed = Calls()
        client = await network.client(max_reconnects=most, error_cb=Calls(), closed_cb=closed)
        network.outcome = lambda: ConnectionRefusedError(111, "refused")
        lose(client, StaleConnectionError("gone"))
        await until(lambda: client.is_closed)
        await turns()
        assert network.attempts == 1 + most + 1, "the first one, the reconnect, and so many more"
        assert len(closed) == 1
        with pytest.raises(ConnectionClosedError, match="no server left to reconnect to"):
            await client.publish("a")

    in_virtual_time(life)


def test_refused_credentials_end_it(network: Network) -> None:
    """Whatever ``max_reconnects`` says: trying again would lock accounts."""

    async def life() -> None:
        client = await network.client(max_reconnects=-1, error_cb=Calls())
        network.outcome = lambda: AuthorizationError("Authorization Violation")
        lose(client, StaleConnectionError("gone"))
        await until(lambda: client.is_closed)
        assert network.attempts == 3
        assert isinstance(client.connection.close_reason, ConnectionClosedError)
        assert isinstance(client.connection.close_reason.__cause__, AuthorizationError)

    in_virtual_time(life)


def test_without_reconnecting_the_first_loss_ends_it(network: Network) -> None:
    async def life() -> None:
        client = await network.client(reconnect=False, error_cb=Calls())
        lose(client, StaleConnectionError("gone"))
        assert client.connection.state is State.CLOSED
        with pytest.raises(ConnectionClosedError, match="gone"):
            await client.publish("a")

    in_virtual_time(life)


# -- the first connect -----------------------------------------------------------------------------


def test_an_error_that_says_how_to_start_a_server(network: Network) -> None:
    async def life() -> None:
        network.outcome = lambda: ConnectionRefusedError(111, "refused")
        for url, hint in (("nats://127.0.0.1", True), ("nats://127.0.0.1:1", False), ("nats://h", False)):
            with pytest.raises(NoServersError, match="connection refused") as caught:
                await network.client(url)
            assert ("'objstore server' or 'nats-server -js'" in str(caught.value)) == hint

    in_virtual_time(life)
