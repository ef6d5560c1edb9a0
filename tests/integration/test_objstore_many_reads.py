"""Many reads at once on one connection: the server does not end it because too much waits for it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

import natsproto
from natsproto.jetstream import in_flight
from natsproto.server import LocalServer
from objstore import ObjectMetaOptions
from objstore.format.codec import encode_meta
from objstore.read.expected import is_doubted

MIB = 1024 * 1024


@pytest.mark.parametrize("way", ["batches", "ranges", "single"])
async def test_the_connection_lasts(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A reader that does not keep up for a moment has no more waiting at the server than it has asked for."""
    monkeypatch.setattr(in_flight, "FIRST", 3 * MIB)
    monkeypatch.setattr(in_flight, "LIMIT", 3 * MIB)
    monkeypatch.setattr(in_flight, "FOR_SMALL", MIB)
    size = 120_000 if way == "single" else 4 * MIB
    number = 100 if way == "single" else 20
    data = os.urandom(size)
    with LocalServer(config="max_pending: 8MiB\n") as server:
        async with natsproto.connect(server.url) as client:
            store = await client.jetstream().create_object_store("many")
            for each in range(number):
                await store.put(f"{each}", data)

            async def read(each: int) -> bytes:
                if way == "ranges":
                    return await store.get_range(f"{each}", 1, size)
                return await store.get(f"{each}")

            found = await asyncio.gather(*map(read, range(number)))
            assert set(found) == {data[1:] if way == "ranges" else data}
            assert client.stats.reconnects == 0
            assert in_flight.in_flight(client.connection).bytes == 0


@pytest.mark.parametrize("what", ["list", "iter"])
async def test_many_lists_of_large_metas(new_server: LocalServer, bucket_name: str, what: str) -> None:
    """Others decide how large metas are; each list could have 32 MiB on its way."""
    async with asyncio.timeout(60), natsproto.connect(new_server.url) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket_name)
        good = await store.put("good", b"x")
        for number in range(40):
            await js.publish(f"$O.{bucket_name}.M.x{number}", bytes(MIB - 100))
        reconnects = client.stats.reconnects

        async def listed() -> int:
            invalid: list[object] = []
            lists = store.list if what == "list" else store.iter
            found = lists(on_invalid=invalid.append)
            infos = await found if what == "list" else [info async for info in found]
            assert [info.name for info in infos] == [good.name]
            return len(invalid)

        assert set(await asyncio.gather(*(listed() for _ in range(4)))) == {40}
        assert client.stats.reconnects == reconnects
        await js.delete_object_store(bucket_name)


@pytest.mark.parametrize("way", ["consumers", "ranges"])
async def test_chunks_that_are_larger_than_recorded(server: LocalServer, bucket_name: str, way: str) -> None:
    """What a meta says of its chunks is its writer's word: more comes than was counted."""
    chunk, chunks = 1_000_000, 20
    data = os.urandom(chunk * chunks)
    async with asyncio.timeout(60), natsproto.connect(server.url) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket_name, allow_direct=way == "ranges")
        info = await store.put("whole", data, chunk_size=chunk)
        said = 1 if way == "consumers" else info.size // chunks - 1
        for number in range(12):
            meta = replace(info, name=f"{number}", options=ObjectMetaOptions(max_chunk_size=said))
            await js.publish(store._bucket.meta_subject(meta.name), encode_meta(meta))
        reconnects = client.stats.reconnects

        async def read(number: int) -> bool:
            if way == "ranges":
                return await store.get_range(f"{number}", 1, chunk + 1) == data[1 : chunk + 1]
            return await store.get(f"{number}") == data

        for _ in range(2):
            assert all(await asyncio.gather(*map(read, range(12))))
        assert client.stats.reconnects == reconnects
        assert is_doubted(store._bucket)
        assert in_flight.in_flight(client.connection).bytes == 0
        await js.delete_object_store(bucket_name)


async def test_small_ranges_with_consumers(server: LocalServer, bucket_name: str) -> None:
    """What follows a range is delivered as well, until its consumer is gone."""
    data = os.urandom(10 * MIB)
    async with asyncio.timeout(60), natsproto.connect(server.url) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket_name, allow_direct=False)
        for number in range(8):
            await store.put(f"{number}", data)
        reconnects = client.stats.reconnects
        flow = in_flight.InFlight.flow

        def noted(self: in_flight.InFlight, size: int, patience: float | None = None) -> in_flight.Flow:
            sizes.append(size)
            return flow(self, size, patience)

        sizes: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(in_flight.InFlight, "flow", noted)
            for end in (MIB, 9 * MIB):
                ranges = (store.get_range(f"{number % 8}", end, end + 500) for number in range(64))
                assert set(await asyncio.gather(*ranges)) == {data[end : end + 500]}
        assert client.stats.reconnects == reconnects
        assert {*sizes} == {MIB, 2 * MIB}, "all that is left, but no more than a server delivers at first"
        await js.delete_object_store(bucket_name)
