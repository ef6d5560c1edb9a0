"""Deleting: first the meta, then its chunks; also in a race, in a full bucket, of a meta nobody can read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from objstore import (
    BucketNotFoundError,
    ObjectDeletedError,
    ObjectNotFoundError,
    ObjectStore,
    RevisionConflictError,
)
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.change.delete import current_info, delete
from objstore.commit.renames import commit_meta
from objstore.format.codec import encode_meta
from objstore.format.marks import RENAMED_FROM, RENAMING
from objstore.format.naming import meta_subject
from support.memory_server import ROLL_UP, MemoryServer, error


async def test_the_meta_first_then_its_chunks(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    info = await store.put("a", b"content")
    purges: list[bool] = []

    def hook(verb: str, body: dict[str, Any]) -> None:
        if verb == "STREAM.PURGE":
            marker = server.stream().last_of(meta_subject("b", "a"))
            assert marker is not None
            purges.append(bucket.decode_raw(marker.payload, None, marker.subject, 1, info.mtime).deleted)

    server.hook = hook
    await delete(bucket, "a")
    assert purges == [True]
    assert server.chunks() == {}
    with pytest.raises(ObjectDeletedError):
        await store.get("a")


async def test_what_is_not_there(bucket: Bucket, store: ObjectStore) -> None:
    with pytest.raises(ObjectNotFoundError):
        await delete(bucket, "a")
    await store.put("a", b"")
    await delete(bucket, "a")
    with pytest.raises(ObjectDeletedError) as told:
        await delete(bucket, "a")
    assert told.value.name == "a"
    with pytest.raises(ObjectDeletedError):
        await current_info(bucket, "a", bucket.start_locating("a"))


async def test_at_a_revision(bucket: Bucket, store: ObjectStore) -> None:
    old = await store.put("a", b"1")
    new = await store.put("a", b"2")
    with pytest.raises(RevisionConflictError) as told:
        await delete(bucket, "a", old.revision)
    assert (told.value.expected, told.value.current) == (old.revision, new.revision)
    assert await store.get("a") == b"2"
    await delete(bucket, "a", new.revision)
    assert not await store.exists("a")


@pytest.mark.parametrize("conditional", [True, False])
async def test_somebody_replaces_it_meanwhile(
    server: MemoryServer, bucket: Bucket, store: ObjectStore, conditional: bool
) -> None:
    """Without a condition the last word counts: the newer one is deleted as well."""
    info = await store.put("a", b"1")
    other = await bind(server.js, "b")
    raced = False

    def hook(subject: str, header: bytes, payload: bytes) -> Any:
        nonlocal raced
        if subject == meta_subject("b", "a") and not raced and b'"deleted":true' in payload:
            raced = True
            newer = other.template("a", (None, None, None, None), info.options)  # type: ignore[arg-type]
            server.put_raw(subject, encode_meta(newer), ROLL_UP)
        return None

    server.on_publish = hook
    if conditional:
        with pytest.raises(RevisionConflictError):
            await delete(bucket, "a", info.revision)
        assert await store.exists("a")
    else:
        await delete(bucket, "a")
        assert not await store.exists("a")
    assert raced


async def test_a_meta_that_cannot_be_read(server: MemoryServer, bucket: Bucket, store: ObjectStore) -> None:
    """It is removed as such; the chunks it may speak of stay for gc()."""
    info = await store.put("other", b"x")
    subject = meta_subject("b", "a")
    seq = server.put_raw(subject, b'{"name":"a","nuid":"' + info.nuid.encode() + b'"')
    with pytest.raises(RevisionConflictError):
        await delete(bucket, "a", seq + 1)
    await delete(bucket, "a")
    assert server.stream().of(subject) == []
    assert await store.get("other") == b"x"


@pytest.mark.parametrize("room", ["for a marker", "none"])
async def test_a_full_bucket(server: MemoryServer, bucket: Bucket, store: ObjectStore, room: str) -> None:
    """Not even a marker fits before the meta's place is free."""
    await store.put("a", bytes(5000))
    limit = server.stream().size
    server.stream().config["max_bytes"] = 1 if room == "none" else limit
    await delete(bucket, "a")
    assert server.chunks() == {}
    assert not await store.exists("a")
    assert len(server.stream().of(meta_subject("b", "a"))) == (room != "none")


async def test_a_rename_that_is_half_done_is_finished_first(
    server: MemoryServer, bucket: Bucket, store: ObjectStore
) -> None:
    """The object has its new name then, and keeps its chunks."""
    info = await store.put("a", b"content")
    await commit_meta(bucket, replace(info, metadata={RENAMING: "new"}), info.revision)
    await commit_meta(bucket, replace(info, name="new", metadata={RENAMED_FROM: "a"}), 0)
    await delete(bucket, "a")
    assert not await store.exists("a")
    assert await store.get("new") == b"content"


async def test_a_bucket_that_is_gone(server: MemoryServer, bucket: Bucket) -> None:
    server.streams.clear()
    with pytest.raises(BucketNotFoundError):
        await delete(bucket, "a")
    server.hook = lambda verb, body: error(404, 10059, "stream not found")
    with pytest.raises(BucketNotFoundError):
        await delete(bucket, "a")


async def test_what_is_created_after_its_own_purge_stays(
    server: MemoryServer, bucket: Bucket, store: ObjectStore
) -> None:
    """A leader that is behind still shows the purged meta; before the next look there is another object."""
    subject = meta_subject("b", "a")
    await store.put("a", bytes(5000))
    (old,) = server.stream().of(subject)
    server.stream().config["max_bytes"] = 1
    looks = iter([old])

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if body.get("last_by_subj") != subject or server.stream().of(subject):
            return None
        behind = next(looks, None)
        if behind is None:
            server.stream().config["max_bytes"] = -1
            server.put_raw(subject, encode_meta(created, b"x" * 32), ROLL_UP)
            return None
        return server.leader_message(behind)

    created = replace(await store.get_info("a"), nuid="another", size=0, chunks=0)
    server.hook = hook
    await delete(bucket, "a")
    assert (await store.get_info("a")).nuid == "another"
    assert server.chunks() == {}


async def test_the_connection_is_lost_after_its_own_purge(
    server: MemoryServer, bucket: Bucket, store: ObjectStore
) -> None:
    """The marker was refused, and nobody can say what stands there: the object is deleted all the same."""
    subject = meta_subject("b", "a")
    await store.put("a", bytes(5000))
    server.stream().config["max_bytes"] = 1

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if body.get("last_by_subj") == subject and not server.stream().of(subject):
            server.hook = None
            server.lose()
            server.connect()
        return None

    server.hook = hook
    await delete(bucket, "a")
    assert not await store.exists("a")
    assert server.chunks() == {}


async def test_a_leader_that_is_behind_for_longer(
    server: MemoryServer, bucket: Bucket, store: ObjectStore
) -> None:
    """It shows the purged meta again and again: that is no late copy, which has a higher sequence."""
    subject = meta_subject("b", "a")
    await store.put("a", bytes(5000))
    (old,) = server.stream().of(subject)
    server.stream().config["max_bytes"] = 1
    looks = iter([old] * 2)

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if body.get("last_by_subj") != subject or server.stream().of(subject):
            return None
        behind = next(looks, None)
        return None if behind is None else server.leader_message(behind)

    server.hook = hook
    await delete(bucket, "a")
    assert not await store.exists("a")
    assert server.chunks() == {}
