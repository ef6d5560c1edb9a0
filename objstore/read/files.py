"""Read objects into files: complete and verified, or not at all; resumable if requested."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, BinaryIO

from ..errors import IntegrityError, ObjectChangedError
from ..format.assembly import Assembly
from ..format.marks import shown
from ..format.naming import is_safe_nuid
from .feed import DEFAULT_WINDOW, ChunkFeed
from .get import again, changed, copy_blocks, drain, in_thread, nothing
from .links import FollowLinks, OtherBuckets, resolve
from .parts import Missing
from .ranges import Layout, prove
from .sinks import BlockSink

if TYPE_CHECKING:
    from ..bucket.bucket import Bucket
    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo


NAME_MAX = 255
"""Bytes of the longest file name where the system does not report it."""

PRIVATE = 0o600
"""Permissions of a file that is being filled: no other user sees bytes before they are verified."""

Replacing = Callable[[os.stat_result], AbstractContextManager[None]]
"""What to do around the moment in which a file gets its name, given its status."""

SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

HASHED = 256 * 1024
"""Bytes of a partial file that are hashed at a time, whatever chunk size its meta records."""

DISK: frozenset[int] = frozenset(
    number for name in ("ENOSPC", "EDQUOT", "EROFS") if (number := getattr(errno, name, None)) is not None
)
"""Errors of the local disk that the next file meets, too."""

DIGITS = 16
"""Hexadecimal digits of the digest that replaces the end of a long name, or identifies a put's content."""


class Written:
    """The files that one call or command has written: none of its other objects may replace one of them.

    Two names may be one file: through a link to a directory, or where the file system ignores case.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: set[tuple[int, int]] = set()

    @contextmanager
    def replacing(self, path: str, dir_fd: int | None, itself: os.stat_result) -> Iterator[None]:
        """Let a file get the name ``path``: see :func:`get_file`.

        Raises:
            FileExistsError: that is one of these files.
        """
        with self._lock:
            with suppress(FileNotFoundError):
                there = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
                if (there.st_dev, there.st_ino) in self._files:
                    raise FileExistsError(errno.EEXIST, "it was just written for another object", path)
            yield
            self._files.add((itself.st_dev, itself.st_ino))


async def get_file(
    bucket: Bucket,
    name: str,
    path: str,
    *,
    verify: bool,
    progress: Progress | None = None,
    resume: bool = False,
    window: int = DEFAULT_WINDOW,
    follow: FollowLinks = "all",
    show_deleted: bool = False,
    replacing: Replacing | None = None,
    dir_fd: int | None = None,
    others: OtherBuckets | None = None,
) -> ObjectInfo:
    """Read an object into a file that appears, complete and verified, or not at all.

    Args:
        replacing: entered in a thread while the file gets its name; to prevent that, it raises.
        dir_fd: the descriptor of a directory, in which ``path`` is a name. Nothing is done in any other one,
            whatever is renamed meanwhile.
        others: as for :func:`objstore.read.links.resolve`.
    """
    mode = await in_thread(_target_mode, path, dir_fd)
    bucket, info = await resolve(bucket, name, follow, show_deleted=show_deleted, others=others)
    resume = resume and not info.deleted  # there is nothing to keep
    mark = mark_of(info) if resume and is_safe_nuid(info.nuid) else secrets.token_hex(6)
    temporary = await in_thread(_temporary, path, mark, dir_fd)
    opened: list[BinaryIO] = []
    try:
        try:
            create = _reopen if resume else _create
            await in_thread(lambda: opened.append(create(temporary, dir_fd)))
            (file,) = opened
            if resume:
                await _continue(bucket, info, file, verify=verify, progress=progress, window=window)
            else:
                await copy_blocks(
                    bucket, info, file.writelines, verify=verify, progress=progress, window=window
                )
            await in_thread(_finish, file, temporary, path, mode, replacing, dir_fd)
        finally:
            for file in opened:
                file.close()
    except BaseException as exc:
        # Keep it to be resumed, unless its bytes are wrong.
        if opened and (not resume or isinstance(exc, IntegrityError | ObjectChangedError)):
            _remove(temporary, dir_fd)
        raise
    return shown(info)


async def _continue(
    bucket: Bucket,
    info: ObjectInfo,
    file: BinaryIO,
    *,
    verify: bool,
    progress: Progress | None,
    window: int,
) -> None:
    """Fill a file that may already hold the first bytes: hash these again, and read the rest."""
    layout = Layout(info)
    assembly = Assembly(info, verify=verify)
    have = min(file.seek(0, os.SEEK_END), info.size)
    if have and info.chunks:
        try:
            await prove(bucket, info, layout)
        except (Missing, IntegrityError) as exc:
            raise changed(await again(bucket, info, exc)) from None
        first = info.chunks if have == info.size else layout.index_of(have)
        done = info.size if have == info.size else layout.offset_of(first)
    else:
        first = done = 0
    given_up = threading.Event()
    await in_thread(_hash_again, file, done, assembly, given_up, give_up=given_up.set)
    empty = layout.empty_before(first)
    assembly.accept_run(b"", first - empty, empty)
    if assembly.complete:
        assembly.finish()
        return
    part = layout.part(done, info.size) if first else None
    sink = BlockSink(info, assembly, window=window)
    feed = ChunkFeed(bucket, info, sink, window=window, part=part)
    reading = feed.run() if info.size or info.chunks else nothing()
    async with aclosing(drain(bucket, info, sink, reading)) as source:
        async for block in source:
            await in_thread(file.writelines, block)
            done += sum(map(len, block))
            if progress is not None:
                progress(done, info.size)


def _hash_again(file: BinaryIO, size: int, assembly: Assembly, given_up: threading.Event) -> None:
    """Hash the file's whole chunks, and truncate the file after them."""
    file.seek(0)
    left = size
    while left:
        if given_up.is_set():
            return
        block = file.read(min(left, HASHED))
        if not block:
            raise OSError(errno.EIO, "the file was cut short while it was read")
        assembly.accept_run(block, 0)
        left -= len(block)
    file.truncate(size)
    file.seek(0, os.SEEK_END)


