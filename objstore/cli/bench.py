"""``bench``: measure a server, and compare two measurements."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from .connection import Session, session
from .output import CommandError, Output, is_terminal, say

if TYPE_CHECKING:
    from objstore.bench.record import Figures, Totals
    from objstore.bench.settings import Settings

SHOW = 0.2
"""Seconds between two updates of the live line."""

DURATION, WARM_UP = 10.0, timedelta(seconds=1)
RATE_CONCURRENCY = 32
"""Operations at a time of each process with ``--rate``."""

ACTIONS = {"pub": "publish", "sub": "subscribe", "req": "request"}


def settings(args: Namespace) -> Settings:
    """Return what is to be measured."""
    from objstore.bench.settings import Settings

    work = args.command.removeprefix("bench ")
    if work == "core":
        work = ACTIONS.get(args.action, args.action)
    each = 1 if args.rate is None else RATE_CONCURRENCY
    seconds = DURATION if args.duration is None and args.count is None else args.duration
    found = {
        key: getattr(args, key)
        for key in ("objects", "range_size", "mix", "batch", "storage", "replicas", "chunk_size")
        if hasattr(args, key)
    }
    return Settings(
        work=work,
        sizes=args.size,
        seconds=seconds,
        count=args.count,
        warmup=(WARM_UP if args.warmup is None else args.warmup).total_seconds(),
        rate=args.rate,
        concurrency=args.concurrency or each * args.processes,
        processes=args.processes,
        seed=args.random_seed,
        **found,
    )


def check(args: Namespace) -> None:
    """Refuse what cannot work, before connecting.

    Raises:
        CommandError: exit code 2.
    """
    name = args.command
    if args.concurrency is not None and args.concurrency < args.processes:
        raise CommandError(f"{name}: --concurrency is for all --processes together: one each at least", 2)
    if args.count is not None and args.count < args.processes:
        raise CommandError(f"{name}: --count is for all --processes together: one each at least", 2)
    if name == "bench mixed" and args.objects is not None and args.objects < args.processes:
        raise CommandError(f"{name}: --objects are shared out among the --processes: one each at least", 2)
    if args.csv is not None:
        directory = os.path.dirname(args.csv) or "."
        if os.path.isdir(args.csv) or not os.path.isdir(directory) or not os.access(directory, os.W_OK):
            raise CommandError(f"{name}: --csv {args.csv!r} cannot be written there", 2)


async def bench(args: Namespace, out: Output) -> None:
    """``bench put|get|range|list|mixed|core``."""
    from objstore.bench import report, results
    from objstore.bench.run import run

    chosen = settings(args)
    live = Live(args, out, chosen)
    with _terminated():
        try:
            async with session(args, out) as link:
                _check_sizes(chosen, link)
                result = await run(chosen, link, partial(connection, args), live)
        finally:
            live.hide()
    if args.csv is not None:
        import secrets

        try:
            results.write_whole(args.csv, report.csv_text(result, secrets.token_hex(8)))
        except results.ResultError as exc:
            raise CommandError(str(exc), 1) from None
    if out.json:
        out.document(result.document())
    else:
        out.lines(report.lines(result))
    _judge(result.figures)


def _check_sizes(chosen: Settings, link: Session) -> None:
    limit = link.client.max_payload
    if not chosen.on_objects and chosen.sizes.most > limit:
        raise CommandError(f"bench core: the server takes messages of at most {limit} bytes", 2)


def _judge(figures: Figures) -> None:
    """End with an error if operations failed; wrong bytes count more than anything else."""
    if not figures.failures:
        return
    worst = max(figures.failures.values(), key=lambda failure: (failure.code == 7, failure.count))
    total = figures.ops + figures.failed_ops
    raise CommandError(
        f"bench: {figures.failed_ops} of {total} operations failed: {worst.example}", worst.code
    )


@asynccontextmanager
async def connection(args: Namespace) -> AsyncIterator[Session]:
    """Connect as the command does, in a process of its own."""
    async with session(args, Output(quiet=True)) as link:
        yield link


@contextmanager
def _terminated() -> Iterator[None]:
    """Let a request to terminate end the run as an interrupt does: it cleans up."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    asked = False

    def ask() -> None:
        nonlocal asked
        asked = True
        if task is not None:
            task.cancel()

    try:
        loop.add_signal_handler(signal.SIGTERM, ask)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or no such signals here
        yield
        return
    try:
        yield
    except asyncio.CancelledError:
        if asked:
            raise KeyboardInterrupt from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class Live:
    """The live line: what a run does, and how fast. Only on a terminal."""

    def __init__(self, args: Namespace, out: Output, chosen: Settings) -> None:
        self._out = out
        self._what = f"{chosen.work} {chosen.sizes.text}"
        self._on = not (args.no_progress or args.quiet) and is_terminal(sys.stderr)
        self._last = 0.0
        self._open = False

    def preparing(self, count: int) -> None:
        """So many objects are stored first."""
        if count:
            self._line(f"{self._what}  storing {count} objects")

    def show(self, totals: Sequence[Totals]) -> None:
        """The state of each process."""
        from objstore.bench.report import live_line

        if monotonic() - self._last >= SHOW:
            self._last = monotonic()
            self._line(live_line(self._what, totals))

    def left_behind(self, bucket: str, exc: BaseException) -> None:
        """The run's bucket could not be deleted."""
        self.hide()
        why = str(exc) or type(exc).__name__
        self._out.warn(
            f"bucket {bucket!r} is left behind ({why}): delete it with: objstore bucket rm {bucket}"
        )

    def _line(self, text: str) -> None:
        if self._on:
            say(f"\r\x1b[K{text}")
            self._open = True

    def hide(self) -> None:
        """Remove the line."""
        if self._open:
            self._open = False
            say("\r\x1b[K")


def compare(args: Namespace, out: Output) -> None:
    """``bench compare BEFORE AFTER``."""
    from objstore.bench import compare as comparing
    from objstore.bench import results

    try:
        before, after = (results.parse(_text(path), path) for path in (args.before, args.after))
        found = comparing.changes(before, after, noise=args.noise)
    except results.ResultError as exc:
        raise CommandError(f"bench compare: {exc}", 1) from None
    if out.json:
        out.document(
            {
                "noise": args.noise,
                "settings": comparing.differences(before[0].settings, after[0].settings),
                "changes": [change.document() for change in found],
            }
        )
    else:
        out.lines(comparing.lines(before, after, found, args.noise))


def _text(path: str) -> str:
    from objstore.bench import results

    return sys.stdin.read() if path == "-" else results.read(path)
