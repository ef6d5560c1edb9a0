"""What is in a bucket: the objects of ``ls``, ``find`` and ``du``.

The server has no directories: one is shown where names have a ``/``.
"""

from __future__ import annotations

from argparse import Namespace
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import accumulate
from typing import TYPE_CHECKING

from .connection import session
from .globs import glob_matcher, literal
from .output import CommandError, Output, human_size, human_time, object_document
from .paths import MAX_LEVELS
from .select import Filter, Pattern, Turns, listed

if TYPE_CHECKING:
    from objstore.format.models import InvalidMeta, ObjectInfo
    from objstore.store import ObjectStore

SORTED = 1000
"""Rows up to which a list is sorted by name without being asked to; more appear as they arrive."""

TOGETHER = 500
"""Rows that are written together."""

Place = Callable[[str], str | None]
"""Says how a name is shown: as itself, as the directory that it is in, or not at all."""

SORTS: dict[str, Callable[[ObjectInfo], tuple[float, str]]] = {
    "size": lambda info: (-info.size, info.name),
    "time": lambda info: (-info.mtime.timestamp(), info.name),
}
"""The largest and the newest come first, as with ``ls -S`` and ``ls -t``."""


def place_of(text: str, *, recursive: bool) -> Place:
    """Return how names are shown for one argument of ``ls``: a prefix, such as a directory, or a glob."""
    prefix = literal(text)
    if recursive:
        if prefix is not None:
            return lambda name: name if name.startswith(prefix) else None
        pattern = Pattern(text, recursive=True)
        return lambda name: name if pattern.matches(name) else None
    if prefix is not None:
        return lambda name: _level(prefix, name)
    if "**" in text:
        anywhere = glob_matcher(text)
        return lambda name: name if anywhere(name) else None
    match, levels, only_directories = (
        glob_matcher(text.rstrip("/")),
        text.rstrip("/").count("/"),
        text[-1] == "/",
    )

    def place(name: str) -> str | None:
        parts = name.split("/", levels + 1)
        if len(parts) <= levels + 1:
            return name if match(name) and not only_directories else None
        above = "/".join(parts[:-1])
        return above + "/" if match(above) else None

    return place


def _level(prefix: str, name: str) -> str | None:
    if not name.startswith(prefix):
        return None
    head, below, _ = name[len(prefix) :].partition("/")
    return prefix + head + below


async def ls_objects(store: ObjectStore, args: Namespace, out: Output) -> None:
    """``ls BUCKET [PREFIX|GLOB]…``."""
    places = [place_of(text, recursive=args.recursive) for text in args.prefixes or [""]]
    keep = Filter(newer=args.since).test()
    rows = _Rows(args, out)
    waiting: list[tuple[str, ObjectInfo]] | None = []
    seen: set[str] = set()
    turns = Turns()
    async with aclosing(_each(store, args, out)) as infos:
        async for info in infos:
            await turns.take()
            name = next((at for at in (place(info.name) for place in places) if at is not None), None)
            if name is None or name in seen or not keep(info):
                continue
            seen.add(name)
            if waiting is None:
                rows.add(name, info)
            else:
                waiting.append((name, info))
                if args.sort is None and len(waiting) > SORTED:
                    rows.add_all(waiting)
                    waiting = None
            if waiting is None and rows.many:
                await rows.flow()
    if waiting:
        order = SORTS.get(args.sort)
        waiting.sort(key=lambda row: (0, row[0]) if order is None else order(row[1]))
        rows.add_all(waiting)
    await rows.flow()
    if not seen and args.prefixes:
        what = ", ".join(map(repr, args.prefixes))
        raise CommandError(f"nothing in bucket {store.bucket!r} matches {what}", 3)
    if not seen:
        out.note(f"bucket {store.bucket!r} is empty" if args.since is None else "nothing has changed since")
    out.check_whole("ls")


async def _each(store: ObjectStore, args: Namespace, out: Output) -> AsyncGenerator[ObjectInfo, None]:
    """Yield what is to be listed, in the order of the last change, as it arrives."""

    def invalid(meta: InvalidMeta) -> None:
        out.warn(f"the meta message at revision {meta.revision} is skipped: {meta.error}")

    async with aclosing(store.iter(include_deleted=args.deleted, on_invalid=invalid)) as infos:
        async for info in infos:
            yield info


