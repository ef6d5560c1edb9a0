"""Which chunks there are: by the leader's counts, or from the messages where those are too long to tell."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError
from objstore import BucketNotFoundError
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.maintenance.stored_chunks import chunk_counts, chunk_nuids
from support.memory_server import MemoryServer, error


@pytest.fixture
async def bucket(server: MemoryServer) -> Bucket:
    await server.bucket()
    return await bind(server.js, "b")


async def test_counts(server: MemoryServer, bucket: Bucket) -> None:
    assert await chunk_counts(bucket) == {}
    assert await chunk_nuids(bucket) == set()
    for nuid in ("one", "two", "two"):
        server.put_raw(f"$O.b.C.{nuid}", b"x")
    server.put_raw("$O.b.M.YQ==", b"{}")
    assert await chunk_counts(bucket) == {"one": 1, "two": 2}
    assert await chunk_nuids(bucket) == {"one", "two"}
    assert server.stream().consumers == {}


async def test_subjects_that_are_too_long(server: MemoryServer, bucket: Bucket) -> None:
    """One page of them would end the connection: it is not asked for."""
    server.put_raw("$O.b.C.one", b"x")
    info = server.stream().info

    def much(body: dict[str, Any]) -> dict[str, Any]:
        answer = info(body)
        answer["state"] |= {"num_subjects": 1_000_000, "bytes": 1 << 30}
        return answer

    server.stream().info = much  # type: ignore[method-assign]
    server.verbs()
    server.asked.clear()
    assert await chunk_counts(bucket) is None
    assert not [body for _, body in server.asked if "subjects_filter" in body]
    assert await chunk_nuids(bucket) == {"one"}


@pytest.mark.parametrize("refused", [(), ("CONSUMER.CREATE",)])
async def test_what_is_no_nuid_is_left_out(
    server: MemoryServer, bucket: Bucket, refused: tuple[str, ...]
) -> None:
    """Nobody asks for it, and it may be long."""
    server.refused = set(refused)
    for nuid in ("good", "b@d", "x" * 1000):
        server.put_raw(f"$O.b.C.{nuid}", b"content")
    for _ in range(2):
        assert await chunk_nuids(bucket) == {"good"}


async def test_no_contents_are_sent(server: MemoryServer, bucket: Bucket) -> None:
    server.put_raw("$O.b.C.one", b"x" * 1000)
    server.asked.clear()
    await chunk_nuids(bucket)
    (config,) = [body["config"] for verb, body in server.asked if verb == "CONSUMER.CREATE"]
    assert config["headers_only"] is True
    assert config["deliver_policy"] == "last_per_subject"


async def test_failures(server: MemoryServer, bucket: Bucket) -> None:
    server.hook = lambda verb, body: error(404, 10059, "stream not found")
    with pytest.raises(BucketNotFoundError):
        await chunk_counts(bucket)
    with pytest.raises(BucketNotFoundError):
        await chunk_nuids(bucket)
    server.hook = None
    server.refused = {"CONSUMER.CREATE", "STREAM.MSG.GET", "DIRECT.GET"}
    server.put_raw("$O.b.C.one", b"x")
    with pytest.raises(PermissionsViolationError):
        await chunk_nuids(bucket)
