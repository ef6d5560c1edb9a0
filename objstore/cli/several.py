"""Several things at once: one that fails does not stop the others, each failure is a line.

What fails for all of them (the server is gone, the bucket is gone or sealed) ends the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from .failures import failure
from .output import CommandError, Output

if TYPE_CHECKING:
    from natsproto.aio.client import Client

T = TypeVar("T")

AT_ONCE = 8
"""Objects that are transferred or changed at the same time."""

AWAY = AT_ONCE
"""Failures without a success in between that only a server which is away explains: all that are under way.

One alone may be an object that others keep changing.
"""


def ends_all(exc: Exception) -> bool:
    """Whether the rest would fail in the same way."""
    from natsproto.errors import AuthorizationError, ConnectionClosedError, NoServersError
    from objstore.errors import BucketNotFoundError, BucketSealedError

    fatal = (
        AuthorizationError,
        ConnectionClosedError,
        NoServersError,
        BucketNotFoundError,
        BucketSealedError,
    )
    return isinstance(exc, fatal)


def _as_if_away(exc: Exception) -> bool:
    """Whether a server that is away fails like that."""
    from objstore.errors import exit_code
    from objstore.read.parts import NotWhole

    return exit_code(exc) == 5 and not isinstance(exc, NotWhole)


async def each(
    items: Sequence[T],
    work: Callable[[T], Awaitable[None]],
    out: Output,
    *,
    command: str,
    client: Client | None = None,
    label: Callable[[T], str] = str,
    at_once: int = AT_ONCE,
) -> None:
    """Do ``work`` for every item, some at the same time.

    The failure of a single item is raised as it is. Of several items, each failure is reported with the
    item's label as soon as it occurs.

    Args:
        client: once it has no connection, the first failure because of that ends all.

    Raises:
        CommandError: some of several items failed; it has the exit code of the first one of them, in the
            order of the items.
    """
    if len(items) == 1:
        await work(items[0])
        return
    failed: dict[int, tuple[int, Exception]] = {}
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
                failed[index] = code, exc
                name = label(items[index])
                out.error(text if name in text else f"{name}: {text}", exc, code)
                away = _as_if_away(exc)
                in_a_row += away
                lost = client is not None and not client.is_connected
                if ends_all(exc) or (away and (lost or in_a_row >= AWAY)):
                    for other in workers:
                        if other is not asyncio.current_task():
                            other.cancel()
                    return

    workers = [asyncio.ensure_future(worker()) for _ in range(min(at_once, len(items)))]
    await asyncio.gather(*workers, return_exceptions=True)
    if failed:
        ended = len(items) - succeeded - len(failed)
        left = f", and {ended} were given up" if ended else ""
        code, first = failed[min(failed)]
        raise CommandError(f"{command}: {len(failed)} of {len(items)} failed{left}", code) from first
