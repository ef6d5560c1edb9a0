"""The reports of maintenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ..format.models import InvalidMeta
from ..format.records import Record


@dataclass(frozen=True, slots=True)
class Problem(Record):
    """A problem of one object.

    Attributes:
        kind: ``"missing chunks"``, ``"extra chunks"``, ``"damaged"`` (deep only), ``"unusable nuid"``,
            ``"impossible size"``, ``"unreadable meta"`` or ``"half-done rename"``.
        name: the object's name, ``""`` when its meta cannot be read.
        detail: the problem in detail.
        revision: the revision of the meta message.
    """

    kind: str
    name: str
    detail: str
    revision: int


@dataclass(frozen=True, slots=True)
class VerifyReport(Record):
    """The result of :meth:`ObjectStore.verify`.

    Attributes:
        bucket: the bucket's name.
        objects: how many objects were checked, without links.
        links: how many links were found.
        size: bytes of all objects, according to their metas.
        deep: whether the content of every object was read.
        problems: the problems found.
    """

    bucket: str
    objects: int
    links: int
    size: int
    deep: bool
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Orphan(Record):
    """Chunks that no current meta refers to: of a crashed writer, or of a paused upload.

    Attributes:
        nuid: the nuid of the chunks.
        chunks: how many there are.
        stored: when the newest was stored.
        removed: whether they were removed.
    """

    nuid: str
    chunks: int
    stored: datetime
    removed: bool


@dataclass(frozen=True, slots=True)
class GcReport(Record):
    """What :meth:`ObjectStore.gc` found and did.

    Attributes:
        bucket: the bucket's name.
        dry_run: whether the call only reported, without changes.
        orphans: chunks without a meta that are old enough.
        recent: nuids without a meta that stay because their chunks are too young.
        renames: ``(old name, new name)`` of half-done renames, completed unless ``dry_run``.
        unreadable: metas that cannot be read; chunks they may refer to stay.
        copies: ``(name, messages)`` of objects with late copies of their chunks behind them, removed unless
            ``dry_run``.
    """

    bucket: str
    dry_run: bool
    orphans: list[Orphan] = field(default_factory=list)
    recent: list[str] = field(default_factory=list)
    renames: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[InvalidMeta] = field(default_factory=list)
    copies: list[tuple[str, int]] = field(default_factory=list)
