"""Who has the chunks of an upload by now, and what of them is nobody's.

They are nobody's until one of the upload's senders commits them, by a meta at the upload's own name. From
then on they are an object's for good: whatever that is called later, whatever is stored at the old name,
however often its meta is written again. The other senders know nothing of that. So each of them keeps to
this:

* Nothing is committed unless no live meta, of whatever name, names the chunks. That is known as of one
  revision of the upload's name, and holds for as long as that one stands: a commit leaves a newer one. What
  was written at the name since may have come after a commit, and stands for none: then the metas are read.
* Of what was deleted nothing is stored again: who reads it takes a nuid for one put's bytes.
* What is behind an object is behind its last *chunk*. The revision of its meta proves it only of what is
  newer still: every change of the object has a newer one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

from natsproto.errors import NatsError, PermissionsViolationError

from ..bucket.bucket import Bucket, log
from ..bucket.budget import Budget
from ..commit.references import References
from ..errors import ObjectChangedError
from ..format.codec import MetaDecodeError
from ..format.digest import hex_digest, new_hasher
from ..format.models import RENAMING, ObjectInfo, was_moved
from ..format.naming import chunk_subject
from ..listing.metas import newest_metas
from .doubt import Unrepairable, delete_own

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

MARKED = 60.0
"""Seconds for which the delete marker of a rename stays for certain, and longer than a commit takes; see
``purge_deleted``. After them an empty name may have borne one."""

DELETES = 64
"""Chunks that are removed at once: on a far server one after the other takes too long."""

READINGS = 10
"""How often the metas are read while what names the chunks is renamed."""


class Holders:
    """What is known of one nuid's holders, the live metas that name it.

    Args:
        bucket: where.
        name: the upload's.
        nuid: the chunks'.

    Attributes:
        forgets: seconds for which the server remembers the numbers of chunks; told by :meth:`begin`.
        buried: whether the name's delete marker says that they were an object's, and they are gone; likewise.
            Who reads that may go on with whatever has them next.
    """

    def __init__(self, bucket: Bucket, name: str, nuid: str) -> None:
        self.bucket = bucket
        self.nuid = nuid
        self.forgets = 120.0
        self.buried = False
        self._name = name
        self._revision = -1  # of the name, when nobody had committed them; -1 = never looked at
        self._seen = 0  # the sequence up to which no meta named them then
        self._at = (0.0, 0.0)

    async def begin(self) -> ObjectInfo | None:
        """The first look; of chunks that are not there, without reading a meta."""
        bucket, now = self.bucket, clocks()
        lookup = bucket.start_locating(self._name)
        try:
            stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
            message = (await lookup.wait())[1]
        finally:
            lookup.close()
        window = stream.config.duplicate_window
        if window:
            self.forgets = window / timedelta(seconds=1)
        self.buried = message is not None and self._is_buried(message)
        if await bucket.stored_chunks(self.nuid):
            return await self.look()
        self._revision, self._seen, self._at = _revision(message), stream.last_seq, now
        return None

    def free_at(self, revision: int) -> bool:
        """Whether nobody can have committed them, if that is the name's revision now; 0 = there is none."""
        return revision == self._revision and (revision > 0 or passed(self._at) <= MARKED)

    def looked_within(self, seconds: float) -> bool:
        """Whether the last look that found nobody is not older."""
        return self._revision >= 0 and passed(self._at) <= seconds

    async def look(self) -> ObjectInfo | None:
        """The object that has the chunks now, under whatever name, as the leader tells; ``None``: nobody has.

        In the middle of a rename both names stand for it, and the new one is told.
        """
        found = await self.all()
        own = next((info for info in found if info.name == self._name), None)
        other = next((info for info in found if info.name != self._name), None)
        # Else the other one is forged.
        renamed = own is None or (other is not None and own.metadata.get(RENAMING) == other.name)
        return other if renamed else own

    async def all(self) -> list[ObjectInfo]:
        """Whatever live metas name them; one that stands at the upload's own name, and is not being renamed,
        stands for all."""
        now = clocks()
        message = (await self.bucket.locate(self._name))[1]
        own = None if message is None else self._holder(message)
        if own is not None and RENAMING not in own.metadata:
            return [own]
        revision = _revision(message)
        if own is None and self.free_at(revision):
            self._at = now
            return []
        found = await self._read()
        if not found:
            self._revision, self._at = revision, now
        return found

    def _holder(self, message: StoredMessage) -> ObjectInfo | None:
        try:
            info = self.bucket.decode(message)
        except MetaDecodeError:
            return None
        return info if info.nuid == self.nuid and not info.deleted else None

    def _is_buried(self, message: StoredMessage) -> bool:
        try:
            info = self.bucket.decode(message)
        except MetaDecodeError:
            return False
        return info.deleted and (info.nuid == self.nuid or was_moved(info, self.nuid))

    async def _read(self) -> list[ObjectInfo]:
        """Look at every meta that was stored since none named them."""
        bucket = self.bucket
        for _ in range(READINGS):
            references = References()
            references.cursor = self._seen
            try:
                await references.read_on(bucket)
            except PermissionsViolationError:  # what this user may not ask the leader
                metas = await newest_metas(bucket, lambda invalid: None)
                return [info for info in metas if info.nuid == self.nuid and not info.deleted]
            subjects = references.naming(self.nuid)
            if not subjects:
                self._seen = references.cursor
                return []
            found = [await bucket.leader_message(subject) for subject in subjects]
            holders = [info for each in found if each is not None and (info := self._holder(each))]
            if holders:
                return holders
            # Deleted just now, or renamed, behind what was read.
        raise ObjectChangedError(
            f"what has the chunks of the upload of {self._name!r} in bucket {bucket.name!r} goes on changing",
            bucket=bucket.name,
            name=self._name,
        )


