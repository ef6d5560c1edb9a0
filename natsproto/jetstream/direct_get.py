"""Direct get (ADR-31): reads without a consumer, one message or a batch, served by any replica."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypedDict

from .._values import cut
from ..aio.handlers import ReplySlot
from ..errors import APIError, NatsError, NoRespondersError, RemoteProtocolError
from ..headers import status_of
from ..subjects import has_wildcards, subject_matches
from ..wire import Msg as WireMsg
from ..wire import Target
from .api.codec import parse_time
from .api.errors import MessageNotFoundError
from .api.models import StoredMessage

END_OF_BATCH = 204  # status

STREAM = b"Nats-Stream: "
SUBJECT = b"\r\nNats-Subject: "

_LINES = re.compile(
    rb"\r\nNats-Subject: ([^\r\n]*)\r\nNats-Sequence: ([0-9]{1,19})\r\nNats-Time-Stamp: ([^\r\n]*)\r\n\r\n\Z"
)
"""The last lines of a header, which the server adds: read at once, in half the time."""

HEADER_ROOM = 8192
"""Bytes of a header that do not count towards a batch: the server's own lines, with a long subject."""


def header_bytes(block: bytes, key: bytes) -> bytes | None:
    """Return the value of the *last* header ``key``: the server's headers follow the stored message's."""
    at = block.rfind(b"\r\n" + key + b": ")
    if at < 0:
        return None
    at += len(key) + 4
    return block[at : block.find(b"\r\n", at)]


def answering_stream(block: bytes) -> bytes | None:
    """Return the stream that answered, as its server says; ``None`` when that cannot be known.

    A mirror that answers for its origin (``mirror_direct``) says its own name. The server's line is the one
    directly before the subject's line, after all headers of the stored message. It need not begin there: of a
    stored header that lacks its end the server cuts off two bytes, and goes on.
    """
    end = block.rfind(SUBJECT)
    at = block.rfind(STREAM, 0, end)
    if at < 0 or end < 0:
        return None
    stream = block[at + len(STREAM) : end]
    return None if b"\r\n" in stream or b" " in stream else stream  # no name of a stream has them


def said_by(stream: bytes) -> bytes:
    """Return the line with which a stream answers, for :func:`has_said`."""
    return STREAM + stream


def has_said(line: bytes, block: bytes) -> bool:
    """Whether :func:`answering_stream` is that of the line; faster."""
    return block.endswith(line, 0, block.rfind(SUBJECT))


def header_int(block: bytes, key: bytes) -> int | None:
    """Return :func:`header_bytes` as a number; ``None`` when it is absent or not a number."""
    value = header_bytes(block, key)
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else None


def batch_int(block: bytes, key: bytes) -> int | None:
    """Return :func:`header_int` of a line that a server adds to the messages of a batch.

    Other messages have none, but what is stored may: the server's lines follow that with the subject.
    """
    return header_int(block[max(0, block.rfind(SUBJECT)) :], key)


def reply_status(msg: WireMsg) -> int | None:
    """Return the status of a status reply; ``None`` for a message.

    A stored message may have any header, even a status; but the server adds ``Nats-Sequence`` to it.
    """
    block = msg.header
    if block is None or msg.payload or block.find(b"\r\nNats-Sequence: ") >= 0:
        return None
    return status_of(block)


def status_error(block: bytes, subject: str) -> NatsError:
    """Return the error for a status reply to a direct get."""
    status = status_of(block)
    if status == 404:
        return MessageNotFoundError(404, 10037, "no message found")
    if status == 503:
        return NoRespondersError(subject, "no such stream, or direct get is not allowed on it")
    text = cut(block.partition(b"\r\n")[0].decode("ascii", "replace"))
    return APIError(status or 0, 0, f"direct get refused: {text}")


def stored_message(msg: WireMsg) -> StoredMessage:
    """Build a :class:`StoredMessage` from a direct get reply.

    Raises:
        RemoteProtocolError: the reply lacks headers that ADR-31 requires.
    """
    block = msg.header
    if block is None:
        raise RemoteProtocolError("a direct get reply has no headers")
    payload = msg.payload
    data = payload if type(payload) is bytes else bytes(payload)
    found = _LINES.match(block, block.rfind(SUBJECT))
    if found is not None:  # not of a batch, whose messages have more lines
        name, seq, time = found.groups()
        return StoredMessage(name.decode("utf-8", "surrogateescape"), int(seq), data, block, parse_time(time))
    number, subject = header_int(block, b"Nats-Sequence"), header_bytes(block, b"Nats-Subject")
    if number is None or subject is None:
        raise RemoteProtocolError("a direct get reply lacks Nats-Sequence or Nats-Subject")
    return StoredMessage(
        subject.decode("utf-8", "surrogateescape"),
        number,
        data,
        block,
        message_time(block),
        batch_int(block, b"Nats-Num-Pending"),
    )


