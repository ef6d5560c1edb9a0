"""The nemesis: every kind of fault, applied, healed and counted.

A fault is a coroutine method ``do_…``: it breaks something, lets it be broken for a while, and mends it,
however it ends. What it does is drawn from the run's seed; when it happens to hit depends on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from natsproto import NatsError
from natsproto.errors import RequestTimeoutError
from natsproto.server import LocalServer
from natsproto.testing import CUT, DROP, DUPLICATE, HOLD, FaultProxy, corrupt, cut_after, delay
from natsproto.wire import Msg, Pub

if TYPE_CHECKING:
    from .clients import Clients
    from .stage import Stage

SERVER = ("kill", "term", "stop", "slow", "lame-duck", "disk-full")
NETWORK = (
    "cut", "cut-frame", "half-close", "blackhole", "slow-net", "split",
    "drop", "double", "delay", "swap", "corrupt", "meta-cut", "meta-ack", "meta-delay", "meta-double",
)  # fmt: skip
CLIENT = ("client-kill", "client-term", "client-stop")
CLUSTER = ("step-down", "rolling", "partition", "partition-leader", "one-way", "pair")
BUCKET = ("consumer-delete",)
EVERY = (*SERVER, *NETWORK, *CLIENT, *CLUSTER, *BUCKET)

CUT_OFF = frozenset({"partition", "partition-leader", "one-way", "pair", "stop"})
"""After which there may be two servers for a while that take themselves for the leader."""
TOLERATED = frozenset({"corrupt", "delay", "swap"})
"""Frames changed or reordered on the way, which TCP never does: readers may get typed errors then."""

Break = Callable[[random.Random, float], Awaitable[None]]


@dataclass(slots=True)
class Window:
    """One fault: which, of what, from when to when."""

    kind: str
    target: str
    begin: float
    end: float = float("inf")


@dataclass(slots=True)
class Tally:
    """What was done of one kind."""

    applied: int = 0
    healed: int = 0
    hits: int = 0
    seconds: float = 0.0


@dataclass
class Nemesis:
    """See the module.

    Args:
        stage: servers, proxies and what else can be broken.
        clients: the processes.
        rng: draws everything.
        kinds: the faults that may happen.
        say: called with a line for each fault.
    """

    stage: Stage
    clients: Clients
    rng: random.Random
    kinds: list[str]
    say: Callable[[str], None]
    tallies: dict[str, Tally] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.tallies = {kind: Tally() for kind in self.kinds}
        self._bag: list[str] = []

    async def run(self, until: float) -> None:
        """Break things until a time of the monotonic clock; returns when everything is mended."""
        groups = [
            [kind for kind in group if kind in self.kinds]
            for group in ((*SERVER, *CLUSTER), (*NETWORK, *BUCKET), CLIENT)
        ]
        groups = [group for group in groups if group]
        self.stopping.clear()
        while groups and time.monotonic() < until:
            await self._rest(self.rng.uniform(0.2, 2.5), until)
            if time.monotonic() >= until:
                break
            first = self._next()
            chosen = [first]
            if self.rng.random() < 0.35:  # two at once, of different kinds
                other = self.rng.choice(self.rng.choice(groups))
                if not any(first in group and other in group for group in groups):
                    chosen.append(other)
            seconds = self.rng.choice([self.rng.uniform(0.1, 2.0), self.rng.uniform(1.0, 7.0)])
            seeds = [self.rng.random() for _ in chosen]
            await asyncio.gather(
                *(
                    self._one(kind, random.Random(seed), min(seconds, max(0.2, until - time.monotonic())))
                    for kind, seed in zip(chosen, seeds, strict=True)
                )
            )
        self.stopping.set()

    def _next(self) -> str:
        """Each kind comes once before any comes again."""
        if not self._bag:
            self._bag = list(self.kinds)
            self.rng.shuffle(self._bag)
        return self._bag.pop()

    async def _rest(self, seconds: float, until: float) -> None:
        await asyncio.sleep(max(0.0, min(seconds, until - time.monotonic())))

    async def _one(self, kind: str, rng: random.Random, seconds: float) -> None:
        work: Break = getattr(self, "do_" + kind.replace("-", "_"))
        try:
            await work(rng, seconds)
        except Exception as exc:
            self.errors.append(f"{kind}: {exc!r}")
            self.say(f"nemesis: {kind} failed: {exc!r}")

    @contextlib.asynccontextmanager
    async def _applied(self, kind: str, target: str) -> AsyncIterator[Window]:
        """Count one fault; what is inside breaks and mends."""
        tally = self.tallies[kind]
        window = Window(kind, target, time.monotonic())
        self.windows.append(window)
        tally.applied += 1
        self.say(f"fault {kind} {target}")
        try:
            yield window
            tally.healed += 1
        finally:
            window.end = time.monotonic()
            tally.seconds += window.end - window.begin

    def hit(self, kind: str) -> None:
        """One frame was treated."""
        self.tallies[kind].hits += 1

    # -- servers ----------------------------------------------------------------------------------

    async def _server(self, rng: random.Random) -> LocalServer:
        """Any of them; often the one that leads the bucket."""
        servers = self.stage.servers
        if len(servers) > 1 and rng.random() < 0.5:
            leader = await self.stage.leader()
            if leader is not None:
                return leader
        return rng.choice(servers)

    async def do_kill(self, rng: random.Random, seconds: float) -> None:
        server = await self._server(rng)
        async with self._applied("kill", server.name):
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(seconds)
            await self.stage.start(server)

    async def do_term(self, rng: random.Random, seconds: float) -> None:
        server = await self._server(rng)
        async with self._applied("term", server.name):
            await asyncio.to_thread(server._stop_process)
            await asyncio.sleep(seconds / 2)
            await self.stage.start(server)

    async def do_stop(self, rng: random.Random, seconds: float) -> None:
        server = await self._server(rng)
        async with self._applied("stop", server.name):
            await asyncio.to_thread(server.pause)
            try:
                await asyncio.sleep(seconds)
            finally:
                server.resume()
            await self.stage.healthy(server)

    async def do_slow(self, rng: random.Random, seconds: float) -> None:
        """As with a disk or machine that is much too slow: stopped nine tenths of the time."""
        server = await self._server(rng)
        async with self._applied("slow", server.name):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.to_thread(server.pause)
                try:
                    await asyncio.sleep(0.18)
                finally:
                    server.resume()
                await asyncio.sleep(0.02)
            await self.stage.healthy(server)

    async def do_lame_duck(self, rng: random.Random, seconds: float) -> None:
        server = await self._server(rng)
        async with self._applied("lame-duck", server.name):
            server.lame_duck()
            with contextlib.suppress(TimeoutError):
                await asyncio.to_thread(server.wait, 15.0)
            await asyncio.to_thread(server.kill)
            await self.stage.start(server)

    async def do_disk_full(self, rng: random.Random, seconds: float) -> None:
        disk = self.stage.disk
        assert disk is not None
        async with self._applied("disk-full", disk.server.name):
            await asyncio.to_thread(disk.fill)
            try:
                await asyncio.sleep(max(1.0, seconds))
            finally:
                disk.free()
            # It switches JetStream off when it finds no room, and on again only when it is started.
            await asyncio.to_thread(disk.server._stop_process)
            await self.stage.start(disk.server)

    # -- the cluster ------------------------------------------------------------------------------

    async def do_step_down(self, rng: random.Random, seconds: float) -> None:
        bucket = rng.choice(self.stage.buckets)
        async with self._applied("step-down", bucket):
            with contextlib.suppress(RequestTimeoutError):  # the leader itself may be gone: nobody answers
                await self.stage.step_down(bucket)

    async def do_rolling(self, rng: random.Random, seconds: float) -> None:
        async with self._applied("rolling", "all"):
            for server in rng.sample(self.stage.servers, len(self.stage.servers)):
                await asyncio.to_thread(server._stop_process)
                await self.stage.start(server)
                await self.stage.healthy(server)

    async def _partition(self, kind: str, pairs: set[tuple[int, int]], target: str, seconds: float) -> None:
        routes = self.stage.routes
        assert routes is not None
        async with self._applied(kind, target):
            routes.cut(pairs)
            try:
                await asyncio.sleep(2 * seconds)
            finally:
                routes.cut(set())

    async def do_partition(self, rng: random.Random, seconds: float) -> None:
        alone = rng.randrange(3)
        await self._partition("partition", _around(alone), f"soak-{alone + 1} | others", seconds)

    async def do_partition_leader(self, rng: random.Random, seconds: float) -> None:
        leader = await self.stage.leader()
        alone = rng.randrange(3) if leader is None else self.stage.servers.index(leader)
        await self._partition("partition-leader", _around(alone), f"soak-{alone + 1} | others", seconds)

    async def do_one_way(self, rng: random.Random, seconds: float) -> None:
        """One server is heard by nobody, and hears everybody; or the other way round."""
        alone, deaf = rng.randrange(3), rng.random() < 0.5
        pairs = {pair for pair in _around(alone) if (pair[1] == alone) == deaf}
        what = "hears nobody" if deaf else "is heard by nobody"
        await self._partition("one-way", pairs, f"soak-{alone + 1} {what}", seconds)

    async def do_pair(self, rng: random.Random, seconds: float) -> None:
        """Two servers do not reach each other, the third one reaches both."""
        one, two = rng.sample(range(3), 2)
        await self._partition("pair", {(one, two), (two, one)}, f"soak-{one + 1} | soak-{two + 1}", seconds)

    # -- connections ------------------------------------------------------------------------------

    def _proxy(self, rng: random.Random) -> tuple[FaultProxy, str]:
        number = rng.randrange(len(self.stage.proxies))
        return self.stage.proxies[number], f"proxy {number + 1}"

    async def do_cut(self, rng: random.Random, seconds: float) -> None:
        proxy, name = self._proxy(rng)
        async with self._applied("cut", name):
            for _ in range(rng.randint(1, 5)):
                self.tallies["cut"].hits += len(proxy.connections)
                proxy.cut()
                await asyncio.sleep(rng.uniform(0, 0.5))

    async def do_half_close(self, rng: random.Random, seconds: float) -> None:
        proxy, name = self._proxy(rng)
        side = rng.choice(["client", "server", None])
        async with self._applied("half-close", f"{name} {side or 'both'}"):
            self.tallies["half-close"].hits += len(proxy.connections)
            proxy.fin(side)
            await asyncio.sleep(min(seconds, 1.0))
            proxy.cut()

    async def do_blackhole(self, rng: random.Random, seconds: float) -> None:
        proxy, name = self._proxy(rng)
        side = rng.choice(["client", "server", None])
        async with self._applied("blackhole", f"{name} {side or 'both'}"):
            proxy.blackhole(side=side)
            try:
                await asyncio.sleep(2 * seconds)
            finally:
                proxy.blackhole(False)

    async def do_slow_net(self, rng: random.Random, seconds: float) -> None:
        proxy, name = self._proxy(rng)
        async with self._applied("slow-net", name):
            proxy.latency, proxy.rate = rng.uniform(0.01, 0.4), rng.choice([None, 64 * 1024])
            try:
                await asyncio.sleep(seconds)
            finally:
                proxy.latency, proxy.rate = 0.0, None

    async def do_split(self, rng: random.Random, seconds: float) -> None:
        proxy, name = self._proxy(rng)
        async with self._applied("split", name):
            proxy.chunk = rng.choice([7, 61, 1021])
            try:
                await asyncio.sleep(min(seconds, 2.0))
            finally:
                proxy.chunk = None

    # -- frames -----------------------------------------------------------------------------------

    async def _frames(
        self,
        kind: str,
        rng: random.Random,
        seconds: float,
        to_server: Callable[[FaultProxy, Any, bytes], Any] | None,
        to_client: Callable[[FaultProxy, Any, bytes], Any] | None,
    ) -> None:
        proxy, name = self._proxy(rng)
        seconds = max(seconds, 2.0)

        def hook(act: Callable[[FaultProxy, Any, bytes], Any]) -> Callable[[Any, bytes], Any]:
            def shown(event: Any, raw: bytes) -> Any:
                result = act(proxy, event, raw)
                if result is not None:
                    self.hit(kind)
                return result

            return shown

        async with self._applied(kind, name):
            proxy.to_server = None if to_server is None else hook(to_server)
            proxy.to_client = None if to_client is None else hook(to_client)
            try:
                await asyncio.sleep(seconds)
            finally:
                proxy.to_server = proxy.to_client = None
                proxy.release()

    async def _some(self, kind: str, rng: random.Random, seconds: float, action: Any, share: float) -> None:
        """Treat a share of all messages, both ways."""

        def act(proxy: FaultProxy, event: Any, raw: bytes) -> Any:
            if isinstance(event, Pub | Msg) and rng.random() < share:
                return action() if callable(action) else action
            return None

        await self._frames(kind, rng, seconds, act, act)

    async def do_drop(self, rng: random.Random, seconds: float) -> None:
        await self._some("drop", rng, seconds, DROP, rng.choice([0.01, 0.1]))

    async def do_double(self, rng: random.Random, seconds: float) -> None:
        await self._some("double", rng, seconds, DUPLICATE, rng.choice([0.02, 0.3]))

    async def do_delay(self, rng: random.Random, seconds: float) -> None:
        await self._some("delay", rng, seconds, lambda: delay(rng.expovariate(2.0)), 0.05)

    async def do_cut_frame(self, rng: random.Random, seconds: float) -> None:
        def act() -> Any:
            return rng.choice([CUT, cut_after(rng.randint(1, 200))])

        await self._some("cut-frame", rng, seconds, act, 0.01)

    async def do_swap(self, rng: random.Random, seconds: float) -> None:
        loop = asyncio.get_running_loop()

        def act(proxy: FaultProxy, event: Any, raw: bytes) -> Any:
            if isinstance(event, Pub | Msg) and rng.random() < 0.05:
                loop.call_later(0.01, proxy.release)
                return HOLD
            return None

        await self._frames("swap", rng, seconds, act, act)

    async def do_corrupt(self, rng: random.Random, seconds: float) -> None:
        """One bit of chunks on their way to a reader; nothing else has a digest that could tell."""
        marks = [b"$O.%b.C." % bucket.encode() for bucket in self.stage.buckets]

        def act(proxy: FaultProxy, event: Any, raw: bytes) -> Any:
            if not isinstance(event, Msg) or not event.payload or rng.random() > 0.2:
                return None
            subject, header = bytes(event.subject), bytes(event.header or b"")
            if any(subject.startswith(mark) or mark in header for mark in marks):
                return corrupt()
            return None

        await self._frames("corrupt", rng, seconds, None, act)

    # -- around the commit ------------------------------------------------------------------------

    def _is_meta(self, event: Any) -> bool:
        return isinstance(event, Pub) and any(
            bytes(event.subject).startswith(b"$O.%b.M." % bucket.encode()) for bucket in self.stage.buckets
        )

    async def do_meta_cut(self, rng: random.Random, seconds: float) -> None:
        """The connection is reset just when a meta has gone out."""
        loop = asyncio.get_running_loop()

        def act(proxy: FaultProxy, event: Any, raw: bytes) -> Any:
            if self._is_meta(event) and rng.random() < 0.4:
                loop.call_later(rng.uniform(0, 0.004), proxy.cut)
                return raw
            return None

        await self._frames("meta-cut", rng, seconds, act, None)

    async def do_meta_ack(self, rng: random.Random, seconds: float) -> None:
        """The acknowledgement of a meta is lost."""
        replies: set[bytes] = set()

        def out(proxy: FaultProxy, event: Any, raw: bytes) -> Any:
            if self._is_meta(event) and event.reply and rng.random() < 0.3:
                replies.add(bytes(event.reply))
            return None

        def back(proxy: FaultProxy, event: Any, raw: bytes) -> Any:
            if isinstance(event, Msg) and bytes(event.subject) in replies:
                replies.discard(bytes(event.subject))
                return DROP
            return None

        await self._frames("meta-ack", rng, seconds, out, back)

    async def do_meta_delay(self, rng: random.Random, seconds: float) -> None:
        """A meta comes late, perhaps later than anybody waits."""

        def act(proxy: FaultProxy, event: Any, raw: bytes) -> Any:
            if self._is_meta(event) and rng.random() < 0.2:
                return delay(rng.choice([0.05, 1.0, 6.0, 9.0]))
            return None

        await self._frames("meta-delay", rng, seconds, act, None)

    async def do_meta_double(self, rng: random.Random, seconds: float) -> None:
        def act(proxy: FaultProxy, event: Any, raw: bytes) -> Any:
            return DUPLICATE if self._is_meta(event) and rng.random() < 0.3 else None

        await self._frames("meta-double", rng, seconds, act, None)

    # -- clients and bucket -----------------------------------------------------------------------

    async def do_client_kill(self, rng: random.Random, seconds: float) -> None:
        number = rng.randrange(len(self.clients.members))
        async with self._applied("client-kill", f"client {number + 1}"):
            await self.clients.kill(number)

    async def do_client_term(self, rng: random.Random, seconds: float) -> None:
        number = rng.randrange(len(self.clients.members))
        async with self._applied("client-term", f"client {number + 1}"):
            await self.clients.term(number)

    async def do_client_stop(self, rng: random.Random, seconds: float) -> None:
        number = rng.randrange(len(self.clients.members))
        async with self._applied("client-stop", f"client {number + 1}"):
            self.clients.stop(number)
            try:
                await asyncio.sleep(2 * seconds)
            finally:
                self.clients.go_on(number)

    async def do_consumer_delete(self, rng: random.Random, seconds: float) -> None:
        bucket = rng.choice(self.stage.buckets)
        js = self.stage.js
        try:
            names = await js.consumer_names(f"OBJ_{bucket}")
        except NatsError:
            return  # another fault is in the way
        if not names:
            return
        async with self._applied("consumer-delete", bucket):
            for name in rng.sample(names, min(len(names), rng.randint(1, 3))):
                with contextlib.suppress(NatsError):
                    await js.delete_consumer(f"OBJ_{bucket}", name)
                    self.hit("consumer-delete")

    def counts(self) -> dict[str, dict[str, float]]:
        """For the report."""
        return {
            kind: {
                "applied": tally.applied,
                "healed": tally.healed,
                "hits": tally.hits,
                "seconds": round(tally.seconds, 1),
            }
            for kind, tally in sorted(self.tallies.items())
        }

    def overlapping(self, begin: float, end: float, kinds: frozenset[str] | None = None) -> Counter[str]:
        """Which faults were on, at any time between the two."""
        return Counter(
            window.kind
            for window in self.windows
            if (kinds is None or window.kind in kinds) and window.begin <= end and window.end >= begin
        )


def _around(alone: int) -> set[tuple[int, int]]:
    others = [number for number in range(3) if number != alone]
    return {(alone, other) for other in others} | {(other, alone) for other in others}


def pid_alive(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
