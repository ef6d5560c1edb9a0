"""Room: promised once only; a stream that makes room by itself is full before it drops what others have."""

from __future__ import annotations

from typing import Any

import pytest

from objstore import BadBucketError, StoreFullError
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.capacity import Guard, Ledger, check_meta_room
from objstore.format.limits import RECORD
from objstore.format.models import ObjectMetaOptions
from support.memory_server import MemoryServer


async def bound(server: MemoryServer, **raw: Any) -> Bucket:
    await server.bucket()
    server.stream().config |= raw
    return await bind(server.js, "b")


def guard(bucket: Bucket, size: int | None, chunk_size: int = 100) -> Guard:
    template = bucket.template("a", (None, None, None, None), ObjectMetaOptions(None, chunk_size))
    return Guard(bucket, template, size, chunk_size, 0)


def test_a_ledger() -> None:
    ledger = Ledger()
    ledger.bytes, ledger.messages = 100, 3
    assert ledger.take(60, 1)
    assert not ledger.take(50, 1), "too many bytes"
    assert not ledger.take(1, 3), "too many messages"
    assert (ledger.bytes, ledger.messages) == (40, 2)
    assert ledger.fits(40, 2)
    assert not ledger.fits(41, 2)
    assert ledger.take(40, 2)
    assert not ledger.fits(1, 0)


async def test_what_is_promised_is_taken_off_the_next_look(server: MemoryServer) -> None:
    bucket = await bound(server, discard="old", max_bytes=10_000)
    ledger = bucket.ledger
    await ledger.look(bucket)
    assert ledger.bytes == 10_000
    assert ledger.take(4000, 2)
    await ledger.look(bucket)
    assert ledger.bytes == 6000
    server.put_raw("$O.b.C.n", bytes(1000))
    ledger.arrive(4000, 2)
    await ledger.look(bucket)
    assert ledger.bytes == 10_000 - server.stream().size


async def test_a_stream_that_refuses_by_itself_is_not_looked_at(server: MemoryServer) -> None:
    bucket = await bound(server, discard="new", max_bytes=10_000)
    server.verbs()
    one = guard(bucket, 10**6)
    await one.begin()
    one.admit(5, 10**6)
    await check_meta_room(bucket, "a", 10**6)
    assert "STREAM.INFO" not in server.verbs()
    assert not await one.end(5)
    one.explain(0, 5)
    one.close()


async def test_one_that_rolls_is_full_before_it_drops_others(server: MemoryServer) -> None:
    bucket = await bound(server, discard="old", max_bytes=10_000)
    with pytest.raises(StoreFullError, match="would remove chunks of other objects") as told:
        await guard(bucket, 20_000).begin()
    assert (told.value.bucket, told.value.name) == ("b", "a")
    one = guard(bucket, 5000)
    await one.begin()
    with pytest.raises(StoreFullError):
        await guard(bucket, 5000).begin()
    one.close()
    one.close()
    again = guard(bucket, 5000)
    await again.begin()
    again.close()
    await check_meta_room(bucket, "a", 100)
    with pytest.raises(StoreFullError):
        await check_meta_room(bucket, "a", 10_000 - RECORD)


async def test_a_source_of_unknown_size_asks_chunk_by_chunk(server: MemoryServer) -> None:
    bucket = await bound(server, discard="old", max_msgs=10, max_bytes=0)
    one = guard(bucket, None)
    await one.begin()
    assert one.free == 0
    for chunk in range(9):  # and one for the meta
        one.admit(chunk, 100)
    with pytest.raises(StoreFullError, match="max_msgs 10"):
        one.admit(9, 100)
    assert await one.end(9), "the chunks are counted before the commit"
    with pytest.raises(StoreFullError):
        one.explain(8, 9)
    one.explain(9, 9)
    one.close()


async def test_more_chunks_than_a_subject_keeps(server: MemoryServer) -> None:
    bucket = await bound(server, max_msgs_per_subject=5)
    with pytest.raises(BadBucketError, match="max_msgs_per_subject"):
        guard(bucket, 501)
    one = guard(bucket, None)
    await one.begin()
    assert one.free == 5
    one.admit(4, 100)
    with pytest.raises(BadBucketError):
        one.admit(5, 100)
    with pytest.raises(BadBucketError):
        await one.end(6)
    one.close()


async def test_a_configuration_that_changes_under_the_chunks(server: MemoryServer) -> None:
    bucket = await bound(server)
    one = guard(bucket, 10**7)
    await one.begin()
    server.stream().config["max_msgs_per_subject"] = 1
    with pytest.raises(BadBucketError):
        await one.end(2)
    one.close()
    assert len(server.connection.mux) == 0
