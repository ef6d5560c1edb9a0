"""Rename objects: an object always has a name, and the next writer completes an interrupted rename.

If the bucket allows batches, both names change in one commit. Otherwise a rename takes several steps. The
chunks do not move: both metas have the same nuid for a moment, so a client that removes one of them must know
of the other. First the old meta is marked (``RENAMING`` = new name, and ``RENAMING_AT`` = the revision at
that name). Then the new meta is published at that revision with a back reference (``RENAMED_FROM`` = old
name). Then the old one becomes a delete marker with its own nuid. Then the back reference is removed. Every
step is a compare-and-set. Our own put and delete complete a marked rename before they purge; other clients do
not know the mark. So once the mark is set, others may complete the rename at any time, and the object may
have changed since: only the removal of the mark, at the mark's revision, proves that nothing was renamed.
The metadata of the object are the same in all of these messages (:mod:`objstore.format.marks`).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from natsproto._values import seconds
from natsproto.errors import MaxPayloadError, NatsError, RequestTimeoutError
from natsproto.jetstream.api.errors import MessageTooLargeError

from ..bucket.bucket import Bucket, log
from ..bucket.ttl import outlasts, remaining
from ..errors import BadObjectMetaError
from ..format.codec import MAX_META_BYTES, META_HEADER, MetaDecodeError, encode_meta, tombstone
from ..format.marks import (
    MOVED,
    MOVED_TO,
    RENAMED_FROM,
    RENAMING,
    RENAMING_AT,
    mark_lines,
    shown,
    unmarked,
    was_moved,
)
from ..format.models import ObjectInfo
from ..format.naming import is_nuid_of, new_nuid
from . import scan
from .commit import Commit, Conflict
from .states import content_of

TRIES = 10
"""Attempts to write the delete marker of an old name."""

UNWRITABLE = (BadObjectMetaError, MaxPayloadError, MessageTooLargeError)
"""Errors of a meta that is too long to be written under another name, with the marks of a rename."""


async def finish_rename(bucket: Bucket, info: ObjectInfo | None) -> None:
    """Complete a rename of which ``info`` is one end, before ``info`` is replaced.

    If its meta cannot be written, no client can complete it; then only its chunks must stay
    (:func:`shares_chunks`).
    """
    try:
        await _finish(bucket, info)
    except UNWRITABLE as exc:
        name = "" if info is None else info.name
        log.warning("a rename of %r in bucket %r was not completed: %s", name, bucket.name, exc)


async def _finish(bucket: Bucket, info: ObjectInfo | None) -> None:
    if info is None or info.deleted:
        return
    new_name, old_name = info.metadata.get(RENAMING), info.metadata.get(RENAMED_FROM)
    if new_name is not None and new_name != info.name and _usable(bucket, new_name):
        target, expected = await read_target(bucket, new_name)
        awaited = (target is None or target.deleted) and _awaits(info, expected)
        if awaited and await refusal_to_bring_back(bucket, info, new_name, target, expected) is None:
            new = replace(info, name=new_name, metadata={**unmarked(info), RENAMED_FROM: info.name})
            try:
                await commit_meta(bucket, new, expected, proven=True)
            except Conflict:
                pass  # another client has finished the rename, or taken the name
    if old_name is not None and old_name != info.name and _usable(bucket, old_name):
        origin = await read_meta(bucket, old_name)
        if origin is not None and _half(origin, info):
            await write_marker(bucket, origin)


async def complete(bucket: Bucket, info: ObjectInfo, *, dry_run: bool) -> str | None:
    """Complete the rename that ``info`` is marked with; return the new name, ``None`` if there is none.

    If others have changed the new name, the mark is removed.
    """
    new_name = info.metadata.get(RENAMING)
    if new_name is None or new_name == info.name or not _usable(bucket, new_name):
        return None
    current = await read_meta(bucket, info.name)
    if current is None or current.revision != info.revision:
        return None  # replaced meanwhile by a writer that has seen the mark
    target, expected = await read_target(bucket, new_name)
    if target is not None and not target.deleted:
        failed = not is_new_end(target, info)
    else:
        failed = not _awaits(info, expected)
    if dry_run:
        return None if failed else new_name
    if failed:
        await unmark(bucket, replace(info, metadata=unmarked(info)))
        return None
    await _finish(bucket, info)
    if await _has_new_end(bucket, info):
        await write_marker(bucket, info)
        target = await read_meta(bucket, new_name)
        if target is not None and not target.deleted and same_object(target, info):
            await clear_marks(bucket, target)
        return new_name
    return None


async def shares_chunks(bucket: Bucket, info: ObjectInfo) -> bool:
    """Whether another live meta refers to the chunks of ``info``, or soon may: then they must stay."""
    for mark in (RENAMING, RENAMED_FROM):
        target = await _end(bucket, info, mark)
        if target is not None and target.nuid == info.nuid:
            return True
    return await _may_move(bucket, info)


async def _may_move(bucket: Bucket, info: ObjectInfo) -> bool:
    """Whether the client that began the rename of ``info`` may still commit it."""
    new_name = info.metadata.get(RENAMING)
    if new_name is None or new_name == info.name or not _usable(bucket, new_name):
        return False
    target, expected = await read_target(bucket, new_name)
    return (target is None or target.deleted) and _awaits(info, expected)


async def _end(bucket: Bucket, info: ObjectInfo, mark: str) -> ObjectInfo | None:
    """Return the live object under the name in that mark of ``info``."""
    other = info.metadata.get(mark)
    if other is None or other == info.name or not _usable(bucket, other):
        return None
    target = await read_meta(bucket, other)
    return None if target is None or target.deleted else target


async def _has_new_end(bucket: Bucket, info: ObjectInfo) -> bool:
    """Whether the rename that ``info`` is marked with has stored the new meta."""
    target = await _end(bucket, info, RENAMING)
    return target is not None and is_new_end(target, info)


async def settle_rename(bucket: Bucket, info: ObjectInfo, new_name: str) -> bool:
    """Complete a rename before ``info`` is changed in place or renamed to ``new_name``.

    Return whether ``info`` was its old end: then it is a delete marker now, and the object has its new name.
    """
    await _finish(bucket, info)
    if info.metadata.get(RENAMING) == new_name or not await _has_new_end(bucket, info):
        return False  # the same rename again continues by itself
    await write_marker(bucket, info)
    return True


async def refusal_to_bring_back(
    bucket: Bucket, info: ObjectInfo, new_name: str, target: ObjectInfo | None, expected: int
) -> NatsError | None:
    """Return why a rename may not move chunks back to their original name; ``None`` when it may.

    There they would be purged without a further check. A meta of another name, or its mark of a rename, may
    be forged, and the chunks may belong to a third object; a genuine object is the only one that has them.
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
        async with asyncio.timeout(scan.SCAN_TIME) as limit:
            found = await scan.scan_for(bucket, info.nuid, (info.name, new_name))
    except TimeoutError as exc:
        if not limit.expired() or isinstance(exc, NatsError):
            raise  # an unanswered request
        return RequestTimeoutError(
            f"{what}might need them: that was not found out within {seconds(scan.SCAN_TIME)} s, and nothing "
            "was renamed; try again, or copy it"
        )
    if found is not None and not found.full:
        return None
    why = "may need them" if found is None else f"of more than {scan.MOST_NAMES} might need them"
    return BadObjectMetaError(f"{what}{why}: copy it", bucket=bucket.name, name=info.name)


