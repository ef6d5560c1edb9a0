"""The commands on buckets."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from .connection import Session, session
from .output import CommandError, Output, confirm, human_duration, human_size, human_time, status_document

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StreamInfo
    from objstore.errors import BucketAlreadyExistsError
    from objstore.format.models import (
        BucketFields,
        BucketSource,
        ObjectStoreConfig,
        ObjectStoreStatus,
        Placement,
    )

COUNTING = 8
"""Buckets whose objects are counted at the same time."""


async def add(args: Namespace, out: Output) -> None:
    """``bucket add BUCKET``.

    Raises:
        BucketAlreadyExistsError: it exists with another configuration; the message lists the differences.
    """
    from objstore.errors import BucketAlreadyExistsError
    from objstore.format.models import ObjectStoreConfig

    params = _fields(args)
    params["storage"] = args.storage
    wanted = ObjectStoreConfig(**params)
    async with session(args, out) as link:
        try:
            store = await link.steady(lambda: link.js.create_object_store(wanted))
        except BucketAlreadyExistsError as exc:
            raise await _differing(link, wanted, exc) from exc
        if out.json:
            out.document(status_document(await store.status()))
        else:
            out.note(f"bucket {args.bucket!r} is ready")


def _fields(args: Namespace) -> BucketFields:
    """Return the fields of a bucket that the arguments name."""
    from objstore.format.models import BucketSource

    found: BucketFields = {"bucket": args.bucket}
    if args.description is not None:
        found["description"] = args.description
    if args.ttl is not None:
        found["ttl"] = args.ttl or None
    if args.max_bytes is not None:
        found["max_bytes"] = args.max_bytes or -1
    if args.replicas is not None:
        found["replicas"] = args.replicas
    if args.cluster is not None or args.tags is not None:
        found["placement"] = _placement(args, None)
    if args.metadata:
        found["metadata"] = dict(args.metadata)
    if args.compress is not None:
        found["compression"] = args.compress
    if args.allow_direct is not None:
        found["allow_direct"] = args.allow_direct
    if args.allow_atomic is not None:
        found["allow_atomic"] = args.allow_atomic
    if args.allow_ttl is not None:
        found["allow_msg_ttl"] = args.allow_ttl
    if args.sources:
        found["sources"] = [BucketSource(*source) for source in args.sources]
    if getattr(args, "mirror", None) is not None:
        found["mirror"] = BucketSource(*args.mirror)
    return found


def _placement(args: Namespace, before: Placement | None) -> Placement | None:
    """Return the placement that the arguments name; what they do not name is as before."""
    from objstore.format.models import Placement

    there = before or Placement()
    cluster = there.cluster if args.cluster is None else args.cluster or None
    tags = tuple(there.tags if args.tags is None else filter(None, args.tags))
    return Placement(cluster, tags) if cluster or tags else None


async def _differing(
    link: Session, wanted: ObjectStoreConfig, exc: BucketAlreadyExistsError
) -> BucketAlreadyExistsError:
    """Return the error with the fields that differ, as far as we know them."""
    from dataclasses import fields

    from objstore.errors import BucketAlreadyExistsError, NatsError
    from objstore.format.buckets import bucket_config, stream_config
    from objstore.format.naming import stream_name

    try:
        raw = (await link.js.stream_info(stream_name(wanted.bucket))).config.to_json()
        there = bucket_config(raw)
        asked = bucket_config(stream_config(wanted))
    except NatsError:
        return exc
    differing = [
        f"{_OPTIONS.get(field.name, field.name)} is {_shown(old)}, not {_shown(new)}"
        for field in fields(asked)
        if (old := getattr(there, field.name)) != (new := getattr(asked, field.name))
    ]
    if not differing:
        text = f"stream {stream_name(wanted.bucket)!r} exists, but not as bucket add creates it"
        return BucketAlreadyExistsError(f"{exc}: {text}", bucket=wanted.bucket)
    return BucketAlreadyExistsError(
        f"{exc}: {'; '.join(differing)}. Change it with: objstore bucket edit {wanted.bucket}",
        bucket=wanted.bucket,
    )


_OPTIONS = {
    "max_bytes": "max-bytes",
    "compression": "compress",
    "allow_direct": "allow-direct",
    "allow_atomic": "allow-atomic",
    "allow_msg_ttl": "allow-ttl",
}
"""Options by the field of the configuration that they set."""


def _shown(value: object) -> str:
    from datetime import timedelta

    from objstore.format.models import BucketSource, Placement

    if value is None or value == -1 or value == ():
        return "none"
    if isinstance(value, timedelta):
        return human_duration(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, BucketSource):
        return _source_text(value)
    if isinstance(value, Placement):
        parts = [f"cluster {value.cluster}"] if value.cluster else []
        return " ".join([*parts, *(f"tag {tag}" for tag in value.tags)])
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return str(value)


def _source_text(source: BucketSource) -> str:
    return source.bucket if source.domain is None else f"{source.bucket}@{source.domain}"


def check_edit(args: Namespace) -> None:
    """Refuse an edit that changes nothing.

    Raises:
        CommandError: exit code 2.
    """
    if len(_fields(args)) == 1 and not args.unset_metadata:
        raise CommandError("bucket edit: name what to change. See: objstore bucket edit --help", 2)


async def edit(args: Namespace, out: Output) -> None:
    """``bucket edit BUCKET``: what is not named stays."""
    from objstore.format.buckets import bucket_config

    changes = _fields(args)
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        config = (await link.steady(lambda: link.js.stream_info(store.bound_bucket.stream))).config
        if args.metadata or args.unset_metadata:
            kept = dict(bucket_config(config.to_json()).metadata or {})
            for key in args.unset_metadata:
                kept.pop(key, None)
            changes["metadata"] = {**kept, **dict(args.metadata)}
        if args.cluster is not None or args.tags is not None:
            changes["placement"] = _placement(args, bucket_config(config.to_json()).placement)
        store = await link.steady(lambda: link.js.update_object_store(**changes))
        if out.json:
            out.document(status_document(await store.status()))
        else:
            out.note(f"bucket {args.bucket!r} is changed")


def check_seal(args: Namespace) -> None:
    """Ask before a bucket becomes read-only.

    Raises:
        CommandError: nobody can be asked (exit code 2), or the answer is no (1).
    """
    if not args.force:
        question = f"Make bucket {args.bucket!r} read-only for good? This cannot be undone."
        confirm("bucket seal", question, "seal", "nothing was changed")


async def seal(args: Namespace, out: Output) -> None:
    """``bucket seal BUCKET``."""
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        await store.seal()
        if out.json:
            out.document(status_document(await store.status()))
        else:
            out.note(f"bucket {args.bucket!r} is sealed: it is read-only for good")


def check_rm(args: Namespace) -> None:
    """Ask before a bucket is deleted.

    Raises:
        CommandError: nobody can be asked (exit code 2), or the answer is no (1).
    """
    if not args.force:
        question = f"Delete bucket {args.bucket!r} with everything in it?"
        confirm("bucket rm", question, "delete", "nothing was deleted")


async def rm(args: Namespace, out: Output) -> None:
    """``bucket rm BUCKET``."""
    async with session(args, out) as link:
        await link.js.delete_object_store(args.bucket)
    if out.json:
        out.document({"bucket": args.bucket, "deleted": True})
    else:
        out.note(f"deleted bucket {args.bucket!r}")


async def ls(args: Namespace, out: Output) -> None:
    """``bucket ls``."""
    async with session(args, out) as link:
        await list_buckets(link, args, out)


async def info(args: Namespace, out: Output) -> None:
    """``bucket info BUCKET``."""
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        show_status(await store.status(), out)


async def list_buckets(link: Session, args: Namespace, out: Output) -> None:
    """List the buckets, their objects counted."""
    from objstore.bucket.at_once import run_all
    from objstore.manager import bucket_streams

    if args.names or args.null:
        names = await link.steady(link.js.object_store_names)
        if out.json:
            for name in names:
                out.record(name)
        else:
            out.lines(names, null=args.null)
        return
    streams = await link.steady(lambda: bucket_streams(link.js))
    found = await run_all((_status(link, name, info, out) for name, info in streams), COUNTING)
    statuses = [status for status in found if status]
    if out.json:
        for status in statuses:
            out.record(status_document(status))
    elif statuses:
        rows = [(status.bucket, _number(status.count), human_size(status.size)) for status in statuses]
        out.table(("BUCKET", "OBJECTS", "SIZE"), rows, right=(1, 2))
    else:
        out.note("there are no buckets: create one with: objstore bucket add NAME")


async def _status(link: Session, name: str, info: StreamInfo, out: Output) -> ObjectStoreStatus | None:
    """Return a bucket's status; ``None`` when it was deleted meanwhile.

    A bucket that cannot be counted, because this user may not read it, or it has no leader, hides no other.
    """
    from natsproto.errors import AuthorizationError, ConnectionClosedError, NatsError, NoServersError
    from objstore.bucket.bucket import Bucket
    from objstore.errors import BucketNotFoundError
    from objstore.format.buckets import store_status
    from objstore.listing.metas import newest_metas

    try:
        metas = await newest_metas(Bucket(link.js, name, info), lambda invalid: None)
    except BucketNotFoundError:
        return None
    except (AuthorizationError, ConnectionClosedError, NoServersError):
        raise
    except NatsError as exc:
        out.warn(f"the objects of bucket {name!r} were not counted: {exc}")
        return store_status(info.raw, -1)
    return store_status(info.raw, sum(not meta.deleted for meta in metas))


def _number(count: int) -> str:
    return "?" if count < 0 else str(count)


def show_status(status: ObjectStoreStatus, out: Output) -> None:
    """Show everything about a bucket."""
    if out.json:
        out.document(status_document(status))
    else:
        out.facts(_facts(status))


def _facts(status: ObjectStoreStatus) -> list[tuple[str, str]]:
    facts = [("Bucket", status.bucket)]
    if status.description:
        facts.append(("Description", status.description))
    facts += [
        ("Objects", str(status.count)),
        ("Size", f"{human_size(status.size)} ({status.size} bytes)"),
        ("Limit", "none" if status.max_bytes < 0 else human_size(status.max_bytes)),
        ("TTL", "none" if status.ttl is None else human_duration(status.ttl)),
        ("Storage", status.storage),
        ("Replicas", str(status.replicas)),
        ("Compressed", "yes" if status.compression else "no"),
        ("Sealed", "yes" if status.sealed else "no"),
        ("Stream", status.stream),
    ]
    allowed = [what for what, on in _allowed(status).items() if on]
    facts.append(("Allows", ", ".join(allowed) or "nothing special"))
    if status.placement is not None:
        if status.placement.cluster:
            facts.append(("Cluster", status.placement.cluster))
        facts += [("Tag", tag) for tag in status.placement.tags]
    if status.mirror is not None:
        facts.append(("Mirror of", _source_text(status.mirror)))
    facts += [("Source", _source_text(source)) for source in status.sources]
    if status.created is not None:
        facts.append(("Created", human_time(status.created)))
    facts += [("Metadata", f"{key}={value}") for key, value in sorted(status.metadata.items())]
    return facts


def _allowed(status: ObjectStoreStatus) -> dict[str, bool]:
    return {
        "direct reads": status.allow_direct,
        "atomic puts": status.allow_atomic,
        "a TTL per object": status.allow_msg_ttl,
    }
