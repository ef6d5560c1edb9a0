"""Links: to what is there and is no link itself; in the place of nothing, a marker or another link."""

from __future__ import annotations

import pytest

from objstore import (
    BadBucketError,
    BucketNotFoundError,
    LinkError,
    ObjectAlreadyExists,
    ObjectDeletedError,
    ObjectLink,
    ObjectMeta,
    ObjectNotFoundError,
    ObjectStore,
)
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.change.links import add_link, check_target
from objstore.format.naming import meta_subject
from support.memory_server import MemoryServer


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    store = await server.bucket()
    await store.put("target", b"content")
    return store


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


HERE = ObjectLink("b", "target")


async def test_a_link_reads_as_its_target(store: ObjectStore, bucket: Bucket) -> None:
    info = await add_link(bucket, ObjectMeta("l", "d"), HERE)
    assert info.is_link
    assert (info.size, info.chunks, info.description) == (0, 0, "d")
    assert await store.get("l") == b"content"
    found = await store.get_info("l")
    assert found.options is not None
    assert found.options.link == HERE


async def test_another_bucket(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    other = await server.bucket("other")
    await other.put("far", b"away")
    await add_link(bucket, ObjectMeta("l"), ObjectLink("other", "far"))
    assert await store.get("l") == b"away"
    await add_link(bucket, ObjectMeta("whole"), ObjectLink("other"))
    await check_target(bucket, ObjectLink("not_there"))  # of a bucket only the name is checked
    with pytest.raises(LinkError, match="link to the bucket"):
        await store.get("whole")


async def test_targets_that_cannot_be(store: ObjectStore, bucket: Bucket) -> None:
    await add_link(bucket, ObjectMeta("link"), HERE)
    await store.put("gone", b"")
    await store.delete("gone")
    for link, kind in (
        (ObjectLink("b", "nowhere"), ObjectNotFoundError),
        (ObjectLink("b", "gone"), ObjectDeletedError),
        (ObjectLink("b", "link"), LinkError),
        (ObjectLink("nowhere", "x"), BucketNotFoundError),
        (ObjectLink("no bucket"), BadBucketError),
        (ObjectLink("b", "x" * 5000), ValueError),
    ):
        with pytest.raises(kind):
            await add_link(bucket, ObjectMeta("l"), link)
    assert not await store.exists("l")


async def test_what_a_link_replaces(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    await store.put("second", b"2")
    first = await add_link(bucket, ObjectMeta("l"), HERE)
    second = await add_link(bucket, ObjectMeta("l"), ObjectLink("b", "second"))
    assert second.revision > first.revision
    assert await store.get("l") == b"2"
    await store.delete("l")
    await add_link(bucket, ObjectMeta("l"), HERE)
    with pytest.raises(ObjectAlreadyExists, match="a link never replaces one"):
        await add_link(bucket, ObjectMeta("second"), HERE)
    assert await store.get("second") == b"2"
    server.put_raw(meta_subject("b", "bad"), b"no JSON")
    with pytest.raises(ObjectAlreadyExists, match="cannot be read; delete it first"):
        await add_link(bucket, ObjectMeta("bad"), HERE)


async def test_links_to_no_bucket_look_it_up_once(server: MemoryServer, bucket: Bucket) -> None:
    """As of what is moved into another bucket: whoever may write links decides how many."""
    await server.js.create_stream({"name": "OBJ_none", "subjects": ["none.>"]})
    other = await server.bucket("other")
    await other.put("far", b"away")
    server.verbs()
    for number in range(5):
        with pytest.raises(BadBucketError):
            await add_link(bucket, ObjectMeta(f"n{number}"), ObjectLink("none", "x"))
        await add_link(bucket, ObjectMeta(f"o{number}"), ObjectLink("other", "far"))
    assert server.verbs().count("STREAM.INFO") == 2
