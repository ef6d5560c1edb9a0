"""Callbacks and background tasks: they do no harm when they raise, are bounded, and end with the client."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from natsproto.aio.callbacks import (
    FINISH_TIMEOUT,
    MAX_UNDER_WAY,
    MAX_WAITING,
    Callbacks,
    wants_reason,
    with_reason,
)
from natsproto.errors import ConfigError, ConnectionClosedError, StaleConnectionError
from support.calls import Calls
from support.fake_session import turns
from support.simulation import in_virtual_time, passing


async def never() -> None:
    await asyncio.Event().wait()


async def test_a_callback_runs_a_turn_later() -> None:
    calls, told = Callbacks(), Calls()
    calls.call(partial(told, "this"))
    calls.call(None)
    calls.call_bounded(None)
    assert told.items == []
    await turns()
    assert told.items == ["this"]


async def test_a_raising_one_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    calls, told = Callbacks(), Calls()

    def plain() -> None:
        raise ValueError("plain")

    async def later() -> None:
        raise ValueError("later")

    for call in (calls.call, calls.call_bounded):
        call(plain)
        call(later)
    calls.call(told)
    await turns()
    assert len(told) == 1
    assert [record.getMessage() for record in caplog.records] == ["a callback raised"] * 4
    await calls.finish()


async def test_what_a_server_causes_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """The rest waits in order, what is more is left out with one line; then all begins anew."""
    calls, told, go = Callbacks(), Calls(), asyncio.Event()

    async def slow(number: int) -> None:
        told(number)
        await go.wait()

    for number in range(MAX_UNDER_WAY + MAX_WAITING + 50):
        calls.call_bounded(partial(slow, number))
    await turns()
    assert told.items == [*range(MAX_UNDER_WAY)]
    assert len(caplog.records) == 1
    go.set()
    await told.until(MAX_UNDER_WAY + MAX_WAITING)
    await turns()
    assert told.items == [*range(MAX_UNDER_WAY + MAX_WAITING)]
    calls.call_bounded(partial(slow, -1))
    await turns()
    assert told.items[-1] == -1
    assert len(caplog.records) == 1


async def test_settling_waits_for_what_ends_by_itself() -> None:
    calls, go = Callbacks(), asyncio.Event()

    async def cleaning() -> None:
        await go.wait()

    other = calls.spawn(never(), "other")
    due = calls.spawn(cleaning(), "due", due=True)
    settling = asyncio.ensure_future(calls.settle())
    await turns()
    assert not settling.done()
    go.set()
    await settling
    assert (due.done(), other.done()) == (True, False)
    await calls.finish()
    assert other.cancelled()


async def test_a_task_that_fails_is_its_owners() -> None:
    calls = Callbacks()

    async def fails() -> None:
        raise ValueError("told by awaiting it")

    task = calls.spawn(fails(), "fails")
    await turns()
    with pytest.raises(ValueError, match="told by awaiting it"):
        await task
    calls.spawn(fails(), "nobody awaits it")
    await turns()  # and nothing is printed about that


def test_what_is_late_is_cancelled() -> None:
    async def work() -> None:
        calls, ended = Callbacks(), Calls()

        async def ends_soon() -> None:
            await passing(FINISH_TIMEOUT / 2)
            ended()

        late = calls.spawn(never(), "late")
        calls.call(ends_soon)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await calls.finish()
        assert loop.time() - began == pytest.approx(FINISH_TIMEOUT)
        assert len(ended) == 1
        assert late.cancelled()

    in_virtual_time(work)


def test_who_does_not_end_when_cancelled_is_left() -> None:
    async def work() -> None:
        calls, go = Callbacks(), asyncio.Event()

        async def stubborn() -> None:
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    pass

        task = calls.spawn(stubborn(), "stubborn")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await calls.finish()
        assert loop.time() - began == pytest.approx(2 * FINISH_TIMEOUT)
        assert not task.done()
        go.set()
        await task

    in_virtual_time(work)


async def test_cancelled_it_cancels_at_once() -> None:
    calls = Callbacks()
    task = calls.spawn(never(), "late")
    finishing = asyncio.ensure_future(calls.finish())
    await turns()
    finishing.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([finishing, task])
    assert task.cancelled()


@pytest.mark.parametrize("deep", [False, True])
async def test_a_callback_does_not_wait_for_its_own_end(deep: bool) -> None:
    """Nor does a task that it has started."""
    calls, done = Callbacks(), Calls()

    async def closing() -> None:
        await (asyncio.create_task(calls.finish()) if deep else calls.finish())
        done()

    calls.call(closing)
    await done.until(1, timeout=FINISH_TIMEOUT / 2 + 5)


def test_an_answer() -> None:
    async def work() -> None:
        calls = Callbacks()

        async def later() -> int:
            await passing(1)
            return 7

        async def cancelled() -> None:
            raise asyncio.CancelledError

        assert await calls.ask(lambda: 7, 1) == 7
        assert await calls.ask(later, 2) == 7
        with pytest.raises(TimeoutError, match=r"no answer within 0\.5 s"):
            await calls.ask(later, 0.5)
        with pytest.raises(TimeoutError, match="it was cancelled"):
            await calls.ask(cancelled, 1)
        with pytest.raises(ZeroDivisionError):
            await calls.ask(lambda: 1 // 0, 1)
        asking = asyncio.ensure_future(calls.ask(never, 1))
        await turns()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        await calls.finish()
        assert len(asyncio.all_tasks()) == 1

    in_virtual_time(work)


async def test_another_loop_spawns_nothing() -> None:
    calls = Callbacks()

    def elsewhere() -> None:
        async def work() -> None:
            with pytest.raises(ConnectionClosedError, match="another event loop"):
                calls.spawn(never(), "foreign")

        asyncio.run(work())

    await asyncio.to_thread(elsewhere)
    await calls.finish()


def test_who_wants_the_reason() -> None:
    """What can be called without one is, as before: a lambda may have bound its loop variable."""

    class Told:
        def one(self, reason: object) -> None: ...
        def none(self) -> None: ...

    wanting: list[Any] = [lambda reason: None, [].append, Told().one, partial(lambda a, b: None, 1)]
    content: list[Any] = [
        lambda: None,
        lambda number=1: None,
        lambda *values: None,
        lambda **values: None,
        asyncio.Event().set,
        Told().none,
        partial(lambda a: None, 1),
        Calls(),
        type,  # has no signature
    ]
    assert [wants_reason(callback) for callback in wanting] == [True] * len(wanting)
    assert [wants_reason(callback) for callback in content] == [False] * len(content)
    bad: list[Any] = [lambda a, b: None, lambda *, a: None]
    for callback in bad:
        with pytest.raises(ConfigError, match="disconnected_cb takes no argument, or one"):
            wants_reason(callback)


def test_the_reason_is_handed_on() -> None:
    reason, told = StaleConnectionError("cut"), Calls()
    assert with_reason(None, reason) is None
    assert with_reason(told, reason) is told
    callback = with_reason(lambda why: told(why), reason)
    assert callback is not None
    callback()
    assert told.items == [reason]
