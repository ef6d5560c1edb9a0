"""Running operations: what they are about to do and what became of them goes into the history."""

from __future__ import annotations

import asyncio
import io
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from natsproto import NatsError
from objstore import ObjectInfo, OutcomeUnknownError

from .history import FAIL, OK, UNKNOWN, Log, Version

LONG = ("gc", "verify")
"""They ask for every object one after the other: three outages in a row are no hang."""

HANG = 60.0
"""Seconds an operation may take in all: budgets of 20 s for chunks, for the commit and for cleaning up."""
SPARE = 5.0
CANCEL = 5.0
"""Seconds a cancelled operation may take to find out what became of it."""


class OurTimeout(Exception):
    """The soak itself gave up waiting."""


def row(info: ObjectInfo, name: str | None = None) -> list[Any]:
    """What an info says, as the history has it."""
    return Version(
        info.name if name is None else name,
        info.revision,
        info.description or "",
        "" if info.is_link or info.deleted else info.metadata.get("body", "?"),
        info.digest.removeprefix("SHA-256="),
        info.nuid,
        info.deleted,
        info.is_link,
    ).row()


class Stalls:
    """How long this process did not run, by whomever it was stopped."""

    STEP = 0.25

    def __init__(self) -> None:
        self.total = 0.0

    async def run(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(self.STEP)
            late = time.monotonic() - before - self.STEP
            if late > 0.25:
                self.total += late


class Runner:
    """Runs operations and writes down what they are about to do and what became of them."""

    def __init__(self, label: str, rng: random.Random, stalls: Stalls) -> None:
        self.label = label
        self.rng = rng
        self.stalls = stalls
        self.log: Log | None = None
        self.count = 0
        self.running: set[asyncio.Task[Any]] = set()

    def note(self, document: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.write(document)

    def bad(self, kind: str, text: str) -> None:
        """Something that must not be, whatever the history says."""
        self.note({"bad": kind, "t": time.monotonic(), "by": self.label, "m": text[-3000:]})

    def next_id(self) -> str:
        self.count += 1
        return f"{self.label}-{self.count}"

    async def op(
        self,
        verb: str,
        bucket: str,
        name: str,
        work: Callable[[], Awaitable[Any]],
        *,
        way: str,
        op_id: str | None = None,
        disturb: bool = True,
        **args: Any,
    ) -> Any:
        """Run one operation; returns what it returned, ``None`` when it did not end well.

        Args:
            work: makes the coroutine; returns ``(answer, result for the history)``.
            way: how the connection goes, ``proxy`` or ``direct``.
            disturb: it may be cancelled, or timed out, at a random point.
        """
        op_id = op_id or self.next_id()
        limit, how = self._disturbance() if disturb else (None, "")
        args = {key: value for key, value in args.items() if value is not None}
        self.note(
            {"i": op_id, "v": verb, "b": bucket, "n": name, "t": time.monotonic(), "a": args | {"way": way}}
        )
        stalled, began = self.stalls.total, time.monotonic()

        async def timed() -> Any:
            if how != "timeout":
                return await work()
            try:
                async with asyncio.timeout(limit) as scope:
                    return await work()
            except TimeoutError:
                if scope.expired():
                    raise OurTimeout from None
                raise

        task = asyncio.create_task(timed(), name=f"soak-{op_id}")
        self.running.add(task)
        cancelled = 0.0
        try:
            if how == "cancel":
                await asyncio.wait([task], timeout=limit)
                if not task.done():
                    cancelled = time.monotonic()
                    task.cancel()
            elif how == "timeout":
                await asyncio.wait([task], timeout=limit)
                cancelled = 0.0 if task.done() else time.monotonic()
            most = 3 * HANG if verb in LONG else HANG
            await self._watch(task, op_id, began, stalled, cancelled, most)
        finally:
            self.running.discard(task)
        return self._outcome(task, op_id, began, stalled, cancelled)

    def _disturbance(self) -> tuple[float | None, str]:
        draw = self.rng.random()
        if draw < 0.07:
            return self.rng.expovariate(1 / 0.02), "cancel"
        if draw < 0.09:
            return self.rng.uniform(0, 2), "cancel"
        if draw < 0.12:
            return self.rng.expovariate(1 / 0.05) + 0.0005, "timeout"
        return None, ""

    async def _watch(
        self,
        task: asyncio.Task[Any],
        op_id: str,
        began: float,
        stalled: float,
        cancelled: float,
        most: float,
    ) -> None:
        """Wait for the end; a bound that is passed is a hang."""
        while not task.done():
            lost = self.stalls.total - stalled
            bound = (cancelled + 2 * CANCEL if cancelled else began + most) + SPARE + lost
            await asyncio.wait([task], timeout=max(0.05, bound - time.monotonic()))
            lost = self.stalls.total - stalled
            if not task.done() and time.monotonic() > bound - 0.01 + (self.stalls.total - stalled - lost):
                stack = io.StringIO()
                task.print_stack(file=stack)
                what = "a cancelled operation does not end" if cancelled else "hang"
                self.bad(what, f"{op_id} after {time.monotonic() - began:.1f} s\n{stack.getvalue()}")
                if cancelled and time.monotonic() - cancelled > 60:
                    return
                cancelled = time.monotonic() + 20
                task.cancel()

    def _outcome(
        self, task: asyncio.Task[Any], op_id: str, began: float, stalled: float, cancelled: float
    ) -> Any:
        now = time.monotonic()
        line: dict[str, Any] = {"r": op_id, "t": now}
        lost = self.stalls.total - stalled
        if lost:
            line["s"] = round(lost, 3)
        if cancelled:
            line["c"] = round(max(0.0, now - cancelled - lost), 3)
        answer = None
        if not task.done():
            line |= {"o": UNKNOWN, "e": "never ended"}
        elif task.cancelled():
            line |= {"o": UNKNOWN, "e": "cancelled"}
        elif (exc := task.exception()) is None:
            answer, result = task.result()
            line |= {"o": OK, "x": result}
        elif isinstance(exc, OurTimeout):
            line |= {"o": UNKNOWN, "e": "timed out"}
        else:
            outcome = UNKNOWN if isinstance(exc, OutcomeUnknownError) else FAIL
            line |= {"o": outcome, "e": type(exc).__name__, "m": str(exc)[:500]}
            if not isinstance(exc, NatsError | ValueError):
                text = "".join(traceback.format_exception(exc))
                self.bad("an error that is not typed", f"{op_id}: {text}")
        self.note(line)
        return answer
