"""The sources of a put's bytes: any buffer, binary file, path, iterable or async iterable."""

from __future__ import annotations

import asyncio
import errno
import inspect
import io
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Union

from ..bucket.operation import gives_awaitables
from ..bucket.threads import RELEASE, in_daemon
from ..errors import BadObjectMetaError, SourceChangedError

if TYPE_CHECKING:
    from ..format.memory import Payload

READ_BLOCK = 1024 * 1024
"""Bytes of one read of a file, in a thread while the previous block is sent."""


class SupportsRead(Protocol):
    """A binary file object: a put needs only ``read(size)``."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""


class SupportsAsyncRead(Protocol):
    """A stream, an upload, an asynchronous file: a put needs only ``async def read(size)``."""

    async def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""


ObjectData = Union[
    bytes,
    bytearray,
    memoryview,
    BinaryIO,
    SupportsRead,
    SupportsAsyncRead,
    "os.PathLike[str]",
    "os.PathLike[bytes]",
    "Iterable[bytes | bytearray | memoryview]",
    "AsyncIterable[bytes | bytearray | memoryview]",
]
"""The sources a put accepts. A ``pathlib.Path`` is a path; a ``str`` is refused."""


class GivenPath:
    """A path given as ``str``, where a plain ``str`` would be refused."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path


class Repeatable:
    """Pieces that can be read again, such as those of an object.

    Args:
        begin: begins a pass; all give the same bytes, or raise.
    """

    def __init__(self, begin: Callable[[], AsyncIterator[Payload]]) -> None:
        self._begin = begin

    def __aiter__(self) -> AsyncIterator[Payload]:
        return self._begin()


class Source:
    """The data of a put, in one or more passes.

    Args:
        opener: starts a pass; ``None``: ``whole`` has all data.

    Attributes:
        restartable: whether a second pass gives the same bytes.
        size: total bytes, ``None`` when unknown.
        refills: whether a piece's buffer may be overwritten or resized once the next piece is requested.
        whole: all data, if it is one buffer; then there is no need to iterate.
    """

    __slots__ = ("_open", "refills", "restartable", "size", "whole")

    def __init__(
        self,
        opener: Callable[[], AsyncIterator[Payload]] | None,
        *,
        restartable: bool,
        size: int | None = None,
        refills: bool = True,
        whole: bytes | bytearray | memoryview | None = None,
    ) -> None:
        self._open = opener
        self.whole: bytes | bytearray | memoryview | None = whole
        self.restartable: bool = restartable
        self.size: int | None = size
        self.refills: bool = refills

    def pieces(self) -> AsyncIterator[Payload]:
        """Start a pass; close it (``aclose``) if it is not read to the end."""
        if self._open is not None:
            return self._open()
        assert self.whole is not None
        return _pieces((self.whole,))

    def sized(self, size: int) -> Source:
        """Return the source of the same bytes, which must be ``size``: each pass raises if they are not.

        Raises:
            BadObjectMetaError: it is known that they are not.
        """
        if self.size is not None:
            if self.size != size:
                raise BadObjectMetaError(f"size is {size}, and the data has {self.size} bytes")
            return self
        return Source(
            lambda: _counted(self.pieces(), size),
            restartable=self.restartable,
            size=size,
            refills=self.refills,
        )


def open_source(data: Any) -> Source:
    """Return a source for the ``data`` of a put.

    A readable object is read from its current position, and left open.

    Raises:
        TypeError: the data is a ``str`` (text or path?), or does not give bytes.
        OSError, ValueError: the path is not a file, or the file is closed or not open for reading.
    """
    if type(data) is bytes:
        return _whole(data)
    if isinstance(data, str):
        raise TypeError(
            "data must not be str: use put_file(name, path) to store a file, or .encode() to store text"
        )
    if isinstance(data, bytes | bytearray | memoryview):
        return _whole(data)
    if isinstance(data, os.PathLike):
        return _path(os.fspath(data))
    if callable(getattr(data, "read", None)) and not isinstance(data, type):
        source = _readable(data)
        if source is not None:
            return source
    if isinstance(data, AsyncIterable):
        return Source(lambda: _async_pieces(data), restartable=isinstance(data, Repeatable))
    try:
        view = memoryview(data)
    except TypeError:
        pass
    else:
        return _whole(view)
    if isinstance(data, Iterable):
        return Source(lambda: _pieces(data), restartable=isinstance(data, list | tuple))
    raise TypeError(
        "data must be bytes-like, a binary file, something with an (async) read(size), a path, or an (async) "
        f"iterable of bytes, not {type(data).__name__}"
    )


