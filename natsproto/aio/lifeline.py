"""Finds out whether messages of a lost connection may still arrive.

What was sent on it may still be under way: relays and tunnels can hold it back, and so can an attacker on the
network, even without reading it. If it reaches the server while that still holds the connection open, it is
carried out, even minutes after this client has reconnected and continued. No answer warns of that. But a
server knows who listens: a session subscribes to a subject that nobody else knows, and once the server has
closed the connection, a request to that subject finds no responders. This holds only once the server has
confirmed the subscription: it must have answered a PING that was sent after it.

In a cluster, the server of the lost connection may hold messages for another server as long as the two do not
reach each other: see :meth:`Lifeline.precedes_all_of`.
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
"""Seconds to wait for an answer to the first request, doubled for each further one: while the server holds
the connection, nobody answers."""


class Lifeline:
    """A subscription that lasts as long as the server holds the session.

    Attributes:
        subject: its subject, which nobody else knows.
        sid: its number in this session.
        pong: the answer to a PING that was sent after the subscription.
        refused: the server may have refused or ended the subscription: it is never confirmed then.
    """

    __slots__ = ("_info", "_server", "pong", "refused", "sid", "subject")

    def __init__(self, session: Session, subject: bytes, sid: bytes) -> None:
        self.subject: bytes = subject
        self.sid: bytes = sid
        self.pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused: bool = False
        self._server = session.server
        self._info = session.info

    @property
    def confirmed(self) -> bool:
        """Whether the server certainly has the subscription."""
        pong = self.pong
        return not self.refused and pong.done() and not pong.cancelled() and pong.exception() is None

    def error_received(self, subject: bytes | None) -> None:
        """Note an ``-ERR``, and which subscription it is about, if it says so.

        Others, such as the one for too many subscriptions, name none: before the PONG it may be this one.
        """
        if subject == self.subject or (subject is None and not self.pong.done()):
            self.refused = True

    def precedes_all_of(self, client: Client) -> bool:
        """Whether messages that ``client`` sends now come after all that the server received in this session.

        On the same server they do. A restarted server has lost what it held. Any other server of a cluster,
        or behind another address, has another path to the stream.
        """
        session = client.connection.session
        if session is None:
            return False
        if _identity(self._info) == _identity(session.info):
            return True
        unnamed = "server_name" not in self._info or self._info["server_name"] == self._info.get("server_id")
        # One with JetStream and without a cluster. A leaf node without it forwards to streams elsewhere.
        alone = all("cluster" not in info and info.get("jetstream") for info in (self._info, session.info))
        return unnamed and alone and self._server.url == session.server.url

    @asynccontextmanager
    async def connect_again(self, client: Client) -> AsyncGenerator[Client]:
        """Open a separate connection to the server of this session.

        Raises:
            NatsError: the server does not answer.
        """
        options = client.connection.options
        other = type(client)(
            replace(
                options,
                reconnect=False,
                retry_on_failed_connect=False,
                error_cb=_ignore,
                connected_cb=None,
                disconnected_cb=None,
                reconnected_cb=None,
                closed_cb=None,
                discovered_server_cb=None,
                lame_duck_cb=None,
            )
        )
        other.connection.options.check_peer = options.check_peer
        other.connection.pool.share(client.connection.pool)
        other.connection.pool.servers = [replace(self._server)]  # its failures are not the client's own
        await other.connection.open()
        try:
            yield other
        finally:
            await other.close()


def _identity(info: Mapping[str, object]) -> object:
    """Return a server's name; without one its id, which changes with each start."""
    return info.get("server_name") or info.get("server_id")


def _ignore(exc: BaseException) -> None:
    """Ignore errors of a connection that makes one request, which fails anyway."""


def lifeline(client: Client) -> Lifeline | None:
    """Return the lifeline of the current session; ``None`` without a session."""
    session = client.connection.session
    if session is None:
        return None
    if session.lifeline is None:
        line = Lifeline(session, client.new_inbox().encode(), client.connection.next_sid())
        session.lifeline = line
        session.write(b"".join(serializer.sub(line.subject, line.sid)))
        session.ping(line.pong)
    return session.lifeline


async def has_ended(client: Client, line: Lifeline | None, patience: float) -> bool:
    """Whether the server has closed the session of this :func:`lifeline`.

    If so, that server has received everything sent there, or it is lost. In a cluster the current server
    answers, to which the others report their subscriptions.

    Args:
        client: reconnected.
        line: the result of :func:`lifeline` in that session.
        patience: seconds in which the session has to end; a server that has noticed nothing needs minutes.

    Returns:
        False, too, if it cannot be found out: the server may not have the subscription, this user may not
        publish to the subject, or somebody else listens there and answers.

    Raises:
        NatsError: the connection was lost again.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    wait = FIRST_WAIT
    while line is not None and line.confirmed:
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
