"""Cancel a coroutine at a chosen await point, deterministically."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class _Stepper:
    """Awaits a coroutine; at its ``stop``-th suspension the running task is cancelled."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], stop: int) -> None:
        self.coroutine = coroutine
        self.stop = stop
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        resume = self.coroutine.send
        argument: Any = None
        while True:
            try:
                waiting = resume(argument)
            except StopIteration as end:
                return end.value
            self.steps += 1
            if self.steps == self.stop:
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                argument = yield waiting
                resume = self.coroutine.send
            except BaseException as exc:
                argument = exc
                resume = self.coroutine.throw


async def cancel_at(coroutine: Coroutine[Any, Any, Any], step: int) -> tuple[bool, BaseException | None]:
    """Run ``coroutine`` in a task and cancel it when it suspends for the ``step``-th time (from 1 on).

    Returns:
        Whether that point was reached, and what was raised (``None`` when it returned).
    """
    stepper = _Stepper(coroutine, step)

    async def run() -> None:
        await stepper

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    exc = asyncio.CancelledError() if task.cancelled() else task.exception()
    return stepper.steps >= step, exc
