"""Patterns of fsspec in regular expressions that take no longer than a few passes over a name.

Those of fsspec itself try all divisions of a name among the stars: a name and a pattern of a hundred
characters, which others may have chosen, keep the process busy for ever.
"""

from __future__ import annotations

import re

from fsspec.utils import glob_translate

_TOKEN = re.compile(r"(\*+)|(\[!?\]?[^\]]*\])|(\?)|(.)", re.DOTALL)


def compiled(pattern: str) -> re.Pattern[str]:
    """Return what matches the same paths as :func:`fsspec.utils.glob_translate`, from their beginning.

    What lies between two stars has a certain length, and what lies between two ``**`` a certain number of
    levels. So where such a part matches first, no later place need be tried: the groups are atomic.

    Raises:
        ValueError: ``**`` is a part of a level.
    """
    blocks: list[list[str]] = [[]]  # what is between two ``**``
    for level in pattern.split("/"):
        if level == "**":
            blocks.append([])
        elif "**" in level:
            raise ValueError("Invalid pattern: '**' can only be an entire path component")
        else:
            blocks[-1].append(_of_level(level))
    if len(blocks) == 1:
        return re.compile(rf"(?s:{'/'.join(blocks[0])})\Z")
    first, *between, last = blocks
    parts = ["/".join([*first, ""])]
    parts += [f"(?>(?:.+?/)??{'/'.join(levels)}/)" for levels in between if levels]
    parts.append(f"(?:.+/)?{'/'.join(last)}" if last else ".*")
    return re.compile(rf"(?s:{''.join(parts)})\Z")


def _of_level(level: str) -> str:
    """Return the regular expression for one level, without ``**``."""
    if level == "*":
        return "[^/]+"
    pieces = [""]
    for star, among, one, char in _TOKEN.findall(level):
        if star:
            pieces.append("")
        elif among:
            inside = glob_translate(among).removeprefix("(?s:").rpartition(")")[0]
            pieces[-1] += f"(?!/){inside}"
        else:
            pieces[-1] += "[^/]" if one else re.escape(char)
    if len(pieces) == 1:
        return pieces[0]
    return f"{pieces[0]}{''.join(f'(?>[^/]*?{piece})' for piece in pieces[1:-1])}[^/]*{pieces[-1]}"
