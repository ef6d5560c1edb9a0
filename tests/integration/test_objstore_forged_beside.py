"""A fellow client that forges metas and headers beside honest calls: what was acknowledged stays, and whole.

The forger sees chunk subjects and may write some metas. What it says of a put under way is another meta, and
what it says of other names' chunks is not acted upon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import RequestTimeoutError
from natsproto.server import LocalServer
from objstore import (
    IntegrityError,
    NatsError,
    ObjectAlreadyExists,
    ObjectInfo,
    ObjectMeta,
    ObjectStore,
    OutcomeUnknownError,
    RevisionConflictError,
)
from objstore.change import rename as _rename
from objstore.commit import renames as _renames
from objstore.commit.commit import Commit
from objstore.format.digest import hex_digest, new_hasher, to_wire
from objstore.write import chunks as _chunks
from objstore.write.chunks import ChunkSender
from support.objects import chunk_counts, chunk_subject, meta_subject, pattern, read_raw, write_raw

DATA = pattern(120)
PIECE = 30
EMPTY = to_wire(hex_digest(new_hasher().digest()))
BROKEN = {
    "no end": b"NATS/1.0\r\nX: ab",
    "another stream, and no end": b"NATS/1.0\r\nNats-Stream: OTHER\r\nNats-Subject: $O.x.M.x\r\nX: ab",
    "another stream": b"NATS/1.0\r\nNats-Stream: OTHER\r\n\r\n",
}


def document(store: ObjectStore, name: str, nuid: str, **changes: Any) -> dict[str, Any]:
    """A meta that names those chunks and says that there is nothing in them."""
    meta = {"name": name, "bucket": store.bucket, "nuid": nuid, "size": 0, "chunks": 0, "digest": EMPTY}
    return {**meta, **changes}


class UnderWay:
    """A put of ``DATA`` that has sent some of its chunks, or all of them, and not its meta."""

    def __init__(self, store: ObjectStore, sent: int) -> None:
        self._sent = sent
        self._store = store
        self._paused, self._go_on = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Future[ObjectInfo] | None = None
        self.nuid = ""

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield DATA[: self._sent]
        self._paused.set()
        await self._go_on.wait()
        yield DATA[self._sent :]

    async def begin(self, put: Callable[[AsyncIterator[bytes]], Awaitable[ObjectInfo]]) -> None:
        before = set(await chunk_counts(self._store))
        self._task = asyncio.ensure_future(put(self._pieces()))
        await self._paused.wait()
        async with asyncio.timeout(30):
            while sum((await chunk_counts(self._store)).values()) < len(before) + self._sent // PIECE:
                pass
        (self.nuid,) = set(await chunk_counts(self._store)) - before

    async def end(self) -> ObjectInfo:
        self._go_on.set()
        assert self._task is not None
        async with asyncio.timeout(60):
            return await self._task


# -- header blocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", BROKEN.values(), ids=BROKEN)
async def test_a_header_block_hides_nothing(store: ObjectStore, header: bytes) -> None:
    """The server's lines follow the writer's, and the first of them may become the rest of one of those."""
    client = store.js.client
    payload = json.dumps(document(store, "forged", "")).encode()
    await store.put("before", b"before")
    await client.request_frame(meta_subject(store, "forged").encode(), payload, header, 5.0)
    kept = {f"kept{number}": pattern(1000, number) for number in range(5)}
    for name, data in kept.items():
        await store.put(name, data)
    other = await client.jetstream().object_store(store.bucket)
    await other.get_info("forged")
    assert (await other.gc(older_than=timedelta(0))).orphans == []
    await other.delete("forged")
    for name, data in kept.items():
        assert await store.get(name) == data
    assert not other._bucket.replicated, "no mirror has answered"
    assert other._bucket.direct_meta == store._bucket.direct_meta


async def test_header_blocks_that_tell_nothing_cost_no_batches(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for behind one of them is thrown away: after it, little is asked for."""
    subject = meta_subject(store, "forged").encode()
    for number in range(30):
        await store.js.client.request_frame(subject, b"%d" % number, BROKEN["no end"], 5.0)
    for number in range(70):
        await store.put(f"kept{number}", b"x")
    asked: list[int] = []
    real = store.js.get_batch

    def counted(*args: Any, **options: Any) -> Any:
        asked.append(options["batch"])
        return real(*args, **options)

    monkeypatch.setattr(store.bound_bucket.js, "get_batch", counted)
    subjects = [message.subject async for message in store._bucket.messages(f"$O.{store.bucket}.M.>", 64)]
    assert len(subjects) == 100
    assert sum(asked) < 300, "64 once, one or two for each of the 30, and then more and more"