def message_time(block: bytes) -> datetime:
    """Return the time at which the server stored the message."""
    return parse_time(header_bytes(block, b"Nats-Time-Stamp"))


class BatchSlot(ReplySlot):
    """The replies to one batch request, passed on as they arrive.

    Args:
        subject: the API subject of the request.
        on_message: called with each message and its sequence; ``None``: it has none.
        on_done: called once: with ``None`` at the end of the batch, or with the error.
        placer: returns the destination of a large payload, or ``None``.
        most: how many messages were requested; ``None`` or 0 = the server decides.
        max_bytes: how many bytes were requested, which only the last message may exceed; likewise.
        only: the subject of all messages; ``None`` = any. Others are ignored: the server sends messages of
            other streams here when somebody else names this reply subject in a request.

    A batch with more than was requested ends with a ``RemoteProtocolError``: the caller has no memory for
    more. Duplicates are ignored.

    Attributes:
        left: num_pending of the end-of-batch reply: matching messages after the batch; ``None`` before it.
            The values of the messages are one too high in nats-server 2.11, this one is right.
        last: sequence of the batch's last message, from the end-of-batch reply; ``None`` before it.
        up_to: the stream's newest sequence that a multi-get considered, from the end-of-batch reply.
    """

    __slots__ = (
        "_done",
        "_max_bytes",
        "_most",
        "_newest",
        "_on_done",
        "_on_message",
        "_only",
        "_placer",
        "last",
        "left",
        "up_to",
    )

    def __init__(
        self,
        subject: bytes,
        on_message: Callable[[WireMsg, int | None], None],
        on_done: Callable[[NatsError | None], None],
        placer: Callable[[WireMsg, int], Target] | None = None,
        *,
        most: int | None = None,
        max_bytes: int | None = None,
        only: str | None = None,
    ) -> None:
        super().__init__(subject)
        self._only = b"" if only is None else SUBJECT + only.encode() + b"\r\n"
        self._on_message = on_message
        self._on_done = on_done
        self._placer = placer
        self._most = most or sys.maxsize
        self._max_bytes = max_bytes or sys.maxsize
        self._newest = 0  # sequence of the last message received
        self._done = False
        self.left: int | None = None
        self.last: int | None = None
        self.up_to: int | None = None

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        if self._done:
            return
        status = reply_status(msg)
        if status is None:
            self._take(msg)
        elif status == END_OF_BATCH:
            if msg.header is not None:
                self.left = header_int(msg.header, b"Nats-Num-Pending")
                self.last = header_int(msg.header, b"Nats-Last-Sequence")
                self.up_to = header_int(msg.header, b"Nats-UpTo-Sequence")
            self._finish(None)
        else:
            assert msg.header is not None
            self._finish(status_error(msg.header, self.subject.decode("utf-8", "replace")))

    def _take(self, msg: WireMsg) -> None:
        block = msg.header
        # The last line counts, as in header_bytes(): the message's writer may have set such a header, too.
        if block is not None and self._only and not block.startswith(self._only, block.rfind(SUBJECT)):
            return
        seq = None if block is None else header_int(block, b"Nats-Sequence")
        if seq is not None:
            if seq <= self._newest:
                return
            self._newest = seq
        if self._has_room(msg):
            self._on_message(msg, seq)

    def _has_room(self, msg: WireMsg) -> bool:
        if self._most <= 0 or self._max_bytes < 0:
            self._finish(RemoteProtocolError("a batch has more messages or bytes than were asked for"))
            return False
        self._most -= 1
        self._max_bytes -= len(msg.payload) + max(0, len(msg.header or b"") - HEADER_ROOM)
        return True

    def place(self, rest: bytes, msg: WireMsg, size: int) -> Target:
        return None if self._placer is None or self._done else self._placer(msg, size)

    def on_lost(self, exc: BaseException) -> None:
        self._finish(exc if isinstance(exc, NatsError) else NatsError(str(exc)))

    def _finish(self, exc: NatsError | None) -> None:
        if not self._done:
            self._done = True
            self._on_done(exc)


