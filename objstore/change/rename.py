"""Rename an object: in one batch, or step by step (see :mod:`objstore.commit.renames`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import token_hex

from natsproto.errors import APIError, NatsError
from natsproto.jetstream.api.models import PubAck
from natsproto.subjects import check_publish_subject

from ..bucket.bucket import CANCEL_WAIT, Bucket
from ..bucket.refusals import ALL_BATCHES_OPEN
from ..bucket.ttl import remaining
from ..commit.batch import DISABLED, AlreadyStored, Batch
from ..commit.commit import (
    Commit,
    Conflict,
    ConflictBackoff,
    Unsent,
    lost_race,
    meta_header,
    standing_of,
)
from ..commit.discard import purge_metas
from ..commit.renames import (
    clear_marks,
    commit_meta,
    is_new_end,
    moved_marker,
    read_meta,
    read_target,
    refusal_to_bring_back,
    same_object,
    write_marker,
)
from ..commit.scan import Scan
from ..commit.states import Standing
from ..errors import ObjectAlreadyExists, OutcomeUnknownError
from ..format.codec import encode_meta
from ..format.marks import MOVED, MOVED_TO, RENAMED_FROM, RENAMING, RENAMING_AT, unmarked
from ..format.models import ObjectInfo
from ..format.naming import is_nuid_of

Change = Callable[[ObjectInfo], ObjectInfo]
"""Returns the changed meta of an object, with its old name."""

BATCH_WAIT = 1.0
"""Seconds for which a batch is tried again while others have all of them open; then steps do the same."""

STEPS_FOR = 10.0
"""Seconds for which later renames do not even try then: an open batch may last that long."""


async def rename(
    bucket: Bucket, old: ObjectInfo, new_name: str, change: Change, subject: str | None = None
) -> ObjectInfo:
    """Move ``old`` to ``new_name``, and apply ``change`` to its meta.

    If it is cancelled after the first step, it is finished in the background; the call waits at most 5 s.

    Args:
        subject: the subject of the old meta, if it differs from this library's.

    Returns:
        The object under the new name, as it is now or was before another client replaced it.

    Raises:
        ObjectAlreadyExists: a live object has the new name.
        RevisionConflictError: the delete marker at the new name keeps changing.
        BadObjectMetaError: the rename would move another object's chunks.
        RequestTimeoutError: within 5 s it could not be determined whether it would; or a request timed out.
            Nothing was renamed.
        Conflict: another client changed the old object meanwhile; nothing was renamed.
        OutcomeUnknownError: both names may exist, and the next change of one of them finishes the rename; or
            the object has its new name, but perhaps not the rest of the change.
        StoreFullError, NatsError: refused; the old name is unchanged.
    """
    patience = ConflictBackoff(bucket)
    while True:
        expected = await _check_free(bucket, old, new_name, subject)
        at_once = bucket.atomic and bucket.connection.loop.time() >= bucket.remembered(_Batches).open_until
        steps = _at_once if at_once else _steps
        try:
            new = await bucket.run_to_end(
                steps(bucket, old, new_name, change, expected, subject), wait_if_cancelled=CANCEL_WAIT
            )
            break
        except _StillFree as exc:
            if not await patience.again():
                raise lost_race(bucket, new_name, expected, exc.conflict) from None
            old = exc.old
    if is_nuid_of(old.nuid, old.name) and subject in (None, bucket.meta_subject(old.name)):
        bucket.remembered(Scan).note_moved(old.nuid)
    return new


class _Batches:
    """Until when other clients count as having all batches of a bucket open."""

    def __init__(self, bucket: Bucket) -> None:  # Bucket.remembered passes itself
        self.open_until: float = 0.0


class _StillFree(Exception):
    """The new name has another revision than expected, but no live object; ``old`` is unchanged.

    The delete marker there was removed or replaced.
    """

    def __init__(self, old: ObjectInfo, conflict: Conflict) -> None:
        super().__init__()
        self.old = old
        self.conflict = conflict


async def _check_free(bucket: Bucket, old: ObjectInfo, new_name: str, subject: str | None) -> int:
    """Return the revision at the new name, if ``old`` may be moved there; raises as :func:`rename` does."""
    target, expected = await read_target(bucket, new_name)
    if target is not None and not target.deleted and not is_new_end(target, old):
        raise _taken(bucket, new_name, target.revision)
    refusal = await refusal_to_bring_back(bucket, old, new_name, target, expected)
    if refusal is not None:
        # Perhaps another rename of the same object was seen.
        message = await bucket.leader_message(subject or bucket.meta_subject(old.name))
        if message is None or message.seq != old.revision:
            raise Conflict(0 if message is None else message.seq, None)
        raise refusal
    return expected


async def _steps(
    bucket: Bucket, old: ObjectInfo, new_name: str, change: Change, expected: int, subject: str | None
) -> ObjectInfo:
    marked = replace(old, metadata={**unmarked(old), RENAMING: new_name, RENAMING_AT: str(expected)})
    marked = replace(marked, revision=await commit_meta(bucket, marked, old.revision, subject))
    new = _renamed(old, new_name, change)
    linked = replace(new, metadata={**new.metadata, RENAMED_FROM: old.name})
    finished = None
    try:
        linked = replace(linked, revision=await commit_meta(bucket, linked, expected, proven=True))
    except OutcomeUnknownError:
        raise  # the mark stays: the next change finishes the rename
    except (Conflict, NatsError) as refusal:
        finished = refusal.current if isinstance(refusal, Conflict) else None
        if finished is None or not await _finished(bucket, old, finished):
            finished = await _taken_back(bucket, old, marked, new_name, subject, refusal)
    try:
        await write_marker(bucket, marked, subject)
    except NatsError as exc:
        if isinstance(exc, OutcomeUnknownError):
            raise
        raise _half_done(
            bucket,
            old,
            f"has its new name {new_name!r}, and the old one still: "
            "the next change of one of them finishes the rename",
        ) from exc
    if finished is None:
        return await clear_marks(bucket, linked)
    return await _change_finished(bucket, old, finished, change)


async def _taken_back(
    bucket: Bucket,
    old: ObjectInfo,
    marked: ObjectInfo,
    new_name: str,
    subject: str | None,
    refusal: Conflict | NatsError,
) -> ObjectInfo:
    """Remove the mark after the new meta was refused; return the new object if others were faster.

    Once the mark is set, any client may finish the rename, and rename the object again or replace it. Only
    the compare-and-set that removes the mark proves that none has: before it no new attempt may start, and no
    error may say that nothing was renamed.

    Raises:
        _StillFree, ObjectAlreadyExists, NatsError: the cause of the refusal; nothing was or will be renamed.
        Conflict: another client changed the old object, and nothing was renamed.
        OutcomeUnknownError: the mark stays, or another client changed the old object; either may still have
            renamed it.
    """
    conflict = refusal if isinstance(refusal, Conflict) else None
    try:
        freed = replace(old, revision=await commit_meta(bucket, old, marked.revision, subject))
    except Conflict as changed:
        return await _overtaken(bucket, old, marked, new_name, changed)
    except NatsError as exc:
        other = await _changed(bucket, old, marked, new_name, subject)
        if other is not None:
            return await _overtaken(bucket, old, marked, new_name, other)
        raise _half_done(
            bucket,
            old,
            f"is not renamed to {new_name!r} ({refusal}), but keeps the mark of it: "
            f"the next change of {old.name!r} may rename it",
        ) from exc
    if conflict is None:
        raise refusal
    if conflict.absent:
        raise _StillFree(freed, conflict) from None
    raise _taken(bucket, new_name, conflict.revision) from None


async def _changed(
    bucket: Bucket, old: ObjectInfo, marked: ObjectInfo, new_name: str, subject: str | None
) -> Conflict | None:
    """Return the newest meta at the old name as a conflict, unless it is ``marked``."""
    try:
        message = await bucket.leader_message(subject or bucket.meta_subject(old.name))
        if message is not None and message.seq == marked.revision:
            return None
        return Conflict(0 if message is None else message.seq, await read_meta(bucket, old.name))
    except NatsError as exc:
        raise _half_done(bucket, old, _unsure(new_name)) from exc


async def _overtaken(
    bucket: Bucket, old: ObjectInfo, marked: ObjectInfo, new_name: str, changed: Conflict
) -> ObjectInfo:
    """Return the object at the new name after another client has changed the marked one; raises as above."""
    try:
        target = await read_meta(bucket, new_name)
    except NatsError as exc:
        raise _half_done(bucket, old, _unsure(new_name)) from exc
    here = changed.current is not None and same_object(changed.current, old)
    if target is not None and not here and same_object(target, old):
        return target
    # Nothing was written at the new name since the mark; or the object is still here and was never there.
    before = target is not None and target.revision < marked.revision
    was_there = target is not None and old.nuid in (target.nuid, target.metadata.get(MOVED))
    if before or (here and not was_there):
        raise changed
    raise _half_done(bucket, old, _unsure(new_name))


def _unsure(new_name: str) -> str:
    return f"was changed by somebody who may have finished its rename to {new_name!r} before"


async def _finished(bucket: Bucket, old: ObjectInfo, new: ObjectInfo) -> bool:
    """Whether another client has finished the rename of ``old`` to ``new``, perhaps without leaving marks."""
    if not same_object(new, old):
        return False
    if is_new_end(new, old):
        return True
    marker = await read_meta(bucket, old.name)
    marks = {} if marker is None or not marker.deleted else marker.metadata
    return (marks.get(MOVED), marks.get(MOVED_TO)) == (old.nuid, new.name)


def _renamed(old: ObjectInfo, new_name: str, change: Change) -> ObjectInfo:
    new = change(old)
    return replace(new, name=new_name, metadata=unmarked(new), mtime=datetime.now(UTC))


async def _change_finished(
    bucket: Bucket, old: ObjectInfo, current: ObjectInfo, change: Change
) -> ObjectInfo:
    """Apply the rest of the change after another client has finished the rename: it knew only the new name.

    Conflicts with other writers are retried within the retry budget.
    """
    patience = ConflictBackoff(bucket)
    while change(current) != replace(current, metadata=unmarked(current)):
        wanted = _renamed(current, current.name, change)
        try:
            if RENAMING not in current.metadata:
                return replace(wanted, revision=await commit_meta(bucket, wanted, current.revision))
        except Conflict as conflict:
            standing = conflict.current
            if standing is not None and not standing.deleted and same_object(standing, current):
                if not await patience.again():
                    raise _half_done(
                        bucket, old, f"has its new name {current.name!r}, and not {_REST}"
                    ) from None
                current = standing
                continue
            if standing is None or standing.metadata.get(MOVED) != current.nuid:
                return current  # it was replaced or deleted: nothing is left to change
        except OutcomeUnknownError:
            raise
        except NatsError as exc:
            raise _half_done(bucket, old, f"has its new name {current.name!r}, and not {_REST}") from exc
        raise _half_done(bucket, old, f"was renamed once more, without {_REST}")
    return current if RENAMING in current.metadata else await clear_marks(bucket, current)


_REST = "the rest of what was to change: change it once more"


def _half_done(bucket: Bucket, old: ObjectInfo, what: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"{old.name!r} in bucket {bucket.name!r} {what}",
        bucket=bucket.name,
        name=old.name,
        nuid=old.nuid,
    )


class _NoBatch(NatsError):
    """The server takes no batch."""


class _Both(Commit):
    """The new meta and the old name's delete marker, committed as one batch."""

    def __init__(
        self,
        bucket: Bucket,
        new: ObjectInfo,
        expected: int,
        old: ObjectInfo,
        subject: str | None,
        ttl: timedelta | None = None,
    ) -> None:
        super().__init__(
            bucket,
            new.name,
            encode_meta(new),
            expected=expected,
            nuid=new.nuid,
            ttl=ttl,
            end=new.expires,
        )
        self._old = old
        self._old_subject = subject or bucket.meta_subject(old.name)
        self._old_id = token_hex(12)
        self._batch_until = self._loop.time() + min(BATCH_WAIT, bucket.retry_budget)
        self.torn = False
        """Whether only the new meta was committed: who sees the batch's id can end it in our place."""

    async def _publish(self, expected: int, msg_id: str, timeout: float) -> PubAck:
        batch = Batch(self._bucket, timeout)
        try:
            header = meta_header(expected, msg_id, self._ttl, self._end)
            await batch.add(self._wire_subject, self._payload, header)
        except AlreadyStored:
            self._bucket.atomic = False
            raise Unsent(_NoBatch("this server knows no batches")) from None
        except NatsError as exc:
            raise Unsent(_NoBatch(str(exc)) if self._takes_none(exc) else exc) from exc
        self.states.sent()
        marker, marks = moved_marker(self._bucket, self._old, self._name)
        ack = await batch.end(
            check_publish_subject(self._old_subject),
            marker,
            meta_header(self._old.revision, self._old_id, marks=marks),
        )
        # It acknowledges the last message; the new meta is the one before it.
        return PubAck(ack.stream, ack.seq - 1, ack.duplicate, ack.domain)

    def _takes_none(self, refusal: NatsError) -> bool:
        """Whether to do without a batch. Not after one that may have been committed."""
        if self.states.copies or not isinstance(refusal, APIError):
            return False
        if refusal.err_code == DISABLED:
            self._bucket.atomic = False
            return True
        now = self._loop.time()
        if refusal.err_code != ALL_BATCHES_OPEN or now < self._batch_until:
            return False
        self._bucket.remembered(_Batches).open_until = now + STEPS_FOR
        return True

    async def _look(self) -> Standing | None:
        standing = await self._standing(self._subject)
        origin = await self._standing(self._old_subject)
        if standing.msg_id == self.states.msg_id:
            self.torn = origin.revision == self._old.revision
            return standing
        if origin.msg_id == self._old_id:  # ours was committed just before it, and was changed since
            return replace(standing, msg_id=self.states.msg_id, revision=origin.revision - 1)
        return standing if origin.revision == self._old.revision else None


