"""Latencies: a histogram that is exact to 0.8 % from a nanosecond to days, and merges with others.

The buckets are those of HdrHistogram: each power of two is cut into 128 equal parts. A dictionary holds the
few that are in use, so that each slice of time of each process has a histogram of its own. The package
``hdrhistogram`` would need a C extension, pbr and setuptools; this works wherever the command does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

BITS = 7
"""Each power of two has ``2**BITS`` buckets."""

EXACT = 2 << BITS
"""Values below have a bucket of their own."""


def bucket_of(value: int) -> int:
    """Return the number of the bucket that holds a value."""
    if value < EXACT:
        return max(value, 0)
    shift = value.bit_length() - BITS - 1
    return (shift << BITS) + (value >> shift)


def bounds(bucket: int) -> tuple[int, int]:
    """Return the least value of a bucket, and the least one above it."""
    if bucket < EXACT:
        return bucket, bucket + 1
    shift = (bucket >> BITS) - 1
    low = (bucket - (shift << BITS)) << shift
    return low, low + (1 << shift)


class Histogram:
    """How often each value was seen. Values are whole numbers from 0, here nanoseconds.

    Attributes:
        counts: bucket -> how often.
        total: how many values.
        sum: their sum, for the mean.
        least, most: exact extremes; 0 when there is no value.
    """

    __slots__ = ("counts", "least", "most", "sum", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total: int = 0
        self.sum: int = 0
        self.least: int = 0
        self.most: int = 0

    def record(self, value: int) -> int:
        """Count one value; returns its bucket."""
        bucket = bucket_of(value)
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1
        if not self.total or value < self.least:
            self.least = value
        if value > self.most:
            self.most = value
        self.total += 1
        self.sum += value
        return bucket

    def add(self, other: Histogram) -> None:
        """Count every value of another histogram, too."""
        if not other.total:
            return
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.least = min(self.least, other.least) if self.total else other.least
        self.most = max(self.most, other.most)
        self.total += other.total
        self.sum += other.sum

    @property
    def mean(self) -> float:
        """The mean; 0 when there is no value."""
        return self.sum / self.total if self.total else 0.0

    def quantile(self, share: float) -> float:
        """Return the value that this share of all values does not exceed; 0 when there is no value.

        It is the middle of its bucket, and never beyond the extremes.
        """
        found = quantile(self.counts, share)
        return min(max(found, float(self.least)), float(self.most))

    def rows(self) -> Iterator[tuple[int, int]]:
        """Yield each bucket's least value and its count, in order."""
        for bucket in sorted(self.counts):
            yield bounds(bucket)[0], self.counts[bucket]

    def document(self) -> dict[str, object]:
        """Return a JSON document with all of it."""
        return {
            "least": self.least,
            "most": self.most,
            "sum": self.sum,
            "counts": [list(row) for row in self.rows()],
        }

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int]], *, least: int, most: int, total: int) -> Histogram:
        """Return the histogram that :meth:`document` described; ``total`` is the sum of its values."""
        made = cls()
        made.counts = {bucket_of(low): count for low, count in rows}
        made.total = sum(made.counts.values())
        made.least, made.most, made.sum = least, most, total
        return made


def quantile(counts: Mapping[int, int], share: float) -> float:
    """Return the middle of the bucket that this share of all values reaches into; 0 for no values."""
    total = sum(counts.values())
    if not total:
        return 0.0
    wanted = share * total
    seen = 0
    low, high = 0, 1
    for bucket in sorted(counts):
        low, high = bounds(bucket)
        seen += counts[bucket]
        if seen >= wanted and seen:
            break
    return low + (high - 1 - low) / 2
