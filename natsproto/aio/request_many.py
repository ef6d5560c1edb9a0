"""One request, many answers (ADR-47): an iterator over the answers, and the ways in which they end."""

from __future__ import annotations

import asyncio
import inspect
from _thread import get_ident
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Literal

from .._values import brief
from ..errors import (
    ConfigError,
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    SlowConsumerError,
)
from .handlers import ReplySlot
from .msg import Msg
from .operations import check_loop, foreign_loop
from .options import check_integer, check_seconds
from .requests import status_in
from .subscription import size_of

if TYPE_CHECKING:
    from types import TracebackType

    from ..transport import Buffer
    from ..wire import Msg as WireMsg
    from .client import Client
    from .connection import Connection

EndedBy = Literal["max_messages", "stall", "sentinel", "status", "timeout", "error", "closed"]
"""What ended the answers to a request; see :class:`Responses`."""


class _Slot(ReplySlot):
    """The reading side: collects answers until they end, and then forgets the reply inbox at once."""

    __slots__ = (
        "_answered",
        "_connection",
        "_ends",
        "_hold",
        "_left",
        "_loop",
        "_mux",
        "_size",
        "_stall",
        "_stalling",
        "_waiter",
        "ended_by",
        "error",
        "msgs",
        "status",
    )

    def __init__(
        self, connection: Connection, subject: bytes, timeout: float, stall: float | None, most: int | None
    ) -> None:
        super().__init__(subject)
        self.msgs: deque[WireMsg] = deque()
        self.status: WireMsg | None = None
        self.ended_by: EndedBy | None = None
        self.error: NatsError | None = None
        self._connection = connection
        self._loop = connection.loop
        self._size = 0  # bytes in msgs
        self._left = most
        self._ends = self._loop.time() + timeout
        self._stall = stall
        self._stalling = False  # the deadline is that of the stall, not of all
        self._answered = False
        self._waiter: asyncio.Future[None] | None = None
        self._mux = mux = connection.mux
        self._hold = connection.hold()  # drain() waits for the end
        mux.open(self)
        mux.arm(self, timeout)

    # -- the reading side -------------------------------------------------------------------------

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        answered, self._answered = self._answered, True
        options = self._connection.options
        if (status := status_in(msg)) is not None:
            if status == 503 and answered:
                return  # a server says that nobody listens at once, or not at all
            self.status = msg
            name = self.subject.decode("utf-8", "replace")
            self.end("status", NoRespondersError(name) if status == 503 else None)
            return
        size = self._size + size_of(msg)
        if len(self.msgs) >= options.pending_msgs_limit or size > options.pending_bytes_limit:
            name = self.subject.decode("utf-8", "replace")
            waiting = f"{len(self.msgs)} answers ({self._size} bytes) from {brief(name)} wait to be read"
            self.end("error", SlowConsumerError(f"{waiting}; newer ones are lost", subject=name, dropped=1))
            return
        self.msgs.append(msg)
        self._size = size
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.end("max_messages")
                return
        if self._stall is not None:
            left = self._ends - self._loop.time()
            self._stalling = self._stall < left
            self._mux.arm(self, min(self._stall, left))
        self._wake()

    def on_timeout(self) -> None:
        if not self._answered:
            self._connection.probe()
        self.end("stall" if self._stalling else "timeout")

    def on_lost(self, exc: BaseException) -> None:
        # If only the subscription for replies was refused, the request may still be, too.
        if not (isinstance(exc, PermissionsViolationError) and exc.operation != "publish"):
            self._answered = True
        self.end("error", exc if isinstance(exc, NatsError) else NatsError(str(exc)))

    def under_way(self) -> int:
        return 0 if self._answered else 1

    def end(self, reason: EndedBy, error: NatsError | None = None) -> None:
        """Take no more answers. The first reason counts."""
        if self.ended_by is not None:
            return
        self.ended_by, self.error = reason, error
        self._mux.close(self)
        self._hold.release()
        if not self._answered:
            self._connection.stopped_waiting(self.subject)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- the application's side -------------------------------------------------------------------

    def take(self) -> WireMsg:
        msg = self.msgs.popleft()
        self._size -= size_of(msg)
        return msg

    async def changed(self) -> None:
        """Wait for the next answer, or the end. Several tasks may."""
        if self._waiter is None or self._waiter.done():
            self._waiter = self._loop.create_future()
        await asyncio.wait([self._waiter])

    def leave(self, reason: EndedBy) -> None:
        """Take no more answers, and forget those that wait."""
        self.end(reason)
        self.ended_by, self.error = reason, None
        self.msgs.clear()
        self._size = 0


