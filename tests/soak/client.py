"""One client process: several connections, several tasks on each, a watcher on each.

Run by the soak as ``python -m tests.soak.client``; its one argument is a JSON object. Lines on standard
input: ``go PATH`` (write the history there from now on), ``pause``, ``end``. Lines on standard output, JSON
each: ``connected``, ``paused`` with what is left over, ``ended``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
import warnings
from typing import Any

import natsproto
from natsproto import NatsError
from natsproto.aio.client import Client
from objstore import ObjectStore

from .history import Log
from .runner import Runner, Stalls, row


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
        self.idle = asyncio.Event()
        self.idle.set()
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
        await self.idle.wait()
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
                self.idle.clear()
                try:
                    await verbs.step()
                finally:
                    self.busy -= 1
                    if not self.busy:
                        self.idle.set()
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
