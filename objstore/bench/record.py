"""What was measured: figures by slices of time, which merge with those of other processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .latency import Histogram

SLICE = 0.1
"""Seconds of a slice at the beginning of a run."""

MOST_SLICES = 200
"""With more, two become one, and so on: a slice lasts 0.1 s times a power of two."""


@dataclass
class Sample:
    """One operation that succeeded.

    Attributes:
        began: when the call began, on the clock ``time.perf_counter``.
        ended: when it returned.
        bytes: bytes of payload that it moved.
        first: when the first byte of an object arrived; ``None`` where that is not measured.
        count: how many operations or messages it was.
    """

    began: float
    ended: float
    bytes: int
    first: float | None = None
    count: int = 1


@dataclass
class Slice:
    """One slice of time of one kind of operation.

    Attributes:
        ops: operations that ended in it.
        bytes: bytes that they moved.
        counts: bucket of their latency -> how many; see :mod:`.latency`.
    """

    ops: int = 0
    bytes: int = 0
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, other: Slice) -> None:
        """Count what another slice counted, too."""
        self.ops += other.ops
        self.bytes += other.bytes
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count


class Series:
    """The figures of one kind of operation.

    Attributes:
        ops: operations that succeeded.
        bytes: bytes that they moved.
        latency: from when an operation was due until it ended, in nanoseconds.
        first_byte: the same until the first byte arrived; empty where that is not measured.
        slices: of equal time, from the start on.
        width: seconds of a slice.
    """

    __slots__ = ("bytes", "first_byte", "latency", "ops", "slices", "width")

    def __init__(self) -> None:
        self.ops: int = 0
        self.bytes: int = 0
        self.latency: Histogram = Histogram()
        self.first_byte: Histogram = Histogram()
        self.slices: list[Slice] = []
        self.width: float = SLICE

    def record(self, at: float, due: float, sample: Sample) -> None:
        """Count an operation that ended ``at`` seconds after the start; ``due`` is on the clock."""
        bucket = self.latency.record(max(0, int((sample.ended - due) * 1e9)))
        if sample.first is not None:
            self.first_byte.record(max(0, int((sample.first - due) * 1e9)))
        self.ops += sample.count
        self.bytes += sample.bytes
        where = max(0, int(at / self.width))
        while where >= MOST_SLICES:
            self.widen()
            where = int(at / self.width)
        while len(self.slices) <= where:
            self.slices.append(Slice())
        found = self.slices[where]
        found.ops += sample.count
        found.bytes += sample.bytes
        found.counts[bucket] = found.counts.get(bucket, 0) + 1

    def widen(self) -> None:
        """Make two slices one."""
        self.width *= 2
        pairs = [self.slices[at : at + 2] for at in range(0, len(self.slices), 2)]
        for pair in pairs:
            if len(pair) == 2:
                pair[0].add(pair[1])
        self.slices = [pair[0] for pair in pairs]

    def add(self, other: Series) -> None:
        """Count what another process measured in the same time, too; changes the other's slices."""
        self.ops += other.ops
        self.bytes += other.bytes
        self.latency.add(other.latency)
        self.first_byte.add(other.first_byte)
        while self.width < other.width:
            self.widen()
        while other.width < self.width:
            other.widen()
        while len(self.slices) < len(other.slices):
            self.slices.append(Slice())
        for mine, theirs in zip(self.slices, other.slices, strict=False):
            mine.add(theirs)


@dataclass
class Failure:
    """Operations that failed in the same way.

    Attributes:
        count: how many.
        example: the text of the first one.
        code: the exit code of this error, see :func:`objstore.errors.exit_code`.
    """

    count: int
    example: str
    code: int


class Figures:
    """All that one process measured, or all of them together.

    Attributes:
        series: kind of operation -> its figures.
        failures: kind of operation and of error -> how many.
        seconds: from the start to the end of the last operation.
        cpu: seconds of processor time, all threads.
        behind: operations that were due before the end and did not start: the rate was too high.
        checked: objects that were read back and compared after the measurement.
    """

    __slots__ = ("behind", "checked", "cpu", "failures", "seconds", "series")

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self.failures: dict[str, Failure] = {}
        self.seconds: float = 0.0
        self.cpu: float = 0.0
        self.behind: int = 0
        self.checked: int = 0

    def of(self, kind: str) -> Series:
        """Return the figures of a kind of operation."""
        found = self.series.get(kind)
        if found is None:
            found = self.series[kind] = Series()
        return found

    def failed(self, kind: str, exc: BaseException) -> None:
        """Count a failure."""
        from ..errors import exit_code

        key = f"{kind}: {type(exc).__name__}"
        found = self.failures.setdefault(key, Failure(0, str(exc), exit_code(exc)))
        found.count += 1

    def add(self, other: Figures) -> None:
        """Count what another process measured, too."""
        for kind, series in other.series.items():
            self.of(kind).add(series)
        for key, failure in other.failures.items():
            found = self.failures.setdefault(key, Failure(0, failure.example, failure.code))
            found.count += failure.count
        self.seconds = max(self.seconds, other.seconds)
        self.cpu += other.cpu
        self.behind += other.behind
        self.checked += other.checked

    @property
    def ops(self) -> int:
        """Operations of all kinds that succeeded."""
        return sum(series.ops for series in self.series.values())

    @property
    def bytes(self) -> int:
        """Bytes that operations of all kinds moved."""
        return sum(series.bytes for series in self.series.values())

    @property
    def failed_ops(self) -> int:
        """Operations that failed."""
        return sum(failure.count for failure in self.failures.values())


@dataclass(frozen=True)
class Totals:
    """What the live line shows of one process.

    Attributes:
        phase: ``"warm-up"``, ``"measuring"`` or ``"checking"``.
        seconds: since the phase began.
        ops, bytes, errors: so far.
        latency: of the operations so far, bucket -> count.
    """

    phase: str
    seconds: float
    ops: int
    bytes: int
    errors: int
    latency: Mapping[int, int]
