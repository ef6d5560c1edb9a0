"""Readers and writers that nobody closes go when nobody refers to them: with task, consumer and chunks."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import ObjectStore
from support.leaks import no_task_left
from support.objects import CHUNK, assert_exact, chunk_counts, pattern

nothing_left = pytest.fixture(autouse=True)(no_task_left)

DATA = pattern(24_000_000)
"""More than is read ahead."""


@pytest.fixture(params=["direct", "consumer"])
async def any_store(
    request: pytest.FixtureRequest, js: JetStreamContext, bucket_name: str
) -> AsyncIterator[ObjectStore]:
    yield await js.create_object_store(bucket=bucket_name, allow_direct=request.param == "direct")
    left = await js.consumer_names(f"OBJ_{bucket_name}")
    await js.delete_object_store(bucket_name)
    assert left == []


async def ended(task: asyncio.Task[Any]) -> None:
    done, _ = await asyncio.wait([task], timeout=10)
    assert done, "the task goes on"


async def iterated(store: ObjectStore) -> Any:
    async for piece in await store.open_reader("a"):
        assert DATA.startswith(piece)
        break


async def read(store: ObjectStore) -> Any:
    reader = await store.open_reader("a")
    assert await reader.read(100) == DATA[:100]


async def sought(store: ObjectStore) -> Any:
    reader = await store.open_reader("a")
    await reader.seek(5_000_000)
    assert await reader.read(5) == DATA[5_000_000:5_000_005]


async def in_a_cycle(store: ObjectStore) -> Any:
    reader: Any = await store.open_reader("a")
    await reader.read(100)
    reader.itself = reader


def tasks(name: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


@pytest.mark.parametrize("use", [iterated, read, sought, in_a_cycle])
async def test_reader(any_store: ObjectStore, use: Callable[[ObjectStore], Any]) -> None:
    await any_store.put("a", DATA)

    async def drop() -> asyncio.Task[Any]:
        await use(any_store)
        (task,) = tasks("objstore-reader")
        gc.collect()
        return task

    with pytest.warns(ResourceWarning, match="async with") as caught:
        task = await drop()
    assert len(caught) == 1
    caught.clear()  # knows the reader
    await ended(task)
    assert await any_store.js.consumer_names(f"OBJ_{any_store.bucket}") == []
    kept = weakref.ref(task)
    del task
    await asyncio.sleep(0)
    gc.collect()
    assert kept() is None  # and with it what was read ahead


async def test_reader_in_another_thread(store: ObjectStore) -> None:
    await store.put("a", DATA)
    readers = [await store.open_reader("a")]
    await readers[0].read(100)
    (task,) = tasks("objstore-reader")
    with pytest.warns(ResourceWarning):
        await asyncio.to_thread(readers.clear)
    await ended(task)


async def test_a_reader_that_is_held_goes_on(any_store: ObjectStore) -> None:
    await any_store.put("a", DATA)
    reader = await any_store.open_reader("a")
    assert await reader.read(100) == DATA[:100]
    gc.collect()
    assert await reader.read() == DATA[100:]
    del reader  # read to its end: nothing to warn of


async def test_what_was_closed_or_never_used(store: ObjectStore) -> None:
    await store.put("a", DATA)
    await store.open_reader("a")
    store.open_reader("a")
    store.open_writer("b")
    reader = await store.open_reader("a")
    await reader.read(100)
    await reader.aclose()
    del reader
    async with store.open_reader("a") as reader:
        await reader.read(100)
    del reader
    async with store.open_writer("b") as writer:
        await writer.write(b"1")
    del writer
    writer = store.open_writer("b")
    await writer.write(b"2")
    await writer.abort()
    del writer
    gc.collect()
    assert await store.get("b") == b"1"


@pytest.mark.parametrize("size", [1, 3 * CHUNK + 5])
@pytest.mark.parametrize("cycle", [False, True])
async def test_writer(store: ObjectStore, size: int, cycle: bool) -> None:
    """Never committed: the object that was there stays, and no chunks of the other one."""
    await store.put("a", b"before")

    async def drop() -> asyncio.Task[Any]:
        writer: Any = store.open_writer("a")
        await writer.write(DATA[:size])
        if cycle:
            writer.itself = writer
        del writer
        gc.collect()
        (task,) = tasks("objstore-writer")
        return task

    with pytest.warns(ResourceWarning, match="async with") as caught:
        task = await drop()
    assert len(caught) == 1
    await ended(task)
    assert await store.get("a") == b"before"
    assert len(await chunk_counts(store)) == 1
    await assert_exact(store)


async def test_a_writer_whose_commit_is_cancelled_twice(store: ObjectStore) -> None:
    """It was closed: what it cleans up it cleans up alone, and nobody is told to close it."""
    writer = store.open_writer("a")
    await writer.write(DATA[: 3 * CHUNK])
    (task,) = tasks("objstore-writer")
    commit = asyncio.ensure_future(writer.commit())
    for _ in range(2):
        await asyncio.sleep(0)
        commit.cancel()
    await asyncio.wait([commit])
    assert commit.cancelled()
    assert not task.done()
    del writer, commit
    gc.collect()
    await ended(task)
    await assert_exact(store)


async def test_a_writer_that_is_held_goes_on(store: ObjectStore) -> None:
    writer = store.open_writer("a")
    for at in range(0, 1_000_000, 100_000):
        await writer.write(DATA[at : at + 100_000])
        gc.collect()
    await writer.commit()
    assert await store.get("a") == DATA[:1_000_000]


@pytest.mark.parametrize("kind", ["reader", "writer"])
def test_after_the_loop(new_server: LocalServer, bucket_name: str, kind: str) -> None:
    """Dropped when client and loop are gone: nothing happens, in silence."""
    held: list[Any] = []

    async def main() -> None:
        async with natsproto.connect(new_server.url) as nc:
            store = await nc.jetstream().create_object_store(bucket=bucket_name)
            await store.put("a", DATA[:5_000_000])
            if kind == "reader":
                held.append(await store.open_reader("a", window=100_000))
                await held[0].read(100)
            else:
                held.append(store.open_writer("b"))
                await held[0].write(b"1")

    async def clean() -> None:
        async with natsproto.connect(new_server.url) as nc:
            await nc.jetstream().delete_object_store(bucket_name)

    asyncio.run(main())
    held.clear()
    gc.collect()
    asyncio.run(clean())
