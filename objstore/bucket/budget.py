"""How long an operation goes on without progress: one bound that all its waits and retries share.

Bounds of their own would add up: a window that waits for acknowledgements, the repair after it, each request
of the repair. So an operation has one budget. Only progress renews it (a chunk acknowledged, or found
stored), never a mere answer: a server whose disk is full answers questions for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PURGE = 10.0
"""Seconds a failed put tries to purge its chunks; what is left then is for ``gc``."""

HURRY = 4.0
"""Seconds for both, waiting for acknowledgements and purging, when the put was cancelled."""

SPENT = 2.0
"""Seconds for both when the put has used up its budget in vain."""

LEAST = 1.0
"""Seconds of the budget that starting over needs at least."""

STALL = 0.75
"""The part of its budget a put waits for acknowledgements; the rest is for sending again what was lost."""


class Budget:
    """The seconds an operation may take without progress, and how much of them is left.

    Args:
        seconds: the whole of it; it begins to run at once.
    """

    __slots__ = ("_bound", "_loop", "_moved", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds
        self._loop = asyncio.get_running_loop()
        self._moved = self._loop.time()
        self._bound: asyncio.Timeout | None = None

    def progress(self, ago: float = 0.0) -> None:
        """Something was achieved, ``ago`` seconds before now: the budget runs anew from there."""
        self._moved = self._loop.time() - ago
        if self._bound is not None:
            self._bound.reschedule(self.deadline)

    @property
    def deadline(self) -> float:
        """When it is used up, by the loop's clock."""
        return self._moved + self.seconds

    @property
    def left(self) -> float:
        """Seconds left; 0 when it is used up."""
        return max(0.0, self.deadline - self._loop.time())

    @asynccontextmanager
    async def bound(self) -> AsyncIterator[None]:
        """Raise ``TimeoutError`` in the block when the budget is used up; progress in the block renews it."""
        async with asyncio.timeout_at(self.deadline) as self._bound:
            try:
                yield
            finally:
                self._bound = None
