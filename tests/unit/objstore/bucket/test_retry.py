"""Idempotent calls: repeated while that may help, within a budget that bounds the attempts as well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from natsproto.errors import APIError, NatsError, NoRespondersError, RequestTimeoutError, StaleConnectionError
from objstore.bucket.retry import FIRST_ATTEMPT, pause, retrying
from support.fake_session import FakeServer, turns
from support.simulation import in_virtual_time, passing


class Call:
    """Raises these one after the other, then succeeds."""

    def __init__(self, *failures: BaseException) -> None:
        self.left = list(failures)
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(asyncio.get_running_loop().time())
        if self.left:
            raise self.left.pop(0)
        return "result"


def in_time(work: Callable[[FakeServer], Awaitable[None]]) -> None:
    async def whole() -> None:
        server = FakeServer()
        await work(server)
        await server.client.close()

    in_virtual_time(whole)


@pytest.mark.parametrize("budget", [0.0, 1.0, FIRST_ATTEMPT, 20.0])
def test_what_succeeds_at_once(budget: float) -> None:
    async def work(server: FakeServer) -> None:
        call = Call()
        assert await retrying(server.client, call, budget) == "result"
        assert len(call.times) == 1

    in_time(work)


@pytest.mark.parametrize("budget", [3.0, 20.0])
def test_pauses_grow(budget: float) -> None:
    async def work(server: FakeServer) -> None:
        call = Call(*(StaleConnectionError("cut") for _ in range(4)))
        assert await retrying(server.client, call, budget) == "result"
        pauses = [after - before for before, after in zip(call.times, call.times[1:], strict=False)]
        assert len(pauses) == 4
        assert pauses == sorted(pauses)
        assert pauses[-1] >= 2 * pauses[0] > 0

    in_time(work)


@pytest.mark.parametrize("budget", [0.0, 3.0, 20.0])
def test_what_fails_for_good_is_told_at_once(budget: float) -> None:
    async def work(server: FakeServer) -> None:
        for failure in (APIError(400, 10003, "bad request"), ValueError("a fault"), NatsError("no")):
            call = Call(failure)
            with pytest.raises(type(failure)) as told:
                await retrying(server.client, call, budget)
            assert told.value is failure
            assert len(call.times) == 1

    in_time(work)


@pytest.mark.parametrize("budget", [0.0, 2.0, 20.0])
def test_a_budget_ends_with_the_last_failure(budget: float) -> None:
    async def work(server: FakeServer) -> None:
        failures = [NoRespondersError(f"{n}") for n in range(1000)]
        call = Call(*failures)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(NoRespondersError) as told:
            await retrying(server.client, call, budget)
        assert loop.time() - began <= budget
        assert told.value is failures[len(call.times) - 1]
        assert (len(call.times) > 1) == (budget > 0)

    in_time(work)


def test_an_attempt_under_way_is_given_up() -> None:
    async def work(server: FakeServer) -> None:
        async def never() -> None:
            await asyncio.Event().wait()

        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(RequestTimeoutError, match=r"within 2 s \(retry_budget\)"):
            await retrying(server.client, never, 2.0)
        assert loop.time() - began == pytest.approx(2.0)

    in_time(work)


def test_a_time_out_of_the_call_is_its_own() -> None:
    async def work(server: FakeServer) -> None:
        with pytest.raises(TimeoutError, match="of the caller"):
            await retrying(server.client, Call(TimeoutError("of the caller")), 2.0)

    in_time(work)


def test_cancelling_ends_it() -> None:
    async def work(server: FakeServer) -> None:
        task = asyncio.ensure_future(retrying(server.client, Call(*[NoRespondersError("s")] * 50), 20.0))
        await passing(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_time(work)


def test_a_pause_lasts_until_there_is_a_connection() -> None:
    async def work(server: FakeServer) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await pause(server.client, 0.5, loop.time() + 10)
        assert loop.time() - began == pytest.approx(0.5)
        server.lose()
        waiting = asyncio.ensure_future(pause(server.client, 0.5, loop.time() + 10))
        await passing(3)
        assert not waiting.done()
        server.connect()
        await turns()
        assert waiting.done()
        server.lose()
        began = loop.time()
        with pytest.raises(StaleConnectionError):
            await pause(server.client, 0.5, loop.time() + 4)
        assert loop.time() - began == pytest.approx(4)

    in_time(work)
