"""Reading objects: whole into ``bytes``, a range, block by block; links followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from natsproto.errors import NatsError, PermissionsViolationError, StaleConnectionError

from ..bucket.bucket import LOOKS, Bucket
from ..bucket.message_reads import DIRECT, DIRECT_FIRST, MessageRead, last_of
from ..bucket.ttl import expired
from ..errors import (
    DigestMismatchError,
    IntegrityError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectTooLargeError,
)
from ..format.assembly import Assembly
from ..format.digest import new_hasher, parse_digest
from ..format.models import ObjectInfo
from ..format.naming import DEFAULT_CHUNK_SIZE, chunk_subject
from .feed import DEFAULT_WINDOW, ChunkFeed
from .links import FollowLinks, resolve
from .lookup import live_info
from .parts import Missing, damaged
from .ranges import read_range
from .sinks import BlockSink, WholeSink

if TYPE_CHECKING:
    from ..bucket.operation import Progress

T = TypeVar("T")


DEFAULT_MAX_SIZE = 1 << 30
"""Largest object ``get`` takes into memory unless told otherwise: 1 GiB."""

SMALL = DEFAULT_CHUNK_SIZE
"""Up to this size the only chunk of an object is asked for by itself, not as a batch."""

FEW_CHUNKS = 64
"""So many small chunks are copied without a look whether as many are stored."""

Payload = bytes | bytearray | memoryview


def reading_window(window: int | None) -> int:
    """The window a caller asked for, or the default.

    Raises:
        ValueError: no positive number.
    """
    if window is None:
        return DEFAULT_WINDOW
    if not isinstance(window, int) or isinstance(window, bool) or window <= 0:
        raise ValueError(f"window must be a positive number of bytes, not {window!r}")
    return window


def same_bytes(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Whether two metas tell of one put. The nuid alone does not say so: see :func:`again`."""
    told, more = ((info.nuid, info.size, info.chunks, info.digest, info.links) for info in (one, other))
    return told == more


async def again(
    bucket: Bucket, info: ObjectInfo, exc: Missing | IntegrityError, *, retry: bool = False
) -> ObjectInfo:
    """After missing or wrong chunks: what the leader says the object is now.

    Counts that are wrong may be right a moment later: a chunk that came twice is removed by its writer when
    that learns of it, and a leader that was cut off goes on answering until it notices.

    Args:
        retry: the caller reads once more what it is given, also when it is the same object.

    Raises:
        StaleConnectionError: the same object is there, and in order; the caller would have to read it again.
        IntegrityError: the same object is still there, so it is damaged.
        ObjectDeletedError, ObjectNotFoundError: it was removed meanwhile, or its chunks have expired.
        NatsError: it could not be found out.
    """
    odd = isinstance(exc, Missing) and bucket.replicated
    for wait in LOOKS:
        await asyncio.sleep(wait)
        fresh = await live_info(bucket, info.name, leader=True)
        if not same_bytes(fresh, info):
            return fresh  # an upload that is sent again may have other bytes under the same nuid
        if isinstance(exc, DigestMismatchError):
            break
        if await bucket.stored_chunks(info.nuid, info.chunks) == info.chunks:
            if retry:
                return fresh
            if odd:
                raise StaleConnectionError(
                    f"object {info.name!r} in bucket {info.bucket!r} could not be read whole: read it again"
                )
            break
        odd = True
    if not isinstance(exc, Missing):
        raise exc
    if bucket.max_age is not None or expired(info):
        # Chunks are older than the meta, by as long as the upload took, and expire before it.
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
    bucket: Bucket, name: str, follow: FollowLinks, read: Callable[[Bucket, ObjectInfo], Awaitable[T]]
) -> T:
    """``read`` what the name stands for; replaced meanwhile, once more what it stands for then.

    Raises:
        ObjectChangedError: it was replaced again.
        IntegrityError, NatsError: as :func:`again`.
    """
    asked = bucket
    bucket, info = await resolve(asked, name, follow)
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


async def get_bytes(
    bucket: Bucket,
    name: str,
    *,
    max_size: int,
    verify: bool,
    progress: Progress | None = None,
    window: int = DEFAULT_WINDOW,
    follow: FollowLinks = "all",
) -> tuple[ObjectInfo, bytes]:
    """Read a whole object; replaced while being read, it is read once more."""

    async def read(bucket: Bucket, info: ObjectInfo) -> tuple[ObjectInfo, bytes]:
        if info.size > max_size:
            raise ObjectTooLargeError(
                f"object {info.name!r} has {info.size} bytes, more than max_size={max_size}: raise max_size, "
                "or use get_file()",
                bucket=info.bucket,
                name=info.name,
                size=info.size,
                max_size=max_size,
            )
        if verify and info.chunks == 1 and 0 < info.size <= SMALL and bucket.direct:
            data = await only_chunk(bucket, info)
            if data is not None:
                if progress is not None:
                    progress(info.size, info.size)
                return info, data
        sink = WholeSink(info, verify=verify, progress=progress)
        try:
            if info.size or info.chunks:
                await ChunkFeed(bucket, info, sink, window=window).run()
            return info, sink.finish()
        except (MemoryError, OverflowError) as exc:
            raise no_room(info, info.size, max_size) from exc
        finally:
            sink.release()

    return await _read_twice(bucket, name, follow, read)


