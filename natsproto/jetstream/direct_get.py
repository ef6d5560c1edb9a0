"""Direct get (ADR-31): reads without a consumer, singly or in batches, served by any replica."""

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

END_OF_BATCH = 204

HEADER_ROOM = 8192
"""Bytes of a header that do not count: the server's own lines, and a long subject in one of them."""


def header_bytes(block: bytes, key: bytes) -> bytes | None:
    """The value of the *last* header ``key``: the server's own come after those of the stored message."""
    at = block.rfind(b"\r\n" + key + b": ")
    if at < 0:
        return None
    at += len(key) + 4
    return block[at : block.find(b"\r\n", at)]


def answering_stream(block: bytes) -> bytes | None:
    """The stream that has answered, as its server says; ``None`` when that cannot be told.

    The server's line stands directly before that of the subject, after all lines of the stored message.
    """
    begin = b"\r\nNats-Stream: "
    at, end = block.rfind(begin), block.rfind(b"\r\nNats-Subject: ")
    stream = block[at + len(begin) : end]
    # No name has a blank: with one it is the end of a line of the writer's, and the server's behind it.
    return None if at < 0 or end < at or b"\r\n" in stream or b" " in stream else stream


def header_int(block: bytes, key: bytes) -> int | None:
    """:func:`header_bytes` as a number; ``None`` when absent or none."""
    value = header_bytes(block, key)
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else None


def reply_status(msg: WireMsg) -> int | None:
    """The status of a reply that is no message.

    A stored message may hold any header, a status as well; only the server adds ``Nats-Sequence``.
    """
    block = msg.header
    if block is None or msg.payload or block.find(b"\r\nNats-Sequence: ") >= 0:
        return None
    return status_of(block)


def status_error(block: bytes, subject: str) -> NatsError:
    """The error for a status reply to a direct get."""
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
        RemoteProtocolError: the reply lacks the headers ADR-31 demands.
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
    """The time the server stored the message."""
    return parse_time(header_bytes(block, b"Nats-Time-Stamp"))


class BatchSlot(ReplySlot):
    """The replies to one batch request, handed on as they come.

    Args:
        subject: the API subject the request goes to.
        on_message: called with each message.
        on_done: called once, with ``None`` at the end of the batch or with what went wrong.
        placer: names the place of a large payload, or ``None``.
        most: how many messages were asked for; ``None`` or 0 = the server decides.
        max_bytes: likewise how many bytes, which only the last message may exceed.

    Who asks for so much has the room for it: with more the batch is over, by a ``RemoteProtocolError``. What
    comes twice is passed over.

    Attributes:
        left: matching messages after the batch, as its end says; ``None`` before. To be believed where the
            messages themselves are not: in nats-server 2.11 each of them counts the end of the batch, too.
        last: sequence of the last message of the batch, as its end says; ``None`` before.
    """

    __slots__ = (
        "_done",
        "_max_bytes",
        "_most",
        "_newest",
        "_on_done",
        "_on_message",
        "_placer",
        "last",
        "left",
    )

    def __init__(
        self,
        subject: bytes,
        on_message: Callable[[WireMsg], None],
        on_done: Callable[[NatsError | None], None],
        placer: Callable[[WireMsg, int], Target] | None = None,
        *,
        most: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        super().__init__(subject)
        self._on_message = on_message
        self._on_done = on_done
        self._placer = placer
        self._most = most or sys.maxsize
        self._max_bytes = max_bytes or sys.maxsize
        self._newest = 0  # sequence of the last message that came
        self._done = False
        self.left: int | None = None
        self.last: int | None = None

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
            self._finish(None)
        else:
            assert msg.header is not None
            self._finish(status_error(msg.header, self.subject.decode("utf-8", "replace")))

    def _take(self, msg: WireMsg) -> None:
        block = msg.header
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
        self._on_message(msg)

    def place(self, rest: bytes, msg: WireMsg, size: int) -> Target:
        return None if self._placer is None or self._done else self._placer(msg, size)

    def on_lost(self, exc: BaseException) -> None:
        self._finish(exc if isinstance(exc, NatsError) else NatsError(str(exc)))

    def _finish(self, exc: NatsError | None) -> None:
        if not self._done:
            self._done = True
            self._on_done(exc)
