"""One process's part: warm-up, start, measurement, check."""

from __future__ import annotations

import pytest

from objstore.bench import share
from objstore.bench.load import Pace
from objstore.bench.record import Totals
from objstore.bench.settings import Settings
from objstore.bench.share import Share, measure, part
from objstore.bench.sizes import Part, Sizes
from objstore.cli.connection import Session
from support.memory_server import MemoryServer

SMALL = Sizes([Part(100, 100, 1)], "100")


def settings(work: str = "put", **others: object) -> Settings:
    return Settings(work, SMALL, **{"seconds": None, "count": 6, "warmup": 0.0, **others})  # type: ignore[arg-type]


def test_parts_add_up() -> None:
    assert [part(10, 4, number) for number in range(4)] == [3, 3, 2, 2]
    assert [part(2, 2, number) for number in range(2)] == [1, 1]


def test_the_pace_of_each_process() -> None:
    whole = settings(count=5, rate=10.0, concurrency=3, processes=2)
    assert Share(whole, 0, "b").pace() == Pace(2, None, 3, 5.0, 0.0)
    assert Share(whole, 1, "b").pace() == Pace(1, None, 2, 5.0, 0.5)
    timed = settings(count=None, seconds=3.0)
    assert Share(timed, 0, "b").pace() == Pace(1, 3.0, None, None, 0.0)


async def test_a_share_is_measured_after_the_start(server: MemoryServer) -> None:
    store = await server.bucket()
    stored: list[int] = []
    states: list[Totals] = []

    async def gate() -> None:
        stored.append(len(await store.names()))

    link = Session(server.client, server.js, patient=False)
    figures = await measure(Share(settings(warmup=0.01), 0, "b"), link, gate, states.append)
    assert (figures.ops, figures.failed_ops, figures.checked) == (6, 0, 6 + stored[0])
    assert stored[0] > 0
    assert len(await store.names()) == stored[0] + 6
    assert figures.seconds > 0
    assert states[-1].phase == "checking"


async def test_the_state_is_reported_meanwhile(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "LIVE", 0)
    await server.bucket()
    states: list[Totals] = []

    async def gate() -> None:
        pass

    link = Session(server.client, server.js, patient=False)
    await measure(Share(settings(count=50), 0, "b"), link, gate, states.append)
    assert {each.phase for each in states} == {"measuring", "checking"}
    last = states[-2]
    assert 0 < last.ops <= 50
    assert last.bytes == 100 * last.ops
    assert sum(last.latency.values()) == last.ops
    assert last.seconds > 0


async def test_a_bucket_that_is_not_there(server: MemoryServer) -> None:
    async def gate() -> None:
        raise AssertionError

    link = Session(server.client, server.js, patient=False)
    with pytest.raises(LookupError):
        await measure(Share(settings(), 0, "b"), link, gate, lambda totals: None)
