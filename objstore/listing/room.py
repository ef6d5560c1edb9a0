"""Lists take turns with what else a connection reads: others decide how large the metas of a bucket are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from natsproto.jetstream.in_flight import LIMIT, in_flight

if TYPE_CHECKING:
    from natsproto.aio.connection import Connection

    from ..bucket.bucket import Bucket

KNOWN_FOR = 60.0
"""Seconds for which a list is taken for as large as the last one; then it may take all the room again."""

MOST_KNOWN = 1000
"""Lists of a connection whose sizes are known."""

# By connection, since handles are cheap to make: how many bytes came during the last list of a kind, and how
# long that counts.
_sizes: WeakKeyDictionary[Connection, dict[tuple[str, str, bool], tuple[int, float]]] = WeakKeyDictionary()


@asynccontextmanager
async def room_for(
    bucket: Bucket, subject: str, *, after: int = 0, names: bool = False, size: int | None = None
) -> AsyncIterator[None]:
    """Count a list while the block runs, as what is on its way to the connection; wait for room first.

    It is taken for as large as the last one: what else came meanwhile counts, too.

    Args:
        bucket: the bucket to list.
        subject: the subject with wildcards that is read.
        after: the list begins after this sequence: it is taken for small.
        names: only the subjects are listed, in one answer.
        size: the bytes that come, if they are known.
    """
    if after:
        yield
        return
    if size is not None:
        async with in_flight(bucket.connection).during(max(1, min(size, LIMIT))):
            yield
        return
    connection, key = bucket.connection, (bucket.stream, subject, names)
    sizes, loop = _sizes.setdefault(connection, {}), connection.loop
    size, until = sizes.get(key, (LIMIT, 0.0))
    if loop.time() >= until:
        size = LIMIT
    async with in_flight(connection).during(max(1, min(size, LIMIT))):
        before = connection.stats.in_bytes
        try:
            yield
        finally:
            if len(sizes) >= MOST_KNOWN:
                sizes.clear()
            sizes[key] = connection.stats.in_bytes - before, loop.time() + KNOWN_FOR
