"""Listing: the newest meta of every name, what was acknowledged before the call included.

One ordered consumer reads them. In a cluster it lives on any server that has a replica, and what that one has
not got yet, it can neither tell of nor know. So the leader has the last word: a listing ends where that has
nothing more, and it has to get at least as far as the leader had got at the start.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from natsproto._values import brief
from natsproto.backoff import Backoff
from natsproto.errors import NatsError, PermissionsViolationError, RemoteProtocolError, StaleConnectionError
from natsproto.jetstream.api.codec import MAX_DOCUMENT, time_from_ns
from natsproto.jetstream.api.errors import retryable

from ..bucket.bucket import Bucket, log
from ..bucket.collect import Collector
from ..bucket.message_reads import ANY_WAY, CONSUMER, MessageRead
from ..errors import ObjectChangedError
from ..format.codec import MetaDecodeError
from ..format.models import InvalidMeta, ObjectInfo
from ..format.naming import all_meta_subject
from ..format.plain_meta import plain_reader

if TYPE_CHECKING:
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.jetstream.api.models import StoredMessage, StreamInfo
    from natsproto.wire import Msg as WireMsg

OnInvalid = Callable[[InvalidMeta], None]
"""Called with each meta message that cannot be read; the listing goes on."""

MetaReader = Callable[["WireMsg", "Delivery"], ObjectInfo | None]

PROOF = 100
"""Metas that are read one by one from the leader before a consumer is tried for the rest."""

AT_ONCE = 64
"""Reads of single metas that are under way at once."""

PAGE = 100_000
"""Subjects that the server puts on one page."""

LONGEST = 4096
"""Bytes of a subject: the longest line a server takes of a client, unless it is configured otherwise."""

CATCH_UPS = 10
"""How often a reading of all metas goes on to what was stored meanwhile."""


def warn_invalid(invalid: InvalidMeta) -> None:
    """The default for metas that cannot be read: one WARNING, and on to the next."""
    log.warning(
        "a meta message on %s (revision %d) is skipped: %s",
        brief(invalid.subject),
        invalid.revision,
        invalid.error,
    )


def report_invalid(on_invalid: OnInvalid, invalid: InvalidMeta) -> None:
    """Call ``on_invalid``; what it raises is logged."""
    try:
        on_invalid(invalid)
    except Exception:
        log.exception("on_invalid raised")


def meta_reader(bucket: Bucket, on_invalid: OnInvalid) -> MetaReader:
    """Return what decodes a delivered meta, or reports it and returns ``None``."""
    plain = plain_reader(bucket.name)

    def read(msg: WireMsg, delivery: Delivery) -> ObjectInfo | None:
        stored = time_from_ns(delivery.time_ns)
        header, payload = msg.header, msg.payload
        # bytes.find() takes half as long as "in".
        if type(payload) is bytes and (header is None or header.find(b"Nats-TTL") < 0):
            info = plain(msg.subject, payload, delivery.stream_seq, stored)
            if info is not None:
                return info
        subject = msg.subject.decode("utf-8", "surrogateescape")
        try:
            return bucket.decode_raw(payload, header, subject, delivery.stream_seq, stored)
        except MetaDecodeError as exc:
            exc.with_traceback(None)  # its frames hold the whole message
            report_invalid(on_invalid, InvalidMeta(subject, delivery.stream_seq, exc))
            return None

    return read


def read_stored(bucket: Bucket, message: StoredMessage, on_invalid: OnInvalid) -> ObjectInfo | None:
    """As :func:`meta_reader`, for a message that was asked for."""
    try:
        return bucket.decode(message)
    except MetaDecodeError as exc:
        exc.with_traceback(None)
        report_invalid(on_invalid, InvalidMeta(message.subject, message.seq, exc))
        return None


class Goal:
    """The newest meta at the leader: what a replica must have got to, to have what was acknowledged before.

    Asked for at once, waited for when the consumer has come to its end. Without replicas there is nobody to
    ask, and nothing to prove.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._subject = all_meta_subject(bucket.name)
        self._pending: MessageRead | None = None
        self._seq: int | None = None if bucket.replicated else 0
        if bucket.replicated:
            try:
                self._pending = bucket.leader_read(self._subject, ways=ANY_WAY)
            except NatsError as exc:
                if not retryable(exc):
                    raise

    async def reached(self, seq: int) -> bool:
        """Whether everything up to the goal has been seen by who has seen all up to ``seq``."""
        if self._seq is None:
            self._seq = await self._ask()
        return seq >= self._seq

    async def _ask(self) -> int:
        message = await _finish(self._bucket, self._subject, self._pending)
        return 0 if message is None else message.seq

    def close(self) -> None:
        """Forget the request."""
        if self._pending is not None:
            self._pending.close()


