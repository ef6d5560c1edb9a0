"""The public face of what changes nothing: get, list, watch, verify; a handle and its options."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import ConfigError
from objstore import ObjectDeletedError, ObjectNotFoundError, ObjectStore, ObjectTooLargeError
from objstore.store_reads import StoreReads
from support.memory_server import MemoryServer

DATA = bytes(range(256)) * 4
VERBS = [name for name, value in vars(StoreReads).items() if inspect.isfunction(value) and name[0] != "_"]


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    store = await server.bucket()
    await store.put("a", DATA, chunk_size=100)
    await store.put("dir/b", b"b")
    await store.put("gone", b"x")
    await store.delete("gone")
    return store


async def test_nothing_is_changed(server: MemoryServer, store: ObjectStore, tmp_path: Path) -> None:
    before = dict(server.stream().messages)
    server.verbs()
    await store.get("a")
    await store.get_range("a", 5, 500)
    await store.get_file("a", tmp_path / "f")
    async with store.open_reader("a") as reader:
        await reader.read(10)
    await store.list()
    await store.verify(deep=True)
    async with store.watch() as watcher:
        await watcher.caught_up
    assert server.stream().messages == before
    reading = {"STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET", "CONSUMER.CREATE", "CONSUMER.DELETE"}
    assert set(server.verbs()) <= reading
    assert server.stream().consumers == {}


async def test_get(store: ObjectStore, tmp_path: Path) -> None:
    done: list[int] = []
    assert await store.get("a", progress=lambda n, _: done.append(n), window=200) == DATA
    assert done[-1] == len(DATA)
    with pytest.raises(ObjectTooLargeError):
        await store.get("a", max_size=10)
    assert await store.get_range("a", 10, 20) == DATA[10:20]
    info = await store.get_file("a", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == DATA
    assert info.name == "a"
    for call in (store.get("gone"), store.get_range("gone", 0, 1), store.get_file("gone", tmp_path / "g")):
        with pytest.raises(ObjectDeletedError):
            await call
    wrong: Any = "sometimes"
    for call in (store.get("a", window=0), store.get("a", follow_links=wrong)):
        with pytest.raises(ValueError, match=r"window|follow_links"):
            await call


async def test_what_there_is(store: ObjectStore) -> None:
    assert (await store.get_info("a")).size == len(DATA)
    with pytest.raises(ObjectDeletedError):
        await store.get_info("gone")
    assert (await store.get_info("gone", show_deleted=True)).deleted
    with pytest.raises(ObjectNotFoundError):
        await store.get_info("never", show_deleted=True)
    assert [await store.exists(name) for name in ("a", "gone", "never")] == [True, False, False]


async def test_enumerating(store: ObjectStore) -> None:
    assert [info.name for info in await store.list()] == ["a", "dir/b"]
    assert len(await store.list(include_deleted=True)) == 3
    assert sorted([info.name async for info in store.iter()]) == ["a", "dir/b"]
    assert [info.name async for info in store.iter(prefix="dir/")] == ["dir/b"]
    assert await store.names() == ["a", "dir/b", "gone"]
    assert await store.names("d", live=True) == ["dir/b"]
    assert (await store.count(), await store.count(live=True)) == (3, 2)
    level = await store.list_dirs()
    assert (level.prefixes, [info.name for info in level.objects]) == (["dir/"], ["a"])


async def test_status(store: ObjectStore) -> None:
    status = await store.status()
    assert (status.bucket, status.count, status.sealed) == ("b", 2, False)
    assert status.size > len(DATA)
    report = await store.verify()
    assert (report.ok, report.objects) == (True, 2)


async def test_a_handle_with_other_options(server: MemoryServer, store: ObjectStore) -> None:
    other = store.with_options(retry_budget=60)
    assert type(other) is ObjectStore
    assert (other.bucket, other.js, other.client) == ("b", store.js, server.client)
    assert other._bucket.retry_budget == 60.0
    assert store._bucket.retry_budget == 20.0
    wrong: list[Any] = [0, -1, True, "1", None]
    for budget in wrong:
        with pytest.raises(ConfigError, match="retry_budget"):
            store.with_options(retry_budget=budget)
    assert repr(store) == "<ObjectStore 'b'>"


async def test_callbacks_are_checked_at_once(store: ObjectStore, tmp_path: Path) -> None:
    async def later(*args: object) -> None:
        pass

    wrong: Any = later
    for call in (store.get("a", progress=wrong), store.get_file("a", tmp_path / "f", progress=wrong)):
        with pytest.raises(TypeError, match="plain function"):
            await call
    with pytest.raises(TypeError):
        await store.list(on_invalid=wrong)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_page(verb: str) -> None:
    assert inspect.getdoc(getattr(StoreReads, verb))
