"""List the newest meta of every name, including everything acknowledged before the call.

One ordered consumer reads them. In a cluster it may run on any server with a replica, and it does not know
which messages that server still lacks. So the leader decides: a listing ends when the leader has nothing
more, and it must reach at least the leader's last meta at the start.

But the leader's answers name no stream, and a peer can have another one's sent to us. So they only tell what
to look for: where consumers can be had, a meta counts as one has delivered it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from natsproto.backoff import Backoff
from natsproto.errors import (
    APIError,
    NatsError,
    PermissionsViolationError,
    RemoteProtocolError,
    StaleConnectionError,
)
from natsproto.jetstream.api.codec import MAX_DOCUMENT, loads, number
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.api.models import StoredMessage, StreamInfo

from ..bucket.bucket import Bucket
from ..bucket.collect import Collector, SilentConsumer
from ..bucket.counts import count_from
from ..bucket.message_reads import MessageRead
from ..bucket.room import LATER, Room
from ..bucket.shown import CATCH_UP
from ..bucket.unheard import UnheardConsumers
from ..bucket.ways import ANY_WAY, CONSUMER, DIRECT, LEADER
from ..format.codec import MetaDecodeError
from ..format.models import InvalidMeta, ObjectInfo
from ..format.naming import all_chunks_subject, all_meta_subject
from .decode import OnInvalid, meta_reader, read_stored, report_invalid, warn_invalid
from .in_order import metas_so_far
from .newest import each_newest
from .shown import each_shown

if TYPE_CHECKING:
    from natsproto.aio.client import PendingRequest
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.wire import Msg as WireMsg

T = TypeVar("T")

PAGE = 100_000
"""Subjects that the server puts on one page."""

LONGEST = 4096
"""Bytes of the longest subject: the longest line a server accepts from a client by default."""

LONG_FOR = 60.0
"""Seconds for which the subjects of a bucket count as too long for one message."""

SMALL = 1000
"""Subjects of a bucket up to which all of them are listed at once."""

FILLS_A_PAGE = MAX_DOCUMENT // LONGEST // 4
"""Messages that this client sends before a small number of subjects is no longer believed: it may have stored
so many that a page of them does not fit. What others store meanwhile may cost a reconnect, once."""

LISTS = 2
"""Lists of the metas' subjects that are requested in a larger one, before one of all subjects."""

LAST_CHUNKS = 64
"""Subjects of chunks that are sent at least, as far as there are so many: some may go meanwhile."""