def _reopen(path: str, dir_fd: int | None = None) -> BinaryIO:
    """Open or create a partial file; never follow a link; one process at a time.

    Raises:
        BlockingIOError: another process is filling the file.
        PermissionError: the file is not ours alone. Anyone who may write to the directory can have created
            it, to read what we write into it.
    """
    flags = os.O_RDWR | os.O_CREAT | SAFE | getattr(os, "O_NONBLOCK", 0)  # do not block on a pipe
    descriptor = os.open(path, flags, PRIVATE, dir_fd=dir_fd)
    try:
        found = os.fstat(descriptor)
        ours = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
        if not (ours and stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
            raise PermissionError(
                errno.EPERM, "not resumed, because the file is not this user's alone: remove it", path
            )
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, PRIVATE)
        try:
            import fcntl
        except ImportError:
            pass  # a platform without such locks
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "r+b")


def mark_of(info: ObjectInfo) -> str:
    """Return what distinguishes one put from another: a partial file of another put is never resumed.

    The nuid alone is not enough: an upload that is sent again may have stored other bytes under it.
    """
    return f"{info.nuid}.{_digits(info.digest.encode('utf-8', 'surrogatepass'))}"


def _digits(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:DIGITS]


def _temporary(path: str, mark: str, dir_fd: int | None = None) -> str:
    """Return the name of the hidden partial file beside ``path``, a different one for each target.

    The file system limits a name in bytes. If the target's name leaves no room for the additions, a digest of
    the whole name replaces its end, so that two targets never share a file.
    """
    directory, base = os.path.split(os.fsencode(path))
    try:
        room = os.pathconf((directory or b".") if dir_fd is None else dir_fd, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        room = NAME_MAX
    tail = f".{mark}.part".encode()
    room -= len(b"." + tail)
    if len(base) > room:
        tail = b"~" + _digits(base).encode() + tail
        cut = max(0, room - DIGITS - 1)
        while cut and base[cut] & 0xC0 == 0x80:  # not within a character: some file systems refuse that
            cut -= 1
        base = base[:cut]
    return os.fsdecode(os.path.join(directory, b"." + base + tail))


def _create(path: str, dir_fd: int | None = None) -> BinaryIO:
    """Create a file; never follow a link or reuse an existing file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE
    return os.fdopen(os.open(path, flags, PRIVATE, dir_fd=dir_fd), "wb")


def _target_mode(path: str, dir_fd: int | None = None) -> int | None:
    """Return the permissions of the file to replace; ``None`` when this user has no such file.

    Without set-user-ID, set-group-ID and sticky: they were given to the old content, not to an object. A link
    is itself replaced, so its target's permissions do not count; nor do those of other users' files.

    Raises:
        OSError: something other than a file has that name, or no file can be created there.
    """
    if dir_fd is None and not os.path.isdir(os.path.dirname(path) or "."):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.path.dirname(path))
    try:
        found, itself = os.stat(path, dir_fd=dir_fd), os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file: it would be replaced by one", path)
    if stat.S_ISLNK(itself.st_mode) or (hasattr(os, "geteuid") and itself.st_uid != os.geteuid()):
        return None
    return stat.S_IMODE(found.st_mode) & 0o777


def _new_mode(temporary: str, dir_fd: int | None = None) -> int:
    """Return the permissions that the user's umask gives to new files.

    ``os.umask()`` would change it for a moment, for all threads: so read it from /proc, or create a file.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return 0o666 & ~int(line.split()[1], 8)
    except (OSError, ValueError, IndexError):
        pass
    probe = f"{temporary[:-1]}~"
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE, 0o666, dir_fd=dir_fd)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        _remove(probe, dir_fd)


def _finish(
    file: BinaryIO,
    temporary: str,
    path: str,
    mode: int | None,
    replacing: Replacing | None = None,
    dir_fd: int | None = None,
) -> None:
    """Flush the file to disk, rename it, then flush the directory.

    Raises:
        FileExistsError: the file that was filled has lost its name to another one.
    """
    file.flush()
    if hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), _new_mode(temporary, dir_fd) if mode is None else mode)
    os.fsync(file.fileno())
    itself = os.fstat(file.fileno())
    with nullcontext() if replacing is None else replacing(itself):
        if not os.path.samestat(itself, os.stat(temporary, dir_fd=dir_fd, follow_symlinks=False)):
            raise FileExistsError(errno.EEXIST, "something else has replaced the file that was filled", path)
        os.replace(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY, dir_fd=dir_fd)
    except OSError:
        return  # a platform that does not open directories
    try:
        os.fsync(directory)
    except OSError:
        pass
    finally:
        os.close(directory)


def _remove(path: str, dir_fd: int | None = None) -> None:
    try:
        os.unlink(path, dir_fd=dir_fd)
    except OSError:
        pass
