"""What a consumer shows is the bucket's own; what the leader answers may be another stream's."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError
from natsproto.jetstream.api.errors import TemporarilyUnavailableError
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.collect import SilentConsumer
from objstore.bucket.shown import NotShown, check_shows, shown
from support.memory_server import MemoryServer, error

SUBJECT = "$O.b.C.n"


@pytest.fixture
async def bucket(server: MemoryServer) -> Bucket:
    """It has messages of the subject at 1, 3 and 4."""
    await server.bucket()
    for subject in (SUBJECT, "$O.b.C.other", SUBJECT, SUBJECT):
        server.put_raw(subject, b"x")
    return await bind(server.js, "b")


async def test_in_order(server: MemoryServer, bucket: Bucket) -> None:
    assert list(await shown(bucket, SUBJECT, (4, 1))) == [1, 3, 4]
    assert list(await shown(bucket, SUBJECT, (3,))) == [3]
    assert list(await shown(bucket, SUBJECT, (3,), start=1)) == [1, 3]
    assert server.stream().consumers == {}


@pytest.mark.parametrize("seq", [2, 5], ids=["another subject's", "none"])
async def test_what_is_not_there(bucket: Bucket, seq: int) -> None:
    with pytest.raises(NotShown, match="shows what is to be deleted"):
        await shown(bucket, SUBJECT, (1, seq))


async def test_a_replica_that_is_behind(server: MemoryServer, bucket: Bucket) -> None:
    late = server.stream().messages.pop(4)

    def hook(verb: str, body: dict[str, Any]) -> None:
        if verb == "CONSUMER.CREATE":
            server.loop.call_later(0.001, server.stream().messages.setdefault, 4, late)

    server.hook = hook
    assert list(await shown(bucket, SUBJECT, (4,))) == [4]


async def test_who_may_create_no_consumer(server: MemoryServer, bucket: Bucket) -> None:
    server.refused = {"CONSUMER.CREATE"}
    with pytest.raises(PermissionsViolationError):
        await shown(bucket, SUBJECT, (1,))
    assert "CONSUMER.CREATE" in server.verbs()
    with pytest.raises(PermissionsViolationError):
        await shown(bucket, SUBJECT, (1,))
    with pytest.raises(PermissionsViolationError):
        check_shows(bucket)
    assert server.verbs() == []


async def test_no_more_consumers(server: MemoryServer, bucket: Bucket) -> None:
    server.hook = lambda verb, body: error(400, 10026, "maximum consumers limit reached")
    with pytest.raises(NotShown, match="maximum consumers"):
        await shown(bucket, SUBJECT, (1,))
    bucket.retry_budget = 0.5
    server.hook = lambda verb, body: error(503, 10008, "JetStream system temporarily unavailable")
    with pytest.raises(TemporarilyUnavailableError):
        await shown(bucket, SUBJECT, (1,))


async def test_an_imported_api(server: MemoryServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a consumer comes; that is known for a while."""
    monkeypatch.setattr("objstore.bucket.collect.HEARTBEAT", 0.01)
    server.importing = True
    for _ in range(2):
        with pytest.raises(NotShown):
            await shown(bucket, SUBJECT, (1,))
    with pytest.raises(SilentConsumer, match="imports the API"):
        check_shows(bucket)
