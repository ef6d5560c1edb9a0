"""Comparisons: noise is called noise, and a change is not."""

from __future__ import annotations

import random

import pytest

from objstore.bench.compare import (
    MOST_BLOCKS,
    SHORT,
    WITHIN,
    Change,
    blocks,
    changes,
    differences,
    lines,
    middle,
)
from objstore.bench.results import Result, ResultError
from support.bench_results import result, steady


def usual(source: random.Random) -> float:
    return source.lognormvariate(-6.5, 0.4)


def runs(rate: float = 500.0, factor: float = 1.0, *, seconds: float = 6.0, seeds: int = 1) -> list[Result]:
    return [
        result(steady(seconds, rate, lambda source: factor * usual(source), seed=seed))
        for seed in range(seeds)
    ]


def verdicts(before: list[Result], after: list[Result], **options: float) -> dict[str, str]:
    return {change.figure: change.verdict for change in changes(before, after, **options)}


def test_the_same_is_within_noise() -> None:
    again = [result(steady(6.0, 500.0, usual, seed=9))]
    assert set(verdicts(runs(), again).values()) == {WITHIN}
    assert set(verdicts(runs(), runs()).values()) == {WITHIN}


def test_a_change_has_a_direction() -> None:
    assert verdicts(runs(), runs(rate=700.0, factor=0.7)) == dict.fromkeys(
        ("ops/s", "MB/s", "p50", "p90", "p99"), "better"
    )
    assert set(verdicts(runs(rate=700.0, factor=0.7), runs()).values()) == {"worse"}


def test_a_small_change_is_within_noise_however_sure() -> None:
    before, after = runs(rate=1000.0), runs(rate=1030.0)
    (rate,) = [change for change in changes(before, after) if change.figure == "ops/s"]
    assert rate.low > 1
    assert rate.verdict == WITHIN
    assert verdicts(before, after, noise=0.02)["ops/s"] == "better"


def test_a_slow_second_is_one_observation() -> None:
    """A run whose speed changes all the time does not differ from one that was luckier."""

    def unsteady(seed: int) -> list[Result]:
        source = random.Random(seed)
        total = steady(0.0, 1.0, usual)
        for second in range(12):
            part = steady(1.0, source.choice([100.0, 900.0]), usual, seed=seed * 100 + second)
            for each in part.series.values():
                each.slices = [type(each.slices[0])() for _ in range(10 * second)] + each.slices
            total.add(part)
        total.seconds = 12.0
        return [result(total)]

    found = [verdicts(unsteady(seed), unsteady(seed + 1))["ops/s"] for seed in (1, 11, 21, 31)]
    assert found.count(WITHIN) >= 3


def test_runs_that_differ_from_each_other_are_noise() -> None:
    """One run each would be sure of a difference; several show that they differ by themselves."""
    rates = (300.0, 500.0, 900.0)
    before = [result(steady(4.0, rate, usual, seed=int(rate))) for rate in rates]
    after = [result(steady(4.0, rate * 1.2, usual, seed=int(rate) + 1)) for rate in rates]
    assert verdicts(before[:1], after[:1])["ops/s"] == "better"
    assert verdicts(before, after)["ops/s"] == WITHIN


def test_too_short_to_tell() -> None:
    assert set(verdicts(runs(seconds=0.5), runs()).values()) == {SHORT}
    few = [result(steady(6.0, 5.0, usual))]
    assert set(verdicts(runs(), few).values()) == {SHORT}


def test_blocks_have_the_same_time() -> None:
    for seconds in (0.05, 1.0, 3.3, 6.0, 60.0):
        series = steady(seconds, 100.0, usual).series["get"]
        found, each = blocks(series, seconds)
        assert len(found) <= 2 * MOST_BLOCKS
        assert len(found) * each <= seconds + 1e-6
        assert len(found) >= min(10, int(seconds / 0.1))
    series = steady(2.0, 100.0, usual).series["get"]
    assert sum(block.ops for block in blocks(series, 4.0)[0]) == series.ops
    assert blocks(series, 4.0)[0][-1].ops == 0


def test_a_kind_that_only_one_has() -> None:
    both = steady(6.0, 500.0, usual)
    both.add(steady(6.0, 500.0, usual, kind="info", size=0))
    found = changes([result(both, work="mixed")], [result(both, work="mixed")])
    assert [(change.kind, change.figure) for change in found if change.kind == "info"] == [
        ("info", figure) for figure in ("ops/s", "p50", "p90", "p99")
    ]
    other = [result(steady(6.0, 500.0, usual), work="mixed")]
    assert {change.kind for change in changes([result(both, work="mixed")], other)} == {"get"}


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ResultError, match="get and put cannot be compared"):
        changes(runs(), [result(steady(1.0, 1.0, usual), work="put")])
    with pytest.raises(ResultError, match="no operation in common"):
        changes(runs(), [result(steady(1.0, 1.0, usual, kind="other"))])


def test_the_same_results_give_the_same_intervals() -> None:
    assert changes(runs(), runs(rate=520.0)) == changes(runs(), runs(rate=520.0))


def test_the_middle_of_draws() -> None:
    assert middle(range(1000)) == (25, 975)
    assert middle([1.0]) == (1.0, 1.0)


def test_differences_of_settings() -> None:
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ["b: 2 and 3", "c: None and 4"]


def test_what_people_read() -> None:
    before, after = runs(), [result(steady(6.0, 900.0, usual, seed=3), concurrency=2)]
    text = "\n".join(lines(before, after, changes(before, after), 0.05))
    assert "differs: concurrency: 1 and 2" in text
    assert "+80.0%" in text
    assert "better" in text
    assert "within noise: the interval includes no change, or the change is below 5%." in text
    assert "With fewer than 3 runs each" in text
    several = runs(seeds=3)
    text = "\n".join(lines(several, several, changes(several, several), 0.05))
    assert "With fewer" not in text
    assert "3 runs" in text
    short = runs(seconds=0.5)
    assert SHORT in "\n".join(lines(short, short, changes(short, short), 0.05))


def test_documents() -> None:
    change = Change("get", "p50", 2.0, 1.0, 0.5, 0.4, 0.6, "better")
    assert change.document()["interval"] == [0.4, 0.6]
    short = Change("get", "p50", 2.0, 1.0, 0.5, 0.0, float("inf"), SHORT)
    assert short.document()["interval"] is None
