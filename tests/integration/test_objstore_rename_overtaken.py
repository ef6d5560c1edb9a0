"""A rename in steps that others finish while it is slow: one call moves one object, and tells no lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import NatsError
from natsproto.jetstream.context import JetStreamContext
from objstore import ObjectAlreadyExists, ObjectMeta, ObjectStore, OutcomeUnknownError, StoreFullError
from objstore.change import rename as _rename
from objstore.commit import renames as _renames
from support.objects import CHUNK, assert_exact, pattern

DATA = pattern(3 * CHUNK)


class Held:
    """A rename from ``old`` to ``new`` that is stopped before its mark, or before the new meta."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> None:
        self.store = store
        self.stop = "linked"
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.refusals: dict[str, NatsError] = {}
        real = _rename.commit_meta

        async def commit(bucket: Any, info: Any, *args: Any, **options: Any) -> int:
            step = "freed"
            if info.name == "new":
                step = "linked"
            elif _renames.RENAMING in info.metadata:
                step = "marked"
            if bucket is store._bucket:
                if step == self.stop:
                    self.reached.set()
                    await self.go_on.wait()
                if step in self.refusals:
                    raise self.refusals[step]
            return await real(bucket, info, *args, **options)

        monkeypatch.setattr(_rename, "commit_meta", commit)

    async def begin(self) -> None:
        await self.store.put("old", DATA, chunk_size=CHUNK)
        self.renaming = asyncio.ensure_future(self.store.rename("old", "new"))
        async with asyncio.timeout(30):
            await self.reached.wait()

    async def end(self) -> Any:
        self.go_on.set()
        return await self.renaming


@pytest.fixture
async def held(monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> AsyncIterator[Held]:
    yield Held(monkeypatch, store)
    await store.gc(older_than=timedelta(0))  # what was renamed and deleted is left to it
    await assert_exact(store)


@pytest.fixture
async def other(js: JetStreamContext, store: ObjectStore) -> ObjectStore:
    return await js.object_store(store.bucket)


async def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.name: await store.get(info.name) for info in await store.list()}


async def is_marked(store: ObjectStore) -> bool:
    info = await _renames.read_meta(store._bucket, "old")
    assert info is not None
    return _renames.RENAMING in info.metadata


async def moved_on(other: ObjectStore) -> None:
    await other.rename("new", "third")


async def moved_on_and_put(other: ObjectStore) -> None:
    await other.rename("new", "third")
    await other.put("new", b"newer")


async def deleted(other: ObjectStore) -> None:
    await other.delete("new")


@pytest.mark.parametrize(
    ("then", "left"),
    [
        (moved_on, {"third": DATA}),
        (moved_on_and_put, {"third": DATA, "new": b"newer"}),
        (deleted, {}),
    ],
)
@pytest.mark.parametrize("refused", [False, True])
async def test_finished_and_gone_on(
    held: Held,
    other: ObjectStore,
    then: Callable[[ObjectStore], Awaitable[None]],
    left: dict[str, bytes],
    refused: bool,
) -> None:
    """The next object of the old name was put after that: it is not moved, whatever the first one became."""
    await held.begin()
    await other.put("old", b"another")
    assert await other.get("new") == DATA, "the put has finished the rename"
    await then(other)
    if refused:
        held.refusals["linked"] = StoreFullError("full", bucket=other.bucket)
    with pytest.raises(OutcomeUnknownError, match=r"'old' .* may have finished its rename to 'new'"):
        await held.end()
    assert await contents(other) == {"old": b"another", **left}


async def test_finished_and_brought_back(held: Held, other: ObjectStore) -> None:
    """Who has renamed it back is not overruled."""
    await held.begin()
    await other.update_meta("old", ObjectMeta("new"))
    await other.rename("new", "old")
    with pytest.raises(OutcomeUnknownError):
        await held.end()
    assert await contents(other) == {"old": DATA}


@pytest.mark.parametrize("refused", [False, True])
async def test_finished_and_updated(held: Held, other: ObjectStore, refused: bool) -> None:
    """Without the marks it is known by what it says of the bytes, and what was renamed is told."""
    await held.begin()
    await other.put("old", b"another")
    updated = await other.update_meta("new", ObjectMeta("new", "updated"))
    if refused:
        held.refusals["linked"] = StoreFullError("full", bucket=other.bucket)
    info = await held.end()
    assert (info.name, info.description, info.nuid) == ("new", "updated", updated.nuid)
    assert await contents(other) == {"old": b"another", "new": DATA}


@pytest.mark.parametrize("stop", ["marked", "linked"])
async def test_the_new_name_was_used(held: Held, other: ObjectStore, stop: str) -> None:
    """Nobody finishes it then, and the mark comes off: it is begun anew with what is there."""
    held.stop = stop
    await held.begin()
    await other.put("new", b"newer")
    await other.delete("new")
    info = await held.end()
    assert await contents(other) == {"new": DATA}
    assert info.revision == (await other.get_info("new")).revision


@pytest.mark.parametrize("refused", ["the new name", "both"])
async def test_refused_and_nobody_was_there(held: Held, other: ObjectStore, refused: str) -> None:
    """The old name is as it was. The error says so only if the mark is off: others may finish a mark."""
    await held.begin()
    held.refusals["linked"] = StoreFullError("full", bucket=other.bucket)
    if refused == "both":
        held.refusals["freed"] = StoreFullError("full, too", bucket=other.bucket)
        with pytest.raises(OutcomeUnknownError, match=r"not renamed to 'new' \(full\), but keeps the mark"):
            await held.end()
    else:
        with pytest.raises(StoreFullError, match=r"full$"):
            await held.end()
    assert await is_marked(other) == (refused == "both")
    assert await contents(other) == {"old": DATA}


async def test_the_mark_may_not_be_taken_off(held: Held, other: ObjectStore) -> None:
    """It is looked at who stands there, before an error says that nothing was renamed."""
    await held.begin()
    await other.put("old", b"another")
    await other.rename("new", "third")
    held.refusals["freed"] = StoreFullError("full", bucket=other.bucket)
    with pytest.raises(OutcomeUnknownError):
        await held.end()
    assert await contents(other) == {"old": b"another", "third": DATA}


async def test_taken_by_another_object(held: Held, other: ObjectStore) -> None:
    await held.begin()
    await other.put("new", b"newer")
    with pytest.raises(ObjectAlreadyExists):
        await held.end()
    assert await contents(other) == {"old": DATA, "new": b"newer"}
    assert not await is_marked(other)


async def test_replaced_when_nobody_could_finish_it(held: Held, other: ObjectStore) -> None:
    """The new name was used before the mark, and not since: so nothing was renamed, and it is begun anew."""
    held.stop = "marked"
    await held.begin()
    await other.put("new", b"newer")
    await other.delete("new")
    held.stop, again = "linked", asyncio.Event()
    held.go_on.set()
    held.reached, held.go_on = again, asyncio.Event()
    await again.wait()
    await other.put("old", b"another")
    assert await contents(other) == {"old": b"another"}
    await held.end()
    assert await contents(other) == {"new": b"another"}
