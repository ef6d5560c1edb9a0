"""Results of measurements that never were."""

from __future__ import annotations

import random
from collections.abc import Callable

from objstore.bench.record import Figures, Sample
from objstore.bench.results import Result
from objstore.bench.settings import Settings
from objstore.bench.sizes import Part, Sizes

SERVER = {"version": "2.15.1", "url": "nats://127.0.0.1:4222"}


def steady(
    seconds: float,
    rate: float,
    latency: Callable[[random.Random], float],
    *,
    kind: str = "get",
    size: int = 1000,
    seed: int = 0,
    first_byte: bool = False,
) -> Figures:
    """Figures of a run in which operations end at a rate, with latencies (seconds) drawn from a function."""
    source = random.Random(seed)
    figures = Figures()
    series = figures.of(kind)
    for number in range(int(seconds * rate)):
        end = (number + source.random()) / rate
        took = latency(source)
        first = 100 + end - took / 2 if first_byte else None
        series.record(end, 100 + end - took, Sample(100 + end - took, 100 + end, size, first))
    figures.seconds = seconds
    figures.cpu = seconds / 4
    return figures


def result(*processes: Figures, work: str = "get", **settings: object) -> Result:
    """A result of these processes."""
    sizes = Sizes([Part(1000, 1000, 1)], "1000")
    chosen = Settings(work, sizes, processes=len(processes), **settings)  # type: ignore[arg-type]
    return Result.made(chosen, list(processes), SERVER)
