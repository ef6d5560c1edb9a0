"""Read objects: whole into ``bytes``, a range, or block by block; links are followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from natsproto.errors import NatsError, PermissionsViolationError
from natsproto.jetstream.in_flight import in_flight

from ..bucket.bucket import RECHECK_DELAYS, Bucket
from ..bucket.message_reads import MessageRead, last_of
from ..bucket.ttl import expired
from ..bucket.ways import ANY_WAY, DIRECT, DIRECT_FIRST
from ..errors import (
    DigestMismatchError,
    IntegrityError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectTooLargeError,
)
from ..format.assembly import Assembly
from ..format.digest import hex_digest, new_hasher
from ..format.models import ObjectInfo
from ..format.naming import DEFAULT_CHUNK_SIZE, chunk_subject
from .doubled import doubled_chunks
from .expected import expected, note_larger
from .feed import DEFAULT_WINDOW, ChunkFeed
from .late_copies import late_copies
from .links import FollowLinks, check_follow_links, resolve
from .lookup import live_info
from .parts import Missing, NotWhole, damaged
from .ranges import forget_places, read_range
from .sinks import BlockSink, WholeSink

if TYPE_CHECKING:
    from ..bucket.operation import Progress

T = TypeVar("T")


DEFAULT_MAX_SIZE = 1 << 30
"""Bytes of the largest object that ``get`` reads into memory by default: 1 GiB."""

SMALL = DEFAULT_CHUNK_SIZE
"""Bytes up to which the only chunk of an object is requested by itself, not as a batch."""

COUNTED = 32 * 1024
"""Bytes from which that chunk counts as in flight: of smaller ones 1,000 at once are below the limit."""

FEW_CHUNKS = 64
"""Small chunks that are copied without checking whether as many are stored."""

Payload = bytes | bytearray | memoryview


def reading_window(window: int | None) -> int:
    """Return the window a caller asked for, or the default.

    Raises:
        ValueError: the window is not a positive number.
    """
    if window is None:
        return DEFAULT_WINDOW
    if not isinstance(window, int) or isinstance(window, bool) or window <= 0:
        raise ValueError(f"window must be a positive number of bytes, not {window!r}")
    return window


def same_bytes(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Whether two metas describe the same put. The nuid alone does not show it: see :func:`again`."""
    told, more = ((info.nuid, info.size, info.chunks, info.digest, info.links) for info in (one, other))
    return told == more


async def again(
    bucket: Bucket, info: ObjectInfo, exc: Missing | IntegrityError, *, retry: bool = False
) -> ObjectInfo:
    """After missing or wrong chunks, return the current object, as the leader reports it.

    Wrong counts may be correct a moment later: a writer removes a duplicate chunk when it learns of it, and a
    leader that was cut off continues to respond until it notices.

    Args:
        retry: the caller reads the returned object again, even if it is the same.

    Raises:
        NotWhole: the same object is intact; the caller would have to read it again.
        IntegrityError: the object has not changed, so it is damaged.
        ObjectDeletedError, ObjectNotFoundError: it was removed meanwhile, or its chunks have expired.
        NatsError: this could not be determined.
    """
    forget_places(bucket, info)
    odd = isinstance(exc, Missing)
    for wait in RECHECK_DELAYS:
        await asyncio.sleep(wait)
        if bucket.can_request(bucket.meta_subject(info.name)):
            fresh = await live_info(bucket, info.name, leader=True)
        else:
            fresh = info  # its name is too long for this user to ask for it
        if not same_bytes(fresh, info):
            return fresh  # an upload sent again may have stored other bytes under the same nuid
        if isinstance(exc, DigestMismatchError):
            break
        if await bucket.stored_chunks(info.nuid, info.chunks) == info.chunks:
            if retry:
                return fresh
            if odd or await _is_whole(bucket, info):
                raise NotWhole(
                    f"object {info.name!r} in bucket {info.bucket!r} could not be read whole: read it again"
                )
            break
        odd = True
    if not isinstance(exc, Missing):
        raise exc
    if bucket.max_age is not None or expired(info):
        # The chunks are older than the meta by the duration of the upload, and expire before it.
        raise ObjectNotFoundError(
            f"object {info.name!r} in bucket {info.bucket!r} has expired",
            bucket=info.bucket,
            name=info.name,
        ) from None
    raise IntegrityError(
        f"object {info.name!r} in bucket {info.bucket!r} is damaged: chunks are missing",
        bucket=info.bucket,
        name=info.name,
    ) from None


