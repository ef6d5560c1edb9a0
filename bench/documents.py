"""The parts of README.md and docs/performance.md that come from results: tables and lists after comments.

``<!-- table: NAME -->`` is followed by the table of ``bench/results/NAME.json``, with the columns named
after a semicolon, or with all of them; ``<!-- missed: NAME -->`` by its missed targets; and
``<!-- about: NAME -->`` by the versions and the machine of the measurement.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from . import results, tables
from .errors import BenchError
from .machine import ROOT

RESULTS = ROOT / "bench" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
BLOCK = re.compile(r"(<!-- (table|missed|about): (\w+)(?:; ([^>]*))? -->\n\n)((?:[|*].*\n(?:  .*\n)*)*)")


def render(text: str, found: dict[str, dict[str, Any]]) -> str:
    """The text with every marked part replaced by that of the results."""

    def replace(match: re.Match[str]) -> str:
        head, kind, name, columns, _ = match.groups()
        result = found[name]
        if kind != "table":
            lines = about(result) if kind == "about" else tables.missed(result["rows"]) or ["none"]
            return head + "".join(f"* {line}\n" for line in lines)
        return head + tables.markdown(result["rows"], columns.split(", ") if columns else None)

    return BLOCK.sub(replace, text)


def about(result: dict[str, Any]) -> list[str]:
    """Revision and time, machine, server, and the version of every client and of its interpreter."""
    machine = result["machine"]
    revision = machine["revision"]
    processor = f"{machine['cores']} cores ({machine['cpu']}), {machine['kernel']}"
    if revision.endswith("+"):
        revision = f"{revision[:-1]} with uncommitted changes"
    clients: dict[str, str] = {}
    for row in result["rows"]:
        for label, found in row["clients"].items():
            clients.setdefault(label, f"{label} {found['version']} (Python {found['python']})")
    servers = sorted({row["server"]["version"] for row in result["rows"]})
    return [
        f"revision {revision}, {machine['date'][:10]}, {result['runs']} rounds",
        f"{processor}; nats-server {' and '.join(servers)}",
        "; ".join(clients.values()),
    ]


def read_all(*, clean: bool) -> dict[str, dict[str, Any]]:
    """Every committed result by its name.

    Raises:
        BenchError: a result cannot be read or, with ``clean``, does not come from a committed revision.
    """
    found = {path.stem: results.read(path) for path in sorted(RESULTS.glob("*.json"))}
    for name, result in found.items():
        if clean and (why := results.unusable(result)):
            raise BenchError(f"{RESULTS / name}.json {why}: run it again from a clean checkout")
    return found


def update(pages: tuple[Path, ...] = PAGES) -> list[Path]:
    """Rewrite the marked parts; returns the pages that changed.

    Raises:
        BenchError: as :func:`read_all`.
    """
    found = read_all(clean=True)
    changed = []
    for page in pages:
        text = page.read_text()
        new = render(text, found)
        if new != text:
            page.write_text(new)
            changed.append(page)
    return changed
