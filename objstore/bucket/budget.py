"""How long an operation continues without progress: one bound for all its waits and retries.

Separate bounds would add up: a window that waits for acknowledgements, the repair after it, each request of
the repair. So an operation has one budget. Only progress renews it (a chunk acknowledged, or found stored). A
mere response does not: a server whose disk is full answers requests for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PURGE = 10.0
"""Seconds a failed put tries to purge its chunks; ``gc`` removes the rest."""

HURRY = 4.0
"""Seconds to wait for acknowledgements and purge when the put was cancelled."""

SPENT = 2.0
"""Seconds to wait for acknowledgements and purge when the put has used up its budget."""

LEAST = 1.0
"""Seconds of the budget that must be left to start over."""

STALL = 0.75
"""Share of its budget that a put waits for acknowledgements; the rest is for sending lost chunks again."""


class Budget:
    """The seconds an operation may take without progress, and how many are left.

    Args:
        seconds: the whole budget; it begins to run at once.
        loop: the running loop. (To ask for it is a system call in CPython 3.11.)
    """

    __slots__ = ("_bound", "_loop", "_moved", "seconds")

    def __init__(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self.seconds: float = seconds
        self._loop = loop
        self._moved = self._loop.time()
        self._bound: asyncio.Timeout | None = None

    def progress(self, ago: float = 0.0) -> None:
        """Restart the budget from the moment of the progress, ``ago`` seconds before now."""
        self._moved = self._loop.time() - ago
        if self._bound is not None:
            self._bound.reschedule(self.deadline)

    @property
    def deadline(self) -> float:
        """When the budget is used up, by the loop's clock."""
        return self._moved + self.seconds

    @property
    def left(self) -> float:
        """Seconds left; 0 when the budget is used up."""
        return max(0.0, self.deadline - self._loop.time())

    @asynccontextmanager
    async def bound(self) -> AsyncIterator[None]:
        """Raise ``TimeoutError`` in the block when the budget is used up; progress in the block renews it."""
        async with asyncio.timeout_at(self.deadline) as self._bound:
            try:
                yield
            finally:
                self._bound = None
