"""The commands that change objects where they are: ``rm``, ``meta``, ``ln``."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from .addresses import Address, is_address, parse_address, parse_targets
from .commands import object_facts
from .connection import Session, session
from .globs import is_glob
from .output import CommandError, Output, confirm, object_document
from .select import Chosen, choose, patterns_of
from .several import each
from .storing import headers_of

if TYPE_CHECKING:
    from objstore.format.models import ObjectInfo
    from objstore.store import ObjectStore

TRIES = 5
"""Times that ``meta`` applies its changes to an object that others change at the same time."""


async def open_all(link: Session, buckets: list[str]) -> dict[str, ObjectStore]:
    """Open several buckets, each once."""
    return {bucket: await link.open(bucket) for bucket in dict.fromkeys(buckets)}


# -- rm -----------------------------------------------------------------------------------------------------


def check_rm(args: Namespace) -> None:
    """Refuse what is too much without ``-r``, and ask a person once.

    Raises:
        CommandError: nobody can be asked, or a name is missing (exit code 2), or the answer is no (1).
    """
    targets = parse_targets("rm", args.targets, literal=args.literal)
    for target in targets:
        if not target.name and not args.recursive:
            raise CommandError(f"rm: {str(target)!r} is a bucket: pass -r to delete all its objects", 2)
    if args.force or args.dry_run:
        return
    what = ", ".join(repr(target.name) if target.name else "everything" for target in targets)
    below = " and everything below" if args.recursive and all(target.name for target in targets) else ""
    buckets = ", ".join(repr(bucket) for bucket in dict.fromkeys(target.bucket for target in targets))
    confirm("rm", f"Delete {what}{below} from bucket {buckets}?", "delete", "nothing was deleted")


async def rm(args: Namespace, out: Output) -> None:
    """``rm BUCKET NAME…``."""
    targets = parse_targets("rm", args.targets, literal=args.literal)
    async with session(args, out) as link:
        stores = await open_all(link, [target.bucket for target in targets])
        found: list[tuple[ObjectStore, Chosen]] = []
        for bucket, store in stores.items():
            names = [target.name for target in targets if target.bucket == bucket]
            patterns = patterns_of(names, args)
            found += [(store, one) for one in await choose(store, patterns, out)]
        several = len(found) > 1

        async def delete(item: tuple[ObjectStore, Chosen]) -> None:
            store, one = item
            if args.dry_run:
                await store.get_info(one.name)
            else:
                await store.delete(one.name)
            if out.json:
                document = {"bucket": store.bucket, "name": one.name, "deleted": not args.dry_run}
                (out.record if several else out.document)(document)
            elif args.dry_run:
                out.lines([f"delete {Address(store.bucket, one.name)}"])
            else:
                out.note(f"deleted {one.name!r} from bucket {store.bucket!r}")

        await each(
            found,
            delete,
            out,
            command="rm",
            client=link.client,
            stores=stores.values(),
            label=lambda item: item[1].name,
        )
    if several and not args.dry_run:
        out.note(f"deleted {len(found)} objects")


# -- meta ---------------------------------------------------------------------------------------------------


async def meta(args: Namespace, out: Output) -> None:
    """``meta BUCKET NAME``: show description, headers and metadata, or change them."""
    (target,) = parse_targets("meta", args.targets)
    edits = (args.description is not None, args.headers, args.metadata, args.no_headers, args.no_metadata)
    async with session(args, out) as link:
        store = await link.open(target.bucket, *args.targets[1:])
        info = await (_edit(store, target.name, args) if any(edits) else store.get_info(target.name))
    if out.json:
        out.document(object_document(info))
    elif any(edits):
        out.note(
            f"changed the meta of {info.name!r} in bucket {info.bucket!r}, now at revision {info.revision}"
        )
    else:
        out.facts(object_facts(info))


def check_meta(args: Namespace) -> None:
    """Refuse anything but one object.

    Raises:
        CommandError: exit code 2.
    """
    targets = parse_targets("meta", args.targets)
    if len(targets) != 1 or not targets[0].name:
        raise CommandError("meta: name one object", 2)


async def _edit(store: ObjectStore, name: str, args: Namespace) -> ObjectInfo:
    """Change what was asked for and keep the rest, whatever others change at the same time."""
    from objstore.errors import RevisionConflictError
    from objstore.format.models import ObjectMeta

    tries = TRIES
    while True:
        info = await store.get_info(name)
        headers = metadata = None  # they stay
        if args.headers or args.no_headers:
            headers = {} if info.headers is None else info.headers.as_wire()
            headers |= headers_of(args.headers) or {}
            headers = {key: values for key, values in headers.items() if key not in args.no_headers}
        if args.metadata or args.no_metadata:
            pairs = {**info.metadata, **dict(args.metadata)}
            metadata = {key: value for key, value in pairs.items() if key not in args.no_metadata}
        revision = info.revision if args.if_revision is None else args.if_revision
        changed = ObjectMeta(name, args.description, headers, metadata=metadata)
        try:
            return await store.update_meta(name, changed, if_revision=revision)
        except RevisionConflictError:
            tries -= 1
            if args.if_revision is not None or not tries:
                raise


# -- ln -----------------------------------------------------------------------------------------------------


def link_of(args: Namespace) -> tuple[Address, Address]:
    """Return the target and the link of ``ln``.

    Raises:
        CommandError: exit code 2.
    """
    words = args.targets
    if any(map(is_address, words)):
        if len(words) != 2:
            raise CommandError("ln: write natsobj://BUCKET/TARGET natsobj://BUCKET/LINK", 2)
        target, name = map(parse_address, words)
    else:
        if len(words) != 3:
            raise CommandError(
                "ln: write BUCKET TARGET LINK, or natsobj://BUCKET/TARGET natsobj://BUCKET/LINK", 2
            )
        target, name = Address(words[0], words[1]), Address(words[0], words[2])
    if not name.name or is_glob(target.name):
        what = "the link needs a name" if not name.name else "a link has one target, not a pattern"
        raise CommandError(f"ln: {what}", 2)
    return target, name


def check_ln(args: Namespace) -> None:
    """Refuse what is no link.

    Raises:
        CommandError: exit code 2.
    """
    link_of(args)


async def ln(args: Namespace, out: Output) -> None:
    """``ln BUCKET TARGET LINK``, or addresses; the target may be a whole bucket."""
    from objstore.format.models import ObjectLink

    target, name = link_of(args)
    async with session(args, out) as link:
        store = await link.open(name.bucket)
        if target.name:
            where = ObjectLink(target.bucket, target.name)
            info = await store.add_link(name.name, where, description=args.description)
        else:
            await link.open(target.bucket)  # the library allows links to buckets that do not exist yet
            info = await store.add_bucket_link(name.name, target.bucket, description=args.description)
    if out.json:
        out.document(object_document(info))
    else:
        out.note(f"{info.name!r} in bucket {info.bucket!r} is a link to {(info.links or [''])[0]!r}")
