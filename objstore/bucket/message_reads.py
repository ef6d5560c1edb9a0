"""Read one stored message in any way that the user's permissions allow.

The permissions of a NATS user are permissions to publish to subjects, and each way to request a message has
its own subject: see ``ways.py`` and ``docs/permissions.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from natsproto._values import brief
from natsproto.errors import (
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
)
from natsproto.jetstream.api.answers import MSG_GET
from natsproto.jetstream.api.codec import MAX_DOCUMENT, dumps, dumps_str, loads, time_from_ns
from natsproto.jetstream.api.errors import (
    MessageNotFoundError,
    api_error,
)
from natsproto.jetstream.api.messages import leader_message
from natsproto.jetstream.api.models import StoredMessage
from natsproto.jetstream.direct_get import reply_status, status_error, stored_message
from natsproto.jetstream.requests import no_answer_error

from .collect import Collector
from .ways import AT_LEADER, BY_SUBJECT, CONSUMER, DELIVERIES, DIRECT, LEADER, PROOFS, UNASKED

if TYPE_CHECKING:
    from natsproto.aio.client import PendingRequest
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.wire import Msg as WireMsg

    from .bucket import Bucket

NO_MESSAGE = MSG_GET + b',"error":{"code":404,"err_code":10037,"description":"no message found"}}'
"""The leader's exact response when there is no message. Any other spelling is decoded as JSON, which costs
2.2 µs: 4 % of a put of 1 KiB under a new name, with 32 puts at once."""

MISSES = 20
"""Responses of mirrors that lack what the leader has, before the read fails. The server picks the responder
for each request."""

MISLED = 10
"""Answers to another question, before the read fails."""

AHEAD = 2 * 1024 * 1024
"""Bytes that a server sends to a new consumer before it waits for an answer to its flow control."""

MOST_AHEAD = 1000
"""Messages that are kept of these at once."""


_NO_TEXT = re.compile("[\ud800-\udfff\ufffd]")
_WILDCARD = re.compile(r"(?:^|\.)[*>](?:\.|$)")


def can_be_requested(subject: str) -> bool:
    """Whether the newest message of a subject can be requested; the others encode no name.

    JSON cannot hold bytes that are no text. A request for a wildcard is answered with the message of another
    subject: old servers store what is published to one.
    """
    return (subject.isascii() or _NO_TEXT.search(subject) is None) and _WILDCARD.search(subject) is None


def last_of(subject: str) -> bytes:
    """Return the request for the newest message of a subject: ``{"last_by_subj": subject}``."""
    return b'{"last_by_subj":%b}' % dumps_str(subject)


def no_way(bucket: Bucket, ways: Iterable[str]) -> PermissionsViolationError:
    """Return the error for a user who may use none of the ways."""
    wanted = [bucket.ways.right_to(way) for way in ways]
    why = " (it has replicas, sources or a mirror, which may be behind)" if bucket.replicated else ""
    return PermissionsViolationError(
        f"this user may not read messages of bucket {bucket.name!r} for this purpose{why}: it needs the "
        f"permission to publish to one of {', '.join(wanted)}; see docs/permissions.md",
        subject=wanted[0],
        operation="publish",
    )


class MessageRead:
    """A request for one message, on its way; call :meth:`wait` or :meth:`close`.

    Args:
        bucket: the bucket to read from.
        subject: the subject of the message; may have wildcards.
        after: read the next message after this sequence; ``None`` = the newest.
        at: read the message at this very sequence, if it has the subject.
        ways: the allowed ways, in order.
        timeout: seconds for each way; default: the context's.

    Raises:
        NatsError: the request could not be sent.
    """

    __slots__ = (
        "_after",
        "_at",
        "_bucket",
        "_most",
        "_pending",
        "_rest",
        "_subject",
        "_timeout",
        "_way",
        "_ways",
    )

    def __init__(
        self,
        bucket: Bucket,
        subject: str,
        *,
        after: int | None = None,
        at: int | None = None,
        ways: tuple[str, ...],
        timeout: float | None = None,
    ) -> None:
        self._bucket = bucket
        self._subject = subject
        self._after = after
        self._at = at
        self._ways = ways
        self._timeout = bucket.js.timeout if timeout is None else timeout
        self._pending: PendingRequest | None = None
        self._most = 1
        self._ask()

    async def wait_for_run(self) -> list[StoredMessage]:
        """Return the next message, and those behind it that a consumer is sent anyway; none at the end.

        Raises:
            PermissionsViolationError: as :meth:`wait`.
            NatsError: likewise.
        """
        self._most = MOST_AHEAD
        first = await self.wait()
        return [] if first is None else [first, *self._rest]

    async def wait(self) -> StoredMessage | None:
        """Return the message; ``None`` when there is none.

        Raises:
            PermissionsViolationError: the user may not read it in any way.
            NatsError: the read failed.
        """
        bucket = self._bucket
        misses = misled = 0
        while True:
            try:
                if self._way is LEADER:
                    message = await self._from_leader()
                elif self._way is CONSUMER:
                    message = await self._from_consumer()
                else:
                    message = await self._direct()
                if message is not None and not self._fits(message):
                    misled += 1
                    if misled == MISLED:
                        raise self._other(message)
                    self._ask(self._way)
                    continue
                if message is not None and self._at is not None and message.subject != self._subject:
                    return None
                if self._way is LEADER or self._way is CONSUMER:
                    return message
                # Mirrors respond, too: with what they have, or that there is nothing.
                doubtful = message is None or bucket.is_copy(message.header)
                if doubtful and LEADER in self._ways and bucket.ways.allowed(LEADER):
                    self._ask(LEADER)
                elif doubtful and message is not None and self._ways is PROOFS:
                    raise no_way(bucket, AT_LEADER)
                elif message is None and await self._counted():
                    misses += 1
                    if misses == MISSES:
                        raise RequestTimeoutError(
                            f"only mirrors of bucket {bucket.name!r} answer, and they lack the message so far"
                        )
                    self._ask()
                else:
                    return message
            except PermissionsViolationError as exc:
                if bucket.ways.refused_by(exc) != self._way:
                    raise
                bucket.ways.note_refusal(exc)
                self._ask()

    async def _counted(self) -> bool:
        """Whether the leader counts messages of the subject: every user may request that."""
        bucket = self._bucket
        newest = self._after is None and self._at is None
        return newest and bool(await bucket.js.stream_subjects(bucket.stream, self._subject))

    def close(self) -> None:
        """Drop the request; a late response is ignored. Idempotent."""
        if self._pending is not None:
            self._pending.close()

    def _ask(self, way: str | None = None) -> None:
        bucket = self._bucket
        way = self._way = way or self._next_way()
        self._rest: list[StoredMessage] = []
        if way is CONSUMER:
            self._pending = None
            return
        subject = bucket.leader_subject if way is LEADER else bucket.direct_subject
        if way is BY_SUBJECT:
            subject, document = b"%b.%b" % (subject, self._subject.encode()), b""
        elif self._at is not None:
            document = dumps({"seq": self._at})
        elif self._after is None:
            document = last_of(self._subject)
        else:
            document = dumps({"seq": self._after + 1, "next_by_subj": self._subject})
        begins = MSG_GET if way is LEADER else None
        self._pending = bucket.client.start_request(subject, document, b"", self._timeout, begins=begins)

    def _next_way(self) -> str:
        bucket = self._bucket
        for way in self._ways:
            if self._can_tell(way) and bucket.ways.allowed(way):
                return way
        if bucket.fits(self._subject):
            bucket.ways.forget_refusals()  # the next read tries all of them again
        raise no_way(bucket, filter(self._can_tell, self._ways))

    def _can_tell(self, way: str) -> bool:
        """Whether this way supports the request."""
        if way is LEADER:
            return True
        if way is not DIRECT and not self._bucket.fits(self._subject):
            return False
        if way is CONSUMER:
            return self._at is None
        newest = self._after is None and self._at is None
        if way is BY_SUBJECT and (not newest or self._subject.endswith(">")):
            return False
        return self._bucket.direct

    def _fits(self, message: StoredMessage) -> bool:
        """Whether this may be the answer: somebody may have that to another question sent to our inbox."""
        if self._at is not None:
            return message.seq == self._at
        wanted = self._subject
        fits = message.subject.startswith(wanted[:-1]) if wanted.endswith(">") else message.subject == wanted
        return fits and message.seq > (self._after or 0)

    def _other(self, message: StoredMessage) -> RemoteProtocolError:
        where = f"after {self._after or 0}" if self._at is None else f"at {self._at}"
        return RemoteProtocolError(
            f"asked for {self._subject!r} {where}, got {brief(message.subject)} at {message.seq}"
        )

    async def _from_leader(self) -> StoredMessage | None:
        bucket, pending = self._bucket, self._pending
        assert pending is not None
        try:
            msg = await pending.wait()
        except NoRespondersError as exc:
            raise no_answer_error(bucket.client, exc) from None
        if bucket.domain_changed:
            await bucket.check_same()
        if msg.payload == NO_MESSAGE:
            return None  # before every put of a new name
        answer = loads(msg.payload, MAX_DOCUMENT)
        if "error" in answer:
            error = api_error(answer["error"])
            if isinstance(error, MessageNotFoundError):
                return None
            raise bucket.translate(error)
        return leader_message(answer)

    async def _direct(self) -> StoredMessage | None:
        pending = self._pending
        assert pending is not None
        msg = await pending.wait()
        if self._bucket.domain_changed:
            await self._bucket.check_same()
        if reply_status(msg) is None:
            return stored_message(msg)
        assert msg.header is not None
        error = status_error(msg.header, "direct get")
        if isinstance(error, MessageNotFoundError):
            return None
        raise error

    async def _from_consumer(self) -> StoredMessage | None:
        """Return the first message that a consumer delivers, if any; keep as many behind it as are wanted."""
        bucket = self._bucket
        most = 1 if bucket.consumers_skip else self._most
        limit = AHEAD if bucket.ways.allowed(DELIVERIES) else UNASKED
        found: list[StoredMessage] = []
        size = 0

        def on_message(msg: WireMsg, delivery: Delivery) -> None:
            nonlocal size
            if reading.over:
                return
            subject, data = msg.subject.decode("utf-8", "surrogateescape"), bytes(msg.payload)
            message = StoredMessage(
                subject, delivery.stream_seq, data, msg.header, time_from_ns(delivery.time_ns)
            )
            if not found or self._fits(message):
                found.append(message)
                size += len(data)
            if len(found) == most or size > limit or not delivery.num_pending or found[-1] is not message:
                reading.finish()

        for _ in range(MISLED):
            async with Collector(
                bucket, self._subject, on_message, "last", after=self._after, single=most == 1
            ) as reading:
                if not (await reading.start_once()).num_pending:
                    return None
                try:
                    await reading.ended
                except PermissionsViolationError as exc:
                    if not found or not bucket.ways.note_refusal(exc):
                        raise
            if found:
                first, *self._rest = found
                return first
            # It was removed meanwhile; or the heartbeat of somebody's pull has ended this.
        raise RequestTimeoutError(f"a consumer of bucket {bucket.name!r} does not deliver what it counts")
