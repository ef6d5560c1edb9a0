"""Delete an object: first its meta, then its chunks."""

from __future__ import annotations

from functools import partial

from natsproto.errors import NatsError, PermissionsViolationError

from ..bucket.bucket import CANCEL_WAIT, Bucket, log
from ..bucket.locate import Lookup
from ..commit.commit import (
    Commit,
    Conflict,
    ConflictBackoff,
    lost_race,
    standing_of,
    unknown_outcome,
)
from ..commit.discard import discard, purge_metas, remove_older
from ..commit.renames import UNWRITABLE, marker_of, settle_rename
from ..commit.states import AfterFull, Standing, Step, after_full
from ..errors import OutcomeUnknownError, StoreFullError
from ..format.codec import MetaDecodeError
from ..format.models import ObjectInfo
from ..read.lookup import deleted, not_found


async def current_info(bucket: Bucket, name: str, lookup: Lookup) -> ObjectInfo:
    """Return the live object as the leader knows it.

    Clients with another encoding may have stored it under another subject: it is changed there.
    """
    message = (await lookup.wait(expected=True))[1]
    if message is None:
        raise not_found(bucket.name, name)
    info = bucket.decode(message)
    if info.deleted:
        raise deleted(info)
    return info


async def delete(bucket: Bucket, name: str, if_revision: int | None = None) -> None:
    """Mark an object deleted, then purge its chunks: a crash in between leaves orphans, never a live meta.

    An unreadable meta message is removed; its content is not acted upon.

    Raises:
        ObjectNotFoundError, ObjectDeletedError: no such object.
        RevisionConflictError: ``if_revision`` was not met.
        OutcomeUnknownError: it could not be determined whether the object was deleted.
    """
    patience = ConflictBackoff(bucket)
    while True:
        lookup = bucket.start_locating(name)
        try:
            info = await current_info(bucket, name, lookup)
        except MetaDecodeError as exc:
            if if_revision is not None and if_revision != exc.revision:
                raise lost_race(bucket, name, if_revision, Conflict(exc.revision, None)) from None
            await remove_older(bucket, lookup, None)
            await purge_metas(bucket, exc.subject, exc.revision)
            return
        if if_revision is not None and if_revision != info.revision:
            raise lost_race(bucket, name, if_revision, Conflict(info.revision, info))
        await remove_older(bucket, lookup, info)
        try:
            if await settle_rename(bucket, info, ""):
                return  # it is a delete marker now, which records the rename
        except (StoreFullError, *UNWRITABLE):
            pass  # no client can complete the rename, so this name is the only one
        conflict = Conflict(info.revision, info)
        try:
            gone = bucket.old.index_broken and await _delete_by_purge(bucket, info, lookup.newest)
            if not gone:
                await _marker(bucket, info, lookup.newest, info.revision).run()
                gone = True
        except Conflict as exc:
            conflict, gone = exc, False
        except StoreFullError:
            gone = await bucket.run_to_end(
                _delete_when_full(bucket, info, lookup.newest), wait_if_cancelled=CANCEL_WAIT
            )
        if gone:
            return
        if if_revision is not None or not await patience.again():
            raise lost_race(bucket, name, if_revision, conflict)


async def _delete_by_purge(bucket: Bucket, info: ObjectInfo, subject: str) -> bool:
    """After a full account 2.9 refuses a marker, whatever it expects; return false without the right."""
    deleting = _delete_when_full(bucket, info, subject)
    try:
        return await bucket.run_to_end(deleting, wait_if_cancelled=CANCEL_WAIT)
    except PermissionsViolationError:
        return False


def _marker(bucket: Bucket, info: ObjectInfo, subject: str, expected: int) -> Commit:
    """Return the commit of a delete marker for ``info``; with an expected revision it discards the chunks."""
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
    """Delete an object of a full bucket; return false when another writer has changed it meanwhile.

    A late copy of its meta, stored after it was deleted, is deleted as well. What another writer has stored
    since then stays.
    """
    patience, removed = ConflictBackoff(bucket), False
    while (outcome := await _purge_and_mark(bucket, info, subject)) is AfterFull.STORED_AGAIN:
        standing = standing_of(bucket, await bucket.leader_message(subject))
        late = standing.info
        if late is None or standing.nuid != info.nuid or standing.revision <= info.revision:
            await _discard(bucket, subject, info)
            return True
        removed, info = True, late
        if not await patience.again():
            raise unknown_outcome(bucket, info.name, info.nuid)
    return removed or outcome is AfterFull.GONE


async def _purge_and_mark(bucket: Bucket, info: ObjectInfo, subject: str) -> AfterFull:
    """Purge the meta of a full bucket's object, then commit the delete marker.

    The server checks the limit before the roll-up: not even a marker fits before the meta is removed.
    """
    purged = await purge_metas(bucket, subject, info.revision)
    commit = _marker(bucket, info, subject, 0)
    try:
        await commit.run()
    except OutcomeUnknownError:
        raise
    except (Conflict, NatsError):
        pass  # the meta is gone; what became of the marker decides
    standing = commit.states.standing or Standing()
    outcome = after_full(info.nuid, purged, commit.states.step, standing)
    if outcome is AfterFull.UNKNOWN:
        raise commit.unknown()
    if outcome is not AfterFull.GONE:
        return outcome
    await _discard(bucket, subject, info)
    if commit.states.step is not Step.REFUSED:
        return AfterFull.GONE
    second = _marker(bucket, info, subject, 0)  # now there is room, and watchers learn of the deletion
    try:
        await second.run()
    except (Conflict, NatsError) as exc:
        log.info("%r in bucket %r is deleted without a marker: %s", info.name, bucket.name, exc)
        if (second.states.standing or Standing()).nuid == info.nuid:
            return AfterFull.STORED_AGAIN
    return AfterFull.GONE