async def _at_once(
    bucket: Bucket, old: ObjectInfo, new_name: str, change: Change, expected: int, subject: str | None
) -> ObjectInfo:
    new = _renamed(old, new_name, change)
    commit = _Both(bucket, new, expected, old, subject, await remaining(bucket, new.expires))
    try:
        revision = await commit.run()
    except _NoBatch:  # an older server may have taken over; or an answer was forged
        standing = standing_of(bucket, await bucket.leader_message(bucket.meta_subject(new_name)))
        if standing.msg_id != commit.states.msg_id:
            return await _steps(bucket, old, new_name, change, expected, subject)
        return await _finish_alone(bucket, old, replace(new, revision=standing.revision), subject)
    except Conflict as conflict:
        current = await read_meta(bucket, new_name)
        if current is not None and not current.deleted:
            raise _taken(bucket, new_name, current.revision) from None
        message = await bucket.leader_message(subject or bucket.meta_subject(old.name))
        if message is not None and message.seq == old.revision:
            raise _StillFree(old, conflict) from None
        raise
    new = replace(new, revision=revision)
    return await _finish_alone(bucket, old, new, subject) if commit.torn else new


async def _finish_alone(bucket: Bucket, old: ObjectInfo, new: ObjectInfo, subject: str | None) -> ObjectInfo:
    """Finish a rename whose new meta was stored by itself: no mark warns other clients of it.

    Raises:
        Conflict: another client has changed the old name; the new one is removed again.
        OutcomeUnknownError: both names are there.
    """
    marker, marks = moved_marker(bucket, old, new.name)
    commit = Commit(
        bucket,
        old.name,
        marker,
        expected=old.revision,
        nuid=old.nuid,
        subject=subject,
        marks=marks,
    )
    try:
        await commit.run()
    except (Conflict, NatsError) as exc:
        try:
            if not (isinstance(exc, Conflict) or commit.states.certain):
                raise
            await purge_metas(bucket, bucket.meta_subject(new.name), new.revision)
        except NatsError:
            raise _half_done(
                bucket,
                old,
                f"may have two names, {new.name!r} as well: copy one before you delete the other",
            ) from exc
        raise
    return new


def _taken(bucket: Bucket, name: str, revision: int) -> ObjectAlreadyExists:
    return ObjectAlreadyExists(
        f"cannot rename: {name!r} exists in bucket {bucket.name!r}",
        bucket=bucket.name,
        name=name,
        revision=revision,
    )
