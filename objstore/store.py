"""The object store: every verb, documented; the work is done one file per verb.

A verb's file is imported when it is first called, so importing :class:`ObjectStore` costs next to nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .errors import BadObjectMetaError
from .format.naming import MAX_CHUNK_SIZE

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from datetime import timedelta

    from natsproto.jetstream.context import JetStreamContext

    from ._bucket import Bucket
    from ._list import DirListing
    from ._maintain import GcReport, VerifyReport
    from ._put import Progress
    from ._reader import OpenReader
    from ._source import ObjectData
    from ._upload import Upload
    from ._watch import OnInvalid, Watcher
    from ._writer import ObjectWriter
    from .format.models import ObjectInfo, ObjectLink, ObjectMeta, ObjectMetaOptions, ObjectStoreStatus

    Headers = Mapping[str, str | Sequence[str]]


class ObjectStore:
    """One bucket, made by ``js.object_store()`` or ``js.create_object_store()``; many may share a client.

    Every call raises ``BucketNotFoundError`` when the bucket is gone, ``ConnectionClosedError`` after the
    client was closed, and gives up with the last error when a lost connection or leader does not come back
    within 20 s without progress. There is no overall deadline on a transfer: bound a call with
    ``asyncio.timeout()``; cancelling is safe everywhere.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket.name

    @property
    def js(self) -> JetStreamContext:
        """The JetStream context the bucket was opened with."""
        return self._bucket.js

    def __repr__(self) -> str:
        return f"<ObjectStore {self.bucket!r}>"

    # -- writing ----------------------------------------------------------------------------------

    async def put(
        self,
        name: str,
        data: ObjectData,
        description: str | None = None,
        filename: str | None = None,
        headers: Headers | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        options: ObjectMetaOptions | None = None,
        chunk_size: int | None = None,
        if_revision: int | None = None,
        window: int | None = None,
        progress: Progress | None = None,
        ttl: timedelta | None = None,
        atomic: bool = False,
    ) -> ObjectInfo:
        """Store an object under a name, replacing what was there (ADR-20 §Put).

        The object appears, complete, when its meta message is committed: after every chunk has been
        acknowledged, in order. A failed or cancelled put leaves the previous object as it was and no chunks
        behind. Of several writers the last one wins, unless ``if_revision`` is given.

        Args:
            name: any non-empty text up to about 2 900 bytes of UTF-8.
            data: bytes-like object (must not change meanwhile), binary file, ``PathLike``, iterable or
                async iterable of bytes. Files are read in a thread. A ``str`` is refused.
            description: free text.
            filename: original file name; stored as ``metadata["filename"]``.
            headers: one value or a list of values per name.
            metadata: ``str`` to ``str`` pairs.
            options: ``chunk_size``/``max_chunk_size`` of this object; a link is refused here.
            chunk_size: bytes per chunk, 1 to 1 MiB and at most the server's max_payload; default 128 KiB.
            if_revision: store only if the object is at this revision; 0 = absent or deleted.
            window: unacknowledged bytes in flight (8 MiB).
            progress: called with ``(bytes sent, total or None)``; must not block.
            ttl: the server removes the object by itself after this time, at least a second. Needs a bucket
                created with ``allow_msg_ttl`` and nats-server 2.11. The upload must take less than an hour.
            atomic: commit chunks and meta as one batch: nothing of the object is ever visible, or left
                behind, otherwise. At most 999 chunks, held in memory; slower; needs a bucket created with
                ``allow_atomic`` and nats-server 2.12.

        Returns:
            What was stored. ``revision`` is the server's, ``mtime`` this client's clock at the commit.

        Raises:
            BadObjectMetaError: bad chunk size, headers, metadata or description; nothing was sent.
            InvalidNameError: bad name; nothing was sent.
            RevisionConflictError: ``if_revision`` was not met.
            StoreFullError, BucketSealedError, PermissionsViolationError, MaxPayloadError.
            UnsupportedFeatureError: ``ttl`` or ``atomic`` in a bucket that does not allow it.
            OutcomeUnknownError: whether the commit took place could not be found out.
        """
        from . import _put

        _check_revision(if_revision)
        return await _put.put(
            self._bucket,
            name,
            data,
            (description, filename, headers, metadata),
            options=options,
            chunk_size=chunk_size,
            if_revision=if_revision,
            window=window,
            progress=progress,
            ttl=ttl,
            atomic=atomic,
        )

    async def create(
        self,
        name: str,
        data: ObjectData,
        description: str | None = None,
        filename: str | None = None,
        headers: Headers | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        options: ObjectMetaOptions | None = None,
        chunk_size: int | None = None,
        window: int | None = None,
        progress: Progress | None = None,
        ttl: timedelta | None = None,
        atomic: bool = False,
    ) -> ObjectInfo:
        """Store an object that must not exist (a deleted one does not). Arguments as :meth:`put`.

        Raises:
            ObjectAlreadyExists: it does; of several at once exactly one succeeds.
        """
        from . import _put

        return await _put.put(
            self._bucket,
            name,
            data,
            (description, filename, headers, metadata),
            options=options,
            chunk_size=chunk_size,
            if_revision=0,
            must_not_exist=True,
            window=window,
            progress=progress,
            ttl=ttl,
            atomic=atomic,
        )

    def open_writer(
        self,
        name: str,
        description: str | None = None,
        filename: str | None = None,
        headers: Headers | None = None,
        **options: Any,
    ) -> ObjectWriter:
        """Open an object for writing: ``async with store.open_writer(name) as writer``.

        It appears, complete, when the block is left without an exception; otherwise nothing of it stays.
        Arguments as :meth:`put`.
        """
        from ._writer import ObjectWriter

        self._bucket.check_writable()
        self._bucket.check_name(name)
        return ObjectWriter(lambda data: self.put(name, data, description, filename, headers, **options))

    async def put_file(
        self,
        name: str,
        path: str | os.PathLike[str],
        description: str | None = None,
        filename: str | None = None,
        headers: Headers | None = None,
        **options: Any,
    ) -> ObjectInfo:
        """Store a file; ``filename`` defaults to its base name. Otherwise as :meth:`put`.

        The file is read as it goes, in a thread; memory does not depend on its size.

        Raises:
            OSError: the file cannot be read; what :meth:`put` raises.
        """
        from ._source import FilePath

        text = _text_path(path)
        if filename is None:
            filename = os.path.basename(text)
        return await self.put(name, FilePath(text), description, filename, headers, **options)

    async def begin_upload(
        self,
        name: str,
        description: str | None = None,
        filename: str | None = None,
        headers: Headers | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        chunk_size: int | None = None,
        token: str | None = None,
    ) -> Upload:
        """Begin an upload that can be continued after an interruption, or continue one.

        ``upload = await store.begin_upload(name)``; keep ``upload.token``; ``await upload.send(data)``. After
        an interruption, in another process perhaps, ``begin_upload(name, token=token)`` and ``send`` the same
        data again: chunks already stored are compared, not sent.

        Args:
            token: of the upload to continue; what it was begun with comes from the token.

        Raises:
            BadObjectMetaError, InvalidNameError: bad arguments, or not a token of this object.
        """
        from . import _upload

        self._bucket.check_name(name)
        if token is not None:
            return _upload.resume(self._bucket, name, token)
        about = {"description": description, "filename": filename, "headers": headers, "metadata": metadata}
        return _upload.begin(self._bucket, name, about, chunk_size)

    async def delete(self, name: str, *, if_revision: int | None = None) -> bool:
        """Delete an object: a delete marker is committed, then its chunks are purged (ADR-20 §Delete).

        Works on a full bucket, too. A link is deleted, never what it points to.

        Returns:
            ``True``.

        Raises:
            ObjectNotFoundError: no such object.
            ObjectDeletedError: it is deleted already.
            RevisionConflictError: ``if_revision`` was not met.
            BucketSealedError, OutcomeUnknownError.
        """
        from . import _change

        self._bucket.check_writable()
        _check_revision(if_revision)
        await _change.delete(self._bucket, self._bucket.check_name(name), if_revision)
        return True

    async def update_meta(self, name: str, meta: ObjectMeta, *, if_revision: int | None = None) -> ObjectInfo:
        """Change description, headers, metadata or name; or make a link.

        ``None`` keeps what is there, ``""`` and ``{}`` clear it. Content, digest and chunk size stay as they
        are. ``meta.name`` other than ``name`` renames: never a moment without a name. With
        ``meta.options.link`` it makes a link, as :meth:`add_link` (also under a name that does not exist).

        Raises:
            ObjectNotFoundError, ObjectDeletedError: no such object.
            ObjectAlreadyExists: the new name is taken; a link would replace an object.
            RevisionConflictError: ``if_revision`` was not met.
            BadObjectMetaError, InvalidNameError: nothing was sent.
        """
        from . import _change
        from .format.models import ObjectMeta

        if not isinstance(meta, ObjectMeta):
            raise BadObjectMetaError(f"meta must be an ObjectMeta, not {type(meta).__name__}")
        bucket = self._bucket
        bucket.check_writable()
        bucket.check_name(name)
        bucket.check_name(meta.name)
        _check_revision(if_revision)
        link = None if meta.options is None else meta.options.link
        if link is not None:
            if meta.name != name:
                raise BadObjectMetaError(
                    "a link cannot be made and renamed at once", bucket=bucket.name, name=name
                )
            return await self._add_link(meta, link)
        return await _change.update(bucket, name, meta, if_revision)

    async def rename(self, name: str, new_name: str, *, if_revision: int | None = None) -> ObjectInfo:
        """Rename an object; there is never a moment with no name, and a crash in between is finished later.

        Chunks do not move. Afterwards the old name is a delete marker. Other clients that overwrite or delete
        the old name in the very moment of the rename do not know of it and take the chunks along.

        Raises:
            ObjectNotFoundError, ObjectDeletedError: no such object.
            ObjectAlreadyExists: a live object has the new name.
            RevisionConflictError: ``if_revision`` was not met, or the object was changed meanwhile.
        """
        from .format.models import ObjectMeta

        return await self.update_meta(name, ObjectMeta(new_name), if_revision=if_revision)

    async def copy(
        self,
        name: str,
        new_name: str,
        *,
        to: ObjectStore | None = None,
        chunk_size: int | None = None,
        if_revision: int | None = None,
        progress: Progress | None = None,
    ) -> ObjectInfo:
        """Copy an object, here or into another store (of this or another client).

        The server cannot copy: the bytes go through this client, in constant memory, and are verified.
        Description, headers, metadata and chunk size are copied, a time to live is not. Of a link its target
        is copied.

        Args:
            new_name: the copy's name; an object of that name is replaced.
            to: the store to copy into; default: this one.
            chunk_size: another chunk size for the copy.
            if_revision: as :meth:`put`, for the copy.

        Raises:
            What :meth:`get_file` and :meth:`put` raise.
        """
        from . import _get

        bucket, info = await _get.resolve(self._bucket, self._bucket.check_name(name))
        target = self if to is None else to
        if chunk_size is None and info.options is not None:
            limit = min(target._bucket.client.max_payload, MAX_CHUNK_SIZE)
            chunk_size = min(info.options.max_chunk_size, limit)
        return await target.put(
            new_name,
            _get.buffers(bucket, info),
            info.description,
            None,
            info.headers,
            metadata={key: value for key, value in info.metadata.items() if not key.startswith("natsproto.")},
            chunk_size=chunk_size,
            if_revision=if_revision,
            progress=progress,
        )

    async def purge_deleted(self, older_than: timedelta | None = None) -> int:
        """Remove delete markers, so that names and space are free again; returns how many.

        A watcher that was away meanwhile does not learn of those deletions any more: hence ``older_than``.

        Args:
            older_than: only markers older than this; default: all.
        """
        from datetime import timedelta

        from . import _change

        self._bucket.check_writable()
        return await _change.purge_deleted(self._bucket, timedelta(0) if older_than is None else older_than)

    # -- links ------------------------------------------------------------------------------------

    async def add_link(
        self, name: str, target: ObjectInfo | ObjectLink, *, description: str | None = None
    ) -> ObjectInfo:
        """Make ``name`` a link to an object, here or in another bucket (ADR-20 §AddLink).

        Raises:
            ObjectAlreadyExists: a live object has that name (a delete marker or link is replaced).
            ObjectNotFoundError, ObjectDeletedError, BucketNotFoundError: the target is not there.
            LinkError: the target is a link.
        """
        from .format.models import ObjectInfo, ObjectLink, ObjectMeta

        if isinstance(target, ObjectInfo):
            target = ObjectLink(target.bucket, target.name)
        if not isinstance(target, ObjectLink) or target.name is None:
            raise BadObjectMetaError("add_link() wants the info of an object, or a link with bucket and name")
        self._bucket.check_name(name)
        return await self._add_link(ObjectMeta(name, description), target)

    async def add_bucket_link(self, name: str, bucket: str, *, description: str | None = None) -> ObjectInfo:
        """Make ``name`` a link to a whole bucket (ADR-20 §AddBucketLink); reading it raises ``LinkError``.

        Raises:
            ObjectAlreadyExists: a live object has that name.
            BadBucketError: not a bucket name.
        """
        from .format.models import ObjectLink, ObjectMeta

        self._bucket.check_name(name)
        return await self._add_link(ObjectMeta(name, description), ObjectLink(bucket))

    async def _add_link(self, meta: ObjectMeta, link: ObjectLink) -> ObjectInfo:
        from . import _links

        self._bucket.check_writable()
        return await _links.add_link(self._bucket, meta, link)

    # -- reading ----------------------------------------------------------------------------------

    async def get(
        self,
        name: str,
        *,
        max_size: int | None = None,
        verify: bool = True,
        progress: Progress | None = None,
    ) -> bytes:
        """Return the whole object: size, number of chunks and SHA-256 have been checked (ADR-20 §Get).

        Links are followed (at most 8). An object that is replaced meanwhile is read once more.

        Args:
            max_size: refuse larger objects (bytes, default 1 GiB); see :meth:`get_file` for those.
            verify: ``False`` skips the digest only (some writers recorded wrong ones).
            progress: called with ``(bytes received, total)``; must not block.

        Raises:
            ObjectNotFoundError, ObjectDeletedError: no such object.
            LinkError: a link that leads nowhere, in a circle or to a bucket.
            ObjectTooLargeError: more than ``max_size`` bytes.
            IntegrityError, DigestMismatchError: what is stored is not what was put.
            ObjectChangedError: replaced again and again while being read.
        """
        from . import _get

        self._bucket.check_name(name)
        limit = _get.DEFAULT_MAX_SIZE if max_size is None else max_size
        _, data = await _get.get_bytes(self._bucket, name, max_size=limit, verify=verify, progress=progress)
        return data

    def open_reader(self, name: str, *, verify: bool = True) -> OpenReader:
        """Open an object for reading: ``async with store.open_reader(name) as reader``.

        Iterate over it, or ``read(n)``, ``readinto(buffer)``, ``seek``, ``tell``; see :class:`ObjectReader`.

        Args:
            verify: ``False`` skips the digest at the end.

        Raises:
            ObjectNotFoundError, ObjectDeletedError, LinkError: when it is entered or awaited.
        """
        from ._reader import OpenReader

        return OpenReader(self._bucket, self._bucket.check_name(name), verify=verify)

    async def get_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` to ``end`` (exclusive, clamped to the size) without reading others.

        Costs the same wherever the range lies and however large the object is: one or two round trips, or
        O(log n) when chunks of other objects lie between this one's. An object whose writer stored short
        chunks is measured first (headers only). Lengths are checked; the digest is of the whole object and
        cannot be.

        Raises:
            ValueError: negative, reversed, or ``start`` beyond the end.
            ObjectNotFoundError, ObjectDeletedError, LinkError, IntegrityError, ObjectChangedError.
        """
        from . import _get

        return await _get.get_range(self._bucket, self._bucket.check_name(name), start, end)

    async def get_file(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        verify: bool = True,
        progress: Progress | None = None,
        resume: bool = False,
    ) -> ObjectInfo:
        """Read an object into a file, which appears verified and complete or not at all.

        It is written beside the target, flushed to disk and renamed; an existing target is replaced only
        then, and untouched on any failure. Memory does not depend on the size.

        Args:
            verify: ``False`` skips the digest.
            progress: called with ``(bytes done, total)``; must not block.
            resume: keep what was read when this fails (beside the target, hidden), and continue there next
                time if the object is still the same; what is there is hashed again.

        Returns:
            The info of the object that was read (the link's target for a link).

        Raises:
            OSError: the file cannot be written; otherwise as :meth:`get`.
        """
        self._bucket.check_name(name)
        from . import _files

        return await _files.get_file(
            self._bucket, name, _text_path(path), verify=verify, progress=progress, resume=resume
        )

    async def get_info(self, name: str, show_deleted: bool = False) -> ObjectInfo:
        """Return what is known of an object; a link's own info, not its target's.

        Raises:
            ObjectNotFoundError: no such object.
            ObjectDeletedError: it was deleted, and ``show_deleted`` is false.
            MetaDecodeError: its meta message cannot be read (an ``IntegrityError``).
        """
        from . import _get

        self._bucket.check_name(name)
        if not show_deleted:
            return await _get.live_info(self._bucket, name)
        info = await self._bucket.read_meta(name)
        if info is None:
            raise _get.not_found(self._bucket.name, name)
        return info

    async def exists(self, name: str) -> bool:
        """True when a live object (or link) has that name."""
        info = await self._bucket.read_meta(self._bucket.check_name(name))
        return info is not None and not info.deleted

    # -- listing ----------------------------------------------------------------------------------

    async def list(
        self, *, prefix: str = "", include_deleted: bool = False, on_invalid: OnInvalid | None = None
    ) -> list[ObjectInfo]:
        """Return all objects in the order of their last change; ``[]`` when there are none.

        Args:
            prefix: only names that begin with it (compared here, all metas are read).
            include_deleted: delete markers as well.
            on_invalid: called with each :class:`InvalidMeta`; default: one WARNING each, and skip.
        """
        from ._watch import newest_metas

        infos = await newest_metas(self._bucket, on_invalid)
        return [
            info for info in infos if (include_deleted or not info.deleted) and info.name.startswith(prefix)
        ]

    def iter(
        self, *, prefix: str = "", include_deleted: bool = False, on_invalid: OnInvalid | None = None
    ) -> AsyncGenerator[ObjectInfo, None]:
        """Iterate over all objects in the order of their last change, a page at a time.

        ``async for info in store.iter()``: memory does not depend on the number of objects, and nothing is
        fetched ahead of the iteration (before nats-server 2.10 all metas are read at once). Objects changed
        meanwhile may come again, with the newer revision, or not at all when they were deleted.
        Arguments as :meth:`list`.
        """
        from . import _list

        return _list.iterate(self._bucket, prefix, include_deleted=include_deleted, on_invalid=on_invalid)

    async def names(self, prefix: str = "", *, live: bool = False) -> builtins.list[str]:
        """Return every name, sorted: one round trip per 100 000, no meta is read.

        Args:
            prefix: only names that begin with it.
            live: leave out the deleted ones; that reads every meta and costs what :meth:`list` costs.
        """
        from . import _list

        return await _list.names(self._bucket, prefix, live=live)

    async def count(self, prefix: str = "", *, live: bool = False) -> int:
        """Return how many names there are; arguments and cost as :meth:`names`."""
        return len(await self.names(prefix, live=live))

    async def list_dirs(self, prefix: str = "", delimiter: str = "/") -> DirListing:
        """Return one level of names: what goes on below, and the live objects of this level.

        The server knows no directories: every meta is read.

        Args:
            prefix: the level, usually ending in the delimiter.
            delimiter: what separates levels, not empty.
        """
        from . import _list

        if not delimiter:
            raise ValueError("the delimiter must not be empty")
        return await _list.list_dirs(self._bucket, prefix, delimiter)

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
            from_revision: begin with the states at this revision or later, instead of the current state of
                everything: to go on where an earlier watch ended, give its last revision + 1.
            prefix: only names that begin with it.
            on_invalid: called with each :class:`InvalidMeta`; default: one WARNING each, and skip.
        """
        from ._watch import Watcher

        return Watcher(
            self._bucket,
            updates_only=updates_only,
            ignore_deletes=ignore_deletes,
            from_revision=from_revision,
            prefix=prefix,
            on_invalid=on_invalid,
        )

    # -- maintenance ------------------------------------------------------------------------------

    async def verify(self, *, deep: bool = False) -> VerifyReport:
        """Check that what is stored agrees with the metas; changes nothing.

        Counts tell of missing and extra chunks: two requests and one read of all metas. What looks wrong is
        looked at again, so changes meanwhile are no problems.

        Args:
            deep: read every object and compare its size and digest.
        """
        from . import _maintain

        return await _maintain.verify(self._bucket, deep=deep)

    async def gc(self, *, older_than: timedelta | None = None, dry_run: bool = False) -> GcReport:
        """Remove chunks that no meta names, and complete half-done renames: what crashed writers leave.

        Chunks whose newest is younger than ``older_than`` are left alone, so a put in progress is never
        touched. A paused upload (:meth:`begin_upload`) looks like an orphan and is collected when it has been
        paused for longer.

        Args:
            older_than: default 24 hours.
            dry_run: only report.
        """
        from . import _maintain

        self._bucket.check_writable()
        age = _maintain.DEFAULT_AGE if older_than is None else older_than
        return await _maintain.gc(self._bucket, older_than=age, dry_run=dry_run)

    # -- the bucket itself ------------------------------------------------------------------------

    async def status(self) -> ObjectStoreStatus:
        """Return configuration and usage.

        ``size`` is the stream's bytes, overhead included. ``count`` is of live objects, so this reads every
        meta message: it costs what :meth:`list` costs.
        """
        from ._watch import newest_metas
        from .format.buckets import store_status

        bucket = self._bucket
        info = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
        metas = await newest_metas(bucket, lambda invalid: None)
        return store_status(info.raw, sum(not meta.deleted for meta in metas))

    async def seal(self) -> bool:
        """Make the bucket read-only, for good. The server drops its ``ttl`` with that.

        Returns:
            ``True``.
        """
        bucket = self._bucket
        info = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
        if info.config.sealed is not True:
            from dataclasses import replace

            sealed = replace(info.config, sealed=True)
            await bucket.retrying(lambda: bucket.js.update_stream(sealed))
        return True


def _check_revision(revision: int | None) -> None:
    if revision is not None and (not isinstance(revision, int) or isinstance(revision, bool) or revision < 0):
        raise BadObjectMetaError(f"if_revision must be a revision (0 = absent or deleted), not {revision!r}")


def _text_path(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError("path must be a str or os.PathLike[str]")
    return text
