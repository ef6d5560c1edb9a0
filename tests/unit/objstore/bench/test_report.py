"""Reports: what people read, and CSV."""

from __future__ import annotations

import csv
import io

import pytest

from objstore.bench.latency import Histogram
from objstore.bench.record import Figures, Totals
from objstore.bench.report import (
    CSV_COLUMNS,
    aligned,
    csv_text,
    facts,
    histogram,
    lines,
    live_line,
    number_text,
    size_text,
    table,
    time_text,
    title,
)
from objstore.bench.settings import MESSAGE_WORKS, OBJECT_WORKS
from objstore.errors import IntegrityError
from support.bench_results import result, steady


def run(**options: object) -> Figures:
    return steady(2.0, 100.0, lambda source: 0.0015, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (85_000, "85.0 µs"),
        (999_600, "1.00 ms"),
        (1_240_000, "1.24 ms"),
        (123_400_000, "123 ms"),
        (12e9, "12.0 s"),
    ],
)
def test_times(nanoseconds: float, text: str) -> None:
    assert time_text(nanoseconds) == text


def test_numbers_and_sizes() -> None:
    assert [number_text(value) for value in (0, 0.123, 9.999, 98.76, 12345.6)] == [
        "0.00",
        "0.12",
        "10.0",
        "98.8",
        "12 346",
    ]
    sizes = (0, 1023, 1024, 1536, 2 << 20, 5 << 30)
    assert [size_text(size) for size in sizes] == ["0 B", "1023 B", "1 KiB", "1.5 KiB", "2 MiB", "5 GiB"]


def test_titles_say_what_was_measured() -> None:
    assert title(result(run(), objects=5).settings) == ("get 1000, 1 at a time, 5 objects, file storage, R1")
    found = result(run(), run(), work="range", objects=5, rate=0.5, concurrency=4, chunk_size=1024)
    assert title(found.settings) == (
        "range 1000, 4 at a time, 2 processes, 0.5/s due, ranges of 1 MiB, 5 objects, file storage, R1, "
        "chunks of 1 KiB"
    )
    assert title(result(run(), work="publish").settings) == "publish 1000, 1 at a time, batches of 1000"


def test_a_table_has_a_row_for_each_kind() -> None:
    assert table(run(first_byte=True)) == [
        "            ops  ops/s  MB/s      p50      p90      p99    p99.9      max",
        "get         200    100  0.10  1.50 ms  1.50 ms  1.50 ms  1.50 ms  1.50 ms",
        "first byte                     750 µs   750 µs   750 µs   750 µs   750 µs",
    ]
    both = run()
    both.add(run(kind="list", size=0))
    found = table(both)
    assert [line.split()[0] for line in found[1:]] == ["get", "list", "all"]
    assert found[3].split()[1:3] == ["400", "200"]
    assert aligned([["a", "b"], ["cc", "d"]]) == ["a   b", "cc  d"]


def test_nothing_was_measured() -> None:
    empty = result(Figures())
    assert lines(empty)[-1] == "client CPU  0% of a core, 0 ns for each operation"
    assert csv_text(empty, "r").count("\n") == 1


def test_a_histogram() -> None:
    found = Histogram()
    for value in [1_500_000] * 30 + [7_000_000] * 10 + [21_000_000]:
        found.record(value)
    assert histogram(found) == [
        "1.00 ms   30  73.2 % " + "#" * 40,
        "2.00 ms    0   0.0 %",
        "5.00 ms   10  24.4 % " + "#" * 13,
        "10.0 ms    0   0.0 %",
        "20.0 ms    1   2.4 % #",
    ]
    zero = Histogram()
    zero.record(0)
    assert histogram(zero) == ["1 ns   1  100.0 % " + "#" * 40]


@pytest.mark.parametrize("work", [*OBJECT_WORKS, *MESSAGE_WORKS])
def test_every_report_says_what_was_checked(work: str) -> None:
    text = "\n".join(lines(result(run(kind=work), work=work)))
    assert "errors      none" in text
    assert "compared" in text
    assert "nats-server 2.15.1 at nats://127.0.0.1:4222, 2.00 s" in text
    assert "client CPU  25% of a core, 2.50 ms for each operation" in text


def test_a_batch_has_one_latency() -> None:
    assert "latency of a batch of 1000" in lines(result(run(kind="publish"), work="publish"))


def test_errors_and_what_was_too_fast() -> None:
    figures = run()
    figures.failed("get", IntegrityError("wrong bytes"))
    figures.behind = 7
    figures.checked = 3
    found = facts(result(figures, work="mixed"))
    assert found[0] == "errors      1 x get: IntegrityError: wrong bytes"
    assert found[1].startswith("behind      7 operations were due and did not start")
    assert found[2].endswith("; 3 of those left read back")


def test_the_live_line() -> None:
    latency = Histogram()
    latency.record(1_000_000)
    one = Totals("measuring", 2.0, 100, 10_000_000, 0, latency.counts)
    assert (
        live_line("get 1MiB", [one]) == "get 1MiB  measuring 2 s  50.0/s  5.00 MB/s  p50 1.00 ms  p99 1.00 ms"
    )
    two = Totals("measuring", 2.0, 100, 0, 3, {})
    assert live_line("x", [two]) == "x  measuring 2 s  50.0/s  3 errors"
    assert "  100/s  " in live_line("x", [one, two])
    assert live_line("x", [Totals("checking", 0.0, 0, 0, 0, {})]) == "x  reading back"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_begins_with_the_columns_of_nats_bench() -> None:
    figures = run()
    figures.failed("get", IntegrityError("wrong, bytes"))
    (row,) = rows(csv_text(result(figures), "abc"))
    assert tuple(row) == CSV_COLUMNS
    assert list(row)[:7] == [
        "#RunID",
        "ClientID",
        "MsgCount",
        "MsgBytes",
        "MsgsPerSec",
        "BytesPerSec",
        "DurationSecs",
    ]
    assert (row["#RunID"], row["ClientID"], row["Operation"], row["Errors"]) == ("abc", "P0", "get", "1")
    assert (row["MsgCount"], row["MsgBytes"], float(row["MsgsPerSec"])) == ("200", "200000", 100.0)
    assert float(row["P50Secs"]) == pytest.approx(0.0015, rel=0.01)


def test_csv_of_several_processes() -> None:
    found = rows(csv_text(result(run(), run(kind="put")), "abc"))
    assert [(row["ClientID"], row["Operation"]) for row in found] == [
        ("P0", "get"),
        ("P1", "put"),
        ("all", "get"),
        ("all", "put"),
    ]
