"""Paths and names. A path is ``bucket/name``; a name may be any text, so it may have odd slashes.

A slash that follows another one, or begins a name, belongs to the part after it: ``a//b`` lies in ``a`` and
is called ``/b`` there. So every name that does not end in a slash has exactly one path, ``bucket/name``. A
name that ends in one cannot have a path of its own, since ``dir/`` means ``dir``: it marks the directory
before its slash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from glob import has_magic

from ..format.naming import is_directory

PROTOCOL = "natsobj"

LEVELS = 100
"""Parts of the longest path of a tree that is written to disk: others choose names, and may choose 1,500."""

_PART = re.compile(r"/*[^/]+")


def strip(path: str) -> str:
    """Return a path without protocol, and without slashes at its beginning and end."""
    return path.removeprefix(f"{PROTOCOL}://").removeprefix(f"{PROTOCOL}::").lstrip("/").rstrip("/")


def split(path: str) -> tuple[str, str]:
    """Return bucket and name; without a name the path is a bucket, without a bucket the root."""
    bucket, _, name = path.partition("/")
    return bucket, name


class Listed(str):
    """A path that a list has returned: no pattern, whatever characters it has.

    Others choose names, and what is called so may be gone when the list is used.
    """

    __slots__ = ()


def join(bucket: str, name: str) -> str:
    """Return the path of a name; of the bucket if the name is empty."""
    path = f"{bucket}/{name}" if name else bucket
    return Listed(path) if has_magic(path) else path


def may_be_pattern(path: object) -> bool:
    """Whether a path that was given may be a pattern."""
    return isinstance(path, str) and not isinstance(path, Listed) and has_magic(path)


def ends(name: str, start: int = 0) -> Iterator[int]:
    """Yield where each part of a name ends, from ``start``; a slash at its very end belongs to none."""
    return (part.end() for part in _PART.finditer(name, start, len(name.rstrip("/"))))


def parents(name: str) -> list[str]:
    """Return the directories that a name lies in, outermost first; a marker of a directory lies in it."""
    return [name[:end] for end in ends(name) if end < len(name)]


def is_within(name: str, directory: str) -> bool:
    """Whether a name lies in a directory, or below; ``""`` is the whole bucket."""
    return not directory or name.startswith(directory + "/")


def check_local(sources: Sequence[str], targets: Sequence[str], base: str) -> None:
    """Refuse to write a tree whose names, which anybody may have chosen, lead elsewhere or to one file twice.

    Raises:
        ValueError: a target lies outside ``base``, perhaps behind a link, its name has a part ``.`` or ``..``
            or too many parts, or two are the same.
    """
    top = os.path.normpath(os.path.abspath(base))
    root = os.path.realpath(top)
    inside: dict[str, bool] = {}  # by directory
    taken: dict[str, str] = {}
    for source, target in zip(sources, targets, strict=True):
        path = os.path.normpath(os.path.abspath(target))
        if path != top and not path.startswith(top.rstrip(os.sep) + os.sep):
            raise ValueError(f"{source!r} would be written to {path!r}, outside {top!r}: get it by itself")
        directory = os.path.dirname(path)
        if directory not in inside:
            real = os.path.realpath(directory)
            inside[directory] = path == top or os.path.commonpath([root, real]) == root
        if not inside[directory]:
            raise ValueError(f"{source!r} would be written behind a link that leads out of {top!r}")
        parts = re.split(r"[/\\]" if os.sep == "\\" else "/", target[len(base) :].lstrip("/"))
        if not {".", ".."}.isdisjoint(parts):
            raise ValueError(f"{source!r} has a part '.' or '..': get it by itself")
        if len(parts) > LEVELS:
            raise ValueError(f"{source!r} has more than {LEVELS} levels: get it by itself")
        if path in taken:
            raise ValueError(f"{source!r} and {taken[path]!r} would both be {path!r}: get them one by one")
        taken[path] = source


def check_apart(files: Iterable[str], targets: Iterable[str]) -> None:
    """Refuse to write a file that is the directory of another target.

    Raises:
        ValueError: there is one.
    """
    ordered = sorted(targets)
    for file in files:
        if is_directory(file, ordered):
            raise ValueError(f"{file!r} would be both a file and a directory: get the file by itself")


def limits(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    """Return the range that ``data[start:end]`` would be of ``size`` bytes."""
    low, high, _ = slice(start, end).indices(size)
    return low, max(low, high)


def merged(ranges: Iterable[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Return ranges, sorted, that cover the given ones; those up to ``gap`` bytes apart become one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1] + gap:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
