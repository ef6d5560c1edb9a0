"""Replies: one wildcard inbox for every request of a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import NoRespondersError, PermissionsViolationError
from ..headers import status_of
from .subscription import Handler

if TYPE_CHECKING:
    from ..wire import Msg as WireMsg


class ReplySlot:
    """Receives the replies to one inbox ``<prefix>.<token>[.<rest>]``; subclass it.

    Called synchronously from the reading side; methods must neither block nor raise.

    Attributes:
        inbox: the reply subject to publish with; ``.<rest>`` may be appended to tell replies apart.
        subject: where the request goes; a permissions violation there fails this slot at once.
    """

    __slots__ = ("inbox", "subject", "token")

    def __init__(self, subject: bytes = b"") -> None:
        self.subject = subject
        self.inbox = b""
        self.token = b""

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        """A reply; ``rest`` is what was appended to the inbox (empty when nothing was)."""

    def place(self, rest: bytes, msg: WireMsg, size: int) -> memoryview | bytearray | None:
        """Name the place for a large payload, or ``None``."""
        return None

    def on_lost(self, exc: BaseException) -> None:
        """The connection was lost (or the subject refused) while the slot was open."""


class RequestSlot(ReplySlot):
    """One request, one reply."""

    __slots__ = ("future",)

    def __init__(self, subject: bytes, future: asyncio.Future[WireMsg]) -> None:
        super().__init__(subject)
        self.future = future

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        future = self.future
        if not future.done():
            # A status is only believed on an empty payload: any peer can put one into a header.
            if msg.header is not None and not msg.payload and status_of(msg.header) == 503:
                future.set_exception(NoRespondersError(self.subject.decode("utf-8", "replace")))
            else:
                future.set_result(msg)

    def on_lost(self, exc: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(exc)


class RequestMux(Handler):
    """Dispatches replies by token. Late and unknown replies are dropped."""

    __slots__ = ("_counter", "_prefix", "_prefix_length", "_slots")

    def __init__(self, prefix: bytes) -> None:
        super().__init__(prefix + b".>")
        self._prefix = prefix + b"."
        self._prefix_length = len(self._prefix)
        self._slots: dict[bytes, ReplySlot] = {}
        self._counter = 0

    def __len__(self) -> int:
        return len(self._slots)

    def open(self, slot: ReplySlot) -> None:
        """Give ``slot`` an inbox and register it until :meth:`close`."""
        self._counter = n = self._counter + 1
        token = b"%x" % n
        slot.token = token
        slot.inbox = self._prefix + token
        self._slots[token] = slot

    def close(self, slot: ReplySlot) -> None:
        """Forget ``slot``; replies that come later are dropped."""
        if self._slots.get(slot.token) is slot:  # it may belong to an inbox the server refused
            del self._slots[slot.token]

    def deliver(self, msg: WireMsg) -> None:
        token, _, rest = msg.subject[self._prefix_length :].partition(b".")
        slot = self._slots.get(token)
        if slot is not None:
            slot.on_reply(rest, msg)

    def place(self, msg: WireMsg, size: int) -> memoryview | bytearray | None:
        token, _, rest = msg.subject[self._prefix_length :].partition(b".")
        slot = self._slots.get(token)
        return None if slot is None else slot.place(rest, msg, size)

    def on_disconnect(self, exc: BaseException) -> None:
        for slot in list(self._slots.values()):
            slot.on_lost(exc)

    def on_end(self, exc: BaseException | None) -> None:
        from ..errors import ConnectionClosedError

        reason = exc or ConnectionClosedError("the client was closed")
        for slot in list(self._slots.values()):
            slot.on_lost(reason)

    def refuse(self, subject: str, exc: PermissionsViolationError) -> bool:
        """Fail what was sent to ``subject``; returns whether anything was waiting there."""
        wanted = subject.encode("utf-8", "surrogateescape")
        hit = [slot for slot in self._slots.values() if slot.subject == wanted]
        for slot in hit:
            slot.on_lost(exc)
        return bool(hit)
