"""Messages and subscriptions of the blocking API."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .pieces import MOST, next_within

if TYPE_CHECKING:
    from types import TracebackType

    from natsproto.aio import msg, request_many, subscription
    from natsproto.aio.request_many import EndedBy
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


async def _waiting(
    source: subscription.Subscription | request_many.Responses, timeout: float | None
) -> list[msg.Msg]:
    """Wait for a message, and return all that have come; ``[]`` at the end, or after ``timeout`` seconds."""
    found = await next_within(source, timeout) or []
    if found:
        found += [await anext(source) for _ in range(min(source.pending_msgs, MOST))]
    return found


def _first(ready: deque[Msg]) -> Msg | None:
    try:
        return ready.popleft()
    except IndexError:  # also when another thread was faster
        return None


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
        found = await _waiting(self._subscription, timeout)
        self._ready.extend(Msg(self._link, msg) for msg in found)
        return bool(found)

    def _next(self, timeout: float | None) -> Msg | None:
        while (msg := _first(self._ready)) is None:
            if not self._link.call(self._fill, timeout):
                break
        return msg

    def messages(self, *, timeout: float | None = None) -> Iterator[Msg]:
        """Iterate until no message has come for ``timeout`` seconds; the subscription continues."""
        while (msg := self._next(timeout)) is not None:
            yield msg

    def next_msg(self, timeout: float | None = None) -> Msg:
        """Return the next message: :meth:`natsproto.Subscription.next_msg`."""
        return _first(self._ready) or Msg(self._link, self._link.call(self._subscription.next_msg, timeout))

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


class Responses:
    """The answers to one request, from :meth:`Client.request_many`: the twin of :class:`natsproto.Responses`.

    ``with`` ends it early, and so does dropping it. The sentinel is called in the thread that iterates.
    """

    def __init__(
        self, link: Link, twin: request_many.Responses, sentinel: Callable[[Msg], bool] | None
    ) -> None:
        self._link = link
        self._responses = twin
        self._sentinel = sentinel
        self._last: Msg | None = None  # the sentinel
        self._ready: deque[Msg] = deque()

    @property
    def pending_msgs(self) -> int:
        """Number of unread answers."""
        return len(self._ready) + self._responses.pending_msgs

    @property
    def ended_by(self) -> EndedBy | None:
        """Why no more answers are taken; see :attr:`natsproto.Responses.ended_by`."""
        return self._responses.ended_by if self._last is None else "sentinel"

    @property
    def last(self) -> Msg | None:
        """The sentinel or the status that ended the answers, which is none of them."""
        if self._last is not None or (status := self._responses.last) is None:
            return self._last
        return Msg(self._link, status)

    async def _fill(self) -> bool:
        found = await _waiting(self._responses, None)
        self._ready.extend(Msg(self._link, msg) for msg in found)
        return bool(found)

    def __iter__(self) -> Iterator[Msg]:
        return self

    def __next__(self) -> Msg:
        while (msg := _first(self._ready)) is None:
            if not self._link.call(self._fill):
                raise StopIteration
        if self._sentinel is not None:
            try:
                found = self._sentinel(msg)
            except BaseException:
                self.close()
                raise
            if found:
                self._last = msg
                self.close()
                raise StopIteration
        return msg

    def close(self) -> None:
        """Take no more answers; those that wait are dropped. Idempotent."""
        self._ready.clear()
        self._link.settle(self._responses.aclose)

    def __enter__(self) -> Responses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._link.later(self._responses.aclose)
