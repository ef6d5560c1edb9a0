"""Figures: slices of time that widen, and processes that are added up."""

from __future__ import annotations

import pytest

from natsproto.errors import RequestTimeoutError
from objstore.bench.record import MOST_SLICES, SLICE, Figures, Sample, Series
from objstore.errors import IntegrityError


def recorded(*ends: float, size: int = 10, took: float = 0.001) -> Series:
    series = Series()
    for end in ends:
        series.record(end, 100 + end - took, Sample(100 + end - took, 100 + end, size))
    return series


def ops(series: Series) -> list[int]:
    return [each.ops for each in series.slices]


def test_an_operation_counts_when_it_ends() -> None:
    series = recorded(0.0, 0.05, 0.25)
    assert ops(series) == [2, 0, 1]
    assert (series.ops, series.bytes, series.width) == (3, 30, SLICE)
    assert series.latency.quantile(0.5) == pytest.approx(1e6, rel=0.01)
    assert sum(series.slices[0].counts.values()) == 2
    assert series.first_byte.total == 0


def test_latency_counts_from_when_it_was_due() -> None:
    series = Series()
    series.record(1.0, 99.0, Sample(99.9, 100.0, 1, first=99.95))
    assert series.latency.most == pytest.approx(1e9)
    assert series.first_byte.most == pytest.approx(0.95e9)


def test_a_batch_is_several_operations_with_one_latency() -> None:
    series = Series()
    series.record(0.0, 99.9, Sample(99.9, 100.0, 1000, count=50))
    assert (series.ops, series.latency.total, ops(series)) == (50, 1, [50])


def test_slices_widen_in_a_long_run() -> None:
    series = recorded(*(SLICE * at + 0.01 for at in range(3 * MOST_SLICES)))
    assert series.width == 4 * SLICE
    assert ops(series) == [4] * (3 * MOST_SLICES // 4)
    assert recorded(3600.0).width * MOST_SLICES > 3600


def test_slices_of_an_odd_number_widen() -> None:
    series = recorded(0.05, 0.15, 0.25)
    series.widen()
    assert ops(series) == [2, 1]


def test_processes_add_up_in_the_same_slices() -> None:
    short, long = recorded(0.05, 0.15), recorded(0.05, SLICE * MOST_SLICES + 0.05)
    assert long.width == 2 * SLICE
    total = Series()
    total.add(short)
    total.add(long)
    assert total.width == 2 * SLICE
    assert (ops(total)[0], sum(ops(total)), total.bytes) == (3, 4, 40)
    again = Series()
    again.add(long)
    again.add(recorded(0.05))
    assert ops(again)[0] == 2
    assert again.latency.total == 3


def test_figures_of_several_processes() -> None:
    one, two = Figures(), Figures()
    one.of("get").record(0.5, 100.0, Sample(100.0, 100.5, 7))
    two.of("get").record(0.6, 100.0, Sample(100.0, 100.6, 7))
    two.of("put").record(0.6, 100.0, Sample(100.0, 100.6, 1))
    one.failed("get", RequestTimeoutError("slow"))
    two.failed("get", RequestTimeoutError("slow, too"))
    two.failed("put", IntegrityError("wrong"))
    one.seconds, two.seconds, one.cpu, two.cpu, one.behind, two.checked = 1.0, 2.0, 0.5, 0.25, 3, 4
    total = Figures()
    total.add(one)
    total.add(two)
    assert (total.ops, total.bytes, total.failed_ops) == (3, 15, 3)
    assert (total.seconds, total.cpu, total.behind, total.checked) == (2.0, 0.75, 3, 4)
    assert {key: (each.count, each.example, each.code) for key, each in total.failures.items()} == {
        "get: RequestTimeoutError": (2, "slow", 5),
        "put: IntegrityError": (1, "wrong", 7),
    }
