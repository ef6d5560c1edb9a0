"""``sync``: make a directory of objects equal to a directory of files, or the other way round.

What has the same size and SHA-256 on both sides is left alone. ``--delete`` removes what only the target has:
never outside of the directory, never what changed since it was listed, nothing of the name of what was left
out of the source, nor below it, and nothing at all unless the source was listed completely. Links are left
alone on both sides.
"""

from __future__ import annotations

import hashlib
import os
import threading
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from .addresses import SCHEME, Address, is_address, parse_address, parse_place
from .beneath import parent_of
from .connection import session
from .output import CommandError, Output, human_size
from .paths import check_apart, output_path
from .several import each
from .transfer import to_file
from .trees import State, Tree, at_or_above, keeping_others, remove_file

if TYPE_CHECKING:
    from objstore.format.models import InvalidMeta, ObjectInfo
    from objstore.store import ObjectStore

    Progress = Callable[[int, int | None], None]

BLOCK = 1024 * 1024
"""Bytes of a file that are hashed at a time."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is to be done.

    Attributes:
        action: ``put``, ``get`` or ``delete``.
        name: the object's name.
        file: the file; "" for an object that is deleted.
        size: bytes to transfer.
        revision: that of an object that is deleted; 0 for a file.
        listed: the file that is deleted or replaced; ``None``: there was none.
    """

    action: str
    name: str
    file: str
    size: int = 0
    revision: int = 0
    listed: State | None = None


@dataclass
class Sides:
    """What both sides have.

    Attributes:
        up: whether the directory is the source.
        directory: the local directory.
        prefix: what the names of the objects begin with: "" or a directory with its ``/``.
        files: the local files, by their paths below the directory.
        objects: by their names below the prefix.
        left_out: paths of what the source has, but neither what it is nor what is below it is transferred.
        complete: whether the source could be listed completely.
        links: paths of what is left alone: links of the bucket, and those of a directory that is the target.
        local_links: paths of all links of the directory.
    """

    up: bool
    directory: str
    prefix: str
    files: dict[str, State]
    objects: dict[str, ObjectInfo]
    left_out: set[str]
    complete: bool
    links: set[str]
    local_links: set[str]

    @cached_property
    def ordered(self) -> list[str]:
        """The names of the objects below the prefix, sorted."""
        return sorted(self.objects)

    @property
    def source(self) -> Mapping[str, object]:
        """What the target is to have."""
        return self.files if self.up else self.objects

    @property
    def target(self) -> Mapping[str, object]:
        """What the target has."""
        return self.objects if self.up else self.files

    def file(self, path: str) -> str:
        """Return where a path below the directory is."""
        return os.path.join(self.directory, path)


def sides_of(args: Namespace) -> tuple[str, Address, bool]:
    """Return the directory, the address, and whether the directory is the source.

    Raises:
        CommandError: not exactly one of both is an address; exit code 2.
    """
    source, target = args.source, args.target
    if is_address(source) == is_address(target):
        raise CommandError(f"sync: one side is a directory, the other one is {SCHEME}BUCKET/DIRECTORY/", 2)
    directory, address = (target, source) if is_address(source) else (source, target)
    parse_place(directory)
    found = parse_address(address)
    if found.name and not found.name.endswith("/"):
        found = Address(found.bucket, found.name + "/")
    return directory, found, directory == source


def check_sync(args: Namespace) -> None:
    """Refuse a source that is not there, and a target that is a file.

    Raises:
        CommandError: exit code 2.
    """
    directory, _, up = sides_of(args)
    if not os.path.isdir(directory) and (up or os.path.lexists(directory)):
        why = "is not a directory" if os.path.lexists(directory) else "does not exist"
        raise CommandError(f"sync: {directory!r} {why}", 2)


async def sync(args: Namespace, out: Output) -> None:
    """``sync DIR natsobj://BUCKET/DIRECTORY/``, and back."""
    directory, address, up = sides_of(args)
    async with session(args, out) as link:
        store = await link.open(address.bucket)
        sides = await _look(store, directory, address.name, out, up=up)
        alike = await _alike(sides)
        wanted = [path for path in sides.source if path not in alike]
        unwanted = _unwanted(sides, address.bucket, out) if args.delete else []
        links = len(sides.links.intersection(wanted + unwanted))
        if links:
            out.note(f"{links} link{'s are' if links != 1 else ' is'} left alone")
        transfers = [_transfer(path, sides) for path in wanted if path not in sides.links]
        deletions = [_deletion(path, sides) for path in unwanted if path not in sides.links]
        steps = transfers + deletions
        if args.dry_run:
            for step in steps:
                _would(step, address.bucket, out)
            return
        size = sum(step.size for step in steps)
        progress = out.progress_of(f"{len(steps)} files", size) if size else None

        async def take(step: Step) -> None:
            await _take(step, sides, store, None if progress is None else progress.part())
            _did(step, address.bucket, out)

        for some in (transfers, deletions):
            await each(some, take, out, command="sync", client=link.client, stores=[store], label=_label)
    out.note(
        f"{'stored' if up else 'wrote'} {len(transfers)} files ({human_size(size)}), "
        f"deleted {len(deletions)}, {len(alike)} were the same"
    )
    if not sides.complete:
        deleted = ", so nothing was deleted" if args.delete else ""
        raise CommandError(f"sync: not everything could be read, see the warnings{deleted}", 1)


