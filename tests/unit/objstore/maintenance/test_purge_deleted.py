"""Old delete markers go; those that a late copy of a commit may still need stay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError
from natsproto.jetstream.api.messages import leader_message
from natsproto.jetstream.api.models import StreamInfo
from objstore import ObjectInfo, ObjectStore
from objstore.bucket.bucket import Bucket
from objstore.bucket.collect import SilentConsumer
from objstore.bucket.retry import RETRY_BUDGET
from objstore.format.naming import meta_subject
from objstore.maintenance.purge_deleted import SETTLED, purge_deleted, settled_after
from support.memory_server import MemoryServer


async def test_old_ones_go_and_live_ones_stay(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    for name in ("a", "b", "live"):
        await store.put(name, b"x")
    await store.delete("a")
    await store.delete("b")
    assert await purge_deleted(bucket, timedelta(0)) == 0, "a late copy of the put would bring it back"
    server.ahead = timedelta(hours=1)
    assert await purge_deleted(bucket, timedelta(hours=2)) == 0
    assert await purge_deleted(bucket, timedelta(minutes=30)) == 2
    assert [each.subject for each in server.stream().of("$O.b.M.*")] == [meta_subject("b", "live")]
    assert await store.get("live") == b"x"
    assert await purge_deleted(bucket, timedelta(0)) == 0


async def test_one_that_is_written_to_meanwhile(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    await store.put("a", b"x")
    await store.delete("a")
    server.ahead = timedelta(hours=1)
    subject = meta_subject("b", "a")
    marker = server.stream().of(subject)[0]

    def hook(verb: str, body: dict[str, Any]) -> None:
        if (
            verb == "STREAM.MSG.GET"
            and body.get("last_by_subj") == subject
            and marker.seq in server.stream().messages
        ):
            server.stream().remove([marker.seq])
            server.put_raw(subject, marker.payload)

    server.hook = hook
    assert await purge_deleted(bucket, timedelta(0)) == 0
    assert len(server.stream().of(subject)) == 1


@pytest.mark.parametrize("consumer", ["delivers", "refused", "silent"])
async def test_the_marker_of_another_stream(
    server: MemoryServer,
    store: ObjectStore,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    consumer: str,
) -> None:
    """Another domain's bucket of the same name may answer: what the leader answers names no stream."""
    await store.put("a", b"x")
    await store.delete("a")
    marker = server.leader_message(server.stream().of(meta_subject("b", "a"))[0])
    marker["message"]["seq"] = 1000
    await store.put("a", b"alive")
    server.ahead = timedelta(hours=1)
    monkeypatch.setattr("objstore.bucket.collect.HEARTBEAT", 0.2)
    server.importing = consumer == "silent"
    server.refused = {"CONSUMER.CREATE"} if consumer == "refused" else set()
    bucket.batches, bucket.retry_budget = False, 0.5
    server.hook = lambda verb, body: (
        marker if verb == "STREAM.MSG.GET" and body.get("last_by_subj") == meta_subject("b", "a") else None
    )
    if consumer == "delivers":
        found = leader_message(marker)

        async def listed(*_: object) -> list[ObjectInfo]:
            return [bucket.decode(found)]  # as where a list has had to ask the leader

        monkeypatch.setattr("objstore.maintenance.purge_deleted.newest_metas", listed)
        assert await purge_deleted(bucket, timedelta(0)) == 0
    else:
        with pytest.raises(PermissionsViolationError if consumer == "refused" else SilentConsumer):
            await purge_deleted(bucket, timedelta(0))
    server.hook, server.refused, server.importing = None, set(), False
    assert await store.get("a") == b"alive"


async def test_metas_that_cannot_be_read_are_nobodys_markers(
    server: MemoryServer, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    server.put_raw(meta_subject("b", "bad"), b'{"deleted":true')
    server.ahead = timedelta(hours=1)
    assert await purge_deleted(bucket, timedelta(0)) == 0
    assert len(server.stream().of("$O.b.M.*")) == 1
    assert caplog.records == []


@pytest.mark.parametrize("window", [None, 60, 600])
def test_how_long_a_copy_may_be_late(window: int | None) -> None:
    config: dict[str, Any] = {"name": "OBJ_b"}
    if window is not None:
        config["duplicate_window"] = window * 1_000_000_000
    document = {"config": config, "state": {}, "created": "2026-01-01T00:00:00Z"}
    after = settled_after(StreamInfo.from_json(document))
    assert after >= timedelta(seconds=(window or 120) + RETRY_BUDGET) + SETTLED