# -- metas that name the chunks of a put under way ------------------------------------------------------


@pytest.mark.parametrize("sent", [90, 120], ids=["between two chunks", "after the last one"])
async def test_its_own_name(store: ObjectStore, sent: int) -> None:
    """It is another meta, not ours that somebody has updated: replaced by a put, and else a conflict."""
    old = await store.put("a", b"old")
    calls: dict[str, Callable[[AsyncIterator[bytes]], Awaitable[ObjectInfo]]] = {
        "a": lambda source: store.put("a", source, chunk_size=PIECE),
        "b": lambda source: store.create("b", source, chunk_size=PIECE),
        "c": lambda source: store.put("c", source, chunk_size=PIECE, if_revision=0),
    }
    for name, call in calls.items():
        under_way = UnderWay(store, sent)
        await under_way.begin(call)
        await write_raw(store.js, meta_subject(store, name), document(store, name, under_way.nuid))
        if name == "a":
            info = await under_way.end()
            assert (info.size, info.nuid) == (len(DATA), under_way.nuid)
            assert info.revision > old.revision
            assert await store.get("a") == DATA
        else:
            with pytest.raises(ObjectAlreadyExists if name == "b" else RevisionConflictError):
                await under_way.end()
    assert await store.get("a") == DATA


async def test_an_update_of_ours_is_ours(store: ObjectStore) -> None:
    """The same size, chunks and digest, after the chunks: that is what an update leaves."""
    under_way = UnderWay(store, len(DATA))
    await under_way.begin(lambda source: store.create("a", source, chunk_size=PIECE))
    hasher = new_hasher()
    hasher.update(DATA)
    digest = to_wire(hex_digest(hasher.digest()))
    updated = document(
        store, "a", under_way.nuid, size=len(DATA), chunks=4, digest=digest, description="updated"
    )
    await write_raw(store.js, meta_subject(store, "a"), updated)
    assert (await under_way.end()).description == "updated"
    assert await store.get("a") == DATA


async def test_another_encoding_of_its_name(store: ObjectStore) -> None:
    """A delete of what is filed there cannot be seen by the put: it leaves the chunks to gc."""
    under_way = UnderWay(store, 90)
    await under_way.begin(lambda source: store.put("reports1", source, chunk_size=PIECE))
    elsewhere = meta_subject(store, "reports1").rstrip("=")
    await write_raw(store.js, elsewhere, document(store, "reports1", under_way.nuid, size=3, chunks=1))
    await store.delete("reports1")
    await under_way.end()
    assert await store.get("reports1") == DATA


async def test_a_delete_marker_under_another_encoding_of_its_name(store: ObjectStore) -> None:
    """It says that the chunks were renamed, where the put does not look: nobody purges them on its word."""
    under_way = UnderWay(store, 90)
    await under_way.begin(lambda source: store.put("reports1", source, chunk_size=PIECE))
    elsewhere = meta_subject(store, "reports1").rstrip("=")
    marker = {"deleted": True, "metadata": {"natsproto.moved": under_way.nuid}}
    await write_raw(store.js, elsewhere, document(store, "reports1", "", **marker))
    forged = document(store, "forged", under_way.nuid, size=3, chunks=1)
    await write_raw(store.js, meta_subject(store, "forged"), forged)
    await store.put("forged", b"honest")
    await under_way.end()
    assert await store.get("reports1") == DATA


@pytest.mark.parametrize("before", [False, True], ids=["new", "over another one"])
@pytest.mark.parametrize("verb", ["delete", "update"])
async def test_what_named_its_chunks_is_removed_without_a_trace(
    store: ObjectStore, verb: str, before: bool
) -> None:
    """Of two metas of a name the older one goes. The put does not learn what stood under its own subject."""
    if before:
        await store.put("reports1", b"before")
    under_way = UnderWay(store, 90)
    await under_way.begin(lambda source: store.put("reports1", source, chunk_size=PIECE))
    forged = document(store, "reports1", under_way.nuid, size=3, chunks=1)
    await write_raw(store.js, meta_subject(store, "reports1"), forged)
    await write_raw(store.js, meta_subject(store, "reports1").rstrip("="), document(store, "reports1", ""))
    if verb == "delete":
        await store.delete("reports1")
    else:
        await store.update_meta("reports1", ObjectMeta("reports1", description="honest"))
    await under_way.end()
    assert await store.get("reports1") == DATA