class CheckedBatch(BatchSlot):
    """A batch of which only what answers its question counts: its stream, subjects and sequences.

    Whoever sees the request can have other streams, or others' requests, answered to this inbox. That is
    ignored: the genuine messages follow. A batch comes from one stream, and each message names the one before
    it, so a message that was lost on the way ends it by the time-out.

    Args:
        stream: the stream that was asked.
        document: the request.
        may_answer: whether another stream may answer for it; ``None`` = not known yet.

    Attributes:
        unknown: the stream of the first message that came, if that was not known: the batch is over.
        gap: whether something was ignored that does not follow the previous message.
    """

    __slots__ = ("_document", "_may_answer", "_on_stored", "_patterns", "_said", "gap", "unknown")

    def __init__(
        self,
        subject: bytes,
        on_message: Callable[[StoredMessage], None],
        on_done: Callable[[NatsError | None], None],
        stream: str,
        document: BatchRequest,
        may_answer: Callable[[bytes], bool | None],
        *,
        most: int,
        max_bytes: int | None,
    ) -> None:
        super().__init__(subject, lambda msg, seq: None, on_done, most=most, max_bytes=max_bytes)
        self._on_stored = on_message
        self._said = said_by(stream.encode())
        self._document = document
        self._may_answer = may_answer
        self._patterns = Patterns(document.get("multi_last") or [document.get("next_by_subj", ">")])
        self.gap = False
        self.unknown: bytes | None = None

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        block = msg.header
        if self._done or block is None or msg.reply is not None:
            return
        status = reply_status(msg)
        if status is None:
            self._take(msg)
        elif self._status_counts(block, status):
            super().on_reply(rest, msg)

    def _status_counts(self, block: bytes, status: int) -> bool:
        multi = "multi_last" in self._document
        if status != END_OF_BATCH:
            return multi or not self._newest  # a multi-get ends so if a message is removed meanwhile
        up_to, wanted = header_int(block, b"Nats-UpTo-Sequence"), self._document.get("up_to_seq")
        if up_to is not None and (not multi or up_to < self._newest or up_to != (wanted or up_to)):
            return False
        return self._follows(block)

    def _take(self, msg: WireMsg) -> None:
        block = msg.header
        assert block is not None
        try:
            message = stored_message(msg)
        except RemoteProtocolError:
            return
        if self._fits(message) and self._is_own(block) and self._follows(block) and self._has_room(msg):
            self._newest = message.seq
            self._on_stored(message)

    def _fits(self, message: StoredMessage) -> bool:
        seq, newest, document = message.seq, self._newest, self._document
        if newest:
            if seq <= newest or message.num_pending is None:
                return False
        elif seq < document.get("seq", 0):
            return False
        return seq <= (document.get("up_to_seq") or seq) and self._patterns.match(message.subject)

    def _is_own(self, block: bytes) -> bool:
        if has_said(self._said, block):
            return True
        stream = answering_stream(block)
        if self._newest or stream is None:
            return False
        known = self._may_answer(stream)
        if known is None:
            self.unknown = stream
            self._finish(None)
        elif known:
            self._said = said_by(stream)
        return known is True

    def _follows(self, block: bytes) -> bool:
        if batch_int(block, b"Nats-Last-Sequence") in (None, self._newest):
            return True
        self.gap = True
        return False


class BatchRequest(TypedDict, total=False):
    """What a batch is asked for: ``next_by_subj``, or ``multi_last``."""

    seq: int
    start_time: str
    next_by_subj: str
    multi_last: list[str]
    up_to_seq: int
    up_to_time: str
    batch: int
    max_bytes: int


class Patterns:
    """Subjects, which may have wildcards; :meth:`match` tells whether a message's is one of them."""

    __slots__ = ("_any", "_literal", "_wild")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._any = ">" in patterns
        self._literal = frozenset(patterns)
        self._wild = [pattern for pattern in patterns if has_wildcards(pattern)]

    def match(self, subject: str) -> bool:
        """Whether one of them has this subject."""
        if self._any or subject in self._literal:
            return True
        return any(subject_matches(pattern, subject) for pattern in self._wild)
