"""Messages and subscriptions of the blocking API."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .pieces import MOST, next_within

if TYPE_CHECKING:
    from types import TracebackType

    from natsproto.aio import msg, subscription
    from natsproto.headers import Headers

    from .loop_thread import Link


class Msg:
    """A message: the twin of :class:`natsproto.Msg`."""

    __slots__ = ("_link", "_msg")

    def __init__(self, link: Link, twin: msg.Msg) -> None:
        self._link = link
        self._msg = twin

    @property
    def subject(self) -> str:
        """The subject; bytes that are not UTF-8 become surrogate escapes."""
        return self._msg.subject

    @property
    def reply(self) -> str | None:
        """The subject for an answer, or ``None``."""
        return self._msg.reply

    @property
    def data(self) -> bytes:
        """The payload."""
        return self._msg.data

    @property
    def headers(self) -> Headers | None:
        """The headers, or ``None`` when the message has none or they are malformed."""
        return self._msg.headers

    @property
    def raw_header(self) -> bytes | None:
        """The header block as received."""
        return self._msg.raw_header

    @property
    def status(self) -> int | None:
        """The status on the header's version line."""
        return self._msg.status

    def respond(self, data: bytes = b"", *, headers: Headers | dict[str, str] | None = None) -> None:
        """Publish an answer: :meth:`natsproto.Msg.respond`."""
        self._link.call(self._msg.respond, data, headers=headers)

    def __repr__(self) -> str:
        return repr(self._msg)


class Subscription:
    """A subscription, from :meth:`Client.subscribe`: the twin of :class:`natsproto.Subscription`.

    Iterating waits for ever; :meth:`messages` ends when nothing has come for a while. Several threads may
    iterate: each message goes to one of them. A subscription without references is ended.
    """

    def __init__(self, link: Link, twin: subscription.Subscription) -> None:
        self._link = link
        self._subscription = twin
        self._ready: deque[Msg] = deque()

    @property
    def pending_msgs(self) -> int:
        """Number of unread messages."""
        return len(self._ready) + self._subscription.pending_msgs

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unread messages that count for the limits."""
        return self._subscription.pending_bytes

    @property
    def dropped(self) -> int:
        """Messages that were dropped because the queue was full."""
        return self._subscription.dropped

    async def _fill(self, timeout: float | None) -> bool:
        """Hand over what has come, and wait for one message; false at the end, or after the timeout."""
        found = await next_within(self._subscription, timeout)
        for msg in found or ():
            self._ready.append(Msg(self._link, msg))
            for _ in range(min(self._subscription.pending_msgs, MOST)):
                self._ready.append(Msg(self._link, await anext(self._subscription)))
        return bool(found)

    def _take(self) -> Msg | None:
        try:
            return self._ready.popleft()
        except IndexError:  # also when another thread was faster
            return None

    def _next(self, timeout: float | None) -> Msg | None:
        while (msg := self._take()) is None:
            if not self._link.call(self._fill, timeout):
                break
        return msg

    def messages(self, *, timeout: float | None = None) -> Iterator[Msg]:
        """Iterate until no message has come for ``timeout`` seconds; the subscription continues."""
        while (msg := self._next(timeout)) is not None:
            yield msg

    def next_msg(self, timeout: float | None = None) -> Msg:
        """Return the next message: :meth:`natsproto.Subscription.next_msg`."""
        return self._take() or Msg(self._link, self._link.call(self._subscription.next_msg, timeout))

    def __iter__(self) -> Iterator[Msg]:
        return self

    def __next__(self) -> Msg:
        msg = self._next(None)
        if msg is None:
            raise StopIteration
        return msg

    def unsubscribe(self, max_msgs: int | None = None) -> None:
        """End the subscription: :meth:`natsproto.Subscription.unsubscribe`."""
        self._link.settle(lambda: self._subscription.unsubscribe(max_msgs))

    def drain(self, timeout: float | None = None) -> None:
        """End it when everything received was read: :meth:`natsproto.Subscription.drain`."""
        self._link.call(self._subscription.drain, timeout)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.settle(lambda: self._subscription.__aexit__(None, None, None))

    def __del__(self) -> None:
        self._link.later(self._subscription.unsubscribe)
