"""What an operation may have done to names, and what its answer says about them: verbs end here.

The checker knows writes, removals and four kinds of observations, no verbs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .history import FAIL, OK, Op, Version

CREATES = frozenset({"put", "create", "upload"})
"""Writes of new bytes; the body carries the operation's id."""

WRITES = CREATES | {"update", "link", "copy", "rename", "retag"}

MAX_AGE_SLACK = 1.5
"""Seconds: servers let an object expire a little early or late, and clients measure from elsewhere."""


@dataclass(slots=True)
class Seen:
    """One observation of one name.

    Attributes:
        kind: ``version`` (a meta message), ``content`` (bytes), ``absent``, ``live``.
        name: of the object.
        version: for ``version``.
        bodies: for ``content``: the bodies these bytes may be.
    """

    kind: str
    name: str
    version: Version | None = None
    bodies: frozenset[str] = frozenset()


@dataclass(slots=True)
class Effects:
    """See the module."""

    writes: list[str] = field(default_factory=list)
    removes: list[str] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)


ABSENT = frozenset({"ObjectNotFoundError", "ObjectDeletedError"})


def effects(op: Op, names: frozenset[str], bodies_of: dict[str, frozenset[str]]) -> Effects:
    """Translate an operation.

    Args:
        op: with its answer.
        names: every name of the bucket that plays a part: what a listing leaves out is absent.
        bodies_of: digest to the bodies that have it.
    """
    made = Effects()
    target = op.args.get("to") or op.name
    if op.verb in WRITES:
        made.writes.append(target)
    if op.verb in ("rename", "retag") and target != op.name:
        made.removes.append(op.name)
    if op.verb == "delete":
        made.removes.append(op.name)
    if op.outcome == OK:
        _answer(op, names, bodies_of, made)
    elif op.outcome == FAIL:
        if op.error in ABSENT and "of" not in op.args:  # of a link either end may be missing
            made.seen.append(Seen("absent", op.name))
        elif op.error == "ObjectAlreadyExists":
            made.seen.append(Seen("live", target))
    return made


def _answer(op: Op, names: frozenset[str], bodies_of: dict[str, frozenset[str]], made: Effects) -> None:
    result = op.result
    if "info" in result:
        made.seen.append(Seen("version", target_name(op), Version.of_row(result["info"])))
    if "digest" in result:
        found = bodies_of.get(result["digest"], frozenset())
        made.seen.append(Seen("content", op.args.get("of") or op.name, bodies=found))
    if "body" in result:
        made.seen.append(Seen("content", op.args.get("of") or op.name, bodies=frozenset({result["body"]})))
    if "exists" in result:
        made.seen.append(Seen("live" if result["exists"] else "absent", op.name))
    if "list" in result:
        prefix = op.args.get("prefix", "")
        rows = [Version.of_row(row) for row in result["list"]]
        made.seen += [Seen("version", row.name, row) for row in rows]
        listed = {row.name for row in rows}
        made.seen += [Seen("absent", name) for name in names - listed if name.startswith(prefix)]
    if "names" in result:
        listed = set(result["names"])
        if op.args.get("live"):
            made.seen += [Seen("live", name) for name in listed & names]
        made.seen += [Seen("absent", name) for name in names - listed]


def target_name(op: Op) -> str:
    """The name an answer's info is about: the new one of a rename or copy, a link's target of a read."""
    if op.verb == "link":
        return op.name
    return op.args.get("to") or op.args.get("of") or op.name
