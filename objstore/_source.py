"""Where the bytes of a put come from: any buffer, binary file, path, iterable or async iterable."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, BinaryIO, Protocol, Union

READ_BLOCK = 1024 * 1024
"""Bytes of one read of a file, made in a thread while the block before is being sent."""

RELEASE = 1.0
"""Seconds a put that is given up waits for a read of its file that is still going on."""


class SupportsRead(Protocol):
    """A binary file object, as far as a put is concerned."""

    def read(self, size: int, /) -> bytes: ...


ObjectData = Union[
    bytes,
    bytearray,
    memoryview,
    BinaryIO,
    SupportsRead,
    "os.PathLike[str]",
    "Iterable[bytes | bytearray | memoryview]",
    "AsyncIterable[bytes | bytearray | memoryview]",
]


class FilePath:
    """A path that is meant as one, where a ``str`` would be refused."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path


class Source:
    """One pass over the data after another.

    Args:
        opener: starts a pass; ``None``: all of it is ``whole``.

    Attributes:
        restartable: whether a second pass gives the same bytes.
        size: bytes in all, ``None`` when not known.
        refills: whether a piece's buffer may be written again, or resized, once the next piece is asked for.
        whole: everything, where it lies in memory in one piece; then there is no need to iterate.
    """

    __slots__ = ("_open", "refills", "restartable", "size", "whole")

    def __init__(
        self,
        opener: Callable[[], AsyncIterator[Any]] | None,
        *,
        restartable: bool,
        size: int | None = None,
        refills: bool = True,
        whole: bytes | bytearray | memoryview | None = None,
    ) -> None:
        self._open = opener
        self.whole = whole
        self.restartable = restartable
        self.size = size
        self.refills = refills

    def pieces(self) -> AsyncIterator[Any]:
        """Start a pass; close it (``aclose``) when it is not read to its end."""
        return _once(self.whole) if self._open is None else self._open()


def open_source(data: Any) -> Source:
    """Make a source of whatever was given to ``put``.

    Raises:
        TypeError: ``str`` (text or path? say which), or nothing that gives bytes.
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
        path = os.fspath(data)
        return Source(
            lambda: _file(lambda: open(path, "rb", 0), None, own=True),
            restartable=True,
            size=os.stat(path).st_size,
            refills=False,
        )
    if callable(getattr(data, "read", None)):
        if isinstance(data, io.TextIOBase):
            raise TypeError("data must be a binary file: open it with mode 'rb'")
        start = _position(data)
        return Source(
            lambda: _file(lambda: data, start, own=False), restartable=start is not None, refills=False
        )
    if isinstance(data, AsyncIterable):
        return Source(lambda: _async_pieces(data), restartable=False)
    try:
        view = memoryview(data)
    except TypeError:
        pass
    else:
        return _whole(view)
    if isinstance(data, Iterable):
        return Source(lambda: _pieces(data), restartable=isinstance(data, list | tuple))
    raise TypeError(
        "data must be bytes-like, a binary file, a path, or an (async) iterable of bytes, "
        f"not {type(data).__name__}"
    )


def _whole(data: bytes | bytearray | memoryview) -> Source:
    size = len(data) if type(data) is bytes else memoryview(data).nbytes
    return Source(None, restartable=True, size=size, refills=False, whole=data)


async def _once(data: Any) -> AsyncIterator[Any]:
    yield data


async def _pieces(data: Iterable[Any]) -> AsyncIterator[Any]:
    for piece in data:
        yield piece


async def _async_pieces(data: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for piece in data:
        yield piece


def _position(file: Any) -> int | None:
    try:
        return int(file.tell()) if file.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None


async def _file(opener: Callable[[], Any], start: int | None, *, own: bool) -> AsyncIterator[Any]:
    """Read in a thread, one block ahead of what is being sent.

    Args:
        opener: gives the file; called in the thread.
        start: where to begin; ``None`` = where it stands.
        own: close it at the end.
    """
    loop = asyncio.get_running_loop()
    file: Any = None

    def first() -> Any:
        nonlocal file
        file = opener()
        if start is not None:
            file.seek(start)
        return file.read(READ_BLOCK)

    def release(reading: asyncio.Future[Any]) -> None:
        if not reading.cancelled():
            reading.exception()
        if own and file is not None:
            file.close()

    reading = loop.run_in_executor(None, first)
    try:
        while True:
            piece = await asyncio.shield(reading)
            if piece is None:
                raise BlockingIOError("a non-blocking file cannot be stored: it had no data ready")
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise TypeError(
                    f"the file's read() gave {type(piece).__name__}, not bytes: open it with mode 'rb'"
                )
            if not piece:
                return
            if not isinstance(piece, bytes):
                piece = bytes(piece)  # the next read may fill the same buffer
            reading = loop.run_in_executor(None, file.read, READ_BLOCK)
            yield piece
    finally:
        if not reading.done():
            # The thread should be out of the file before somebody closes it, but a pipe may stay silent.
            await asyncio.wait([reading], timeout=RELEASE)
        if reading.done():
            release(reading)
        else:
            reading.add_done_callback(release)