class LeaderEnd:
    """The end of the metas at the leader: a replica that has it has everything acknowledged before.

    It is requested at once, and awaited when the consumer has reached its end. Without replicas nothing is
    requested.

    The stream's last message is the newest meta, unless chunks of a later object follow. Only then the newest
    meta is asked for. A peer can have an older one sent to us; so a consumer counts those up to the end, too.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._subject = all_meta_subject(bucket.name)
        self._pending: PendingRequest | None = None
        self._last: int | None = None if bucket.replicated else 0
        self._newest = 0
        if bucket.replicated:
            try:
                self._pending = bucket.request_info()
            except NatsError as exc:
                if not retryable(exc):
                    raise

    async def reached(self, seq: int) -> bool:
        """Whether a reader that has seen everything up to ``seq`` has reached it."""
        if self._last is None:
            self._last = await self._ask()
        if seq >= self._last:
            return True
        if not self._newest:
            message = await self._bucket.leader_message(self._subject, ANY_WAY)
            self._newest = 0 if message is None else message.seq
        return seq >= self._newest and not await self._more(seq)

    async def _more(self, seq: int) -> bool:
        bucket = self._bucket
        if not bucket.ways.has_right(CONSUMER):
            return False
        # One after the other: a meta that is replaced in between must not count as one of those beyond only.
        beyond = await count_from(bucket, self._subject, (self._last or 0) + 1)
        return await count_from(bucket, self._subject, seq + 1) > beyond

    async def _ask(self) -> int:
        bucket, pending = self._bucket, self._pending
        if pending is not None:
            try:
                info = StreamInfo.from_json(loads((await pending.wait()).payload))
                if bucket.is_about(info):
                    return info.last_seq
            except NatsError:
                pass  # the next request shows what may help
        return (await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))).last_seq

    def close(self) -> None:
        """Drop the request."""
        if self._pending is not None:
            self._pending.close()


class _Found:
    """The newest metas read so far."""

    def __init__(self, bucket: Bucket) -> None:
        self.metas: dict[bytes, ObjectInfo] = {}
        self.cursor = 0  # consumers have delivered everything up to here, at the time of the read
        self.ordered = True
        self._bucket = bucket
        self._invalid: dict[str, InvalidMeta] = {}  # the newest of each subject
        self.doubtful: set[str] = set()  # those that only a consumer has shown
        self.short: bool = False  # a consumer has delivered less than it announced
        self._read = meta_reader(bucket, self._note_invalid)

    def _note_invalid(self, invalid: InvalidMeta) -> None:
        self._invalid.pop(invalid.subject, None)  # moves it to the end: reports are in stream order
        self._invalid[invalid.subject] = invalid

    def not_requested(self, subject: str) -> None:
        """Report the meta of a subject that cannot be requested, unless a consumer has shown it."""
        if subject.encode("utf-8", "surrogateescape") not in self.metas and subject not in self._invalid:
            error = MetaDecodeError("its subject cannot be requested by this user", subject=subject)
            self._invalid[subject] = InvalidMeta(subject, 0, error)

    def delivered(self, msg: WireMsg, delivery: Delivery) -> None:
        """Add a meta delivered by a consumer.

        Whoever may create consumers can change this one, too, so that it delivers no payloads.
        """
        info = self._read(msg, delivery)
        self.cursor = delivery.stream_seq
        self.metas.pop(msg.subject, None)  # writers without roll-up leave several metas: the newest counts
        if info is not None:
            self.metas[msg.subject] = info
        else:
            self.doubtful.add(msg.subject.decode("utf-8", "surrogateescape"))

    def proves(self, message: StoredMessage) -> bool:
        """Whether a consumer has delivered a requested meta, or a newer one of the subject: add it then."""
        info = self.metas.get(message.subject.encode("utf-8", "surrogateescape"))
        delivered = info if info is not None else self._invalid.get(message.subject)
        if delivered is None or message.seq > delivered.revision:
            return False
        if message.subject in self.doubtful:
            if message.seq < delivered.revision:
                return False
            self.stored(message)
        return True

    def stored(self, message: StoredMessage) -> None:
        """Add a requested meta."""
        info = read_stored(self._bucket, message, self._note_invalid)
        subject = message.subject.encode("utf-8", "surrogateescape")
        self.metas.pop(subject, None)
        self.doubtful.discard(message.subject)
        if info is not None:
            self.metas[subject] = info

    def subjects(self) -> set[str]:
        """Return the subjects whose meta was read, or cannot be read, as the leader has shown."""
        read = {subject.decode("utf-8", "surrogateescape") for subject in self.metas}
        return read.union(self._invalid.keys() - self.doubtful)

    def result(self, on_invalid: OnInvalid | None) -> list[ObjectInfo]:
        """Return what was found; report unreadable metas, unless a newer one exists."""
        for each in self._invalid.values():
            if each.subject.encode("utf-8", "surrogateescape") not in self.metas:
                report_invalid(on_invalid or warn_invalid, each)
        infos = list(self.metas.values())
        if not self.ordered:
            infos.sort(key=lambda info: info.revision)
        # Other clients store a name under other subjects: it is one object, and the newest meta counts.
        by_name = {info.name: info for info in infos}
        if len(by_name) == len(infos):
            return infos
        return [info for info in infos if by_name[info.name] is info]


async def newest_metas(
    bucket: Bucket, on_invalid: OnInvalid | None = None, *, consumer: bool = True
) -> list[ObjectInfo]:
    """Return the newest meta of every name, delete markers included, in stream order.

    Args:
        bucket: the bucket.
        on_invalid: called with each unreadable meta; default: a warning in the log.
        consumer: a consumer may be used. It decides nothing: others may change it.

    Raises:
        BucketNotFoundError: the bucket is gone.
        NatsError: the metas could not be read to the end within the retry budget.
    """
    found = _Found(bucket)
    silent = bucket.remembered(UnheardConsumers)
    try:
        await bucket.refresh()
        try:
            if not consumer or not bucket.ways.can_deliver() or silent.now:
                await _complete(bucket, found, set(), leader=not consumer)  # name by name
            elif bucket.consumers_skip:
                await _read_from_old_servers(bucket, found)
            else:
                await _read_in_rounds(bucket, found)
        except (PermissionsViolationError, APIError) as exc:
            if not bucket.ways.note_refusal(exc):
                raise
            await _complete(bucket, found, set(), leader=not consumer)
        except SilentConsumer:
            silent.note()
            await _complete(bucket, found, set())
    except NatsError as exc:
        error = bucket.translate(exc)
        raise error from (exc if error is not exc else None)
    return found.result(on_invalid)


async def _read_in_rounds(bucket: Bucket, found: _Found) -> None:
    """Read rounds of a consumer, until the leader has nothing more.

    Other writers may be as fast as we are. So once its end is reached, the leader is asked for all names,
    and for the metas that are still missing: they were replaced meanwhile. If a server was behind, a meta
    read from it may have been replaced before the call: then the metas of all names are requested.
    """
    leader_end = LeaderEnd(bucket)
    rounds = 2 if bucket.replicated else 1
    pauses = list(CATCH_UP)
    behind = False
    try:
        while True:
            more = await _round(bucket, found)
            reached = await leader_end.reached(found.cursor)
            if not more:
                break
            if reached:
                rounds -= 1
            else:
                behind = True
            if not rounds or not pauses:
                break
            if not reached:
                await asyncio.sleep(pauses.pop(0))
        # Metas were replaced meanwhile; or others have changed the consumer. That nothing follows may be what
        # a peer has had sent to us, too.
        if more or found.doubtful or found.short or not reached:
            every = not reached or (more and behind)
            await _complete(bucket, found, set() if every else found.subjects(), proven=True)
    finally:
        leader_end.close()


async def _round(bucket: Bucket, found: _Found) -> bool:
    """Read with one consumer what its server has after the cursor; return whether the leader has more then.

    A consumer's count of pending messages proves nothing, not even at the leader: it is wrong when metas are
    replaced meanwhile. The leader's response costs no time: it arrives during the deletion of the consumer.
    """
    received = 0
    expected = -1  # later metas were stored meanwhile, and may come for as long as others write

    def on_message(msg: WireMsg, delivery: Delivery) -> None:
        nonlocal received
        if reading.over:
            return  # the leader returns what follows
        received += 1
        found.delivered(msg, delivery)
        if delivery.num_pending == 0 or received == expected:
            reading.finish()

    # Roll-up leaves one meta per name anyway, except in mirrors: "all" spares the server its initial search
    # for the last ones, 15 ms for 10 000 names. Consumers of 2.9 skip fewer with "last_per_subject".
    policy = "last_per_subject" if bucket.replicated or bucket.consumers_skip else "all"
    proof: MessageRead | None = None
    subject = all_meta_subject(bucket.name)
    try:
        async with (
            Room(bucket, subject, size=LATER if found.cursor else None) as room,
            Collector(
                bucket,
                subject,
                on_message,
                policy,
                after=found.cursor or None,
                other_way=bucket.ways.allowed(LEADER) or bucket.ways.allowed(DIRECT),
                room=room,
            ) as reading,
        ):
            expected = (await reading.start()).num_pending
            if received >= expected:
                reading.finish()
            await reading.ended  # metas replaced or removed meanwhile are not delivered
            found.short |= received < expected
            proof = following(bucket, found.cursor)
        return await finish_following(bucket, found.cursor, proof) is not None
    finally:
        if proof is not None:
            proof.close()


def following(bucket: Bucket, seq: int) -> MessageRead | None:
    """Ask the leader for the first meta after a sequence; ``None`` while there is no connection."""
    try:
        return bucket.leader_read(all_meta_subject(bucket.name), after=seq, ways=ANY_WAY)
    except NatsError as exc:
        if not retryable(exc):
            raise
        return None


async def finish_following(bucket: Bucket, seq: int, pending: MessageRead | None) -> StoredMessage | None:
    """Return the response to :func:`following`; request it again where that may help."""
    if pending is not None:
        try:
            return await pending.wait()
        except NatsError as exc:
            if not retryable(exc):
                raise
    return await bucket.first_after(all_meta_subject(bucket.name), seq, ANY_WAY)


async def meta_subjects(bucket: Bucket) -> dict[str, int] | None:
    """Return the subjects of all metas, from the leader; ``None`` when they do not fit into one message."""
    return await of_meta_subjects(bucket, dict)


async def of_meta_subjects(bucket: Bucket, use: Callable[[dict[str, int]], T]) -> T | None:
    """Return what ``use`` makes of :func:`meta_subjects`.

    Whoever may ask for the stream's info can have another list sent to our inbox, of one name for example,
    and nothing in it shows that. The list of all subjects proves itself, see :func:`all_subjects`; where
    there are many, it takes twice as long. There the leader has to show that there are no more metas. It
    does so while ``use`` works.
    """
    begin = all_meta_subject(bucket.name)[:-1]
    most: int | None = None
    sent = bucket.connection.stats.out_msgs - bucket.sent_by_then
    few = bucket.num_subjects <= SMALL and sent < FILLS_A_PAGE
    for _ in range(0 if few else LISTS):
        proof = asyncio.create_task(most_metas(bucket), name="objstore-most-metas")
        try:
            subjects = await subjects_at_once(bucket, f"{begin}>")  # sent before the proof's request
            if subjects is None:
                return None
            used = use(subjects)
            listed = len(subjects) if _all_begin(subjects, begin) else -1
            if most is None or listed < most:
                most = await proof
        finally:
            proof.cancel()
            await asyncio.wait([proof])
            if not proof.cancelled():
                proof.exception()
        if listed >= most:
            return used
    # There are few; or names come and go all the time; or the bucket copies other subjects, too.
    every = await subjects_at_once(bucket, ">", look=not few)
    if every is None:
        return None
    bucket.count_subjects(len(every))
    return use({subject: count for subject, count in every.items() if subject.startswith(begin)})


class _Chunks:
    """About how many subjects of chunks a bucket has; at first more than that."""

    def __init__(self, bucket: Bucket) -> None:  # Bucket.remembered passes itself
        self.about: int = 1 << 31


async def most_metas(bucket: Bucket) -> int:
    """Return how many subjects of metas there are at most.

    The server sorts subjects, and those of chunks come before those of metas. So if the last ones of a list
    belong to chunks, all of them do, whatever was asked: then only the other subjects can be those of metas.
    """
    subject = all_chunks_subject(bucket.name)
    name = f"STREAM.INFO.{bucket.stream}"
    chunks = bucket.remembered(_Chunks)

    async def ask() -> dict[str, object]:
        document = {"subjects_filter": subject, "offset": max(0, chunks.about - LAST_CHUNKS)}
        return await bucket.js.request(name, document, limit=MAX_DOCUMENT)

    there = 0
    for _ in range(2):
        answer = await bucket.retrying(ask)
        state = answer.get("state")
        if not isinstance(state, dict):
            raise RemoteProtocolError("an API answer about a stream lacks its state")
        there, total = number(state, "num_subjects"), number(answer, "total")
        bucket.count_subjects(there)
        chunks.about = total
        last = state.get("subjects")
        if isinstance(last, dict) and last and _reaches(number(answer, "offset") + len(last), total, last):
            if _all_begin(last, subject[:-1]):
                return there - total
        elif not total:
            break
    return there


def _reaches(end: int, total: int, subjects: dict[str, object]) -> bool:
    """Whether these are the last subjects. Those that are no text are written alike: fewer are told apart."""
    return end == total or (end < total and any("\ufffd" in each for each in subjects))


def _all_begin(subjects: dict[str, int], begin: str) -> bool:
    return not subjects or (min(subjects).startswith(begin) and max(subjects).startswith(begin))


async def subjects_at_once(bucket: Bucket, subject: str, *, look: bool = False) -> dict[str, int] | None:
    """Return subjects and their counts, from the leader; ``None`` when they do not fit into one message.

    If the server cannot send a page, it closes the connection, and with it everything else in flight there.
    That happens once per call, or again if the server takes longer for the page than the request's timeout.

    Args:
        bucket: the bucket to read.
        subject: a subject with wildcards.
        look: estimate first from the stream's info whether the page fits; costs one round trip.
    """
    try:
        return await bucket.retrying(lambda: _subjects(bucket, subject, look))
    except _TooMany:
        return None


async def all_subjects(bucket: Bucket) -> dict[str, int] | None:
    """Return the subjects of metas and chunks, as :func:`subjects_at_once` does. None is missing.

    Whoever may ask for the stream's info can have the answer to a question of theirs sent to our inbox. Only
    the answer to this one has as many subjects as it says that there are.
    """
    long, now = bucket.remembered(_Long), bucket.connection.loop.time()
    subjects = None if now < long.until else await subjects_at_once(bucket, ">", look=True)
    if subjects is None and now >= long.until:
        long.until = now + LONG_FOR
    return subjects


class _Long:
    """Until when all subjects of a bucket are known not to fit into one message."""

    def __init__(self, bucket: Bucket) -> None:  # Bucket.remembered passes itself
        self.until: float = 0.0


class NamesNotSentError(PermissionsViolationError):
    """This user may read metas by their names only, and the server cannot send the list of all names."""


class _TooMany(NatsError):
    """The response does not fit into one message."""


async def _subjects(bucket: Bucket, subject: str, look: bool) -> dict[str, int]:
    if look and not _fit(await bucket.js.stream_info(bucket.stream)):
        raise _TooMany("the subjects are too long for a page of them")
    try:
        async with Room(bucket, subject, names=True):
            return await bucket.js.stream_subjects(bucket.stream, subject)
    except (RemoteProtocolError, StaleConnectionError) as exc:
        # A page of 100 000 long names ends the connection. Whatever the cause, there are other ways to read.
        raise _TooMany(str(exc)) from exc


def _fit(info: StreamInfo) -> bool:
    """Whether a page of the subjects is likely to fit into one message.

    The stored bytes include the subjects. If they are far more than the subjects can take, most are content.
    """
    longest = min(info.num_subjects, PAGE) * LONGEST
    return min(longest, info.bytes) < MAX_DOCUMENT or info.bytes > 2 * LONGEST * info.num_subjects


async def _read_from_old_servers(bucket: Bucket, found: _Found) -> None:
    """Read from servers whose consumers skip messages when a meta is replaced meanwhile.

    Where the consumer's server is the leader, the delivered metas are current, but some may be missing.
    Elsewhere a delivery proves nothing.
    """
    if not bucket.replicated:
        await _round(bucket, found)
    await _complete(bucket, found, found.subjects())


async def _complete(
    bucket: Bucket, found: _Found, seen: set[str], *, leader: bool = False, proven: bool = False
) -> None:
    """Read the metas of all subjects not in ``seen`` from the leader, name by name.

    Args:
        bucket: the bucket to read.
        found: what was read.
        seen: subjects that need not be read.
        leader: removals depend on it.
        proven: what no consumer has shown counts as one shows it now.

    Raises:
        PermissionsViolationError: this user may not read the metas.
        NamesNotSentError: it takes more rights because their subjects do not fit into one message.
    """
    found.ordered = False
    subjects = await meta_subjects(bucket)
    if subjects is None:
        try:
            await _complete_in_order(bucket, found, leader, proven)
            return
        except PermissionsViolationError as exc:
            subjects = await meta_subjects(bucket)  # perhaps the connection was lost by accident
            if subjects is None:
                raise NamesNotSentError(
                    f"the server cannot send the list of all names in bucket {bucket.name!r}: it is too "
                    f"large, or the connection was lost. Without it, {exc}",
                    subject=exc.subject,
                    operation=exc.operation,
                ) from exc
    every = list(subjects)
    lacking = [each for each in every if each not in seen and bucket.can_request(each)]
    loop = asyncio.get_running_loop()
    deadline, backoff = loop.time() + bucket.retry_budget, Backoff()
    while lacking:
        gone: list[str] = []
        doubted = []
        async with aclosing(each_newest(bucket, lacking)) as answers:
            async for subject, answer in answers:
                if not proven:
                    if answer is None:
                        gone.append(subject)
                    else:
                        found.stored(answer)
                elif answer is None or not found.proves(answer):
                    doubted.append((subject, answer))
        gone += await _store_shown(bucket, found, doubted)
        # Purged meanwhile, or the leader has not caught up; and nats-server 2.9, once killed, may have lost
        # for good which message of a subject is the newest.
        subjects = (await meta_subjects(bucket) if gone else None) or {}
        lacking = [subject for subject in gone if subject in subjects]
        if lacking:
            if loop.time() + backoff.seconds > deadline:
                raise StaleConnectionError("the leader lists names whose metas it does not have")
            await bucket.pause(backoff.seconds, deadline)
            backoff.grow()
            bucket.old.index_broken |= bucket.consumers_skip
    for each in every:
        if not bucket.can_request(each):  # now it is known what this user may ask for
            found.not_requested(each)


async def _complete_in_order(bucket: Bucket, found: _Found, leader: bool, proven: bool) -> None:
    """As :func:`_complete`, without the list of subjects: read all metas, one after the other."""
    doubted: list[tuple[str, StoredMessage | None]] = []
    async with aclosing(metas_so_far(bucket, leader=leader)) as messages:
        async for message in messages:
            if not proven:
                found.stored(message)
            elif not found.proves(message) and bucket.can_request(message.subject):
                doubted.append((message.subject, message))
    await _store_shown(bucket, found, doubted)
    if leader and len(found.subjects()) < await most_metas(bucket):
        raise StaleConnectionError("the leader lists more names than were read")


async def _store_shown(
    bucket: Bucket, found: _Found, answers: list[tuple[str, StoredMessage | None]]
) -> list[str]:
    """Add the metas of these subjects as a consumer shows them; return the subjects that have none."""
    gone: list[str] = []
    async with aclosing(each_shown(bucket, answers)) as shown:
        async for subject, message in shown:
            if message is None:
                gone.append(subject)
            elif not found.proves(message):
                found.stored(message)
    return gone
