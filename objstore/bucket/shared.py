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
        self._running: dict[Hashable, asyncio.Future[Callable[[], T] | None]] = {}

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
            if outcome is not None:
                try:
                    return outcome()
                except NatsError as exc:
                    if not retryable(exc):
                        raise
                return await look_up()
        running = self._running[key] = asyncio.get_running_loop().create_future()
        outcome = None
        try:
            result = await look_up()
            outcome = lambda: result  # noqa: E731
            return result
        except Exception as exc:
            error = exc

            def failed() -> T:
                raise error.with_traceback(None)

            outcome = failed
            raise
        finally:
            del self._running[key]
            running.set_result(outcome)
