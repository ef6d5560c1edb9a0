"""Changes of a bucket that a server refuses, or drops without a word."""

from __future__ import annotations

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import BucketNotFoundError, UnsupportedFeatureError
from objstore.manager import bucket_of


async def test_a_bucket_that_is_not_there(js: JetStreamContext, bucket_name: str) -> None:
    with pytest.raises(BucketNotFoundError):
        await js.update_object_store(bucket=bucket_name, description="text")


async def test_what_an_old_server_drops(old_server: LocalServer, bucket_name: str) -> None:
    async with natsproto.connect(old_server.url) as nc:
        js = nc.jetstream()
        store = await js.create_object_store(bucket=bucket_name)
        with pytest.raises(UnsupportedFeatureError, match="compression"):
            await js.update_object_store(bucket=store.bucket, compression=True)
        await js.delete_object_store(bucket_name)


@pytest.mark.parametrize(
    ("stream", "bucket"), [("OBJ_media", "media"), ("media", None), ("OBJ_", None), ("OBJ_é", None)]
)
def test_which_bucket_a_stream_is(stream: str, bucket: str | None) -> None:
    assert bucket_of(stream) == bucket
