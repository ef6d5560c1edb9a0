"""Replies: one wildcard inbox for every request of a connection, and one timer for all their deadlines."""

from __future__ import annotations

import asyncio
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from itertools import chain
from math import inf
from struct import iter_unpack
from typing import TYPE_CHECKING

from ..errors import NoRespondersError, PermissionsViolationError, RequestTimeoutError
from ..headers import status_of
from ..subjects import secret_name
from .handlers import Handler, ReplySlot

if TYPE_CHECKING:
    from ..wire import Msg as WireMsg
    from ..wire import Target


GRAIN = 0.005
"""Seconds (at least) between checks of the open slots' deadlines; a time-out may fire this late."""


def status_in(msg: WireMsg) -> int | None:
    """Return the status that a server sends in place of an answer; ``None`` for an answer.

    Any peer can put a status into a header, and have a stored message with such a header delivered. So it
    counts only with an empty payload, without a sequence (a direct get of older servers returns the header
    as it is) and without a reply subject (a consumer's delivery has one).
    """
    header = msg.header
    if header is None or msg.reply is not None or msg.payload or b"\r\nNats-Sequence: " in header:
        return None
    return status_of(header)


def no_responders(msg: WireMsg) -> bool:
    """Whether the server reports that nobody listens."""
    return msg.header is not None and status_in(msg) == 503


def is_bare(msg: WireMsg) -> bool:
    """Whether a server itself may have sent this: its answers have neither headers nor a reply subject.

    A peer can have a server send other messages to any inbox, by a request with that reply subject: stored
    ones, status messages, deliveries of consumers. Each has one or the other.
    """
    return msg.reply is None and (msg.header is None or no_responders(msg))


