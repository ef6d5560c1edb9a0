"""Which objects the names on a command line mean: exact names, globs, directories.

The server has no directories: one is all names that begin with its name and a ``/``. For globs see
:mod:`.globs`.
"""

from __future__ import annotations

import asyncio
import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from .globs import glob_matcher, literal
from .output import CommandError, Output

if TYPE_CHECKING:
    from datetime import datetime

    from objstore.format.models import InvalidMeta, ObjectInfo
    from objstore.store import ObjectStore

TURN = 0.02
"""Seconds for which names are matched without giving way."""

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Pattern:
    """A name as it was written on the command line.

    Attributes:
        text: what was written; "" means the whole bucket.
        recursive: it also means everything below it, as a directory.
        literal: it is a name as it is written; ``False``: it is a glob, even if an object is called so;
            ``None``: it must be clear which.
    """

    text: str
    recursive: bool = False
    literal: bool | None = None

    @cached_property
    def name(self) -> str | None:
        """The one name, or directory, that it can mean; ``None`` for a glob."""
        return self.text if self.literal else literal(self.text)

    @property
    def exact(self) -> bool:
        """Whether it can only mean one object: nothing needs to be listed."""
        return not self.recursive and self.name is not None

    @property
    def doubtful(self) -> bool:
        """Whether an object that is called as it is written would be another one than it means."""
        return self.literal is None and self.name != self.text

    @cached_property
    def prefix(self) -> str:
        """What every matching name begins with."""
        return self.start if self.name is None else self.name

    @cached_property
    def start(self) -> str:
        """What every matching name begins with, and one that is called as it is written."""
        wild = _WILD.search(self.text) if self.doubtful or self.name is None else None
        return (self.name or self.text) if wild is None else self.text[: wild.start()]

    def directory_of(self, name: str) -> str:
        """Return the directory of a matching name that is certain, with its ``/``; the rest is its path."""
        for known in (self.name, self.text) if self.recursive and self.name else ():
            directory = known.rstrip("/") + "/"
            if name.startswith(directory):
                return directory
        directory = self.prefix[: self.prefix.rfind("/") + 1]
        return directory if name.startswith(directory) else ""

    def is_called(self, name: str) -> bool:
        """Whether an object of this name is called so, or lies in a directory that is, whatever matches."""
        return name == self.text or (self.recursive and name.startswith(self.text.rstrip("/") + "/"))

    @cached_property
    def _match(self) -> Callable[[str], object]:
        return glob_matcher(self.text.rstrip("/") if self.recursive else self.text)

    @cached_property
    def _below(self) -> Callable[[str], object]:
        return glob_matcher(self.text.rstrip("/") + "/**")

    def matches(self, name: str) -> bool:
        """Whether it means the object of this name."""
        if not self.recursive:
            return bool(name == self.name if self.exact else self._match(name))
        if self.name is not None:
            inside = self.name if self.name.endswith("/") or not self.name else self.name + "/"
            return name == self.name or name.startswith(inside)
        return bool((not self.text.endswith("/") and self._match(name)) or self._below(name))


@dataclass(frozen=True, slots=True)
class Chosen:
    """An object that a command works on.

    Attributes:
        name: its name.
        directory: the part of the name that the command line has fixed; the rest is its path below a target.
        info: what was listed; ``None`` when it was named exactly and nothing was listed.
    """

    name: str
    directory: str
    info: ObjectInfo | None = None

    @property
    def path(self) -> str:
        """The name below the directory."""
        return self.name[len(self.directory) :]


def patterns_of(names: Sequence[str], args: Namespace) -> list[Pattern]:
    """Return what the names of a command line mean. With ``-r``, no name means the whole bucket."""
    recursive: bool = getattr(args, "recursive", False)
    return [Pattern(name, recursive, args.literal) for name in names or ([""] if recursive else [])]


