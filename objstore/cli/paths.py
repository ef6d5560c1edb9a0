"""Where ``get`` may write: turn an object's name, which anyone may have chosen, into a safe file name."""

from __future__ import annotations

import os
import re

from .output import CommandError

MAX_NAME_BYTES = 255
"""Bytes of the longest file name that file systems accept."""

_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICE = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9\xb9\xb2\xb3])", re.IGNORECASE)

_REORDERS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the display order of others: ``exe`` may look like ``pdf``."""


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

    def refused(why: str) -> CommandError:
        return CommandError(f"object name {name!r} {why}: name the file with -O FILE", 2)

    if not name:
        raise refused("is empty")
    if "\\" in name:
        raise refused("contains a backslash")
    if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in name):
        raise refused("contains control characters")
    if _REORDERS.search(name):
        raise refused("contains characters that change the order of the text")
    if name.startswith("/"):
        raise refused("is an absolute path")
    parts = name.split("/")
    if ".." in parts:
        raise refused("contains '..'")
    base = parts[-1]
    if _DRIVE.match(name) or _DRIVE.match(base):
        raise refused("begins with a drive letter")
    if windows and ":" in base:
        raise refused("contains a colon: on Windows that is a hidden part of another file")
    if base in ("", "."):
        raise refused("ends without a file name")
    if base[-1] in ". ":
        raise refused("ends in a dot or a space")
    if base[0] == "-":
        raise refused("gives a file name that begins with a dash")
    if base[0] == ".":
        raise refused("gives a hidden file, which a shell or a tool may read as its own")
    if _DEVICE.fullmatch(base.partition(".")[0].rstrip(" ")):
        raise refused("is a reserved device name")
    try:
        encoded = base.encode()
    except UnicodeEncodeError:
        raise refused("is not valid text") from None
    if len(encoded) > MAX_NAME_BYTES:
        raise refused(f"gives a file name of more than {MAX_NAME_BYTES} bytes")
    return base
