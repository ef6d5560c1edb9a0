"""What a file that is written stores, and when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from objstore import (
    LinkError,
    ObjectAlreadyExists,
    ObjectMeta,
    ObjectNotFoundError,
    ObjectStore,
    RevisionConflictError,
)
from objstore.filesystem.writing import Mode, Writing
from objstore.format.naming import MAX_CHUNK_SIZE
from support.memory_server import MemoryServer


def writing(store: ObjectStore, mode: Mode = "wb") -> Writing:
    return Writing(store, "a", mode, {})


@pytest.mark.parametrize("pieces", [[], [b""], [b"one"], [b"one", b"two"], [b"", b"one", b"", b"two"]])
async def test_replacing(server: MemoryServer, store: ObjectStore, pieces: list[bytes]) -> None:
    await store.put("a", b"old")
    one = writing(store)
    assert await one.begin() == 0
    for piece in pieces:
        await one.write(piece)
    assert await store.get("a") == b"old"
    await one.commit()
    assert await store.get("a") == b"".join(pieces)
    await one.commit()
    await one.abort()
    assert len(server.chunks()) == (1 if any(pieces) else 0)


@pytest.mark.parametrize("pieces", [[b"one"], [b"one", b"two"]])
async def test_aborting(server: MemoryServer, store: ObjectStore, pieces: list[bytes]) -> None:
    one = writing(store)
    for piece in pieces:
        await one.write(piece)
    await one.abort()
    await one.commit()
    assert not await store.exists("a")
    assert server.chunks() == {}


@pytest.mark.parametrize("pieces", [[b"one"], [b"one", b"two"]])
async def test_creating(store: ObjectStore, pieces: list[bytes]) -> None:
    """The second of two writers hears of it, at the beginning or at the commit."""
    one, other = writing(store, "xb"), writing(store, "xb")
    for each in (one, other):
        assert await each.begin() == 0
        for piece in pieces:
            await each.write(piece)
    await one.commit()
    with pytest.raises((ObjectAlreadyExists, RevisionConflictError)):
        await other.commit()
    with pytest.raises(ObjectAlreadyExists):
        await writing(store, "xb").begin()


async def test_appending(store: ObjectStore) -> None:
    one = writing(store, "ab")
    assert await one.begin() == 0
    await one.write(b"one")
    await one.commit()
    await store.update_meta("a", ObjectMeta("a", "d", metadata={"k": "v"}))
    one = writing(store, "ab")
    assert await one.begin() == 3
    await one.write(b"two")
    assert await store.get("a") == b"one"
    await one.commit()
    assert await store.get("a") == b"onetwo"
    info = await store.get_info("a")
    assert (info.description, info.metadata) == ("d", {"k": "v"})


async def test_appending_keeps_what_was_said_of_it(store: ObjectStore) -> None:
    await store.put("a", b"x" * 25, "d", "f", {"H": "1"}, metadata={"k": "v"}, chunk_size=10)
    old = await store.get_info("a")
    one = writing(store, "ab")
    await one.begin()
    await one.write(b"y" * 20)
    await one.commit()
    new = await store.get_info("a")
    assert (new.description, new.headers, new.metadata) == (old.description, old.headers, old.metadata)
    assert (new.options, new.chunks, new.size) == (old.options, 5, 45)
    one = Writing(store, "a", "ab", {"description": None, "metadata": {}, "chunk_size": None})
    await one.begin()
    await one.commit()
    new = await store.get_info("a")
    assert (new.description, new.headers, new.metadata, new.chunks) == (None, old.headers, {}, 1)


@pytest.mark.parametrize("atomic", [True, False])
async def test_appending_keeps_the_end(server: MemoryServer, atomic: bool) -> None:
    """To the microsecond: else an object that is appended to each second would never expire."""
    store = await server.bucket("t", allow_msg_ttl=True, allow_atomic=atomic)
    await store.put("a", b"x" * MAX_CHUNK_SIZE, chunk_size=MAX_CHUNK_SIZE - 100, ttl=timedelta(seconds=60.2))
    first = await store.get_info("a")
    assert first.expires is not None
    for size in range(1, 4):
        one = Writing(store, "a", "ab", {"atomic": atomic} if atomic else {})
        await one.begin()
        await one.write(b"y")
        await one.commit()
        info = await store.get_info("a")
        assert info.size == MAX_CHUNK_SIZE + size
        assert info.expires is not None
        assert abs(info.expires - first.expires) < timedelta(seconds=size if atomic else 0.000001)
    one = Writing(store, "a", "ab", {"ttl": None})
    await one.begin()
    await one.commit()
    assert (await store.get_info("a")).expires is None


async def test_what_has_expired_is_not_continued(server: MemoryServer) -> None:
    store = await server.bucket("t", allow_msg_ttl=True)
    await store.put("a", b"x", ttl=timedelta(seconds=60))
    one = writing(store, "ab")
    await one.begin()
    server.ahead = timedelta(seconds=61)
    with pytest.raises(ObjectNotFoundError, match="expired"):
        await one.commit()


@pytest.mark.parametrize("early", [True, False])
async def test_appending_loses_nothing(store: ObjectStore, early: bool) -> None:
    """What another writer has stored meanwhile is not replaced."""
    await store.put("a", b"one")
    one = writing(store, "ab")
    await one.begin()
    if early:
        await one.write(b"two")
    await store.put("a", b"another")
    with pytest.raises(RevisionConflictError):
        if not early:
            await one.write(b"two")
        await one.commit()
    await one.abort()
    assert await store.get("a") == b"another"


async def test_links_are_not_continued(store: ObjectStore) -> None:
    await store.add_link("a", await store.put("target", b"x"))
    with pytest.raises(LinkError, match="append to its target"):
        await writing(store, "ab").begin()


async def test_a_link_that_came_meanwhile_is_not_appended_to(
    server: MemoryServer, store: ObjectStore
) -> None:
    """Its target's bytes would be stored here, where others may read them."""
    await store.put("a", b"old")
    one = writing(store, "ab")
    assert await one.begin() == 3
    await store.delete("a")
    await store.add_link("a", await (await server.bucket("other")).put("secret", b"secret"))
    with pytest.raises(LinkError):
        await one.write(b"new")
    await one.abort()
    assert server.chunks() == {}
