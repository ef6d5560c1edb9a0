"""The user's callbacks and the background tasks of one connection: who runs them, who waits for their end."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from .operations import check_loop, home_of

log = logging.getLogger("natsproto")

Callback = Callable[..., None] | Callable[..., Awaitable[None]]

FINISH_TIMEOUT = 1.0
"""Seconds that running callbacks and tasks have to end by themselves when the client is closed."""

_inside: ContextVar[Callbacks | None] = ContextVar("natsproto_callback", default=None)
"""Whose callback is running here, the tasks it started included: it must not wait for its own end."""


class Callbacks:
    """See the module docstring."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._home = home_of(self._loop)
        self._running: set[asyncio.Future[Any]] = set()
        self._spawned: set[asyncio.Task[Any]] = set()
        self._due: set[asyncio.Task[Any]] = set()

    def call(self, callback: Callback | None, *args: Any) -> None:
        """Run a user's callback outside of the reading side; a raising one is logged, never fatal."""
        if callback is not None:
            self._loop.call_soon(self._run, callback, args)

    def _run(self, callback: Callback, args: tuple[Any, ...]) -> None:
        token = _inside.set(self)  # inherited by the tasks it starts
        try:
            result = callback(*args)
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(result)
                self._running.add(task)
                task.add_done_callback(self._done)
        except Exception:
            log.exception("a callback raised")
        finally:
            _inside.reset(token)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a callback raised", exc_info=task.exception())

    def spawn(self, coroutine: Any, name: str, *, due: bool = False) -> asyncio.Task[Any]:
        """Run a background task that :meth:`finish` waits for and cancels.

        Args:
            due: it ends by itself, soon, and needs the connection for that: it is closed only afterwards.
        """
        try:
            check_loop(self._home)
        except BaseException:
            coroutine.close()
            raise
        task: asyncio.Task[Any] = self._loop.create_task(coroutine, name=name)
        self._spawned.add(task)
        if due:
            self._due.add(task)
        task.add_done_callback(self._spawned_done)
        return task

    async def settle(self) -> None:
        """Wait for the tasks that are ``due``."""
        while waited := self._due - {asyncio.current_task()}:
            await asyncio.wait(waited)

    def _spawned_done(self, task: asyncio.Task[Any]) -> None:
        self._spawned.discard(task)
        self._due.discard(task)
        if not task.cancelled():
            task.exception()  # its owner awaits it; when the owner was cancelled nobody is left to tell

    async def finish(self) -> None:
        """Wait until everything has ended; what has not within ``FINISH_TIMEOUT`` is cancelled.

        Called from inside of a callback it does not wait for callbacks.
        """
        await asyncio.sleep(0)  # callbacks called just now become tasks
        current = asyncio.current_task()
        waited: set[asyncio.Future[Any]] = {task for task in self._spawned if task is not current}
        if _inside.get() is not self:
            waited |= self._running
        if waited:
            _, late = await asyncio.wait(waited, timeout=FINISH_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=FINISH_TIMEOUT)
