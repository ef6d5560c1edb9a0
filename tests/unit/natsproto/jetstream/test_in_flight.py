"""What is on its way to one connection: how much, and who comes next."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.jetstream import in_flight as _in_flight
from natsproto.jetstream.in_flight import FIRST, FOR_SMALL, LIMIT, QUICK, SLOW, SMALL, InFlight, in_flight
from support.fake_session import turns

HALF = FIRST // 2
LARGE = SMALL + 1


class Connection(SimpleNamespace):
    __hash__ = object.__hash__


def test_one_count_for_each_connection() -> None:
    one: Any = Connection()
    other: Any = Connection()
    assert in_flight(one) is in_flight(one)
    assert in_flight(one) is not in_flight(other)


def test_what_fits_is_taken_at_once() -> None:
    count = InFlight()
    assert count.take(HALF)
    assert count.take(HALF)
    assert not count.take(LARGE)
    count.release(HALF, 2.0)
    assert count.take(LARGE)
    alone = InFlight()
    assert alone.take(FIRST + 1)  # a window of any size can be read
    assert not alone.take(LARGE)


async def test_the_first_one_is_served_first() -> None:
    count = InFlight()
    await count.wait(HALF)
    order: list[str] = []

    async def read(name: str, size: int) -> None:
        async with count.during(size):
            order.append(name)
            await turns()

    async def free() -> None:
        await turns()
        assert not order  # nor is the smaller one served, although it would fit
        assert not count.take(LARGE)
        count.release(HALF, 2.0)

    reads = [read("large", FIRST), read("smaller", LARGE), *[read(f"{number}", HALF) for number in range(3)]]
    await asyncio.gather(*reads, free())
    assert order == ["large", "smaller", "0", "1", "2"]
    assert count.bytes == 0


async def test_who_is_cancelled_takes_nothing() -> None:
    count = InFlight()
    await count.wait(FIRST)
    first, second, third = [asyncio.ensure_future(count.wait(HALF)) for _ in range(3)]
    await turns()
    second.cancel()
    count.release(FIRST, 2.0)
    first.cancel()  # its turn had come
    await asyncio.wait([first, second, third])
    assert first.cancelled()
    assert second.cancelled()
    assert third.done()
    assert count.bytes == HALF
    large = asyncio.ensure_future(count.wait(FIRST))
    small = asyncio.ensure_future(count.wait(HALF))
    await turns()
    large.cancel()  # nobody waits behind it in vain
    await small
    assert count.bytes == FIRST


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that never comes, for an object whose reader pauses, holds up the others for a while only."""
    monkeypatch.setattr(_in_flight, "PATIENCE", 0.05)
    count = InFlight()
    await count.wait(FIRST)
    await asyncio.gather(count.wait(HALF), count.wait(HALF))
    assert count.bytes == 2 * FIRST
    for size in (FIRST, HALF, HALF):
        count.release(size, 2.0)
    assert count.take(FIRST)


async def test_patience_is_with_all_answers_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow link the queue may be long: as long as it moves, nothing is sent beyond the limit."""
    monkeypatch.setattr(_in_flight, "PATIENCE", 0.3)
    count = InFlight()
    await count.wait(FIRST)
    waiting = [asyncio.ensure_future(count.wait(FIRST)) for _ in range(4)]
    for done in range(4):
        await asyncio.wait(waiting, timeout=0.2)
        assert count.bytes == FIRST
        assert sum(each.done() for each in waiting) == done
        count.release(FIRST, 2.0)
        await turns()
    await asyncio.gather(*waiting)


def test_the_limit_follows_the_link() -> None:
    count = InFlight()
    for _ in range(10):
        assert count.take(HALF)
        count.release(HALF, QUICK / 2)
    assert count.limit == LIMIT
    for _ in range(10):
        count.bytes += HALF
        count.release(HALF, SLOW * 2)
    assert count.limit == HALF  # one request at a time
    count.bytes += LIMIT
    count.release(LIMIT, SLOW * 2)
    assert count.limit == HALF, "a slow answer raises no limit"
    count.bytes += LIMIT
    count.release(LIMIT, QUICK / 2, came=1000)
    assert count.limit == HALF + 1000, "a quick one as much as came"
    count.bytes += HALF
    count.release(HALF, (QUICK + SLOW) / 2)
    assert count.limit == HALF + 1000


async def test_small_ones_have_a_queue_of_their_own() -> None:
    """Neither waits for the other kind, however many of it there are."""
    count = InFlight()
    assert count.take(LIMIT)
    large = asyncio.ensure_future(count.wait(LIMIT))
    await turns()
    most = FOR_SMALL // SMALL
    for _ in range(most):
        assert count.take(SMALL)
    assert not count.take(1)
    small = asyncio.ensure_future(count.wait(SMALL))
    await turns()
    count.release(SMALL, 2.0)
    await small
    assert not large.done()
    count.release(LIMIT, 2.0)
    await large
    for _ in range(most):
        count.release(SMALL, 2.0)
    count.release(LIMIT, 2.0)
    assert count.bytes == 0
    assert all(count.take(SMALL) for _ in range(most))
