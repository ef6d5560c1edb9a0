"""The read-only half of the object store: get, list, watch, verify. See :class:`ObjectStore`."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Self, Union, overload

from natsproto import _values
from natsproto.aio.options import check_seconds

from .bucket.operation import check_callback, operation

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncGenerator

    from natsproto.aio.client import Client
    from natsproto.jetstream.context import JetStreamContext

    from .bucket.bucket import Bucket
    from .bucket.operation import Progress
    from .format.models import ObjectInfo, ObjectStoreStatus
    from .listing.decode import OnInvalid
    from .listing.pages import DirListing
    from .listing.watcher import Watcher
    from .maintenance.reports import VerifyReport
    from .read.file_objects import WritableFile
    from .read.get import get_bytes
    from .read.links import FollowLinks
    from .read.reader import OpenReader
else:

    def get_bytes(*args, **kwargs):
        """Import the function, in place of this one: an import in each call costs 2 % of a small get."""
        global get_bytes
        from .read.get import get_bytes

        return get_bytes(*args, **kwargs)


FilePath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
"""The path of a file, in any form and with any name that the file system accepts."""


class StoreReads:
    """The methods of :class:`ObjectStore` that need no permission to publish to the bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket.name

    @property
    def bound_bucket(self) -> Bucket:
        """The internal bucket object: for layers built on the store, not for applications."""
        return self._bucket

    @property
    def js(self) -> JetStreamContext:
        """The JetStream context the bucket was opened with."""
        return self._bucket.opened_with

    @property
    def client(self) -> Client:
        """The client the bucket was opened with."""
        return self._bucket.client

    def with_options(self, *, retry_budget: float) -> Self:
        """Return another handle of this bucket, for calls with other options; costs nothing.

        ``await store.with_options(retry_budget=60).put(...)`` sets them for one call.

        Args:
            retry_budget: seconds without progress after which a call gives up while the connection or the
                leader is lost; default: the option of :func:`natsproto.connect` (20).

        Raises:
            ConfigError: not a positive number.
        """
        bucket = copy.copy(self._bucket)
        bucket.retry_budget = check_seconds("retry_budget", retry_budget)
        bucket.old = bucket.old.known_to(bucket)
        return type(self)(bucket)

    def __repr__(self) -> str:
        return f"<ObjectStore {self.bucket!r}>"

    # -- reading ----------------------------------------------------------------------------------

    @overload
    @operation
    async def get(
        self,
        name: str,
        *,
        max_size: int | None = None,
        verify: bool = True,
        progress: Progress | None = None,
        window: int | None = None,
        follow_links: FollowLinks = "all",
        show_deleted: bool = False,
        writeinto: None = None,
    ) -> bytes: ...

    @overload
    @operation
    async def get(
        self,
        name: str,
        *,
        max_size: int | None = None,
        verify: bool = True,
        progress: Progress | None = None,
        window: int | None = None,
        follow_links: FollowLinks = "all",
        show_deleted: bool = False,
        writeinto: WritableFile,
    ) -> ObjectInfo: ...

    @operation
    async def get(
        self,
        name: str,
        *,
        max_size: int | None = None,
        verify: bool = True,
        progress: Progress | None = None,
        window: int | None = None,
        follow_links: FollowLinks = "all",
        show_deleted: bool = False,
        writeinto: WritableFile | None = None,
    ) -> bytes | ObjectInfo:
        """Return the whole object, after checking size, number of chunks and SHA-256 (ADR-20 §Get).

        Links are followed (at most 8). An object that is replaced meanwhile is read again.

        Args:
            max_size: refuse larger objects (bytes, default 1 GiB); read those with :meth:`get_file`.
            verify: ``False`` skips only the digest (some writers recorded wrong ones).
            progress: called with ``(bytes received, total)``; must not block.
            window: bytes of one batch request (4 MiB); two are in flight. It applies to direct get on
                nats-server 2.11; elsewhere a consumer with the server's flow control is used.
            follow_links: ``"same-bucket"`` refuses links into other buckets, ``"none"`` every link;
                writers of a bucket decide where its links lead.
            show_deleted: a deleted object or link counts as one without bytes, as with
                ``GetObjectShowDeleted`` of nats.go: the result is ``b""``.
            writeinto: write to this open file and return the info of the object, as :meth:`get_file` does;
                then there is no ``max_size`` unless it is given.

        Raises:
            ValueError: ``window`` is not a positive number, or ``follow_links`` has another value.
            TypeError: ``writeinto`` is not a binary file.
            ObjectNotFoundError, ObjectDeletedError: no such object.
            LinkError: a link leads nowhere, in a circle, to a bucket, or where ``follow_links`` forbids.
            ObjectTooLargeError: more than ``max_size`` bytes.
            IntegrityError, DigestMismatchError: the stored bytes are not those of the put.
            ObjectChangedError: the object was replaced again and again while it was read.
        """
        name = self._bucket.check_name(name)
        check_callback("progress", progress)
        if writeinto is not None:
            from .read import file_objects, links
            from .read import get as reads

            return await file_objects.get_into(
                self._bucket,
                name,
                file_objects.writer_of(writeinto),
                max_size=max_size,
                verify=verify,
                progress=progress,
                window=reads.reading_window(window),
                follow=links.check_follow_links(follow_links),
                show_deleted=show_deleted,
            )
        return await get_bytes(
            self._bucket,
            name,
            max_size=max_size,
            verify=verify,
            progress=progress,
            window=window,
            follow=follow_links,
            show_deleted=show_deleted,
        )

    def open_reader(
        self,
        name: str,
        *,
        verify: bool = True,
        window: int | None = None,
        follow_links: FollowLinks = "all",
        show_deleted: bool = False,
    ) -> OpenReader:
        """Open an object for reading: ``async with store.open_reader(name) as reader``.

        Iterate over it, or use ``read(n)``, ``readinto(buffer)``, ``seek``, ``tell``; see
        :class:`ObjectReader`.

        Args:
            verify: ``False`` skips the digest at the end.
            window: bytes of one request (4 MiB), as for :meth:`get`; memory is at most five windows.
            follow_links: as for :meth:`get`.
            show_deleted: as for :meth:`get`; then ``reader.info.deleted`` is true.

        Raises:
            ValueError: ``window`` is not a positive number, or ``follow_links`` has another value.
            ObjectNotFoundError, ObjectDeletedError, LinkError: when it is entered or awaited.
        """
        from .read.get import reading_window
        from .read.links import check_follow_links
        from .read.reader import OpenReader

        name = self._bucket.check_name(name)
        follow = check_follow_links(follow_links)
        return OpenReader(
            self._bucket,
            name,
            verify=verify,
            window=reading_window(window),
            follow=follow,
            show_deleted=show_deleted,
        )

    @operation
    async def get_range(self, name: str, start: int, end: int, *, follow_links: FollowLinks = "all") -> bytes:
        """Return the bytes from ``start`` to ``end`` (exclusive, clamped to the size) without reading others.

        The cost depends neither on the position of the range nor on the size of the object: one or two round
        trips, or O(log n) when chunks of other objects lie between this object's. The object is first
        measured (headers only) if its writer stored short chunks, or if other chunks lie between its own in a
        bucket with replicas. Lengths are checked. The digest covers the whole object, and is compared if the
        range does, too.

        Args:
            follow_links: as for :meth:`get`.

        Raises:
            ValueError: the range is negative or reversed, ``start`` is beyond the end, or ``follow_links``
                has another value.
            ObjectNotFoundError, ObjectDeletedError: no such object.
            LinkError: a link leads nowhere, or must not be followed.
            IntegrityError: the stored bytes are not those of the put.
            ObjectChangedError: the object was replaced again and again while it was read.
        """
        from .read.get import get_range
        from .read.links import check_follow_links

        name, follow = self._bucket.check_name(name), check_follow_links(follow_links)
        return await get_range(self._bucket, name, start, end, follow)

    @operation
    async def get_file(
        self,
        name: str,
        path: FilePath | WritableFile,
        *,
        verify: bool = True,
        progress: Progress | None = None,
        resume: bool = False,
        window: int | None = None,
        follow_links: FollowLinks = "all",
        show_deleted: bool = False,
    ) -> ObjectInfo:
        """Read an object into a file, which appears verified and complete or not at all.

        The bytes are written to a file beside the target, flushed to disk, and the file is renamed. Only then
        an existing target is replaced; a failure leaves it untouched. Memory does not depend on the size.

        An open file gets the bytes as they arrive, from its position on, and stays open. After an error it
        has some of them; only a call that returns has verified them.

        Args:
            path: any name the file system accepts, as text or bytes; or an open binary file, or anything with
                ``write(bytes)`` or ``async def write(bytes)``.
            verify: ``False`` skips the digest.
            progress: called with ``(bytes done, total)``; must not block.
            resume: on a failure keep what was read (in a hidden file beside the target), and continue from it
                next time if the object is still the same; the kept bytes are hashed again. Needs a path.
            window: bytes of one request (4 MiB), as for :meth:`get`; memory is at most five windows.
            follow_links: as for :meth:`get`.
            show_deleted: a deleted object or link gives an empty file, as for :meth:`get`.

        Returns:
            The info of the object that was read (for a link, its target's).

        Raises:
            OSError: the file cannot be written. Also the errors of :meth:`get`.
            TypeError: ``path`` is neither a path nor a binary file.
            ValueError: ``resume`` with an open file; or the file is closed.
        """
        name = self._bucket.check_name(name)
        check_callback("progress", progress)
        from .read import files, get, links

        if not isinstance(path, str | bytes | os.PathLike):
            from .read import file_objects

            write = file_objects.writer_of(path)
            if resume:
                raise ValueError("resume=True needs a path: an open file is filled from its position on")
            return await file_objects.get_into(
                self._bucket,
                name,
                write,
                verify=verify,
                progress=progress,
                window=get.reading_window(window),
                follow=links.check_follow_links(follow_links),
                show_deleted=show_deleted,
            )
        return await files.get_file(
            self._bucket,
            name,
            text_path(path),
            verify=verify,
            progress=progress,
            resume=resume,
            window=get.reading_window(window),
            follow=links.check_follow_links(follow_links),
            show_deleted=show_deleted,
        )

    @operation
    async def get_info(self, name: str, show_deleted: bool = False) -> ObjectInfo:
        """Return the info of an object; for a link its own info, not its target's.

        Raises:
            ObjectNotFoundError: no such object.
            ObjectDeletedError: it was deleted, and ``show_deleted`` is false.
            MetaDecodeError: its meta message cannot be read (an ``IntegrityError``).
        """
        from .format.marks import shown
        from .read import lookup

        name = self._bucket.check_name(name)
        if not show_deleted:
            return shown(await lookup.live_info(self._bucket, name))
        return shown(await lookup.newest_info(self._bucket, name))

    @operation
    async def exists(self, name: str) -> bool:
        """Whether a live object (or link) has that name."""
        from .read.lookup import find_info

        info = await find_info(self._bucket, self._bucket.check_name(name))
        return info is not None and not info.deleted

    # -- listing ----------------------------------------------------------------------------------

    @operation
    async def list(
        self, *, prefix: str = "", include_deleted: bool = False, on_invalid: OnInvalid | None = None
    ) -> list[ObjectInfo]:
        """Return all objects in the order of their last change; ``[]`` when there are none.

        It includes everything acknowledged before the call, even if a replica is behind.

        Args:
            prefix: only names with this prefix (filtered by the client: all metas are read).
            include_deleted: include delete markers.
            on_invalid: called with each :class:`InvalidMeta`, except those of names without the prefix;
                default: log a WARNING for each.
        """
        from .format.marks import shown
        from .listing.decode import reports_of
        from .listing.metas import newest_metas

        check_callback("on_invalid", on_invalid)
        infos = map(shown, await newest_metas(self._bucket, reports_of(prefix, on_invalid)))
        return [
            info for info in infos if (include_deleted or not info.deleted) and info.name.startswith(prefix)
        ]

    def iter(
        self, *, prefix: str = "", include_deleted: bool = False, on_invalid: OnInvalid | None = None
    ) -> AsyncGenerator[ObjectInfo, None]:
        """Iterate over all objects in the order of their last change, a page at a time.

        ``async for info in store.iter()``: memory does not depend on the number of objects, and nothing is
        fetched ahead of the iteration (before nats-server 2.10 all metas are read at once). An object changed
        meanwhile may come again with the newer revision, or not at all if it was deleted. Everything
        acknowledged before the iteration is included, even if a replica is behind. Arguments as :meth:`list`.
        """
        from .listing import pages
        from .listing.decode import reports_of

        check_callback("on_invalid", on_invalid)
        report = reports_of(prefix, on_invalid)
        return pages.iterate(self._bucket, prefix, include_deleted=include_deleted, on_invalid=report)

    @operation
    async def names(self, prefix: str = "", *, live: bool = False) -> builtins.list[str]:
        """Return every name, sorted: one round trip per 100 000 names, without reading metas.

        Args:
            prefix: only names with this prefix.
            live: leave out deleted objects; this reads every meta and costs as much as :meth:`list`.
        """
        from .listing import pages

        return await pages.names(self._bucket, prefix, live=live)

    @operation
    async def count(self, prefix: str = "", *, live: bool = False) -> int:
        """Return how many names there are; arguments and cost as :meth:`names`."""
        return len(await self.names(prefix, live=live))

    @operation
    async def list_dirs(self, prefix: str = "", delimiter: str = "/") -> DirListing:
        """Return one level of names: the levels below, and the live objects of this level.

        The server has no directories: every meta is read.

        Args:
            prefix: the level, usually ending in the delimiter.
            delimiter: the separator of levels, not empty.
        """
        from .listing import pages

        if not delimiter:
            raise ValueError("the delimiter must not be empty")
        return await pages.list_dirs(self._bucket, prefix, delimiter)

    def watch(
        self,
        *,
        updates_only: bool = False,
        ignore_deletes: bool = False,
        from_revision: int | None = None,
        prefix: str = "",
        on_invalid: OnInvalid | None = None,
    ) -> Watcher:
        """Watch for changes: ``async for info in store.watch()``; see :class:`Watcher`.

        Args:
            updates_only: leave out the current state.
            ignore_deletes: leave out delete markers.
            from_revision: begin with this revision instead of the current state: to continue where an earlier
                watch ended, give its last revision + 1.
            prefix: only names with this prefix.
            on_invalid: called with each :class:`InvalidMeta`; default: log a WARNING for each, but
                no more than ten per second.
        """
        from .listing.watcher import Watcher

        check_callback("on_invalid", on_invalid)
        return Watcher(
            self._bucket,
            updates_only=updates_only,
            ignore_deletes=ignore_deletes,
            from_revision=from_revision,
            prefix=prefix,
            on_invalid=on_invalid,
        )

    # -- the bucket itself ------------------------------------------------------------------------

    @operation
    async def status(self) -> ObjectStoreStatus:
        """Return configuration and usage.

        ``size`` is the stream's bytes, overhead included. ``count`` counts live objects, so this reads every
        meta message: it costs as much as :meth:`list`.
        """
        from .format.buckets import store_status
        from .listing.metas import newest_metas

        bucket = self._bucket
        info = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
        metas = await newest_metas(bucket, lambda invalid: None)
        return store_status(info.raw, sum(not meta.deleted for meta in metas))

    @operation
    async def verify(self, *, deep: bool = False) -> VerifyReport:
        """Check that the stored chunks agree with the metas; change nothing.

        Counts reveal missing and extra chunks: two requests and one read of all metas. Suspects are checked
        again, so concurrent changes are not reported.

        Args:
            deep: read every object and compare its size and digest.
        """
        from .maintenance.verify import verify

        return await verify(self._bucket, deep=deep)


def text_path(path: FilePath) -> str:
    """Return the path as text; undecodable bytes become surrogate escapes, as everywhere in :mod:`os`."""
    return _values.text(os.fsdecode(path))
