"""What only some clients write, and garbage: none hides the other objects, and each can be deleted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from objstore import (
    BadObjectMetaError,
    IntegrityError,
    InvalidMeta,
    LinkError,
    ObjectDeletedError,
    ObjectNotFoundError,
    ObjectStore,
)
from support.objects import CHUNK, chunk_counts, chunk_subject, meta_subject, pattern, wire_digest, write_raw

EVERY_SERVER = True
NUID = "nuid0123456789abcdefgh"
ISO = "2026-11-22T14:15:10.159027+00:00"
LIMIT = 30.0


def document(store: ObjectStore, data: bytes, **changes: Any) -> dict[str, Any]:
    """What a sound writer publishes."""
    return {
        "name": "n",
        "bucket": store.bucket,
        "nuid": NUID,
        "size": len(data),
        "chunks": -(-len(data) // CHUNK),
        "digest": wire_digest(data),
        "options": {"max_chunk_size": CHUNK},
        "mtime": ISO,
        **changes,
    }


async def put_chunks(store: ObjectStore, data: bytes, *, empty: bool = False) -> None:
    pieces = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    for piece in [*pieces, b""] if empty else pieces:
        await store.js.publish(chunk_subject(store, NUID), piece)


@pytest.mark.parametrize("size", [CHUNK, 3 * CHUNK])
async def test_trailing_empty_chunk_of_net(store: ObjectStore, size: int) -> None:
    """T10: nats.net ends an object of whole chunks with an empty one that it does not count."""
    data = pattern(size)
    await put_chunks(store, data, empty=True)
    await write_raw(store.js, meta_subject(store, "n"), document(store, data))
    async with asyncio.timeout(LIMIT):
        assert await store.get("n") == data
        assert await store.get_range("n", size - 5, size) == data[-5:]
        assert [info.name for info in await store.list()] == ["n"]
        await store.delete("n")
    assert await chunk_counts(store) == {}


async def test_bucket_link_of_net(store: ObjectStore) -> None:
    """It carries the link's own name, so it looks like a link to an object: one that is not there."""
    link = {"link": {"name": "l", "bucket": f"{store.bucket}-other"}}
    raw = {"name": "l", "bucket": store.bucket, "nuid": NUID, "mtime": ISO, "options": link}
    await write_raw(store.js, meta_subject(store, "l"), raw)
    assert (await store.get_info("l")).is_link
    assert [info.name for info in await store.list()] == ["l"]
    with pytest.raises((LinkError, LookupError)):
        await store.get("l")
    await store.delete("l")
    assert await store.list() == []


async def test_update_of_js(store: ObjectStore) -> None:
    """T7: published without roll-up, with a revision, and without options: several metas of one name."""
    data = pattern(CHUNK)
    await put_chunks(store, data)
    await write_raw(store.js, meta_subject(store, "n"), document(store, data))
    changed = document(store, data, description="new", revision=2, deleted=False)
    del changed["options"]
    await write_raw(store.js, meta_subject(store, "n"), changed, rollup=False)
    (info,) = await store.list()
    assert (info.description, info.size) == ("new", CHUNK)
    assert info == await store.get_info("n")
    assert await store.get("n") == data
    await store.delete("n")
    assert await store.list() == []
    assert await chunk_counts(store) == {}
    with pytest.raises(ObjectDeletedError):
        await store.get_info("n")


GARBAGE: dict[str, bytes] = {
    "no JSON": b"\x00\xff{",
    "empty": b"",
    "array": b"[]",
    "no name": json.dumps({"bucket": "b", "nuid": NUID, "size": 1, "chunks": 1}).encode(),
    "another name": json.dumps({"name": "other", "nuid": NUID, "size": 1, "chunks": 1}).encode(),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage(store: ObjectStore, kind: str) -> None:
    await store.put("first", b"1")
    await write_raw(store.js, meta_subject(store, "n"), GARBAGE[kind])
    await store.put("last", b"2")
    invalid: list[InvalidMeta] = []
    async with asyncio.timeout(LIMIT):
        assert [info.name for info in await store.list(on_invalid=invalid.append)] == ["first", "last"]
        assert [one.subject for one in invalid] == [meta_subject(store, "n")]
        for call in (store.get_info("n"), store.get("n")):
            with pytest.raises((BadObjectMetaError, IntegrityError, ObjectNotFoundError)):
                await call
        await store.put("n", b"over it")
        assert await store.get("n") == b"over it"
        await store.delete("n")
    assert [info.name for info in await store.list()] == ["first", "last"]


async def test_deleted_with_chunks_left(store: ObjectStore) -> None:
    data = pattern(2 * CHUNK)
    await put_chunks(store, data)
    await write_raw(store.js, meta_subject(store, "n"), document(store, data, deleted=True))
    assert await store.list() == []
    for call in (store.get("n"), store.get_info("n"), store.delete("n")):
        with pytest.raises(ObjectDeletedError):
            await call
    await store.put("n", b"again")
    assert await store.get("n") == b"again"
    await store.delete("n")


DAMAGE = {"purged": (0, 2), "too few": (1, 2), "too many": (3, 2)}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_chunks_that_do_not_fit(store: ObjectStore, kind: str) -> None:
    there, said = DAMAGE[kind]
    await put_chunks(store, pattern(there * CHUNK))
    data = pattern(said * CHUNK)
    await write_raw(store.js, meta_subject(store, "n"), document(store, data))
    async with asyncio.timeout(LIMIT):
        assert [info.name for info in await store.list()] == ["n"]
        assert (await store.get_info("n")).size == len(data)
        with pytest.raises(IntegrityError):
            await store.get("n")
        await store.delete("n")
    assert await store.list() == []
    assert await chunk_counts(store) == {}
