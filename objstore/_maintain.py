"""Maintenance: does what is stored agree with the metas, and what is stored that no meta names."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from natsproto.errors import NatsError, StaleConnectionError

from ._bucket import Bucket, MetaDecodeError, log
from ._get import LOOKS, blocks
from ._newest import newest_metas
from ._rename import RENAMING, complete
from ._ttl import expired
from .errors import IntegrityError, ObjectChangedError
from .format.models import InvalidMeta
from .format.naming import all_chunks_subject, all_meta_subject, chunk_subject, is_safe_nuid

if TYPE_CHECKING:
    from .format.models import ObjectInfo

DEFAULT_AGE = timedelta(hours=24)
"""Chunks younger than this may belong to a put in progress, or to a paused upload."""


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


async def _chunk_counts(bucket: Bucket) -> dict[str, int]:
    subjects = await bucket.retrying(
        lambda: bucket.js.stream_subjects(bucket.stream, all_chunks_subject(bucket.name))
    )
    start = len(f"$O.{bucket.name}.C.")
    return {subject[start:]: count for subject, count in subjects.items()}


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
    newest = (await bucket.locate(info.name))[1]
    if newest is None or newest.seq != info.revision:
        return None  # the next run sees it
    if not is_safe_nuid(info.nuid):
        return _check_counts(info, {})
    subject = chunk_subject(bucket.name, info.nuid)
    stored = await bucket.stored_chunks(info.nuid)
    if stored == info.chunks + 1:
        # Some writers end an object with an empty message that they do not count.
        last = await bucket.leader_message(subject)
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


class _References:
    """Every nuid that a standing meta names, and the text of those that cannot be read.

    A meta that has a newer one on its subject names nothing any more (writers that do not roll up leave it,
    and a server that was killed may bring it back), unless the newer one cannot be read.
    """

    def __init__(self) -> None:
        self.unreadable: list[InvalidMeta] = []
        self._raw: list[bytes] = []
        self._kept: set[str] = set()  # named by metas that an unreadable one has superseded
        self._standing: dict[str, ObjectInfo] = {}
        self._nuids: set[str] | None = None
        self._cursor = 0

    async def read_on(self, bucket: Bucket) -> None:
        """Read the metas that follow those that were read, in order.

        Nothing may be taken for an orphan by mistake.

        Raises:
            NatsError: they could not be read to their end.
        """
        subject = all_meta_subject(bucket.name)
        async with aclosing(bucket.messages(subject, 1000, after=self._cursor)) as messages:
            async for message in messages:
                self._cursor = message.seq
                self._nuids = None
                try:
                    info = bucket.decode(message)
                except MetaDecodeError as exc:
                    self.unread(InvalidMeta(message.subject, message.seq, exc), message.data)
                else:
                    self.read(info, message.subject)

    def read(self, info: ObjectInfo, subject: str) -> None:
        """Take the next meta of a subject."""
        self._standing[subject] = info

    def unread(self, invalid: InvalidMeta, data: bytes) -> None:
        """Take one that cannot be read."""
        self.unreadable.append(invalid)
        self._raw.append(data)
        before = self._standing.pop(invalid.subject, None)
        if before is not None and not before.deleted:
            self._kept.add(before.nuid)

    @property
    def marked(self) -> list[ObjectInfo]:
        """The metas of renames that were begun."""
        return [info for info in self._standing.values() if not info.deleted and RENAMING in info.metadata]

    def named(self, nuid: str) -> bool:
        if self._nuids is None:
            standing = self._standing.values()
            self._nuids = self._kept.union(info.nuid for info in standing if not info.deleted)
        return nuid in self._nuids or any(nuid.encode() in text for text in self._raw)


async def gc(bucket: Bucket, *, older_than: timedelta, dry_run: bool) -> GcReport:
    """See :meth:`ObjectStore.gc`."""
    # Counts first: whatever is committed after them is seen in the metas.
    counts = await _chunk_counts(bucket)
    references = _References()
    await references.read_on(bucket)
    before = datetime.now(UTC) - older_than
    report = GcReport(bucket.name, dry_run, unreadable=references.unreadable)
    for nuid, count in sorted(counts.items()):
        if not is_safe_nuid(nuid) or references.named(nuid):
            continue
        stored = await _last_stored(bucket, nuid)
        if stored is None:
            continue  # gone meanwhile
        if stored > before:
            report.recent.append(nuid)
            continue
        removed = False
        if not dry_run:
            try:
                removed = await bucket.retrying(partial(_remove_orphan, bucket, references, nuid, before))
                if not removed:
                    continue
            except NatsError as exc:
                log.warning("orphan chunks %r in bucket %r stay: %s", nuid, bucket.name, exc)
        report.orphans.append(Orphan(nuid, count, stored, removed))
    for info in references.marked:
        if info.mtime > before:
            continue
        new_name = await complete(bucket, info, dry_run=dry_run)
        if new_name is not None:
            report.renames.append((info.name, new_name))
    return report


async def _remove_orphan(bucket: Bucket, references: _References, nuid: str, before: datetime) -> bool:
    """Look once more, and purge; false when an upload has gone on with it, or was committed, meanwhile.

    Once more before each try: what is repeated after a lost answer may come much later.
    """
    await references.read_on(bucket)
    stored = await _last_stored(bucket, nuid)
    if stored is None:
        return True  # by the try before, whose answer was lost
    if references.named(nuid) or stored > before:
        return False
    if bucket.miscounts:
        await bucket.purge_chunks(nuid)
    else:
        await bucket.purge_once(nuid)
    return True


async def _last_stored(bucket: Bucket, nuid: str) -> datetime | None:
    message = await bucket.leader_message(chunk_subject(bucket.name, nuid))
    return None if message is None else message.time
