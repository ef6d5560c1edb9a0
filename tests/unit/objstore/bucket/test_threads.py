"""Calls in a thread of their own: how they end, and that nobody has to be there any more when they do."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from objstore.bucket.threads import in_daemon


def stop() -> Any:
    raise StopIteration


def fail() -> Any:
    raise OSError("broken")


async def test_a_value() -> None:
    assert await in_daemon(lambda: 42) == 42


async def test_an_error() -> None:
    with pytest.raises(OSError, match="broken"):
        await in_daemon(fail)


async def test_an_error_that_no_future_takes() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_daemon(stop)


class Call:
    """A call that waits to be released; ``started`` is set from its thread."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.started = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self._loop.call_soon_threadsafe(self.started.set)
        self.release.wait(10)


async def test_who_has_given_up_is_told_nothing() -> None:
    call = Call()
    result = in_daemon(call)
    await call.started.wait()
    result.cancel()
    call.release.set()
    await asyncio.to_thread(call.thread.join, 10)
    await asyncio.sleep(0)
    assert result.cancelled()


def test_a_loop_that_is_closed_is_told_nothing() -> None:
    async def body() -> Call:
        call = Call()
        in_daemon(call)
        await call.started.wait()
        return call

    call = asyncio.run(body())
    call.release.set()
    call.thread.join(10)
    assert not call.thread.is_alive()
