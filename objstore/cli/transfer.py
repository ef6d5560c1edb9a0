"""``put`` and ``get``."""

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

from .connection import session
from .output import CommandError, Output, human_size, object_document

if TYPE_CHECKING:
    from io import FileIO

    from objstore.format.memory import Payload
    from objstore.format.models import ObjectInfo
    from objstore.store import ObjectStore
    from objstore.write.put import PutOptions

STDIN_BLOCK = 256 * 1024


def put_name(args: Namespace) -> str:
    if args.name is not None:
        return str(args.name)
    return "" if args.file == "-" else os.path.basename(args.file)


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
        size = os.stat(args.file).st_size  # a file that is not there is found before a server is
        if show is not None:
            tell = show
            options["progress"] = lambda done, total: tell(done, total or size)
    elif show is not None:
        options["progress"] = show
    async with session(args, out) as link:
        store = await link.open(args.bucket)
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
    """A file if it is one (it can be read again after a failure), else pieces as they come."""
    try:
        descriptor = sys.stdin.fileno()
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (AttributeError, OSError, ValueError):
        return sys.stdin.buffer
    return sys.stdin.buffer if regular else _pieces(descriptor)


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    """Read in a thread that nobody has to wait for: an interrupt must not need another line of input."""
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
    # Only where the user says so: what lies there under an object's name may have been put there by others.
    stream = target == "-" or (args.output is not None and _is_stream(target))
    if not stream:
        _check_target(target, force=args.force)
    async with session(args, out) as link:
        store = await link.open(args.bucket)
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
    """Whether it is in the system's own folders, where links are the system's own, too."""
    path = os.path.abspath(path)
    return path.startswith(("/dev/", "/proc/")) and not path.startswith(("/dev/shm/", "/dev/mqueue/"))


def _is_stream(path: str) -> bool:
    """Whether it is there and cannot be replaced by a file: a device, a pipe, a descriptor."""
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
    """Like ``store.get_file``, but never replaces anything, whoever makes a file of that name meanwhile."""
    from objstore.read.get import in_thread

    part = os.path.join(os.path.dirname(path), f".objstore-{secrets.token_hex(8)}")
    try:
        info = await store.get_file(name, part, progress=show)
        await in_thread(_name_new, part, path)
    finally:
        # Also after a cancellation, which lets the last step of get_file() be done: the file is there then.
        with suppress(OSError):
            os.unlink(part)
    return info


def _name_new(part: str, path: str) -> None:
    """Give ``part`` the name ``path`` if nothing has it; the old name may stay."""
    try:
        os.link(part, path, follow_symlinks=False)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links: looking has to do
        if os.path.lexists(path):
            raise _exists(path) from None
        os.replace(part, path)


async def _to_stream(
    store: ObjectStore, name: str, target: str, show: Callable[[int, int | None], None] | None
) -> ObjectInfo:
    """Write block by block; a mismatch found at the end cannot take back what was written.

    Nobody has to wait for the thread that writes: an interrupt must not need a reader. What it has in hand
    stays valid, and it ends when the file is closed, or with the process.

    Raises:
        CommandError: who read it has stopped; exit code 1, as what he has was not verified.
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
                    raise CommandError("get: the reader stopped before all was verified", 1) from None
                done += sum(map(len, block))
                if show is not None:
                    show(done, info.size)
    finally:
        file.close()
    return info


def _standard_output() -> FileIO:
    """Its descriptor without Python's buffer, which the end of the program would wait for."""
    if sys.stdout is None:
        raise CommandError("get: standard output is closed", 1)
    return open(sys.stdout.fileno(), "wb", 0, closefd=False)


def _open_stream(path: str) -> FileIO:
    """Open what is there, at once: a pipe that nobody reads is an error.

    Somebody may have put a link or a file there since it was looked at: neither is followed or overwritten.
    """
    device = _is_device(path)
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    flags |= os.O_TRUNC if device else os.O_NOFOLLOW  # /dev/stdout may be a file
    try:
        descriptor = os.open(path, flags)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            raise CommandError(f"get: nobody reads the pipe {path!r}", 1) from None
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
