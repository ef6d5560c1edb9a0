"""Where ``get`` may write: turn an object's name, which anyone may have chosen, into a safe file name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from objstore.format.naming import is_directory

from .output import CommandError

MAX_NAME_BYTES = 255
"""Bytes of the longest file name that file systems accept."""

MAX_LEVELS = 100
"""Parts of the longest path below a directory. A name can have 1,500, and a directory is made for each."""

_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICE = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9\xb9\xb2\xb3])", re.IGNORECASE)

_REORDERS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the display order of others: ``exe`` may look like ``pdf``."""


_OURS = re.compile(r"\.objstore-[0-9a-f]{16}|\..+\.[0-9a-f]{12,16}\.part", re.IGNORECASE)
"""Files that a transfer has not finished."""


def is_unfinished(name: str) -> bool:
    """Whether a file of that name is taken for one that a transfer has not finished."""
    return _OURS.fullmatch(name) is not None


def output_name(name: str, *, windows: bool = os.name == "nt") -> str:
    """Return the file name under which ``get`` stores an object when no ``-O`` was given.

    It is the base name of the object's name. Names that could lead outside the current directory, or surprise
    in it, are refused: absolute names, ``..``, backslashes, drive letters, control characters, characters
    that reorder text, Windows device names, trailing dots and spaces, leading dashes and dots, and names that
    are empty or too long.

    Args:
        windows: also refuse a colon, which names a hidden stream of another file there.

    Raises:
        CommandError: the name is refused; exit code 2, with the advice to use ``-O``.
    """
    _check_whole(name)
    base = name.split("/")[-1]
    _check_part(name, base, windows=windows)
    _check_hidden(name, base)
    return base


def output_path(name: str, path: str, *, hidden: bool, windows: bool = os.name == "nt") -> str:
    """Return the path below a target directory under which a command stores one of several objects.

    Args:
        name: the object's name.
        path: the part of the name that is kept as path.
        hidden: allow hidden files and directories: the user has named the target directory.
        windows: as for :func:`output_name`.

    Raises:
        CommandError: it could lead outside the directory, or surprise in it, see :func:`output_name`; it has
            too many levels; or a part of it is called like an unfinished transfer's file.
    """
    _check_whole(path, name)
    parts = path.split("/")
    if len(parts) > MAX_LEVELS:
        raise _refused(name, f"has more than {MAX_LEVELS} levels")
    for part in parts:
        _check_part(name, part, windows=windows)
        if is_unfinished(part):  # it could be that of another object of the same command
            raise _refused(name, "is that of an unfinished transfer")
        if not hidden:
            _check_hidden(name, part)
    return path


def check_apart(name: str, path: str, ordered: Sequence[str]) -> None:
    """Refuse a path that is the directory of other ones: not all of them can be written.

    Args:
        name: the object's name.
        path: the part of the name that is kept as path.
        ordered: all such paths of the command, sorted.

    Raises:
        CommandError: exit code 2.
    """
    if is_directory(path, ordered):
        raise _refused(name, "is also a directory of other objects")


def check_inside(directory: str, path: str) -> str:
    """Refuse a file that a link among its directories leads out of the target directory.

    Returns:
        Where the file's directory is below the target directory, without links; ``.`` for that itself.

    Raises:
        CommandError: exit code 2.
    """
    root, parent = os.path.realpath(directory), os.path.realpath(os.path.dirname(path))
    if os.path.commonpath([root, parent]) != root:
        raise CommandError(
            f"{path!r} is behind a link that leads out of {directory!r}: nothing is written", 2
        )
    return os.path.relpath(parent, root)


def _refused(name: str, why: str) -> CommandError:
    return CommandError(f"object name {name!r} {why}: name the file with -O FILE", 2)


def _check_whole(path: str, name: str | None = None) -> None:
    name = path if name is None else name
    if not path:
        raise _refused(name, "is empty" if not name else "ends without a file name")
    if "\\" in path:
        raise _refused(name, "contains a backslash")
    if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in path):
        raise _refused(name, "contains control characters")
    if _REORDERS.search(path):
        raise _refused(name, "contains characters that change the order of the text")
    if path.startswith("/"):
        raise _refused(name, "is an absolute path")
    if ".." in path.split("/"):
        raise _refused(name, "contains '..'")
    if _DRIVE.match(path):
        raise _refused(name, "begins with a drive letter")


def _check_part(name: str, part: str, *, windows: bool) -> None:
    """Refuse one part of a path, between slashes."""
    if _DRIVE.match(part):
        raise _refused(name, "begins with a drive letter")
    if windows and ":" in part:
        raise _refused(name, "contains a colon: on Windows that is a hidden part of another file")
    if part in ("", "."):
        raise _refused(name, "ends without a file name")
    if part[-1] in ". ":
        raise _refused(name, "ends in a dot or a space")
    if part[0] == "-":
        raise _refused(name, "gives a file name that begins with a dash")
    if _DEVICE.fullmatch(part.partition(".")[0].rstrip(" ")):
        raise _refused(name, "is a reserved device name")
    try:
        encoded = part.encode()
    except UnicodeEncodeError:
        raise _refused(name, "is not valid text") from None
    if len(encoded) > MAX_NAME_BYTES:
        raise _refused(name, f"gives a file name of more than {MAX_NAME_BYTES} bytes")


def _check_hidden(name: str, part: str) -> None:
    if part[0] == ".":
        raise _refused(name, "gives a hidden file, which a shell or a tool may read as its own")
