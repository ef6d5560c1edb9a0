"""Read single messages of a stream, without a consumer: from the leader, or by direct get (ADR-31)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypedDict

from .._values import seconds
from ..aio.options import check_integer
from ..errors import (
    APIError,
    ConfigError,
    InvalidNameError,
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
    UnsupportedFeatureError,
)
from ..subjects import check_subscribe_subject, has_wildcards, subject_matches
from .api.codec import MAX_DOCUMENT, dumps, is_number
from .api.errors import JetStreamNotEnabledError, MessageNotFoundError, StreamNotFoundError, check_name
from .api.messages import leader_message
from .api.models import StoredMessage
from .direct_get import (
    END_OF_BATCH,
    BatchRequest,
    BatchSlot,
    CheckedBatch,
    answering_stream,
    has_said,
    reply_status,
    said_by,
    status_error,
    stored_message,
)
from .in_flight import LIMIT as IN_FLIGHT
from .in_flight import in_flight
from .requests import ASKED_AGAIN, ApiRequests

if TYPE_CHECKING:
    from ..wire import Msg as WireMsg

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of one batch read by default; without a limit the server would send 64 MiB unthrottled."""

MOST_SUBJECTS = 1024
"""Subjects that a multi-get may match."""

COPY_KNOWN = 60.0
"""Seconds for which it is remembered whether another stream that answers direct gets is a mirror."""


