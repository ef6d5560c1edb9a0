"""Maintenance, and somebody who writes between two of its steps: what was seen before does not count."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import NatsError, NoRespondersError, StaleConnectionError
from natsproto.jetstream.api.models import StoredMessage
from objstore import ObjectChangedError, ObjectStore
from objstore.bucket.bucket import Bucket
from objstore.commit import renames
from objstore.maintenance import gc, purge_deleted, verify
from support.objects import meta_subject, stream

NOW = timedelta(0)

Between = Callable[[Any, str, Callable[[], Awaitable[Any]]], None]


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Between:
    """Do something once, right before the first call of an asynchronous function."""

    def arrange(owner: Any, name: str, action: Callable[[], Awaitable[Any]]) -> None:
        call, todo = getattr(owner, name), [action]

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if todo:
                await todo.pop()()
            return await call(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapper)

    return arrange


async def orphan(store: ObjectStore, nuid: str = "ORPHAN") -> str:
    subject = f"$O.{store.bucket}.C.{nuid}"
    for _ in range(3):
        await store.js.publish(subject, b"chunk")
    return subject


async def mark(store: ObjectStore, name: str, new_name: str) -> None:
    """Begin a rename, and leave it."""
    subject = meta_subject(store, name)
    message = await store.js.get_message(stream(store), last_by_subject=subject)
    document = json.loads(message.data) | {"metadata": {"natsproto.renaming": new_name}}
    await store.js.publish(subject, json.dumps(document).encode(), headers={"Nats-Rollup": "sub"})


class TestGc:
    async def test_orphans_that_are_gone(self, store: ObjectStore, before: Between) -> None:
        """As after a try whose answer was lost."""
        subject = await orphan(store)
        before(gc, "_last_stored", lambda: store.js.purge_stream(stream(store), subject=subject))
        (found,) = (await store.gc(older_than=NOW)).orphans
        assert (found.nuid, found.removed) == ("ORPHAN", True)

    async def test_orphans_that_somebody_adds_to(self, store: ObjectStore, before: Between) -> None:
        subject = await orphan(store)
        before(gc, "_last_stored", lambda: store.js.publish(subject, b"another"))
        assert (await store.gc(older_than=NOW)).orphans == []
        assert await store.js.stream_subjects(stream(store), subject) == {subject: 4}

    async def test_a_rename_whose_meta_is_spoilt(self, store: ObjectStore, before: Between) -> None:
        await store.put("old", b"bytes")
        await mark(store, "old", "new")
        before(Bucket, "leader_meta", lambda: store.js.publish(meta_subject(store, "old"), b"{"))
        assert (await store.gc(older_than=NOW)).renames == []

    async def test_a_rename_whose_object_is_replaced(self, store: ObjectStore, before: Between) -> None:
        """Who replaces it finishes the rename: nothing is left to do."""
        await store.put("old", b"bytes")
        await mark(store, "old", "new")
        before(renames, "read_meta", lambda: store.put("old", b"other bytes"))
        assert (await store.gc(older_than=NOW)).renames == []
        assert await store.get("old") == b"other bytes"
        assert await store.names() == ["new", "old"]

    @pytest.mark.parametrize("name", ["", "old"])
    async def test_a_mark_that_names_no_other_object(self, store: ObjectStore, name: str) -> None:
        await store.put("old", b"bytes")
        await mark(store, "old", name)
        assert (await store.gc(older_than=NOW)).renames == []
        assert await store.get("old") == b"bytes"


async def test_a_marker_that_somebody_has_replaced(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("a", b"old")
    await store.delete("a")
    newest = purge_deleted.newest_metas

    async def then_put(*args: Any) -> Any:
        found = await newest(*args)
        await store.put("a", b"new")
        return found

    monkeypatch.setattr(purge_deleted, "newest_metas", then_put)
    monkeypatch.setattr(purge_deleted, "settled_after", lambda stream: NOW)
    assert await store.purge_deleted(older_than=NOW) == 0
    assert await store.get("a") == b"new"


class TestVerify:
    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """The next readings end with these errors."""

        def arrange(*errors: Exception) -> None:
            left, read = list(errors), verify.blocks

            async def blocks(*args: Any) -> AsyncIterator[Any]:
                if left:
                    raise left.pop(0)
                async for block in read(*args):
                    yield block

            monkeypatch.setattr(verify, "blocks", blocks)

        return arrange

    async def test_a_connection_that_is_lost_once(
        self, store: ObjectStore, failing: Callable[..., None]
    ) -> None:
        await store.put("a", b"bytes")
        failing(StaleConnectionError("the connection was lost"))
        assert (await store.verify(deep=True)).ok

    @pytest.mark.parametrize(
        "errors",
        [
            [StaleConnectionError("the connection was lost"), StaleConnectionError("and again")],
            [NoRespondersError("subject", "nobody")],
        ],
    )
    async def test_what_is_no_damage(
        self, store: ObjectStore, failing: Callable[..., None], errors: list[NatsError]
    ) -> None:
        await store.put("a", b"bytes")
        failing(*errors)
        with pytest.raises(type(errors[-1])):
            await store.verify(deep=True)

    async def test_an_object_that_is_replaced(self, store: ObjectStore, failing: Callable[..., None]) -> None:
        await store.put("a", b"bytes")
        failing(ObjectChangedError("it was replaced", bucket=store.bucket, name="a"))
        assert (await store.verify(deep=True)).ok


@pytest.mark.parametrize("shown", [1, 39, 40])
async def test_the_end_of_a_batch_is_not_the_end_of_all(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, shown: int
) -> None:
    """A reader may have the end of its own batch sent to the inbox of another one, which then ends there."""
    for n in range(40):
        await store.put(f"o{n}", b"x")
    await orphan(store)
    get_batch = store.js.get_batch

    async def only_the_last(*args: Any, **options: Any) -> AsyncIterator[StoredMessage]:
        answers = [message async for message in get_batch(*args, **options)]
        for message in answers[-shown:]:
            yield message

    monkeypatch.setattr(store.bound_bucket.js, "get_batch", only_the_last)
    assert [each.nuid for each in (await store.gc(older_than=NOW)).orphans] == ["ORPHAN"]
    monkeypatch.undo()
    assert (await store.verify(deep=True)).ok
