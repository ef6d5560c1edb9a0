"""``ls`` and ``info``, of buckets and of objects."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from .buckets import list_buckets, show_status
from .connection import session
from .listing import ls_objects
from .output import Output, human_size, human_time, object_document

if TYPE_CHECKING:
    from objstore.format.models import ObjectInfo


async def ls(args: Namespace, out: Output) -> None:
    """``ls [BUCKET [PREFIX|GLOB]…]``."""
    async with session(args, out) as link:
        if args.bucket is None:
            await list_buckets(link, args, out)
        else:
            await ls_objects(await link.open(args.bucket, *args.prefixes), args, out)


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
                out.facts(object_facts(found))


def object_facts(found: ObjectInfo) -> list[tuple[str, str]]:
    """Return what ``info`` shows of an object."""
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
