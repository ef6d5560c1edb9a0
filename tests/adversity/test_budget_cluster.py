"""Three servers: a leader that steps down or falls silent costs a put its budget, never the object."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalCluster, LocalServer
from objstore import ObjectStore, OutcomeUnknownError
from support.objects import CHUNK, MIB, assert_exact, chunk_counts, pattern

pytestmark = pytest.mark.cluster

DEFAULT = 20.0
BUDGETS = [8.0, pytest.param(DEFAULT, marks=pytest.mark.soak)]
OLD = pattern(3 * CHUNK, 1)
NEW = pattern(24 * MIB, 2)


@pytest.fixture
async def cluster() -> AsyncIterator[LocalCluster]:
    async with LocalCluster(3) as cluster:
        yield cluster


async def leader_of(js: JetStreamContext, cluster: LocalCluster) -> LocalServer:
    info = await js.stream_info("OBJ_b")
    name = info.raw["cluster"]["leader"]
    (server,) = [server for server in cluster.servers if server.name == name]
    return server


class Sending:
    """One put in whose middle something is done; notes when the last bytes were taken."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action
        self.moved = 0.0
        self.acting: asyncio.Task[None] | None = None

    async def source(self) -> AsyncIterator[bytes]:
        for start in range(0, len(NEW), MIB):
            if start == len(NEW) // 2:
                await self.action()
            yield NEW[start : start + MIB]

    def progress(self, done: int, total: int | None) -> None:
        self.moved = asyncio.get_running_loop().time()
        if total is not None and done >= len(NEW) // 2 and self.acting is None:
            self.acting = asyncio.ensure_future(self.action())

    async def run(self, store: ObjectStore, budget: float, *, whole: bool = False) -> NatsError | None:
        """Put; what it failed with. It must have ended within its budget after the last progress."""
        failure: NatsError | None = None
        data = NEW if whole else self.source()
        try:
            await store.put("a", data, window=8 * MIB, progress=self.progress)
        except NatsError as exc:
            failure = exc
        waited = asyncio.get_running_loop().time() - self.moved
        assert waited < budget + 5, f"{waited:.1f} s without progress ({failure!r})"
        if self.acting is not None:
            await self.acting
        return failure


@pytest.mark.parametrize("budget", BUDGETS)
async def test_step_down(cluster: LocalCluster, budget: float) -> None:
    """What the old leader had not stored is lost in silence: noticed and sent again within the budget."""
    async with natsproto.connect(cluster.urls, retry_budget=budget) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket="b", replicas=3)
        await store.put("a", OLD)

        async def step_down() -> None:
            await js.request("STREAM.LEADER.STEPDOWN.OBJ_b")

        for _ in range(3):
            failure = await Sending(step_down).run(store, budget)
            assert await store.get("a") in ((OLD, NEW) if failure is not None else (NEW,))
        await assert_exact(store)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("whole", [True, False], ids=["bytes", "generator"])
@pytest.mark.parametrize("near", [True, False], ids=["our node", "another node"])
async def test_paused_leader(cluster: LocalCluster, budget: float, whole: bool, near: bool) -> None:
    """It does not answer, and its connections stay: the others elect another one after some seconds.

    When it goes on it stores what it had received, so an object whose chunks were sent to it must not be
    finished with others: it begins anew, if its source can, or fails.
    """
    async with natsproto.connect(cluster.urls) as setting:
        js = setting.jetstream()
        await (await js.create_object_store(bucket="b", replicas=3)).put("a", OLD)
        leader = await leader_of(js, cluster)
    others = [server.url for server in cluster.servers if server is not leader]
    servers = [leader.url, *others] if near else others
    async with natsproto.connect(
        servers, randomize=False, ignore_discovered=True, retry_budget=budget
    ) as client:
        store = await client.jetstream().object_store("b")

        async def pause() -> None:
            await asyncio.to_thread(leader.pause)

        try:
            failure = await Sending(pause).run(store, budget, whole=whole)
        finally:
            await asyncio.to_thread(leader.resume)
        await asyncio.to_thread(cluster.wait_ready, 30)
        async with asyncio.timeout(30):
            found = await store.get("a")
            if not isinstance(failure, OutcomeUnknownError):  # else its commit was sent, and never answered
                assert found == (NEW if failure is None else OLD), repr(failure)
            info = await store.get_info("a")
            assert (await chunk_counts(store))[info.nuid] == info.chunks
