"""Two results: what changed, and what is within noise.

The rule. Each run is cut into blocks of equal time, at least ten. A bootstrap draws runs again, and blocks of
each run, with replacement, and so gives the 95 % interval of each change. A change counts when the interval
does not include "no change" and the change itself is at least :data:`NOISE`; otherwise it is within noise.
Blocks, not operations, are drawn, because neighbours in time are alike: a slow second is one observation and
not thousands. One run knows nothing of what differs from run to run; so a result may have several runs of the
same settings, and with a single one the report says so.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from .latency import Histogram, bounds
from .record import Series, Slice
from .report import aligned, number_text, time_text, title
from .results import Result, ResultError

NOISE = 0.05
"""The least change that counts, of 1."""

DRAWS = 400
"""How often blocks are drawn again."""

LEAST_BLOCKS, MOST_BLOCKS = 10, 20
LEAST_OPS = 50

SHARES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))

ENOUGH_RUNS = 3
MACHINE = ("cpu", "cores", "kernel")

WITHIN, SHORT = "within noise", "too short to tell"


def middle(drawn: Iterable[float]) -> tuple[float, float]:
    """Return the bounds of the middle 95 % of some values, as of draws of a bootstrap."""
    found = sorted(drawn)
    return found[len(found) // 40], found[-len(found) // 40]


@dataclass(frozen=True)
class Change:
    """One figure of two runs.

    Attributes:
        kind: of operation.
        figure: ``"ops/s"``, ``"MB/s"``, ``"p50"`` and so on.
        before, after: its values; latencies in nanoseconds.
        ratio: after / before.
        low, high: the 95 % interval of the ratio.
        verdict: "better", "worse", "within noise" or "too short to tell".
    """

    kind: str
    figure: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    verdict: str

    def document(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "operation": self.kind,
            "figure": self.figure,
            "before": self.before,
            "after": self.after,
            "ratio": self.ratio,
            "interval": None if self.verdict == SHORT else [self.low, self.high],
            "verdict": self.verdict,
        }


def blocks(series: Series, seconds: float) -> tuple[list[Slice], float]:
    """Return the whole slices of a run joined to blocks of equal time, and the seconds of each."""
    whole = int(seconds / series.width)
    slices = series.slices[:whole]
    slices += [Slice() for _ in range(whole - len(slices))]
    each = max(1, whole // MOST_BLOCKS)
    found = []
    for at in range(0, whole - each + 1, each):
        block = Slice()
        for part in slices[at : at + each]:
            block.add(part)
        found.append(block)
    return found, each * series.width


def changes(before: Sequence[Result], after: Sequence[Result], *, noise: float = NOISE) -> list[Change]:
    """Return what changed between two results, by the rule above.

    Args:
        before, after: the runs of each.
        noise: the least change that counts, of 1.

    Raises:
        ResultError: they did not measure the same operation.
    """
    if before[0].work != after[0].work:
        raise ResultError(f"{before[0].work} and {after[0].work} cannot be compared")
    found: list[Change] = []
    for kind in before[0].figures.series:
        old, new = _of(before, kind), _of(after, kind)
        if old and new:
            found += _changes(kind, old, new, noise)
    if not found:
        raise ResultError("the results have no operation in common")
    return found


def _of(results: Sequence[Result], kind: str) -> list[tuple[Series, float]]:
    return [
        (each.figures.series[kind], each.figures.seconds) for each in results if kind in each.figures.series
    ]


def _whole(runs: Sequence[tuple[Series, float]]) -> list[float]:
    latency = Histogram()
    for series, _ in runs:
        latency.add(series.latency)
    seconds = sum(seconds for _, seconds in runs) or 1.0
    ops, size = (sum(getattr(series, key) for series, _ in runs) for key in ("ops", "bytes"))
    return [ops / seconds, size / seconds / 1e6, *(latency.quantile(share) for _, share in SHARES)]


def _changes(
    kind: str, old: Sequence[tuple[Series, float]], new: Sequence[tuple[Series, float]], noise: float
) -> list[Change]:
    names = ["ops/s", "MB/s", *(name for name, _ in SHARES)]
    sides = [[blocks(series, seconds) for series, seconds in side] for side in (old, new)]
    short = any(sum(series.latency.total for series, _ in side) < LEAST_OPS for side in (old, new)) or any(
        len(found) < LEAST_BLOCKS for side in sides for found, _ in side
    )
    intervals = [(0.0, float("inf"))] * len(names) if short else _intervals(sides)
    out = []
    for name, then, now, (low, high) in zip(names, _whole(old), _whole(new), intervals, strict=True):
        if not then or not now:  # operations that move no bytes
            continue
        ratio = now / then
        if short:
            verdict = SHORT
        elif low <= 1 <= high or abs(ratio - 1) < noise:
            verdict = WITHIN
        else:
            verdict = "better" if (ratio > 1) == name.endswith("/s") else "worse"
        out.append(Change(kind, name, then, now, ratio, low, high, verdict))
    return out


@dataclass(frozen=True)
class _Run:
    """The blocks of one run as columns, to add many of them up quickly.

    Attributes:
        seconds: of each block.
        blocks: operations, bytes, then how many latencies are in each bucket.
    """

    seconds: float
    blocks: list[list[int]]


def _intervals(sides: Sequence[Sequence[tuple[list[Slice], float]]]) -> list[tuple[float, float]]:
    buckets = sorted({b for side in sides for found, _ in side for block in found for b in block.counts})
    values = [sum(bounds(bucket)) / 2 for bucket in buckets]
    old, new = (
        [
            _Run(seconds, [[x.ops, x.bytes, *(x.counts.get(b, 0) for b in buckets)] for x in found])
            for found, seconds in side
        ]
        for side in sides
    )
    source = random.Random(0)  # the same results, the same intervals
    drawn = []
    for _ in range(DRAWS):
        then, now = _draw(old, values, source), _draw(new, values, source)
        drawn.append([b / a if a else 1.0 for a, b in zip(then, now, strict=True)])
    return [middle(column) for column in zip(*drawn, strict=True)]


def _draw(runs: Sequence[_Run], values: Sequence[float], source: random.Random) -> list[float]:
    """Return rates and quantiles of some runs, and of blocks of each, drawn with replacement."""
    chosen: list[list[int]] = []
    time = 0.0
    for run in source.choices(runs, k=len(runs)):
        chosen += source.choices(run.blocks, k=len(run.blocks))
        time += run.seconds * len(run.blocks)
    ops, size, *counts = map(sum, zip(*chosen, strict=True))
    seen = list(accumulate(counts))
    total = seen[-1] if seen else 0
    if not total:
        return [0.0] * (2 + len(SHARES))
    quantiles = (values[bisect_left(seen, share * total)] for _, share in SHARES)
    return [ops / time, size / time / 1e6, *quantiles]


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return a line for each setting that differs."""
    return [
        f"{key}: {before.get(key)} and {after.get(key)}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def lines(
    before: Sequence[Result], after: Sequence[Result], found: Sequence[Change], noise: float
) -> list[str]:
    """Return the comparison for people."""
    out = [f"{name:<6}  {_about(runs)}" for name, runs in (("before", before), ("after", after))]
    out += [f"differs: {line}" for line in differences(before[0].settings, after[0].settings)]
    machines = [{key: runs[0].client.get(key) for key in MACHINE} for runs in (before, after)]
    out += [f"differs: {line}" for line in differences(*machines)]
    rows = [["", "", "before", "after", "change", "95 % interval", ""]]
    for change in found:
        text = number_text if change.figure.endswith("/s") else time_text
        known = change.verdict != SHORT
        rows.append(
            [
                change.kind,
                change.figure,
                text(change.before),
                text(change.after),
                f"{change.ratio - 1:+.1%}",
                f"{change.low - 1:+.1%} to {change.high - 1:+.1%}" if known else "",
                change.verdict,
            ]
        )
    out += ["", *aligned(rows), ""]
    out.append(
        f"within noise: the interval includes no change, or the change is below {noise:.0%}. "
        "Intervals: bootstrap of blocks of time."
    )
    if min(len(before), len(after)) < ENOUGH_RUNS:
        out.append(
            f"With fewer than {ENOUGH_RUNS} runs each, what differs from run to run is not in the intervals: "
            "append more, in turns, with --json >> FILE."
        )
    return out


def _about(runs: Sequence[Result]) -> str:
    client, server = runs[0].client, runs[0].server
    count = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    return (
        f"{title(runs[0].settings)}; nats-server {server.get('version')}, {client.get('python')}, "
        f"natsproto {client.get('version')}, {client.get('date')}, {count}"
    )
