"""Open objects: readers, writers, uploads, watches."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from threading import RLock
from typing import TYPE_CHECKING

from natsproto._values import seconds
from natsproto.errors import ConnectionClosedError, RequestTimeoutError

from .loop_thread import dropped
from .pieces import by_caller, next_within

if TYPE_CHECKING:
    from types import TracebackType

    from .. import listing, read, write
    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo
    from ..read.reader import OpenReader
    from ..write.source import ObjectData
    from .loop_thread import Link

Payload = bytes | bytearray | memoryview

PIECE = 1024 * 1024
"""Bytes of a piece of an object that is iterated over."""


class ObjectReader:
    """An open object, from :meth:`ObjectStore.open_reader`: the twin of :class:`objstore.ObjectReader`.

    Iterate over it, use it with ``with``, or close it. Whoever reads and seeks in a binary file can use it
    (``zipfile``, ``tarfile``, ``shutil.copyfileobj``), but iterating gives pieces of 1 MiB, not lines.
    Several threads take turns.

    Attributes:
        info: the object (a link's target for a link).
    """

    def __init__(self, link: Link, opened: OpenReader) -> None:
        self._closed = True
        self._link = link
        self._opened = opened
        self._turn = RLock()
        self._reader: read.reader.ObjectReader = link.call(opened.__aenter__)
        self._closed = False
        self.info: ObjectInfo = self._reader.info

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def readable(self) -> bool:
        """``True``, as of a file."""
        return True

    def seekable(self) -> bool:
        """``True``, as of a file."""
        return True

    def writable(self) -> bool:
        """``False``, as of a file."""
        return False

    def tell(self) -> int:
        """The offset of the next byte: :meth:`objstore.ObjectReader.tell`."""
        return self._reader.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset: :meth:`objstore.ObjectReader.seek`."""
        with self._turn:
            return self._link.call(self._reader.seek, offset, whence)

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes, or the rest: :meth:`objstore.ObjectReader.read`."""
        with self._turn:
            return self._link.call(self._reader.read, size)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer: :meth:`objstore.ObjectReader.readinto`."""
        with self._turn:
            return self._link.call(self._reader.readinto, buffer)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Return the next piece, of 1 MiB; after the last one the reader is closed."""
        piece = b"" if self._closed else self.read(PIECE)
        if not piece:
            self.close()
            raise StopIteration
        return piece

    def close(self) -> None:
        """Stop reading: :meth:`objstore.ObjectReader.aclose`. Idempotent."""
        with self._turn:
            if not self._closed:
                self._closed = True
                self._link.settle(self._leave)

    async def _leave(self) -> None:
        await self._opened.__aexit__(None, None, None)

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            opened = self._opened
            if self._link.later(lambda: opened.__aexit__(None, None, None)):
                dropped(self, "use it with 'with', or close()")

    def __repr__(self) -> str:
        return repr(self._reader)


class ObjectWriter:
    """An object being written: the twin of :class:`objstore.ObjectWriter`.

    The end of a ``with`` block commits the object; an exception in it, or :meth:`abort`, leaves nothing
    behind. Several threads take turns.
    """

    def __init__(self, link: Link, writer: write.writer.ObjectWriter) -> None:
        self._open = False
        self._link = link
        self._writer = writer
        self._turn = RLock()

    @property
    def info(self) -> ObjectInfo | None:
        """The info of the stored object; ``None`` before the commit."""
        return self._writer.info

    def readable(self) -> bool:
        """``False``, as of a file."""
        return False

    def seekable(self) -> bool:
        """``False``, as of a file."""
        return False

    def writable(self) -> bool:
        """``True``, as of a file."""
        return True

    def flush(self) -> None:
        """Do nothing, for those who flush files: only the commit makes the object appear."""

    def tell(self) -> int:
        """Bytes written so far: :meth:`objstore.ObjectWriter.tell`."""
        return self._writer.tell()

    def write(self, data: Payload) -> int:
        """Append bytes: :meth:`objstore.ObjectWriter.write`."""
        with self._turn:
            size = self._link.call(self._writer.write, data)
            self._open = True
            return size

    def commit(self) -> ObjectInfo:
        """Store what was written: :meth:`objstore.ObjectWriter.commit`."""
        with self._turn:
            self._open = False
            return self._link.call(self._writer.commit)

    def abort(self) -> None:
        """Keep nothing of it: :meth:`objstore.ObjectWriter.abort`."""
        with self._turn:
            self._open = False
            self._link.settle(self._writer.abort)

    def __enter__(self) -> ObjectWriter:
        self._link.call(self._writer.__aenter__)
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._open:
            self.commit()

    def __del__(self) -> None:
        if self._open and self._link.later(self._writer.abort):
            dropped(self, "use it with 'with', or call commit() or abort()")

    def __repr__(self) -> str:
        return repr(self._writer)


class Upload:
    """An upload that can be continued: the twin of :class:`objstore.Upload`.

    Attributes:
        name: the object's name.
        token: keep it to resume the upload with :meth:`ObjectStore.begin_upload`. It is a secret.
    """

    def __init__(self, link: Link, upload: write.upload.Upload) -> None:
        self._link = link
        self._upload = upload
        self.name: str = upload.name
        self.nuid: str = upload.nuid
        self.token: str = upload.token

    def stored(self) -> int:
        """Return how many chunks are stored so far: :meth:`objstore.Upload.stored`."""
        return self._link.call(self._upload.stored)

    def send(
        self, data: ObjectData, *, if_revision: int | None = None, progress: Progress | None = None
    ) -> ObjectInfo:
        """Send the object, or its missing chunks: :meth:`objstore.Upload.send`."""
        return self._link.call(self._upload.send, by_caller(data), if_revision=if_revision, progress=progress)

    def abort(self) -> None:
        """Give up the upload for good: :meth:`objstore.Upload.abort`."""
        self._link.call(self._upload.abort)

    def __repr__(self) -> str:
        return repr(self._upload)


class Watcher:
    """An iterator over changes, from :meth:`ObjectStore.watch`: the twin of :class:`objstore.Watcher`.

    Iterating waits for ever; :meth:`changes` ends when nothing has changed for a while. :meth:`stop`, in any
    thread, ends it; so does dropping the watcher.
    """

    def __init__(self, link: Link, watcher: listing.watcher.Watcher) -> None:
        self._link = link
        self._watcher = watcher

    def start(self) -> Watcher:
        """Create the consumer, which the first use does, too: :meth:`objstore.Watcher.start`."""
        self._link.call(self._watcher.start)
        return self

    def stop(self) -> None:
        """End the watch: :meth:`objstore.Watcher.stop`."""
        self._link.settle(self._watcher.stop)

    def wait_caught_up(self, timeout: float | None = None) -> None:
        """Wait until the state at the start has been received: :attr:`objstore.Watcher.caught_up`.

        Args:
            timeout: seconds; ``None`` = no limit.

        Raises:
            RequestTimeoutError: it was not received in time; the watch continues.
        """

        async def wait() -> bool:
            try:
                async with asyncio.timeout(timeout) as limit:
                    await self._watcher.caught_up
            except TimeoutError:
                if not limit.expired():
                    raise
            return not limit.expired()

        if not self._link.call(wait):
            raise RequestTimeoutError(f"the state at the start was not received within {seconds(timeout)} s")

    def next(self, timeout: float | None = None) -> ObjectInfo:
        """Return the next change.

        Args:
            timeout: seconds; ``None`` waits until something changes or the watch ends.

        Raises:
            RequestTimeoutError: nothing changed in time; the watch continues.
            ConnectionClosedError: the watch was stopped.
        """
        found = self._link.call(next_within, self._watcher, timeout)
        if found is None:
            raise RequestTimeoutError(f"nothing was changed within {seconds(timeout)} s")
        if not found:
            raise ConnectionClosedError("the watcher was stopped")
        return found[0]

    def changes(self, *, timeout: float | None = None) -> Iterator[ObjectInfo]:
        """Iterate until nothing was changed for ``timeout`` seconds; the watch continues."""
        while found := self._link.call(next_within, self._watcher, timeout):
            yield found[0]

    def __iter__(self) -> Iterator[ObjectInfo]:
        return self

    def __next__(self) -> ObjectInfo:
        found = self._link.call(next_within, self._watcher, None)
        if not found:
            raise StopIteration
        return found[0]

    def __enter__(self) -> Watcher:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
