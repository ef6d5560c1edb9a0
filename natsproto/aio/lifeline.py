"""What may still come of a connection that was lost on this side.

What was sent on it may still be under way: relays and tunnels hold it, and so can whoever is on the network,
without being able to read it. Delivered on a connection that the server holds open it is carried out, even
minutes after this client has connected again and gone on. No answer tells of that beforehand. But a server
knows who listens: a session subscribes to a subject that nobody else knows, and once the server has closed
the connection, a request to that subject finds no responders. That proves nothing while the subscription
itself may be under way: the server must have answered something that was sent after it.

In a cluster the server that was left may hold what goes on to another server, for as long as these two do not
reach each other: see :meth:`Lifeline.is_followed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import NoRespondersError, PermissionsViolationError, RequestTimeoutError
from ..wire import serializer

if TYPE_CHECKING:
    from .client import Client
    from .session import Session

FIRST_WAIT = 0.1
"""Seconds that the first question waits, each further one twice as long: while the connection is held, nobody
answers."""


class Lifeline:
    """What one session listens to for as long as its server holds it.

    Attributes:
        subject: of it; nobody else knows it.
        pong: answers a PING that was sent after the subscription.
    """

    __slots__ = ("_info", "_server", "pong", "subject")

    def __init__(self, session: Session, subject: bytes) -> None:
        self.subject: bytes = subject
        self.pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server = session.server
        self._info = session.info

    @property
    def seen(self) -> bool:
        """Whether the server has it for certain."""
        return self.pong.done() and not self.pong.cancelled() and self.pong.exception() is None

    def is_followed(self, client: Client) -> bool:
        """Whether what ``client`` sends now comes after all that the server took in on this session.

        On the same server it does. One that was started again holds nothing of what it held before. Any other
        one of a cluster, or behind another address, has another way to the stream.
        """
        session = client.connection.session
        if session is None:
            return False
        if _named(self._info) == _named(session.info):
            return True
        unnamed = "server_name" not in self._info or self._info["server_name"] == self._info.get("server_id")
        alone = "cluster" not in self._info and "cluster" not in session.info
        return unnamed and alone and self._server.url == session.server.url

    @asynccontextmanager
    async def revisited(self, client: Client) -> AsyncGenerator[Client]:
        """A connection of its own to the server of this session.

        Raises:
            NatsError: it does not answer.
        """
        options = client.connection.options
        other = type(client)(
            replace(
                options,
                reconnect=False,
                retry_on_failed_connect=False,
                error_cb=_ignore,
                disconnected_cb=None,
                reconnected_cb=None,
                closed_cb=None,
                discovered_server_cb=None,
                lame_duck_cb=None,
            )
        )
        other.connection.options.check_peer = options.check_peer
        other.connection.pool.servers = [self._server]
        await other.connection.open()
        try:
            yield other
        finally:
            await other.close()


def _named(info: Mapping[str, object]) -> object:
    """What a server is called; without a name of its own, its id, which is new with each start."""
    return info.get("server_name") or info.get("server_id")


def _ignore(exc: BaseException) -> None:
    """What happens to a connection that asks one thing shows in the answer."""


def lifeline(client: Client) -> Lifeline | None:
    """That of the present session; ``None`` without one."""
    session = client.connection.session
    if session is None:
        return None
    if session.lifeline is None:
        session.lifeline = line = Lifeline(session, client.new_inbox().encode())
        session.write(b"".join(serializer.sub(line.subject, client.connection.next_sid())))
        session.ping(line.pong)
    return session.lifeline


async def has_ended(client: Client, line: Lifeline | None, patience: float) -> bool:
    """Whether the server has closed the session that this is the :func:`lifeline` of.

    Then what was sent there has been taken in by that server, or is lost. In a cluster that is the word of
    the server connected to now, which hears from the others what is listened to.

    Args:
        client: connected again.
        line: what :func:`lifeline` has returned in that session.
        patience: seconds in which it has to end; a server that has not noticed anything needs minutes.

    Returns:
        False also where nothing can be found out: the server may not have seen the subscription, this user
        may not publish to the subject, or somebody else listens there, and answers.

    Raises:
        NatsError: the connection was lost again.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    wait = FIRST_WAIT
    while line is not None and line.seen:
        try:
            await client.request_frame(line.subject, b"", b"", wait)
            return False
        except NoRespondersError:
            return True
        except PermissionsViolationError:
            return False
        except RequestTimeoutError:
            pass
        left = deadline - loop.time()
        if left <= 0:
            return False
        wait = min(2 * wait, max(FIRST_WAIT, left))
    return False
