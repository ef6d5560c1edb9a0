"""Find which object has the chunks of an upload, and which chunks belong to none.

The chunks belong to no object until one of the upload's senders commits them, by a meta at the upload's own
name. From then on they belong to that object for good, even if it is renamed, if another object is stored at
the old name, or if its meta is written again. The other senders do not learn of it. So each sender follows
these rules:

* Commit nothing unless no live meta, of any name, refers to the chunks. This is known as of one revision of
  the upload's name, and holds while that revision is the newest, since a commit leaves a newer one. A newer
  revision may have replaced a commit, so it proves nothing: then read the metas.
* Do not store again under the nuid of a deleted object: readers assume that a nuid has the bytes of one put.
* A chunk is surplus if it comes after the object's last chunk. Without reading that is certain only if it is
  also newer than the object's current meta. Updates and renames give the object newer metas, so other surplus
  chunks may be older: then read and hash the chunks before them.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Collection, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

from natsproto._values import seconds
from natsproto.errors import NatsError, PermissionsViolationError

from ..bucket.bucket import Bucket, log
from ..bucket.budget import Budget
from ..bucket.message_reads import MessageRead
from ..bucket.shown import CATCH_UP, NotShown, shown
from ..bucket.ways import CONSUMER
from ..commit.references import References
from ..errors import ObjectChangedError
from ..format.codec import MetaDecodeError
from ..format.digest import hex_digest, new_hasher
from ..format.marks import MOVED, MOVED_TO, RENAMING, was_moved
from ..format.models import InvalidMeta, ObjectInfo
from ..format.naming import chunk_subject
from ..listing.metas import newest_metas
from .doubt import Unrepairable, delete_own

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

MARKED = 60.0
"""Seconds for which the delete marker of a rename stays for certain, longer than a commit takes; see
``purge_deleted``. Afterwards it may have been purged: then a name without a meta proves nothing."""

DELETES = 64
"""Chunks that are removed at once: on a distant server one by one takes too long."""

RENAMES = 10
"""Renames of an upload's object that are followed."""

READINGS = 10
"""Times that the metas are read while the object with the chunks is renamed."""


