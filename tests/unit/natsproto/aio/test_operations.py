"""Operations under way: who waits for them, what ends them, and what they tell then."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.aio.operations import END_TIMEOUT, Hold, Operation, Operations, check_loop, home_of
from natsproto.errors import ConnectionClosedError
from support.fake_session import turns
from support.simulation import in_virtual_time


@pytest.fixture
async def operations() -> Operations:
    return Operations(asyncio.get_running_loop())


async def nothing_left() -> None:
    pass


async def endless(operations: Operations, cleaned: list[str] | None = None) -> None:
    with Operation(operations):
        try:
            await asyncio.Event().wait()
        finally:
            if cleaned is not None:
                await asyncio.sleep(0)
                cleaned.append("clean")


async def test_one_inside_of_another_is_part_of_it(operations: Operations) -> None:
    with Operation(operations):
        operations.refusing = True
        with Operation(operations):  # it has begun already
            assert operations.others() == []  # the own one is not waited for
    with pytest.raises(ConnectionClosedError, match="takes nothing new"), Operation(operations):
        pytest.fail("begun")


async def test_waiting_for_the_others(operations: Operations) -> None:
    go = asyncio.Event()

    async def one() -> None:
        with Operation(operations):
            await go.wait()

    tasks = [asyncio.ensure_future(one()) for _ in range(3)]
    await turns()
    assert len(operations.others()) == 3
    waiting = [asyncio.ensure_future(operations.wait(holds=False)) for _ in range(2)]
    tasks[0].cancel()
    await turns()
    assert not any(each.done() for each in waiting)
    go.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    assert operations.others() == []
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_hold_is_waited_for_when_asked_for(operations: Operations) -> None:
    own = Hold(operations)
    assert operations.held() == []  # nobody waits for the own one
    await operations.wait(holds=True)

    async def elsewhere() -> Hold:
        return Hold(operations)

    held = await asyncio.create_task(elsewhere())
    assert operations.held() == [held]
    await operations.wait(holds=False)
    waiting = asyncio.ensure_future(operations.wait(holds=True))
    await turns()
    assert not waiting.done()
    held.release()
    held.release()
    own.release()
    async with asyncio.timeout(5):
        await waiting


async def test_ending_lets_them_clean_up(operations: Operations) -> None:
    cleaned: list[str] = []
    tasks = [asyncio.ensure_future(endless(operations, cleaned)) for _ in range(3)]
    await turns()
    async with asyncio.timeout(5):
        await operations.end(nothing_left, wait=True)
    assert cleaned == ["clean"] * 3
    for task in tasks:
        with pytest.raises(ConnectionClosedError, match="closed before this call had ended"):
            await task
    with pytest.raises(ConnectionClosedError), Operation(operations):
        pytest.fail("begun")


async def test_without_a_session_nobody_waits(operations: Operations) -> None:
    task = asyncio.ensure_future(endless(operations))
    await turns()
    settled: list[None] = []

    async def settle() -> None:
        settled.append(None)

    await operations.end(settle, wait=False)
    assert settled == []
    with pytest.raises(ConnectionClosedError):
        await task


async def test_a_cancellation_by_the_caller_stays_one(operations: Operations) -> None:
    """As with asyncio.timeout(): what others asked for is not turned into an error."""
    task = asyncio.ensure_future(endless(operations))
    await turns()
    task.cancel()
    for operation in operations.others():
        operation.interrupt()
        operation.interrupt()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_one_that_ends_by_itself_tells_its_own_error(operations: Operations) -> None:
    async def fails() -> None:
        with Operation(operations):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError("on the way out") from None

    task = asyncio.ensure_future(fails())
    await turns()
    await operations.end(nothing_left, wait=True)
    with pytest.raises(ValueError, match="on the way out"):
        await task
    assert task.cancelling() == 0


def test_the_end_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        operations = Operations(loop)
        go = asyncio.Event()

        async def stubborn() -> None:
            with Operation(operations):
                while not go.is_set():
                    try:
                        await go.wait()
                    except asyncio.CancelledError:
                        pass

        task = asyncio.ensure_future(stubborn())
        await turns()
        began = loop.time()
        await operations.end(nothing_left, wait=True)
        assert loop.time() - began == pytest.approx(END_TIMEOUT)
        go.set()
        await task

    in_virtual_time(work)
    assert "have not ended" in caplog.records[0].getMessage()


async def test_only_its_own_loop() -> None:
    loop = asyncio.get_running_loop()
    operations = Operations(loop)
    home = home_of(loop)
    check_loop(home)

    async def work() -> None:
        with pytest.raises(ConnectionClosedError, match="run_coroutine_threadsafe"):
            check_loop(home)
        with pytest.raises(ConnectionClosedError), Operation(operations):
            pytest.fail("begun")

    await asyncio.to_thread(lambda: asyncio.run(work()))
    with pytest.raises(ConnectionClosedError):
        await asyncio.to_thread(check_loop, home)


async def test_a_loop_that_does_not_say_its_thread() -> None:
    """uvloop's have no ``_thread_id``."""

    class Silent:
        pass

    home = home_of(Silent())  # type: ignore[arg-type]
    assert home._thread_id is None
    with pytest.raises(ConnectionClosedError):
        check_loop(home)