def clocks() -> tuple[float, float]:
    """The time by both clocks: one stands still while the machine is suspended, the other one may be set."""
    return asyncio.get_running_loop().time(), time.time()


def passed(since: tuple[float, float]) -> float:
    """Seconds since then, by the clock by which it is more."""
    return max(abs(now - then) for now, then in zip(clocks(), since, strict=True))


def _revision(message: StoredMessage | None) -> int:
    return 0 if message is None else message.seq


async def withdraw(holders: Holders, mine: Collection[int]) -> None:
    """Remove what one sender has stored behind an object that another one has made of the upload.

    Nothing when there is none: then the chunks wait for who goes on. It takes what it needs as long as it
    makes progress, within the budget for retries. Failures are logged.

    Args:
        holders: of the chunks.
        mine: sequences at which this sender has stored some.
    """
    bucket = holders.bucket
    budget = Budget(bucket.retry_budget)
    try:
        async with budget.bound():
            found = await holders.all()
            if not found:
                return
            newest = max(info.revision for info in found)
            await _remove(holders, [seq for seq in mine if seq > newest], budget)
            longest = max(found, key=lambda info: info.chunks)
            if await bucket.stored_chunks(holders.nuid, longest.chunks) > longest.chunks:
                await _remove(holders, await _behind(holders, longest, frozenset(mine), budget), budget)
    except (NatsError, Unrepairable, TimeoutError) as exc:
        log.warning(
            "chunks of upload %r may be stored twice in bucket %r: %s",
            holders.nuid,
            bucket.name,
            exc or f"not done within {budget.seconds:g} s",
        )


async def _behind(holders: Holders, info: ObjectInfo, mine: frozenset[int], budget: Budget) -> list[int]:
    """Which of ``mine`` lie behind the last chunk of an object, if those before that are what it says."""
    hasher, chunks, behind = new_hasher(), 0, []
    messages = holders.bucket.messages(chunk_subject(holders.bucket.name, holders.nuid))
    async with aclosing(messages):
        async for message in messages:
            budget.progress()
            if chunks == info.chunks:
                if message.seq in mine:
                    behind.append(message.seq)
            elif message.data:  # fences have none
                hasher.update(message.data)
                chunks += 1
    return behind if hex_digest(hasher.digest()) == info.digest else []


async def _remove(holders: Holders, behind: list[int], budget: Budget) -> None:
    subject = chunk_subject(holders.bucket.name, holders.nuid)

    async def remove(seq: int) -> None:
        await delete_own(holders.bucket, seq, lambda stored: stored.subject == subject)

    for at in range(0, len(behind), DELETES):
        # All of them end, also when one fails: none goes on unseen.
        ends = await asyncio.gather(*map(remove, behind[at : at + DELETES]), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end
        budget.progress()
