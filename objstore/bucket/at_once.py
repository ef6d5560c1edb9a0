"""Run many steps, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TypeVar

T = TypeVar("T")

UNLIMITED = 1000
"""Steps at a time when the caller asks for all at once (-1, as in fsspec)."""


async def run_all(
    steps: Iterable[Coroutine[object, None, T]], at_once: int, done: Callable[[], object] | None = None
) -> list[T]:
    """Run steps and return their results; the first one that fails ends the others, and is raised.

    Args:
        steps: made one by one, each when its turn comes: after a failure none is left that nobody awaits.
        at_once: how many run at the same time.
        done: called after each.
    """
    found: dict[int, T] = {}
    numbered = enumerate(steps)

    async def work() -> None:
        for number, step in numbered:
            found[number] = await step
            if done is not None:
                done()

    tasks = [asyncio.ensure_future(work()) for _ in range(at_once if at_once > 0 else UNLIMITED)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [found[number] for number in sorted(found)]


async def kept(step: Coroutine[object, None, T]) -> T | Exception:
    """Return the result of a step, or its error."""
    try:
        return await step
    except Exception as exc:
        return exc


async def without(step: Coroutine[object, None, object], errors: type[Exception]) -> None:
    """Run a step whose errors of that class do not matter."""
    try:
        await step
    except errors:
        pass
