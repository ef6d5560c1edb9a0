"""Buckets: what is created, what is refused and how, full ones, and servers that cannot."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import APIError, AuthorizationError, NatsError, NoServersError
from natsproto.jetstream.api.errors import JetStreamNotEnabledError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import (
    BadBucketError,
    BadObjectMetaError,
    BucketAlreadyExistsError,
    BucketNotFoundError,
    ObjectDeletedError,
    ObjectMeta,
    ObjectNotFoundError,
    ObjectStoreConfig,
    StoreFullError,
    UnsupportedFeatureError,
)
from support.objects import CHUNK, KIB, assert_exact, chunk_counts, pattern, stream

BAD_NAMES = ["", "a b", "a.b", "a\n", "a*", ">", "ü", "a/b", "x" * 252, None, 5, b"a"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_bad_names(js: JetStreamContext, name: Any) -> None:
    """D11: refused without a byte; a trailing newline, too."""
    sent = js.client.stats.out_msgs
    for call in (
        js.object_store(name),
        js.create_object_store(bucket=name),
        js.delete_object_store(name),
    ):
        with pytest.raises(BadBucketError):
            await call
    assert js.client.stats.out_msgs == sent


@pytest.mark.parametrize(
    "params",
    [
        {"storage": "tape"},
        {"replicas": 0},
        {"replicas": 6},
        {"replicas": "1"},
        {"max_bytes": -2},
        {"max_bytes": "1"},
        {"ttl": 5},
        {"ttl": timedelta(seconds=-1)},
        {"ttl": timedelta(milliseconds=1)},
        {"description": 5},
        {"metadata": {"a": 1}},
        {"placement": "here"},
        {"compression": "s2"},
    ],
    ids=repr,
)
async def test_bad_configuration(js: JetStreamContext, bucket_name: str, params: dict[str, Any]) -> None:
    sent = js.client.stats.out_msgs
    with pytest.raises(BadBucketError):
        await js.create_object_store(bucket=bucket_name, **params)
    assert js.client.stats.out_msgs == sent


async def test_arguments(js: JetStreamContext, bucket_name: str) -> None:
    with pytest.raises(BadBucketError):
        await js.create_object_store()
    with pytest.raises(BadBucketError):
        await js.create_object_store({"bucket": bucket_name})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="nonsense"):
        await js.create_object_store(bucket=bucket_name, nonsense=1)
    config = ObjectStoreConfig(bucket_name, "one", timedelta(days=1), storage="memory")
    store = await js.create_object_store(config, description="two")
    status = await store.status()
    assert (status.description, status.ttl, status.storage) == ("two", timedelta(days=1), "memory")
    assert await js.delete_object_store(bucket_name) is True


async def test_existing(js: JetStreamContext, bucket_name: str) -> None:
    with pytest.raises(BucketNotFoundError):
        await js.object_store(bucket_name)
    with pytest.raises(BucketNotFoundError):
        await js.delete_object_store(bucket_name)
    store = await js.create_object_store(bucket=bucket_name, max_bytes=1 << 20)
    await store.put("a", b"1")
    again = await js.create_object_store(bucket=bucket_name, max_bytes=1 << 20)
    assert await again.get("a") == b"1"
    for params in ({}, {"max_bytes": 1 << 21}, {"max_bytes": 1 << 20, "storage": "memory"}):
        with pytest.raises(BucketAlreadyExistsError) as caught:
            await js.create_object_store(bucket=bucket_name, **params)
        assert caught.value.bucket == bucket_name
    assert await (await js.object_store(bucket_name)).get("a") == b"1"
    await js.delete_object_store(bucket_name)


async def test_stream_on_the_wire(js: JetStreamContext, bucket_name: str) -> None:
    await js.create_object_store(bucket=bucket_name, ttl=timedelta(hours=1), description="d")
    config = (await js.stream_info(f"OBJ_{bucket_name}")).config.to_json()
    assert config["subjects"] == [f"$O.{bucket_name}.C.>", f"$O.{bucket_name}.M.>"]
    assert (config["discard"], config["allow_rollup_hdrs"], config["allow_direct"]) == ("new", True, True)
    assert (config["max_age"], config["storage"], config["description"]) == (3600 * 10**9, "file", "d")
    await js.delete_object_store(bucket_name)


async def test_replicas_on_one_server(js: JetStreamContext, bucket_name: str) -> None:
    async with asyncio.timeout(15):
        with pytest.raises(BadBucketError):
            await js.create_object_store(bucket=bucket_name, replicas=3)


async def test_new_features_on_an_old_server(
    server: LocalServer, js: JetStreamContext, bucket_name: str
) -> None:
    """What the server drops silently is an error, and no bucket is left."""
    params: dict[str, Any] = {"bucket": bucket_name, "metadata": {"a": "b"}, "compression": True}
    if server.version.startswith("2.9."):
        with pytest.raises(UnsupportedFeatureError) as caught:
            await js.create_object_store(**params)
        assert caught.value.minimum == "2.10.0"
        with pytest.raises(BucketNotFoundError):
            await js.object_store(bucket_name)
        return
    store = await js.create_object_store(**params)
    status = await store.status()
    assert (dict(status.metadata), status.compression) == ({"a": "b"}, True)
    await store.put("a", pattern(3 * CHUNK))
    assert await store.get("a") == pattern(3 * CHUNK)
    await js.delete_object_store(bucket_name)


# -- full buckets: B6, T18 --------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_doubt")
@pytest.mark.parametrize("storage", ["file", "memory"])
async def test_full_bucket(js: JetStreamContext, bucket_name: str, storage: str) -> None:
    """10077: the old object stays readable; delete works nevertheless, and makes room."""
    store = await js.create_object_store(bucket=bucket_name, max_bytes=10 * CHUNK, storage=storage)
    data = pattern(4 * CHUNK)
    for _ in range(50):  # what nats-server 2.9 drops, see fill()
        await js.publish(f"$O.{bucket_name}.C.filling", b"")
    await store.put("a", data)
    for source in (pattern(9 * CHUNK, 2), [pattern(CHUNK, n) for n in range(9)]):
        with pytest.raises(StoreFullError) as caught:
            await store.put("a", source)
        assert caught.value.err_code == 10077
        assert (caught.value.bucket, caught.value.name) == (bucket_name, "a")
        assert await store.get("a") == data
        assert sorted((await chunk_counts(store)).values()) == [4, 50]
    await fill(js, bucket_name)
    for call in (
        store.put("b", b""),
        store.put("a", b"1"),
        store.create("c", b"1"),
        store.update_meta("a", ObjectMeta("a", "x" * 100)),
        store.update_meta("a", ObjectMeta("d")),
        store.add_bucket_link("l", "x"),
    ):
        with pytest.raises(StoreFullError):
            await call
    assert await store.get("a") == data
    assert await store.delete("a") is True
    with pytest.raises(ObjectNotFoundError):
        await store.get("a")
    await store.put("b", data[CHUNK:])
    assert await store.get("b") == data[CHUNK:]
    await js.delete_object_store(bucket_name)


async def fill(js: JetStreamContext, bucket: str) -> None:
    """Leave no room for a meta, by chunks nobody refers to.

    Close to the limit nats-server 2.9 takes messages whose overhead it forgot, and drops the oldest ones.
    """
    size = 64 * KIB
    while size >= 128:
        try:
            await js.publish(f"$O.{bucket}.C.filling", bytes(size))
        except APIError:
            size //= 2


async def test_meta_does_not_fit(js: JetStreamContext, bucket_name: str) -> None:
    """The chunks fit, the meta does not: nothing is left of them."""
    store = await js.create_object_store(bucket=bucket_name, max_bytes=2 * CHUNK)
    await store.put("a", b"old")
    used = (await js.stream_info(stream(store))).raw["state"]["bytes"]
    with pytest.raises(StoreFullError):
        await store.put("a", pattern(2 * CHUNK - used - 250))
    assert await store.get("a") == b"old"
    await assert_exact(store)
    await js.delete_object_store(bucket_name)


async def test_server_limit(new_server: LocalServer) -> None:
    """10023 / 10047: the server has not that much room."""
    config = "jetstream { max_file_store: 2MB, max_memory_store: 1MB }"
    async with LocalServer(config=config) as server, natsproto.connect(server.url) as client:
        js = client.jetstream()
        with pytest.raises((StoreFullError, BadBucketError)):
            await js.create_object_store(bucket="big", max_bytes=1 << 30)
        store = await js.create_object_store(bucket="b")
        await store.put("a", pattern(4 * CHUNK))
        with pytest.raises(StoreFullError):
            await store.put("a", pattern(20 * CHUNK))
        assert await store.get("a") == pattern(4 * CHUNK)
        await assert_exact(store)


async def test_message_size_limit(
    js: JetStreamContext, bucket_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B8: max_msg_size on the stream refuses a chunk for good."""
    monkeypatch.setattr("objstore.bucket.bucket.CONFIG_AGE", 3600.0)  # the put does not know of it
    store = await js.create_object_store(bucket=bucket_name)
    info = await js.stream_info(stream(store))
    await js.update_stream({**info.config.to_json(), "max_msg_size": 64 * KIB})
    async with asyncio.timeout(15):
        with pytest.raises(APIError):
            await store.put("a", pattern(3 * CHUNK))
    assert await chunk_counts(store) == {}
    await store.put("a", pattern(3 * CHUNK), chunk_size=32 * KIB)
    assert await store.get("a") == pattern(3 * CHUNK)
    await js.delete_object_store(bucket_name)


