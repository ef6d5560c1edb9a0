"""One call: its result, its error, errands in the caller's thread, and what an interruption does."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar

import pytest

from natsproto.errors import ConnectionClosedError
from objstore.blocking import call as module
from objstore.blocking.call import timeout, under_way, without_timeout
from objstore.blocking.loop_thread import LoopThread


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_results_and_errors(thread: LoopThread) -> None:
    async def work(wrong: bool) -> threading.Thread:
        if wrong:
            raise KeyError("wrong")
        return threading.current_thread()

    assert thread.call(work, False) is not threading.current_thread()
    with pytest.raises(KeyError) as caught:
        thread.call(work, wrong=True)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == "test_results_and_errors", "the caller's line comes first"
    assert names[-1] == "work", "and the place of the failure last"


def test_an_error_keeps_no_frame_alive(thread: LoopThread) -> None:
    async def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError) as caught:
        thread.call(fail)
    trace = caught.value.__traceback__
    while trace is not None:
        assert not [
            name
            for name, value in trace.tb_frame.f_locals.items()
            if isinstance(value, module.Call) and value._error
        ]
        trace = trace.tb_next


def test_the_context_of_the_caller(thread: LoopThread) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("the caller's")

    async def work() -> str:
        return variable.get()

    assert thread.call(work) == "the caller's"


def test_many_threads(thread: LoopThread) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    found: list[list[int]] = []
    workers = [
        threading.Thread(target=lambda: found.append([thread.call(double, each) for each in range(50)]))
        for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [[2 * each for each in range(50)]] * 8


def test_errands(thread: LoopThread) -> None:
    def fail() -> None:
        raise KeyError("in the caller")

    async def work() -> threading.Thread:
        call = under_way()
        with pytest.raises(KeyError):
            await call.ask(fail)
        return await call.ask(threading.current_thread)

    assert thread.call(work) is threading.current_thread()


def test_an_errand_that_nobody_waits_for(thread: LoopThread) -> None:
    """The call ends while the caller is busy with it; the next errand of the thread is another one."""
    entered, leave = threading.Event(), threading.Event()

    def busy() -> None:
        entered.set()
        assert leave.wait(20)

    async def work() -> str:
        asking = asyncio.ensure_future(under_way().ask(busy))
        await asyncio.to_thread(entered.wait, 20)
        asking.cancel()
        leave.set()
        return "ended"

    assert thread.call(work) == "ended"


@pytest.mark.parametrize("clean", [True, False])
def test_an_interruption(thread: LoopThread, clean: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cancels the call and waits for its clean-up, but not for ever."""
    monkeypatch.setattr(module, "CLEANUP", 20.0 if clean else 0.05)
    ended: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def work() -> None:
        try:
            await under_way().ask(interrupt)
        finally:
            try:
                await asyncio.sleep(0)
                if not clean:
                    await for_ever()
            finally:
                ended.append("ended")

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        thread.call(work)
    assert time.monotonic() - began < 15
    assert ended == (["ended"] if clean else [])


@pytest.mark.parametrize(
    "moment", ["before it is given to the loop", "when the loop knows of it", "before its first step"]
)
def test_interrupted_before_it_began(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It does not begin, nobody waits for it, and nothing of it is kept."""
    monkeypatch.setattr(module, "CLEANUP", 20.0)
    given = thread._loop.call_soon_threadsafe
    entered, leave = threading.Event(), threading.Event()

    def busy() -> None:
        entered.set()
        assert leave.wait(20)

    def give(function: Callable[..., object], *arguments: object, **context: Context) -> None:
        first = function.__name__ == "_begin"
        if not first or moment != "before it is given to the loop":
            given(function, *arguments, **context)
        if first:
            raise KeyboardInterrupt
        leave.set()

    ran: list[str] = []

    async def work(arguments: Arguments) -> None:
        ran.append("ran")

    if moment == "before its first step":  # so the loop begins the call and cancels it in one turn
        given(busy)
        assert entered.wait(20)
    arguments = Arguments()
    kept = weakref.ref(arguments)
    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(thread._loop, "call_soon_threadsafe", give)
        with pytest.raises(KeyboardInterrupt):
            thread.call(work, arguments)
    assert time.monotonic() - began < 15
    assert thread.call(asyncio.sleep, 0, "alive") == "alive"
    assert thread._calls == set()
    if moment != "when the loop knows of it":
        assert ran == []
    del arguments
    gc.collect()
    assert kept() is None


class Arguments:
    """Those of a call; perhaps large."""


def test_a_callback_that_exits(thread: LoopThread) -> None:
    """The exception is the caller's; the loop goes on."""

    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        thread.call(leave)
    assert thread.call(asyncio.sleep, 0, "alive") == "alive"


def test_a_call_that_is_cancelled(thread: LoopThread) -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ConnectionClosedError):
        thread.call(work)


class TestTimeout:
    def test_a_call_that_takes_longer(self, thread: LoopThread) -> None:
        with timeout(0.01), pytest.raises(TimeoutError):
            thread.call(for_ever)
        assert thread.call(asyncio.sleep, 0, "no limit") == "no limit"

    def test_the_earlier_end_counts(self, thread: LoopThread) -> None:
        for outer, inner in ((0.01, 60), (60, 0.01), (0.01, None)):
            with timeout(outer), timeout(inner), pytest.raises(TimeoutError):
                thread.call(for_ever)

    def test_cleaning_up_is_not_cut_short(self, thread: LoopThread) -> None:
        with timeout(0):
            with pytest.raises(TimeoutError):
                thread.call(for_ever)
            with without_timeout():
                assert thread.call(asyncio.sleep, 0, "cleaned") == "cleaned"
