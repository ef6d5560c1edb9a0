"""What nobody refers to any more is ended, with a warning; and not where there is nothing to end."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from objstore.bucket.dropped import end_dropped
from support.fake_session import turns


class Owner:
    def __init__(self, task: asyncio.Task[None] | None) -> None:
        self.task = task

    def __repr__(self) -> str:
        return "<Owner>"

    def __del__(self) -> None:
        end_dropped(self, self.task, "call close()")


async def never() -> None:
    await asyncio.Event().wait()


async def test_its_task_is_cancelled() -> None:
    task = asyncio.ensure_future(never())
    await turns()
    owner = Owner(task)
    with pytest.warns(ResourceWarning, match="<Owner> was dropped: call close()"):
        del owner  # and with it the last reference
    await turns()
    assert task.cancelled()


async def test_in_another_thread_too() -> None:
    task = asyncio.ensure_future(never())
    await turns()
    with pytest.warns(ResourceWarning):
        await asyncio.to_thread(end_dropped, object(), task, "call close()")
    await asyncio.wait([task])
    assert task.cancelled()


async def test_nothing_to_end() -> None:
    done = asyncio.ensure_future(asyncio.sleep(0))
    await done
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        end_dropped(object(), None, "x")
        end_dropped(object(), done, "x")


def test_after_the_loop_has_ended() -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(never())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        end_dropped(object(), task, "x")
    assert not task.done()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
