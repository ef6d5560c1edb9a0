"""What is known of one name: its versions, who wrote them, and what may have changed it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .effects import Effects
from .floor import Floor
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
