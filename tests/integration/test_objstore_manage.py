"""Buckets after their creation: update, enumerate, mirror, source; nothing unknown is ever dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

import natsproto
from natsproto.errors import APIError
from natsproto.jetstream.api.models import StreamInfo
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import (
    BadBucketError,
    BucketNotFoundError,
    BucketSealedError,
    BucketSource,
    ObjectStore,
    ObjectStoreConfig,
    UnsupportedFeatureError,
    sync,
)


@pytest.fixture
async def js_new(new_server: LocalServer) -> AsyncIterator[JetStreamContext]:
    async with natsproto.connect(new_server.url) as nc:
        yield nc.jetstream()


def fresh() -> str:
    return "m-" + uuid4().hex[:12]


async def test_update_changes_only_what_is_named(store: ObjectStore) -> None:
    js = store.js
    await store.put("a", b"kept")
    changed = await js.update_object_store(bucket=store.bucket, description="new", ttl=timedelta(hours=2))
    status = await changed.status()
    assert (status.description, status.ttl, status.count) == ("new", timedelta(hours=2), 1)
    again = await (await js.update_object_store(bucket=store.bucket, max_bytes=10**9)).status()
    assert (again.description, again.ttl, again.max_bytes) == ("new", timedelta(hours=2), 10**9)
    assert await store.get("a") == b"kept"


async def test_update_with_a_whole_configuration_resets_the_rest(store: ObjectStore) -> None:
    await store.js.update_object_store(bucket=store.bucket, description="to go")
    changed = await store.js.update_object_store(ObjectStoreConfig(store.bucket, max_bytes=10**8))
    status = await changed.status()
    assert (status.description, status.max_bytes) == (None, 10**8)


async def test_update_keeps_fields_the_library_does_not_know(js: JetStreamContext) -> None:
    bucket = fresh()
    store = await js.create_object_store(bucket=bucket)
    config = (await js.stream_info(f"OBJ_{bucket}")).config.to_json()
    await js.update_stream({**config, "max_consumers": -1, "max_msg_size": 2_000_000, "no_ack": False})
    await js.update_object_store(bucket=bucket, description="touched")
    after = (await js.stream_info(f"OBJ_{bucket}")).config.to_json()
    assert after["max_msg_size"] == 2_000_000
    assert after["description"] == "touched"
    await store.seal()
    sealed = (await js.stream_info(f"OBJ_{bucket}")).config.to_json()
    assert sealed["max_msg_size"] == 2_000_000
    await js.delete_object_store(bucket)


async def test_update_errors(store: ObjectStore) -> None:
    with pytest.raises(BucketNotFoundError):
        await store.js.update_object_store(bucket="no-such-bucket", description="x")
    with pytest.raises(BadBucketError):
        await store.js.update_object_store(bucket=store.bucket, storage="memory")
    with pytest.raises(BadBucketError):
        await store.js.update_object_store(description="no bucket named")
    with pytest.raises(TypeError, match="no_such_field"):
        await store.js.update_object_store(bucket=store.bucket, no_such_field=1)


async def test_create_or_update(js: JetStreamContext) -> None:
    bucket = fresh()
    await js.create_or_update_object_store(bucket=bucket, description="one")
    await js.create_or_update_object_store(bucket=bucket, description="one")
    store = await js.create_or_update_object_store(bucket=bucket, description="two")
    assert (await store.status()).description == "two"
    await js.delete_object_store(bucket)


async def test_names_and_statuses(js: JetStreamContext) -> None:
    buckets = sorted(fresh() for _ in range(3))
    for bucket in buckets:
        await js.create_object_store(bucket=bucket, description=bucket)
    await js.create_stream({"name": f"KV_{fresh()}", "subjects": [f"$KV.{fresh()}.>"]})
    found = await js.object_store_names()
    assert [name for name in found if name in buckets] == buckets
    assert not [name for name in found if name.startswith("KV_")]
    statuses = {status.bucket: status for status in await js.object_store_statuses()}
    for bucket in buckets:
        status = statuses[bucket]
        assert (status.description, status.count, status.messages) == (bucket, -1, 0)
        assert status.created is not None
        assert status.raw["config"]["name"] == f"OBJ_{bucket}"
        await js.delete_object_store(bucket)


async def test_streams_of_others_are_not_listed(js: JetStreamContext, server: LocalServer) -> None:
    """They are called OBJ_…, as a bucket's stream is, and hold something else."""
    bucket, foreign, copy = (fresh() for _ in range(3))
    store = await js.create_object_store(bucket=bucket)
    await store.put("a", b"content")
    await js.create_stream({"name": f"OBJ_{foreign}", "subjects": [f"{foreign}.>"]})
    await js.create_stream({"name": f"OBJ_{copy}", "mirror": {"name": f"OBJ_{bucket}"}})

    def ours(names: Iterable[str]) -> set[str]:
        return {bucket, foreign, copy}.intersection(names)

    def blocking() -> None:
        with sync.connect(server.url) as client:
            there = client.jetstream()
            assert ours(there.object_store_names()) == {bucket, copy}
            assert ours(status.bucket for status in there.object_store_statuses()) == {bucket, copy}
            with pytest.raises(BadBucketError, match="is no bucket"):
                there.object_store(foreign)

    assert ours(await js.object_store_names()) == {bucket, copy}
    assert ours(status.bucket for status in await js.object_store_statuses()) == {bucket, copy}
    await asyncio.to_thread(blocking)
    with pytest.raises(BadBucketError, match="is no bucket: it listens on") as caught:
        await js.object_store(foreign, create=True)
    assert (caught.value.field, caught.value.value) == ("subjects", [f"{foreign}.>"])
    with pytest.raises(BadBucketError, match="is no bucket"):
        await js.delete_object_store(foreign)
    assert (await js.stream_info(f"OBJ_{foreign}")).config.subjects == [f"{foreign}.>"]
    for name in (bucket, copy):
        await js.delete_object_store(name)
    await js.delete_stream(f"OBJ_{foreign}")


