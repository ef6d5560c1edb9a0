"""One ordered consumer, read to an end that its callback decides; several ways of reading share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from natsproto.errors import RequestTimeoutError
from natsproto.jetstream.ordered import OrderedConsumer

if TYPE_CHECKING:
    from typing import Self

    from natsproto.jetstream.api.acks import Delivery
    from natsproto.jetstream.api.models import ConsumerInfo
    from natsproto.wire import Msg as WireMsg

    from .bucket import Bucket
    from .room import Room

HEARTBEAT = 1.0
"""Seconds between the heartbeats of a consumer that has nothing to deliver."""


SILENT = 2
"""Consumers without a sign of life, until no other one is tried where there is another way."""


class SilentConsumer(RequestTimeoutError):
    """Consumers are created, but nothing of them comes: as where another account imports the API alone."""


class Collector:
    """An async context manager: call :meth:`start`, then await :attr:`ended`; its exit deletes the consumer.

    It ends when ``on_message`` calls :meth:`finish`, or at a heartbeat, when all due messages have been
    delivered. :attr:`ended` raises when the consumer cannot continue, or delivers nothing for as long as the
    bucket's retry budget.

    Args:
        bucket: the bucket to read.
        subject: a subject or a wildcard.
        on_message: called with each message; it must check :attr:`over` itself.
        deliver_policy: see :class:`OrderedConsumer`.
        after: begin after this sequence, instead.
        headers_only: deliver no payloads.
        single: deliver one message only.
        room: the share of what it delivers in what is on its way to the connection.
        other_way: raise :class:`SilentConsumer`, instead of trying for as long as the retry budget.

    Attributes:
        restarted: the consumer has been replaced by one that continues, and delivers all that follow.
    """

    def __init__(
        self,
        bucket: Bucket,
        subject: str,
        on_message: Callable[[WireMsg, Delivery], None],
        deliver_policy: str,
        *,
        after: int | None = None,
        headers_only: bool = False,
        single: bool = False,
        other_way: bool = False,
        room: Room | None = None,
    ) -> None:
        self._bucket = bucket
        self.restarted: bool = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumer = OrderedConsumer(
            bucket.js,
            bucket.stream,
            subject,
            on_message=on_message,
            on_failure=self._fail,
            on_idle=self.finish,
            on_restart=partial(self._restart, other_way),
            before=None if room is None else room.again,
            deliver_policy=deliver_policy if after is None else "by_start_sequence",
            start_seq=None if after is None else after + 1,
            heartbeat=HEARTBEAT,
            headers_only=headers_only,
            single=single,
            created=bucket.created,
            patience=bucket.consumer_timeout,
            retry_budget=bucket.retry_budget,
            limit=bucket.retry_budget,
        )

    @property
    def over(self) -> bool:
        """Whether the end has been reached: ignore later messages."""
        return self.ended.done()

    def finish(self) -> None:
        """End the read: this was the last message."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _restart(self, other_way: bool) -> None:
        self.restarted = True
        if other_way and self._consumer.silent == SILENT:
            self._fail(SilentConsumer(f"consumers of stream {self._bucket.stream!r} are silent"))

    def _fail(self, exc: BaseException) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc)

    async def start(self) -> ConsumerInfo:
        """Create the consumer, within the bucket's retry budget; return the server's info."""
        return await self._bucket.retrying(self._consumer.start)

    async def start_once(self) -> ConsumerInfo:
        """Create the consumer in one attempt, for callers with their own budget."""
        return await self._consumer.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ended.cancel()
        if not self.ended.cancelled():
            self.ended.exception()  # or asyncio logs that it was never retrieved
        try:
            await self._consumer.stop()
        finally:
            self._consumer.release()
