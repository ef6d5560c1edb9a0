"""What people read: a table, a histogram, a line while it runs; CSV with the columns of ``nats bench``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from .latency import Histogram, quantile
from .record import Figures, Totals
from .results import QUANTILES, Result

BAR = 40
"""Characters of the longest bar of the histogram."""

CSV_COLUMNS = (
    "#RunID",
    "ClientID",
    "MsgCount",
    "MsgBytes",
    "MsgsPerSec",
    "BytesPerSec",
    "DurationSecs",
    "Operation",
    "Errors",
    "P50Secs",
    "P90Secs",
    "P99Secs",
    "P99.9Secs",
    "MaxSecs",
)
"""The first seven are those of ``nats bench``; an operation on an object counts as a message."""


def time_text(nanoseconds: float) -> str:
    """Return a time with three digits: ``85 µs``, ``1.24 ms``, ``12.0 s``."""
    for factor, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if nanoseconds >= 0.9995 * factor:
            return f"{_three(nanoseconds / factor)} {unit}"
    return f"{nanoseconds:.0f} ns"


def number_text(value: float) -> str:
    """Return a number with three digits, or as a whole one with thin groups: ``12 345``, ``98.7``."""
    if value >= 99.95:
        return f"{value:,.0f}".replace(",", " ")
    return _three(value)


def _three(value: float) -> str:
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def size_text(size: float) -> str:
    """Return a size exactly where it is a whole number of units, else with one digit after the point."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            value = size / 1024**power
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
    return f"{size:.0f} B"


def title(settings: Mapping[str, object]) -> str:
    """Return what was measured, in one line."""
    words = [f"{settings['work']} {settings['sizes']}"]
    concurrency, processes = settings.get("concurrency"), settings.get("processes")
    words.append(f"{concurrency} at a time")
    if processes != 1:
        words.append(f"{processes} processes")
    if settings.get("rate") is not None:
        words.append(f"{settings['rate']:g}/s due")
    if "range_size" in settings:
        words.append(f"ranges of {size_text(_whole(settings['range_size']))}")
    if settings.get("objects") is not None:
        words.append(f"{settings['objects']} objects")
    if settings.get("batch", 1) != 1:
        words.append(f"batches of {settings['batch']}")
    if "storage" in settings:
        words.append(f"{settings['storage']} storage, R{settings['replicas']}")
    if settings.get("chunk_size") is not None:
        words.append(f"chunks of {size_text(_whole(settings['chunk_size']))}")
    return ", ".join(words)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def lines(result: Result) -> list[str]:
    """Return the report."""
    figures = result.figures
    server = result.server
    out = [title(result.settings)]
    out.append(f"nats-server {server.get('version')} at {server.get('url')}, {figures.seconds:.2f} s")
    out.append("")
    out += table(figures)
    for kind, series in figures.series.items():
        if series.latency.total:
            batch = result.settings.get("batch", 1)
            what = kind if batch == 1 else f"a batch of {batch}"
            out += ["", f"latency of {what}"]
            out += [f"  {line}" for line in histogram(series.latency)]
    out.append("")
    out += facts(result)
    return out


def table(figures: Figures) -> list[str]:
    """Return a row for each kind of operation, for first bytes, and for all together."""
    names = [name for name, _ in QUANTILES]
    rows = [["", "ops", "ops/s", "MB/s", *names, "max"]]
    for kind, series in figures.series.items():
        rows.append([kind, *_rates(series.ops, series.bytes, figures.seconds), *_quantiles(series.latency)])
        if series.first_byte.total:
            rows.append(["first byte", "", "", "", *_quantiles(series.first_byte)])
    if len(figures.series) > 1:
        latency = Histogram()
        for series in figures.series.values():
            latency.add(series.latency)
        rows.append(["all", *_rates(figures.ops, figures.bytes, figures.seconds), *_quantiles(latency)])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table: its first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _rates(ops: int, size: int, seconds: float) -> list[str]:
    if not seconds:
        return [number_text(ops), "", ""]
    rate = number_text(size / seconds / 1e6) if size else ""
    return [f"{ops:,}".replace(",", " "), number_text(ops / seconds), rate]


def _quantiles(latency: Histogram) -> list[str]:
    return [*(time_text(latency.quantile(share)) for _, share in QUANTILES), time_text(latency.most)]


