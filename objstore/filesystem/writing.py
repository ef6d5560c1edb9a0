"""What a file that is open for writing stores: all of it at the commit, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

from ..bucket.ttl import check_living, remaining
from ..errors import LinkError, ObjectAlreadyExists, ObjectNotFoundError, RevisionConflictError
from ..format.marks import RESERVED
from ..format.naming import MAX_CHUNK_SIZE
from ..read.get import chunk_size_of
from ..write.put import put
from ..write.writer import ObjectWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from ..format.models import ObjectInfo
    from ..store import ObjectStore

    Headers = Mapping[str, str | Sequence[str]]

HEADERS = 256
"""Bytes of a message for the headers of a time to live, or of a batch."""

Mode = Literal["wb", "xb", "ab"]


class WriteOptions(TypedDict, total=False):
    """What may be said about an object that is written; as :meth:`objstore.ObjectStore.put`."""

    description: str | None
    headers: Headers | None
    metadata: Mapping[str, str] | None
    chunk_size: int | None
    ttl: timedelta | None
    atomic: bool


class Writing:
    """One object being written: replaced (``wb``), created (``xb``) or continued (``ab``).

    Until a second piece comes, the first one is kept: a small object is stored at once, by one put.

    Attributes:
        ended: it was committed or aborted, with or without success.

    Args:
        store: the bucket.
        name: the object's name.
    """

    def __init__(self, store: ObjectStore, name: str, mode: Mode, options: WriteOptions) -> None:
        self._store = store
        self._name = name
        self._mode = mode
        self._options = options
        self._first: bytes | None = None
        self._writer: ObjectWriter | None = None
        self._old: ObjectInfo | None = None
        self.ended = False

    async def begin(self) -> int:
        """Look at what is there; return the position at which writing begins.

        Raises:
            ObjectAlreadyExists: ``xb``, and the object exists. The commit checks it again.
            LinkError: ``ab``, and it is a link.
        """
        if self._mode == "xb" and await self._store.exists(self._name):
            raise ObjectAlreadyExists(
                f"object {self._name!r} exists in bucket {self._store.bucket!r}",
                bucket=self._store.bucket,
                name=self._name,
            )
        if self._mode == "ab":
            try:
                self._old = await self._store.get_info(self._name)
            except ObjectNotFoundError:
                return 0
            if self._old.is_link:
                raise LinkError(f"{self._name!r} is a link: append to its target", name=self._name)
            return self._old.size
        return 0

    async def write(self, data: bytes) -> None:
        """Add bytes."""
        if self._first is None and self._old is None:
            self._first = data
        elif data or self._writer is None:
            writer = await self._open()
            await writer.write(data)

    async def _open(self) -> ObjectWriter:
        if self._writer is None:
            if self._old is not None:
                self._writer = await self._continuing(self._old)
                await self._copy(self._old, self._writer)
            else:
                revision = None if self._mode == "wb" else 0
                self._writer = self._store.open_writer(self._name, **self._options, if_revision=revision)
                if self._first:
                    await self._writer.write(self._first)
        return self._writer

    async def _continuing(self, old: ObjectInfo) -> ObjectWriter:
        """Return what stores an object anew, with what is known of it, its end included."""
        bucket = self._store.bound_bucket
        await check_living(bucket, old)
        end = old.expires if bucket.msg_ttl and "ttl" not in self._options else None
        known: WriteOptions = {
            "description": old.description,
            "headers": old.headers,
            "metadata": {key: value for key, value in old.metadata.items() if not key.startswith(RESERVED)},
            "ttl": await remaining(bucket, end),
        }
        options: WriteOptions = {**known, **self._options}
        if "chunk_size" not in options:
            room = HEADERS if options["ttl"] is not None or options.get("atomic") else 0
            options["chunk_size"] = await chunk_size_of(
                bucket, old, min(bucket.max_message - room, MAX_CHUNK_SIZE)
            )
        return ObjectWriter(
            lambda data: self._renew(data, old.revision, end, **options),
            bucket.connection,
        )

    async def _renew(
        self,
        data: AsyncIterator[bytes | bytearray | memoryview],
        revision: int,
        end: datetime | None,
        *,
        description: str | None = None,
        headers: Headers | None = None,
        metadata: Mapping[str, str] | None = None,
        chunk_size: int | None = None,
        ttl: timedelta | None = None,
        atomic: bool = False,
    ) -> ObjectInfo:
        bucket = self._store.bound_bucket
        with bucket.connection.operation():
            return await put(
                bucket,
                self._name,
                data,
                (description, None, headers, metadata),
                options=None,
                chunk_size=chunk_size,
                if_revision=revision,
                window=None,
                progress=None,
                ttl=ttl,
                end=end,
                atomic=atomic,
            )

    async def _copy(self, old: ObjectInfo, writer: ObjectWriter) -> None:
        """Write the bytes to be continued; the reader verifies them."""
        async with self._store.open_reader(self._name, follow_links="none") as reader:
            if reader.info.revision != old.revision:
                raise RevisionConflictError(
                    f"object {self._name!r} was replaced since it was opened for appending",
                    bucket=self._store.bucket,
                    name=self._name,
                    expected=old.revision,
                    current=reader.info.revision,
                )
            async for piece in reader:
                await writer.write(piece)

    async def commit(self) -> None:
        """Make the object visible; without effect after :meth:`abort`.

        Raises:
            ObjectAlreadyExists, RevisionConflictError: another writer was faster.
            NatsError: as for :meth:`objstore.ObjectStore.put`.
        """
        if self.ended:
            return
        self.ended = True
        if self._writer is None and self._old is None:
            put = self._store.put if self._mode == "wb" else self._store.create
            data, self._first = self._first or b"", None
            await put(self._name, data, **self._options)
        else:
            await (await self._open()).commit()

    async def abort(self) -> None:
        """Keep nothing of it. Without effect after :meth:`commit`."""
        self.ended = True
        self._first = None
        if self._writer is not None:
            await self._writer.abort()
