"""Renaming: never a moment without a name, and a crash in between is finished by whoever comes next.

Where the bucket allows batches, both names change in one commit. Elsewhere it takes steps, and chunks do
not move: both metas carry the same nuid for a moment, so whoever removes one of them must know of the
other. The old meta is marked first (``metadata["natsproto.renaming"]`` = new name, and
``metadata["natsproto.renaming-at"]`` = the revision that stands there), then the new one is published at
that revision with a back reference (``metadata["natsproto.renamed-from"]`` = old name), then the old one
becomes a delete marker under a nuid of its own, then the back reference is taken off. Every step is a
compare-and-set. Our own put and delete complete a marked rename before they purge; other clients do not
know the mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex

from natsproto.errors import MaxPayloadError, NatsError, RequestTimeoutError
from natsproto.jetstream.api.errors import MessageTooLargeError
from natsproto.jetstream.api.models import PubAck
from natsproto.subjects import check_publish_subject

from . import _look
from ._atomic import Batch
from ._bucket import Bucket, MetaDecodeError, log
from ._commit import Commit, Conflict, Unsent, meta_header
from ._commit_states import Standing, content_of
from ._ttl import remaining
from .errors import BadObjectMetaError, ObjectAlreadyExists, OutcomeUnknownError
from .format.codec import MAX_META_BYTES, META_HEADER, encode_meta, tombstone
from .format.models import MOVED, MOVED_TO, RENAMED_FROM, RENAMING, RENAMING_AT, ObjectInfo, unmarked
from .format.naming import is_nuid_of, new_nuid

TRIES = 10

UNWRITABLE = (BadObjectMetaError, MaxPayloadError, MessageTooLargeError)
"""What could be read under one name is too long to be written under another, with the marks of a rename."""


Change = Callable[[ObjectInfo], ObjectInfo]
"""Makes of a meta what it is to become, apart from its name."""


async def rename(
    bucket: Bucket, old: ObjectInfo, new_name: str, change: Change, subject: str | None = None
) -> ObjectInfo:
    """Move ``old`` to ``new_name``, with whatever else ``change`` makes of it.

    Cancelled after the first step, it is finished in the background; that is waited for at most 5 s.

    Args:
        subject: where the old meta lies, when that is not where this library puts it.

    Returns:
        What stands under the new name, or stood there before somebody replaced it.

    Raises:
        ObjectAlreadyExists: a live object has the new name.
        BadObjectMetaError: it would take another object's chunks along.
        RequestTimeoutError: whether it would was not found out within 5 s; or as every call. Nothing was
            renamed.
        Conflict: somebody changed the old object meanwhile; nothing was renamed.
        OutcomeUnknownError: both names may be there, and whoever changes one of them finishes the rename; or
            it has its new name, and the rest of the change may not be there.
        StoreFullError, other NatsError: refused; the old name is as it was.
    """
    target, expected = await _target(bucket, new_name)
    if target is not None and not target.deleted and not _is_new_end(target, old):
        raise _taken(bucket, new_name, target.revision)
    refusal = await _refusal(bucket, old, new_name, target, expected)
    if refusal is not None:
        # Another rename of it may be what was seen.
        message = await bucket.leader_message(subject or bucket.meta_subject(old.name))
        if message is None or message.seq != old.revision:
            raise Conflict(0 if message is None else message.seq, None)
        raise refusal
    steps = _at_once if bucket.atomic else _steps
    new = await bucket.outlast(steps(bucket, old, new_name, change, expected, subject))
    if is_nuid_of(old.nuid, old.name):
        bucket.look.note_moved(old.nuid)
    return new


async def _steps(
    bucket: Bucket, old: ObjectInfo, new_name: str, change: Change, expected: int, subject: str | None
) -> ObjectInfo:
    marked = replace(old, metadata={**unmarked(old), RENAMING: new_name, RENAMING_AT: str(expected)})
    marked = replace(marked, revision=await _commit(bucket, marked, old.revision, subject))
    new = _renamed(old, new_name, change)
    linked = replace(new, metadata={**new.metadata, RENAMED_FROM: old.name})
    finished = None
    try:
        linked = replace(linked, revision=await _commit(bucket, linked, expected))
    except Conflict as conflict:
        finished = conflict.current
        if finished is None or finished.deleted or not await _finished(bucket, old, finished):
            await _unmark(bucket, replace(old, revision=marked.revision), subject)
            raise _taken(bucket, new_name, conflict.revision) from None
    except OutcomeUnknownError:
        raise  # the mark stays: whoever comes next finishes it
    except NatsError:
        await _unmark(bucket, replace(old, revision=marked.revision), subject)
        raise
    try:
        await _bury(bucket, marked, subject)
    except NatsError as exc:
        if isinstance(exc, OutcomeUnknownError):
            raise
        raise _half_done(
            bucket,
            old,
            f"has its new name {new_name!r}, and the old one still: "
            "whoever changes one of them finishes the rename",
        ) from exc
    if finished is None:
        return await _clean(bucket, linked)
    return await _change_finished(bucket, old, finished, change)


async def _finished(bucket: Bucket, old: ObjectInfo, new: ObjectInfo) -> bool:
    """Whether somebody else has finished the rename of ``old`` to ``new``, and maybe taken all marks off."""
    if not _same_object(new, old):
        return False
    if _is_new_end(new, old):
        return True
    marker = await _read(bucket, old.name)
    marks = {} if marker is None or not marker.deleted else marker.metadata
    return (marks.get(MOVED), marks.get(MOVED_TO)) == (old.nuid, new.name)


def _renamed(old: ObjectInfo, new_name: str, change: Change) -> ObjectInfo:
    new = change(old)
    return replace(new, name=new_name, metadata=unmarked(new), mtime=datetime.now(UTC))


async def _change_finished(
    bucket: Bucket, old: ObjectInfo, current: ObjectInfo, change: Change
) -> ObjectInfo:
    """The rest of a rename that somebody has finished for us: they knew no more than the new name."""
    while change(current) != replace(current, metadata=unmarked(current)):
        wanted = _renamed(current, current.name, change)
        try:
            if RENAMING not in current.metadata:
                return replace(wanted, revision=await _commit(bucket, wanted, current.revision))
        except Conflict as conflict:
            standing = conflict.current
            if standing is not None and not standing.deleted and _same_object(standing, current):
                current = standing
                continue
            if standing is None or standing.metadata.get(MOVED) != current.nuid:
                return current  # it was replaced, or deleted: there is nothing left to change
        except OutcomeUnknownError:
            raise
        except NatsError as exc:
            raise _half_done(bucket, old, f"has its new name {current.name!r}, and not {_REST}") from exc
        raise _half_done(bucket, old, f"was renamed once more, without {_REST}")
    return current if RENAMING in current.metadata else await _clean(bucket, current)


_REST = "the rest of what was to change: change it once more"


def _half_done(bucket: Bucket, old: ObjectInfo, what: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"{old.name!r} in bucket {bucket.name!r} {what}",
        bucket=bucket.name,
        name=old.name,
        nuid=old.nuid,
    )


class _Both(Commit):
    """The new meta and the old name's delete marker, as one batch: there is no moment in between."""

    def __init__(
        self, bucket: Bucket, new: ObjectInfo, expected: int, old: ObjectInfo, subject: str | None
    ) -> None:
        super().__init__(
            bucket,
            new.name,
            encode_meta(new),
            expected=expected,
            nuid=new.nuid,
            ttl=remaining(new.expires),
        )
        self._old = old
        self._old_subject = subject or bucket.meta_subject(old.name)
        self._old_id = token_hex(12)

    async def _publish(self, expected: int, msg_id: str, timeout: float) -> PubAck:
        batch = Batch(self._bucket, timeout)
        try:
            header = meta_header(expected, msg_id, self._ttl)
            await batch.add(self._wire_subject, self._payload, header)
        except NatsError as exc:
            raise Unsent(exc) from exc
        self.states.sent()
        ack = await batch.end(
            check_publish_subject(self._old_subject),
            _gravestone(self._bucket, self._old, self._name),
            meta_header(self._old.revision, self._old_id),
        )
        # It tells of the last message, and the new meta is the one before.
        return PubAck(ack.stream, ack.seq - 1, ack.duplicate, ack.domain)

    async def _look(self) -> Standing | None:
        standing = await self._standing(self._subject)
        if standing.msg_id == self.states.msg_id:
            return standing
        origin = await self._standing(self._old_subject)
        if origin.msg_id == self._old_id:  # committed, just before it, and the new name was changed since
            return replace(standing, msg_id=self.states.msg_id, revision=origin.revision - 1)
        return standing if origin.revision == self._old.revision else None