def _path(path: str | bytes) -> Source:
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    # A pipe or a device has no known size, and does not give the same bytes again.
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    return Source(
        lambda: _file(lambda: open(path, "rb", 0), None, own=True, size=size),
        restartable=size is not None,
        size=size,
        refills=False,
    )


def _readable(data: Any) -> Source | None:
    """Return a source that calls ``data.read(size)``; ``None`` when it is better or necessary to iterate."""
    read = data.read
    asynchronous = gives_awaitables(read)
    iterable = isinstance(data, AsyncIterable)
    if not asynchronous and iterable:
        return None
    if not _takes_size(read):  # it gives all at once, and a second call is undefined
        if iterable:
            return None
        raise TypeError(
            f"read() of {type(data).__name__} takes no size: call it and pass the bytes, or pass an object "
            "with read(size)"
        )
    if isinstance(data, io.TextIOBase) or isinstance(getattr(data, "encoding", None), str):
        raise TypeError("data must be a binary file: open it with mode 'rb'")
    if asynchronous:
        return Source(lambda: _stream(read), restartable=False, refills=False)
    if getattr(data, "closed", False) is True:
        raise ValueError("the file is closed")
    readable = getattr(data, "readable", None)
    if callable(readable) and not gives_awaitables(readable) and readable() is False:
        raise io.UnsupportedOperation("the file is not open for reading: open it with mode 'rb'")
    start = _position(data)
    size = None if start is None else _known_size(data)
    if size is not None and start is not None:
        size = max(0, size - start)
    return Source(
        lambda: _file(lambda: data, start, own=False, size=size),
        restartable=start is not None,
        size=size,
        refills=False,
    )


