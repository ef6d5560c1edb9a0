"""Repeat idempotent calls until they succeed, fail for good, or use up a budget."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from natsproto._values import seconds
from natsproto.aio.client import Client
from natsproto.aio.options import DEFAULT_RETRY_BUDGET
from natsproto.backoff import Backoff
from natsproto.errors import NatsError, RequestTimeoutError
from natsproto.jetstream.api.errors import retryable

T = TypeVar("T")

RETRY_BUDGET = DEFAULT_RETRY_BUDGET
"""Seconds of retries without progress (20, see ``natsproto/aio/options.py``); of one bucket:
:attr:`Bucket.retry_budget`."""


FIRST_ATTEMPT = 5.0
"""Seconds: a smaller budget also bounds the first attempt of a call. With a larger one the request's own
timeout does."""


async def retrying(client: Client, call: Callable[[], Awaitable[T]], budget: float) -> T:
    """Run an idempotent call until it succeeds, fails for good, or ``budget`` seconds are used up.

    The budget bounds the attempts, not only the pauses between them: an attempt that is still running at the
    end is given up. With a budget of 0 there is one attempt.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + budget
    failure: NatsError | None = None
    if budget >= FIRST_ATTEMPT or not budget:
        # The usual case: a call that succeeds at once needs no timer.
        try:
            return await call()
        except NatsError as exc:
            if not retryable(exc):
                raise
            failure = exc
    backoff = Backoff()
    bound = asyncio.timeout_at(deadline)
    try:
        async with bound:
            while True:
                if failure is not None:
                    if loop.time() + backoff.seconds > deadline:
                        break
                    await pause(client, backoff.seconds, deadline)
                    backoff.grow()
                try:
                    return await call()
                except NatsError as exc:
                    if not retryable(exc):
                        raise
                    failure = exc
    except TimeoutError as exc:
        if not bound.expired() or isinstance(exc, NatsError):
            raise
    raise failure or RequestTimeoutError(f"no answer within {seconds(budget)} s (retry_budget)") from None


async def pause(client: Client, wait: float, deadline: float) -> None:
    """Wait before a retry, and until the client is connected again."""
    await asyncio.sleep(wait)
    connection = client.connection
    if connection.session is None:
        await connection.wait_connected(max(0.1, deadline - asyncio.get_running_loop().time()))
