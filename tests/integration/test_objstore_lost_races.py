"""Who loses one race after the other is told so in the end: here, after the first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import natsproto
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from natsproto.wire import Pub
from objstore import ObjectLink, ObjectMeta, ObjectStore, RevisionConflictError
from objstore.commit.commit import ConflictBackoff
from support.objects import meta_subject

VERBS: dict[str, Callable[[ObjectStore], Awaitable[Any]]] = {
    "add_link": lambda store: store.add_link("name", ObjectLink(store.bucket, "target")),
    "delete": lambda store: store.delete("name"),
    "put": lambda store: store.put("name", b"mine"),
    "update_meta": lambda store: store.update_meta("name", ObjectMeta("name", "changed")),
}


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    async def again(self: ConflictBackoff) -> bool:
        return False

    monkeypatch.setattr(ConflictBackoff, "again", again)


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.mark.parametrize("verb", VERBS)
async def test_a_writer_was_quicker(proxy: FaultProxy, store: ObjectStore, verb: str) -> None:
    target = await store.put("target", b"x")

    async def write() -> Any:
        if verb == "add_link":
            return await store.add_link("name", target)
        return await store.put("name", b"theirs")

    await write()
    subject, todo = meta_subject(store, "name").encode(), [write]

    async def hook(event: Any, raw: bytes) -> None:
        if isinstance(event, Pub) and event.subject == subject and todo:
            await todo.pop()()

    async with natsproto.connect(proxy.url) as client:
        beside = await client.jetstream().object_store(store.bucket)
        proxy.to_server = hook
        with pytest.raises(RevisionConflictError) as caught:
            await VERBS[verb](beside)
    assert caught.value.name == "name"
    assert caught.value.current == (await store.get_info("name")).revision
