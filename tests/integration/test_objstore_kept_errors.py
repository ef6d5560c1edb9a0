"""A read that failed or was cancelled leaves the collector nothing to mind, and its error keeps no memory."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from natsproto.jetstream.context import JetStreamContext
from objstore import IntegrityError, ObjectStore
from support.objects import pattern

SIZE = 8_000_000

Read = Callable[[ObjectStore], Awaitable[object]]


async def get(store: ObjectStore) -> None:
    await store.get("a")


async def get_range(store: ObjectStore) -> None:
    await store.get_range("a", 1000, SIZE)


async def short_range(store: ObjectStore) -> None:
    await store.get_range("a", SIZE - 400_000, SIZE)


async def get_file(store: ObjectStore) -> None:
    await store.get_file("a", "file")


async def resume(store: ObjectStore) -> None:
    await store.get_file("a", "resumed", resume=True)


async def reader(store: ObjectStore) -> None:
    async with store.open_reader("a") as opened:
        await opened.read()


async def iterated(store: ObjectStore) -> None:
    async with store.open_reader("a") as opened:
        async for _ in opened:
            pass


async def sought(store: ObjectStore) -> None:
    async with store.open_reader("a") as opened:
        await opened.seek(500_000)
        await opened.read()


READS: list[Read] = [get, get_range, short_range, get_file, resume, reader, iterated, sought]
every_read = pytest.mark.parametrize("read", READS, ids=lambda f: f.__name__)


async def lose_the_last_chunk(store: ObjectStore, js: JetStreamContext) -> None:
    info = await store.put("a", pattern(SIZE))
    subject = f"$O.{store.bucket}.C.{info.nuid}"
    last = await js.get_message(f"OBJ_{store.bucket}", last_by_subject=subject)
    await js.delete_message(f"OBJ_{store.bucket}", last.seq)


def keep(error: BaseException) -> None:
    """As a task, a logger or a retry loop does: together with its traceback, in a cycle."""
    error.kept = [error]  # type: ignore[attr-defined]


@every_read
@pytest.mark.usefixtures("short_looks")
async def test_failed(
    store: ObjectStore, js: JetStreamContext, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ignored: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: ignored.append(repr(found.exc_value)))
    await lose_the_last_chunk(store, js)
    for _ in range(2):
        with pytest.raises(IntegrityError) as caught:
            await read(store)
        keep(caught.value)
        del caught
        gc.collect()
    assert ignored == []


@every_read
async def test_cancelled_at_any_point(
    store: ObjectStore, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ignored: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: ignored.append(repr(found.exc_value)))
    await store.put("a", pattern(SIZE))
    for turns in (1, 2, 3, 5, 8, 13, 21, 34):
        task = asyncio.ensure_future(read(store))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            keep(error)
        del task
        gc.collect()
    assert ignored == []
    await read(store)  # what was cut off in the middle of a chunk has harmed nothing


@every_read
@pytest.mark.usefixtures("short_looks")
async def test_a_kept_error_keeps_no_memory(
    store: ObjectStore, js: JetStreamContext, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await lose_the_last_chunk(store, js)
    errors: list[BaseException] = []

    async def fail() -> None:
        try:
            await read(store)
        except IntegrityError as error:
            errors.append(error)

    await fail()  # what is made once stays
    errors.clear()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2):
            await fail()
        assert len(errors) == 2
        assert errors[0].__traceback__ is not None
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000, f"{kept} bytes are kept by two errors"