class _Found:
    """The newest metas, as far as they have been read."""

    def __init__(self, bucket: Bucket) -> None:
        self.metas: dict[bytes, ObjectInfo] = {}
        self.cursor = 0  # what was there up to here, when it was read, has been seen
        self.ordered = True
        self._bucket = bucket
        self._invalid: dict[str, InvalidMeta] = {}  # the newest of each subject
        self._read = meta_reader(bucket, self._note_invalid)

    def _note_invalid(self, invalid: InvalidMeta) -> None:
        self._invalid.pop(invalid.subject, None)  # to the end: they are reported in stream order
        self._invalid[invalid.subject] = invalid

    def delivered(self, msg: WireMsg, delivery: Delivery) -> None:
        """Take a meta of a consumer."""
        info = self._read(msg, delivery)
        self.cursor = delivery.stream_seq
        self.metas.pop(msg.subject, None)  # writers without roll-up leave several metas: the newest counts
        if info is not None:
            self.metas[msg.subject] = info

    def stored(self, message: StoredMessage) -> None:
        """Take a meta that was asked for."""
        info = read_stored(self._bucket, message, self._note_invalid)
        subject = message.subject.encode("utf-8", "surrogateescape")
        self.cursor = max(self.cursor, message.seq)
        self.metas.pop(subject, None)
        if info is not None:
            self.metas[subject] = info

    def subjects(self) -> set[str]:
        """Where a meta was read, or could not be."""
        read = {subject.decode("utf-8", "surrogateescape") for subject in self.metas}
        return read.union(self._invalid)

    def result(self, on_invalid: OnInvalid | None) -> list[ObjectInfo]:
        """What was found; metas that cannot be read are reported, unless there is a newer one."""
        for each in self._invalid.values():
            if each.subject.encode("utf-8", "surrogateescape") not in self.metas:
                report_invalid(on_invalid or warn_invalid, each)
        infos = list(self.metas.values())
        if not self.ordered:
            infos.sort(key=lambda info: info.revision)
        # Other clients file a name under subjects of their own: it is one object, and the newest meta is it.
        by_name = {info.name: info for info in infos}
        if len(by_name) == len(infos):
            return infos
        return [info for info in infos if by_name[info.name] is info]


async def newest_metas(bucket: Bucket, on_invalid: OnInvalid | None = None) -> list[ObjectInfo]:
    """The newest meta of every name, delete markers included, in stream order.

    Raises:
        BucketNotFoundError: the bucket is gone.
        NatsError: it could not be read to its end within the retry budget.
    """
    found = _Found(bucket)
    try:
        try:
            if not bucket.allowed(CONSUMER):
                await _complete(bucket, found, set())  # name by name
            elif bucket.skips_live:
                await _read_old(bucket, found)
            else:
                await _read_on(bucket, found)
        except PermissionsViolationError as exc:
            if not bucket.note_refusal(exc):
                raise
            await _complete(bucket, found, set())
    except NatsError as exc:
        error = bucket.translate(exc)
        raise error from (exc if error is not exc else None)
    return found.result(on_invalid)


async def _read_on(bucket: Bucket, found: _Found) -> None:
    """Rounds of a consumer and a look at the leader, until that has nothing more.

    Other writers may be as fast as we are. So when the goal has been reached, the leader is asked what names
    there are, and for those that are still lacking: they were replaced behind our back. One that was read
    from a server that is behind may have been replaced before the call: then all of them are asked for.
    """
    goal = Goal(bucket)
    behind = False
    rounds = 2 if bucket.replicated else 1
    try:
        while (message := await _round(bucket, found)) is not None:
            behind |= not await goal.reached(found.cursor)
            found.stored(message)
            if not await goal.reached(found.cursor):
                after = bucket.messages(
                    all_meta_subject(bucket.name), after=found.cursor, leader=True, ways=ANY_WAY
                )
                await _take(found, goal, after)
            elif rounds > 1:
                rounds -= 1
            else:
                await _complete(bucket, found, set() if behind else found.subjects())
                return
    finally:
        goal.close()


