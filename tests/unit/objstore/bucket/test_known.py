"""What was learnt on a connection counts there, by key, for a while."""

from __future__ import annotations

import pytest

from objstore.bucket import known as module
from objstore.bucket.bucket import Bucket
from objstore.bucket.known import Known
from support.memory_server import MemoryServer


async def test_for_a_while(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    known, connection, other = Known[int](60.0), bucket.connection, MemoryServer()
    try:
        assert known.get(connection, "a") is None
        known.note(connection, "a", 1)
        known.note(connection, ("a", True), 2)
        assert (known.get(connection, "a"), known.get(connection, ("a", True))) == (1, 2)
        assert known.get(connection, "b") is None
        assert known.get(other.client.connection, "a") is None
        now = connection.loop.time()
        monkeypatch.setattr(connection.loop, "time", lambda: now + 59.0)
        assert known.get(connection, "a") == 1
        known.note(connection, "a", 3)
        monkeypatch.setattr(connection.loop, "time", lambda: now + 61.0)
        assert (known.get(connection, "a"), known.get(connection, ("a", True))) == (3, None)
    finally:
        await other.client.close()


async def test_only_so_many(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    known = Known[int](60.0)
    for number in range(3):
        known.note(bucket.connection, number, number)
        assert known.get(bucket.connection, number) == number
    assert known.get(bucket.connection, 0) is None