async def test_metadata_and_compression(js_new: JetStreamContext) -> None:
    bucket = fresh()
    store = await js_new.create_object_store(bucket=bucket, metadata={"k": "v"}, compression=True)
    status = await store.status()
    assert status.metadata == {"k": "v"}
    assert status.compression
    await js_new.update_object_store(bucket=bucket, metadata={"other": "pair"})
    after = await store.status()
    assert after.metadata == {"other": "pair"}
    assert after.compression
    await js_new.delete_object_store(bucket)


async def test_flags_of_newer_servers(js_new: JetStreamContext) -> None:
    bucket = fresh()
    store = await js_new.create_object_store(bucket=bucket, allow_atomic=True, allow_msg_ttl=True)
    status = await store.status()
    assert status.allow_atomic
    assert status.allow_msg_ttl
    await js_new.update_object_store(bucket=bucket, description="x")
    assert (await store.status()).allow_atomic
    await js_new.delete_object_store(bucket)


@pytest.mark.parametrize(
    ("field", "value", "minimum"),
    [
        ("metadata", {"k": "v"}, "2.10.0"),
        ("compression", True, "2.10.0"),
        ("allow_msg_ttl", True, "2.11.0"),
        ("allow_atomic", True, "2.12.0"),
        ("sources", ["other"], "2.10.0"),
    ],
)
async def test_what_an_old_server_drops(
    old_server: LocalServer, field: str, value: object, minimum: str
) -> None:
    async with natsproto.connect(old_server.url) as nc:
        js = nc.jetstream()
        bucket = fresh()
        with pytest.raises(UnsupportedFeatureError, match=minimum) as caught:
            await js.create_object_store(bucket=bucket, **{field: value})
        assert caught.value.minimum == minimum
        assert bucket not in await js.object_store_names(), "the bucket must not be kept"
        # A bucket that was there before is not taken for the one just made.
        await js.create_object_store(bucket=bucket)
        with pytest.raises((UnsupportedFeatureError, BadBucketError)):
            await js.create_object_store(bucket=bucket, **{field: value})
        assert bucket in await js.object_store_names()
        await js.delete_object_store(bucket)