async def _read_twice(
    bucket: Bucket,
    name: str,
    follow: FollowLinks,
    read: Callable[[Bucket, ObjectInfo], Awaitable[T]],
    *,
    show_deleted: bool = False,
) -> T:
    """Call ``read`` with the object of a name; if it is replaced meanwhile, call it again with the new one.

    Raises:
        ObjectChangedError: the object was replaced again.
        IntegrityError, NatsError: as for :func:`again`.
    """
    asked = bucket
    bucket, info = await resolve(asked, name, follow, show_deleted=show_deleted)
    try:
        return await read(bucket, info)
    except (Missing, IntegrityError) as exc:
        info = await again(bucket, info, exc, retry=True)
    if info.is_link:
        bucket, info = await resolve(asked, name, follow)
    try:
        return await read(bucket, info)
    except (Missing, IntegrityError) as exc:
        raise changed(await again(bucket, info, exc)) from None


def get_bytes(
    bucket: Bucket,
    name: str,
    *,
    max_size: int | None,
    verify: bool,
    progress: Progress | None = None,
    window: int | None = None,
    follow: FollowLinks = "all",
    show_deleted: bool = False,
) -> Awaitable[bytes]:
    """Read a whole object; if it is replaced meanwhile, read it again."""
    limit = DEFAULT_MAX_SIZE if max_size is None else max_size
    room = reading_window(window)

    async def read(bucket: Bucket, info: ObjectInfo) -> bytes:
        if info.deleted:
            return b""
        if info.size > limit:
            raise ObjectTooLargeError(
                f"object {info.name!r} has {info.size} bytes, more than max_size={limit}: raise max_size, "
                "or use get_file()",
                bucket=info.bucket,
                name=info.name,
                size=info.size,
                max_size=limit,
            )
        data = await only_chunk(bucket, info) if verify else None
        if data is not None:
            if progress is not None:
                progress(info.size, info.size)
            return data
        sink = WholeSink(info, verify=verify, progress=progress)
        try:
            if info.size or info.chunks:
                await ChunkFeed(bucket, info, sink, window=room).run()
            return sink.finish()
        except (MemoryError, OverflowError) as exc:
            raise no_room(info, info.size, limit) from exc
        finally:
            sink.release()

    return _read_twice(bucket, name, check_follow_links(follow), read, show_deleted=show_deleted)


async def get_part(bucket: Bucket, info: ObjectInfo, start: int, end: int) -> bytes:
    """Return bytes of exactly the object that ``info`` describes; the whole of it is verified.

    Args:
        start, end: within the object.

    Raises:
        ObjectChangedError: it was replaced.
        IntegrityError, NatsError: as for :func:`again`.
    """
    try:
        if end - start < info.size:
            return await read_range(bucket, info, start, end) if start < end else b""
        return await _whole(bucket, info)
    except (Missing, IntegrityError) as exc:
        raise changed(await again(bucket, info, exc)) from None
    except (MemoryError, OverflowError) as exc:
        raise no_room(info, end - start, 0) from exc


async def _whole(bucket: Bucket, info: ObjectInfo) -> bytes:
    """Return the bytes of an object, verified."""
    data = await only_chunk(bucket, info)
    if data is not None:
        return data
    sink = WholeSink(info, verify=True, progress=None)
    try:
        if info.size or info.chunks:
            await ChunkFeed(bucket, info, sink).run()
        return sink.finish()
    finally:
        sink.release()


