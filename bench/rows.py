"""Rows of a table: one operation, several contestants that take turns, medians and ratios of that one run."""

from __future__ import annotations

import random
import secrets
import statistics
import sys
from dataclasses import dataclass, field
from typing import Any

from objstore.bench.compare import middle
from objstore.bench.report import size_text

from .contestants import Contestant, Crew, Figures, LeftOut, Worker
from .errors import BenchError
from .machine import need_disk
from .targets import Target, Targets

OURS = "natsproto"

BEFORE = "natsproto before"
"""Ours as it is in another directory: another revision."""

MIB = 1024 * 1024

WARM_SIZE, WARM_COUNT = 128 * MIB, 3
"""Bytes and number of the objects that a client warms up with, at most."""

DRAWS = 2000
"""How often rounds are drawn again for an interval."""

CHECKED = {"put": "check_objects", "put_stream": "check_stream"}
"""Operations that store -> the one that reads their objects back."""

PREPARED = {
    "get": "put",
    "read_into": "put_stream",
    "get_range": "put_stream",
    "list_": "put",
    "names": "put",
}
"""Operations that read -> the one that stores their objects before."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        key: its name in files; unique in a suite.
        title: its name in tables; ``{size}``, ``{count}`` and so on stand for its options.
        work: a function of ``bench/peers/works.py``.
        options: its arguments, except ``bucket``, ``prefix`` and ``url``.
        contestants: the columns; the first one is ours.
        unit: "MB/s", "/s", "ms" (per operation) or "MiB" (memory).
        wanted: label -> how many times as fast as that contestant ours must be; for "MiB": ours -> the limit.
        storage: of the bucket.
        nodes: 1, or 3 for a cluster and three replicas.
    """

    key: str
    title: str
    work: str
    options: dict[str, Any]
    contestants: list[Contestant]
    unit: str = "/s"
    wanted: dict[str, float] = field(default_factory=dict)
    storage: str = "file"
    nodes: int = 1

    @property
    def name(self) -> str:
        """Its name in tables, with what it really runs (``--quick`` makes it small)."""
        sizes = {
            key: size_text(self.options[key]) for key in ("size", "chunk", "length") if key in self.options
        }
        count = f"{self.options.get('count', 1):,}".replace(",", " ")
        return self.title.format(**{**self.options, **sizes, "count": count})

    @property
    def bytes(self) -> int:
        """Bytes that one sample of this row stores or reads."""
        size: int = self.options.get("size", 0)
        return size if self.work == "get_range" else size * int(self.options.get("count", 1))


@dataclass(frozen=True)
class Settings:
    """The settings of all rows of a run."""

    targets: Targets
    runs: int
    natsio_python: str | None = None
    clients: tuple[str, ...] | None = None
    quick: bool = False


def per_op(figures: Figures) -> float:
    return figures["seconds"] / figures["ops"]


def value(unit: str, figures: Figures) -> float:
    """One sample in the row's unit."""
    if unit == "MB/s":
        return figures["bytes"] / 1e6 / figures["seconds"]
    if unit == "ms":
        return per_op(figures) * 1e3
    if unit == "MiB":
        return figures["peak"] / MIB
    return figures["ops"] / figures["seconds"]


def slug(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label)


def measure(row: Row, settings: Settings) -> dict[str, Any]:
    """Run one row on a server of its own, and return its record.

    Raises:
        BenchError: the row failed, so no figure of it counts.
    """
    contestants = [c for c in row.contestants if settings.clients is None or c.client in settings.clients]
    need_disk(row.bytes * 2 * row.nodes)  # removed objects may still take space
    with settings.targets.open(row.nodes) as target, Crew(target.url, settings.natsio_python) as crew:
        bucket = f"bench-{secrets.token_hex(6)}"
        try:
            crew.help("create", bucket=bucket, storage=row.storage, replicas=row.nodes)
            samples = _samples(row, settings, crew, contestants, bucket, target.url)
        finally:
            if settings.targets.kind == "url":  # other servers end, and their buckets with them
                drop(target.url, bucket)
        left_out = dict(crew.left_out)
        about = crew.about
    if OURS not in samples and settings.clients is None:
        raise BenchError(f"{row.name}: ours failed: {left_out.get(OURS)}")
    return record(row, target, samples, about, left_out)


def record(
    row: Row,
    target: Target,
    samples: dict[str, list[Figures]],
    about: dict[str, dict[str, Any]],
    left_out: dict[str, str],
) -> dict[str, Any]:
    """The entry of a row in the results."""
    return {
        "key": row.key,
        "title": row.name,
        "work": row.work,
        "options": row.options,
        "unit": row.unit,
        "storage": row.storage,
        "replicas": row.nodes,
        "server": target.server,
        "clients": about,
        "left_out": left_out,
        "samples": samples,
        "summary": {label: summary(row.unit, found) for label, found in samples.items()},
        "wanted": row.wanted,
    }


def drop(url: str, bucket: str) -> None:
    """Delete a bucket, from a new process: the others may be in the middle of an operation."""
    try:
        worker = Worker("natsproto", url)
        try:
            worker.measure("drop", bucket=bucket)
        finally:
            worker.close()
    except LeftOut as exc:
        if "BucketNotFoundError" not in str(exc):  # that one: interrupted before it was created
            print(f"bench: bucket {bucket} is left behind at {url}: {exc}", file=sys.stderr)


