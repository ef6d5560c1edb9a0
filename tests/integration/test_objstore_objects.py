"""Rename, copy, time to live, delete markers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, tzinfo
from uuid import uuid4

import pytest

import natsproto
from natsproto.headers import header_value
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import (
    BadObjectMetaError,
    IntegrityError,
    LinkError,
    ObjectAlreadyExists,
    ObjectDeletedError,
    ObjectMeta,
    ObjectNotFoundError,
    ObjectStore,
    RevisionConflictError,
    UnsupportedFeatureError,
)
from objstore.bucket import ttl as _ttl
from objstore.maintenance import purge_deleted as _purge_deleted

DATA = bytes(range(256)) * 2000


@pytest.fixture
async def ttl_store(new_server: LocalServer) -> AsyncIterator[ObjectStore]:
    async with natsproto.connect(new_server.url) as nc:
        js = nc.jetstream()
        bucket = "o-" + uuid4().hex[:12]
        yield await js.create_object_store(bucket=bucket, allow_msg_ttl=True)
        await js.delete_object_store(bucket)


async def chunk_subjects(store: ObjectStore) -> dict[str, int]:
    return await store.js.stream_subjects(f"OBJ_{store.bucket}", f"$O.{store.bucket}.C.>")


async def test_rename(store: ObjectStore) -> None:
    before = await store.put("old", DATA, "d", headers={"K": ["1", "2"]}, metadata={"m": "n"})
    after = await store.rename("old", "new name/ä")
    assert (after.name, after.nuid, after.digest, after.size) == (
        "new name/ä",
        before.nuid,
        before.digest,
        before.size,
    )
    assert await store.get("new name/ä") == DATA
    info = await store.get_info("new name/ä")
    assert (info.description, info.headers, info.metadata["m"]) == ("d", {"K": ["1", "2"]}, "n")
    with pytest.raises(ObjectDeletedError):
        await store.get("old")
    await store.put("old", b"something else")
    assert await store.get("new name/ä") == DATA, "the old name must not take the chunks along"
    await store.delete("old")
    assert await store.get("new name/ä") == DATA
    await store.delete("new name/ä")
    assert await chunk_subjects(store) == {}


async def test_rename_errors(store: ObjectStore) -> None:
    first = await store.put("a", DATA)
    await store.put("b", b"live")
    with pytest.raises(ObjectAlreadyExists):
        await store.rename("a", "b")
    with pytest.raises(RevisionConflictError) as caught:
        await store.rename("a", "c", if_revision=first.revision + 1000)
    assert caught.value.current == first.revision
    with pytest.raises(ObjectNotFoundError):
        await store.rename("missing", "c")
    assert await store.get("a") == DATA
    assert await store.get("b") == b"live"
    await store.delete("b")
    await store.rename("a", "b")
    assert await store.get("b") == DATA
    same = await store.rename("b", "b")
    assert same.name == "b"


async def test_copy(store: ObjectStore) -> None:
    original = await store.put("a", DATA, "d", "f.bin", {"H": "1"}, metadata={"m": "n"}, chunk_size=50_000)
    copy = await store.copy("a", "b")
    assert copy.nuid != original.nuid
    assert copy.digest == original.digest
    info = await store.get_info("b")
    assert (info.description, info.filename, info.headers, info.metadata) == (
        "d",
        "f.bin",
        {"H": "1"},
        {"m": "n", "filename": "f.bin"},
    )
    assert (info.chunks, info.options) == (original.chunks, (await store.get_info("a")).options)
    await store.delete("a")
    assert await store.get("b") == DATA
    await store.copy("b", "b", chunk_size=100_000)
    assert await store.get("b") == DATA
    assert len(await chunk_subjects(store)) == 1


async def test_copy_to_another_bucket_and_of_a_link(store: ObjectStore) -> None:
    js = store.js
    other = await js.create_object_store(bucket=store.bucket + "-other")
    info = await store.put("a", DATA)
    await store.add_link("link", info)
    seen: list[int] = []
    await store.copy("link", "copied", to=other, progress=lambda done, total: seen.append(done))
    assert await other.get("copied") == DATA
    assert not (await other.get_info("copied")).is_link
    assert seen[-1] == len(DATA)
    with pytest.raises(RevisionConflictError):
        await store.copy("a", "copied", to=other, if_revision=0)
    with pytest.raises(ObjectNotFoundError):
        await store.copy("missing", "x", to=other)
    await store.add_bucket_link("whole", other.bucket)
    with pytest.raises(LinkError):
        await store.copy("whole", "x")
    await js.delete_object_store(other.bucket)


async def test_copy_of_a_damaged_object_stores_nothing(store: ObjectStore) -> None:
    info = await store.put("a", DATA, chunk_size=50_000)
    stream, subject = f"OBJ_{store.bucket}", f"$O.{store.bucket}.C.{info.nuid}"
    last = await store.js.get_message(stream, last_by_subject=subject)
    await store.js.delete_message(stream, last.seq)
    with pytest.raises(natsproto.NatsError):
        await store.copy("a", "b")
    assert not await store.exists("b")
    assert set(await chunk_subjects(store)) == {subject}


async def test_ttl(ttl_store: ObjectStore) -> None:
    before, life = datetime.now(UTC), timedelta(hours=1)
    stored = await ttl_store.put("a", DATA, ttl=life)
    await ttl_store.put("stays", b"x")
    for info in (stored, await ttl_store.get_info("a"), (await ttl_store.list())[0]):
        assert info.expires is not None
        assert life - timedelta(seconds=1) < info.expires - before < life + timedelta(seconds=60)
    assert (await ttl_store.get_info("stays")).expires is None
    assert await ttl_store.get("a") == DATA
    await ttl_store.put("gone soon", DATA, ttl=timedelta(seconds=1))
    async with asyncio.timeout(30):
        while await ttl_store.exists("gone soon"):
            pass
    with pytest.raises(ObjectNotFoundError):
        await ttl_store.get("gone soon")
    assert [info.name for info in await ttl_store.list()] == ["a", "stays"]


async def test_a_meta_that_is_back_after_its_time(
    ttl_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was killed forgets that it has removed it; its chunks are gone: it has expired."""
    info = await ttl_store.put("a", DATA, ttl=timedelta(hours=2))
    await ttl_store._bucket.purge_chunks(info.nuid)
    with pytest.raises(IntegrityError):
        await ttl_store.get("a")
    assert not (await ttl_store.verify()).ok
    before = _ttl.expiry

    def long_ago(header: bytes | None, stored: datetime) -> datetime | None:
        found = before(header, stored)
        return None if found is None else found - timedelta(hours=3)

    monkeypatch.setattr("objstore.bucket.bucket.expiry", long_ago)
    with pytest.raises(ObjectNotFoundError, match="expired"):
        await ttl_store.get("a")
    assert (await ttl_store.verify()).ok


