"""Charts of results, drawn by pygal (extra ``bench``)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from objstore.bench.report import size_text

from .errors import BenchError
from .rows import OURS, ratio

PEERS = ("nats-py", "natsrpy", "natsio")


def draw(found: dict[str, Any], directory: Path) -> list[Path]:
    """Draw the charts of a suite; returns the files.

    Raises:
        BenchError: pygal is not installed, or the suite has no chart.
    """
    try:
        import pygal
        from pygal.style import Style
    except ImportError as exc:
        raise BenchError(f"charts need pygal: pip install '.[bench]' ({exc})") from exc
    style = Style(
        background="white",
        plot_background="white",
        foreground="#333",
        foreground_strong="#111",
        foreground_subtle="#777",
        colors=("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#d62728"),
        font_family="sans-serif",
        value_font_size=11,
    )
    options: dict[str, Any] = {"style": style, "js": (), "width": 960, "legend_at_bottom": True}
    drawer = {"reach": _ratios, "factors": _ratios, "growth": _growth, "scale": _scale}.get(found["suite"])
    if drawer is None:
        raise BenchError(f"no chart is drawn of {found['suite']}")
    out = []
    directory.mkdir(parents=True, exist_ok=True)
    for name, chart in drawer(found, pygal, options).items():
        path = directory / f"{found['suite']}{name}.svg"
        drawing = chart.render(is_unicode=True)
        path.write_text(re.sub(r"<script.*?</script>", "", drawing, flags=re.DOTALL) + "\n")
        out.append(path)
    return out


def _ratios(found: dict[str, Any], pygal: Any, options: dict[str, Any]) -> dict[str, Any]:
    """How many times as fast as each peer, on a logarithmic scale."""
    rows = [row for row in found["rows"] if row["unit"] != "MiB" and any(p in row["summary"] for p in PEERS)]
    rows.reverse()
    chart = pygal.HorizontalBar(
        **options, height=140 + 46 * len(rows), logarithmic=True, truncate_label=60, print_values=True
    )
    chart.title = "How many times as fast as other clients (1 = as fast; logarithmic)"
    chart.value_formatter = lambda value: "" if value is None else f"{value:.3g}x"
    ratios = [times for row in rows for peer in PEERS if (times := ratio(row, peer)) is not None]
    chart.zero = 1  # a bar begins where both are as fast, and leads to the left where ours is slower
    chart.range = (min([1.0, *ratios]), 1.5 * max([1.0, *ratios]))
    chart.x_labels = [row["title"] for row in rows]
    for peer in PEERS:
        values = [ratio(row, peer) for row in rows]
        if any(values):
            chart.add(peer, values)
    return {"": chart}


def _growth(found: dict[str, Any], pygal: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Rates against sizes, times against counts."""

    rates = pygal.XY(**options, height=480, logarithmic=True, xrange=None)
    rates.title = "Rate of put and get against the size of the object (MB/s)"
    rates.x_value_formatter = size_text
    rates.x_labels = []
    for name in ("put", "get"):
        rows = [row for row in found["rows"] if row["key"].startswith(f"{name}-")]
        points = [(row["options"]["size"], row["summary"][OURS]["median"]) for row in rows]
        rates.x_labels = [point[0] for point in points]
        rates.add(name, points)
    times = pygal.XY(**options, height=480, logarithmic=True)
    times.title = "Time of list and names against the number of objects (ms)"
    for name in ("list", "names"):
        rows = [row for row in found["rows"] if row["key"].startswith(f"{name}-")]
        points = [(row["options"]["count"], row["summary"][OURS]["median"]) for row in rows]
        times.x_labels = [point[0] for point in points]
        times.add(name, points)
    charts = {"-rates": _log_x(rates), "-lists": _log_x(times)}
    ranges = [row for row in found["rows"] if row["key"].startswith("range-")]
    if ranges:
        chart = pygal.XY(**options, height=480)
        chart.title = "Time of 1 MiB from a random place against the size of the object (ms)"
        chart.x_value_formatter = size_text
        chart.range = (0, 1.3 * max(row["summary"][OURS]["median"] for row in ranges))
        chart.x_labels = [row["options"]["size"] for row in ranges]
        chart.add("range", [(row["options"]["size"], row["summary"][OURS]["median"]) for row in ranges])
        charts["-ranges"] = _log_x(chart)
    return charts


def _log_x(chart: Any) -> Any:
    chart.xlogarithmic = True
    return chart


def _scale(found: dict[str, Any], pygal: Any, options: dict[str, Any]) -> dict[str, Any]:
    rows = found["rows"][::-1]
    chart = pygal.HorizontalBar(**options, height=140 + 22 * len(rows), truncate_label=60, print_values=True)
    chart.title = "All together: several connections, several processes (MB/s)"
    chart.value_formatter = lambda value: f"{value:.0f}"
    chart.x_labels = [row["title"] for row in rows]
    chart.add("MB/s", [row["summary"][OURS]["median"] for row in rows])
    return {"": chart}