@pytest.mark.parametrize("when", ["before", "meanwhile", "afterwards"])
async def test_a_bucket_of_others_is_never_removed(
    js: JetStreamContext, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Whatever the answer to its creation says: it was there before, or another client was faster."""
    bucket = fresh()
    params: dict[str, Any] = {"bucket": bucket, "description": "the same"}

    async def made_by_others() -> None:
        await (await js.create_object_store(**params)).put("a", b"data")

    if when == "before":
        await made_by_others()
    else:
        create = js.create_stream

        async def slower(document: dict[str, Any]) -> StreamInfo:
            monkeypatch.undo()
            info = await create(document) if when == "afterwards" else None
            await made_by_others()
            monkeypatch.setattr("objstore.manager.config_matches", lambda *_: ["metadata"])
            return info or await create(document)

        monkeypatch.setattr(js, "create_stream", slower)
    monkeypatch.setattr("objstore.manager.config_matches", lambda *_: ["metadata"])
    with pytest.raises(UnsupportedFeatureError):
        await js.create_object_store(**params)
    monkeypatch.undo()
    assert await (await js.object_store(bucket)).get("a") == b"data"
    await js.delete_object_store(bucket)


async def caught_up(store: ObjectStore, names: set[str]) -> None:
    async with asyncio.timeout(30):
        while {info.name for info in await store.list()} != names:
            pass


async def test_mirror(js_new: JetStreamContext) -> None:
    origin, copy = fresh(), fresh()
    source = await js_new.create_object_store(bucket=origin)
    data = bytes(range(256)) * 2000
    await source.put("a", data, headers={"K": "v"})
    mirror = await js_new.create_object_store(bucket=copy, mirror=origin)
    await caught_up(mirror, {"a"})
    assert await mirror.get("a") == data
    info = await mirror.get_info("a")
    assert (info.bucket, info.headers) == (copy, {"K": "v"})
    assert (await mirror.status()).mirror == BucketSource(origin)
    assert copy in await js_new.object_store_names()
    for call in (mirror.put("b", b""), mirror.delete("a"), mirror.add_bucket_link("l", origin)):
        with pytest.raises(BucketSealedError, match="mirror"):
            await call
    await js_new.delete_object_store(copy)
    await js_new.delete_object_store(origin)


async def test_sources(js_new: JetStreamContext) -> None:
    one, two, both = fresh(), fresh(), fresh()
    for bucket in (one, two):
        store = await js_new.create_object_store(bucket=bucket)
        await store.put(f"from {bucket}", bucket.encode() * 100_000)
    gathered = await js_new.create_object_store(bucket=both, sources=[one, BucketSource(two)])
    await gathered.put("own", b"own")
    await caught_up(gathered, {"own", f"from {one}", f"from {two}"})
    assert await gathered.get(f"from {two}") == two.encode() * 100_000
    assert (await gathered.status()).sources == (BucketSource(one), BucketSource(two))
    for bucket in (both, one, two):
        await js_new.delete_object_store(bucket)


async def test_domain_and_prefix() -> None:
    async with LocalServer(domain="hub") as server, natsproto.connect(server.url) as nc:
        store = await nc.jetstream(domain="hub").create_object_store(bucket="b")
        data = b"x" * 300_000
        await store.put("a", data)
        for context in (nc.jetstream(), nc.jetstream(prefix="$JS.hub.API")):
            assert await (await context.object_store("b")).get("a") == data
            assert await context.object_store_names() == ["b"]
        assert [info.name for info in await store.list()] == ["a"]
        await nc.jetstream(domain="hub").delete_object_store("b")


@pytest.mark.parametrize(
    "params",
    [
        {"mirror": "same"},
        {"mirror": "a b"},
        {"mirror": "x", "sources": ["y"]},
        {"sources": "not a list"},
        {"sources": [5]},
        {"mirror": BucketSource("x", "bad domain")},
        {"allow_atomic": "yes"},
    ],
    ids=repr,
)
async def test_bad_configuration_is_refused_before_any_byte(js_new: JetStreamContext, params: dict) -> None:
    before = js_new.client.stats.out_msgs
    with pytest.raises(BadBucketError):
        await js_new.create_object_store(bucket="same", **params)
    assert js_new.client.stats.out_msgs == before


@pytest.mark.parametrize("times", [2, 100], ids=["for a moment", "for good"])
async def test_a_store_that_could_not_be_made(
    js: JetStreamContext, bucket_name: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """With the last stream of an account its folder goes, and with it what is being made there."""
    create, calls = js.create_stream, 0

    async def beside_a_deletion(document: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise APIError(500, 10049, "error creating store for stream")
        return await create(document)

    monkeypatch.setattr(js, "create_stream", beside_a_deletion)
    if times > 10:
        async with asyncio.timeout(10):
            with pytest.raises(APIError, match="10049"):
                await js.create_object_store(bucket=bucket_name)
        assert calls == 6
    else:
        store = await js.create_object_store(bucket=bucket_name)
        await store.put("a", b"x")
        await js.delete_object_store(bucket_name)