async def only_chunk(bucket: Bucket, info: ObjectInfo) -> bytes | None:
    """Read a small object of one chunk by one plain direct get, proven by its digest.

    Return ``None`` for other objects, and after an error or wrong bytes: :class:`ChunkFeed` then handles the
    case.
    """
    if info.chunks != 1 or not 0 < info.size <= SMALL or not bucket.direct:
        return None
    size = expected(bucket, info.size)
    try:
        if size < COUNTED:
            data = await _only(bucket, info)
        else:
            async with in_flight(bucket.connection).during(size):
                data = await _only(bucket, info)
    except PermissionsViolationError as exc:
        bucket.ways.note_refusal(exc)
        return None
    except NatsError:
        return None
    if len(data) != info.size or hex_digest(new_hasher(data).digest()) != info.digest:
        if len(data) > info.size:
            note_larger(bucket, len(data))
        return None
    return data if type(data) is bytes else bytes(data)


async def _only(bucket: Bucket, info: ObjectInfo) -> Payload:
    subject = chunk_subject(bucket.name, info.nuid)
    if bucket.ways.allowed(DIRECT):  # only the payload counts: no need to parse the headers
        request = last_of(subject), b"", bucket.js.timeout
        return (await bucket.client.request_frame(bucket.direct_subject, *request)).payload
    message = await MessageRead(bucket, subject, ways=DIRECT_FIRST).wait()
    return b"" if message is None else message.data


async def get_range(bucket: Bucket, name: str, start: int, end: int, follow: FollowLinks = "all") -> bytes:
    """Return bytes ``start`` to ``end`` of an object; if it is replaced meanwhile, of the new one."""
    if (
        not (isinstance(start, int) and isinstance(end, int))
        or isinstance(start, bool)
        or isinstance(end, bool)
    ):
        raise TypeError("start and end are integers")
    if not 0 <= start <= end:
        raise ValueError(f"a range needs 0 <= start <= end, got {start} and {end}")

    async def read(bucket: Bucket, info: ObjectInfo) -> bytes:
        if start > info.size:
            raise ValueError(f"the range begins at {start}, the object {info.name!r} has {info.size} bytes")
        stop = min(end, info.size)
        try:
            if stop - start == info.size:
                return await _whole(bucket, info)
            return await read_range(bucket, info, start, stop) if start < stop else b""
        except (MemoryError, OverflowError) as exc:
            raise no_room(info, stop - start, 0) from exc

    return await _read_twice(bucket, name, follow, read)


