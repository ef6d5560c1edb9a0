"""The commands ``get`` and ``cat``."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .addresses import check_bucket_first, parse_targets
from .beneath import name_at, parent_of
from .connection import session
from .output import CommandError, Output, ReaderStopped, human_size, object_document
from .paths import check_apart, output_name, output_path
from .select import Chosen, choose, patterns_of
from .several import each
from .transfer import (
    UnverifiedError,
    check_target,
    is_stream,
    standard_output,
    to_file,
    to_stream,
    write_all,
)

if TYPE_CHECKING:
    from objstore.format.models import ObjectInfo
    from objstore.read.files import Replacing
    from objstore.read.links import FollowLinks, OtherBuckets
    from objstore.store import ObjectStore

    Progress = Callable[[int, int | None], None]

PIECE = 1024 * 1024
"""Bytes of a range that are read at a time."""


def check_get(args: Namespace) -> None:
    """Refuse swapped arguments, and a target that cannot be written.

    Raises:
        CommandError: exit code 2, or 4 for a file that exists.
    """
    check_bucket_first("get", args.bucket, args.names)
    if not args.names and not args.recursive:
        raise CommandError("get: name an object: get BUCKET NAME, or pass -r for the whole bucket", 2)
    if args.output == "":
        raise CommandError("get: -O needs the name of a file, or - for standard output", 2)
    if args.json and args.output == "-":
        raise CommandError("get: --json and '-O -' both want standard output: choose one", 2)
    if len(args.names) != 1 or args.recursive:
        _check_directory(args.output)
    elif not (args.output or "").endswith("/"):
        (pattern,) = patterns_of(args.names, args)
        if pattern.name is not None:
            target, stream = _target(pattern.name, args)
            if not stream:
                check_target(target, force=args.force)


def _check_directory(output: str | None) -> None:
    if output == "-":
        raise CommandError("get: '-O -' is for one object: use cat for several", 2)
    if output is not None and os.path.lexists(output) and not os.path.isdir(output):
        raise CommandError(f"get: {output!r} is a file: name a directory with -O", 2)


def _target(name: str, args: Namespace) -> tuple[str, bool]:
    """Return where a single object goes, and whether that is a stream."""
    target = output_name(name) if args.output is None else args.output
    # Only if the user names it: others may have created a pipe or device under the object's name.
    return target, target == "-" or (args.output is not None and is_stream(target))


async def get(args: Namespace, out: Output) -> None:
    """``get BUCKET NAME…``."""
    async with session(args, out) as link:
        store = await link.open(args.bucket, *args.names)
        patterns = patterns_of(args.names, args)
        chosen = await choose(store, patterns, out)
        # A name such as "report[1].pdf" may have been no pattern after all.
        single = [one.name for one in chosen] in (args.names, [pattern.name for pattern in patterns])
        if single and len(chosen) == 1 and not args.recursive and not (args.output or "").endswith("/"):
            await _get_one(store, chosen[0].name, args, out)
        else:
            await _get_several(store, chosen, args, out)


async def _get_one(store: ObjectStore, name: str, args: Namespace, out: Output) -> None:
    target, stream = _target(name, args)
    show = out.progress(name)
    if stream:
        info = await to_stream(store, name, target, show, follow=args.follow_links)
    else:
        check_target(target, force=args.force)
        info = await _to_file(store, name, target, show, args)
    if target != "-":
        _tell(info, target, out, several=False)
    else:
        out.end_progress()


async def _to_file(
    store: ObjectStore,
    name: str,
    target: str,
    show: Progress | None,
    args: Namespace,
    dir_fd: int | None = None,
    replacing: Replacing | None = None,
    others: OtherBuckets | None = None,
) -> ObjectInfo:
    return await to_file(
        store,
        name,
        target,
        show,
        follow=args.follow_links,
        force=args.force,
        resume=args.resume,
        replacing=replacing,
        dir_fd=dir_fd,
        others=others,
    )


async def _get_several(store: ObjectStore, chosen: list[Chosen], args: Namespace, out: Output) -> None:
    from objstore.read import files, links

    _check_directory(args.output)
    directory = args.output or "."
    paths: dict[str, str] = {}
    for one in chosen:
        other = paths.setdefault(one.path, one.name)
        if other != one.name:
            raise CommandError(
                f"get: {other!r} and {one.name!r} would both be {one.path!r}: get them one after the other", 2
            )
    progress = out.progress_of(f"{len(chosen)} objects")
    written, ordered, others = files.Written(), sorted(paths), links.OtherBuckets()

    async def fetch(one: Chosen) -> None:
        check_apart(one.name, one.path, ordered)
        target = below(directory, one, hidden=args.output is not None)
        check_target(target, force=args.force)
        show = None if progress is None else progress.part()
        with parent_of(directory, target, create=True, inner_links=True) as dir_fd:
            replacing = partial(written.replacing, name_at(target, dir_fd), dir_fd) if args.force else None
            info = await _to_file(store, one.name, target, show, args, dir_fd, replacing, others)
        _tell(info, target, out, several=True)

    await each(
        chosen,
        fetch,
        out,
        command="get",
        client=store.client,
        stores=[store],
        label=lambda one: one.name,
    )
    if not chosen:
        out.note(f"bucket {args.bucket!r} is empty")
    elif len(chosen) > 1:
        out.note(f"wrote {len(chosen)} files below {directory!r}")


def below(directory: str, one: Chosen, *, hidden: bool) -> str:
    """Return the file below a directory in which an object is stored.

    Raises:
        CommandError: its name could lead elsewhere; exit code 2.
    """
    path = output_path(one.name, one.path, hidden=hidden)
    return path if directory == "." else os.path.join(directory, path)


def _tell(info: ObjectInfo, target: str, out: Output, *, several: bool) -> None:
    if out.json:
        (out.record if several else out.document)(object_document(info) | {"file": target})
    else:
        out.note(f"wrote {target!r}: {human_size(info.size)}, verified, {info.digest}")


# -- cat ----------------------------------------------------------------------------------------------------


def bounds(wanted: tuple[int | None, int | None], size: int) -> tuple[int, int]:
    """Return where a range begins and ends (exclusive) in an object.

    Raises:
        CommandError: it begins beyond the object's end; exit code 2.
    """
    first, last = wanted
    if first is None:
        return max(0, size - (last or 0)), size
    if first > size or (first == size and size):
        raise CommandError(f"cat: the range begins at byte {first}, and the object has {size} bytes", 2)
    return first, size if last is None else min(last + 1, size)


def check_cat(args: Namespace) -> None:
    """Refuse what names no object.

    Raises:
        CommandError: exit code 2.
    """
    for target in parse_targets("cat", args.targets, literal=args.literal):
        if not target.name:
            raise CommandError(f"cat: {str(target)!r} is a bucket: name an object", 2)
    if args.json:
        raise CommandError("cat: it writes bytes, not JSON: omit --json", 2)


async def cat(args: Namespace, out: Output) -> None:
    """``cat BUCKET NAME…``: write objects to standard output, one after the other.

    Raises:
        ReaderStopped: the reader of standard output has stopped.
    """
    targets = parse_targets("cat", args.targets, literal=args.literal)
    stores: dict[str, ObjectStore] = {}
    async with session(args, out) as link:
        for target in targets:
            if target.bucket not in stores:
                stores[target.bucket] = await link.open(target.bucket, *args.targets[1:])
        for target in targets:
            for one in await choose(stores[target.bucket], patterns_of([target.name], args), out):
                await _cat(stores[target.bucket], one.name, args.range, args.follow_links)


async def _cat(
    store: ObjectStore, name: str, wanted: tuple[int | None, int | None] | None, follow: FollowLinks
) -> None:
    from objstore.bucket.threads import in_daemon

    try:
        if wanted is None:
            await to_stream(store, name, "-", None, follow=follow)
            return
        async with store.open_reader(name, follow_links=follow) as reader:
            at, end = bounds(wanted, reader.info.size)
            await reader.seek(at)
            with standard_output() as file:
                while piece := await reader.read(min(PIECE, end - at)):  # an empty object is verified, too
                    at += len(piece)
                    await in_daemon(partial(write_all, file, [piece]))
    except (BrokenPipeError, UnverifiedError):
        raise ReaderStopped from None
