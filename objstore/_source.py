"""Where the bytes of a put come from: any buffer, binary file, path, iterable or async iterable."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, BinaryIO, Protocol, Union

READ_BLOCK = 1024 * 1024
"""Bytes of one read of a file, made in a thread while the block before is being sent."""


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
    Iterable[bytes],
    AsyncIterable[bytes],
]


class FilePath:
    """A path that is meant as one, where a ``str`` would be refused."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path


class Source:
    """One pass over the data after another: ``restart`` says whether a second pass gives the same bytes."""

    __slots__ = ("_open", "restartable", "size")

    def __init__(
        self, opener: Callable[[], AsyncIterator[Any]], *, restartable: bool, size: int | None = None
    ) -> None:
        self._open = opener
        self.restartable = restartable
        self.size = size

    def pieces(self) -> AsyncIterator[Any]:
        """Start a pass; close it (``aclose``) when it is not read to its end."""
        return self._open()


def open_source(data: Any) -> Source:
    """Make a source of whatever was given to ``put``.

    Raises:
        TypeError: ``str`` (text or path? say which), or nothing that gives bytes.
    """
    if isinstance(data, str):
        raise TypeError(
            "data must not be str: use put_file(name, path) to store a file, or .encode() to store text"
        )
    if isinstance(data, bytes | bytearray | memoryview):
        return _whole(data)
    if isinstance(data, os.PathLike):
        path = os.fspath(data)
        return Source(lambda: _path(path), restartable=True, size=os.stat(path).st_size)
    if callable(getattr(data, "read", None)):
        if isinstance(data, io.TextIOBase):
            raise TypeError("data must be a binary file: open it with mode 'rb'")
        start = _position(data)
        return Source(lambda: _file(data, start), restartable=start is not None)
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
    async def once() -> AsyncIterator[Any]:
        yield data

    return Source(once, restartable=True, size=memoryview(data).nbytes)


async def _pieces(data: Iterable[Any]) -> AsyncIterator[Any]:
    for piece in data:
        yield piece


async def _async_pieces(data: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for piece in data:
        yield piece


async def _path(path: str) -> AsyncIterator[Any]:
    file = await asyncio.to_thread(open, path, "rb", 0)
    try:
        async for piece in _file(file, None):
            yield piece
    finally:
        file.close()


def _position(file: Any) -> int | None:
    try:
        return int(file.tell()) if file.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None


async def _file(file: Any, start: int | None) -> AsyncIterator[Any]:
    """Read in a thread, one block ahead of what is being sent."""
    loop = asyncio.get_running_loop()

    def first() -> Any:
        if start is not None:
            file.seek(start)
        return file.read(READ_BLOCK)

    reading = loop.run_in_executor(None, first)
    try:
        while True:
            piece = await reading
            if not piece:
                if piece is None:
                    raise BlockingIOError("a non-blocking file cannot be stored: it had no data ready")
                return
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise TypeError(
                    f"the file's read() gave {type(piece).__name__}, not bytes: open it with mode 'rb'"
                )
            reading = loop.run_in_executor(None, file.read, READ_BLOCK)
            yield piece
    finally:
        if not reading.done():
            await asyncio.wait([reading])  # the thread must be out of the file before it is closed
        if not reading.cancelled():
            reading.exception()
