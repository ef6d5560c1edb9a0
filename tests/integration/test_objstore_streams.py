"""Readers and writers: the same bytes, verified, with back-pressure, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
from typing import Any

import pytest

import natsproto
from natsproto.errors import StaleConnectionError
from objstore import (
    DigestMismatchError,
    IntegrityError,
    LinkError,
    ObjectChangedError,
    ObjectDeletedError,
    ObjectNotFoundError,
    ObjectStore,
    RevisionConflictError,
)
from objstore.format.digest import hex_digest, new_hasher, to_wire
from objstore.read import reader as _reader
from support.objects import forge

RNG = random.Random(3)
DATA = RNG.randbytes(9_000_017)


async def chunk_subjects(store: ObjectStore) -> dict[str, int]:
    return await store.js.stream_subjects(f"OBJ_{store.bucket}", f"$O.{store.bucket}.C.>")


# -- reading ----------------------------------------------------------------------------------------------


async def test_iterate(store: ObjectStore) -> None:
    await store.put("a", DATA)
    async with store.open_reader("a") as reader:
        assert reader.info.size == len(DATA)
        pieces = [piece async for piece in reader]
    assert b"".join(pieces) == DATA
    assert len(pieces) > 10


@pytest.mark.parametrize("size", [1, 4096, 131072, 1_000_000])
async def test_read_and_readinto(store: ObjectStore, size: int) -> None:
    data = DATA[: 30_000 if size == 1 else len(DATA)]
    await store.put("a", data)
    async with store.open_reader("a") as reader:
        found = bytearray()
        while piece := await reader.read(size):
            found += piece
            assert reader.tell() == len(found)
        assert found == data
        assert await reader.read() == b""
    async with store.open_reader("a") as reader:
        buffer, found = bytearray(size), bytearray()
        while count := await reader.readinto(buffer):
            found += buffer[:count]
        assert found == data


async def test_read_everything_and_awaited(store: ObjectStore) -> None:
    await store.put("a", DATA)
    reader = await store.open_reader("a")
    assert await reader.read() == DATA
    await reader.aclose()
    await reader.aclose()
    with pytest.raises(natsproto.NatsError, match="closed"):
        await reader.read(1)
    await store.put("empty", b"")
    async with store.open_reader("empty") as reader:
        assert await reader.read() == b""
        assert [piece async for piece in reader] == []


async def test_seek(store: ObjectStore) -> None:
    await store.put("a", DATA, chunk_size=50_000)
    local = io.BytesIO(DATA)
    rng = random.Random(5)
    async with store.open_reader("a") as reader:
        for _ in range(30):
            offset, whence, size = rng.choice(
                [
                    (rng.randrange(len(DATA) + 1), os.SEEK_SET, rng.randrange(200_000)),
                    (-rng.randrange(len(DATA)), os.SEEK_END, 1000),
                    (rng.randrange(1000), os.SEEK_CUR, 10),
                ]
            )
            assert await reader.seek(offset, whence) == local.seek(offset, whence)
            assert await reader.read(size) == local.read(size)
            assert reader.tell() == local.tell()
        assert await reader.seek(len(DATA) + 100) == len(DATA) + 100
        assert await reader.read(10) == b""
        with pytest.raises(ValueError, match="before"):
            await reader.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            await reader.seek(0, 7)
        await reader.seek(0)
        assert await reader.read() == DATA


async def test_digest_is_checked_at_the_end(store: ObjectStore) -> None:
    info = await store.put("a", DATA[:300_000], chunk_size=100_000)
    stream, subject = f"OBJ_{store.bucket}", f"$O.{store.bucket}.C.{info.nuid}"
    last = await store.js.get_message(stream, last_by_subject=subject)
    await store.js.delete_message(stream, last.seq)
    await store.js.publish(subject, bytes(100_000))
    async with store.open_reader("a") as reader:
        assert await reader.read(100_000) == DATA[:100_000]
        with pytest.raises(DigestMismatchError):
            await reader.read()
    async with store.open_reader("a", verify=False) as reader:
        assert await reader.read() == DATA[:200_000] + bytes(100_000)


async def test_chunks_missing(store: ObjectStore) -> None:
    info = await store.put("a", DATA, chunk_size=100_000)
    await store.js.purge_stream(f"OBJ_{store.bucket}", subject=f"$O.{store.bucket}.C.{info.nuid}", keep=10)
    async with store.open_reader("a") as reader:
        with pytest.raises(IntegrityError):
            await reader.read()


async def test_replaced_while_being_read(store: ObjectStore) -> None:
    big = DATA * 4
    await store.put("a", big)
    async with store.open_reader("a") as reader:
        assert await reader.read(10) == big[:10]
        await store.put("a", b"another")
        with pytest.raises(ObjectChangedError):
            await reader.read()
    await store.put("b", big)
    async with store.open_reader("b") as reader:
        await reader.read(10)
        await store.delete("b")
        with pytest.raises(ObjectDeletedError):
            await reader.read()


async def test_reader_that_stops_early_leaves_nothing(store: ObjectStore) -> None:
    plain = await store.js.create_object_store(bucket=store.bucket + "-plain", allow_direct=False)
    for each in (store, plain):
        await each.put("a", DATA * 3)
        async with each.open_reader("a") as reader:
            await reader.read(100)
        assert await each.js.consumer_names(f"OBJ_{each.bucket}") == []
    await store.js.delete_object_store(plain.bucket)


async def test_reader_errors(store: ObjectStore) -> None:
    with pytest.raises(ObjectNotFoundError):
        async with store.open_reader("missing"):
            pass
    await store.add_bucket_link("l", store.bucket)
    with pytest.raises(LinkError):
        await store.open_reader("l")


@pytest.mark.parametrize("right", [True, False], ids=["right digest", "wrong digest"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_cancelled_reads_skip_nothing_and_are_judged(
    store: ObjectStore, right: bool, turns: int
) -> None:
    """What a cancelled call had taken the next one gets, and to the end the whole is verified."""
    data = DATA[:3_000_017]
    await store.put("a", data)
    if not right:
        await forge(store, "a", digest=to_wire(hex_digest(new_hasher(b"another").digest())))
    found = bytearray()

    async def read_on(size: int, cancelled: bool) -> bool:
        task = asyncio.ensure_future(reader.read(size))
        for _ in range(turns if cancelled else 0):
            await asyncio.sleep(0)
        if cancelled:
            task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            return True
        found.extend(task.result())
        return len(task.result()) > 0

    async with store.open_reader("a", window=500_000) as reader:
        with contextlib.nullcontext() if right else pytest.raises(DigestMismatchError):
            cancelled = True
            while await read_on(700_001, cancelled):
                assert reader.tell() == len(found)
                cancelled = not cancelled
    assert found == data[: len(found)]
    assert (found == data) == right


@pytest.mark.parametrize("size", [-1, 4096])
async def test_the_leader_cannot_be_asked_why(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The digest is wrong, and the call that finds it fails of something else: the next one still tells."""
    data = DATA[:65_536]
    await store.put("a", data, chunk_size=4096)
    await forge(store, "a", digest=to_wire(hex_digest(new_hasher(b"another").digest())))
    real, asked = _reader.again, 0

    async def silent_at_first(*args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise StaleConnectionError("no answer")
        return await real(*args, **options)

    monkeypatch.setattr(_reader, "again", silent_at_first)
    async with store.open_reader("a") as reader:
        with pytest.raises(StaleConnectionError):
            while await reader.read(size):
                pass
        for _ in range(2):
            with pytest.raises(DigestMismatchError):
                await reader.read(size)
        await reader.seek(10)
        assert await reader.read(5) == data[10:15]


async def test_reading_asks_for_no_more_than_is_read(store: ObjectStore) -> None:
    """A reader that pauses holds a few windows, not the object."""
    await store.put("a", bytes(64 * 1024 * 1024))
    before = store.js.client.stats.in_bytes
    async with store.open_reader("a") as reader:
        await reader.read(1)
        await store.js.client.flush()
        received = store.js.client.stats.in_bytes - before
        assert received < 48 * 1024 * 1024
        assert len(await reader.read()) == 64 * 1024 * 1024 - 1


# -- writing ----------------------------------------------------------------------------------------------


async def test_write(store: ObjectStore) -> None:
    buffer = bytearray(70_001)
    async with store.open_writer("a", "d", headers={"K": "V"}, chunk_size=50_000) as writer:
        for at in range(0, len(DATA), len(buffer)):
            piece = DATA[at : at + len(buffer)]
            buffer[: len(piece)] = piece
            assert await writer.write(memoryview(buffer)[: len(piece)]) == len(
                piece
            )  # one buffer, again and again
        assert writer.tell() == len(DATA)
        assert not await store.exists("a"), "nothing is visible before the clean exit"
    assert writer.info is not None
    assert (
        writer.info == await store.get_info("a")
        or writer.info.revision == (await store.get_info("a")).revision
    )
    assert await store.get("a") == DATA
    info = await store.get_info("a")
    assert (info.description, info.headers) == ("d", {"K": "V"})
    assert info.chunks == -(-len(DATA) // 50_000)


async def test_write_nothing(store: ObjectStore) -> None:
    async with store.open_writer("empty"):
        pass
    assert await store.get("empty") == b""


async def test_exception_leaves_the_previous_object(store: ObjectStore) -> None:
    await store.put("a", b"previous")
    with pytest.raises(RuntimeError, match="ours"):
        async with store.open_writer("a") as writer:
            await writer.write(DATA)
            raise RuntimeError("ours")
    assert await store.get("a") == b"previous"
    assert len(await chunk_subjects(store)) == 1
    with pytest.raises(natsproto.NatsError, match="closed"):
        await writer.write(b"more")


async def test_cancelled_writer(store: ObjectStore) -> None:
    async def write() -> None:
        async with store.open_writer("a") as writer:
            await writer.write(DATA)
            started.set()
            await asyncio.Event().wait()

    started = asyncio.Event()
    task = asyncio.create_task(write())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await chunk_subjects(store) == {}
    assert not await store.exists("a")


async def test_failure_reaches_the_writer(store: ObjectStore) -> None:
    small = await store.js.create_object_store(bucket=store.bucket + "-small", max_bytes=2_000_000)
    with pytest.raises(natsproto.NatsError, match="full"):
        async with small.open_writer("a", window=200_000) as writer:
            while True:
                await writer.write(bytes(100_000))
    assert await small.list() == []
    await store.js.delete_object_store(small.bucket)
    first = await store.put("a", b"1")
    with pytest.raises(RevisionConflictError):
        async with store.open_writer("a", if_revision=first.revision + 9) as writer:
            await writer.write(b"2")
    assert await store.get("a") == b"1"


async def test_writer_types(store: ObjectStore) -> None:
    with pytest.raises(TypeError, match="encode"):
        async with store.open_writer("a") as writer:
            await writer.write("text")  # type: ignore[arg-type]
    assert not await store.exists("a")
    with pytest.raises(TypeError):
        async with store.open_writer("a", nonsense=1):
            pass
