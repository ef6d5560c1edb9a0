"""The read-only half of the blocking object store. See :class:`objstore.sync.ObjectStore`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self, overload

from .pieces import Pulled
from .streams import ObjectReader, Watcher

if TYPE_CHECKING:
    import builtins

    from .. import store
    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo, ObjectStoreStatus
    from ..listing.decode import OnInvalid
    from ..listing.pages import DirListing
    from ..maintenance.reports import VerifyReport
    from ..read.file_objects import WritableFile
    from ..read.links import FollowLinks
    from ..store_reads import FilePath
    from .client import Client
    from .jetstream import JetStreamContext
    from .loop_thread import Link


class StoreReads:
    """The methods of :class:`ObjectStore` that need no permission to publish to the bucket."""

    def __init__(self, link: Link, js: JetStreamContext, twin: store.ObjectStore) -> None:
        self._link = link
        self._js = js
        self._store = twin

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._store.bucket

    @property
    def twin(self) -> store.ObjectStore:
        """The asyncio store in the thread of the loop, for layers built on this one."""
        return self._store

    @property
    def js(self) -> JetStreamContext:
        """The JetStream context the bucket was opened with."""
        return self._js

    @property
    def client(self) -> Client:
        """The client the bucket was opened with."""
        return self._js.client

    def with_options(self, *, retry_budget: float) -> Self:
        """Return another handle of this bucket: :meth:`objstore.ObjectStore.with_options`."""
        return type(self)(self._link, self._js, self._store.with_options(retry_budget=retry_budget))

    def __repr__(self) -> str:
        return repr(self._store)

    # -- reading ----------------------------------------------------------------------------------

    @overload
    def get(
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
    def get(
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

    def get(
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
        """Return the whole object, verified: :meth:`objstore.ObjectStore.get`."""

        if writeinto is None:
            return self._link.call(
                self._store.get,
                name,
                max_size=max_size,
                verify=verify,
                progress=progress,
                window=window,
                follow_links=follow_links,
                show_deleted=show_deleted,
            )
        file = writeinto

        async def get() -> ObjectInfo:
            return await self._store.get(
                name,
                max_size=max_size,
                verify=verify,
                progress=progress,
                window=window,
                follow_links=follow_links,
                show_deleted=show_deleted,
                writeinto=file,
            )

        return self._link.call(get)

    def open_reader(
        self,
        name: str,
        *,
        verify: bool = True,
        window: int | None = None,
        follow_links: FollowLinks = "all",
        show_deleted: bool = False,
    ) -> ObjectReader:
        """Open an object for reading, at once: :meth:`objstore.ObjectStore.open_reader`.

        ``for piece in store.open_reader(name)``, or ``with store.open_reader(name) as reader``.
        """
        opened = self._store.open_reader(
            name, verify=verify, window=window, follow_links=follow_links, show_deleted=show_deleted
        )
        return ObjectReader(self._link, opened)

    def get_range(self, name: str, start: int, end: int, *, follow_links: FollowLinks = "all") -> bytes:
        """Return the bytes from ``start`` to ``end``: :meth:`objstore.ObjectStore.get_range`."""
        return self._link.call(self._store.get_range, name, start, end, follow_links=follow_links)

    def get_file(
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
        """Read an object into a file, whole or not at all: :meth:`objstore.ObjectStore.get_file`."""
        return self._link.call(
            self._store.get_file,
            name,
            path,
            verify=verify,
            progress=progress,
            resume=resume,
            window=window,
            follow_links=follow_links,
            show_deleted=show_deleted,
        )

    def get_info(self, name: str, show_deleted: bool = False) -> ObjectInfo:
        """Return the info of an object: :meth:`objstore.ObjectStore.get_info`."""
        return self._link.call(self._store.get_info, name, show_deleted)

    def exists(self, name: str) -> bool:
        """Whether a live object has that name: :meth:`objstore.ObjectStore.exists`."""
        return self._link.call(self._store.exists, name)

    # -- listing ----------------------------------------------------------------------------------

    def list(
        self, *, prefix: str = "", include_deleted: bool = False, on_invalid: OnInvalid | None = None
    ) -> list[ObjectInfo]:
        """Return all objects: :meth:`objstore.ObjectStore.list`."""
        return self._link.call(
            self._store.list, prefix=prefix, include_deleted=include_deleted, on_invalid=on_invalid
        )

    def iter(
        self, *, prefix: str = "", include_deleted: bool = False, on_invalid: OnInvalid | None = None
    ) -> Iterator[ObjectInfo]:
        """Iterate over all objects, a page at a time: :meth:`objstore.ObjectStore.iter`."""
        source = self._store.iter(prefix=prefix, include_deleted=include_deleted, on_invalid=on_invalid)
        return Pulled(self._link, source)

    def names(self, prefix: str = "", *, live: bool = False) -> builtins.list[str]:
        """Return every name, sorted: :meth:`objstore.ObjectStore.names`."""
        return self._link.call(self._store.names, prefix, live=live)

    def count(self, prefix: str = "", *, live: bool = False) -> int:
        """Return how many names there are: :meth:`objstore.ObjectStore.count`."""
        return self._link.call(self._store.count, prefix, live=live)

    def list_dirs(self, prefix: str = "", delimiter: str = "/") -> DirListing:
        """Return one level of names: :meth:`objstore.ObjectStore.list_dirs`."""
        return self._link.call(self._store.list_dirs, prefix, delimiter)

    def watch(
        self,
        *,
        updates_only: bool = False,
        ignore_deletes: bool = False,
        from_revision: int | None = None,
        prefix: str = "",
        on_invalid: OnInvalid | None = None,
    ) -> Watcher:
        """Watch for changes, ``for info in store.watch()``: :meth:`objstore.ObjectStore.watch`."""
        watcher = self._store.watch(
            updates_only=updates_only,
            ignore_deletes=ignore_deletes,
            from_revision=from_revision,
            prefix=prefix,
            on_invalid=on_invalid,
        )
        return Watcher(self._link, watcher)

    # -- the bucket itself ------------------------------------------------------------------------

    def status(self) -> ObjectStoreStatus:
        """Return configuration and usage: :meth:`objstore.ObjectStore.status`."""
        return self._link.call(self._store.status)

    def verify(self, *, deep: bool = False) -> VerifyReport:
        """Check that the stored chunks agree with the metas: :meth:`objstore.ObjectStore.verify`."""
        return self._link.call(self._store.verify, deep=deep)
