"""Write docs/interop.md from what a run reported.

python -m pytest -q -n 0 tests/interop --interop-all --interop-report=build/interop.json
python tests/interop/matrix.py build/interop.json docs/interop.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from interop import gaps, servers  # noqa: E402

Cell = dict[str, Any]
HEAD = """\
# Interoperability

Written by `tests/interop/matrix.py` from the results of `pytest tests/interop --interop-all`, never by hand
(see [tests/README.md](../tests/README.md#interop-matrix)); its end, [ADR-20](#adr-20-statement-by-statement),
is `tests/interop/adr20.md`. A cell names the test that passed and the versions both sides reported, the
writer's first. An empty cell has no passing test; a small number at the row says why.

A column is a server, in the version it gave itself in INFO. `2.15.1 ack v2` is 2.15.1 with
`feature_flags {{ js_ack_fc_v2: true }}`. The tests are in `tests/interop/`: the cell `put_small` in the row
"we write" of nats-py under 2.9.10 is `test_matrix.py::test_put_small[2.9.10-nats-py-we-write]`.

In "we write" natsproto acts (puts, deletes, links, renames, seals …) and the peer must see it; in "they
write" the peer acts and natsproto must see it. Where both can read, both must.
"""
PEER = """
## {peer}

{peer} {theirs} (its CONNECT says {connect}) and natsproto {ours}.
"""
DIRECTIONS = {gaps.OURS_WRITE: "we write", gaps.THEY_WRITE: "they write"}
RAW = """
## Meta messages as other clients write them

Each is published as it is, and read, listed, changed and deleted by natsproto {ours}.
"""


ADR = Path(__file__).with_name("adr20.md")
"""Written by hand: what the design says, and what this library does."""


def title(column: str) -> str:
    return column.replace("-ack-v2", " ack v2")


def table(first: list[str], rows: list[list[str]]) -> list[str]:
    head = [*first, *(title(column) for column in servers.SERVERS)]
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def said(cells: list[Cell], key: str) -> str:
    return ", ".join(sorted({cell[key] for cell in cells}))


def peer_section(peer: str, cells: list[Cell], all_rows: list[str]) -> list[str]:
    passed = {(cell["row"], cell["direction"], cell["column"]): cell for cell in cells if cell["passed"]}
    notes: list[str] = []
    rows = []
    for operation in dict.fromkeys(all_rows):
        for direction, label in DIRECTIONS.items():
            row = [f"{operation.replace('_', ' ')}, {label}"]
            reasons: list[int] = []
            for column in servers.SERVERS:
                cell = passed.get((operation, direction, column))
                known = gaps.gap(peer, operation, direction, column)
                if cell is not None:
                    versions = [cell["ours"], cell["theirs"]]
                    if direction == gaps.THEY_WRITE:
                        versions.reverse()
                    row.append(f"`{operation}` {' → '.join(versions)}")
                elif known is not None:
                    why = f"{peer} {known.reason}"
                    why += f" ({title(known.server)} only)." if known.server else "."
                    if why not in notes:
                        notes.append(why)
                    reasons.append(notes.index(why) + 1)
                    row.append("")
                else:
                    row.append("")
            row[0] += "".join(f" <sup>{number}</sup>" for number in dict.fromkeys(reasons))
            rows.append(row)
    about = {key: said(cells, key) for key in ("ours", "theirs", "connect")}
    lines = [PEER.format(peer=peer, **about), *table(["operation"], rows), ""]
    lines += [f"{number}. {why}" for number, why in enumerate(notes, 1)]
    return lines


def raw_section(cells: list[Cell]) -> list[str]:
    passed = {(cell["table"], cell["row"], cell["column"]): cell for cell in cells if cell["passed"]}
    rows = []
    for module, row in dict.fromkeys((cell["table"], cell["row"]) for cell in cells):
        test, _, case = row.partition(": ")
        line = [f"{test.replace('_', ' ')}{': ' if case else ''}{case}"]
        for column in servers.SERVERS:
            cell = passed.get((module, row, column))
            line.append(f"`{test}` {cell['ours']}" if cell is not None else "")
        rows.append(line)
    return [RAW.format(ours=said(cells, "ours")), *table(["what"], rows), ""]


def render(cells: list[Cell]) -> str:
    """The whole page.

    Raises:
        ValueError: a server said it is another version than its column.
    """
    for cell in cells:
        if cell["server"] != servers.SERVERS[cell["column"]][0]:
            raise ValueError(f"{cell['test']}: the server said it is {cell['server']}")
    lines = [HEAD.format()]
    operations = [cell["row"] for cell in cells if cell["table"] in gaps.PEERS]
    for peer in gaps.PEERS:
        mine = [cell for cell in cells if cell["table"] == peer]
        if mine:
            lines += peer_section(peer, mine, operations)
    lines += raw_section([cell for cell in cells if cell["table"] not in gaps.PEERS])
    lines.append(ADR.read_text(encoding="utf-8"))
    return "\n".join(lines).replace("\n\n\n", "\n\n").strip() + "\n"


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("usage: python tests/interop/matrix.py RESULTS.json docs/interop.md")
    cells = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(render(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
