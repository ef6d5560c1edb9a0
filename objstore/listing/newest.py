"""The newest messages of many subjects, from the leader: others decide how large they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from natsproto.errors import NatsError, PermissionsViolationError
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.in_flight import LIMIT, in_flight

from ..bucket.ways import ANY_WAY

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

    from ..bucket.bucket import Bucket
    from ..bucket.message_reads import MessageRead

AT_ONCE = 64
"""Reads of single messages in flight at once."""

BYTES_AT_ONCE = 8 * 1024 * 1024
"""Bytes that they may bring, by :class:`_Known`; never more than :data:`LIMIT`, however large each is."""

UNKNOWN = 1024 * 1024
"""Bytes that one may have while nothing is known."""

SMALLEST = 512
"""Bytes that one has at least, as far as it counts for what is on its way."""


class _Known:
    """The size of the largest of the last ones. It sinks slowly: the next ones may be larger again."""

    def __init__(self, bucket: Bucket) -> None:  # Bucket.remembered passes itself
        self.size: int = UNKNOWN


async def each_newest(
    bucket: Bucket, subjects: list[str], at_once: int = AT_ONCE, ways: tuple[str, ...] = ANY_WAY
) -> AsyncGenerator[tuple[str, StoredMessage | None], None]:
    """Yield the newest messages of many subjects from the leader, with several requests in flight.

    Those that cannot be requested are left out.
    """
    known, at = bucket.remembered(_Known), 0
    at_once = min(at_once, LIMIT // bucket.max_message)  # smaller ones may come before larger ones
    while at < len(subjects):
        count = max(1, min(at_once, BYTES_AT_ONCE // known.size))
        part = list(filter(bucket.can_request, subjects[at : at + count]))
        at += count
        async with in_flight(bucket.connection).during(max(1, min(LIMIT, known.size * len(part)))):
            answers = await _newest_of(bucket, part, ways)
        sizes = [len(each.data) for _, each in answers if each is not None]
        known.size = max(SMALLEST + max(sizes, default=0), known.size * 7 // 8)
        for answer in answers:
            yield answer


async def _newest_of(
    bucket: Bucket, subjects: list[str], ways: tuple[str, ...]
) -> list[tuple[str, StoredMessage | None]]:
    """Return the newest messages of some subjects, requested all at once."""
    pending: list[MessageRead] = []
    answers: list[tuple[str, StoredMessage | None]] = []
    try:
        try:
            pending.extend(bucket.leader_read(subject, ways=ways) for subject in subjects)
        except NatsError as exc:
            if not retryable(exc):
                raise
        for index, subject in enumerate(subjects):
            begun = pending[index] if index < len(pending) and not bucket.old.index_broken else None
            try:
                answers.append((subject, await _finish(bucket, subject, begun, ways)))
            except PermissionsViolationError:
                if ways is not ANY_WAY or bucket.can_request(subject):
                    raise
                # else it is too long for the ways that are left
    finally:
        for request in pending:
            request.close()
    return answers


async def _finish(
    bucket: Bucket, subject: str, pending: MessageRead | None, ways: tuple[str, ...] = ANY_WAY
) -> StoredMessage | None:
    """Return the response to a started leader read; request it again where that may help."""
    if pending is not None:
        try:
            return await pending.wait()
        except NatsError as exc:
            if not retryable(exc):
                raise
    return await bucket.leader_message(subject, ways)