async def _at_once(
    bucket: Bucket, old: ObjectInfo, new_name: str, change: Change, expected: int, subject: str | None
) -> ObjectInfo:
    new = _renamed(old, new_name, change)
    try:
        revision = await _Both(bucket, new, expected, old, subject).run()
    except Conflict:
        current = await _read(bucket, new_name)
        if current is not None and not current.deleted:
            raise _taken(bucket, new_name, current.revision) from None
        raise
    return replace(new, revision=revision)


async def finish_rename(bucket: Bucket, info: ObjectInfo | None) -> None:
    """Complete a rename that ``info`` is one end of, before ``info`` is replaced.

    One that cannot be written is nobody's to complete, and needs no more than that its chunks stay
    (:func:`shares_chunks`).
    """
    try:
        await _finish(bucket, info)
    except UNWRITABLE as exc:
        name = "" if info is None else info.name
        log.warning("a rename of %r in bucket %r is not completed: %s", name, bucket.name, exc)


async def _finish(bucket: Bucket, info: ObjectInfo | None) -> None:
    if info is None or info.deleted:
        return
    new_name, old_name = info.metadata.get(RENAMING), info.metadata.get(RENAMED_FROM)
    if new_name is not None and new_name != info.name and _usable(bucket, new_name):
        target, expected = await _target(bucket, new_name)
        awaited = (target is None or target.deleted) and _awaits(info, expected)
        if awaited and await _refusal(bucket, info, new_name, target, expected) is None:
            new = replace(info, name=new_name, metadata={**unmarked(info), RENAMED_FROM: info.name})
            try:
                await _commit(bucket, new, expected)
            except Conflict:
                pass  # finished, or taken, by somebody else
    if old_name is not None and old_name != info.name and _usable(bucket, old_name):
        origin = await _read(bucket, old_name)
        if origin is not None and _half(origin, info):
            await _bury(bucket, origin)


