"""The public subscription: a handler with a bounded queue."""

from __future__ import annotations

import asyncio
from _thread import get_ident
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .._values import brief, seconds
from ..errors import (
    ConnectionClosedError,
    NatsError,
    PermissionsViolationError,
    RequestTimeoutError,
    SlowConsumerError,
)
from .handlers import Handler
from .msg import Msg
from .operations import check_loop

if TYPE_CHECKING:
    from types import TracebackType

    from ..wire import Msg as WireMsg
    from .client import Client


def size_of(msg: WireMsg) -> int:
    """Return the size of a message in bytes, with all parts: a peer chooses the length of each."""
    size = len(msg.payload) + len(msg.subject)
    if msg.header is not None:
        size += len(msg.header)
    return size if msg.reply is None else size + len(msg.reply)


class Subscription(Handler):
    """A subscription with a bounded queue. Iterate over it, or await :meth:`next_msg`.

    ``async for`` ends after :meth:`unsubscribe`, after ``max_msgs`` messages, and when the application closes
    the client; it raises when the connection is lost for good or the server refuses the subject, which is
    reported to ``error_cb``, too. When the queue is full, new messages are dropped and counted in
    ``dropped``; ``error_cb`` gets one ``SlowConsumerError``, and another one only after half of the queue was
    read.
    """

    __slots__ = (
        "_bytes",
        "_client",
        "_ended",
        "_error",
        "_home",
        "_idle",
        "_msgs",
        "_slow",
        "_waiters",
        "dropped",
        "pending_bytes_limit",
        "pending_msgs_limit",
    )

    def __init__(
        self,
        client: Client,
        subject: bytes,
        queue: bytes | None,
        *,
        max_msgs: int,
        pending_msgs_limit: int,
        pending_bytes_limit: int,
    ) -> None:
        super().__init__(subject, queue)
        self.max_msgs = max_msgs
        self.pending_msgs_limit: int = pending_msgs_limit
        self.pending_bytes_limit: int = pending_bytes_limit
        self.dropped: int = 0
        self._client = client
        self._home = client.connection.home
        self._msgs: deque[WireMsg] = deque()
        self._bytes = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._ended = False
        self._error: BaseException | None = None
        self._slow = False

    # -- handler ----------------------------------------------------------------------------------

    def deliver(self, msg: WireMsg) -> None:
        held = self._bytes + size_of(msg)
        msgs = self._msgs
        if len(msgs) >= self.pending_msgs_limit or held > self.pending_bytes_limit:
            self.dropped += 1
            if not self._slow:
                self._slow = True
                name = self.subject.decode("utf-8", "replace")
                self._client.connection.report(
                    SlowConsumerError(
                        f"subscription {brief(name)} is too slow: {len(self._msgs)} messages "
                        f"({self._bytes} bytes) wait; newer ones are dropped",
                        subject=name,
                        dropped=self.dropped,
                    )
                )
            return
        msgs.append(msg)
        self._bytes = held
        if self._waiters:
            self._wake_one()

    def on_end(self, exc: BaseException | None) -> None:
        self._ended = True
        if self._error is None:
            self._error = exc
            if isinstance(exc, PermissionsViolationError):
                self._client.connection.report(exc)  # nobody may be reading yet
        while self._waiters:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    # -- the application's side -------------------------------------------------------------------

    @property
    def pending_msgs(self) -> int:
        """Number of unread messages."""
        return len(self._msgs)

    @property
    def pending_bytes(self) -> int:
        """Bytes of the unread messages, with headers, subjects and reply subjects."""
        return self._bytes

    def _take(self) -> Msg:
        msgs = self._msgs
        msg = msgs.popleft()
        self._bytes -= size_of(msg)
        if self._slow or not msgs:
            self._taken()
        return Msg(msg, self._client)

    def _taken(self) -> None:
        """The queue has become empty, or shorter while the subscription counts as slow."""
        if 2 * len(self._msgs) <= self.pending_msgs_limit and 2 * self._bytes <= self.pending_bytes_limit:
            self._slow = False  # half of the queue has been read
        if not self._msgs:
            for waiter in self._idle:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle.clear()

    async def _next(self) -> Msg | None:
        """Return the next message, or ``None`` if the subscription has ended and its queue is empty."""
        check_loop(self._home)
        while not self._msgs:
            if self._ended:
                if self._error is not None:
                    raise self._error.with_traceback(None)  # the same error is raised repeatedly
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # pass our wake-up on
                raise
        return self._take()

    async def next_msg(self, timeout: float | None = None) -> Msg:
        """Return the next message.

        Args:
            timeout: seconds; ``None`` waits until a message comes or the subscription ends.

        Raises:
            RequestTimeoutError: none came in time; the subscription continues.
            ConnectionClosedError: the subscription has ended and its queue is empty.
        """
        try:
            async with asyncio.timeout(timeout):
                msg = await self._next()
        except TimeoutError as exc:
            if isinstance(exc, NatsError):
                raise
            subject = self.subject.decode("utf-8", "replace")
            raise RequestTimeoutError(f"no message on {brief(subject)} within {seconds(timeout)} s") from None
        if msg is None:
            raise ConnectionClosedError("the subscription has ended")
        return msg

    def __aiter__(self) -> AsyncIterator[Msg]:
        return self

    async def __anext__(self) -> Msg:
        if self._msgs and self._home._thread_id == get_ident():
            return self._take()
        msg = await self._next()
        if msg is None:
            raise StopAsyncIteration
        return msg

    async def unsubscribe(self, max_msgs: int | None = None) -> None:
        """End the subscription now, or after ``max_msgs`` messages in all. Queued messages stay readable."""
        check_loop(self._home)
        self._client.connection.unsubscribe(self, max_msgs or 0)

    async def drain(self, timeout: float | None = None) -> None:
        """Unsubscribe, receive what the server has already sent, and wait until the queue is read.

        Raises:
            RequestTimeoutError: the queue was not read within ``timeout`` (default: ``drain_timeout``).
        """
        connection = self._client.connection
        limit = connection.options.drain_timeout if timeout is None else timeout
        check_loop(self._home)
        try:
            async with asyncio.timeout(limit):
                await connection.drain_handler(self)
                while self._msgs:
                    if self._client.is_closed:
                        raise ConnectionClosedError(
                            f"the client was closed while {len(self._msgs)} messages waited to be read"
                        )
                    waiter = connection.state_waiter()
                    self._idle.append(waiter)
                    await waiter
        except TimeoutError:
            raise RequestTimeoutError(
                f"{len(self._msgs)} messages were not read within {seconds(limit)} s"
            ) from None

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended:
            await self.unsubscribe()
