"""Objects that are used for every message keep few attributes in a dict, or none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED_KEYS = 30
"""Attributes up to which CPython keeps them beside the object; with more, each access looks into a dict."""


def assigned(scope: ast.ClassDef) -> set[str]:
    """Return the names that methods of a class assign on ``self``."""
    targets: list[ast.expr] = []
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets.append(node.target)
    flat = [
        item for target in targets for item in (target.elts if isinstance(target, ast.Tuple) else [target])
    ]
    return {
        item.attr
        for item in flat
        if isinstance(item, ast.Attribute) and isinstance(item.value, ast.Name) and item.value.id == "self"
    }


def slotted(scope: ast.ClassDef) -> bool:
    return any(
        isinstance(target, ast.Name) and target.id == "__slots__"
        for node in scope.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    )


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for package in ("natsproto", "objstore"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    yield path, node


def test_no_object_has_more_attributes_than_are_fast() -> None:
    """The thirty-first attribute of a session once cost 7 % of every small publish."""
    found = {
        f"{path.name} {scope.name}": len(assigned(scope)) for path, scope in classes() if not slotted(scope)
    }
    assert found["connection.py Connection"] > 20  # the count works
    assert {name: count for name, count in found.items() if count > SHARED_KEYS} == {}