async def complete(bucket: Bucket, info: ObjectInfo, *, dry_run: bool) -> str | None:
    """Complete the rename that ``info`` is marked with; returns the new name, ``None`` when there is no pair.

    A mark whose new name was changed by others is taken off.
    """
    new_name = info.metadata.get(RENAMING)
    if new_name is None or new_name == info.name or not _usable(bucket, new_name):
        return None
    current = await _read(bucket, info.name)
    if current is None or current.revision != info.revision:
        return None  # replaced meanwhile, by somebody who has seen the mark
    target, expected = await _target(bucket, new_name)
    if target is not None and not target.deleted:
        failed = not _is_new_end(target, info)
    else:
        failed = not _awaits(info, expected)
    if dry_run:
        return None if failed else new_name
    if failed:
        await _unmark(bucket, replace(info, metadata=unmarked(info)))
        return None
    await _finish(bucket, info)
    if await _has_new_end(bucket, info):
        await _bury(bucket, info)
        target = await _read(bucket, new_name)
        if target is not None and not target.deleted and _same_object(target, info):
            await _clean(bucket, target)
        return new_name
    return None


async def shares_chunks(bucket: Bucket, info: ObjectInfo) -> bool:
    """True when another live meta carries the chunks of ``info``, or may yet: then they must stay."""
    for mark in (RENAMING, RENAMED_FROM):
        target = await _end(bucket, info, mark)
        if target is not None and target.nuid == info.nuid:
            return True
    return await _may_move(bucket, info)


async def _may_move(bucket: Bucket, info: ObjectInfo) -> bool:
    """Whether who began the rename that ``info`` is marked with may still commit it."""
    new_name = info.metadata.get(RENAMING)
    if new_name is None or new_name == info.name or not _usable(bucket, new_name):
        return False
    target, expected = await _target(bucket, new_name)
    return (target is None or target.deleted) and _awaits(info, expected)


