"""The operations of one client that are under way: ``drain()`` lets them end, ``close()`` ends them first.

An operation is a call that takes several steps: a put with its clean-up, a read, a commit. The layers above
say so with ``with connection.operation():``. Single requests need nothing of the kind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType

from ..errors import ConnectionClosedError

log = logging.getLogger("natsproto")

END_TIMEOUT = 5.0
"""Seconds that operations under way have to clean up when the client is closed; usually it takes a few
milliseconds."""

_running_loop = asyncio._get_running_loop


class Operations:
    """Those of one connection.

    Attributes:
        refusing: no new one may begin.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.refusing = False
        self._loop = loop
        self._running: dict[asyncio.Task[object] | None, Operation] = {}
        self._waiter: asyncio.Future[None] | None = None

    def others(self) -> list[Operation]:
        """Those under way, but for the one of the current task: nobody waits for the own end."""
        current = asyncio.current_task()
        return [operation for task, operation in self._running.items() if task is not current]

    async def wait(self) -> None:
        """Wait until the others have ended."""
        while self.others():
            if self._waiter is None or self._waiter.done():
                self._waiter = self._loop.create_future()
            await asyncio.wait([self._waiter])

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
                await self.wait()
                await settle()
        except TimeoutError:
            log.warning("the client is closed although operations have not ended within %s s", END_TIMEOUT)


class Operation:
    """One of them, while the ``with`` block runs. Inside of another one of the same task it is part of that.

    Raises:
        ConnectionClosedError: the client is draining, or belongs to another event loop; or it was closed
            while the block ran.
    """

    __slots__ = ("_cancelling", "_operations", "_task")

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._task: asyncio.Task[object] | None = None
        self._cancelling = -1  # cancellations before ours; -1 = not interrupted

    def __enter__(self) -> None:
        operations = self._operations
        check_loop(operations._loop)
        task = asyncio.current_task(operations._loop)
        if task in operations._running:
            return
        if operations.refusing:
            raise ConnectionClosedError("the client is draining or closed: it takes nothing new")
        self._task = task
        operations._running[task] = self

    def interrupt(self) -> None:
        """End it as a cancellation would, but with ``ConnectionClosedError``."""
        if self._task is not None and self._cancelling < 0:
            self._cancelling = self._task.cancelling()
            self._task.cancel("the client was closed")

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task
        if task is None:
            return
        operations = self._operations
        del operations._running[task]
        waiter = operations._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self._cancelling >= 0:
            # As asyncio.timeout() tells its own cancellation from others.
            ours = task.uncancel() <= self._cancelling
            if ours and kind is asyncio.CancelledError:
                raise ConnectionClosedError(
                    "the client was closed before this call had ended; a change it was just committing may "
                    "have been made"
                ) from None


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Refuse calls from elsewhere than the event loop (and its thread) that a client belongs to.

    Nothing here is locked: from elsewhere a call would tear frames, or wait for ever.

    Raises:
        ConnectionClosedError: another loop runs here, or none.
    """
    if _running_loop() is not loop:
        raise foreign_loop()


def foreign_loop() -> ConnectionClosedError:
    """The error of :func:`check_loop`, for those who compare by themselves."""
    return ConnectionClosedError(
        "the client belongs to another event loop or thread: connect again in this one, or hand the call over "
        "with asyncio.run_coroutine_threadsafe()"
    )
