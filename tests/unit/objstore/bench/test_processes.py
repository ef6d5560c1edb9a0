"""Client processes: started together, and what happens when one of them cannot, or is no more."""

from __future__ import annotations

import asyncio
import pickle
import struct
from functools import partial

import pytest

from objstore.bench import processes
from objstore.bench.processes import (
    Connect,
    Lost,
    ProcessEndedError,
    carried,
    measure_in,
    serve,
)
from objstore.bench.record import Figures, Totals
from objstore.bench.settings import Settings
from objstore.bench.share import Share
from objstore.bench.sizes import Part, Sizes
from objstore.errors import BucketNotFoundError
from support.bench_links import broken_link, deadly_link, memory_link, stubborn_link

SMALL = Sizes([Part(100, 100, 1)], "100")


def shares(count: int, **others: object) -> list[Share]:
    options = {"seconds": None, "count": 6, "warmup": 0.0, "processes": count, "concurrency": count}
    settings = Settings("put", SMALL, **{**options, **others})  # type: ignore[arg-type]
    return [Share(settings, number, "b") for number in range(count)]


async def test_each_process_does_its_part() -> None:
    states: list[tuple[int, Totals]] = []
    found = await measure_in(
        shares(2), partial(memory_link, "b"), lambda number, totals: states.append((number, totals))
    )
    assert [figures.ops for figures in found] == [3, 3]
    assert [figures.checked for figures in found] == [3, 3]
    assert {number for number, _ in states} == {0, 1}


async def test_an_error_of_a_process_is_raised_here() -> None:
    with pytest.raises(BucketNotFoundError, match="no such bucket"):
        await measure_in(shares(1), broken_link, lambda number, totals: None)


async def test_a_process_that_is_no_more() -> None:
    with pytest.raises(ProcessEndedError, match="ended with exit code 9"):
        await measure_in(shares(1), deadly_link, lambda number, totals: None)


async def test_processes_end_with_a_cancelled_run(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[processes._Process] = []
    start = processes._start

    async def noted(share: Share, connect: Connect) -> processes._Process:
        started.append(await start(share, connect))
        return started[-1]

    monkeypatch.setattr(processes, "_start", noted)
    works = asyncio.Event()
    forever = [Share(Settings("put", SMALL, seconds=3600.0, warmup=3600.0), 0, "b")]
    running = asyncio.create_task(
        measure_in(forever, partial(memory_link, "b"), lambda number, totals: works.set())
    )
    await works.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [each._process.returncode for each in started] == [0]


async def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "END", 0.05)
    started = await processes._start(shares(1)[0], stubborn_link)
    await started.end()
    assert started._process.returncode == -9
    await started.say(b"!" * (1 << 20))  # nobody minds


class Talk:
    """What a served process says, and what it is told."""

    def __init__(self, share: Share, connect: Connect) -> None:
        self.stream = asyncio.StreamReader()
        self.said: list[object] = []
        data = pickle.dumps((share, connect))
        self.stream.feed_data(struct.pack(">I", len(data)) + data)

    def write(self, data: bytes) -> None:
        said = pickle.loads(data[4:])
        self.said.append(said)
        if said == "ready":
            self.ready()

    def ready(self) -> None:
        self.stream.feed_data(b"!")


async def test_what_a_process_says() -> None:
    talk = Talk(shares(1)[0], partial(memory_link, "b"))
    await serve(talk.stream, talk.write)
    assert talk.said[0] == "ready"
    assert isinstance(talk.said[-1], Figures)
    assert talk.said[-1].ops == 6


async def test_a_process_whose_starter_is_gone_ends() -> None:
    talk = Talk(shares(1)[0], partial(memory_link, "b"))
    talk.ready = talk.stream.feed_eof  # type: ignore[method-assign]
    await serve(talk.stream, talk.write)
    assert talk.said == ["ready"]


async def test_a_process_says_why_it_cannot() -> None:
    talk = Talk(shares(1)[0], broken_link)
    await serve(talk.stream, talk.write)
    (lost,) = talk.said
    assert isinstance(lost, Lost)
    assert isinstance(lost.error, BucketNotFoundError)
    assert lost.error.bucket == "b"


def test_errors_that_cannot_be_sent_become_text() -> None:
    class Local(Exception):
        pass

    class TwoWords(Exception):
        def __init__(self, one: str, two: str) -> None:
            super().__init__(one)

    error = OSError("broken")
    assert carried(error) is error
    assert str(carried(Local("why"))) == "Local: why"
    assert str(carried(TwoWords("why", "not"))) == "TwoWords: why"
