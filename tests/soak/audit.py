"""What is looked at when everything stands still: every name's state, its bytes, and what is left over."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from natsproto import NatsError
from natsproto.jetstream.api.errors import MessageNotFoundError
from natsproto.jetstream.context import JetStreamContext
from objstore import ObjectStore

from .checker import Violation
from .content import digest
from .history import OK, Op, Version
from .runner import row

READABLE = 30.0
"""Seconds in which an object must be readable, once, after the servers have come back."""

CONSUMERS_GO = 20.0
CONSUMERS_GO_R3 = 100.0
"""Seconds in which the consumers of killed clients must be gone. In a cluster a server proposes to remove
them, and when that is lost it waits for 30 s, then longer, before it proposes it again."""


@dataclass
class Audit:
    """What was found in one bucket.

    Attributes:
        versions: the newest meta of every name, read and decoded by the soak itself.
        ops: the reads of it, for the checker.
        violations: what must not be.
        orphans: how many sets of chunks without a meta there were, and how many chunks in them.
        renames: half-done renames that were completed.
    """

    versions: list[Version] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    orphans: int = 0
    orphan_chunks: int = 0
    renames: int = 0
    objects: int = 0


async def raw_versions(js: JetStreamContext, bucket: str) -> list[Version]:
    """The newest meta of every name, from the leader, without the object store's help."""
    stream = f"OBJ_{bucket}"
    versions = []
    for subject in await js.stream_subjects(stream, f"$O.{bucket}.M.>"):
        try:
            message = await js.get_message(stream, last_by_subject=subject)
        except MessageNotFoundError:
            continue
        if not message.data:
            continue  # the server's own marker of something that has expired
        document = json.loads(message.data)
        link = (document.get("options") or {}).get("link") is not None
        deleted = bool(document.get("deleted"))
        recorded = (document.get("digest") or "").removeprefix("SHA-256=")
        versions.append(
            Version(
                document["name"],
                message.seq,
                document.get("description") or "",
                "" if link or deleted else (document.get("metadata") or {}).get("body", "?"),
                base64.urlsafe_b64decode(recorded).hex() if recorded else "",
                document.get("nuid") or "",
                deleted,
                link,
            )
        )
    return versions


async def patiently(work: Any, limit: float = 60.0) -> Any:
    """Do it again until it works: the servers have only just come back."""
    deadline = time.monotonic() + limit
    while True:
        try:
            return await work()
        except NatsError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)


async def audit(js: JetStreamContext, bucket: str, expiring: list[str], epoch: int) -> Audit:
    """Look at one bucket; nobody else uses it meanwhile."""
    found = Audit()
    store = await patiently(lambda: js.object_store(bucket))

    def bad(kind: str, text: str, name: str = "", revision: int = 0) -> None:
        found.violations.append(Violation(kind, bucket, name, text, revision=revision))

    for info in await patiently(store.list):
        if info.name in expiring and not info.deleted:
            try:
                await store.delete(info.name)
            except LookupError:
                pass  # it has expired
    report = await patiently(lambda: store.gc(older_than=timedelta(0)))
    found.orphans = len(report.orphans)
    found.orphan_chunks = sum(orphan.chunks for orphan in report.orphans)
    found.renames = len(report.renames)
    for invalid in report.unreadable:
        bad("unreadable meta", f"{invalid.subject} at {invalid.revision}: {invalid.error}")
    checked = await patiently(lambda: store.verify(deep=True))
    for problem in checked.problems:
        bad(
            "verify found damage",
            f"{problem.kind}: {problem.detail} (revision {problem.revision})",
            problem.name,
            problem.revision,
        )
    again = await patiently(lambda: store.gc(older_than=timedelta(0)))
    if again.orphans:
        bad("gc is not done after gc", f"{len(again.orphans)} orphans, {again.orphans[0]}")
    found.versions = [v for v in await patiently(lambda: raw_versions(js, bucket)) if v.name not in expiring]
    await _read_back(store, found, epoch)
    await _listings(store, found, bad, expiring)
    return found