class RequestSlot(ReplySlot):
    """One request, one reply."""

    __slots__ = ("future",)

    def __init__(self, subject: bytes, future: asyncio.Future[WireMsg]) -> None:
        super().__init__(subject)
        self.future: asyncio.Future[WireMsg] = future

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        future = self.future
        if not future.done():
            if no_responders(msg):
                future.set_exception(NoRespondersError(self.subject.decode("utf-8", "replace")))
            else:
                future.set_result(msg)

    @property
    def answered(self) -> bool:
        """Whether nothing more can come, after a reply, a refusal, or the session's end."""
        future = self.future
        if not future.done() or future.cancelled():
            return False
        exc = future.exception()
        if isinstance(exc, PermissionsViolationError):
            return exc.operation == "publish"  # else only the subscription for replies was refused
        return not isinstance(exc, RequestTimeoutError)

    def under_way(self) -> int:
        return 0 if self.answered else 1

    def on_lost(self, exc: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(exc)


TOKEN = 12
"""Characters of a token: 72 random bits."""

REPLY_REST = len(f".{secret_name()}.{'T' * TOKEN}.9999999999")
"""Bytes of the longest reply subject after the prefix: inbox, token, an index that distinguishes replies."""

STOCK = 64
"""Tokens generated at a time."""


class RequestMux(Handler):
    """Dispatches replies by their subject. Late and unknown replies are dropped.

    A token is random: a client that sees the reply subject of one request (every client that may read the
    request's subject) learns nothing about the others, and can answer none of them. The whole subject counts:
    what a pull consumer sends to an inbox keeps its own subject, which a peer may have chosen.

    A timer per deadline would cost a request more than all its other bookkeeping. Instead one timer checks
    every open slot when the first one can be due, at most once per :data:`GRAIN`. Nearly all requests are
    answered before such a check.
    """

    __slots__ = ("_loop", "_next_check", "_prefix", "_slots", "_timer", "_tokens")

    def __init__(self, prefix: bytes) -> None:
        super().__init__(prefix + b".>")
        self._loop = asyncio.get_running_loop()  # a system call in CPython 3.11: once
        self._prefix = prefix + b"."
        self._slots: dict[bytes, ReplySlot] = {}  # by inbox
        self._tokens: Iterator[bytes] = iter(())
        self._timer: asyncio.TimerHandle | None = None
        self._next_check = inf

    def __len__(self) -> int:
        return len(self._slots)

    def open(self, slot: ReplySlot) -> None:
        """Give ``slot`` an inbox and register it until :meth:`close`."""
        token = next(self._tokens, b"")
        if not token:
            self._tokens = tokens = _random_tokens()
            token = next(tokens)
        slot.inbox = inbox = self._prefix + token
        self._slots[inbox] = slot

    def close(self, slot: ReplySlot) -> bool:
        """Forget ``slot``; later replies are dropped. Return whether it was open."""
        if self._slots.get(slot.inbox) is not slot:  # it may belong to an inbox that the server refused
            return False
        del self._slots[slot.inbox]
        return True

    def expects(self, reply: str) -> bool:
        """Whether a request of this connection waits for an answer on exactly this subject."""
        return reply.encode("utf-8", "surrogateescape") in self._slots

    def wanted(self, reply: bytes | None) -> bool:
        """Whether to send a message with this reply subject: not a request, or one that is waited for."""
        if reply is None or not reply.startswith(self._prefix):
            return True
        slot = self._slots.get(reply) or self._slots.get(reply.rpartition(b".")[0])
        return slot is not None and not (isinstance(slot, RequestSlot) and slot.future.done())

    def requests(self) -> list[asyncio.Future[WireMsg]]:
        """Return the futures of the requests under way, done when they are answered or given up."""
        return [slot.future for slot in self._slots.values() if isinstance(slot, RequestSlot)]

    def arm(self, slot: ReplySlot, seconds: float) -> None:
        """Call ``slot.on_timeout()`` after ``seconds``, unless the slot is closed or armed again."""
        slot.deadline = deadline = self._loop.time() + seconds
        if deadline < self._next_check:
            self._check_at(deadline)

    def _check_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_check = when
        self._timer = self._loop.call_at(when, self._check)

    def _check(self) -> None:
        now = max(self._loop.time(), self._next_check)
        self._timer = None
        self._next_check = inf
        due = [slot for slot in self._slots.values() if slot.deadline <= now]
        due.sort(key=lambda slot: slot.deadline)  # in order, even if the loop was blocked for a while
        for slot in due:
            if slot.deadline <= now:
                slot.deadline = inf
                slot.on_timeout()
        soonest = min((slot.deadline for slot in self._slots.values()), default=inf)
        if soonest < self._next_check:
            self._check_at(max(soonest, now + GRAIN))

    def deliver(self, msg: WireMsg) -> None:
        slot = self._slots.get(msg.subject)
        rest = b""
        if slot is None:
            inbox, _, rest = msg.subject.rpartition(b".")
            slot = self._slots.get(inbox)
        if slot is not None:
            slot.on_reply(rest, msg)

    def place(self, msg: WireMsg, size: int) -> Target:
        slot = self._slots.get(msg.subject)
        rest = b""
        if slot is None:
            inbox, _, rest = msg.subject.rpartition(b".")
            slot = self._slots.get(inbox)
        return None if slot is None else slot.place(rest, msg, size)

    def on_disconnect(self, exc: BaseException) -> None:
        for slot in list(self._slots.values()):
            slot.on_lost(exc)

    def on_end(self, exc: BaseException | None) -> None:
        from ..errors import ConnectionClosedError

        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._next_check = None, inf
        reason = exc or ConnectionClosedError("the client was closed")
        for slot in list(self._slots.values()):
            slot.on_lost(reason)

    def on_refused(self, subject: bytes, exc: BaseException) -> int:
        """Fail the requests to ``subject``; return how many messages of them were unanswered."""
        count = self.under_way(subject)
        for slot in [slot for slot in self._slots.values() if slot.subject == subject]:
            slot.on_lost(exc)
        return count

    def under_way(self, subject: bytes) -> int:
        """How many messages of the requests to ``subject`` are unanswered."""
        return sum(slot.under_way() for slot in self._slots.values() if slot.subject == subject)


def _random_tokens() -> Iterator[bytes]:
    text = urlsafe_b64encode(os.urandom(STOCK * TOKEN * 3 // 4))
    return chain.from_iterable(iter_unpack(f"{TOKEN}s", text))
