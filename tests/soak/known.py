"""What is known of one name: its versions, who wrote them, and what may have changed it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .effects import Effects
from .floor import Floor
from .forgotten import Return
from .history import Op, Version


@dataclass(slots=True)
class Known:
    """A version, with when it was seen first."""

    version: Version
    seen: float
    by: str
    writer: Op | None = None


class Name:
    """Everything that concerns one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.touching: list[tuple[Op, Effects]] = []
        self.writes: list[Op] = []
        self.removes: list[Op] = []
        self.known: dict[int, Known] = {}
        self.expiring: list[Op] = []
        self.renamed = False
        self.purged: set[int] = set()
        """Revisions of delete markers that were purged, when a killed server has forgotten that."""
        self.returns: list[Return] = []
        """What a killed server has brought back of it, in the order of time."""
        self.floor = Floor()
        self._by_writer: dict[str, Known] = {}

    def wrote(self, known: Known, op: Op) -> None:
        """Note whose version it is; a writer's first one counts."""
        known.writer = op
        self._by_writer.setdefault(op.id, known)

    def committed_by(self, op: Op) -> float:
        """When the write of ``op`` was certainly in place."""
        known = self._by_writer.get(op.id)
        seen = math.inf if known is None else known.seen
        return min(seen, op.settled)

    def revision_of(self, op: Op) -> int | None:
        known = self._by_writer.get(op.id)
        return None if known is None else known.version.revision

    # -- what a killed server has brought back ----------------------------------------------------

    def floor_of(self, op: Op) -> float:
        """What was in place when an operation began; nothing that a kill within it has undone."""
        undone = any(each.killed < op.end for each in self.returns if each.killed >= op.begin)
        return 0 if undone else self.floor.at(op.begin)

    def in_place(self, op: Op, value: float) -> None:
        """From the end of an operation on; what it saw before a kill proves nothing afterwards."""
        if all(value > each.top + 0.5 for each in self.returns if op.begin <= each.killed < op.end):
            self.floor.add(op.end, value)

    def gone(self, op: Op, revision: int) -> float:
        """What is above a revision that was removed and is not back; 0 = nothing."""
        tops = (each.top for each in self.returns if each.killed < op.begin and each.hides(revision))
        return max((top + 0.5 for top in tops), default=0)

    def stands(self, op: Op, revision: int | None, floor: float) -> bool:
        """Whether an operation may see a revision; one that nobody was told of may be anywhere."""
        return revision is None or revision >= max(floor, self.gone(op, revision))

    def top_of(self, op: Op) -> float:
        """Below this nothing is left by whoever writes or removes the name after a kill."""
        return max((each.top for each in self.returns if each.killed < op.begin), default=0)

    def spent(self, removal: Op, op: Op) -> bool:
        """Whether what a removal had removed was back, and seen, before an operation."""
        return any(removal.settled <= each.killed and each.shown <= op.begin for each in self.returns)
