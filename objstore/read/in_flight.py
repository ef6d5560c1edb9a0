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
    from natsproto.aio.connection import Connection

LIMIT = 32 * 1024 * 1024
"""Bytes that all reads of one connection may have requested and not received; one request may exceed it."""

PATIENCE = 15.0
"""Seconds after which a request is sent in any case: what others wait for may never come."""


class InFlight:
    """Counts the bytes that the reads of one connection wait for. Who comes first is served first."""

    __slots__ = ("_waiting", "bytes")

    def __init__(self) -> None:
        self.bytes: int = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, size: int) -> bool:
        """Count a request if there is room for it now."""
        room = not self._waiting and self._fits(size)
        if room:
            self.bytes += size
        return room

    async def wait(self, size: int) -> None:
        """Wait for room, at most :data:`PATIENCE` seconds; then count the request."""
        if self.take(size):
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((size, waiter))
        try:
            async with asyncio.timeout(PATIENCE):
                await waiter
        except TimeoutError:
            self._forget(size, waiter)
            self.bytes += size
        except BaseException:
            self._forget(size, waiter)
            raise

    @asynccontextmanager
    async def during(self, size: int) -> AsyncIterator[None]:
        """Count a request while the block runs; wait for room first, see :meth:`wait`."""
        await self.wait(size)
        try:
            yield
        finally:
            self.release(size)

    def release(self, size: int) -> None:
        """The answer to a request has come, or is not waited for any more."""
        self.bytes -= size
        self._wake()

    def _fits(self, size: int) -> bool:
        return not self.bytes or self.bytes + size <= LIMIT

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, waiter = self._waiting.popleft()
            if not waiter.done():
                self.bytes += size
                waiter.set_result(None)

    def _forget(self, size: int, waiter: asyncio.Future[None]) -> None:
        if waiter.done() and not waiter.cancelled():
            self.bytes -= size  # its turn had just come
        elif (size, waiter) in self._waiting:
            self._waiting.remove((size, waiter))
        self._wake()


_in_flight: WeakKeyDictionary[Connection, InFlight] = WeakKeyDictionary()


def in_flight(connection: Connection) -> InFlight:
    """Return the count of a connection."""
    found = _in_flight.get(connection)
    if found is None:
        found = _in_flight[connection] = InFlight()
    return found
