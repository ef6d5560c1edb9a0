"""A mirror answers direct gets for its origin, whoever made it: what it does not have is not missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.testing import DUPLICATE, Action, FaultProxy
from natsproto.wire import Pub
from objstore import (
    BucketAlreadyExistsError,
    BucketSource,
    ObjectDeletedError,
    ObjectNotFoundError,
    ObjectStore,
    ObjectStoreConfig,
)
from objstore.format.buckets import stream_config
from objstore.format.codec import MetaDecodeError
from support.objects import CHUNK, assert_exact, pattern, stream
from support.skips import left_out

TIMES = 40
DATA = pattern(3 * CHUNK)


@pytest.fixture(params=["same subjects", "other subjects"])
async def mirrored(
    store: ObjectStore, js: JetStreamContext, request: pytest.FixtureRequest
) -> AsyncIterator[ObjectStore]:
    """A bucket that was opened before somebody made a mirror of it, on the same server."""
    if request.param == "other subjects" and js.client.server_info["version"].startswith("2.9."):
        left_out("nats-server 2.9 has no subject transforms")
    mirror = {"name": stream(store)}
    if request.param == "other subjects":
        mirror["subject_transforms"] = [{"src": f"$O.{store.bucket}.>", "dest": f"$O.{store.bucket}-copy.>"}]  # type: ignore[assignment]
    name = f"{stream(store)}-copy"
    await js.create_stream({"name": name, "mirror": mirror, "allow_direct": True, "mirror_direct": True})
    await asyncio.wait_for(_answers(js, stream(store), name), 60)
    yield store
    await js.delete_stream(name)


async def _answers(js: JetStreamContext, origin: str, mirror: str) -> None:
    """Wait until the mirror has begun to answer: it listens once it has caught up."""
    subject = f"$JS.API.DIRECT.GET.{origin}"
    while True:
        msg = await js.client.request(subject, b'{"seq":1}', timeout=20)
        if msg.status == 404 or (msg.headers and msg.headers.get("Nats-Stream") == mirror):
            return


@pytest.fixture(autouse=True)
async def first(store: ObjectStore) -> None:
    await store.put("first", b"1")


async def test_what_was_written_is_read(mirrored: ObjectStore) -> None:
    store = mirrored
    for number in range(TIMES):
        info = await store.put("a", DATA[number:], chunk_size=CHUNK)
        assert (await store.get_info("a")).revision == info.revision
        assert await store.get("a") == DATA[number:]
        assert await store.get_range("a", 5, CHUNK + 5) == DATA[number + 5 : number + CHUNK + 5]
        assert await store.exists("a")
        await store.put("small", b"%d" % number)
        assert await store.get("small") == b"%d" % number
        await store.delete("a")
        assert not await store.exists("a")
        with pytest.raises((ObjectNotFoundError, ObjectDeletedError)):
            await store.get("a")


async def test_nothing_is_removed_because_a_mirror_does_not_have_it(mirrored: ObjectStore) -> None:
    store = mirrored
    for number in range(10):
        await store.put(f"o{number}", DATA, chunk_size=CHUNK)
    for _ in range(TIMES):
        report = await store.gc(older_than=timedelta(seconds=-60))
        assert report.orphans == []
    assert (await store.verify(deep=True)).ok
    assert len(await store.list()) == 11
    await assert_exact(store)


async def test_a_look_at_other_metas(mirrored: ObjectStore) -> None:
    """Objects that are renamed again and again keep their chunks, whoever answers what else names them."""
    store = mirrored
    for _ in range(TIMES):
        await store.put("a", DATA, chunk_size=CHUNK)
        await store.rename("a", "b")
        await store.put("a", b"x")
        await store.rename("b", "c")
        assert await store.get("c") == DATA
        await store.delete("c")
        await store.delete("a")


def double(event: Any, raw: bytes) -> Action | None:
    """Have each chunk stored twice: the put removes the copies, which mirrors keep."""
    return DUPLICATE if isinstance(event, Pub) and b".C." in event.subject else None


async def assert_read(store: ObjectStore, name: str, times: int) -> None:
    for _ in range(times):
        assert await store.get(name) == DATA
        assert await store.get_range(name, 5, CHUNK + 5) == DATA[5 : CHUNK + 5]
        async with store.open_reader(name) as reader:
            assert await reader.read() == DATA


async def test_a_mirror_answers_that_has_more_chunks(mirrored: ObjectStore) -> None:
    assert mirrored.client.connected_url is not None
    async with FaultProxy(mirrored.client.connected_url) as proxy, natsproto.connect(proxy.url) as nc:
        proxy.to_server = double
        store = await nc.jetstream().object_store(mirrored.bucket)
        for number in range(TIMES // 4):
            await store.put(f"o{number}", DATA, chunk_size=CHUNK)
    for number in range(TIMES // 4):
        await assert_read(await mirrored.client.jetstream().object_store(mirrored.bucket), f"o{number}", 4)


@pytest.mark.parametrize("kind", ["mirror", "source"])
async def test_a_copy_with_more_chunks(store: ObjectStore, js: JetStreamContext, kind: str) -> None:
    if js.client.server_info["version"].startswith("2.9."):
        left_out("nats-server 2.9 has no subject transforms")
    name = f"{store.bucket}-copy"
    copies: dict[str, Any] = {"mirror": store.bucket} if kind == "mirror" else {"sources": [store.bucket]}
    copy = await js.create_object_store(name, **copies)
    try:
        assert js.client.connected_url is not None
        async with FaultProxy(js.client.connected_url) as proxy, natsproto.connect(proxy.url) as nc:
            proxy.to_server = double
            origin = await nc.jetstream().object_store(store.bucket)
            number = most = chunks = 0
            # Some chunks are copied before the put has removed them: which ones, and of how many objects?
            async with asyncio.timeout(60), copy.watch() as changes:
                while number < 10 or most <= chunks:
                    chunks = (await origin.put(f"o{number}", DATA, chunk_size=CHUNK)).chunks
                    async for info in changes:  # until the server has copied it
                        if info.name == f"o{number}":
                            break
                    number += 1
                    most = max((await js.stream_subjects(f"OBJ_{name}", f"$O.{name}.C.*")).values())
        for each in range(number):
            await assert_read(copy, f"o{each}", 1)
    finally:
        await js.delete_object_store(name)


async def test_a_mirror_made_by_an_earlier_version_is_the_same_bucket(
    store: ObjectStore, js: JetStreamContext
) -> None:
    """It had asked for direct reads of every mirror. A program that creates it at each start goes on."""
    if js.client.server_info["version"].startswith("2.9."):
        left_out("nats-server 2.9 has no subject transforms")
    config = ObjectStoreConfig(bucket=f"{store.bucket}-copy", mirror=BucketSource(store.bucket))
    document = {**stream_config(config), "mirror_direct": True}
    await js.create_stream(document)
    try:
        for _ in range(2):
            copy = await js.create_object_store(config)
            assert copy.bucket == config.bucket
        with pytest.raises(BucketAlreadyExistsError):
            await js.create_object_store(replace(config, description="another"))
    finally:
        await js.delete_object_store(config.bucket)


@pytest.mark.parametrize("block", [b"NATS/1.0\r\nA: b", b"\r\nNats-Stream: evil", b"N"])
async def test_a_broken_header_is_no_mirror(store: ObjectStore, block: bytes) -> None:
    """The server adds its own lines to what a writer has sent, wherever that ends."""
    subject = store._bucket.meta_subject("evil")
    await store.client.request_frame(subject.encode(), b"{}", block)
    with pytest.raises(MetaDecodeError):
        await store.get_info("evil")
    assert not store._bucket.replicated