def was_moved(marker: ObjectInfo, nuid: str) -> bool:
    """Whether it is the delete marker of the name for which those chunks were stored, left by a rename."""
    return marker.deleted and marker.metadata.get(MOVED) == nuid and is_nuid_of(nuid, marker.name)


async def _end(bucket: Bucket, info: ObjectInfo, mark: str) -> ObjectInfo | None:
    """What is live under the name in that mark of ``info``."""
    other = info.metadata.get(mark)
    if other is None or other == info.name or not _usable(bucket, other):
        return None
    target = await _read(bucket, other)
    return None if target is None or target.deleted else target


async def _has_new_end(bucket: Bucket, info: ObjectInfo) -> bool:
    """Whether the rename that ``info`` is marked with has got as far as its new name."""
    target = await _end(bucket, info, RENAMING)
    return target is not None and _is_new_end(target, info)


async def settle_rename(bucket: Bucket, info: ObjectInfo, new_name: str) -> bool:
    """Complete a rename before ``info`` is changed in place or renamed to ``new_name``.

    Returns whether ``info`` was its old end: then it is a delete marker now, the object has its new name.
    """
    await _finish(bucket, info)
    if info.metadata.get(RENAMING) == new_name or not await _has_new_end(bucket, info):
        return False  # the same rename once more goes on by itself
    await _bury(bucket, info)
    return True


async def _refusal(
    bucket: Bucket, info: ObjectInfo, new_name: str, target: ObjectInfo | None, expected: int
) -> NatsError | None:
    """Why a rename may not bring chunks back to the name they were stored for, when that is so.

    There they would be purged without another look. A meta of another name, or its mark of a rename, may be
    forged, and the chunks those of a third object; one that is renamed back is the only one that has them.
    """
    if info.name == new_name or not is_nuid_of(info.nuid, new_name):
        return None
    if target is not None and target.revision == expected and _just_moved(target, info):
        return None
    what = (
        f"{info.name!r} in bucket {bucket.name!r} names chunks that were stored for {new_name!r}, and "
        "another object "
    )
    try:
        async with asyncio.timeout(_look.LOOK_TIME) as limit:
            found = await _look.look_for(bucket, info.nuid, (info.name, new_name))
    except TimeoutError as exc:
        if not limit.expired() or isinstance(exc, NatsError):
            raise  # an unanswered request
        return RequestTimeoutError(
            f"{what}might need them: that was not found out within {_look.LOOK_TIME:g} s, and nothing was "
            "renamed; try again, or copy it"
        )
    if found is not None and not found.full:
        return None
    why = "may need them" if found is None else f"of more than {_look.MOST_NAMES} might need them"
    return BadObjectMetaError(f"{what}{why}: copy it", bucket=bucket.name, name=info.name)


def _just_moved(marker: ObjectInfo, info: ObjectInfo) -> bool:
    """Whether the old name's delete marker shows by itself that nobody else has the chunks of ``info``.

    It says where they went, and the meta there is still the one that the rename committed, just before the
    marker, or without its back reference, just after it. So they went no further.
    """
    return (
        was_moved(marker, info.nuid)
        and marker.metadata.get(MOVED_TO) == info.name
        and abs(info.revision - marker.revision) == 1
    )


