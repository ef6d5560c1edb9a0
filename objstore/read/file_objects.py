"""Read objects into open files: any binary file object, or anything with an asynchronous ``write``."""

from __future__ import annotations

import asyncio
import errno
import inspect
import io
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ..bucket.operation import gives_awaitables
from ..bucket.threads import RELEASE, in_daemon
from ..errors import ObjectTooLargeError
from ..format.marks import shown
from .feed import DEFAULT_WINDOW
from .get import blocks
from .links import FollowLinks, resolve

if TYPE_CHECKING:
    from ..bucket.bucket import Bucket
    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo


class SupportsWrite(Protocol):
    """A binary file object: a get needs only ``write(data)``."""

    def write(self, data: bytes, /) -> object:
        """Take the bytes; return how many were taken, or ``None`` for all."""


class SupportsAsyncWrite(Protocol):
    """A stream writer, an asynchronous file: a get needs only ``async def write(data)``."""

    async def write(self, data: bytes, /) -> object:
        """Take the bytes; return how many were taken, or ``None`` for all."""


WritableFile = BinaryIO | SupportsWrite | SupportsAsyncWrite
"""The open files a get can write to."""

Write = Callable[[bytes], Awaitable[object]]


def writer_of(file: WritableFile) -> Write:
    """Return an asynchronous ``write`` for an open file.

    A plain ``write`` runs in a thread, since a file may block. That of an :class:`asyncio.StreamWriter` does
    not block, and is followed by ``drain``.

    Raises:
        TypeError: it has no ``write``, or is a text file.
        OSError, ValueError: it is not open for writing.
    """
    write = getattr(file, "write", None)
    if not callable(write) or isinstance(file, type):
        raise TypeError(
            f"a path, or an open file with (async) write(bytes), is needed, not {type(file).__name__}"
        )
    if isinstance(file, io.TextIOBase) or isinstance(getattr(file, "encoding", None), str):
        raise TypeError("the file must be binary: open it with mode 'wb'")
    if getattr(file, "closed", False) is True:
        raise ValueError("the file is closed")
    writable = getattr(file, "writable", None)
    if callable(writable) and not gives_awaitables(writable) and writable() is False:
        raise io.UnsupportedOperation("the file is not open for writing: open it with mode 'wb'")
    drain = getattr(file, "drain", None)
    if gives_awaitables(write):
        call: Write = write
    elif callable(drain) and gives_awaitables(drain):
        call = partial(_and_drain, write, drain)
    else:
        call = partial(_in_thread, write)
    return partial(_whole, call, raw=isinstance(file, io.RawIOBase))


async def _and_drain(
    write: Callable[[bytes], object], drain: Callable[[], Awaitable[object]], data: bytes
) -> None:
    write(data)
    await drain()


async def _in_thread(write: Callable[[bytes], object], data: bytes) -> object:
    """Write in a daemon thread: a pipe may take nothing for ever. A cancelled call waits only briefly."""
    writing = in_daemon(partial(write, data))
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        # The thread should leave the file before the caller closes it.
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([writing], timeout=RELEASE)
        raise


async def _whole(call: Write, data: bytes, *, raw: bool) -> None:
    """Write everything: raw files and sockets may take less at a time."""
    while data:
        count = await call(data)
        if inspect.isawaitable(count):  # from a plain function: only its result shows it
            count = await count
        if count is None and raw:
            raise BlockingIOError("a non-blocking file cannot be written to: it took nothing")
        if not isinstance(count, int) or isinstance(count, bool) or count >= len(data):
            return
        if count <= 0:
            raise OSError(errno.EIO, "the file's write() took nothing")
        data = data[count:]


async def get_into(
    bucket: Bucket,
    name: str,
    write: Write,
    *,
    max_size: int | None = None,
    verify: bool,
    progress: Progress | None = None,
    window: int = DEFAULT_WINDOW,
    follow: FollowLinks = "all",
    show_deleted: bool = False,
) -> ObjectInfo:
    """Read an object into an open file, from its position on; the file stays open.

    The bytes are written as they arrive: after an error the file has some of them, unverified.

    Args:
        write: from :func:`writer_of`.
    """
    bucket, info = await resolve(bucket, name, follow, show_deleted=show_deleted)
    if max_size is not None and info.size > max_size:
        raise ObjectTooLargeError(
            f"object {info.name!r} has {info.size} bytes, more than max_size={max_size}",
            bucket=info.bucket,
            name=info.name,
            size=info.size,
            max_size=max_size,
        )
    done = 0
    async with aclosing(blocks(bucket, info, verify=verify, window=window)) as source:
        async for block in source:
            await write(b"".join(block))  # a copy: the buffers are used again, and the file may keep it
            done += sum(map(len, block))
            if progress is not None:
                progress(done, info.size)
    return shown(info)
