"""What transfers have in common: standard input and output, pipes, and files that appear whole."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from .beneath import name_at
from .output import CommandError

if TYPE_CHECKING:
    from io import FileIO

    from objstore.format.memory import Payload
    from objstore.format.models import ObjectInfo
    from objstore.read.files import Replacing
    from objstore.read.links import FollowLinks, OtherBuckets
    from objstore.store import ObjectStore

STDIN_BLOCK = 256 * 1024
"""Bytes of one read from standard input."""


class UnverifiedError(CommandError):
    """The reader of a stream has stopped before the end, where everything is verified."""


def standard_input() -> BinaryIO | AsyncIterator[bytes]:
    """Return a file if it is one (it can be read again after a failure), else its pieces as they come."""
    try:
        descriptor = sys.stdin.fileno()
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (AttributeError, OSError, ValueError):
        return sys.stdin.buffer
    return sys.stdin.buffer if regular else _pieces(descriptor)


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    """Read in a daemon thread: an interrupt must not need another line of input to take effect."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(4)

    def read() -> None:
        piece: bytes | OSError = b"-"
        while piece and isinstance(piece, bytes):
            room.acquire()
            try:
                piece = os.read(descriptor, STDIN_BLOCK)
            except OSError as exc:
                piece = exc
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except RuntimeError:
                return  # the loop is closed: the command has ended

    threading.Thread(target=read, name="objstore-stdin", daemon=True).start()
    while piece := await pieces.get():
        if isinstance(piece, OSError):
            raise piece
        room.release()
        yield piece


def _is_device(path: str) -> bool:
    """Whether the path is in the system's own folders, whose links are also the system's."""
    path = os.path.abspath(path)
    return path.startswith(("/dev/", "/proc/")) and not path.startswith(("/dev/shm/", "/dev/mqueue/"))


def is_stream(path: str) -> bool:
    """Whether the path exists and a file cannot replace it: a device, a pipe, a descriptor."""
    device = _is_device(path)
    try:
        mode = (os.stat if device else os.lstat)(path).st_mode
    except OSError:
        return False
    if stat.S_ISLNK(mode):
        return False
    return not stat.S_ISDIR(mode) and (device or not stat.S_ISREG(mode))


def check_target(path: str, *, force: bool) -> None:
    if os.path.isdir(path):
        raise CommandError(f"{path!r} is a directory: name a file, or end it with / to write into it", 2)
    if not force and os.path.lexists(path):
        raise _exists(path)


def _exists(path: str) -> CommandError:
    return CommandError(f"{path!r} exists: pass --force to replace it, or choose another name", 4)


async def to_file(
    store: ObjectStore,
    name: str,
    path: str,
    show: Callable[[int, int | None], None] | None,
    *,
    follow: FollowLinks,
    force: bool = False,
    resume: bool = False,
    replacing: Replacing | None = None,
    dir_fd: int | None = None,
    others: OtherBuckets | None = None,
) -> ObjectInfo:
    """Read an object into a file that appears whole and verified, or not at all.

    Args:
        follow: the links that may be read through.
        force: replace an existing file.
        resume: keep what was read if it fails, and continue with it the next time.
        replacing: replace an existing file unless this raises, see :func:`objstore.read.files.get_file`.
        dir_fd: the directory in which the file is written, see :func:`objstore.cli.beneath.parent_of`.
        others: the buckets that the links of the command lead to.

    Raises:
        CommandError: the file exists (exit code 4), or it cannot be written; the error names it, not the
            hidden file that is filled first.
    """
    from natsproto.errors import NatsError

    at = name_at(path, dir_fd)
    try:
        if force or replacing is not None:
            return await _read(
                store,
                name,
                at,
                show,
                resume=resume,
                follow=follow,
                replacing=replacing,
                dir_fd=dir_fd,
                others=others,
            )
        return await _to_new_file(
            store, name, path, show, resume=resume, follow=follow, dir_fd=dir_fd, others=others
        )
    except NatsError:
        raise
    except FileExistsError as exc:
        raise CommandError(f"{path!r} is kept: {exc.strerror}", 4) from exc
    except OSError as exc:
        what = (exc.strerror or str(exc)).lower()
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free some space, or choose" if full else "Choose"
        raise CommandError(f"{path!r} cannot be written: {what}. {remedy} another place", 1) from exc


