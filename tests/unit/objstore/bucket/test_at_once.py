"""Some steps at a time; a failure leaves none behind."""

from __future__ import annotations

import asyncio
import gc

import pytest

from objstore.bucket.at_once import Errors, run_all, run_each


@pytest.mark.parametrize("at_once", [1, 3, 20, -1])
async def test_results_in_order(at_once: int) -> None:
    running, most = 0, 0

    async def step(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10 - number):
            await asyncio.sleep(0)
        running -= 1
        return number

    results = await run_all((step(number) for number in range(10)), at_once)
    assert results == list(range(10))
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


async def test_a_failure_of_its_own_ends_no_others() -> None:
    async def step(number: int) -> int:
        await asyncio.sleep(0)
        if number % 3 == 0:
            raise KeyError(number)
        return number

    async def ends(number: int, exc: Exception) -> bool:
        assert exc.args == (number,)
        return False

    found, ended = await run_each((step(number) for number in range(10)), 3, ends)
    assert ended is None
    assert sorted(found) == list(range(10))
    for number, each in found.items():
        assert isinstance(each, KeyError) if number % 3 == 0 else each == number


async def test_a_failure_that_concerns_all() -> None:
    async def step(number: int) -> int:
        if number == 1:
            return 1
        if number == 2:
            raise KeyError("all")
        await asyncio.Event().wait()
        return 0

    async def ends(number: int, exc: Exception) -> bool:
        return True

    found, ended = await run_each((step(number) for number in range(10)), 3, ends)
    assert ended == 2
    assert sorted(found) == [1, 2]  # 0 was under way; the others were never made
    assert isinstance(found[2], KeyError)


async def test_what_is_no_failure_of_a_step() -> None:
    async def step() -> None:
        raise KeyError

    async def ends(number: int, exc: Exception) -> bool:
        raise RuntimeError("ends")

    with pytest.raises(RuntimeError, match="ends"):
        await run_each([step()], 1, ends)


async def test_errors_that_are_kept_keep_no_bytes() -> None:
    """But for the first one, which is raised: nor does what they come from."""

    class Large:
        alive = 0

        def __init__(self) -> None:
            Large.alive += 1

        def __del__(self) -> None:
            Large.alive -= 1

    async def inner(number: int) -> None:
        data = Large()
        await asyncio.sleep(0)
        raise KeyError(number, type(data))

    async def step(number: int) -> None:
        try:
            await inner(number)
        except KeyError as exc:
            raise ValueError(number) from exc

    async def ends(number: int, exc: Exception) -> bool:
        return False

    for at_once in (1, 7):
        found, _ = await run_each((step(number) for number in range(50)), at_once, ends)
        gc.collect()
        assert Large.alive == 1
        for number, each in found.items():
            assert isinstance(each, ValueError)
            assert isinstance(each.__cause__, KeyError)
            assert (each.__traceback__ is not None) == (number == 0)
        del found, each
    gc.collect()
    assert Large.alive == 0


def test_the_first_error_is_the_one_of_the_lowest_number() -> None:
    errors = Errors()
    made = []
    for number in (3, 5, 1, 2, 0, 4):
        try:
            raise ValueError(number)
        except ValueError as exc:
            errors.note(number, exc)
            made.append(number)
        assert [each for each in errors if errors[each].__traceback__ is not None] == [min(made)]