class MessageReads(ApiRequests):
    """The part of :class:`natsproto.JetStreamContext` that reads and deletes single messages."""

    async def get_message(
        self,
        stream: str,
        *,
        seq: int | None = None,
        last_by_subject: str | None = None,
        next_by_subject: str | None = None,
        start_time: datetime | None = None,
    ) -> StoredMessage:
        """Read one message from the stream's **leader**: never stale.

        Args:
            seq: its sequence, or with ``next_by_subject`` the lowest one to consider.
            last_by_subject: the newest message of a subject.
            next_by_subject: the first message of a subject (wildcards allowed) from ``seq`` or ``start_time``
                on.
            start_time: the first message stored at that time or later, by the server's clock (2.11).

        Raises:
            ConfigError: none of them was given, or two that exclude each other.
            MessageNotFoundError: there is no such message.
            UnsupportedFeatureError: the server is too old for ``start_time``.
        """
        document = _selector(seq, last_by_subject, next_by_subject, start_time)
        suffix = f"STREAM.MSG.GET.{check_name('stream', stream)}"
        message = leader_message(await self.request(suffix, document, limit=MAX_DOCUMENT))
        if not _fits(document, message):  # somebody has had the answer to another question sent
            raise RemoteProtocolError(f"another message was asked for than {message.seq} of {stream!r}")
        return _since(start_time, message)

    async def direct_get(
        self,
        stream: str,
        *,
        seq: int | None = None,
        last_by_subject: str | None = None,
        next_by_subject: str | None = None,
        start_time: datetime | None = None,
    ) -> StoredMessage:
        """Like :meth:`get_message`, but from any replica: cheaper, and possibly stale with replicas.

        Needs ``allow_direct`` on the stream; nats-server 2.9. The subject of ``last_by_subject`` is appended
        to the API subject, so that a user may have the right to read some subjects only; who has no such
        right asks without it.

        A mirror of the stream may answer. Messages of other streams, and what was not asked for, are ignored;
        but "not found" does not say what, and somebody may have that sent.

        Raises:
            MessageNotFoundError: there is no such message.
            NoRespondersError: no such stream, or direct get is not allowed.
            UnsupportedFeatureError: the server is too old for ``start_time``.
        """
        suffix = f"DIRECT.GET.{check_name('stream', stream)}"
        document = _selector(seq, last_by_subject, next_by_subject, start_time)
        subject = last_by_subject
        if subject is not None and not has_wildcards(subject) and stream not in self._whole_streams:
            appended = self._appended(suffix, subject)
            if appended is not None:
                try:
                    return await self._direct(stream, appended, b"", document)
                except PermissionsViolationError:
                    found = await self._direct(stream, self.subject(suffix), dumps(document), document)
                    self._whole_streams.add(stream)
                    return found
        message = await self._direct(stream, self.subject(suffix), dumps(document), document)
        return _since(start_time, message)

    async def _direct(self, stream: str, subject: bytes, request: bytes, document: Selector) -> StoredMessage:
        """Return the answer to ``document`` that the stream gives, or a mirror of it."""
        self.client.connection.check_headers("direct get")
        own = said_by(stream.encode())
        found: StoredMessage | None = None
        other: bytes | None = None

        def counts(msg: WireMsg) -> bool:
            nonlocal found, other
            block = msg.header
            if block is None or msg.reply is not None:
                return False
            status = reply_status(msg)
            if status is not None:
                return status != END_OF_BATCH
            try:
                message = stored_message(msg)
            except RemoteProtocolError:
                return False
            if not _fits(document, message):
                return False
            said = None
            if not has_said(own, block):
                said = answering_stream(block)
                if said is None or self._may_answer(stream, said) is False:
                    return False
            found, other = message, said
            return True

        for _ in range(ASKED_AGAIN):
            msg = await self.client.request_frame(subject, request, b"", self.timeout, counts=counts)
            if found is None:
                assert msg.header is not None
                raise status_error(msg.header, subject.decode())
            if other is None or await self._is_copy(stream, other):
                return found
            found = other = None
        raise RemoteProtocolError(f"only other streams answer a direct get of {stream!r}")

    def _may_answer(self, stream: str, other: bytes) -> bool | None:
        """Whether the answer of ``other`` counts for ``stream``, as that of a mirror.

        ``None``: that is not known, so :meth:`_is_copy` has to find out.
        """
        copy, until = self._copies.get((stream, other), (False, 0.0))
        return copy if until > self.client.connection.loop.time() else None

    async def _is_copy(self, stream: str, other: bytes) -> bool:
        """Find out whether ``other`` is a mirror of ``stream``; it is one if this user cannot find out."""
        copy = self._may_answer(stream, other)
        if copy is not None:
            return copy
        try:
            name = check_name("stream", other.decode("utf-8", "replace"))
            config = (await self.request(f"STREAM.INFO.{name}"))["config"]
            mirror = config.get("mirror") if isinstance(config, dict) else None
            copy = isinstance(mirror, dict) and mirror.get("name") == stream
        except (StreamNotFoundError, InvalidNameError):
            copy = False
        except (
            PermissionsViolationError,
            NoRespondersError,
            JetStreamNotEnabledError,
            RequestTimeoutError,
        ):
            copy = True
        self._copies[stream, other] = copy, self.client.connection.loop.time() + COPY_KNOWN
        return copy

    def get_batch(
        self,
        stream: str,
        *,
        subject: str = ">",
        seq: int | None = None,
        start_time: datetime | None = None,
        batch: int = 256,
        max_bytes: int = BATCH_BYTES,
    ) -> AsyncGenerator[StoredMessage, None]:
        """Direct get of up to ``batch`` messages of ``subject`` (nats-server 2.11).

        Each carries ``num_pending``; before nats-server 2.12 that is one too high. The batch ends after
        ``batch`` messages, after ``max_bytes`` (the last message may exceed it), or when no more match; the
        next one begins at the last ``seq + 1``. A server older than 2.11 answers with one message without
        ``num_pending``.

        All batches and object reads of a connection ask for at most 24 MiB at a time; further ones wait for
        their turn. So the server need not end the connection because too much waits for it.

        Args:
            seq: the lowest sequence (default 1).
            start_time: instead of it, the earliest time at which they were stored, by the server's clock.

        Raises:
            ConfigError: both were given, or the time has no zone, or a number makes no sense.
            BadSubjectError: ``subject`` is none.
            MessageNotFoundError: no message matches.
            RequestTimeoutError: nothing came for ``timeout``, or a message was lost on the way.
            UnsupportedFeatureError: the server is too old for ``start_time``.
        """
        check_integer("batch", batch, 1)
        check_integer("max_bytes", max_bytes, 0)
        check_subscribe_subject(subject)
        if start_time is None:
            document: BatchRequest = {"seq": 1 if seq is None else _sequence("seq", seq)}
        elif seq is None:
            document = {"start_time": _time("start_time", start_time)}
        else:
            raise ConfigError("a batch begins at seq or at start_time, not at both")
        document |= {"next_by_subj": subject, "batch": batch, "max_bytes": max_bytes}
        return self._batch(stream, document, batch, max_bytes, since=start_time)

    def get_last_messages(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        seq: int | None = None,
        up_to_seq: int | None = None,
        up_to_time: datetime | None = None,
        batch: int = MOST_SUBJECTS,
        max_bytes: int = BATCH_BYTES,
    ) -> AsyncGenerator[StoredMessage, None]:
        """Direct get of the newest message of each subject (wildcards allowed), by rising sequences.

        At most 1024 subjects may match (nats-server 2.11). They are read page by page, all as of the same
        moment; but a stream that keeps one message per subject no longer has what was replaced meanwhile.

        Args:
            seq: leave out messages with a lower sequence, to go on after the last one with the same
                ``up_to_seq``; then there may be none.
            up_to_seq: as of this sequence.
            up_to_time: as of this time, by the server's clock: messages stored before it.
            batch: at most this many messages.
            max_bytes: of one page (4 MiB), which its last message may exceed.

        Raises:
            ConfigError: ``up_to_seq`` and ``up_to_time``, or the time has no zone, or a number makes no
                sense; or no subject was given.
            BadSubjectError: one of ``subjects`` is none.
            MessageNotFoundError: no message matches.
            MaxPayloadError: the subjects are too many bytes for a request; nothing was sent.
            APIError: more than 1024 subjects match (413), or the server is older (408).
            RequestTimeoutError: nothing came for ``timeout``, or a message was lost on the way.
            UnsupportedFeatureError: the server is too old for ``seq`` or ``up_to_time``.
        """
        if isinstance(subjects, str):
            raise ConfigError("subjects is a sequence of subjects, not one")
        check_integer("batch", batch, 0)  # 0 = the server's limit
        check_integer("max_bytes", max_bytes, 0)
        wanted = [check_subscribe_subject(subject).decode() for subject in subjects]
        if not wanted:
            raise ConfigError("give at least one subject")
        document: BatchRequest = {"multi_last": wanted, "max_bytes": max_bytes}
        if up_to_seq is not None and up_to_time is not None:
            raise ConfigError("give up_to_seq or up_to_time, not both")
        if up_to_seq is not None:
            document["up_to_seq"] = _sequence("up_to_seq", up_to_seq)
        if up_to_time is not None:
            document["up_to_time"] = _time("up_to_time", up_to_time)
        if seq is not None:
            document["seq"] = _sequence("seq", seq)
        return self._last_messages(stream, document, batch or MOST_SUBJECTS, max_bytes, up_to_time)

    async def _last_messages(
        self,
        stream: str,
        document: BatchRequest,
        most: int,
        max_bytes: int,
        before: datetime | None,
    ) -> AsyncGenerator[StoredMessage, None]:
        last: StoredMessage | None = None
        while True:
            request: BatchRequest = {**document, "batch": most}
            ends: list[BatchSlot] = []
            new = 0
            try:
                async with aclosing(self._batch(stream, request, most, max_bytes, ends=ends)) as page:
                    async for message in page:
                        if message.num_pending is None:
                            raise UnsupportedFeatureError("a multi-get from a sequence on", "2.11.0")
                        if before is not None and message.time >= before:
                            # 2.11.0 takes a time before the stream's first message for no limit.
                            raise MessageNotFoundError(404, 10037, "no message found")
                        last = message
                        new += 1
                        yield message
            except MessageNotFoundError:
                if last is None:
                    raise
                return  # deleted since the previous page
            except APIError as exc:
                if before is not None and exc.code == 408:
                    raise UnsupportedFeatureError("up_to_time", "2.11.0") from None
                raise
            most -= new
            # Of the last message, not of the end-of-batch reply, which is one too low in 2.11.
            if last is None or not new or most <= 0 or not last.num_pending or not ends:
                return
            document.pop("up_to_time", None)
            document["seq"] = last.seq + 1
            if ends[0].up_to is not None:
                document["up_to_seq"] = ends[0].up_to

    async def _batch(
        self,
        stream: str,
        document: BatchRequest,
        most: int,
        max_bytes: int | None = None,
        *,
        since: datetime | None = None,
        ends: list[BatchSlot] | None = None,
    ) -> AsyncGenerator[StoredMessage, None]:
        """Yield the messages of one batch, and leave the slot in ``ends`` if it was complete.

        It counts towards what is on its way to the connection until it has come, not until it is read.
        """
        loop = asyncio.get_running_loop()
        queue: deque[StoredMessage] = deque()
        ended: list[NatsError | None] = []
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def on_message(message: StoredMessage) -> None:
            queue.append(message)
            wake()

        def on_done(exc: NatsError | None) -> None:
            ended.append(exc)
            flow.end()
            wake()

        subject = self.subject(f"DIRECT.GET.{check_name('stream', stream)}")
        connection = self.client.connection
        connection.check_open()
        connection.check_headers("direct get")
        request = dumps(document)
        connection.check_size(0, len(request))
        mux, may_answer = connection.mux, partial(self._may_answer, stream)
        largest = connection.max_payload  # the last message may exceed the limit
        size = min((max_bytes or IN_FLIGHT) + largest, most * largest)
        flow = in_flight(connection).flow(size, self.timeout)

        slot: CheckedBatch | None = None
        try:
            while True:
                if slot is None:
                    await flow.begin()
                    connection.check_open()
                    slot = CheckedBatch(
                        subject,
                        on_message,
                        on_done,
                        stream,
                        document,
                        may_answer,
                        most=most,
                        max_bytes=max_bytes,
                    )
                    mux.open(slot)
                    connection.publish(subject, request, slot.inbox)
                while queue:
                    message = queue.popleft()
                    if message.num_pending is None:
                        _since(since, message)
                        flow.end()
                    yield message
                    if message.num_pending is None:
                        return  # a server without batches
                if ended:
                    if ended[0] is not None:
                        raise ended[0]
                    if slot.unknown is None:
                        if ends is not None:
                            ends.append(slot)
                        return
                    mux.close(slot)
                    await self._is_copy(stream, slot.unknown)
                    ended.clear()
                    slot = None
                    continue
                waiter = loop.create_future()
                try:
                    async with asyncio.timeout(self.timeout):
                        await waiter
                except TimeoutError:
                    connection.probe()
                    what = "a message was lost on the way" if slot.gap else "nothing came"
                    raise RequestTimeoutError(
                        f"a batch read of {stream!r} stalled for {seconds(self.timeout)} s: {what}"
                    ) from None
        finally:
            if slot is not None:
                mux.close(slot)
            flow.end()

    async def delete_message(self, stream: str, seq: int, *, erase: bool = False) -> None:
        """Delete one message; ``erase`` overwrites it on disk as well."""
        document = {"seq": seq, "no_erase": not erase}
        await self.request(f"STREAM.MSG.DELETE.{check_name('stream', stream)}", document)


