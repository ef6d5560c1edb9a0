"""Pull consumers: fetch a batch, acknowledge each message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from math import inf
from typing import TYPE_CHECKING

from .._values import brief, cut
from ..aio.handlers import Handler, ReplySlot
from ..errors import (
    APIError,
    ConfigError,
    ConnectionClosedError,
    NatsError,
    NoRespondersError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
)
from ..headers import status_of
from .api.acks import parse_ack_subject
from .api.codec import dumps
from .api.errors import ConsumerNotFoundError
from .api.models import ConsumerInfo
from .message import JetStreamMsg

if TYPE_CHECKING:
    from ..aio.client import Client
    from ..wire import Msg as WireMsg
    from .context import JetStreamContext

GRACE = 1.0
"""Seconds that a fetch waits beyond the server's own expiry."""

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0
"""Seconds between fetches that end early without messages: the first pause, and the longest."""

_PLAIN_ENDS = ("Batch Completed", "Leadership Change", "Server Shutdown")
"""Texts of status 409 that are no error: the next fetch may succeed."""


class _Fetch(Handler):
    """Collects one fetch.

    It has its own subscription: messages come with the subject they were published on, so the shared inbox
    of requests could not tell which fetch they belong to.
    """

    __slots__ = ("client", "consumer", "done", "failure", "msgs", "request", "room", "waiter", "wanted")

    def __init__(self, client: Client, info: ConsumerInfo, request: bytes, wanted: int, room: float) -> None:
        super().__init__(client.new_inbox().encode())
        self.client = client
        self.consumer = info.stream, info.name
        self.request = request
        self.wanted = wanted
        self.room = room  # bytes that may still come
        self.msgs: list[JetStreamMsg] = []
        self.failure: NatsError | None = None
        self.done = False
        self.waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def deliver(self, msg: WireMsg) -> None:
        if self.done:
            return
        if msg.subject == self.subject:
            if msg.header is not None and not msg.payload:
                self._status(msg.header)
            return
        delivery = parse_ack_subject(msg.reply)
        if delivery is None or (delivery.stream, delivery.consumer) != self.consumer:
            return  # of another stream's consumer: its creator chose its name and where it delivers
        if self.room < 0:
            self.finish(
                RemoteProtocolError(f"consumer {brief(self.consumer[1])} sends more than was asked for")
            )
            return
        self.room -= len(msg.payload) + len(msg.header or b"")
        self.msgs.append(JetStreamMsg(msg, self.client, delivery))
        self.wanted -= 1
        if self.wanted == 0:
            self.finish()

    def _status(self, block: bytes) -> None:
        status = status_of(block)
        if status is None or status == 100:
            return  # 100 is a heartbeat
        text = block.partition(b"\r\n")[0].decode("ascii", "replace")
        failure: NatsError | None = None
        if status == 503:
            failure = NoRespondersError(self.request.decode(), "the consumer has no leader")
        elif status == 409 and "Deleted" in text:
            failure = ConsumerNotFoundError(404, 10014, "the consumer was deleted while waiting")
        elif status not in (404, 408) and not any(part in text for part in _PLAIN_ENDS):
            failure = APIError(status, 0, cut(text))
        self.finish(failure)

    def on_end(self, exc: BaseException | None) -> None:
        self.lost(exc or ConnectionClosedError("the client was closed"))

    def lost(self, exc: BaseException) -> None:
        self.finish(exc if isinstance(exc, NatsError) else StaleConnectionError(str(exc)))

    def finish(self, failure: NatsError | None = None) -> None:
        if not self.done:
            self.done = True
            self.failure = failure
            if not self.waiter.done():
                self.waiter.set_result(None)


class _Watch(ReplySlot):
    """Tells a fetch that the connection was lost, or that its request was not permitted."""

    __slots__ = ("fetch",)

    def __init__(self, fetch: _Fetch) -> None:
        super().__init__(fetch.request)
        self.fetch = fetch

    def on_lost(self, exc: BaseException) -> None:
        self.fetch.lost(exc)


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

        Returns the messages that came within ``timeout`` seconds. An empty stream is no error: ``[]``.

        Args:
            batch: the most messages to fetch.
            timeout: seconds to wait for them, and before that for a lost connection to come back.
            max_bytes: most bytes of the batch. Do not use it with the deliver policy ``last_per_subject``,
                whatever the ack policy: the message that does not fit is never delivered (seen with
                nats-server 2.9.10 and 2.15.1). Other consumers begin the next batch with it.
            no_wait: return at once with the messages that are available.

        Raises:
            ConsumerNotFoundError: the consumer is gone.
            APIError: the server refuses the request (a limit of the consumer, or the next message exceeds
                ``max_bytes``).
            NoRespondersError: the consumer has no leader at the moment.
            RemoteProtocolError: more than ``max_bytes`` came.
            StaleConnectionError: the connection was lost before any message came.
            RequestTimeoutError: the server did not answer at all.
        """
        if batch < 1 or timeout <= 0:
            raise ConfigError("a fetch needs a positive batch and timeout")
        client = self._js.client
        client.connection.check_open()
        # Never through the reconnect buffer: messages would go to a fetch that has ended.
        await client.connection.wait_connected(timeout)
        request: dict[str, int | bool] = {"batch": batch}
        if max_bytes is not None:
            request["max_bytes"] = max_bytes
        if no_wait:
            request["no_wait"] = True  # with an expiry, too, the server would wait after all
        else:
            request["expires"] = int(timeout * 1e9)
        connection = client.connection
        connection.check_headers("a fetch")
        fetch = _Fetch(client, self.info, self._subject, batch, inf if max_bytes is None else max_bytes)
        watch = _Watch(fetch)
        mux = connection.mux
        mux.open(watch)
        connection.subscribe(fetch)
        try:
            connection.publish(self._subject, dumps(request), fetch.subject)
            connection.flush_now()
            try:
                async with asyncio.timeout(timeout + GRACE):
                    await fetch.waiter
            except TimeoutError:
                fetch.finish(RequestTimeoutError(f"no answer to a fetch from consumer {brief(self.name)}"))
                connection.probe()
        finally:
            fetch.done = True
            connection.unsubscribe(fetch)
            mux.close(watch)
        if isinstance(fetch.failure, RemoteProtocolError):
            raise fetch.failure
        if fetch.failure is not None and not fetch.msgs:
            if isinstance(fetch.failure, NoRespondersError | RequestTimeoutError):
                # If the consumer does not exist, servers before 2.10 send no answer, later ones 503.
                await self._js.consumer_info(self.info.stream, self.name)
            raise fetch.failure
        return fetch.msgs

    async def messages(self, *, batch: int = 100, timeout: float = 5.0) -> AsyncGenerator[JetStreamMsg, None]:
        """Iterate for ever, fetching ``batch`` messages at a time; break out of the loop to stop.

        After a fetch that ends early without messages (the leader changes, or somebody else answers in its
        place) it pauses for up to a second.
        """
        clock = asyncio.get_running_loop().time
        pause = 0.0
        while True:
            ends = clock() + timeout
            msgs = await self.fetch(batch, timeout=timeout)
            for msg in msgs:
                yield msg
            pause = 0.0 if msgs else min(pause * 2 or FIRST_PAUSE, LONGEST_PAUSE, max(ends - clock(), 0.0))
            if pause:
                await asyncio.sleep(pause)

    async def delete(self) -> None:
        """Delete the consumer on the server."""
        await self._js.delete_consumer(self.info.stream, self.info.name)
