"""A real client over a session that is no network: tests see what is sent and say what comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from natsproto.aio.client import Client
from natsproto.aio.connection import State
from natsproto.aio.lifeline import Lifeline
from natsproto.aio.options import Options
from natsproto.aio.permission_refusals import Refusals
from natsproto.errors import StaleConnectionError
from natsproto.wire import Msg, Parser, Pub
from support.api_documents import api_answer

LIMIT = 20.0
"""Bound of every wait in seconds; nothing here takes a thousandth of it."""


class FakeSession:
    """Records frames, parsed as a server would; ``on_pub`` may answer each publish at once.

    What ``aside`` returns true for is neither recorded nor passed on: it has answered.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.server = connection.pool.servers[0]
        self.info: dict[str, Any] = {"max_payload": 1 << 20, "jetstream": True, "headers": True}
        self.secure = self.info_in_clear = False
        self.more_refusals_due: dict[str, int] = {}
        self.pings_sent = self.pings_answered = 0
        self.refusals = Refusals(self)  # type: ignore[arg-type]
        self.congested = False
        self.lifeline: Lifeline | None = None
        self.reads = 0
        self.transport = self.peer = None
        self.lost: BaseException | None = None
        self.pubs: list[Pub] = []
        self.on_pub: Callable[[Pub], None] | None = None
        self.aside: Callable[[Pub], bool] | None = None
        self.pongs = True
        self._pings: list[asyncio.Future[None]] = []
        self._parser = Parser("server")

    def write(self, data: bytes) -> None:
        for event in self._parser.feed(data):
            if isinstance(event, Pub) and not (self.aside is not None and self.aside(event)):
                self.pubs.append(event)
                if self.on_pub is not None:
                    self.on_pub(event)

    def write_now(self, data: bytes) -> None:
        self.write(data)

    def write_large(self, line: bytes, payload: Any) -> None:
        self.write(line + bytes(payload) + b"\r\n")

    def flush(self) -> None:
        pass

    outstanding_pings = 0

    def ping(self, waiter: asyncio.Future[None] | None) -> None:
        self.pings_sent += 1
        self.pings_answered += self.pongs
        if waiter is None:
            return
        if self.pongs:
            waiter.set_result(None)
        else:
            self._pings.append(waiter)

    def answer_pings(self) -> None:
        """Send the PONGs that were held back."""
        waiters, self._pings = self._pings, []
        self.pings_answered += len(waiters)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, exc: BaseException) -> None:
        self.lost = exc
        for waiter in self._pings:
            if not waiter.done():
                waiter.set_exception(exc)
                waiter.exception()  # as in close()
        self.connection.session_lost(self, exc)

    def leave(self, exc: BaseException) -> asyncio.Future[None]:
        barrier: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        barrier.add_done_callback(lambda _: None if self.lost else self.fail(exc))
        self.ping(barrier)
        return barrier

    async def close(self) -> None:
        self.lost = StaleConnectionError("closed")
        for waiter in self._pings:
            if not waiter.done():
                waiter.set_exception(self.lost)
                waiter.exception()  # who waited may have gone


class FakeServer:
    """The other end of one client."""

    def __init__(self) -> None:
        self.client = Client(Options(reconnect=False))
        self.connection = self.client.connection
        self.connect()

    def connect(self) -> FakeSession:
        """Establish a session; after :meth:`lose` this is the reconnect."""
        self.connection.state = State.RECONNECTING
        self.session = session = FakeSession(self.connection)
        self.connection._connected(session)  # type: ignore[arg-type]
        return session

    def lose(self) -> StaleConnectionError:
        """Lose the session; it may come back by :meth:`connect`."""
        exc = StaleConnectionError("cut")
        connection = self.connection
        connection.session = None
        connection.state = State.RECONNECTING
        connection._cancel_timers()
        for handler in list(connection.handlers.values()):
            handler.on_disconnect(exc)
        return exc

    @property
    def pubs(self) -> list[Pub]:
        return self.session.pubs

    def refuse(self, subject: str, operation: str = "Publish") -> None:
        """Say that the user has no right there."""
        text = f'Permissions Violation for {operation} to "{subject}"'
        assert self.connection.server_error(self.session, text)  # type: ignore[arg-type]

    def reply(self, pub: Pub, payload: bytes | dict[str, Any] = b"", header: bytes | None = None) -> None:
        """Answer a request; a document to one of the API gets its type."""
        assert pub.reply is not None
        if isinstance(payload, dict):
            payload = api_answer(pub.subject, payload) or payload
        self.reply_to(pub.reply, payload, header)

    def reply_to(
        self,
        subject: bytes,
        payload: bytes | dict[str, Any] = b"",
        header: bytes | None = None,
        reply: bytes | None = None,
    ) -> None:
        """Send a message to the reply inbox of the client, or to one that it has subscribed to."""
        mux = self.connection.mux
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        if self.subscribed(subject):
            self.send(subject, data, header=header, reply=reply)
        mux.deliver(Msg(subject, mux.sid, reply, header, data))

    def send(
        self,
        inbox: bytes,
        payload: bytes = b"",
        *,
        subject: bytes | None = None,
        header: bytes | None = None,
        reply: bytes | None = None,
    ) -> None:
        """Send a message to the subscription on ``inbox``, as the session would."""
        for handler in list(self.connection.handlers.values()):
            if handler.subject == inbox:
                handler.deliver(Msg(subject or inbox, handler.sid, reply, header, payload))

    def subscribed(self, inbox: bytes) -> bool:
        return any(handler.subject == inbox for handler in self.connection.handlers.values())


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Let the loop turn until ``condition()`` holds."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
