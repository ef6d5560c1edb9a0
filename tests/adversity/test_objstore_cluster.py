"""Three servers, three replicas: no stale read, and a put over the death of the leader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import natsproto
from natsproto.errors import NatsError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalCluster, LocalServer
from objstore import ObjectStore
from support.objects import CHUNK, assert_exact, pattern

pytestmark = pytest.mark.cluster


@pytest.fixture
async def cluster() -> AsyncIterator[LocalCluster]:
    async with LocalCluster(3) as cluster:
        yield cluster


async def leader_of(js: JetStreamContext, cluster: LocalCluster) -> LocalServer:
    info = await js.stream_info("OBJ_b")
    name = info.raw["cluster"]["leader"]
    (server,) = [server for server in cluster.servers if server.name == name]
    return server


async def test_no_stale_read(cluster: LocalCluster) -> None:
    """C10: what one node acknowledged, every other node reads, at once."""
    clients = [await natsproto.connect(server.url, connect_timeout=10) for server in cluster.servers]
    try:
        await clients[0].jetstream().create_object_store(bucket="b", replicas=3)
        stores: list[ObjectStore] = [await client.jetstream().object_store("b") for client in clients]
        async with asyncio.timeout(120):
            for n in range(200):
                data = pattern(1000, n)
                info = await stores[n % 3].put("a", data)
                reader = stores[(n + 1) % 3]
                assert (await reader.get_info("a")).revision == info.revision
                assert await reader.get("a") == data
        await assert_exact(stores[0])
    finally:
        for client in clients:
            await client.close()


@pytest.mark.soak
async def test_leader_killed_during_put(cluster: LocalCluster) -> None:
    """B13: it succeeds or fails typed; the old object or the new one is there.

    What was on its way to the dead leader is given up after 15 s without progress, what follows may be tried
    for 20 s: both bounds, and 5 s to spare.
    """
    async with natsproto.connect(cluster.urls) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket="b", replicas=3)
        old, new = pattern(3 * CHUNK, 1), pattern(60 * CHUNK, 2)
        await store.put("a", old)
        leader = await leader_of(js, cluster)
        killing: list[asyncio.Task[None]] = []

        def progress(done: int, total: int | None) -> None:
            if done >= 20 * CHUNK and not killing:
                killing.append(asyncio.ensure_future(asyncio.to_thread(leader.kill)))

        error: BaseException | None = None
        async with asyncio.timeout(15 + 20 + 5):
            try:
                await store.put("a", new, progress=progress, window=8 * CHUNK)
            except NatsError as exc:
                error = exc
        assert killing
        await killing[0]
        async with asyncio.timeout(20):
            assert await store.get("a") == (new if error is None else old)
            await assert_exact(store)
