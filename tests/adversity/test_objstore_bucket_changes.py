"""The bucket is sealed, deleted or made anew under a put (B7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from natsproto.jetstream import publisher
from natsproto.jetstream.context import JetStreamContext
from objstore import (
    BucketNotFoundError,
    BucketSealedError,
    ObjectStore,
)
from support.objects import CHUNK, chunk_counts, pattern

OLD = pattern(2 * CHUNK, 1)
LIMIT = 30.0
"""Seconds: the usual budget, and 10 to spare."""


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(publisher.PublishWindow.__init__.__kwdefaults__, "progress_timeout", 0.3)
    monkeypatch.setattr("objstore.write.put.SETTLE", 0.3)
    monkeypatch.setattr("objstore.write.chunks.SETTLE", 0.3)


def interrupted(action: Callable[[], Any], size: int = 6) -> AsyncIterator[bytes]:
    async def source() -> AsyncIterator[bytes]:
        for n in range(size):
            if n == size // 2:
                await action()
            yield pattern(CHUNK, n)

    return source()


async def test_sealed_during_put(store: ObjectStore) -> None:
    await store.put("a", OLD)
    async with asyncio.timeout(LIMIT):
        with pytest.raises(BucketSealedError):
            await store.put("a", interrupted(store.seal))
    assert await store.get("a") == OLD


@pytest.mark.usefixtures("short_patience")
async def test_bucket_deleted_during_put(store: ObjectStore) -> None:
    async with asyncio.timeout(LIMIT):
        with pytest.raises(BucketNotFoundError):
            await store.put("a", interrupted(lambda: store.js.delete_object_store(store.bucket)))


@pytest.mark.usefixtures("short_patience")
@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("restartable", [True, False])
async def test_bucket_recreated_during_put(
    js: JetStreamContext, store: ObjectStore, existing: bool, restartable: bool
) -> None:
    """Nothing of the old handle's put appears in the new bucket."""
    if existing:
        await store.put("a", OLD)

    async def again() -> None:
        await js.delete_object_store(store.bucket)
        await js.create_object_store(bucket=store.bucket)

    started: list[asyncio.Task[None]] = []

    def progress(done: int, total: int | None) -> None:
        if done >= 40 * CHUNK and not started:
            started.append(asyncio.ensure_future(again()))

    async with asyncio.timeout(LIMIT):
        put = (
            store.put("a", pattern(400 * CHUNK), progress=progress, window=2 * CHUNK)
            if restartable
            else store.put("a", interrupted(again))
        )
        with pytest.raises(BucketNotFoundError):
            await put
        for task in started:
            await task
    assert await (await js.object_store(store.bucket)).list() == []
    assert await chunk_counts(store) == {}


async def test_bucket_recreated_before_the_meta(js: JetStreamContext, store: ObjectStore) -> None:
    """A meta without its chunks is never left behind."""

    async def source() -> AsyncIterator[bytes]:
        yield pattern(CHUNK)
        yield pattern(CHUNK)
        async with asyncio.timeout(LIMIT):
            while sum((await chunk_counts(store)).values()) < 2:
                pass
        await js.delete_object_store(store.bucket)
        await js.create_object_store(bucket=store.bucket)

    async with asyncio.timeout(LIMIT):
        with pytest.raises(BucketNotFoundError):
            await store.put("a", source())
    assert await (await js.object_store(store.bucket)).list() == []
    assert await chunk_counts(store) == {}
