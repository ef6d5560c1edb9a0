"""The thread that runs the event loop of all blocking connections of a process.

It is a daemon thread. The first connection starts it, the end of the last one stops it. Connections share it,
so that objects can be copied between them, and many connections cost one thread. When the interpreter ends,
every connection that is still open is closed. A forked child has no such thread: what it has inherited cannot
be used and does no harm to the parent; a new connection gets a new thread.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import selectors
import sys
import threading
import warnings
import weakref
from _thread import get_ident
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from natsproto.errors import ConnectionClosedError, NatsError

from .call import Call, closed, without_timeout

if TYPE_CHECKING:
    from natsproto.aio.client import Client
    from natsproto.aio.connect import connect

P = ParamSpec("P")
T = TypeVar("T")

EXIT_TIMEOUT = 15.0
"""Seconds that closing all connections may take when the interpreter ends; a client has limits of 9 s."""


class LoopThread:
    """See the module docstring.

    Attributes:
        users: the connections that need this thread.
        inherited: this is a forked child, and the thread was left in the parent.
    """

    def __init__(self) -> None:
        self.users: weakref.WeakSet[Link] = weakref.WeakSet()
        self.inherited: bool = False
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._stopping = asyncio.Event()
        self._over = False
        self._clients: set[Client] = set()
        self._sources: dict[AsyncGenerator[object, None], Client] = {}
        self._calls: set[Call] = set()
        self._thread = threading.Thread(target=self._main, name="objstore-sync", daemon=True)
        _all.add(self)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the thread is not there any more, or never was in this process."""
        return self.inherited or self._loop.is_closed()

    # -- in the thread ----------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
                self._over = True  # what begins while the runner ends the rest would be lost
        finally:
            for call in list(self._calls):  # they have not begun, and never will
                call.fail(closed())

    def _is_over(self) -> bool:
        return self._over

    async def _serve(self) -> None:
        await self._stopping.wait()
        ends = (self.end(client, client.close) for client in self._clients)
        await asyncio.gather(*ends, return_exceptions=True)

    async def open(self, options: connect) -> Client:
        """Connect. The caller may be interrupted just now, so the thread knows its clients, too."""
        client = await options
        self._clients.add(client)
        return client

    async def end(self, client: Client, how: Callable[[], Coroutine[object, None, None]]) -> None:
        """Close a client: ``how`` is its ``close`` or ``drain``."""
        for source in [source for source, its in self._sources.items() if its is client]:
            try:  # before the loop closes all at once, those that wait for each other, too
                await source.aclose()
            except (RuntimeError, NatsError):
                pass  # a call is waiting for it; the client ends that
            self.release(source)
        try:
            await how()
        finally:
            if client.is_closed:
                self._clients.discard(client)

    def hold(self, source: AsyncGenerator[object, None], client: Client) -> None:
        """Note a generator that is iterated over: it may have something on the server."""
        self._sources[source] = client

    def release(self, source: AsyncGenerator[object, None]) -> None:
        """Forget a generator that has ended. Idempotent."""
        self._sources.pop(source, None)

    # -- in other threads -------------------------------------------------------------------------

    def call(
        self, function: Callable[P, Coroutine[object, None, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a coroutine function in the loop, wait, and return its result or raise its error.

        Raises:
            RuntimeError: this is the loop's own thread, which would wait for itself; or a loop runs in this
                thread, see :func:`check_no_loop`.
            ConnectionClosedError: the thread has ended, or belongs to the parent process.
        """
        if self.inherited:
            raise ConnectionClosedError(
                "the connection was made before this process was forked: connect again in the child"
            )
        if get_ident() == self._thread.ident:
            raise RuntimeError(
                "a callback of a connection must not make blocking calls: they would wait for its own end. "
                "Make them in another thread, or use the asyncio API (natsproto.connect)"
            )
        check_no_loop()
        result: list[T] = []

        async def work() -> None:
            result.append(await function(*args, **kwargs))

        Call(self._loop, work, self._calls, self._is_over).wait()
        return result.pop()

    def later(self, work: Callable[[], Coroutine[object, None, None]]) -> bool:
        """Run a coroutine function without waiting, for finalizers; false if the loop has ended."""
        if self.inherited:
            return False
        try:
            Call(self._loop, work, self._calls, self._is_over).start(Context())
        except ConnectionClosedError:
            return False
        return True

    def stop(self, timeout: float | None = None) -> None:
        """Close what is still open, and end the thread."""
        try:
            self._loop.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:
            return
        self._thread.join(timeout)

    def disown(self) -> None:
        """In a forked child: let go of everything that is shared with the parent.

        A child that lives on would hold the parent's connection open. When it drops what it has inherited,
        that might write to the connection, or change the set of descriptors that the parent waits for. It
        meets ``/dev/null`` instead, and nothing is logged.
        """
        self.inherited = True
        if self._loop.is_closed():
            return
        self._loop.set_exception_handler(lambda loop, context: None)
        own = getattr(self._selector, "fileno", None)  # select() and poll() have none
        shared = [key.fd for key in self._selector.get_map().values()]
        null = os.open(os.devnull, os.O_RDWR)
        for fd in shared if own is None else [own(), *shared]:
            os.dup2(null, fd, inheritable=False)
        os.close(null)


def check_no_loop() -> None:
    """Refuse to block a thread in which an event loop runs.

    All tasks of that loop would have to wait. In an interactive session (``sys.ps1``: Jupyter, IPython,
    ``python -m asyncio``) the person who typed the line expects that, and nothing waits for ever: the
    connection has a loop of its own.

    Raises:
        RuntimeError: a loop runs in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if not hasattr(sys, "ps1"):
        raise RuntimeError(
            "objstore.sync would block the event loop that runs in this thread: use the asyncio API "
            "(natsproto.connect, then await), or call asyncio.to_thread()"
        )


class Link:
    """A connection as the blocking API holds it; whatever was made with it refers to this.

    When nothing does any more, the connection is closed, with a ``ResourceWarning``.
    """

    def __init__(self, options: connect) -> None:
        self._closed = True
        check_no_loop()
        self.client: Client
        self.thread: LoopThread = _enter(self)
        try:
            self.thread.call(self._open, options)
        except BaseException:
            if not self._closed:  # interrupted just when it was made
                self._closed = True
                self.thread.later(partial(self.thread.end, self.client, self.client.close))
            _leave(self)
            raise

    async def _open(self, options: connect) -> None:
        self.client = await self.thread.open(options)
        self._closed = False

    def call(
        self, function: Callable[P, Coroutine[object, None, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See :meth:`LoopThread.call`."""
        return self.thread.call(function, *args, **kwargs)

    def settle(self, work: Callable[[], Coroutine[object, None, None]]) -> None:
        """:meth:`call` for what closes something: :func:`objstore.sync.timeout` does not cut it short.

        Without the thread there is nothing to close; what a forked child has inherited is the parent's.
        """
        try:
            with without_timeout():
                self.thread.call(work)
        except ConnectionClosedError:
            if not self.thread.ended:
                raise

    def later(self, work: Callable[[], Coroutine[object, None, None]]) -> bool:
        """See :meth:`LoopThread.later`."""
        return self.thread.later(work)

    def end(self, how: Callable[[], Coroutine[object, None, None]]) -> None:
        """Close the connection; ``how`` is the client's ``close`` or ``drain``. Idempotent."""
        if self._closed or self.thread.inherited:
            return
        try:
            self.settle(lambda: self.thread.end(self.client, how))
        finally:
            if self.client.is_closed and not self._closed:
                self._closed = True
                _leave(self)

    def __del__(self) -> None:
        if not self._closed and self.thread.later(partial(self.thread.end, self.client, self.client.close)):
            dropped(self.client, "use it with 'with', or close()")


def dropped(what: object, advice: str) -> None:
    """Warn of an open object that nothing refers to any more."""
    warnings.warn(f"{what!r} was dropped: {advice}", ResourceWarning, stacklevel=3)


_guard = threading.Lock()
"""Held while a connection joins or leaves the thread."""

_current: LoopThread | None = None

_all: weakref.WeakSet[LoopThread] = weakref.WeakSet()
"""Every thread that somebody still refers to, those that are just ending, too."""


def _enter(link: Link) -> LoopThread:
    """Return the thread of this process, for a new connection."""
    global _current
    with _guard:
        if _current is None or _current.ended:
            _current = LoopThread()
        _current.users.add(link)
        return _current


def _leave(link: Link) -> None:
    """Stop the thread if that was its last connection."""
    global _current
    thread = link.thread
    with _guard:
        thread.users.discard(link)
        last = not thread.users
        if last and _current is thread:
            _current = None
    if last:
        thread.stop()


def _after_fork() -> None:
    """In the child; the guard may have been held by a thread that is not there."""
    global _current, _guard
    _guard = threading.Lock()
    _current = None
    for thread in list(_all):
        thread.disown()
    _all.clear()


def _at_exit() -> None:
    if _current is not None:
        _current.stop(EXIT_TIMEOUT)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
