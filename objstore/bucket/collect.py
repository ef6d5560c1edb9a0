"""One ordered consumer, read to an end that its callback knows: what several ways of reading share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from natsproto.jetstream.ordered import OrderedConsumer

if TYPE_CHECKING:
    from typing import Self

    from natsproto.jetstream.api.acks import Delivery
    from natsproto.jetstream.api.models import ConsumerInfo
    from natsproto.wire import Msg as WireMsg

    from .bucket import Bucket

HEARTBEAT = 1.0
"""Seconds between the heartbeats of a consumer that has nothing to deliver."""


class Collector:
    """An async context manager: :meth:`start`, then :attr:`ended`; the consumer is deleted on the way out.

    It ends when :meth:`finish` is called, which ``on_message`` does, and at a heartbeat: what is due has been
    delivered then. A consumer that cannot go on, or that delivers nothing for as long as the bucket's retry
    budget, raises from :attr:`ended`.

    Args:
        bucket: whose stream.
        subject: a subject or a wildcard.
        on_message: called with each message; it has to look at :attr:`over` itself.
        deliver_policy: see :class:`OrderedConsumer`.
        after: begin after this sequence, instead.
        headers_only: deliver no payloads.
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
    ) -> None:
        self._bucket = bucket
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumer = OrderedConsumer(
            bucket.js,
            bucket.stream,
            subject,
            on_message=on_message,
            on_failure=self._fail,
            on_idle=self.finish,
            deliver_policy=deliver_policy if after is None else "by_start_sequence",
            start_seq=None if after is None else after + 1,
            heartbeat=HEARTBEAT,
            headers_only=headers_only,
            created=bucket.created,
            patience=bucket.patience,
            retry_budget=bucket.retry_budget,
            limit=bucket.retry_budget,
        )

    @property
    def over(self) -> bool:
        """Whether the end has been reached: what still comes is not wanted."""
        return self.ended.done()

    def finish(self) -> None:
        """This was the last message."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _fail(self, exc: BaseException) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc)

    async def start(self) -> ConsumerInfo:
        """Make the consumer, within the bucket's retry budget; returns what the server says of it."""
        return await self._bucket.retrying(self._consumer.start)

    async def start_once(self) -> ConsumerInfo:
        """As :meth:`start`, for who has a budget of their own."""
        return await self._consumer.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ended.cancel()
        if not self.ended.cancelled():
            self.ended.exception()  # or asyncio says that nobody has asked for it
        try:
            await self._consumer.stop()
        finally:
            self._consumer.release()
