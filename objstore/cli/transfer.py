"""The commands ``put`` and ``get``."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from .addresses import check_bucket_first
from .connection import session
from .output import CommandError, Output, human_size, object_document

if TYPE_CHECKING:
    from io import FileIO

    from objstore.format.memory import Payload
    from objstore.format.models import ObjectInfo
    from objstore.store import ObjectStore
    from objstore.write.put import PutOptions

STDIN_BLOCK = 256 * 1024
"""Bytes of one read from standard input."""


def put_name(args: Namespace) -> str:
    if args.name is not None:
        return str(args.name)
    return "" if args.file == "-" else os.path.basename(args.file)


def check_put(args: Namespace) -> None:
    """Refuse swapped arguments, and an object without a name.

    Raises:
        CommandError: exit code 2.
    """
    check_bucket_first("put", args.bucket, [args.file], files=True)
    if not put_name(args):
        why = "standard input has no name" if args.file == "-" else f"{args.file!r} has no base name"
        raise CommandError(f"put: {why}: give one with --name", 2)


def check_get(args: Namespace) -> None:
    """Refuse swapped arguments, and a target that cannot be written.

    Raises:
        CommandError: exit code 2.
    """
    check_bucket_first("get", args.bucket, [args.name])
    if args.output is None:
        from .paths import output_name

        output_name(args.name)
    elif not args.output:
        raise CommandError("get: -O needs the name of a file, or - for standard output", 2)
    elif args.json and args.output == "-":
        raise CommandError("get: --json and '-O -' both want standard output: choose one", 2)


async def put(args: Namespace, out: Output) -> None:
    """``put BUCKET FILE``."""
    name = put_name(args)
    headers: dict[str, list[str]] = {}
    for key, value in args.headers:
        headers.setdefault(key, []).append(value)
    options: PutOptions = {
        "metadata": dict(args.metadata) or None,
        "chunk_size": args.chunk_size,
    }
    show = out.progress(name)
    if args.file != "-":
        size = os.stat(args.file).st_size  # report a missing file before connecting
        if show is not None:
            tell = show
            options["progress"] = lambda done, total: tell(done, total or size)
    elif show is not None:
        options["progress"] = show
    async with session(args, out) as link:
        store = await link.open(args.bucket, args.file)
        if args.file == "-":
            info = await store.put(
                name, _standard_input(), args.description, None, headers or None, **options
            )
        else:
            info = await store.put_file(name, args.file, args.description, None, headers or None, **options)
    if out.json:
        out.document(object_document(info))
        return
    out.note(
        f"stored {info.name!r} in bucket {info.bucket!r}: {human_size(info.size)}, "
        f"{info.chunks} chunk{'s' if info.chunks != 1 else ''}, {info.digest}"
    )


def _standard_input() -> BinaryIO | AsyncIterator[bytes]:
    """Return a file if it is one (it can be read again after a failure), else its pieces as they come."""
    try:
        descriptor = sys.stdin.fileno()
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (AttributeError, OSError, ValueError):
        return sys.stdin.buffer
    return sys.stdin.buffer if regular else _pieces(descriptor)


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    """Read in a daemon thread: an interrupt must not need another line of input to take effect."""
    import threading

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


async def get(args: Namespace, out: Output) -> None:
    """``get BUCKET NAME``."""
    from .paths import output_name

    target = output_name(args.name) if args.output is None else args.output
    # Only if the user names it: others may have created a pipe or device under the object's name.
    stream = target == "-" or (args.output is not None and _is_stream(target))
    if not stream:
        _check_target(target, force=args.force)
    async with session(args, out) as link:
        store = await link.open(args.bucket, args.name)
        show = out.progress(args.name)
        if stream:
            info = await _to_stream(store, args.name, target, show)
        elif args.force:
            info = await store.get_file(args.name, target, progress=show)
        else:
            info = await _to_new_file(store, args.name, target, show)
    if out.json:
        out.document(object_document(info) | {"file": target})
    elif target != "-":
        out.note(f"wrote {target!r}: {human_size(info.size)}, verified, {info.digest}")
    else:
        out.end_progress()


def _is_device(path: str) -> bool:
    """Whether the path is in the system's own folders, whose links are also the system's."""
    path = os.path.abspath(path)
    return path.startswith(("/dev/", "/proc/")) and not path.startswith(("/dev/shm/", "/dev/mqueue/"))


def _is_stream(path: str) -> bool:
    """Whether the path exists and a file cannot replace it: a device, a pipe, a descriptor."""
    device = _is_device(path)
    try:
        mode = (os.stat if device else os.lstat)(path).st_mode
    except OSError:
        return False
    if stat.S_ISLNK(mode):
        return False
    return not stat.S_ISDIR(mode) and (device or not stat.S_ISREG(mode))


def _check_target(path: str, *, force: bool) -> None:
    if os.path.isdir(path):
        raise CommandError(f"get: {path!r} is a directory: name a file with -O", 2)
    if not force and os.path.lexists(path):
        raise _exists(path)


def _exists(path: str) -> CommandError:
    return CommandError(f"get: {path!r} exists: pass --force to replace it, or name another with -O", 4)


async def _to_new_file(
    store: ObjectStore, name: str, path: str, show: Callable[[int, int | None], None] | None
) -> ObjectInfo:
    """Read as ``store.get_file`` does, but replace nothing, even if the file was created meanwhile."""
    from objstore.read.get import in_thread

    part = os.path.join(os.path.dirname(path), f".objstore-{secrets.token_hex(8)}")
    try:
        info = await store.get_file(name, part, progress=show)
        await in_thread(_name_new, part, path)
    finally:
        # Also after a cancellation: get_file() may finish its last step, and then the file exists.
        with suppress(OSError):
            os.unlink(part)
    return info


def _name_new(part: str, path: str) -> None:
    """Give ``part`` the name ``path`` if it is free; the old name may stay."""
    try:
        os.link(part, path, follow_symlinks=False)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links: check first, then rename
        if os.path.lexists(path):
            raise _exists(path) from None
        os.replace(part, path)


async def _to_stream(
    store: ObjectStore, name: str, target: str, show: Callable[[int, int | None], None] | None
) -> ObjectInfo:
    """Write block by block; a mismatch found at the end cannot undo what was written.

    A daemon thread writes: an interrupt must not need a reader to take effect. The thread's block stays
    valid, and the thread ends when the file is closed, or with the process.

    Raises:
        CommandError: the reader has stopped; exit code 1, since what it has was not verified.
    """
    from objstore.read import get, links
    from objstore.write.source import in_daemon

    bucket = store.bound_bucket
    bucket.check_name(name)
    bucket, info = await links.resolve(bucket, name)
    file = _standard_output() if target == "-" else _open_stream(target)
    done = 0
    try:
        async with aclosing(get.blocks(bucket, info)) as source:
            async for block in source:
                try:
                    await in_daemon(partial(_write_all, file, list(block)))
                except BrokenPipeError:
                    raise CommandError("get: the reader stopped before everything was verified", 1) from None
                done += sum(map(len, block))
                if show is not None:
                    show(done, info.size)
    finally:
        file.close()
    return info


def _standard_output() -> FileIO:
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


def _write_all(file: FileIO, block: list[Payload]) -> None:
    for buffer in block:
        view = memoryview(buffer)
        while view:
            view = view[file.write(view) :]
