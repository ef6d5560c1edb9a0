"""Consumers of the blocking API, and their messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .pieces import MOST, Pulled, next_within

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Unpack

    from natsproto.errors import NatsError
    from natsproto.headers import Headers
    from natsproto.jetstream import message, pull, push
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.jetstream.api.models import ConsumerInfo
    from natsproto.jetstream.consumers import PriorityOptions

    from .loop_thread import Link


class PullConsumer:
    """A bound pull consumer, from :meth:`JetStreamContext.pull_consumer`.

    Attributes:
        info: its configuration and state when it was bound.
    """

    def __init__(self, link: Link, twin: pull.PullConsumer) -> None:
        self._link = link
        self._consumer = twin
        self.info: ConsumerInfo = twin.info

    @property
    def name(self) -> str:
        """The consumer's name."""
        return self._consumer.name

    @property
    def pin_id(self) -> str | None:
        """The id under which this client is pinned; ``None`` while it is not."""
        return self._consumer.pin_id

    @property
    def last_end(self) -> NatsError | None:
        """Why the newest pull ended before its time, if it did."""
        return self._consumer.last_end

    def fetch(
        self,
        batch: int = 1,
        *,
        timeout: float = 5.0,
        max_bytes: int | None = None,
        no_wait: bool = False,
        idle_heartbeat: float | None = None,
        **priority: Unpack[PriorityOptions],
    ) -> list[JetStreamMsg]:
        """Fetch up to ``batch`` messages within ``timeout`` seconds; ``[]`` when there are none."""
        found = self._link.call(
            self._consumer.fetch,
            batch,
            timeout=timeout,
            max_bytes=max_bytes,
            no_wait=no_wait,
            idle_heartbeat=idle_heartbeat,
            **priority,
        )
        return [JetStreamMsg(self._link, msg) for msg in found]

    def messages(
        self,
        *,
        batch: int = 100,
        timeout: float = 5.0,
        max_bytes: int | None = None,
        idle_heartbeat: float | None = None,
        **priority: Unpack[PriorityOptions],
    ) -> Iterator[JetStreamMsg]:
        """Iterate for ever, asking for ``batch`` messages at a time; break out of the loop to stop."""
        source = self._consumer.messages(
            batch=batch, timeout=timeout, max_bytes=max_bytes, idle_heartbeat=idle_heartbeat, **priority
        )
        for msg in Pulled(self._link, source, most=1):
            yield JetStreamMsg(self._link, msg)

    def delete(self) -> None:
        """Delete the consumer on the server."""
        self._link.call(self._consumer.delete)


class PushConsumer:
    """A bound push consumer, from :meth:`JetStreamContext.push_consumer`.

    Iterating waits for ever; :meth:`messages` ends when nothing has come for a while. Several threads may
    iterate: each message goes to one of them. A consumer without references is unsubscribed.

    Attributes:
        stream: the stream's name.
        name: the consumer's name.
        info: its configuration and state when it was bound.
    """

    def __init__(self, link: Link, twin: push.PushConsumer) -> None:
        self._link = link
        self._consumer = twin
        self._ready: deque[JetStreamMsg] = deque()
        self.stream: str = twin.stream
        self.name: str = twin.name
        self.info: ConsumerInfo = twin.info

    @property
    def pending_msgs(self) -> int:
        """Number of unread messages."""
        return len(self._ready) + self._consumer.pending_msgs

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unread messages that count for the limits."""
        return self._consumer.pending_bytes

    @property
    def dropped(self) -> int:
        """Messages that were dropped because the queue was full."""
        return self._consumer.dropped

    async def _fill(self, timeout: float | None) -> bool:
        """Hand over what has come, and wait for one message; false at the end, or after the timeout."""
        found = await next_within(self._consumer, timeout)
        for msg in found or ():
            self._ready.append(JetStreamMsg(self._link, msg))
            for _ in range(min(self._consumer.pending_msgs, MOST)):
                self._ready.append(JetStreamMsg(self._link, await anext(self._consumer)))
        return bool(found)

    def _take(self) -> JetStreamMsg | None:
        try:
            return self._ready.popleft()
        except IndexError:  # also when another thread was faster
            return None

    def _next(self, timeout: float | None) -> JetStreamMsg | None:
        while (msg := self._take()) is None:
            if not self._link.call(self._fill, timeout):
                break
        return msg

    def messages(self, *, timeout: float | None = None) -> Iterator[JetStreamMsg]:
        """Iterate until no message has come for ``timeout`` seconds; the consumer continues."""
        while (msg := self._next(timeout)) is not None:
            yield msg

    def next_msg(self, timeout: float | None = None) -> JetStreamMsg:
        """Return the next message within ``timeout`` seconds."""
        return self._take() or JetStreamMsg(self._link, self._link.call(self._consumer.next_msg, timeout))

    def __iter__(self) -> Iterator[JetStreamMsg]:
        return self

    def __next__(self) -> JetStreamMsg:
        msg = self._next(None)
        if msg is None:
            raise StopIteration
        return msg

    def unsubscribe(self) -> None:
        """End the subscription; queued messages stay readable. The consumer stays on the server."""
        self._link.settle(self._consumer.unsubscribe)

    def drain(self, timeout: float | None = None) -> None:
        """Unsubscribe, and wait until the queue is read."""
        self._link.call(self._consumer.drain, timeout)

    def delete(self) -> None:
        """Unsubscribe, and delete the consumer on the server."""
        self._link.call(self._consumer.delete)

    def __enter__(self) -> PushConsumer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.settle(lambda: self._consumer.__aexit__(None, None, None))

    def __del__(self) -> None:
        self._link.later(self._consumer.unsubscribe)

    def __repr__(self) -> str:
        return repr(self._consumer)


class JetStreamMsg:
    """A message of a pull or push consumer. Acknowledge it, or it is delivered again after ``ack_wait``.

    Attributes:
        metadata: its position in stream and consumer.
    """

    __slots__ = ("_link", "_msg", "metadata")

    def __init__(self, link: Link, twin: message.JetStreamMsg) -> None:
        self._link = link
        self._msg = twin
        self.metadata: Delivery = twin.metadata

    @property
    def subject(self) -> str:
        """The subject the message was published on."""
        return self._msg.subject

    @property
    def data(self) -> bytes:
        """The payload."""
        return self._msg.data

    @property
    def headers(self) -> Headers | None:
        """The headers, or ``None``."""
        return self._msg.headers

    @property
    def seq(self) -> int:
        """The stream sequence."""
        return self._msg.seq

    def ack(self) -> None:
        """Acknowledge the message as processed; the server may not have seen it yet, see :meth:`ack_sync`."""
        self._link.call(self._msg.ack)

    def ack_sync(self, timeout: float | None = None) -> None:
        """Acknowledge the message as processed, and wait until the server confirms that."""
        self._link.call(self._msg.ack_sync, timeout)

    def nak(self, delay: float | None = None) -> None:
        """Ask for the message again, now or after ``delay`` seconds."""
        self._link.call(self._msg.nak, delay)

    def in_progress(self) -> None:
        """Report that the message is still being processed: restarts ``ack_wait``."""
        self._link.call(self._msg.in_progress)

    def term(self, reason: str | None = None) -> None:
        """Ask that the message is never delivered again; ``reason`` is for the server's advisory."""
        self._link.call(self._msg.term, reason)

    def __repr__(self) -> str:
        return repr(self._msg)