# -- servers ----------------------------------------------------------------------------------------------


async def test_unreachable_and_wrong_password() -> None:
    async with asyncio.timeout(30):
        with pytest.raises(NoServersError):
            await natsproto.connect("nats://127.0.0.1:9", connect_timeout=1)
        async with LocalServer(user="u", password="secret") as server:
            with pytest.raises(AuthorizationError) as caught:
                await natsproto.connect(server.url, user="u", password="canary")
            assert "canary" not in str(caught.value)


async def test_jetstream_off() -> None:
    async with LocalServer(jetstream=False) as server, natsproto.connect(server.url) as client:
        js = client.jetstream()
        async with asyncio.timeout(15):
            for call in (
                js.object_store("b"),
                js.create_object_store(bucket="b"),
                js.delete_object_store("b"),
            ):
                with pytest.raises(JetStreamNotEnabledError):
                    await call


async def test_account_without_jetstream() -> None:
    config = "accounts { A: { users: [ { user: a, password: a } ] } }"
    async with (
        LocalServer(config=config) as server,
        natsproto.connect(server.url, user="a", password="a") as client,
        asyncio.timeout(5),
    ):
        with pytest.raises(NatsError):
            await client.jetstream().object_store("b")


@pytest.mark.parametrize("limit", [64 * KIB, 4 * KIB])
async def test_small_max_payload(limit: int) -> None:
    """B8: the default chunk size follows; an explicit one is refused before any byte."""
    async with LocalServer(max_payload=limit) as server, natsproto.connect(server.url) as client:
        store = await client.jetstream().create_object_store(bucket="b")
        data = pattern(300_001)
        info = await store.put("a", data)
        assert info.chunks == -(-len(data) // limit)
        assert await store.get("a") == data
        with pytest.raises(BadObjectMetaError):
            await store.put("a", data, chunk_size=limit + 1)
        with pytest.raises(ValueError):
            await store.put("a", data, "x" * limit)
        with pytest.raises(ValueError):
            await store.update_meta("a", ObjectMeta("a", "x" * limit))
        assert client.is_connected
        assert await store.get("a") == data


async def test_permissions() -> None:
    """B10: refused at once, by the server's word, and the previous object is intact."""
    denied = {"chunks": "$O.b.C.>", "meta": "$O.b.M.>", "purge": "$JS.API.STREAM.PURGE.>"}
    users = "".join(
        f'{{ user: {name}, password: p, permissions: {{ publish: {{ deny: ["{subject}"] }} }} }}\n'
        for name, subject in denied.items()
    )
    config = "accounts { A { jetstream: enabled, users: [ { user: all, password: p }\n" + users + "] } }\n"
    async with (
        LocalServer(config=config) as server,
        natsproto.connect(server.url, user="all", password="p") as owner,
    ):
        store = await owner.jetstream().create_object_store(bucket="b")
        data = pattern(3 * CHUNK)
        await store.put("a", data)
        for user in denied:
            async with natsproto.connect(server.url, user=user, password="p") as client:
                theirs = await client.jetstream().object_store("b")
                async with asyncio.timeout(20):
                    if user == "purge":
                        await theirs.put("other", b"1")
                        await theirs.put("other", b"2")
                        assert await theirs.get("other") == b"2"
                        continue
                    with pytest.raises(PermissionError):
                        await theirs.put("a", pattern(2 * CHUNK, 2))
                    if user == "meta":
                        with pytest.raises(PermissionError):
                            await theirs.delete("a")
                assert await theirs.get("a") == data
        assert {info.name for info in await store.list()} == {"a", "other"}
        counts = await chunk_counts(store)
        assert len(counts) == 3  # "other" has left one set behind, for want of the right to purge


async def test_ttl(js: JetStreamContext, bucket_name: str) -> None:
    store = await js.create_object_store(bucket=bucket_name, ttl=timedelta(milliseconds=300))
    await store.put("a", b"1")
    async with asyncio.timeout(20):
        while await store.exists("a"):
            pass
    with pytest.raises(ObjectNotFoundError) as caught:
        await store.get("a")
    assert not isinstance(caught.value, ObjectDeletedError)
    await js.delete_object_store(bucket_name)
