"""Maintenance: does what is stored agree with the metas, and what is stored that no meta names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from natsproto.errors import (
    ConnectionClosedError,
    NatsError,
    PermissionsViolationError,
    StaleConnectionError,
)

from ._bucket import LOOKS, Bucket, MetaDecodeError, log
from ._change import server_time
from ._collect import Collector
from ._get import blocks
from ._message_reads import ANY_WAY, CONSUMER
from ._newest import each_newest, newest_metas, subjects_at_once
from ._numbered import GONE, numbered
from ._references import References
from ._rename import complete
from ._ttl import expired
from .errors import (
    BucketNotFoundError,
    BucketSealedError,
    ForeignBucketError,
    IntegrityError,
    ObjectChangedError,
)
from .format.models import RENAMING, InvalidMeta
from .format.naming import all_chunks_subject, chunk_subject, is_safe_nuid

if TYPE_CHECKING:
    from natsproto.jetstream.api.delivery import Delivery
    from natsproto.jetstream.api.models import StoredMessage
    from natsproto.wire import Msg as WireMsg

    from .format.models import ObjectInfo

DEFAULT_AGE = timedelta(hours=24)
"""Chunks younger than this may belong to a put in progress, or to a paused upload."""


CHUNKS_AT_ONCE = 4
"""Reads of chunks that are under way at once: the leader sends them whole."""


WHOLE_BUCKET = (ConnectionClosedError, BucketNotFoundError, BucketSealedError, ForeignBucketError)
"""What ends a collection. Anything else may be due to one name: others write what they like into its meta."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one object.

    Attributes:
        kind: ``"missing chunks"``, ``"extra chunks"``, ``"damaged"`` (deep only), ``"unusable nuid"``,
            ``"impossible size"``, ``"unreadable meta"`` or ``"half-done rename"``.
        name: the object's name, ``""`` when its meta cannot be read.
        detail: what exactly.
        revision: of the meta message.
    """

    kind: str
    name: str
    detail: str
    revision: int


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What :meth:`ObjectStore.verify` found. ``ok`` = no problem at all."""

    bucket: str
    objects: int
    links: int
    size: int
    deep: bool
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Orphan:
    """Chunks that no standing meta names: a crashed writer's, or a paused upload's.

    Attributes:
        nuid: what names them.
        chunks: how many.
        stored: when the newest was stored.
        removed: whether they are gone now.
    """

    nuid: str
    chunks: int
    stored: datetime
    removed: bool


@dataclass(frozen=True, slots=True)
class GcReport:
    """What :meth:`ObjectStore.gc` found and did.

    Attributes:
        orphans: chunks without a meta, old enough.
        recent: nuids without a meta that were left alone because they are too young.
        renames: ``(old name, new name)`` of half-done renames, completed unless ``dry_run``.
        unreadable: metas that cannot be read; chunks they may name are left alone.
    """

    bucket: str
    dry_run: bool
    orphans: list[Orphan] = field(default_factory=list)
    recent: list[str] = field(default_factory=list)
    renames: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[InvalidMeta] = field(default_factory=list)


async def _chunk_counts(bucket: Bucket) -> dict[str, int] | None:
    """How many chunks each nuid has; ``None`` when somebody's subjects are too long to be told at once."""
    subjects = await subjects_at_once(bucket, all_chunks_subject(bucket.name), look=True)
    if subjects is None:
        return None
    start = len(f"$O.{bucket.name}.C.")
    return {subject[start:]: count for subject, count in subjects.items()}


async def _chunk_nuids(bucket: Bucket) -> set[str]:
    """The nuids of the chunks, read from the messages. Some may be lacking that were stored meanwhile."""
    nuids: set[str] = set()
    subject = all_chunks_subject(bucket.name)

    def add(subject: str) -> None:
        nuid = subject[len(f"$O.{bucket.name}.C.") :]
        if is_safe_nuid(nuid):  # others nobody asks for, and they may be long
            nuids.add(nuid)

    if bucket.allowed(CONSUMER):
        try:
            await _read_headers(bucket, subject, add)
            return nuids
        except PermissionsViolationError as exc:
            if not bucket.note_refusal(exc):
                raise
        except NatsError as exc:
            raise bucket.translate(exc) from exc
    async with aclosing(bucket.messages(subject, ways=ANY_WAY)) as messages:
        async for message in messages:
            add(message.subject)
    return nuids


async def _read_headers(bucket: Bucket, subject: str, add: Callable[[str], None]) -> None:
    """Have a consumer tell the subjects of the last messages, without what is in them."""
    last = (await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))).last_seq

    def on_message(msg: WireMsg, delivery: Delivery) -> None:
        add(msg.subject.decode("utf-8", "replace"))
        if delivery.num_pending == 0 or delivery.stream_seq >= last:
            reading.finish()

    async with Collector(bucket, subject, on_message, "last_per_subject", headers_only=True) as reading:
        if (await reading.start()).num_pending:
            await reading.ended


# -- verify -----------------------------------------------------------------------------------------------


