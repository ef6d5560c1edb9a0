"""What a run did and found: as text and as JSON."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .audit import Audit
from .checker import Violation
from .errors import DAMAGE
from .history import OK, History

BUDGET = 20.0
"""Seconds without progress that a call may take, as promised."""
GAP = 1.0
"""Seconds without a successful write that count as a window of unavailability."""


@dataclass
class Report:
    """Filled in as the run goes."""

    minutes: float
    seed: int
    replicas: int
    server: str = ""
    violations: list[Violation] = field(default_factory=list)
    outcomes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    nemesis_errors: list[str] = field(default_factory=list)
    tolerated: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    worst_cancel: float = 0.0
    gaps: list[float] = field(default_factory=list)
    watched: int = 0
    watchers: int = 0
    watches_broken: Counter[str] = field(default_factory=Counter)
    watch_took: float = 0.0
    consumers_took: float = 0.0
    orphans: int = 0
    orphan_chunks: int = 0
    renames: int = 0
    objects_read: int = 0
    epochs: int = 0
    fds: list[int] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)

    @property
    def operations(self) -> int:
        return sum(sum(counter.values()) for counter in self.outcomes.values())

    def add_audit(self, found: Audit) -> None:
        self.orphans += found.orphans
        self.orphan_chunks += found.orphan_chunks
        self.renames += found.renames
        self.objects_read += found.objects

    def add_process(self, first: dict[str, Any], now: dict[str, Any]) -> None:
        self.fds = (
            [max(self.fds[0], first["fds"]), max(self.fds[1], now["fds"])]
            if self.fds
            else [first["fds"], now["fds"]]
        )
        self.rss = (
            [max(self.rss[0], first["rss"]), max(self.rss[1], now["rss"])]
            if self.rss
            else [first["rss"], now["rss"]]
        )

    def add_history(self, history: History, tolerated: Callable[[float, float], bool]) -> None:
        self.epochs += 1
        self.watched += len(history.told)
        self.watches_broken.update(line["e"][:80] for line in history.broke)
        writes = []
        for op in history.ops:
            if op.id.startswith("audit-"):
                continue
            self.outcomes[op.verb][
                op.outcome if op.outcome == OK else f"{op.outcome} {op.error or 'killed'}"
            ] += 1
            if op.error in DAMAGE:
                self.tolerated[op.error] += 1
            if math.isinf(op.end):
                continue
            took = op.end - op.begin - op.stalled
            self.worst[op.verb] = max(self.worst.get(op.verb, 0.0), took)
            self.worst_cancel = max(self.worst_cancel, op.cancel)
            if op.outcome == OK and "body" in op.args:
                writes.append(op.end)
        writes.sort()
        self.gaps += [
            later - earlier for earlier, later in itertools.pairwise(writes) if later - earlier > GAP
        ]
        self.gaps = sorted(self.gaps, reverse=True)

    # -- out --------------------------------------------------------------------------------------

    def as_json(self) -> str:
        document = {
            "seed": self.seed,
            "minutes": self.minutes,
            "replicas": self.replicas,
            "server": self.server,
            "operations": self.operations,
            "outcomes": {verb: dict(counter) for verb, counter in sorted(self.outcomes.items())},
            "faults": self.faults,
            "left_out": self.left_out,
            "tolerated": dict(self.tolerated),
            "worst_seconds": {verb: round(took, 2) for verb, took in sorted(self.worst.items())},
            "worst_beyond_budget": round(max(0.0, max(self.worst.values(), default=0.0) - BUDGET), 2),
            "worst_cancel": round(self.worst_cancel, 2),
            "unavailable": [round(gap, 2) for gap in self.gaps[:50]],
            "unavailable_total": round(sum(self.gaps), 1),
            "watched": self.watched,
            "watches_broken": dict(self.watches_broken),
            "watch_caught_up_after": round(self.watch_took, 2),
            "consumers_gone_after": round(self.consumers_took, 2),
            "orphans": self.orphans,
            "orphan_chunks": self.orphan_chunks,
            "renames_completed": self.renames,
            "objects_read_back": self.objects_read,
            "epochs": self.epochs,
            "file_descriptors": self.fds,
            "resident_bytes": self.rss,
            "violations": [
                {"kind": v.kind, "bucket": v.bucket, "name": v.name, "text": v.text, "ops": v.ops}
                for v in self.violations
            ],
        }
        return json.dumps(document, indent=1, ensure_ascii=False)

    def as_text(self) -> str:
        """Tables for people."""
        lines = [
            f"seed {self.seed}, {self.minutes:g} min, nats-server {self.server}, {self.replicas} server(s): "
            f"{self.operations} operations, {self.watched} states watched, {self.epochs} epochs",
            "",
            f"{'fault':18}{'applied':>8}{'healed':>8}{'hits':>8}{'seconds':>9}",
        ]
        for kind, tally in self.faults.items():
            lines.append(
                f"{kind:18}{tally['applied']:8.0f}{tally['healed']:8.0f}{tally['hits']:8.0f}{tally['seconds']:9.1f}"
            )
        lines += [f"left out: {kind}: {why}" for kind, why in self.left_out.items()]
        lines += ["", f"{'verb':10}{'ok':>8}{'fail':>8}{'unknown':>9}{'worst s':>9}  by error"]
        for verb, counter in sorted(self.outcomes.items()):
            kinds = Counter({key.partition(" ")[0]: 0 for key in counter})
            for key, count in counter.items():
                kinds[key.partition(" ")[0]] += count
            words = ", ".join(
                f"{key.partition(' ')[2]} {count}" for key, count in counter.most_common() if key != OK
            )
            lines.append(
                f"{verb:10}{kinds['ok']:8}{kinds['fail']:8}{kinds['unknown']:9}"
                f"{self.worst.get(verb, 0.0):9.2f}  {words}"
            )
        beyond = max(0.0, max(self.worst.values(), default=0.0) - BUDGET)
        lines += [
            "",
            f"longest operation beyond the budget of {BUDGET:g} s: {beyond:.1f} s; "
            f"longest end of a cancelled one: {self.worst_cancel:.1f} s",
            f"without a successful put for more than {GAP:g} s: {len(self.gaps)} times, "
            f"{sum(self.gaps):.0f} s in all, the longest {[round(gap, 1) for gap in self.gaps[:5]]}",
            f"watchers: caught up within {self.watch_took:.1f} s of standstill; "
            f"raised: {dict(self.watches_broken) or 'none'}",
            f"left over: {self.orphans} sets of chunks without a meta ({self.orphan_chunks} chunks), "
            f"{self.renames} half-done renames, removed or completed by gc; consumers gone after "
            f"{self.consumers_took:.1f} s",
            f"clients: file descriptors {self.fds}, resident MiB {[size >> 20 for size in self.rss]} "
            "(first standstill, later)",
            f"objects read back when all stood still: {self.objects_read}",
            f"typed errors of the tolerated class: {dict(self.tolerated) or 'none'}",
        ]
        kinds = Counter(violation.kind for violation in self.violations)
        lines += ["", f"violations: {len(self.violations)}"]
        lines += [f"    {count} times: {kind}" for kind, count in kinds.most_common()]
        return "\n".join(lines)
