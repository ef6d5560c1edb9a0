"""Several things at once: one that fails does not stop the others, each failure is a line.

What fails for all of them (the server is gone, the bucket is gone or sealed) ends the work at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from .failures import failure
from .output import CommandError, Output

T = TypeVar("T")

AT_ONCE = 8
"""Objects that are transferred or changed at the same time."""


def ends_all(exc: Exception) -> bool:
    """Whether the rest would fail in the same way."""
    from natsproto.errors import AuthorizationError, ConnectionClosedError, NoServersError
    from objstore.errors import BucketNotFoundError, BucketSealedError, exit_code
    from objstore.read.parts import NotWhole

    fatal = (
        AuthorizationError,
        ConnectionClosedError,
        NoServersError,
        BucketNotFoundError,
        BucketSealedError,
    )
    return isinstance(exc, fatal) or (exit_code(exc) == 5 and not isinstance(exc, NotWhole))


async def each(
    items: Sequence[T],
    work: Callable[[T], Awaitable[None]],
    out: Output,
    *,
    command: str,
    label: Callable[[T], str] = str,
    at_once: int = AT_ONCE,
) -> None:
    """Do ``work`` for every item, some at the same time.

    The failure of a single item is raised as it is. Of several items, each failure is reported with the
    item's label as soon as it occurs.

    Raises:
        CommandError: some of several items failed; it has the exit code of the first one of them, in the
            order of the items.
    """
    if len(items) == 1:
        await work(items[0])
        return
    failed: dict[int, tuple[int, Exception]] = {}
    started = succeeded = 0

    async def worker() -> None:
        nonlocal started, succeeded
        while started < len(items):
            index = started
            started += 1
            try:
                await work(items[index])
                succeeded += 1
            except Exception as exc:
                text, code = failure(exc)
                failed[index] = code, exc
                name = label(items[index])
                out.error(text if name in text else f"{name}: {text}", exc, code)
                if ends_all(exc):
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
