"""The maps in tests/README.md are complete and true: every row is there, every test named exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MAP = (TESTS / "README.md").read_text()
COUNTS = {"A": 17, "B": 15, "C": 11, "D": 12, "P": 6, "N": 38, "S": 26}

ROWS = dict(re.findall(r"^\| ([A-DNPS][0-9]+) \|.*\| ([^|]*) \|$", MAP, re.MULTILINE))
NAMED = sorted(set(re.findall(r"`([\w/]+\.py::[\w:]+)`", MAP)))


@cache
def collected(path: Path) -> frozenset[str]:
    """Names that pytest could collect from a file: functions, classes, and methods as ``Class::method``."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                found.add(prefix + node.name)
                visit(node.body, f"{prefix}{node.name}::")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.add(prefix + node.name)
            elif isinstance(node, ast.Assign):  # a state machine's TestCase
                found.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))

    visit(ast.parse(path.read_text()).body, "")
    return frozenset(name for name in found if name.rpartition("::")[2].lower().startswith("test"))


def test_every_row_is_there_once() -> None:
    wanted = [f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)]
    assert re.findall(r"^\| ([A-DNPS][0-9]+) \|", MAP, re.MULTILINE) == wanted


@pytest.mark.parametrize("row", ROWS)
def test_no_row_is_empty(row: str) -> None:
    tests = re.findall(r"`[\w/]+\.py::[\w:]+`", ROWS[row])
    assert tests
    rest = re.sub(r"`[^`]*`|<br>", "", ROWS[row]).strip()
    assert rest == "", f"{rest!r} names no test"


@pytest.mark.parametrize("name", NAMED)
def test_every_test_named_exists(name: str) -> None:
    path, _, test = name.partition("::")
    assert (TESTS / path).is_file(), path
    assert test in collected(TESTS / path), name


def test_there_is_something_to_check() -> None:
    assert len(NAMED) > 150
    assert len(ROWS) == sum(COUNTS.values())
    assert "test_put" not in collected(TESTS / "unit" / "test_test_map.py")
