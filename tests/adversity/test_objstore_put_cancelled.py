"""Calls cancelled at any of their steps: the old object or the new one, whole, and nothing left over (B4)."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from natsproto.jetstream.context import JetStreamContext
from objstore import (
    ObjectMeta,
    ObjectStore,
)
from support.objects import CHUNK, KIB, chunk_counts, once, pattern, settled, stream
from support.steps import cancel_at

OLD, NEW = pattern(2 * CHUNK, 1), pattern(6 * CHUNK + 1, 2)
LIMIT = 30.0
"""Seconds: the usual budget, and 10 to spare."""


async def every_step(make: Callable[[], Any], check: Callable[[bool], Any], limit: int = 200) -> int:
    """Cancel a fresh call at each await point in turn; returns how many there are."""
    for step in range(1, limit):
        reached, error = await cancel_at(make(), step)
        assert error is None or isinstance(error, asyncio.CancelledError), (step, error)
        await check(error is None)
        if not reached:
            return step - 1
    raise AssertionError(f"more than {limit} await points")


@pytest.mark.parametrize("kind", ["bytes", "async", "file", "if_revision", "empty"])
async def test_put_cancelled_at_every_step(store: ObjectStore, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(NEW)
    await store.put("a", OLD)

    async def source() -> AsyncIterator[bytes]:
        for piece in once(NEW):
            await asyncio.sleep(0)
            yield piece

    async def put() -> None:
        if kind == "file":
            await store.put_file("a", path, window=2 * CHUNK)
        elif kind == "if_revision":
            await store.put("a", NEW, if_revision=(await store.get_info("a")).revision)
        elif kind == "empty":
            await store.put("a", b"")
        else:
            await store.put("a", NEW if kind == "bytes" else source(), window=2 * CHUNK)

    new = b"" if kind == "empty" else NEW

    async def check(finished: bool) -> None:
        # The commit may have gone through before the cancellation; what counts is that it is whole.
        assert await store.get("a") in ((new,) if finished else (OLD, new))
        await settled(store)
        await store.put("a", OLD)

    assert await every_step(put, check) >= 2


async def test_delete_cancelled_at_every_step(store: ObjectStore) -> None:
    await store.put("a", OLD)

    async def check(finished: bool) -> None:
        await settled(store)
        if await store.exists("a"):
            assert not finished
            assert await store.get("a") == OLD
        else:
            await store.put("a", OLD)

    assert await every_step(lambda: store.delete("a"), check) >= 3


async def test_rename_cancelled_at_every_step(store: ObjectStore) -> None:
    await store.put("a", OLD)

    async def check(finished: bool) -> None:
        await settled_tasks()
        found = {info.name: await store.get(info.name) for info in await store.list()}
        assert found
        assert set(found.values()) == {OLD}
        for name in sorted(found, reverse=True):
            if await store.exists(name):
                await store.delete(name)
        for info in await store.list():  # an interrupted rename that the delete has completed
            await store.delete(info.name)
        assert await chunk_counts(store) == {}
        await store.put("a", OLD)

    async def settled_tasks() -> None:
        async with asyncio.timeout(LIMIT):
            while tasks := [t for t in asyncio.all_tasks() if t.get_name().startswith("objstore-")]:
                await asyncio.wait(tasks)

    assert await every_step(lambda: store.update_meta("a", ObjectMeta("b")), check) >= 3


@pytest.mark.parametrize("direct", [True, False])
async def test_get_cancelled_at_every_step(
    js: JetStreamContext, bucket_name: str, tmp_path: Path, direct: bool
) -> None:
    store = await js.create_object_store(bucket=bucket_name, allow_direct=direct)
    await store.put("a", NEW)

    async def check(finished: bool) -> None:
        assert os.listdir(tmp_path) in ([], ["out"])
        for name in os.listdir(tmp_path):
            assert (tmp_path / name).read_bytes() == NEW
            (tmp_path / name).unlink()

    assert await every_step(lambda: store.get("a"), check) >= 2
    assert await every_step(lambda: store.get_file("a", tmp_path / "out"), check) >= 3
    # A deletion may have overtaken the creation that was cancelled: then the server removes it after 5 s.
    async with asyncio.timeout(LIMIT):
        while await js.consumer_names(stream(store)):
            pass
    await js.delete_object_store(bucket_name)


async def test_timeout(store: ObjectStore) -> None:
    await store.put("a", OLD)
    never = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield pattern(5 * CHUNK)
        await never.wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await store.put("a", source())
    assert await store.get("a") == OLD
    await settled(store)


async def test_blocked_file_cancelled(store: ObjectStore) -> None:
    """A pipe that stays silent holds up neither the cancellation nor the clean-up."""
    reading, writing = os.pipe()
    await asyncio.to_thread(os.write, writing, bytes(60 * KIB))
    with open(reading, "rb", 0) as file:
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await store.put("a", file, chunk_size=1000)
            await settled(store)
        finally:
            os.close(writing)


async def test_random_cancels(store: ObjectStore) -> None:
    """64 puts on one connection, a third of them cancelled: no cross-contamination."""
    rng = random.Random(5)
    datas = {str(n): pattern(rng.randrange(5 * CHUNK), n) for n in range(64)}
    tasks = {name: asyncio.ensure_future(store.put(name, data)) for name, data in datas.items()}
    for name in rng.sample(sorted(tasks), 20):
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        tasks[name].cancel()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait(tasks.values())
    await settled(store)
    found = {info.name for info in await store.list()}
    assert found >= {name for name, task in tasks.items() if not task.cancelled()}
    for name in found:
        assert await store.get(name) == datas[name]
