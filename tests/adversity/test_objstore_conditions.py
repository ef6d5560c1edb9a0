"""Several writers of one name on three servers: each revision has one successor, and no object is damaged.

nats-server 2.9 checks a condition before it has stored what it accepted earlier, and acknowledges them all.
"""

from __future__ import annotations

import asyncio

import pytest

from natsproto.errors import NatsError
from objstore import ObjectMeta, ObjectStore, OutcomeUnknownError
from support.clusters import SERVERS, client_each, cluster_of

pytestmark = pytest.mark.cluster

ROUNDS = 80


@pytest.mark.parametrize("servers", SERVERS)
async def test_one_of_several_writers_wins(servers: str) -> None:
    async with cluster_of(servers) as cluster, client_each(cluster) as clients:
        await clients[0].jetstream().create_object_store(bucket="b", replicas=3)
        stores = [await client.jetstream().object_store("b") for client in clients]
        replaced: list[int] = []
        unknown = 0

        async def write(store: ObjectStore, number: int) -> None:
            nonlocal unknown
            info = await store.get_info("counter")
            try:
                await store.put("counter", b"%d" % number, if_revision=info.revision)
                replaced.append(info.revision)
            except OutcomeUnknownError:
                unknown += 1
            except NatsError:
                pass  # another one has won

        await stores[0].put("counter", b"")
        for number in range(ROUNDS):
            await asyncio.gather(*(write(store, number) for store in stores))
        assert len(replaced) == len(set(replaced)), "two have replaced the same revision"
        assert len(replaced) + unknown >= ROUNDS


@pytest.mark.parametrize("servers", SERVERS)
async def test_put_beside_changes_of_its_meta(servers: str) -> None:
    """What a change of the meta refers to is not removed by the put that it has not seen."""
    async with cluster_of(servers) as cluster, client_each(cluster) as clients:
        await clients[0].jetstream().create_object_store(bucket="b", replicas=3)
        stores = [await client.jetstream().object_store("b") for client in clients]
        last: bytes | None = b"first"
        await stores[0].put("a", b"first")

        async def put(data: bytes) -> None:
            nonlocal last
            try:
                await stores[0].put("a", data)
                last = data
            except OutcomeUnknownError:
                last = None

        async def change(store: ObjectStore, text: str) -> None:
            try:
                await store.update_meta("a", ObjectMeta("a", text))
            except OutcomeUnknownError:
                pass

        for number in range(ROUNDS):
            tasks = [put(b"%d" % number * 100)]
            tasks += [change(store, f"{number}") for store in stores[1:]]
            await asyncio.gather(*tasks)
            data = await stores[0].get("a")
            assert last in (None, data)
        assert (await stores[0].verify(deep=True)).ok
