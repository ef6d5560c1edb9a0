"""What the promises come to where several things happen at once, or one after the other in an odd order."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

import natsproto
from natsproto.errors import BadSubjectError, ConnectionClosedError, NatsError
from natsproto.server import LocalServer
from objstore import (
    BadObjectMetaError,
    IntegrityError,
    ObjectDeletedError,
    ObjectMeta,
    ObjectStore,
    StoreFullError,
)

DATA = os.urandom(1_000_000)
CHUNK = 50_000


async def chunk_counts(store: ObjectStore) -> dict[str, int]:
    return await store.js.stream_subjects(f"OBJ_{store.bucket}", f"$O.{store.bucket}.C.>")


# -- uploads ----------------------------------------------------------------------------------------------


async def test_upload_renamed_after_its_commit_is_left_alone(store: ObjectStore) -> None:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    await upload.send(DATA)
    await store.rename("a", "b")
    await upload.abort()
    assert await store.get("b") == DATA
    again = await upload.send(DATA)
    assert again.name == "b"
    assert not await store.exists("a")
    assert await store.get("b") == DATA


async def test_two_sends_of_one_token(store: ObjectStore) -> None:
    """At least one fails, and what is acknowledged last is readable after a further send."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    twin = await store.begin_upload("a", token=upload.token)
    results = await asyncio.gather(upload.send(DATA), twin.send(DATA), return_exceptions=True)
    if all(not isinstance(result, BaseException) for result in results):
        assert await store.get("a") == DATA
    else:
        assert any(isinstance(result, NatsError) for result in results)
    await upload.send(DATA)
    assert await store.get("a") == DATA


# -- streams ----------------------------------------------------------------------------------------------


async def test_writer_after_a_failed_write(store: ObjectStore) -> None:
    small = await store.js.create_object_store(bucket=store.bucket + "-small", max_bytes=500_000)
    writer = small.open_writer("a", window=100_000)
    with pytest.raises(StoreFullError):
        for _ in range(100):
            await writer.write(bytes(50_000))
    async with asyncio.timeout(5):
        with pytest.raises(StoreFullError):
            await writer.write(b"once more")
        await writer.abort()
    await store.js.delete_object_store(small.bucket)


async def test_cancelled_read_is_repeated_without_a_gap(store: ObjectStore) -> None:
    data = DATA * 8
    await store.put("a", data)
    found = bytearray()
    async with store.open_reader("a") as reader:
        while len(found) < len(data):
            task = asyncio.ensure_future(reader.read(700_000))
            if len(found) // 700_000 % 2:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel()
            try:
                found += await task
            except asyncio.CancelledError:
                found += await reader.read(700_000)
            assert reader.tell() == len(found)
    assert found == data


async def test_cancelled_write_aborts(store: ObjectStore) -> None:
    writer = store.open_writer("a", window=1)
    await writer.write(DATA)
    task = asyncio.ensure_future(writer.write(DATA))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ConnectionClosedError):
        await writer.write(b"x")
    assert await chunk_counts(store) == {}
    assert not await store.exists("a")


# -- many writers -----------------------------------------------------------------------------------------


async def test_last_writer_wins_without_a_conflict(store: ObjectStore) -> None:
    contents = [bytes([number]) * 1000 for number in range(64)]
    await asyncio.gather(*(store.put("a", content) for content in contents))
    assert await store.get("a") in contents
    await asyncio.gather(*(store.update_meta("a", ObjectMeta("a", f"d{number}")) for number in range(32)))
    assert len(await chunk_counts(store)) == 1


