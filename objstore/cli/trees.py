"""Directories of this machine: what is in them, and deleting what has not changed since."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from .beneath import name_at, parent_of
from .output import CommandError, Output
from .paths import is_unfinished


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
        state: what it was when it was listed; for a link, that of the file that it leads to.
    """

    file: str
    path: str
    state: State

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.state.size


class Tree:
    """The files below a directory, sorted; links to files count as files, links to directories are left out.

    Attributes:
        files: what was found.
        complete: whether everything could be looked at.
        left_out: paths below the directory of what is there, but neither among the files nor looked into.
        links: paths below the directory of all links.
    """

    def __init__(self, directory: str, out: Output) -> None:
        self.directory = directory
        self.files: list[LocalFile] = []
        self.complete: bool = True
        self.left_out: set[str] = set()
        self.links: set[str] = set()
        self._out = out
        with os.scandir(directory) as entries:  # a directory that cannot be read at all is an error
            found = list(entries)
        self._add(found)

    def _add(self, entries: list[os.DirEntry[str]]) -> None:
        levels = [(_sorted(entries), "")]  # a name may have more directories than Python calls functions
        while levels:
            left, above = levels[-1]
            entry = next(left, None)
            if entry is None:
                levels.pop()
                continue
            path = above + entry.name
            if entry.is_symlink():
                self.links.add(path)
            try:
                if entry.is_dir(follow_symlinks=False):
                    with os.scandir(entry.path) as inner:
                        levels.append((_sorted(inner), path + "/"))
                    continue
                status = os.stat(entry.path)
            except OSError as exc:
                self.complete = False
                self._leave_out(entry, path, (exc.strerror or str(exc)).lower())
                continue
            if stat.S_ISDIR(status.st_mode):
                self._leave_out(entry, path, "it is a link to a directory")
            elif not stat.S_ISREG(status.st_mode):
                self._leave_out(entry, path, "it is neither file nor directory")
            elif is_unfinished(entry.name):
                self._leave_out(entry, path, "its name is that of an unfinished transfer")
            else:
                self.files.append(LocalFile(entry.path, path, State.of(status)))

    def _leave_out(self, entry: os.DirEntry[str], path: str, why: str) -> None:
        self.left_out.add(path)
        self._out.warn(f"{entry.path!r} is left out: {why}")

    def __iter__(self) -> Iterator[LocalFile]:
        return iter(self.files)


def _sorted(entries: Iterable[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    return iter(sorted(entries, key=lambda entry: entry.name))


def at_or_above(path: str, among: Container[str]) -> str | None:
    """Return which of some paths is this one, or a directory above it."""
    while path and path not in among:
        path = path.rpartition("/")[0]
    return path or None


def check_unchanged(path: str, listed: State | None, dir_fd: int | None = None) -> None:
    """Refuse a file that is not as it was listed: it must be neither deleted nor replaced.

    Args:
        listed: ``None`` if there was none.
        dir_fd: the directory in which it is looked up, see :func:`objstore.cli.beneath.parent_of`.

    Raises:
        CommandError: exit code 4.
    """
    try:
        there = State.of(os.stat(name_at(path, dir_fd), dir_fd=dir_fd, follow_symlinks=False))
    except FileNotFoundError:
        return
    if listed is None or not listed.same(there):
        raise CommandError(f"{path!r} is not as it was listed: it is kept. Run the command again", 4)


@contextmanager
def keeping_others(
    path: str, listed: State | None, dir_fd: int | None, itself: os.stat_result
) -> Iterator[None]:
    """Let a new file replace one that :func:`check_unchanged` does not refuse."""
    check_unchanged(path, listed, dir_fd)
    yield


def remove_file(directory: str, path: str, listed: State) -> None:
    """Delete a file below a target directory, and the directories that become empty; never behind a link.

    Raises:
        CommandError: it is behind a link (exit code 2), or not as it was listed (4).
    """
    with parent_of(directory, path) as dir_fd:
        check_unchanged(path, listed, dir_fd)
        os.unlink(name_at(path, dir_fd), dir_fd=dir_fd)
    path = os.path.dirname(path)
    while len(path) > len(directory.rstrip("/")):
        try:
            with parent_of(directory, path) as dir_fd:
                os.rmdir(name_at(path, dir_fd), dir_fd=dir_fd)
        except (CommandError, OSError):
            return
        path = os.path.dirname(path)
