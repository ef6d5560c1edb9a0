"""One put: what it replaces, on what conditions, and what it leaves when it does not come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from objstore import (
    BadObjectMetaError,
    BucketNotFoundError,
    ObjectAlreadyExists,
    ObjectStore,
    OutcomeUnknownError,
    RevisionConflictError,
)
from objstore.bucket.binding import bind
from objstore.bucket.bucket import NO_USER_META, Bucket
from objstore.format.naming import meta_subject
from objstore.write.put import GUESS_AFTER, NewNames, put
from support.memory_server import ROLL_UP, SILENCE, MemoryServer

DATA = bytes(range(256)) * 10
OPTIONS: dict[str, Any] = {
    "options": None,
    "chunk_size": 100,
    "if_revision": None,
    "window": None,
    "progress": None,
}


@pytest.fixture
async def store(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr("objstore.write.put.SETTLE", 0.05)
    return await server.bucket()


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


async def stored(bucket: Bucket, name: str = "a", data: Any = DATA, **options: Any) -> Any:
    return await put(bucket, name, data, NO_USER_META, **{**OPTIONS, **options})


async def test_it_appears_whole(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    done: list[tuple[int, int | None]] = []
    info = await stored(bucket, progress=lambda *args: done.append(args))
    assert (info.name, info.size, info.chunks, info.bucket) == ("a", len(DATA), 26, "b")
    found = await store.get_info("a")
    assert (found.nuid, found.revision, found.digest) == (info.nuid, info.revision, info.digest)
    assert done[-1] == (len(DATA), len(DATA))
    assert await store.get("a") == DATA


async def test_what_was_there_goes(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    await stored(bucket)
    new = await stored(bucket, data=b"new")
    assert server.chunks() == {new.nuid: 1}
    server.put_raw(meta_subject("b", "a"), b"no JSON", ROLL_UP)
    third = await stored(bucket, data=b"third")
    assert set(server.chunks()) == {new.nuid, third.nuid}, "on the word of what cannot be read nothing goes"
    empty = await stored(bucket, data=b"")
    assert (empty.chunks, set(server.chunks())) == (0, {new.nuid})


@pytest.mark.parametrize("revision", [0, -1, 5])
async def test_conditions(server: MemoryServer, store: ObjectStore, bucket: Bucket, revision: int) -> None:
    info = await stored(bucket)
    wanted = revision if revision <= 0 else info.revision + revision
    server.verbs()
    sent: list[str] = []
    server.on_publish = lambda subject, header, payload: sent.append(subject)
    with pytest.raises(RevisionConflictError) as told:
        await stored(bucket, data=b"other", if_revision=wanted)
    assert (told.value.expected, told.value.current) == (wanted, info.revision)
    assert sent == [], "known before a byte is sent"
    await stored(bucket, data=b"other", if_revision=info.revision)
    with pytest.raises(ObjectAlreadyExists):
        await stored(bucket, if_revision=0, must_not_exist=True)
    await store.delete("a")
    await stored(bucket, data=b"again", if_revision=0)
    assert await store.get("a") == b"again"


@pytest.mark.parametrize("conditional", [True, False])
async def test_another_writer_in_between(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, conditional: bool
) -> None:
    info = await stored(bucket, data=b"first")
    message = server.stream().of(meta_subject("b", "a"))[0]
    raced = False

    def hook(subject: str, header: bytes, payload: bytes) -> None:
        nonlocal raced
        if subject.startswith("$O.b.M.") and not raced:
            raced = True
            server.put_raw(subject, message.payload.replace(info.nuid.encode(), b"SOMEBODY"), ROLL_UP)

    server.on_publish = hook
    if conditional:
        with pytest.raises(RevisionConflictError):
            await stored(bucket, if_revision=info.revision)
        assert b"SOMEBODY" in server.stream().of(meta_subject("b", "a"))[0].payload
        assert set(server.chunks()) == {info.nuid}
    else:
        new = await stored(bucket)
        assert await store.get("a") == DATA
        assert new.nuid in server.chunks()
    assert raced


async def test_an_answer_to_the_commit_that_is_lost(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """It is found out."""
    lost = 0

    def hook(subject: str, header: bytes, payload: bytes) -> Any:
        nonlocal lost
        if subject.startswith("$O.b.M.") and not lost:
            lost += 1
            server.stream().publish(subject, header, payload)
            return SILENCE
        return None

    bucket.js.timeout = 0.1
    server.on_publish = hook
    info = await stored(bucket)
    assert lost == 1
    assert (await store.get_info("a")).revision == info.revision
    assert await store.get("a") == DATA


async def test_an_outcome_that_stays_unknown_keeps_the_chunks(server: MemoryServer, bucket: Bucket) -> None:
    bucket.js.timeout = 0.05
    bucket.retry_budget = 0.5
    server.on_publish = lambda subject, header, payload: SILENCE if "M." in subject else None
    with pytest.raises(OutcomeUnknownError) as told:
        await stored(bucket)
    assert set(server.chunks()) == {told.value.nuid}


@pytest.mark.parametrize("moment", ["chunks", "meta"])
async def test_cancelled(server: MemoryServer, store: ObjectStore, bucket: Bucket, moment: str) -> None:
    old = await stored(bucket, data=b"old")
    reached = asyncio.Event()
    letter = "C" if moment == "chunks" else "M"

    def hook(subject: str, header: bytes, payload: bytes) -> None:
        if subject.startswith(f"$O.b.{letter}."):
            reached.set()

    server.on_publish = hook
    task = asyncio.ensure_future(stored(bucket))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.on_publish = None
    found = await store.get_info("a")
    assert set(server.chunks()) == {found.nuid}
    assert (found.nuid == old.nuid) == (moment == "chunks")
    assert await store.get("a") == (b"old" if moment == "chunks" else DATA)


async def test_small_puts_to_new_names_guess_so(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """It costs a request less; where the guess is wrong the refusal says so."""
    for number in range(GUESS_AFTER):
        await stored(bucket, f"n{number}", b"x")
    server.verbs()
    await stored(bucket, "new", b"x")
    assert server.verbs() == []
    first = await store.get_info("n0")
    replaced = await stored(bucket, "n0", b"again")
    assert replaced.revision > first.revision
    assert first.nuid not in server.chunks()
    assert bucket.remembered(NewNames).in_a_row == 0


async def test_a_wrong_guess_whose_refusal_is_lost(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """What stands is older than the put's chunks: the put was not stored, and replaces it."""
    for number in range(GUESS_AFTER):
        await stored(bucket, f"n{number}", b"x")
    first = await store.get_info("n0")
    lost = 0

    def hook(subject: str, header: bytes, payload: bytes) -> Any:
        nonlocal lost
        if subject == meta_subject("b", "n0") and not lost:
            lost += 1
            server.stream().publish(subject, header, payload)
            return SILENCE
        return None

    bucket.js.timeout = 0.1
    server.on_publish = hook
    replaced = await stored(bucket, "n0", b"again")
    assert lost == 1
    assert await store.get("n0") == b"again"
    assert first.nuid not in server.chunks()
    assert (await store.get_info("n0")).revision == replaced.revision


