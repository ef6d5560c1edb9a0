"""Listing: the newest meta of every name, what was acknowledged before the call included.

One ordered consumer reads them. In a cluster it lives on any server that has a replica, and what that one has
not got yet, it can neither tell of nor know. So the leader has the last word: a listing ends where that has
nothing more, and it has to get at least as far as the leader had got at the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from natsproto.errors import NatsError, RemoteProtocolError, StaleConnectionError
from natsproto.jetstream.api.codec import time_from_ns
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.ordered import OrderedConsumer

from ._bucket import FIRST_RETRY, LAST_RETRY, Bucket, log
from .format.codec import MetaDecodeError
from .format.models import InvalidMeta, ObjectInfo
from .format.naming import all_meta_subject
from .format.plain_meta import plain_reader

if TYPE_CHECKING:
    from natsproto.aio.client import PendingRequest
    from natsproto.jetstream.api.delivery import Delivery
    from natsproto.jetstream.api.models import StoredMessage
    from natsproto.wire import Msg as WireMsg

OnInvalid = Callable[[InvalidMeta], None]
MetaReader = Callable[["WireMsg", "Delivery"], ObjectInfo | None]

LIST_HEARTBEAT = 1.0

PROOF = 100
"""Metas that are read one by one from the leader before a consumer is tried for the rest."""

AT_ONCE = 64
"""Reads of single metas that are under way at once."""


def warn_invalid(invalid: InvalidMeta) -> None:
    """The default for metas that cannot be read: one WARNING, and on to the next."""
    log.warning(
        "a meta message on %s (revision %d) is skipped: %s", invalid.subject, invalid.revision, invalid.error
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
            report_invalid(on_invalid, InvalidMeta(subject, delivery.stream_seq, exc))
            return None

    return read


def read_stored(bucket: Bucket, message: StoredMessage, on_invalid: OnInvalid) -> ObjectInfo | None:
    """As :func:`meta_reader`, for a message that was asked for."""
    try:
        return bucket.decode(message)
    except MetaDecodeError as exc:
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
        self._pending: PendingRequest | None = None
        self._seq: int | None = None if bucket.replicated else 0
        if bucket.replicated:
            try:
                self._pending = bucket.start_leader_read(self._subject)
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
        self._invalid: list[InvalidMeta] = []
        self._read = meta_reader(bucket, self._invalid.append)

    def delivered(self, msg: WireMsg, delivery: Delivery) -> None:
        """Take a meta of a consumer."""
        info = self._read(msg, delivery)
        self.cursor = delivery.stream_seq
        self.metas.pop(msg.subject, None)  # writers without roll-up leave several metas: the newest counts
        if info is not None:
            self.metas[msg.subject] = info

    def stored(self, message: StoredMessage) -> None:
        """Take a meta that was asked for."""
        info = read_stored(self._bucket, message, self._invalid.append)
        subject = message.subject.encode("utf-8", "surrogateescape")
        self.cursor = max(self.cursor, message.seq)
        self.metas.pop(subject, None)
        if info is not None:
            self.metas[subject] = info

    def subjects(self) -> set[str]:
        """Where a meta was read, or could not be."""
        read = {subject.decode("utf-8", "surrogateescape") for subject in self.metas}
        return read.union(each.subject for each in self._invalid)

    def result(self, on_invalid: OnInvalid | None) -> list[ObjectInfo]:
        """What was found; metas that cannot be read are reported, unless there is a newer one."""
        newest = {each.subject: each for each in self._invalid}
        for each in self._invalid:
            subject = each.subject.encode("utf-8", "surrogateescape")
            if newest[each.subject] is each and subject not in self.metas:
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
        if bucket.skips_live:
            await _read_old(bucket, found)
        else:
            await _read_on(bucket, found)
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
                after = bucket.messages(all_meta_subject(bucket.name), after=found.cursor, leader=True)
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
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    received = 0
    expected = -1  # what comes beyond was stored meanwhile, and may go on for as long as others write

    def finish() -> None:
        if not ended.done():
            ended.set_result(None)

    def fail(exc: BaseException) -> None:
        if not ended.done():
            ended.set_exception(exc)

    def on_message(msg: WireMsg, delivery: Delivery) -> None:
        nonlocal received
        if ended.done():
            return  # the leader is asked for what follows
        received += 1
        found.delivered(msg, delivery)
        if delivery.num_pending == 0 or received == expected:
            finish()

    if found.cursor:
        policy = "by_start_sequence"
    else:
        # Roll-up leaves one meta a name anyway, but for mirrors: "all" spares the server the search for the
        # last ones before it begins, 15 ms for 10 000 names. Consumers of 2.9 lose less by the other way.
        policy = "last_per_subject" if bucket.replicated or bucket.skips_live else "all"
    consumer = OrderedConsumer(
        bucket.js,
        bucket.stream,
        all_meta_subject(bucket.name),
        on_message=on_message,
        on_failure=fail,
        on_idle=finish,  # metas replaced or removed while being listed are not delivered
        deliver_policy=policy,
        start_seq=found.cursor + 1 if found.cursor else None,
        heartbeat=LIST_HEARTBEAT,
        created=bucket.created,
        patience=bucket.patience,
    )
    proof: PendingRequest | None = None
    try:
        try:
            expected = (await bucket.retrying(consumer.start)).num_pending
            if received >= expected:
                finish()
            await ended
            proof = following(bucket, found.cursor)
        finally:
            ended.cancel()
            if not ended.cancelled():
                ended.exception()
            await consumer.stop()
        return await finish_following(bucket, found.cursor, proof)
    finally:
        if proof is not None:
            proof.close()


def following(bucket: Bucket, seq: int) -> PendingRequest | None:
    """Ask the leader for the first meta after a sequence; ``None`` while there is no connection."""
    subject = all_meta_subject(bucket.name)
    try:
        return bucket.start_leader_request({"seq": seq + 1, "next_by_subj": subject})
    except NatsError as exc:
        if not retryable(exc):
            raise
        return None


async def finish_following(bucket: Bucket, seq: int, pending: PendingRequest | None) -> StoredMessage | None:
    """The answer to :func:`following`; asked for again where that may help."""
    if pending is not None:
        try:
            return await bucket.finish_leader_read(pending)
        except NatsError as exc:
            if not retryable(exc):
                raise
    return await bucket.first_after(all_meta_subject(bucket.name), seq)


async def meta_subjects(bucket: Bucket) -> dict[str, int] | None:
    """The subjects of all metas, from the leader; ``None`` when that is more than a message may hold."""
    try:
        return await bucket.retrying(lambda: _subjects(bucket))
    except _TooMany:
        return None


class _TooMany(NatsError):
    """The answer was not to be had in one piece."""


async def _subjects(bucket: Bucket) -> dict[str, int]:
    try:
        return await bucket.js.stream_subjects(bucket.stream, all_meta_subject(bucket.name))
    except (RemoteProtocolError, StaleConnectionError) as exc:
        # A page of 100 000 long names ends the connection; whatever else did, metas can be read instead.
        raise _TooMany(str(exc)) from exc


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
        async with aclosing(bucket.messages(all_meta_subject(bucket.name))) as messages:
            async for message in messages:
                found.stored(message)
        return
    lacking = [subject for subject in subjects if subject not in seen]
    loop = asyncio.get_running_loop()
    deadline, wait = loop.time() + bucket.retry_budget, FIRST_RETRY
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
            if loop.time() + wait > deadline:
                raise StaleConnectionError("the leader lists names whose metas it does not have")
            await bucket.pause(wait, deadline)
            wait = min(wait * 2, LAST_RETRY)
            bucket.miscounts |= bucket.skips_live


async def each_newest(
    bucket: Bucket, subjects: list[str]
) -> AsyncGenerator[tuple[str, StoredMessage | None], None]:
    """The newest messages of many subjects from the leader, several asked for at a time."""
    for at in range(0, len(subjects), AT_ONCE):
        part = subjects[at : at + AT_ONCE]
        pending: list[PendingRequest] = []
        try:
            try:
                pending.extend(map(bucket.start_leader_read, part))
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
                    ),
                )
        finally:
            for request in pending:
                request.close()


async def _finish(bucket: Bucket, subject: str, pending: PendingRequest | None) -> StoredMessage | None:
    """The answer to a leader read that was begun; asked for again where that may help."""
    if pending is not None:
        try:
            return await bucket.finish_leader_read(pending)
        except NatsError as exc:
            if not retryable(exc):
                raise
    return await bucket.leader_message(subject)
