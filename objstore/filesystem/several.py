"""Many objects in one call: what fails for one of them does not stop the others.

What fails for all of them (no connection, no bucket, no room on the local disk) ends the call.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, TypeVar

from natsproto.aio.callbacks import BoundedLog
from natsproto.errors import AuthorizationError, NatsError
from natsproto.jetstream.api.errors import retryable

from ..bucket.at_once import run_each
from ..errors import BucketNotFoundError, BucketSealedError
from ..read.files import DISK
from ..read.parts import NotWhole
from .paths import split, strip

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence

    from ..store import ObjectStore

T = TypeVar("T")
Item = TypeVar("Item")

log: logging.Logger = logging.getLogger("objstore.filesystem")

ANSWER = 5.0
"""Seconds for the answer of a bucket of which an object gave none."""


def of_one(exc: Exception, buckets: Collection[str]) -> bool:
    """Whether an error says nothing of other objects. One for lack of an answer may do so.

    Args:
        exc: the error; or that of a file system, with the error as its cause.
        buckets: those of the call. A link may lead to yet another one, and that may be gone.
    """
    error = _error(exc)
    if isinstance(error, BucketNotFoundError | BucketSealedError):
        return error.bucket not in buckets
    if isinstance(error, NatsError):
        lost = isinstance(error, AuthorizationError | ConnectionError) or retryable(error)
        return not lost or isinstance(error, NotWhole)
    if isinstance(error, OSError):
        return error.errno not in DISK
    return isinstance(error, ValueError)  # a name that cannot be that of a file


def _error(exc: Exception) -> BaseException:
    """Return the error that the error of a file system stands for."""
    cause = exc.__cause__
    return cause if isinstance(cause, NatsError) and not isinstance(exc, NatsError) else exc


class Several:
    """The objects of one call.

    Args:
        opened: returns a bucket.
        buckets: those of the call.
        at_once: objects at the same time.
        directory: the local one that all files go to.
    """

    def __init__(
        self,
        opened: Callable[[str], Awaitable[ObjectStore]],
        buckets: Collection[str],
        at_once: int,
        directory: str | None = None,
    ) -> None:
        self._opened = opened
        self._buckets = buckets
        self._at_once = at_once
        self._directory = directory

    async def run(
        self,
        items: Sequence[Item],
        work: Callable[[Item], Coroutine[object, None, T]],
        label: Callable[[Item], str] = str,
        skipped: tuple[type[Exception], ...] = (),
    ) -> list[T]:
        """Do something with each item, and return the results; raise the first error when all are done.

        Of several items, each failure is logged as a warning when it occurs, but no more than ten per second.

        Args:
            items: what to work on.
            work: what to do with each.
            label: returns an item's path.
            skipped: errors of single items that do not matter.
        """

        bounded = BoundedLog(log)

        async def ends(number: int, exc: Exception) -> bool:
            all_end = await self._ends_all(exc)
            if len(items) > 1 and (all_end or not isinstance(exc, skipped)):
                bounded.warning("failures of one call", "%r failed: %s", label(items[number]), exc)
            return all_end

        found, ended = await run_each(map(work, items), self._at_once, ends)
        failed = {
            number: each
            for number, each in found.items()
            if isinstance(each, Exception) and (number == ended or not isinstance(each, skipped))
        }
        if failed:
            first = min(failed) if ended is None else ended
            if len(items) > 1:
                given_up = len(items) - len(found)
                left = f", and {given_up} were given up" if given_up else ""
                note = f"{label(items[first])!r}: {len(failed)} of {len(items)} failed{left}"
                failed[first].add_note(note)
            raise failed[first]
        return [each for _, each in sorted(found.items()) if not isinstance(each, Exception)]

    async def read(
        self, paths: Sequence[str], work: Callable[[str], Coroutine[object, None, T]], on_error: str
    ) -> dict[str, T | Exception]:
        """Read each path; return what was read, or its error; with ``"raise"``, raise the first of them.

        What ends all that is read of a bucket is also the error of those that were given up.
        """
        if on_error == "raise":
            return dict(zip(paths, await self.run(paths, work), strict=True))
        by_bucket: dict[str, list[str]] = {}
        for path in paths:
            by_bucket.setdefault(split(strip(path))[0], []).append(path)
        answers: dict[str, T | Exception] = {}
        for bucket, some in by_bucket.items():
            answers.update(await Several(self._opened, {bucket}, self._at_once).results(some, work))
        return answers

    async def results(
        self, paths: Sequence[str], work: Callable[[str], Coroutine[object, None, T]]
    ) -> dict[str, T | Exception]:
        """Return the result or the error of each path, as :meth:`read` does, in one bucket."""

        async def ends(_: int, exc: Exception) -> bool:
            return await self._ends_all(exc)

        found, ended = await run_each(map(work, paths), self._at_once, ends)
        if ended is not None:
            found = dict.fromkeys(range(len(paths)), found[ended]) | found
        return {path: found[number] for number, path in enumerate(paths)}

    async def _ends_all(self, exc: Exception) -> bool:
        """Whether the others would fail in the same way."""
        if of_one(exc, self._buckets):
            denied = isinstance(exc, PermissionError) and _error(exc) is exc
            return denied and self._directory is not None and not os.access(self._directory, os.W_OK)
        return not retryable(_error(exc)) or not await self._answer()

    async def _answer(self) -> bool:
        """Whether all buckets have a server: else it was that of a link's target that gave no answer."""
        try:
            for bucket in self._buckets:
                store = await self._opened(bucket)
                if not store.client.is_connected:
                    return False
                await store.js.stream_info(store.bound_bucket.stream, timeout=ANSWER)
        except NatsError:
            return False
        return True
