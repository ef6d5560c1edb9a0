"""What a killed server has brought back of names that were deleted in a full bucket. Pure.

There is no room for a delete marker then, so the metas of the name are purged instead (``change/delete.py``),
and nats-server 2.15.1 may forget that when it is killed (docs/reliability.md). An older state of the name is
back, perhaps one whose chunks are gone. Nothing else is taken for that: the name was removed before the kill,
or may have been; nothing was known to be in place after that; and what is seen is older than what was
removed. From the kill on the clients are judged as ever.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .brought_back import Past
from .content import digest as digest_of
from .content import make
from .effects import WRITES
from .history import FAIL, OK, Op, Told, Version
from .watched import Violation

MISSING = "missing chunks"


@dataclass(slots=True)
class Return:
    """A name that was deleted, and is back.

    Attributes:
        name: which.
        killed: when the server was killed.
        top: the newest revision that was known by then, which the removal has removed.
        shown: when an operation ended that saw it first.
        versions: those that may be back, by revision.
        count: how many of them were seen.
        old: those of them that are of epochs before.
    """

    name: str
    killed: float
    top: int
    shown: float = math.inf
    versions: dict[int, Version] = field(default_factory=dict)
    count: int = 1
    old: list[Version] = field(default_factory=list)

    def hides(self, revision: int) -> bool:
        """Whether it was there before the kill, and is not back."""
        return revision <= self.top and revision not in self.versions


@dataclass(slots=True)
class _Look:
    """What an operation says about a name: this version stands, or one that fits."""

    op: Op
    version: Version | None = None
    revision: int = 0
    fits: Callable[[Version], bool] | None = None


def _live(version: Version) -> bool:
    return not version.deleted


def _with_bytes(digest: str) -> Callable[[Version], bool]:
    return lambda version: _live(version) and version.digest == digest


def _with_part(start: int, end: int, digest: str) -> Callable[[Version], bool]:
    return lambda version: bool(version.body) and digest_of(make(version.body)[start:end]) == digest


def _looks(op: Op) -> Iterable[tuple[str, _Look]]:
    result, name = op.result, op.args.get("of") or op.name
    for row in [*result.get("list", ()), *([result["info"]] if "info" in result else ())]:
        version = Version.of_row(row)
        yield version.name, _Look(op, version, version.revision)
    if "digest" in result:
        yield name, _Look(op, fits=_with_bytes(result["digest"]))
    if "body" in result:
        yield name, _Look(op, fits=lambda version: version.body == result["body"])
    if "part" in result:
        yield name, _Look(op, fits=_with_part(*result["part"]))
    if op.outcome == OK and op.args.get("if"):
        yield op.name, _Look(op, revision=op.args["if"])
    live = set(result.get("names", ())) if op.args.get("live") else set()
    if result.get("exists"):
        live.add(op.name)
    if op.error == "ObjectAlreadyExists":
        live.add(op.args.get("to") or op.name)
    if op.error == "IntegrityError":  # a meta without its chunks
        live.add(name)
    for each in live:
        yield each, _Look(op, fits=_live)


class _Item:
    """One name of this epoch."""

    def __init__(self) -> None:
        self.writes: list[Op] = []
        self.removes: list[Op] = []
        self.looks: list[_Look] = []
        self.known: list[tuple[float, Version]] = []

    def newest(self, killed: float) -> Version | None:
        known = (version for when, version in self.known if when <= killed)
        return max(known, key=lambda version: version.revision, default=None)

    def removed(self, killed: float, top: int) -> bool:
        """Whether what was newest had been removed by the kill, or may have been."""
        return any(
            op.begin < killed and op.args.get("if", top) >= top and not self._placed(op, killed)
            for op in self.removes
        )

    def _placed(self, removal: Op, killed: float) -> bool:
        """Whether the name was written, or seen to be there, between a removal and a kill."""
        done = removal.settled if removal.settled <= killed else math.inf
        since = removal.begin if math.isinf(done) else done
        return any(op.outcome == OK and op.begin > since and op.end <= killed for op in self.writes) or any(
            look.op.begin > done and look.op.end <= killed
            for look in self.looks
            if look.version is None or _live(look.version)
        )

    def before(self, killed: float, top: int) -> dict[int, Version]:
        """What was known by the kill, and is older than what was removed."""
        return {
            version.revision: version
            for when, version in self.known
            if when <= killed and version.revision < top
        }

    def untold(self, version: Version, killed: float) -> bool:
        """Whether it was written before the kill by one who was not told so."""
        if version.deleted:
            return True  # the checker looks for who removed what
        return any(
            op.begin < killed
            and op.outcome != OK
            and (op.id == version.tag or op.verb in ("rename", "copy", "retag"))
            for op in self.writes
        )

    def explained(self, look: _Look, killed: float) -> bool:
        """Whether it was written since the kill, or by one of whom it is not known when."""
        assert look.fits is not None
        return any(
            op.begin <= look.op.end
            and (op.end > killed or op.outcome != OK)
            and (
                "body" not in op.args or look.fits(Version("", 0, op.id, op.args["body"], op.args["digest"]))
            )
            for op in self.writes
        )


def _gather(ops: Iterable[Op], told: Iterable[Told], initial: Iterable[Version]) -> dict[str, _Item]:
    items: defaultdict[str, _Item] = defaultdict(_Item)
    for version in initial:
        items[version.name].known.append((-math.inf, version))
    for item in told:
        items[item.version.name].known.append((item.time, item.version))
    for op in ops:
        target = op.args.get("to") or op.name
        if op.outcome != FAIL:
            if op.verb in WRITES:
                items[target].writes.append(op)
            if op.verb == "delete" or (op.verb in ("rename", "retag") and target != op.name):
                items[op.name].removes.append(op)
        for name, look in _looks(op):
            items[name].looks.append(look)
            if look.version is not None:
                items[name].known.append((op.end, look.version))
    return items


def forgotten_deletes(
    ops: Iterable[Op], told: Iterable[Told], initial: Iterable[Version], past: Past, kills: Iterable[float]
) -> list[Return]:
    """Names that were deleted without a marker, and were seen again after a server was killed.

    Args:
        ops, told: of one bucket that may be full, and this epoch.
        initial: the state of every name when it began.
        past: the epochs before.
        kills: when servers were killed in it.
    """
    kills = sorted(kills)
    found = []
    for name, item in _gather(ops, told, initial).items():
        left = item.looks
        for killed in reversed(kills if item.removes else ()):
            newest = item.newest(killed)
            if newest is None or newest.deleted or not item.removed(killed, newest.revision):
                continue  # a marker is not forgotten
            back = _back(name, item, [look for look in left if look.op.end > killed], past, killed)
            if back is not None:
                found.append(back)
            left = [look for look in left if look.op.end <= killed]
    return found


def _back(name: str, item: _Item, looks: list[_Look], past: Past, killed: float) -> Return | None:
    newest = item.newest(killed)
    assert newest is not None
    back = Return(name, killed, newest.revision)
    mine = item.before(killed, back.top)
    before = {each.revision: each for each in past.of(name) if each.revision < back.top}
    before = {revision: each for revision, each in before.items() if revision not in mine}
    known = before | mine
    shown: set[int] = set()
    possible: dict[int, Version] = {}  # when only that something is there was seen
    for look in looks:
        fit: list[Version] = []
        if look.fits is not None:
            if not item.explained(look, killed):
                fit = [each for each in known.values() if look.fits(each)]
        elif look.revision < back.top:
            version = known.get(look.revision)
            if version is None and look.version is not None and item.untold(look.version, killed):
                version = look.version
            if version is not None and (look.version is None or version.facts() == look.version.facts()):
                fit = [version]
                shown.add(look.revision)
        if fit:
            back.shown = min(back.shown, look.op.end)
            fitting = {each.revision: each for each in fit}
            if look.fits is _live:
                possible |= fitting
            else:
                back.versions |= fitting
    if not back.versions and not possible:
        return None
    back.versions = back.versions or possible
    back.count = len(shown) or 1
    back.old = [version for revision, version in back.versions.items() if revision in before]
    return back


def seen_beneath(
    violation: Violation, ops: Sequence[Op], initial: Iterable[Version], kills: Sequence[float]
) -> bool:
    """Whether a read saw an older version beneath the one that was being removed from a full bucket.

    There it is again when a killed server has forgotten a purge or a roll-up, and while the metas of the
    name are purged one after the other the older one is the newest for a moment.
    """
    if violation.kind != "stale or lost" or not kills:
        return False
    reader = violation.text.partition(" ")[0]
    (op,) = [op for op in ops if op.id == reader]
    item = _gather(ops, (), initial)[violation.name]
    seen = (when for when, version in item.known if version.revision == violation.revision)
    known = min(seen, default=math.inf)
    return any(
        known <= killed < removal.begin and removal.begin <= op.end and op.begin <= removal.end
        for removal in item.removes
        for killed in kills
    )


class Hollow:
    """The names of one bucket that are back, perhaps without chunks, until they are written or removed."""

    def __init__(self) -> None:
        self._back: dict[str, set[int]] = {}
        self._since: dict[str, float] = {}
        self._changed: list[tuple[str, float]] = []

    def add(self, returns: Iterable[Return], ops: Iterable[Op]) -> None:
        """What came back in this epoch, and all that happened in it."""
        for each in returns:
            live = {revision for revision, version in each.versions.items() if _live(version)}
            self._back[each.name] = self._back.get(each.name, set()) | live
            self._since[each.name] = min(self._since.get(each.name, math.inf), each.killed)
        self._changed = [
            (name, op.end)
            for op in ops
            if op.outcome == OK and (op.verb in WRITES or op.verb == "delete")
            for name in {op.name, op.args.get("to") or op.name}
            if name in self._back and op.end > self._since[name]
        ]

    def keep(self, final: Iterable[Version]) -> None:
        """Forget what does not stand any more when the epoch ends."""
        standing = {version.name: version.revision for version in final}
        self._back = {
            name: {standing[name]} for name, back in self._back.items() if standing.get(name) in back
        }
        self._since = dict.fromkeys(self._back, -math.inf)

    def _stands(self, name: str, op: Op) -> bool:
        return (
            name in self._back
            and op.end > self._since[name]
            and not any(changed == name and when < op.begin for changed, when in self._changed)
        )

    def excuses(self, op: Op) -> bool:
        """Whether all the damage that an operation met is that of such names."""
        if op.outcome == OK:
            problems = [item for item in op.result.get("problems", ()) if item[0] != "half-done rename"]
            return bool(problems) and all(
                kind == MISSING and self._stands(name, op) and revision in self._back[name]
                for kind, name, _, revision in problems
            )
        name = op.args.get("of") or op.name
        return op.error == "IntegrityError" and "chunks are missing" in op.message and self._stands(name, op)

    def excuses_found(self, violation: Violation) -> bool:
        """The same of what was found when everything stood still."""
        if violation.revision not in self._back.get(violation.name, ()):
            return False
        if violation.kind == "verify found damage":
            return violation.text.startswith(MISSING)
        return (
            violation.kind == "unreadable when all is quiet"
            and violation.text.startswith("IntegrityError")
            and "chunks are missing" in violation.text
        )
