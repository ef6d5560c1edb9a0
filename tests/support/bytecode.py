"""Compiling the tests once, not once per worker: that took a fifth of the whole run."""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest


def keep() -> None:
    """Let this run keep bytecode, also where ``PYTHONDONTWRITEBYTECODE`` is a habit (as in containers).

    Else each worker, and each of the hundreds of commands that tests start, compiles all that it imports.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def share_out(config: pytest.Config) -> None:
    """Let a worker compile its share of the test files, with pytest's assertions; others do theirs."""
    worker: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
    number, count = int(worker["workerid"].removeprefix("gw")), int(worker["workercount"])
    hook: Any = config.pluginmanager.rewrite_hook
    for path in _files(config)[number::count]:
        with suppress(Exception):  # what is wrong with a file, its collection will tell
            spec: Any = importlib.util.spec_from_file_location(path.stem, path, loader=hook)
            module = importlib.util.module_from_spec(spec)
            module.__dict__["__builtins__"] = {}  # nothing runs: there is no __import__
            hook.exec_module(module)


def _files(config: pytest.Config) -> list[Path]:
    """The test files of this run, the largest first."""
    places = [Path(config.invocation_params.dir, each.partition("::")[0]) for each in config.args]
    found = {path for place in places for path in [place, *place.rglob("test_*.py")]}
    files = [path for path in found if path.suffix == ".py" and path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_size, reverse=True)
