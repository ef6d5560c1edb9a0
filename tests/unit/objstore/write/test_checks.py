"""What can be checked of a put before a byte is sent: name, options, sizes, time to live, the meta."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError, InvalidNameError, MaxPayloadError, UnsupportedFeatureError
from objstore import BadBucketError, BadObjectMetaError, BucketSealedError, ObjectLink
from objstore.bucket.binding import bind
from objstore.bucket.bucket import NO_USER_META, Bucket
from objstore.format.models import ObjectMetaOptions
from objstore.format.naming import DEFAULT_CHUNK_SIZE
from objstore.write.checks import prepare
from support.memory_server import MemoryServer


@pytest.fixture
async def bucket(server: MemoryServer) -> Bucket:
    await server.bucket()
    return await bind(server.js, "b")


def prepared(bucket: Bucket, name: str = "a", **options: Any) -> tuple[Any, int]:
    given = {"about": NO_USER_META, "options": None, "chunk_size": None, "ttl": None, **options}
    return prepare(bucket, name, **given)


async def test_a_template_and_a_chunk_size(bucket: Bucket) -> None:
    template, size = prepared(bucket)
    assert (template.name, template.bucket, size) == ("a", "b", DEFAULT_CHUNK_SIZE)
    assert template.options.max_chunk_size == size
    assert prepared(bucket, chunk_size=100)[1] == 100
    assert prepared(bucket, options=ObjectMetaOptions(None, 77))[1] == 77
    assert prepared(bucket, options=ObjectMetaOptions(None, 77), chunk_size=5)[1] == 5
    described = prepared(bucket, about=("d", None, None, {"k": "v"}))[0]
    assert (described.description, described.metadata["k"]) == ("d", "v")


@pytest.mark.parametrize("size", [0, -1, 1 << 21, True, 1.5])
async def test_chunk_sizes_that_cannot_be(bucket: Bucket, size: Any) -> None:
    with pytest.raises(BadObjectMetaError):
        prepared(bucket, chunk_size=size)


async def test_what_is_refused(server: MemoryServer, bucket: Bucket) -> None:
    with pytest.raises(InvalidNameError):
        prepared(bucket, "")
    for options in (7, {"max_chunk_size": 5}):
        with pytest.raises(BadObjectMetaError, match="options must be ObjectMetaOptions"):
            prepared(bucket, options=options)
    with pytest.raises(BadObjectMetaError, match="add_link"):
        prepared(bucket, options=ObjectMetaOptions(ObjectLink("b", "x")))
    with pytest.raises(BadObjectMetaError):
        prepared(bucket, about=("d", None, {"H": 7}, None))
    with pytest.raises(UnsupportedFeatureError):
        prepared(bucket, ttl=timedelta(seconds=5))
    server.stream().config["sealed"] = True
    with pytest.raises(BucketSealedError):
        prepared(await bind(server.js, "b"))
    await server.client.close()
    with pytest.raises(ConnectionClosedError):
        prepared(bucket)


async def test_headers_take_room(server: MemoryServer, bucket: Bucket) -> None:
    """The largest chunk and its headers fit into one message."""
    limit = bucket.max_message
    assert prepared(bucket, chunk_size=limit)[1] == limit
    with pytest.raises(BadObjectMetaError, match="less 100 bytes for headers"):
        prepared(bucket, chunk_size=limit - 99, room=100)
    server.stream().config["allow_msg_ttl"] = True
    ttl_bucket = await bind(server.js, "b")
    with pytest.raises(BadObjectMetaError):
        prepared(ttl_bucket, chunk_size=limit, ttl=timedelta(seconds=5))


async def test_a_meta_that_is_too_long(server: MemoryServer, bucket: Bucket) -> None:
    long = ("x" * 50_000, None, None, None)
    prepared(bucket, about=long)
    server.session.info["max_payload"] = 40_000
    server.connection.info_changed(server.connection.session)  # type: ignore[arg-type]
    with pytest.raises(MaxPayloadError) as told:
        prepared(bucket, about=long)
    assert told.value.max_payload == 40_000
    server.stream().config["max_msg_size"] = 2000
    small = await bind(server.js, "b")
    prepared(small, chunk_size=1000)
    with pytest.raises(BadBucketError, match="set max_msg_size to") as refused:
        prepared(small, about=("x" * 5000, None, None, None), chunk_size=1000)
    assert (refused.value.field, refused.value.value) == ("max_msg_size", 2000)