def _samples(
    row: Row, settings: Settings, crew: Crew, contestants: list[Contestant], bucket: str, url: str
) -> dict[str, list[Figures]]:
    """Warm up, then take turns."""
    options = dict(row.options)
    if row.work in ("subscribe", "request", "spread"):
        options["url"] = url
    uses_bucket = row.work not in ("publish", "subscribe", "request", "parse", "sha256", "tcp")
    if uses_bucket:
        options["bucket"] = bucket
    if row.work in PREPARED:
        counts = [{**options, **c.options}.get("count", 1) for c in contestants]
        _prepare(crew, row, bucket, 1 if row.work == "get_range" else max(counts))
    contestants = crew.join(contestants)
    if row.work in CHECKED:  # memory that the system hands out for the first time is slow
        first = row.contestants[0]
        crew.help(row.work, prefix="first", **{**options, **first.options})
        _check(crew, row, first, bucket, "first")
    for contestant in list(contestants):
        if not _warm_up(crew, contestant, row, options):
            contestants.remove(contestant)
    samples: dict[str, list[Figures]] = {}
    for run in range(settings.runs):
        begins = run % max(1, len(contestants))  # no contestant is first in every round
        for contestant in contestants[begins:] + contestants[:begins]:
            prefix = "object" if row.work in PREPARED else f"{slug(contestant.label)}-{run}"
            extra = {"prefix": prefix} if uses_bucket else {}
            try:
                found = crew.measure(contestant, row.work, {**options, **extra})
            except LeftOut:
                contestants.remove(contestant)
                samples.pop(contestant.label, None)
                continue
            samples.setdefault(contestant.label, []).append(found)
            if row.work in CHECKED:
                _check(crew, row, contestant, bucket, prefix)
            if row.work in PREPARED:  # the next contestant must not find consumers left by this one
                crew.help("remove_consumers", bucket=bucket)
    return samples


def _check(crew: Crew, row: Row, contestant: Contestant, bucket: str, prefix: str) -> None:
    """Read back what was stored, and remove it: the next contestant then finds the same memory and disk."""
    found = {**row.options, **contestant.options}
    size, count = found["size"], found.get("count", 1)
    crew.help(CHECKED[row.work], bucket=bucket, prefix=prefix, size=size, count=count)
    crew.help("remove", bucket=bucket, prefix=prefix, count=count)


def _prepare(crew: Crew, row: Row, bucket: str, count: int) -> None:
    """Store the objects that the operation reads."""
    size = row.options.get("size", 1)
    work = PREPARED[row.work]
    options: dict[str, Any] = {"bucket": bucket, "size": size, "count": count}
    if "chunk" in row.options:
        options["chunk"] = row.options["chunk"]
    if work == "put":
        options["concurrency"] = min(count, 32)
    crew.help(work, prefix="object", **options)
    if row.work in ("get", "read_into"):
        crew.help("put", bucket=bucket, prefix="warm", size=_warm_size(row), count=min(count, WARM_COUNT))


def _warm_up(crew: Crew, contestant: Contestant, row: Row, options: dict[str, Any]) -> bool:
    """Let a client run the operation a few times: imports, buffers, connections, first use of memory."""
    if contestant.client == "ceiling":
        return True
    small = {**options, **contestant.options}
    if row.work in ("list_", "names", "get_range"):
        small["prefix"] = "object"
    elif row.work != "parse" and "bucket" in options:
        small["prefix"] = "warm" if row.work in PREPARED else f"warm-{slug(contestant.label)}"
    if row.work in ("put", "put_stream", "get", "read_into"):
        small["size"] = _warm_size(row)
    if row.work not in ("list_", "names") and "count" in small:
        small["count"] = min(small["count"], WARM_COUNT if "bucket" in options else 1000)
    try:
        crew.measure(Contestant(contestant.label, contestant.client), row.work, small)
    except LeftOut:
        return False
    if row.work in CHECKED:
        crew.help("remove", bucket=options["bucket"], prefix=small["prefix"], count=small.get("count", 1))
    return True


def _warm_size(row: Row) -> int:
    """Bytes of an object to warm up with; few where memory is measured, so that no spare memory is left."""
    size: int = row.options["size"]
    return min(size, MIB if row.unit == "MiB" else WARM_SIZE)


def summary(unit: str, found: list[Figures]) -> dict[str, float]:
    """Median, extremes, and cost."""
    values = [value(unit, figures) for figures in found]
    middle = max(values) if unit == "MiB" else statistics.median(values)  # for memory the worst counts
    size = sum(figures["bytes"] for figures in found)
    cpu = sum(figures["cpu"] for figures in found)
    return {
        "median": middle,
        "min": min(values),
        "max": max(values),
        "spread": (max(values) - min(values)) / middle if middle else 0.0,
        "per_op": statistics.median(per_op(figures) for figures in found),
        "cpu_per_gib": cpu / size * 1024**3 if size else 0.0,
        "cpu_per_op": cpu / sum(figures["ops"] for figures in found),
        "rss": max(figures["rss"] for figures in found),
        "peak": max(figures["peak"] for figures in found),
    }


def ratio(result: dict[str, Any], label: str) -> float | None:
    """How many times as fast as that contestant ours is; ``None`` if either has no result."""
    found = result["summary"]
    if label not in found or OURS not in found:
        return None
    return float(found[label]["per_op"] / found[OURS]["per_op"])


def paired(result: dict[str, Any], label: str) -> tuple[float, float, float] | None:
    """How many times as fast as that contestant ours is, round by round: the median and its 95 % interval.

    The interval is that of a bootstrap: medians of rounds drawn again. ``None`` if either missed a round.
    """
    ours, theirs = (result["samples"].get(key, []) for key in (OURS, label))
    if not ours or len(ours) != len(theirs):
        return None
    ratios = [per_op(b) / per_op(a) for a, b in zip(ours, theirs, strict=True)]
    draw = random.Random(0)  # the same result, the same interval
    medians = (statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
    return statistics.median(ratios), *middle(medians)