class Holders:
    """The known holders of one nuid: the live metas that refer to it.

    Args:
        bucket: the bucket of the upload.
        name: the upload's name.
        nuid: the nuid of the chunks.

    Attributes:
        remembers_for: seconds for which the server remembers the numbers of chunks; set by :meth:`begin`.
        was_deleted: whether the name's delete marker records that the chunks belonged to an object and are
            gone; set by :meth:`begin`. A reader of that object might continue with later chunks of its nuid.
    """

    def __init__(self, bucket: Bucket, name: str, nuid: str) -> None:
        self.bucket: Bucket = bucket
        self.nuid: str = nuid
        self.remembers_for: float = 120.0
        self.was_deleted: bool = False
        self._name = name
        self._revision = -1  # of the name, when the chunks were not committed; -1 = never checked
        self._read_up_to = 0  # the sequence up to which no meta referred to them then
        self._checked_at = (0.0, 0.0)  # the time of that check

    async def begin(self) -> ObjectInfo | None:
        """Check for the first time; if no chunks are stored, without reading all metas."""
        bucket, now = self.bucket, clocks()
        lookup = bucket.start_locating(self._name)
        try:
            stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
            message = (await lookup.wait())[1]
        finally:
            lookup.close()
        window = stream.config.duplicate_window
        if window:
            self.remembers_for = window / timedelta(seconds=1)
        self.was_deleted = message is not None and self._marks_deletion(message)
        if await bucket.stored_chunks(self.nuid):
            return await self.look()
        self._revision, self._read_up_to, self._checked_at = _revision(message), stream.last_seq, now
        return None

    def certainly_uncommitted(self, revision: int) -> bool:
        """Whether the chunks cannot have been committed, given the name's current revision (0 = none)."""
        return revision == self._revision and (revision > 0 or passed(self._checked_at) <= MARKED)

    def looked_within(self, seconds: float) -> bool:
        """Whether the last check that found no holder is at most so many seconds old."""
        return self._revision >= 0 and passed(self._checked_at) <= seconds

    async def look(self, *, proven: bool = False) -> ObjectInfo | None:
        """Return the object that has the chunks now, under any name, from the leader; ``None``: none has.

        During a rename both names have them, and the new one is returned.

        Args:
            proven: the chunks are removed if none has them; see :meth:`References.read_on`.
        """
        found = await self.all(proven=proven)
        own = next((info for info in found if info.name == self._name), None)
        other = next((info for info in found if info.name != self._name), None)
        # A rename marks the old name with the new one: a second meta without that mark is forged.
        renamed = own is None or (other is not None and own.metadata.get(RENAMING) == other.name)
        return other if renamed else own

    async def all(self, *, proven: bool = False) -> list[ObjectInfo]:
        """Return all live metas that refer to the chunks, and may have been committed by a sender.

        Or only the one at the upload's own name, if it is not being renamed. ``proven``: as for :meth:`look`.
        """
        now = clocks()
        message = (await self.bucket.locate(self._name))[1]
        own = None if message is None else self.holder(message)
        if own is not None and RENAMING not in own.metadata:
            return [own]
        revision = _revision(message)
        if own is None and not proven and self.certainly_uncommitted(revision):
            self._checked_at = now
            return []
        found = await self._read(proven)
        others = [info for info in found if info.name != self._name]
        if others and not proven and not await self._is_recorded():
            found = [info for info in found if info.name == self._name] + await self._matching(others)
        if not found:
            self._revision, self._checked_at = revision, now
        return found

    async def is_upload(self, info: ObjectInfo) -> bool:
        """Whether a meta that refers to the chunks is that of the upload, perhaps renamed, and whole.

        Anybody who may write a meta can refer to them. If the object was renamed, or is being renamed, each
        of its names, from the upload's own one on, records the next one.
        """
        name = self._name
        for _ in range(RENAMES):
            if name == info.name:
                return await self.bucket.stored_chunks(self.nuid, info.chunks) == info.chunks
            try:
                standing = await self.bucket.leader_meta(name)
            except MetaDecodeError:
                return False
            if standing is None:
                return False
            if standing.deleted and standing.metadata.get(MOVED) == self.nuid:
                name = standing.metadata.get(MOVED_TO, "")
            elif not standing.deleted and standing.nuid == self.nuid:
                name = standing.metadata.get(RENAMING, "")
            else:
                return False
        return False

    async def _is_recorded(self) -> bool:
        """Whether the upload's own name records that the chunks were committed, and perhaps renamed."""
        try:
            own = await self.bucket.leader_meta(self._name)
        except MetaDecodeError:
            return False
        return own is not None and (was_moved(own, self.nuid) or (own.nuid == self.nuid and not own.deleted))

    async def _matching(self, others: list[ObjectInfo]) -> list[ObjectInfo]:
        """Return the metas with the size and digest of the first chunks: one may be the upload's.

        Anybody who may write one name can refer to the chunks of an upload under way, to keep it from being
        continued. Who may not read them does not know their digest. However many metas there are, the chunks
        are read once.
        """
        bucket, last = self.bucket, max(info.chunks for info in others)
        if not last:
            return []
        stored = await bucket.stored_chunks(self.nuid, last)
        claims: dict[int, list[ObjectInfo]] = {}
        for info in others:
            if 0 < info.chunks <= stored:
                claims.setdefault(info.chunks, []).append(info)
        matching: list[ObjectInfo] = []
        if not claims:
            return matching
        hasher, size, chunks, last = new_hasher(), 0, 0, max(claims)
        async with aclosing(bucket.messages(chunk_subject(bucket.name, self.nuid))) as messages:
            async for message in messages:
                if not message.data:  # a fence
                    continue
                hasher.update(message.data)
                size += len(message.data)
                chunks += 1
                if chunks in claims:
                    read = size, hex_digest(hasher.digest())
                    matching += [info for info in claims[chunks] if (info.size, info.digest) == read]
                if chunks == last:
                    break
        return matching

    def holder(self, message: StoredMessage) -> ObjectInfo | None:
        """Return the info of a live meta that refers to the chunks; ``None``: it is none."""
        try:
            info = self.bucket.decode(message)
        except MetaDecodeError:
            return None
        return info if info.nuid == self.nuid and not info.deleted else None

    def _marks_deletion(self, message: StoredMessage) -> bool:
        try:
            info = self.bucket.decode(message)
        except MetaDecodeError:
            return False
        return info.deleted and (info.nuid == self.nuid or was_moved(info, self.nuid))

    async def _read(self, proven: bool) -> list[ObjectInfo]:
        """Read every meta stored since none referred to the chunks."""
        bucket = self.bucket
        for _ in range(READINGS):
            references = ReferencesTo(self.nuid, 0 if proven else self._read_up_to)
            try:
                await references.read_on(bucket, proven=proven)
            except PermissionsViolationError:  # this user may not ask the leader
                if proven:
                    raise
                # As with the leader: what cannot be read is no object that has them.
                metas = await newest_metas(bucket, lambda invalid: None, consumer=False)
                return [info for info in metas if info.nuid == self.nuid and not info.deleted]
            subjects = references.naming(self.nuid)
            if not subjects:
                self._read_up_to = references.cursor
                return []
            found = [await bucket.leader_message(subject) for subject in subjects]
            holders = [info for each in found if each is not None and (info := self.holder(each))]
            if holders:
                return holders
            # It was deleted or renamed just now, after the read.
        raise ObjectChangedError(
            f"the object made of the upload of {self._name!r} in bucket {bucket.name!r} keeps being "
            "renamed or deleted: try again",
            bucket=bucket.name,
            name=self._name,
        )


