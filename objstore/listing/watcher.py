"""What ``watch()`` returns: an async iterator over changes."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING

from natsproto.aio.operations import check_loop

from ..bucket.bucket import Bucket
from .decode import OnInvalid, bounded_warnings
from .watch import Watch

if TYPE_CHECKING:
    from types import TracebackType

    from ..format.models import ObjectInfo


class Watcher:
    """An async iterator over changes; also an async context manager, and awaitable (returns itself).

    Yields :class:`ObjectInfo` only: first the current state, then live changes, in order, each revision at
    most once. If the application is slow, a newer state of a name replaces an unread older one: so the number
    of names bounds the memory, and the last state of every name is always delivered. The watcher continues
    after reconnects. It raises when the bucket is gone or the client is closed, and ends after :meth:`stop`.

    A watcher without references (``async for … in store.watch()`` left by ``break``) stops by itself.
    """

    __slots__ = ("__weakref__", "_home", "_watch")

    def __init__(
        self,
        bucket: Bucket,
        *,
        updates_only: bool = False,
        ignore_deletes: bool = False,
        from_revision: int | None = None,
        prefix: str = "",
        on_invalid: OnInvalid | None = None,
    ) -> None:
        kind = Watch
        if bucket.consumers_skip:
            from .watch_2_9 import ReadingWatch

            kind = ReadingWatch
        self._home = bucket.connection.home
        self._watch = kind(
            bucket,
            updates_only=updates_only,
            ignore_deletes=ignore_deletes,
            from_revision=from_revision,
            prefix=prefix,
            on_invalid=on_invalid or bounded_warnings(),
        )
        if from_revision is not None and (updates_only or from_revision < 1):
            raise ValueError("from_revision is 1 or more, and excludes updates_only")
        # The connection refers to the running watch; the watch does not refer to this object.
        weakref.finalize(self, self._watch.abandon).atexit = False

    async def start(self) -> Watcher:
        """Create the consumer. The first use does it, too; call it to see errors early.

        A cancelled call ends the watch.

        Raises:
            BucketNotFoundError: the bucket was deleted.
            NatsError: the consumer could not be created.
        """
        self._check_loop()
        try:
            await self._watch.start()
        except asyncio.CancelledError:
            # The cancelled task keeps this watcher alive, so it might never be dropped.
            self._watch.end()
            raise
        return self

    async def stop(self) -> None:
        """End the watch and delete its consumer. Idempotent; unread changes are dropped.

        A cancelled call still finishes in the background.
        """
        self._check_loop()
        await self._watch.stop()

    @property
    def caught_up(self) -> Awaitable[None]:
        """Await it to know that the state at the start has been received (but perhaps not read yet)."""
        return _CaughtUp(self._wait_caught_up)

    def __aiter__(self) -> AsyncIterator[ObjectInfo]:
        return self

    async def __anext__(self) -> ObjectInfo:
        self._check_loop()
        return await self._watch.next()

    def _check_loop(self) -> None:
        check_loop(self._home)

    def _wait_caught_up(self) -> Coroutine[object, None, None]:
        self._check_loop()
        return self._watch.wait_caught_up()

    def __await__(self) -> Generator[object, None, Watcher]:
        return self.start().__await__()

    async def __aenter__(self) -> Watcher:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class _CaughtUp:
    """``await watcher.caught_up``; may be awaited any number of times."""

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], Coroutine[object, None, None]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[object, None, None]:
        return self._wait().__await__()
