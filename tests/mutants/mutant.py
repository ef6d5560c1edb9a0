"""What a mutant is."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One wrong rule.

    Attributes:
        name: for the command line.
        file: below the root of the repository.
        text: what is replaced; it occurs once in the file.
        by: the replacement.
        rule: what it breaks.
        test: below ``tests``, as pytest names it; it fails because of the mutant.
    """

    name: str
    file: str
    text: str
    by: str
    rule: str
    test: str
