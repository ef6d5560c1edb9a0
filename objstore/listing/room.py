"""Lists take turns with what else a connection reads: others decide how large the metas of a bucket are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from natsproto.jetstream.in_flight import LIMIT, in_flight
from natsproto.subjects import has_wildcards

if TYPE_CHECKING:
    from ..bucket.bucket import Bucket

EACH = 512
"""Bytes that a name of a list is taken to bring while none has been read."""


class _Sizes:
    """How many bytes came during the last lists of a bucket, by what was listed."""

    def __init__(self, bucket: Bucket) -> None:  # Bucket.remembered passes itself
        self.bytes: dict[str, int] = {}


@asynccontextmanager
async def room_for(
    bucket: Bucket, subject: str, *, after: int = 0, names: bool = False
) -> AsyncIterator[None]:
    """Count a list while the block runs, as what is on its way to the connection; wait for room first.

    It is taken for as large as the last one: what else came meanwhile counts, too.

    Args:
        bucket: the bucket to list.
        subject: the subject that is read; without a wildcard it is no list.
        after: the list begins after this sequence: it is taken for small.
        names: only the subjects are listed, in one answer.
    """
    if after or not has_wildcards(subject):
        yield
        return
    sizes, stats = bucket.remembered(_Sizes).bytes, bucket.connection.stats
    what = f"{subject} names" if names else subject
    size = sizes.get(what, EACH * bucket.num_subjects)
    async with in_flight(bucket.connection).during(max(1, min(size, LIMIT))):
        before = stats.in_bytes
        try:
            yield
        finally:
            sizes[what] = stats.in_bytes - before
