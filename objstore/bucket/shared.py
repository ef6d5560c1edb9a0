"""What several want to know at the same moment is looked up once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

from natsproto.errors import NatsError
from natsproto.jetstream.api.errors import retryable

if TYPE_CHECKING:
    from .bucket import Bucket

T = TypeVar("T")


class _Running(Generic[T]):
    """A look-up, when it began, and how long it may take."""

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.end: asyncio.Future[tuple[T] | Exception | None] = loop.create_future()
        self.began = loop.time()
        self.seconds = seconds


class Shared(Generic[T]):
    """Look-ups under way, by key. Whoever wants one of them waits for its result, or its error."""

    def __init__(self, bucket: Bucket | None = None) -> None:  # Bucket.remembered passes itself
        self._running: dict[Hashable, _Running[T]] = {}

    async def get(self, key: Hashable, look_up: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Return the result of the look-up under way; or of this one, if there is none, or it is cancelled.

        So is this one done if that one takes longer than ``seconds``, or fails in a way that another may not:
        it may take less time, or most of its time was over.

        Raises:
            Exception: what the look-up has raised, without its traceback for those who have waited.
        """
        loop = asyncio.get_running_loop()
        while (running := self._running.get(key)) is not None:
            came = loop.time()
            await asyncio.wait([running.end], timeout=seconds)
            if not running.end.done():
                return await look_up()
            outcome = running.end.result()
            if isinstance(outcome, tuple):
                return outcome[0]
            less = running.seconds < seconds or came - running.began > loop.time() - came
            if less and isinstance(outcome, NatsError) and retryable(outcome):
                return await look_up()
            if outcome is not None:
                raise outcome.with_traceback(None)
        outcome = None
        self._running[key] = _Running(seconds)
        try:
            outcome = (await look_up(),)
            return outcome[0]
        except Exception as exc:
            outcome = exc
            raise
        finally:
            self._running.pop(key).end.set_result(outcome)
            outcome = None  # the error's traceback has this function
