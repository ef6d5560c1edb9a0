"""Readers and writers that nobody refers to any more, and that nobody has closed."""

from __future__ import annotations

import asyncio
import warnings


def end_dropped(owner: object, task: asyncio.Task[object] | None, advice: str) -> None:
    """End the task of an object that is going away; called by its ``__del__``.

    The task must not refer to the object, or it would never go. It cleans up as if it were cancelled: what it
    has on the server goes as well. This may run in any thread, and after the loop has ended.

    Args:
        owner: the object.
        task: what runs for it; ``None`` or done = there is nothing to do.
        advice: what should have been called.
    """
    if task is None or task.done():
        return
    loop = task.get_loop()
    if loop.is_closed():
        return
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:  # closed just now
        return
    warnings.warn(f"{owner!r} was dropped: {advice}", ResourceWarning, stacklevel=3, source=owner)
