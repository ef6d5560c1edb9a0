"""Collect which chunks the metas of a bucket refer to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING

from natsproto.errors import APIError, PermissionsViolationError, RequestTimeoutError

from ..bucket.bucket import Bucket
from ..bucket.collect import SilentConsumer
from ..bucket.counts import count_from
from ..bucket.shown import CATCH_UP, check_shows
from ..bucket.ways import AT_LEADER, CONSUMER
from ..format.codec import MetaDecodeError
from ..format.marks import MOVED, RENAMING, was_moved
from ..format.models import InvalidMeta, ObjectInfo
from ..format.naming import all_meta_subject, is_safe_nuid, meta_subject
from ..listing.in_order import metas_so_far
from ..listing.metas import PAGE, all_subjects, most_metas
from ..listing.newest import AT_ONCE, each_newest
from ..listing.shown import show_metas

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage
    from natsproto.wire import Msg as WireMsg

MOST_WORDS = 1_000_000
"""Words of unreadable metas that are remembered; with more, all chunks count as referred to."""

AT_A_STRETCH = 1_000_000
"""Bytes of metas that are read before other tasks get their turn."""

READINGS = 5
"""Times that all metas of a name are read while there are fewer than the leader lists."""

FEW = 32
"""Metas that are always read one by one from the leader. So are more, where it takes no more round trips than
to request all names, :data:`AT_ONCE` at a time."""

LONG = 200
"""Characters of a subject that count as one more name."""

# Whole words no longer than a nuid may be: else a forged megabyte without a space would be one word.
_NUID_LIKE = re.compile(rb"(?<![0-9A-Za-z_-])[0-9A-Za-z_-]{1,64}(?![0-9A-Za-z_-])")


def _incomplete(bucket: Bucket) -> RequestTimeoutError:
    return RequestTimeoutError(
        f"the leader of bucket {bucket.name!r} lists names whose metas it does not return"
    )


class References:
    """Every nuid that a current meta refers to, and every word of unreadable metas.

    A meta with a newer one on its subject no longer counts (writers without roll-up leave it, and a killed
    server may restore it), unless the newer one is unreadable. A meta that was removed after it was read,
    without a newer one, still counts. Whole metas are not kept.

    Args:
        most: names to remember, where a long one counts as several; ``None`` = all.
        after: only metas after this sequence; what lies before it refers to nothing that matters.

    Attributes:
        cursor: everything up to this sequence of the stream has been read.
        full: there are more names; then nothing is known or kept.
        unreadable: the newest unreadable meta of each subject, in stream order.
    """

    def __init__(self, most: int | None = None, after: int = 0) -> None:
        self.cursor: int = after
        self._shown_to = after  # a consumer has shown the metas up to this sequence
        self.full: bool = False
        self._most = most
        self._names = 0
        self._unreadable: dict[str, InvalidMeta] = {}
        self._words: set[bytes] = set()  # of unreadable metas: each may be a nuid
        self._too_many = False
        self._kept: set[str] = set()  # nuids of metas that an unreadable one has superseded
        self._standing: dict[str, str] = {}  # nuid by subject; "" = refers to none
        self._moved: dict[str, str] = {}  # nuid by subject, of the delete markers of renames
        self._marked: dict[str, str] = {}  # name by subject
        self._nuids: set[str] | None = None
        self._lacking: list[str] = []  # subjects still to request after an interruption
        self._several: dict[str, int] = {}  # how many metas a listed subject has, if more than one
        self._end = 0  # end of the stream when they were listed
        self._newest = 0  # the highest sequence of a meta read
        self._replaced: dict[str, set[str]] = {}  # nuids by subject, until a consumer shows that they were
        self._shown: dict[str, set[str]] = {}  # likewise, of metas that only a consumer shows

    async def read_on(self, bucket: Bucket, *, proven: bool = True) -> None:
        """Read the metas after the cursor; after an interruption the next call continues.

        No chunk may be mistaken for an orphan. For later commits the age of their chunks decides.

        No single answer ends a read: whoever may ask the same API subject can have another answer sent to our
        inbox. The leader's list of all subjects proves itself, and an answer for one name has its subject.
        What is read in order is counted, too. And what a consumer shows counts as well.

        Args:
            bucket: the bucket to read.
            proven: removals depend on it: a consumer must show the metas, else it shows them where it can.

        Raises:
            PermissionsViolationError: with ``proven``: this user may create no consumer.
            SilentConsumer: with ``proven``: nothing of consumers comes.
            NatsError: the metas could not be read.
        """
        if self.full:
            return
        if proven:
            check_shows(bucket)
        if not self.cursor or self._lacking or not await self._continue(bucket):
            self._shown_to = 0
            if not await self._read_names(bucket) and not self.full:
                await self._read_in_order(bucket)  # the names do not fit into a message
        if not self.full and (not self._shown_to or self.cursor > self._shown_to):
            await self._show(bucket, self._shown_to, proven)

    async def _show(self, bucket: Bucket, after: int, proven: bool) -> None:
        """Add what a consumer shows: the leader's answers name no stream, and may be another one's.

        A mirror that somebody has made without a transform has the same subjects, and keeps metas that were
        replaced; another domain may have a bucket of the same name. What a consumer delivers names its stream
        and itself. It may come from a replica that is behind: then it is asked again for a moment.
        """
        for pause in CATCH_UP:
            try:
                highest, shown, settled = await self._look(bucket, after)
            except (PermissionsViolationError, SilentConsumer):
                if proven:
                    raise
                self._replaced.clear()
                return
            self._nuids = None
            if highest >= self._newest or after >= self._newest:
                for subject in settled:
                    self._replaced.pop(subject, None)
                    self._shown.pop(subject, None)
                self._shown.update(shown)
                break
            for subject, nuids in shown.items():
                self._shown.setdefault(subject, set()).update(nuids)
            await asyncio.sleep(pause)
        self._shown_to = self.cursor

    async def _look(self, bucket: Bucket, after: int) -> tuple[int, dict[str, set[str]], set[str]]:
        """Ask a consumer for the metas.

        Returns:
            The highest sequence; the nuids of those that were not read, by subject; and the subjects whose
            earlier nuids are settled now.
        """
        shown: dict[str, set[str]] = {}
        settled: set[str] = set()

        def take(msg: WireMsg, info: ObjectInfo | None) -> None:
            subject = msg.subject.decode("utf-8", "surrogateescape")
            if info is None:
                self._add_words(bytes(msg.payload))
                return
            nuid = self._nuid_shown(info)
            if subject in self._replaced or subject in self._shown:
                settled.add(subject)
            if nuid and nuid != self._standing.get(subject):
                shown[subject] = {nuid}
            else:
                shown.pop(subject, None)

        return await show_metas(bucket, take, after), shown, settled

    def _nuid_shown(self, info: ObjectInfo) -> str:
        """Return the nuid that a meta refers to; "" = none."""
        # An invalid nuid refers to nothing, and a forged one may be a megabyte long.
        return info.nuid if not info.deleted and is_safe_nuid(info.nuid) else ""

    async def _continue(self, bucket: Bucket) -> bool:
        """Read the few metas that were stored since the cursor; false when there may be more.

        As many as a consumer counts must lie up to the previous end. One that is stored between the two
        requests is counted, too: then they are made again.
        """
        start = self.cursor
        for _ in range(READINGS):
            end = (await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))).last_seq
            if end <= start:
                return True
            if not bucket.ways.allowed(CONSUMER):
                return False
            try:
                follow = await count_from(bucket, all_meta_subject(bucket.name), start + 1)
            except (PermissionsViolationError, APIError) as exc:
                if not bucket.ways.note_refusal(exc):
                    raise
                return False
            if follow > max(FEW, self._count_read() // AT_ONCE):
                return False
            metas = bucket.messages(all_meta_subject(bucket.name), after=start, leader=True, ways=AT_LEADER)
            count = 0
            async with aclosing(metas) as messages:
                async for message in messages:
                    if message.seq > end:
                        break
                    self._take(bucket, message)
                    count += 1
            if count >= follow or self.full:
                self.cursor = end
                return True
        return False

    async def _read_in_order(self, bucket: Bucket) -> None:
        """Read the metas that follow in stream order, and make sure that no name is missing."""
        await self._read_to_the_end(bucket)
        for _ in range(READINGS):
            if self.full or await self._are_read(bucket):
                return
            await self._read_to_the_end(bucket)  # names may have been stored meanwhile
            if self.full or await self._are_read(bucket):
                return
            self.cursor = 0  # what lies before it may have been left out, or was not read at all
        raise _incomplete(bucket)

    async def _are_read(self, bucket: Bucket) -> bool:
        """Whether no name is missing: there are no more; or those that are not listed encode none."""
        if self._count_read() >= await most_metas(bucket):
            return True
        subjects, begin = await all_subjects(bucket), all_meta_subject(bucket.name)[:-1]
        return subjects is not None and self._has_read(
            name for name in subjects if name.startswith(begin) and bucket.can_request(name)
        )

    def _has_read(self, subjects: Iterable[str]) -> bool:
        """Whether the metas of these subjects have been read."""
        return all(name in self._standing or name in self._unreadable for name in subjects)

    def _count_read(self) -> int:
        """Return how many names have been read."""
        return len(self._standing) + len(self._unreadable)

    async def _read_to_the_end(self, bucket: Bucket) -> None:
        stretch = 0
        async with aclosing(metas_so_far(bucket, after=self.cursor, leader=True)) as messages:
            async for message in messages:
                self._take(bucket, message)
                self.cursor = message.seq
                if self.full:
                    return
                stretch += 1000 + len(message.data)
                if stretch > AT_A_STRETCH:
                    stretch = 0
                    await asyncio.sleep(0)

    async def _read_names(self, bucket: Bucket) -> bool:
        """Request the newest meta of each name from the leader, many at once; false: this is not possible.

        A meta that is not among the leader's subjects, or was replaced meanwhile, lies beyond the previous
        end of the stream. Batches are faster; what they have not shown is requested from the leader.

        Raises:
            NatsError: the leader lists names whose metas it does not return.
        """
        if not self._lacking:
            batches = not self.cursor and bucket.direct_meta and bucket.can_batch
            end = (await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))).last_seq
            if batches:
                await self._read_batches(bucket, end)
            every = await all_subjects(bucket)
            if every is None:
                return False
            begin = all_meta_subject(bucket.name)[:-1]
            subjects = {name: count for name, count in every.items() if name.startswith(begin)}
            if self._most is not None and len(subjects) > self._most:
                self._fill()
            # Pages are counted from the first subject: between two pages subjects may shift.
            if self.full or (len(every) >= PAGE and not batches):
                return False
            lacking = [name for name, count in subjects.items() if not (batches and self._shows(name, count))]
            if not all(map(bucket.can_request, lacking)):
                return False
            self._lacking, self._end = lacking, end
            self._several = {name: count for name, count in subjects.items() if count > 1}
        gone, stretch = set[str](), 0
        async with aclosing(each_newest(bucket, self._lacking[::-1], AT_ONCE, AT_LEADER)) as answers:
            async for subject, message in answers:
                if message is None:
                    gone.add(subject)
                else:
                    if message.seq > self.cursor or subject not in self._standing:
                        self._take(bucket, message)
                    if subject in self._unreadable or subject in self._several:
                        await self._read_name(bucket, subject, message.seq)
                    stretch += 1000 + len(message.data)
                if self.full:
                    return False
                if self._lacking.pop() != subject:
                    break  # the one before cannot be requested any more
                if stretch > AT_A_STRETCH:
                    stretch = 0
                    await asyncio.sleep(0)
        if self._lacking:
            self._lacking = []  # list them again
            raise _incomplete(bucket)
        for subject in gone.intersection(await all_subjects(bucket) or gone) if gone else ():
            await self._read_name(bucket, subject)  # nats-server may forget which meta is the newest
            if subject not in self._standing and subject not in self._unreadable:
                raise _incomplete(bucket)
        self.cursor = max(self.cursor, self._end)
        return True

    async def _read_batches(self, bucket: Bucket, end: int) -> None:
        """Read the metas up to ``end``, as far as batches show them."""
        batches = bucket.messages(all_meta_subject(bucket.name), 1000, ways=AT_LEADER)
        async with aclosing(batches) as messages:
            async for message in messages:
                if message.seq > end or self.full:
                    return
                self._take(bucket, message)

    def _shows(self, subject: str, count: int) -> bool:
        """Whether batches have shown the newest of a subject's metas: of several it may be missing."""
        return count == 1 and (subject in self._standing or subject in self._unreadable)

    async def _read_name(self, bucket: Bucket, subject: str, newest: int = 0) -> None:
        """Read all metas of a name, when there are several, or the newest is unreadable.

        Then the chunks of older ones may be needed; and whoever may ask the leader can have an older one sent
        to us as the newest. It stops at the end of this read: the next read sees later ones.

        Many come in batches first. They may be those of a replica that is behind, and has removed less: so
        they must have the leader's newest meta, too.

        Args:
            bucket: the bucket to read.
            subject: the name's subject.
            newest: the sequence of the newest meta, from the leader; 0 = it returns none.

        Raises:
            RequestTimeoutError: the leader lists more metas than it returns.
        """
        for reading in range(READINGS):
            wanted, count, last = self._several.get(subject, 0), 0, 0
            one_by_one = reading > 0 or not newest or wanted <= FEW
            older = bucket.messages(subject, 1000, leader=one_by_one, ways=AT_LEADER)
            async with aclosing(older) as messages:
                async for message in messages:
                    if message.seq > self._end and count >= wanted:
                        return
                    self._take(bucket, message)
                    count, last = count + 1, message.seq
            if count >= wanted and (one_by_one or last >= newest):
                return
            every = await all_subjects(bucket)  # some may have been removed meanwhile
            if every is not None:
                self._several[subject] = every.get(subject, 0)
        raise _incomplete(bucket)

    def _take(self, bucket: Bucket, message: StoredMessage) -> None:
        subject = message.subject
        self._newest = max(message.seq, self._newest)
        if self._most is not None and subject not in self._standing and subject not in self._unreadable:
            self._names += 1 + len(subject) // LONG
            if self._names > self._most:
                self._fill()
                return
        try:
            info = bucket.decode(message)
        except MetaDecodeError as exc:
            self.unread(InvalidMeta(subject, message.seq, exc), message.data)
        else:
            self.read(info, subject)

    def _fill(self) -> None:
        self.full, self._nuids, self._lacking = True, None, []
        for held in (
            self._standing,
            self._unreadable,
            self._moved,
            self._marked,
            self._replaced,
            self._shown,
        ):
            held.clear()
        self._words, self._kept, self._several = set(), set(), {}

    def read(self, info: ObjectInfo, subject: str) -> None:
        """Add the next meta of a subject."""
        self._supersede(subject)
        self._standing[subject] = self._nuid_shown(info)
        self._marked.pop(subject, None)
        self._moved.pop(subject, None)
        if not info.deleted and RENAMING in info.metadata:
            self._marked[subject] = info.name
        nuid = info.metadata.get(MOVED)
        # Under another subject a running put of that name would not notice it.
        if nuid is not None and was_moved(info, nuid) and subject == meta_subject(info.bucket, info.name):
            self._moved[subject] = nuid

    def unread(self, invalid: InvalidMeta, data: bytes) -> None:
        """Add an unreadable meta."""
        invalid.error.with_traceback(None)  # its frames hold the whole message
        self._nuids = None
        self._unreadable.pop(invalid.subject, None)
        self._unreadable[invalid.subject] = invalid
        self._add_words(data)
        self._marked.pop(invalid.subject, None)
        self._moved.pop(invalid.subject, None)
        before = self._standing.pop(invalid.subject, "")
        if before:
            self._kept.add(before)

    def _add_words(self, data: bytes) -> None:
        if not self._too_many:
            self._words |= self._words_of(data)
            self._too_many = len(self._words) > MOST_WORDS
            if self._too_many:
                self._words.clear()

    def _words_of(self, data: bytes) -> set[bytes]:
        """Return the words of an unreadable meta that may be nuids of chunks."""
        return set(_NUID_LIKE.findall(data))

    def _supersede(self, subject: str) -> None:
        """Note that a newer meta of a subject was read."""
        self._nuids = None
        before = self._standing.pop(subject, "")
        if before:
            self._replaced.setdefault(subject, set()).add(before)

    @property
    def unreadable(self) -> list[InvalidMeta]:
        return sorted(self._unreadable.values(), key=lambda invalid: invalid.revision)

    @property
    def marked(self) -> list[str]:
        """The names whose metas are marked with a rename."""
        return list(self._marked.values())

    def naming(self, nuid: str) -> list[str]:
        """Return the subjects of the metas that refer to these chunks."""
        if nuid not in self._named():
            return []
        found = {subject for subject, named in self._standing.items() if named == nuid}
        for held in (self._replaced, self._shown):
            found.update(subject for subject, nuids in held.items() if nuid in nuids)
        return sorted(found)

    def may_name(self, nuid: str) -> bool:
        """Whether an unreadable meta, or one that it has superseded, may refer to these chunks."""
        return self._too_many or nuid in self._kept or nuid.encode() in self._words

    def named(self, nuid: str) -> bool:
        """Whether any meta refers to these chunks, or may."""
        return nuid in self._named() or self.may_name(nuid)

    def left_by(self, nuid: str) -> str | None:
        """Return the subject of the delete marker that records their rename; ``None`` when there is none."""
        return next((subject for subject, moved in self._moved.items() if moved == nuid), None)

    def _named(self) -> set[str]:
        if self._nuids is None:
            self._nuids = set(self._standing.values()).union(*self._replaced.values(), *self._shown.values())
        return self._nuids
