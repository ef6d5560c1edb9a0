"""All or nothing: chunks, meta and condition in one batch; nothing is visible, or left behind, before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from natsproto.errors import UnsupportedFeatureError
from natsproto.jetstream.api.errors import TemporarilyUnavailableError
from objstore import (
    BadObjectMetaError,
    ObjectStore,
    OutcomeUnknownError,
    RevisionConflictError,
    StoreFullError,
)
from objstore.bucket.binding import bind
from objstore.format.naming import meta_subject
from objstore.write.atomic import MAX_CHUNKS, check_atomic
from support.memory_server import MemoryServer, error

DATA = bytes(range(256)) * 10


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    return await server.bucket(allow_atomic=True)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 70):
        yield data[at : at + 70]


@pytest.mark.parametrize("source", ["bytes", "pieces", "empty"])
async def test_one_commit(server: MemoryServer, store: ObjectStore, source: str) -> None:
    data = b"" if source == "empty" else DATA
    done: list[int] = []
    info = await store.put(
        "a",
        pieces(data) if source == "pieces" else data,
        chunk_size=100,
        atomic=True,
        progress=lambda n, _: done.append(n),
    )
    assert await store.get("a") == data
    assert (info.size, info.chunks) == (len(data), -(-len(data) // 100))
    assert done == sorted(done)
    assert (await store.get_info("a")).revision == info.revision


async def test_nothing_is_visible_before(server: MemoryServer, store: ObjectStore) -> None:
    await store.put("a", b"old")
    before = server.stream().seq
    seen: list[int] = []
    server.on_publish = lambda subject, header, payload: seen.append(server.stream().seq)
    await store.put("a", DATA, chunk_size=100, atomic=True)
    assert set(seen) == {before}
    assert len(seen) == 27
    assert len(server.chunks()) == 1, "the old object's are gone"


async def test_a_refusal_leaves_nothing(server: MemoryServer, store: ObjectStore) -> None:
    old = await store.put("a", b"old")

    def hook(subject: str, header: bytes, payload: bytes) -> Any:
        return error(503, 10077, "maximum bytes exceeded") if b"Batch-Commit" in header else None

    server.on_publish = hook
    with pytest.raises(StoreFullError):
        await store.put("a", DATA, chunk_size=100, atomic=True)
    server.on_publish = None
    assert server.chunks() == {old.nuid: 1}
    with pytest.raises(RevisionConflictError):
        await store.put("a", DATA, atomic=True, if_revision=old.revision + 1)
    new = await store.put("a", DATA, atomic=True, if_revision=old.revision)
    assert new.revision > old.revision


async def test_somebody_writes_the_name_meanwhile(server: MemoryServer, store: ObjectStore) -> None:
    """The last writer wins: the same batch is sent again, in place of the newer meta."""
    await store.put("a", b"old")
    meta = server.stream().of(meta_subject("b", "a"))[0]

    def hook(subject: str, header: bytes, payload: bytes) -> None:
        server.on_publish = None
        server.put_raw(meta.subject, meta.payload, b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n")

    server.on_publish = hook
    await store.put("a", DATA, chunk_size=100, atomic=True)
    assert await store.get("a") == DATA


async def test_what_cannot_be_done(server: MemoryServer, store: ObjectStore) -> None:
    bucket = await bind(server.js, "b")
    check_atomic(bucket, MAX_CHUNKS * 10, 10)
    check_atomic(bucket, None, 10)
    with pytest.raises(BadObjectMetaError, match="at most 999 chunks"):
        check_atomic(bucket, MAX_CHUNKS * 10 + 1, 10)
    for data in (bytes(1001), pieces(bytes(70_000))):
        with pytest.raises(BadObjectMetaError, match="at most 999 chunks"):
            await store.put("a", data, chunk_size=1, atomic=True)
    assert server.stream().messages == {}
    await server.bucket("plain")
    with pytest.raises(UnsupportedFeatureError, match="allow_atomic=True"):
        check_atomic(await bind(server.js, "plain"), 1, 1)


async def test_others_keep_all_batches_open(server: MemoryServer, store: ObjectStore) -> None:
    old = await store.put("a", b"old")
    store.bound_bucket.retry_budget = 0.5
    full = error(429, 10210, "atomic publish too many inflight")
    server.on_publish = lambda subject, header, payload: full if b"Nats-Batch" in header else None
    with pytest.raises(TemporarilyUnavailableError, match="inflight: other clients keep all batches open"):
        await store.put("a", DATA, atomic=True)
    assert await store.get("a") == b"old"
    assert server.chunks() == {old.nuid: 1}
    await store.put("a", b"", atomic=True)  # one message is all or nothing anyway
    assert await store.get("a") == b""


async def test_somebody_else_ends_the_batch(server: MemoryServer, store: ObjectStore) -> None:
    """Its id is seen with the first chunk, which is stored then: a second batch would store it twice."""
    await store.put("a", b"old")
    store._bucket.retry_budget = 0.5

    server.end_batch_early()
    with pytest.raises(OutcomeUnknownError):
        await store.put("a", DATA, chunk_size=100, atomic=True)
    assert await store.get("a") == b"old"
    assert (await store.verify(deep=True)).ok
    await store.put("a", DATA, chunk_size=100, atomic=True)
    assert await store.get("a") == DATA
