"""Read all metas of a bucket in stream order, where their names do not fit into one message."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from natsproto.errors import APIError, NatsError, PermissionsViolationError

from ..bucket.counts import counts_from
from ..bucket.message_reads import no_way
from ..bucket.ways import ANY_WAY, AT_LEADER, CONSUMER
from ..errors import ObjectChangedError
from ..format.naming import all_meta_subject

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

    from ..bucket.bucket import Bucket

CATCH_UPS = 10
"""Times that a read of all metas continues with what was stored meanwhile."""

STRETCH = 1000
"""Metas that are read before they are compared with a count of them."""

COUNTS = 10
"""Times that metas are counted: one that is stored between two counts is counted once too often."""


async def metas_so_far(
    bucket: Bucket, *, after: int = 0, leader: bool = False
) -> AsyncGenerator[StoredMessage, None]:
    """Yield all metas in stream order, as :meth:`Bucket.messages` does, but end even while others write.

    A writer that replaces one meta again and again is always ahead of us. Yet the initial end of the stream
    is not enough: metas replaced meanwhile lie beyond it, and old chunks may depend on them. So the leader is
    asked for the end again, up to :data:`CATCH_UPS` times. The oldest remaining meta comes first.

    No single answer ends the read, or leaves a meta out: a consumer counts them, too.

    Args:
        leader: read one by one from the leader, and in no other way; removals depend on it.

    Raises:
        ObjectChangedError: the end was not reached: a meta may have been replaced in each of these rounds
            before its turn came. Or metas were left out.
        PermissionsViolationError: with ``leader``: this user may create no consumer, which counts the metas.
    """
    subject, ways = all_meta_subject(bucket.name), AT_LEADER if leader else ANY_WAY
    rounds = CATCH_UPS
    last = await _last_seq(bucket)
    start = cursor = after
    count, beyond = 0, -1
    while beyond:
        follow = 0
        messages = bucket.messages(subject, after=cursor, leader=leader, ways=ways)
        async with aclosing(messages):
            async for message in messages:
                yield message
                cursor = message.seq
                follow += 1
                count += 1
                if count == STRETCH:
                    await _compare(bucket, start, cursor, count, leader)
                    start, count = cursor, 0
                if cursor > last:
                    if not rounds:
                        raise _changing(bucket)
                    rounds -= 1
                    last = await _last_seq(bucket)
        if 0 <= beyond <= follow:
            break
        beyond = (await _count(bucket, [cursor], leader))[0]
        if beyond and not rounds:
            raise _changing(bucket)
        rounds -= 1
    await _compare(bucket, start, cursor, count, leader)


async def _compare(bucket: Bucket, start: int, end: int, count: int, needed: bool) -> None:
    """Make sure that no more metas lie after ``start``, up to ``end``, than have been read.

    Raises:
        ObjectChangedError: there are more.
        PermissionsViolationError: this cannot be counted, and is ``needed``.
    """
    for _ in range(COUNTS):
        beyond, there = await _count(bucket, [end, start], needed)
        if there - beyond <= count:
            return
    raise _changing(bucket)


async def _count(bucket: Bucket, positions: list[int], needed: bool) -> list[int]:
    """Count the metas after each of these sequences; zeros when this is neither allowed nor needed."""
    subject = all_meta_subject(bucket.name)
    while bucket.ways.has_right(CONSUMER):
        try:
            return await counts_from(bucket, subject, *(at + 1 for at in positions))
        except APIError as exc:
            raise bucket.translate(exc) from None
        except PermissionsViolationError as exc:
            if not bucket.ways.note_refusal(exc):
                raise
    if needed:
        raise no_way(bucket, (CONSUMER,))
    return [0] * len(positions)


def _changing(bucket: Bucket) -> ObjectChangedError:
    return ObjectChangedError(
        f"the metas of bucket {bucket.name!r} change faster than they can be read: "
        "try again when less is written",
        bucket=bucket.name,
    )


async def _last_seq(bucket: Bucket) -> int:
    try:
        return (await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))).last_seq
    except NatsError as exc:
        error = bucket.translate(exc)
        raise error from (exc if error is not exc else None)