async def _take(found: _Found, goal: Goal, messages: AsyncGenerator[StoredMessage, None]) -> None:
    """Read one by one up to the goal, unless it is far away: a consumer is faster then."""
    count = 0
    async with aclosing(messages):
        async for message in messages:
            found.stored(message)
            count += 1
            if count == PROOF or await goal.reached(found.cursor):
                return


async def _round(bucket: Bucket, found: _Found) -> StoredMessage | None:
    """Read with one consumer what its server has after the cursor; returns what the leader has after that.

    What a consumer says is left is no proof, not even at the leader: it miscounts when metas are replaced
    meanwhile. That proof costs no time: it comes along with the answer to the deletion of the consumer.
    """
    received = 0
    expected = -1  # what comes beyond was stored meanwhile, and may go on for as long as others write

    def on_message(msg: WireMsg, delivery: Delivery) -> None:
        nonlocal received
        if reading.over:
            return  # the leader is asked for what follows
        received += 1
        found.delivered(msg, delivery)
        if delivery.num_pending == 0 or received == expected:
            reading.finish()

    # Roll-up leaves one meta a name anyway, but for mirrors: "all" spares the server the search for the last
    # ones before it begins, 15 ms for 10 000 names. Consumers of 2.9 lose less by the other way.
    policy = "last_per_subject" if bucket.replicated or bucket.skips_live else "all"
    proof: MessageRead | None = None
    try:
        async with Collector(
            bucket, all_meta_subject(bucket.name), on_message, policy, after=found.cursor or None
        ) as reading:
            expected = (await reading.start()).num_pending
            if received >= expected:
                reading.finish()
            await reading.ended  # metas that were replaced or removed meanwhile are not delivered
            proof = following(bucket, found.cursor)
        return await finish_following(bucket, found.cursor, proof)
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
    """The answer to :func:`following`; asked for again where that may help."""
    if pending is not None:
        try:
            return await pending.wait()
        except NatsError as exc:
            if not retryable(exc):
                raise
    return await bucket.first_after(all_meta_subject(bucket.name), seq, ANY_WAY)


async def meta_subjects(bucket: Bucket) -> dict[str, int] | None:
    """The subjects of all metas, from the leader; ``None`` when that is more than a message may hold."""
    return await subjects_at_once(bucket, all_meta_subject(bucket.name))


async def subjects_at_once(bucket: Bucket, subject: str, *, look: bool = False) -> dict[str, int] | None:
    """Subjects and their counts, from the leader; ``None`` when that is more than a message may hold.

    The server ends the connection that it cannot send a page to, and with it all else that is under way
    there. That happens once a call, unless the server needs longer for the page than a request may take: then
    it is asked again.

    Args:
        bucket: where.
        subject: with wildcards.
        look: see first whether it would happen, by what is stored: for the price of a round trip.
    """
    try:
        return await bucket.retrying(lambda: _subjects(bucket, subject, look))
    except _TooMany:
        return None


class _TooMany(NatsError):
    """The answer was not to be had in one piece."""


async def _subjects(bucket: Bucket, subject: str, look: bool) -> dict[str, int]:
    if look and not _fit(await bucket.js.stream_info(bucket.stream)):
        raise _TooMany("the subjects are too long for a page of them")
    try:
        return await bucket.js.stream_subjects(bucket.stream, subject)
    except (RemoteProtocolError, StaleConnectionError) as exc:
        # A page of 100 000 long names ends the connection; whatever else did, there are other ways to read.
        raise _TooMany(str(exc)) from exc


def _fit(info: StreamInfo) -> bool:
    """Whether a page of the subjects is likely to fit into one message.

    Subjects are part of what is stored. Where that is much more than they can take, it is mostly content.
    """
    longest = min(info.num_subjects, PAGE) * LONGEST
    return min(longest, info.bytes) < MAX_DOCUMENT or info.bytes > 2 * LONGEST * info.num_subjects


async def _read_old(bucket: Bucket, found: _Found) -> None:
    """The same for servers whose consumers skip messages when a meta is replaced meanwhile.

    Where the consumer's server is the leader, what it tells is no older than the call, only some may be
    lacking. Elsewhere it proves nothing.
    """
    if not bucket.replicated:
        await _round(bucket, found)
    await _complete(bucket, found, found.subjects())