def histogram(latency: Histogram) -> list[str]:
    """Return bars between 1, 2, 5, 10 … of a unit, as many as there are values between them."""
    counted: dict[int, int] = {}
    for low, count in latency.rows():
        edge = _edge(max(low, 1))
        counted[edge] = counted.get(edge, 0) + count
    rows = []
    longest = max(counted.values())
    for edge in _edges(min(counted), max(counted)):
        count = counted.get(edge, 0)
        bar = "#" * max(count * BAR // longest, 1 if count else 0)
        share = 100 * count / latency.total
        rows.append([f"{time_text(edge)} ", f"{count:,}".replace(",", " "), f"{share:.1f} %", " " + bar])
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False)) + row[3].rstrip()
        for row in rows
    ]


def _edges(first: int, last: int) -> Iterator[int]:
    edge = first
    while edge <= last:
        yield edge
        edge = edge * 5 // 2 if str(edge)[0] == "2" else edge * 2


def _edge(value: int) -> int:
    """Return the largest of 1, 2, 5, 10, 20 … that is not above a value."""
    power = int("1".ljust(len(str(value)), "0"))
    return power * (5 if value >= 5 * power else 2 if value >= 2 * power else 1)


def facts(result: Result) -> list[str]:
    """Return what else there is to know: errors, what was checked, the client's own cost."""
    figures = result.figures
    rows = []
    if figures.failures:
        for key, failure in figures.failures.items():
            rows.append(("errors", f"{failure.count} x {key}: {failure.example}"))
    else:
        rows.append(("errors", "none"))
    if figures.behind:
        what = "were due and did not start: the rate is more than server and client can do"
        rows.append(("behind", f"{figures.behind} operations {what}"))
    rows.append(("bytes", _checked(result)))
    share = figures.cpu / figures.seconds if figures.seconds else 0.0
    per = figures.cpu / figures.ops * 1e9 if figures.ops else 0.0
    rows.append(("client CPU", f"{share:.0%} of a core, {time_text(per)} for each operation"))
    width = max(len(key) for key, _ in rows)
    return [f"{key.ljust(width)}  {text}" for key, text in rows]


def _checked(result: Result) -> str:
    checked = result.figures.checked
    if result.work == "put":
        return f"{checked} of the objects read back and compared"
    text = {
        "get": "every object compared, and verified by its digest",
        "range": "every range compared",
        "list": "every list of names compared",
        "mixed": "every object that was read compared, and verified by its digest",
        "publish": "a first batch received and compared",
        "subscribe": "every message compared",
        "request": "every answer compared",
    }[result.work]
    return f"{text}; {checked} of those left read back" if checked else text


def live_line(work: str, totals: Sequence[Totals]) -> str:
    """Return the line that is shown while a run goes on."""
    seconds = max(each.seconds for each in totals)
    phase = totals[0].phase
    if phase == "checking":
        return f"{work}  reading back"
    ops, size = sum(each.ops for each in totals), sum(each.bytes for each in totals)
    errors = sum(each.errors for each in totals)
    latency: dict[int, int] = {}
    for each in totals:
        for bucket, count in each.latency.items():
            latency[bucket] = latency.get(bucket, 0) + count
    words = [f"{work}  {phase} {seconds:.0f} s", f"{number_text(ops / max(seconds, 1e-9))}/s"]
    if size:
        words.append(f"{number_text(size / max(seconds, 1e-9) / 1e6)} MB/s")
    if latency:
        words.append(f"p50 {time_text(quantile(latency, 0.5))}")
        words.append(f"p99 {time_text(quantile(latency, 0.99))}")
    if errors:
        words.append(f"{errors} errors")
    return "  ".join(words)


def csv_text(result: Result, run: str) -> str:
    """Return one row for each process and kind of operation, and one for all processes together."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    clients = [(f"P{number}", figures) for number, figures in enumerate(result.processes)]
    if len(clients) != 1:
        clients.append(("all", result.figures))
    for client, figures in clients:
        for kind, series in figures.series.items():
            seconds = figures.seconds or 1e-9
            failures = sum(
                failure.count for key, failure in figures.failures.items() if key.startswith(f"{kind}: ")
            )
            quantiles = [f"{series.latency.quantile(share) / 1e9:.9f}" for _, share in QUANTILES]
            writer.writerow(
                [
                    run,
                    client,
                    series.ops,
                    series.bytes,
                    f"{series.ops / seconds:.6f}",
                    f"{series.bytes / seconds:.6f}",
                    f"{figures.seconds:.9f}",
                    kind,
                    failures,
                    *quantiles,
                    f"{series.latency.most / 1e9:.9f}",
                ]
            )
    return out.getvalue()
