"""Watching while the servers of a cluster are restarted one after the other, under load (D4).

The state that is told of last is the state there is, for every name; no revision comes twice, and none after
a later one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalCluster, LocalServer
from objstore import ObjectStore, Watcher
from support.clusters import SERVERS, client_each, cluster_of, leader_of
from support.skips import left_out

pytestmark = pytest.mark.cluster

STREAM = "OBJ_b"


@pytest.fixture(params=SERVERS)
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[LocalCluster]:
    async with cluster_of(request.param) as cluster:
        yield cluster


class Listener:
    """Reads a watcher; knows the last revision of every name, and that all came in order."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.last: dict[str, int] = {}
        self.revisions: list[int] = []
        self.changed = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for info in self.watcher:
            self.last[info.name] = info.revision
            self.revisions.append(info.revision)
            self.changed.set()

    async def until(self, wanted: dict[str, int], seconds: float) -> None:
        """Wait for the last state of every name; assert the order of all that came."""
        try:
            async with asyncio.timeout(seconds):
                while self.last != wanted:
                    assert not self.task.done() or self.task.exception() is None, self.task.exception()
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            pass
        assert self.last == wanted
        assert self.revisions == sorted(set(self.revisions)), "once each, in stream order"

    async def stop(self) -> None:
        await self.watcher.stop()
        await asyncio.wait([self.task])


async def consumer_elsewhere(
    store: ObjectStore, cluster: LocalCluster, here: LocalServer, **options: Any
) -> tuple[Listener, LocalServer]:
    """A watch whose consumer sits on another server than the one connected to, and that server."""
    async with asyncio.timeout(60):
        while True:
            watcher = await store.watch(**options)
            consumer = watcher._watch._consumer
            assert consumer is not None
            assert consumer.current is not None
            info = await store.js.consumer_info(STREAM, consumer.current.name)
            node = info.raw["cluster"]["leader"]
            if node != here.name:
                (server,) = [server for server in cluster.servers if server.name == node]
                return Listener(watcher), server
            await watcher.stop()


@pytest.mark.parametrize("kind", ["state", "updates", "from revision"])
async def test_the_server_of_the_consumer_starts_again(cluster: LocalCluster, kind: str) -> None:
    """Its consumer starts over, and nobody says so: the connection is another server's."""
    here = cluster.servers[0]
    async with natsproto.connect(here.url, ignore_discovered=True, connect_timeout=10) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket="b", replicas=3)
        wanted: dict[str, int] = {}
        for name in ("before", "early"):
            wanted[name] = (await store.put(name, b"x")).revision
        options: dict[str, Any] = {}
        if kind == "updates":
            options, wanted = {"updates_only": True}, {}
        elif kind == "from revision":
            options = {"from_revision": wanted["early"]}
            del wanted["before"]
        listener, server = await consumer_elsewhere(store, cluster, here, **options)
        try:
            for number in range(30):
                wanted["hot"] = (await store.put("hot", b"%d" % number)).revision
            await listener.until(wanted, 60)
            for round in range(2):
                await asyncio.to_thread(server.kill)
                wanted[f"dead{round}"] = (await store.put(f"dead{round}", b"x")).revision
                await asyncio.to_thread(server.restart)
                for number in range(10):
                    name = f"new{round}-{number}"
                    wanted[name] = (await store.put(name, b"x")).revision
                wanted["hot"] = (await store.put("hot", b"again")).revision
                await listener.until(wanted, 60)
        finally:
            await listener.stop()


async def test_nothing_was_told_before_it_starts_again(cluster: LocalCluster) -> None:
    """A consumer that has counted nothing cannot be seen to start over: it must begin at the same place."""
    here = cluster.servers[0]
    async with natsproto.connect(here.url, ignore_discovered=True, connect_timeout=10) as client:
        store = await client.jetstream().create_object_store(bucket="b", replicas=3)
        await store.put("before", b"x")
        listener, server = await consumer_elsewhere(store, cluster, here, updates_only=True)
        try:
            await asyncio.to_thread(server.kill)
            wanted = {f"dead{n}": (await store.put(f"dead{n}", b"x")).revision for n in range(5)}
            await asyncio.to_thread(server.restart)
            wanted["after"] = (await store.put("after", b"x")).revision
            await listener.until(wanted, 60)
        finally:
            await listener.stop()


@pytest.mark.parametrize("how", ["kill", "terminate", "step down"])
async def test_rolling_restarts_under_load(cluster: LocalCluster, how: str) -> None:
    if how == "kill" and cluster.servers[0].version.startswith("2.9."):
        # What a watch was told is not in the list then, in about every second run; whose fault is not known.
        left_out("nats-server 2.9, killed node by node under load, lists names whose metas it does not find")
    async with (
        # On a busy machine it may take several elections until somebody leads.
        client_each(cluster, retry_budget=60) as clients,
        natsproto.connect(cluster.urls, reconnect_wait=0.05, retry_budget=60) as nc,
    ):
        js = nc.jetstream()
        store = await js.create_object_store(bucket="b", replicas=3)
        await store.put("before", b"x")
        listeners = [
            Listener(await (await client.jetstream().object_store("b")).watch(**options))
            for client in clients
            for options in ({}, {"updates_only": True})
        ]
        stop = asyncio.Event()
        load = [asyncio.create_task(_load(store, number, stop)) for number in range(3)]
        try:
            for server in cluster.servers:
                await _disturb(js, cluster, server, how)
        finally:
            stop.set()
            await asyncio.gather(*load)
        async with asyncio.timeout(60):
            await all_current(js)
            wanted = {info.name: info.revision for info in await store.list(include_deleted=True)}
        assert len(wanted) > 20
        changed = {name: revision for name, revision in wanted.items() if name != "before"}
        for number, listener in enumerate(listeners):
            await listener.until(changed if number % 2 else wanted, 90)
        for listener in listeners:
            await listener.stop()


async def all_current(js: JetStreamContext) -> None:
    """Wait until every replica has everything: a server of 2.9 may lead before it has caught up."""
    while True:
        with contextlib.suppress(NatsError):
            replicas = (await js.stream_info(STREAM)).raw["cluster"]["replicas"]
            if all(replica.get("current") and not replica.get("lag") for replica in replicas):
                return


async def _disturb(js: JetStreamContext, cluster: LocalCluster, server: LocalServer, how: str) -> None:
    if how == "step down":
        leader = await leader_of(js, cluster, STREAM)
        await js.request(f"STREAM.LEADER.STEPDOWN.{STREAM}")
        async with asyncio.timeout(60):
            while True:
                try:
                    if await leader_of(js, cluster, STREAM) is not leader:
                        break
                except (NatsError, ValueError, KeyError):
                    pass  # there is none yet
        return
    if how == "kill":
        await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    await asyncio.to_thread(cluster.wait_ready, 30.0)


async def _load(store: ObjectStore, writer: int, stop: asyncio.Event) -> None:
    """New names, one that is changed all the time, and some that are deleted; failures are the servers'."""
    number = 0
    while number < 20 or not stop.is_set():
        try:
            await store.put(f"n{writer}-{number % 60}", b"%d" % number)
            await store.put("hot", b"%d" % number)
            if number % 7 == 3:
                await store.delete(f"n{writer}-{number % 60}")
        except NatsError:
            pass
        number += 1
