"""Where nothing lives a name is free, whatever becomes of the delete marker there while a call is under way.

Others remove it (``purge_deleted``), or put an object there and delete it again: no call says that it exists.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import natsproto
from natsproto.server import LocalServer
from objstore import ObjectAlreadyExists, ObjectInfo, ObjectMeta, ObjectStore, RevisionConflictError
from objstore.change import rename as _rename
from objstore.commit.commit import Commit
from support.objects import assert_exact, meta_subject, pattern, read_raw, stream, write_raw

DATA = pattern(120)
PIECE = 30

Change = Callable[[ObjectStore], Awaitable[object]]


async def deleted(store: ObjectStore, name: str) -> None:
    await store.put(name, b"gone")
    await store.delete(name)


async def purged(store: ObjectStore) -> None:
    await store.js.purge_stream(stream(store), subject=meta_subject(store, "new"))


async def put_and_deleted(store: ObjectStore) -> None:
    await deleted(store, "new")


async def put(store: ObjectStore) -> None:
    await store.put("new", b"somebody else's")


every_change = pytest.mark.parametrize("change", [purged, put_and_deleted], ids=lambda f: f.__name__)


@pytest.fixture
async def atomic_store(new_server: LocalServer, bucket_name: str) -> AsyncIterator[ObjectStore]:
    async with natsproto.connect(new_server.url) as client:
        js = client.jetstream()
        yield await js.create_object_store(bucket=bucket_name, allow_atomic=True)
        await js.delete_object_store(bucket_name)


async def created(store: ObjectStore, source: Any) -> ObjectInfo:
    return await store.create("new", source, chunk_size=PIECE)


async def put_if_absent(store: ObjectStore, source: Any) -> ObjectInfo:
    return await store.put("new", source, chunk_size=PIECE, if_revision=0)


async def uploaded(store: ObjectStore, source: Any) -> ObjectInfo:
    return await (await store.begin_upload("new", chunk_size=PIECE)).send(source, if_revision=0)


async def atomic(store: ObjectStore, source: Any) -> ObjectInfo:
    return await store.create("new", source, chunk_size=PIECE, atomic=True)


def changing(store: ObjectStore, change: Change) -> AsyncIterator[bytes]:
    """A source in the middle of which somebody else changes the name that it is for."""

    async def pieces() -> AsyncIterator[bytes]:
        yield DATA[: 2 * PIECE]
        await store.get_info("new", show_deleted=True)  # what the put has asked was answered before
        await change(store)
        yield DATA[2 * PIECE :]

    return pieces()


@every_change
@pytest.mark.parametrize("call", [created, put_if_absent, uploaded], ids=lambda f: f.__name__)
async def test_a_put_where_nothing_lives(store: ObjectStore, call: Any, change: Change) -> None:
    await deleted(store, "new")
    info = await call(store, changing(store, change))
    assert await store.get("new") == DATA
    assert (await store.get_info("new")).revision == info.revision
    await assert_exact(store)


@every_change
async def test_an_atomic_put_where_nothing_lives(atomic_store: ObjectStore, change: Change) -> None:
    await deleted(atomic_store, "new")
    await atomic(atomic_store, changing(atomic_store, change))
    assert await atomic_store.get("new") == DATA
    await assert_exact(atomic_store)


@pytest.mark.parametrize("call", [created, put_if_absent, uploaded], ids=lambda f: f.__name__)
async def test_a_put_where_an_object_lives_by_now(store: ObjectStore, call: Any) -> None:
    await deleted(store, "new")
    with pytest.raises(ObjectAlreadyExists if call is created else RevisionConflictError):
        await call(store, changing(store, put))
    assert await store.get("new") == b"somebody else's"


async def test_a_put_of_another_revision(store: ObjectStore) -> None:
    """Who wants to replace one revision is told that it is not there any more."""
    first = await store.put("new", b"first")

    async def removed(store: ObjectStore) -> None:
        await store.delete("new")
        await purged(store)

    with pytest.raises(RevisionConflictError) as caught:
        await store.put("new", changing(store, removed), if_revision=first.revision)
    assert (caught.value.expected, caught.value.current) == (first.revision, 0)
    assert not await store.exists("new")
    assert await store.list(include_deleted=True) == []
    await assert_exact(store)


async def test_no_end_of_delete_markers(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told after the retry budget, and as what it is: no object is there."""
    store = store.with_options(retry_budget=0.3)
    await deleted(store, "new")
    document = await read_raw(store, "new")
    real = Commit._publish

    async def beaten(self: Commit, *args: Any) -> Any:
        await write_raw(store.js, meta_subject(store, "new"), document)
        return await real(self, *args)

    monkeypatch.setattr(Commit, "_publish", beaten)
    with pytest.raises(RevisionConflictError):
        await store.create("new", DATA)
    monkeypatch.undo()
    assert not await store.exists("new")
    await assert_exact(store)


class Beside:
    """Somebody else's change of the new name just before a rename commits there, for the first time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: ObjectStore, change: Change) -> None:
        self.times = 0
        real = Commit._publish
        both = _rename._Both._publish

        async def first(self: Commit, expected: int, *args: Any) -> Any:
            if self._name == "new" and self._bucket is store._bucket and not beside.times:
                beside.times += 1
                await change(other)
            return await (both if isinstance(self, _rename._Both) else real)(self, expected, *args)

        beside = self
        other = store.with_options(retry_budget=20)
        monkeypatch.setattr(Commit, "_publish", first)
        monkeypatch.setattr(_rename._Both, "_publish", first)


async def renamed(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    await deleted(store, "new")
    old = await store.put("old", DATA, "said", chunk_size=PIECE)
    beside = Beside(monkeypatch, store, change)
    await store.update_meta("old", ObjectMeta("new"), if_revision=old.revision)
    assert beside.times == 1
    info = await store.get_info("new")
    assert (info.description, info.metadata) == ("said", {})
    assert await store.get("new") == DATA
    assert not await store.exists("old")
    assert "metadata" not in await read_raw(store, "new"), "no mark is left"
    await assert_exact(store)


@every_change
async def test_a_rename_to_where_nothing_lives(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    await renamed(store, monkeypatch, change)


@every_change
async def test_an_atomic_rename_to_where_nothing_lives(
    atomic_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    await renamed(atomic_store, monkeypatch, change)


async def test_a_rename_to_where_an_object_lives_by_now(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deleted(store, "new")
    await store.put("old", DATA)
    beside = Beside(monkeypatch, store, put)
    with pytest.raises(ObjectAlreadyExists):
        await store.rename("old", "new")
    assert beside.times == 1
    assert await store.get("new") == b"somebody else's"
    assert await store.get("old") == DATA
    assert "metadata" not in await read_raw(store, "old")
    await assert_exact(store)
