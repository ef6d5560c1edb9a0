"""Lists take turns: nobody knows how much one brings before it was read."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.jetstream.in_flight import LIMIT, in_flight
from objstore.bucket import room
from objstore.bucket.bucket import Bucket
from objstore.bucket.room import Room
from support.fake_session import turns
from support.memory_server import MemoryServer

ALL = "$O.b.M.>"
MEGABYTE = 1_000_000


async def test_the_first_goes_alone(bucket: Bucket) -> None:
    in_flight(bucket.connection).limit = LIMIT
    running = most = 0

    async def one() -> None:
        nonlocal running, most
        async with Room(bucket, ALL):
            running += 1
            most = max(most, running)
            await turns(3)
            bucket.connection.stats.in_bytes += LIMIT // 12  # three at once see those of all three
            running -= 1

    for wanted in (1, 3, 3):
        most = 0
        async with asyncio.timeout(10):
            await asyncio.gather(*(one() for _ in range(3)))
        assert most == wanted
    assert in_flight(bucket.connection).bytes == 0


async def test_a_size_is_known_for_some_time(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    count = in_flight(bucket.connection)
    async with Room(bucket, ALL):
        assert count.bytes == LIMIT
        bucket.connection.stats.in_bytes += MEGABYTE
    async with Room(bucket, ALL):
        assert count.bytes == MEGABYTE
    async with Room(bucket, ALL, names=True):
        assert count.bytes == LIMIT, "another list"
    monkeypatch.setattr(room._sizes, "seconds", -1.0)
    async with Room(bucket, ALL):
        pass
    async with Room(bucket, ALL):
        assert count.bytes == LIMIT


async def test_one_name_of_a_known_size(bucket: Bucket) -> None:
    count = in_flight(bucket.connection)
    async with Room(bucket, "$O.b.M.YQ==", size=MEGABYTE), Room(bucket, "$O.b.M.Yg==", size=0):
        assert count.bytes == MEGABYTE
    assert room._sizes.get(bucket.connection, (bucket.stream, "$O.b.M.YQ==", False)) is None


async def test_a_list_that_was_ended_early_tells_no_size(bucket: Bucket) -> None:
    async with Room(bucket, ALL):
        bucket.connection.stats.in_bytes += MEGABYTE
    with pytest.raises(asyncio.CancelledError):
        async with Room(bucket, ALL):
            raise asyncio.CancelledError
    async with Room(bucket, ALL):
        assert in_flight(bucket.connection).bytes == MEGABYTE


async def test_after_the_connection_was_lost_each_goes_on_alone(server: MemoryServer, bucket: Bucket) -> None:
    """Perhaps it was lost because they were larger than the last one; and all go on at the same time."""
    count = in_flight(bucket.connection)
    async with Room(bucket, ALL):
        bucket.connection.stats.in_bytes += MEGABYTE
    running = most = 0
    begun = asyncio.Barrier(4)

    async def one() -> None:
        nonlocal running, most
        async with Room(bucket, ALL) as share:
            await share.again()
            await begun.wait()
            await begun.wait()
            await share.again()
            running += 1
            most = max(most, running)
            assert count.bytes == LIMIT
            await turns(3)
            await share.again()  # it has all the room
            running -= 1

    tasks = [asyncio.create_task(one()) for _ in range(3)]
    async with asyncio.timeout(10):
        await begun.wait()
        assert count.bytes == 3 * MEGABYTE
        server.connection.session = None
        await begun.wait()
        await asyncio.gather(*tasks)
        assert most == 1
        assert count.bytes == 0
        async with Room(bucket, ALL):
            assert count.bytes == LIMIT
