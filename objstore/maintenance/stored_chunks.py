"""Find the chunks that a bucket has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from natsproto.errors import (
    APIError,
    NatsError,
    PermissionsViolationError,
)

from ..bucket.bucket import Bucket
from ..bucket.collect import Collector
from ..bucket.ways import ANY_WAY
from ..format.naming import all_chunks_subject, is_safe_nuid
from ..listing.metas import all_subjects

if TYPE_CHECKING:
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.wire import Msg as WireMsg


async def chunk_counts(bucket: Bucket) -> dict[str, int] | None:
    """Return the number of chunks of each nuid; ``None`` when the subjects do not fit into one message."""
    subjects = await all_subjects(bucket)
    if subjects is None:
        return None
    begin = all_chunks_subject(bucket.name)[:-1]
    start = len(begin)
    return {subject[start:]: count for subject, count in subjects.items() if subject.startswith(begin)}


async def chunk_nuids(bucket: Bucket) -> set[str]:
    """Return the nuids of the chunks, read from the messages; those stored meanwhile may be missing."""
    nuids: set[str] = set()
    subject = all_chunks_subject(bucket.name)

    def add(subject: str) -> None:
        nuid = subject[len(f"$O.{bucket.name}.C.") :]
        if is_safe_nuid(nuid):  # others are never used, and may be long
            nuids.add(nuid)

    if bucket.ways.can_deliver():
        try:
            await _read_headers(bucket, subject, add)
            return nuids
        except (PermissionsViolationError, APIError) as exc:
            if not bucket.ways.note_refusal(exc):
                raise bucket.translate(exc) from exc
        except NatsError as exc:
            raise bucket.translate(exc) from exc
    async with aclosing(bucket.messages(subject, ways=ANY_WAY)) as messages:
        async for message in messages:
            add(message.subject)
    return nuids


async def _read_headers(bucket: Bucket, subject: str, add: Callable[[str], None]) -> None:
    """Read the subjects of the last messages with a consumer, without their payloads."""
    last = (await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))).last_seq

    def on_message(msg: WireMsg, delivery: Delivery) -> None:
        add(msg.subject.decode("utf-8", "replace"))
        if delivery.num_pending == 0 or delivery.stream_seq >= last:
            reading.finish()

    async with Collector(bucket, subject, on_message, "last_per_subject", headers_only=True) as reading:
        if (await reading.start()).num_pending:
            await reading.ended