async def _read_back(store: ObjectStore, found: Audit, epoch: int) -> None:
    """Read everything, as operations for the checker."""
    live = [version for version in found.versions if not version.deleted]
    now = time.monotonic()
    everything = [version.row() for version in found.versions]
    found.ops.append(
        Op(f"audit-{epoch}", "list", store.bucket, "", now, now, OK, result={"list": everything})
    )
    for number, version in enumerate(live):
        if version.link:
            continue
        op = Op(f"audit-{epoch}-{number}", "get", store.bucket, version.name, time.monotonic())
        try:
            data = await patiently(lambda name=version.name: store.get(name), READABLE)
            op.outcome, op.result = OK, {"digest": digest(data), "size": len(data)}
            found.objects += 1
        except (NatsError, TimeoutError) as exc:
            op.outcome, op.error, op.message = "fail", type(exc).__name__, str(exc)
            found.violations.append(
                Violation(
                    "unreadable when all is quiet",
                    store.bucket,
                    version.name,
                    f"{exc!r}",
                    [str(version)],
                    revision=version.revision,
                )
            )
        op.end = time.monotonic()
        found.ops.append(op)


async def _listings(store: ObjectStore, found: Audit, bad: Any, expiring: list[str]) -> None:
    """When nothing moves, every way to list says the same."""
    wanted = sorted(version.row() for version in found.versions)
    live = [item for item in wanted if not item[6] & 1]

    def own(rows: list[Any]) -> list[Any]:
        return sorted(item for item in rows if item[0] not in expiring)

    listed = own([row(info) for info in await patiently(lambda: store.list(include_deleted=True))])
    if listed != wanted:
        bad("list is not complete", _difference(listed, wanted))

    async def iterate() -> list[Any]:
        return [row(info) async for info in store.iter()]

    try:
        iterated = own(await iterate())
    except NatsError as exc:
        bad("iter fails when all is quiet", repr(exc))
        iterated = own(await patiently(iterate))
    if iterated != live:
        bad("iter is not complete", _difference(iterated, live))
    names = sorted(set(await patiently(store.names)) - set(expiring))
    if names != sorted({item[0] for item in wanted}):
        bad("names are not complete", f"{set(names) ^ {item[0] for item in wanted}}")
    status = await patiently(store.status)
    if status.count != len(live):
        bad("status counts wrong", f"{status.count}, there are {len(live)}")


def _difference(got: list[Any], wanted: list[Any]) -> str:
    return (
        f"more: {[item for item in got if item not in wanted][:5]}, "
        f"missing: {[item for item in wanted if item not in got][:5]}"
    )


UNHEARD = "nobody listens"
"""Of a consumer that its server should have removed long ago: the client has let go of it."""


async def consumers_left(
    js: JetStreamContext, bucket: str, watchers: int, replicated: bool
) -> tuple[list[str], float]:
    """Wait until only the watchers' consumers are left; what all of them are, and after how long."""
    began = time.monotonic()
    stream = f"OBJ_{bucket}"
    while True:
        names = await patiently(lambda: js.consumer_names(stream))
        took = time.monotonic() - began
        if len(names) <= watchers:
            return [], took
        if took > (CONSUMERS_GO_R3 if replicated else CONSUMERS_GO):
            break
        await asyncio.sleep(0.5)
    kinds = []
    for name in names:
        try:
            raw = (await js.consumer_info(stream, name)).raw
        except NatsError:
            continue
        config = raw["config"]
        pushed = "deliver_subject" in config
        if pushed and not raw.get("push_bound"):
            way = UNHEARD
        else:
            way = "pushed" if pushed else "pulled"
        kinds.append(
            f"{name} ({way}, of {config.get('filter_subject')} {config.get('deliver_policy')}, "
            f"idle {config.get('inactive_threshold', 0) / 1e9:g} s, made {raw.get('created')})"
        )
    return kinds, took
