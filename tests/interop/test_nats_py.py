"""Both directions against nats-py 2.16, on both servers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from natsproto.server import LocalServer
from objstore import BucketSealedError, ObjectDeletedError, ObjectMeta, ObjectStore
from support.objects import CHUNK, assert_exact, chunk_counts, pattern, stream

nats = pytest.importorskip("nats")
from nats.js import api  # noqa: E402
from nats.js.errors import ObjectDeletedError as PeerDeletedError  # noqa: E402
from nats.js.errors import ObjectNotFoundError as PeerNotFoundError  # noqa: E402

pytestmark = pytest.mark.peer
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK + 3]


@pytest.fixture
async def peer(server: LocalServer, store: ObjectStore) -> AsyncIterator[Any]:
    """The same bucket, opened by nats-py."""
    client = await nats.connect(server.url, connect_timeout=10)
    yield await client.jetstream().object_store(store.bucket)
    await client.close()
    for name in await store.js.consumer_names(stream(store)):  # it leaves them to expire
        await store.js.delete_consumer(stream(store), name)


async def peer_get(peer: Any, name: str) -> bytes:
    async with asyncio.timeout(30):
        data = (await peer.get(name)).data
    assert isinstance(data, bytes)
    return data


@pytest.mark.parametrize("size", SIZES)
async def test_ours_read_by_theirs(store: ObjectStore, peer: Any, size: int) -> None:
    data = pattern(size)
    ours = await store.put("a", data, "about", headers={"K": ["V"]})
    assert await peer_get(peer, "a") == data
    info = await peer.get_info("a")
    assert (info.name, info.size, info.chunks, info.nuid) == ("a", size, ours.chunks, ours.nuid)
    assert (info.description, info.headers) == ("about", {"K": ["V"]})


@pytest.mark.parametrize("size", SIZES)
async def test_theirs_read_by_ours(store: ObjectStore, peer: Any, size: int) -> None:
    data = pattern(size)
    theirs = await peer.put(
        "a", io.BytesIO(data), meta=api.ObjectMeta(name="a", description="about", headers={"K": "V"})
    )
    assert await store.get("a") == data
    info = await store.get_info("a")
    assert (info.size, info.nuid, info.description) == (size, theirs.nuid, "about")
    assert info.headers == {"K": "V"}
    assert info.wire_digest == theirs.digest


@pytest.mark.parametrize("chunk", [1000, 100_000, 1 << 20])
async def test_chunk_sizes(store: ObjectStore, peer: Any, chunk: int) -> None:
    data = pattern(250_001)
    await store.put("ours", data, chunk_size=chunk)
    assert await peer_get(peer, "ours") == data
    options = api.ObjectMetaOptions(max_chunk_size=chunk)
    await peer.put("theirs", data, meta=api.ObjectMeta(name="theirs", options=options))
    assert await store.get("theirs") == data


async def test_over_each_others_objects(store: ObjectStore, peer: Any) -> None:
    await store.put("a", pattern(3 * CHUNK))
    await peer.put("a", pattern(2 * CHUNK, 2))
    assert await store.get("a") == pattern(2 * CHUNK, 2)
    await assert_exact(store)
    await store.put("a", pattern(5 * CHUNK, 3))
    assert await peer_get(peer, "a") == pattern(5 * CHUNK, 3)
    await assert_exact(store)


async def test_deleted_by_each_other(store: ObjectStore, peer: Any) -> None:
    await store.put("a", pattern(CHUNK))
    await peer.delete("a")
    with pytest.raises(ObjectDeletedError):
        await store.get("a")
    assert [info.deleted for info in await store.list(include_deleted=True)] == [True]
    await store.put("a", b"again")
    assert await peer_get(peer, "a") == b"again"
    await store.delete("a")
    with pytest.raises((PeerNotFoundError, PeerDeletedError)):
        await peer_get(peer, "a")
    await peer.put("a", b"theirs")
    assert await store.get("a") == b"theirs"
    await store.delete("a")
    assert await chunk_counts(store) == {}


async def test_lists(store: ObjectStore, peer: Any) -> None:
    await store.put("a", b"1")
    await peer.put("b", b"2")
    await store.put("c", b"3")
    await store.delete("c")
    await store.add_link("l", await store.get_info("a"))
    await store.add_bucket_link("bl", "elsewhere")
    async with asyncio.timeout(30):
        theirs = {info.name for info in await peer.list(ignore_deletes=True)}
    assert theirs == {info.name for info in await store.list()} == {"a", "b", "l", "bl"}


async def test_watch(store: ObjectStore, peer: Any) -> None:
    await peer.put("a", b"1")
    async with store.watch() as watcher, asyncio.timeout(30):
        assert (await anext(watcher)).name == "a"
        await peer.delete("a")
        info = await anext(watcher)
        assert (info.name, info.deleted) == ("a", True)


async def test_links(store: ObjectStore, peer: Any) -> None:
    await store.put("a", pattern(CHUNK))
    await store.add_link("l", await store.get_info("a"))
    assert await peer_get(peer, "l") == pattern(CHUNK)
    info = await peer.get_info("l")
    assert (info.options.link.bucket, info.options.link.name) == (store.bucket, "a")


async def test_metadata(store: ObjectStore, peer: Any) -> None:
    await store.put("a", b"1", metadata={"k": "v"}, filename="f")
    assert await peer_get(peer, "a") == b"1"  # it knows no metadata, and takes no harm from it
    await peer.put("b", b"2")
    await store.update_meta("b", ObjectMeta("b", "new", {"H": "h"}))
    assert (await peer.get_info("b")).description == "new"
    assert await peer_get(peer, "b") == b"2"
    await store.update_meta("b", ObjectMeta("c"))
    assert await peer_get(peer, "c") == b"2"
    with pytest.raises((PeerNotFoundError, PeerDeletedError)):
        await peer_get(peer, "b")


async def test_bucket_of_theirs(server: LocalServer, store: ObjectStore, peer: Any) -> None:
    js = store.js
    client = await nats.connect(server.url, connect_timeout=10)
    try:
        name = store.bucket + "-py"
        theirs = await client.jetstream().create_object_store(
            name, config=api.ObjectStoreConfig(description="d", ttl=3600)
        )
        await theirs.put("a", pattern(3 * CHUNK))
        ours = await js.object_store(name)
        status = await ours.status()
        assert (status.description, status.count, status.sealed) == ("d", 1, False)
        assert status.ttl is not None
        assert status.ttl.total_seconds() == 3600
        assert (await theirs.status()).size == status.size
        assert await ours.get("a") == pattern(3 * CHUNK)
        await theirs.seal()
        assert (await ours.status()).sealed
        with pytest.raises(BucketSealedError):
            await ours.put("b", b"")
        assert await ours.get("a") == pattern(3 * CHUNK)
        await js.delete_object_store(name)
    finally:
        await client.close()
