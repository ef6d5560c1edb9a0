"""Metas that lie: every way of reading says so, as ``get`` does; none of them succeeds unverified."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import objstore.sync
from natsproto.errors import NatsError
from natsproto.jetstream.context import JetStreamContext
from objstore import (
    BadBucketError,
    DigestMismatchError,
    IntegrityError,
    ObjectMeta,
    ObjectNotFoundError,
    ObjectStore,
)
from objstore.cli.main import main
from objstore.commit.commit import unknown_outcome
from objstore.filesystem import NatsObjectFileSystem
from objstore.read import files as _files
from objstore.read.feed import DEFAULT_WINDOW
from objstore.read.reader import ObjectReader
from support.fake_session import turns
from support.filesystems import close_all
from support.objects import CHUNK, chunk_counts, chunk_subject, forge, part_file, pattern, stream, wire_digest
from support.skips import left_out

DATA = pattern(3 * CHUNK + 5)
HUGE = 1 << 62


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is putting anything in order here."""
    for module in ("read.get", "maintenance.verify"):
        monkeypatch.setattr(f"objstore.{module}.RECHECK_DELAYS", (0.0, 0.01))


@pytest.fixture(autouse=True, scope="module")
def no_connection_is_left() -> Iterator[None]:
    yield
    close_all()


async def get(store: ObjectStore, path: Path, size: int) -> Any:
    return await store.get("a", max_size=1 << 63)


async def get_file(store: ObjectStore, path: Path, size: int) -> Any:
    try:
        return await store.get_file("a", path / "out")
    finally:
        assert os.listdir(path) in ([], ["out"])


async def resumed(store: ObjectStore, path: Path, size: int) -> Any:
    return await store.get_file("a", path / "out", resume=True)


async def read(store: ObjectStore, path: Path, size: int) -> Any:
    async with store.open_reader("a") as reader:
        return await reader.read(100_000_000)


async def read_whole(store: ObjectStore, path: Path, size: int) -> Any:
    async with store.open_reader("a") as reader:
        return await reader.read()


async def iterated(store: ObjectStore, path: Path, size: int) -> Any:
    async with store.open_reader("a") as reader:
        return b"".join([piece async for piece in reader])


async def filled(store: ObjectStore, path: Path, size: int) -> Any:
    async with store.open_reader("a") as reader:
        return await reader.readinto(bytearray(min(size + 1, 100_000_000)))


async def copied(store: ObjectStore, path: Path, size: int) -> Any:
    try:
        return await store.copy("a", "b")
    except BaseException:
        assert not await store.exists("b")
        raise


async def verified(store: ObjectStore, path: Path, size: int) -> Any:
    report = await store.verify(deep=True)
    if not report.ok:
        raise IntegrityError(str(report.problems))


async def ranged(store: ObjectStore, path: Path, size: int) -> Any:
    return await store.get_range("a", 0, size)


async def command(store: ObjectStore, *words: str) -> None:
    code = await asyncio.to_thread(main, ["--server", store.client.connected_url or "", "-q", *words])
    if code:
        assert code in (1, 7), code
        raise IntegrityError(f"exit code {code}")


async def command_get(store: ObjectStore, path: Path, size: int) -> Any:
    await command(store, "get", store.bucket, "a", "-O", str(path / "out"))


async def command_output(store: ObjectStore, path: Path, size: int) -> Any:
    await command(store, "get", store.bucket, "a", "-O", "-")


async def command_cat(store: ObjectStore, path: Path, size: int) -> Any:
    await command(store, "cat", store.bucket, "a")


async def command_cat_range(store: ObjectStore, path: Path, size: int) -> Any:
    await command(store, "cat", store.bucket, "a", "--range", "0-")


async def command_copy(store: ObjectStore, path: Path, size: int) -> Any:
    await command(store, "cp", f"natsobj://{store.bucket}/a", str(path / "out"))


async def command_verify(store: ObjectStore, path: Path, size: int) -> Any:
    await command(store, "verify", store.bucket, "--deep")


@contextmanager
def told_as_os_error() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.EIO, errno.ENOMEM, errno.EFBIG):
            raise
        raise IntegrityError(str(exc)) from None


async def in_a_thread(call: Callable[[], Any]) -> Any:
    with told_as_os_error():
        return await asyncio.to_thread(call)


async def blocking_get(store: ObjectStore, path: Path, size: int) -> Any:
    def call() -> bytes:
        with objstore.sync.connect(store.client.connected_url or "") as client:
            return client.object_store(store.bucket).get("a", max_size=1 << 63)

    return await in_a_thread(call)


async def opened_file(store: ObjectStore, path: Path, size: int) -> Any:
    def call() -> bytes:
        with file_system(store).open(f"{store.bucket}/a", "rb") as file:
            data: bytes = file.read()
            return data

    return await in_a_thread(call)


