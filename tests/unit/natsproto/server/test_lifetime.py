"""Blocks around what is started and stopped by blocking calls."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

import pytest

from natsproto.server.lifetime import Lifetime


class Machine(Lifetime):
    """Notes what is called, and starts only when it may."""

    def __init__(self, *, fails: bool = False) -> None:
        self.calls: list[str] = []
        self.waits = threading.Event()
        self.may_start = threading.Event()
        self.threads: set[int] = set()
        self.fails = fails

    def start(self) -> Self:
        self.threads.add(threading.get_ident())
        self.waits.set()
        assert self.may_start.wait(20)
        if self.fails:
            raise OSError("no room")
        self.calls.append("start")
        return self

    def stop(self) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append("stop")

    def _give_up(self) -> None:
        self.calls.append("give up")
        self.may_start.set()


def test_a_block() -> None:
    machine = Machine()
    machine.may_start.set()
    with machine as started:
        assert started is machine
        assert machine.calls == ["start"]
    assert machine.calls == ["start", "stop"]


def test_a_block_that_raises() -> None:
    machine = Machine()
    machine.may_start.set()
    with pytest.raises(KeyError), machine:
        raise KeyError("x")
    assert machine.calls == ["start", "stop"]


async def test_an_async_block_works_in_other_threads() -> None:
    machine = Machine()
    machine.may_start.set()
    async with machine as started:
        assert started is machine
    assert machine.calls == ["start", "stop"]
    assert threading.get_ident() not in machine.threads


async def test_a_start_that_fails_is_not_stopped() -> None:
    machine = Machine(fails=True)
    machine.may_start.set()
    with pytest.raises(OSError, match="no room"):
        async with machine:
            pass
    assert machine.calls == []


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_start_is_given_up_and_leaves_nothing(fails: bool) -> None:
    machine = Machine(fails=fails)
    starting = asyncio.ensure_future(machine.__aenter__())
    async with asyncio.timeout(20):
        await asyncio.to_thread(machine.waits.wait)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert machine.calls == (["give up"] if fails else ["give up", "start", "stop"])
