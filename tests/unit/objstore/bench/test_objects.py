"""The operations on objects: what they store, read and compare."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from objstore import ObjectStore
from objstore.bench import objects
from objstore.bench.load import Load, Pace
from objstore.bench.objects import SPAN, WORKS, Objects, object_name, prepare
from objstore.bench.payloads import Payloads
from objstore.bench.record import Figures
from objstore.bench.settings import Settings
from objstore.bench.sizes import Part, Sizes
from objstore.errors import IntegrityError

SMALL = Sizes([Part(100, 3000, 1)], "100-3000")


def settings(work: str, **others: object) -> Settings:
    return Settings(work, SMALL, **{"objects": 8, "range_size": 50, **others})  # type: ignore[arg-type]


def payloads() -> Payloads:
    return Payloads(1, 1024)


async def figures(work: Objects, count: int, concurrency: int = 2) -> Figures:
    made = Load(work, Pace(concurrency, None, count), Figures())
    await made.run()
    return made.figures


def work(store: ObjectStore, chosen: Settings, process: int = 0) -> Objects:
    return WORKS[chosen.work](store, chosen, payloads(), process)


@pytest.mark.parametrize("name", ["get", "range", "list"])
async def test_what_is_read_is_compared(store: ObjectStore, name: str) -> None:
    chosen = settings(name)
    await prepare(store, chosen, payloads())
    found = await figures(work(store, chosen), 20)
    assert (found.ops, found.failed_ops) == (20, 0)
    assert list(found.series) == [name]
    series = found.series[name]
    assert series.first_byte.total == (20 if name == "get" else 0)
    assert series.bytes == {"range": 20 * 50, "list": 0}.get(name, series.bytes)


@pytest.mark.parametrize("name", ["get", "range", "list"])
async def test_wrong_bytes_are_failures(store: ObjectStore, name: str) -> None:
    chosen = settings(name, objects=1)
    await prepare(store, chosen, payloads())
    if name == "list":
        await store.put("another", b"")
    else:
        await store.put(object_name(0), random.Random(9).randbytes(SMALL.of(0)))
    found = await figures(work(store, chosen), 3)
    assert {key: each.code for key, each in found.failures.items()} == {f"{name}: IntegrityError": 7}
    assert (found.ops, found.failed_ops) == (0, 3)


async def test_put_stores_new_names_and_reads_some_back(store: ObjectStore) -> None:
    chosen = settings("put", objects=None, chunk_size=512)
    made = work(store, chosen, process=1)
    found = await figures(made, 10)
    infos = await store.list()
    assert {info.name for info in infos} == {object_name(2 * SPAN + number) for number in range(10)}
    assert sum(info.size for info in infos) == found.bytes
    assert {info.options.max_chunk_size for info in infos if info.options} == {512}
    assert await made.check() == 10
    await store.put(infos[0].name, b"something else")
    with pytest.raises(IntegrityError):
        await made.check()


async def test_put_in_turn_replaces_its_names(store: ObjectStore) -> None:
    made = work(store, settings("put", objects=3))
    await figures(made, 10)
    assert len(await store.list()) == 3
    assert await made.check() == 3


async def test_only_some_are_read_back(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "CHECKED", 4)
    made = work(store, settings("put", objects=None))
    await figures(made, 20)
    assert await made.check() == 4
    monkeypatch.setattr(objects, "CHECKED_BYTES", 1)
    assert await made.check() == 1


async def test_large_objects_are_made_of_pieces(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "WHOLE", 10)
    made = work(store, settings("put", objects=None))
    await figures(made, 3)
    assert await made.check() == 3


async def test_mixed_kinds_in_their_proportions(store: ObjectStore) -> None:
    chosen = settings("mixed", objects=20, mix=(("get", 45), ("info", 30), ("put", 15), ("delete", 10)))
    await prepare(store, chosen, payloads())
    made = work(store, chosen)
    found = await figures(made, 200, 4)
    assert found.failed_ops == 0
    counts = Counter({kind: series.ops for kind, series in found.series.items()})
    assert counts["get"] > counts["info"] > counts["put"] > 0
    assert counts["delete"] > 0
    assert len(await store.list()) == 20 + counts["put"] - counts["delete"]
    assert await made.check() > 0


async def test_only_some_of_mixed_are_read_back(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings("mixed", objects=5, mix=(("info", 1),))
    await prepare(store, chosen, payloads())
    assert await work(store, chosen).check() == 5
    monkeypatch.setattr(objects, "CHECKED", 3)
    assert await work(store, chosen).check() == 3
    monkeypatch.setattr(objects, "CHECKED_BYTES", 1)
    assert await work(store, chosen).check() == 1


async def test_mixed_without_anything_left_stores(store: ObjectStore) -> None:
    chosen = settings("mixed", objects=1, mix=(("delete", 1),))
    await prepare(store, chosen, payloads())
    found = await figures(work(store, chosen), 4, 1)
    assert {kind: series.ops for kind, series in found.series.items()} == {"delete": 2, "put": 2}


async def test_mixed_deletes_nothing_that_is_read(store: ObjectStore) -> None:
    chosen = settings("mixed", objects=1, mix=(("info", 1), ("delete", 1)))
    await prepare(store, chosen, payloads())
    made = work(store, chosen)
    calls = []
    while not calls or calls[-1][0] != "info":
        calls.append(made.next(len(calls)))
        if calls[-1][0] != "info":
            await calls[-1][1]()
    while (following := made.next(100))[0] == "info":
        await following[1]()
    assert following[0] == "put"
    assert (await calls[-1][1]()).bytes == 0


async def test_mixed_notices_another_size(store: ObjectStore) -> None:
    chosen = settings("mixed", objects=1, mix=(("info", 1),))
    await store.put(object_name(0), b"x")
    found = await figures(work(store, chosen), 1)
    assert list(found.failures) == ["info: IntegrityError"]


async def test_processes_share_the_objects_of_mixed(store: ObjectStore) -> None:
    chosen = settings("mixed", objects=3, processes=2, mix=(("delete", 1),))
    await prepare(store, chosen, payloads())
    for process, count in ((0, 2), (1, 1)):
        found = await figures(work(store, chosen, process), count, 1)
        assert (found.ops, found.failed_ops) == (count, 0)
    assert await store.list() == []


async def test_preparing_fails_as_it_is(store: ObjectStore) -> None:
    await store.seal()
    with pytest.raises(Exception, match="sealed") as failed:
        await prepare(store, settings("get"), payloads())
    assert not isinstance(failed.value, ExceptionGroup)


def test_what_a_kind_must_say() -> None:
    with pytest.raises(NotImplementedError):
        Objects(None, settings("put"), payloads(), 0).next(0)  # type: ignore[arg-type]
