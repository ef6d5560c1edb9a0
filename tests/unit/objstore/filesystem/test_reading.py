"""Ranges of one revision: few requests, never two revisions mixed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from objstore import DigestMismatchError, ObjectChangedError, ObjectInfo, ObjectNotFoundError, ObjectStore
from objstore.filesystem import reading
from objstore.filesystem.reading import RunningDigest
from objstore.format.digest import hex_digest, new_hasher
from objstore.format.naming import meta_subject
from support.memory_server import MemoryServer
from support.objects import MIB, pattern

DATA = pattern(10_000)


async def test_parts(store: ObjectStore) -> None:
    await store.put("a", DATA, chunk_size=1000)
    ranges = [(None, None), (5, 10), (-5, None), (2500, 7500), (9_990, 20_000), (30_000, 40_000), (7, 3)]
    found = await reading.parts(store, "a", "b/a", ranges, "all")
    assert found == [DATA[start:end] for start, end in ranges]
    assert await reading.parts(store, "a", "b/a", [], "all") == []


async def test_close_ranges_are_one_request(server: MemoryServer, store: ObjectStore) -> None:
    await store.put("a", DATA, chunk_size=1000)
    read: list[tuple[int, int]] = []
    get_part = reading.get_part

    async def counting(bucket: object, info: object, start: int, end: int) -> bytes:
        read.append((start, end))
        return await get_part(bucket, info, start, end)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "get_part", counting)
        ranges = [(0, 10), (900, 910), (20, 30), (5000, 5010)]
        assert await reading.parts(store, "a", "b/a", ranges, "all") == [
            DATA[low:high] for low, high in ranges
        ]
        assert sorted(read) == [(0, 910), (5000, 5010)]
        read.clear()
        await reading.parts(store, "a", "b/a", ranges, "all", gap=0)
        assert len(read) == 4


async def test_what_others_say_of_chunks_joins_no_ranges(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two small ranges of a large object are not all of it."""
    data = pattern(2 * MIB + 100)
    info = await store.put("a", data)
    meta = {
        "name": "a", "bucket": "b", "nuid": info.nuid, "size": info.size, "chunks": info.chunks,
        "digest": info.wire_digest, "options": {"max_chunk_size": 1 << 62},
    }  # fmt: skip
    server.put_raw(meta_subject("b", "a"), json.dumps(meta).encode())
    assert (await store.get_info("a")).options.max_chunk_size == 1 << 62
    read: list[tuple[int, int]] = []
    get_part = reading.get_part

    async def counting(bucket: Any, info: ObjectInfo, start: int, end: int) -> bytes:
        read.append((start, end))
        return await get_part(bucket, info, start, end)

    monkeypatch.setattr(reading, "get_part", counting)
    ranges = [(0, 10), (MIB, MIB + 10), (2 * MIB + 90, 2 * MIB + 100)]
    assert await reading.parts(store, "a", "b/a", ranges, "all") == [data[low:high] for low, high in ranges]
    assert sorted(read) == [(0, MIB + 10), (2 * MIB + 90, 2 * MIB + 100)]


async def test_pinned(store: ObjectStore) -> None:
    await store.put("a", DATA, chunk_size=1000)
    await store.add_link("l", await store.get_info("a"))
    pinned = await reading.pin(store, "l", "b/l", "all")
    assert (pinned.entry["name"], pinned.entry["destination"], pinned.entry["size"]) == ("b/l", "b/a", 10_000)
    assert await reading.part(pinned, 0, 20_000) == DATA
    assert await reading.part(pinned, 1500, 2500) == DATA[1500:2500]
    assert await reading.part(pinned, 5, 5) == b""
    await store.put("a", DATA[::-1], chunk_size=1000)
    for limits in ((0, 10_000), (1500, 2500)):
        with pytest.raises(ObjectChangedError):
            await reading.part(pinned, *limits)
    with pytest.raises(ObjectNotFoundError):
        await reading.pin(store, "none", "b/none", "all")


async def test_replaced_while_it_is_read(store: ObjectStore) -> None:
    """All ranges are then of the new revision."""
    await store.put("a", DATA, chunk_size=1000)
    pin = reading.pin

    async def replaced(*arguments: object) -> reading.Pinned:
        pinned = await pin(*arguments)  # type: ignore[arg-type]
        if not replacing.pop():
            return pinned
        await store.put("a", DATA[::-1], chunk_size=1000)
        return pinned

    replacing = [False, True]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "pin", replaced)
        found = await reading.parts(store, "a", "b/a", [(0, 10), (5000, 5010)], "all")
    assert found == [DATA[::-1][:10], DATA[::-1][5000:5010]]


def digest_of(data: bytes = DATA, digest: str | None = None) -> RunningDigest:
    told = hex_digest(new_hasher(data).digest()) if digest is None else digest
    info = ObjectInfo("a", None, None, len(DATA), 1, told, False, datetime.now(UTC), "nuid", "b")
    return RunningDigest(info)


def take(digest: RunningDigest, start: int, end: int) -> None:
    digest.take(start, DATA[start:end])


BLOCKS = [
    [(0, 10_000)],
    [(0, 4000), (4000, 10_000)],
    [(0, 4000), (3000, 6000), (0, 4000), (1, 10_000)],
    [(9000, 10_000), (5000, 6000), (0, 4000), (4000, 10_000)],
    [(0, 4000), (0, 0), (4000, 4000), (4000, 10_000)],
]


@pytest.mark.parametrize("blocks", BLOCKS)
def test_what_goes_on_is_hashed(blocks: list[tuple[int, int]]) -> None:
    good, bad = digest_of(), digest_of(b"other")
    for each in blocks:
        take(good, *each)
        if each != blocks[-1]:
            take(bad, *each)
    for _ in range(2):
        with pytest.raises(DigestMismatchError):
            take(bad, *blocks[-1])
    take(good, 0, 5000)
    take(good, 5000, 10_000)


@pytest.mark.parametrize("blocks", [[(4000, 10_000), (0, 3000)], [(0, 9999), (1, 5)], [(1, 10_000)]])
def test_what_does_not_is_not(blocks: list[tuple[int, int]]) -> None:
    bad = digest_of(b"other")
    for each in blocks:
        take(bad, *each)


@pytest.mark.parametrize("told", ["", "MD5=AAAA"])
def test_what_nobody_can_check(told: str) -> None:
    bad = digest_of(digest=told)
    take(bad, 0, 5000)
    with pytest.raises(DigestMismatchError, match="cannot be verified"):
        take(bad, 5000, 10_000)
