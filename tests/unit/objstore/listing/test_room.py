"""Lists take turns: nobody knows how much one brings before it was read."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.jetstream.in_flight import LIMIT, in_flight
from objstore.bucket.bucket import Bucket
from objstore.listing import room
from objstore.listing.room import room_for
from support.fake_session import turns

ALL = "$O.b.M.>"


async def test_the_first_goes_alone(bucket: Bucket) -> None:
    in_flight(bucket.connection).limit = LIMIT
    running = most = 0

    async def one() -> None:
        nonlocal running, most
        async with room_for(bucket, ALL):
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
    async with room_for(bucket, ALL):
        assert count.bytes == LIMIT
        bucket.connection.stats.in_bytes += 1000
    async with room_for(bucket, ALL):
        assert count.bytes == 1000
    async with room_for(bucket, ALL, names=True):
        assert count.bytes == LIMIT, "another list"
    monkeypatch.setattr(room, "KNOWN_FOR", -1.0)
    async with room_for(bucket, ALL):
        pass
    async with room_for(bucket, ALL):
        assert count.bytes == LIMIT


async def test_what_follows_waits_for_nothing(bucket: Bucket) -> None:
    async with room_for(bucket, ALL), asyncio.timeout(10), room_for(bucket, ALL, after=5):
        assert in_flight(bucket.connection).bytes == LIMIT


async def test_one_name_of_a_known_size(bucket: Bucket) -> None:
    count = in_flight(bucket.connection)
    async with room_for(bucket, "$O.b.M.YQ==", size=1000), room_for(bucket, "$O.b.M.Yg==", size=0):
        assert count.bytes == 1001
    assert bucket.connection not in room._sizes


async def test_few_are_remembered(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_KNOWN", 3)
    for number in range(10):
        async with room_for(bucket, f"{number}.>"):
            pass
    assert len(room._sizes[bucket.connection]) <= 3
