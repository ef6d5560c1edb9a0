"""What ``watch()`` returns: an iterator, a context manager, awaitable; dropped, it ends by itself."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.errors import ConnectionClosedError
from objstore import BucketNotFoundError, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.listing.watcher import Watcher
from support.fake_session import turns
from support.memory_server import SILENCE, MemoryServer


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    store = await server.bucket()
    for name in ("a", "b", "c"):
        await store.put(name, b"")
    return store


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


@pytest.mark.parametrize("version", ["2.9.10", "2.15.1"])
async def test_every_way_of_using_it(version: str) -> None:
    server = MemoryServer(version)
    store = await server.bucket()
    await store.put("a", b"")
    bucket = await bind(server.js, "b")
    async with Watcher(bucket) as watcher:
        await watcher.caught_up
        await watcher.caught_up
        assert (await anext(watcher)).name == "a"
    assert [info async for info in watcher] == []
    watcher = await Watcher(bucket)
    assert isinstance(watcher, Watcher)
    async for info in watcher:
        assert info.name == "a"
        await watcher.stop()
    await watcher.stop()
    assert server.stream().consumers == {}
    await server.client.close()


async def test_a_loop_left_by_break_leaves_nothing(server: MemoryServer, bucket: Bucket) -> None:
    async def read() -> None:
        async for _ in Watcher(bucket):
            break

    await read()
    await turns(100)
    assert server.stream().consumers == {}


@pytest.mark.parametrize(
    "options", [{"from_revision": 0}, {"from_revision": -1}, {"from_revision": 3, "updates_only": True}]
)
def test_contradictions(options: dict[str, int], bucket: Bucket) -> None:
    with pytest.raises(ValueError, match="from_revision"):
        Watcher(bucket, **options)  # type: ignore[arg-type]


async def test_errors_are_seen_early(server: MemoryServer, bucket: Bucket) -> None:
    server.streams.clear()
    with pytest.raises(BucketNotFoundError):
        await Watcher(bucket)
    with pytest.raises(BucketNotFoundError):
        async with Watcher(bucket):
            pytest.fail("begun")


async def test_a_start_that_is_cancelled_ends_all(server: MemoryServer, bucket: Bucket) -> None:
    server.hook = lambda verb, body: SILENCE if verb == "CONSUMER.CREATE" else None
    watcher = Watcher(bucket)
    starting = asyncio.ensure_future(watcher.start())
    await turns()
    server.hook = None
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(ConnectionClosedError):
        await watcher.start()
    await watcher.stop()


async def test_another_loop_is_refused(bucket: Bucket) -> None:
    watcher = Watcher(bucket)

    async def work() -> None:
        for call in (watcher.start(), watcher.stop(), anext(watcher)):
            with pytest.raises(ConnectionClosedError, match="another event loop"):
                await call
        with pytest.raises(ConnectionClosedError):
            await watcher.caught_up

    await asyncio.to_thread(lambda: asyncio.run(work()))


async def test_a_client_that_is_closed_ends_it(server: MemoryServer, bucket: Bucket) -> None:
    watcher = await Watcher(bucket)
    for _ in range(3):
        await anext(watcher)
    reading = asyncio.ensure_future(watcher.__anext__())
    await turns()
    await server.client.close()
    with pytest.raises(ConnectionClosedError):
        await reading
