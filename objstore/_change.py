"""Changing what is stored: delete an object, change its metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from natsproto.errors import NatsError
from natsproto.jetstream.api.codec import parse_time
from natsproto.jetstream.api.models import StreamInfo

from ._bucket import RETRY_BUDGET, Bucket, MetaDecodeError, log
from ._commit import Commit, Conflict, Patience, lost_race
from ._commit_states import ZERO_WINDOW, AfterFull, Standing, Step, after_full
from ._discard import discard, free, remove_older
from ._get import deleted, not_found
from ._locate import Lookup
from ._newest import newest_metas
from ._rename import UNWRITABLE, marker_of, rename, settle_rename
from ._renew import ages, moved, renewed
from ._ttl import remaining
from .errors import OutcomeUnknownError, StoreFullError
from .format.codec import encode_meta, meta_fields
from .format.models import ObjectInfo, ObjectMeta, unmarked


async def current_info(bucket: Bucket, name: str, lookup: Lookup) -> ObjectInfo:
    """The live object as the leader knows it.

    Clients that encode names in another way filed it under another subject: it is changed where it lies.
    """
    message = (await lookup.wait())[1]
    if message is None:
        raise not_found(bucket.name, name)
    info = bucket.decode(message)
    if info.deleted:
        raise deleted(info)
    return info


async def delete(bucket: Bucket, name: str, if_revision: int | None = None) -> None:
    """Mark an object deleted, then purge its chunks: a crash in between leaves orphans, never a live meta.

    A meta message that cannot be read is removed as such; none of its text is acted upon.

    Raises:
        ObjectNotFoundError, ObjectDeletedError, RevisionConflictError, OutcomeUnknownError.
    """
    patience = Patience(bucket)
    while True:
        lookup = bucket.start_locating(name)
        try:
            info = await current_info(bucket, name, lookup)
        except MetaDecodeError as exc:
            if if_revision is not None and if_revision != exc.revision:
                raise lost_race(bucket, name, if_revision, Conflict(exc.revision, None)) from None
            await remove_older(bucket, lookup, None)
            await free(bucket, exc.subject, exc.revision)
            return
        if if_revision is not None and if_revision != info.revision:
            raise lost_race(bucket, name, if_revision, Conflict(info.revision, info))
        await remove_older(bucket, lookup, info)
        try:
            if await settle_rename(bucket, info, ""):
                return  # it is a delete marker now, that tells of the rename
        except (StoreFullError, *UNWRITABLE):
            pass  # then nobody can finish it, and this name is the only one
        conflict = Conflict(info.revision, info)
        try:
            if bucket.miscounts:  # a marker is refused by 2.9 after a full account, whatever it expects
                gone = await bucket.outlast(_delete_when_full(bucket, info, lookup.newest))
            else:
                await _marker(bucket, info, lookup.newest, info.revision).run()
                gone = True
        except Conflict as exc:
            conflict, gone = exc, False
        except StoreFullError:
            gone = await bucket.outlast(_delete_when_full(bucket, info, lookup.newest))
        if gone:
            return
        if if_revision is not None or not await patience.again():
            raise lost_race(bucket, name, if_revision, conflict)


def _marker(bucket: Bucket, info: ObjectInfo, subject: str, expected: int) -> Commit:
    """The commit of a delete marker for ``info``; replacing it at its own revision takes its chunks along."""
    return Commit(
        bucket,
        info.name,
        marker_of(bucket, info),
        expected=expected,
        nuid=info.nuid,
        subject=subject,
        replaces=info if expected else None,
        discard=partial(_discard, bucket, subject),
    )


async def _discard(bucket: Bucket, subject: str, info: ObjectInfo) -> None:
    await discard(bucket, info, "delete", subject)


async def _delete_when_full(bucket: Bucket, info: ObjectInfo, subject: str) -> bool:
    """The limit is checked before the roll-up: not even a marker fits before the meta's place is free.

    Returns whether the object is gone; otherwise another writer has changed it meanwhile.
    """
    purged = await free(bucket, subject, info.revision)
    commit = _marker(bucket, info, subject, 0)
    try:
        await commit.run()
    except OutcomeUnknownError:
        raise
    except (Conflict, StoreFullError):
        pass
    standing = commit.states.standing or Standing()
    outcome = after_full(info.nuid, purged, commit.states.step, standing)
    if outcome is AfterFull.UNKNOWN:
        raise commit.unknown()
    if outcome is AfterFull.AGAIN:
        return False
    await _discard(bucket, subject, info)
    if commit.states.step is not Step.REFUSED:
        return True
    second = _marker(bucket, info, subject, 0)  # there is room now: watchers learn of it
    try:
        await second.run()
    except (Conflict, NatsError) as exc:
        log.info("%r in bucket %r is deleted without a marker: %s", info.name, bucket.name, exc)
        # A late copy of the put may have landed once more: then that is deleted as well.
        return (second.states.standing or Standing()).nuid != info.nuid
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
        lookup = bucket.start_locating(name)
        info = await current_info(bucket, name, lookup)
        if if_revision is not None and if_revision != info.revision:
            raise lost_race(bucket, name, if_revision, Conflict(info.revision, info))
        if await settle_rename(bucket, info, meta.name):
            # A delete marker now, unless others go on marking the name.
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
                ttl=remaining(info.expires),
            )
            return replace(changed, revision=await commit.run())
        except Conflict as conflict:
            if if_revision is not None or not await patience.again():
                raise lost_race(bucket, name, if_revision, conflict) from None


def _change(meta: ObjectMeta) -> Callable[[ObjectInfo], ObjectInfo]:
    description, headers, metadata = meta_fields(meta.description, meta.headers, meta.metadata, None)

    def apply(info: ObjectInfo) -> ObjectInfo:
        pairs = unmarked(info) if meta.metadata is None else dict(metadata)
        if meta.filename is not None:
            pairs = meta_fields(metadata=pairs, filename=meta.filename)[2]
        return replace(
            info,
            description=info.description if meta.description is None else description,
            headers=info.headers if meta.headers is None else headers,
            metadata=pairs,
        )

    return apply


SETTLED = timedelta(seconds=60)
"""A delete marker stays so much longer than a copy of an older commit may still arrive."""


async def purge_deleted(bucket: Bucket, older_than: timedelta) -> int:
    """Remove the delete markers that are older than ``older_than``; returns how many.

    Markers that are younger than the stream's duplicate window, the retry budget and a minute stay: without
    them, a late copy of a commit that expected nothing would bring a deleted object back.
    """
    stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    before = server_time(stream) - max(older_than, settled_after(stream))
    removed = 0
    for info in await newest_metas(bucket, lambda invalid: None):
        if not info.deleted or info.mtime > before:
            continue
        lookup = bucket.start_locating(info.name)
        message = (await lookup.wait())[1]
        if message is None or message.seq != info.revision:
            continue  # written to meanwhile
        await remove_older(bucket, lookup, info)  # first: without the marker they would come back
        await free(bucket, lookup.newest, info.revision)
        removed += 1
    return removed


def settled_after(stream: StreamInfo) -> timedelta:
    """The age at which no copy of a commit can come late any more."""
    window = stream.config.duplicate_window or timedelta(minutes=2)
    return window + timedelta(seconds=max(RETRY_BUDGET, ZERO_WINDOW)) + SETTLED


def server_time(stream: StreamInfo) -> datetime:
    """When the server gave this answer; before nats-server 2.10 it does not say, and our clock has to do."""
    told = stream.raw.get("ts")
    try:
        return parse_time(told) if isinstance(told, str) else datetime.now(UTC)
    except NatsError:
        return datetime.now(UTC)
