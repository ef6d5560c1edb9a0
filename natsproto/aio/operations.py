"""The operations of one client that are under way: ``drain()`` lets them end, ``close()`` ends them first.

An operation is a call that takes several steps: a put with its clean-up, a read, a commit. The layers above
say so with ``with connection.operation():``. Single requests need nothing of the kind.
"""

from __future__ import annotations

import asyncio
import logging
from _thread import get_ident
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol

from ..errors import ConnectionClosedError

log: logging.Logger = logging.getLogger("natsproto")

END_TIMEOUT = 5.0
"""Seconds that operations under way have to clean up when the client is closed; usually it takes a few
milliseconds."""


class Home(Protocol):
    """A loop that says in which thread it runs just now."""

    @property
    def _thread_id(self) -> int | None: ...


class _Home:
    """Stands for a loop that does not say which thread it runs in (uvloop)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    @property
    def _thread_id(self) -> int | None:
        try:
            return get_ident() if asyncio.get_running_loop() is self._loop else None
        except RuntimeError:
            return None


def home_of(loop: asyncio.AbstractEventLoop) -> Home:
    """``loop`` itself where it says in which thread it runs.

    Comparing it costs a tenth of asking for the running loop, which CPython 3.11 does with a system call.
    """
    return loop if hasattr(loop, "_thread_id") else _Home(loop)


class Operations:
    """Those of one connection.

    Attributes:
        refusing: no new one may begin.
        home, loop: where they run; see :func:`home_of`.
        running: those under way, by their tasks.
        holds: what is open, and the tasks that opened it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.refusing: bool = False
        self.home: Home = home_of(loop)
        self.loop: asyncio.AbstractEventLoop = loop
        self.running: dict[asyncio.Task[object], Operation] = {}
        self.holds: dict[Hold, asyncio.Task[object] | None] = {}
        self._waiter: asyncio.Future[None] | None = None

    def others(self) -> list[Operation]:
        """Those under way, but for the one of the current task: nobody waits for the own end."""
        current = asyncio.current_task()
        return [operation for task, operation in self.running.items() if task is not current]

    def held(self) -> list[Hold]:
        """What other tasks hold."""
        current = asyncio.current_task()
        return [hold for hold, task in self.holds.items() if task is not current]

    async def wait(self, *, holds: bool) -> None:
        """Wait until the others have ended; and the holds, if asked for."""
        while self.others() or (holds and self.held()):
            if self._waiter is None or self._waiter.done():
                self._waiter = self.loop.create_future()
            await asyncio.wait([self._waiter])

    def wake(self) -> None:
        """One of them has ended."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def end(self, settle: Callable[[], Awaitable[None]], *, wait: bool) -> None:
        """Make the others clean up after themselves and raise ``ConnectionClosedError``.

        Args:
            settle: waits for clean-up whose caller does not wait for it any more.
            wait: wait for all that, at most :data:`END_TIMEOUT`; without a session it would be in vain.
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
            log.warning("the client is closed although operations have not ended within %s s", END_TIMEOUT)


class Hold:
    """Something open between the calls that use it, a reader: drain() waits for it, close() does not."""

    __slots__ = ("_operations",)

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        operations.holds[self] = asyncio.current_task()

    def release(self) -> None:
        """It is closed. Idempotent."""
        self._operations.holds.pop(self, None)
        self._operations.wake()


class Operation:
    """One of them, while the ``with`` block runs. Inside of another one of the same task it is part of that.

    Raises:
        ConnectionClosedError: the client is draining, or belongs to another event loop; or it was closed
            while the block ran.
    """

    __slots__ = ("_cancelling", "_interrupted", "_operations", "_task")

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0  # cancellations before it began
        self._interrupted = False

    def __enter__(self) -> None:
        operations = self._operations
        check_loop(operations.home)
        task = asyncio.current_task(operations.loop)
        if task is None or task in operations.running:
            return
        if operations.refusing:
            raise ConnectionClosedError("the client is draining or closed: it takes nothing new")
        operations.running[task] = self
        self._task = task
        self._cancelling = task.cancelling()

    def interrupt(self) -> None:
        """End it as a cancellation would, but with ``ConnectionClosedError``."""
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
        operations.wake()
        if self._interrupted:
            # As asyncio.timeout() tells its own cancellation from others.
            ours = task.uncancel() <= self._cancelling
            if ours and kind is asyncio.CancelledError:
                raise ConnectionClosedError(
                    "the client was closed before this call had ended; a change it was just committing may "
                    "have been made"
                ) from None


def check_loop(home: Home) -> None:
    """Refuse calls from elsewhere than the event loop (and its thread) that a client belongs to.

    Nothing here is locked: from elsewhere a call would tear frames, or wait for ever.

    Args:
        home: what :func:`home_of` gave for that loop.

    Raises:
        ConnectionClosedError: another loop runs here, or none.
    """
    if home._thread_id != get_ident():
        raise foreign_loop()


def foreign_loop() -> ConnectionClosedError:
    """The error of :func:`check_loop`, for those who compare by themselves."""
    return ConnectionClosedError(
        "the client belongs to another event loop or thread: connect again in this one, or hand the call "
        "over with asyncio.run_coroutine_threadsafe()"
    )
