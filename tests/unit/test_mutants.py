"""The mutants can still be applied: each text is there once, each test that is to kill one exists."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from mutants.rules import MUTANTS, Mutant

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent


@cache
def functions(path: Path) -> frozenset[str]:
    found = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_can_be_applied(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text()
    assert source.count(mutant.text) == 1
    changed = source.replace(mutant.text, mutant.by)
    assert changed != source
    compile(changed, mutant.file, "exec")
    path, _, test = mutant.test.partition("::")
    assert test.partition("[")[0] in functions(TESTS / path)


def test_there_are_enough_of_them() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
    assert len({mutant.file for mutant in MUTANTS}) >= 12
