"""Results as files: written once per run, read to compare or draw them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from objstore.bench.results import ResultError, write_whole
from objstore.bench.results import read as read_text

from . import machine
from .errors import BenchError
from .rows import OURS

VERSION = 1


def document(suite: str, rows: list[dict[str, Any]], *, runs: int, quick: bool) -> dict[str, Any]:
    """The document that one run writes."""
    return {
        "version": VERSION,
        "suite": suite,
        "quick": quick,
        "runs": runs,
        "machine": machine.describe(),
        "rows": rows,
    }


def unusable(found: dict[str, Any]) -> str | None:
    """Why a result must not be published, or ``None``: nobody could measure the same program again."""
    revision = found["machine"]["revision"]
    if found["quick"]:
        return "is of a quick run, whose figures mean nothing"
    if revision.endswith("+"):
        return f"was measured with uncommitted changes ({revision})"
    return "is of an unknown revision" if revision == "unknown" else None


def write(path: Path, found: dict[str, Any]) -> None:
    """Write a result, whole or not at all.

    Raises:
        BenchError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(str(path), json.dumps(found, indent=1) + "\n")
    except OSError as exc:
        raise BenchError(f"{path} cannot be written: {exc.strerror}") from exc
    except ResultError as exc:
        raise BenchError(str(exc)) from exc


def read(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        BenchError: it cannot be read, or is not a result.
    """
    try:
        found = json.loads(read_text(str(path)))
    except ResultError as exc:
        raise BenchError(str(exc)) from exc
    except ValueError as exc:
        raise BenchError(f"{path} is not JSON: {exc}") from exc
    if not isinstance(found, dict) or found.get("version") != VERSION or "rows" not in found:
        raise BenchError(f"{path} is not a result of these benchmarks (version {VERSION})")
    return found


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A line for every row and contestant that both runs have.

    Absolute rates of two runs differ with the load of the machine; what counts is the change relative to a
    peer that did not change (``against``).
    """
    out = [f"{name:<10} {_about(found)}" for name, found in (("before", before), ("after", after))]
    rows = {row["key"]: row for row in before["rows"]}
    for row in after["rows"]:
        old = rows.get(row["key"])
        if old is None or OURS not in old["summary"] or OURS not in row["summary"]:
            continue
        out.append(row["title"])
        changes = {
            label: old["summary"][label]["per_op"] / found["per_op"]
            for label, found in row["summary"].items()
            if label in old["summary"]
        }
        for label, change in changes.items():
            text = f"  {label:<28} {old['summary'][label]['median']:12.4g} -> "
            text += f"{row['summary'][label]['median']:12.4g} {row['unit']:<5} {change:6.2f}x as fast"
            if label != OURS:
                text += f"; ours against it {changes[OURS] / change:6.2f}x"
            out.append(text)
    return out


def _about(found: dict[str, Any]) -> str:
    about = found["machine"]
    why = unusable(found)
    mark = f"  NOT TO BE PUBLISHED: it {why}" if why else ""
    return (
        f"{found['suite']} at {about['revision']}, {about['date']}, {about['python']}, {about['cpu']}{mark}"
    )
