"""``cp`` and ``mv``: between names, buckets and files.

What is moved is deleted last: when the copy is verified, and only in the state that was copied.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from .addresses import SCHEME, Address, is_address, parse_place, parse_targets
from .beneath import name_at, parent_of
from .change import open_all
from .connection import session
from .output import CommandError, Output, human_size, object_document
from .paths import check_apart, output_path
from .select import choose, patterns_of
from .several import each
from .transfer import check_target, is_stream, standard_input, to_file, to_stream
from .trees import State, Tree

if TYPE_CHECKING:
    from objstore.format.models import ObjectInfo
    from objstore.read.files import Written
    from objstore.read.links import FollowLinks, OtherBuckets
    from objstore.store import ObjectStore

    Progress = Callable[[int, int | None], None]

Place = Address | str


@dataclass(frozen=True, slots=True)
class Step:
    """One object or file to copy or move.

    Attributes:
        source: where it is.
        target: where it goes.
        directory: the local directory below which a file is; ``None``: the user has named the file.
        path: the part of the object's name that becomes the path below the directory.
    """

    source: Place
    target: Place
    directory: str | None = None
    path: str = ""


class Together:
    """Keeps the steps of one command apart: others choose names so that one step harms another.

    Attributes:
        written: the files that were written.
        others: the buckets that links lead to.
    """

    def __init__(self, command: str, steps: Sequence[Step]) -> None:
        from objstore.read import files, links

        self.written: Written = files.Written()
        self.others: OtherBuckets = links.OtherBuckets()
        self._command = command
        self._sources = {step.source for step in steps}
        self._targets = sorted(str(step.target) for step in steps)

    def check(self, step: Step) -> None:
        """Refuse a step that would replace another one's source, or whose file is a directory of others.

        Raises:
            CommandError: exit code 4 or 2.
        """
        source, target = step.source, step.target
        if target in self._sources and target != source:
            raise CommandError(
                f"{self._command}: {str(source)!r} would replace {str(target)!r}, which goes elsewhere: "
                "take them one after the other",
                4,
            )
        if isinstance(source, Address) and isinstance(target, str):
            check_apart(source.name, target, self._targets)


def places_of(args: Namespace) -> tuple[Sequence[Place], Place]:
    """Return sources and target: addresses and files, or ``BUCKET NAME… NEW``.

    Raises:
        CommandError: exit code 2.
    """
    command, words = args.command, args.places
    if any(map(is_address, words[:1] if args.literal else words)):
        *sources, target = [parse_place(word) for word in words]
        if not isinstance(target, Address) and not all(isinstance(each, Address) for each in sources):
            raise CommandError(
                f"{command}: {words[-1]!r} is a file, too: one side must be {SCHEME}BUCKET/NAME", 2
            )
        return sources, target
    if len(words) < 3:
        raise CommandError(
            f"{command}: write BUCKET NAME NEW, or {SCHEME}BUCKET/NAME on at least one side", 2
        )
    *names, new = parse_targets(command, words, literal=args.literal)
    return names, new


def check_cp(args: Namespace) -> None:
    """Refuse what cannot be copied or moved.

    Raises:
        CommandError: exit code 2.
    """
    command = args.command
    sources, target = places_of(args)
    if "-" in sources and (command == "mv" or len(sources) > 1):
        raise CommandError(f"{command}: standard input can only be copied, and alone", 2)
    if target == "-" and (command == "mv" or args.json):
        why = "it cannot be moved there" if command == "mv" else "--json wants it, too"
        raise CommandError(f"{command}: - is standard output, and {why}", 2)
    for source in sources:
        if isinstance(source, Address):
            if source.is_directory and not args.recursive:
                raise CommandError(f"{command}: {str(source)!r} is a directory: pass -r", 2)
        elif source != "-" and os.path.isdir(source) and not args.recursive:
            raise CommandError(f"{command}: {source!r} is a directory: pass -r", 2)
    if several(args) and not args.recursive and not _is_directory(target):
        raise CommandError(f"{command}: {str(target)!r} is no directory: end it with /", 2)


def several(args: Namespace) -> bool:
    """Whether there may be more than one source."""
    sources, _ = places_of(args)
    names = [source.name for source in sources if isinstance(source, Address)]
    globs = any(pattern.name is None for pattern in patterns_of(names, args))
    return args.recursive or len(sources) > 1 or globs


def _is_directory(target: Place) -> bool:
    if isinstance(target, Address):
        return target.is_directory
    return target.endswith("/") or os.path.isdir(target)


async def steps_of(args: Namespace, stores: dict[str, ObjectStore], out: Output) -> tuple[list[Step], bool]:
    """Find everything to copy, and where each goes; and whether a directory could not be read completely.

    Raises:
        CommandError: two of them would go to the same place (exit code 2); a source does not exist (3).
    """
    sources, target = places_of(args)
    into = several(args) or _is_directory(target)
    steps: dict[str, Step] = {}
    incomplete = False
    for source in sources:
        if isinstance(source, Address):
            for one in await choose(stores[source.bucket], patterns_of([source.name], args), out):
                at = Address(source.bucket, one.name)
                if isinstance(target, Address):
                    step = Step(at, _inside(target, one.path) if into else target)
                elif into:
                    step = Step(at, os.path.join(target, one.path), target, one.path)
                else:
                    step = Step(at, target)
                _add(steps, step, args.command)
            continue
        assert isinstance(target, Address)
        if args.recursive and _is_directory(source):
            tree = Tree(source, out)
            incomplete |= not tree.complete
            for file in tree:
                _add(steps, Step(file.file, _inside(target, file.path), source), args.command)
        else:
            if into and source == "-":
                raise CommandError(
                    f"{args.command}: standard input has no name: write one after {str(target)!r}", 2
                )
            _add(
                steps,
                Step(source, _inside(target, os.path.basename(source)) if into else target),
                args.command,
            )
    return list(steps.values()), incomplete


def _inside(target: Address, path: str) -> Address:
    directory = target.name if not target.name or target.name.endswith("/") else target.name + "/"
    return Address(target.bucket, directory + path)


def _add(steps: dict[str, Step], step: Step, command: str) -> None:
    other = steps.setdefault(str(step.target), step)
    if other.source != step.source:
        raise CommandError(
            f"{command}: {str(other.source)!r} and {str(step.source)!r} would both be {str(step.target)!r}", 2
        )


async def cp(args: Namespace, out: Output) -> None:
    """``cp SOURCE… TARGET`` and ``mv SOURCE… TARGET``."""
    sources, target = places_of(args)
    moving = args.command == "mv"
    done = "moved" if moving else "copied"
    async with session(args, out) as link:
        stores = await open_all(
            link, [each.bucket for each in (*sources, target) if isinstance(each, Address)]
        )
        steps, incomplete = await steps_of(args, stores, out)
        progress = out.progress_of(str(steps[0].source) if len(steps) == 1 else f"{len(steps)} objects")

        together = Together(args.command, steps)

        async def take(step: Step) -> None:
            together.check(step)
            show = None if progress is None else progress.part()
            info = await _one(step, stores, args, show, together, moving=moving)
            if step.target == "-":
                out.end_progress()
            elif out.json:
                document = object_document(info) | {"source": str(step.source), "target": str(step.target)}
                (out.record if len(steps) > 1 else out.document)(document)
            else:
                out.note(f"{done} {str(step.source)!r} to {str(step.target)!r}: {human_size(info.size)}")

        await each(
            steps,
            take,
            out,
            command=args.command,
            client=link.client,
            stores=stores.values(),
            label=lambda step: str(step.source),
        )
    if len(steps) > 1:
        out.note(f"{done} {len(steps)} objects")
    if incomplete:
        raise CommandError(f"{args.command}: not everything could be read, see the warnings", 1)


async def _one(
    step: Step,
    stores: dict[str, ObjectStore],
    args: Namespace,
    show: Progress | None,
    together: Together,
    *,
    moving: bool,
) -> ObjectInfo:
    source, target = step.source, step.target
    if isinstance(source, str):
        assert isinstance(target, Address)
        store = stores[target.bucket]
        return await _upload(step, source, store, target.name, show, moving=moving, force=args.force)
    store = stores[source.bucket]
    if isinstance(target, Address):
        if source == target:
            raise CommandError(f"{args.command}: {str(source)!r} and the target are the same object", 4)
        to = stores[target.bucket]
        follow = args.follow_links
        if moving:
            others = together.others
            return await move(
                store, source.name, to, target.name, show, force=args.force, follow=follow, others=others
            )
        from objstore.change.copy import copy

        return await copy(
            store, source.name, to, target.name, progress=show, follow=follow, others=together.others
        )
    if step.directory is None and (target == "-" or is_stream(target)):
        return await to_stream(store, source.name, target, show, follow=args.follow_links)
    return await _download(store, source.name, step, show, args, together, moving=moving)


async def _upload(
    step: Step,
    file: str,
    store: ObjectStore,
    name: str,
    show: Progress | None,
    *,
    moving: bool,
    force: bool,
) -> ObjectInfo:
    if file == "-":
        return await store.put(name, standard_input(), progress=show)
    before = os.stat(file)
    must_be_free = moving and not force
    if must_be_free and await store.exists(name):
        raise _exists(store, name)
    info = await store.put_file(name, file, progress=show, if_revision=0 if must_be_free else None)
    if moving:
        with parent_of(step.directory or os.path.dirname(file) or ".", file) as dir_fd:
            there = name_at(file, dir_fd)
            after = os.stat(there, dir_fd=dir_fd)
            if not State.of(before).same(State.of(after)) or after.st_size != info.size:
                raise CommandError(f"mv: {file!r} was changed while it was stored: it is not deleted", 1)
            os.unlink(there, dir_fd=dir_fd)
    return info


def _exists(store: ObjectStore, name: str) -> CommandError:
    return CommandError(f"mv: {str(Address(store.bucket, name))!r} exists: pass --force to replace it", 4)


async def _download(
    store: ObjectStore,
    name: str,
    step: Step,
    show: Progress | None,
    args: Namespace,
    together: Together,
    *,
    moving: bool,
) -> ObjectInfo:
    target = str(step.target)
    if step.directory is not None:
        output_path(name, step.path, hidden=True)
    revision = (await store.get_info(name)).revision if moving else None
    check_target(target, force=args.force)
    read = partial(to_file, store, name, target, show, follow=args.follow_links, force=args.force)
    if step.directory is None:
        info = await read()
    else:
        with parent_of(step.directory, target, create=True, inner_links=True) as dir_fd:
            replacing = partial(together.written.replacing, name_at(target, dir_fd), dir_fd)
            info = await read(
                replacing=replacing if args.force else None, dir_fd=dir_fd, others=together.others
            )
    if revision is not None:
        await store.delete(name, if_revision=revision)
    return info


async def move(
    store: ObjectStore,
    name: str,
    to: ObjectStore,
    new: str,
    show: Progress | None,
    *,
    force: bool,
    follow: FollowLinks,
    others: OtherBuckets,
) -> ObjectInfo:
    """Move an object: within a bucket its data stay where they are.

    Into another bucket, or onto an object that is replaced, it is copied. It is deleted when the copy is
    verified, and only in the revision that was copied.

    Raises:
        CommandError: an object has the new name and ``force`` is false, or the object was changed meanwhile;
            exit code 4.
    """
    from objstore.change.move import copy_to_move

    info = await store.get_info(name)
    taken = await to.exists(new)
    if taken and not force:
        raise _exists(to, new)
    if store.bucket == to.bucket and not taken:
        return await store.rename(name, new, if_revision=info.revision)
    if info.is_link:
        copied = await copy_to_move(store, info, to, new, follow=follow, others=others)
    else:
        # What was found is what may be replaced: an object stored there meanwhile stays.
        there = (await to.get_info(new)).revision if taken else 0
        copied = await copy_to_move(store, info, to, new, if_revision=there, progress=show)
        found = await to.get_info(new)
        if (copied.size, copied.digest) != (info.size, info.digest) or found.revision != copied.revision:
            raise CommandError(f"mv: {name!r} or its copy was changed meanwhile: it is not deleted", 4)
    await store.delete(name, if_revision=info.revision)
    return copied
