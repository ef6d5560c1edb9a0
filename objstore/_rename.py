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

from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex

from natsproto.errors import NatsError
from natsproto.jetstream.api.models import PubAck
from natsproto.nuid import next_nuid
from natsproto.subjects import check_publish_subject

from ._atomic import Batch
from ._bucket import Bucket, MetaDecodeError, log
from ._commit import Commit, Conflict, Unsent, meta_header
from ._commit_states import Standing
from ._ttl import remaining
from .errors import ObjectAlreadyExists, OutcomeUnknownError
from .format.codec import encode_meta, tombstone
from .format.models import ObjectInfo

RENAMING = "natsproto.renaming"
RENAMING_AT = "natsproto.renaming-at"
RENAMED_FROM = "natsproto.renamed-from"
TRIES = 10


async def rename(
    bucket: Bucket, old: ObjectInfo, changed: ObjectInfo, subject: str | None = None
) -> ObjectInfo:
    """Move ``old`` to ``changed.name``, with whatever else ``changed`` says of it.

    Cancelled after the first step, it is finished in the background; that is waited for at most 5 s.

    Args:
        subject: where the old meta lies, when that is not where this library puts it.

    Raises:
        ObjectAlreadyExists: a live object has the new name.
        Conflict: somebody changed the old object meanwhile; nothing was renamed.
        OutcomeUnknownError: both names may be there; whoever changes one of them finishes the rename.
        StoreFullError, other NatsError: refused; the old name is as it was.
    """
    target, expected = await _target(bucket, changed.name)
    if target is not None and not target.deleted and not _same_chunks(target, old):
        raise _taken(bucket, changed.name, target.revision)
    steps = _at_once if bucket.atomic else _steps
    return await bucket.outlast(steps(bucket, old, changed, expected, subject))


async def _steps(
    bucket: Bucket, old: ObjectInfo, changed: ObjectInfo, expected: int, subject: str | None
) -> ObjectInfo:
    marked = replace(old, metadata={**unmarked(old), RENAMING: changed.name, RENAMING_AT: str(expected)})
    marked = replace(marked, revision=await _commit(bucket, marked, old.revision, subject))
    new = replace(changed, metadata=unmarked(changed), mtime=datetime.now(UTC))
    linked = replace(new, metadata={**new.metadata, RENAMED_FROM: old.name})
    try:
        new_revision = await _commit(bucket, linked, expected)
    except Conflict as conflict:
        current = conflict.current
        if current is None or current.deleted or not _same_chunks(current, old):
            await _unmark(bucket, replace(old, revision=marked.revision), subject)
            raise _taken(bucket, changed.name, conflict.revision) from None
        new_revision = conflict.revision  # somebody finished our rename for us
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
        raise OutcomeUnknownError(
            f"{old.name!r} in bucket {bucket.name!r} has its new name {new.name!r}, and the old one still: "
            "whoever changes one of them finishes the rename",
            bucket=bucket.name,
            name=old.name,
            nuid=old.nuid,
        ) from exc
    cleaned = await _clean(bucket, replace(linked, revision=new_revision))
    return replace(new, revision=cleaned.revision) if cleaned.mtime == linked.mtime else cleaned


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
            _gravestone(self._old),
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
    bucket: Bucket, old: ObjectInfo, changed: ObjectInfo, expected: int, subject: str | None
) -> ObjectInfo:
    new = replace(changed, metadata=unmarked(changed), mtime=datetime.now(UTC))
    try:
        revision = await _Both(bucket, new, expected, old, subject).run()
    except Conflict:
        current = await _read(bucket, changed.name)
        if current is not None and not current.deleted:
            raise _taken(bucket, changed.name, current.revision) from None
        raise
    return replace(new, revision=revision)