class _Rows:
    """Rows of objects and directories, printed as they come."""

    def __init__(self, args: Namespace, out: Output) -> None:
        self._out = out
        self._names = args.names or args.null
        self._null = args.null
        self._long = args.long
        self._head: tuple[str, ...] | None = ("NAME", "SIZE", "MODIFIED")
        if args.long:
            self._head = ("NAME", "BYTES", "MODIFIED", "REVISION", "CHUNKS", "DIGEST")
        self._widths: list[int] = []
        self._rows: list[tuple[str, ObjectInfo]] = []

    @property
    def many(self) -> bool:
        """Whether enough rows have come together to be written."""
        return len(self._rows) >= TOGETHER

    def add(self, name: str, info: ObjectInfo) -> None:
        """Add a row; an object's name differs from that of the directory it is in."""
        self._rows.append((name, info))

    def add_all(self, rows: list[tuple[str, ObjectInfo]]) -> None:
        """Add rows."""
        self._rows += rows

    async def flow(self) -> None:
        """Write the rows so far."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        out = self._out
        if out.json:
            for name, info in rows:
                out.record(self._document(name, info))
        elif self._names:
            out.lines([name for name, _ in rows], null=self._null)
        else:
            cells = [self._cells(name, info) for name, info in rows]
            self._widths = out.table(self._head, cells, right=(1, 3, 4), widths=self._widths)
            self._head = None
        await out.flow()

    def _document(self, name: str, info: ObjectInfo) -> object:
        if self._names:
            return name
        return object_document(info) if name == info.name else {"name": name, "directory": True}

    def _cells(self, name: str, info: ObjectInfo) -> tuple[str, ...]:
        if name != info.name:
            return (name, "dir", *([""] * (4 if self._long else 1)))
        shown = f"{name} -> {info.links[0]}" if info.links else name
        if info.deleted:
            size = "deleted"
        else:
            size = str(info.size) if self._long else human_size(info.size)
        more = (str(info.revision), str(info.chunks), info.digest or "none") if self._long else ()
        return (shown, size, human_time(info.mtime), *more)


async def find(args: Namespace, out: Output) -> None:
    """``find BUCKET [PREFIX|GLOB]…``: print the names of the objects that meet all conditions."""
    places = [place_of(text, recursive=True) for text in args.prefixes or [""]]
    keep = Filter.of(args).test()
    async with session(args, out) as link:
        store = await link.open(args.bucket, *args.prefixes)
        turns = Turns()
        for info in await listed(store, out):
            await turns.take()
            if not keep(info) or not any(place(info.name) for place in places):
                continue
            if out.json:
                out.record(object_document(info))
            else:
                out.lines([info.name], null=args.null)
        await out.flow()
    out.check_whole("find")


async def du(args: Namespace, out: Output) -> None:
    """``du BUCKET [PREFIX]``: bytes and objects of every directory, with all below it, and of everything."""
    prefix = args.prefix or ""
    async with session(args, out) as link:
        store = await link.open(args.bucket, *filter(None, [args.prefix]))
        infos = await listed(store, out, prefix=prefix)
    whole = sum(info.size for info in infos), len(infos)
    depth = MAX_LEVELS if args.depth is None else args.depth
    if out.json:
        for number, (name, size, count) in enumerate(directories(infos, prefix, depth), 1):
            out.record({"directory": name, "size": size, "count": count})
            if number % TOGETHER == 0:
                await out.flow()
        out.record({"total": True, "prefix": prefix, "size": whole[0], "count": whole[1]})
        return
    head = ("SIZE", "OBJECTS", "DIRECTORY")
    total = (human_size(whole[0]), str(whole[1]), "total")
    widths = [max(map(len, column)) for column in zip(head, total, strict=True)]
    for _, size, count in directories(infos, prefix, depth):
        widths[:2] = max(widths[0], len(human_size(size))), max(widths[1], len(str(count)))
    rows: list[tuple[str, ...]] = [head]
    for name, size, count in directories(infos, prefix, depth):
        rows.append((human_size(size), str(count), name))
        if len(rows) >= TOGETHER:
            out.table(None, rows, right=(0, 1), widths=widths)
            rows = []
            await out.flow()
    out.table(None, [*rows, total], right=(0, 1), widths=widths)


def directories(infos: Sequence[ObjectInfo], prefix: str, depth: int) -> Iterator[tuple[str, int, int]]:
    """Yield each directory of objects that are sorted by name, with its bytes and objects, sorted.

    Nothing is kept per directory: the paths of all directories of a name with very many would take memory
    by the square of its length. A link has no bytes of its own.

    Args:
        prefix: of all names; a directory is longer than that.
        depth: levels to go down.
    """
    names = [info.name for info in infos]
    sums = list(accumulate((info.size for info in infos), initial=0))
    before = ""
    for first, name in enumerate(names):
        levels, end, last = name.count("/", len(prefix)), len(prefix), len(names)
        for _ in range(min(levels, depth)):
            end = name.index("/", end) + 1
            directory = name[:end]
            if not before.startswith(directory):
                last = bisect_left(names, directory[:-1] + "0", first, last)  # "0" comes after "/"
                yield directory, sums[last] - sums[first], last - first
        before = name
