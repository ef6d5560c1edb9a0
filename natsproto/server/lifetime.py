"""``with`` and ``async with`` for objects that blocking calls start and stop."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self


class Lifetime(ABC):
    """An object that is started at the beginning of a block and stopped at its end."""

    __slots__ = ()

    @abstractmethod
    def start(self) -> Self:
        """Start; return once it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Stop, and remove private files. Does nothing when it was not started."""

    @abstractmethod
    def _give_up(self) -> None:
        """Make a start that waits in another thread fail."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        """Start in a thread. A cancelled start leaves nothing behind."""
        await _in_thread(self.start, self._give_up, self.stop)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await _in_thread(self.stop)


async def _in_thread(
    call: Callable[[], object],
    on_cancel: Callable[[], None] | None = None,
    undo: Callable[[], None] | None = None,
) -> None:
    """Run a blocking call with a time limit in a thread; when cancelled, wait for its end and undo it."""
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
