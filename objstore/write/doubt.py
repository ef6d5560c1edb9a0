"""Chunks whose fate is unknown: what may still become of them, and when they must not be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from natsproto.errors import (
    NatsError,
    PermissionsViolationError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.jetstream.api.models import StoredMessage

from ..bucket.bucket import Bucket
from ..bucket.budget import Budget

if TYPE_CHECKING:
    from natsproto.aio.client import Client
    from natsproto.aio.lifeline import Lifeline

LOOK_AGAIN = 0.5
"""Seconds between two attempts to reach a server that was left."""

FENCE = b"NATS/1.0\r\nNats-Expected-Last-Sequence: 9007199254740991\r\n\r\n"
"""The header of a message that no stream stores."""


class Unrepairable(Exception):
    """The stored chunks are not the ones sent and cannot be made so; ``reason`` is what began it."""

    def __init__(self, reason: NatsError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def fence(bucket: Bucket, subject: str, replicated: bytes = b"", client: Client | None = None) -> None:
    """Wait until what was sent before on this connection has been stored, or was dropped.

    A message that the stream must refuse takes the same way, in the same order. Without it a chunk that is
    only late would be found missing, and stored twice. A replicated stream refuses before what came earlier
    is stored, and stores in order: there the message is an empty chunk, removed again.

    Args:
        bucket: where.
        subject: of the chunks.
        replicated: the header of that chunk.
        client: whose connection it is; the bucket's.

    Raises:
        NatsError: no answer; a refusal means that its turn has come.
    """
    header = replicated if bucket.replicated else FENCE
    client = client or bucket.client
    msg = await client.request_frame(subject.encode(), b"", header, bucket.js.timeout)
    if bucket.replicated:
        ack = bucket.own_ack(msg.payload)
        await delete_own(bucket, ack.seq, lambda stored: stored.subject == subject and not stored.data)


async def fence_behind(
    bucket: Bucket, subject: str, replicated: bytes, line: Lifeline, seconds: float
) -> bool:
    """:func:`fence` at the server that was left, for what it may hold back for another one of its cluster.

    Args:
        bucket, subject, replicated: as there.
        line: of the session that was lost; its server has closed it.
        seconds: for how long to try: a server that is started again comes back after some of them.

    Returns:
        Whether nothing can come from there any more: the fence was answered, or the server is a new process.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    async with line.revisited(bucket.client) as client:
                        if not line.is_followed(client):
                            return False  # another one has that address
                        await fence(bucket, subject, replicated, client)
                        return True
                except NatsError:
                    await asyncio.sleep(LOOK_AGAIN)
    except TimeoutError:
        return False


async def delete_own(bucket: Bucket, seq: int, ours: Callable[[StoredMessage], bool]) -> None:
    """:meth:`Bucket.delete_own`, for what must not stay between the chunks.

    Raises:
        Unrepairable: the user may not delete messages.
    """
    try:
        await bucket.delete_own(seq, ours)
    except PermissionsViolationError as exc:
        raise Unrepairable(exc) from None


def may_come_late(name: str, failure: NatsError) -> StaleConnectionError:
    """Chunks went to a server that may store them at any time, after the commit even.

    A process that was stopped reads, when it goes on, what its sockets hold, although the client has left
    long ago; and what a relay holds is read by a server that has not noticed that the client has left. So
    they must not be sent once more on the same nuid, whose object they would damage.
    """
    return StaleConnectionError(
        f"a connection was lost whose server may still store chunks of {name!r}: {failure}", silent=True
    )


def in_vain(failure: NatsError, budget: Budget) -> NatsError:
    """What a put raises that has used up its budget: the last failure, with the whole time."""
    if isinstance(failure, RequestTimeoutError):
        return RequestTimeoutError(
            f"no acknowledgement of a chunk within {budget.seconds:g} s (retry_budget): {failure}"
        )
    return failure
