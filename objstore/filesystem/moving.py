"""What a bulk operation moves where: the rules of ``cp``, ``get`` and ``mv``, which are those of fsspec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import has_magic
from typing import NamedTuple

from fsspec.utils import other_paths

from .tree import Entry


class Move(NamedTuple):
    """One source, and where it goes."""

    source: str
    target: str
    directory: bool


def plan(
    asked: str | Sequence[str],
    found: Mapping[str, Entry],
    target: str,
    *,
    into: bool,
    only_files: bool,
) -> list[Move]:
    """Return what goes where.

    Args:
        asked: a path or pattern as the user wrote it, or several.
        found: what it names.
        target: where to.
        into: the target is a directory, or was written as one.
        only_files: leave directories out.
    """
    entries = {
        path: entry for path, entry in found.items() if not (only_files and entry["type"] == "directory")
    }
    if not entries:
        return []
    one = isinstance(asked, str)
    pattern = isinstance(asked, str) and has_magic(asked)
    inside = one and (
        (pattern and len(entries) == 1)
        or (not pattern and into and isinstance(asked, str) and not asked.endswith("/"))
    )
    sources = list(entries)
    targets = other_paths(sources, target, exists=inside, flatten=not one)
    return [
        Move(source, each, entries[source]["type"] == "directory")
        for source, each in zip(sources, targets, strict=True)
    ]
