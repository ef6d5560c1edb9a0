"""The commands that list and show, and ``rm``."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from .buckets import list_buckets, show_status
from .connection import session
from .output import Output, confirm, human_size, human_time, object_document

if TYPE_CHECKING:
    from objstore.format.models import InvalidMeta, ObjectInfo
    from objstore.store import ObjectStore


def check_rm(args: Namespace) -> None:
    """Ask before an object is deleted.

    Raises:
        CommandError: nobody can be asked (exit code 2), or the answer is no (1).
    """
    if not args.force:
        confirm("rm", f"Delete {args.name!r} from bucket {args.bucket!r}?", "delete", "nothing was deleted")


async def ls(args: Namespace, out: Output) -> None:
    """``ls [BUCKET]``."""
    async with session(args, out) as link:
        if args.bucket is None:
            await list_buckets(link, args, out)
        else:
            await _list_objects(await link.open(args.bucket), args, out)


async def _list_objects(store: ObjectStore, args: Namespace, out: Output) -> None:
    def invalid(meta: InvalidMeta) -> None:
        out.warn(f"the meta message at revision {meta.revision} is skipped: {meta.error}")

    infos = sorted(await store.list(on_invalid=invalid), key=lambda info: info.name)
    if out.json:
        for info in infos:
            out.record(info.name if args.names else object_document(info))
    elif args.names or args.null:
        out.lines([info.name for info in infos], null=args.null)
    elif infos:
        rows = [(_shown_name(info), human_size(info.size), human_time(info.mtime)) for info in infos]
        out.table(("NAME", "SIZE", "MODIFIED"), rows, right=(1,))
    else:
        out.note(f"bucket {store.bucket!r} is empty")


def _shown_name(info: ObjectInfo) -> str:
    return f"{info.name} -> {info.links[0]}" if info.links else info.name


async def info(args: Namespace, out: Output) -> None:
    """``info BUCKET [NAME]``."""
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        if args.name is None:
            show_status(await store.status(), out)
        else:
            found = await store.get_info(args.name)
            if out.json:
                out.document(object_document(found))
            else:
                out.facts(_object_facts(found))


def _object_facts(found: ObjectInfo) -> list[tuple[str, str]]:
    facts = [("Name", found.name), ("Bucket", found.bucket)]
    if found.description:
        facts.append(("Description", found.description))
    if found.links:
        facts.append(("Link to", found.links[0]))
    facts += [
        ("Size", f"{human_size(found.size)} ({found.size} bytes)"),
        ("Chunks", str(found.chunks)),
        ("Digest", found.digest or "none"),
        ("Modified", human_time(found.mtime)),
        ("Revision", str(found.revision)),
    ]
    for key in found.headers or ():
        assert found.headers is not None
        facts += [("Header", f"{key}: {value}") for value in found.headers.get_all(key)]
    facts += [("Metadata", f"{key}={value}") for key, value in sorted(found.metadata.items())]
    return facts


async def rm(args: Namespace, out: Output) -> None:
    """``rm BUCKET NAME``."""
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        await store.delete(args.name)
    if out.json:
        out.document({"bucket": args.bucket, "name": args.name, "deleted": True})
    else:
        out.note(f"deleted {args.name!r} from bucket {args.bucket!r}")