@pytest.mark.parametrize("verb", ["put", "delete", "update", "gc"])
async def test_the_mark_of_a_rename_to_its_name(store: ObjectStore, verb: str) -> None:
    """Whoever finishes the rename stores another meta there, which the put replaces as any other."""
    under_way = UnderWay(store, 90)
    await under_way.begin(lambda source: store.put("new", source, chunk_size=PIECE))
    mark = {"natsproto.renaming": "new"}
    await write_raw(
        store.js, meta_subject(store, "forged"), document(store, "forged", under_way.nuid, metadata=mark)
    )
    if verb == "put":
        await store.put("forged", b"honest")
    elif verb == "delete":
        await store.delete("forged")
    elif verb == "update":
        with contextlib.suppress(LookupError):  # the rename is finished first
            await store.update_meta("forged", ObjectMeta("forged", description="honest"))
    else:
        await store.gc(older_than=timedelta(hours=1))
    info = await under_way.end()
    assert info.nuid == under_way.nuid
    assert await store.get("new") == DATA


async def test_what_was_read_may_be_newer_than_the_chunks(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer comes from a queue. A meta from after the first chunk tells that they must be counted."""
    real = store._bucket.leader_read

    class Late:
        def __init__(self, *args: Any, **options: Any) -> None:
            self._ask = lambda: real(*args, **options)

        async def wait(self) -> Any:
            await marked.wait()
            return await self._ask().wait()

        def close(self) -> None:
            pass

    marked = asyncio.Event()
    monkeypatch.setattr(
        type(store._bucket), "leader_read", lambda self, *args, **options: Late(*args, **options)
    )
    under_way = UnderWay(store, 90)
    await under_way.begin(lambda source: store.put("a", source, chunk_size=PIECE))
    moved = {"natsproto.moved": under_way.nuid}
    await write_raw(
        store.js, meta_subject(store, "a"), document(store, "a", "", deleted=True, metadata=moved)
    )
    marked.set()
    await store.js.purge_stream(f"OBJ_{store.bucket}", subject=chunk_subject(store, under_way.nuid))
    with pytest.raises(IntegrityError):
        await under_way.end()


async def test_a_long_put_counts_after_its_commit(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name was free before and is free again: no conflict tells that somebody took the chunks along."""
    monkeypatch.setattr(_chunks, "LONG", 0.0)
    real = _chunks.ChunkSender._check_stored
    counted = 0

    async def count(self: Any) -> None:
        nonlocal counted
        counted += 1
        await real(self)

    monkeypatch.setattr(_chunks.ChunkSender, "_check_stored", count)
    await store.put("a", DATA, chunk_size=PIECE)
    assert counted == 2


@pytest.mark.parametrize("changes", [{"size": 0}, {"chunks": 0}, {"digest": EMPTY}])
async def test_an_upload_whose_name_is_forged(store: ObjectStore, changes: dict[str, Any]) -> None:
    """What stands is its commit only if it says the same of the bytes. Who knows these, knows the digest."""
    upload = await store.begin_upload("a", chunk_size=PIECE)

    async def breaks_off() -> AsyncIterator[bytes]:
        yield DATA[:90]
        raise EOFError

    with pytest.raises(EOFError):
        await upload.send(breaks_off())
    hasher = new_hasher()
    hasher.update(DATA)
    real = {"size": len(DATA), "chunks": 4, "digest": to_wire(hex_digest(hasher.digest()))}
    await write_raw(
        store.js, meta_subject(store, "a"), document(store, "a", upload.nuid, **{**real, **changes})
    )
    info = await upload.send(DATA)
    assert (info.size, info.chunks) == (len(DATA), 4)
    assert await store.get("a") == DATA


async def test_an_upload_that_another_name_has_as_well(store: ObjectStore) -> None:
    """A copy of its meta elsewhere is not the upload, renamed since: its own name says where it is."""
    upload = await store.begin_upload("a")
    sent = await upload.send(DATA)
    copy = {**await read_raw(store, "a"), "name": "forged", "description": "forged"}
    await write_raw(store.js, meta_subject(store, "forged"), copy)
    again = await upload.send(DATA)
    assert (again.name, again.revision, again.description) == ("a", sent.revision, None)
    assert await store.get("a") == DATA


async def test_gc_ends_while_somebody_writes(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose newest meta cannot be read has all of them read: up to the end there was."""
    subject = meta_subject(store, "forged")
    for _ in range(3):
        await write_raw(store.js, subject, b"{", rollup=False)
    real = store._bucket._run_after
    written = 0

    async def run_after(wanted: str, *args: Any, **options: Any) -> Any:
        nonlocal written
        if wanted == subject and written < 300:
            written += 1
            await write_raw(store.js, subject, b"{", rollup=False)
        return await real(wanted, *args, **options)

    monkeypatch.setattr(type(store._bucket), "can_batch", False)
    monkeypatch.setattr(
        type(store._bucket), "_run_after", lambda self, *args, **options: run_after(*args, **options)
    )
    async with asyncio.timeout(60):
        await store.gc(older_than=timedelta(hours=1))
    assert 0 < written < 50


async def test_a_flood_ends_an_upload(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objstore.write.resumed.MOST_FOREIGN", 5)
    upload = await store.begin_upload("a")
    commit = Commit.run

    async def flooded(self: Any, *args: Any) -> int:
        revision = await commit(self, *args)
        for number in range(10):
            await store.js.publish(chunk_subject(store, upload.nuid), b"%d" % number)
        return revision

    monkeypatch.setattr(Commit, "run", flooded)
    async with asyncio.timeout(60):
        with pytest.raises(IntegrityError, match="keeps storing"):
            await upload.send(DATA)


# -- renames ----------------------------------------------------------------------------------------------


async def half_done(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A rename of ``a`` to ``b`` whose client has died after the first step; the marked meta."""

    class Dead(Exception):
        pass

    real = _rename.commit_meta

    async def dies(bucket: Any, info: ObjectInfo, *args: Any, **options: Any) -> int:
        if info.name == "b":
            raise Dead
        return await real(bucket, info, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(Dead):
        patch.setattr(_rename, "commit_meta", dies)
        await store.rename("a", "b")
    info = await _renames.read_meta(store.bound_bucket, "a")
    assert info is not None
    assert info.metadata["natsproto.renaming"] == "b"
    return await read_raw(store, "a")


@pytest.mark.parametrize("copied", [False, True], ids=["other bytes", "a copy"])
@pytest.mark.parametrize("by_mark", [False, True], ids=["written there", "brought there by a mark"])
async def test_what_names_the_chunks_is_not_the_renamed_object(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, by_mark: bool, copied: bool
) -> None:
    """The old name is given up only for what its own rename has made.

    A copy of its meta may expire, and lacks what else was said of the object.
    """
    await store.put("a", DATA)
    marked = await half_done(store, monkeypatch)
    forged = document(store, "forged", marked["nuid"])
    if copied:
        forged |= {key: marked[key] for key in ("size", "chunks", "digest")}
    if by_mark:
        forged["metadata"] = {"natsproto.renaming": "b"}
        await write_raw(store.js, meta_subject(store, "forged"), forged)
        await store.put("forged", b"honest")
    else:
        claim = {} if copied else {"natsproto.renamed-from": "a"}
        await write_raw(store.js, meta_subject(store, "b"), {**forged, "name": "b", "metadata": claim})
    await store.gc(older_than=timedelta(0))
    assert await store.get("a") == DATA
    await store.delete("b")
    assert await store.get("a") == DATA
    with pytest.raises((NatsError, LookupError)):
        await store.get("b")
    await store.rename("a", "c")
    assert await store.get("c") == DATA


async def test_a_rename_that_somebody_else_finishes_with_something_else(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = await store.put("a", DATA)
    real = _rename.commit_meta

    async def beaten(bucket: Any, new: ObjectInfo, *args: Any, **options: Any) -> int:
        if new.name == "b":
            await write_raw(store.js, meta_subject(store, "b"), document(store, "b", info.nuid))
        return await real(bucket, new, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(ObjectAlreadyExists):
        patch.setattr(_rename, "commit_meta", beaten)
        await store.rename("a", "b")
    assert await store.get("a") == DATA


async def test_the_new_end_is_forged_again_and_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time as a copy that says something else: the call ends, and says what it has not done."""
    store = store.with_options(retry_budget=0.3)
    await store.put("a", DATA)
    meta = await read_raw(store, "a")
    real, written = _rename.commit_meta, 0

    async def beaten(bucket: Any, new: ObjectInfo, *args: Any, **options: Any) -> int:
        nonlocal written
        if new.name == "b":
            written += 1
            mark = {"natsproto.renamed-from": "a"}
            copy = {**meta, "name": "b", "description": f"forged {written}", "metadata": mark}
            await write_raw(store.js, meta_subject(store, "b"), copy)
        return await real(bucket, new, *args, **options)

    monkeypatch.setattr(_rename, "commit_meta", beaten)
    async with asyncio.timeout(0.3 + 5):
        with pytest.raises(OutcomeUnknownError, match="has its new name 'b', and not the rest"):
            await store.update_meta("a", ObjectMeta("b", "mine"))
    assert written > 3
    assert await store.get("b") == DATA
    assert not await store.exists("a")


@pytest.fixture
async def ttl_store(new_server: LocalServer, bucket_name: str) -> AsyncIterator[ObjectStore]:
    async with natsproto.connect(new_server.url) as client:
        js = client.jetstream()
        yield await js.create_object_store(bucket=bucket_name, allow_msg_ttl=True)
        await js.delete_object_store(bucket_name)


TIMES = ["1h", "1.5h", "+2h", "3600000000us", "3600000000\u00b5s", "0000000000007200"]


@pytest.mark.parametrize("old", [None, timedelta(hours=20)], ids=["for ever", "for 20 hours"])
@pytest.mark.parametrize("value", TIMES)
async def test_the_new_end_is_forged_and_expires_sooner(
    ttl_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, value: str, old: timedelta | None
) -> None:
    """The server reads times to live in several ways: nothing is given up for what it removes sooner."""
    store = ttl_store
    await store.put("a", DATA, ttl=old)
    marked = await half_done(store, monkeypatch)
    copy = {**marked, "name": "b", "metadata": {"natsproto.renamed-from": "a"}}
    header = f"NATS/1.0\r\nNats-Rollup: sub\r\nNats-TTL: {value}\r\n\r\n".encode()
    subject = meta_subject(store, "b").encode()
    answer = await store.js.client.request_frame(subject, json.dumps(copy).encode(), header, 5.0)
    assert b'"error"' not in answer.payload
    assert (await store.update_meta("a", ObjectMeta("a", "mine"))).description == "mine"
    assert await store.get("a") == DATA
    assert ((await store.get_info("a")).expires is None) == (old is None)


# -- after the commit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failing", ["commit.discard.shares_chunks", "write.put.discard", "change.delete.discard"]
)
async def test_what_follows_the_commit_fails(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Whether another meta needs the replaced chunks is not found out. They stay, and so does the commit."""
    await store.put("a", b"before")

    async def silent(*args: Any, **options: Any) -> bool:
        raise RequestTimeoutError("no answer")

    monkeypatch.setattr(f"objstore.{failing}", silent)
    if "delete" not in failing:
        await store.put("a", DATA, chunk_size=PIECE)
        assert await store.get("a") == DATA
    await store.delete("a")
    assert not await store.exists("a")


async def test_whatever_comes_after_the_commit_removes_nothing(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are removed only when the leader has shown that their meta does not stand."""
    await store.put("a", b"before")

    async def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("objstore.write.put.discard", broken)
    with pytest.raises(RuntimeError):
        await store.put("a", DATA, chunk_size=PIECE)
    assert await store.get("a") == DATA


@pytest.mark.parametrize("again", [True, False], ids=["can be read again", "cannot"])
async def test_a_put_that_has_paused_for_long(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Chunks older than an hour may count as orphans: somebody may be about to remove them."""
    now = 1e9
    monkeypatch.setattr(_chunks, "time", lambda: now)
    seen: set[str] = set()

    def progress(done: int, total: int | None) -> None:
        nonlocal now
        if done == 2 * PIECE and not seen:
            now += 1801
            seen.add("paused")

    async def source() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), PIECE):
            yield DATA[start : start + PIECE]

    begun: list[str] = []
    real = ChunkSender._begin

    def begin(sender: ChunkSender) -> None:
        real(sender)
        begun.append(sender._nuid)

    monkeypatch.setattr(ChunkSender, "_begin", begin)
    info = await store.put("a", DATA if again else source(), chunk_size=PIECE, progress=progress)
    assert info.nuid == begun[-1]
    assert len(begun) == (2 if again else 1)
    assert await chunk_counts(store) == {info.nuid: 4}
    assert await store.get("a") == DATA


async def test_a_put_that_has_slept_before_its_commit_counts_after_it(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has taken its chunks for left over meanwhile: that is told, and not acknowledged."""
    now = 1e9
    monkeypatch.setattr(_chunks, "time", lambda: now)
    commit = Commit.run

    async def slept(self: Commit, *args: Any) -> int:
        await store.js.purge_stream(store._bucket.stream, subject=f"$O.{store.bucket}.C.>")
        return await commit(self, *args)

    settle = ChunkSender._settle

    async def sleeps(self: ChunkSender) -> None:
        nonlocal now
        await settle(self)
        now += 1801

    monkeypatch.setattr(Commit, "run", slept)
    monkeypatch.setattr(ChunkSender, "_settle", sleeps)
    with pytest.raises(IntegrityError):
        await store.put("a", DATA, chunk_size=PIECE)
