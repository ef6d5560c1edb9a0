"""What imports what in the source, read by ``ast``: modules, and the folders that ARCHITECTURE.md draws."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("natsproto", "objstore")

UPWARD = {("natsproto.aio", "natsproto.jetstream"), ("natsproto.jetstream", "objstore.store")}
"""``nc.jetstream()`` and ``js.object_store()`` are asked for on what lies below: the only upward imports."""

TOP = {
    "natsproto": "natsproto.errors",  # with headers, subjects and other plain values
    "natsproto.__main__": "natsproto.server",
    "objstore.__main__": "objstore.cli",
    "objstore.errors": "objstore.errors",
    "objstore.manager": "objstore.store",
    "objstore.store": "objstore.store",
    "objstore.sync": "objstore.blocking",
    "objstore.store_reads": "objstore.store",
}
"""Where the modules count that lie in no folder."""


def module_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Every source file by its dotted name."""
    return {module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def room_of(module: str) -> str:
    """The folder that a module lies in."""
    if module in TOP:
        return TOP[module]
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return f"{package}.{room}" if (ROOT / package / room).is_dir() else TOP[package]


def _statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _statements(child)


@cache
def imported_by(module: str) -> frozenset[str]:
    """The modules of the project that a module imports, at whatever time, but for type checkers."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for statement in _statements(ast.parse(path.read_text())):
        if isinstance(statement, ast.Import):
            found.update(alias.name for alias in statement.names)
            continue
        base = statement.module or ""
        if statement.level:
            above = package.split(".")
            above = above[: len(above) - statement.level + 1]
            base = ".".join([*above, base] if base else above)
        found.update(
            name if (name := f"{base}.{alias.name}") in modules() else base for alias in statement.names
        )
    return frozenset(name for name in found if name in modules() and name != module)


@cache
def between_rooms() -> frozenset[tuple[str, str]]:
    """Which room imports from which other one; :data:`UPWARD` is left out."""
    pairs = {
        (room_of(module), room_of(other))
        for module in modules()
        for other in imported_by(module)
        if "objstore" not in (module, other)  # the facade loads everything by its name
    }
    return frozenset(pair for pair in pairs - UPWARD if pair[0] != pair[1])
