"""Half-done renames: who finishes them, when they have failed, and which chunks both ends share."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import pytest

from objstore import ObjectInfo, ObjectStore
from objstore.bucket.bucket import Bucket
from objstore.commit.commit import Conflict
from objstore.commit.renames import (
    clear_marks,
    commit_meta,
    complete,
    finish_rename,
    is_new_end,
    marker_of,
    moved_marker,
    read_meta,
    read_target,
    refusal_to_bring_back,
    same_object,
    settle_rename,
    shares_chunks,
    unmark,
    write_marker,
)
from objstore.errors import BadObjectMetaError
from objstore.format.codec import META_HEADER, decode_meta
from objstore.format.marks import MOVED, MOVED_TO, RENAMED_FROM, RENAMING, RENAMING_AT, marks_in
from objstore.format.models import plain_info
from objstore.format.naming import meta_subject
from support.memory_server import MemoryServer


async def begun(store: ObjectStore, bucket: Bucket, *, new_end: bool = False, at: int = 0) -> ObjectInfo:
    """An object whose rename to "new" has stopped after its first step, or its second."""
    info = await store.put("a", b"content")
    marked = replace(info, metadata={RENAMING: "new", RENAMING_AT: str(at)})
    marked = replace(marked, revision=await commit_meta(bucket, marked, info.revision))
    if new_end:
        await commit_meta(bucket, replace(info, name="new", metadata={RENAMED_FROM: "a"}), 0)
    return marked


async def live(store: ObjectStore) -> dict[str, bytes]:
    return {info.name: await store.get(info.name) for info in await store.list()}


@pytest.mark.parametrize("new_end", [False, True])
async def test_whoever_comes_next_finishes_it(store: ObjectStore, bucket: Bucket, new_end: bool) -> None:
    marked = await begun(store, bucket, new_end=new_end)
    assert await complete(bucket, marked, dry_run=True) == "new"
    assert set(await live(store)) == ({"a", "new"} if new_end else {"a"})
    assert await complete(bucket, marked, dry_run=False) == "new"
    assert await live(store) == {"new": b"content"}
    new, old = await read_meta(bucket, "new"), await read_meta(bucket, "a")
    assert new is not None
    assert old is not None
    assert (dict(new.metadata), old.deleted) == ({}, True)
    assert (old.metadata[MOVED], old.metadata[MOVED_TO]) == (marked.nuid, "new")


async def test_a_failed_one_loses_its_mark(store: ObjectStore, bucket: Bucket) -> None:
    """The new name was changed since: what stands there is somebody else's."""
    marked = await begun(store, bucket, at=0)
    await store.put("new", b"another")
    assert await complete(bucket, marked, dry_run=True) is None
    assert await complete(bucket, marked, dry_run=False) is None
    found = await read_meta(bucket, "a")
    assert found is not None
    assert RENAMING not in found.metadata
    assert await live(store) == {"a": b"content", "new": b"another"}


async def test_one_that_was_replaced_meanwhile_is_left_alone(store: ObjectStore, bucket: Bucket) -> None:
    marked = await begun(store, bucket)
    await store.put("a", b"replaced")
    for dry_run in (True, False):
        assert await complete(bucket, replace(marked, revision=1), dry_run=dry_run) is None
    assert (await live(store))["a"] == b"replaced"


@pytest.mark.parametrize("target", ["a", "", "x" * 5000])
async def test_marks_are_anybodys_text(store: ObjectStore, bucket: Bucket, target: str) -> None:
    info = await store.put("a", b"content")
    forged = replace(info, metadata={RENAMING: target, RENAMED_FROM: target})
    assert await complete(bucket, forged, dry_run=False) is None
    await finish_rename(bucket, forged)
    await finish_rename(bucket, None)
    assert not await shares_chunks(bucket, forged)
    assert await live(store) == {"a": b"content"}


async def test_before_an_end_is_replaced_the_other_is_made_whole(store: ObjectStore, bucket: Bucket) -> None:
    marked = await begun(store, bucket, new_end=True)
    new = await read_meta(bucket, "new")
    await finish_rename(bucket, new)
    assert set(await live(store)) == {"new"}
    assert not await settle_rename(bucket, replace(marked, metadata={}), "x")


async def test_settling_before_a_change_in_place(store: ObjectStore, bucket: Bucket) -> None:
    marked = await begun(store, bucket, new_end=True)
    assert not await settle_rename(bucket, marked, "new"), "the same rename once more goes on by itself"
    assert await settle_rename(bucket, marked, "a")
    assert set(await live(store)) == {"new"}


async def test_both_ends_share_the_chunks(store: ObjectStore, bucket: Bucket) -> None:
    marked = await begun(store, bucket)
    assert await shares_chunks(bucket, marked), "who began it may still commit it"
    assert await complete(bucket, marked, dry_run=False) == "new"
    new = await read_meta(bucket, "new")
    assert new is not None
    assert not await shares_chunks(bucket, new)
    assert await shares_chunks(bucket, marked)


