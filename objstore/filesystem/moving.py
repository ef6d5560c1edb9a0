"""What a bulk operation moves where: the rules of ``cp``, ``get`` and ``mv``, which are those of fsspec."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from glob import has_magic
from typing import NamedTuple, cast

from fsspec.implementations.local import LocalFileSystem, make_path_posix
from fsspec.utils import other_paths

from .tree import Entry


class Move(NamedTuple):
    """One source, and where it goes."""

    source: str
    target: str
    directory: bool
    unreadable: bool = False
    """It was listed as a link that leads to no object."""


def plan(
    asked: str | Sequence[str],
    found: Mapping[str, Entry],
    target: str,
    *,
    into: bool,
    only_files: bool,
    pattern: bool = False,
) -> list[Move]:
    """Return what goes where.

    Args:
        asked: a path or pattern as the user wrote it, or several.
        found: what it names.
        target: where to.
        into: the target is a directory, or was written as one.
        only_files: leave directories out.
        pattern: a pattern was asked for.
    """
    entries = {
        path: entry for path, entry in found.items() if not (only_files and entry["type"] == "directory")
    }
    if not entries:
        return []
    one = isinstance(asked, str)
    inside = one and (
        (pattern and len(entries) == 1)
        or (not pattern and into and isinstance(asked, str) and not asked.endswith("/"))
    )
    sources = list(entries)
    targets = other_paths(sources, target, exists=inside, flatten=not one)
    return [
        Move(source, each, entries[source]["type"] == "directory", entries[source]["type"] == "other")
        for source, each in zip(sources, targets, strict=True)
    ]


def local_plan(
    asked: str | os.PathLike[str] | Sequence[str],
    target: str,
    *,
    recursive: bool,
    maxdepth: int | None,
    into: bool,
    patterns: bool = True,
) -> list[Move]:
    """Return which local files and directories go where, as :func:`plan` does.

    What is there under a path is meant by it; any other one may be a pattern, with ``patterns``.

    Raises:
        FileNotFoundError: there are none.
    """
    local = LocalFileSystem()
    if isinstance(asked, str):
        asked = make_path_posix(asked)
    found, others = set[str](), list[str]()
    for each in [asked] if isinstance(asked, str | os.PathLike) else asked:
        path = make_path_posix(each)
        if not has_magic(path) or (patterns and not os.path.lexists(path)):
            others.append(path)
        elif not os.path.lexists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        else:
            found.add(path.rstrip("/"))
            if recursive and os.path.isdir(path):
                found.update(local.find(path, maxdepth=maxdepth, withdirs=True))
    if others:
        found.update(local.expand_path(others, recursive=recursive, maxdepth=maxdepth))
    pattern = isinstance(asked, str) and has_magic(asked) and asked.rstrip("/") not in found
    entries: dict[str, Entry] = {
        each: {"type": "directory" if each.endswith("/") or local.isdir(each) else "file"}
        for each in sorted(found)
    }
    only_files = isinstance(asked, str) and (not recursive or maxdepth is not None)
    return plan(
        cast("str | Sequence[str]", asked),
        entries,
        target,
        into=into,
        only_files=only_files,
        pattern=pattern,
    )


def source_of(move: Move) -> str:
    """Return what is moved."""
    return move.source


def paths_of(moves: Iterable[Move]) -> list[str]:
    """Return all sources and targets."""
    return [path for move in moves for path in (move.source, move.target)]


def directory_of(moves: Sequence[Move]) -> str:
    """Return the deepest local directory that all targets lie in."""
    directories = (move.target if move.directory else os.path.dirname(move.target) for move in moves)
    return os.path.commonpath(list(map(os.path.abspath, directories)))


def check_targets(pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse a plan, given as sources and their targets, in which one source would replace another one.

    Raises:
        ValueError: two have the same target.
    """
    taken: dict[str, str] = {}
    for source, target in pairs:
        other = taken.setdefault(target, source)
        if other != source:
            raise ValueError(f"{other!r} and {source!r} would both be {target!r}: take them one by one")


def check_files(moves: Sequence[Move]) -> None:
    """Refuse to copy or move files to each other's paths: they go at the same time, in no certain order.

    Raises:
        ValueError: two have the same target, or one has that of another one's source.
    """
    check_targets((move.source, move.target) for move in moves)
    sources = {move.source for move in moves}
    for move in moves:
        if move.target != move.source and move.target in sources:
            raise ValueError(
                f"{move.source!r} would replace {move.target!r}, which goes elsewhere: take them one by one"
            )
