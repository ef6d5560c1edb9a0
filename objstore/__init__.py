"""The NATS JetStream object store (ADR-20) on :mod:`natsproto`.

Open a bucket on the JetStream context::

    import natsproto
    from objstore import *

    async with natsproto.connect() as nc:
        store = await nc.jetstream().create_object_store(bucket="media")
        await store.put("hello.txt", b"hello")
        assert await store.get("hello.txt") == b"hello"

Every name is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from natsproto._version import __version__

if TYPE_CHECKING:
    from . import errors as errors
    from . import format as format
    from . import manager as manager
    from . import sync as sync
    from .errors import (
        BadBucketError,
        BadObjectMetaError,
        BucketAlreadyExistsError,
        BucketNotFoundError,
        BucketSealedError,
        DigestMismatchError,
        ForeignBucketError,
        IntegrityError,
        LinkError,
        MissingExtraError,
        NatsError,
        ObjectAlreadyExists,
        ObjectChangedError,
        ObjectDeletedError,
        ObjectNotFoundError,
        ObjectTooLargeError,
        OutcomeUnknownError,
        RevisionConflictError,
        SourceChangedError,
        StoreFullError,
        UnsupportedFeatureError,
    )
    from .format.models import (
        BucketSource,
        InvalidMeta,
        ObjectHeaders,
        ObjectInfo,
        ObjectLink,
        ObjectMeta,
        ObjectMetaOptions,
        ObjectStoreConfig,
        ObjectStoreStatus,
        Placement,
    )
    from .format.naming import (
        DEFAULT_CHUNK_SIZE,
        MAX_CHUNK_SIZE,
        OBJ_ALL_CHUNKS_PRE_TEMPLATE,
        OBJ_ALL_META_PRE_TEMPLATE,
        OBJ_STREAM_TEMPLATE,
        VALID_BUCKET_RE,
    )
    from .listing.pages import DirListing
    from .listing.watcher import Watcher
    from .maintenance.reports import GcReport, Orphan, Problem, VerifyReport
    from .read.reader import ObjectReader
    from .store import ObjectStore
    from .write.upload import Upload
    from .write.writer import ObjectWriter

_WHERE = {
    "store": ("ObjectStore",),
    "listing.pages": ("DirListing",),
    "maintenance.reports": ("GcReport", "Orphan", "Problem", "VerifyReport"),
    "read.reader": ("ObjectReader",),
    "write.upload": ("Upload",),
    "listing.watcher": ("Watcher",),
    "write.writer": ("ObjectWriter",),
    "format.models": (
        "BucketSource",
        "InvalidMeta",
        "ObjectHeaders",
        "ObjectInfo",
        "ObjectLink",
        "ObjectMeta",
        "ObjectMetaOptions",
        "ObjectStoreConfig",
        "ObjectStoreStatus",
        "Placement",
    ),
    "format.naming": (
        "DEFAULT_CHUNK_SIZE",
        "MAX_CHUNK_SIZE",
        "OBJ_ALL_CHUNKS_PRE_TEMPLATE",
        "OBJ_ALL_META_PRE_TEMPLATE",
        "OBJ_STREAM_TEMPLATE",
        "VALID_BUCKET_RE",
    ),
    "errors": (
        "BadBucketError",
        "BadObjectMetaError",
        "BucketAlreadyExistsError",
        "BucketNotFoundError",
        "BucketSealedError",
        "DigestMismatchError",
        "ForeignBucketError",
        "IntegrityError",
        "LinkError",
        "MissingExtraError",
        "NatsError",
        "ObjectAlreadyExists",
        "ObjectChangedError",
        "ObjectDeletedError",
        "ObjectNotFoundError",
        "ObjectTooLargeError",
        "OutcomeUnknownError",
        "RevisionConflictError",
        "SourceChangedError",
        "StoreFullError",
        "UnsupportedFeatureError",
    ),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "BadBucketError",
    "BadObjectMetaError",
    "BucketAlreadyExistsError",
    "BucketNotFoundError",
    "BucketSealedError",
    "BucketSource",
    "DEFAULT_CHUNK_SIZE",
    "DigestMismatchError",
    "ForeignBucketError",
    "DirListing",
    "GcReport",
    "IntegrityError",
    "InvalidMeta",
    "LinkError",
    "MAX_CHUNK_SIZE",
    "MissingExtraError",
    "NatsError",
    "OBJ_ALL_CHUNKS_PRE_TEMPLATE",
    "OBJ_ALL_META_PRE_TEMPLATE",
    "OBJ_STREAM_TEMPLATE",
    "ObjectAlreadyExists",
    "ObjectChangedError",
    "ObjectDeletedError",
    "ObjectHeaders",
    "ObjectInfo",
    "ObjectLink",
    "ObjectMeta",
    "ObjectMetaOptions",
    "ObjectNotFoundError",
    "ObjectReader",
    "ObjectStore",
    "ObjectStoreConfig",
    "ObjectStoreStatus",
    "ObjectTooLargeError",
    "ObjectWriter",
    "Orphan",
    "OutcomeUnknownError",
    "Placement",
    "Problem",
    "RevisionConflictError",
    "SourceChangedError",
    "StoreFullError",
    "UnsupportedFeatureError",
    "Upload",
    "VALID_BUCKET_RE",
    "VerifyReport",
    "Watcher",
    "__version__",
]


if not TYPE_CHECKING:  # else a type checker would accept every name

    def __getattr__(name: str) -> object:
        from importlib import import_module

        module = _MODULE_OF.get(name)
        if module is None:
            if name in ("errors", "format", "manager", "sync"):
                return import_module(f".{name}", __name__)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{module}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