async def only_chunk(bucket: Bucket, info: ObjectInfo) -> bytes | None:
    """The bytes of an object of one chunk by one plain direct get, proven by their digest.

    ``None`` for whatever else comes, an error or the wrong bytes: :class:`ChunkFeed` sees what it means.
    """
    subject = chunk_subject(bucket.name, info.nuid)
    try:
        expected = parse_digest(info.digest)
        if bucket.allowed(DIRECT):  # of the answer only the bytes count: no need to read its headers
            data = (
                await bucket.client.request_frame(
                    bucket.direct_subject, last_of(subject), b"", bucket.js.timeout
                )
            ).payload
        else:
            message = await MessageRead(bucket, subject, ways=DIRECT_FIRST).wait()
            data = b"" if message is None else message.data
    except PermissionsViolationError as exc:
        bucket.note_refusal(exc)
        return None
    except (NatsError, ValueError):
        return None
    if len(data) != info.size or new_hasher(data).digest() != expected:
        return None
    return data if type(data) is bytes else bytes(data)


async def get_range(bucket: Bucket, name: str, start: int, end: int, follow: FollowLinks = "all") -> bytes:
    """Bytes ``start`` to ``end`` of an object; replaced meanwhile, the new one is read."""
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
        if start == stop:
            return b""
        try:
            return await read_range(bucket, info, start, stop)
        except (MemoryError, OverflowError) as exc:
            raise no_room(info, stop - start, 0) from exc

    return await _read_twice(bucket, name, follow, read)


async def chunk_size_of(bucket: Bucket, info: ObjectInfo, limit: int) -> int | None:
    """The chunk size for a copy of an object; ``None`` = the default.

    Never below what its chunks have on average: a meta that claims less would make millions of them. Nor are
    many small ones made unless as many are stored.

    Raises:
        ObjectChangedError, IntegrityError, LookupError, NatsError: as :func:`blocks`; not as many are stored.
    """
    if info.options is None:
        return None
    average = -(-info.size // info.chunks) if info.chunks else 0
    size = min(max(info.options.max_chunk_size, average), limit)
    if info.chunks > FEW_CHUNKS and size < DEFAULT_CHUNK_SIZE:
        stored = await bucket.stored_chunks(info.nuid, info.chunks)
        if not info.chunks <= stored <= info.chunks + 1:  # some writers end objects with an empty one
            exc: Missing | IntegrityError = Missing()
            if stored > info.chunks:
                exc = damaged(info, f"{stored} chunks are stored, {info.chunks} recorded")
            fresh = await again(bucket, info, exc, retry=True)
            if not same_bytes(fresh, info):
                raise changed(info)
    return size


def no_room(info: ObjectInfo, size: int, max_size: int) -> ObjectTooLargeError:
    """The meta may lie about the size: the error is the object's, not the program's."""
    return ObjectTooLargeError(
        f"there is no memory for {size} bytes of object {info.name!r}: use get_file() or open_reader()",
        bucket=info.bucket,
        name=info.name,
        size=info.size,
        max_size=max_size,
    )


def changed(info: ObjectInfo) -> ObjectChangedError:
    """The error for an object that was replaced while it was being read."""
    return ObjectChangedError(
        f"object {info.name!r} in bucket {info.bucket!r} was replaced while it was being read",
        bucket=info.bucket,
        name=info.name,
    )


async def blocks(
    bucket: Bucket, info: ObjectInfo, *, verify: bool = True, window: int = DEFAULT_WINDOW
) -> AsyncGenerator[list[Payload], None]:
    """Read an object block by block, each a list of buffers that are valid until the next one is asked for.

    The end of the iteration means that everything was verified; until then, what came may be wrong.

    Raises:
        ObjectChangedError: replaced while being read; what came must be thrown away.
        IntegrityError, NatsError: likewise.
    """
    sink = BlockSink(info, Assembly(info, verify=verify), window=window)
    feed = ChunkFeed(bucket, info, sink, window=window)
    reading = feed.run() if info.size or info.chunks else nothing()
    async with aclosing(drain(bucket, info, sink, reading)) as source:
        async for block in source:
            yield block


async def drain(
    bucket: Bucket, info: ObjectInfo, sink: BlockSink, reading: Coroutine[object, None, None]
) -> AsyncGenerator[list[Payload], None]:
    """The blocks of a sink while its feed runs."""
    task = bucket.connection.spawn(sink.fill(reading), "objstore-feed")
    try:
        while (block := await sink.next_block()) is not None:
            yield block
    except (Missing, IntegrityError) as exc:
        raise changed(await again(bucket, info, exc)) from None
    except (MemoryError, OverflowError) as exc:
        raise no_room(info, info.size, 0) from exc
    finally:
        task.cancel()
        await asyncio.wait([task])
        sink.release()


async def nothing() -> None:
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
    window: int = DEFAULT_WINDOW,
) -> None:
    """Read an object and pass each block to ``write``, which runs in a thread; raises as :func:`blocks`."""
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
    """Run ``function`` in a thread; a cancellation waits for it: what it uses is reused or removed next.

    Args:
        give_up: called when cancelled, to make the function return early.
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
