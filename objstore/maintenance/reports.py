"""What maintenance reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ..format.models import InvalidMeta


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one object.

    Attributes:
        kind: ``"missing chunks"``, ``"extra chunks"``, ``"damaged"`` (deep only), ``"unusable nuid"``,
            ``"impossible size"``, ``"unreadable meta"`` or ``"half-done rename"``.
        name: the object's name, ``""`` when its meta cannot be read.
        detail: what exactly.
        revision: of the meta message.
    """

    kind: str
    name: str
    detail: str
    revision: int


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What :meth:`ObjectStore.verify` found. ``ok`` = no problem at all.

    Attributes:
        bucket: the bucket's name.
        objects: how many objects were looked at, without links.
        links: how many links were looked at.
        size: bytes of all objects, as their metas say.
        deep: whether every object was read.
        problems: what is wrong.
    """

    bucket: str
    objects: int
    links: int
    size: int
    deep: bool
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Orphan:
    """Chunks that no standing meta names: a crashed writer's, or a paused upload's.

    Attributes:
        nuid: what names them.
        chunks: how many.
        stored: when the newest was stored.
        removed: whether they are gone now.
    """

    nuid: str
    chunks: int
    stored: datetime
    removed: bool


@dataclass(frozen=True, slots=True)
class GcReport:
    """What :meth:`ObjectStore.gc` found and did.

    Attributes:
        bucket: the bucket's name.
        dry_run: whether nothing was to be changed.
        orphans: chunks without a meta, old enough.
        recent: nuids without a meta that were left alone because they are too young.
        renames: ``(old name, new name)`` of half-done renames, completed unless ``dry_run``.
        unreadable: metas that cannot be read; chunks they may name are left alone.
    """

    bucket: str
    dry_run: bool
    orphans: list[Orphan] = field(default_factory=list)
    recent: list[str] = field(default_factory=list)
    renames: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[InvalidMeta] = field(default_factory=list)
