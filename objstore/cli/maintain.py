"""``verify``, ``gc``, ``purge-deleted``: report problems of a bucket, and remove what nothing needs."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from .connection import session
from .output import CommandError, Output, human_size, human_time

if TYPE_CHECKING:
    from objstore.maintenance.reports import GcReport, VerifyReport


async def verify(args: Namespace, out: Output) -> None:
    """``verify BUCKET [--deep]``.

    Raises:
        CommandError: exit code 7 when there are problems.
    """
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        report = await store.verify(deep=args.deep)
    if out.json:
        out.document(verify_document(report))
    elif report.problems:
        rows = [(each.name, each.kind, each.detail, str(each.revision)) for each in report.problems]
        out.table(("NAME", "PROBLEM", "DETAIL", "REVISION"), rows, right=(3,))
    what = f"{many(report.objects, 'object')} and {many(report.links, 'link')} in bucket {report.bucket!r}"
    if not report.ok:
        raise CommandError(f"{many(len(report.problems), 'problem')} among {what}", 7)
    how = "read and compared" if report.deep else "counted; --deep reads them"
    out.note(f"no problems: {what}, {human_size(report.size)}, {how}")


def verify_document(report: VerifyReport) -> dict[str, object]:
    """Return the JSON document of a check."""
    return {
        "bucket": report.bucket,
        "ok": report.ok,
        "deep": report.deep,
        "objects": report.objects,
        "links": report.links,
        "size": report.size,
        "problems": [
            {"kind": each.kind, "name": each.name, "detail": each.detail, "revision": each.revision}
            for each in report.problems
        ],
    }


async def gc(args: Namespace, out: Output) -> None:
    """``gc BUCKET [--older-than TIME] [--dry-run]``.

    Raises:
        CommandError: exit code 1 when chunks could not be removed.
    """
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        report = await store.gc(older_than=args.older_than, dry_run=args.dry_run)
    if out.json:
        out.document(gc_document(report))
    elif report.orphans:
        rows = [
            (each.nuid, str(each.chunks), human_time(each.stored), "yes" if each.removed else "no")
            for each in report.orphans
        ]
        out.table(("NUID", "CHUNKS", "STORED", "REMOVED"), rows, right=(1,))
    for invalid in report.unreadable:
        out.warn(f"the meta message at revision {invalid.revision} is left alone: {invalid.error}")
    for old, new in report.renames:
        out.note(f"half-done rename of {old!r} to {new!r}{'' if report.dry_run else ' completed'}")
    for name, count in report.copies:
        done = "" if report.dry_run else " removed"
        out.note(f"late copies of chunks behind {name!r}{done}: {many(count, 'message')}")
    left = sum(not each.removed for each in report.orphans)
    removed = len(report.orphans) - left
    if report.dry_run:
        out.note(f"{many(left, 'orphan')} would be removed, {len(report.recent)} too young")
        return
    if left:
        raise CommandError(f"{many(left, 'orphan')} could not be removed from bucket {report.bucket!r}", 1)
    out.note(f"{many(removed, 'orphan')} removed, {len(report.recent)} too young")


def gc_document(report: GcReport) -> dict[str, object]:
    """Return the JSON document of a garbage collection."""
    from objstore.format.codec import format_rfc3339

    return {
        "bucket": report.bucket,
        "dry_run": report.dry_run,
        "orphans": [
            {
                "nuid": each.nuid,
                "chunks": each.chunks,
                "stored": format_rfc3339(each.stored),
                "removed": each.removed,
            }
            for each in report.orphans
        ],
        "recent": list(report.recent),
        "renames": [{"from": old, "to": new} for old, new in report.renames],
        "copies": [{"name": name, "messages": count} for name, count in report.copies],
        "unreadable": [
            {"subject": each.subject, "revision": each.revision, "error": str(each.error)}
            for each in report.unreadable
        ],
    }


async def purge_deleted(args: Namespace, out: Output) -> None:
    """``purge-deleted BUCKET [--older-than TIME]``."""
    async with session(args, out) as link:
        store = await link.open(args.bucket)
        removed = await store.purge_deleted(args.older_than)
    if out.json:
        out.document({"bucket": args.bucket, "removed": removed})
    else:
        out.note(f"{many(removed, 'delete marker')} removed from bucket {args.bucket!r}")


def many(count: int, what: str) -> str:
    """Return ``1 object``, ``2 objects``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