async def _read(
    store: ObjectStore,
    name: str,
    path: str,
    show: Callable[[int, int | None], None] | None,
    *,
    resume: bool,
    follow: FollowLinks,
    dir_fd: int | None,
    others: OtherBuckets | None,
    replacing: Replacing | None = None,
) -> ObjectInfo:
    """Read as ``store.get_file`` does, which knows no ``dir_fd``."""
    from objstore.read import files

    bucket = store.bound_bucket
    with store.client.connection.operation():
        return await files.get_file(
            bucket,
            bucket.check_name(name),
            path,
            verify=True,
            progress=show,
            resume=resume,
            follow=follow,
            replacing=replacing,
            dir_fd=dir_fd,
            others=others,
        )


async def _to_new_file(
    store: ObjectStore,
    name: str,
    path: str,
    show: Callable[[int, int | None], None] | None,
    *,
    follow: FollowLinks,
    resume: bool = False,
    dir_fd: int | None = None,
    others: OtherBuckets | None = None,
) -> ObjectInfo:
    """Read as ``store.get_file`` does, but replace nothing, even if the file was created meanwhile."""
    from objstore.read.get import in_thread

    mark = _mark(store.bucket, name, path) if resume else secrets.token_hex(8)
    part = name_at(os.path.join(os.path.dirname(path), f".objstore-{mark}"), dir_fd)
    try:
        info = await _read(
            store, name, part, show, resume=resume, follow=follow, dir_fd=dir_fd, others=others
        )
        await in_thread(_name_new, part, path, dir_fd)
    finally:
        # Also after a cancellation: get_file() may finish its last step, and then the file exists.
        with suppress(OSError):
            os.unlink(part, dir_fd=dir_fd)
    return info


def _mark(*what: str) -> str:
    """Return what the file that is filled is called in every attempt to read the same object into a file."""
    return hashlib.sha256("\0".join(what).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _name_new(part: str, path: str, dir_fd: int | None = None) -> None:
    """Give ``part`` the name ``path`` if it is free; the old name may stay."""
    name = name_at(path, dir_fd)
    try:
        os.link(part, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links: check first, then rename
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            raise _exists(path) from None
        os.replace(part, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


async def to_stream(
    store: ObjectStore,
    name: str,
    target: str,
    show: Callable[[int, int | None], None] | None,
    *,
    follow: FollowLinks,
) -> ObjectInfo:
    """Write block by block; a mismatch found at the end cannot undo what was written.

    A daemon thread writes: an interrupt must not need a reader to take effect. The thread's block stays
    valid, and the thread ends when the file is closed, or with the process.

    Raises:
        UnverifiedError: the reader has stopped; exit code 1, since what it has was not verified.
    """
    from objstore.bucket.threads import in_daemon
    from objstore.read import get, links

    bucket = store.bound_bucket
    bucket.check_name(name)
    bucket, info = await links.resolve(bucket, name, follow)
    file = standard_output() if target == "-" else _open_stream(target)
    done = 0
    try:
        async with aclosing(get.blocks(bucket, info)) as source:
            async for block in source:
                try:
                    await in_daemon(partial(write_all, file, list(block)))
                except BrokenPipeError:
                    raise UnverifiedError(
                        "get: the reader stopped before everything was verified", 1
                    ) from None
                done += sum(map(len, block))
                if show is not None:
                    show(done, info.size)
    finally:
        file.close()
    return info


def standard_output() -> FileIO:
    """Return standard output without Python's buffer, which would delay the end of the program."""
    if sys.stdout is None:
        raise CommandError("get: standard output is closed", 1)
    return open(sys.stdout.fileno(), "wb", 0, closefd=False)


def _open_stream(path: str) -> FileIO:
    """Open an existing device or pipe without waiting: a pipe without a reader is an error.

    Someone may have created a link or a file there since the check: neither is followed or overwritten.
    """
    device = _is_device(path)
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    flags |= os.O_TRUNC if device else os.O_NOFOLLOW  # /dev/stdout may be a file
    try:
        descriptor = os.open(path, flags)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            raise CommandError(f"get: the pipe {path!r} has no reader", 1) from None
        raise
    if not device and stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _exists(path)
    os.set_blocking(descriptor, True)
    return open(descriptor, "wb", 0)


def write_all(file: FileIO, block: list[Payload]) -> None:
    for buffer in block:
        view = memoryview(buffer)
        while view:
            view = view[file.write(view) :]
