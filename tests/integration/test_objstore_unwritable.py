"""Metas that can be read, and are too long to be written again: the name can be used, and gc() goes on."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import MaxPayloadError, NatsError, RequestTimeoutError
from natsproto.server import LocalServer
from objstore import BucketSealedError, ObjectMeta, ObjectStore
from objstore.format.codec import MAX_META_BYTES, MetaDecodeError
from objstore.format.marks import MOVED, MOVED_TO, RENAMING, RENAMING_AT
from objstore.maintenance import gc as _gc
from support.objects import meta_subject, read_raw, write_raw

ALL = timedelta(seconds=-60)
LONG = "b" * 1000
TO = {RENAMING: LONG, RENAMING_AT: "0"}


def sized(size: int, document: dict[str, Any]) -> bytes:
    """The document, made so many bytes long where it says FILL."""
    payload = json.dumps(document, separators=(",", ":")).encode()
    return payload.replace(b"FILL", b"x" * (size - len(payload) + 4))


async def store_meta(store: ObjectStore, payload: bytes) -> None:
    """Make it the meta of ``a``, in one message without headers, which may be as long as the server takes."""
    await write_raw(store.js, meta_subject(store, "a"), payload, rollup=False)


PLAIN = {"name": "a", "nuid": "N", "size": 0, "chunks": 0}
SAYS = {**PLAIN, "description": "FILL"}
MARKED = {**PLAIN, "metadata": TO}
LINK = {"link": {"bucket": "b", "name": "FILL"}}
METAS = {
    "no number": json.dumps(MARKED)[:-1].encode() + b',"x":1e999}',
    "numbers in full": json.dumps(MARKED)[:-1].encode()
    + b',"y":"%b","x":[%b1]}' % (b"y" * 250_000, b"1e15," * 49_000),
    "half a pair": json.dumps({**MARKED, "description": "\ud800"})[:-1].encode()
    + ',"x":"{}"}}'.format("é" * 300_000).encode(),
    "no room": sized(MAX_META_BYTES, SAYS),
    "no room for the other name": sized(MAX_META_BYTES - 10, {**SAYS, "metadata": TO}),
    "no room for the header": sized(MAX_META_BYTES - 130, {**SAYS, "metadata": TO}),
    "no room for that nuid": sized(MAX_META_BYTES - 10, {**MARKED, "nuid": "FILL"}),
    "no room for that link": sized(MAX_META_BYTES - 10, {**MARKED, "options": LINK}),
}


@pytest.fixture(params=METAS)
async def meta(store: ObjectStore, request: pytest.FixtureRequest) -> str:
    """What somebody has stored for the name ``a``."""
    kind: str = request.param
    await store_meta(store, METAS[kind])
    return kind


async def test_it_is_deleted(store: ObjectStore, meta: str) -> None:
    await store.delete("a")
    assert not await store.exists("a")
    await store.put("a", b"content")
    assert await store.get("a") == b"content"


async def replace(store: ObjectStore) -> None:
    await store.put("a", b"content")


async def replace_revision(store: ObjectStore) -> None:
    message = await store.js.get_message(f"OBJ_{store.bucket}", last_by_subject=meta_subject(store, "a"))
    await store.put("a", b"content", if_revision=message.seq)


async def write(store: ObjectStore) -> None:
    async with store.open_writer("a") as writer:
        await writer.write(b"content")


@pytest.mark.parametrize("way", [replace, replace_revision, write], ids=lambda way: way.__name__)
async def test_it_is_replaced(
    store: ObjectStore, meta: str, way: Callable[[ObjectStore], Awaitable[None]]
) -> None:
    await way(store)
    assert await store.get("a") == b"content"
    info = await store.get_info("a")
    assert (info.metadata, info.description) == ({}, None)


async def test_gc_goes_on(store: ObjectStore, meta: str, caplog: pytest.LogCaptureFixture) -> None:
    await store.put("from", b"content")
    half = {**await read_raw(store, "from"), "metadata": {RENAMING: "to", RENAMING_AT: "0"}}
    await write_raw(store.js, meta_subject(store, "from"), half)
    await store.js.publish(f"$O.{store.bucket}.C.ORPHAN", b"x")
    report = await store.gc(older_than=ALL)
    assert [orphan.nuid for orphan in report.orphans] == ["ORPHAN"]
    assert ("from", "to") in report.renames
    assert await store.get("to") == b"content"
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == meta.startswith("no room for")
    assert all("a rename of 'a'" in each and "was not completed" in each for each in told)
    assert len(report.unreadable) == (meta in ("no number", "numbers in full"))
    assert (await store.gc(older_than=ALL)).orphans == []


async def delete(store: ObjectStore) -> None:
    await store.delete("a")


@pytest.mark.parametrize("way", [delete, replace, replace_revision], ids=lambda way: way.__name__)
async def test_what_cannot_be_completed_keeps_its_chunks(
    store: ObjectStore, way: Callable[[ObjectStore], Awaitable[None]]
) -> None:
    """Who began the rename was going to say less, and may still do that."""
    await store.put("a", b"first")
    document = await read_raw(store, "a")
    others = {key: value for key, value in document.items() if key not in ("bucket", "mtime")}
    await store_meta(store, sized(MAX_META_BYTES - 10, {**others, "description": "FILL", "metadata": TO}))
    with pytest.raises(MaxPayloadError):  # there might be two objects of the same chunks
        await store.update_meta("a", ObjectMeta("a", "short"))
    assert (await store.gc(older_than=ALL)).renames == []
    await way(store)
    await write_raw(store.js, meta_subject(store, LONG), {**document, "name": LONG})
    assert await store.get(LONG) == b"first"


async def test_what_others_could_not_change_is_not_read(store: ObjectStore) -> None:
    await write_raw(store.js, meta_subject(store, "a"), METAS["numbers in full"])
    with pytest.raises(MetaDecodeError, match="written again"):
        await store.get_info("a")
    assert [invalid.revision for invalid in (await store.gc(older_than=ALL)).unreadable] == [1]


@pytest.mark.parametrize(
    ("failure", "ends"),
    [(RequestTimeoutError("late"), False), (BucketSealedError("sealed"), True)],
    ids=lambda value: type(value).__name__,
)
async def test_what_ends_a_collection(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, failure: NatsError, ends: bool
) -> None:
    for name in ("a", "b", "c"):
        await write_raw(
            store.js,
            meta_subject(store, name),
            {**PLAIN, "name": name, "metadata": {RENAMING: name + "2"}},
        )
    real = _gc.complete

    async def complete(bucket: Any, info: Any, **options: Any) -> str | None:
        if info.name == "b":
            raise failure
        return await real(bucket, info, **options)

    monkeypatch.setattr(_gc, "complete", complete)
    if ends:
        with pytest.raises(BucketSealedError):
            await store.gc(older_than=ALL)
    else:
        assert sorted((await store.gc(older_than=ALL)).renames) == [("a", "a2"), ("c", "c2")]


async def test_small_messages(bucket_name: str) -> None:
    """A delete marker is no longer than what the server takes now."""
    async with LocalServer(max_payload=4096) as server, natsproto.connect(server.url) as client:
        store = await client.jetstream().create_object_store(bucket=bucket_name)
        await write_raw(store.js, meta_subject(store, "a"), sized(4096 - 40, SAYS))
        await store.delete("a")
        assert (await read_raw(store, "a")).keys() == {
            "name", "bucket", "nuid", "size", "chunks", "mtime", "deleted",
        }  # fmt: skip


async def test_renames_in_one_batch(new_server: LocalServer, bucket_name: str) -> None:
    """What does not fit is refused, and costs no connection; and what fits needs a shorter marker."""
    async with natsproto.connect(new_server.url) as client:
        store = await client.jetstream().create_object_store(bucket=bucket_name, allow_atomic=True)
        await store.put("a", b"content")
        document = {**await read_raw(store, "a"), "description": "FILL"}
        epoch = client.connection.epoch
        await write_raw(store.js, meta_subject(store, "a"), sized(MAX_META_BYTES - 100, document))
        async with asyncio.timeout(5):
            with pytest.raises(MaxPayloadError):
                await store.rename("a", "b")
        await write_raw(store.js, meta_subject(store, "a"), sized(MAX_META_BYTES - 240, document))
        assert (await store.rename("a", "b")).name == "b"
        assert await store.get("b") == b"content"
        gone = await store.bound_bucket.leader_meta("a")
        assert gone is not None
        assert dict(gone.metadata) == {MOVED: document["nuid"], MOVED_TO: "b"}
        assert "metadata" not in await read_raw(store, "a")
        assert client.connection.epoch == epoch