async def test_ttl_survives_changes_of_the_meta(ttl_store: ObjectStore) -> None:
    await ttl_store.put("a", DATA, ttl=timedelta(hours=2))
    expires = (await ttl_store.get_info("a")).expires
    assert expires is not None
    changed = await ttl_store.update_meta("a", ObjectMeta("a", "new"))
    renamed = await ttl_store.rename("a", "b")
    for info in (changed, renamed, await ttl_store.get_info("b")):
        assert info.expires is not None
        assert abs(info.expires - expires) < timedelta(seconds=60)
    chunk = await ttl_store.js.get_message(
        f"OBJ_{ttl_store.bucket}", seq=1, next_by_subject=f"$O.{ttl_store.bucket}.C.{renamed.nuid}"
    )
    assert chunk.header is not None
    assert b"Nats-TTL: 10800" in chunk.header, "chunks outlive the meta by an hour"


@pytest.mark.parametrize("bucket", ["plain", "in batches", "renewed"])
async def test_no_change_moves_the_end(new_server: LocalServer, bucket: str) -> None:
    """Each counts whole seconds from when it is stored: they are not added up."""
    async with natsproto.connect(new_server.url) as nc:
        js = nc.jetstream()
        store = await js.create_object_store(
            bucket="o-" + uuid4().hex[:12],
            allow_msg_ttl=True,
            allow_atomic=bucket == "in batches",
            ttl=timedelta(hours=3) if bucket == "renewed" else None,
        )
        await store.put("a", b"x", ttl=timedelta(hours=1))
        end = (await store.get_info("a")).expires
        assert end is not None
        for number in range(5):
            changed = await store.update_meta("a", ObjectMeta("a", f"{number}"))
            renamed = await store.rename("a", "b")
            back = await store.rename("b", "a")
            stored = await store.get_info("a")
            assert {info.expires for info in (changed, renamed, back, stored)} == {end}
        message = await js.get_message(f"OBJ_{store.bucket}", last_by_subject=f"$O.{store.bucket}.M.YQ==")
        assert _ttl.expiry(message.header, message.time) == end
        assert message.header is not None
        later = message.header.replace(b"Natsproto-End", b"Another-Header")
        until = _ttl.expiry(later, message.time)
        assert until is not None
        assert end <= until < end + timedelta(seconds=3), "the server goes by that"
        await js.delete_object_store(store.bucket)


