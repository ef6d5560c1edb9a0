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


class Shared(Generic[T]):
    """Look-ups under way, by key. Whoever wants one of them waits for its result, or its error."""

    def __init__(self, bucket: Bucket | None = None) -> None:  # Bucket.remembered passes itself
        self._running: dict[Hashable, asyncio.Future[tuple[T] | Exception | None]] = {}

    async def get(self, key: Hashable, look_up: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Return the result of the look-up under way; or of this one, if there is none, or it is cancelled.

        So is this one done if that one takes longer than ``seconds``, or fails in a way that another may not,
        since it may have had less time.

        Raises:
            Exception: what the look-up has raised, without its traceback for those who have waited.
        """
        while (running := self._running.get(key)) is not None:
            await asyncio.wait([running], timeout=seconds)
            if not running.done():
                return await look_up()
            outcome = running.result()
            if isinstance(outcome, tuple):
                return outcome[0]
            if isinstance(outcome, NatsError) and retryable(outcome):
                return await look_up()
            if outcome is not None:
                raise outcome.with_traceback(None)
        outcome = None
        self._running[key] = asyncio.get_running_loop().create_future()
        try:
            outcome = (await look_up(),)
            return outcome[0]
        except Exception as exc:
            outcome = exc
            raise
        finally:
            self._running.pop(key).set_result(outcome)
            outcome = None  # the error's traceback has this function
