"""Read an object as a stream: iterate, read, readinto, seek."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, NoReturn

from natsproto.aio.operations import Hold, check_loop
from natsproto.errors import ConnectionClosedError
from natsproto.wire.memory import Room

from ..bucket.bucket import Bucket
from ..bucket.dropped import end_dropped
from ..errors import IntegrityError
from ..format.assembly import Assembly
from ..format.marks import shown
from .feed import DEFAULT_WINDOW, ChunkFeed
from .get import again, changed, no_room, nothing
from .links import FollowLinks
from .parts import Missing, WrongPlace
from .ranges import Irregular, Layout, another_part, check_none_newer, find_part
from .sinks import BlockSink

if TYPE_CHECKING:
    from types import TracebackType

    from ..format.models import ObjectInfo
    from .parts import Part
    from .sinks import Verifier

Payload = bytes | bytearray | memoryview

LITTLE = 64 * 1024
"""Bytes up to which a copy costs less than memory that is allocated lazily."""


class PartVerifier:
    """Counts the chunks of a part and checks their lengths; the digest covers only the whole object."""

    __slots__ = ("_index", "_last", "_layout")

    def __init__(self, layout: Layout, part: Part) -> None:
        self._layout = layout
        self._index = part.first
        self._last = part.last

    def accept(self, payload: Payload) -> None:
        if self._index > self._last:
            return
        if len(payload) != self._layout.length_of(self._index):
            raise Irregular
        self._index += 1

    @property
    def complete(self) -> bool:
        return self._index > self._last

    def finish(self) -> None:
        return


class ObjectReader:
    """An open object; created by :meth:`ObjectStore.open_reader`, used with ``async with``.

    It reads ahead by at most four windows (16 MiB); if the application does not read, nothing more is
    requested. An object read from beginning to end is verified, and the read that reaches the end raises if
    the bytes are not those of the put: until then they may be wrong. After a seek only lengths are checked. A
    cancelled read leaves the position unchanged. Only one task at a time may use a reader.

    A reader that is dropped without being closed ends by itself, with a ``ResourceWarning``.

    Attributes:
        info: the object (a link's target for a link).
    """

    def __init__(
        self, bucket: Bucket, info: ObjectInfo, *, verify: bool, window: int = DEFAULT_WINDOW
    ) -> None:
        self.info = info
        self._bucket = bucket
        self._verify = verify
        self._window = window
        self._position = 0
        self._layout = Layout(info)
        self._sink: BlockSink | None = None
        self._task: asyncio.Task[None] | None = None
        self._buffers: list[memoryview] = []  # of the current block, the next buffer last
        self._skip = 0
        self._failure: Missing | IntegrityError | None = None  # the cause of its failure
        self._closed = False

    # -- position ---------------------------------------------------------------------------------

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._position

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset, as :meth:`io.IOBase.seek`; costs nothing until the next read.

        Beyond the end reads return ``b""``.

        Raises:
            ValueError: the offset is before the beginning, or ``whence`` is unknown.
        """
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.info.size}.get(whence)
        if base is None:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence!r}")
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}: before the beginning")
        if base + offset != self._position or self._failure is not None:
            await self._stop()
            self._failure = None
            self._position = base + offset
        return self._position

    # -- reading ----------------------------------------------------------------------------------

    async def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes, fewer only at the end; -1 reads the rest.

        Raises:
            IntegrityError, DigestMismatchError: the object is damaged, detected at its end.
            ObjectChangedError: the object was replaced meanwhile: start again.
            NatsError: the read could not be resumed.
        """
        self._check_open()
        left = max(0, self.info.size - self._position)
        size = left if size is None or size < 0 else min(size, left)
        if size <= LITTLE:
            data = bytearray(size)
            done = await self.readinto(data)
            return bytes(data[:done]) if done < size else bytes(data)
        try:
            room = Room(size)  # takes no memory until it is written to: the meta's size may be wrong
        except (MemoryError, OverflowError) as exc:
            raise no_room(self.info, size, 0) from exc
        try:
            done = await self.readinto(room.view)
            return room.getvalue() if done == size else bytes(room.view[:done])
        finally:
            room.release()  # an error that someone keeps then keeps no memory

    async def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer, less only at the end; return the number of bytes. This is the cheapest way to read.

        Raises:
            IntegrityError, ObjectChangedError, NatsError: as for :meth:`read`.
        """
        self._check_open()
        view = _writable(buffer)
        done = 0
        try:
            while done < len(view) or not self.info.size:
                with await self._next(len(view) - done) as piece:
                    if not piece:
                        break
                    view[done : done + len(piece)] = piece
                    done += len(piece)
        except asyncio.CancelledError:
            # The next call gets these bytes again: none is skipped, and the whole is still verified.
            if done:
                self._give_back(memoryview(bytes(view[:done])))
            raise
        finally:
            view.release()
        return done

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece, of about a chunk."""
        self._check_open()
        piece = await self._next(self.info.size)
        if not piece:
            raise StopAsyncIteration
        return bytes(piece)

    async def _next(self, limit: int) -> memoryview:
        """Return at most ``limit`` bytes at the position; empty at the end, after verification."""
        if self._failure is not None:
            await self._fail(self._failure)
        try:
            while not self._buffers:
                if self._sink is None:
                    if self._position >= max(1, self.info.size):
                        return memoryview(b"")
                    await self._start()  # for an empty object, too: its meta is checked
                assert self._sink is not None
                try:
                    block = await self._sink.next_block()
                except (Irregular, WrongPlace):
                    await self._other_way()
                    continue
                if block is None:
                    return memoryview(b"")
                self._buffers = [memoryview(buffer) for buffer in reversed(block)]
                self._drop(self._skip)
        except (Missing, IntegrityError) as exc:
            await self._fail(exc)
        except MemoryError as exc:
            await self._stop()
            raise no_room(self.info, self._window, 0) from exc
        piece = self._buffers.pop()
        if len(piece) > limit:
            self._buffers.append(piece[limit:])
            piece = piece[:limit]
        self._position += len(piece)
        if self._position >= self.info.size:
            try:
                await self._verify_end()
            except asyncio.CancelledError:
                self._give_back(piece)
                raise
            except BaseException:
                self._position -= len(piece)  # it was not returned: the next read raises again
                raise
        return piece

    async def _fail(self, exc: Missing | IntegrityError) -> NoReturn:
        """Ask the leader for the reason, and raise it; every later read does so again, until :meth:`seek`.

        An earlier call may have failed to determine it: it was cancelled, or the leader did not respond.
        """
        self._failure = exc
        await self._stop()
        raise changed(await again(self._bucket, self.info, exc)) from None

    def _give_back(self, piece: memoryview) -> None:
        self._buffers.append(piece)
        self._position -= len(piece)

    async def _verify_end(self) -> None:
        """Verify the whole object before the last byte is returned."""
        sink = self._sink
        if sink is not None and not self._buffers:
            try:
                while await sink.next_block() is not None:
                    pass
            except (Missing, IntegrityError) as exc:
                await self._fail(exc)

    def _drop(self, count: int) -> None:
        """Skip the bytes of the first chunk that lie before the position."""
        self._skip = 0
        while count and self._buffers:
            first = self._buffers.pop()
            if len(first) > count:
                self._buffers.append(first[count:])
                return
            count -= len(first)

    # -- the feed ---------------------------------------------------------------------------------

    async def _start(self) -> None:
        info = self.info
        if self._position == 0:
            self._run(Assembly(info, verify=self._verify), None)
            return
        bounds = self._position, info.size
        part = await find_part(self._bucket, info, self._layout, *bounds)
        if part.seq_of is None and part.first < part.last:
            try:
                await check_none_newer(self._bucket, info)
            except WrongPlace:
                part = await another_part(self._bucket, info, self._layout, *bounds)
        self._run_part(part)

    def _run_part(self, part: Part) -> None:
        self._skip = self._position - self._layout.offset_of(part.first)
        self._run(PartVerifier(self._layout, part), part)

    async def _other_way(self) -> None:
        """Go on after a chunk of another length than assumed, or one that is not the first one wanted."""
        await self._stop()
        info = self.info
        self._run_part(await another_part(self._bucket, info, self._layout, self._position, info.size))

    def _run(self, verifier: Verifier, part: Part | None) -> None:
        self._sink = sink = BlockSink(self.info, verifier, window=self._window)
        feed = ChunkFeed(self._bucket, self.info, sink, window=self._window, part=part)
        reading = feed.run() if self.info.size or self.info.chunks else nothing()
        self._task = self._bucket.connection.spawn(sink.fill(reading), "objstore-reader")

    def _release(self) -> None:
        """Release the views explicitly: a garbage collection would release them in any order."""
        buffers, self._buffers = self._buffers, []
        for view in buffers:
            view.release()

    async def _stop(self) -> None:
        sink, self._sink = self._sink, None
        self._release()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if sink is not None:
            sink.release()

    # -- end --------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        check_loop(self._bucket.connection.home)
        if self._closed:
            raise ConnectionClosedError("the reader is closed")

    async def aclose(self) -> None:
        """Stop reading; leave nothing on the server. Idempotent."""
        check_loop(self._bucket.connection.home)
        self._closed = True
        await self._stop()

    async def __aenter__(self) -> ObjectReader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # The reading task refers to the sink and not to this object.
        task = getattr(self, "_task", None)
        if task is not None:
            self._sink = self._task = None
            self._release()
            end_dropped(self, task, "use it with 'async with', or await aclose()")

    def __repr__(self) -> str:
        return f"<ObjectReader {self.info.bucket}/{self.info.name} at {self._position} of {self.info.size}>"


def _writable(buffer: bytearray | memoryview) -> memoryview:
    """Return a flat view of the buffer's bytes; refuse an unusable buffer before reading.

    Raises:
        TypeError: the buffer is read-only or not contiguous.
    """
    view = memoryview(buffer)
    if view.readonly:
        raise TypeError(f"readinto() needs a buffer that can be written to, not {type(buffer).__name__}")
    if not view.nbytes:
        return memoryview(bytearray())  # a view with a 0 in its shape cannot be cast
    if not view.c_contiguous:
        raise TypeError("readinto() needs a contiguous buffer")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


class OpenReader:
    """The result of :meth:`ObjectStore.open_reader`: use it with ``async with``, or await and close it."""

    __slots__ = ("_bucket", "_follow", "_hold", "_name", "_reader", "_show_deleted", "_verify", "_window")

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        *,
        verify: bool,
        window: int,
        follow: FollowLinks = "all",
        show_deleted: bool = False,
    ) -> None:
        self._follow = follow
        self._show_deleted = show_deleted
        self._bucket = bucket
        self._name = name
        self._verify = verify
        self._window = window
        self._reader: ObjectReader | None = None
        self._hold: Hold | None = None

    async def _open(self) -> ObjectReader:
        from .links import resolve

        with self._bucket.connection.operation():
            bucket, info = await resolve(
                self._bucket, self._name, self._follow, show_deleted=self._show_deleted
            )
        verify = self._verify and not info.deleted
        return ObjectReader(bucket, shown(info), verify=verify, window=self._window)

    def __await__(self) -> Generator[object, None, ObjectReader]:
        return self._open().__await__()

    async def __aenter__(self) -> ObjectReader:
        self._reader = await self._open()
        self._hold = self._bucket.connection.hold()  # Client.drain() lets the read finish
        return self._reader

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hold is not None:
            self._hold.release()
        if self._reader is not None:
            await self._reader.aclose()
