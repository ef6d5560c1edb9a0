"""Several things at once: one that fails does not stop the others, each failure is a line.

What fails for all of them (the server is gone, the bucket is gone or sealed) ends the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

from .failures import failure
from .output import CommandError, Output

if TYPE_CHECKING:
    from natsproto.aio.client import Client
    from objstore.store import ObjectStore

T = TypeVar("T")

AT_ONCE = 8
"""Objects that are transferred or changed at the same time."""

AWAY = AT_ONCE
"""Failures without a success in between after which the bucket itself is asked: all that are under way.

Others may keep changing some objects, and a link may lead to another bucket, whose server is away.
"""

ANSWER = 5.0
"""Seconds for that answer."""


def ends_all(exc: Exception, stores: Collection[ObjectStore]) -> bool:
    """Whether the rest would fail in the same way.

    Args:
        stores: the buckets of the command. A link may lead to yet another one, and that may be gone.
    """
    from natsproto.errors import AuthorizationError, ConnectionClosedError, NatsError, NoServersError
    from objstore.errors import BucketNotFoundError, BucketSealedError
    from objstore.read.files import DISK

    cause = exc.__cause__ if isinstance(exc, CommandError) else exc
    if isinstance(cause, OSError) and not isinstance(cause, NatsError) and cause.errno in DISK:
        return True
    if isinstance(exc, BucketNotFoundError | BucketSealedError):
        return exc.bucket in [store.bucket for store in stores]
    return isinstance(exc, AuthorizationError | ConnectionClosedError | NoServersError)


def _as_if_away(exc: Exception) -> bool:
    """Whether a server that is away fails like that."""
    from objstore.errors import exit_code
    from objstore.read.parts import NotWhole

    return exit_code(exc) == 5 and not isinstance(exc, NotWhole)


async def _answer(stores: Collection[ObjectStore]) -> bool:
    """Whether all of these buckets have a server."""
    from natsproto.errors import NatsError

    try:
        for store in stores:
            bucket = store.bound_bucket
            await bucket.js.stream_info(bucket.stream, timeout=ANSWER)
    except NatsError:
        return False
    return bool(stores)


async def each(
    items: Sequence[T],
    work: Callable[[T], Awaitable[None]],
    out: Output,
    *,
    command: str,
    client: Client | None = None,
    stores: Collection[ObjectStore] = (),
    label: Callable[[T], str] = str,
    at_once: int = AT_ONCE,
) -> None:
    """Do ``work`` for every item, some at the same time.

    The failure of a single item is raised as it is. Of several items, each failure is reported with the
    item's label as soon as it occurs.

    Args:
        client: once it has no connection, the first failure because of that ends all.
        stores: the buckets of the command: that one is gone, sealed or without a server ends all.

    Raises:
        CommandError: some of several items failed; it has the exit code of the first one of them, in the
            order of the items.
    """
    from objstore.bucket.at_once import Errors

    if len(items) == 1:
        await work(items[0])
        return
    failed = Errors()
    started = succeeded = in_a_row = 0

    async def worker() -> None:
        nonlocal started, succeeded, in_a_row
        while started < len(items):
            index = started
            started += 1
            try:
                await work(items[index])
                succeeded += 1
                in_a_row = 0
            except Exception as exc:
                text, code = failure(exc)
                failed.note(index, exc)
                name = label(items[index])
                out.error(text if name in text else f"{name}: {text}", exc, code)
                away = _as_if_away(exc)
                in_a_row += away
                lost = client is not None and not client.is_connected
                if away and not lost and in_a_row >= AWAY and await _answer(stores):
                    in_a_row = 0
                if ends_all(exc, stores) or (away and (lost or in_a_row >= AWAY)):
                    for other in workers:
                        if other is not asyncio.current_task():
                            other.cancel()
                    return

    workers = [asyncio.ensure_future(worker()) for _ in range(min(at_once, len(items)))]
    await asyncio.gather(*workers, return_exceptions=True)
    if failed:
        ended = len(items) - succeeded - len(failed)
        left = f", and {ended} were given up" if ended else ""
        first = failed[min(failed)]
        _, code = failure(first)
        raise CommandError(f"{command}: {len(failed)} of {len(items)} failed{left}", code) from first
