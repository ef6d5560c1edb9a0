"""The conversation with the server about a fast-ingest batch (ADR-50).

The reply subject of each message says what it is part of::

    <inbox>.<batch>.<flow>.<gap mode>.<sequence in the batch>.<operation>.$FI

The server answers every so many messages, and changes how many to the load of the stream. It reports a lost
message, and then ends the batch, or goes on, as the gap mode says.

Who sees the messages can publish to another stream with their reply subjects, and so have it answer here.
Only the answer that ends a batch, and a refusal of all of it, say which stream has sent them: those of others
are ignored. What the other answers say sets the pace, and explains an end, but it ends nothing.

Who may publish to the same stream can also send a message of its own as the next one of the batch. The answer
that ends the batch counts it, and names the newest message of the batch that is stored: :meth:`Batch.newest`
says which ones that may be.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from .._values import seconds
from ..aio.handlers import Handler
from ..aio.requests import no_responders
from ..errors import (
    APIError,
    ConnectionClosedError,
    NatsError,
    NoRespondersError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
    UnsupportedFeatureError,
    WrongStreamError,
)
from .api.acks import AckCheck
from .api.codec import is_number, loads
from .api.errors import api_error
from .api.models import PubAck

if TYPE_CHECKING:
    from ..aio.client import Client
    from ..wire import Msg as WireMsg

MINIMUM = "2.14.0"
LEVEL = 4
"""The API level of that server (ADR-44)."""

MAX_FLOW = 65535

KEEP_ALIVE = 3.0
"""Seconds between pings of a batch: the server forgets one that it has not heard of for ten."""

PINGS = 5
"""Pings, at least, before missing acknowledgements are given up: each has the last one sent again."""

MAX_REFUSED = 1024
"""Refused messages that are remembered in the mode that goes on without them."""

MAX_ANSWER = 64 * 1024

UNKNOWN_BATCH = 10208
"""Error code: it was committed, or was not heard of for ten seconds."""

START, APPEND, COMMIT, COMMIT_EOB, PING = range(5)  # operations

MSG_ID = b"\r\nNats-Msg-Id:"

Sent = tuple[bytes, bytes, bytes | None]
"""A message of a batch: its subject, payload and header; ``None`` for a header: it was lost or refused."""


class BatchIncompleteError(NatsError):
    """A fast-ingest batch has ended early: messages were lost on the way, or its leader changed.

    Or another publisher of the stream has sent a message of its own as one of the batch. The text says so,
    and ``stored`` is 0: the first messages of the batch are stored, but nothing says how many.

    Attributes:
        stored: how many messages of the batch are certainly stored: the first ones.
        ack: the acknowledgement that ended it.
    """

    def __init__(self, message: str, *, stored: int = 0, ack: PubAck | None = None) -> None:
        super().__init__(message)
        self.stored = stored
        self.ack = ack


class Batch(Handler):
    """What is known of a batch: its end of the conversation with the server.

    Its answers come to an inbox of its own: after an error the server has nobody to send the others to.

    Args:
        outstanding: how many acknowledgements of ``flow`` messages may be due.
    """

    __slots__ = (
        "_acks", "_client", "_dots", "_flow", "_gap_ok", "_inbox", "_kept", "_replies", "_since", "_timeout",
        "_timer", "_waiter", "acknowledged", "committing", "every", "failure", "final", "foreign", "gap",
        "lost", "refusal", "refused", "sent", "started", "taken", "target",
    )  # fmt: skip

    def __init__(
        self, client: Client, acks: AckCheck, flow: int, outstanding: int, gap_ok: bool, timeout: float
    ) -> None:
        inbox = client.new_inbox()
        super().__init__(f"{inbox}.>".encode())
        self._inbox: bytes = inbox.encode()  # its last token names the batch
        self._client = client
        self._acks = acks
        self._replies = b"%b.%d.%b" % (self._inbox, flow, b"ok" if gap_ok else b"fail")  # all begin so
        self._dots: int = self._replies.count(b".") + 3  # of a whole reply subject
        self._flow = flow
        self._gap_ok = gap_ok
        self._timeout = timeout
        # All that may be in flight, and the one before. They are not removed when they are acknowledged:
        # another stream may say that.
        self._kept: deque[Sent] = deque(maxlen=flow * outstanding + 1)
        self._since: float | None = None  # since when an answer is waited for
        self._waiter: asyncio.Future[None] | None = None
        self.target: bytes = b""  # the subject of the newest message
        self.sent: int = 0
        self.acknowledged: int = 0
        self.every: int = flow
        self.started: bool = False
        self.committing: bool = False
        self.lost: int = 0
        self.refused: list[tuple[int, APIError]] = []
        self.gap: int = 0  # the message that was lost first, as said last
        self.refusal: tuple[int, APIError] | None = None  # the message that was refused, as said last
        self.foreign: NatsError | None = None  # what the first answer was that is none of this stream's
        self.final: PubAck | None = None
        self.taken: bool | None = None  # whether another publisher's message was counted; None: not known yet
        self.failure: NatsError | None = None
        connection = client.connection
        connection.subscribe(self)
        self._timer: asyncio.TimerHandle = connection.loop.call_later(self._interval, self._tick)

    @property
    def _interval(self) -> float:
        return min(KEEP_ALIVE, self._timeout / PINGS)

    def publish(self, subject: bytes, payload: bytes, header: bytes, operation: int) -> None:
        """Send the next message, or with ``COMMIT_EOB`` the end."""
        target, sent = self.target, self.sent
        seq = sent + 1
        self.target = subject
        self.committing = operation >= COMMIT
        if operation != COMMIT_EOB:  # that is no message
            self.sent = seq
        try:
            self._client.connection.publish(subject, payload, self._reply(seq, operation), header)
        except BaseException:
            self.target, self.sent = target, sent
            self.committing = False
            raise
        if operation != COMMIT_EOB:
            self._kept.append((subject, payload, header))

    def _reply(self, seq: int, operation: int) -> bytes:
        return b"%b.%d.%d.$FI" % (self._replies, seq, operation)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for an answer that changes something; at most ``timeout`` seconds without any progress.

        Raises:
            NatsError: the batch has failed, or ended early.
        """
        loop = self._client.connection.loop
        self._since = loop.time()
        try:
            while self.failure is None and self.final is None and not reached():
                self._waiter = waiter = loop.create_future()
                await waiter
        finally:
            self._since = self._waiter = None
        if self.failure is not None:
            raise self.failure

    def deliver(self, msg: WireMsg) -> None:
        if self.failure is None and self.final is None and self._is_reply(msg.subject):
            try:
                self._take(msg)
            except (RemoteProtocolError, WrongStreamError) as exc:
                self.foreign = self.foreign or exc
            except NatsError as exc:
                self.fail(exc)
            self._wake()

    def _is_reply(self, subject: bytes) -> bool:
        """Whether a message of this batch has this reply subject.

        A consumer could send here what it has, with its own subject. A stream could answer a message that is
        not of this batch, whose reply subject begins like these.
        """
        return (
            subject.startswith(self._replies + b".")
            and subject.endswith(b".$FI")
            and subject.count(b".") == self._dots
        )

    def _take(self, msg: WireMsg) -> None:
        if no_responders(msg):
            if self.started and self._gap_ok:
                return  # the next leader reports the gap
            raise NoRespondersError(self.target.decode("utf-8", "replace"), "no stream, or no leader of it")
        if msg.header is not None or msg.reply is not None:
            return  # a stored message, or a delivery, that somebody has had sent here
        document = loads(msg.payload, MAX_ANSWER)
        kind = document.get("type")
        if kind == "ack":
            self._take_flow(document)
        elif kind == "gap":
            self._take_gap(document)
        elif kind == "err":
            self._take_refusal(document)
        else:
            try:
                ack = self._acks.parse(msg.payload)
            except APIError as exc:
                if exc.err_code == UNKNOWN_BATCH and self.committing:
                    raise RequestTimeoutError("the answer to the commit of a batch was lost") from None
                raise
            self._take_final(ack)

    def _number(self, document: dict[str, object], key: str, most: int) -> int:
        value = document.get(key)
        if not is_number(value) or value > most:
            raise RemoteProtocolError(f"an answer to a batch has {key!r} that is none of its numbers")
        return value

    def _take_flow(self, document: dict[str, object]) -> None:
        seq = self._number(document, "seq", self.sent)
        self.every = max(1, min(self._number(document, "msgs", MAX_FLOW), self._flow))
        self.started = True
        if seq > self.acknowledged:
            self.acknowledged = seq
            if self._since is not None:
                self._since = self._client.connection.loop.time()

    def _take_gap(self, document: dict[str, object]) -> None:
        seq = self._number(document, "seq", self.sent + 1)
        first = self._number(document, "last_seq", seq)
        if self._gap_ok:
            self.lost += seq - first
            self._not_stored(first, seq)
        else:
            self.gap = first

    def _take_refusal(self, document: dict[str, object]) -> None:
        seq = self._number(document, "seq", self.sent)
        error = api_error(document.get("error"))
        if not self._gap_ok:
            self.refusal = seq, error
            return
        self._not_stored(seq, seq + 1)
        if len(self.refused) < MAX_REFUSED:
            self.refused.append((seq, error))

    def _not_stored(self, first: int, end: int) -> None:
        kept, sent = self._kept, self.sent
        for number in range(max(first, sent + 1 - len(kept)), min(end, sent + 1)):
            subject, payload, _ = kept[number - sent - 1]
            kept[number - sent - 1] = subject, payload, None

    def _take_final(self, ack: PubAck) -> None:
        if ack.batch is None:
            which = "a" if self.started else "the first"
            raise UnsupportedFeatureError(
                "fast-ingest publishing", MINIMUM, f"the server has stored {which} message as {ack.seq}"
            )
        if ack.batch != self._inbox.decode().rpartition(".")[2] or ack.count is None or ack.count > self.sent:
            raise RemoteProtocolError("the answer to a batch is of another batch")
        self.acknowledged = ack.count
        self.final = ack
        self.close()

    def newest(self) -> tuple[list[Sent], bool]:
        """Return the messages of which one is the newest that is stored, if the stream has counted right.

        The last of those that it has counted; and the one before, if that one was lost or refused, or may
        have been a duplicate; and so on.

        Returns:
            The messages, the newest first, and whether it may be that none is stored.
        """
        count = 0 if self.final is None else self.final.count or 0
        found: list[Sent] = []
        for message in islice(reversed(self._kept), self.sent - count, None):
            found.append(message)
            if message[2] is not None and MSG_ID not in message[2]:
                return found, False
        return found, True

    def early_end(self) -> NatsError:
        """Return the error for a batch that has ended early, or has other messages than its own."""
        if self.taken:
            return BatchIncompleteError(
                "a message of another publisher has taken the place of one of the batch's: how many of its "
                f"{self.sent} messages are stored is not known",
                ack=self.final,
            )
        stored = self.acknowledged
        if self.refusal is not None and self.refusal[0] > stored:
            return self.refusal[1]
        why = f": message {self.gap} was lost on the way" if self.gap > stored else ""
        return BatchIncompleteError(
            f"a batch has ended after {stored} of {self.sent} messages{why}", stored=stored, ack=self.final
        )

    def on_refused(self, subject: bytes, exc: BaseException) -> int:
        if self.failure is not None or self.final is not None:
            return 0
        unanswered = islice(reversed(self._kept), self.sent - self.acknowledged)
        refused = sum(each == subject for each, _, _ in unanswered)
        if refused or subject == self.target:
            self.on_disconnect(exc)
        return refused

    def on_disconnect(self, exc: BaseException) -> None:
        self.fail(exc if isinstance(exc, NatsError) else StaleConnectionError(str(exc)))

    def on_end(self, exc: BaseException | None) -> None:
        self.on_disconnect(exc or ConnectionClosedError("the client was closed"))

    def _tick(self) -> None:
        """Give up waiting, or ask for the last acknowledgement: a ping, which keeps the batch alive, too."""
        connection = self._client.connection
        since = self._since
        if since is not None and connection.loop.time() - since >= self._timeout:
            self.fail(self._unanswered())
            connection.probe()
            return
        if self.started:  # else a server without batches would store it
            connection.publish(self.target, b"", self._reply(self.sent, PING))
        self._timer = connection.loop.call_later(self._interval, self._tick)

    def _unanswered(self) -> NatsError:
        """Return the error for a batch whose stream does not answer."""
        foreign = self.foreign
        if isinstance(foreign, WrongStreamError):
            return foreign
        also = "" if foreign is None else f", but {foreign}"
        return RequestTimeoutError(
            f"no acknowledgement from stream {self._acks.stream!r} within {seconds(self._timeout)} s{also}"
        )

    def fail(self, exc: NatsError) -> None:
        """End the batch with an error; later answers are dropped."""
        if self.failure is None and self.final is None:
            self.failure = exc
            self.close()
        self._wake()

    def close(self) -> None:
        """Drop later answers, and ping no more. Idempotent."""
        self._timer.cancel()
        self._client.connection.unsubscribe(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
