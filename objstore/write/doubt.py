"""Chunks with an unknown outcome: whether they may still be stored, and when they must not be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from natsproto._values import seconds
from natsproto.aio.lifeline import Lifeline, has_ended
from natsproto.errors import (
    NatsError,
    PermissionsViolationError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.jetstream.api.acks import OwnAnswer
from natsproto.jetstream.api.models import StoredMessage

from ..bucket.bucket import Bucket
from ..bucket.budget import Budget
from ..bucket.shown import NotShown, shown

if TYPE_CHECKING:
    from natsproto.aio.client import Client
    from natsproto.wire import Msg as WireMsg

NOTICED = 1.0
"""Seconds within which a server must notice a lost connection, else the put restarts on a new nuid."""

LOOK_AGAIN = 0.5
"""Seconds between two attempts to reach the previous server."""

FENCE = b"NATS/1.0\r\nNats-Expected-Last-Sequence: 9007199254740991\r\n\r\n"
"""The header of a message that no stream stores."""


class Unrepairable(Exception):
    """The stored chunks differ from those sent, and this cannot be repaired; ``reason`` is the cause."""

    def __init__(self, reason: NatsError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def fence(
    bucket: Bucket, subject: str, empty_chunk_header: bytes = b"", client: Client | None = None
) -> None:
    """Wait until everything sent before on this connection is stored or dropped.

    It sends a message that the stream must refuse, on the same connection: the refusal shows that everything
    before it has been handled. Without it a late chunk would seem to be missing, and would be stored twice. A
    replicated stream refuses a message before it has stored earlier ones, but stores in order: there the
    message is an empty chunk, which is removed again. Only the bucket's own stream answers.

    Args:
        bucket: the bucket of the chunks.
        subject: the subject of the chunks.
        empty_chunk_header: the header of the empty chunk.
        client: the client of the connection; default: the bucket's.

    Raises:
        NatsError: no response. (A refusal is a success without replicas: the fence has arrived.)
    """
    header = empty_chunk_header if bucket.replicated else FENCE
    client = client or bucket.client
    own = OwnAnswer(bucket.acks, header)

    def counts(msg: WireMsg) -> bool:
        return own(msg) and (bucket.replicated or own.refused)

    try:
        await client.request_frame(
            subject.encode(), b"", header, bucket.js.timeout, begins=b"", counts=counts
        )
    except RequestTimeoutError as exc:
        raise own.missing(exc) from own.passed
    if bucket.replicated:
        await delete_own(
            bucket, own.result().seq, lambda stored: stored.subject == subject and not stored.data
        )


async def fence_behind(
    bucket: Bucket, subject: str, empty_chunk_header: bytes, line: Lifeline, seconds: float
) -> bool:
    """Run :func:`fence` at the previous server: it may hold back messages for another one of its cluster.

    Args:
        bucket, subject, empty_chunk_header: as for :func:`fence`.
        line: the lifeline of the lost session.
        seconds: how long to try: a restarted server needs some time to come back.

    Returns:
        Whether nothing can come from there any more: the fence was answered, or the server is a new process.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    async with line.connect_again(bucket.client) as client:
                        if not line.precedes_all_of(client):
                            return False  # another server has that address
                        if not await has_ended(client, line, NOTICED):
                            return False  # the others do not know what it still holds
                        await fence(bucket, subject, empty_chunk_header, client)
                        return True
                except NatsError:
                    await asyncio.sleep(LOOK_AGAIN)
    except TimeoutError:
        return False


async def delete_own(
    bucket: Bucket, seq: int, ours: Callable[[StoredMessage], bool], *, proven: bool = False
) -> None:
    """Delete a message that must not stay between the chunks; see :meth:`Bucket.delete_own`.

    Raises:
        Unrepairable: the user may not delete messages, or no consumer shows it.
    """
    try:
        await bucket.delete_own(seq, ours, proven=proven)
    except (PermissionsViolationError, NotShown) as exc:
        raise Unrepairable(exc) from None


async def check_shown(bucket: Bucket, subject: str, seqs: Collection[int]) -> None:
    """Make sure that the bucket has messages of a subject at these sequences; see :func:`shown`.

    Raises:
        Unrepairable: no consumer shows them.
    """
    try:
        await shown(bucket, subject, seqs)
    except (PermissionsViolationError, NotShown) as exc:
        raise Unrepairable(exc) from None


def late_chunks_error(name: str, failure: NatsError) -> StaleConnectionError:
    """Return the error for chunks at a server that may store them at any time, even after the commit.

    When a stopped process continues, it reads what its sockets hold, even if the client has left long ago. A
    server that has not noticed the client's end reads what a relay still holds. So these chunks must not be
    sent again on the same nuid: the late copies would damage its object.
    """
    return StaleConnectionError(
        f"a connection was lost whose server may still store chunks of {name!r}: {failure}", silent=True
    )


def budget_spent_error(failure: NatsError, budget: Budget) -> NatsError:
    """Return the error of a put that has used up its budget: the last failure, with the whole time."""
    if isinstance(failure, RequestTimeoutError):
        return RequestTimeoutError(
            f"no acknowledgement of a chunk within {seconds(budget.seconds)} s (retry_budget): {failure}"
        )
    return failure