def _same_object(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Whether two live metas say the same of the bytes. That one names the other's chunks proves nothing."""
    return content_of(one) is not None and content_of(one) == content_of(other)


def _is_new_end(new: ObjectInfo, old: ObjectInfo) -> bool:
    """Whether the live ``new`` is what the rename of ``old`` has made: that says so until ``old`` is gone.

    Anybody may have stored a copy of the meta there, and one that expires: nothing is given up for it.
    """
    lasting = new.expires is None or old.expires is not None
    return _same_object(new, old) and lasting and new.metadata.get(RENAMED_FROM) == old.name


def _half(origin: ObjectInfo, info: ObjectInfo) -> bool:
    return not origin.deleted and _is_new_end(info, origin) and origin.metadata.get(RENAMING) == info.name


def _awaits(info: ObjectInfo, revision: int) -> bool:
    """Whether the rename that ``info`` is marked with may still be finished.

    Once the new name was changed it has failed, whatever stands there by now: who began it may be taking the
    mark off. (Marks of older versions do not say what they expect.)
    """
    return info.metadata.get(RENAMING_AT, str(revision)) == str(revision)


def _usable(bucket: Bucket, name: str) -> bool:
    """Metadata is anybody's text: only a real object name is acted upon."""
    try:
        bucket.check_name(name)
    except ValueError:
        return False
    return True


async def _read(bucket: Bucket, name: str) -> ObjectInfo | None:
    """The newest meta of a name, wherever it lies."""
    message = (await bucket.locate(name))[1]
    try:
        return None if message is None else bucket.decode(message)
    except MetaDecodeError:
        return None


async def _target(bucket: Bucket, name: str) -> tuple[ObjectInfo | None, int]:
    """:func:`_read`, and the revision that stands on the name's own subject, where the new meta goes."""
    lookup = bucket.start_locating(name)
    message = (await lookup.wait())[1]
    own = message if lookup.newest == lookup.subjects[0] else lookup.others.get(lookup.subjects[0])
    try:
        info = None if message is None else bucket.decode(message)
    except MetaDecodeError:
        info = None
    return info, 0 if own is None else own.seq


async def _commit(bucket: Bucket, info: ObjectInfo, expected: int, subject: str | None = None) -> int:
    commit = Commit(
        bucket,
        info.name,
        encode_meta(info),
        expected=expected,
        nuid=info.nuid,
        borrows=info.chunks > 0,
        subject=subject,
        ttl=remaining(info.expires),
    )
    return await commit.run()


def marker_of(bucket: Bucket, info: ObjectInfo) -> bytes:
    """The delete marker of ``info``, no longer than what server and stream take."""
    limit = min(MAX_META_BYTES, bucket.max_message - META_HEADER)
    return tombstone(info, mtime=datetime.now(UTC), limit=limit)


def _gravestone(bucket: Bucket, info: ObjectInfo, new_name: str) -> bytes:
    """The delete marker of an old name: it names no chunks of the new one, but says which these are."""
    marks = {MOVED: info.nuid, MOVED_TO: new_name}
    buried = replace(info, nuid=new_nuid(info.name), metadata={**unmarked(info), **marks})
    return marker_of(bucket, buried)


async def _clean(bucket: Bucket, info: ObjectInfo) -> ObjectInfo:
    """Take the back reference off the new name; returns what of the object stands there then."""
    clean = replace(info, metadata=unmarked(info))
    if RENAMED_FROM not in info.metadata:
        return clean
    try:
        return replace(clean, revision=await _commit(bucket, clean, info.revision))
    except Conflict as conflict:
        current = conflict.current
        return (
            current if current is not None and not current.deleted and _same_object(current, info) else clean
        )
    except NatsError as exc:
        log.info("%r in bucket %r keeps the mark of its rename: %s", info.name, bucket.name, exc)
        return clean


async def _bury(bucket: Bucket, info: ObjectInfo, subject: str | None = None) -> None:
    """Turn the old end into a delete marker that names no chunks of the new end."""
    for _ in range(TRIES):
        commit = Commit(
            bucket,
            info.name,
            _gravestone(bucket, info, info.metadata.get(RENAMING, "")),
            expected=info.revision,
            nuid=info.nuid,
            subject=subject,
        )
        try:
            await commit.run()
            return
        except Conflict as conflict:
            current = conflict.current
            if current is None or current.metadata.get(RENAMING) != info.metadata.get(RENAMING):
                return  # replaced meanwhile by its next owner, who found the mark
            if current.deleted or not _same_object(current, info):
                return
            info = current  # the same mark, and another revision than we were told


async def _unmark(bucket: Bucket, marked: ObjectInfo, subject: str | None = None) -> None:
    try:
        await _commit(bucket, marked, marked.revision, subject)
    except (Conflict, NatsError):
        pass  # the mark is harmless: it names an object with other chunks


def _taken(bucket: Bucket, name: str, revision: int) -> ObjectAlreadyExists:
    return ObjectAlreadyExists(
        f"cannot rename: {name!r} exists in bucket {bucket.name!r}",
        bucket=bucket.name,
        name=name,
        revision=revision,
    )
