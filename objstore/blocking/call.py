"""One blocking call: a task in the loop's thread, and the caller that waits for it."""

from __future__ import annotations

import asyncio
import time
from _thread import allocate_lock
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import TypeVar

from natsproto.errors import ConnectionClosedError

T = TypeVar("T")

CLEANUP = 10.0
"""Seconds that an interrupted call has to remove what it began. A put usually needs some milliseconds; one
that is just being committed needs 5 s at most."""

_deadline: ContextVar[float | None] = ContextVar("objstore_sync_deadline", default=None)

_under_way: ContextVar[Call | None] = ContextVar("objstore_sync_call", default=None)
"""The call that a task of the loop works for."""


@contextmanager
def timeout(seconds: float | None) -> Iterator[None]:
    """Bound the calls of a block: ``with objstore.sync.timeout(30): store.put(…)``.

    A call that is not done in time is cancelled, removes what it began, and raises ``TimeoutError``. Blocks
    may be nested: the earlier end counts. It is the twin of :func:`asyncio.timeout`, for this thread. What
    closes something (``close()``, the end of a ``with`` block) has its own limits, and is not cut short.

    Args:
        seconds: for all calls of the block together; ``None`` = no limit.
    """
    outer = _deadline.get()
    end = outer if seconds is None else time.monotonic() + seconds
    token = _deadline.set(end if outer is None or end is None else min(end, outer))
    try:
        yield
    finally:
        _deadline.reset(token)


@contextmanager
def without_timeout() -> Iterator[None]:
    """Let the clean-up of a block go on after the end of its :func:`timeout`."""
    token = _deadline.set(None)
    try:
        yield
    finally:
        _deadline.reset(token)


def closed() -> ConnectionClosedError:
    """Return the error of calls on a connection that is closed."""
    return ConnectionClosedError("the connection is closed")


class Call:
    """See the module docstring. The loop's side is :meth:`ask` and :meth:`fail`.

    The caller sleeps on a lock that the loop's thread releases: cheaper than ``concurrent.futures.Future``,
    and a signal can interrupt it.

    Args:
        loop: runs in another thread.
        work: what to run there.
        calls: where this call is from its start to its end.
        over: returns whether the loop runs its last tasks: another one would not be waited for.
    """

    __slots__ = ("_calls", "_done", "_errand", "_error", "_lock", "_loop", "_over", "_task", "_work")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Callable[[], Coroutine[object, None, None]],
        calls: set[Call],
        over: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._work = work
        self._calls = calls
        self._over = over
        self._lock = allocate_lock()
        self._lock.acquire()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._errand: Callable[[], None] | None = None
        self._done = False

    # -- in the loop's thread ---------------------------------------------------------------------

    def _begin(self) -> None:
        if self._over():
            self.fail(closed())
        else:
            _under_way.set(self)
            self._loop.create_task(self._run(self._work))

    async def _run(self, work: Callable[[], Coroutine[object, None, None]]) -> None:
        if self._done:
            return  # interrupted before this first step
        self._task = asyncio.current_task()
        try:
            if (deadline := _deadline.get()) is None:
                await work()
            else:
                async with asyncio.timeout_at(deadline):
                    await work()
        except asyncio.CancelledError:
            self.fail(closed())  # or the caller was interrupted, and raises that
        except BaseException as exc:  # SystemExit of a callback must not end the loop
            self.fail(exc)
        else:
            self._finish()

    def fail(self, error: BaseException) -> None:
        """End the call with an error."""
        self._error = error
        self._finish()

    def _finish(self) -> None:
        self._done = True
        # Contexts refer to this, those of timers perhaps for long: the arguments may be large.
        self._task = None
        del self._work
        self._calls.discard(self)
        self._wake()

    def _wake(self) -> None:
        # If it is unlocked, the caller has yet to see an earlier wake-up, and will see this reason, too.
        if self._lock.locked():
            self._lock.release()

    async def ask(self, errand: Callable[[], T]) -> T:
        """Have the caller's thread call a function while it waits, and return the function's result."""
        answer: asyncio.Future[T] = self._loop.create_future()

        def settle(act: Callable[[], None]) -> None:
            if not answer.done():
                act()

        def run() -> None:
            try:
                found = errand()
            except Exception as exc:
                act = partial(answer.set_exception, exc)
            else:
                act = partial(answer.set_result, found)
            try:
                self._loop.call_soon_threadsafe(settle, act)
            except RuntimeError:
                pass  # the loop is closed, and the call has failed

        self._errand = run
        self._wake()
        return await answer

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self._done:
            self.fail(closed())  # a task that is cancelled before its first step would not do so

    # -- in other threads -------------------------------------------------------------------------

    def start(self, context: Context) -> None:
        """Have the loop begin it, in a context that its task inherits.

        Raises:
            ConnectionClosedError: the loop is closed.
        """
        self._calls.add(self)
        try:
            self._loop.call_soon_threadsafe(self._begin, context=context)
        except RuntimeError:
            self._calls.discard(self)
            raise closed() from None

    def wait(self) -> None:
        """Run the call, and wait until it has ended; raise its error.

        An exception that a signal handler raises meanwhile (``KeyboardInterrupt``) cancels the call, waits
        for its clean-up, and is raised then. Another one during that time is raised at once.
        """
        try:
            self.start(copy_context())
            self._lock.acquire()
            while not self._done:
                errand, self._errand = self._errand, None
                if errand is not None:
                    errand()
                self._lock.acquire()
        except BaseException:
            self._interrupt()
            raise
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback refers to this frame

    def _interrupt(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            self._calls.discard(self)  # the loop is closed
            return
        end = time.monotonic() + CLEANUP
        while not self._done and (left := end - time.monotonic()) > 0:
            self._lock.acquire(timeout=left)


def under_way() -> Call:
    """The call that this task works for."""
    call = _under_way.get()
    assert call is not None
    return call
