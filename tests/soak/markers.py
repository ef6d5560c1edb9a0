"""Delete markers and who may have made them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .history import FAIL, OK, Op
from .known import Known, Name


def from_nowhere(item: Name, marks: Iterable[Known]) -> list[Known]:
    """The delete markers without a removal of their own that may have made them."""
    marks = sorted(marks, key=lambda known: known.version.revision)
    fits = [[op for op in item.removes if _fits(item, op, mark)] for mark in marks]
    taken: dict[str, int] = {}

    def place(index: int, tried: set[str]) -> bool:
        for op in fits[index]:
            if op.id in tried:
                continue
            tried.add(op.id)
            if op.id not in taken or place(taken[op.id], tried):
                taken[op.id] = index
                return True
        return False

    return [mark for index, mark in enumerate(marks) if not place(index, set())]


def _fits(item: Name, op: Op, mark: Known) -> bool:
    revision = mark.version.revision
    return (
        op.outcome != FAIL
        and op.begin <= mark.seen
        and not any(
            other.begin > op.settled and (item.revision_of(other) or math.inf) < revision
            for other in item.writes
        )
        and not any(
            other.outcome == OK and other.end < op.begin and (item.revision_of(other) or 0) > revision
            for other in item.writes
        )
    )
