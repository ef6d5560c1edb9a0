"""What others do while an object is renamed, or just has been: its chunks stay until nobody needs them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from natsproto.errors import NatsError
from natsproto.jetstream.context import JetStreamContext
from objstore import ObjectMeta, ObjectStore, OutcomeUnknownError, StoreFullError
from objstore.change import rename as _rename
from objstore.commit import discard as _discard
from objstore.commit import renames as _renames
from support.objects import CHUNK, assert_exact, chunk_counts, pattern

DATA = pattern(3 * CHUNK)


@pytest.mark.parametrize("name", ["x", "ü>?"])
async def test_written_aside_and_renamed_again_and_again(store: ObjectStore, name: str) -> None:
    """The usual way to replace a file leaves nothing behind, although each marker is replaced at once."""
    for number in range(6):
        await store.put("aside", DATA[number:], chunk_size=CHUNK)
        if number:
            await store.delete(name)
        await store.rename("aside", name)
        assert await store.get(name) == DATA[number:]
    assert len(await chunk_counts(store)) == 1
    await assert_exact(store)


class Held:
    """A rename that has marked the old name and is about to publish the new one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> None:
        self.marked = asyncio.Event()
        self.go_on = asyncio.Event()
        real = _rename.commit_meta

        async def commit(bucket: Any, info: Any, *args: Any, **options: Any) -> int:
            if bucket is store._bucket and info.name == "new" and _renames.RENAMED_FROM in info.metadata:
                self.marked.set()
                await self.go_on.wait()
            return await real(bucket, info, *args, **options)

        monkeypatch.setattr(_rename, "commit_meta", commit)


@pytest.mark.parametrize("change", ["delete", "put"])
async def test_the_old_name_is_changed_before_the_new_one_is_there(
    store: ObjectStore, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Who cannot finish the rename, or may not, leaves the chunks to who may: it may still be committed."""
    await store.put("old", DATA, chunk_size=CHUNK)
    held = Held(monkeypatch, store)
    renaming = asyncio.ensure_future(store.rename("old", "new"))
    async with asyncio.timeout(30):
        await held.marked.wait()
    other = await js.object_store(store.bucket)

    async def refuse(*args: Any) -> NatsError:
        return StoreFullError("full", bucket=store.bucket)

    with monkeypatch.context() as patched:
        patched.setattr(_renames, "refusal_to_bring_back", refuse)
        await (other.delete("old") if change == "delete" else other.put("old", b"another"))
    held.go_on.set()
    assert (await renaming).name == "new"
    assert await store.get("new") == DATA


async def test_renamed_once_more_while_the_old_name_is_replaced(
    store: ObjectStore, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has replaced a marked meta looks under the new name, and the object has gone on to a third one."""
    await store.put("old", DATA, chunk_size=CHUNK)
    held = Held(monkeypatch, store)
    renaming = asyncio.ensure_future(store.rename("old", "new"))
    async with asyncio.timeout(30):
        await held.marked.wait()
    other, third = await js.object_store(store.bucket), await js.object_store(store.bucket)
    real = _discard.shares_chunks

    async def shares(bucket: Any, info: Any) -> bool:
        monkeypatch.setattr(_discard, "shares_chunks", real)
        await third.rename("new", "third")
        return await real(bucket, info)

    monkeypatch.setattr(_discard, "shares_chunks", shares)
    await other.put("old", b"another")
    assert await store.get("third") == DATA
    renaming.cancel()
    held.go_on.set()
    await asyncio.wait([renaming])
    assert await store.get("third") == DATA
    assert await store.get("old") == b"another"


async def test_the_rest_of_a_rename_that_another_has_finished(store: ObjectStore) -> None:
    """What was to change beside the name is made of what stands, or its outcome is unknown, and says so."""
    bucket = store._bucket

    def to(text: str) -> _rename.Change:
        return lambda info: replace(info, description=text)

    old = await store.put("a", b"x", "first")
    finished = await store.rename("a", "b")
    done = await _rename._change_finished(bucket, old, finished, to("second"))
    info = await store.get_info("b")
    assert (done.description, info.description, done.revision) == ("second", "second", info.revision)

    updated = await store.update_meta("b", ObjectMeta("b", headers={"X": "y"}))
    done = await _rename._change_finished(bucket, old, finished, to("third"))
    assert done.revision > updated.revision
    assert (done.description, done.headers) == ("third", updated.headers), "not what was there before"

    await store.rename("b", "c")
    with pytest.raises(OutcomeUnknownError, match=r"'a' .* was renamed once more, without the rest"):
        await _rename._change_finished(bucket, old, done, to("later"))
    assert (await store.get_info("c")).description == "third"

    await store.put("b", b"other")
    told = await _rename._change_finished(bucket, old, done, to("later"))
    assert told == done, "what stood there before it was replaced"
    assert (await store.get_info("b")).description is None
