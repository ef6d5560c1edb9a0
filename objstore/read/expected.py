"""How many bytes a chunk brings: as many as are recorded, unless larger ones came than were recorded.

Whoever may write a meta records what it likes. Reads that request many chunks at once count what is recorded;
if the chunks were larger, a server would end the connection (``natsproto/jetstream/in_flight.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from natsproto.aio.connection import Connection

    from ..bucket.bucket import Bucket

DOUBTED_FOR = 600.0
"""Seconds for which all chunks of a bucket count as the largest messages: one was larger than recorded."""

MOST_DOUBTED = 1000
"""Streams of a connection that are doubted."""

# By connection, since handles are cheap to make: the time until which a stream is doubted.
_doubted: WeakKeyDictionary[Connection, dict[str, float]] = WeakKeyDictionary()


def expected(bucket: Bucket, recorded: int) -> int:
    """Return how many bytes a message may bring that should have at most so many."""
    return bucket.max_message if _doubted and is_doubted(bucket) else recorded


def is_doubted(bucket: Bucket) -> bool:
    """Whether chunks of this bucket were larger than recorded a moment ago."""
    streams = _doubted.get(bucket.connection)
    return streams is not None and bucket.connection.loop.time() < streams.get(bucket.stream, 0.0)


def note_larger(bucket: Bucket) -> None:
    """Note that a chunk was larger than recorded."""
    streams = _doubted.setdefault(bucket.connection, {})
    if len(streams) >= MOST_DOUBTED:
        streams.clear()
    streams[bucket.stream] = bucket.connection.loop.time() + DOUBTED_FOR
