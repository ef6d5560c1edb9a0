"""Changing what a meta says: what is not named stays, a new name is a rename, and races are told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from objstore import (
    BadObjectMetaError,
    ObjectAlreadyExists,
    ObjectDeletedError,
    ObjectMeta,
    ObjectNotFoundError,
    ObjectStore,
    RevisionConflictError,
)
from objstore.bucket.bucket import Bucket
from objstore.change.update import update
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subjects
from support.memory_server import ROLL_UP, MemoryServer


async def test_what_is_not_named_stays(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    put = await store.put("a", b"content", "d", headers={"H": "1"}, metadata={"k": "v"}, filename="f.txt")
    server.verbs()
    changed = await update(bucket, "a", ObjectMeta("a", "other"))
    assert "STREAM.PURGE" not in server.verbs()
    assert changed.headers is not None
    assert (changed.description, changed.headers["H"]) == ("other", "1")
    assert dict(changed.metadata) == {"k": "v", "filename": "f.txt"}
    same = ("nuid", "size", "chunks", "digest", "options")
    assert [getattr(changed, each) for each in same] == [getattr(put, each) for each in same]
    assert changed.revision > put.revision
    assert changed.mtime >= put.mtime
    found = await store.get_info("a")
    assert (found.description, found.revision) == ("other", changed.revision)
    assert await store.get("a") == b"content"


async def test_empty_clears(store: ObjectStore, bucket: Bucket) -> None:
    await store.put("a", b"", "d", headers={"H": "1"}, metadata={"k": "v"}, filename="f.txt")
    changed = await update(bucket, "a", ObjectMeta("a", "", headers={}, metadata={}))
    assert (changed.description, changed.headers, dict(changed.metadata)) == (None, None, {})
    await update(bucket, "a", ObjectMeta("a", filename="g"))
    cleared = await update(bucket, "a", ObjectMeta("a", filename=""))
    assert dict(cleared.metadata) == {}


async def test_what_cannot_be_changed(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    with pytest.raises(ObjectNotFoundError):
        await update(bucket, "a", ObjectMeta("a", "d"))
    await store.put("a", b"x")
    published: list[str] = []
    server.on_publish = lambda subject, header, payload: published.append(subject)
    with pytest.raises(BadObjectMetaError):
        await update(bucket, "a", ObjectMeta("a", metadata={"k": 7}))  # type: ignore[dict-item]
    assert published == []
    server.on_publish = None
    await store.delete("a")
    with pytest.raises(ObjectDeletedError):
        await update(bucket, "a", ObjectMeta("a", "d"))


async def test_at_a_revision(store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"x")
    changed = await update(bucket, "a", ObjectMeta("a", "1"), info.revision)
    with pytest.raises(RevisionConflictError) as told:
        await update(bucket, "a", ObjectMeta("a", "2"), info.revision)
    assert told.value.current == changed.revision


@pytest.mark.parametrize("conditional", [True, False])
async def test_somebody_changes_it_meanwhile(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, conditional: bool
) -> None:
    """Without a condition the change is made to what stands then."""
    info = await store.put("a", b"x")
    raced = False

    def hook(subject: str, header: bytes, payload: bytes) -> None:
        nonlocal raced
        if b"mine" in payload and not raced:
            raced = True
            standing = server.stream().last_of(subject)
            assert standing is not None
            changed = {**json.loads(standing.payload), "metadata": {"other": "1"}}
            server.put_raw(subject, changed, ROLL_UP)

    server.on_publish = hook
    if conditional:
        with pytest.raises(RevisionConflictError):
            await update(bucket, "a", ObjectMeta("a", "mine"), info.revision)
        assert (await store.get_info("a")).description is None
    else:
        await update(bucket, "a", ObjectMeta("a", "mine"))
        found = await store.get_info("a")
        assert (found.description, dict(found.metadata)) == ("mine", {"other": "1"})
    assert raced


async def test_another_name_is_a_rename(store: ObjectStore, bucket: Bucket) -> None:
    await store.put("a", b"x")
    await store.put("taken", b"y")
    with pytest.raises(ObjectAlreadyExists):
        await update(bucket, "a", ObjectMeta("taken", "d"))
    moved = await update(bucket, "a", ObjectMeta("new", "d"))
    assert (moved.name, moved.description) == ("new", "d")
    assert await store.get("new") == b"x"
    assert not await store.exists("a")
    assert await store.get("taken") == b"y"


async def test_older_metas_elsewhere_are_removed(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """Another client has filed the name in another alphabet."""
    name = "größe?"
    own, other = meta_subjects("b", name)[:2]
    template = bucket.template(name, (None, None, None, None), (await store.put("t", b"")).options)  # type: ignore[arg-type]
    server.put_raw(own, encode_meta(replace(template, nuid="OLD")))
    server.put_raw(other, encode_meta(replace(template, nuid="NEW")))
    changed = await update(bucket, name, ObjectMeta(name, "d"))
    assert changed.nuid == "NEW"
    assert [len(server.stream().of(subject)) for subject in (own, other)] == [0, 1], "changed where it lies"
    found = await store.get_info(name)
    assert found.description == "d"
