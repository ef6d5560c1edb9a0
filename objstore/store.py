"""The object store: the documentation of every verb; each verb is implemented in its own file.

A verb's file is imported on its first call, so importing :class:`ObjectStore` costs next to nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .bucket.operation import check_callback, operation
from .errors import BadObjectMetaError
from .store_reads import FilePath, StoreReads, text_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from typing import Unpack

    from .bucket.operation import Progress
    from .format.models import ObjectInfo, ObjectLink, ObjectMeta, ObjectMetaOptions
    from .maintenance.reports import GcReport
    from .read.links import FollowLinks
    from .write.put import PutOptions
    from .write.put import put as put_object
    from .write.source import ObjectData
    from .write.upload import Upload
    from .write.writer import ObjectWriter

    Headers = Mapping[str, str | Sequence[str]]
else:

    def put_object(*args, **kwargs):
        """Import the function, in place of this one: an import in each call costs 1 % of a small put."""
        global put_object
        from .write.put import put as put_object

        return put_object(*args, **kwargs)


class ObjectStore(StoreReads):
    """One bucket, opened by ``js.object_store()`` or ``js.create_object_store()``; many may share a client.

    Every call raises ``BucketNotFoundError`` when the bucket is gone. It raises ``ConnectionClosedError``
    when the client is closed, and in another event loop or thread than the client's. When a lost connection
    or leader does not come back within the retry budget, the call fails with the last error. The budget is
    20 s without progress, unless :func:`natsproto.connect` or :meth:`with_options` set another. A transfer
    has no overall deadline: bound a call with ``asyncio.timeout()``; cancelling is safe everywhere.

    ``Client.drain()`` lets running calls finish. ``Client.close()`` ends them with
    ``ConnectionClosedError``: a put removes its chunks first, and the previous object stays.
    """

    # -- writing ----------------------------------------------------------------------------------

    @operation
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
        size: int | None = None,
    ) -> ObjectInfo:
        """Store an object under a name, replacing any previous object (ADR-20 §Put).

        The object appears, complete, when its meta message is committed: after every chunk has been
        acknowledged, in order. A failed or cancelled put leaves the previous object unchanged and no chunks
        behind. Of several writers the last one wins, unless ``if_revision`` is given.

        Args:
            name: any non-empty text up to about 2 900 bytes of UTF-8.
            data: bytes-like object (must not change meanwhile), binary file, ``PathLike``, anything with an
                ``async def read(size)`` (a stream, an upload, an :class:`ObjectReader`), iterable or async
                iterable of bytes. Readable objects are read from their current position and left open, files
                in a thread. A ``str`` is refused.
            description: free text.
            filename: original file name; stored as ``metadata["filename"]``.
            headers: one value or a list of values per name.
            metadata: ``str`` to ``str`` pairs.
            options: ``chunk_size``/``max_chunk_size`` of this object; a link is refused.
            chunk_size: bytes per chunk, 1 to 1 MiB and at most the server's max_payload; default 128 KiB.
            if_revision: store only if the object is at this revision; 0 = absent or deleted.
            window: unacknowledged bytes in flight (8 MiB).
            progress: called with ``(bytes sent, total or None)``; must not block. Not a coroutine function.
            ttl: the server removes the object by itself after this time, at least a second. Needs a bucket
                created with ``allow_msg_ttl`` and nats-server 2.11. The upload must take less than an hour.
            atomic: commit chunks and meta as one batch, so that no part of the object is ever visible or left
                behind without the rest. At most 999 chunks, held in memory; slower; needs a bucket created
                with ``allow_atomic`` and nats-server 2.12.
            size: bytes of ``data``, for a stream or iterable that does not tell: then limits are checked
                before a byte is sent, and ``progress`` gets the total. The data is read to its end and must
                have exactly that many bytes.

        Returns:
            The info of the stored object. ``revision`` is the server's, ``mtime`` this client's clock at the
            commit.

        Raises:
            BadObjectMetaError: bad chunk size, headers, metadata or description; nothing was sent.
            InvalidNameError: bad name; nothing was sent.
            TypeError: ``data`` yields something other than bytes, or ``progress`` is a coroutine function.
            SourceChangedError: the file shrank or grew while it was read, or a stream did not have ``size``
                bytes; nothing was stored.
            RevisionConflictError: ``if_revision`` was not met.
            StoreFullError, BucketSealedError, PermissionsViolationError, MaxPayloadError: refused.
            BadBucketError: the configuration of the bucket's stream prevents storing it; see ``field``.
            UnsupportedFeatureError: ``ttl`` or ``atomic`` in a bucket that does not allow it.
            TemporarilyUnavailableError: ``atomic``, and other clients kept all batches open that the server
                allows, for longer than the retry budget; nothing was stored.
            OutcomeUnknownError: it could not be determined whether the commit took place.
        """
        _check_revision(if_revision)
        return await put_object(
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
            size=size,
        )

    @operation
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
        size: int | None = None,
    ) -> ObjectInfo:
        """Store an object that must not exist yet (deleted ones do not). Arguments as :meth:`put`.

        Raises:
            ObjectAlreadyExists: the object exists; of several concurrent calls exactly one succeeds.
        """
        from .write import put

        return await put.put(
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
            size=size,
        )

    def open_writer(
        self,
        name: str,
        description: str | None = None,
        filename: str | None = None,
        headers: Headers | None = None,
        **options: Unpack[PutOptions],
    ) -> ObjectWriter:
        """Open an object for writing: ``async with store.open_writer(name) as writer``.

        It appears, complete, when the block ends without an exception; otherwise nothing of it is kept.
        Arguments as :meth:`put`.
        """
        from .write.writer import ObjectWriter

        self._bucket.check_writable()
        name = self._bucket.check_name(name)
        check_callback("progress", options.get("progress"))
        return ObjectWriter(
            lambda data: self.put(name, data, description, filename, headers, **options),
            self._bucket.connection,
        )

    @operation
    async def put_file(
        self,
        name: str,
        path: FilePath,
        description: str | None = None,
        filename: str | None = None,
        headers: Headers | None = None,
        **options: Unpack[PutOptions],
    ) -> ObjectInfo:
        """Store a file; ``filename`` defaults to its base name. Otherwise as :meth:`put`.

        The file is read piece by piece in a thread; memory does not depend on its size.

        Args:
            path: any name the file system accepts, as text or bytes. Bytes that are not UTF-8 become U+FFFD
                in the ``filename``.

        Raises:
            OSError: the file cannot be read. Also the errors of :meth:`put`.
        """
        from .write.source import GivenPath

        text = text_path(path)
        if filename is None:
            filename = os.fsencode(os.path.basename(text)).decode("utf-8", "replace")
        return await self.put(name, GivenPath(text), description, filename, headers, **options)

    @operation
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
        an interruption, perhaps in another process, call ``begin_upload(name, token=token)`` and ``send`` the
        same data again: stored chunks are compared, not sent.

        Args:
            token: the token of the upload to continue; it contains the original arguments, and a secret.

        Raises:
            BadObjectMetaError, InvalidNameError: bad arguments, or not a token of this object.
        """
        from .write import upload

        name = self._bucket.check_name(name)
        if token is not None:
            return upload.resume(self._bucket, name, token)
        return upload.begin(self._bucket, name, (description, filename, headers, metadata), chunk_size)

    @operation
    async def delete(self, name: str, *, if_revision: int | None = None) -> bool:
        """Delete an object: a delete marker is committed, then its chunks are purged (ADR-20 §Delete).

        This works on a full bucket, too. Of a link, only the link is deleted, never its target.

        Returns:
            ``True``.

        Raises:
            ObjectNotFoundError: no such object.
            ObjectDeletedError: it is already deleted.
            RevisionConflictError: ``if_revision`` was not met.
            BucketSealedError: the bucket is sealed; nothing was deleted.
            OutcomeUnknownError: it could not be determined whether the object was deleted.
        """
        from .change.delete import delete

        self._bucket.check_writable()
        _check_revision(if_revision)
        await delete(self._bucket, self._bucket.check_name(name), if_revision)
        return True

    @operation
    async def update_meta(self, name: str, meta: ObjectMeta, *, if_revision: int | None = None) -> ObjectInfo:
        """Change description, headers, metadata or name; or create a link.

        ``None`` keeps the current value, ``""`` and ``{}`` clear it. Content, digest and chunk size stay
        unchanged. If ``meta.name`` differs from ``name``, the object is renamed; it always has a name. In a
        bucket with a ``ttl`` the age of meta and bytes is renewed: the bytes are copied through this client.
        With ``meta.options.link`` it creates a link, as :meth:`add_link` does (the name may be new).

        Raises:
            ObjectNotFoundError, ObjectDeletedError: no such object.
            ObjectAlreadyExists: the new name is taken; a link would replace an object.
            RevisionConflictError: ``if_revision`` was not met.
            BadObjectMetaError, InvalidNameError: nothing was sent.
        """
        from .change import update
        from .format.marks import shown
        from .format.models import ObjectMeta

        if not isinstance(meta, ObjectMeta):
            raise BadObjectMetaError(f"meta must be an ObjectMeta, not {type(meta).__name__}")
        bucket = self._bucket
        bucket.check_writable()
        name = bucket.check_name(name)
        bucket.check_name(meta.name)
        _check_revision(if_revision)
        link = None if meta.options is None else meta.options.link
        if link is not None:
            if meta.name != name:
                raise BadObjectMetaError(
                    "a link cannot be created and renamed at once", bucket=bucket.name, name=name
                )
            return await self._add_link(meta, link)
        return shown(await update.update(bucket, name, meta, if_revision))

    @operation
    async def rename(self, name: str, new_name: str, *, if_revision: int | None = None) -> ObjectInfo:
        """Rename an object; it always has a name, and a rename interrupted by a crash is completed later.

        Chunks do not move. Afterwards the old name is a delete marker. Other clients that overwrite or delete
        the old name during the rename do not know of it and remove the chunks.

        Raises:
            ObjectNotFoundError, ObjectDeletedError: no such object.
            ObjectAlreadyExists: a live object has the new name.
            RevisionConflictError: ``if_revision`` was not met, or the object was changed meanwhile.
        """
        from .format.models import ObjectMeta

        return await self.update_meta(name, ObjectMeta(new_name), if_revision=if_revision)

    @operation
    async def copy(
        self,
        name: str,
        new_name: str,
        *,
        to: ObjectStore | None = None,
        chunk_size: int | None = None,
        ttl: timedelta | None = None,
        if_revision: int | None = None,
        progress: Progress | None = None,
        follow_links: FollowLinks = "all",
    ) -> ObjectInfo:
        """Copy an object, here or into another store (of this or another client).

        The server cannot copy: the bytes go through this client, in constant memory, and are verified.
        Description, headers, metadata and chunk size are copied, a time to live is not: see ``ttl``. For a
        link, its target is copied.

        Args:
            new_name: the copy's name; an object of that name is replaced.
            to: the store to copy into; default: this one.
            chunk_size: another chunk size for the copy.
            ttl: as :meth:`put`, for the copy.
            if_revision: as :meth:`put`, for the copy.
            follow_links: as :meth:`get`.

        Raises:
            The errors of :meth:`get_file` and :meth:`put`.
        """
        from .change.copy import copy

        return await copy(
            self,
            name,
            self if to is None else to,
            new_name,
            chunk_size=chunk_size,
            ttl=ttl,
            if_revision=if_revision,
            progress=progress,
            follow=follow_links,
        )

    @operation
    async def purge_deleted(self, older_than: timedelta | None = None) -> int:
        """Remove delete markers, to free names and space; return how many.

        A watcher that was disconnected meanwhile no longer learns of those deletions: hence ``older_than``.
        And nats-server 2.15.1, killed shortly afterwards, may restore such a name in its previous state.

        Args:
            older_than: only markers older than this; default: all. Markers younger than the stream's
                duplicate window (2 minutes) plus 80 s always stay: a late copy of an older commit may still
                arrive.

        Raises:
            PermissionsViolationError: this user may not create consumers: what the leader answers names no
                stream, and a consumer proves it.
            RequestTimeoutError: nothing of consumers comes, as where another account imports the API; or the
                server does not answer. Nothing was removed.
        """
        from datetime import timedelta

        from .maintenance.purge_deleted import purge_deleted

        self._bucket.check_writable()
        return await purge_deleted(self._bucket, timedelta(0) if older_than is None else older_than)

    # -- links ------------------------------------------------------------------------------------

    @operation
    async def add_link(
        self, name: str, target: ObjectInfo | ObjectLink, *, description: str | None = None
    ) -> ObjectInfo:
        """Make ``name`` a link to an object, here or in another bucket (ADR-20 §AddLink).

        Raises:
            ObjectAlreadyExists: a live object has that name (a delete marker or link is replaced).
            ObjectNotFoundError, ObjectDeletedError, BucketNotFoundError: the target does not exist.
            LinkError: the target is a link.
        """
        from .format.models import ObjectInfo, ObjectLink, ObjectMeta

        if isinstance(target, ObjectInfo):
            target = ObjectLink(target.bucket, target.name)
        if not isinstance(target, ObjectLink) or target.name is None:
            raise BadObjectMetaError("add_link() needs the info of an object, or a link with bucket and name")
        name = self._bucket.check_name(name)
        return await self._add_link(ObjectMeta(name, description), target)

    @operation
    async def add_bucket_link(self, name: str, bucket: str, *, description: str | None = None) -> ObjectInfo:
        """Make ``name`` a link to a whole bucket (ADR-20 §AddBucketLink); reading it raises ``LinkError``.

        Raises:
            ObjectAlreadyExists: a live object has that name.
            BadBucketError: ``bucket`` is not a valid name.
        """
        from .format.models import ObjectLink, ObjectMeta

        name = self._bucket.check_name(name)
        return await self._add_link(ObjectMeta(name, description), ObjectLink(bucket))

    async def _add_link(self, meta: ObjectMeta, link: ObjectLink) -> ObjectInfo:
        from .change import links

        self._bucket.check_writable()
        return await links.add_link(self._bucket, meta, link)

    # -- the bucket itself ------------------------------------------------------------------------

    @operation
    async def gc(self, *, older_than: timedelta | None = None, dry_run: bool = False) -> GcReport:
        """Clean up after crashed writers: remove chunks no meta refers to, complete half-done renames.

        Chunks stay if the newest of them is younger than ``older_than``, so a put in progress is never
        touched. A paused upload (:meth:`begin_upload`) looks like an orphan: it is collected after a pause
        longer than ``older_than`` and than 13 hours. Ages are by the server's clock (by this machine's clock
        before nats-server 2.10).

        Args:
            older_than: default 24 hours. ``timedelta(0)`` removes everything that no meta refers to, even the
                chunks of running uploads and puts: use it only while nobody writes.
            dry_run: only report.

        Raises:
            PermissionsViolationError: this user may not create consumers: what the leader answers names no
                stream, and a consumer proves it.
            RequestTimeoutError: nothing of consumers comes, as where another account imports the API; or the
                server does not answer. Nothing was removed.
        """
        from .maintenance import gc

        self._bucket.check_original()
        age = gc.DEFAULT_AGE if older_than is None else older_than
        return await gc.gc(self._bucket, older_than=age, dry_run=dry_run)

    @operation
    async def seal(self) -> bool:
        """Make the bucket read-only for good. The server also drops its ``ttl``.

        Returns:
            ``True``.

        Raises:
            ForeignBucketError: another bucket of that name answers, too: nothing was changed.
        """
        bucket = self._bucket
        info = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
        if info.config.sealed is not True:
            from dataclasses import replace

            from .bucket.alone import check_alone

            await check_alone(bucket.js, bucket.name, info)
            sealed = replace(info.config, sealed=True)
            await bucket.retrying(lambda: bucket.update_stream(sealed))
        return True


def _check_revision(revision: int | None) -> None:
    if revision is not None and (not isinstance(revision, int) or isinstance(revision, bool) or revision < 0):
        raise BadObjectMetaError(f"if_revision must be a revision (0 = absent or deleted), not {revision!r}")
