"""Commit a meta message: the I/O around :mod:`objstore.commit.states`, which makes all decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from natsproto.backoff import Backoff
from natsproto.errors import APIError, ConnectionClosedError, NatsError
from natsproto.headers import header_value
from natsproto.jetstream.api.errors import StreamNotFoundError, WrongLastSequenceError, retryable
from natsproto.jetstream.api.models import PubAck, StoredMessage
from natsproto.subjects import check_publish_subject, random_bytes

from ..bucket.bucket import Bucket, log
from ..bucket.capacity import check_meta_room
from ..bucket.refusals import certainly_refused
from ..bucket.ttl import end_line, ttl_line
from ..errors import OutcomeUnknownError, RevisionConflictError
from ..format.codec import META_HEADER, MetaDecodeError
from ..format.models import ObjectInfo
from ..format.naming import meta_subject
from .states import ENDS, CommitStates, Standing, Step, content_of

CANCEL_GRACE = 5.0
"""Seconds a cancelled commit may take to determine its outcome, and to clean up."""

Undo = Callable[[], Awaitable[None]]


def meta_header(
    expected: int,
    msg_id: str,
    ttl: timedelta | None = None,
    end: datetime | None = None,
    marks: bytes = b"",
) -> bytes:
    """Return the header block of a meta message that replaces revision ``expected`` (0 = none)."""
    more = marks if ttl is None and end is None else ttl_line(ttl) + end_line(end) + marks
    return (
        b"NATS/1.0\r\nNats-Rollup: sub\r\n"
        b"Nats-Expected-Last-Subject-Sequence: %d\r\nNats-Msg-Id: %b\r\n%b\r\n"
    ) % (expected, msg_id.encode(), more)


class Conflict(Exception):
    """The revision was not the expected one; ``current`` is the newest readable meta, ``None`` if none."""

    def __init__(self, revision: int, current: ObjectInfo | None) -> None:
        super().__init__(revision)
        self.revision = revision
        self.current = current

    @property
    def absent(self) -> bool:
        """Whether no live object exists: there is no meta, or a delete marker."""
        return self.revision == 0 or (self.current is not None and self.current.deleted)


class Unsent(Exception):
    """A copy was given up before any of it could be stored; ``reason`` is the cause."""

    def __init__(self, reason: NatsError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def chunks_of(info: ObjectInfo | None, own: str = "") -> str:
    """Return the nuid of the chunks that are unused after a meta with nuid ``own`` replaces ``info``."""
    if info is None or info.deleted or info.is_link or not info.chunks or info.nuid == own:
        return ""
    return info.nuid


def standing_of(bucket: Bucket, message: StoredMessage | None) -> Standing:
    """Convert a read of the newest meta to the input of the state machine."""
    if message is None:
        return Standing()
    header = message.header
    msg_id = None if header is None else header_value(header, b"Nats-Msg-Id")
    try:
        info = bucket.decode(message)
    except MetaDecodeError:
        info = None
    return Standing(message.seq, "" if msg_id is None else msg_id.decode("ascii", "replace"), info)


class Commit:
    """The commit of one meta message.

    Args:
        bucket: the bucket of the meta.
        name: the object's name.
        payload: the encoded meta.
        expected: required sequence of the subject's last message; 0 = no message.
        nuid: the nuid of its chunks, for logs and errors.
        subject: the subject of the meta, if it differs from this library's.
        ttl: how long the meta lives.
        end: when the changed object's time to live ends.
        marks: the marks of a rename, as header lines.
        replaces: the meta at ``expected``; its chunks are discarded afterwards.
        owns: the object, if its nuid and chunks belong to this commit only: for a put, never for an update.
        after: sequence of the last of these chunks.
        borrows: the meta refers to chunks that another meta referred to before.
        on_newer: awaited with each newer meta; last writer wins. ``None``: a newer meta is a conflict.
        discard: removes the chunks of the replaced meta.
        proven: something else is removed afterwards: the leader has to show that this was committed.
        conditional: false if the caller said nothing of what it may replace.
    """

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        payload: bytes,
        *,
        expected: int,
        nuid: str,
        subject: str | None = None,
        ttl: timedelta | None = None,
        end: datetime | None = None,
        marks: bytes = b"",
        replaces: ObjectInfo | None = None,
        owns: ObjectInfo | None = None,
        after: int = 0,
        borrows: bool = False,
        on_newer: Callable[[Conflict], Awaitable[bool]] | None = None,
        discard: Callable[[ObjectInfo], Awaitable[None]] | None = None,
        proven: bool = False,
        conditional: bool = True,
    ) -> None:
        self._bucket = bucket
        self._name = name
        self._payload = payload
        self._nuid = nuid
        self._own = "" if owns is None else nuid
        self._subject = subject or meta_subject(bucket.name, name)
        self._wire_subject = check_publish_subject(subject) if subject else self._subject.encode()
        self._counts = after > 0 or borrows
        self._ttl = ttl
        self._end = end
        self._marks = marks
        self._on_newer = on_newer
        self._discard = discard
        self._replaces = replaces
        self._loop = bucket.connection.loop
        self._failure: NatsError | None = None
        self.states: CommitStates = CommitStates(
            random_bytes().hex(),
            expected=expected,
            replaced=self._chunks_to_discard(),
            content=None if owns is None else content_of(owns),
            after=after,
            last_writer_wins=on_newer is not None,
            budget=bucket.retry_budget,
            replicated=bucket.replicated,
            proven=proven,
            early=bucket.old.checks_early,
            conditional=conditional,
        )

    async def run(self, undo: Undo | None = None) -> int:
        """Publish, remove the chunks of the replaced meta, and return the revision.

        A cancellation is delayed, at most by :data:`CANCEL_GRACE`, until the outcome is known. If nothing was
        committed for certain, ``undo`` runs within that time. An unknown outcome is logged.

        Returns:
            Our revision, or that of a later change of our meta by another client.

        Raises:
            Conflict: the revision is another one; nothing was committed.
            StoreFullError, BucketSealedError, NatsError: refused; nothing was committed.
            OutcomeUnknownError: the outcome could not be determined; everything is kept.
        """
        bucket = self._bucket
        bucket.connection.check_open()
        if not self._own:  # a put has checked the room before its chunks
            await check_meta_room(bucket, self._name, META_HEADER + len(self._marks) + len(self._payload))
        try:
            await self._drive()
        except asyncio.CancelledError:
            await bucket.run_to_end(self._after_cancel(undo))
            raise
        states = self.states
        if states.step is Step.DONE and states.removes:
            await bucket.run_to_end(self._remove_replaced())
        return self._result()

    @property
    def kept(self) -> ObjectInfo | None:
        """The newest meta, if it is a later change of ours by another client."""
        states = self.states
        standing = states.standing
        if states.step is not Step.KEPT or standing is None or standing.revision != states.revision:
            return None
        return standing.info

    async def _drive(self) -> None:
        """Follow the state machine until it has ended."""
        states, backoff = self.states, Backoff()
        while states.step not in ENDS:
            if states.again:
                await self._pause(backoff.seconds)
                backoff.grow()
            if states.step in ENDS:
                return  # closed meanwhile
            if states.step is Step.SEND:
                await self._send()
            elif states.step is Step.REPLACE:
                await self._replace()
                backoff.reset()
            else:
                await self._read()

    async def _pause(self, wait: float) -> None:
        """Wait, and until the client is connected again; the remaining time bounds both."""
        try:
            await self._bucket.pause(wait, self._loop.time() + max(0.0, self.states.left(self._loop.time())))
        except ConnectionClosedError as exc:
            self._failure = exc
            self.states.give_up()
        except NatsError as exc:
            self._failure = exc

    async def _send(self) -> None:
        states, now = self.states, self._loop.time()
        states.attempt(now)
        timeout = max(0.1, min(self._bucket.js.timeout, states.left(now)))
        try:
            if self._bucket.domain_changed:
                await self._check_same()
            ack = await self._publish(states.expected, states.msg_id, timeout)
        except WrongLastSequenceError:
            states.lost()
        except Unsent as exc:
            self._failure = exc.reason
            if retryable(exc.reason):
                states.unsent(self._loop.time())
            else:
                states.give_up()
        except NatsError as exc:
            self._failure = exc
            left = max(0.1, min(self._bucket.js.timeout, states.left(self._loop.time())))
            if await certainly_refused(self._bucket.client, exc, left):
                states.refused(unforgeable=not isinstance(exc, APIError))
            else:
                states.silent()
        else:
            states.acked(ack.seq, ack.duplicate, self._loop.time())

    async def _check_same(self) -> None:
        """Check that no byte goes to a bucket of the same name in another domain."""
        try:
            await self._bucket.check_same(self._name)
        except NatsError as exc:
            raise Unsent(exc) from exc

    async def _publish(self, expected: int, msg_id: str, timeout: float) -> PubAck:
        """Publish one copy; return the stream's own acknowledgement."""
        bucket = self._bucket
        header = meta_header(expected, msg_id, self._ttl, self._end, self._marks)
        try:
            bucket.connection.check_size(len(header), len(self._payload))
            bucket.connection.check_open()
        except NatsError as exc:
            raise Unsent(exc) from exc
        self.states.sent()
        msg = await bucket.client.request_frame(
            self._wire_subject,
            self._payload,
            header,
            timeout,
            begins=b"",
            counts=lambda msg: bucket.acks.may_answer(msg.payload, header),
        )
        return bucket.own_ack(msg)

    async def _read(self) -> None:
        bucket, states = self._bucket, self.states
        try:
            async with asyncio.timeout(
                max(0.5, min(bucket.js.timeout, states.left(self._loop.time()) + 1.0))
            ):
                last = None
                if bucket.old.checks_early:
                    await bucket.old.settle()
                if states.step is Step.READ_WITH_LAST:
                    last = (await bucket.js.stream_info(bucket.stream)).last_seq
                standing = await self._look()
        except (NatsError, TimeoutError) as exc:
            if isinstance(exc, NatsError):
                if not isinstance(self._failure, APIError):  # else that refusal is the cause
                    self._failure = exc
                if not retryable(exc):
                    states.give_up()
                    return
            states.unreadable(self._loop.time())
        else:
            if standing is None:
                states.batch_name_changed()
            else:
                states.stands(standing, self._loop.time(), last)

    async def _look(self) -> Standing | None:
        """Return the newest meta; ``None`` when another client changed a second name of this commit."""
        standing = await self._standing(self._subject)
        if self._counts and not standing.revision and not self.states.expected:
            return Standing(chunks_gone=not await self._bucket.stored_chunks(self._nuid))
        return standing

    async def _standing(self, subject: str) -> Standing:
        bucket = self._bucket
        return standing_of(bucket, await bucket.leader_read(subject).wait())

    async def _replace(self) -> None:
        standing = self.states.standing or Standing()
        conflict = Conflict(standing.revision, standing.info)
        if self._on_newer is None or not await self._on_newer(conflict):
            self.states.concede()
            return
        self._replaces = standing.info
        self.states.replace(self._chunks_to_discard())

    def _chunks_to_discard(self) -> str:
        return "" if self._discard is None else chunks_of(self._replaces, self._own)

    # -- the end ----------------------------------------------------------------------------------

    def _result(self) -> int:
        states = self.states
        if states.step in (Step.DONE, Step.KEPT):
            return states.revision
        if states.step is Step.CONFLICT:
            standing = states.standing or Standing()
            raise Conflict(standing.revision, standing.info)
        failure = self._failure
        if failure is not None and (states.certain or isinstance(failure, StreamNotFoundError)):
            error = self._bucket.translate(failure, self._name)
            raise error from (failure if error is not failure else None)
        raise self.unknown() from failure

    async def _remove_replaced(self) -> None:
        """Remove the replaced chunks; a failure is only logged, since ours is committed."""
        if self._discard is None or self._replaces is None:
            return
        try:
            await self._discard(self._replaces)
        except NatsError as exc:
            log.warning("after a commit of %r in bucket %r: %s", self._name, self._bucket.name, exc)

    async def _after_cancel(self, undo: Undo | None) -> None:
        """Determine the outcome and clean up, within :data:`CANCEL_GRACE`."""
        states = self.states
        states.hurry(self._loop.time(), CANCEL_GRACE - 0.5)
        try:
            async with asyncio.timeout(CANCEL_GRACE):
                if states.copies:
                    await self._drive()
                if states.step is Step.DONE and states.removes:
                    await self._remove_replaced()
                elif states.certain and undo is not None:
                    await undo()
        except (TimeoutError, NatsError, Conflict) as exc:
            log.warning("after a cancelled commit of %r in bucket %r: %s", self._name, self._bucket.name, exc)
        if states.step not in (Step.DONE, Step.KEPT) and not states.certain:
            log.warning("%s", self.unknown())

    def unknown(self) -> OutcomeUnknownError:
        """Return the error for an unknown outcome."""
        return unknown_outcome(self._bucket, self._name, self._nuid)


