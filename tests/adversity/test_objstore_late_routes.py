"""What a server holds back for another one of its cluster, when the client has gone on at a third.

Two servers do not reach each other for a while, and the third one reaches both. The client is connected to
one of the two, the stream's leader is the other one: chunks wait in between. Then it loses its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError, StaleConnectionError
from natsproto.testing import FaultProxy
from natsproto.wire import Event, Pub
from objstore import ObjectStore
from support.objects import CHUNK, chunk_counts, pattern
from tests.soak.routes import Routes, cluster

pytestmark = pytest.mark.cluster

DATA = pattern(6 * CHUNK + 7)


class Apart:
    """A client that is connected, through a proxy, to a server that does not reach the leader."""

    def __init__(
        self,
        through: ObjectStore,
        beside: ObjectStore,
        proxy: FaultProxy,
        url: str,
        routes: Routes,
        leader: str,
        third: str,
    ) -> None:
        self.through = through
        self.beside = beside  # of another client
        self.proxy = proxy
        self._url = url
        self._routes = routes
        self.leader = leader
        self.third = third

    def heal(self) -> None:
        """The servers reach each other again."""
        self._routes.cut(set())

    async def all_has_come(self) -> None:
        """What is sent by way of the same server now comes after what it has held back."""
        async with natsproto.connect(self._url, ignore_discovered=True, retry_budget=60.0) as client:
            store = await client.jetstream().object_store("b")
            await store.put("behind", b"x")

    async def put(self, source: Any) -> asyncio.Task[Any]:
        """Begin a put; returns once the connection is lost that all of its chunks were sent on."""
        chunks = 0

        def count(event: Event, raw: bytes) -> None:
            nonlocal chunks
            chunks += isinstance(event, Pub) and event.subject.startswith(b"$O.b.C.")

        self.proxy.to_server = count
        task = asyncio.create_task(self.through.put("n", source, chunk_size=CHUNK))
        await self.proxy.wait_until(lambda: chunks == 7)
        self.proxy.refuse(True)
        self.proxy.cut()
        return task


async def leader_of(store: ObjectStore) -> str:
    async with asyncio.timeout(20 + 10):
        while True:
            with contextlib.suppress(NatsError):  # an election goes on
                info = await store.js.stream_info("OBJ_b")
                if leader := (info.raw.get("cluster") or {}).get("leader"):  # type: ignore[attr-defined]
                    return str(leader)
            await asyncio.sleep(0)


async def lead(store: ObjectStore, name: str) -> None:
    """Make a server of this name the leader."""
    async with asyncio.timeout(40 + 20):
        while await leader_of(store) != name:
            with contextlib.suppress(NatsError):  # not heard of yet, or another election goes on
                body = {"placement": {"preferred": name}}
                await store.js.request("STREAM.LEADER.STEPDOWN.OBJ_b", body, timeout=2.0)


@asynccontextmanager
async def apart(replicas: int, retry_budget: float) -> AsyncIterator[Apart]:
    async with cluster() as servers, natsproto.connect(servers.urls[0], ignore_discovered=True) as other:
        store = await other.jetstream().create_object_store(bucket="b", replicas=replicas)
        names = [server.name for server in servers.servers]
        leader = names.index(await leader_of(store))
        mine, third = (number for number in range(3) if number != leader)
        async with (
            FaultProxy(servers.urls[mine]) as proxy,
            natsproto.connect(
                [proxy.url, servers.urls[third]],
                randomize=False,
                ignore_discovered=True,
                retry_budget=retry_budget,
            ) as client,
            # While two servers do not reach each other, one of them may call for election after election.
            natsproto.connect(servers.urls[third], ignore_discovered=True, retry_budget=60.0) as beside,
        ):
            through = await client.jetstream().object_store("b")
            await through.put("before", b"x")  # everybody knows who listens to this session
            scene = Apart(
                through,
                await beside.jetstream().object_store("b"),
                proxy,
                servers.urls[mine],
                servers.routes,
                names[leader],
                names[third],
            )
            servers.routes.cut({(mine, leader), (leader, mine)})
            yield scene


async def pieces() -> AsyncIterator[bytes]:
    yield DATA


async def is_whole(store: ObjectStore) -> None:
    assert await store.get("n") == DATA
    assert (await store.verify(deep=True)).ok


@pytest.mark.parametrize("replicas", [1, 3])
async def test_they_do_not_come_beside_those_that_are_sent_again(replicas: int) -> None:
    async with apart(replicas, 40.0) as scene:
        task = await scene.put(DATA)
        async with asyncio.timeout(40 + 20):
            await task
        await is_whole(scene.beside)
        scene.heal()
        await scene.all_has_come()
        await is_whole(scene.beside)


async def test_a_source_that_cannot_be_read_again_waits_for_the_other_server() -> None:
    """A fence that takes the way of the chunks proves that they have come, or will not."""
    async with apart(3, 40.0) as scene:
        task = await scene.put(pieces())
        scene.proxy.refuse(False)
        scene.heal()
        async with asyncio.timeout(40 + 20):
            await task
        await is_whole(scene.beside)


async def test_a_server_that_cannot_be_reached_again_is_no_proof() -> None:
    async with apart(3, 6.0) as scene:
        task = await scene.put(pieces())
        with pytest.raises(StaleConnectionError, match="may still store chunks"):
            async with asyncio.timeout(6 + 20):
                await task
        assert not await scene.beside.exists("n")


async def test_what_is_held_back_for_a_leader_that_leads_again() -> None:
    """It comes behind the object that another leader has stored meanwhile: it reads, and gc heals it."""
    async with apart(3, 40.0) as scene:
        task = await scene.put(pieces())
        await lead(scene.beside, scene.third)
        scene.proxy.refuse(False)
        async with asyncio.timeout(40 + 20):
            info = await task
        await lead(scene.beside, scene.leader)
        scene.heal()
        await scene.all_has_come()
        # Twice as many, and a fence; fewer where the servers have given up the route before that.
        assert (await chunk_counts(scene.beside))[info.nuid] >= 7
        assert await scene.beside.get("n") == DATA
        assert await scene.beside.get_range("n", CHUNK - 1, 2 * CHUNK) == DATA[CHUNK - 1 : 2 * CHUNK]
        await scene.beside.gc(older_than=timedelta(0))
        await is_whole(scene.beside)
