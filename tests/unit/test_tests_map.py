"""Whoever looks for the tests of a file finds them by its path; no file has no end; no test sleeps."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.imports import PACKAGES, ROOT

UNIT = ROOT / "tests" / "unit"
MOST_LINES = 600

WITHOUT = {
    "natsproto/_version.py": "one constant",
    "natsproto/transport/base.py": "types and a number: what a transport and a receiver have",
    "objstore/__main__.py": "calls objstore.cli.main:main",
}
"""Source files without a unit file of their own, and why. Facades (``__init__.py``) need none."""

SOURCES = sorted(
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)
TESTS = sorted(path.relative_to(UNIT) for package in PACKAGES for path in (UNIT / package).rglob("test_*.py"))


def home(source: Path) -> Path:
    """The unit file of a source file, below ``tests/unit``."""
    return source.with_name(f"test_{source.stem.strip('_')}.py")


def functions_in(path: Path) -> list[str]:
    found = ast.walk(ast.parse(path.read_text()))
    functions = (node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [name for name in functions if name.startswith("test_")]


@pytest.mark.parametrize("source", [str(path) for path in SOURCES if str(path) not in WITHOUT])
def test_a_source_file_has_its_unit_file(source: str) -> None:
    path = UNIT / home(Path(source))
    assert path.is_file(), f"no {path.relative_to(ROOT)}"
    assert functions_in(path)


def test_exceptions_are_ones() -> None:
    assert set(WITHOUT) <= {str(path) for path in SOURCES}
    assert not [source for source in WITHOUT if (UNIT / home(Path(source))).exists()]


@pytest.mark.parametrize("test", [str(path) for path in TESTS])
def test_a_unit_file_is_called_after_a_source_file(test: str) -> None:
    """``test_MODULE.py``, ``test_MODULE_ASPECT.py`` beside it, or ``test_package.py`` of a facade."""
    path = Path(test)
    modules = [home(source).stem for source in SOURCES if home(source).parent == path.parent]
    if path.name == "test_package.py":
        assert (ROOT / path.parent / "__init__.py").is_file()
    else:
        assert any(re.fullmatch(rf"{module}(_\w+)?", path.stem) for module in modules)


def test_no_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in sorted((ROOT / "tests").rglob("*.py"))
    }
    assert [path for path, lines in lengths.items() if lines > MOST_LINES] == []


def sleeps(path: Path) -> list[int]:
    """Lines with a sleep that is not ``sleep(0)``."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and (getattr(node.func, "attr", "") == "sleep" or getattr(node.func, "id", "") == "sleep")
        and [ast.unparse(argument) for argument in node.args] != ["0"]
    ]


def test_no_test_sleeps() -> None:
    """It waits for a condition, or says why it lasts: ``support.waits``. Only the soak keeps a pace."""
    found = {
        str(path.relative_to(ROOT)): sleeps(path)
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path.relative_to(ROOT).parts[1] not in ("support", "soak")
    }
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert sleeps(ROOT / "tests" / "support" / "waits.py")
