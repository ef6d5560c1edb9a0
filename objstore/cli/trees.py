"""Directories of this machine: what is in them, and writing below them only."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .output import CommandError, Output

_OURS = re.compile(r"\.objstore-[0-9a-f]{16}|\..+\.[0-9a-f]{12,16}\.part")
"""Files that a transfer has not finished."""


class State(NamedTuple):
    """What tells a file that was changed or replaced from one that was not."""

    device: int
    inode: int
    size: int
    changed_ns: int
    status_changed_ns: int
    names: int

    @classmethod
    def of(cls, found: os.stat_result) -> State:
        """Return the state of a file."""
        return cls(
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_nlink,
        )

    def same(self, other: State) -> bool:
        """Whether this is also a later state; a file of several names may have lost or got one."""
        # Its ctime has changed with that, perhaps by our own hand: both names may be in the directory.
        return self[:4] == other[:4] and (self.names > 1 or self.status_changed_ns == other.status_changed_ns)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of a directory.

    Attributes:
        file: its path.
        path: its path below the directory, with ``/``.
        size: its bytes.
    """

    file: str
    path: str
    size: int


class Tree:
    """The files below a directory, sorted; links to files count as files, links to directories are left out.

    Attributes:
        files: what was found.
        complete: whether everything could be looked at.
    """

    def __init__(self, directory: str, out: Output) -> None:
        self.directory = directory
        self.files: list[LocalFile] = []
        self.complete: bool = True
        self._out = out
        with os.scandir(directory) as entries:  # a directory that cannot be read at all is an error
            found = list(entries)
        self._add(found, "")

    def _add(self, entries: list[os.DirEntry[str]], above: str) -> None:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = above + entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    with os.scandir(entry.path) as inner:
                        found = list(inner)
                    self._add(found, path + "/")
                    continue
                mode = entry.stat()
            except OSError as exc:
                self._leave_out(entry.path, (exc.strerror or str(exc)).lower())
                continue
            if stat.S_ISREG(mode.st_mode):
                if not _OURS.fullmatch(entry.name):
                    self.files.append(LocalFile(entry.path, path, mode.st_size))
            else:
                kind = "a link to a directory" if stat.S_ISDIR(mode.st_mode) else "neither file nor directory"
                self._out.warn(f"{entry.path!r} is left out: it is {kind}")

    def _leave_out(self, path: str, why: str) -> None:
        self.complete = False
        self._out.warn(f"{path!r} is left out: {why}")

    def __iter__(self) -> Iterator[LocalFile]:
        return iter(self.files)


def make_parents(directory: str, path: str) -> None:
    """Create the directories of a file below a target directory.

    Raises:
        CommandError: a link would lead out of the target directory; exit code 2.
        OSError: they cannot be created.
    """
    from .paths import check_inside

    parent = os.path.dirname(path)
    check_inside(directory, path)
    try:
        os.makedirs(parent or ".", exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise CommandError(f"{path!r} needs a directory where a file is: move the file away", 4) from None


def remove_file(directory: str, path: str) -> None:
    """Delete a file below a target directory, and the directories that become empty; never behind a link."""
    from .paths import check_inside

    check_inside(directory, path)
    os.unlink(path)
    parent = os.path.dirname(path)
    while len(parent) > len(directory.rstrip("/")):
        try:
            os.rmdir(parent)
        except OSError:
            return
        parent = os.path.dirname(parent)
