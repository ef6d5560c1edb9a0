"""All-or-nothing puts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

import natsproto
from natsproto.errors import RequestTimeoutError
from natsproto.jetstream.api.errors import TemporarilyUnavailableError
from natsproto.jetstream.api.models import StoredMessage
from natsproto.server import LocalServer
from objstore import (
    BadObjectMetaError,
    ObjectAlreadyExists,
    ObjectStore,
    RevisionConflictError,
    UnsupportedFeatureError,
)
from objstore.bucket.message_reads import MessageRead
from objstore.write.atomic import MAX_CHUNKS

DATA = bytes(range(256)) * 4000


@pytest.fixture
async def atomic(new_server: LocalServer) -> AsyncIterator[ObjectStore]:
    async with natsproto.connect(new_server.url) as nc:
        js = nc.jetstream()
        bucket = "x-" + uuid4().hex[:12]
        yield await js.create_object_store(bucket=bucket, allow_atomic=True, allow_msg_ttl=True)
        await js.delete_object_store(bucket)


async def chunk_subjects(store: ObjectStore) -> dict[str, int]:
    return await store.js.stream_subjects(f"OBJ_{store.bucket}", f"$O.{store.bucket}.C.>")


async def test_put_and_replace(atomic: ObjectStore) -> None:
    first = await atomic.put("a", DATA, "d", headers={"K": "V"}, atomic=True)
    assert await atomic.get("a") == DATA
    info = await atomic.get_info("a")
    assert (info.revision, info.chunks, info.description) == (first.revision, first.chunks, "d")
    await atomic.put("a", b"second", atomic=True)
    assert await atomic.get("a") == b"second"
    await atomic.put("a", DATA)
    await atomic.put("a", b"", atomic=True)
    assert await atomic.get("a") == b""
    assert await chunk_subjects(atomic) == {}


async def test_the_largest_chunk(atomic: ObjectStore) -> None:
    limit = atomic.client.max_payload
    for options, room in (({"atomic": True}, 128), ({"ttl": timedelta(seconds=60)}, 29)):
        with pytest.raises(
            BadObjectMetaError, match=rf"max_payload less {room} bytes for headers: {limit - room}"
        ):
            await atomic.put("a", b"x", chunk_size=limit, **options)  # type: ignore[arg-type]
        await atomic.put("a", bytes(2_000_000), chunk_size=limit - room, **options)  # type: ignore[arg-type]
        assert await atomic.get("a") == bytes(2_000_000)


async def test_most_chunks(atomic: ObjectStore) -> None:
    data = bytes(999 * 100)
    info = await atomic.put("a", data, chunk_size=100, atomic=True)
    assert info.chunks == 999
    assert await atomic.get("a") == data
    for source in (bytes(999 * 100 + 1), (bytes(1000) for _ in range(200))):
        with pytest.raises(BadObjectMetaError, match="999"):
            await atomic.put("b", source, chunk_size=100, atomic=True)
    assert not await atomic.exists("b")


async def test_conditions(atomic: ObjectStore) -> None:
    first = await atomic.create("a", DATA, atomic=True)
    with pytest.raises(ObjectAlreadyExists):
        await atomic.create("a", b"x", atomic=True)
    with pytest.raises(RevisionConflictError):
        await atomic.put("a", b"x", if_revision=first.revision + 5, atomic=True)
    second = await atomic.put("a", b"x", if_revision=first.revision, atomic=True)
    await atomic.delete("a", if_revision=second.revision)
    await atomic.put("a", b"y", if_revision=0, atomic=True)
    assert len(await chunk_subjects(atomic)) == 1


async def test_many_writers(atomic: ObjectStore) -> None:
    contents = [bytes([number]) * 200_000 for number in range(6)]
    await asyncio.gather(*(atomic.put("a", content, atomic=True) for content in contents))
    assert await atomic.get("a") in contents
    assert len(await chunk_subjects(atomic)) == 1
    results = await asyncio.gather(
        *(atomic.create("b", content, atomic=True) for content in contents), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert len(await chunk_subjects(atomic)) == 2


async def test_lost_race_leaves_nothing(atomic: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await atomic.put("a", b"previous")
    before = await chunk_subjects(atomic)
    revision = (await atomic.get_info("a")).revision
    real = MessageRead.wait

    async def overtaken(reading: MessageRead) -> StoredMessage | None:
        """Another writer commits between the look and the batch."""
        message = await real(reading)
        if message is None:
            return None  # another subject the name might be filed under
        bucket = reading._bucket
        await bucket.js.publish(bucket.meta_subject("a"), message.data, headers={"Nats-Rollup": "sub"})
        return message

    with monkeypatch.context() as patch:
        patch.setattr(MessageRead, "wait", overtaken)
        with pytest.raises(RevisionConflictError):
            await atomic.put("a", DATA, if_revision=revision, atomic=True)
    assert await chunk_subjects(atomic) == before
    assert await atomic.get("a") == b"previous"


async def test_ttl(atomic: ObjectStore) -> None:
    info = await atomic.put("a", DATA, atomic=True, ttl=timedelta(hours=1))
    assert info.expires is not None
    assert (await atomic.get_info("a")).expires is not None


async def test_where_it_cannot_be_had(store: ObjectStore) -> None:
    with pytest.raises(UnsupportedFeatureError, match=r"2\.12.*allow_atomic"):
        await store.put("a", b"x", atomic=True)
    assert not await store.exists("a")


async def test_server_without_batches_is_noticed(store: ObjectStore, old_server: LocalServer) -> None:
    """By its answer to the first message, whatever the bucket claims; nothing of it stays."""
    async with natsproto.connect(old_server.url) as nc:
        js = nc.jetstream()
        old = await js.create_object_store(bucket="no-batches-" + uuid4().hex[:6])
        old._bucket.atomic = True
        with pytest.raises(UnsupportedFeatureError, match=r"2\.12"):
            await old.put("a", DATA, atomic=True)
        assert await chunk_subjects(old) == {}
        assert not await old.exists("a")
        await js.delete_object_store(old.bucket)


async def test_others_keep_all_batches_open(atomic: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes 50 at a time. Only what needs a batch fails."""
    await atomic.put("a", DATA)
    subject = f"$O.{atomic.bucket}.M.own"
    for n in range(50):
        headers = {"Nats-Batch-Id": f"b{n}", "Nats-Batch-Sequence": "1"}
        assert not (await atomic.client.request(subject, b"", headers=headers)).data
    monkeypatch.setattr(atomic.bound_bucket, "retry_budget", 0.2)
    with pytest.raises(TemporarilyUnavailableError, match="other clients keep all batches open"):
        await atomic.put("b", DATA, atomic=True)
    await atomic.put("empty", b"", atomic=True)
    await atomic.rename("a", "b")
    await atomic.rename("b", "c", if_revision=(await atomic.get_info("b")).revision)
    assert await atomic.get("c") == DATA
    assert sorted(await atomic.names(live=True)) == ["c", "empty"]
    headers = {"Nats-Batch-Id": "b0", "Nats-Batch-Sequence": "2"}
    assert (await atomic.client.request(subject, b"", headers={**headers, "Nats-Batch-Commit": "1"})).data
    await atomic.put("d", DATA, atomic=True)
    assert await atomic.get("d") == DATA


async def test_what_follows_the_commit_fails(atomic: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether another meta needs the replaced chunks is not found out: the put is no failure."""
    await atomic.put("a", b"before")

    async def silent(*args: object, **options: object) -> bool:
        raise RequestTimeoutError("no answer")

    monkeypatch.setattr("objstore.commit.discard.shares_chunks", silent)
    await atomic.put("a", DATA, atomic=True)
    assert await atomic.get("a") == DATA


async def test_progress(atomic: ObjectStore) -> None:
    told: list[tuple[int, int | None]] = []
    await atomic.put("a", b"x" * 25, chunk_size=10, atomic=True, progress=lambda *args: told.append(args))
    assert told == [(10, 25), (20, 25), (25, 25)]


async def test_one_chunk_too_many(atomic: ObjectStore) -> None:
    """Found out when the bytes end, before anything is sent."""
    with pytest.raises(BadObjectMetaError, match="chunks"):
        await atomic.put("a", b"x" * (10 * MAX_CHUNKS + 1), chunk_size=10, atomic=True)
    assert await chunk_subjects(atomic) == {}
