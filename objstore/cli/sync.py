"""``sync``: make a directory of objects equal to a directory of files, or the other way round.

What has the same size and SHA-256 on both sides is left alone. ``--delete`` removes what only the target has:
never outside of the directory, never what changed since it was listed, and nothing at all unless the source
was listed completely. Links are left alone on both sides.
"""

from __future__ import annotations

import hashlib
import os
import threading
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .addresses import SCHEME, Address, is_address, parse_address, parse_place
from .connection import session
from .output import CommandError, Output, human_size
from .paths import output_path
from .several import each
from .transfer import to_file
from .trees import Tree, make_parents, remove_file

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
    """

    action: str
    name: str
    file: str
    size: int = 0
    revision: int = 0


@dataclass
class Sides:
    """What both sides have.

    Attributes:
        directory: the local directory.
        prefix: what the names of the objects begin with: "" or a directory with its ``/``.
        files: sizes of the local files, by their paths below the directory.
        objects: by their names below the prefix.
        local_complete: whether all files could be listed.
        remote_complete: whether all objects could be.
    """

    directory: str
    prefix: str
    files: dict[str, int]
    objects: dict[str, ObjectInfo]
    local_complete: bool
    remote_complete: bool

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
        sides = await _look(store, directory, address.name, out)
        steps, same = await (_upwards if up else _downwards)(sides, out)
        if args.delete:
            steps += _deletions(sides, out, up=up)
        if args.dry_run:
            for step in steps:
                _would(step, address.bucket, out)
            return
        size = sum(step.size for step in steps)
        progress = out.progress_of(f"{len(steps)} files", size) if size else None

        async def take(step: Step) -> None:
            await _take(step, sides, store, None if progress is None else progress.part())
            _did(step, address.bucket, out)

        transfers = [step for step in steps if step.action != "delete"]
        deletions = [step for step in steps if step.action == "delete"]
        await each(transfers, take, out, command="sync", label=_label)
        await each(deletions, take, out, command="sync", label=_label)
    done = {action: sum(step.action == action for step in steps) for action in ("put", "get", "delete")}
    out.note(
        f"{'stored' if up else 'wrote'} {done['put'] + done['get']} files ({human_size(size)}), "
        f"deleted {done['delete']}, {same} were the same"
    )
    if not (sides.local_complete if up else sides.remote_complete):
        deleted = ", so nothing was deleted" if args.delete else ""
        raise CommandError(f"sync: not everything could be read, see the warnings{deleted}", 1)


async def _look(store: ObjectStore, directory: str, prefix: str, out: Output) -> Sides:
    """List both sides."""
    from objstore.read.get import in_thread

    complete = True

    def invalid(meta: InvalidMeta) -> None:
        nonlocal complete
        complete = False
        out.warn(f"the meta message at revision {meta.revision} is skipped: {meta.error}")

    infos = await store.list(prefix=prefix, on_invalid=invalid)
    objects = {info.name[len(prefix) :]: info for info in sorted(infos, key=lambda info: info.name)}
    files, local_complete = await in_thread(_files, directory, out)
    return Sides(directory, prefix, files, objects, local_complete, complete)


def _files(directory: str, out: Output) -> tuple[dict[str, int], bool]:
    if not os.path.isdir(directory):
        return {}, True
    tree = Tree(directory, out)
    return {each.path: each.size for each in tree}, tree.complete


async def _upwards(sides: Sides, out: Output) -> tuple[list[Step], int]:
    alike = await _alike(sides, list(sides.files))
    steps = [
        Step("put", sides.prefix + path, sides.file(path), size)
        for path, size in sides.files.items()
        if path not in alike
    ]
    return steps, len(alike)


async def _downwards(sides: Sides, out: Output) -> tuple[list[Step], int]:
    alike = await _alike(sides, list(sides.objects))
    others = {path: info for path, info in sides.objects.items() if path not in alike}
    links = sum(bool(info.links) for info in others.values())
    if links:
        out.note(f"{links} link{'s are' if links != 1 else ' is'} left alone")
    steps = [
        Step("get", info.name, sides.file(path), info.size) for path, info in others.items() if not info.links
    ]
    return steps, len(alike)


async def _alike(sides: Sides, paths: Sequence[str]) -> set[str]:
    """Return the paths whose file and object have the same bytes."""
    from objstore.read.get import in_thread

    stop = threading.Event()

    def compare() -> set[str]:
        found = set()
        for path in paths:
            info = sides.objects.get(path)
            if info is None or info.links or sides.files.get(path) != info.size:
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


def _deletions(sides: Sides, out: Output, *, up: bool) -> list[Step]:
    """Return what only the target has; nothing if the source is not known completely."""
    if up:
        if not sides.local_complete:
            return []
        return [
            Step("delete", info.name, "", revision=info.revision)
            for path, info in sides.objects.items()
            if path not in sides.files and not info.links
        ]
    if not sides.remote_complete:
        return []
    return [Step("delete", "", sides.file(path)) for path in sides.files if path not in sides.objects]


async def _take(step: Step, sides: Sides, store: ObjectStore, show: Progress | None) -> None:
    from objstore.read.get import in_thread

    if step.action == "put":
        await store.put_file(step.name, step.file, progress=show)
    elif step.action == "get":
        output_path(step.name, step.name[len(sides.prefix) :], hidden=True)
        await in_thread(make_parents, sides.directory, step.file)
        await to_file(store, step.name, step.file, show, follow="none", force=True)
    elif step.name:
        await store.delete(step.name, if_revision=step.revision)
    else:
        await in_thread(remove_file, sides.directory, step.file)


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
