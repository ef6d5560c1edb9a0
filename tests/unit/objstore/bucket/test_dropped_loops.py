"""What is dropped when its event loop has ended: nothing is left to end, and nobody to warn."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from objstore.bucket.dropped import end_dropped


class Owner:
    def __repr__(self) -> str:
        return "<an owner>"


async def wait() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def run_to_its_end(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> bool:
    """Whether the task ends by itself; it is cancelled if not, so that nothing is left."""
    loop.run_until_complete(asyncio.sleep(0))
    ended = task.done()
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    return ended


def test_a_task_that_runs_is_cancelled(loop: asyncio.AbstractEventLoop) -> None:
    task = loop.create_task(wait())
    with pytest.warns(ResourceWarning, match="<an owner> was dropped: close it"):
        end_dropped(Owner(), task, "close it")
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    assert task.cancelled()


def test_nothing_to_end(loop: asyncio.AbstractEventLoop) -> None:
    task = loop.create_task(asyncio.sleep(0))
    loop.run_until_complete(task)
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        end_dropped(Owner(), task, "close it")
        end_dropped(Owner(), None, "close it")


def test_a_loop_that_is_closed(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    task = loop.create_task(wait())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(loop, "is_closed", lambda: True)
        end_dropped(Owner(), task, "close it")
        monkeypatch.undo()
    assert not run_to_its_end(loop, task)


def test_a_loop_that_closes_meanwhile(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*args: object) -> None:
        raise RuntimeError("Event loop is closed")

    task = loop.create_task(wait())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(loop, "call_soon_threadsafe", closed)
        end_dropped(Owner(), task, "close it")
        monkeypatch.undo()
    assert not run_to_its_end(loop, task)
