"""ARCHITECTURE.md tells the truth: its picture is that of the imports, and what it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from support.imports import PACKAGES, ROOT, between_rooms, modules, room_of

PAGE = (ROOT / "ARCHITECTURE.md").read_text()
ARROWS = set(re.findall(r"^    ([\w.]+) --> ([\w.]+)$", PAGE, re.MULTILINE))
FILES = sorted(set(re.findall(r"`((?:natsproto|objstore)/[\w/]+\.py)`", PAGE)))
METHODS = sorted(set(re.findall(r"`(_?[A-Z]\w*\.\w+)`", PAGE)))
STEPS = re.findall(r"^\d\. `([\w/]+\.py)` `([\w.]+)`", PAGE, re.MULTILINE)

SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def reached(room: str, arrows: set[tuple[str, str]]) -> set[str]:
    """Everything below a room, along arrows."""
    below = {other for one, other in arrows if one == room}
    return below.union(*(reached(other, arrows) for other in below))


def test_every_arrow_is_an_import() -> None:
    assert ARROWS - between_rooms() == set()


def test_every_import_follows_from_the_arrows() -> None:
    assert {(one, other) for one, other in between_rooms() if other not in reached(one, ARROWS)} == set()


def test_no_arrow_follows_from_the_others() -> None:
    assert {arrow for arrow in ARROWS if arrow[1] in reached(arrow[0], ARROWS - {arrow})} == set()


def test_every_room_is_drawn() -> None:
    assert {room_of(module) for module in modules() if module not in PACKAGES} == {
        room for arrow in ARROWS for room in arrow
    }


@pytest.mark.parametrize("name", FILES)
def test_every_file_named_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


@cache
def defined_in(path: str) -> frozenset[str]:
    """Functions of a file, methods as ``Class.method``."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef):
            inner = (
                child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            found.update(f"{node.name}.{child.name}" for child in inner)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    return frozenset(found)


@pytest.mark.parametrize(("path", "function"), STEPS)
def test_every_step_of_a_walk_is_there(path: str, function: str) -> None:
    assert function in defined_in(path)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_named_is_there(name: str) -> None:
    assert any(name in defined_in(str(path.relative_to(ROOT))) for path in SOURCES)


def test_the_walks_are_short() -> None:
    """A put passes at most seven files, a received payload at most eight."""
    lengths = [part.count("\n") for part in re.findall(r"((?:^\d\. `.*\n)+)", PAGE, re.MULTILINE)]
    assert len(lengths) == 2
    assert lengths[0] <= 7
    assert lengths[1] <= 8
