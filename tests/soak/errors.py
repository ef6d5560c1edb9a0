"""Which errors and stale answers may be, and when. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from objstore.bucket.counts import STEPS_DOWN

from .checker import Violation
from .effects import WRITES
from .history import FAIL, OK, UNKNOWN, Op

ALWAYS = frozenset({
    "ObjectNotFoundError", "ObjectDeletedError", "ObjectAlreadyExists", "RevisionConflictError",
    "LinkError", "ObjectChangedError", "ValueError",
})  # fmt: skip
"""Answers about the state of a name (the checker judges whether they are true), and the soak's own mind."""

DAMAGE = frozenset({"IntegrityError", "DigestMismatchError", "MetaDecodeError", "RemoteProtocolError"})
"""What is stored, or came, is not what it must be."""

AFTERMATH = 45.0
"""Seconds after a fault in which a budget of 20 s that began under it may still end in an error."""

LATE = 5.0
"""Seconds that a delayed frame may come late."""

Faults = Callable[[float, float], bool]


def judge_errors(
    ops: Iterable[Op], faults: Faults, tolerated: Faults, full: frozenset[str]
) -> list[Violation]:
    """Verifier what operations raised.

    Args:
        faults: whether any fault was on, between two times.
        tolerated: whether frames were changed or reordered on the way then.
        full: buckets that fill up.
    """
    violations = []
    for op in ops:
        kind = _verifier(op, faults, tolerated, full)
        if kind:
            text = f"{op.id}: {op.error or op.result.get('problems')} {op.message}"
            violations.append(Violation(kind, op.bucket, op.name, text, [str(op)]))
    return violations


def _verifier(op: Op, faults: Faults, tolerated: Faults, full: frozenset[str]) -> str:
    end = op.begin if math.isinf(op.end) else op.end
    excused = op.args.get("way") == "proxy" and tolerated(op.begin - LATE, end)
    if op.outcome == OK:
        problems = [item for item in op.result.get("problems", []) if item[0] != "half-done rename"]
        return "verify found damage" if problems and not excused else ""
    if op.outcome == UNKNOWN and op.error != "OutcomeUnknownError":
        return ""  # killed, cancelled, timed out
    if op.outcome == FAIL and op.error in ALWAYS:
        return ""
    if op.error in DAMAGE:
        return "" if excused else "damaged"
    if op.error == "StoreFullError" and op.bucket in full:
        return ""
    return "" if faults(op.begin - AFTERMATH, end) else "an error without a fault"


def by_one_cut_off(violation: Violation, op: Op, cut_off: Faults) -> bool:
    """Whether a leader may have answered a read that the others did not reach any more.

    It notices within :data:`STEPS_DOWN`, in which another one may be elected and take writes.

    Args:
        cut_off: whether servers did not reach each other at some time between two.
    """
    return (
        violation.kind == "stale or lost"
        and op.verb not in WRITES
        and violation.since > op.begin - STEPS_DOWN
        and cut_off(op.begin - STEPS_DOWN, op.end)
    )
