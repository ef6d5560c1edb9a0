"""What a consumer shows, even while its server is behind."""

from __future__ import annotations

from typing import Any

import pytest

from objstore import ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.format.naming import meta_subject
from objstore.listing.shown import show_newest
from support.memory_server import ROLL_UP, MemoryServer


async def fill(store: ObjectStore, count: int) -> list[ObjectInfo]:
    return [await store.put(f"n{number:02}", b"") for number in range(count)]


@pytest.mark.parametrize("late", [1, 5])
async def test_a_meta_that_consumers_show_late(server: MemoryServer, late: int) -> None:
    """Their servers are behind: they are asked until they have what the leader has."""
    store = await server.bucket(replicas=3)
    info = (await fill(store, 1))[0]
    subject = meta_subject("b", "n00")
    bucket = await bind(server.js, "b")
    stream = server.stream()
    older = stream.messages[info.revision]
    seq = server.put_raw(subject, older.payload, ROLL_UP)
    consume, every = stream.consume, stream.of
    left = late

    def behind(name: str, config: dict[str, Any]) -> Any:
        nonlocal left
        left -= 1
        stream.of = (lambda pattern: [older]) if left >= 0 else every  # type: ignore[method-assign]
        try:
            return consume(name, config)
        finally:
            del stream.of

    stream.consume = behind  # type: ignore[method-assign]
    newest = await show_newest(bucket, subject, await bucket.leader_message(subject))
    assert newest is not None
    assert newest.seq == seq
    assert left == -1
