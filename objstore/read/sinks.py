"""Destinations of chunks: the whole object in memory, or a sequence of blocks with back-pressure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from time import thread_time
from typing import TYPE_CHECKING, Protocol

from natsproto.errors import ConnectionClosedError

from ..format.assembly import Assembly
from ..format.memory import SPILL, BytesTarget, Places
from .feed import DEFAULT_WINDOW

if TYPE_CHECKING:
    from natsproto.wire import Target

    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo

BLOCK_BUFFERS = 4
"""Block buffers of a streaming read, one window each: one being read, one ready, two being received."""

Payload = bytes | bytearray | memoryview


class WholeSink:
    """The whole object in memory: never congested; payloads are received directly into the result."""

    __slots__ = ("_assembly", "_places", "_progress", "_target")

    def __init__(self, info: ObjectInfo, *, verify: bool, progress: Progress | None) -> None:
        self._target = BytesTarget(info.size, thread_time)
        self._assembly = Assembly(info, verify=verify)
        self._places = Places(self._target)
        self._progress = progress

    def reserve(self) -> None:
        self._target.reserve()

    def place(self, size: int) -> Target:
        slot = self._places.place(size)
        if slot is None:
            return None
        roomy = self._places.place_with_room()
        return slot if roomy is None else (slot, roomy)

    def accept(self, payload: Payload) -> None:
        self._assembly.accept(payload)
        if payload:
            self._places.store(payload)
        if self._progress is not None:
            self._progress(self._assembly.received, self._assembly.info.size)

    def forget_places(self) -> None:
        self._places.forget()

    @property
    def complete(self) -> bool:
        return self._assembly.complete

    @property
    def congested(self) -> bool:
        return False

    async def drained(self) -> None:
        return

    def finish(self) -> bytes:
        """Verify and return the object."""
        self._assembly.finish()
        return self._target.getvalue()

    def release(self) -> None:
        """End the read: an error that someone keeps then keeps no memory."""
        self._places.release()


class Verifier(Protocol):
    """Decides whether the chunks are those of the object."""

    def accept(self, payload: Payload) -> None:
        """Take the next chunk; raise if it cannot belong to the object."""
        ...

    @property
    def complete(self) -> bool:
        """Whether everything has arrived."""
        ...

    def finish(self) -> None:
        """Verify the whole."""
        ...


class BlockSink:
    """The object as a sequence of blocks: lists of payloads in order, about one window each.

    Large payloads are received into block buffers, which are reused once every block that points into them
    has been read. A block's payloads are valid until the next block is requested.
    """

    def __init__(self, info: ObjectInfo, verifier: Verifier, *, window: int = DEFAULT_WINDOW) -> None:
        self._verifier = verifier
        self._limit = window
        self._block_buffer_size = min(max(info.size, 1), window)
        self._block_buffers: list[_BlockBuffer] = []
        self._block_buffer: _BlockBuffer | None = None
        # Destinations whose payload was not accepted yet: the parser runs ahead of the reader.
        self._placed: deque[tuple[memoryview, _BlockBuffer]] = deque()
        self._block = _Block()
        self._ready: deque[_Block] = deque()
        self._reading: _Block | None = None
        self._wake_reader: asyncio.Future[None] | None = None
        self._wake_feed: asyncio.Future[None] | None = None
        self._over = False
        self._failure: BaseException | None = None

    # -- the feed's side --------------------------------------------------------------------------

    def reserve(self) -> None:
        if self._block_buffer is None:
            self._block_buffer = self._free_block_buffer()

    def place(self, size: int) -> Target:
        buffer = self._block_buffer
        if buffer is None or buffer.used + size > self._block_buffer_size:
            self._block_buffer = buffer = self._free_block_buffer()
            if buffer is None or size > self._block_buffer_size:
                return None
        view = buffer.view[buffer.used : buffer.used + size]
        buffer.used += size
        buffer.users += 1
        self._placed.append((view, buffer))
        room = min(SPILL, self._block_buffer_size - buffer.used)  # slack: not in use yet
        return (view, buffer.view[buffer.used - size : buffer.used + room]) if room else view

    def _free_block_buffer(self) -> _BlockBuffer | None:
        for buffer in self._block_buffers:
            if buffer.users == 0:
                buffer.used = 0
                return buffer
        if len(self._block_buffers) == BLOCK_BUFFERS:
            return None
        buffer = _BlockBuffer(self._block_buffer_size)
        self._block_buffers.append(buffer)
        return buffer

    def accept(self, payload: Payload) -> None:
        self._verifier.accept(payload)
        if not payload:
            return
        block = self._block
        if self._is_placed(payload):
            block.memory.append(self._placed.popleft()[1])
        block.buffers.append(payload)
        block.size += len(payload)
        if block.size >= self._limit:
            self._close_block()

    def _is_placed(self, payload: Payload) -> bool:
        """Whether the payload lies in a destination; earlier ones, whose payload never came, are given up."""
        if self._placed and self._placed[0][0] is payload:
            return True
        if not any(payload is view for view, _ in self._placed):
            return False
        while self._placed[0][0] is not payload:
            self._placed.popleft()[1].users -= 1
        return True

    def _close_block(self) -> None:
        if self._block.buffers:
            self._ready.append(self._block)
            self._block = _Block()
            _wake(self._wake_reader)

    def forget_places(self) -> None:
        while self._placed:
            self._placed.popleft()[1].users -= 1

    @property
    def complete(self) -> bool:
        return self._verifier.complete

    @property
    def congested(self) -> bool:
        return len(self._ready) >= 2

    async def drained(self) -> None:
        while self.congested:
            self._wake_feed = asyncio.get_running_loop().create_future()
            await self._wake_feed

    async def fill(self, reading: Awaitable[None]) -> None:
        """Run the feed of this sink; the reader raises the feed's error."""
        try:
            await reading
        except asyncio.CancelledError:
            self._end(ConnectionClosedError("the read was given up"))
            raise
        except BaseException as exc:
            self._end(exc)
        else:
            self._close_block()
            self._end(None)

    def _end(self, failure: BaseException | None) -> None:
        self._over = True
        self._failure = failure
        _wake(self._wake_reader)

    # -- the reader's side ------------------------------------------------------------------------

    def release(self) -> None:
        """End the read: only the buffers that the reader still holds keep memory."""
        self._end_reading()
        self._block_buffer = None
        self._block = _Block()
        for memory in (self._block_buffers, self._placed, self._ready):
            memory.clear()

    async def next_block(self) -> list[Payload] | None:
        """Return the next block, or ``None`` at the end of the verified object.

        Raises:
            IntegrityError, DigestMismatchError, NatsError: the previous blocks must not be used.
        """
        self._end_reading()
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            if self._over:
                self._verifier.finish()
                return None
            self._wake_reader = asyncio.get_running_loop().create_future()
            await self._wake_reader
        self._reading = self._ready.popleft()
        _wake(self._wake_feed)
        return self._reading.buffers

    def _end_reading(self) -> None:
        """End the block read last: it is no longer valid, and a traceback with it keeps no memory."""
        if self._reading is not None:
            self._reading.buffers.clear()
            for buffer in self._reading.memory:
                buffer.users -= 1
            self._reading = None


class _BlockBuffer:
    """Memory into which payloads are received; ``users`` counts the payloads not read yet."""

    __slots__ = ("used", "users", "view")

    def __init__(self, size: int) -> None:
        self.view = BytesTarget(size).slot(0, size)  # takes no memory until it is written to
        self.used = 0
        self.users = 0


class _Block:
    """Consecutive payloads, and the block buffers they lie in (once per payload)."""

    __slots__ = ("buffers", "memory", "size")

    def __init__(self) -> None:
        self.memory: list[_BlockBuffer] = []
        self.buffers: list[Payload] = []
        self.size = 0


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