def _takes_size(read: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(read)
    except (TypeError, ValueError):  # a builtin without a signature
        return True
    try:
        signature.bind(READ_BLOCK)
    except TypeError:
        return False
    return True


def _known_size(file: object) -> int | None:
    """Return the size of a file object if its ``read()`` gives exactly these bytes; ``None`` when unknown.

    Only the standard library's plain files count: others (compressed files, for example) may have a
    descriptor whose bytes differ from what ``read()`` gives.
    """
    if type(file).__module__ == "tempfile":
        file = getattr(file, "file", None) or getattr(file, "_file", None)
    raw = file.raw if type(file) is io.BufferedReader or type(file) is io.BufferedRandom else file
    if type(raw) is io.BytesIO:
        at, size = raw.tell(), raw.seek(0, io.SEEK_END)
        raw.seek(at)
        return size
    if type(raw) is not io.FileIO:
        return None
    found = os.fstat(raw.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _whole(data: bytes | bytearray | memoryview) -> Source:
    size = len(data) if type(data) is bytes else memoryview(data).nbytes
    return Source(None, restartable=True, size=size, refills=False, whole=data)


async def _pieces(data: Iterable[Payload]) -> AsyncIterator[Payload]:
    for piece in data:
        yield piece


async def _counted(pieces: AsyncIterator[Payload], size: int) -> AsyncIterator[Payload]:
    """Yield pieces of ``size`` bytes together; refuse more before they are sent, and fewer at the end.

    Raises:
        SourceChangedError: there are more or fewer.
    """
    done = 0
    try:
        async for piece in pieces:
            try:
                done += memoryview(piece).nbytes
            except TypeError:
                pass  # whoever cuts it into chunks refuses it
            if done > size:
                raise _other_size(size, f"at least {done}")
            yield piece
    finally:
        aclose = getattr(pieces, "aclose", None)
        if aclose is not None:
            await aclose()
    if done != size:
        raise _other_size(size, str(done))


def _other_size(size: int, found: str) -> SourceChangedError:
    return SourceChangedError(f"size is {size}, and the data has {found} bytes; nothing was stored")


async def _async_pieces(data: AsyncIterable[Payload]) -> AsyncIterator[Payload]:
    async for piece in data:
        yield piece


def _position(file: Any) -> int | None:
    try:
        return int(file.tell()) if file.seekable() else None
    except (AttributeError, OSError, TypeError, ValueError):
        return None


async def _stream(read: Callable[[int], Awaitable[object]]) -> AsyncIterator[Payload]:
    """Read asynchronously: sending continues meanwhile, so no read-ahead is needed."""
    while piece := _checked(await read(READ_BLOCK)):
        yield piece


def _checked(piece: Any) -> bytes:
    """Return the result of a ``read()`` as our own ``bytes``: the next read may fill the same buffer."""
    if type(piece) is bytes:
        return piece
    if piece is None:
        raise BlockingIOError("a non-blocking file cannot be stored: it had no data ready")
    try:
        return memoryview(piece).tobytes()
    except TypeError:
        raise TypeError(
            f"the file's read() gave {type(piece).__name__}, not bytes: open it with mode 'rb'"
        ) from None


def _check_size(file: Any, size: int, done: int, *, ended: bool) -> None:
    """Refuse a file that has changed: a truncated one would silently be stored as a prefix.

    Args:
        size: bytes to read when the put began.
        done: bytes read so far.
        ended: the file has ended.

    Raises:
        SourceChangedError: the file has shrunk or grown.
    """
    if done == size or (done < size and not ended):
        return
    # Files of /proc and /sys are not on a disk, and their size is 0 or a page, whatever they contain.
    try:
        found = os.fstat(file.fileno())
        made_up = found.st_blocks == 0 and found.st_size == size and (not size or ended)
    except (AttributeError, OSError, ValueError):
        made_up = False
    if not made_up:
        raise SourceChangedError(
            f"the file was changed while it was read: it had {size} bytes, {done} were read"
            + ("" if ended else " and more")
            + "; nothing was stored"
        )


async def _file(
    opener: Callable[[], Any], start: int | None, *, own: bool, size: int | None = None
) -> AsyncIterator[Payload]:
    """Read in a thread, one block ahead of the one being sent.

    Args:
        opener: returns the file; called in the thread.
        start: where to begin; ``None`` = the current position.
        own: close the file at the end.
        size: bytes to read; ``None`` = unknown.
    """
    loop = asyncio.get_running_loop()
    file: Any = None
    done = 0

    def first() -> object:
        nonlocal file
        file = opener()
        if start is not None:
            file.seek(start)
        return file.read(READ_BLOCK)

    def release(reading: asyncio.Future[object]) -> None:
        if not reading.cancelled() and reading.exception() is None:
            close = getattr(reading.result(), "close", None)  # a coroutine that will not be awaited
            if close is not None:
                close()
        if own and file is not None:
            file.close()

    # At its end a program waits for pool threads: one that reads a silent pipe would keep it alive.
    run = in_daemon if size is None else partial(loop.run_in_executor, None)
    reading = run(first)
    try:
        while True:
            piece = await asyncio.shield(reading)
            if inspect.isawaitable(piece):  # from a plain function: only its result shows it
                piece = await piece
            piece = _checked(piece)
            done += len(piece)
            if size is not None:
                _check_size(file, size, done, ended=not piece)
            if not piece:
                return
            reading = run(partial(file.read, READ_BLOCK))
            yield piece
    finally:
        if not reading.done():
            # The thread should leave the file before the caller closes it, but a pipe may stay silent.
            await asyncio.wait([reading], timeout=RELEASE)
        if reading.done():
            release(reading)
        else:
            reading.add_done_callback(release)
