"""Reading objects: whole into ``bytes``, block by block into a file, links followed."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from natsproto.errors import ConnectionClosedError

from ._bucket import Bucket, bind
from ._feed import WINDOW, ChunkFeed, Missing, WrongPlace
from ._range import Layout, find_part, prove, read_range
from .errors import (
    IntegrityError,
    LinkError,
    ObjectChangedError,
    ObjectDeletedError,
    ObjectNotFoundError,
    ObjectTooLargeError,
)
from .format.assembly import Assembly, BytesTarget
from .format.models import ObjectInfo
from .format.naming import is_safe_nuid

if TYPE_CHECKING:
    from ._put import Progress

MAX_LINKS = 8
"""How many links in a row are followed; making a link to a link is refused."""

DEFAULT_MAX_SIZE = 1 << 30
"""Largest object ``get`` takes into memory unless told otherwise: 1 GiB."""

ARENAS = 3
"""Windows of memory a streaming read may hold: one being read, one ready, one being received."""

Payload = bytes | bytearray | memoryview


def not_found(bucket: str, name: str) -> ObjectNotFoundError:
    """The error for a name without a meta message."""
    return ObjectNotFoundError(f"no object {name!r} in bucket {bucket!r}", bucket=bucket, name=name)


def deleted(info: ObjectInfo) -> ObjectDeletedError:
    """The error for a delete marker."""
    return ObjectDeletedError(
        f"object {info.name!r} in bucket {info.bucket!r} was deleted",
        bucket=info.bucket,
        name=info.name,
        revision=info.revision,
    )


async def live_info(bucket: Bucket, name: str, *, leader: bool = False) -> ObjectInfo:
    """The newest meta of a live object.

    Raises:
        ObjectNotFoundError, ObjectDeletedError.
    """
    info = await (bucket.leader_meta(name) if leader else bucket.read_meta(name))
    if info is None:
        raise not_found(bucket.name, name)
    if info.deleted:
        raise deleted(info)
    return info


async def resolve(bucket: Bucket, name: str) -> tuple[Bucket, ObjectInfo]:
    """The object a name stands for, with links followed, and the bucket it lies in.

    Raises:
        ObjectNotFoundError, ObjectDeletedError: the name itself.
        LinkError: a bucket link, a link that leads nowhere, in a circle, or too far.
    """
    info = await live_info(bucket, name)
    first = info
    seen = {(bucket.name, info.name)}
    while info.is_link:
        assert info.options is not None
        link = info.options.link
        assert link is not None

        def broken(why: str, link_bucket: str = link.bucket, link_name: str | None = link.name) -> LinkError:
            return LinkError(
                f"link {first.name!r} in bucket {first.bucket!r} {why}",
                bucket=first.bucket,
                name=first.name,
                target_bucket=link_bucket,
                target_name=link_name,
            )

        if link.name is None:
            raise broken(f"is a link to the bucket {link.bucket!r}: open that bucket instead")
        if (link.bucket, link.name) in seen:
            raise broken("leads in a circle")
        if len(seen) > MAX_LINKS:
            raise broken(f"leads through more than {MAX_LINKS} links")
        seen.add((link.bucket, link.name))
        try:
            if link.bucket != bucket.name:
                bucket = await bind(bucket.js, link.bucket)
            bucket.check_name(link.name)
            info = await live_info(bucket, link.name)
        except (LookupError, ValueError) as exc:
            raise broken(f"leads to {link.bucket}/{link.name}, which is not there: {exc}") from exc
    return bucket, info


class WholeSink:
    """The whole object in memory: never congested, payloads received straight into the result."""

    __slots__ = ("_assembly", "_progress", "_target")

    def __init__(self, info: ObjectInfo, *, verify: bool, progress: Progress | None) -> None:
        self._target = BytesTarget(info.size)
        self._assembly = Assembly(info, verify=verify, target=self._target)
        self._progress = progress

    def place(self, size: int) -> memoryview | None:
        return self._assembly.place(size)

    def accept(self, payload: Payload) -> None:
        self._assembly.accept(payload)
        if self._progress is not None:
            self._progress(self._assembly.received, self._assembly.info.size)

    def forget_places(self) -> None:
        self._assembly.forget_places()

    @property
    def complete(self) -> bool:
        return self._assembly.complete

    @property
    def congested(self) -> bool:
        return False

    async def drained(self) -> None:
        return

    def finish(self) -> bytes:
        """Judge and return the object."""
        self._assembly.finish()
        return self._target.getvalue()


class Judge(Protocol):
    """Who says whether the chunks are those of the object."""

    def accept(self, payload: Payload) -> None:
        """Take the next one; raises when it cannot belong."""
        ...

    @property
    def complete(self) -> bool:
        """Everything is here."""
        ...

    def finish(self) -> None:
        """Judge the whole."""
        ...


class BlockSink:
    """The object as a sequence of blocks: lists of buffers in order, about one window each.

    Large payloads are received into arenas that are used again once every block that points into them has
    been read. A block's buffers are valid until the block after it is asked for.
    """

    def __init__(self, info: ObjectInfo, judge: Judge, *, window: int = WINDOW) -> None:
        self._judge = judge
        self._limit = window
        self._arena_size = min(max(info.size, 1), window)
        self._arenas: list[_Arena] = []
        self._arena: _Arena | None = None
        # Places handed out whose payload was not accepted yet: the parser runs ahead of the reader.
        self._placed: deque[tuple[memoryview, _Arena]] = deque()
        self._block = _Block()
        self._ready: deque[_Block] = deque()
        self._reading: _Block | None = None
        self._wake_reader: asyncio.Future[None] | None = None
        self._wake_feed: asyncio.Future[None] | None = None
        self._over = False
        self._failure: BaseException | None = None

    # -- the feed's side --------------------------------------------------------------------------

    def place(self, size: int) -> memoryview | None:
        arena = self._arena
        if arena is None or arena.used + size > self._arena_size:
            self._arena = arena = self._free_arena()
            if arena is None or size > self._arena_size:
                return None
        view = arena.view[arena.used : arena.used + size]
        arena.used += size
        arena.users += 1
        self._placed.append((view, arena))
        return view

    def _free_arena(self) -> _Arena | None:
        for arena in self._arenas:
            if arena.users == 0:
                arena.used = 0
                return arena
        if len(self._arenas) == ARENAS:
            return None
        arena = _Arena(self._arena_size)
        self._arenas.append(arena)
        return arena

    def accept(self, payload: Payload) -> None:
        self._judge.accept(payload)
        if not payload:
            return
        block = self._block
        if self._is_placed(payload):
            block.arenas.append(self._placed.popleft()[1])
        block.buffers.append(payload)
        block.size += len(payload)
        if block.size >= self._limit:
            self._close_block()

    def _is_placed(self, payload: Payload) -> bool:
        """Whether the payload lies in the first place; places before it, never accepted, are given up."""
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
        return self._judge.complete

    @property
    def congested(self) -> bool:
        return len(self._ready) >= 2

    async def drained(self) -> None:
        while self.congested:
            self._wake_feed = asyncio.get_running_loop().create_future()
            await self._wake_feed

    async def fill(self, reading: Awaitable[None]) -> None:
        """Run the feed of this sink; the reader raises whatever it fails with."""
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

    async def next_block(self) -> list[Payload] | None:
        """The next block, or ``None`` at the end of the verified object.

        Raises:
            IntegrityError, DigestMismatchError, NatsError: what went before must not be used.
        """
        if self._reading is not None:
            for arena in self._reading.arenas:
                arena.users -= 1
            self._reading = None
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            if self._over:
                self._judge.finish()
                return None
            self._wake_reader = asyncio.get_running_loop().create_future()
            await self._wake_reader
        self._reading = self._ready.popleft()
        _wake(self._wake_feed)
        return self._reading.buffers


class _Arena:
    """Memory that payloads are received into; ``users`` counts the payloads not yet read."""

    __slots__ = ("used", "users", "view")

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))
        self.used = 0
        self.users = 0


class _Block:
    """A run of payloads, and the arenas they lie in (once per payload)."""

    __slots__ = ("arenas", "buffers", "size")

    def __init__(self) -> None:
        self.arenas: list[_Arena] = []
        self.buffers: list[Payload] = []
        self.size = 0


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def _again(bucket: Bucket, info: ObjectInfo, exc: BaseException) -> ObjectInfo:
    """After missing or wrong chunks: what the leader says the object is now.

    Raises:
        IntegrityError: the same object is still there, so it is damaged.
        ObjectDeletedError, ObjectNotFoundError: it was removed meanwhile.
    """
    fresh = await live_info(bucket, info.name, leader=True)
    if fresh.nuid != info.nuid:
        return fresh
    if isinstance(exc, Missing):
        raise IntegrityError(
            f"object {info.name!r} in bucket {info.bucket!r} is damaged: chunks are missing",
            bucket=info.bucket,
            name=info.name,
        ) from None
    raise exc


async def get_bytes(
    bucket: Bucket, name: str, *, max_size: int, verify: bool, progress: Progress | None = None
) -> tuple[ObjectInfo, bytes]:
    """Read a whole object; replaced while being read, it is read once more."""
    bucket, info = await resolve(bucket, name)
    for last in (False, True):
        if info.size > max_size:
            raise ObjectTooLargeError(
                f"object {info.name!r} has {info.size} bytes, more than max_size={max_size}: raise max_size, "
                "or use get_file()",
                bucket=info.bucket,
                name=info.name,
                size=info.size,
                max_size=max_size,
            )
        sink = WholeSink(info, verify=verify, progress=progress)
        try:
            if info.size or info.chunks:
                await ChunkFeed(bucket, info, sink).run()
            return info, sink.finish()
        except (Missing, IntegrityError) as exc:
            info = await _again(bucket, info, exc)
            if last:
                raise changed(info) from None
            if info.is_link:
                bucket, info = await resolve(bucket, name)
    raise AssertionError("unreachable")


async def get_range(bucket: Bucket, name: str, start: int, end: int) -> bytes:
    """Bytes ``start`` to ``end`` of an object; replaced meanwhile, the new one is read."""
    if (
        not (isinstance(start, int) and isinstance(end, int))
        or isinstance(start, bool)
        or isinstance(end, bool)
    ):
        raise TypeError("start and end are integers")
    if not 0 <= start <= end:
        raise ValueError(f"a range needs 0 <= start <= end, got {start} and {end}")
    bucket, info = await resolve(bucket, name)
    for last in (False, True):
        if start > info.size:
            raise ValueError(f"the range begins at {start}, the object {info.name!r} has {info.size} bytes")
        stop = min(end, info.size)
        if start == stop:
            return b""
        try:
            return await read_range(bucket, info, start, stop)
        except (Missing, IntegrityError) as exc:
            info = await _again(bucket, info, exc)
            if last:
                raise changed(info) from None
            if info.is_link:
                bucket, info = await resolve(bucket, name)
    raise AssertionError("unreachable")


def changed(info: ObjectInfo) -> ObjectChangedError:
    """The error for an object that was replaced while it was being read."""
    return ObjectChangedError(
        f"object {info.name!r} in bucket {info.bucket!r} was replaced while it was being read",
        bucket=info.bucket,
        name=info.name,
    )


async def blocks(
    bucket: Bucket, info: ObjectInfo, *, verify: bool = True
) -> AsyncGenerator[list[Payload], None]:
    """Read an object block by block, each a list of buffers that are valid until the next one is asked for.

    The end of the iteration means that everything was verified; until then, what came may be wrong.

    Raises:
        ObjectChangedError: replaced while being read; what came must be thrown away.
        IntegrityError, NatsError: likewise.
    """
    sink = BlockSink(info, Assembly(info, verify=verify))
    reading = ChunkFeed(bucket, info, sink).run() if info.size or info.chunks else _nothing()
    async with aclosing(_drain(bucket, info, sink, reading)) as source:
        async for block in source:
            yield block


async def _drain(
    bucket: Bucket, info: ObjectInfo, sink: BlockSink, reading: Coroutine[Any, Any, None]
) -> AsyncGenerator[list[Payload], None]:
    """The blocks of a sink while its feed runs."""
    task = bucket.client._connection.spawn(sink.fill(reading), "objstore-feed")
    try:
        while (block := await sink.next_block()) is not None:
            yield block
    except (Missing, IntegrityError) as exc:
        raise changed(await _again(bucket, info, exc)) from None
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _nothing() -> None:
    return


async def buffers(bucket: Bucket, info: ObjectInfo) -> AsyncGenerator[Payload]:
    """:func:`blocks`, buffer by buffer."""
    async with aclosing(blocks(bucket, info)) as source:
        async for block in source:
            for buffer in block:
                yield buffer


async def copy_blocks(
    bucket: Bucket,
    info: ObjectInfo,
    write: Callable[[list[Payload]], object],
    *,
    verify: bool,
    progress: Progress | None,
) -> None:
    """Read an object and pass each block to ``write``, which runs in a thread; raises as :func:`blocks`."""
    done = 0
    async with aclosing(blocks(bucket, info, verify=verify)) as source:
        async for block in source:
            await _in_thread(write, block)
            done += sum(map(len, block))
            if progress is not None:
                progress(done, info.size)


async def _in_thread(function: Callable[..., object], *args: object) -> None:
    """Run ``function`` in a thread; a cancellation waits for it: what it uses is reused or removed next."""
    future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise


async def get_file(
    bucket: Bucket,
    name: str,
    path: str,
    *,
    verify: bool,
    progress: Progress | None = None,
    resume: bool = False,
) -> ObjectInfo:
    """Read an object into a file that appears, complete and verified, or not at all."""
    bucket, info = await resolve(bucket, name)
    directory, base = os.path.split(path)
    # The nuid tells one put from the next: what is left of another one is never continued.
    mark = info.nuid if resume and is_safe_nuid(info.nuid) else secrets.token_hex(6)
    temporary = os.path.join(directory, f".{base[:100]}.{mark}.part")
    opened: list[BinaryIO] = []
    try:
        try:
            await _in_thread(lambda: opened.append(_reopen(temporary) if resume else _create(temporary)))
            (file,) = opened
            if resume:
                await _continue(bucket, info, file, verify=verify, progress=progress)
            else:
                await copy_blocks(bucket, info, file.writelines, verify=verify, progress=progress)
            await _in_thread(_finish, file, temporary, path)
        finally:
            for file in opened:
                file.close()
    except BaseException as exc:
        # To be continued, unless what is there has turned out to be wrong.
        if opened and (not resume or isinstance(exc, IntegrityError | ObjectChangedError)):
            _remove(temporary)
        raise
    return info


async def _continue(
    bucket: Bucket, info: ObjectInfo, file: BinaryIO, *, verify: bool, progress: Progress | None
) -> None:
    """Fill a file that may hold a beginning already: that is hashed again, the rest is read."""
    layout = Layout(info)
    assembly = Assembly(info, verify=verify)
    have = min(file.seek(0, os.SEEK_END), info.size)
    if have and info.chunks:
        if not layout.proven:
            await prove(bucket, info, layout)
        first = info.chunks if have == info.size else layout.index_of(have)
        done = info.size if have == info.size else layout.offset_of(first)
    else:
        first = done = 0
    lengths = [layout.length_of(index) for index in range(first)]
    await _in_thread(_hash_again, file, lengths, assembly)
    if assembly.complete:
        assembly.finish()
        return
    part = layout.part(done, info.size) if first else None
    for guess in (True, False):
        sink = BlockSink(info, assembly)
        reading = ChunkFeed(bucket, info, sink, part=part).run() if info.size or info.chunks else _nothing()
        try:
            async with aclosing(_drain(bucket, info, sink, reading)) as source:
                async for block in source:
                    await _in_thread(file.writelines, block)
                    done += sum(map(len, block))
                    if progress is not None:
                        progress(done, info.size)
            return
        except WrongPlace:
            if not guess:
                raise changed(await _again(bucket, info, Missing())) from None
            part = await find_part(bucket, info, layout, done, info.size)


def _hash_again(file: BinaryIO, lengths: list[int], assembly: Assembly) -> None:
    """Take in the chunks the file has, and cut off what is no whole chunk."""
    file.seek(0)
    for length in lengths:
        assembly.accept(file.read(length))
    file.truncate(sum(lengths))
    file.seek(0, os.SEEK_END)


def _reopen(path: str) -> BinaryIO:
    """Open or create a file that may have been begun; never follows a link; one process at a time.

    Raises:
        BlockingIOError: another process is filling it.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    file = os.fdopen(os.open(path, flags, 0o666), "r+b")
    try:
        import fcntl
    except ImportError:
        return file  # no such locks here
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _create(path: str) -> BinaryIO:
    """Create a file; never follows or reuses what is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def _finish(file: BinaryIO, temporary: str, path: str) -> None:
    """On disk first, then under its name, then the name on disk."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(temporary, path)
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:
        return  # a platform that does not open directories
    try:
        os.fsync(directory)
    except OSError:
        pass
    finally:
        os.close(directory)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