def check_sentinel(sentinel: object) -> None:
    """Raise ``ConfigError`` unless it is a plain function, or ``None``."""
    if sentinel is not None and (not callable(sentinel) or inspect.iscoroutinefunction(sentinel)):
        raise ConfigError("sentinel must be a plain function: it is called with each answer, not awaited")


class Responses:
    """The answers to one request, from :meth:`natsproto.Client.request_many`. Iterate over it.

    It ends by itself, at the latest after ``timeout``. To leave earlier use it with ``async with``, or call
    :meth:`aclose`; later answers are dropped.

    Iterating raises, after the answers that came before:

    * ``NoRespondersError``: nobody listens;
    * ``StaleConnectionError``, ``ConnectionClosedError``: the connection was lost, or closed;
    * ``PermissionsViolationError``: the server refused the subject;
    * ``SlowConsumerError``: more answers wait to be read than the client's limits for a subscription's queue
      allow; those that came after them are lost.
    """

    __slots__ = ("_client", "_home", "_last", "_sentinel", "_slot")

    def __init__(
        self,
        client: Client,
        subject: bytes,
        payload: Buffer,
        header: bytes,
        *,
        timeout: float,
        max_messages: int | None,
        stall: float | None,
        sentinel: Callable[[Msg], bool] | None,
    ) -> None:
        connection = client.connection
        self._home = connection.home
        if self._home._thread_id != get_ident():
            raise foreign_loop()
        timeout = check_seconds("timeout", timeout)
        if stall is not None:
            stall = check_seconds("stall", stall)
        if max_messages is not None:
            check_integer("max_messages", max_messages, 1)
        check_sentinel(sentinel)
        self._client = client
        self._sentinel = sentinel
        self._last: Msg | None = None
        self._slot = slot = _Slot(connection, subject, timeout, stall, max_messages)
        try:
            connection.publish(subject, payload, slot.inbox, header, now=len(connection.mux) == 1)
        except BaseException:
            slot.end("error")
            raise

    @property
    def pending_msgs(self) -> int:
        """Number of unread answers."""
        return len(self._slot.msgs)

    @property
    def ended_by(self) -> EndedBy | None:
        """Why no more answers are taken; ``None`` as long as some are.

        ``"max_messages"``, ``"stall"``, ``"sentinel"`` and ``"timeout"`` are the options of the request;
        ``"status"``: a status of the server or a responder came (``last``); ``"error"``: iterating raises it;
        ``"closed"``: :meth:`aclose`.
        """
        return self._slot.ended_by

    @property
    def last(self) -> Msg | None:
        """The sentinel or the status that ended the answers, which is none of them."""
        status = self._slot.status
        return self._last if status is None else Msg(status, self._client)

    def __aiter__(self) -> AsyncIterator[Msg]:
        return self

    async def __anext__(self) -> Msg:
        check_loop(self._home)
        slot = self._slot
        while not slot.msgs:
            if slot.error is not None:
                raise slot.error.with_traceback(None)  # the same error is raised repeatedly
            if slot.ended_by is not None:
                raise StopAsyncIteration
            await slot.changed()
        msg = Msg(slot.take(), self._client)
        if self._sentinel is not None:
            try:
                found = self._sentinel(msg)
            except BaseException:
                slot.leave("error")
                raise
            if found:
                self._last = msg
                slot.leave("sentinel")
                raise StopAsyncIteration
        return msg

    async def aclose(self) -> None:
        """Take no more answers; those that wait are dropped. Idempotent."""
        check_loop(self._home)
        if self._slot.ended_by is None or self._slot.msgs:
            self._slot.leave("closed")

    async def __aenter__(self) -> Responses:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Left by ``break``, it need not wait for its timeout; in another thread nothing may be touched.
        if hasattr(self, "_slot") and self._home._thread_id == get_ident():
            self._slot.leave("closed")