async def _complete(bucket: Bucket, found: _Found, seen: set[str]) -> None:
    """Read from the leader, name by name, what is not among the subjects seen."""
    found.ordered = False
    subjects = await meta_subjects(bucket)
    if subjects is None:
        async with aclosing(metas_so_far(bucket, ways=ANY_WAY)) as messages:
            async for message in messages:
                found.stored(message)
        return
    lacking = [subject for subject in subjects if subject not in seen and is_text(subject)]
    loop = asyncio.get_running_loop()
    deadline, backoff = loop.time() + bucket.retry_budget, Backoff()
    while lacking:
        gone: list[str] = []
        async with aclosing(each_newest(bucket, lacking)) as answers:
            async for subject, answer in answers:
                if answer is None:
                    gone.append(subject)
                else:
                    found.stored(answer)
        # Purged meanwhile, or asked of a leader that has not caught up; and nats-server 2.9, once killed, may
        # have forgotten for good which message of a subject is the newest.
        subjects = (await meta_subjects(bucket) if gone else None) or {}
        lacking = [subject for subject in gone if subject in subjects]
        if lacking:
            if loop.time() + backoff.seconds > deadline:
                raise StaleConnectionError("the leader lists names whose metas it does not have")
            await bucket.pause(backoff.seconds, deadline)
            backoff.grow()
            bucket.miscounts |= bucket.skips_live


async def metas_so_far(
    bucket: Bucket, batch: int = 256, *, after: int = 0, ways: tuple[str, ...] | None = None
) -> AsyncGenerator[StoredMessage, None]:
    """All metas in stream order, as :meth:`Bucket.messages`, but with an end while others write.

    Somebody who replaces one meta again and again is always ahead of us. Yet the end that the stream had at
    the beginning is not enough: what was replaced meanwhile lies beyond, and old chunks may depend on it. So
    the leader is asked for the end once more, :data:`CATCH_UPS` times. The oldest that is left comes first.

    Raises:
        ObjectChangedError: it was not reached: a meta may have been replaced in each of these rounds, before
            its turn came.
    """
    rounds = CATCH_UPS
    last = await _last_seq(bucket)
    async with aclosing(
        bucket.messages(all_meta_subject(bucket.name), batch, after=after, ways=ways)
    ) as messages:
        async for message in messages:
            yield message
            if message.seq > last:
                if not rounds:
                    raise ObjectChangedError(
                        f"the metas of bucket {bucket.name!r} change faster than they can be read: "
                        "try again when less is written",
                        bucket=bucket.name,
                    )
                rounds -= 1
                last = await _last_seq(bucket)


async def _last_seq(bucket: Bucket) -> int:
    try:
        return (await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))).last_seq
    except NatsError as exc:
        error = bucket.translate(exc)
        raise error from (exc if error is not exc else None)


_NO_TEXT = re.compile("[\ud800-\udfff\ufffd]")


def is_text(subject: str) -> bool:
    """Whether a subject can be asked for. One of other bytes is no name's: JSON cannot hold it."""
    return subject.isascii() or _NO_TEXT.search(subject) is None


async def each_newest(
    bucket: Bucket, subjects: list[str], at_once: int = AT_ONCE, ways: tuple[str, ...] = ANY_WAY
) -> AsyncGenerator[tuple[str, StoredMessage | None], None]:
    """The newest messages of many subjects from the leader, several asked for at a time."""
    for at in range(0, len(subjects), at_once):
        part = list(filter(is_text, subjects[at : at + at_once]))
        pending: list[MessageRead] = []
        try:
            try:
                pending.extend(bucket.leader_read(subject, ways=ways) for subject in part)
            except NatsError as exc:
                if not retryable(exc):
                    raise
            for index, subject in enumerate(part):
                yield (
                    subject,
                    await _finish(
                        bucket,
                        subject,
                        pending[index] if index < len(pending) and not bucket.miscounts else None,
                        ways,
                    ),
                )
        finally:
            for request in pending:
                request.close()


async def _finish(
    bucket: Bucket, subject: str, pending: MessageRead | None, ways: tuple[str, ...] = ANY_WAY
) -> StoredMessage | None:
    """The answer to a leader read that was begun; asked for again where that may help."""
    if pending is not None:
        try:
            return await pending.wait()
        except NatsError as exc:
            if not retryable(exc):
                raise
    return await bucket.leader_message(subject, ways)
