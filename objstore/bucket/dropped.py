"""Clean up after readers and writers that were dropped without being closed."""

from __future__ import annotations

import asyncio
import warnings


def end_dropped(owner: object, task: asyncio.Task[object] | None, advice: str) -> None:
    """End the task of an object that is being dropped; called by its ``__del__``.

    The task must not refer to the object, or it would never be dropped. The task is cancelled, so that it
    also removes what it has on the server. This may run in any thread, and after the loop has ended.

    Args:
        owner: the object.
        task: the object's task; ``None`` or done = there is nothing to do.
        advice: what the caller should have done.
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
