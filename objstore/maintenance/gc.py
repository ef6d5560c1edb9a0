"""Garbage collection: remove chunks that no object needs, and complete half-done renames."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from natsproto.errors import (
    ConnectionClosedError,
    NatsError,
    PermissionsViolationError,
)

from ..bucket.bucket import Bucket, log
from ..bucket.clock import server_time
from ..bucket.counts import count_from
from ..bucket.numbered import GONE, numbered
from ..bucket.shown import NotShown, shown
from ..bucket.ways import ANY_WAY
from ..commit.references import References
from ..commit.renames import complete
from ..errors import (
    BucketNotFoundError,
    BucketSealedError,
    ForeignBucketError,
)
from ..format.codec import MetaDecodeError
from ..format.naming import chunk_subject, is_safe_nuid
from ..listing.newest import each_newest
from ..read.late_copies import LateCopies, late_copies
from .reports import GcReport, Orphan
from .sourced import arrived_until, is_sourced
from .stored_chunks import chunk_counts, chunk_nuids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from natsproto.jetstream.api.models import StoredMessage

    from ..format.models import ObjectInfo

DEFAULT_AGE = timedelta(hours=24)
"""Chunks younger than this may belong to a put in progress, or to a paused upload."""


CHUNKS_AT_ONCE = 4
"""Reads of chunks in flight at once: the leader sends whole chunks."""


WHOLE_BUCKET = (ConnectionClosedError, BucketNotFoundError, BucketSealedError, ForeignBucketError)
"""Errors that end a collection. Others may concern one name only: clients may write anything in its meta."""


class _Counts(References):
    """Also remembers how many chunks the metas count; of unreadable ones only what names stored chunks.

    Args:
        stored: the nuids of all chunks that may be removed.

    Attributes:
        chunks: the highest count of each nuid.
    """

    def __init__(self, stored: Iterable[str]) -> None:
        super().__init__()
        self.chunks: dict[str, int] = {}
        self._stored = frozenset(nuid.encode() for nuid in stored if is_safe_nuid(nuid))

    def _words_of(self, data: bytes) -> set[bytes]:
        return super()._words_of(data) & self._stored

    def _nuid_shown(self, info: ObjectInfo) -> str:
        nuid = super()._nuid_shown(info)
        if nuid:
            self.chunks[nuid] = max(info.chunks, self.chunks.get(nuid, 0))
        return nuid


class AgeLimits:
    """Until when chunks must have been stored to be old enough.

    Args:
        now: the time.
        arrived: until when all that the bucket's sources had stored has arrived; ``None`` = not known.
        older_than: the age that was asked for.

    Attributes:
        before: the limit for chunks of a put.
    """

    def __init__(self, now: datetime, arrived: datetime | None, older_than: timedelta) -> None:
        self.before: datetime = now - older_than
        self._sourced = None if arrived is None else arrived - older_than
        # A sender that resumes an upload relies on its stored chunks.
        self._uploads = self.before if older_than <= timedelta(0) else min(self.before, now - GONE)

    def of(self, message: StoredMessage) -> datetime | None:
        """Return the limit for the chunks that end with this one; ``None``: they are never old enough now."""
        limit = self._uploads if numbered(message) else self.before
        if not is_sourced(message):
            return limit
        return None if self._sourced is None else min(limit, self._sourced)


async def gc(bucket: Bucket, *, older_than: timedelta, dry_run: bool) -> GcReport:
    """See :meth:`ObjectStore.gc`."""
    stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    bucket.learn(stream)
    # Chunks first: then the metas include everything committed after them.
    counts = await chunk_counts(bucket)
    nuids = await chunk_nuids(bucket) if counts is None else counts
    references = _Counts(nuids)
    now = server_time(stream)
    arrived = await arrived_until(bucket, stream) if stream.config.sources else now
    # Later: the metas of what was complete by then are among them.
    await references.read_on(bucket, proven=not dry_run)
    limits = AgeLimits(now, arrived, older_than)
    report = GcReport(bucket.name, dry_run, unreadable=references.unreadable)
    nameless = [nuid for nuid in sorted(nuids) if is_safe_nuid(nuid) and not references.named(nuid)]
    last: dict[str, tuple[datetime, datetime | None]] = {}  # its time, and its limit; no chunk is kept
    subjects = {chunk_subject(bucket.name, nuid): nuid for nuid in nameless}
    async with aclosing(each_newest(bucket, list(subjects), CHUNKS_AT_ONCE, bucket.proofs)) as answers:
        async for subject, message in answers:
            if message is not None:  # else gone meanwhile
                last[subjects[subject]] = message.time, limits.of(message)
    for nuid, (time, limit) in last.items():
        if limit is None or time > limit:
            report.recent.append(nuid)
            continue
        removed = False
        count = await bucket.stored_chunks(nuid) if counts is None else counts[nuid]
        if not dry_run:
            try:
                removed = await bucket.retrying(partial(_remove_orphan, bucket, references, nuid, limit))
                if not removed:
                    continue
            except PermissionsViolationError:
                raise
            except NatsError as exc:
                log.warning("orphan chunks %r in bucket %r were not removed: %s", nuid, bucket.name, exc)
        report.orphans.append(Orphan(nuid, count, time, removed))
    for nuid, stored in (counts or {}).items():
        if stored <= references.chunks.get(nuid, stored):
            continue
        try:
            found = await _late_copies(bucket, references, nuid, stored, limits, dry_run)
        except NatsError as exc:
            if isinstance(exc, WHOLE_BUCKET):
                raise
            log.warning("late copies of chunks %r in bucket %r were not removed: %s", nuid, bucket.name, exc)
            continue
        if found is not None:
            report.copies.append(found)
    for name in references.marked:
        try:
            info = await bucket.leader_meta(name, ANY_WAY)
        except MetaDecodeError:
            continue
        if info is None or info.mtime > limits.before:
            continue
        try:
            new_name = await complete(bucket, info, dry_run=dry_run)
        except WHOLE_BUCKET:
            raise
        except NatsError as exc:
            log.warning("a rename of %r in bucket %r was not completed: %s", info.name, bucket.name, exc)
            continue
        if new_name is not None:
            report.renames.append((info.name, new_name))
    return report


async def _remove_orphan(bucket: Bucket, references: References, nuid: str, before: datetime) -> bool:
    """Check again, and purge; false when an upload has added chunks, or was committed, meanwhile.

    This runs before each try: a retry after a lost response may come much later. Chunks stored after the
    check stay, however late the purge arrives.
    """
    last = await _last_stored(bucket, nuid)
    if last is None:
        return True  # the previous try removed them, and its response was lost
    if last.time > before or await count_from(bucket, last.subject, last.seq + 1):
        return False  # the leader's answer may have been an older chunk, which a peer has asked for
    await references.read_on(bucket)  # last: an upload whose chunks are all there adds nothing but its meta
    if references.named(nuid):
        return False
    if bucket.old.index_broken:
        await bucket.purge_chunks(nuid, before=last.seq + 1)
    else:
        await bucket.purge_once(nuid, before=last.seq + 1)
    return True


async def _last_stored(bucket: Bucket, nuid: str) -> StoredMessage | None:
    return await bucket.leader_message(chunk_subject(bucket.name, nuid))


async def _late_copies(
    bucket: Bucket,
    references: _Counts,
    nuid: str,
    stored: int,
    limits: AgeLimits,
    dry_run: bool,
) -> tuple[str, int] | None:
    """Remove the late copies behind an object, if there are some, and all are old enough.

    Args:
        limits: a sender may still be storing more.
    """
    last = await _last_stored(bucket, nuid)
    limit = None if last is None else limits.of(last)
    if last is None or limit is None or last.time > limit:
        return None
    if await count_from(bucket, last.subject, last.seq + 1):
        return None
    if not last.data and stored == references.chunks[nuid] + 1:
        return None  # some writers end an object with an empty message that they do not count
    await references.read_on(bucket, proven=not dry_run)
    if references.may_name(nuid):
        return None
    holders = [await _holder(bucket, subject, nuid) for subject in references.naming(nuid)]
    found = await _behind_all(bucket, [each for each in holders if each is not None])
    if found is None:
        return None
    info, late = found
    if not dry_run:
        subject = chunk_subject(bucket.name, nuid)
        # What the leader answers may be another stream's, which numbers the same chunks differently.
        behind = (await shown(bucket, subject, late.all, start=1))[late.before :]
        if not set(late.all).issubset(behind):
            raise NotShown(f"a consumer shows other chunks of {info.name!r} than the leader does")
        for seq in late.all:
            await bucket.delete_own(seq, lambda message: message.subject == subject, proven=True)
    return info.name, len(late.all)


async def _behind_all(bucket: Bucket, holders: list[ObjectInfo]) -> tuple[ObjectInfo, LateCopies] | None:
    """Return what lies behind every object that metas of one nuid describe, and the largest of these.

    Anybody may write such a meta. With a lower count, what follows its chunks is no copy, or another object's
    own. With another digest it may choose others of the messages, where a copy brought all of them: then each
    of the metas must prove that its object ends before.
    """
    most = max((each.chunks for each in holders), default=0)
    asked: dict[tuple[int, int, str], ObjectInfo] = {}
    for each in holders:
        if bucket.copied or each.chunks == most:
            asked.setdefault((each.chunks, each.size, each.digest), each)
    found: tuple[ObjectInfo, LateCopies] | None = None
    for each in sorted(asked.values(), key=lambda info: info.chunks):
        late = await late_copies(bucket, each)
        if late is None or not late.first:
            return None
        found = each, late
    return found


async def _holder(bucket: Bucket, subject: str, nuid: str) -> ObjectInfo | None:
    message = await bucket.leader_message(subject)
    if message is None:
        return None
    info = bucket.decode(message)
    return None if info.deleted or info.nuid != nuid else info
