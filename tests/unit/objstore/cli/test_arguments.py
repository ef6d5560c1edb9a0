"""Sizes, durations and pairs on the command line."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from objstore.cli import arguments
from objstore.cli.arguments import byte_range, moment, revision


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1000", 1000),
        ("5b", 5),
        ("1k", 1024),
        ("128KiB", 131072),
        ("1M", 1 << 20),
        ("1MB", 1 << 20),
        ("10GiB", 10 << 30),
        ("1G", 1 << 30),
        ("2 TiB", 2 << 40),
    ],
)
def test_size(text: str, expected: int) -> None:
    assert arguments.size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h", timedelta(hours=1)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("1h30m", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("1.5s", timedelta(seconds=1.5)),
        ("0", timedelta(0)),
    ],
)
def test_duration(text: str, expected: timedelta) -> None:
    assert arguments.duration(text) == expected


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        *[(arguments.size, text) for text in ("", "-1", "1.5G", "G", "1X", "1KiBB", "ten")],
        *[(arguments.duration, text) for text in ("", "5", "-1s", "1y", "h", "1h x", "1hh", "9" * 30 + "w")],
        *[(arguments.timeout, text) for text in ("0", "0s", "5", "soon")],
        *[(arguments.header, text) for text in ("", "novalue", ":x", " :x")],
        *[(arguments.pair, text) for text in ("", "novalue", "=x")],
        *[(arguments.source, text) for text in ("", "@d", "b@")],
        *[(arguments.count, text) for text in ("", "0", "-1", "1.0", "x", "²")],
    ],
)
def test_refused(reader: Callable[[str], object], text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        reader(text)


def test_pairs() -> None:
    assert arguments.header("Content-Type: text/plain") == ("Content-Type", "text/plain")
    assert arguments.header("Link:a:b") == ("Link", "a:b")
    assert arguments.header("Empty:") == ("Empty", "")
    assert arguments.pair("k=v=w") == ("k", "v=w")
    assert arguments.pair("k=") == ("k", "")
    assert arguments.source("b") == ("b", None)
    assert arguments.source("b@hub") == ("b", "hub")
    assert arguments.timeout("1m") == 60.0
    assert arguments.count("3") == 3


@pytest.mark.parametrize("reader", [arguments.duration, arguments.timeout])
def test_a_duration_needs_a_unit(reader: Callable[[str], object]) -> None:
    with pytest.raises(ArgumentTypeError, match="'5' has no unit: write 5s, 5m, 5h or 5d"):
        reader("5")


def test_moments() -> None:
    assert moment("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert moment("2026-01-31T12:00:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert moment("2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(days=7) - moment("7d")) < timedelta(minutes=1)
    for text in ("", "yesterday", "7", "2026-13-01", "999999999d"):
        with pytest.raises(ArgumentTypeError, match="write 2026-01-31"):
            moment(text)


def test_ranges() -> None:
    assert byte_range("0-99") == (0, 99)
    assert byte_range("5-") == (5, None)
    assert byte_range("-5") == (None, 5)
    for text in ("", "-", "5", "a-b", "9-1", "1-2-3", "٣-4"):
        with pytest.raises(ArgumentTypeError):
            byte_range(text)


def test_revisions() -> None:
    assert revision("0") == 0
    for text in ("-1", "x", "", "1.5", "٣"):
        with pytest.raises(ArgumentTypeError):
            revision(text)
