"""The history: what each client was about to do, and what it was told; one JSON object a line.

A line is written by one system call before an operation begins and another one when it has ended, so a client
that is killed loses nothing that it knew: an operation without an end is one with an unknown outcome. Times
are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"


@dataclass(slots=True)
class Version:
    """What one meta message said: a state of a name.

    Attributes:
        name: the object's name.
        revision: stream sequence of the meta message.
        tag: the operation that wrote this meta, as its description says; ``""`` when it says nothing.
        body: which bytes it names (:func:`tests.soak.content.body_id`); ``""`` for links and markers.
        digest: SHA-256 as hex, as the meta has it.
        nuid: of the chunks.
        deleted: whether it is a delete marker.
        link: whether it is a link.
    """

    name: str
    revision: int
    tag: str = ""
    body: str = ""
    digest: str = ""
    nuid: str = ""
    deleted: bool = False
    link: bool = False

    def facts(self) -> tuple[object, ...]:
        """What it says, apart from where it stands."""
        return (self.tag, self.body, self.digest, self.nuid, self.deleted, self.link)

    def row(self) -> list[Any]:
        """As it stands in the log."""
        return [
            self.name,
            self.revision,
            self.tag,
            self.body,
            self.digest,
            self.nuid,
            int(self.deleted) + 2 * int(self.link),
        ]

    @classmethod
    def of_row(cls, row: list[Any]) -> Version:
        return cls(*row[:6], deleted=bool(row[6] & 1), link=bool(row[6] & 2))


@dataclass(slots=True, eq=False)
class Op:
    """One operation of a client.

    Attributes:
        id: names it; also its tag in what it writes.
        verb: ``put``, ``get`` …
        bucket: where.
        name: of the object, ``""`` for those of the whole bucket.
        begin: when it was begun.
        end: when its outcome was known; infinite when it never was.
        outcome: ``ok``, ``fail`` (nothing happened, says the library) or ``unknown``.
        error: the class of what was raised.
        message: its text.
        args: what it was asked to do.
        result: what it was told.
        stalled: seconds of it in which its process did not run.
        cancel: seconds from its cancellation to its end.
    """

    id: str
    verb: str
    bucket: str
    name: str
    begin: float
    end: float = math.inf
    outcome: str = UNKNOWN
    error: str = ""
    message: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    stalled: float = 0.0
    cancel: float = 0.0

    @property
    def settled(self) -> float:
        """When it had had all the effects it could have: never, while its outcome is unknown."""
        return self.end if self.outcome == OK else math.inf

    def __str__(self) -> str:
        end = "…" if math.isinf(self.end) else f"{self.end:.3f}"
        args = " ".join(f"{key}={value}" for key, value in self.args.items() if value not in (None, ""))
        told = {key: value for key, value in self.result.items() if key != "list"}
        return (
            f"{self.begin:.3f}-{end} {self.id} {self.verb} {self.name} {args} → {self.outcome} "
            f"{self.error} {self.message[:200]} {json.dumps(told, ensure_ascii=False)[:400]}"
        )


@dataclass(slots=True)
class Told:
    """What a watcher told of, and when."""

    watcher: str
    bucket: str
    time: float
    version: Version


class Log:
    """An append-only file; every line is one write."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, document: dict[str, Any]) -> None:
        """Append one line; it is the system's as soon as this returns."""
        os.write(self._fd, json.dumps(document, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class History:
    """What one or more logs say."""

    ops: list[Op] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)
    """What a client noticed that must not be: background exceptions, hangs …"""
    watchers: dict[str, str] = field(default_factory=dict)
    """Watchers that were begun, with their buckets."""
    broke: list[dict[str, Any]] = field(default_factory=list)
    """Watchers that raised."""


def lines(path: str) -> Iterator[dict[str, Any]]:
    """The whole lines of a log; a last one that was cut off by a kill is left out."""
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def read(paths: Iterable[str]) -> History:
    """Put logs together."""
    history = History()
    begun: dict[str, Op] = {}
    for path in paths:
        for line in lines(path):
            if "i" in line:
                op = Op(line["i"], line["v"], line["b"], line["n"], line["t"], args=line["a"])
                begun[op.id] = op
                history.ops.append(op)
            elif "r" in line:
                op = begun.pop(line["r"])
                op.end, op.outcome = line["t"], line["o"]
                op.error, op.message = line.get("e", ""), line.get("m", "")
                op.result = line.get("x", {})
                op.stalled, op.cancel = line.get("s", 0.0), line.get("c", 0.0)
            elif "w" in line:
                history.told.append(Told(line["w"], line["b"], line["t"], Version.of_row(line["x"])))
            elif "began" in line:
                history.watchers[line["began"]] = line["b"]
            elif "broke" in line:
                history.broke.append(line)
            elif "bad" in line:
                history.bad.append(line)
    return history
