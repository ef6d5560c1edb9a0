"""Every operation against every other client, in both directions: each test is one row of docs/interop.md.

``pair.writer`` does something, ``pair.reader`` must see it; one of them is this library. ``--interop-all``
runs every peer on every server.
"""

from __future__ import annotations

import asyncio

import pytest

from interop.pair import Pair
from interop.peers.base import TIMEOUT, PeerError
from support.objects import CHUNK, assert_exact, chunk_counts, pattern, wire_digest

pytestmark = pytest.mark.peer
EVERY_SERVER = True


async def both_see(pair: Pair, name: str, data: bytes) -> None:
    """The reader does, and the writer, too, where it can read from this server."""
    for side in pair.readers:
        async with asyncio.timeout(TIMEOUT):
            assert await side.get(name) == data


async def nobody_sees(pair: Pair, name: str) -> None:
    for side in (pair.reader, pair.writer):
        assert await side.info(name) is None
        with pytest.raises(PeerError):
            await side.get(name)


async def test_put_empty(pair: Pair) -> None:
    await pair.writer.put("a", b"")
    await both_see(pair, "a", b"")


async def test_put_small(pair: Pair) -> None:
    await pair.writer.put("a", b"content")
    await both_see(pair, "a", b"content")
    await assert_exact(pair.store)


async def test_put_chunks(pair: Pair) -> None:
    """More than the 2 MiB after which a push consumer waits for an answer."""
    data = pattern(20 * CHUNK + 3)
    await pair.writer.put("a", data)
    await both_see(pair, "a", data)
    await assert_exact(pair.store)


async def test_put_whole_chunks(pair: Pair) -> None:
    data = pattern(2 * CHUNK)
    await pair.writer.put("a", data, chunk_size=CHUNK)
    await both_see(pair, "a", data)
    await assert_exact(pair.store)