async def opened_in_pieces(store: ObjectStore, path: Path, size: int) -> Any:
    def call() -> None:
        with file_system(store).open(f"{store.bucket}/a", "rb", block_size=100_000) as file:
            shutil.copyfileobj(file, io.BytesIO())

    return await in_a_thread(call)


async def opened_as_text(store: ObjectStore, path: Path, size: int) -> Any:
    def call() -> None:
        with file_system(store).open(f"{store.bucket}/a", "r", 100_000, encoding="latin-1") as file:
            shutil.copyfileobj(file, io.StringIO())

    return await in_a_thread(call)


async def opened_in_the_loop(store: ObjectStore, path: Path, size: int) -> Any:
    fs = NatsObjectFileSystem(store.client.connected_url, asynchronous=True, skip_instance_cache=True)
    try:
        with told_as_os_error():
            async with await fs.open_async(f"{store.bucket}/a") as file:
                while await file.read(100_000):
                    pass
    finally:
        await fs.aclose()


async def file_system_cat(store: ObjectStore, path: Path, size: int) -> Any:
    return await in_a_thread(lambda: file_system(store).cat_file(f"{store.bucket}/a"))


def file_system(store: ObjectStore) -> NatsObjectFileSystem:
    return NatsObjectFileSystem(servers=store.client.connected_url)


Way = Callable[[ObjectStore, Path, int], Awaitable[Any]]
WAYS: list[Way] = [get, get_file, resumed, read, read_whole, iterated, filled, copied, verified, ranged]
WAYS += [command_get, command_output, command_cat, command_cat_range, command_copy, command_verify]
WAYS += [blocking_get, opened_file, file_system_cat]
WAYS += [opened_in_pieces, opened_as_text, opened_in_the_loop]

