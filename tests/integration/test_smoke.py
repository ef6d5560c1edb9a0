"""The shortest way through every layer, on both servers."""

from __future__ import annotations

from objstore import ObjectStore


async def test_put_and_get(store: ObjectStore) -> None:
    data = bytes(range(256)) * 2048
    info = await store.put("a", data)
    assert info.size == len(data)
    assert info.chunks == 4
    assert await store.get("a") == data
    assert [found.name for found in await store.list()] == ["a"]
