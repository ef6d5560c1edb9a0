"""Changing what is stored: delete an object, change its metadata."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ._bucket import Bucket, MetaDecodeError
from ._commit import Commit, Conflict, Patience, lost_race
from ._get import deleted, not_found
from ._newest import newest_metas
from ._rename import finish_rename, rename, settle_rename, shares_chunks
from ._ttl import remaining
from .errors import StoreFullError
from .format.codec import encode_meta, meta_fields, tombstone
from .format.models import ObjectInfo, ObjectMeta
from .format.naming import alternative_meta_subjects


async def current_info(bucket: Bucket, name: str) -> tuple[ObjectInfo, str]:
    """The live object as the leader knows it, and the subject its meta lies on.

    Clients that encode names in another way filed it under another subject: it is changed where it lies.
    """
    for subject in (bucket.meta_subject(name), *alternative_meta_subjects(bucket.name, name)):
        message = await bucket.leader_message(subject)
        if message is not None:
            info = bucket.decode(message)
            if info.deleted:
                raise deleted(info)
            return info, subject
    raise not_found(bucket.name, name)


async def _free(bucket: Bucket, subject: str, revision: int) -> None:
    """Remove the meta messages of a name up to ``revision``; a newer one of another writer stays."""
    await bucket.retrying(lambda: bucket.js.purge_stream(bucket.stream, subject=subject, seq=revision + 1))


async def delete(bucket: Bucket, name: str, if_revision: int | None = None) -> None:
    """Mark an object deleted, then purge its chunks: a crash in between leaves orphans, never a live meta.

    A meta message that cannot be read is removed as such; none of its text is acted upon.

    Raises:
        ObjectNotFoundError, ObjectDeletedError, RevisionConflictError.
    """
    patience = Patience(bucket)
    while True:
        try:
            info, subject = await current_info(bucket, name)
        except MetaDecodeError as exc:
            if if_revision is not None and if_revision != exc.revision:
                raise lost_race(bucket, name, if_revision, Conflict(exc.revision, None)) from None
            await _free(bucket, exc.subject, exc.revision)
            return
        if if_revision is not None and if_revision != info.revision:
            raise lost_race(bucket, name, if_revision, Conflict(info.revision, info))
        try:
            await finish_rename(bucket, info)
        except StoreFullError:
            pass  # then nobody can finish it, and this name is the only one
        marker = tombstone(info, mtime=datetime.now(UTC))

        async def purge(revision: int | None, info: ObjectInfo = info) -> None:
            if revision is not None and not await shares_chunks(bucket, info):
                await bucket.discard_chunks(info, "delete")

        try:
            commit = Commit(bucket, name, marker, expected=info.revision, nuid=info.nuid, subject=subject)
            revision = await commit.run(purge)
            await bucket.shielded(purge(revision))
            return
        except StoreFullError:
            if await bucket.shielded(_delete_when_full(bucket, info, subject, marker, purge)):
                return
        except Conflict as conflict:
            if if_revision is not None or not await patience.again():
                raise lost_race(bucket, name, if_revision, conflict) from None


async def _delete_when_full(
    bucket: Bucket,
    info: ObjectInfo,
    subject: str,
    marker: bytes,
    purge: Callable[[int], Awaitable[None]],
) -> bool:
    """The limit is checked before the roll-up: not even a marker fits before the meta's place is free.

    Returns whether the object is gone; otherwise another writer has changed it meanwhile.
    """
    await _free(bucket, subject, info.revision)
    try:
        await Commit(bucket, info.name, marker, expected=0, nuid=info.nuid, subject=subject).run()
    except Conflict:
        return False
    except StoreFullError:
        # No room for a marker: the name is gone, which is what was asked for. Or did somebody write to it?
        if await bucket.leader_message(subject) is not None:
            return False
    await purge(info.revision)
    return True


async def update(bucket: Bucket, name: str, meta: ObjectMeta, if_revision: int | None = None) -> ObjectInfo:
    """Change description, headers, metadata and, with another ``meta.name``, the name.

    ``None`` keeps what is there; ``""`` and ``{}`` clear it. Size, digest, chunks and chunk size stay.

    Raises:
        ObjectNotFoundError, ObjectDeletedError, ObjectAlreadyExists, RevisionConflictError,
        BadObjectMetaError.
    """
    change = _change(meta)
    patience = Patience(bucket)
    while True:
        info, subject = await current_info(bucket, name)
        if if_revision is not None and if_revision != info.revision:
            raise lost_race(bucket, name, if_revision, Conflict(info.revision, info))
        if await settle_rename(bucket, info, meta.name):
            continue
        changed = replace(change(info), mtime=datetime.now(UTC))
        try:
            if meta.name != name:
                return await rename(bucket, info, replace(changed, name=meta.name), subject)
            commit = Commit(
                bucket,
                name,
                encode_meta(changed),
                expected=info.revision,
                nuid=info.nuid,
                subject=subject,
                ttl=remaining(info.expires),
            )
            return replace(changed, revision=await commit.run())
        except Conflict as conflict:
            if if_revision is not None or not await patience.again():
                raise lost_race(bucket, name, if_revision, conflict) from None


def _change(meta: ObjectMeta) -> Callable[[ObjectInfo], ObjectInfo]:
    description, headers, metadata = meta_fields(meta.description, meta.headers, meta.metadata, None)

    def apply(info: ObjectInfo) -> ObjectInfo:
        pairs = dict(info.metadata) if meta.metadata is None else dict(metadata)
        if meta.filename is not None:
            pairs = meta_fields(metadata=pairs, filename=meta.filename)[2]
        return replace(
            info,
            description=info.description if meta.description is None else description,
            headers=info.headers if meta.headers is None else headers,
            metadata=pairs,
        )

    return apply


async def purge_deleted(bucket: Bucket, older_than: timedelta) -> int:
    """Remove the delete markers that are older than ``older_than``; returns how many."""
    before = datetime.now(UTC) - older_than
    removed = 0
    for info in await newest_metas(bucket, lambda invalid: None):
        if not info.deleted or info.mtime > before:
            continue
        for subject in (bucket.meta_subject(info.name), *alternative_meta_subjects(bucket.name, info.name)):
            message = await bucket.leader_message(subject)
            if message is not None and message.seq == info.revision:
                await _free(bucket, subject, info.revision)
                removed += 1
                break
    return removed
