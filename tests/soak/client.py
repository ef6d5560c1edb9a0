"""One client process: several connections, several tasks on each, a watcher on each; told what to do by lines.

Run by the soak as ``python -m tests.soak.client``; its one argument is a JSON object (:class:`Task`). Lines on
standard input: ``go PATH`` (write the history there), ``pause``, ``end``. Lines on standard output, JSON each:
``connected``, ``paused`` with what is left over, ``ended``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import natsproto
from natsproto import NatsError
from natsproto.aio.client import Client
from objstore import ObjectInfo, ObjectStore, OutcomeUnknownError

from .history import FAIL, OK, UNKNOWN, Log, Version

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
            await self._watch(task, op_id, began, stalled, cancelled)
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
        self, task: asyncio.Task[Any], op_id: str, began: float, stalled: float, cancelled: float
    ) -> None:
        """Wait for the end; a bound that is passed is a hang."""
        while not task.done():
            lost = self.stalls.total - stalled
            bound = (cancelled + 2 * CANCEL if cancelled else began + HANG) + SPARE + lost
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


class Worker:
    """The process."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.label: str = task["label"]
        self.rng = random.Random(task["seed"])
        self.stalls = Stalls()
        self.runner = Runner(self.label, self.rng, self.stalls)
        self.clients: list[tuple[Client, str]] = []
        self.jobs: list[asyncio.Task[None]] = []
        self.watching: list[asyncio.Task[None]] = []
        self.go = asyncio.Event()
        self.pausing = False
        self.busy = 0
        self.runner.log = Log(task["log"])

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._background)
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        reader = asyncio.StreamReader()
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        helpers = [asyncio.create_task(self.stalls.run()), asyncio.create_task(self._listen(reader, stop))]
        await self._connect()
        self._say({"connected": len(self.clients)})
        if not self.pausing:
            self.go.set()
        await stop.wait()
        self.pausing = True
        for job in (*self.jobs, *self.watching, *self.runner.running):
            job.cancel()
        await asyncio.wait([*self.jobs, *self.watching], timeout=30)
        for client, _ in self.clients:
            await client.close()
        for helper in helpers:
            helper.cancel()
        pipe.close()
        self._say({"ended": self.label})

    async def _listen(self, reader: asyncio.StreamReader, stop: asyncio.Event) -> None:
        while line := (await reader.readline()).decode().strip():
            word, _, rest = line.partition(" ")
            if word == "pause":
                await self._pause()
            elif word == "go":
                old, self.runner.log = self.runner.log, Log(rest)
                if old is not None:
                    old.close()
                self.pausing = False
                self.go.set()
            elif word == "end":
                break
        stop.set()

    async def _pause(self) -> None:
        """Let operations end, then say what is left of them."""
        self.pausing = True
        self.go.clear()
        while self.busy:
            await asyncio.sleep(0.05)
        known = {*self.jobs, *self.watching, asyncio.current_task()}
        left: set[asyncio.Task[Any]] = set()
        deadline = time.monotonic() + 15  # what cancelled operations still have to find out and remove
        while True:
            left = {
                task
                for task in asyncio.all_tasks() - known
                if task.get_name().startswith(("objstore", "soak-")) and not task.done()
            } - self._watchers()
            if not left or time.monotonic() > deadline:
                break
            await asyncio.wait(left, timeout=0.5)
        gc.collect()
        self._say(
            {
                "paused": self.label,
                "tasks": sorted(task.get_name() for task in left),
                "fds": len(os.listdir("/proc/self/fd")),
                "rss": _rss(),
            }
        )

    def _watchers(self) -> set[asyncio.Task[Any]]:
        return {task for task in asyncio.all_tasks() if "watch" in task.get_name()}

    async def _connect(self) -> None:
        from .verbs import Verbs

        for number, (way, urls) in enumerate(self.task["ways"]):
            client = await natsproto.connect(
                urls,
                name=f"{self.label}/{number}",
                ignore_discovered=True,
                max_reconnects=-1,
                retry_on_failed_connect=True,
            )
            self.clients.append((client, way))
            js = client.jetstream()
            stores = [await self._open(js, bucket) for bucket in self.task["buckets"]]
            for store in stores:
                self.watching.append(
                    asyncio.create_task(self._watch(store, f"{self.label}/{number}"), name="soak-watch")
                )
            for slot in range(self.task["tasks"]):
                verbs = Verbs(self.runner, stores, way, self.task, f"{number}.{slot}")
                self.jobs.append(asyncio.create_task(self._job(verbs), name="soak-job"))

    async def _open(self, js: Any, bucket: str) -> ObjectStore:
        while True:
            try:
                return await js.object_store(bucket)
            except NatsError:
                await asyncio.sleep(0.5)

    async def _job(self, verbs: Any) -> None:
        try:
            while True:
                await self.go.wait()
                await asyncio.sleep(self.rng.uniform(0, self.task["think"]))
                if self.pausing:
                    continue
                self.busy += 1
                try:
                    await verbs.step()
                finally:
                    self.busy -= 1
        except asyncio.CancelledError:
            raise
        except Exception:
            self.runner.bad("the soak itself failed", traceback.format_exc())

    # -- the long watch ---------------------------------------------------------------------------

    async def _watch(self, store: ObjectStore, label: str) -> None:
        """Tell of everything, from now to the end; a watch that ends by itself is begun again."""
        attempt = 0
        while True:
            watcher = f"{label}/{store.bucket}/{attempt}"
            self.runner.note({"began": watcher, "b": store.bucket, "t": time.monotonic()})
            try:
                async with store.watch() as watch:
                    async for info in watch:
                        self.runner.note(
                            {"w": watcher, "b": store.bucket, "t": time.monotonic(), "x": row(info)}
                        )
                self.runner.bad("a watch ended by itself", watcher)
            except asyncio.CancelledError:
                raise
            except NatsError as exc:
                self.runner.note({"broke": watcher, "t": time.monotonic(), "e": repr(exc)})
            except Exception:
                self.runner.bad("a watch failed", f"{watcher}\n{traceback.format_exc()}")
            attempt += 1
            await asyncio.sleep(0.5)

    # -- what must not be -------------------------------------------------------------------------

    def _background(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        text = "" if exc is None else "".join(traceback.format_exception(exc))
        self.runner.bad("background exception", f"{context.get('message')}\n{text}")

    def unraisable(self, hook: Any) -> None:
        """What Python prints as "Exception ignored in"."""
        text = "".join(traceback.format_exception(hook.exc_value)) if hook.exc_value else ""
        self.runner.bad("exception ignored", f"{hook.err_msg} {hook.object!r}\n{text}")

    def warning(self, message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        self.runner.bad("warning", f"{category.__name__}: {message} ({filename}:{lineno})")

    @staticmethod
    def _say(document: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(1, json.dumps(document).encode() + b"\n")


def _rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    worker = Worker(json.loads(sys.argv[1]))
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    sys.unraisablehook = worker.unraisable
    warnings.simplefilter("default")
    warnings.showwarning = worker.warning  # type: ignore[assignment]
    asyncio.run(worker.run())


if __name__ == "__main__":
    main()
