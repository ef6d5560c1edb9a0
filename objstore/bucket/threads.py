"""Calls that may block for ever, in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")

RELEASE = 1.0
"""Seconds for which an operation that ends early waits for a running call to leave the caller's file."""


def in_daemon(call: Callable[[], T]) -> asyncio.Future[T]:
    """Run a call that may block for ever in a daemon thread, which does not delay the end of the program."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def tell(settle: Callable[[], None]) -> None:
        if not result.done():
            settle()

    def run() -> None:
        try:
            found = call()
        except StopIteration:  # a future refuses it
            told = partial(result.set_exception, RuntimeError("read() raised StopIteration"))
        except BaseException as exc:
            told = partial(result.set_exception, exc)
        else:
            told = partial(result.set_result, found)
        try:
            loop.call_soon_threadsafe(tell, told)
        except RuntimeError:
            pass  # the loop is closed: nothing waits for the result

    threading.Thread(target=run, name="objstore-read", daemon=True).start()
    return result
