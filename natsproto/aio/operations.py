"""The operations of one client that are under way: ``drain()`` waits for them, ``close()`` ends them first.

An operation is a call of several steps: a put with its clean-up, a read, a commit. The layers above mark it
with ``with connection.operation():``. Single requests do not need that.
"""

from __future__ import annotations

import asyncio
import logging
from _thread import get_ident
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol

from .._values import seconds
from ..errors import ConnectionClosedError

log: logging.Logger = logging.getLogger("natsproto")

END_TIMEOUT = 5.0
"""Seconds that operations under way have for their clean-up when the client is closed; usually it takes a few
milliseconds."""


class Home(Protocol):
    """A loop that knows the thread it runs in."""

    @property
    def _thread_id(self) -> int | None: ...


class _Home:
    """Wraps a loop that does not know the thread it runs in (uvloop)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    @property
    def _thread_id(self) -> int | None:
        try:
            return get_ident() if asyncio.get_running_loop() is self._loop else None
        except RuntimeError:
            return None


def home_of(loop: asyncio.AbstractEventLoop) -> Home:
    """Return ``loop`` itself if it knows the thread it runs in, else a wrapper that does.

    Comparing thread ids costs a tenth of ``get_running_loop()``, which makes a system call in CPython 3.11.
    """
    return loop if hasattr(loop, "_thread_id") else _Home(loop)


class Operations:
    """The operations of one connection.

    Attributes:
        refusing: no new operation may begin.
        home, loop: where they run; see :func:`home_of`.
        running: the operations under way, by their tasks.
        holds: the open objects, and the tasks that opened them.
        waiter: done when one of them ends; ``None``: nobody waits.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.refusing: bool = False
        self.home: Home = home_of(loop)
        self.loop: asyncio.AbstractEventLoop = loop
        self.running: dict[asyncio.Task[object], Operation] = {}
        self.holds: dict[Hold, asyncio.Task[object] | None] = {}
        self.waiter: asyncio.Future[None] | None = None

    def others(self) -> list[Operation]:
        """The operations under way, except the current task's: no task can wait for its own end."""
        current = asyncio.current_task()
        return [operation for task, operation in self.running.items() if task is not current]

    def held(self) -> list[Hold]:
        """The holds of other tasks."""
        current = asyncio.current_task()
        return [hold for hold, task in self.holds.items() if task is not current]

    async def wait(self, *, holds: bool) -> None:
        """Wait until the other operations have ended, and with ``holds`` until the holds are released."""
        while self.others() or (holds and self.held()):
            if self.waiter is None or self.waiter.done():
                self.waiter = self.loop.create_future()
            await asyncio.wait([self.waiter])

    def wake(self) -> None:
        """An operation has ended, or a hold was released."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def end(self, settle: Callable[[], Awaitable[None]], *, wait: bool) -> None:
        """Make the other operations clean up and raise ``ConnectionClosedError``.

        Args:
            settle: waits for clean-up tasks that outlive their callers.
            wait: wait for all that, at most :data:`END_TIMEOUT`; pointless without a session.
        """
        self.refusing = True
        for operation in self.others():
            operation.interrupt()
        if not wait:
            return
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self.wait(holds=False)
                await settle()
        except TimeoutError:
            log.warning(
                "the client is closed although operations have not ended within %s s", seconds(END_TIMEOUT)
            )


class Hold:
    """An object that is open between calls, such as a reader: drain() waits for it, close() does not."""

    __slots__ = ("_operations",)

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        operations.holds[self] = asyncio.current_task()

    def release(self) -> None:
        """The object is closed. Idempotent."""
        self._operations.holds.pop(self, None)
        self._operations.wake()


class Operation:
    """An operation, while its ``with`` block runs. Inside another one of the same task it is part of that.

    Raises:
        ConnectionClosedError: the client is draining, or belongs to another event loop; or it was closed
            while the block ran.
    """

    __slots__ = ("_cancelling", "_interrupted", "_operations", "_task")

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0  # how often the task was cancelled before this began
        self._interrupted = False

    def __enter__(self) -> None:
        operations = self._operations
        if operations.home._thread_id != get_ident():
            raise foreign_loop()
        task = asyncio.current_task(operations.loop)
        if task is None or task in operations.running:
            return
        if operations.refusing:
            raise ConnectionClosedError("the client is draining or closed: it takes nothing new")
        operations.running[task] = self
        self._task = task
        self._cancelling = task.cancelling()

    def interrupt(self) -> None:
        """Cancel it, but let it raise ``ConnectionClosedError``."""
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel("the client was closed")

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task
        if task is None:
            return
        operations = self._operations
        del operations.running[task]
        if operations.waiter is not None:
            operations.wake()
        if self._interrupted:
            # asyncio.timeout() distinguishes its own cancellation from others in the same way.
            ours = task.uncancel() <= self._cancelling
            if ours and kind is asyncio.CancelledError:
                raise ConnectionClosedError(
                    "the client was closed before this call had ended; a change it was just committing may "
                    "have been made"
                ) from None


def check_loop(home: Home) -> None:
    """Refuse calls from outside the event loop (and its thread) that a client belongs to.

    Nothing here has locks: a call from another thread could corrupt frames, or wait for ever.

    Args:
        home: the result of :func:`home_of` for that loop.

    Raises:
        ConnectionClosedError: another loop runs here, or none.
    """
    if home._thread_id != get_ident():
        raise foreign_loop()


def foreign_loop() -> ConnectionClosedError:
    """Return the error of :func:`check_loop`, for callers that compare thread ids themselves."""
    return ConnectionClosedError(
        "the client belongs to another event loop or thread: connect again in this one, or hand the call "
        "over with asyncio.run_coroutine_threadsafe()"
    )
