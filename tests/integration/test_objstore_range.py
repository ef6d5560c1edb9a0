"""Ranges: the right bytes, from the right place, at the same cost wherever they lie."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import replace
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from natsproto.errors import ConnectionClosedError
from natsproto.server import LocalServer
from objstore import (
    IntegrityError,
    LinkError,
    ObjectDeletedError,
    ObjectInfo,
    ObjectMeta,
    ObjectMetaOptions,
    ObjectNotFoundError,
    ObjectStore,
)
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subject
from objstore.read import get as _get
from objstore.read.by_sequence import Begins
from support.objects import chunk_subject, forge, part_file, stream

RNG = random.Random(7)
DATA = RNG.randbytes(1_000_003)


async def check(store: ObjectStore, name: str, data: bytes, count: int = 25) -> None:
    """Random and edge ranges of an object."""
    rng = random.Random(len(data))
    size = len(data)
    ranges = [
        (0, size),
        (0, 1),
        (size - 1, size),
        (0, 0),
        (size, size),
        (5, 5),
        (0, size + 99),
        (size, size + 5),
    ]
    ranges += [tuple(sorted((rng.randrange(size + 1), rng.randrange(size + 1)))) for _ in range(count)]
    for start, end in ranges:
        assert await store.get_range(name, start, end) == data[start:end], (start, end)


@pytest.mark.parametrize("chunk_size", [1000, 4096, 65536, 131072, 1024 * 1024])
async def test_ranges(store: ObjectStore, chunk_size: int) -> None:
    await store.put("a", DATA, chunk_size=chunk_size)
    await check(store, "a", DATA, 10 if chunk_size == 1000 else 25)


async def test_exact_multiple_and_one_chunk(store: ObjectStore) -> None:
    await store.put("exact", DATA[:400_000], chunk_size=100_000)
    await check(store, "exact", DATA[:400_000])
    await store.put("one", DATA[:100])
    await check(store, "one", DATA[:100])
    await store.put("empty", b"")
    assert await store.get_range("empty", 0, 10) == b""


async def test_without_direct_get(store: ObjectStore) -> None:
    js = store.js
    plain = await js.create_object_store(bucket=store.bucket + "-plain", allow_direct=False)
    await plain.put("a", DATA, chunk_size=50_000)
    await check(plain, "a", DATA, 6)
    assert await js.consumer_names(f"OBJ_{plain.bucket}") == []
    await js.delete_object_store(plain.bucket)


async def test_after_changes_of_the_meta(store: ObjectStore) -> None:
    """The meta's revision says no longer where the chunks lie."""
    await store.put("a", DATA, chunk_size=20_000)
    for number in range(20):
        await store.put("other", bytes([number]) * 1000)
    await store.rename("a", "b")
    await check(store, "b", DATA)


async def test_chunks_of_several_writers_interleaved(store: ObjectStore) -> None:
    objects = {f"o{n}": RNG.randbytes(300_000 + n) for n in range(5)}

    async def put(name: str, data: bytes) -> None:
        async def slowly() -> object:
            for at in range(0, len(data), 7_000):
                yield data[at : at + 7_000]
                await asyncio.sleep(0)

        await store.put(name, slowly(), chunk_size=7_000, window=14_000)

    await asyncio.gather(*(put(name, data) for name, data in objects.items()))
    for name, data in objects.items():
        await check(store, name, data, 8)


async def raw_object(store: ObjectStore, name: str, stored: list[bytes], **changes: object) -> ObjectInfo:
    """An object as another writer could have stored it."""
    data = b"".join(stored)
    subject = f"$O.{store.bucket}.C.RAW{name}"
    for chunk in stored:
        await store.js.publish(subject, chunk)
    template = await store.put(name, b"")
    info = replace(
        template,
        nuid=f"RAW{name}",
        size=len(data),
        chunks=sum(bool(chunk) for chunk in stored),
        digest="SHA-256=" + hashlib.sha256(data).hexdigest(),
        options=ObjectMetaOptions(max_chunk_size=1000),
    )
    info = replace(info, **changes)  # type: ignore[arg-type]
    await store.js.publish(
        meta_subject(store.bucket, name),
        encode_meta(info),
        headers={"Nats-Rollup": "sub"},
    )
    return info


async def test_irregular_object(store: ObjectStore) -> None:
    """Short chunks in the middle, as writers of short reads store them."""
    chunks = [RNG.randbytes(size) for size in (1000, 10, 1000, 999, 1, 1000, 500)]
    await raw_object(store, "irregular", chunks)
    await check(store, "irregular", b"".join(chunks))


