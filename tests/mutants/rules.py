"""The mutants: what is replaced by what in which file, the rule that is broken, the test that must notice.

The text must occur exactly once in its file: ``unit/test_mutants.py`` checks that, so that a change of the
code takes its mutants along.
"""

from __future__ import annotations

from . import (
    answers_rules,
    client_rules,
    commit_rules,
    copies_rules,
    files_rules,
    objects_rules,
    others_rules,
)
from .mutant import Mutant

__all__ = ("MUTANTS", "Mutant")

MUTANTS = (
    *commit_rules.MUTANTS,
    *objects_rules.MUTANTS,
    *copies_rules.MUTANTS,
    *others_rules.MUTANTS,
    *files_rules.MUTANTS,
    *client_rules.MUTANTS,
    *answers_rules.MUTANTS,
)
