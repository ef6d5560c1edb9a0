"""The blocking object store: every verb of :class:`objstore.ObjectStore`, with its arguments written out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pieces import by_caller
from .store_reads import StoreReads
from .streams import ObjectWriter, Upload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from typing import Unpack

    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo, ObjectLink, ObjectMeta, ObjectMetaOptions
    from ..maintenance.reports import GcReport
    from ..read.links import FollowLinks
    from ..store import Headers
    from ..store_reads import FilePath
    from ..write.put import PutOptions
    from ..write.source import ObjectData


class ObjectStore(StoreReads):
    """One bucket; any number of threads may use it. The twin of :class:`objstore.ObjectStore`.

    Each method waits for its namesake, with the same arguments, results and errors. ``progress`` and
    ``on_invalid`` are called in the connection's thread, where they must not make blocking calls. Iterables
    given to :meth:`put` are iterated in the calling thread; files are read in a helper thread, one block
    ahead.
    """

    # -- writing ----------------------------------------------------------------------------------

    def put(
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
        """Store an object under a name, replacing any previous one: :meth:`objstore.ObjectStore.put`."""
        return self._link.call(
            self._store.put,
            name,
            by_caller(data),
            description,
            filename,
            headers,
            metadata=metadata,
            options=options,
            chunk_size=chunk_size,
            if_revision=if_revision,
            window=window,
            progress=progress,
            ttl=ttl,
            atomic=atomic,
            size=size,
        )

    def create(
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
        """Store an object that must not exist yet: :meth:`objstore.ObjectStore.create`."""
        return self._link.call(
            self._store.create,
            name,
            by_caller(data),
            description,
            filename,
            headers,
            metadata=metadata,
            options=options,
            chunk_size=chunk_size,
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
        """Open an object for writing, in ``with``: :meth:`objstore.ObjectStore.open_writer`."""
        return ObjectWriter(
            self._link, self._store.open_writer(name, description, filename, headers, **options)
        )

    def put_file(
        self,
        name: str,
        path: FilePath,
        description: str | None = None,
        filename: str | None = None,
        headers: Headers | None = None,
        **options: Unpack[PutOptions],
    ) -> ObjectInfo:
        """Store a file: :meth:`objstore.ObjectStore.put_file`."""
        return self._link.call(self._store.put_file, name, path, description, filename, headers, **options)

    def begin_upload(
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
        """Begin or continue an upload: :meth:`objstore.ObjectStore.begin_upload`."""
        upload = self._link.call(
            self._store.begin_upload,
            name,
            description,
            filename,
            headers,
            metadata=metadata,
            chunk_size=chunk_size,
            token=token,
        )
        return Upload(self._link, upload)

    # -- changing ---------------------------------------------------------------------------------

    def delete(self, name: str, *, if_revision: int | None = None) -> bool:
        """Delete an object: :meth:`objstore.ObjectStore.delete`."""
        return self._link.call(self._store.delete, name, if_revision=if_revision)

    def update_meta(self, name: str, meta: ObjectMeta, *, if_revision: int | None = None) -> ObjectInfo:
        """Change description, headers, metadata or name: :meth:`objstore.ObjectStore.update_meta`."""
        return self._link.call(self._store.update_meta, name, meta, if_revision=if_revision)

    def rename(self, name: str, new_name: str, *, if_revision: int | None = None) -> ObjectInfo:
        """Rename an object: :meth:`objstore.ObjectStore.rename`."""
        return self._link.call(self._store.rename, name, new_name, if_revision=if_revision)

    def copy(
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
        """Copy an object, here or into another store of any connection: :meth:`objstore.ObjectStore.copy`."""
        return self._link.call(
            self._store.copy,
            name,
            new_name,
            to=None if to is None else to.twin,
            chunk_size=chunk_size,
            ttl=ttl,
            if_revision=if_revision,
            progress=progress,
            follow_links=follow_links,
        )

    def purge_deleted(self, older_than: timedelta | None = None) -> int:
        """Remove delete markers: :meth:`objstore.ObjectStore.purge_deleted`."""
        return self._link.call(self._store.purge_deleted, older_than)

    # -- links ------------------------------------------------------------------------------------

    def add_link(
        self, name: str, target: ObjectInfo | ObjectLink, *, description: str | None = None
    ) -> ObjectInfo:
        """Make ``name`` a link to an object: :meth:`objstore.ObjectStore.add_link`."""
        return self._link.call(self._store.add_link, name, target, description=description)

    def add_bucket_link(self, name: str, bucket: str, *, description: str | None = None) -> ObjectInfo:
        """Make ``name`` a link to a whole bucket: :meth:`objstore.ObjectStore.add_bucket_link`."""
        return self._link.call(self._store.add_bucket_link, name, bucket, description=description)

    # -- the bucket itself ------------------------------------------------------------------------

    def gc(self, *, older_than: timedelta | None = None, dry_run: bool = False) -> GcReport:
        """Clean up after crashed writers: :meth:`objstore.ObjectStore.gc`."""
        return self._link.call(self._store.gc, older_than=older_than, dry_run=dry_run)

    def seal(self) -> bool:
        """Make the bucket read-only for good: :meth:`objstore.ObjectStore.seal`."""
        return self._link.call(self._store.seal)
