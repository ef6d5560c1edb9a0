"""Some steps at a time; a failure leaves none behind."""

from __future__ import annotations

import asyncio

import pytest

from objstore.bucket.at_once import kept, run_all, without


@pytest.mark.parametrize("at_once", [1, 3, 20, -1])
async def test_results_in_order(at_once: int) -> None:
    running, most, ended = 0, 0, []

    async def step(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10 - number):
            await asyncio.sleep(0)
        running -= 1
        return number

    results = await run_all((step(number) for number in range(10)), at_once, lambda: ended.append(1))
    assert results == list(range(10))
    assert len(ended) == 10
    assert most == (at_once if 0 < at_once < 10 else 10)


async def test_the_first_failure_ends_the_others() -> None:
    cancelled = []

    async def step(number: int) -> None:
        try:
            if number == 1:
                raise KeyError(number)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    with pytest.raises(KeyError, match="1"):
        await run_all((step(number) for number in range(10)), 3)
    assert cancelled == [0, 2]  # the others were never made


async def test_errors_that_are_kept_or_do_not_matter() -> None:
    async def fail() -> int:
        raise KeyError("this")

    async def succeed() -> int:
        return 1

    error, result = await run_all(map(kept, (fail(), succeed())), 2)
    assert isinstance(error, KeyError)
    assert result == 1
    await without(fail(), KeyError)
    await without(succeed(), KeyError)
    with pytest.raises(KeyError):
        await without(fail(), OSError)