LIES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "nothing, and another digest": (b"", {"digest": wire_digest(b"x")}),
    "nothing, and no digest": (b"", {"digest": None}),
    "nothing, and a digest nobody can check": (b"", {"digest": "MD5=AAAA"}),
    "nothing, in one chunk that is not there": (b"", {"chunks": 1}),
    "nothing, where there was something": (DATA, {"size": 0, "chunks": 0}),
    "nothing, in four chunks": (DATA, {"size": 0}),
    "another digest": (DATA, {"digest": wire_digest(b"x")}),
    "no digest": (DATA, {"digest": None}),
    "one byte more": (DATA, {"size": len(DATA) + 1}),
    "one byte less": (DATA, {"size": len(DATA) - 1}),
    "one chunk more": (DATA, {"chunks": 5}),
    "one chunk less": (DATA, {"chunks": 3}),
    "huge": (DATA, {"size": HUGE}),
    "huge, in as many chunks as that takes": (DATA, {"size": HUGE, "chunks": HUGE // CHUNK}),
    "huge, and nothing stored": (b"", {"size": HUGE, "chunks": HUGE // CHUNK}),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_no_way_of_reading_succeeds(store: ObjectStore, tmp_path: Path, lie: str, way: Way) -> None:
    data, changes = LIES[lie]
    await store.put("a", data)
    await forge(store, "a", **changes)
    size = (await store.get_info("a")).size
    async with asyncio.timeout(2 + 5):
        with pytest.raises(NatsError) as caught:
            await way(store, tmp_path, size)
    assert not isinstance(caught.value, LookupError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lie", [lie for lie in LIES if "nothing, " in lie and "huge" not in lie])
async def test_a_range_of_nothing(store: ObjectStore, tmp_path: Path, lie: str) -> None:
    """It is the whole object, so it can be verified."""
    data, changes = LIES[lie]
    await store.put("a", data)
    await forge(store, "a", **changes)
    for end in (0, 10):
        with pytest.raises(IntegrityError):
            await ranged(store, tmp_path, end)
    with pytest.raises(IntegrityError):
        await in_a_thread(
            lambda: file_system(store).cat_ranges([f"{store.bucket}/a"], [0], [10], on_error="raise")
        )


async def test_a_link_to_nothing_that_lies_does_not_hide_the_rest(store: ObjectStore) -> None:
    await store.put("a", b"")
    await store.add_link("link", await store.get_info("a"))
    await forge(store, "a", digest=wire_digest(b"x"))
    fs = file_system(store)
    found = await in_a_thread(lambda: fs.ls(store.bucket, detail=False, refresh=True))
    assert found == [f"{store.bucket}/a", f"{store.bucket}/link"]
    with pytest.raises(IntegrityError):
        await in_a_thread(lambda: fs.open(f"{store.bucket}/link").read())


@pytest.mark.parametrize("lie", [lie for lie in LIES if "huge" in lie])
async def test_a_range_of_what_no_memory_holds(store: ObjectStore, tmp_path: Path, lie: str) -> None:
    data, changes = LIES[lie]
    await store.put("a", data)
    await forge(store, "a", **changes)
    async with asyncio.timeout(2 + 5):
        with pytest.raises(NatsError):
            await ranged(store, tmp_path, HUGE)


async def test_what_does_not_lie(store: ObjectStore, tmp_path: Path) -> None:
    for data in (b"", DATA):
        info = await store.put("a", data)
        for way in WAYS:
            await way(store, tmp_path, info.size)
            if way is copied:
                await store.delete("b")
            (tmp_path / "out").unlink(missing_ok=True)


@pytest.mark.parametrize("size", [5, len(DATA)])
async def test_a_range_that_is_the_whole_object(store: ObjectStore, size: int) -> None:
    """It can be verified; one that is less cannot."""
    await store.put("a", DATA[:size])
    assert await store.get_range("a", 0, size) == await store.get_range("a", 0, HUGE) == DATA[:size]
    await forge(store, "a", digest=wire_digest(b"x"))
    for end in (size, size + 1, HUGE):
        with pytest.raises(DigestMismatchError):
            await store.get_range("a", 0, end)
    assert await store.get_range("a", 1, size) == DATA[1:size]


# -- chunks of a byte each, says the meta -----------------------------------------------------------------


async def claim_bytes(store: ObjectStore, name: str) -> None:
    """As many chunks as bytes: all of it adds up."""
    size = (await store.get_info(name)).size
    await forge(store, name, chunks=size, options={"max_chunk_size": 1})


CHANGES: dict[str, Callable[[ObjectStore], Awaitable[Any]]] = {
    "copy": lambda store: store.copy("a", "b"),
    "update_meta": lambda store: store.update_meta("a", ObjectMeta("a", description="x")),
    "rename": lambda store: store.rename("a", "b"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_copy_makes_no_more_chunks_than_there_are(
    js: JetStreamContext, bucket_name: str, change: str
) -> None:
    store = await js.create_object_store(bucket=bucket_name, ttl=timedelta(hours=1))
    await store.put("a", bytes(2 * DEFAULT_WINDOW + 1))  # the first block goes out before the end is read
    await claim_bytes(store, "a")
    held = await chunk_counts(store)
    before = (await js.stream_info(stream(store))).last_seq
    async with asyncio.timeout(2 + 5):
        with pytest.raises((IntegrityError, ObjectNotFoundError), match=r"damaged|expired"):
            await CHANGES[change](store)
    assert (await js.stream_info(stream(store))).last_seq == before
    assert await chunk_counts(store) == held
    assert not await store.exists("b")


@pytest.mark.parametrize("more", [0, 1, 2])
async def test_a_copy_of_many_small_chunks(store: ObjectStore, more: int) -> None:
    """Who wrote them so gets them so; one empty message at the end is some writers' habit."""
    data = DATA[:200]
    info = await store.put("a", data, chunk_size=1)
    for _ in range(more):
        await store.js.publish(chunk_subject(store, info.nuid), b"")
    if more < 2:
        assert (await store.copy("a", "b")).chunks == 200
        assert await store.get("b") == data
    else:
        with pytest.raises(IntegrityError, match="202 chunks are stored, 200 recorded"):
            await store.copy("a", "b")
        assert list(await chunk_counts(store)) == [info.nuid]


class Watched:
    """A file that tells of its reads."""

    def __init__(self, file: BinaryIO, on_read: Callable[[], None]) -> None:
        self._file = file
        self._on_read = on_read

    def read(self, size: int) -> bytes:
        self._on_read()
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


async def begin(store: ObjectStore, path: Path, data: bytes) -> Path:
    """What an interrupted ``get_file`` has left."""
    begun = part_file(path / "out", await store.get_info("a"))
    begun.write_bytes(data)
    return begun


@pytest.mark.parametrize("claimed", [True, False])
@pytest.mark.parametrize("left", [0, 505])
async def test_a_begun_file_is_not_hashed_byte_by_byte(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, claimed: bool
) -> None:
    """Nor at all, where the meta only says that each byte is a chunk, and as many are not stored."""
    reads = 0

    def count() -> None:
        nonlocal reads
        reads += 1

    reopen = _files._reopen
    monkeypatch.setattr(_files, "_reopen", lambda *path: Watched(reopen(*path), count))
    data = DATA[:2000]
    await store.put("a", data, chunk_size=CHUNK if claimed else 1)
    await begin(store, tmp_path, data[: len(data) - left])
    if claimed:
        await claim_bytes(store, "a")
        with pytest.raises(IntegrityError):
            await store.get_file("a", tmp_path / "out", resume=True)
        assert os.listdir(tmp_path) == []
        assert reads == 0
    else:
        await store.get_file("a", tmp_path / "out", resume=True)
        assert (tmp_path / "out").read_bytes() == data
        assert 0 < reads < 10


@pytest.mark.parametrize("changes", [{"chunks": 3}, {"chunks": 5}, {"size": HUGE}])
async def test_a_begun_file_of_an_object_that_is_damaged(
    store: ObjectStore, tmp_path: Path, changes: dict[str, Any]
) -> None:
    await store.put("a", DATA)
    await begin(store, tmp_path, DATA[:CHUNK])
    await forge(store, "a", **changes)
    with pytest.raises(IntegrityError):
        await store.get_file("a", tmp_path / "out", resume=True)
    assert os.listdir(tmp_path) == []


async def test_hashing_a_begun_file_can_be_given_up(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there stays, to be continued."""
    reads = 0
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        nonlocal reads
        reads += 1
        if reads == 3:
            loop.call_soon_threadsafe(task.cancel)
            asyncio.run_coroutine_threadsafe(turns(), loop).result()

    reopen = _files._reopen
    monkeypatch.setattr(_files, "HASHED", 1000)
    monkeypatch.setattr(_files, "_reopen", lambda *path: Watched(reopen(*path), cancel))
    await store.put("a", DATA, chunk_size=1000)
    begun = await begin(store, tmp_path, DATA[:200_500])
    task = asyncio.create_task(store.get_file("a", tmp_path / "out", resume=True))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reads < 10
    assert begun.read_bytes() == DATA[:200_500]
    monkeypatch.undo()
    await store.get_file("a", tmp_path / "out", resume=True)
    assert (tmp_path / "out").read_bytes() == DATA


async def test_a_begun_file_of_chunks_of_all_lengths(store: ObjectStore, tmp_path: Path) -> None:
    """Empty ones between them included, as long as all add up."""
    pieces = [b"ab", b"", b"cde", b"", b"", b"f", b"gh", b""]
    data = b"".join(pieces)
    info = await store.put("a", data)
    await store.js.purge_stream(stream(store), subject=chunk_subject(store, info.nuid))
    for piece in pieces:
        await store.js.publish(chunk_subject(store, info.nuid), piece)
    for chunks in (len(pieces), len(pieces) - 1):
        await forge(store, "a", chunks=chunks)
        for size in range(len(data) + 1):
            await begin(store, tmp_path, data[:size])
            await store.get_file("a", tmp_path / "out", resume=True)
            assert (tmp_path / "out").read_bytes() == data


async def test_what_is_said_of_it_is_short(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    """Errors and log records quote the beginning of what others have made a megabyte long."""
    long = "\u0378" * 100_000
    for name in ("nuid", "digest", "link", "bucket link"):
        await store.put(name, b"x")
    await forge(store, "nuid", nuid=long)
    await forge(store, "digest", digest=long)
    await forge(store, "link", options={"link": {"bucket": store.bucket, "name": long}})
    await forge(store, "bucket link", options={"link": {"bucket": long}})
    errors: list[NatsError] = [unknown_outcome(store._bucket, "a", long)]
    for name in ("nuid", "digest", "link", "bucket link"):
        for follow in ("all", "none"):
            with pytest.raises(NatsError) as caught:
                await store.get(name, follow_links=follow)
            errors.append(caught.value)
    with pytest.raises(BadBucketError) as refused:
        await store.js.object_store(long)
    errors.append(refused.value)
    texts = [problem.detail for problem in (await store.verify(deep=True)).problems]
    await store.put("nuid", b"y")
    await store.delete("digest")
    texts += [str(error) for error in errors] + [record.getMessage() for record in caplog.records]
    assert any("left behind" in text for text in texts)
    assert [text[:200] for text in texts if len(text) > 2000] == []


async def test_a_read_takes_no_memory_for_what_never_came(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader, too, takes what a meta claims only as it fills it."""
    claimed = 1 << 30
    if not os.path.exists("/proc/self/statm"):
        left_out("this system does not tell how much memory is in use")

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    taken = []
    readinto = ObjectReader.readinto

    async def looking(self: ObjectReader, buffer: Any) -> int:
        taken.append(resident() - before)
        try:
            return await readinto(self, buffer)
        finally:
            taken.append(resident() - before)

    await store.put("a", b"x")
    await forge(store, "a", size=claimed, chunks=claimed // CHUNK)
    monkeypatch.setattr(ObjectReader, "readinto", looking)
    async with store.open_reader("a") as reader:
        before = resident()
        with pytest.raises(IntegrityError):
            await reader.read()
    assert len(taken) == 2
    assert max(taken) < claimed // 4
