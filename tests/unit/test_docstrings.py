"""Every public name has a docstring: whatever the modules of the API reference export, and their members."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def public_modules() -> tuple[str, ...]:
    """``PUBLIC`` of docs/api/conf.py, which cannot be imported without the extra ``docs``."""
    tree = ast.parse((ROOT / "docs" / "api" / "conf.py").read_text())
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PUBLIC"
    ]
    return tuple(ast.literal_eval(value))


def exported(module: str) -> dict[str, object]:
    loaded = importlib.import_module(module)
    own = [name for name, value in vars(loaded).items() if getattr(value, "__module__", None) == module]
    names = getattr(loaded, "__all__", own)
    return {name: getattr(loaded, name) for name in names if not name.startswith("_")}


def members(cls: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties, those of the project's base classes included."""
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        defined = next(base for base in cls.__mro__ if name in vars(base))
        if name.startswith("_") or not defined.__module__.startswith(("natsproto", "objstore")):
            continue
        if isinstance(value, (FunctionType, property, classmethod, staticmethod)):
            yield name, getattr(cls, name)


CLASSES = {
    f"{module}.{name}": value
    for module in public_modules()
    for name, value in exported(module).items()
    if inspect.isclass(value)
}


@pytest.mark.parametrize("module", public_modules())
def test_modules_and_functions(module: str) -> None:
    assert importlib.import_module(module).__doc__
    missing = [
        name
        for name, value in exported(module).items()
        if inspect.isroutine(value) and not inspect.getdoc(value)
    ]
    assert missing == []


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name: str) -> None:
    cls = CLASSES[name]
    assert vars(cls).get("__doc__"), "no docstring of its own"
    assert not (cls.__doc__ or "").startswith(f"{cls.__name__}("), "only what @dataclass has made"
    assert [member for member, value in members(cls) if not inspect.getdoc(value)] == []


@pytest.mark.parametrize("name", [name for name, value in CLASSES.items() if dataclasses.is_dataclass(value)])
def test_fields(name: str) -> None:
    """The fields are listed under ``Attributes`` or ``Args``; those of configurations are the server's."""
    cls = CLASSES[name]
    text = inspect.getdoc(cls) or ""
    if "Field names and meanings are the server's" in text:
        return
    documented = set(re.findall(r"\w+", " ".join(re.findall(r"^ +([\w, ]+):", text, re.MULTILINE))))
    fields = {field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")}
    assert fields - {"check_peer"} <= documented  # that one is for the command alone


def test_there_is_something_to_check() -> None:
    assert len(CLASSES) > 100
    assert sum(len(list(members(cls))) for cls in CLASSES.values()) > 200
