"""Tables for people, and which targets were reached."""

from __future__ import annotations

from typing import Any

from .rows import BEFORE, OURS, paired, ratio


def number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def lines(result: dict[str, Any]) -> list[str]:
    """The block of one row: a line for each contestant."""
    about = result["server"]
    options = ", ".join(f"{key} {value}" for key, value in result["options"].items())
    out = [f"{result['title']}  [{options}; {result['storage']}, R{result['replicas']}, {about['version']}]"]
    for label, found in result["summary"].items():
        text = (
            f"  {label:<28} {number(found['median']):>9} {result['unit']:<5} ±{found['spread'] * 50:3.0f} %"
        )
        if found["cpu_per_gib"] and result["unit"] in ("MB/s", "MiB"):
            text += f"  {found['cpu_per_gib']:6.2f} s CPU/GiB"
        else:
            text += f"  {found['cpu_per_op'] * 1e6:6.0f} µs CPU/op"
        if found["peak"]:
            text += f"  +{found['peak'] / 2**20:5.1f} MiB"
        times = None if label == OURS else ratio(result, label)
        if times is not None:
            text += f"  {times:7.2f}x"
        if label == BEFORE and (interval := paired(result, label)) is not None and result["unit"] != "MiB":
            text += "; by rounds {:.3f}x ({:.3f} to {:.3f})".format(*interval)
        if label in result["wanted"]:
            text += f"  wanted {wanted_text(result, label)} {'ok' if reached(result, label) else 'LOW'}"
        out.append(text)
    out += [f"  {label:<28} left out: {reason}" for label, reason in result["left_out"].items()]
    return out


def wanted_text(result: dict[str, Any], label: str) -> str:
    wanted = result["wanted"][label]
    return f"< {wanted:g} MiB" if result["unit"] == "MiB" else f">= {wanted:g}x"


def reached(result: dict[str, Any], label: str) -> bool | None:
    """Whether the target was reached; ``None`` when one of the two contestants was left out."""
    wanted = result["wanted"][label]
    if result["unit"] == "MiB":
        found = result["summary"].get(label)
        return None if found is None else bool(found["max"] < wanted)
    times = ratio(result, label)
    return None if times is None else times >= wanted


def missed(results: list[dict[str, Any]]) -> list[str]:
    """A line for every missed target."""
    out = []
    for result in results:
        for label in result["wanted"]:
            if reached(result, label) is False:
                times = ratio(result, label)
                found = f"{result['summary'][label]['max']:.1f} MiB" if times is None else f"{times:.2f}x"
                if result["unit"] == "MiB":
                    found = f"{result['summary'][label]['max']:.1f} MiB"
                out.append(f"{result['title']}, {label}: {found}, wanted {wanted_text(result, label)}")
    return out


def markdown(results: list[dict[str, Any]], columns: list[str] | None = None) -> str:
    """The table of a suite in Markdown: rates, and how many times as fast as each of the others ours is."""
    labels = [OURS]
    for result in results:
        labels += [label for label in result["summary"] if label not in labels]
    if columns is not None:
        labels = [label for label in labels if label in columns]
    out = ["| | " + " | ".join(labels) + " |", "|---" * (len(labels) + 1) + "|"]
    for result in results:
        cells = []
        for label in labels:
            found = result["summary"].get(label)
            if found is None:
                cells.append("")
                continue
            text = f"{number(found['median'])} {result['unit']}"
            times = None if label == OURS else ratio(result, label)
            cells.append(text if times is None or result["unit"] == "MiB" else f"{text} (**{times:.2f}x**)")
        out.append(f"| {result['title']} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"
