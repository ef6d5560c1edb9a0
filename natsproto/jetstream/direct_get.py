"""Direct get (ADR-31): reads without a consumer, one message or a batch, served by any replica."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime

from .._values import cut
from ..aio.handlers import ReplySlot
from ..errors import APIError, NatsError, NoRespondersError, RemoteProtocolError
from ..headers import status_of
from ..wire import Msg as WireMsg
from ..wire import Target
from .api.codec import parse_time
from .api.errors import MessageNotFoundError
from .api.models import StoredMessage

END_OF_BATCH = 204  # status

SUBJECT = b"\r\nNats-Subject: "

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

    The server writes it directly before the subject's line, after all headers of the stored message.
    """
    begin = b"\r\nNats-Stream: "
    at, end = block.rfind(begin), block.rfind(b"\r\nNats-Subject: ")
    stream = block[at + len(begin) : end]
    # No stream name has a blank. Text with one is the end of a stored header and a server line after it.
    return None if at < 0 or end < at or b"\r\n" in stream or b" " in stream else stream


def header_int(block: bytes, key: bytes) -> int | None:
    """Return :func:`header_bytes` as a number; ``None`` when it is absent or not a number."""
    value = header_bytes(block, key)
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else None


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
    seq, subject = header_int(block, b"Nats-Sequence"), header_bytes(block, b"Nats-Subject")
    if seq is None or subject is None:
        raise RemoteProtocolError("a direct get reply lacks Nats-Sequence or Nats-Subject")
    payload = msg.payload
    return StoredMessage(
        subject.decode("utf-8", "surrogateescape"),
        seq,
        payload if type(payload) is bytes else bytes(payload),
        block,
        message_time(block),
        header_int(block, b"Nats-Num-Pending"),
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
        if self._most <= 0 or self._max_bytes < 0:
            self._finish(RemoteProtocolError("a batch has more messages or bytes than were asked for"))
            return
        self._most -= 1
        self._max_bytes -= len(msg.payload) + max(0, len(block or b"") - HEADER_ROOM)
        self._on_message(msg, seq)

    def place(self, rest: bytes, msg: WireMsg, size: int) -> Target:
        return None if self._placer is None or self._done else self._placer(msg, size)

    def on_lost(self, exc: BaseException) -> None:
        self._finish(exc if isinstance(exc, NatsError) else NatsError(str(exc)))

    def _finish(self, exc: NatsError | None) -> None:
        if not self._done:
            self._done = True
            self._on_done(exc)