async def test_what_is_over_is_not_changed(ttl_store: ObjectStore) -> None:
    """However often: each change would give it one more second."""
    await ttl_store.put("a", b"x", ttl=timedelta(seconds=2))
    async with asyncio.timeout(10):
        with pytest.raises(ObjectNotFoundError):
            while True:
                await ttl_store.update_meta("a", ObjectMeta("a", "still there"))


@pytest.mark.parametrize("wrong", [timedelta(hours=-3), timedelta(hours=3)])
async def test_a_change_by_who_has_another_time(
    ttl_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, wrong: timedelta
) -> None:
    """What is left is told by the server's clock."""
    await ttl_store.put("a", b"x", ttl=timedelta(hours=1))
    end = (await ttl_store.get_info("a")).expires

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Wrong:
            return cls.fromtimestamp((datetime.now(tz) + wrong).timestamp(), tz)

    monkeypatch.setattr(_ttl, "datetime", Wrong)
    await ttl_store.update_meta("a", ObjectMeta("a", "new"))
    await ttl_store.rename("a", "b")
    monkeypatch.undo()
    assert (await ttl_store.get_info("b")).expires == end
    subject = f"$O.{ttl_store.bucket}.M.Yg=="
    message = await ttl_store.js.get_message(f"OBJ_{ttl_store.bucket}", last_by_subject=subject)
    assert message.header is not None
    left = header_value(message.header, b"Nats-TTL")
    assert left is not None
    assert 3500 < int(left[:-1]) <= 3600


async def test_ttl_errors(store: ObjectStore, ttl_store: ObjectStore) -> None:
    with pytest.raises(UnsupportedFeatureError, match="allow_msg_ttl"):
        await store.put("a", b"x", ttl=timedelta(hours=1))
    # A server would take the last but one, and remove the object at once.
    for bad in (timedelta(0), timedelta(milliseconds=5), 60, timedelta(days=100_000), timedelta.max):
        with pytest.raises(BadObjectMetaError):
            await ttl_store.put("a", b"x", ttl=bad)  # type: ignore[arg-type]
    assert not await store.exists("a")


async def test_young_delete_markers_stay(store: ObjectStore) -> None:
    """A late copy of the put would bring the object back."""
    await store.put("a", b"a")
    await store.delete("a")
    assert await store.purge_deleted() == 0
    assert await store.purge_deleted(timedelta(0)) == 0
    assert (await store.get_info("a", show_deleted=True)).deleted


async def test_purge_deleted(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_purge_deleted, "settled_after", lambda stream: timedelta(0))
    for name in ("a", "b", "c"):
        await store.put(name, name.encode())
    await store.delete("a")
    await store.delete("b")
    assert await store.purge_deleted(older_than=timedelta(hours=1)) == 0
    assert len(await store.list(include_deleted=True)) == 3
    assert await store.purge_deleted() == 2
    assert [info.name for info in await store.list(include_deleted=True)] == ["c"]
    with pytest.raises(ObjectNotFoundError):
        await store.get_info("a", show_deleted=True)
    assert await store.get("c") == b"c"
    assert await store.purge_deleted() == 0


async def test_put_if_revision(store: ObjectStore) -> None:
    first = await store.create("a", b"1")
    with pytest.raises(ObjectAlreadyExists):
        await store.create("a", b"2")
    second = await store.put("a", b"2", if_revision=first.revision)
    with pytest.raises(RevisionConflictError) as caught:
        await store.put("a", b"3", if_revision=first.revision)
    assert (caught.value.expected, caught.value.current) == (first.revision, second.revision)
    with pytest.raises(RevisionConflictError):
        await store.delete("a", if_revision=first.revision)
    await store.delete("a", if_revision=second.revision)
    again = await store.put("a", b"4", if_revision=0)
    changed = await store.update_meta("a", ObjectMeta("a", "d"), if_revision=again.revision)
    with pytest.raises(RevisionConflictError):
        await store.update_meta("a", ObjectMeta("a", "e"), if_revision=again.revision)
    assert (await store.get_info("a")).revision == changed.revision
    assert len(await chunk_subjects(store)) == 1


async def test_one_of_many_creators_wins(js: JetStreamContext, store: ObjectStore) -> None:
    results = await asyncio.gather(
        *(store.create("a", bytes([n]) * 1000) for n in range(16)), return_exceptions=True
    )
    winners = [result for result in results if not isinstance(result, BaseException)]
    assert len(winners) == 1
    assert all(isinstance(result, ObjectAlreadyExists) for result in results if result not in winners)
    assert len(set(await store.get("a"))) == 1
    assert len(await chunk_subjects(store)) == 1