async def finish_rename(bucket: Bucket, info: ObjectInfo | None) -> None:
    """Complete a rename that ``info`` is one end of, before ``info`` is replaced or removed."""
    if info is None or info.deleted:
        return
    new_name, old_name = info.metadata.get(RENAMING), info.metadata.get(RENAMED_FROM)
    if new_name is not None and new_name != info.name and _usable(bucket, new_name):
        target, expected = await _target(bucket, new_name)
        if (target is None or target.deleted) and _awaits(info, expected):
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
        failed = target.nuid != info.nuid
    else:
        failed = not _awaits(info, expected)
    if dry_run:
        return None if failed else new_name
    if failed:
        await _unmark(bucket, replace(info, metadata=unmarked(info)))
        return None
    await finish_rename(bucket, info)
    if await _has_end(bucket, info, RENAMING):
        await _bury(bucket, info)
        target = await _read(bucket, new_name)
        if target is not None and not target.deleted and _same_chunks(target, info):
            await _clean(bucket, target)
        return new_name
    return None


async def shares_chunks(bucket: Bucket, info: ObjectInfo) -> bool:
    """True when another live meta carries the chunks of ``info``: then they must not be purged."""
    return await _has_end(bucket, info, RENAMING) or await _has_end(bucket, info, RENAMED_FROM)


async def _has_end(bucket: Bucket, info: ObjectInfo, mark: str) -> bool:
    """Whether the name in that mark of ``info`` is the other end of its rename."""
    other = info.metadata.get(mark)
    if other is None or other == info.name or not _usable(bucket, other):
        return False
    target = await _read(bucket, other)
    return target is not None and not target.deleted and _same_chunks(target, info)


async def settle_rename(bucket: Bucket, info: ObjectInfo, new_name: str) -> bool:
    """Complete a rename before ``info`` is changed in place or renamed to ``new_name``.

    Returns whether ``info`` was its old end: then it is a delete marker now, the object has its new name.
    """
    await finish_rename(bucket, info)
    if info.metadata.get(RENAMING) == new_name or not await _has_end(bucket, info, RENAMING):
        return False  # the same rename once more goes on by itself
    await _bury(bucket, info)
    return True


def _same_chunks(one: ObjectInfo, other: ObjectInfo) -> bool:
    return bool(one.nuid) and one.nuid == other.nuid


def _half(origin: ObjectInfo, info: ObjectInfo) -> bool:
    return not origin.deleted and _same_chunks(origin, info) and origin.metadata.get(RENAMING) == info.name


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
        subject=subject,
        ttl=remaining(info.expires),
    )
    return await commit.run()


def unmarked(info: ObjectInfo) -> dict[str, str]:
    """The metadata without our marks."""
    return {
        key: value for key, value in info.metadata.items() if key not in (RENAMING, RENAMING_AT, RENAMED_FROM)
    }


def _gravestone(info: ObjectInfo) -> bytes:
    """The delete marker of an old name: it names no chunks of the new one."""
    return tombstone(replace(info, nuid=next_nuid(), metadata=unmarked(info)), mtime=datetime.now(UTC))


async def _clean(bucket: Bucket, info: ObjectInfo) -> ObjectInfo:
    """Take the back reference off the new name; returns what of the object stands there then."""
    if RENAMED_FROM not in info.metadata:
        return info
    clean = replace(info, metadata=unmarked(info))
    try:
        return replace(clean, revision=await _commit(bucket, clean, info.revision))
    except Conflict as conflict:
        current = conflict.current
        return (
            current if current is not None and not current.deleted and _same_chunks(current, info) else info
        )
    except NatsError as exc:
        log.info("%r in bucket %r keeps the mark of its rename: %s", info.name, bucket.name, exc)
        return info


async def _bury(bucket: Bucket, info: ObjectInfo, subject: str | None = None) -> None:
    """Turn the old end into a delete marker that names no chunks of the new end."""
    for _ in range(TRIES):
        commit = Commit(
            bucket, info.name, _gravestone(info), expected=info.revision, nuid=info.nuid, subject=subject
        )
        try:
            await commit.run()
            return
        except Conflict as conflict:
            current = conflict.current
            if current is None or current.metadata.get(RENAMING) != info.metadata.get(RENAMING):
                return  # replaced meanwhile by its next owner, who found the mark
            if current.deleted or not _same_chunks(current, info):
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
