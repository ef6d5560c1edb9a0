"""A whole run: a bucket of its own, what must be there before, the load, and nothing left at the end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from . import objects
from .payloads import Payloads
from .processes import Connect, measure_in
from .record import Figures, Totals
from .results import Result
from .settings import Settings
from .share import Link, Share, measure

if TYPE_CHECKING:
    from natsproto.jetstream.context import JetStreamContext

CLEAN_UP = 30.0
"""Seconds that deleting the bucket may take."""


class Watcher(Protocol):
    """Who is told how a run goes on."""

    def show(self, totals: list[Totals]) -> None:
        """The state of each process, a few times a second."""

    def preparing(self, count: int) -> None:
        """So many objects are stored first."""

    def left_behind(self, bucket: str, exc: BaseException) -> None:
        """The run's bucket could not be deleted."""


async def run(settings: Settings, link: Link, connect: Connect, watcher: Watcher) -> Result:
    """Measure, and leave nothing behind, also when it is cancelled.

    Args:
        settings: what to measure.
        link: a connection: creates the bucket, and measures when there is only one process.
        connect: opens the connections of the others.
        watcher: who is told how it goes on.
    """
    info = link.client.server_info
    server = {key: info[key] for key in ("version", "server_name", "cluster") if info.get(key)}
    server["url"] = link.client.connected_url or ""
    if settings.on_objects:
        async with own_bucket(settings, link.js, watcher) as bucket:
            watcher.preparing(settings.prepared)
            store = await link.js.object_store(bucket)
            if settings.prepared:
                payloads = Payloads(settings.seed, settings.sizes.most)
                await objects.prepare(store, settings, payloads)
            found = await _measure(settings, bucket, link, connect, watcher)
    else:
        found = await _measure(settings, f"bench.{secrets.token_hex(8)}", link, connect, watcher)
    return Result.made(settings, found, server)


async def _measure(
    settings: Settings, place: str, link: Link, connect: Connect, watcher: Watcher
) -> list[Figures]:
    shares = [Share(settings, number, place) for number in range(settings.processes)]
    if len(shares) == 1:

        async def gate() -> None:
            pass

        return [await measure(shares[0], link, gate, lambda totals: watcher.show([totals]))]
    states: dict[int, Totals] = {}

    def report(number: int, totals: Totals) -> None:
        states[number] = totals
        watcher.show(list(states.values()))

    return await measure_in(shares, connect, report)


@asynccontextmanager
async def own_bucket(settings: Settings, js: JetStreamContext, watcher: Watcher) -> AsyncIterator[str]:
    """Create a bucket with a new name, and delete it at the end, whatever happens."""
    from ..errors import BucketNotFoundError

    bucket = f"bench-{secrets.token_hex(8)}"
    try:
        await js.create_object_store(
            bucket=bucket,
            description="objstore bench: can be deleted when no bench is running",
            storage=settings.storage,
            replicas=settings.replicas,
        )
        yield bucket
    finally:
        deleting = asyncio.create_task(_delete(js, bucket))
        try:
            await asyncio.shield(deleting)
        except BucketNotFoundError:
            pass  # interrupted before it was created
        except BaseException as exc:
            watcher.left_behind(bucket, exc)
            if not isinstance(exc, Exception):
                raise


async def _delete(js: JetStreamContext, bucket: str) -> None:
    async with asyncio.timeout(CLEAN_UP):
        await js.delete_object_store(bucket)
