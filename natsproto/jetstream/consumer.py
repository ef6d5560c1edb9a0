"""Pull consumers: fetch a batch, acknowledge each message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..aio.msg import Msg
from ..aio.request_mux import ReplySlot
from ..errors import APIError, NatsError, NoRespondersError, StaleConnectionError
from ..headers import Headers, status_of
from .api.codec import dumps
from .api.delivery import Delivery, parse_ack_subject
from .api.errors import ConsumerNotFoundError
from .api.models import ConsumerInfo

if TYPE_CHECKING:
    from ..aio.client import Client
    from ..wire import Msg as WireMsg
    from .context import JetStreamContext

GRACE = 1.0
"""Seconds beyond the server's own expiry before a fetch ends by itself."""


class JetStreamMsg:
    """A message of a pull consumer. Acknowledge it, or it is delivered again after ``ack_wait``."""

    __slots__ = ("_client", "_msg", "metadata")

    def __init__(self, frame: WireMsg, client: Client, metadata: Delivery) -> None:
        self._msg = Msg(frame, client)
        self._client = client
        self.metadata = metadata

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
        return self.metadata.stream_seq

    async def ack(self) -> None:
        """Processed. Not waited for; see :meth:`ack_sync`."""
        await self._send(b"+ACK")

    async def ack_sync(self, timeout: float | None = None) -> None:
        """Processed, and the server has confirmed that it knows."""
        await self._client.request_frame(self._reply(), b"+ACK", b"", timeout)

    async def nak(self, delay: float | None = None) -> None:
        """Deliver again, now or after ``delay`` seconds."""
        await self._send(b"-NAK" if delay is None else b"-NAK " + dumps({"delay": int(delay * 1e9)}))

    async def in_progress(self) -> None:
        """Still working: restart ``ack_wait``."""
        await self._send(b"+WPI")

    async def term(self) -> None:
        """Never deliver again."""
        await self._send(b"+TERM")

    def _reply(self) -> bytes:
        reply = self._msg._frame.reply
        assert reply is not None  # parse_ack_subject() saw it
        return reply

    async def _send(self, word: bytes) -> None:
        connection = self._client._connection
        connection.publish(self._reply(), word)
        if connection.congested:
            await connection.drain()

    def __repr__(self) -> str:
        return f"<JetStreamMsg {self.subject!r} seq={self.seq}>"


class _FetchSlot(ReplySlot):
    """Collects one fetch."""

    __slots__ = ("client", "done", "failure", "msgs", "waiter", "wanted")

    def __init__(self, subject: bytes, client: Client, wanted: int) -> None:
        super().__init__(subject)
        self.client = client
        self.wanted = wanted
        self.msgs: list[JetStreamMsg] = []
        self.failure: NatsError | None = None
        self.done = False
        self.waiter: asyncio.Future[None] | None = None

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        if self.done:
            return
        if msg.header is not None and not msg.payload and msg.reply is None:
            status = status_of(msg.header)
            if status == 100:
                return  # heartbeat
            if status is not None:
                text = msg.header.partition(b"\r\n")[0].decode("ascii", "replace")
                if status == 503:
                    self.failure = NoRespondersError(self.subject.decode(), "the consumer does not exist")
                elif status == 409 and "Deleted" in text:
                    self.failure = ConsumerNotFoundError(404, 10014, "the consumer was deleted while waiting")
                elif status not in (404, 408, 409):
                    self.failure = APIError(status, 0, text)
                self.finish()
            return
        delivery = parse_ack_subject(msg.reply)
        if delivery is None:
            return
        self.msgs.append(JetStreamMsg(msg, self.client, delivery))
        self.wanted -= 1
        if self.wanted == 0:
            self.finish()

    def on_lost(self, exc: BaseException) -> None:
        self.failure = exc if isinstance(exc, NatsError) else StaleConnectionError(str(exc))
        self.finish()

    def finish(self) -> None:
        self.done = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class PullConsumer:
    """A bound pull consumer; see :meth:`natsproto.JetStreamContext.pull_consumer`."""

    def __init__(self, js: JetStreamContext, info: ConsumerInfo) -> None:
        self._js = js
        self.info = info
        self._subject = js.subject(f"CONSUMER.MSG.NEXT.{info.stream}.{info.name}")

    @property
    def name(self) -> str:
        """The consumer's name."""
        return self.info.name

    async def fetch(
        self, batch: int = 1, *, timeout: float = 5.0, max_bytes: int | None = None, no_wait: bool = False
    ) -> list[JetStreamMsg]:
        """Fetch up to ``batch`` messages.

        Returns what came within ``timeout`` seconds, ``[]`` when nothing did: an empty stream is no error.

        Args:
            batch: how many at the most.
            timeout: seconds to wait for them.
            max_bytes: bound of the batch in bytes.
            no_wait: return at once with what there is.

        Raises:
            ConsumerNotFoundError, NoRespondersError: the consumer is gone.
            StaleConnectionError: the connection was lost before any message came.
        """
        client = self._js.client
        client._check_usable()
        request: dict[str, int | bool] = {"batch": batch, "expires": int(timeout * 1e9)}
        if max_bytes is not None:
            request["max_bytes"] = max_bytes
        if no_wait:
            request["no_wait"] = True
        connection = client._connection
        slot = _FetchSlot(self._subject, client, batch)
        connection.mux.open(slot)
        try:
            connection.publish(self._subject, dumps(request), slot.inbox)
            connection.flush_now()
            slot.waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout + GRACE):
                    if not slot.done:
                        await slot.waiter
            except TimeoutError:
                connection.probe()
        finally:
            if connection._mux is not None:
                connection._mux.close(slot)
        if slot.failure is not None and not slot.msgs:
            raise slot.failure
        return slot.msgs

    async def messages(self, *, batch: int = 100, timeout: float = 5.0) -> AsyncIterator[JetStreamMsg]:
        """Iterate for ever, fetching ``batch`` at a time; break out to stop."""
        while True:
            for msg in await self.fetch(batch, timeout=timeout):
                yield msg

    async def delete(self) -> None:
        """Delete the consumer on the server."""
        await self._js.delete_consumer(self.info.stream, self.info.name)