async def test_a_bucket_that_is_made_anew_meanwhile(server: MemoryServer, bucket: Bucket) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"x" * 500
        old = server.streams.pop("OBJ_b")
        await server.bucket()
        server.stream().created = old.created.replace(year=2001)
        yield b"x" * 500

    bucket.retry_budget = 1.0
    with pytest.raises((BucketNotFoundError, OutcomeUnknownError)):
        await stored(bucket, data=source(), window=100)
    assert server.stream().of("$O.b.M.*") == []


@pytest.mark.parametrize("window", [0, -1, True, 1.5, "1"])
async def test_windows_that_cannot_be(bucket: Bucket, window: Any) -> None:
    with pytest.raises(BadObjectMetaError, match="window"):
        await stored(bucket, window=window)
    with pytest.raises(TypeError):
        await stored(bucket, progress=stored)


async def test_the_bucket_is_made_again_before_the_commit(server: MemoryServer, bucket: Bucket) -> None:
    """The meta goes again, even if the user may not delete single messages: its chunks are not there."""
    config = server.stream().config
    server.refused = {"STREAM.MSG.DELETE"}

    def again(subject: str, header: bytes, payload: bytes) -> None:
        if subject == meta_subject("b", "a"):
            server.on_publish = None
            server.streams.clear()
            server.create(config)

    server.on_publish = again
    with pytest.raises(BucketNotFoundError, match="created again"):
        await stored(bucket)
    assert server.stream().of(">") == []
