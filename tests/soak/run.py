"""One run: epochs of work and faults, and between them a look at everything while it stands still."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import stage as stages
from .audit import UNHEARD, audit, consumers_left
from .brought_back import Past, brought_back
from .checker import LEAD, Violation, check_bucket
from .clients import Clients
from .errors import by_one_cut_off, judge_errors
from .forgotten import Hollow, forgotten_deletes, seen_beneath
from .history import History, Op, Version, read
from .nemesis import BUCKET, CLIENT, CLUSTER, CUT_OFF, EVERY, NETWORK, SERVER, TOLERATED, Nemesis
from .report import Report
from .watched import check_order, missing_from_watch

MIB = 1024 * 1024
MAX_BYTES, SMALL_BYTES = 512 * MIB, 3 * MIB // 2
LARGEST = 2 * MIB
WATCH_CATCHES_UP = 45.0
MAX_RSS_GROWTH = 128 * MIB
MAX_FD_GROWTH = 12
SHOWN = 12
KILLS = frozenset({"kill", "rolling"})
"""Faults that end a server with SIGKILL."""
GROUPS = {"server": SERVER, "network": NETWORK, "client": CLIENT, "cluster": CLUSTER, "bucket": BUCKET}


@dataclass
class Plan:
    """What to do; the command line's arguments."""

    minutes: float
    seed: int
    replicas: int = 1
    faults: list[str] = field(default_factory=lambda: list(EVERY))
    binary: str | None = None
    processes: int = 3
    connections: int = 2
    tasks: int = 3
    names: int = 30
    think: float = 0.06
    epoch: float = 100.0
    folder: str = ""
    keep: str = ""
    quiet: bool = False


