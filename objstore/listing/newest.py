"""The newest messages of many subjects, from the leader: others decide how large they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from natsproto.errors import NatsError, PermissionsViolationError
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.in_flight import LIMIT, in_flight

from ..bucket.known import Known
from ..bucket.ways import ANY_WAY

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

    from ..bucket.bucket import Bucket
    from ..bucket.message_reads import MessageRead

AT_ONCE = 64
"""Reads of single messages in flight at once."""

BYTES_AT_ONCE = 8 * 1024 * 1024
"""Bytes that they may bring, by :class:`_Estimate`; those of unknown size never more than :data:`LIMIT`."""

UNKNOWN = 1024 * 1024
"""Bytes that one may have while nothing is known."""

SMALLEST = 512
"""Bytes that one has at least, as far as it counts for what is on its way."""

KNOWN_FOR = 60.0
"""Seconds for which as many of them are taken to be no larger than the largest of the last ones."""

_known = Known[tuple[int, int]](KNOWN_FOR)
"""By stream and kind, the size of the largest, and of how many."""


class _Estimate:
    """The size of the largest of the last ones. It sinks slowly: the next ones may be larger again."""

    def __init__(self, bucket: Bucket) -> None:  # Bucket.remembered passes itself
        self.size: int = UNKNOWN


async def each_newest(
    bucket: Bucket,
    subjects: list[str],
    at_once: int = AT_ONCE,
    ways: tuple[str, ...] = ANY_WAY,
    *,
    whole: bool = True,
) -> AsyncGenerator[tuple[str, StoredMessage | None], None]:
    """Yield the newest messages of many subjects from the leader, with several requests in flight.

    Those that cannot be requested are left out. ``whole``: these are no part of a larger list.
    """
    if not subjects:
        return
    estimate, connection, at, largest = bucket.remembered(_Estimate), bucket.connection, 0, 0
    kind = bucket.stream, subjects[0].split(".", 3)[2]  # metas, or chunks
    while at < len(subjects):
        known, number = _known.get(connection, kind) or (0, 0)
        size = counted = max(estimate.size, known)
        most = at_once
        if len(subjects) > number:  # small ones may come before large ones
            counted = max(size, _as_it_comes(min(bucket.max_message, UNKNOWN)))
            most = min(at_once, LIMIT // counted)
        count = max(1, min(most, BYTES_AT_ONCE // size))
        part = list(filter(bucket.can_request, subjects[at : at + count]))
        at += count
        async with in_flight(connection).during(max(1, min(LIMIT, counted * len(part)))):
            answers = await _newest_of(bucket, part, ways)
        newest = _as_it_comes(max((len(each.data) for _, each in answers if each is not None), default=0))
        largest = max(largest, newest)
        estimate.size = max(newest, estimate.size * 7 // 8)
        if newest > known:
            _known.note(connection, kind, (newest, number))
        for answer in answers:
            yield answer
    known, number = _known.get(connection, kind) or (0, 0)
    if len(subjects) >= number and whole:
        _known.note(connection, kind, (largest, len(subjects)))


def _as_it_comes(size: int) -> int:
    """Return the bytes of an answer with so many: in base64, perhaps."""
    return SMALLEST + size * 4 // 3


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