async def test_irregular_object_with_plausible_counts(store: ObjectStore) -> None:
    """ceil(size / chunk size) fits, only the lengths tell: the proof must look."""
    chunks = [RNG.randbytes(size) for size in (900, 1000, 1000, 1000, 200)]
    info = await raw_object(store, "sly", chunks)
    assert -(-info.size // 1000) == info.chunks
    await check(store, "sly", b"".join(chunks))


async def test_reader_of_an_irregular_object(store: ObjectStore) -> None:
    """It is measured where a chunk has another length than it was taken for, and read on from there."""
    chunks = [RNG.randbytes(size) for size in (900, 1000, 1000, 1000, 200)]
    data = b"".join(chunks)
    await raw_object(store, "sly", chunks)
    async with await store.open_reader("sly") as reader:
        for offset in (950, 3950, 0, 4099, 4100):
            await reader.seek(offset)
            assert await reader.read() == data[offset:]
            assert await reader.read() == b"", "at the end"
    with pytest.raises(ConnectionClosedError):
        await reader.read()


@pytest.mark.parametrize("count", [5, 150])
@pytest.mark.parametrize("last", [1000, 500])
@pytest.mark.parametrize("direct", [True, False])
async def test_trailing_empty_message(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, last: int, direct: bool
) -> None:
    """T10: nats.net does not count it. A chunk lies one message before where counts from the end have it."""
    if not direct:  # all ranges as those that have many chunks
        monkeypatch.setattr("objstore.read.ranges.read_by_sequence", AsyncMock(return_value=None))
    chunks = [*(RNG.randbytes(1000) for _ in range(count - 1)), RNG.randbytes(last)]
    info, data = await raw_object(store, "net", [*chunks, b""]), b"".join(chunks)
    await check(store, "net", data)
    for start in (1000, 1500, 3000):
        async with store.open_reader("net") as reader:
            await reader.seek(start)
            assert await reader.read() == data[start:]
        part_file(tmp_path / "out", info).write_bytes(data[:start])
        await store.get_file("net", tmp_path / "out", resume=True)
        assert (tmp_path / "out").read_bytes() == data


async def test_damaged(store: ObjectStore) -> None:
    chunks = [RNG.randbytes(1000) for _ in range(5)]
    await raw_object(store, "short", chunks, chunks=7, size=7000)
    with pytest.raises(IntegrityError):
        await store.get_range("short", 5500, 6500)
    info = await store.put("gone", DATA, chunk_size=10_000)
    await store.js.purge_stream(f"OBJ_{store.bucket}", subject=f"$O.{store.bucket}.C.{info.nuid}")
    with pytest.raises(IntegrityError):
        await store.get_range("gone", 500_000, 600_000)


async def test_bad_input(store: ObjectStore) -> None:
    await store.put("a", b"0123456789")
    for start, end in ((-1, 5), (0, -1), (5, 4), (11, 12)):
        with pytest.raises(ValueError, match="range"):
            await store.get_range("a", start, end)
    with pytest.raises(TypeError):
        await store.get_range("a", 0.5, 2)  # type: ignore[arg-type]
    with pytest.raises(ObjectNotFoundError):
        await store.get_range("missing", 0, 1)
    await store.add_bucket_link("l", store.bucket)
    with pytest.raises(LinkError):
        await store.get_range("l", 0, 1)
    await store.delete("a")
    with pytest.raises(ObjectDeletedError):
        await store.get_range("a", 0, 1)


async def test_through_a_link(store: ObjectStore) -> None:
    info = await store.put("a", DATA)
    await store.add_link("l", info)
    assert await store.get_range("l", 500_000, 500_100) == DATA[500_000:500_100]


async def test_few_requests_wherever_it_lies(
    new_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import natsproto

    monkeypatch.setattr("objstore.bucket.bucket.DIRECT_TIMEOUT", 5.0)  # none more because a machine is busy

    async with natsproto.connect(new_server.url) as nc:
        store = await nc.jetstream().create_object_store(bucket="range-cost")
        await store.put("a", bytes(8 * 1024 * 1024), chunk_size=4096)
        # The first range inside of an object also asks for its first and last chunk and their number, and has
        # two consumers count what lies before and behind.
        # One from the beginning asks whether a chunk is newer than the meta, and the leader confirms it.
        for start, most in ((0, 4), (4096 * 1000 + 5, 9), (8 * 1024 * 1024 - 100, 2), (0, 4)):
            before = nc.stats.out_msgs
            assert await store.get_range("a", start, start + 100) == bytes(100)
            assert nc.stats.out_msgs - before <= most
        for number in range(300):
            await store.put("b", bytes([number % 256]))
        await store.rename("a", "c")
        fresh = await nc.jetstream().object_store("range-cost")
        for opened, most in (
            (store, 10),
            (store, 2),
            (fresh, 10),
            (fresh, 2),
        ):
            before = nc.stats.out_msgs
            await opened.get_range("c", 4096 * 1500, 4096 * 1500 + 10)
            assert nc.stats.out_msgs - before <= most
        await nc.jetstream().delete_object_store("range-cost")


async def test_few_requests_when_chunks_of_others_lie_between(
    new_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import natsproto

    monkeypatch.setattr("objstore.bucket.bucket.DIRECT_TIMEOUT", 5.0)

    async with natsproto.connect(new_server.url) as nc:
        store = await nc.jetstream().create_object_store(bucket="range-scattered")
        stored = [RNG.randbytes(1000) for _ in range(600)]
        subject = "$O.range-scattered.C.RAWscattered"
        for number, chunk in enumerate(stored):
            await nc.publish(subject, chunk)
            if number % 3 == 0:
                await nc.publish("$O.range-scattered.C.OTHER", b"between")
        await nc.flush()
        await raw_object(store, "scattered", [], size=600_000, chunks=600)
        data = b"".join(stored)
        for start in (0, 300_500, 599_000):
            before = nc.stats.out_msgs
            assert await store.get_range("scattered", start, start + 1000) == data[start : start + 1000]
            assert nc.stats.out_msgs - before <= 20
        await nc.jetstream().delete_object_store("range-scattered")


async def test_a_guess_that_hits_another_chunk_of_the_object(store: ObjectStore) -> None:
    """All chunks have the right length, so only the proof tells that it is not the one that was meant."""
    await store.put("a", DATA, chunk_size=10_000)
    for number in range(3):
        await store.put("other", bytes([number]))
    await store.rename("a", "b")
    fresh = await store.js.object_store(store.bucket)
    assert await fresh.get_range("b", 500_000, 530_000) == DATA[500_000:530_000]
    assert await fresh.get_range("b", 12_345, 67_890) == DATA[12_345:67_890]


async def test_a_lost_chunk_and_a_foreign_one_in_its_place(store: ObjectStore) -> None:
    """The first and the last chunk lie as far from each other as they should; their number tells."""
    chunks = [RNG.randbytes(1000) for _ in range(9)]
    subject = f"$O.{store.bucket}.C.RAWholey"
    for number, chunk in enumerate(chunks):
        await store.js.publish(f"$O.{store.bucket}.C.FOREIGN" if number == 3 else subject, chunk)
    await raw_object(store, "holey", [], size=9000, chunks=9)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            await store.get_range("holey", 5500, 7500)


async def test_what_is_remembered_is_not_trusted(store: ObjectStore) -> None:
    """The same chunks elsewhere, then none, then others of other lengths."""
    stream = f"OBJ_{store.bucket}"
    chunks = [RNG.randbytes(1000) for _ in range(6)]
    data = b"".join(chunks)
    info = await raw_object(store, "moved", chunks)
    subject = f"$O.{store.bucket}.C.RAWmoved"
    for again in (
        chunks,
        [data[:900], data[900:1900], *(data[n : n + 1000] for n in range(1900, 6000, 1000))],
    ):
        for start in (2500, 1500):
            assert await store.get_range("moved", start, start + 2000) == data[start : start + 2000]
        await store.js.purge_stream(stream, subject=subject)
        with pytest.raises(IntegrityError):
            await store.get_range("moved", 2500, 4500)
        await store.js.publish(f"$O.{store.bucket}.C.OTHER", b"")
        for chunk in again:
            await store.js.publish(subject, chunk)
        with pytest.raises((IntegrityError, ConnectionError)):
            await store.get_range("moved", 2500, 4500)  # the meta is older
        meta = meta_subject(store.bucket, "moved")
        await store.js.publish(meta, encode_meta(info), headers={"Nats-Rollup": "sub"})
    with pytest.raises(IntegrityError):
        await store.get_range("moved", 2500, 4500)  # seven chunks, six are in the meta


@pytest.mark.parametrize("most", [64, 2])
async def test_regularity_is_not_remembered_for_what_lies_elsewhere(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """As many chunks and bytes as before, cut at other offsets; read one by one, and as too many for that."""
    monkeypatch.setattr("objstore.read.by_sequence.MOST", most)
    chunks = [RNG.randbytes(size) for size in (1000, 1000, 1000, 1000, 1000, 500)]
    data = b"".join(chunks)
    info = await raw_object(store, "recut", chunks)
    assert await store.get_range("recut", 2500, 2600) == data[2500:2600]
    assert await store.get_range("recut", 2500, 4500) == data[2500:4500]
    subject = f"$O.{store.bucket}.C.RAWrecut"
    await store.js.purge_stream(f"OBJ_{store.bucket}", subject=subject)
    for start, end in ((0, 900), (900, 1900), (1900, 2900), (2900, 3900), (3900, 4900), (4900, 5500)):
        await store.js.publish(subject, data[start:end])
    meta = meta_subject(store.bucket, "recut")
    await store.js.publish(meta, encode_meta(info), headers={"Nats-Rollup": "sub"})
    assert await store.get_range("recut", 2500, 4500) == data[2500:4500]


async def test_memory_of_places_is_bounded(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objstore.read.by_sequence.REMEMBERED", 3)
    for _ in range(2):
        for number in range(5):
            data = DATA[number : number + 5000]
            if not await store.exists(f"o{number}"):
                await store.put(f"o{number}", data, chunk_size=1000)
            assert await store.get_range(f"o{number}", 1500, 3500) == data[1500:3500]
            assert 1 <= len(store._bucket.remembered(Begins)) <= 3


@pytest.mark.parametrize("lies", [[20, 10, 30], [1, 1, 58]])
async def test_chunks_that_lie_about_their_length(store: ObjectStore, lies: list[int]) -> None:
    """A chunk may bear the header by which servers tell of its length: the server's own is the last one."""
    parts = [b"a" * 10, b"b" * 20, b"c" * 30]
    data = b"".join(parts)
    info = await store.put("a", data, chunk_size=30)
    await store.js.purge_stream(stream(store), subject=chunk_subject(store, info.nuid))
    for part, lie in zip(parts, lies, strict=True):
        await store.js.publish(chunk_subject(store, info.nuid), part, headers={"Nats-Msg-Size": str(lie)})
    await forge(store, "a", chunks=3)
    async with asyncio.timeout(30):
        assert await store.get("a") == data
        assert await store.get_range("a", 12, 22) == data[12:22]
        async with store.open_reader("a") as reader:
            await reader.seek(12)
            assert await reader.read(10) == data[12:22]


@pytest.mark.parametrize("size", [5000, 4010])
@pytest.mark.parametrize("direct", [True, False])
async def test_a_chunk_that_was_stored_twice(
    store: ObjectStore, size: int, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the object it is damage, to each range. Behind it it is none, nor with a newer meta."""
    monkeypatch.setattr(_get, "RECHECK_DELAYS", (0.0, 0.0))
    js = store.js
    bucket = await js.create_object_store(bucket=store.bucket + "-twice", allow_direct=direct)
    data = DATA[:size]
    info = await bucket.put("late", data, chunk_size=1000)
    chunks = [data[at : at + 1000] for at in range(0, size, 1000)]
    for chunk in (*chunks[3:], *chunks[3:]):
        await js.publish(chunk_subject(bucket, info.nuid), chunk)
    await bucket.update_meta("late", ObjectMeta("late", "a newer meta"))
    for place in range(5):
        nuid = f"TWICE{place}"
        for index, chunk in enumerate(chunks):
            for _ in range(2 if index == place else 1):
                await js.publish(f"$O.{bucket.bucket}.C.{nuid}", chunk)
        meta = replace(info, name=f"twice{place}", nuid=nuid)
        await js.publish(meta_subject(bucket.bucket, meta.name), encode_meta(meta))
    for start, end in ((0, 1001), (100, 3500), (1500, 1600), (1500, 3500), (2500, size), (size - 5, size)):
        fresh = await js.object_store(bucket.bucket)
        assert await fresh.get_range("late", start, end) == data[start:end]
        assert await fresh.get_range("twice4", start, end) == data[start:end]  # that one is behind the object
        for place in range(4):
            with pytest.raises(IntegrityError, match=r"damaged"):
                await fresh.get_range(f"twice{place}", start, end)
            async with fresh.open_reader(f"twice{place}") as reader:
                await reader.seek(start)
                with pytest.raises(IntegrityError, match=r"damaged"):
                    await reader.read(end - start)
    await js.delete_object_store(bucket.bucket)
