"""Mutants of what is made of names that others chose: files, directories, their paths."""

from __future__ import annotations

from .mutant import Mutant

MUTANTS = (
    Mutant(
        "any-number-of-levels",
        "objstore/cli/paths.py",
        "if len(parts) > MAX_LEVELS:",
        "if False:",
        "a name that others chose makes at most a hundred directories",
        "unit/objstore/cli/test_sync.py::test_many_levels",
    ),
)
