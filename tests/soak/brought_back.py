"""What a killed server has brought back: names that ``purge_deleted`` had removed. Pure.

nats-server 2.15.1 may forget a purge when it is killed (docs/reliability.md). Then a name of which nothing
was left has a state again that it had long ago: the delete marker, or the object before it. The clients are
told of it, and what they do then must be right as ever. So these versions are known to the checker as what
was there when the epoch began, with nothing certain about their names until then.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

from .effects import CREATES
from .history import FAIL, Op, Told, Version

EPOCHS = 10
"""So many epochs of versions are kept. Markers are purged when they are some minutes old, and a server
forgets what it has not yet written to its index, which is some minutes at most as well."""


class Past:
    """The versions of one bucket that were seen in the epochs before."""

    def __init__(self) -> None:
        self._epochs: deque[dict[tuple[str, int], Version]] = deque(maxlen=EPOCHS)

    def add(self, ops: Iterable[Op], told: Iterable[Told]) -> None:
        """Remember an epoch."""
        versions = (version for _, version in _seen(ops, told))
        self._epochs.append({(version.name, version.revision): version for version in versions})

    def find(self, version: Version) -> bool:
        """Whether just this was there."""
        for epoch in self._epochs:
            known = epoch.get((version.name, version.revision))
            if known is not None:
                return known.facts() == version.facts()
        return False

    def of(self, name: str) -> Iterator[Version]:
        """The versions of a name."""
        for epoch in self._epochs:
            for version in epoch.values():
                if version.name == name:
                    yield version

    def with_bytes(self, name: str, digest: str) -> Iterator[Version]:
        """The versions of a name that had these bytes."""
        for version in self.of(name):
            if version.digest == digest and not version.deleted:
                yield version


def _seen(ops: Iterable[Op], told: Iterable[Told]) -> Iterator[tuple[float, Version]]:
    """Every version that somebody was told of, and when."""
    for op in ops:
        rows = [*op.result.get("list", ()), *([op.result["info"]] if "info" in op.result else ())]
        for row in rows:
            yield op.end, Version.of_row(row)
    for item in told:
        yield item.time, item.version


def brought_back(
    ops: Iterable[Op],
    told: Iterable[Told],
    initial: Iterable[Version],
    past: Past,
    killed: float,
) -> list[Version]:
    """Versions of epochs before that were seen after a server was killed.

    Only of names that had no state when the epoch began, or a delete marker that was purged since, or one
    that is older than what is seen now: that one was brought back itself.

    Args:
        ops, told: of one bucket and this epoch.
        initial: the state of every name when it began.
        past: the epochs before.
        killed: when a server was killed first in this epoch; infinite if none was.
    """
    ops, told = list(ops), list(told)
    standing = {version.name: version for version in initial}
    purged = min((op.begin for op in ops if op.verb == "purge" and op.outcome != FAIL), default=math.inf)
    written = {op.args["digest"] for op in ops if op.verb in CREATES}
    found: dict[tuple[str, int], Version] = {}

    def note(when: float, version: Version) -> None:
        there = standing.get(version.name)
        if when > killed and (
            there is None or there.revision < version.revision or (there.deleted and when > purged)
        ):
            found[version.name, version.revision] = version

    for when, version in _seen(ops, told):
        if version != standing.get(version.name) and past.find(version):
            note(when, version)
    for op in ops:  # bytes alone: of an object that nobody was told of
        name, digest = op.args.get("of") or op.name, op.result.get("digest")
        if digest and digest not in written:
            for version in past.with_bytes(name, digest):
                note(op.end, version)
    return list(found.values())