class ConflictBackoff:
    """Jittered exponential backoff for last-writer-wins commits.

    The first retry follows at once, later ones after growing random pauses, so that many writers of one name
    do not block each other. The retry budget bounds the total time.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._random = bucket.connection.pool.rng.random
        self._deadline = asyncio.get_running_loop().time() + bucket.retry_budget
        self._longest = 0.001

    async def again(self) -> bool:
        """Pause before a retry; false when the budget is used up."""
        if asyncio.get_running_loop().time() > self._deadline:
            return False
        self._longest = min(self._longest * 1.5, 0.05)
        if self._longest > 0.002:
            await asyncio.sleep(self._longest * self._random())
        return True


def unknown_outcome(bucket: Bucket, name: str, nuid: str) -> OutcomeUnknownError:
    """Return the error for a commit with an unknown outcome."""
    return OutcomeUnknownError(
        f"whether {name!r} was stored in bucket {bucket.name!r} could not be found out; "
        f"its chunks ({nuid[:80]}) are kept",
        bucket=bucket.name,
        name=name,
        nuid=nuid,
    )


def lost_race(bucket: Bucket, name: str, expected: int | None, conflict: Conflict) -> RevisionConflictError:
    """Return the error for a compare-and-set that the caller requested."""
    return RevisionConflictError(
        f"{name!r} in bucket {bucket.name!r} is at revision {conflict.revision}, not {expected}",
        bucket=bucket.name,
        name=name,
        expected=expected,
        current=conflict.revision,
    )
