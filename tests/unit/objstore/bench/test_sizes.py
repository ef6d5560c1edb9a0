"""Sizes: what may be written, and how often each size comes."""

from __future__ import annotations

import pytest

from objstore.bench.sizes import Part, Sizes, parse
from objstore.cli.arguments import size


def sizes(text: str) -> Sizes:
    return parse(text, size)


def test_one_size() -> None:
    found = sizes("1KiB")
    assert {found.of(number) for number in range(100)} == {1024}
    assert (found.mean, found.least, found.most, found.text) == (1024, 1024, 1024, "1KiB")
    assert sizes("1KB") == found
    assert hash(sizes("1KB")) == hash(found)
    assert repr(found) == "<Sizes 1KiB>"


def test_a_range() -> None:
    found = sizes("1KiB-4KiB")
    seen = [found.of(number) for number in range(4000)]
    assert 1024 <= min(seen) < 1030
    assert 4090 < max(seen) <= 4096
    assert sum(seen) / len(seen) == pytest.approx(found.mean, rel=0.01)
    assert {Sizes([Part(0, 1, 1)], "").of(number) for number in range(10)} == {0, 1}


def test_a_distribution() -> None:
    found = sizes("4KiB:80, 1MiB:20")
    seen = [found.of(number) for number in range(1000)]
    assert seen.count(4096) == pytest.approx(800, abs=5)
    assert seen.count(1 << 20) == pytest.approx(200, abs=5)
    assert found.mean == pytest.approx(0.8 * 4096 + 0.2 * 1048576)
    assert (found.least, found.most) == (4096, 1 << 20)


def test_few_objects_have_the_right_shares() -> None:
    """An object's number decides, so a run of ten has what a run of ten million has."""
    found = sizes("1:1,2:1")
    assert 4 <= [found.of(number) for number in range(10)].count(1) <= 6


def test_weights_may_be_left_out() -> None:
    assert sizes("1,2-3").parts == (Part(1, 1, 1), Part(2, 3, 1))


@pytest.mark.parametrize("text", ["4KiB:0", "4KiB:x", "4KiB:-1", "4KiB:", "2KiB-1KiB"])
def test_what_is_no_distribution(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        sizes(text)
