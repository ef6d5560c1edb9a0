"""The load, in virtual time: what begins when, what counts, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from objstore.bench import load
from objstore.bench.load import FAILURES_IN_A_ROW, Call, Load, Pace, together, until
from objstore.bench.record import Figures, Sample
from support.simulation import VirtualLoop
from support.waits import held

Takes = Callable[[int], float]


class Work:
    """Operations that take the time that a function says; a negative one fails after that time."""

    def __init__(self, takes: Takes, batch: int = 1) -> None:
        self.takes = takes
        self.batch = batch
        self.begun: list[tuple[int, float]] = []
        self.at_once = self.most_at_once = 0

    def next(self, number: int) -> tuple[str, Call]:
        return "work", lambda: self._work(number)

    async def _work(self, number: int) -> Sample:
        began = load.clock()
        self.begun.append((number, began))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        took = self.takes(number)
        await held(abs(took))
        self.at_once -= 1
        if took < 0:
            raise OSError("broken")
        return Sample(began, load.clock(), 10 * self.batch, count=self.batch)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Work, Pace], Load]:
    def run(work: Work, pace: Pace) -> Load:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            monkeypatch.setattr(load, "clock", runner.get_loop().time)
            monkeypatch.setattr(load, "SPIN", 0)
            made = Load(work, pace, Figures())
            runner.run(made.run())
            return made

    return run


Run = Callable[[Work, Pace], Load]


def seconds(nanoseconds: float) -> float:
    return nanoseconds / 1e9


def test_a_closed_loop_for_a_time(run: Run) -> None:
    work = Work(lambda number: 0.25)
    found = run(work, Pace(4, 10.0, None)).figures
    assert found.ops == 4 * 40
    assert found.bytes == 1600
    assert work.most_at_once == 4
    assert found.seconds == pytest.approx(10.0)
    assert seconds(found.series["work"].latency.most) == pytest.approx(0.25)
    assert [number for number, _ in work.begun] == list(range(160))


def test_what_has_begun_is_finished_and_counts(run: Run) -> None:
    found = run(Work(lambda number: 0.4), Pace(1, 1.0, None)).figures
    assert (found.ops, found.seconds) == (3, pytest.approx(1.2))


def test_a_closed_loop_for_a_number(run: Run) -> None:
    work = Work(lambda number: 1.0)
    found = run(work, Pace(3, None, 7)).figures
    assert (found.ops, found.seconds) == (7, pytest.approx(3.0))


def test_time_or_number_whichever_comes_first(run: Run) -> None:
    assert run(Work(lambda number: 1.0), Pace(1, 3.0, 100)).figures.ops == 3
    assert run(Work(lambda number: 1.0), Pace(1, 100.0, 3)).figures.ops == 3


def test_an_open_loop_keeps_its_times(run: Run) -> None:
    work = Work(lambda number: 0.05)
    made = run(work, Pace(4, 2.0, None, rate=10.0))
    assert made.figures.ops == 20
    starts = [began - made.started for _, began in work.begun]
    assert starts == pytest.approx([number / 10 for number in range(20)])
    assert made.figures.behind == 0
    assert work.most_at_once == 1


def test_processes_take_turns(run: Run) -> None:
    work = Work(lambda number: 0.0)
    made = run(work, Pace(1, None, 3, rate=2.0, phase=0.5))
    assert [began - made.started for _, began in work.begun] == pytest.approx([0.25, 0.75, 1.25])


def test_a_server_that_stops_delays_all_that_was_due(run: Run) -> None:
    """No coordinated omission: a closed loop would see one slow operation of a hundred."""
    stop = Work(lambda number: 1.0 if number == 10 else 0.001)
    made = run(stop, Pace(1, 10.0, None, rate=10.0))
    latency = made.figures.series["work"].latency
    slow = sum(count for low, count in latency.rows() if seconds(low) > 0.05)
    assert latency.total == 100
    assert 9 <= slow <= 11
    assert seconds(latency.quantile(0.95)) == pytest.approx(0.5, abs=0.11)
    closed = run(Work(lambda number: 1.0 if number == 10 else 0.1), Pace(1, 10.0, None))
    assert (
        sum(count for low, count in closed.figures.series["work"].latency.rows() if seconds(low) > 0.5) == 1
    )


def test_what_was_due_and_did_not_start(run: Run) -> None:
    found = run(Work(lambda number: 1.0), Pace(1, 2.0, None, rate=10.0)).figures
    assert (found.ops, found.behind) == (2, 18)


def test_a_batch_is_several_operations(run: Run) -> None:
    work = Work(lambda number: 0.0, batch=10)
    made = run(work, Pace(1, None, 95, rate=100.0))
    assert (len(work.begun), made.figures.ops) == (10, 100)
    assert work.begun[-1][1] - made.started == pytest.approx(0.9)
    assert made.figures.series["work"].latency.total == 10


def test_failures_are_counted_by_kind_and_are_no_latency(run: Run) -> None:
    found = run(Work(lambda number: -0.1 if number % 3 == 0 else 0.1), Pace(1, None, 9)).figures
    assert (found.ops, found.failed_ops) == (6, 3)
    assert list(found.failures) == ["work: OSError"]
    assert found.series["work"].latency.total == 6


@pytest.mark.parametrize("rate", [None, 1000.0])
def test_a_run_ends_when_nothing_works(run: Run, rate: float | None) -> None:
    found = run(Work(lambda number: -0.001), Pace(1, 3600.0, None, rate=rate)).figures
    assert found.failed_ops == FAILURES_IN_A_ROW
    assert found.ops == 0
    assert found.seconds < 60


def test_a_run_without_a_server_does_not_last(run: Run) -> None:
    found = run(Work(lambda number: 1.0 if number < 60 else -20.0), Pace(1, None, 1000)).figures
    assert (found.ops, found.failed_ops) == (60, 2)
    assert found.seconds == pytest.approx(100, abs=1)


def test_the_processor_time_is_our_own(run: Run) -> None:
    found = run(Work(lambda number: 1.0), Pace(1, None, 3)).figures
    assert 0 < found.cpu < 1


async def test_a_time_is_waited_for_precisely() -> None:
    for ahead in (-1.0, 0.0, 0.0005, 0.003):
        moment = load.clock() + ahead
        await until(moment)
        assert load.clock() >= moment


async def test_together_raises_what_happened() -> None:
    ended: list[str] = []

    async def fail() -> None:
        raise OSError("broken")

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(OSError, match="broken"):
        await together([wait(), fail()])
    assert ended == ["cancelled"]
    await together([])
