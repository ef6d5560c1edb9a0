"""A bucket with a ``ttl`` and a writer in between: a change that copies bytes starts over with new ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.testing import FaultProxy
from natsproto.wire import Pub
from objstore import ObjectMeta, ObjectNotFoundError, ObjectStore
from support.objects import meta_subject

OLD, NEW = b"old" * 100, b"new" * 200

Before = Callable[[str, Callable[[], Awaitable[Any]]], None]


@pytest.fixture
async def store(js: JetStreamContext, bucket_name: str) -> AsyncIterator[ObjectStore]:
    yield await js.create_object_store(bucket=bucket_name, ttl=timedelta(hours=1))
    await js.delete_object_store(bucket_name)


@pytest.fixture
async def proxy(server: Any) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture
async def beside(proxy: FaultProxy, store: ObjectStore) -> AsyncIterator[ObjectStore]:
    """The bucket through the proxy."""
    async with natsproto.connect(proxy.url) as client:
        yield await client.jetstream().object_store(store.bucket)


@pytest.fixture
def before(proxy: FaultProxy, store: ObjectStore) -> Before:
    """Do something once, right before the first meta of a name comes to the server."""

    def arrange(name: str, action: Callable[[], Awaitable[Any]]) -> None:
        subject = meta_subject(store, name).encode()
        todo = [action]

        async def hook(event: Any, raw: bytes) -> None:
            if isinstance(event, Pub) and event.subject == subject and todo:
                await todo.pop()()

        proxy.to_server = hook

    return arrange


async def test_update(store: ObjectStore, beside: ObjectStore, before: Before) -> None:
    await store.put("a", OLD)
    before("a", lambda: store.put("a", NEW))
    info = await beside.update_meta("a", ObjectMeta("a", "changed"))
    assert info.description == "changed"
    assert await store.get("a") == NEW


async def test_rename(store: ObjectStore, beside: ObjectStore, before: Before) -> None:
    """The copy under the new name goes again, as the old name holds something else by now."""
    await store.put("a", OLD)
    before("a", lambda: store.put("a", NEW))
    await beside.rename("a", "b")
    assert await store.get("b") == NEW
    with pytest.raises(ObjectNotFoundError):
        await store.get_info("a")


async def test_rename_of_what_is_deleted_meanwhile(
    store: ObjectStore, beside: ObjectStore, before: Before
) -> None:
    await store.put("a", OLD)
    before("a", lambda: store.delete("a"))
    with pytest.raises(ObjectNotFoundError):
        await beside.rename("a", "b")
    assert [info.name for info in await store.list()] == []
