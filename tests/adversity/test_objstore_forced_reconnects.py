"""Puts and gets while their client is told to connect again, again and again: all of them exact.

A put may fail: one whose source cannot be read a second time, when two connections in a row are left while
its chunks are under way, or any that would have to start over more than a few times. What is stored stays
exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import StaleConnectionError
from natsproto.server import LocalCluster, LocalServer
from objstore import ObjectStore
from support.objects import MIB, assert_exact, once, pattern
from support.waits import held

ROUNDS = 2
"""Acknowledged puts of each kind, at least."""

RECONNECTS = 4
"""Meanwhile, at least."""

CALMER_AFTER = 20
"""Reconnects after which the pauses grow, a tenth each. A put needs the processor for a while between two of
them, and a busy machine may not give it that long. Elsewhere all is done by then.
"""

LIMIT = 60.0
"""Seconds; it takes one or two."""


@asynccontextmanager
async def storm(client: Client, longest: float, seed: int) -> AsyncIterator[None]:
    """Force reconnects until the block ends, after pauses of up to ``longest`` seconds at first."""
    rng = random.Random(seed)

    async def rage() -> None:
        for number in itertools.count():
            await held(rng.random() * longest * 1.1 ** max(0, number - CALMER_AFTER))
            await asyncio.gather(*(client.force_reconnect() for _ in range(rng.choice((1, 1, 3)))))

    task = asyncio.create_task(rage())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def put_all(store: ObjectStore, wanted: dict[str, bytes]) -> None:
    """Put small and large objects, and get them; ``wanted`` gets what was acknowledged."""

    async def put_each(kind: str, seed: int) -> None:
        done = 0
        while done < ROUNDS or store.client.stats.reconnects < RECONNECTS:
            seed += 1
            name = f"{kind} {done % 2}"
            data = pattern(1000 if kind == "small" else 3 * MIB + seed, seed)
            try:
                await store.put(name, once(data) if kind == "once" else data, window=MIB // 2)
            except StaleConnectionError:
                continue
            done += 1
            wanted[name] = data
            assert await store.get(name) == data

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for n, kind in enumerate(("small", "large", "once")):
            group.create_task(put_each(kind, 1000 * n))


async def exact(store: ObjectStore, wanted: dict[str, bytes]) -> None:
    async with asyncio.timeout(30):
        while tasks := [task for task in asyncio.all_tasks() if task.get_name().startswith("objstore-")]:
            await asyncio.wait(tasks)
    for name, data in wanted.items():
        assert await store.get(name) == data
    await assert_exact(store)


async def test_one_server(server: LocalServer, store: ObjectStore) -> None:
    wanted: dict[str, bytes] = {}
    async with natsproto.connect(server.url) as client:
        stormy = await client.jetstream().object_store(store.bucket)
        async with storm(client, 0.15, 1):
            await put_all(stormy, wanted)
        await exact(store, wanted)


@pytest.mark.cluster
async def test_from_server_to_server(bucket_name: str) -> None:
    """Three replicas, of which each server has one, and no two sessions in a row at the same server."""
    wanted: dict[str, bytes] = {}
    async with (
        LocalCluster(3) as cluster,
        natsproto.connect(cluster.urls) as quiet,
        natsproto.connect(cluster.urls) as client,
    ):
        store = await quiet.jetstream().create_object_store(bucket=bucket_name, replicas=3)
        stormy = await client.jetstream().object_store(bucket_name)
        async with storm(client, 0.2, 2):
            await put_all(stormy, wanted)
        await exact(store, wanted)
