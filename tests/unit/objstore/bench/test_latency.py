"""The histogram: exact where that is cheap, 0.8 % elsewhere, and the same whoever counted."""

from __future__ import annotations

import math
import random

import pytest

from objstore.bench.latency import BITS, EXACT, Histogram, bounds, bucket_of, quantile

SHARES = (0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0)


def exact(values: list[int], share: float) -> int:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def filled(values: list[int]) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


@pytest.mark.parametrize("value", [0, 1, EXACT - 1, EXACT, EXACT + 1, 1000, 10**6, 10**9, 2**40 - 1, 2**62])
def test_a_value_lies_in_its_bucket(value: int) -> None:
    low, high = bounds(bucket_of(value))
    assert low <= value < high
    assert high - low <= max(1, value >> BITS)
    assert bucket_of(low) == bucket_of(high - 1) == bucket_of(value)
    assert bucket_of(high) == bucket_of(value) + 1


def test_negative_values_count_as_none() -> None:
    assert bucket_of(-1) == 0


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_exact_to_a_part_of_a_bucket(seed: int) -> None:
    source = random.Random(seed)
    values = [int(source.lognormvariate(13, 2)) for _ in range(5000)]
    found = filled(values)
    for share in SHARES:
        assert found.quantile(share) == pytest.approx(exact(values, share), rel=2**-BITS)
    assert (found.least, found.most, found.total) == (min(values), max(values), len(values))
    assert found.mean == pytest.approx(sum(values) / len(values))


def test_no_quantile_is_beyond_the_extremes() -> None:
    found = filled([1_000_003])
    assert {found.quantile(share) for share in SHARES} == {1_000_003.0}


def test_nothing_was_seen() -> None:
    found = Histogram()
    assert (found.quantile(0.5), found.mean, found.most) == (0.0, 0.0, 0)
    assert quantile({}, 0.5) == 0.0
    assert list(found.rows()) == []


def test_two_histograms_are_one() -> None:
    one, two = [5, 700, 10**6], [1, 10**9]
    together = filled(one)
    together.add(filled(two))
    together.add(Histogram())
    whole = filled(one + two)
    assert together.document() == whole.document()
    empty = Histogram()
    empty.add(whole)
    assert empty.document() == whole.document()


def test_record_says_the_bucket() -> None:
    assert Histogram().record(12345) == bucket_of(12345)


def test_a_document_says_it_all() -> None:
    found = filled([3, 3, 10**6, 10**9])
    again = Histogram.of(
        [(low, count) for low, count in found.rows()], least=found.least, most=found.most, total=found.sum
    )
    assert again.document() == found.document()
    assert again.counts == found.counts
    assert again.total == 4