def _just_moved(marker: ObjectInfo, info: ObjectInfo) -> bool:
    """Whether the old name's delete marker proves by itself that no other object has the chunks of ``info``.

    It records their new name, and the meta there is still the one that the rename committed, just before the
    marker, or just after it without its back reference. So they were not renamed again.
    """
    return (
        was_moved(marker, info.nuid)
        and marker.metadata.get(MOVED_TO) == info.name
        and abs(info.revision - marker.revision) == 1
    )


def same_object(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Whether two live metas describe the same bytes. A reference to the other's chunks proves nothing."""
    return content_of(one) is not None and content_of(one) == content_of(other)


def is_new_end(new: ObjectInfo, old: ObjectInfo) -> bool:
    """Whether the live ``new`` is the result of the rename of ``old``; it is marked until ``old`` is gone.

    Any client may have stored a copy of the meta there that expires sooner: it must not replace the old one.
    """
    lasting = outlasts(new.expires, old.expires)
    return same_object(new, old) and lasting and new.metadata.get(RENAMED_FROM) == old.name


def _half(origin: ObjectInfo, info: ObjectInfo) -> bool:
    return not origin.deleted and is_new_end(info, origin) and origin.metadata.get(RENAMING) == info.name


def _awaits(info: ObjectInfo, revision: int) -> bool:
    """Whether the rename that ``info`` is marked with may still be finished.

    Once the new name was changed it has failed, whatever is there by now: its client may be removing the
    mark. (Marks of older versions do not record the expected revision.)
    """
    return info.metadata.get(RENAMING_AT, str(revision)) == str(revision)


def _usable(bucket: Bucket, name: str) -> bool:
    """Whether a mark has a valid object name; any client may have written it."""
    try:
        bucket.check_name(name)
    except ValueError:
        return False
    return True


async def read_meta(bucket: Bucket, name: str) -> ObjectInfo | None:
    """Return the newest meta of a name, under any of its subjects."""
    message = (await bucket.locate(name))[1]
    try:
        return None if message is None else bucket.decode(message)
    except MetaDecodeError:
        return None


async def read_target(bucket: Bucket, name: str) -> tuple[ObjectInfo | None, int]:
    """Read the newest meta, and the revision on the name's own subject, where the new meta goes."""
    lookup = bucket.start_locating(name)
    message = (await lookup.wait())[1]
    own = message if lookup.newest == lookup.subjects[0] else lookup.others.get(lookup.subjects[0])
    try:
        info = None if message is None else bucket.decode(message)
    except MetaDecodeError:
        info = None
    return info, 0 if own is None else own.seq


async def commit_meta(
    bucket: Bucket, info: ObjectInfo, expected: int, subject: str | None = None, *, proven: bool = False
) -> int:
    commit = Commit(
        bucket,
        info.name,
        encode_meta(shown(info)),
        expected=expected,
        nuid=info.nuid,
        borrows=info.chunks > 0,
        subject=subject,
        ttl=await remaining(bucket, info.expires),
        end=info.expires,
        marks=mark_lines(info.metadata),
        proven=proven,
    )
    return await commit.run()


def marker_of(bucket: Bucket, info: ObjectInfo, room: int = 0) -> bytes:
    """Return the delete marker of ``info``, no longer than server and stream accept.

    Args:
        room: bytes of further headers.
    """
    limit = min(MAX_META_BYTES, bucket.max_message - META_HEADER - room)
    return tombstone(shown(info), mtime=datetime.now(UTC), limit=limit)


def moved_marker(bucket: Bucket, info: ObjectInfo, new_name: str) -> tuple[bytes, bytes]:
    """Return the delete marker of an old name, and its marks as header lines.

    It has its own nuid; the marks record the nuid and the name of the moved chunks.
    """
    marks = mark_lines({MOVED: info.nuid, MOVED_TO: new_name})
    return marker_of(bucket, replace(info, nuid=new_nuid(info.name)), len(marks)), marks


async def clear_marks(bucket: Bucket, info: ObjectInfo) -> ObjectInfo:
    """Remove the back reference from the new name; return the object as it is then."""
    clean = replace(info, metadata=unmarked(info))
    if RENAMED_FROM not in info.metadata:
        return clean
    try:
        return replace(clean, revision=await commit_meta(bucket, clean, info.revision))
    except Conflict as conflict:
        current = conflict.current
        return (
            current if current is not None and not current.deleted and same_object(current, info) else clean
        )
    except NatsError as exc:
        log.info("%r in bucket %r keeps the mark of its rename: %s", info.name, bucket.name, exc)
        return clean


async def write_marker(bucket: Bucket, info: ObjectInfo, subject: str | None = None) -> None:
    """Replace the old end by a delete marker that does not refer to the chunks of the new end."""
    for _ in range(TRIES):
        marker, marks = moved_marker(bucket, info, info.metadata.get(RENAMING, ""))
        commit = Commit(
            bucket,
            info.name,
            marker,
            expected=info.revision,
            nuid=info.nuid,
            subject=subject,
            marks=marks,
        )
        try:
            await commit.run()
            return
        except Conflict as conflict:
            current = conflict.current
            if current is None or current.metadata.get(RENAMING) != info.metadata.get(RENAMING):
                return  # replaced meanwhile by a writer that found the mark
            if current.deleted or not same_object(current, info):
                return
            info = current  # the same mark at another revision


async def unmark(bucket: Bucket, marked: ObjectInfo, subject: str | None = None) -> None:
    try:
        await commit_meta(bucket, marked, marked.revision, subject)
    except (Conflict, NatsError):
        pass  # the mark is harmless: it refers to an object with other chunks