def test_what_is_a_new_end() -> None:
    nuid = "n" * 24
    old = plain_info("a", "b", None, datetime.now(UTC), 5, 1, "SHA-256=x", nuid, 3)
    new = replace(old, name="new", metadata={RENAMED_FROM: "a"})
    assert same_object(new, old)
    assert is_new_end(new, old)
    assert not is_new_end(replace(new, metadata={}), old), "a copy of the meta is none"
    assert not is_new_end(replace(new, metadata={RENAMED_FROM: "c"}), old)
    assert not is_new_end(replace(new, size=6), old), "it says something else of the bytes"
    soon = datetime.now(UTC) + timedelta(seconds=5)
    assert not is_new_end(replace(new, expires=soon), old), "it would be gone sooner"
    assert is_new_end(replace(new, expires=soon), replace(old, expires=soon))


async def test_markers_name_nothing_of_the_new_name(store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content")

    def decoded(data: bytes) -> ObjectInfo:
        return decode_meta(data, bucket="b", subject=meta_subject("b", "a"), revision=9, timestamp=info.mtime)

    marker, marks = moved_marker(bucket, replace(info, metadata={RENAMING: "new", "mine": "1"}), "new")
    moved = decoded(marker)
    assert moved.deleted
    assert moved.nuid != info.nuid
    assert dict(moved.metadata) == {"mine": "1"}, "of the rename it says nothing to other clients"
    assert marks_in(b"NATS/1.0\r\n" + marks + b"\r\n") == {MOVED: info.nuid, MOVED_TO: "new"}
    plain = decoded(marker_of(bucket, info))
    assert (plain.deleted, plain.size, plain.nuid) == (True, 0, info.nuid)
    bucket.limits = bucket.limits._replace(message=900)
    long = replace(info, description="x" * 5000)
    assert len(marker_of(bucket, long)) < 900
    long = replace(info, description="x" * 400)
    assert decoded(marker_of(bucket, long)).description
    marker, marks = moved_marker(bucket, long, "y" * 200)
    assert len(marker) + len(marks) + META_HEADER < 900
    assert decoded(marker).description is None


async def test_no_step_is_seen_in_the_metadata(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """They belong to the user: other clients show and copy them."""

    def metadata(name: str) -> object:
        (message,) = server.stream().of(meta_subject("b", name))
        return json.loads(message.payload).get("metadata")

    info = await store.put("a", b"content", metadata={"mine": "1"})
    marked = replace(info, metadata={**info.metadata, RENAMING: "new", RENAMING_AT: "0"})
    marked = replace(marked, revision=await commit_meta(bucket, marked, info.revision))
    new = replace(info, name="new", metadata={**info.metadata, RENAMED_FROM: "a"})
    await commit_meta(bucket, new, 0)
    assert metadata("a") == metadata("new") == {"mine": "1"}
    assert dict((await store.get_info("new")).metadata) == {"mine": "1"}
    assert await read_meta(bucket, "a") == replace(marked, mtime=ANY)
    await finish_rename(bucket, await read_meta(bucket, "new"))
    assert metadata("a") == metadata("new") == {"mine": "1"}
    assert dict((await store.get_info("a", show_deleted=True)).metadata) == {"mine": "1"}


async def test_what_stands_under_a_name(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    assert await read_target(bucket, "a") == (None, 0)
    info = await store.put("a", b"x")
    found, revision = await read_target(bucket, "a")
    assert found is not None
    assert (found.nuid, revision) == (info.nuid, info.revision)
    seq = server.put_raw(meta_subject("b", "bad"), b"no JSON")
    assert await read_target(bucket, "bad") == (None, seq)
    assert await read_meta(bucket, "bad") is None


async def test_taking_marks_off(store: ObjectStore, bucket: Bucket) -> None:
    await begun(store, bucket, new_end=True)
    new = await read_meta(bucket, "new")
    assert new is not None
    clean = await clear_marks(bucket, new)
    assert (dict(clean.metadata), clean.revision > new.revision) == ({}, True)
    assert await clear_marks(bucket, clean) == clean
    late = await clear_marks(bucket, new)  # somebody else has done it
    assert late.revision == clean.revision
    await unmark(bucket, replace(new, revision=1))  # lost, and harmless


async def test_a_marker_is_written_over_the_same_mark_only(store: ObjectStore, bucket: Bucket) -> None:
    marked = await begun(store, bucket)
    again = replace(marked, revision=await commit_meta(bucket, marked, marked.revision))
    assert again.revision > marked.revision
    await write_marker(bucket, marked)
    found = await read_meta(bucket, "a")
    assert found is not None
    assert found.deleted
    await store.put("a", b"next owner")
    await write_marker(bucket, marked)
    assert await store.get("a") == b"next owner"
    with pytest.raises(Conflict):
        await commit_meta(bucket, marked, 1)


async def test_chunks_are_not_brought_back_to_be_purged(store: ObjectStore, bucket: Bucket) -> None:
    """Back under the name they were stored for they would go without another look."""
    info = await store.put("a", b"content")
    forged = replace(info, name="forged")
    refusal = await refusal_to_bring_back(bucket, forged, "a", None, 0)
    assert refusal is None, "only names that may have them do"
    await commit_meta(bucket, replace(info, name="third"), 0)
    refusal = await refusal_to_bring_back(bucket, forged, "a", None, 0)
    assert isinstance(refusal, BadObjectMetaError)
    assert "copy it" in str(refusal)
    assert await refusal_to_bring_back(bucket, forged, "elsewhere", None, 0) is None
    assert await refusal_to_bring_back(bucket, info, "a", None, 0) is None
