"""Readers that take their time (C6): nothing is dropped or asked for again, and memory stays bounded."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from objstore import ObjectStore
from support.objects import CHUNK, MIB, pattern, stream
from support.waits import held, standstill

SIZE = 24 * MIB
WINDOW = MIB


@pytest.fixture(params=["direct", "leader only"])
async def bucket(
    request: pytest.FixtureRequest,
    js: JetStreamContext,
    bucket_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[ObjectStore]:
    """Read in batches or through a consumer; heartbeats so often that a pause is many of them long."""
    monkeypatch.setattr("objstore.read.feed.HEARTBEAT", 0.4)
    monkeypatch.setattr("objstore.read.window.PROGRESS", 1.2)
    monkeypatch.setattr("objstore.read.window.SILENCE", 1.0)
    store = await js.create_object_store(bucket=bucket_name, allow_direct=request.param == "direct")
    yield store
    assert await js.consumer_names(stream(store)) == []
    await js.delete_object_store(bucket_name)


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The consumers that are made."""
    made: list[str] = []
    create = JetStreamContext.create_consumer

    async def counting(self: JetStreamContext, name: str, config: Any, **options: Any) -> Any:
        made.append(config["name"])
        return await create(self, name, config, **options)

    monkeypatch.setattr(JetStreamContext, "create_consumer", counting)
    return made


async def test_a_reader_that_stops_for_a_while(bucket: ObjectStore, consumers: list[str]) -> None:
    """Longer than missing heartbeats, or a request, would be waited for."""
    data = pattern(SIZE)
    await bucket.put("a", data)
    async with bucket.open_reader("a", window=WINDOW) as reader:
        position = 0
        for stop in (CHUNK + 3, 9 * MIB, SIZE):
            assert await reader.read(stop - position) == data[position:stop]
            position = stop
            await held(1.6)
    assert len(consumers) <= 1


async def test_a_reader_slower_than_the_server(bucket: ObjectStore, consumers: list[str]) -> None:
    data = pattern(SIZE, 1)
    await bucket.put("a", data)
    position = 0
    async with bucket.open_reader("a", window=WINDOW) as reader:
        async for piece in reader:
            assert piece == data[position : position + len(piece)]
            position += len(piece)
            await held(0.002)
    assert position == SIZE
    assert len(consumers) <= 1


async def test_memory_of_a_reader_that_does_not_read(bucket: ObjectStore) -> None:
    """As many windows as are promised in batches; a consumer has the server's flow control."""
    data = pattern(SIZE, 2)
    await bucket.put("a", data)
    async with bucket.open_reader("a", window=WINDOW) as reader:
        tracemalloc.start()
        try:
            assert await reader.read(10) == data[:10]
            await held(0.5)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        batches = bucket._bucket.direct and bucket._bucket.batches
        assert peak < (6 * WINDOW if batches else SIZE + 4 * MIB)
        assert await reader.read() == data[10:]


async def test_a_disk_slower_than_the_server(
    bucket: ObjectStore, consumers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writing thread holds every block back; the loop goes on."""
    from objstore.read import get as _get

    data = pattern(SIZE, 3)
    await bucket.put("a", data)
    plain = _get.in_thread

    async def slow(function: Any, *args: object) -> Any:
        def run() -> Any:
            standstill(0.02)
            return function(*args)

        return await plain(run)

    monkeypatch.setattr(_get, "in_thread", slow)
    await bucket.get_file("a", tmp_path / "file", window=WINDOW)
    assert (tmp_path / "file").read_bytes() == data
    assert len(consumers) <= 1


async def test_a_link_on_which_a_chunk_takes_longer_than_heartbeats_are_waited_for(
    server: LocalServer, bucket: ObjectStore, consumers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PONG waits behind the chunk. As long as its bytes come, no other consumer begins it anew."""
    monkeypatch.setattr("natsproto.jetstream.ordered.PONG_TIMEOUT", 0.5)
    monkeypatch.setattr("objstore.read.window.PROGRESS", 15.0)
    data = pattern(800_000)
    await bucket.put("a", data, chunk_size=400_000)
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as client:
        slow = await client.jetstream().object_store(bucket.bucket)
        proxy.rate = 200_000
        assert await slow.get("a") == data
    assert len(consumers) <= 1
