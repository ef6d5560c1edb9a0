"""Garbage collection: remove chunks that no meta refers to, and complete half-done renames."""

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
from ..bucket.message_reads import ANY_WAY
from ..bucket.numbered import GONE, numbered
from ..commit.references import References
from ..commit.renames import complete
from ..errors import (
    BucketNotFoundError,
    BucketSealedError,
    ForeignBucketError,
)
from ..format.codec import MetaDecodeError
from ..format.naming import chunk_subject, is_safe_nuid
from ..listing.metas import each_newest
from .reports import GcReport, Orphan
from .stored_chunks import chunk_counts, chunk_nuids

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage


DEFAULT_AGE = timedelta(hours=24)
"""Chunks younger than this may belong to a put in progress, or to a paused upload."""


CHUNKS_AT_ONCE = 4
"""Reads of chunks in flight at once: the leader sends whole chunks."""


WHOLE_BUCKET = (ConnectionClosedError, BucketNotFoundError, BucketSealedError, ForeignBucketError)
"""Errors that end a collection. Others may concern one name only: clients may write anything in its meta."""


async def gc(bucket: Bucket, *, older_than: timedelta, dry_run: bool) -> GcReport:
    """See :meth:`ObjectStore.gc`."""
    stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    bucket.learn(stream)
    # Chunks first: then the metas include everything committed after them.
    counts = await chunk_counts(bucket)
    nuids = await chunk_nuids(bucket) if counts is None else counts
    references = References()
    await references.read_on(bucket)
    before = server_time(stream) - older_than
    # A sender that resumes an upload relies on its stored chunks.
    uploads = before if older_than <= timedelta(0) else min(before, server_time(stream) - GONE)
    report = GcReport(bucket.name, dry_run, unreadable=references.unreadable)
    nameless = [nuid for nuid in sorted(nuids) if is_safe_nuid(nuid) and not references.named(nuid)]
    last = {}
    subjects = {chunk_subject(bucket.name, nuid): nuid for nuid in nameless}
    async with aclosing(each_newest(bucket, list(subjects), CHUNKS_AT_ONCE, bucket.proofs)) as answers:
        async for subject, message in answers:
            if message is not None:  # else gone meanwhile
                last[subjects[subject]] = message
    for nuid, message in last.items():
        limit = uploads if numbered(message) else before
        if message.time > limit:
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
        report.orphans.append(Orphan(nuid, count, message.time, removed))
    for name in references.marked:
        try:
            info = await bucket.leader_meta(name, ANY_WAY)
        except MetaDecodeError:
            continue
        if info is None or info.mtime > before:
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
    if last.time > before:
        return False
    await references.read_on(bucket)  # last: an upload whose chunks are all there adds nothing but its meta
    if references.named(nuid):
        return False
    if bucket.index_broken:
        await bucket.purge_chunks(nuid, before=last.seq + 1)
    else:
        await bucket.purge_once(nuid, before=last.seq + 1)
    return True


async def _last_stored(bucket: Bucket, nuid: str) -> StoredMessage | None:
    return await bucket.leader_message(chunk_subject(bucket.name, nuid))
