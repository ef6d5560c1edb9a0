"""A whole run: its own bucket, and nothing left of it."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from objstore.bench import run as running
from objstore.bench.record import Totals
from objstore.bench.run import own_bucket, run
from objstore.bench.settings import OBJECT_WORKS, Settings
from objstore.bench.sizes import Part, Sizes
from objstore.cli.connection import Session
from support.bench_links import broken_link, memory_link
from support.memory_server import MemoryServer
from support.waits import eventually

SMALL = Sizes([Part(100, 100, 1)], "100")


class Watching:
    def __init__(self) -> None:
        self.stored: list[int] = []
        self.left: list[tuple[str, str]] = []

    def show(self, totals: list[Totals]) -> None:
        pass

    def preparing(self, count: int) -> None:
        self.stored.append(count)

    def left_behind(self, bucket: str, exc: BaseException) -> None:
        self.left.append((bucket, str(exc) or type(exc).__name__))


def settings(work: str, **others: object) -> Settings:
    options = {"seconds": None, "count": 4, "warmup": 0.0, "objects": 3, "range_size": 10}
    return Settings(work, SMALL, **{**options, **others})  # type: ignore[arg-type]


@pytest.fixture
def link(server: MemoryServer) -> Session:
    return Session(server.client, server.js, patient=False)


@pytest.mark.parametrize("work", OBJECT_WORKS)
async def test_nothing_is_left(server: MemoryServer, link: Session, work: str) -> None:
    other = await server.bucket("bench-other")
    await other.put("kept", b"x")
    watching = Watching()
    found = await run(settings(work), link, broken_link, watching)
    assert (found.work, found.figures.ops, found.figures.failed_ops) == (work, 4, 0)
    assert len(found.processes) == 1
    assert watching.stored == [0 if work == "put" else 3]
    assert await server.js.object_store_names() == ["bench-other"]
    assert await other.get("kept") == b"x"
    assert watching.left == []


async def test_several_processes(link: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """On servers of their own here, which know the bucket."""
    monkeypatch.setattr(running.secrets, "token_hex", lambda size: "known")
    chosen = settings("put", processes=2, concurrency=2, objects=None)
    found = await run(chosen, link, partial(memory_link, "bench-known"), Watching())
    assert [figures.ops for figures in found.processes] == [2, 2]
    assert found.figures.ops == 4


async def test_a_cancelled_run_leaves_nothing(server: MemoryServer, link: Session) -> None:
    class Stop(Watching):
        def preparing(self, count: int) -> None:
            task.cancel()

    watching = Stop()
    task = asyncio.create_task(run(settings("get"), link, broken_link, watching))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.js.object_store_names() == []
    assert watching.left == []


async def test_a_failed_run_leaves_nothing(server: MemoryServer, link: Session) -> None:
    with pytest.raises(LookupError):
        await run(settings("put", processes=2, concurrency=2), link, broken_link, Watching())
    assert await server.js.object_store_names() == []


async def test_a_bucket_that_is_gone_already(server: MemoryServer, link: Session) -> None:
    watching = Watching()
    async with own_bucket(settings("put"), link.js, watching) as bucket:
        assert bucket.startswith("bench-")
        await server.js.delete_object_store(bucket)
    assert watching.left == []


async def test_a_bucket_that_cannot_be_deleted_is_named(
    link: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = Watching()

    async def refuse(js: object, bucket: str) -> None:
        raise OSError("refused")

    monkeypatch.setattr(running, "_delete", refuse)
    async with own_bucket(settings("put"), link.js, watching) as bucket:
        pass
    assert watching.left == [(bucket, "refused")]


async def test_who_does_not_wait_for_the_end_hears_of_the_bucket(
    server: MemoryServer, link: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = Watching()
    deleting = asyncio.Event()
    go_on = asyncio.Event()
    delete = running._delete

    async def slow(js: object, bucket: str) -> None:
        deleting.set()
        await go_on.wait()
        await delete(server.js, bucket)

    monkeypatch.setattr(running, "_delete", slow)
    task = asyncio.create_task(run(settings("put"), link, broken_link, watching))
    await deleting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [why for _, why in watching.left] == ["CancelledError"]
    go_on.set()
    await eventually(lambda: not server.streams)