class Turns:
    """Lets an interrupt take effect: a pattern takes up to 25 ms per name, and there may be very many."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.time() + TURN

    async def take(self) -> None:
        """Give way if a turn is over."""
        if self._loop.time() >= self._next:
            await asyncio.sleep(0)
            self._next = self._loop.time() + TURN


async def listed(store: ObjectStore, out: Output, *, prefix: str = "") -> list[ObjectInfo]:
    """Return the live objects, sorted by name; warn of meta messages that cannot be read."""

    def invalid(meta: InvalidMeta) -> None:
        out.warn(f"the meta message at revision {meta.revision} is skipped: {meta.error}")

    return sorted(await store.list(prefix=prefix, on_invalid=invalid), key=lambda info: info.name)


async def choose(store: ObjectStore, patterns: Iterable[Pattern], out: Output) -> list[Chosen]:
    """Return what the patterns mean, each object once, in the order of the patterns.

    Raises:
        CommandError: a glob or directory means nothing (exit code 3); or what looks like a glob is also what
            an object is called (2): others choose names, and must not decide what the command means.
    """
    patterns = list(patterns)
    found: dict[str, Chosen] = {}
    infos: list[ObjectInfo] | None = None
    turns = Turns()
    for pattern in patterns:
        if pattern.exact:
            name = await _exactly(store, pattern)
            found.setdefault(name, Chosen(name, pattern.directory_of(name)))
            continue
        if infos is None:
            only = pattern.start.rstrip("/") if len(patterns) == 1 else ""
            infos = await listed(store, out, prefix=only)
        matching, called = [], []
        for info in infos:
            await turns.take()
            if pattern.matches(info.name):
                matching.append(info)
            if pattern.doubtful and pattern.is_called(info.name):
                called.append(info)
        if not matching:
            matching = called  # as in a shell: what matches nothing may be meant as it is
        elif called and {info.name for info in matching} - {info.name for info in called}:
            raise _decide(pattern)
        if not matching and pattern.text:
            what = "nothing below" if pattern.recursive and pattern.name is not None else "no object matches"
            raise CommandError(
                f"{what} {pattern.text!r} in bucket {store.bucket!r}. "
                f"List names with: objstore ls -r {store.bucket}",
                3,
            )
        for info in matching:
            found.setdefault(info.name, Chosen(info.name, pattern.directory_of(info.name), info))
    return list(found.values())


async def _exactly(store: ObjectStore, pattern: Pattern) -> str:
    """Return the name of the one object that a pattern means, which may not exist.

    Raises:
        CommandError: it has escapes, and an object is called as it is written.
    """
    name = pattern.name
    assert name is not None
    if not pattern.doubtful or not await store.exists(pattern.text):
        return name
    if await store.exists(name):
        raise _decide(pattern)
    return pattern.text  # as in a shell: what matches nothing may be meant as it is


def _decide(pattern: Pattern) -> CommandError:
    what = "object or directory" if pattern.recursive else "object"
    return CommandError(
        f"{pattern.text!r} is the name of an {what}, and a pattern that matches others: "
        "pass --literal or --glob",
        2,
    )


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions of ``find`` and ``ls --since``; each that is given must be met.

    Attributes:
        name: a glob for the base name, or for the whole name if it contains a ``/``.
        larger: more bytes than this.
        smaller: fewer bytes than this.
        newer: changed at this time or later.
        older: changed before this time.
    """

    name: str | None = None
    larger: int | None = None
    smaller: int | None = None
    newer: datetime | None = None
    older: datetime | None = None

    @classmethod
    def of(cls, args: Namespace) -> Filter:
        """Return the conditions of ``find``."""
        return cls(args.match, args.larger, args.smaller, args.newer, args.older)

    def test(self) -> Callable[[ObjectInfo], bool]:
        """Return a function that says whether an object meets all conditions."""
        conditions: list[Callable[[ObjectInfo], object]] = []
        if self.name is not None:
            match, whole = glob_matcher(self.name), "/" in self.name
            conditions.append(lambda info: match(info.name if whole else info.name.rpartition("/")[2]))
        if (larger := self.larger) is not None:
            conditions.append(lambda info: info.size > larger)
        if (smaller := self.smaller) is not None:
            conditions.append(lambda info: info.size < smaller)
        if (newer := self.newer) is not None:
            conditions.append(lambda info: info.mtime >= newer)
        if (older := self.older) is not None:
            conditions.append(lambda info: info.mtime < older)
        return lambda info: all(condition(info) for condition in conditions)
