"""The check that a test has left nothing running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


async def no_task_left() -> AsyncIterator[None]:
    """Fixture body: tasks that were not there before must be gone after the test (within 10 s)."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if not task.done()} - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=10.0)
    names = sorted(task.get_name() for task in left)
    assert not names, f"tasks left behind: {names}"
