"""What a move stores where a rename cannot: links stay links, and the end that a ttl has set stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from objstore import LinkError, ObjectAlreadyExists, ObjectLink, ObjectStore
from objstore.change import move
from objstore.change.move import copy_to_move
from objstore.read.links import FollowLinks
from support.memory_server import MemoryServer


async def test_an_object(server: MemoryServer, store: ObjectStore) -> None:
    other = await server.bucket("other")
    info = await store.put("a", b"new", description="d", metadata={"k": "v"})
    await other.put("b", b"old")
    moved = await copy_to_move(store, info, other, "b")
    assert (moved.description, moved.metadata) == ("d", {"k": "v"})
    assert await other.get("b") == b"new"
    with pytest.raises(Exception, match="revision"):
        await copy_to_move(store, info, other, "b", if_revision=moved.revision + 1)


async def test_links(server: MemoryServer, store: ObjectStore) -> None:
    other = await server.bucket("other")
    await (await server.bucket("third")).put("secret", b"secret")
    for name, leads_to in (("l", ObjectLink("third", "secret")), ("whole", ObjectLink("third"))):
        if leads_to.name is None:
            info = await store.add_bucket_link(name, leads_to.bucket, description="d")
        else:
            info = await store.add_link(name, leads_to, description="d")
        moved = await copy_to_move(store, info, other, name)
        assert moved.options is not None
        assert (moved.options.link, moved.description) == (leads_to, "d")
        await other.delete(name)
        await other.put(name, b"object")
        with pytest.raises(ObjectAlreadyExists):
            await copy_to_move(store, info, other, name)


@pytest.mark.parametrize(
    ("follow", "leads_to", "moved"),
    [
        ("all", "b", True),
        ("all", "third", True),
        ("all", "other", False),
        ("same-bucket", "b", True),
        ("same-bucket", "third", False),
        ("same-bucket", "other", False),
        ("none", "b", False),
    ],
)
async def test_links_that_would_become_those_of_another_bucket(
    server: MemoryServer, store: ObjectStore, follow: FollowLinks, leads_to: str, moved: bool
) -> None:
    """Who reads there may follow what others have had the mover store."""
    other, third = await server.bucket("other"), await server.bucket("third")
    for each in (store, other, third):
        await each.put("secret", b"secret")
    info = await store.add_link("l", ObjectLink(leads_to, "secret"))
    if moved:
        assert (await copy_to_move(store, info, other, "l", follow=follow)).is_link
    else:
        with pytest.raises(LinkError, match="is not moved to bucket 'other'"):
            await copy_to_move(store, info, other, "l", follow=follow)
        assert not await other.exists("l")
    assert (await copy_to_move(store, info, store, "m", follow=follow)).is_link, "within a bucket it stays"


async def test_a_link_since_it_was_found(server: MemoryServer, store: ObjectStore) -> None:
    other = await server.bucket("other")
    await other.put("secret", b"secret")
    info = await store.put("a", b"harmless")
    await store.delete("a")
    await store.add_link("a", ObjectLink("other", "secret"))
    with pytest.raises(LinkError):
        await copy_to_move(store, info, store, "b")
    assert not await store.exists("b")


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_end(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    info = replace(await store.put("a", b"x"), expires=datetime.now(UTC) + timedelta(seconds=100))
    ends: list[timedelta | None] = []
    copy = ObjectStore.copy

    async def copied(
        self: ObjectStore, *args: object, ttl: timedelta | None = None, **more: object
    ) -> object:
        ends.append(ttl)
        return await copy(self, *args, **more)  # type: ignore[arg-type]

    async def left(bucket: object, end: datetime | None) -> timedelta | None:
        return None if end is None else end - datetime.now(UTC)

    monkeypatch.setattr(ObjectStore, "copy", copied)
    monkeypatch.setattr(move, "remaining", left)
    monkeypatch.setattr(type(store.bound_bucket), "msg_ttl", allowed)
    await copy_to_move(store, info, store, "b")
    if allowed:
        assert ends[0] is not None
        assert timedelta(seconds=90) < ends[0] <= timedelta(seconds=100)
    else:
        assert ends == [None]
