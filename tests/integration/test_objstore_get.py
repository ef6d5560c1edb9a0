"""Reading objects: whole and into files, what must be noticed, and links."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from natsproto.aio.client import Client
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import (
    BucketNotFoundError,
    DigestMismatchError,
    IntegrityError,
    LinkError,
    ObjectDeletedError,
    ObjectLink,
    ObjectNotFoundError,
    ObjectStore,
    ObjectTooLargeError,
    sync,
)
from objstore.read import ranges as _ranges
from objstore.read.feed import ChunkFeed
from support.objects import (
    CHUNK,
    MIB,
    assert_exact,
    chunk_sequences,
    chunk_subject,
    forge,
    meta_subject,
    pattern,
    stream,
    wire_digest,
    write_raw,
)


@pytest.fixture(params=["direct", "leader only"])
async def any_store(
    request: pytest.FixtureRequest, js: JetStreamContext, bucket_name: str
) -> AsyncIterator[ObjectStore]:
    """A bucket with and without direct get: the second is read through ordered consumers."""
    yield await js.create_object_store(bucket=bucket_name, allow_direct=request.param == "direct")
    left = await js.consumer_names(f"OBJ_{bucket_name}")
    await js.delete_object_store(bucket_name)
    assert left == []


async def refuses(store: ObjectStore, tmp_path: Path, error: type[Exception] = IntegrityError) -> None:
    """``get`` and ``get_file`` raise, soon, and leave no file behind."""
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    async with asyncio.timeout(2 + 5):
        with pytest.raises(error):
            await store.get("a")
    async with asyncio.timeout(2 + 5):
        with pytest.raises(error):
            await store.get_file("a", target)
    assert target.read_bytes() == b"untouched"
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("size", [0, 1, CHUNK, 3 * CHUNK, 40 * CHUNK + 7])
async def test_round_trip(any_store: ObjectStore, tmp_path: Path, size: int) -> None:
    data = pattern(size)
    await any_store.put("a", data)
    assert await any_store.get("a") == data
    info = await any_store.get_file("a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    assert info.size == size
    assert os.listdir(tmp_path) == ["out"]
    seen: list[tuple[int, int | None]] = []
    await any_store.get("a", progress=lambda done, total: seen.append((done, total)))
    assert not size or seen[-1] == (size, size)


async def test_tiny_chunks(any_store: ObjectStore, tmp_path: Path) -> None:
    data = pattern(3000)
    await any_store.put("a", data, chunk_size=1)
    assert await any_store.get("a") == data
    await any_store.get_file("a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


async def test_not_there(any_store: ObjectStore, tmp_path: Path) -> None:
    for call in (any_store.get("a"), any_store.get_info("a"), any_store.get_file("a", tmp_path / "x")):
        with pytest.raises(ObjectNotFoundError) as caught:
            await call
        assert not isinstance(caught.value, ObjectDeletedError)
    await any_store.put("a", b"1")
    assert await any_store.exists("a")
    await any_store.delete("a")
    for call in (any_store.get("a"), any_store.get_info("a"), any_store.get_file("a", tmp_path / "x")):
        with pytest.raises(ObjectDeletedError):
            await call
    info = await any_store.get_info("a", show_deleted=True)
    assert (info.deleted, info.size, info.chunks, info.digest) == (True, 0, 0, "")
    assert not await any_store.exists("a")
    with pytest.raises(ObjectNotFoundError):
        await any_store.get_info("b", show_deleted=True)
    assert os.listdir(tmp_path) == []


async def test_max_size(store: ObjectStore) -> None:
    await store.put("a", bytes(1000))
    assert len(await store.get("a", max_size=1000)) == 1000
    with pytest.raises(ObjectTooLargeError, match="max_size"):
        await store.get("a", max_size=999)


@pytest.mark.parametrize("chunks", [1, 3])
async def test_more_than_memory_takes(nc: Client, any_store: ObjectStore, chunks: int) -> None:
    """An error of that call alone: what others do on the connection goes on."""
    data = pattern(chunks * CHUNK)
    await any_store.put("a", data)
    await any_store.put("b", data)
    await forge(any_store, "a", size=1 << 50)
    session = nc.connection.session
    results = await asyncio.gather(
        any_store.get("b"), any_store.get("a", max_size=1 << 60), any_store.get("b"), return_exceptions=True
    )
    assert results[0] == results[2] == data
    assert isinstance(results[1], ObjectTooLargeError)
    async with any_store.open_reader("a", window=1 << 50) as reader:
        with pytest.raises(ObjectTooLargeError):
            await reader.read(1)
    assert await any_store.get("b") == data
    assert nc.connection.session is session
    assert len(nc.connection.mux) == 0
    await forge(any_store, "a", size=len(data))
    assert await any_store.get("a") == data


# -- damage: C2 ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_looks")
@pytest.mark.parametrize(("chunks", "index"), [(1, 0), (2, 0), (2, 1), (5, 0), (5, 2), (5, 4)])
async def test_chunk_deleted(any_store: ObjectStore, tmp_path: Path, chunks: int, index: int) -> None:
    info = await any_store.put("a", pattern(chunks * CHUNK))
    found = await chunk_sequences(any_store, info.nuid)
    await any_store.js.delete_message(stream(any_store), found[index])
    await refuses(any_store, tmp_path)


async def test_chunks_purged(any_store: ObjectStore, tmp_path: Path) -> None:
    info = await any_store.put("a", pattern(5 * CHUNK))
    await any_store.js.purge_stream(stream(any_store), subject=chunk_subject(any_store, info.nuid))
    await refuses(any_store, tmp_path)


@pytest.mark.usefixtures("short_looks")
@pytest.mark.parametrize("chunks", [1, 2, 5])
@pytest.mark.parametrize("extra", [1, CHUNK])
async def test_chunk_appended(any_store: ObjectStore, tmp_path: Path, chunks: int, extra: int) -> None:
    info = await any_store.put("a", pattern(chunks * CHUNK))
    await any_store.js.publish(chunk_subject(any_store, info.nuid), bytes(extra))
    await refuses(any_store, tmp_path)


@pytest.mark.parametrize("size", [0, 1, CHUNK, 2 * CHUNK])
async def test_trailing_empty_chunk(any_store: ObjectStore, tmp_path: Path, size: int) -> None:
    """T10: nats.net ends objects with an empty message that it does not count."""
    data = pattern(size)
    info = await any_store.put("a", data)
    await any_store.js.publish(chunk_subject(any_store, info.nuid), b"")
    assert await any_store.get("a") == data
    await any_store.get_file("a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    await forge(any_store, "a", chunks=info.chunks + 1)  # a writer that counted it
    assert await any_store.get("a") == data


@pytest.mark.usefixtures("short_looks")
@pytest.mark.parametrize(
    "changes",
    [
        {"size": 2 * CHUNK + 1},
        {"size": 2 * CHUNK - 1},
        {"size": 0},
        {"size": 1 << 29},
        {"chunks": 1},
        {"chunks": 3},
        {"chunks": 0},
        {"chunks": 1 << 30},
        {"size": 0, "chunks": 0},
        {"digest": wire_digest(b"something else")},
        {"digest": "SHA-512=x"},
        {"digest": None},
        {"nuid": "another"},
        {"nuid": ">"},
        {"nuid": "*"},
        {"nuid": "a.b"},
        {"nuid": ""},
        {"nuid": None},
    ],
    ids=repr,
)
async def test_forged_meta(any_store: ObjectStore, tmp_path: Path, changes: dict[str, Any]) -> None:
    await any_store.put("a", pattern(2 * CHUNK))
    await forge(any_store, "a", **changes)
    await refuses(any_store, tmp_path)


async def test_bit_flip(any_store: ObjectStore, tmp_path: Path) -> None:
    """C1: the recorded digest is of other bytes; verify=False reads them nevertheless."""
    data = bytearray(pattern(3 * CHUNK))
    await any_store.put("a", data)
    data[CHUNK + 5] ^= 1
    await forge(any_store, "a", digest=wire_digest(data))
    await refuses(any_store, tmp_path, DigestMismatchError)
    data[CHUNK + 5] ^= 1
    assert await any_store.get("a", verify=False) == data


async def test_bit_flip_of_a_small_one(any_store: ObjectStore, tmp_path: Path) -> None:
    """The same for one that is read by one request."""
    await any_store.put("a", b"small")
    await forge(any_store, "a", digest=wire_digest(b"smalm"))
    await refuses(any_store, tmp_path, DigestMismatchError)
    assert await any_store.get("a", verify=False) == b"small"


async def test_unreadable_meta(any_store: ObjectStore) -> None:
    await any_store.put("b", b"other")
    await write_raw(any_store.js, meta_subject(any_store, "a"), b"{not json")
    for call in (any_store.get("a"), any_store.get_info("a")):
        with pytest.raises(IntegrityError):
            await call
    assert await any_store.get("b") == b"other"
    await any_store.put("a", b"replaced")
    assert await any_store.get("a") == b"replaced"
    await write_raw(any_store.js, meta_subject(any_store, "a"), b"[]")
    await any_store.delete("a")
    with pytest.raises(ObjectNotFoundError):
        await any_store.get("a")


# -- files: C7 ----------------------------------------------------------------------------------------


async def test_get_file_replaces(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", b"short")
    target = tmp_path / "t"
    target.write_bytes(b"much longer than that")
    await store.get_file("a", target)
    assert target.read_bytes() == b"short"


async def test_get_file_through_symlink(store: ObjectStore, tmp_path: Path) -> None:
    """The link is replaced; what it points to is not written to."""
    await store.put("a", b"new")
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    await store.get_file("a", tmp_path / "link")
    assert (tmp_path / "link").read_bytes() == b"new"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"old"


async def test_get_file_cannot_write(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", pattern(3 * CHUNK))
    with pytest.raises(FileNotFoundError):
        await store.get_file("a", tmp_path / "no such" / "file")
    (tmp_path / "dir").mkdir()
    with pytest.raises(OSError):
        await store.get_file("a", tmp_path / "dir")
    assert os.listdir(tmp_path) == ["dir"]
    with pytest.raises(OSError):
        await store.get_file("a", "/dev/full/x")
    with pytest.raises(TypeError):
        await store.get_file("a", 5)  # type: ignore[arg-type]


async def test_progress_raises(any_store: ObjectStore, tmp_path: Path) -> None:
    def progress(done: int, total: int | None) -> None:
        raise LookupError("mine")

    await any_store.put("a", pattern(5 * CHUNK))
    with pytest.raises(LookupError, match="mine"):
        await any_store.get("a", progress=progress)
    with pytest.raises(LookupError, match="mine"):
        await any_store.get_file("a", tmp_path / "x", progress=progress)
    assert os.listdir(tmp_path) == []
    assert await any_store.get("a") == pattern(5 * CHUNK)


# -- links: C11 ---------------------------------------------------------------------------------------


async def link_raw(store: ObjectStore, name: str, bucket: str, target: str | None) -> None:
    """A link as nats.js writes it: no checks, no nuid, size or chunks."""
    link = {"bucket": bucket} if target is None else {"bucket": bucket, "name": target}
    await write_raw(
        store.js, meta_subject(store, name), {"name": name, "bucket": store.bucket, "options": {"link": link}}
    )


async def test_links(store: ObjectStore, js: JetStreamContext, tmp_path: Path) -> None:
    other = await js.create_object_store(bucket=store.bucket + "-other")
    try:
        await other.put("far", pattern(2 * CHUNK))
        await store.put("near", b"near")
        await store.add_link("n", await store.get_info("near"))
        await store.add_link("f", ObjectLink(other.bucket, "far"))
        assert await store.get("n") == b"near"
        assert await store.get("f") == pattern(2 * CHUNK)
        info = await store.get_file("f", tmp_path / "f")
        assert (info.bucket, info.name) == (other.bucket, "far")
        assert (tmp_path / "f").read_bytes() == pattern(2 * CHUNK)
        assert (await store.get_info("f")).links == [f"{other.bucket}/far"]
        await store.delete("f")
        assert await other.get("far") == pattern(2 * CHUNK)
        await store.delete("near")
        with pytest.raises(LinkError) as caught:
            await store.get("n")
        assert (caught.value.target_bucket, caught.value.target_name) == (store.bucket, "near")
    finally:
        await js.delete_object_store(other.bucket)


@pytest.mark.parametrize(
    "target",
    [
        ("here", "missing"),
        ("here", "gone"),
        ("here", "a"),
        ("here", "b"),
        ("here", None),
        ("here", ""),
        ("nowhere", "x"),
        ("bad bucket\n", "x"),
        ("here", "\ud800"),
        ("here", "x" * 5000),
    ],
)
async def test_links_that_lead_nowhere(store: ObjectStore, target: tuple[str, str | None]) -> None:
    """Missing, deleted, itself, a circle of two, a bucket, no bucket, unusable names: typed, soon."""
    await store.put("gone", b"")
    await store.delete("gone")
    bucket = target[0].replace("here", store.bucket)
    await link_raw(store, "a", bucket, target[1])
    await link_raw(store, "b", store.bucket, "a")
    names = ("a", "b")
    async with asyncio.timeout(5):
        for name in names:
            with pytest.raises(LinkError):
                await store.get(name)
    assert {info.name for info in await store.list()} == set(names)
    for name in names:
        await store.delete(name)


async def test_links_a_reader_does_not_follow(
    store: ObjectStore, js: JetStreamContext, tmp_path: Path
) -> None:
    """Who writes to a bucket decides where its links lead: also into one that only the reader may read."""
    other = await js.create_object_store(bucket=f"{store.bucket}-other")
    data = pattern(3 * CHUNK)
    await store.put("here", data)
    await other.put("there", data)
    await store.add_link("near", await store.get_info("here"))
    await store.add_link("far", await other.get_info("there"))
    await store.add_link("over", await store.get_info("here"))
    await other.add_link("back", await store.get_info("here"))

    async def read(name: str, follow: Any) -> bytes:
        async with store.open_reader(name, follow_links=follow) as reader:
            return await reader.read()

    async def file(name: str, follow: Any) -> bytes:
        await store.get_file(name, tmp_path / "out", follow_links=follow)
        return (tmp_path / "out").read_bytes()

    async def copy(name: str, follow: Any) -> bytes:
        await store.copy(name, "copy", follow_links=follow)
        return await store.get("copy")

    ways: list[Callable[[str, Any], Awaitable[bytes]]] = [
        copy,
        lambda name, follow: store.get(name, follow_links=follow),
        lambda name, follow: store.get_range(name, 0, len(data), follow_links=follow),
        read,
        file,
    ]
    for way in ways:
        for name, follow in (("here", "none"), ("near", "same-bucket"), ("near", "all"), ("far", "all")):
            assert await way(name, follow) == data
        for name, follow in (("near", "none"), ("far", "none"), ("far", "same-bucket")):
            with pytest.raises(LinkError, match="follow_links") as info:
                await way(name, follow)
            assert info.value.name == name
        for wrong in ("same bucket", "", None, True, 1):
            with pytest.raises(ValueError, match="follow_links"):
                await way("here", wrong)
    await js.delete_object_store(other.bucket)


@pytest.mark.parametrize("part", [False, True])
async def test_the_target_becomes_a_link_while_it_is_read(
    store: ObjectStore, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch, part: bool
) -> None:
    """What is looked up again is what was asked for, not its name in the bucket that the link leads to."""
    other = await js.create_object_store(bucket=f"{store.bucket}-other")
    target = await other.put("x", pattern(3 * CHUNK), chunk_size=CHUNK)
    await other.put("y", b"right")
    await other.put("link", b"wrong")
    await store.add_link("link", target)
    run = ChunkFeed.run

    async def replaced(self: ChunkFeed) -> None:
        monkeypatch.setattr(ChunkFeed, "run", run)
        await other.delete("x")
        await other.add_link("x", await other.get_info("y"))
        await run(self)

    monkeypatch.setattr(ChunkFeed, "run", replaced)
    monkeypatch.setattr(_ranges, "read_by_sequence", AsyncMock(return_value=None))
    read = store.get_range("link", 0, 5) if part else store.get("link")
    assert await read == b"right"
    await js.delete_object_store(other.bucket)


async def test_long_chain_of_links(store: ObjectStore) -> None:
    await store.put("0", b"end")
    for n in range(1, 12):
        await link_raw(store, str(n), store.bucket, str(n - 1))
    assert await store.get("8") == b"end"
    with pytest.raises(LinkError, match="more than 8"):
        await store.get("9")


# -- changed while being read: C5 -----------------------------------------------------------------------


class Pausing:
    """A progress callback that starts ``action`` at the first block and lets the read go on after it."""

    def __init__(self, action: Any) -> None:
        self.action = action
        self.task: asyncio.Task[Any] | None = None

    def __call__(self, done: int, total: int | None) -> None:
        if self.task is None:
            self.task = asyncio.ensure_future(self.action())


SIZE = 24 * 1024 * 1024


async def test_overwritten_while_reading(any_store: ObjectStore) -> None:
    """The bytes of one of the two puts, whole."""
    first, second = pattern(SIZE, 1), pattern(SIZE, 2)
    await any_store.put("a", first)
    pausing = Pausing(lambda: any_store.put("a", second))
    async with asyncio.timeout(30):
        assert await any_store.get("a", progress=pausing) in (first, second)
        assert pausing.task is not None
        await pausing.task
    await assert_exact(any_store)


async def test_deleted_while_reading(any_store: ObjectStore) -> None:
    first = pattern(SIZE, 1)
    await any_store.put("a", first)
    pausing = Pausing(lambda: any_store.delete("a"))
    async with asyncio.timeout(30):
        try:
            data = await any_store.get("a", progress=pausing)
        except ObjectDeletedError:
            pass
        else:
            assert data == first
        assert pausing.task is not None
        await pausing.task


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "recreated"])
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "leader only"])
async def test_bucket_deleted_while_reading(
    js: JetStreamContext, bucket_name: str, direct: bool, again: bool
) -> None:
    store = await js.create_object_store(bucket=bucket_name, allow_direct=direct)
    first = pattern(SIZE, 1)
    await store.put("a", first)

    async def action() -> None:
        await js.delete_object_store(bucket_name)
        if again:
            await js.create_object_store(bucket=bucket_name, allow_direct=direct)

    pausing = Pausing(action)
    async with asyncio.timeout(30):
        try:
            data = await store.get("a", progress=pausing)
        except (BucketNotFoundError, ObjectNotFoundError):
            pass
        else:
            assert data == first
        assert pausing.task is not None
        await pausing.task
    if again:
        await js.delete_object_store(bucket_name)


async def test_own_close_while_reading(server: Any, any_store: ObjectStore) -> None:
    """C3: an error, never a short success."""
    import natsproto

    await any_store.put("a", pattern(SIZE))
    async with natsproto.connect(server.url) as client:
        reader = await client.jetstream().object_store(any_store.bucket)
        pausing = Pausing(client.close)
        async with asyncio.timeout(15):
            with pytest.raises(ConnectionError):
                await reader.get("a", progress=pausing)
        assert pausing.task is not None
        await pausing.task
    for name in await any_store.js.consumer_names(stream(any_store)):
        await any_store.js.delete_consumer(stream(any_store), name)  # nobody was left to do that


async def test_after_close(nc: Client, store: ObjectStore) -> None:
    await nc.close()
    for call in (store.get("a"), store.put("a", b""), store.list(), store.delete("a"), store.status()):
        with pytest.raises(ConnectionError):
            await call


async def test_into_a_pipe_and_into_files(store: ObjectStore, server: LocalServer, tmp_path: Path) -> None:
    """Whole windows at a time, and no more than the reader takes."""
    data = pattern(9 * MIB + 5)
    await store.put("a", data)
    source, target = os.pipe()

    def read() -> bytes:
        with open(source, "rb") as file:
            return file.read()

    reading = asyncio.get_running_loop().run_in_executor(None, read)
    with open(target, "wb", 0) as pipe:
        info = await store.get_file("a", pipe)
    assert (info.size, await reading) == (len(data), data)

    def blocking() -> None:
        with sync.connect(server.url) as client:
            there = client.jetstream().object_store(store.bucket)
            with open(tmp_path / "out", "wb") as file:
                assert there.get_file("a", file).nuid == info.nuid
                assert there.get("a", writeinto=file).nuid == info.nuid
            there.delete("a")
            assert there.get("a", show_deleted=True) == b""
            with there.open_reader("a", show_deleted=True) as reader:
                assert (reader.read(), reader.info.deleted) == (b"", True)

    await asyncio.to_thread(blocking)
    assert (tmp_path / "out").read_bytes() == data * 2
    memory = io.BytesIO()
    found = await store.get_file("a", memory, show_deleted=True)
    assert (found.deleted, memory.getvalue()) == (True, b"")
