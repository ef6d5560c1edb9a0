"""The ways of a test to wait: for a condition, with a bound; or, where time is what it is about, for a time.

Nothing else in the tests sleeps (``unit/test_tests_map.py``): a sleep before a look is too short on a busy
machine, and too long on every other one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LOOK_EVERY = 0.005


async def eventually(condition: Callable[[], object], *, within: float = 20.0) -> None:
    """Wait until ``condition()`` holds, of which nobody tells. Raises ``TimeoutError`` after ``within`` s."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY)


def eventually_here(condition: Callable[[], object], *, within: float = 20.0) -> None:
    """:func:`eventually` without a loop."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(LOOK_EVERY)


async def held(seconds: float) -> None:
    """Let a fault, a silence or a slow party last that long. What is tested is that it lasts.

    Never for something to happen meanwhile: a busy machine may need longer.
    """
    await asyncio.sleep(seconds)


def standstill(seconds: float) -> None:
    """Let the thread stand still that long, and with it the loop that runs in it: that is what is tested."""
    time.sleep(seconds)
