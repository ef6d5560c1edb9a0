"""Write an object as a stream: it appears, complete, on a clean exit, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from natsproto.aio.operations import check_loop
from natsproto.errors import ConnectionClosedError

from ..bucket.dropped import end_dropped

if TYPE_CHECKING:
    from types import TracebackType

    from natsproto.aio.connection import Connection

    from ..format.models import ObjectInfo

Payload = bytes | bytearray | memoryview


class _Pieces:
    """Passes pieces from the writer to its put, one at a time.

    The put's task refers to this and not to the writer, so that a writer without references is dropped.
    """

    __slots__ = ("_given", "_piece", "_taken")

    def __init__(self) -> None:
        self._piece: Payload | None = None
        self._given = asyncio.Event()
        self._taken: asyncio.Future[None] | None = None

    def give(self, piece: Payload | None) -> asyncio.Future[None]:
        """Pass a piece, or ``None`` for the end; the returned future is done when the put has taken it."""
        self._taken = asyncio.get_running_loop().create_future()
        self._piece = piece
        self._given.set()
        return self._taken

    async def __aiter__(self) -> AsyncIterator[Payload]:
        while True:
            await self._given.wait()
            self._given.clear()
            piece, self._piece = self._piece, None
            if piece is None:
                return
            yield piece
            self.wake()  # the put wants the next piece: it has taken this one

    def wake(self, task: asyncio.Task[ObjectInfo] | None = None) -> None:
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)


async def _store(
    put: Callable[[AsyncIterator[Payload]], Awaitable[ObjectInfo]], pieces: _Pieces
) -> ObjectInfo:
    return await put(aiter(pieces))


class ObjectWriter:
    """An object being written; created by :meth:`ObjectStore.open_writer`, used with ``async with``.

    ``write`` returns when the bytes have been taken over, and waits while more than the window is
    unacknowledged: this is the back-pressure. The end of the block commits the object. An exception in the
    block, or :meth:`abort`, leaves the previous object unchanged and no chunks behind. A cancelled write
    aborts. Only one task at a time may use a writer.

    A writer that is dropped without a commit or abort aborts by itself, with a ``ResourceWarning``.

    Attributes:
        info: the info of the stored object; ``None`` before the commit.
    """

    def __init__(
        self,
        put: Callable[[AsyncIterator[Payload]], Awaitable[ObjectInfo]],
        connection: Connection,
    ) -> None:
        self._start = put
        self._connection = connection
        self._task: asyncio.Task[ObjectInfo] | None = None
        self._pieces = _Pieces()
        self._closed = False
        self._written = 0
        self.info: ObjectInfo | None = None

    def _begin(self) -> asyncio.Task[ObjectInfo]:
        if self._task is None:
            self._task = self._connection.spawn(_store(self._start, self._pieces), "objstore-writer")
            self._task.add_done_callback(self._pieces.wake)  # a put that fails wakes the writer, too
        return self._task

    def tell(self) -> int:
        """Bytes written so far."""
        return self._written

    async def write(self, data: Payload) -> int:
        """Append bytes; return how many. The buffer may be reused afterwards.

        Raises:
            TypeError: the data is not bytes-like.
            ConnectionClosedError: the writer is closed.
            StoreFullError, BucketSealedError, NatsError: the put has failed; nothing is left behind.
        """
        self._check_open()
        if isinstance(data, str):
            raise TypeError("write() takes bytes, not str: use .encode()")
        size = memoryview(data).nbytes
        if not size:
            return 0
        task = self._begin()
        if task.done():
            await task  # raises: it has already failed
        try:
            await self._pieces.give(data)
        except asyncio.CancelledError:
            # The put may or may not have taken it: a retry could write it twice.
            await self.abort()
            raise
        if task.done():
            await task  # raises the put's error
        self._written += size
        return size

    async def commit(self) -> ObjectInfo:
        """Store what was written, and close; a clean exit of the ``async with`` block does it.

        Raises:
            NatsError, ValueError: as for :meth:`ObjectStore.put`.
        """
        self._check_open()
        self._closed = True
        task = self._begin()
        self._pieces.give(None)
        try:
            self.info = await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])  # bounded by the put's own clean-up
            raise
        return self.info

    async def abort(self) -> None:
        """Abort: nothing of the object is kept. Idempotent, and without effect after :meth:`commit`."""
        check_loop(self._connection.home)
        self._closed = True
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        if task is not None and not task.cancelled():
            task.exception()

    def _check_open(self) -> None:
        check_loop(self._connection.home)
        if self._closed:
            raise ConnectionClosedError("the writer is closed")

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):  # else its task ends by itself
            end_dropped(self, self._task, "use it with 'async with', or await commit() or abort()")

    async def __aenter__(self) -> ObjectWriter:
        self._check_open()
        self._begin()  # from now on Client.drain() lets it finish
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            await self.abort()
        elif not self._closed:
            await self.commit()