class Soak:
    """See the module.

    Args:
        plan: what to do.
        say: called with each line of progress.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.report = Report(plan.minutes, plan.seed, plan.replicas)
        self._began = time.monotonic()
        self._say = say
        self._shown: Counter[str] = Counter()
        self._initial: dict[str, list[Version]] = {}
        self._since: dict[str, float] = {}
        self._past: defaultdict[str, Past] = defaultdict(Past)
        self._hollow: defaultdict[str, Hollow] = defaultdict(Hollow)
        self._found: dict[str, list[Violation]] = {}
        self._last: dict[str, int] = {}
        self._told: dict[str, dict[str, int]] = {}
        self._bucket_of: dict[str, str] = {}
        self.names = [
            f"n{number:02d}" if number % 3 else f"n{number:02d}/ä b" for number in range(plan.names)
        ]
        self.links = [f"link{number}" for number in range(4)]
        self.expiring = [f"ttl{number}" for number in range(3)]

    def say(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._began:7.1f} {text}")

    def bad(self, kind: str, text: str) -> None:
        """Something the soak itself noticed."""
        self._violations([Violation(kind, "", "", text)])

    def _violations(self, found: list[Violation]) -> None:
        for violation in found:
            self.report.violations.append(violation)
            self._shown[violation.kind] += 1
            if self._shown[violation.kind] <= SHOWN:
                self.say(f"VIOLATION {violation}")
            elif self._shown[violation.kind] == SHOWN + 1:
                self.say(f"VIOLATION {violation.kind}: more of these are in the report only")

    async def run(self) -> Report:
        plan = self.plan
        rng = random.Random(plan.seed)
        async with stages.built(
            plan.folder,
            replicas=plan.replicas,
            binary=plan.binary,
            want_disk="disk-full" in plan.faults,
            max_bytes=MAX_BYTES,
            small_bytes=SMALL_BYTES,
        ) as (stage, no_disk):
            kinds = [kind for kind in plan.faults if kind != "disk-full" or not no_disk]
            if plan.replicas == 1:
                kinds = [kind for kind in kinds if kind not in CLUSTER]
            self.report.server = stage.servers[0].version
            self.report.left_out = {kind: "one server only" for kind in plan.faults if kind not in kinds}
            if "disk-full" in self.report.left_out:
                self.report.left_out["disk-full"] = no_disk
            self.say(
                f"nats-server {self.report.server}, {plan.replicas} server(s); faults: {' '.join(kinds)}"
            )
            for kind, why in self.report.left_out.items():
                self.say(f"left out: {kind}: {why}")
            clients = Clients(plan.processes, self._task(stage), plan.folder, plan.seed, self.bad)
            nemesis = Nemesis(stage, clients, random.Random(rng.random()), kinds, self.say)
            try:
                await clients.start()
                await self._epochs(stage, clients, nemesis)
                await clients.end()
            finally:
                clients.kill_all()
            self.report.faults = nemesis.counts()
            self.report.nemesis_errors = nemesis.errors
            if nemesis.errors:
                self.bad("the nemesis failed", "; ".join(nemesis.errors))
        return self.report

    def _task(self, stage: stages.Stage) -> dict[str, Any]:
        """What every client is told. Half of the connections go through proxies, half do not."""
        direct = [server.url for server in stage.servers]
        proxied = [proxy.url for proxy in stage.proxies]
        ways = [
            ("proxy", proxied) if number % 2 == 0 else ("direct", direct)
            for number in range(self.plan.connections)
        ]
        return {
            "buckets": stage.buckets,
            "ways": ways,
            "tasks": self.plan.tasks,
            "think": self.plan.think,
            "names": self.names,
            "links": self.links,
            "expiring": self.expiring,
            "largest": LARGEST,
            "without": sorted({"atomic", "ttl"} - stage.features),
        }

    async def _epochs(self, stage: stages.Stage, clients: Clients, nemesis: Nemesis) -> None:
        seconds = self.plan.minutes * 60  # of work; looking at everything comes on top
        count = max(1, round(seconds / self.plan.epoch))
        for number in range(count):
            until = time.monotonic() + seconds / count
            if nemesis.kinds:
                await nemesis.run(until)
            await asyncio.sleep(max(0.0, until - time.monotonic()))
            await self._stand_still(stage, clients, nemesis, number)
            if number < count - 1:
                clients.resume()

    async def _stand_still(
        self, stage: stages.Stage, clients: Clients, nemesis: Nemesis, number: int
    ) -> None:
        """Mend everything, let everything end, look at everything."""
        began = time.monotonic()
        try:
            await stage.settled()
        except (TimeoutError, RuntimeError) as exc:
            self.bad("the servers do not recover", repr(exc))
        left = await clients.pause()
        await stage.settled()
        await asyncio.sleep(1.0)  # what dead clients' sockets still held has arrived
        self._leftovers(left)
        files = list(clients.files)
        history = await asyncio.to_thread(read, files)  # the proxies run here, too: they must not stall
        for bucket in stage.buckets:
            found = await audit(stage.js, bucket, self.expiring, number)
            self._found[bucket] = found.violations
            self.report.add_audit(found)
            await self._watchers(files, bucket, found.versions, clients)
            watchers = self.plan.processes * self.plan.connections
            extra, took = await consumers_left(stage.js, bucket, watchers, stage.routes is not None)
            self.report.consumers_took = max(self.report.consumers_took, took)
            unheard = sum(UNHEARD in kind for kind in extra)
            if unheard:
                self.report.tolerated["a consumer that its server kept although nobody listened"] += unheard
            if len(extra) - unheard > watchers:
                text = f"{watchers} watchers in {bucket}, {len(extra)} consumers after {took:.0f} s"
                self.bad("consumers left", f"{text}: {' '.join(extra)}")
            history.ops += found.ops
            self._initial.setdefault(bucket, [])
        history.told = (await asyncio.to_thread(read, files)).told
        await asyncio.to_thread(self._check, stage, nemesis, history, number)
        self._forget_watchers(await asyncio.to_thread(read, files), clients)
        for path in files:
            clients.files.remove(path)
            if not self.plan.keep:
                os.unlink(path)
        self.say(
            f"epoch {number + 1}: {len(history.ops)} operations, {len(history.told)} watched, "
            f"{len(self.report.violations)} violations so far (looked at in {time.monotonic() - began:.1f} s)"
        )

    def _check(self, stage: stages.Stage, nemesis: Nemesis, history: History, number: int) -> None:
        for line in history.bad:
            self._violations([Violation(line["bad"], "", "", f"{line['by']}: {line['m']}")])
        lead = 0.0 if stage.routes is None else LEAD
        full = frozenset({stages.SMALL}) | (frozenset(stage.buckets) if stage.disk else frozenset())
        for bucket in stage.buckets:
            ops = [op for op in history.ops if op.bucket == bucket]
            told = [item for item in history.told if item.bucket == bucket]
            initial = self._initial[bucket]
            since = self._since.get(bucket, float("-inf"))
            kills = [w.begin for w in nemesis.windows if w.kind in KILLS and w.begin > since]
            past, hollow = self._past[bucket], self._hollow[bucket]
            returns = forgotten_deletes(ops, told, initial, past, kills) if bucket in full else []
            for item in returns:
                self.report.tolerated["a delete that a killed server forgot"] += item.count
            hollow.add(returns, ops)
            self._violations([item for item in self._found[bucket] if not hollow.excuses_found(item)])
            known = [version for item in returns for version in item.old]
            back = brought_back(ops, told, initial, past, min(kills, default=math.inf))
            back = [version for version in back if version not in known]
            if back:
                self.report.tolerated["a purge that a killed server forgot"] += len(back)
            wrong = check_bucket(bucket, ops, initial, since, told, lead, back, returns)
            if bucket in full:
                kept = [item for item in wrong if not seen_beneath(item, ops, initial, kills)]
                if len(kept) < len(wrong):
                    self.report.tolerated["a roll-up that a killed server forgot"] += len(wrong) - len(kept)
                wrong = kept
            self._violations(self._without_the_servers_part(wrong, stage, nemesis, history))
            past.add(ops, told)
            final = [op for op in ops if op.id == f"audit-{number}"][-1]
            self._initial[bucket] = [Version.of_row(item) for item in final.result["list"]]
            self._since[bucket] = final.end
        self._violations(check_order(history.told, self._last))

        def faults(begin: float, end: float) -> bool:
            return bool(nemesis.overlapping(begin, end))

        def tolerated(begin: float, end: float) -> bool:
            return bool(nemesis.overlapping(begin, end, TOLERATED))

        by_id = {(op.bucket, op.id): op for op in history.ops}
        wrong = []
        for violation in judge_errors(history.ops, faults, tolerated, full):
            op = by_id[violation.bucket, violation.text.partition(":")[0]]
            if not self._hollow[violation.bucket].excuses(op):
                violation.ops += _faults_about(op, nemesis)
                wrong.append(violation)
        for bucket in stage.buckets:
            self._hollow[bucket].keep(self._initial[bucket])
        self._violations(wrong)
        self.report.add_history(history, tolerated)

    def _without_the_servers_part(
        self, violations: list[Violation], stage: stages.Stage, nemesis: Nemesis, history: History
    ) -> list[Violation]:
        """Leave out what is no fault of the library.

        Of a part of an object only the length can be checked: bits flipped on the way are not noticed. And a
        server that was killed may have forgotten a roll-up (as it may forget a purge: see
        :mod:`.brought_back`). And a leader that the
        others do not reach answers reads until it notices; that is said in docs/reliability.md.
        """
        ops = {op.id: op for op in history.ops}
        kept = []

        def cut_off(begin: float, end: float) -> bool:
            return bool(nemesis.overlapping(begin, end, CUT_OFF))

        for violation in violations:
            op = ops.get(violation.text.partition(" ")[0])
            if (
                violation.kind == "wrong bytes"
                and op is not None
                and "part" in op.result
                and op.args.get("way") == "proxy"
                and nemesis.overlapping(op.begin, op.end, frozenset({"corrupt"}))
            ):
                self.report.tolerated["flipped bits in a range"] += 1
            elif (
                violation.kind in ("stale or lost", "unknown bytes", "a version from nowhere")
                and violation.name in self.expiring
                and nemesis.overlapping(self._began, time.monotonic(), KILLS)
            ):
                # Then the older meta, perhaps of an earlier epoch, shows when the newer one expires.
                self.report.tolerated["a roll-up that a killed server forgot"] += 1
            elif stage.routes is not None and op is not None and by_one_cut_off(violation, op, cut_off):
                self.report.tolerated["read from a leader that was cut off"] += 1
            else:
                if op is not None:
                    violation.ops += _faults_about(op, nemesis)
                kept.append(violation)
        return kept

    def _leftovers(self, left: list[dict[str, Any]]) -> None:
        for item in left:
            first, now, label = item["first"], item["now"], item["label"]
            if now["tasks"]:
                self.bad("tasks left", f"{label}: {now['tasks']}")
            if now["fds"] > first["fds"] + MAX_FD_GROWTH:
                self.bad("file descriptors left", f"{label}: {first['fds']} grew to {now['fds']}")
            if now["rss"] > first["rss"] + MAX_RSS_GROWTH:
                self.bad(
                    "memory grows", f"{label}: {first['rss'] / MIB:.0f} MiB to {now['rss'] / MIB:.0f} MiB"
                )
            self.report.add_process(first, now)

    # -- watchers ---------------------------------------------------------------------------------

    def _forget_watchers(self, history: History, clients: Clients) -> None:
        """Those that raised, and those of processes that are gone."""
        broken = {line["broke"] for line in history.broke}
        labels = {member.label for member in clients.members}
        for watcher in list(self._bucket_of):
            if watcher in broken or watcher.split("/")[0] not in labels:
                del self._bucket_of[watcher]
                self._told.pop(watcher, None)

    async def _watchers(self, files: list[str], bucket: str, final: list[Version], clients: Clients) -> None:
        """Every watcher that lives has told of every name's last state; it may take a moment."""
        began = time.monotonic()
        while True:
            history = await asyncio.to_thread(read, files)
            for item in history.told:
                names = self._told.setdefault(item.watcher, {})
                names[item.version.name] = max(names.get(item.version.name, 0), item.version.revision)
            self._bucket_of |= history.watchers
            self._forget_watchers(history, clients)
            missing = [
                violation
                for watcher, where in self._bucket_of.items()
                if where == bucket
                for violation in missing_from_watch(watcher, bucket, self._told.get(watcher, {}), final)
            ]
            took = time.monotonic() - began
            if not missing or took > WATCH_CATCHES_UP:
                break
            await asyncio.sleep(0.5)
        self.report.watch_took = max(self.report.watch_took, took)
        self.report.watchers += sum(where == bucket for where in self._bucket_of.values())
        self._violations(missing)
        for violation in missing:  # told of once is enough
            watcher = violation.text.partition(" ")[0]
            version = next(item for item in final if item.name == violation.name)
            self._told.setdefault(watcher, {})[violation.name] = version.revision


def _faults_about(op: Op, nemesis: Nemesis) -> list[str]:
    """The faults that were on during an operation, and just before it."""
    return [str(window) for window in nemesis.windows if op.begin - 15 < window.end and window.begin < op.end]
