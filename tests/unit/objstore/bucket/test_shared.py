"""One look-up for all who want it at the same moment: its result, its error, and who gives up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest

from natsproto.errors import RequestTimeoutError
from objstore.bucket.shared import Shared
from support.waits import eventually


class Looked:
    """Look-ups that end when they are told to."""

    def __init__(self, *errors: Exception) -> None:
        self.begun = 0
        self.end = asyncio.Event()
        self._errors = list(errors)

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.end.wait()
        if self._errors:
            raise self._errors.pop(0)
        return number


async def wanted(
    shared: Shared[int], look_up: Looked, times: int, key: object = "a"
) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(shared.get(key, look_up, 10.0)) for _ in range(times)]
    await eventually(lambda: look_up.begun)
    return tasks


async def test_the_same_at_once() -> None:
    shared, look_up, other = Shared[int](), Looked(), Looked()
    tasks = await wanted(shared, look_up, 5)
    others = await wanted(shared, other, 1, "b")
    look_up.end.set()
    assert await asyncio.gather(*tasks) == [1] * 5
    other.end.set()
    assert await asyncio.gather(*others) == [1]
    assert await shared.get("a", look_up, 10.0) == 2, "it is not kept"
    assert shared._running == {}


async def test_an_error() -> None:
    shared, error = Shared[int](), ValueError("no")
    look_up = Looked(error)
    tasks = await wanted(shared, look_up, 3)
    look_up.end.set()
    assert await asyncio.gather(*tasks, return_exceptions=True) == [error] * 3
    assert await shared.get("a", look_up, 10.0) == 2


async def test_an_error_that_another_try_may_not_have() -> None:
    """Whoever looked may have had less time, or most of it before."""
    for seconds, began, again in ((10.0, 60, False), (10.0, -60, True), (11.0, 60, True)):
        shared, error = Shared[int](), RequestTimeoutError("no answer")
        look_up = Looked(error)
        tasks = await wanted(shared, look_up, 1)
        shared._running["a"].began += began
        tasks += [asyncio.create_task(shared.get("a", look_up, seconds)) for _ in range(2)]
        await asyncio.wait(tasks[1:], timeout=0.01)
        look_up.end.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[0] is error
        assert set(found[1:]) == ({2, 3} if again else {error})
        assert shared._running == {}


async def test_who_has_less_time_looks_itself() -> None:
    shared, look_up, quick = Shared[int](), Looked(), Looked()
    quick.end.set()
    tasks = await wanted(shared, look_up, 1)
    assert await shared.get("a", quick, 0.01) == 1
    look_up.end.set()
    assert await asyncio.gather(*tasks) == [1]


async def test_who_looks_up_is_cancelled() -> None:
    shared, look_up = Shared[int](), Looked()
    tasks = await wanted(shared, look_up, 4)
    tasks[0].cancel()
    await eventually(lambda: look_up.begun == 2)
    tasks[2].cancel()
    look_up.end.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [asyncio.CancelledError, int, asyncio.CancelledError, int]
    assert {each for each in found if isinstance(each, int)} == {2}
    assert shared._running == {}


@pytest.mark.parametrize("times", [1, 3])
async def test_all_are_cancelled(times: int) -> None:
    shared, look_up = Shared[int](), Looked()
    tasks = await wanted(shared, look_up, times)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert shared._running == {}


async def test_an_error_keeps_nothing_of_the_look_up() -> None:
    """Its traceback has the functions that it came through: they must not have it in turn."""

    class Large:
        pass

    gone: list[weakref.ref[Large]] = []

    async def look_up() -> int:
        large = Large()
        gone.append(weakref.ref(large))
        await asyncio.sleep(0)
        raise ValueError(type(large))

    async def fails(shared: Shared[int]) -> None:
        with contextlib.suppress(ValueError):
            await shared.get("a", look_up, 10.0)

    gc.collect()
    gc.disable()
    try:
        await fails(Shared())
        assert [each() for each in gone] == [None]
    finally:
        gc.enable()
