"""The commands that list and show, and ``rm``."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import TYPE_CHECKING

from .connection import Session, session
from .output import Output, confirm, human_size, human_time, object_document, status_document

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StreamInfo
    from objstore.format.models import InvalidMeta, ObjectInfo, ObjectStoreStatus
    from objstore.store import ObjectStore

COUNTING = 8
"""Buckets whose objects are counted at the same time."""


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
            await _list_buckets(link, args, out)
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


async def _list_buckets(link: Session, args: Namespace, out: Output) -> None:
    from objstore.errors import BadBucketError
    from objstore.format.naming import OBJ_STREAM_TEMPLATE, check_bucket

    prefix = OBJ_STREAM_TEMPLATE.format(bucket="")

    def bucket_of(stream: str) -> str | None:
        if not stream.startswith(prefix):
            return None
        try:
            return check_bucket(stream.removeprefix(prefix))
        except BadBucketError:
            return None

    if args.names or args.null:
        names = sorted(filter(None, map(bucket_of, await link.steady(link.js.stream_names))))
        if out.json:
            for name in names:
                out.record(name)
        else:
            out.lines(names, null=args.null)
        return
    streams = {bucket_of(info.config.name): info for info in await link.steady(link.js.streams)}
    streams.pop(None, None)
    counting = asyncio.Semaphore(COUNTING)
    found = await asyncio.gather(*(_status(link, str(name), streams[name], counting) for name in streams))
    statuses = sorted((status for status in found if status), key=lambda status: status.bucket)
    if out.json:
        for status in statuses:
            out.record(status_document(status))
    elif statuses:
        rows = [(status.bucket, str(status.count), human_size(status.size)) for status in statuses]
        out.table(("BUCKET", "OBJECTS", "SIZE"), rows, right=(1, 2))
    else:
        out.note("there are no buckets: create one with: objstore bucket add NAME")


async def _status(
    link: Session, name: str, info: StreamInfo, counting: asyncio.Semaphore
) -> ObjectStoreStatus | None:
    """Return a bucket's status; ``None`` when it was deleted meanwhile."""
    from objstore.bucket.bucket import Bucket
    from objstore.errors import BucketNotFoundError
    from objstore.format.buckets import store_status
    from objstore.listing.metas import newest_metas

    async with counting:
        try:
            metas = await newest_metas(Bucket(link.js, name, info), lambda invalid: None)
        except BucketNotFoundError:
            return None
    return store_status(info.raw, sum(not meta.deleted for meta in metas))


async def info(args: Namespace, out: Output) -> None:
    """``info BUCKET [NAME]``."""
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        if args.name is None:
            status = await store.status()
            if out.json:
                out.document(status_document(status))
            else:
                out.facts(_status_facts(status))
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


def _status_facts(status: ObjectStoreStatus) -> list[tuple[str, str]]:
    facts = [("Bucket", status.bucket)]
    if status.description:
        facts.append(("Description", status.description))
    facts += [
        ("Objects", str(status.count)),
        ("Size", f"{human_size(status.size)} ({status.size} bytes)"),
        ("Limit", "none" if status.max_bytes < 0 else human_size(status.max_bytes)),
        ("TTL", "none" if status.ttl is None else str(status.ttl)),
        ("Storage", status.storage),
        ("Replicas", str(status.replicas)),
        ("Compressed", "yes" if status.compression else "no"),
        ("Sealed", "yes" if status.sealed else "no"),
        ("Stream", status.stream),
    ]
    facts += [("Metadata", f"{key}={value}") for key, value in sorted(status.metadata.items())]
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
