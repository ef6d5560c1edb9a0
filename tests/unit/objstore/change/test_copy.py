"""What a copy takes with it; and that the links of one command wait once for a bucket that is away."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.errors import RequestTimeoutError
from objstore import LinkError, ObjectLink, ObjectStore
from objstore.bucket.bucket import Bucket
from objstore.change.copy import copy
from objstore.change.move import copy_to_move
from objstore.read import links as _links
from objstore.read.links import FollowLinks, OtherBuckets
from support.memory_server import MemoryServer


async def test_what_is_copied(server: MemoryServer, store: ObjectStore) -> None:
    other = await server.bucket("other")
    await store.put("a", b"content", "d", headers={"H": "1"}, metadata={"k": "v"}, chunk_size=4)
    info = await copy(store, "a", other, "b")
    assert await other.get("b") == b"content"
    assert info.headers is not None
    assert info.options is not None
    assert (info.description, info.headers["H"], info.metadata) == ("d", "1", {"k": "v"})
    assert (info.options.max_chunk_size, info.chunks) == (4, 2)
    assert (await copy(store, "a", store, "c", chunk_size=100)).chunks == 1


@pytest.mark.parametrize("follow", ["all", "same-bucket", "none", "some"])
async def test_links(server: MemoryServer, store: ObjectStore, follow: FollowLinks) -> None:
    other = await server.bucket("other")
    await other.put("target", b"content")
    await store.add_link("l", ObjectLink("other", "target"))
    if follow == "all":
        assert not (await copy(store, "l", other, "b", follow=follow)).is_link
        assert await other.get("b") == b"content"
        return
    with pytest.raises(ValueError if follow == "some" else LinkError, match="follow_links"):
        await copy(store, "l", other, "b", follow=follow)
    assert not await other.exists("b")


async def test_a_bucket_that_is_away(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await server.bucket("other")
    await (await server.bucket("away")).put("target", b"content")
    links = [await store.add_link(f"l{number}", ObjectLink("away", "target")) for number in range(4)]
    asked: list[str] = []

    async def silent(bucket: Bucket, name: str) -> Any:
        asked.append(name)
        raise RequestTimeoutError("no answer")

    monkeypatch.setattr(_links, "bind_other", silent)
    store.bound_bucket.remembered(_links._Kept).buckets.clear()
    others = OtherBuckets()
    for info in links:
        with pytest.raises(LinkError, match=r"cannot be read: .*no answer"):
            await copy(store, info.name, other, info.name, others=others)
        with pytest.raises(LinkError, match=r"cannot be read: .*no answer"):
            await copy_to_move(store, info, other, info.name, others=others)
    assert asked == ["away"]
    with pytest.raises(RequestTimeoutError):
        await copy_to_move(store, links[0], other, "b")
    with pytest.raises(RequestTimeoutError):
        await copy(store, "l0", other, "b")
    assert asked == ["away"] * 3
    assert await other.list() == []
