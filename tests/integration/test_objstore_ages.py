"""Buckets with a time to live: meta and chunks have one age, and what has expired is not damaged."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from natsproto.jetstream.context import JetStreamContext
from objstore import ObjectAlreadyExists, ObjectMeta, ObjectNotFoundError, ObjectStore, RevisionConflictError
from support.objects import CHUNK, chunk_counts, pattern

DATA = pattern(3 * CHUNK + 7, 5)


@pytest.fixture
async def aging(js: JetStreamContext) -> AsyncIterator[ObjectStore]:
    bucket = f"aging-{uuid.uuid4().hex[:8]}"
    yield await js.create_object_store(bucket=bucket, ttl=timedelta(hours=1))
    await js.delete_object_store(bucket)


async def test_changes_renew_the_chunks(aging: ObjectStore) -> None:
    put = await aging.put("a", DATA, headers={"k": "v"}, chunk_size=CHUNK)
    changed = await aging.update_meta("a", ObjectMeta("a", "described"))
    assert changed.nuid != put.nuid
    assert (changed.description, changed.digest, changed.chunks) == ("described", put.digest, put.chunks)
    moved = await aging.rename("a", "b")
    assert moved.nuid not in (put.nuid, changed.nuid)
    assert await aging.get("b") == DATA
    assert (await aging.get_info("b")).headers == {"k": "v"}
    assert not await aging.exists("a")
    assert await chunk_counts(aging) == {moved.nuid: put.chunks}


async def test_a_rename_that_cannot_be(aging: ObjectStore) -> None:
    put = await aging.put("a", DATA)
    other = await aging.put("b", b"other")
    with pytest.raises(ObjectAlreadyExists):
        await aging.rename("a", "b")
    with pytest.raises(RevisionConflictError):
        await aging.update_meta("a", ObjectMeta("a", "x"), if_revision=put.revision + 1)
    assert await aging.get("a") == DATA
    assert set(await chunk_counts(aging)) == {put.nuid, other.nuid}


async def test_links_and_empty_objects_have_no_chunks_to_renew(aging: ObjectStore) -> None:
    empty = await aging.put("empty", b"")
    changed = await aging.update_meta("empty", ObjectMeta("empty", "described"))
    assert changed.nuid == empty.nuid
    await aging.add_link("link", empty)
    assert (await aging.rename("link", "other")).links == [f"{aging.bucket}/empty"]
    assert await aging.get("other") == b""


async def test_expired_chunks(aging: ObjectStore) -> None:
    """The first chunk of a long upload goes before the meta: then the object has expired."""
    info = await aging.put("a", DATA, chunk_size=CHUNK)
    first = await aging.js.get_message(
        f"OBJ_{aging.bucket}", seq=1, next_by_subject=f"$O.{aging.bucket}.C.{info.nuid}"
    )
    await aging.js.delete_message(f"OBJ_{aging.bucket}", first.seq)
    with pytest.raises(ObjectNotFoundError, match="expired"):
        await aging.get("a")
    with pytest.raises(ObjectNotFoundError):
        await aging.get_range("a", 0, 10)
    with pytest.raises(ObjectNotFoundError):
        async with aging.open_reader("a") as reader:
            await reader.read()
    with pytest.raises(ObjectNotFoundError):
        await aging.update_meta("a", ObjectMeta("a", "x"))
    assert (await aging.verify(deep=True)).ok
    assert await aging.put("a", b"again")
    assert await aging.get("a") == b"again"
