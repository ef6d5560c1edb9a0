"""Chunks count as large as recorded, until larger ones have come: then as large as a message may be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from natsproto.jetstream.in_flight import LIMIT, InFlight
from objstore import IntegrityError, ObjectMetaOptions, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.codec import encode_meta
from objstore.read.by_sequence import read_by_sequence
from objstore.read.expected import expected, is_doubted, note_larger
from objstore.read.get import get_range
from objstore.read.ranges import Layout
from support.memory_server import MemoryServer

DATA = bytes(range(256)) * 40


async def test_a_bucket_is_doubted(server: MemoryServer, bucket: Bucket) -> None:
    await server.bucket("other")
    other = await bind(server.js, "other")
    assert expected(bucket, 5) == expected(other, 5) == 5
    assert not is_doubted(bucket)
    note_larger(bucket, 1000)
    note_larger(bucket, 700)
    assert is_doubted(bucket)
    assert (expected(bucket, 5), expected(bucket, 5000)) == (1000, 5000)
    assert expected(await bind(server.js, "b"), 5) == 1000, "by whatever handle"
    assert expected(other, 5) == 5
    bucket.connection.loop.time = lambda: 1e9  # type: ignore[method-assign]
    try:
        assert expected(bucket, 5) == 5, "not for ever"
    finally:
        del bucket.connection.loop.time


@pytest.mark.parametrize("refused", ["nothing", "CONSUMER.CREATE"])
@pytest.mark.parametrize(
    ("version", "direct"), [("2.15.1", True), ("2.15.1", False), ("2.10.4", True), ("2.9.10", True)]
)
async def test_every_way_of_reading_notes_it(
    monkeypatch: pytest.MonkeyPatch, version: str, direct: bool, refused: str
) -> None:
    server = MemoryServer(version)
    try:
        store: ObjectStore = await server.bucket(allow_direct=direct)
        info = await store.put("a", DATA, chunk_size=1000)
        forged = replace(info, name="forged", options=ObjectMetaOptions(max_chunk_size=1))
        server.put_raw("$O.b.M.Zm9yZ2Vk", encode_meta(forged))
        server.refused = {refused}
        counted: list[int] = []
        wait = InFlight.wait

        async def noted(self: InFlight, size: int, patience: float | None = None) -> None:
            counted.append(size)
            await wait(self, size, patience)

        monkeypatch.setattr(InFlight, "wait", noted)
        assert await store.get("forged") == DATA
        assert is_doubted(store._bucket)
        if version == "2.10.4" or refused == "nothing":
            counted.clear()
            assert await store.get("forged") == DATA
            assert max(counted) >= 1000
    finally:
        await server.client.close()


async def test_an_object_that_says_it_is_smaller(server: MemoryServer, store: ObjectStore) -> None:
    info = await store.put("a", DATA)
    server.put_raw("$O.b.M.Zm9yZ2Vk", encode_meta(replace(info, name="forged", size=1)))
    with pytest.raises(IntegrityError):
        await store.get("forged")
    assert is_doubted(store._bucket)


async def test_chunks_of_a_range_that_are_larger(server: MemoryServer, bucket: Bucket) -> None:
    store = await server.js.object_store("b")
    info = await store.put("a", DATA, chunk_size=1000)
    said = replace(info, options=ObjectMetaOptions(max_chunk_size=999), size=info.chunks * 999 - 1)
    assert await read_by_sequence(bucket, said, Layout(said), 1000, 5000) is None
    assert is_doubted(bucket)
    server.verbs()
    assert await read_by_sequence(bucket, info, Layout(info), 1000, 5000) is None
    assert server.verbs() == [], "a batch brings no more bytes than it names"
    assert await get_range(bucket, "a", 1000, 5000) == DATA[1000:5000]
    assert await read_by_sequence(bucket, info, Layout(info), 1000, 2000) == DATA[1000:2000]


async def test_no_more_chunks_of_a_range_than_may_be_large(
    server: MemoryServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bucket, "max_message", LIMIT // 3)
    store = await server.js.object_store("b")
    info = await store.put("a", DATA, chunk_size=500)
    assert await read_by_sequence(bucket, info, Layout(info), 700, 1700) == DATA[700:1700]
    assert await read_by_sequence(bucket, info, Layout(info), 700, 2200) is None
    assert await get_range(bucket, "a", 700, 9999) == DATA[700:9999]
    monkeypatch.setattr(Bucket, "max_message", 2 * LIMIT)
    assert await read_by_sequence(bucket, info, Layout(info), 700, 900) == DATA[700:900]


async def test_what_lies_behind_an_object_is_larger(server: MemoryServer) -> None:
    """A consumer delivers it, too, though the object is complete."""
    store = await server.bucket("c", allow_direct=False)
    info = await store.put("a", DATA, chunk_size=1000)
    for _ in range(3):
        server.put_raw(f"$O.c.C.{info.nuid}", b"x" * 5000, bucket="c")
    with pytest.raises(IntegrityError):
        await store.get("a")
    assert is_doubted(store._bucket)
    assert expected(store._bucket, 1) == 5000
