"""Runs the user's callbacks and the background tasks of one connection, and waits for their end.

Writes its warnings, too. Both have limits, because a peer decides how often there is a reason for them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import TypeVar, cast

from .._values import seconds
from ..errors import ConfigError, NatsError, StaleConnectionError
from .operations import check_loop, home_of

log: logging.Logger = logging.getLogger("natsproto")

T = TypeVar("T")

Callback = Callable[[], Awaitable[None] | None]
"""A function or a coroutine function."""

ErrorCallback = Callable[[NatsError], Awaitable[None] | None]
"""The same, called with an error that belongs to no call."""

LostCallback = Callback | Callable[[StaleConnectionError], Awaitable[None] | None]
"""A function or a coroutine function that may take one argument, the reason for a lost connection."""

NextServerCallback = Callable[[list[str], dict[str, int]], Awaitable[str | None] | str | None]
"""The same, called with the URLs of the pool and the failures of each; it returns one of these URLs."""

DelayCallback = Callable[[int, int], Awaitable[float | None] | float | None]
"""The same, called with the numbers of failed attempts and rounds; it returns seconds."""

FINISH_TIMEOUT = 1.0
"""Seconds that running callbacks and tasks have to end by themselves when the client is closed."""

MAX_UNDER_WAY = 100
"""Calls of :meth:`Callbacks.call_bounded` that run at a time; a server decides how often it is called."""

MAX_WAITING = 1000
"""Calls of :meth:`Callbacks.call_bounded` that wait to run."""

_inside: ContextVar[Callbacks | None] = ContextVar("natsproto_callback", default=None)
"""The instance whose callback, or a task of it, runs here: it must not wait for its own end."""


def wants_reason(callback: LostCallback) -> bool:
    """Return whether the callback must be called with the reason: one that can do without is.

    Raises:
        ConfigError: it can be called neither without arguments nor with one.
    """
    try:
        signature = inspect.signature(callback)
    except ValueError:  # some functions of the standard library have none
        return False
    for arguments in ((), (None,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return bool(arguments)
    raise ConfigError("disconnected_cb takes no argument, or one: why the connection was lost")


def with_reason(callback: LostCallback | None, reason: StaleConnectionError) -> Callback | None:
    """Return ``callback`` for :meth:`Callbacks.call`, with the reason if it takes one."""
    if callback is None or not wants_reason(callback):
        return cast("Callback | None", callback)
    return partial(cast("Callable[[StaleConnectionError], Awaitable[None] | None]", callback), reason)


class Callbacks:
    """See the module docstring."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._home = home_of(self._loop)
        self._running: set[asyncio.Future[None]] = set()
        self._spawned: set[asyncio.Task[object]] = set()
        self._due: set[asyncio.Task[object]] = set()
        self._under_way = 0
        self._waiting: deque[Callback] = deque()
        self._dropping = False

    def call(self, callback: Callback | None) -> None:
        """Run a user's callback outside the reading side; its exception is logged, never fatal."""
        if callback is not None:
            self._loop.call_soon(self._run, callback)

    def call_bounded(self, callback: Callback | None) -> None:
        """Like :meth:`call`, for what a server can cause without limit: drops calls when too many wait.

        The first dropped call is logged; further ones are not, until all running calls have ended.
        """
        if callback is not None:
            self._loop.call_soon(self._run_bounded, callback)

    def _run_bounded(self, callback: Callback) -> None:
        if self._under_way < MAX_UNDER_WAY:
            task = self._run(callback)
            if task is not None:
                self._under_way += 1
                task.add_done_callback(self._told)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(callback)
        elif not self._dropping:
            self._dropping = True
            log.warning(
                "%d calls of error_cb, reconnect_error_cb or discovered_server_cb have not ended; further "
                "calls are dropped",
                MAX_UNDER_WAY + MAX_WAITING,
            )

    def _told(self, task: asyncio.Future[None]) -> None:
        self._under_way -= 1
        while self._waiting and self._under_way < MAX_UNDER_WAY:
            self._run_bounded(self._waiting.popleft())
        if not self._under_way:
            self._dropping = False

    async def ask(self, callback: Callable[[], Awaitable[T] | T], limit: float) -> T:
        """Return what a user's callback answers, or raise what it raises.

        Args:
            limit: seconds that a coroutine function may take.

        Raises:
            TimeoutError: it took longer, or was cancelled by somebody else; it is cancelled then.
        """
        token = _inside.set(self)
        try:
            answer = callback()
            if not inspect.isawaitable(answer):
                return answer
            task: asyncio.Future[T] = asyncio.ensure_future(answer)
        finally:
            _inside.reset(token)
        # A task of its own: one that does not end, even when cancelled, must hold up nobody.
        self._running.add(cast("asyncio.Future[None]", task))
        task.add_done_callback(self._answered)
        try:
            await asyncio.wait([task], timeout=limit)
        finally:
            late = not task.done()
            task.cancel()
        if late or task.cancelled():
            raise TimeoutError(f"no answer within {seconds(limit)} s" if late else "it was cancelled")
        return task.result()

    def _answered(self, task: asyncio.Future[T]) -> None:
        self._running.discard(cast("asyncio.Future[None]", task))
        if not task.cancelled():
            task.exception()  # told by ask(), unless it came too late

    def _run(self, callback: Callback) -> asyncio.Future[None] | None:
        """Call ``callback``; return its task, if it has one."""
        token = _inside.set(self)  # the tasks it starts inherit this
        try:
            result = callback()
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(result)
                self._running.add(task)
                task.add_done_callback(self._done)
                return task
        except Exception:
            log.exception("a callback raised")
        finally:
            _inside.reset(token)
        return None

    def _done(self, task: asyncio.Future[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a callback raised", exc_info=task.exception())

    def spawn(
        self, coroutine: Coroutine[object, None, T], name: str, *, due: bool = False
    ) -> asyncio.Task[T]:
        """Run a background task that :meth:`finish` waits for and cancels.

        Args:
            due: it ends by itself, soon, and needs the connection for that: close the connection afterwards.
        """
        try:
            check_loop(self._home)
        except BaseException:
            coroutine.close()
            raise
        task = self._loop.create_task(coroutine, name=name)
        self._spawned.add(task)
        if due:
            self._due.add(task)
        task.add_done_callback(self._spawned_done)
        return task

    async def settle(self) -> None:
        """Wait for the tasks that are ``due``."""
        while waited := self._due - {asyncio.current_task()}:
            await asyncio.wait(waited)

    def _spawned_done(self, task: asyncio.Task[object]) -> None:
        self._spawned.discard(task)
        self._due.discard(task)
        if not task.cancelled():
            task.exception()  # its owner awaits it; a cancelled owner does not want it any more

    async def finish(self) -> None:
        """Wait until everything has ended; cancel what has not ended within ``FINISH_TIMEOUT``.

        If this call is cancelled, everything is cancelled at once. From inside a callback it does not wait
        for callbacks.
        """
        try:
            await asyncio.sleep(0)  # callbacks called just now become tasks
            end = self._loop.time() + FINISH_TIMEOUT
            while late := self._left():  # waiting calls begin when others have ended
                if self._loop.time() >= end:
                    break
                await asyncio.wait(late, timeout=end - self._loop.time())
        finally:
            self._waiting.clear()
            late = self._left()
            for task in late:
                task.cancel()
        if late:
            await asyncio.wait(late, timeout=FINISH_TIMEOUT)

    def _left(self) -> set[asyncio.Task[object] | asyncio.Future[None]]:
        """Return the tasks that have not ended and that this task may wait for."""
        current = asyncio.current_task()
        left = {task for task in self._spawned if task is not current}
        return {*left} if _inside.get() is self else left | self._running


MOST_LINES = 10
"""Lines of one kind that are logged per second."""


class BoundedLog:
    """Writes to ``log``: :data:`MOST_LINES` of a kind per second, then one that says there are more."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._written: dict[str, tuple[float, int]] = {}

    def warning(self, kind: str, text: str, *args: object) -> None:
        """Write a line of ``kind``; there must be only a few kinds."""
        self._write(logging.WARNING, kind, text, *args)

    def info(self, kind: str, text: str, *args: object) -> None:
        """The same for what is no reason to worry."""
        self._write(logging.INFO, kind, text, *args)

    def _write(self, level: int, kind: str, text: str, *args: object) -> None:
        now = time.monotonic()
        began, count = self._written.get(kind, (now, 0))
        if now - began >= 1.0:
            began, count = now, 0
        self._written[kind] = began, count + 1
        if count < MOST_LINES:
            self._log.log(level, text, *args)
        elif count == MOST_LINES:
            self._log.log(level, "there is more of that (%s): it is not logged for a second", kind)
