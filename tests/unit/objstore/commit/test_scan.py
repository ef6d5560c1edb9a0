"""One scan of all metas: shared, kept for a while, and not believed where it may be out of date."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from objstore import ObjectStore
from objstore.bucket.bucket import Bucket
from objstore.commit import scan as module
from objstore.commit.scan import KEPT, Scan, scan_for
from objstore.format.naming import new_nuid
from support.clock import Clock
from support.fake_session import turns
from support.memory_server import MemoryServer


async def test_who_names_some_chunks(store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"x")
    assert await scan_for(bucket, info.nuid) is None
    assert await scan_for(bucket, info.nuid, ("a",)) is not None, "that one may"
    found = await scan_for(bucket, new_nuid("a"))
    assert found is not None
    assert not found.full


async def test_one_that_was_removed_meanwhile(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """What was read before is asked for once more before it is believed."""
    info = await store.put("a", b"x")
    assert await scan_for(bucket, info.nuid) is None
    server.stream().remove([info.revision])
    assert await scan_for(bucket, info.nuid) is not None


async def test_one_that_cannot_be_read_may_name_them(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    nuid = new_nuid("a")
    server.put_raw("$O.b.M.YQ==", f"no JSON, and {nuid} in it".encode())
    assert await scan_for(bucket, nuid) is None
    assert await scan_for(bucket, new_nuid("b")) is not None


async def test_the_next_one_reads_what_was_stored_since(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    for n in range(5):
        await store.put(f"n{n}", b"x")
    await scan_for(bucket, new_nuid("x"))
    late = await store.put("late", b"x")
    server.verbs()
    server.asked.clear()
    assert await scan_for(bucket, late.nuid) is None
    asked = [body["seq"] for verb, body in server.asked if verb == "STREAM.MSG.GET" and "seq" in body]
    assert min(asked, default=0) > 5
    assert not [verb for verb, _ in server.asked if verb == "DIRECT.GET"]


async def test_it_is_forgotten_after_a_while(store: ObjectStore, bucket: Bucket) -> None:
    clock = Clock()
    scan = Scan(bucket)
    first = await scan.latest(bucket)
    assert await scan.latest(bucket) is first
    clock.forward(KEPT / 4)
    await turns()
    assert await scan.latest(bucket) is first
    clock.forward(KEPT)
    await turns()
    assert await scan.latest(bucket) is not first


async def test_another_stream_or_leader_is_read_anew(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    scan = Scan(bucket)
    first = await scan.latest(bucket)
    info = server.stream().info

    def led(body: dict[str, Any]) -> dict[str, Any]:
        return {**info(body), "cluster": {"leader": "n2"}}

    server.stream().info = led  # type: ignore[method-assign]
    second = await scan.latest(bucket)
    assert second is not first
    assert await scan.latest(bucket) is second
    assert await scan.latest(bucket, anew=True) is not second


async def test_who_asks_at_the_same_time_shares_it(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    for n in range(5):
        await store.put(f"n{n}", b"x")
    scan = Scan(bucket)
    server.verbs()
    found = await asyncio.gather(*(scan.latest(bucket) for _ in range(10)))
    assert all(each is found[0] for each in found)
    assert server.verbs().count("STREAM.INFO") <= 6  # of two rounds


async def test_a_bucket_with_too_many_names(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is found out, and that is remembered for longer."""
    monkeypatch.setattr(module, "MOST_NAMES", 3)
    monkeypatch.setattr(module, "KEPT", 8.0)
    monkeypatch.setattr(module, "FULL_FOR", 5.0)
    for n in range(5):
        await store.put(f"n{n}", b"x")
    found = await scan_for(bucket, new_nuid("x"))
    assert found is not None
    assert found.full
    clock = Clock()
    clock.forward(9.0)
    await turns()
    assert await scan_for(bucket, new_nuid("x")) is found
    clock.forward(6.0)
    await turns()
    assert await scan_for(bucket, new_nuid("x")) is not found


async def test_renames_are_remembered_by_the_client(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """With whatever handle they were made; the oldest are forgotten."""
    monkeypatch.setattr(module, "MOST_MOVED", 3)
    one, other = Scan(bucket), Scan(bucket)
    for nuid in ("n1", "n2", "n3", "n4"):
        one.note_moved(nuid)
    assert [other.has_moved(f"n{n}") for n in range(1, 5)] == [False, True, True, True]
