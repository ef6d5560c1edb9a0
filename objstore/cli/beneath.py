"""Directories below one that the user has named, opened so that no link leads elsewhere.

Other users may be able to rename what is in there, at any moment: a path that was checked may lead elsewhere
when it is used. So each directory is opened from the one above it, which refuses a link, and whatever is done
to a file is done through the descriptor of its directory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .output import CommandError
from .paths import check_inside

HAVE_DIR_FD = os.supports_dir_fd.issuperset((os.open, os.stat, os.mkdir, os.unlink, os.rmdir, os.rename))
"""Whether the system can act through the descriptor of a directory: all but Windows can."""


@contextmanager
def parent_of(
    start: str, path: str, *, create: bool = False, inner_links: bool = False
) -> Iterator[int | None]:
    """Open the directory of a file below a directory that the user has named.

    Only ``start`` itself may be or contain a link.

    Args:
        create: create the directories that are missing.
        inner_links: links that lead to directories below ``start`` are resolved first, instead of refused.

    Yields:
        The descriptor, for the functions that take ``dir_fd``; ``None`` where the system has no such ones, so
        that the path could only be checked.

    Raises:
        CommandError: a link is in the way (exit code 2), or a file where a directory has to be created (4).
        OSError: a directory is missing, or cannot be opened or created.
    """
    if not HAVE_DIR_FD:
        check_inside(start, path)
        if create:
            with _told(path):
                os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        yield None
        return
    inside = (
        check_inside(start, path) if inner_links else os.path.relpath(os.path.dirname(path) or ".", start)
    )
    with _told(path):
        descriptor = _start(start, create=create)
    try:
        for part in inside.split(os.sep):
            if part != os.curdir:
                below = _enter(part, descriptor, path, create=create)
                os.close(descriptor)
                descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def name_at(path: str, dir_fd: int | None) -> str:
    """Return what the functions that take ``dir_fd`` are to be given for a file."""
    return path if dir_fd is None else os.path.basename(path)


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise _file_there(path) from None


def _file_there(path: str) -> CommandError:
    return CommandError(f"{path!r} needs a directory where a file is: move the file away", 4)


def _start(path: str, *, create: bool) -> int:
    try:
        return _open(path)
    except FileNotFoundError:
        if not create:
            raise
        os.makedirs(path, exist_ok=True)
        return _open(path)


def _enter(part: str, above: int, path: str, *, create: bool) -> int:
    if part == os.pardir:
        raise ValueError(f"{path!r} is not below the directory")
    try:
        try:
            return _open(part, above)
        except FileNotFoundError:
            if not create:
                raise
            with suppress(FileExistsError):  # another transfer has just created it
                os.mkdir(part, dir_fd=above)
            return _open(part, above)
    except OSError as exc:
        exc.filename = path
        if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        if _is_file(part, above):
            if create:
                raise _file_there(path) from None
            raise
        raise CommandError(
            f"{path!r} is behind a link: nothing is written there, and nothing deleted", 2
        ) from None


def _open(path: str, above: int | None = None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if above is None else os.O_NOFOLLOW)
    try:
        return os.open(path, flags, dir_fd=above)
    except PermissionError:  # who may not list it may still be allowed to write into it
        return os.open(path, flags | getattr(os, "O_PATH", 0), dir_fd=above)


def _is_file(part: str, above: int) -> bool:
    """Whether it is neither a directory nor a link; what has changed meanwhile counts as a link."""
    try:
        mode = os.stat(part, dir_fd=above, follow_symlinks=False).st_mode
    except OSError:
        return False
    return not stat.S_ISLNK(mode) and not stat.S_ISDIR(mode)
