"""The budget that all waits of an operation share, and calls that are repeated within one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from natsproto.errors import NoRespondersError, RequestTimeoutError, StaleConnectionError
from natsproto.jetstream.api.errors import StreamNotFoundError
from objstore.bucket.budget import Budget
from objstore.bucket.retry import retrying
from objstore.write.doubt import budget_spent_error
from support.fake_session import FakeServer
from support.simulation import in_virtual_time, passing


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


async def test_progress_renews_it() -> None:
    budget = Budget(1000, asyncio.get_running_loop())
    began = budget.deadline
    assert 900 < budget.left <= 1000
    budget.progress(ago=400)
    assert 500 < budget.left <= 600
    budget.progress()
    assert budget.deadline >= began
    budget.progress(ago=1001)
    assert budget.left == 0


async def test_a_bound_ends_the_block() -> None:
    budget = Budget(0.02, asyncio.get_running_loop())
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            async with budget.bound():
                await asyncio.Event().wait()
    assert budget.left == 0


def test_progress_in_a_bound_renews_it() -> None:
    async def work() -> None:
        budget = Budget(0.5, asyncio.get_running_loop())
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(3):
            async with budget.bound():
                await passing(0.2)
                budget.progress()
        assert loop.time() - began > budget.seconds

    in_virtual_time(work)


def failing(*answers: Any) -> tuple[Callable[[], Awaitable[Any]], list[Any]]:
    """A call that gives, raises or waits for these, one after the other; and those left."""
    left = list(answers)

    async def call() -> Any:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return call, left


async def test_repeated_until_it_succeeds(server: FakeServer) -> None:
    call, left = failing(NoRespondersError("a"), RequestTimeoutError("b"), 7)
    assert await retrying(server.client, call, 20) == 7
    assert left == [7]


@pytest.mark.parametrize("budget", [0.0, 0.1, 20.0])
async def test_what_lasts_is_raised_at_once(server: FakeServer, budget: float) -> None:
    call, _ = failing(StreamNotFoundError(404, 10059, "gone"))
    async with asyncio.timeout(5):
        with pytest.raises(StreamNotFoundError):
            await retrying(server.client, call, budget)


def test_the_last_failure_is_told() -> None:
    async def work() -> None:
        call, _ = failing(RequestTimeoutError("a"), NoRespondersError("b"))
        async with asyncio.timeout(5):
            with pytest.raises(NoRespondersError):
                await retrying(FakeServer().client, call, 0.2)

    in_virtual_time(work)


async def test_an_attempt_is_bounded_as_well(server: FakeServer) -> None:
    """The budget is no bound for pauses only: an attempt may take long."""
    call, _ = failing(NoRespondersError("a"), asyncio.Event())
    async with asyncio.timeout(5):
        with pytest.raises(NoRespondersError):
            await retrying(server.client, call, 0.2)
    call, _ = failing(asyncio.Event())
    async with asyncio.timeout(5):
        with pytest.raises(RequestTimeoutError, match="retry_budget"):
            await retrying(server.client, call, 0.1)


async def test_without_a_budget_there_is_one_attempt(server: FakeServer) -> None:
    call, left = failing(NoRespondersError("a"), 7)
    with pytest.raises(NoRespondersError):
        await retrying(server.client, call, 0.0)
    assert left == [7]


async def test_time_outs_of_others_are_not_swallowed(server: FakeServer) -> None:
    call, _ = failing(asyncio.Event())
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await retrying(server.client, call, 2.0)
    assert not isinstance(caught.value, RequestTimeoutError)


async def test_what_a_put_in_vain_raises() -> None:
    error = budget_spent_error(RequestTimeoutError("within 0.1 s"), Budget(20, asyncio.get_running_loop()))
    assert isinstance(error, RequestTimeoutError)
    assert "within 20 s (retry_budget)" in str(error)
    lost = StaleConnectionError("gone")
    assert budget_spent_error(lost, Budget(20, asyncio.get_running_loop())) is lost