async def verify(bucket: Bucket, *, deep: bool) -> VerifyReport:
    """See :meth:`ObjectStore.verify`."""
    invalid: list[InvalidMeta] = []
    infos = await newest_metas(bucket, invalid.append)
    counts = await _chunk_counts(bucket)
    problems = [
        Problem("unreadable meta", getattr(each.error, "name", ""), str(each.error), each.revision)
        for each in invalid
    ]
    live = [info for info in infos if not info.deleted]
    objects = [info for info in live if not info.is_link]
    by_nuid = {info.nuid: info.name for info in objects}
    if counts is None:
        counts = {nuid: await bucket.stored_chunks(nuid) for nuid in by_nuid if is_safe_nuid(nuid)}
    suspects = {info.name: info for info in objects if _check_counts(info, counts) is not None}
    confirmed: dict[str, Problem] = {}
    for wait in LOOKS:
        await asyncio.sleep(wait)
        found = [await _confirm(bucket, suspects[name]) for name in (confirmed or suspects)]
        confirmed = {each.name: each for each in found if each is not None}
        if not confirmed:
            break
    for info in objects:
        problem = confirmed.get(info.name)
        if problem is None and deep:
            problem = await _check_content(bucket, info)
        if problem is not None:
            problems.append(problem)
        target = info.metadata.get(RENAMING)
        if target is not None and by_nuid.get(info.nuid) == target != info.name:
            problems.append(Problem("half-done rename", info.name, f"to {target!r}", info.revision))
    return VerifyReport(
        bucket.name,
        len(objects),
        len(live) - len(objects),
        sum(info.size for info in objects),
        deep,
        problems,
    )


def _check_counts(info: ObjectInfo, counts: dict[str, int]) -> Problem | None:
    if not is_safe_nuid(info.nuid):
        return Problem("unusable nuid", info.name, f"{info.nuid[:80]!r} names no chunks", info.revision)
    stored = counts.get(info.nuid, 0)
    detail = f"{stored} stored, {info.chunks} recorded"
    if stored < info.chunks:
        return Problem("missing chunks", info.name, detail, info.revision)
    if stored > info.chunks:
        return Problem("extra chunks", info.name, detail, info.revision)
    if bool(info.size) != bool(info.chunks) and not (info.size == 0 and info.chunks == 1):
        return Problem(
            "impossible size", info.name, f"{info.size} bytes in {info.chunks} chunks", info.revision
        )
    return None


async def _confirm(bucket: Bucket, info: ObjectInfo) -> Problem | None:
    """Look again: the object may have been changed between the two answers the counts came from."""
    newest = (await bucket.locate(info.name, ANY_WAY))[1]
    if newest is None or newest.seq != info.revision:
        return None  # the next run sees it
    if not is_safe_nuid(info.nuid):
        return _check_counts(info, {})
    subject = chunk_subject(bucket.name, info.nuid)
    stored = await bucket.stored_chunks(info.nuid, info.chunks)
    if stored == info.chunks + 1:
        # Some writers end an object with an empty message that they do not count.
        last = await bucket.leader_message(subject, ANY_WAY)
        if last is None:
            return None  # removed meanwhile: the next run sees what became of it
        if not last.data:
            return None
    if stored < info.chunks and (bucket.max_age is not None or expired(info)):
        return None  # they have expired, and the meta soon does, or is back since its server was killed
    return _check_counts(info, {info.nuid: stored})


async def _check_content(bucket: Bucket, info: ObjectInfo, *, again: bool = True) -> Problem | None:
    reading = blocks(bucket, info)
    try:
        async for _ in reading:
            pass
    except IntegrityError as exc:
        return Problem("damaged", info.name, str(exc), info.revision)
    except StaleConnectionError:
        if not again:
            raise
    except NatsError as exc:
        if isinstance(exc, LookupError | ObjectChangedError):
            return None  # replaced or deleted meanwhile
        raise
    else:
        return None
    finally:
        await reading.aclose()
    return await _check_content(bucket, info, again=False)


# -- gc ---------------------------------------------------------------------------------------------------


async def gc(bucket: Bucket, *, older_than: timedelta, dry_run: bool) -> GcReport:
    """See :meth:`ObjectStore.gc`."""
    stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    bucket.learn(stream)
    # Chunks first: whatever is committed after them is seen in the metas.
    counts = await _chunk_counts(bucket)
    nuids = await _chunk_nuids(bucket) if counts is None else counts
    references = References()
    await references.read_on(bucket)
    before = server_time(stream) - older_than
    # Whoever goes on with an upload relies on what it has.
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
                log.warning("orphan chunks %r in bucket %r stay: %s", nuid, bucket.name, exc)
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
            log.warning("a rename of %r in bucket %r is not completed: %s", info.name, bucket.name, exc)
            continue
        if new_name is not None:
            report.renames.append((info.name, new_name))
    return report


async def _remove_orphan(bucket: Bucket, references: References, nuid: str, before: datetime) -> bool:
    """Look once more, and purge; false when an upload has gone on with it, or was committed, meanwhile.

    Once more before each try: what is repeated after a lost answer may come much later. And what is stored
    after that look stays, however late the purge comes.
    """
    last = await _last_stored(bucket, nuid)
    if last is None:
        return True  # by the try before, whose answer was lost
    if last.time > before:
        return False
    await references.read_on(bucket)  # last: an upload whose chunks are all there adds nothing but its meta
    if references.named(nuid):
        return False
    if bucket.miscounts:
        await bucket.purge_chunks(nuid, before=last.seq + 1)
    else:
        await bucket.purge_once(nuid, before=last.seq + 1)
    return True


async def _last_stored(bucket: Bucket, nuid: str) -> StoredMessage | None:
    return await bucket.leader_message(chunk_subject(bucket.name, nuid))
