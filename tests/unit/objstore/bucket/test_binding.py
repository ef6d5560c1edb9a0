"""A bucket is opened if its stream is there, and one of a bucket."""

from __future__ import annotations

import pytest

from natsproto.jetstream.api.models import StreamInfo
from objstore import (
    BadBucketError,
    BucketNotFoundError,
    ObjectStore,
)
from objstore.bucket.binding import bind, bind_other
from support.memory_server import MemoryServer


async def test_binding(server: MemoryServer, store: ObjectStore) -> None:
    bucket = await bind(server.js, "b")
    assert (bucket.name, bucket.stream, bucket.client) == ("b", "OBJ_b", server.client)
    assert bucket.created == server.stream().created
    assert (bucket.direct, bucket.replicated, bucket.atomic, bucket.msg_ttl) == (True, False, False, False)
    with pytest.raises(BucketNotFoundError) as told:
        await bind(server.js, "nowhere")
    assert told.value.bucket == "nowhere"
    for name in ("", "a.b", "a b", "x" * 300):
        with pytest.raises(BadBucketError):
            await bind(server.js, name)


async def test_another_bucket_has_the_same_budget(server: MemoryServer, store: ObjectStore) -> None:
    bucket = await bind(server.js, "b")
    await server.bucket("other")
    bucket.retry_budget = 3.0
    other = await bind_other(bucket, "other")
    assert (other.name, other.retry_budget) == ("other", 3.0)


async def test_a_stream_that_is_none_is_not_kept_by_the_error(server: MemoryServer) -> None:
    """Its configuration can have a megabyte, and errors may be kept until the end of a call."""
    subjects = [f"none.{'x' * 3000}.{number}" for number in range(300)]
    await server.js.create_stream({"name": "OBJ_none", "subjects": subjects})
    errors = []
    for _ in range(3):
        with pytest.raises(BadBucketError, match="is no bucket") as told:
            await bind(server.js, "none")
        errors.append(told.value)
        frame = told.value.__traceback__
        while frame is not None:
            held = [value for value in frame.tb_frame.f_locals.values() if isinstance(value, StreamInfo)]
            assert not held
            frame = frame.tb_next
    assert len(str(errors[0])) < 500
