"""The command ``put``: files, directories and standard input."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .addresses import check_bucket_first
from .connection import session
from .output import CommandError, Output, human_size, object_document
from .several import each
from .transfer import standard_input

if TYPE_CHECKING:
    from objstore.format.models import ObjectInfo
    from objstore.store import ObjectStore
    from objstore.write.put import PutOptions

    Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A file to store.

    Attributes:
        file: its path, or ``-``.
        name: the object's name.
    """

    file: str
    name: str


def check_put(args: Namespace) -> None:
    """Refuse what cannot work: swapped arguments, options that exclude each other, an object without a name.

    Raises:
        CommandError: exit code 2.
    """
    check_bucket_first("put", args.bucket, args.files, files=True)
    one = len(args.files) == 1 and not args.recursive
    if args.size is not None and args.files != ["-"]:
        raise CommandError("put: --size is for standard input", 2)
    for option in ("name", "if_revision"):
        if getattr(args, option) is not None and not one:
            raise CommandError(f"put: --{option.replace('_', '-')} is for one file", 2)
    if args.name is not None and args.prefix is not None:
        raise CommandError("put: give --name or --prefix, not both", 2)
    if args.create and args.if_revision is not None:
        raise CommandError("put: give --create or --if-revision, not both", 2)
    if args.resume:
        if args.ttl is not None or args.atomic:
            raise CommandError("put: --resume works with neither --ttl nor --atomic", 2)
        if "-" in args.files:
            raise CommandError("put: --resume needs a file: standard input cannot be read again", 2)
    for file in args.files:
        if file == "-":
            if not one:
                raise CommandError("put: standard input is stored alone, with --name", 2)
            if not args.name:
                raise CommandError("put: standard input has no name: give one with --name", 2)
        elif os.path.isdir(file):
            if not args.recursive:
                raise CommandError(f"put: {file!r} is a directory: pass -r to store what is in it", 2)
        elif one and not name_of(file, args):
            raise CommandError(f"put: {file!r} has no base name: give one with --name", 2)


def name_of(file: str, args: Namespace) -> str:
    """Return the name under which a file is stored."""
    if args.name is not None:
        return str(args.name)
    return "" if file == "-" else (args.prefix or "") + os.path.basename(file)


def sources_of(args: Namespace, out: Output) -> tuple[list[Source], bool]:
    """Return all files to store, of a directory those in it; and whether one could not be read completely.

    Raises:
        CommandError: two files would get the same name, or there is nothing to store; exit code 2.
        OSError: a directory cannot be read.
    """
    from .trees import Tree

    found: dict[str, Source] = {}
    incomplete = False
    for file in args.files:
        if args.recursive and os.path.isdir(file):
            prefix = args.prefix or ""
            tree = Tree(file, out)
            incomplete |= not tree.complete
            given = [Source(each.file, prefix + each.path) for each in tree]
        else:
            given = [Source(file, name_of(file, args))]
        for source in given:
            other = found.setdefault(source.name, source)
            if other != source:
                raise CommandError(
                    f"put: {other.file!r} and {source.file!r} would both be {source.name!r}: "
                    "store them one after the other, with --prefix",
                    2,
                )
    if not found:
        raise CommandError(f"put: no files in {', '.join(map(repr, args.files))}", 2)
    return list(found.values()), incomplete


async def put(args: Namespace, out: Output) -> None:
    """``put BUCKET FILE…``."""
    sources, incomplete = sources_of(args, out)
    if len(sources) == 1 and sources[0].file != "-":
        os.stat(sources[0].file)  # report a missing file before connecting
    progress = out.progress_of(sources[0].name if len(sources) == 1 else f"{len(sources)} files")
    async with session(args, out) as link:
        store = await link.open(args.bucket, *args.files)

        async def store_one(source: Source) -> None:
            info = await put_one(store, source, args, None if progress is None else progress.part())
            tell_stored(info, out, several=len(sources) > 1)

        await each(
            sources,
            store_one,
            out,
            command="put",
            client=link.client,
            stores=[store],
            label=lambda source: source.file,
        )
    if len(sources) > 1:
        out.note(f"stored {len(sources)} files in bucket {args.bucket!r}")
    if incomplete:
        raise CommandError("put: not everything could be read, see the warnings", 1)


def tell_stored(info: ObjectInfo, out: Output, *, several: bool) -> None:
    """Print what has been stored."""
    if out.json:
        (out.record if several else out.document)(object_document(info))
        return
    out.note(
        f"stored {info.name!r} in bucket {info.bucket!r}: {human_size(info.size)}, "
        f"{info.chunks} chunk{'s' if info.chunks != 1 else ''}, {info.digest}"
    )


async def put_one(
    store: ObjectStore, source: Source, args: Namespace, progress: Progress | None
) -> ObjectInfo:
    """Store one file as the options of ``put`` say."""
    file, name = source.file, source.name
    headers = headers_of(args.headers)
    if file != "-":
        size = os.stat(file).st_size
        if progress is not None:
            tell = progress
            progress = lambda done, total: tell(done, total or size)  # noqa: E731
    if args.resume:
        from .resume import put_resumed

        return await put_resumed(store, name, file, args, headers, progress)
    data = standard_input() if file == "-" else Path(file)
    if args.create:
        filename = None if file == "-" else os.fsencode(os.path.basename(file)).decode("utf-8", "replace")
        return await store.create(
            name,
            data,
            args.description,
            filename,
            headers,
            metadata=dict(args.metadata) or None,
            chunk_size=args.chunk_size,
            progress=progress,
            ttl=args.ttl,
            atomic=args.atomic,
            size=args.size,
        )
    options: PutOptions = {
        "metadata": dict(args.metadata) or None,
        "chunk_size": args.chunk_size,
        "if_revision": args.if_revision,
        "progress": progress,
        "ttl": args.ttl,
        "atomic": args.atomic,
        "size": args.size,
    }
    if file == "-":
        return await store.put(name, data, args.description, None, headers, **options)
    return await store.put_file(name, file, args.description, None, headers, **options)


def headers_of(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]] | None:
    """Return headers with all their values."""
    headers: dict[str, list[str]] = {}
    for key, value in pairs:
        headers.setdefault(key, []).append(value)
    return headers or None
