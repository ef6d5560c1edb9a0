"""What one client process does: warm up, wait for the start, measure, read back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from . import messages, objects
from .load import Load, Pace, clock
from .payloads import Payloads
from .record import Figures, Totals
from .settings import Settings

if TYPE_CHECKING:
    from natsproto.aio.client import Client
    from natsproto.jetstream.context import JetStreamContext

LIVE = 0.25
"""Seconds between two reports for the live line."""

AFTER_WARM_UP = 1 << 39
"""Number of the first measured operation; those before warmed up."""


class Link(Protocol):
    """A connection, as the command makes it."""

    @property
    def client(self) -> Client:
        """The connected client."""

    @property
    def js(self) -> JetStreamContext:
        """JetStream on it."""


@dataclass(frozen=True)
class Share:
    """The part of a run that one process does.

    Attributes:
        settings: of the whole run.
        process: its number, from 0.
        place: the run's own bucket, or the beginning of its subjects.
    """

    settings: Settings
    process: int
    place: str

    def pace(self) -> Pace:
        """Return its part of the load."""
        settings, others = self.settings, self.settings.processes
        count = settings.count
        return Pace(
            part(settings.concurrency, others, self.process),
            settings.seconds,
            None if count is None else part(count, others, self.process),
            None if settings.rate is None else settings.rate / others,
            self.process / others,
        )


def part(whole: int, others: int, number: int) -> int:
    """Return one of ``others`` parts of a number; the first ones get the rest."""
    return whole // others + (number < whole % others)


async def measure(
    share: Share, link: Link, gate: Callable[[], Awaitable[object]], report: Callable[[Totals], None]
) -> Figures:
    """Do one process's part, and return what was measured.

    Args:
        share: the part.
        link: a connection.
        gate: waits for all the others to be ready.
        report: gets the state a few times a second.
    """
    settings = share.settings
    payloads = Payloads(settings.seed, settings.sizes.most)
    async with AsyncExitStack() as stack:
        work: objects.Objects | messages.Messages
        if settings.on_objects:
            store = await link.js.object_store(share.place)
            work = objects.WORKS[settings.work](store, settings, payloads, share.process)
        else:
            subject = f"{share.place}.{share.process}"
            work = messages.WORKS[settings.work](link.client, settings, payloads, subject)
            await work.open(stack)
        pace = share.pace()
        if settings.warmup:
            warmup = Pace(pace.concurrency, settings.warmup, None, pace.rate, pace.phase)
            await _watched(Load(work, warmup, Figures()), "warm-up", report)
        await gate()
        load = Load(work, pace, Figures(), AFTER_WARM_UP)
        await _watched(load, "measuring", report)
        report(Totals("checking", 0.0, 0, 0, 0, {}))
        load.figures.checked = await work.check()
        return load.figures


async def _watched(load: Load, phase: str, report: Callable[[Totals], None]) -> None:
    async def watch() -> None:
        while True:
            await asyncio.sleep(LIVE)
            found = load.figures
            latency: dict[int, int] = {}
            for series in list(found.series.values()):
                for bucket, count in series.latency.counts.items():
                    latency[bucket] = latency.get(bucket, 0) + count
            report(Totals(phase, clock() - load.started, found.ops, found.bytes, found.failed_ops, latency))

    watcher = asyncio.create_task(watch())
    try:
        await load.run()
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