async def chunk_size_of(bucket: Bucket, info: ObjectInfo, limit: int) -> int | None:
    """Return the chunk size for a copy of an object; ``None`` = the default.

    It is never below the average size of the chunks: else a forged meta could cause millions of chunks. Many
    small chunks are allowed only if as many are stored.

    Raises:
        ObjectChangedError, IntegrityError, LookupError, NatsError: as for :func:`blocks`; fewer are stored.
    """
    if info.options is None:
        return None
    average = -(-info.size // info.chunks) if info.chunks else 0
    size = min(max(info.options.max_chunk_size, average), limit)
    if info.chunks > FEW_CHUNKS and size < DEFAULT_CHUNK_SIZE:
        stored = await bucket.stored_chunks(info.nuid, info.chunks)
        more = stored > info.chunks + 1  # some writers end objects with an empty chunk
        odd = more and await doubled_chunks(bucket, info, ANY_WAY) is None
        if stored < info.chunks or (odd and await late_copies(bucket, info, ANY_WAY) is None):
            exc: Missing | IntegrityError = Missing()
            if more:
                exc = damaged(info, f"{stored} chunks are stored, {info.chunks} recorded")
            fresh = await again(bucket, info, exc, retry=True)
            if not same_bytes(fresh, info):
                raise changed(info)
    return size


def no_room(info: ObjectInfo, size: int, max_size: int) -> ObjectTooLargeError:
    """Return the error for an object larger than memory: its meta may be wrong, so no MemoryError."""
    return ObjectTooLargeError(
        f"not enough memory for {size} bytes of object {info.name!r}: use get_file() or open_reader()",
        bucket=info.bucket,
        name=info.name,
        size=info.size,
        max_size=max_size,
    )


def changed(info: ObjectInfo) -> ObjectChangedError:
    """Return the error for an object that was replaced while it was being read."""
    return ObjectChangedError(
        f"object {info.name!r} in bucket {info.bucket!r} was replaced while it was being read",
        bucket=info.bucket,
        name=info.name,
    )


async def blocks(
    bucket: Bucket, info: ObjectInfo, *, verify: bool = True, window: int = DEFAULT_WINDOW
) -> AsyncGenerator[list[Payload], None]:
    """Read an object block by block: lists of buffers that are valid until the next block is requested.

    The end of the iteration means that everything was verified; before it, the blocks may be wrong.

    Raises:
        ObjectChangedError: the object was replaced meanwhile; discard the blocks.
        IntegrityError, NatsError: the read failed; discard the blocks.
    """
    if info.deleted:
        return  # without bytes, and so without anything to verify
    sink = BlockSink(info, Assembly(info, verify=verify), window=window)
    feed = ChunkFeed(bucket, info, sink, window=window)
    reading = feed.run() if info.size or info.chunks else nothing()
    async with aclosing(drain(bucket, info, sink, reading)) as source:
        async for block in source:
            yield block


async def drain(
    bucket: Bucket, info: ObjectInfo, sink: BlockSink, reading: Coroutine[object, None, None]
) -> AsyncGenerator[list[Payload], None]:
    """Yield the blocks of a sink while its feed runs."""
    try:
        async with aclosing(_filled(bucket, sink, reading)) as source:
            async for block in source:
                yield block
    except (Missing, IntegrityError) as exc:
        raise changed(await again(bucket, info, exc)) from None
    except (MemoryError, OverflowError) as exc:
        raise no_room(info, info.size, 0) from exc


async def _filled(
    bucket: Bucket, sink: BlockSink, reading: Coroutine[object, None, None]
) -> AsyncGenerator[list[Payload], None]:
    task = bucket.connection.spawn(sink.fill(reading), "objstore-feed")
    try:
        while (block := await sink.next_block()) is not None:
            yield block
    finally:
        task.cancel()
        await asyncio.wait([task])
        sink.release()


async def _is_whole(bucket: Bucket, info: ObjectInfo) -> bool:
    """Whether an object can be read now: a copy of a chunk may be gone that was there before."""
    sink = BlockSink(info, Assembly(info), window=DEFAULT_WINDOW)
    feed = ChunkFeed(bucket, info, sink, window=DEFAULT_WINDOW)
    try:
        async with aclosing(_filled(bucket, sink, feed.run())) as source:
            async for _ in source:
                pass
    except (Missing, IntegrityError):
        return False
    return True


async def nothing() -> None:
    return


async def buffers(bucket: Bucket, info: ObjectInfo) -> AsyncGenerator[Payload]:
    """Read an object buffer by buffer; see :func:`blocks`."""
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
    window: int = DEFAULT_WINDOW,
) -> None:
    """Read an object and pass each block to ``write`` in a thread; raises the errors of :func:`blocks`."""
    done = 0
    async with aclosing(blocks(bucket, info, verify=verify, window=window)) as source:
        async for block in source:
            await in_thread(write, block)
            done += sum(map(len, block))
            if progress is not None:
                progress(done, info.size)


async def in_thread(
    function: Callable[..., T], *args: object, give_up: Callable[[], object] | None = None
) -> T:
    """Run ``function`` in a thread; a cancelled call waits for it, since its resources are reused next.

    Args:
        give_up: called on cancellation, to make the function return early.
    """
    future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if give_up is not None:
            give_up()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