async def test_bucket_made_anew_under_a_slow_put(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sequences go on rising, and nothing breaks: only counting tells that chunks are gone."""
    from objstore.write import chunks as _chunks

    monkeypatch.setattr(_chunks, "LONG", 0.0)
    js = store.js

    async def source() -> AsyncIterator[bytes]:
        yield bytes(CHUNK * 3)
        async with asyncio.timeout(30):
            while sum((await chunk_counts(store)).values()) < 3:
                pass
        await js.delete_object_store(store.bucket)
        other = await js.create_object_store(bucket=store.bucket)
        for number in range(10):
            await other.put(f"n{number}", b"x")
        yield bytes(CHUNK * 3)

    with pytest.raises((LookupError, IntegrityError)):
        await store.put("a", source(), chunk_size=CHUNK)
    fresh = await js.object_store(store.bucket)
    assert not await fresh.exists("a")
    assert (await fresh.verify(deep=True)).ok


# -- full buckets -----------------------------------------------------------------------------------------


@pytest.fixture
async def tight(new_server: LocalServer) -> AsyncIterator[ObjectStore]:
    async with natsproto.connect(new_server.url) as nc:
        js = nc.jetstream()
        bucket = "full-" + uuid4().hex[:10]
        store = await js.create_object_store(bucket=bucket, max_bytes=200_000)
        await store.put("a", bytes(100_000))
        size = 60_000
        while size > 1:  # fill it to the last byte a message can have
            try:
                await js.publish(f"$O.{bucket}.C.filler", bytes(size))
            except NatsError:
                size //= 2
        yield store
        await js.delete_object_store(bucket)


async def test_rename_in_a_full_bucket_changes_nothing(tight: ObjectStore) -> None:
    with pytest.raises(StoreFullError):
        await tight.rename("a", "a-much-longer-name-" + "x" * 500)
    assert await tight.get("a") == bytes(100_000)
    await tight.delete("a")
    assert not await tight.exists("a")


async def test_object_changed_while_it_is_deleted_from_a_full_bucket(
    tight: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client frees space and changes the meta in the middle: never a live meta without chunks."""
    from objstore.change import delete as _delete

    real, calls = _delete.purge_metas, []

    async def changing(bucket: object, subject: str, revision: int) -> int | None:
        if not calls:
            calls.append(subject)
            await tight.js.purge_stream(f"OBJ_{tight.bucket}", subject=f"$O.{tight.bucket}.C.filler")
            await tight.update_meta("a", ObjectMeta("a", "changed"))
        return await real(bucket, subject, revision)  # type: ignore[arg-type]

    monkeypatch.setattr(_delete, "purge_metas", changing)
    await tight.delete("a")
    assert calls
    assert not await tight.exists("a")
    assert (await tight.verify()).ok
    assert not [name for name in await chunk_counts(tight) if not name.endswith("filler")]


# -- all or nothing ---------------------------------------------------------------------------------------


async def test_cancelled_atomic_puts_leave_nothing(new_server: LocalServer) -> None:
    async with natsproto.connect(new_server.url) as nc:
        js = nc.jetstream()
        store = await js.create_object_store(bucket="atomic-" + uuid4().hex[:10], allow_atomic=True)
        await store.put("a", DATA, chunk_size=CHUNK, atomic=True)
        for turns in range(0, 60, 3):
            task = asyncio.ensure_future(store.put("a", DATA[::-1], chunk_size=CHUNK, atomic=True))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        left = [task for task in asyncio.all_tasks() if task.get_name() == "objstore-run-to-end"]
        if left:
            await asyncio.wait(left, timeout=30)
        assert await store.get("a") in (DATA, DATA[::-1])
        assert len(await chunk_counts(store)) == 1
        await js.delete_object_store(store.bucket)


# -- files ------------------------------------------------------------------------------------------------


async def test_only_files_are_replaced_by_files(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", b"content")
    fifo, directory, private = tmp_path / "fifo", tmp_path / "directory", tmp_path / "private"
    os.mkfifo(fifo)
    directory.mkdir()
    private.write_bytes(b"previous")
    private.chmod(0o600)
    with pytest.raises(OSError, match="regular"):
        await store.get_file("a", fifo)
    with pytest.raises(IsADirectoryError):
        await store.get_file("a", directory)
    with pytest.raises(FileNotFoundError):
        await store.get_file("a", tmp_path / "nowhere" / "file")
    await store.get_file("a", private)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.read_bytes() == b"content"
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "fifo", "private"]


# -- the client below -------------------------------------------------------------------------------------


async def test_draining_lets_a_put_finish(server: LocalServer) -> None:
    async with natsproto.connect(server.url) as nc, natsproto.connect(server.url) as other:
        store = await nc.jetstream().create_object_store(bucket="drain-" + uuid4().hex[:10])
        info = await store.put("a", DATA)
        draining = asyncio.ensure_future(nc.drain())
        await draining
        with pytest.raises(ConnectionClosedError):
            await store.put("b", DATA)
        elsewhere = await other.jetstream().object_store(store.bucket)
        assert (await elsewhere.get_info("a")).revision == info.revision
        assert (await elsewhere.verify(deep=True)).ok
        assert (await elsewhere.gc(dry_run=True)).recent == []
        await other.jetstream().delete_object_store(store.bucket)


async def test_large_header_is_no_reason_to_disconnect(server: LocalServer) -> None:
    """Any peer may publish one: it is that one message's affair."""
    async with natsproto.connect(server.url) as nc, natsproto.connect(server.url) as peer:
        subscription = await nc.subscribe("large.>")
        await nc.flush()
        await peer.publish("large.header", b"1", headers={"K": "v" * 100_000})
        await peer.publish("large.next", b"2")
        first, second = [await subscription.next_msg(10) for _ in range(2)]
        assert first.headers is not None
        assert (len(first.headers["K"]), second.data) == (100_000, b"2")
        assert nc.stats.reconnects == 0


def test_client_of_another_event_loop(new_server: LocalServer) -> None:
    async def begin() -> tuple[natsproto.Client, ObjectStore]:
        nc = await natsproto.connect(new_server.url)
        store = await nc.jetstream().create_object_store(bucket="loops-" + uuid4().hex[:10])
        await nc.close()
        return nc, store

    async def go_on(nc: natsproto.Client, store: ObjectStore) -> None:
        for call in (nc.request("x"), nc.publish("x"), store.get("a"), store.put("a", b"x")):
            with pytest.raises(ConnectionClosedError):
                await call

    asyncio.run(go_on(*asyncio.run(begin())))


async def test_wrong_types_get_typed_errors(store: ObjectStore) -> None:
    nc = store.js.client
    with pytest.raises(BadSubjectError):
        await nc.publish(5)  # type: ignore[arg-type]
    with pytest.raises(BadSubjectError):
        await nc.subscribe(None)  # type: ignore[arg-type]
    for options in ({"options": 5}, {"window": 0}, {"window": "x"}, {"chunk_size": "1"}):
        with pytest.raises(BadObjectMetaError):
            await store.put("a", b"x", **options)  # type: ignore[arg-type]
    await store.put("a", b"x")
    await store.delete("a")
    with pytest.raises(ObjectDeletedError):
        await store.get("a")