async def _look(store: ObjectStore, directory: str, prefix: str, out: Output, *, up: bool) -> Sides:
    """List both sides, the target first: what comes to both meanwhile is then no surplus of the target."""
    from objstore.read.get import in_thread

    complete = True

    def invalid(meta: InvalidMeta) -> None:
        nonlocal complete
        complete = False
        out.warn(f"the meta message at revision {meta.revision} is skipped: {meta.error}")

    tree = None
    if not up:
        tree = await in_thread(_target_tree, directory, out)
    infos = await store.list(prefix=prefix, on_invalid=invalid)
    objects = {info.name[len(prefix) :]: info for info in sorted(infos, key=lambda info: info.name)}
    links = {path for path, info in objects.items() if info.links}
    if up:
        tree = await in_thread(Tree, directory, out)
        left_out, complete = tree.left_out, tree.complete
    else:
        left_out = links
    return Sides(
        up=up,
        directory=directory,
        prefix=prefix,
        files={file.path: file.state for file in tree or ()},
        objects=objects,
        left_out=left_out,
        complete=complete,
        links=links if up or tree is None else links | tree.links,
        local_links=set() if tree is None else tree.links,
    )


def _target_tree(directory: str, out: Output) -> Tree | None:
    return Tree(directory, out) if os.path.isdir(directory) else None


async def _alike(sides: Sides) -> set[str]:
    """Return the paths whose file and object have the same bytes."""
    from objstore.read.get import in_thread

    stop = threading.Event()

    def compare() -> set[str]:
        found = set()
        for path in sides.source:
            info, file = sides.objects.get(path), sides.files.get(path)
            if info is None or info.links or file is None or file.size != info.size:
                continue
            try:
                if digest_of(sides.file(path), stop) == info.digest:
                    found.add(path)
            except OSError:
                continue  # the transfer will tell
        return found

    return await in_thread(compare, give_up=stop.set)


def digest_of(file: str, stop: threading.Event) -> str:
    """Return the digest of a file, as an object's info has it; ``""`` if it was stopped."""
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(BLOCK):
            if stop.is_set():
                return ""
            digest.update(block)
    return f"SHA-256={digest.hexdigest()}"


def _unwanted(sides: Sides, bucket: str, out: Output) -> list[str]:
    """Return the paths that only the target has; what was left out of the source is not taken for absent."""
    if not sides.complete:
        return []
    found: list[str] = []
    kept: Counter[str] = Counter()
    for path in sides.target:
        if path not in sides.source:
            above = at_or_above(path, sides.left_out)
            if above is None:
                found.append(path)
            else:
                kept[above] += 1
    for path, number in kept.items():
        if sides.up:
            why = f"{sides.file(path)!r} is left out"
        else:
            why = f"{str(Address(bucket, sides.prefix + path))!r} is a link"
        things = f"{'object' if sides.up else 'file'}{'s' if number != 1 else ''}"
        out.warn(f"{why}, so what has its name or is below it is not deleted: {number} {things}")
    return found


def _transfer(path: str, sides: Sides) -> Step:
    name, file, listed = sides.prefix + path, sides.file(path), sides.files.get(path)
    if sides.up:
        assert listed is not None
        return Step("put", name, file, listed.size)
    return Step("get", name, file, sides.objects[path].size, listed=listed)


def _deletion(path: str, sides: Sides) -> Step:
    if sides.up:
        return Step("delete", sides.prefix + path, "", revision=sides.objects[path].revision)
    return Step("delete", "", sides.file(path), listed=sides.files[path])


async def _take(step: Step, sides: Sides, store: ObjectStore, show: Progress | None) -> None:
    from objstore.read.get import in_thread

    if step.action == "put":
        await store.put_file(step.name, step.file, progress=show)
    elif step.action == "get":
        path = output_path(step.name, step.name[len(sides.prefix) :], hidden=True)
        check_apart(step.name, path, sides.ordered)
        if at_or_above(os.path.dirname(path), sides.local_links):
            raise CommandError(f"{step.file!r} is behind a link: nothing is written", 2)
        with parent_of(sides.directory, step.file, create=True) as dir_fd:
            unchanged = partial(keeping_others, step.file, step.listed, dir_fd)
            await to_file(
                store, step.name, step.file, show, follow="none", replacing=unchanged, dir_fd=dir_fd
            )
    elif step.name:
        await store.delete(step.name, if_revision=step.revision)
    else:
        assert step.listed is not None
        await in_thread(remove_file, sides.directory, step.file, step.listed)


def _label(step: Step) -> str:
    return step.file if step.action == "put" or not step.name else step.name


def _words(step: Step, bucket: str) -> str:
    name = str(Address(bucket, step.name))
    if step.action == "delete":
        return f"delete {name if step.name else step.file}"
    return f"put {step.file} {name}" if step.action == "put" else f"get {name} {step.file}"


def _document(step: Step, bucket: str, *, done: bool) -> dict[str, object]:
    document: dict[str, object] = {"action": step.action, "done": done}
    if step.name:
        document |= {"bucket": bucket, "name": step.name}
    if step.file:
        document["file"] = step.file
    return document | ({} if step.action == "delete" else {"size": step.size})


def _would(step: Step, bucket: str, out: Output) -> None:
    if out.json:
        out.record(_document(step, bucket, done=False))
    else:
        out.lines([_words(step, bucket)])


def _did(step: Step, bucket: str, out: Output) -> None:
    if out.json:
        out.record(_document(step, bucket, done=True))
    else:
        out.note(_words(step, bucket))
