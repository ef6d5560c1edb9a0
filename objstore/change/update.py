"""Change an object's meta: description, headers, metadata, name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from ..bucket.bucket import Bucket
from ..bucket.ttl import check_living, remaining
from ..commit.commit import Commit, Conflict, ConflictBackoff, lost_race
from ..commit.discard import remove_older
from ..commit.renames import settle_rename
from ..format.codec import encode_meta, meta_fields
from ..format.marks import unmarked
from ..format.models import ObjectInfo, ObjectMeta
from .delete import current_info
from .rename import rename
from .renew import ages, moved, renewed


async def update(bucket: Bucket, name: str, meta: ObjectMeta, if_revision: int | None = None) -> ObjectInfo:
    """Change description, headers, metadata and, with another ``meta.name``, the name.

    ``None`` keeps the current value; ``""`` and ``{}`` clear it. Size, digest, chunks and chunk size stay.

    Raises:
        ObjectNotFoundError, ObjectDeletedError, ObjectAlreadyExists, RevisionConflictError,
        BadObjectMetaError: as for :meth:`ObjectStore.update_meta`.
    """
    change = _applying(meta)
    patience = ConflictBackoff(bucket)
    while True:
        # An admin may have given the bucket a time to live: then the chunks are renewed, see renew.py.
        config = bucket.request_config(0)
        lookup = bucket.start_locating(name)
        try:
            info = await current_info(bucket, name, lookup)
            if config is not None:
                await bucket.take_config(config)
        finally:
            if config is not None:
                config.close()
        await check_living(bucket, info)
        if if_revision is not None and if_revision != info.revision:
            raise lost_race(bucket, name, if_revision, Conflict(info.revision, info))
        if await settle_rename(bucket, info, meta.name):
            # It is a delete marker now, unless others keep marking the name.
            if not await patience.again():
                raise lost_race(bucket, name, if_revision, Conflict(info.revision, info))
            continue
        await remove_older(bucket, lookup, info)
        changed = replace(change(info), mtime=datetime.now(UTC))
        try:
            if ages(bucket, info):
                change_it = renewed if meta.name == name else moved
                return await change_it(bucket, info, replace(changed, name=meta.name))
            if meta.name != name:
                return await rename(bucket, info, meta.name, change, lookup.newest)
            commit = Commit(
                bucket,
                name,
                encode_meta(changed),
                expected=info.revision,
                nuid=info.nuid,
                subject=lookup.newest,
                ttl=await remaining(bucket, info.expires),
                end=info.expires,
            )
            return replace(changed, revision=await commit.run())
        except Conflict as conflict:
            if if_revision is not None or not await patience.again():
                raise lost_race(bucket, name, if_revision, conflict) from None


def _applying(meta: ObjectMeta) -> Callable[[ObjectInfo], ObjectInfo]:
    description, headers, metadata = meta_fields(meta.description, meta.headers, meta.metadata)
    filename = meta_fields(filename=meta.filename)[2]

    def apply(info: ObjectInfo) -> ObjectInfo:
        pairs = unmarked(info) if meta.metadata is None else dict(metadata)
        if meta.filename is not None:
            pairs.pop("filename", None)
            pairs |= filename
        return replace(
            info,
            description=info.description if meta.description is None else description,
            headers=info.headers if meta.headers is None else headers,
            metadata=pairs,
        )

    return apply
