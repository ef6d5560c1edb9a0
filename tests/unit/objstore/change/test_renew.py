"""Changes in a bucket with a time to live: the chunks are copied, so that meta and chunks have one age."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from objstore import ObjectAlreadyExists, ObjectInfo, ObjectMeta, ObjectStore, OutcomeUnknownError
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.change.renew import ages, moved, renewed
from objstore.commit.commit import Conflict
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subject
from support.memory_server import ROLL_UP, MemoryServer, error


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    return await server.bucket(ttl=timedelta(hours=1))


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


async def test_what_ages(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"x")
    assert ages(bucket, info)
    assert not ages(bucket, await store.put("empty", b""))
    assert not ages(bucket, await store.add_link("l", info))
    await server.bucket("other")
    assert not ages(await bind(server.js, "other"), info)


async def test_a_change_renews_the_chunks(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", bytes(range(256)) * 10, chunk_size=100)
    new = await renewed(bucket, info, replace(info, description="d"))
    assert new.nuid != info.nuid
    assert (new.description, new.size, new.digest, new.chunks) == ("d", info.size, info.digest, info.chunks)
    assert server.chunks() == {new.nuid: info.chunks}
    assert await store.get("a") == bytes(range(256)) * 10


async def test_another_revision_is_there(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"old")
    newer = await store.put("a", b"newer")
    server.put_raw(f"$O.b.C.{info.nuid}", b"old")
    with pytest.raises(Conflict) as told:
        await renewed(bucket, info, replace(info, description="d"))
    assert told.value.revision == newer.revision
    assert await store.get("a") == b"newer"


async def test_moving_makes_a_copy_and_deletes_the_old_one(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    info = await store.put("a", b"content")
    await store.put("taken", b"")
    with pytest.raises(ObjectAlreadyExists):
        await moved(bucket, info, replace(info, name="taken"))
    assert await store.get("a") == b"content"
    new = await moved(bucket, info, replace(info, name="new"))
    assert not await store.exists("a")
    assert await store.get("new") == b"content"
    assert server.chunks() == {new.nuid: 1}


async def test_it_was_replaced_while_it_was_copied(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """That is a conflict as any other: the change is made to the new object, or refused."""
    info = await store.put("a", b"old")
    newer = await store.put("a", b"newer")
    for change in (replace(info, description="d"), replace(info, name="new")):
        with pytest.raises(Conflict) as told:
            await (renewed if change.name == "a" else moved)(bucket, info, change)
        assert told.value.revision == newer.revision
    assert await store.names() == ["a"]
    assert server.chunks() == {newer.nuid: 1}


@pytest.mark.parametrize("content", [b"content", b"another"])
async def test_the_copy_is_changed_by_another_client(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, content: bytes
) -> None:
    """A change of its meta copies it again: it is the renamed object all the same. Other bytes are not."""
    info = await store.put("a", b"content")
    other = await store.put("other", content, "changed")

    def hook(verb: str, body: dict[str, Any]) -> None:
        if verb == "STREAM.MSG.GET" and server.stream().of(meta_subject("b", "new")):
            server.hook = None
            server.put_raw(meta_subject("b", "new"), encode_meta(replace(other, name="new")), ROLL_UP)

    server.hook = hook
    moving = moved(bucket, info, replace(info, name="new"))
    if content == b"content":
        assert (await moving).name == "new"
        assert not await store.exists("a")
    else:
        with pytest.raises(OutcomeUnknownError):
            await moving
        assert await store.get("a") == b"content"
    assert await store.get("new") == content
    assert (await store.get_info("new")).description == "changed"


@pytest.mark.parametrize("looks", [0, 1])
async def test_an_error_after_the_copy_does_not_tell_what_there_is(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, looks: int
) -> None:
    """It may be that of a peer's own request, too."""
    info = await store.put("a", b"content")

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal looks
        if verb != "STREAM.MSG.GET" or not server.stream().of(meta_subject("b", "new")):
            return None
        looks -= 1
        return error(400, 10003, "bad request") if looks < 0 else None

    server.hook = hook
    with pytest.raises(OutcomeUnknownError, match="was copied to 'new'"):
        await moved(bucket, info, replace(info, name="new"))
    server.hook = None
    assert await store.get("new") == await store.get("a") == b"content"


async def test_the_old_one_was_changed_meanwhile(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """Nothing was renamed: the copy is gone again."""
    info = await store.put("a", b"content")
    chunks = server.stream().of("$O.b.C.*")
    await store.put("a", b"newer")
    for each in chunks:
        server.put_raw(each.subject, each.payload)
    with pytest.raises(Conflict):
        await moved(bucket, info, replace(info, name="new"))
    assert not await store.exists("new")
    assert await store.get("a") == b"newer"


async def test_the_store_uses_it(server: MemoryServer, store: ObjectStore) -> None:
    info = await store.put("a", b"content")
    changed = await store.update_meta("a", ObjectMeta("a", "d"))
    assert isinstance(changed, ObjectInfo)
    assert changed.nuid != info.nuid
    renamed = await store.rename("a", "b")
    assert renamed.nuid not in (info.nuid, changed.nuid)
    assert server.chunks() == {renamed.nuid: 1}
