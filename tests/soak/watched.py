"""Verdicts, and those about watchers. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from .history import Told, Version


@dataclass(slots=True)
class Violation:
    """Something that must not be.

    Attributes:
        kind: which rule.
        bucket, name: where; the name is ``""`` for the whole bucket.
        text: what was seen and what was expected.
        ops: what the verdict rests on, and what else happened to the name then.
        since: of something that was read: when it was certainly replaced.
        revision: of what was read, or is damaged.
    """

    kind: str
    bucket: str
    name: str
    text: str
    ops: list[str] = field(default_factory=list)
    since: float = -math.inf
    revision: int = 0

    def __str__(self) -> str:
        where = f"{self.bucket}/{self.name}" if self.name else self.bucket
        text = f"{where}: {self.text}" if where else self.text
        return "\n    ".join([f"{self.kind}: {text}", *self.ops])


def check_order(told: Iterable[Told], last: dict[str, int]) -> list[Violation]:
    """Each watcher tells of each revision once, in order.

    Args:
        told: in the order in which each watcher told.
        last: the last revision of each watcher; carried on.
    """
    violations = []
    for item in told:
        before = last.get(item.watcher, 0)
        revision = item.version.revision
        if revision <= before:
            text = f"{item.watcher} told of revision {revision} after {before}"
            violations.append(Violation("a watch out of order", item.bucket, item.version.name, text))
        last[item.watcher] = max(before, revision)
    return violations


def missing_from_watch(
    watcher: str, bucket: str, told: dict[str, int], final: Iterable[Version]
) -> list[Violation]:
    """The last state of every name is told of.

    Args:
        told: the newest revision the watcher told of, by name.
        final: every name's state when everything stands still.
    """
    return [
        Violation(
            "a watch is not complete",
            bucket,
            version.name,
            f"{watcher} told of revision {told.get(version.name, 0)}, the last is {version.revision}",
        )
        for version in final
        if told.get(version.name, 0) < version.revision
    ]
