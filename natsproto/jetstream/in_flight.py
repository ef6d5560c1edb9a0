"""How much may be on its way to one connection: a server ends one for which too much waits.

The limit is the server's ``max_pending``, 64 MiB by default. Many reads at once would reach it. Then all that
the connection does fails for a moment, and messages of other subscriptions are lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from ..aio.connection import Connection

LIMIT = 24 * 1024 * 1024
"""Bytes that all reads of one connection may have requested and not received; one request may exceed it.

It is less than half of ``max_pending``: what a server writes at once waits, by its count, until all of it is
written. Meanwhile the client has most of it, and asks for as much again.
"""

FIRST = 8 * 1024 * 1024
"""The limit of a new connection: it grows while answers come quickly, and shrinks where they come slowly.

A server also ends a connection that takes longer than 10 s for what is written to it (``write_deadline``).
"""

SMALL = 256 * 1024
"""Bytes up to which a request does not stand in the queue of larger ones, but in one of its own."""

FOR_SMALL = 8 * 1024 * 1024
"""Bytes that small ones may have requested and not received, besides the limit."""

QUICK, SLOW = 1.0, 4.0
"""Seconds for the answer to a request, below which the limit grows, and above which it shrinks."""

PATIENCE = 60.0
"""Seconds without an answer to any request after which one is sent in any case: none may ever come."""


class InFlight:
    """Counts the bytes that the reads of one connection wait for. Who comes first is served first.

    Small ones have a count of their own: somebody's large lists or objects would delay all that is done.
    """

    __slots__ = ("_answers", "_most", "_small", "_waiting", "bytes", "limit")

    def __init__(self, *, small: bool = False) -> None:
        self.bytes: int = 0
        self.limit: int = FOR_SMALL if small else FIRST
        self._most = FOR_SMALL if small else LIMIT
        self._small = None if small else InFlight(small=True)
        self._answers = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, size: int) -> bool:
        """Count a request if there is room for it now."""
        if self._small is not None and size <= SMALL:
            return self._small.take(size)
        room = not self._waiting and self._fits(size)
        if room:
            self.bytes += size
        return room

    async def wait(self, size: int, patience: float | None = None) -> None:
        """Wait for room, as long as answers to others come; then count the request.

        Args:
            patience: seconds without such an answer; default: :data:`PATIENCE`.
        """
        if self.take(size):
            return
        if self._small is not None and size <= SMALL:
            await self._small.wait(size, patience)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((size, waiter))
        try:
            while not waiter.done():
                before = self._answers
                await asyncio.wait([waiter], timeout=patience or PATIENCE)
                if not waiter.done() and self._answers == before:
                    self._waiting.remove((size, waiter))
                    self.bytes += size
                    return
        except BaseException:
            self._forget(size, waiter)
            raise

    @asynccontextmanager
    async def during(self, size: int) -> AsyncIterator[None]:
        """Count a request while the block runs; wait for room first, see :meth:`wait`."""
        await self.wait(size)
        began = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self.release(size, asyncio.get_running_loop().time() - began)

    def flow(self, size: int, patience: float | None = None) -> Flow:
        """Return the share of a delivery of so many bytes: a server sends up to 32 MiB ahead."""
        return Flow(self, min(max(1, size), LIMIT), patience)

    def release(self, size: int, seconds: float, came: int | None = None) -> None:
        """The answer to a request has come, or is not waited for any more; it took so many seconds.

        Args:
            came: bytes of it, if not all that were counted.
        """
        if self._small is not None and size <= SMALL:
            self._small.release(size, seconds, came)
            return
        self.bytes -= size
        self._answers += 1
        if seconds < QUICK:
            self.limit = min(self._most, self.limit + (size if came is None else came))
        elif seconds > SLOW:
            self.limit = max(min(size, self.limit), self.limit // 2)
        self._wake()

    def _fits(self, size: int) -> bool:
        return not self.bytes or self.bytes + size <= self.limit

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, waiter = self._waiting.popleft()
            self.bytes += size
            waiter.set_result(None)

    def _forget(self, size: int, waiter: asyncio.Future[None]) -> None:
        if waiter.done():
            self.bytes -= size  # its turn had just come
        else:
            self._waiting.remove((size, waiter))
        self._wake()


class Flow:
    """A delivery that begins and pauses."""

    __slots__ = ("_began", "_count", "_patience", "_size")

    def __init__(self, count: InFlight, size: int, patience: float | None) -> None:
        self._count = count
        self._size = size
        self._patience = patience
        self._began = 0.0

    async def begin(self) -> None:
        """Wait for room, then count it."""
        await self._count.wait(self._size, self._patience)
        self._began = asyncio.get_running_loop().time()

    def end(self, came: int | None = None) -> None:
        """It is paused, or over, after so many bytes. Idempotent."""
        began, self._began = self._began, 0.0
        if began:
            self._count.release(self._size, asyncio.get_running_loop().time() - began, came)


_in_flight: WeakKeyDictionary[Connection, InFlight] = WeakKeyDictionary()


def in_flight(connection: Connection) -> InFlight:
    """Return the count of a connection."""
    found = _in_flight.get(connection)
    if found is None:
        found = _in_flight[connection] = InFlight()
    return found
