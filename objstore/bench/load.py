"""The load: operations in a closed loop, or in an open one at a given rate, for a time or a number of them.

Closed: each of the tasks begins its next operation when the last one has ended. Open: operations are due at
equal distances of time, whatever happened to those before. Their latency counts from when they were due, not
from when a task was free: a server that stops for a second delays everything that was due in that second, and
all of it shows ("coordinated omission" would count the one operation that waited).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from .record import Figures, Sample

clock: Callable[[], float] = time.perf_counter

SPIN = 0.0015
"""Seconds before an operation is due in which its time is waited for busily: timers are up to 1 ms late."""

FAILURES_IN_A_ROW = 50
"""A run ends after so many: nothing works any more."""

FAILING = 30.0
"""Seconds of failures, and nothing else, after which it ends as well: with no server, each takes long."""

LONGEST_PAUSE = 0.5
"""Seconds to wait after failures in a row: a loop that fails at once would only burn processor time."""

Call = Callable[[], Awaitable[Sample]]


class Work(Protocol):
    """What an operation is.

    Attributes:
        batch: operations or messages that one call makes.
    """

    @property
    def batch(self) -> int:
        """Operations or messages that one call makes."""

    def next(self, number: int) -> tuple[str, Call]:
        """Return the kind of an operation by its number, and the call that makes it."""


@dataclass(frozen=True)
class Pace:
    """How much, how fast, and how many at a time.

    Attributes:
        concurrency: operations at a time.
        seconds: how long new operations begin; ``None``: until there were ``count``.
        count: how many operations there are; ``None``: until ``seconds`` have passed.
        rate: operations that are due each second; ``None``: as fast as possible, in a closed loop.
        phase: of the first operation's time in ``1 / rate``: processes take turns.
    """

    concurrency: int
    seconds: float | None
    count: int | None
    rate: float | None = None
    phase: float = 0.0


class Load:
    """One run of a load.

    Args:
        work: the operations.
        pace: how many of them.
        figures: what they are counted in.
        first: number of the first operation.

    Attributes:
        started: when the clock started; 0 before.
        figures: of the operations so far.
    """

    def __init__(self, work: Work, pace: Pace, figures: Figures, first: int = 0) -> None:
        self._work = work
        self._pace = pace
        self.figures: Figures = figures
        self.started: float = 0.0
        self._last = 0.0
        self._in_a_row = 0
        self._worked = 0.0
        self._given_up = False
        count = None if pace.count is None else -(-pace.count // work.batch)
        self._numbers: Iterator[int] = (
            itertools.count(first) if count is None else iter(range(first, first + count))
        )

    async def run(self) -> None:
        """Run it to its end, and set ``seconds`` and ``cpu`` of the figures."""
        cpu = time.process_time()
        self.started = self._last = self._worked = clock()
        if self._pace.rate is None:
            await self._closed()
        else:
            await self._open(self._pace.rate / self._work.batch)
        self.figures.seconds = self._last - self.started
        self.figures.cpu = time.process_time() - cpu

    def _end(self) -> float:
        return float("inf") if self._pace.seconds is None else self.started + self._pace.seconds

    async def _closed(self) -> None:
        end = self._end()

        async def task() -> None:
            for number in self._numbers:
                await self._one(number, None)
                if self._given_up or clock() >= end:
                    return

        await together(task() for _ in range(self._pace.concurrency))

    async def _open(self, rate: float) -> None:
        end = self._end()
        due_ones: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()

        async def task() -> None:
            while (item := await due_ones.get()) is not None:
                if self._given_up or clock() >= end:
                    self.figures.behind += self._work.batch
                else:
                    await self._one(*item)

        async def calendar() -> None:
            for position, number in enumerate(self._numbers):
                due = self.started + (position + self._pace.phase) / rate
                if due >= end or self._given_up:
                    break
                await until(due)
                due_ones.put_nowait((number, due))
            for _ in range(self._pace.concurrency):
                due_ones.put_nowait(None)

        await together([calendar(), *(task() for _ in range(self._pace.concurrency))])

    async def _one(self, number: int, due: float | None) -> None:
        kind, call = self._work.next(number)
        try:
            sample = await call()
        except Exception as exc:
            self.figures.failed(kind, exc)
            self._last = clock()
            self._in_a_row += 1
            if self._in_a_row >= FAILURES_IN_A_ROW or self._last - self._worked > FAILING:
                self._given_up = True
            await asyncio.sleep(min(0.001 * 2**self._in_a_row, LONGEST_PAUSE))
            return
        self._in_a_row = 0
        self._worked = sample.ended
        if sample.ended > self._last:
            self._last = sample.ended
        series = self.figures.of(kind)
        series.record(sample.ended - self.started, sample.began if due is None else due, sample)


async def together(parts: Iterable[Coroutine[object, object, None]]) -> None:
    """Run coroutines at the same time; the first failure cancels the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def until(moment: float) -> None:
    """Wait until a moment of the clock, precisely, while other tasks go on."""
    while (left := moment - clock()) > 0:  # noqa: ASYNC110 - nothing says that time has passed
        await asyncio.sleep(left - SPIN if left > SPIN else 0)
