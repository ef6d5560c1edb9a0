"""The measured operations on messages. Both ends are on one connection; all of it goes through the server.

One operation is a batch of messages (``Settings.messages``): published and flushed, published and received,
or one request and its answer.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from natsproto.errors import NatsError

from ..errors import IntegrityError
from .load import Call, clock
from .payloads import Payloads
from .record import Sample
from .settings import Settings

if TYPE_CHECKING:
    from natsproto.aio.client import Client
    from natsproto.aio.subscription import Subscription

PATIENCE = 10.0
"""Seconds that a batch of messages may take."""

FIRST = 100
"""Messages of a publish that are received and compared, before the run."""


class Messages:
    """What all these operations have.

    Args:
        client: the connection.
        settings: of the run.
        payloads: of the messages.
        subject: beginning of the subjects, which nobody else uses.
    """

    def __init__(self, client: Client, settings: Settings, payloads: Payloads, subject: str) -> None:
        self.client = client
        self.settings = settings
        self.batch: int = settings.messages
        self.subject = subject
        self._payloads = payloads

    def payload(self, number: int) -> bytes:
        """Return the payload of the messages of an operation."""
        return bytes(self._payloads.whole(number, self.settings.sizes.of(number)))

    async def open(self, stack: AsyncExitStack) -> None:
        """Subscribe to what the operations need; the stack ends it."""

    async def check(self) -> int:
        """Nothing is stored."""
        return 0

    def next(self, number: int) -> tuple[str, Call]:
        """Return the kind of an operation, and the call that makes it."""
        raise NotImplementedError


class Publish(Messages):
    """Publish, and wait until the server has it all. Nobody listens."""

    async def open(self, stack: AsyncExitStack) -> None:
        """Check that messages arrive as they were sent, with a listener of their own."""
        subject = f"{self.subject}.first"
        listener = await stack.enter_async_context(await self.client.subscribe(subject))
        for number in range(FIRST):
            await self.client.publish(subject, self.payload(number))
        for number in range(FIRST):
            if (await listener.next_msg(PATIENCE)).data != self.payload(number):
                raise IntegrityError("wrong bytes in a message")
        await listener.unsubscribe()

    def next(self, number: int) -> tuple[str, Call]:
        """Publish a batch."""
        return "publish", lambda: self._publish(self.payload(number))

    async def _publish(self, payload: bytes) -> Sample:
        publish, subject = self.client.publish, f"{self.subject}.nobody"
        began = clock()
        for _ in range(self.batch):
            await publish(subject, payload)
        await self.client.flush()
        return Sample(began, clock(), self.batch * len(payload), count=self.batch)


class Subscribe(Messages):
    """Publish, and wait until the subscription has received it all; each task has a subject of its own."""

    def __init__(self, client: Client, settings: Settings, payloads: Payloads, subject: str) -> None:
        super().__init__(client, settings, payloads, subject)
        self._free: list[tuple[str, Subscription]] = []

    async def open(self, stack: AsyncExitStack) -> None:
        """Subscribe once for each operation at a time."""
        for number in range(self.settings.concurrency):
            subject = f"{self.subject}.{number}"
            found = await stack.enter_async_context(
                await self.client.subscribe(subject, pending_msgs_limit=4 * self.batch + 1000)
            )
            self._free.append((subject, found))
        await self.client.flush()

    def next(self, number: int) -> tuple[str, Call]:
        """Send a batch."""
        return "subscribe", lambda: self._receive(self.payload(number))

    async def _receive(self, payload: bytes) -> Sample:
        subject, subscription = self._free.pop()
        publish, received = self.client.publish, []
        try:
            began = clock()
            for _ in range(self.batch):
                await publish(subject, payload)
            async with asyncio.timeout(PATIENCE):
                async for message in subscription:
                    received.append(message.data)
                    if len(received) == self.batch:
                        break
            ended = clock()
            if any(data != payload for data in received):
                raise IntegrityError("wrong bytes in a message, or messages in another order")
        finally:
            self._free.append((subject, subscription))
        return Sample(began, ended, self.batch * len(payload), count=self.batch)


class Request(Messages):
    """Requests to a responder that sends back what it receives.

    The sender of a request chooses its reply subject, which may be one of the server's own: so only requests
    that this connection has under way are answered, whoever else sends some.
    """

    async def open(self, stack: AsyncExitStack) -> None:
        """Start the responder."""
        requests = await stack.enter_async_context(await self.client.subscribe(f"{self.subject}.echo"))
        responder = asyncio.create_task(self._respond(requests))

        async def end() -> None:
            responder.cancel()
            await asyncio.wait([responder])

        stack.push_async_callback(end)
        await self.client.flush()

    async def _respond(self, requests: Subscription) -> None:
        async for request in requests:
            reply = request.reply
            if reply is not None and self.client.connection.mux.expects(reply):
                try:
                    await self.client.publish(reply, request.data)
                except NatsError:
                    pass  # the request runs into its time limit, which is counted

    def next(self, number: int) -> tuple[str, Call]:
        """Ask once."""
        return "request", lambda: self._request(self.payload(number))

    async def _request(self, payload: bytes) -> Sample:
        began = clock()
        answer = await self.client.request(f"{self.subject}.echo", payload)
        ended = clock()
        if answer.data != payload:
            raise IntegrityError("wrong bytes in an answer")
        return Sample(began, ended, len(payload))


WORKS = {"publish": Publish, "subscribe": Subscribe, "request": Request}
