"""Open files: to read, with seek; to write, which appear when they are closed, complete, or not at all."""

from __future__ import annotations

import asyncio
import inspect
import io
import sys
import warnings
from typing import IO, TYPE_CHECKING, Protocol

from fsspec.asyn import AbstractAsyncStreamedFile, sync
from fsspec.caching import MMapCache
from fsspec.core import OpenFile
from fsspec.spec import AbstractBufferedFile

from ..errors import IntegrityError
from ..read.get import in_thread
from .oserrors import os_errors
from .reading import RunningDigest

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from .filesystem import NatsObjectFileSystem
    from .reading import Pinned
    from .writing import Writing

BLOCK = 4 * 1024 * 1024
"""Bytes that are read ahead, and collected before they are sent, unless ``block_size`` says otherwise."""

AT_ONCE = 1024 * 1024
"""Bytes that are hashed in the event loop; more would keep it for too long."""


class ObjectFile(AbstractBufferedFile):
    """A file of :meth:`NatsObjectFileSystem.open`.

    A file that is read stays the object that it was at the beginning: if that is replaced, reads that are not
    answered by the cache raise ``OSError`` (``ESTALE``). If it is fetched from its beginning to its end, the
    last fetch verifies it (``EIO``).

    A file that is written becomes visible by ``close()``, in a transaction by its end. It is discarded when
    an exception leaves its ``with`` block, that of ``fsspec.open()`` included, and when it is dropped
    unclosed.
    """

    DEFAULT_BLOCK_SIZE = BLOCK
    fetches_in_order = True

    def __init__(
        self,
        fs: NatsObjectFileSystem,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_type: str = "readahead",
        cache_options: dict[str, object] | None = None,
        size: int | None = None,
        **options: object,
    ) -> None:
        self._writing: Writing | None = None
        self._pinned: Pinned | None = None
        self._outer: Discardable | None = None
        position = 0
        if mode == "rb":
            self._pinned = sync(fs.loop, fs.pin, path)
            self._details = self._pinned.entry
            self._digest = RunningDigest(self._pinned.info)
            size = None  # of another revision, perhaps
        elif mode in ("wb", "xb", "ab"):
            self._writing, position = sync(fs.loop, fs.begin_writing, path, mode, options)
        super().__init__(
            fs,
            path,
            mode.replace("x", "w"),  # earlier versions know no other; the file was begun as a new one
            block_size,
            autocommit=autocommit,
            cache_type=cache_type,
            cache_options=cache_options,
            size=size,
            **options,
        )
        self.loc: int = position

    def _fetch_range(self, start: int, end: int) -> bytes:
        try:
            data: bytes = sync(self.fs.loop, self.fs.read_pinned, self._pinned, start, end)
            if self.fetches_in_order and len(data) < self.size:  # else it was verified at once
                self._verify(start, data)
        except BaseException:
            cache = getattr(self, "cache", None)
            if isinstance(cache, MMapCache):
                cache.blocks.clear()  # it has counted the blocks already, and would return zeros for them
            raise
        return data

    def _verify(self, start: int, data: bytes) -> None:
        try:
            self._digest.take(start, data)
        except IntegrityError as exc:
            sync(self.fs.loop, self.fs.refuse, self._pinned, exc)

    def _upload_chunk(self, final: bool = False) -> bool:
        self._run("write", self.buffer.getvalue())
        if final and self.autocommit:
            self._run("commit")
        return True

    def _run(self, step: str, *arguments: bytes) -> None:
        assert self._writing is not None
        with os_errors(self.path):
            sync(self.fs.loop, getattr(self._writing, step), *arguments)

    @property
    def is_waiting(self) -> bool:
        """Whether what was written is neither visible nor discarded."""
        return self._writing is not None and not self._writing.ended

    def comes_from(self, outer: Discardable) -> None:
        """Say that ``outer`` writes this, and may hold back some of it until it is closed."""
        if not self.autocommit:  # else nobody but its user closes it
            self._outer = outer

    def commit(self) -> None:
        """Make the file of a transaction visible. It is closed if it is still open."""
        outer, self._outer = self._outer, None
        (outer or self).close()
        self._run("commit")

    def discard(self) -> None:
        """Throw away what was written."""
        outer, self._outer = self._outer, None
        try:
            if outer is not None:
                outer.discard()
        finally:
            if self._writing is not None:
                self.forced = True
                self._closed = True
                self._run("abort")

    def close(self) -> None:
        """Close the file; one that was written is stored now, unless it belongs to a transaction."""
        if self._writing is None or self.closed:
            super().close()
        elif _leaves_by_exception():
            self.discard()
        else:
            try:
                super().close()
            except BaseException:
                self.discard()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        # Perhaps in the thread of the loop, by a garbage collection: this must not wait.
        writing = getattr(self, "_writing", None)
        if writing is None:
            super().__del__()
            return
        if self.closed:
            return
        self._closed = True
        ending = writing.abort()
        try:
            asyncio.run_coroutine_threadsafe(ending, self.fs.loop)
        except RuntimeError:  # no loop any more, or a forked child: its parent has the file
            ending.close()
        warnings.warn(
            f"{self!r} was dropped unclosed, and is discarded: use it with 'with', or close() it",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


class UnorderedFile(ObjectFile):
    """The same with a cache that fetches several pieces at a time: it is verified as it is read."""

    fetches_in_order = False

    def read(self, length: int = -1) -> bytes:
        """Return bytes from the current position on, fewer only at the end; -1 returns the rest."""
        start = self.loc
        data: bytes = super().read(length)
        try:
            self._verify(start, data)
        except BaseException:
            self.loc = start
            raise
        return data


class Discardable(Protocol):
    """A file that is written, and may be thrown away."""

    def close(self) -> None:
        """Store what was written."""

    def discard(self) -> None:
        """Throw away what was written."""


class PackedFile(io.BufferedIOBase):
    """A file that is compressed while it is written. Closing it closes the object's file, too.

    Args:
        file: the object's file.
        packer: what compresses into it.
    """

    def __init__(self, file: Discardable, packer: IO[bytes]) -> None:
        self._file = file
        self._packer = packer

    def writable(self) -> bool:
        """Whether it can be written to."""
        return not self.closed

    def write(self, data: Buffer) -> int:
        """Add bytes; return how many."""
        return self._packer.write(data)

    def flush(self) -> None:
        """Do nothing: what is compressed so far shows only at the end."""

    def close(self) -> None:
        """Close the file, which is stored now."""
        if not self.closed:
            super().close()
            try:
                self._packer.close()
            except BaseException:
                self._file.discard()
                raise
            self._file.close()

    def discard(self) -> None:
        """Throw away what was written."""
        if not self.closed:
            super().close()
            try:
                self._packer.close()  # its last bytes go where nobody sees them
            finally:
                self._file.discard()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()


class TextFile(io.TextIOWrapper):
    """A file in text mode, which is discarded when an exception leaves its ``with`` block."""

    def discard(self) -> None:
        """Throw away what was written."""
        if isinstance(self.buffer, ObjectFile | PackedFile):
            self.buffer.discard()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()


def _leaves_by_exception() -> bool:
    """Whether an exception is leaving the ``with`` block of ``fsspec.open()``, which only says: close.

    It tells nobody why, and would make half of a file visible.
    """
    if sys.exception() is None:
        return False
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is OpenFile.__exit__.__code__:
            return any(frame.f_locals.get("args", ()))
        frame = frame.f_back
    return False


class AsyncObjectFile(AbstractAsyncStreamedFile):
    """A file of :meth:`NatsObjectFileSystem.open_async`: the same, for ``async with``; without a cache."""

    DEFAULT_BLOCK_SIZE = BLOCK

    def __init__(
        self,
        fs: NatsObjectFileSystem,
        path: str,
        mode: str,
        *,
        pinned: Pinned | None = None,
        writing: Writing | None = None,
        position: int = 0,
        block_size: int | str | None = None,
    ) -> None:
        self._pinned = pinned
        self._writing = writing
        if pinned is not None:
            self._details = pinned.entry
            self._digest = RunningDigest(pinned.info)
        super().__init__(fs, path, mode.replace("x", "w"), block_size, cache_type="none")
        self.loc = position

    async def _fetch_range(self, start: int, end: int) -> bytes:
        assert self._pinned is not None
        data: bytes = await self.fs.read_pinned(self._pinned, start, end)
        if len(data) == self.size:  # it was verified at once
            return data
        try:
            if len(data) > AT_ONCE and self._digest.wants(start, len(data)):
                await in_thread(self._digest.take, start, data)
            else:
                self._digest.take(start, data)
        except IntegrityError as exc:
            await self.fs.refuse(self._pinned, exc)
        return data

    async def _upload_chunk(self, final: bool = False) -> bool:
        assert self._writing is not None
        with os_errors(self.path):
            await self._writing.write(self.buffer.getvalue())
            if final:
                await self._writing.commit()
        return True

    async def discard(self) -> None:
        """Throw away what was written."""
        if self._writing is not None:
            self.forced = True
            self.closed = True
            await self._writing.abort()

    async def close(self) -> None:
        """Close the file; one that was written is stored now."""
        try:
            await super().close()
        except BaseException:
            await self.discard()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            await self.discard()
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_writing", None) is not None and not self.closed:
            self._closed = True
            warnings.warn(
                f"{self!r} was dropped unclosed, and is discarded: use it with 'async with'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
