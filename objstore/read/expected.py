"""How many bytes a chunk brings: as many as are recorded, unless larger ones came than were recorded.

Whoever may write a meta records what it likes. Reads that request many chunks at once count what is recorded;
if the chunks were larger, a server would end the connection (``natsproto/jetstream/in_flight.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bucket.known import Known

if TYPE_CHECKING:
    from ..bucket.bucket import Bucket

DOUBTED_FOR = 600.0
"""Seconds for which any chunk of a bucket counts as large as the largest that was larger than recorded."""

_largest = Known[int](DOUBTED_FOR)


def expected(bucket: Bucket, recorded: int) -> int:
    """Return how many bytes a message may bring that should have at most so many."""
    return max(recorded, _largest.get(bucket.connection, bucket.stream) or 0)


def is_doubted(bucket: Bucket) -> bool:
    """Whether chunks of this bucket were larger than recorded a moment ago."""
    return _largest.get(bucket.connection, bucket.stream) is not None


def note_larger(bucket: Bucket, size: int) -> None:
    """Note that a chunk of so many bytes was larger than recorded."""
    _largest.note(bucket.connection, bucket.stream, expected(bucket, size))