class Selector(TypedDict, total=False):
    """The body of a request for a message."""

    seq: int
    last_by_subj: str
    start_time: str
    next_by_subj: str


def _selector(
    seq: int | None, last: str | None, following: str | None, start_time: datetime | None
) -> Selector:
    """Return the body of a request for a message."""
    document: Selector = {}
    if seq is not None:
        document["seq"] = _sequence("seq", seq)
    if last is not None:
        document["last_by_subj"] = check_subscribe_subject(last).decode()
    if start_time is not None:
        document["start_time"] = _time("start_time", start_time)
        following = following or ">"  # a server that does not know the time answers, too: see _since()
    if following is not None:
        document["next_by_subj"] = check_subscribe_subject(following).decode()
    if not document or (last is not None and len(document) > 1) or {"seq", "start_time"} <= document.keys():
        raise ConfigError(
            "choose one message: seq, last_by_subject, start_time, or next_by_subject (and seq or start_time)"
        )
    return document


def _fits(document: Selector, message: StoredMessage) -> bool:
    """Whether a message may answer the request, by its subject and sequence."""
    following = document.get("next_by_subj")
    pattern = following or document.get("last_by_subj")
    if pattern is not None and pattern != message.subject and not subject_matches(pattern, message.subject):
        return False
    seq = document.get("seq")
    return seq is None or message.seq == seq or (following is not None and message.seq > seq)


def _sequence(name: str, seq: int) -> int:
    if not is_number(seq):
        raise ConfigError(f"{name} is a whole number from 0 on, not {seq!r}")
    return seq


def _time(name: str, time: datetime) -> str:
    if not isinstance(time, datetime) or time.utcoffset() is None:
        raise ConfigError(f"{name} is a datetime with a time zone")
    return time.astimezone(UTC).isoformat()


def _since(start_time: datetime | None, message: StoredMessage) -> StoredMessage:
    """Return the message, unless it is older: servers before 2.11 ignore the time, and find the first one."""
    if start_time is not None and message.time < start_time:
        raise UnsupportedFeatureError("start_time", "2.11.0")
    return message
