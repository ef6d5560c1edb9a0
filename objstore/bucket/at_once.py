"""Run many steps, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TypeVar

T = TypeVar("T")

UNLIMITED = 1000
"""Steps at a time when the caller asks for all at once (-1, as in fsspec)."""


async def run_all(steps: Iterable[Coroutine[object, None, T]], at_once: int) -> list[T]:
    """Run steps and return their results; the first one that fails ends the others, and is raised.

    Args:
        steps: made one by one, each when its turn comes: after a failure none is left that nobody awaits.
        at_once: how many run at the same time.
    """
    found: dict[int, T] = {}
    numbered = enumerate(steps)

    async def work() -> None:
        for number, step in numbered:
            found[number] = await step

    tasks = [asyncio.ensure_future(work()) for _ in range(at_once if at_once > 0 else UNLIMITED)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [found[number] for number in sorted(found)]


class Errors(dict[int, Exception]):
    """Errors by number. Only the one of the lowest number keeps its traceback, and those that it comes from.

    The functions that an error came through may have the bytes of an object. (To clear their variables could
    end one that has caught the error, and goes on.)
    """

    _lowest = -1

    def note(self, number: int, error: Exception) -> None:
        """Add an error."""
        lowest = number if self._lowest < 0 else self._lowest
        self[number], self._lowest = error, min(number, lowest)
        if number != lowest:
            _forget_traceback(self[max(number, lowest)])


def _forget_traceback(error: BaseException) -> None:
    seen, left = set[int](), [error]
    while left:
        each = left.pop()
        if id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            left += [other for other in (each.__cause__, each.__context__) if other is not None]


async def run_each(
    steps: Iterable[Coroutine[object, None, T]],
    at_once: int,
    ends: Callable[[int, Exception], Awaitable[bool]],
) -> tuple[dict[int, T | Exception], int | None]:
    """Run steps; one that fails does not end the others, unless its error concerns them, too.

    Args:
        steps, at_once: as for :func:`run_all`.
        ends: whether the error of the step with that number ends all.

    Returns:
        Results and errors, by the numbers of the steps; a step that was given up has none. And the number of
        the step whose error ended all.
    """
    found: dict[int, T] = {}
    errors = Errors()
    ended: int | None = None

    async def run(number: int, step: Coroutine[object, None, T]) -> None:
        nonlocal ended
        try:
            found[number] = await step
        except Exception as exc:
            errors.note(number, exc)
            if await ends(number, exc):
                if ended is None:
                    ended = number
                raise

    try:
        await run_all((run(*each) for each in enumerate(steps)), at_once)
    except Exception:
        if ended is None:
            raise
    return {**found, **errors}, ended
