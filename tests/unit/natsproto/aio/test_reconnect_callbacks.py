"""The user's callbacks that choose the next server and the pause before it: followed, checked, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from natsproto.aio.reconnect import LONGEST_DELAY, SHORT_LIFE
from natsproto.errors import ConfigError, StaleConnectionError
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


# -- which server ----------------------------------------------------------------------------------


def test_the_user_chooses_the_server(network: Network) -> None:
    """With the number of failures of each; the first connect is not asked about."""
    asked: list[tuple[list[str], dict[str, int]]] = []

    def choose(pool: list[str], failures: dict[str, int]) -> str | None:
        asked.append((pool, failures))
        return {0: C, 1: "c:1", 2: "nats://u:p@b:1"}.get(len(asked) - 1)

    async def life() -> None:
        client = await network.client([A, B, C], randomize=False, next_server_cb=choose)
        assert (network.tried, asked) == ([A], [])
        network.outcome = lambda: refused() if network.attempts < 5 else None
        lose(client, GONE)
        await until(lambda: client.is_connected)
        assert network.tried[1:] == [C, C, B, A]
        assert asked == [
            ([A, B, C], {A: 0, B: 0, C: 0}),
            ([A, B, C], {A: 0, B: 0, C: 1}),
            ([A, B, C], {A: 0, B: 0, C: 2}),
            ([A, B, C], {A: 0, B: 1, C: 2}),
        ]
        await client.close()

    in_virtual_time(life)


def test_one_server_again_and_again_is_no_storm(network: Network) -> None:
    """There is a pause before a server is tried a second time in a round."""

    async def life() -> None:
        client = await network.client(
            [A, B, C], randomize=False, next_server_cb=lambda pool, failures: B, max_reconnects=-1
        )
        network.outcome = refused
        lose(client, GONE)
        await passing(1000)
        assert 200 < network.attempts < 600
        assert set(network.tried[1:]) == {B}
        await client.close()

    in_virtual_time(life)


async def never(*args: object) -> Any:
    await asyncio.Event().wait()


def raising(*args: object) -> Any:
    raise ValueError("CANARY")


async def raising_later(*args: object) -> Any:
    raise ValueError("CANARY")


async def cancelled(*args: object) -> Any:
    raise asyncio.CancelledError


class Unprintable(Exception):
    def __repr__(self) -> str:
        raise ValueError("no")

    __str__ = __repr__


def raising_unprintable(*args: object) -> Any:
    raise Unprintable


def answer(value: Any) -> Callable[..., Any]:
    return lambda *args: value


BAD = [never, raising, raising_later, cancelled, raising_unprintable, answer(object())]


@pytest.mark.parametrize(
    "bad",
    [
        *BAD, answer(7), answer(b"nats://b:1"), answer([B]), answer(""), answer("nats://d:1"), answer("tls://a:1"),
        answer("nats://a :1"), answer("ws://a:1"), answer("nats://ada:CANARY@d:1"), answer("http://a:1"),
    ],
)  # fmt: skip
def test_a_choice_that_is_none(network: Network, bad: Callable[..., Any]) -> None:
    """It is told, without what it holds, and the usual order counts: reconnecting goes on."""

    async def life() -> None:
        errors = Calls()
        client = await network.client([A, B], randomize=False, next_server_cb=bad, error_cb=errors)
        network.outcome = lambda: refused() if network.attempts < 4 else None
        lose(client, GONE)
        await until(lambda: client.is_connected)
        assert network.tried[1:] == [B, A, B]
        reports = [error for error in errors.items if isinstance(error, ConfigError)]
        assert len(reports) == 3
        assert all(
            str(error).startswith("next_server_cb r") and "CANARY" not in str(error) for error in reports
        )
        await client.close()
        assert len(asyncio.all_tasks()) == 1

    in_virtual_time(life)


def test_one_that_cannot_be_cancelled_holds_up_nobody(network: Network) -> None:
    async def life() -> None:
        done = asyncio.Event()

        async def stubborn(*args: object) -> None:
            while not done.is_set():
                with suppress(asyncio.CancelledError):
                    await done.wait()
            raise ValueError("too late: nobody is told")

        errors = Calls()
        client = await network.client([A, B], randomize=False, next_server_cb=stubborn, error_cb=errors)
        lose(client, GONE)
        await until(lambda: client.is_connected)
        assert [str(error) for error in errors.items] == [
            "next_server_cb raised TimeoutError: the default is used instead"
        ]
        lose(client, GONE)
        await passing(0.5)
        async with asyncio.timeout(10):
            await client.close()
        done.set()
        await turns()
        assert len(asyncio.all_tasks()) == 1

    in_virtual_time(life)


def test_a_coroutine_function_may_choose(network: Network) -> None:
    async def choose(pool: list[str], failures: dict[str, int]) -> str:
        await passing(1)
        return pool[-1]

    async def delay(attempt: int, round: int) -> float:
        await passing(1)
        return 3

    async def life() -> None:
        client = await network.client(
            [A, B, C], randomize=False, next_server_cb=choose, reconnect_delay_cb=delay
        )
        began = asyncio.get_running_loop().time()
        lose(client, GONE)
        await until(lambda: client.is_connected)
        assert asyncio.get_running_loop().time() - began == pytest.approx(5, abs=0.1)
        assert network.tried == [A, C]
        await client.close()

    in_virtual_time(life)


@pytest.mark.parametrize("what", ["next_server_cb", "reconnect_delay_cb"])
@pytest.mark.parametrize("act", ["close", "force_reconnect", "set_server_pool"])
def test_a_callback_uses_the_client(network: Network, what: str, act: str) -> None:
    async def life() -> None:
        async def callback(*args: object) -> None:
            if act == "set_server_pool":
                client.set_server_pool(C)
            else:
                await getattr(client, act)()

        client = await network.client([A, B], randomize=False, **{what: callback})
        lose(client, GONE)
        if act == "close":
            await until(lambda: client.is_closed)
            await client.close()
            assert network.tried == [A]
        else:
            await until(lambda: client.is_connected)
            assert network.tried == [A, C if act == "set_server_pool" else B]
            await client.close()
        assert len(asyncio.all_tasks()) == 1

    in_virtual_time(life)


# -- when ------------------------------------------------------------------------------------------


def test_the_user_chooses_the_pauses(network: Network) -> None:
    asked: list[tuple[int, int]] = []
    times: list[float] = []

    def delay(attempt: int, round: int) -> float:
        asked.append((attempt, round))
        return 10 * round

    async def life() -> None:
        loop = asyncio.get_running_loop()
        client = await network.client([A, B], randomize=False, reconnect_delay_cb=delay, max_reconnects=-1)
        assert asked == []
        await passing(2 * SHORT_LIFE)
        began = loop.time()

        def outcome() -> Exception | None:
            times.append(loop.time() - began)
            return refused() if len(times) < 5 else None

        network.outcome = outcome
        lose(client, GONE)
        await until(lambda: client.is_connected)
        assert asked == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
        assert times == pytest.approx([0, 0, 10, 20, 40])
        lose(client, GONE)
        await until(lambda: client.is_connected)
        lose(client, GONE)
        await until(lambda: client.is_connected)
        assert asked[5:] == [(0, 0), (1, 1)], "one that ends at once counts as failed"
        await client.close()

    in_virtual_time(life)


@pytest.mark.parametrize(
    "bad",
    [
        *BAD, answer(-1), answer(float("nan")), answer(float("inf")), answer("1"), answer(True),
        answer(10**400), answer(LONGEST_DELAY + 1), answer(1j),
    ],
)  # fmt: skip
def test_a_pause_that_is_none(network: Network, bad: Callable[..., Any]) -> None:
    async def life() -> None:
        errors = Calls()
        client = await network.client(A, reconnect_delay_cb=bad, error_cb=errors)
        network.outcome = lambda: refused() if network.attempts < 4 else None
        lose(client, GONE)
        await until(lambda: client.is_connected)
        reports = [error for error in errors.items if isinstance(error, ConfigError)]
        assert len(reports) == 3
        assert all(str(error).startswith("reconnect_delay_cb r") for error in reports)
        await client.close()
        assert len(asyncio.all_tasks()) == 1

    in_virtual_time(life)


def test_no_opinion_is_none(network: Network) -> None:
    async def life() -> None:
        errors = Calls()
        client = await network.client(
            A, next_server_cb=answer(None), reconnect_delay_cb=answer(None), error_cb=errors
        )
        network.outcome = refused
        lose(client, GONE)
        await passing(10)
        assert 5 < network.attempts < 15
        assert len(errors) == 0
        await client.close()

    in_virtual_time(life)