class ReferencesTo(References):
    """The references to one nuid: of other metas 8 bytes are kept, to count them.

    Args:
        nuid: the nuid.
        after: as for :class:`References`.
    """

    def __init__(self, nuid: str, after: int = 0) -> None:
        super().__init__(after=after)
        self._wanted = nuid
        self._all = array("q")  # hashes of all subjects; perhaps several times

    def read(self, info: ObjectInfo, subject: str) -> None:
        self._all.append(hash(subject))
        if info.nuid == self._wanted:
            super().read(info, subject)
        else:
            self._forget(subject)

    def unread(self, invalid: InvalidMeta, data: bytes) -> None:
        self._all.append(hash(invalid.subject))
        self._forget(invalid.subject)

    def _nuid_shown(self, info: ObjectInfo) -> str:
        return super()._nuid_shown(info) if info.nuid == self._wanted else ""

    def _add_words(self, data: bytes) -> None:
        """Of what cannot be read nothing is kept."""

    def _count_read(self) -> int:
        return len(set(self._all))

    def _has_read(self, subjects: Iterable[str]) -> bool:
        return {hash(subject) for subject in subjects}.issubset(self._all)

    def _forget(self, subject: str) -> None:
        self._supersede(subject)
        for held in (self._marked, self._moved):
            held.pop(subject, None)


def clocks() -> tuple[float, float]:
    """Return the time by two clocks: one stops while the machine is suspended, the other may be set."""
    return asyncio.get_running_loop().time(), time.time()


def passed(since: tuple[float, float]) -> float:
    """Return the seconds since then, by the clock that gives more."""
    return max(abs(now - then) for now, then in zip(clocks(), since, strict=True))


def _revision(message: StoredMessage | None) -> int:
    return 0 if message is None else message.seq


async def withdraw(holders: Holders, mine: Collection[int]) -> None:
    """Remove the chunks that one sender has stored behind the object that another sender has committed.

    If there is no such object, nothing is removed: a later sender resumes the chunks. The call may take as
    long as it makes progress within the retry budget. Failures are logged.

    Args:
        holders: the holders of the chunks.
        mine: sequences of this sender's chunks.
    """
    bucket = holders.bucket
    budget = Budget(bucket.retry_budget, bucket.connection.loop)
    try:
        async with budget.bound():
            found = await holders.all()
            if not found:
                return
            newest = await _newest_shown(holders, found)
            subject = chunk_subject(bucket.name, holders.nuid)
            later = [seq for seq in mine if seq > newest]
            if later:
                await shown(bucket, subject, later)
            await _remove(holders, later, budget)
            longest = max(found, key=lambda info: info.chunks)
            if await bucket.stored_chunks(holders.nuid, longest.chunks) > longest.chunks:
                await _remove(holders, await _behind(holders, longest, frozenset(mine), budget), budget)
    except (NatsError, Unrepairable, TimeoutError) as exc:
        log.warning(
            "chunks of upload %r may be stored twice in bucket %r: %s",
            holders.nuid,
            bucket.name,
            str(exc) or f"not done within {seconds(budget.seconds)} s",
        )


async def _newest_shown(holders: Holders, found: list[ObjectInfo]) -> int:
    """Return the highest revision of these metas, all of which a consumer must show.

    What the leader answers may be another stream's, where they have lower numbers: then chunks of the object
    would be newer.

    Raises:
        NotShown: a consumer shows another one.
        NatsError: there is none.
    """
    bucket = holders.bucket
    for info in found:
        subject = bucket.meta_subject(info.name)
        for pause in (*CATCH_UP, 0.0):
            message = await MessageRead(bucket, subject, ways=(CONSUMER,)).wait()
            if message is not None and message.seq == info.revision and holders.holder(message):
                break
            await asyncio.sleep(pause)
        else:
            raise NotShown(f"no consumer shows the meta of {info.name!r} that the leader does")
    return max(info.revision for info in found)


async def _behind(holders: Holders, info: ObjectInfo, mine: frozenset[int], budget: Budget) -> list[int]:
    """Return which of ``mine`` lie behind an object's last chunk, if the chunks before match its meta."""
    hasher, chunks, before, behind = new_hasher(), 0, 0, list[int]()
    last = max(mine, default=0)
    bucket, subject = holders.bucket, chunk_subject(holders.bucket.name, holders.nuid)
    messages = bucket.messages(subject)
    async with aclosing(messages):
        async for message in messages:
            if message.seq > last:
                break  # others may store more without end
            budget.progress()
            if chunks == info.chunks:
                if message.seq in mine:
                    behind.append(message.seq)
                continue
            before += 1
            if message.data:  # fences have none
                hasher.update(message.data)
                chunks += 1
    if not behind or hex_digest(hasher.digest()) != info.digest:
        return []
    after = set((await shown(bucket, subject, behind, start=1))[before:])
    return [seq for seq in behind if seq in after]


async def _remove(holders: Holders, behind: list[int], budget: Budget) -> None:
    """Remove chunks that a consumer has shown."""
    subject = chunk_subject(holders.bucket.name, holders.nuid)

    async def remove(seq: int) -> None:
        await delete_own(holders.bucket, seq, lambda stored: stored.subject == subject, proven=True)

    for at in range(0, len(behind), DELETES):
        # All of them end before an error is raised: none continues unnoticed.
        ends = await asyncio.gather(*map(remove, behind[at : at + DELETES]), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end
        budget.progress()
