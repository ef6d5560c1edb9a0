"""``with`` and ``async with`` for what is started and stopped by blocking calls."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self


class Lifetime(ABC):
    """Started at the beginning of a block, stopped at its end."""

    __slots__ = ()

    @abstractmethod
    def start(self) -> Self:
        """Start; returns once it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Stop, and remove what is private. Does nothing when it was not started."""

    @abstractmethod
    def _give_up(self) -> None:
        """Let a start that waits in another thread fail."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        """Start in a thread. When cancelled, the start is given up and nothing is left behind."""
        await _in_thread(self.start, self._give_up, self.stop)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await _in_thread(self.stop)


async def _in_thread(
    call: Callable[[], object],
    on_cancel: Callable[[], None] | None = None,
    undo: Callable[[], None] | None = None,
) -> None:
    """Run a bounded blocking call in a thread; when cancelled, wait for its end and undo it."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        await asyncio.wait([task])
        if undo is not None and not task.cancelled() and task.exception() is None:
            await asyncio.to_thread(undo)
        raise
