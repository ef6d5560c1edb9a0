"""Whether a server still holds a connection that was lost on this side.

What was sent on it may still be under way: relays and tunnels hold it, and so can whoever is on the network,
without being able to read it. Delivered on a connection that the server holds open it is carried out, even
minutes after this client has connected again and gone on. No answer tells of that beforehand. But a server
knows who listens: a session subscribes to a subject that nobody else knows, and once the server has closed
the connection, a request to that subject finds no responders.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import NoRespondersError, PermissionsViolationError, RequestTimeoutError
from ..wire import serializer

if TYPE_CHECKING:
    from .client import Client

FIRST_WAIT = 0.1
"""Seconds that the first question waits, each further one twice as long: while the connection is held, nobody
answers."""


def lifeline(client: Client) -> bytes:
    """The subject that the present session listens to while its server holds it; ``b""`` without one."""
    session = client._connection.session
    if session is None:
        return b""
    if not session.lifeline:
        session.lifeline = client.new_inbox().encode()
        session.write(b"".join(serializer.sub(session.lifeline, client._connection.next_sid())))
    return session.lifeline


async def has_ended(client: Client, line: bytes, patience: float) -> bool:
    """Whether the server has closed the session that this is the :func:`lifeline` of.

    Then what was sent there has been taken in, or is lost. In a cluster that is the word of the server
    connected to now, which hears from the others what is listened to.

    Args:
        client: connected again.
        line: what :func:`lifeline` has returned in that session.
        patience: seconds in which it has to end; a server that has not noticed anything needs minutes.

    Returns:
        False also where nothing can be found out: this user may not publish to the subject, or somebody else
        listens there, and answers.

    Raises:
        NatsError: the connection was lost again.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    wait = FIRST_WAIT
    while line:
        try:
            await client.request_frame(line, b"", b"", wait)
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