async def test_chunk_size(pair: Pair) -> None:
    for name, size in (("small", 1000), ("large", 900_000)):
        data = pattern(50 * size + 1 if size == 1000 else 2 * size + 1)
        await pair.writer.put(name, data, chunk_size=size)
        seen = await pair.reader.info(name)
        assert seen is not None
        assert seen.chunk_size == size
        assert seen.chunks >= -(-len(data) // size)  # some writers make short ones, too
        await both_see(pair, name, data)
    await assert_exact(pair.store)


async def store_names(pair: Pair, names: list[str]) -> None:
    for name in names:
        await pair.writer.put(name, name.encode())
    for name in names:
        await both_see(pair, name, name.encode())
    async with asyncio.timeout(TIMEOUT):
        assert {entry.name for entry in await pair.reader.list()} == set(names)


async def test_names(pair: Pair) -> None:
    """URL-safe and standard base64 differ in the first; the others need care elsewhere."""
    await store_names(pair, ["~~~???", "dir/sub dir/file.txt", "a.b.*.>", "x" * 500])


async def test_names_unicode(pair: Pair) -> None:
    await store_names(pair, ["?>?>ÿ", "ünï", "日本 🎉"])


async def test_info(pair: Pair) -> None:
    data = pattern(2 * CHUNK + 1)
    await pair.writer.put("a", data)
    seen, said = await pair.reader.info("a"), await pair.writer.info("a")
    assert seen is not None
    assert said is not None
    assert (seen.name, seen.size, seen.digest, seen.deleted) == ("a", len(data), wire_digest(data), False)
    assert (seen.nuid, seen.chunks) == (said.nuid, said.chunks)
    assert await chunk_counts(pair.store) == {seen.nuid: seen.chunks}
    assert await pair.reader.info("b") is None


async def test_description(pair: Pair) -> None:
    await pair.writer.put("a", b"1", description="über")
    seen = await pair.reader.info("a")
    assert seen is not None
    assert seen.description == "über"


async def test_headers(pair: Pair) -> None:
    headers = {"Content-Type": ["text/plain"], "X-Many": ["1", "2"]}
    await pair.writer.put("a", b"1", headers=headers)
    seen = await pair.reader.info("a")
    assert seen is not None
    assert seen.headers == headers


async def test_metadata(pair: Pair) -> None:
    await pair.writer.put("a", b"1", metadata={"k": "v", "l": ""})
    seen = await pair.reader.info("a")
    assert seen is not None
    assert seen.metadata == {"k": "v", "l": ""}


async def test_list(pair: Pair) -> None:
    sizes = {f"n{number}": number for number in range(5)}
    for name, size in sizes.items():
        await pair.writer.put(name, pattern(size))
    await pair.writer.delete("n4")
    del sizes["n4"]
    async with asyncio.timeout(TIMEOUT):
        assert {entry.name: entry.size for entry in await pair.reader.list()} == sizes


async def test_list_empty(pair: Pair) -> None:
    await pair.writer.put("a", b"1")
    await pair.writer.delete("a")
    async with asyncio.timeout(TIMEOUT):
        assert await pair.reader.list() == []


async def test_delete(pair: Pair) -> None:
    """Of one's own, then of the other's; the name can be used again."""
    for creator in (pair.writer, pair.reader):
        await creator.put("a", pattern(CHUNK + 1))
        await pair.writer.delete("a")
        await nobody_sees(pair, "a")
        assert await chunk_counts(pair.store) == {}
    await pair.reader.put("a", b"again")
    await both_see(pair, "a", b"again")


async def test_overwrite(pair: Pair) -> None:
    for number, first in enumerate((pair.writer, pair.reader)):
        await first.put("a", pattern(3 * CHUNK, number))
        data = pattern(2 * CHUNK + number, 10)
        await pair.writer.put("a", data)
        await both_see(pair, "a", data)
        await assert_exact(pair.store)


async def test_link(pair: Pair) -> None:
    await pair.reader.put("a", pattern(CHUNK))
    await pair.writer.link("l", "a")
    await both_see(pair, "l", pattern(CHUNK))
    seen = await pair.reader.info("l")
    assert seen is not None
    assert (seen.name, seen.link) == ("l", (pair.bucket, "a"))
    async with asyncio.timeout(TIMEOUT):
        assert {entry.name for entry in await pair.reader.list()} == {"a", "l"}
    await pair.reader.delete("l")
    assert await pair.reader.info("l") is None
    await both_see(pair, "a", pattern(CHUNK))


async def test_bucket_link(pair: Pair) -> None:
    await pair.writer.bucket_link("l", pair.bucket)
    seen = await pair.reader.info("l")
    assert seen is not None
    assert (seen.name, seen.link) == ("l", (pair.bucket, None))
    with pytest.raises(PeerError):
        await pair.reader.get("l")
    async with asyncio.timeout(TIMEOUT):
        assert [entry.name for entry in await pair.reader.list()] == ["l"]


async def test_update_description(pair: Pair) -> None:
    await pair.reader.put("a", pattern(CHUNK), description="old")
    before = await pair.reader.info("a")
    await pair.writer.update("a", description="new", headers={})
    seen = await pair.reader.info("a")
    assert before is not None
    assert seen is not None
    assert (seen.description, seen.nuid, seen.digest) == ("new", before.nuid, before.digest)
    await both_see(pair, "a", pattern(CHUNK))
    await pair.reader.delete("a")
    assert await chunk_counts(pair.store) == {}


async def test_update_headers(pair: Pair) -> None:
    await pair.reader.put("a", pattern(CHUNK), headers={"H": ["1"]})
    await pair.writer.update("a", description="", headers={"H": ["2"], "I": ["3"]})
    seen = await pair.reader.info("a")
    assert seen is not None
    assert seen.headers == {"H": ["2"], "I": ["3"]}
    await both_see(pair, "a", pattern(CHUNK))


async def test_rename(pair: Pair) -> None:
    await pair.reader.put("a", pattern(CHUNK))
    before = await pair.reader.info("a")
    await pair.writer.rename("a", "b")
    await both_see(pair, "b", pattern(CHUNK))
    await nobody_sees(pair, "a")
    seen = await pair.reader.info("b")
    assert before is not None
    assert seen is not None
    assert (seen.name, seen.nuid, seen.digest) == ("b", before.nuid, before.digest)
    await assert_exact(pair.store)
    await pair.reader.put("a", b"another")
    await both_see(pair, "b", pattern(CHUNK))


async def test_watch(pair: Pair) -> None:
    """Changes from now on; what was there before is not told."""
    await pair.writer.put("before", b"0")
    watch = await pair.reader.watch()
    seen = []
    async with asyncio.timeout(TIMEOUT):
        await pair.writer.put("a", b"1")
        seen.append(await watch.next())
        await pair.writer.put("a", b"2")
        seen.append(await watch.next())
        await pair.writer.delete("a")
        seen.append(await watch.next())
    await watch.close()
    assert seen == [("a", False), ("a", False), ("a", True)]


async def test_create_bucket(pair: Pair) -> None:
    """A bucket the writer made is as good as one's own."""
    bucket = pair.bucket + "-made"
    await pair.writer.create_bucket(bucket, description="about", ttl=3600)
    try:
        await pair.reader.open_bucket(bucket)
        await pair.reader.put("a", pattern(CHUNK + 1))
        await both_see(pair, "a", pattern(CHUNK + 1))
    finally:
        await pair.ours.js.delete_object_store(bucket)


async def test_status(pair: Pair) -> None:
    bucket = pair.bucket + "-made"
    await pair.writer.create_bucket(bucket, description="about", ttl=3600)
    try:
        await pair.reader.open_bucket(bucket)
        await pair.writer.put("a", pattern(CHUNK))
        status = await pair.reader.status()
        assert (status.description, status.ttl, status.sealed) == ("about", 3600, False)
        assert CHUNK < status.size < CHUNK + 10_000
    finally:
        await pair.ours.js.delete_object_store(bucket)


async def test_seal(pair: Pair) -> None:
    await pair.writer.put("a", pattern(CHUNK))
    await pair.writer.seal()
    assert (await pair.ours.status()).sealed
    with pytest.raises(PeerError):
        await pair.reader.put("b", b"1")
    with pytest.raises(PeerError):
        await pair.reader.delete("a")
    await both_see(pair, "a", pattern(CHUNK))
