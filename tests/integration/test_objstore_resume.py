"""Interrupted transfers go on where they stopped, and never trust what they find."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from natsproto.errors import APIError
from objstore import (
    BadObjectMetaError,
    DigestMismatchError,
    IntegrityError,
    ObjectInfo,
    ObjectStore,
    OutcomeUnknownError,
    RevisionConflictError,
    Upload,
)
from objstore.bucket.bucket import Bucket
from objstore.commit.discard import discard
from objstore.maintenance import gc as maintain
from objstore.write.resumed import ResumedPut
from support.objects import meta_subject, part_file, read_raw, wire_digest, write_raw

DATA = os.urandom(3_000_017)
CHUNK = 100_000


def stream(store: ObjectStore) -> str:
    return f"OBJ_{store.bucket}"


async def chunk_counts(store: ObjectStore) -> dict[str, int]:
    return await store.js.stream_subjects(stream(store), f"$O.{store.bucket}.C.>")


class Stop(Exception):
    """What interrupts a transfer here."""


# -- downloads --------------------------------------------------------------------------------------------


def parts(directory: Path) -> list[Path]:
    return sorted(directory.glob(".*.part"))


async def interrupted(store: ObjectStore, path: Path, at: int) -> None:
    def stop(done: int, total: int | None) -> None:
        if done >= at:
            raise Stop

    with pytest.raises(Stop):
        await store.get_file("a", path, resume=True, progress=stop)
    assert not path.exists()
    assert len(parts(path.parent)) == 1


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few chunks, so that a transfer can stop in between."""
    import objstore.read.feed
    import objstore.read.sinks

    monkeypatch.setattr(
        objstore.read.feed.ChunkFeed.__init__, "__kwdefaults__", {"window": 500_000, "part": None}
    )
    monkeypatch.setattr(objstore.read.sinks.BlockSink.__init__, "__kwdefaults__", {"window": 500_000})


@pytest.mark.usefixtures("small_windows")
async def test_download_goes_on(store: ObjectStore, tmp_path: Path) -> None:
    info = await store.put("a", DATA, chunk_size=CHUNK)
    path = tmp_path / "out"
    await interrupted(store, path, 1_000_000)
    have = parts(tmp_path)[0].stat().st_size
    assert have >= 1_000_000
    await store.js.client.flush()  # what was on its way to the interrupted read has arrived
    before = store.js.client.stats.in_bytes
    assert (await store.get_file("a", path, resume=True)).nuid == info.nuid
    received = store.js.client.stats.in_bytes - before
    assert path.read_bytes() == DATA
    assert parts(tmp_path) == []
    assert received < len(DATA) - have + 5 * CHUNK, "what is there is not read again"


@pytest.mark.usefixtures("small_windows")
async def test_half_a_chunk_and_a_whole_file(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", DATA, chunk_size=CHUNK)
    path = tmp_path / "out"
    for size in (0, 1, CHUNK - 1, CHUNK, CHUNK * 7 + 5, len(DATA) - 1, len(DATA), len(DATA) + 50):
        part_file(path, await store.get_info("a")).write_bytes((DATA + bytes(50))[:size])
        path.unlink(missing_ok=True)
        await store.get_file("a", path, resume=True)
        assert path.read_bytes() == DATA, size
        assert parts(tmp_path) == []


@pytest.mark.usefixtures("small_windows")
async def test_replaced_meanwhile(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", DATA, chunk_size=CHUNK)
    await interrupted(store, tmp_path / "out", 500_000)
    other = DATA[::-1]
    await store.put("a", other, chunk_size=CHUNK)
    await store.get_file("a", tmp_path / "out", resume=True)
    assert (tmp_path / "out").read_bytes() == other


@pytest.mark.usefixtures("small_windows")
async def test_beginning_that_was_changed_is_noticed(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", DATA, chunk_size=CHUNK)
    path = tmp_path / "out"
    path.write_bytes(b"previous")
    path_part = part_file(path, await store.get_info("a"))
    path_part.write_bytes(bytes(CHUNK * 3))
    with pytest.raises(DigestMismatchError):
        await store.get_file("a", path, resume=True)
    assert path.read_bytes() == b"previous"
    assert parts(tmp_path) == [], "wrong bytes are not continued"
    await store.get_file("a", path, resume=True)
    assert path.read_bytes() == DATA


@pytest.mark.usefixtures("small_windows")
async def test_after_changes_of_the_meta(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", DATA, chunk_size=CHUNK)
    await interrupted(store, tmp_path / "out", 1_000_000)
    await store.put("noise", DATA)
    await store.rename("a", "b")
    await store.add_link("a2", await store.get_info("b"))
    await store.get_file("b", tmp_path / "out", resume=True)
    assert (tmp_path / "out").read_bytes() == DATA


async def test_without_resume_nothing_is_kept(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("a", DATA, chunk_size=CHUNK)

    def stop(done: int, total: int | None) -> None:
        raise Stop

    with pytest.raises(Stop):
        await store.get_file("a", tmp_path / "out", progress=stop)
    assert list(tmp_path.iterdir()) == []
    await store.put("empty", b"")
    await store.get_file("empty", tmp_path / "empty", resume=True)
    assert (tmp_path / "empty").read_bytes() == b""


# -- uploads ----------------------------------------------------------------------------------------------


async def cut_off(data: bytes, at: int) -> AsyncIterator[bytes]:
    for start in range(0, at, 30_000):
        yield data[start : min(start + 30_000, at)]
    raise Stop


async def begun(store: ObjectStore, at: int = 1_234_567) -> str:
    """An upload that was interrupted; returns its token."""
    upload = await store.begin_upload(
        "a", "d", "f.bin", {"H": ["1", "2"]}, metadata={"m": "n"}, chunk_size=CHUNK
    )
    with pytest.raises(Stop):
        await upload.send(cut_off(DATA, at))
    return upload.token


async def test_upload_goes_on(store: ObjectStore) -> None:
    await store.put("a", b"previous")
    token = await begun(store)
    assert await store.get("a") == b"previous"
    upload = await store.begin_upload("a", token=token)
    stored = await upload.stored()
    assert stored >= 10
    before = store.js.client.stats.out_bytes
    info = await upload.send(DATA)
    assert store.js.client.stats.out_bytes - before < len(DATA) - stored * CHUNK + 2 * CHUNK
    assert await store.get("a") == DATA
    assert (info.description, info.filename, info.headers) == ("d", "f.bin", {"H": ["1", "2"]})
    assert info.metadata == {"m": "n", "filename": "f.bin"}
    assert list((await chunk_counts(store)).values()) == [-(-len(DATA) // CHUNK)]


async def test_upload_in_one_go(store: ObjectStore) -> None:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    assert await upload.stored() == 0
    await upload.send(DATA)
    assert await store.get("a") == DATA
    empty = await store.begin_upload("empty")
    await empty.send(b"")
    assert await store.get("empty") == b""


async def test_sent_twice_is_stored_once(store: ObjectStore) -> None:
    """The interruption may have come between the commit and the news of it."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    await upload.send(DATA)
    await (await store.begin_upload("a", token=upload.token)).send(DATA)
    assert await store.get("a") == DATA
    assert list((await chunk_counts(store)).values()) == [-(-len(DATA) // CHUNK)]


async def superseded(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> tuple[Upload, ObjectInfo]:
    """An upload that was committed and replaced, by somebody who is about to remove its chunks."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    info = await upload.send(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "purge_chunks", AsyncMock())
        await store.put("a", b"what stands")
    return await store.begin_upload("a", token=upload.token), info


async def test_sent_again_after_it_was_replaced(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks are all there, and about to be removed: the object is stored on a nuid of its own."""
    upload, info = await superseded(store, monkeypatch)
    again = await upload.send(DATA)
    assert again.nuid != info.nuid
    await discard(store._bucket, info, "put")
    assert await store.get("a") == DATA
    assert await chunk_counts(store) == {f"$O.{store.bucket}.C.{again.nuid}": again.chunks}


async def test_sent_again_from_a_source_that_is_used_up(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, _ = await superseded(store, monkeypatch)
    with pytest.raises(OutcomeUnknownError, match="begin another one"):
        await upload.send(iter([DATA]))
    assert await store.get("a") == b"what stands"


async def test_sent_again_after_its_chunks_were_removed(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal that is repeated, or comes late, is about the chunks of that meta, and those are older."""
    upload, info = await superseded(store, monkeypatch)
    await discard(store._bucket, info, "put")
    again = await upload.send(DATA)
    assert again.nuid == info.nuid
    await discard(store._bucket, info, "put")
    assert await store.get("a") == DATA


async def test_sent_again_after_its_name_was_purged(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nothing stands there proves nothing: it was renamed, deleted, and its chunks are about to go."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    await upload.send(DATA)
    moved = await store.rename("a", "b")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "purge_chunks", AsyncMock())
        await store.delete("b")
    for name in "ab":
        await store.js.purge_stream(stream(store), subject=meta_subject(store, name))
    again = await (await store.begin_upload("a", token=upload.token)).send(DATA)
    await discard(store._bucket, moved, "delete")
    assert await store.get("a") == DATA
    assert (await store.get_info("a")).nuid == again.nuid != moved.nuid


@pytest.mark.parametrize("written", [False, True])
async def test_sent_again_in_the_middle_of_a_rename(store: ObjectStore, written: bool) -> None:
    """It was committed: nothing is committed again, whichever of the two names stands for it."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    info = await upload.send(DATA)
    document = await read_raw(store, "a")
    marked = {**document, "metadata": {"natsproto.renaming": "b", "natsproto.renaming-at": "0"}}
    await write_raw(store.js, meta_subject(store, "a"), marked)
    if written:
        new = {**document, "name": "b", "metadata": {"natsproto.renamed-from": "a"}}
        await write_raw(store.js, meta_subject(store, "b"), new)
    again = await (await store.begin_upload("a", token=upload.token)).send(DATA)
    assert (again.name, again.nuid) == ("b" if written else "a", info.nuid)
    await store.delete("a")
    assert await store.get("b") == DATA
    assert (await store.verify(deep=True)).ok


async def test_a_condition_that_its_own_commit_has_changed(store: ObjectStore) -> None:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    info = await upload.send(DATA, if_revision=0)
    again = await (await store.begin_upload("a", token=upload.token)).send(DATA, if_revision=0)
    assert again.revision == info.revision


async def test_an_empty_one_that_was_committed(store: ObjectStore) -> None:
    """It has no chunks, and gets none."""
    upload = await store.begin_upload("a")
    await upload.send(b"")
    for data in (DATA, iter([DATA])):
        with pytest.raises(BadObjectMetaError, match="committed already"):
            await (await store.begin_upload("a", token=upload.token)).send(data)
    assert await store.get("a") == b""
    assert (await store.verify(deep=True)).ok


async def test_an_earlier_commit_lands_while_the_rest_is_sent(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a source that has grown since: what it names is no longer what its chunks are."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    info = await upload.send(DATA[: 5 * CHUNK])
    late = await read_raw(store, "a")
    await store.js.purge_stream(stream(store), subject=meta_subject(store, "a"))
    stored = ResumedPut._check_stored

    async def and_it_lands(self: ResumedPut) -> None:
        await stored(self)
        monkeypatch.undo()
        await write_raw(store.js, meta_subject(store, "a"), late)

    monkeypatch.setattr(ResumedPut, "_check_stored", and_it_lands)
    again = await (await store.begin_upload("a", token=upload.token)).send(DATA)
    assert again.nuid != info.nuid
    assert await store.get("a") == DATA


def after_commit(monkeypatch: pytest.MonkeyPatch, event: Callable[[], Awaitable[Any]]) -> None:
    """What others do between the commit of an upload and its last look at the chunks."""
    look = ResumedPut._check_again

    async def check_again(self: ResumedPut) -> None:
        await event()
        await look(self)

    monkeypatch.setattr(ResumedPut, "_check_again", check_again)


@pytest.fixture(params=["new", "old"])
async def either(store: ObjectStore, request: pytest.FixtureRequest) -> ObjectStore:
    """A bucket that refuses what it has no room for, and one that makes room."""
    config = (await store.js.stream_info(stream(store))).config.to_json()
    await store.js.update_stream({**config, "max_bytes": 64 << 20, "discard": request.param})
    return await store.js.object_store(store.bucket)


async def test_replaced_right_after_its_commit(either: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its chunks are gone because it was replaced, not because the bucket is full."""
    upload = await either.begin_upload("a", chunk_size=CHUNK)
    after_commit(monkeypatch, lambda: either.put("a", b"newer"))
    info = await upload.send(DATA)
    assert info.size == len(DATA)
    assert await either.get("a") == b"newer"


async def test_loses_a_chunk_right_after_its_commit(
    either: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands, so this is damage: "full" would say that nothing was stored."""
    upload = await either.begin_upload("a", chunk_size=CHUNK)
    subject = f"$O.{either.bucket}.C.{upload.nuid}"
    after_commit(monkeypatch, lambda: either.js.purge_stream(stream(either), subject=subject, keep=1))
    with pytest.raises(IntegrityError):
        await upload.send(DATA)
    assert (await either.get_info("a")).nuid == upload.nuid


async def test_refused_right_after_its_commit(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No error that says that nothing was stored."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)

    async def refuse() -> None:
        monkeypatch.setattr(Bucket, "stored_chunks", AsyncMock(side_effect=APIError(400, 10052, "no")))

    after_commit(monkeypatch, refuse)
    with pytest.raises(OutcomeUnknownError, match="could not be found out"):
        await upload.send(DATA)
    assert await store.get("a") == DATA


async def test_committed_while_gc_runs(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """No chunk was lacking: nothing tells gc that the upload goes on, but its meta."""
    await store.put("a", b"older")
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    with monkeypatch.context() as patch:
        patch.setattr(ResumedPut, "_commit", AsyncMock(side_effect=Stop))
        with pytest.raises(Stop):
            await upload.send(DATA)
    looked = maintain._last_stored

    async def slowly(*args: Any) -> Any:
        found = await looked(*args)
        await (await store.begin_upload("a", token=upload.token)).send(DATA)
        return found

    monkeypatch.setattr(maintain, "_last_stored", slowly)
    report = await store.gc(older_than=timedelta(0))
    assert report.orphans == []
    assert await store.get("a") == DATA


@pytest.mark.parametrize("change", ["first", "middle", "shorter", "longer", "more chunks"])
async def test_committed_already_with_other_content(store: ObjectStore, change: str) -> None:
    """The chunks belong to an object that stands: not one of them is removed."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    committed = DATA[: 20 * CHUNK] if change == "more chunks" else DATA
    info = await upload.send(committed)
    data = {
        "first": b"x" + DATA[1:],
        "middle": DATA[: 15 * CHUNK] + b"x" + DATA[15 * CHUNK + 1 :],
        "shorter": DATA[: 15 * CHUNK],
        "longer": DATA + b"x",
        "more chunks": DATA,
    }[change]
    with pytest.raises(BadObjectMetaError, match="committed already"):
        await (await store.begin_upload("a", token=upload.token)).send(data)
    await (await store.begin_upload("a", token=upload.token)).abort()
    assert await store.get("a") == committed
    assert (await store.get_info("a")).revision == info.revision
    assert (await store.verify(deep=True)).ok


@pytest.mark.parametrize("change", ["first", "middle", "shorter"])
async def test_source_that_changed(store: ObjectStore, change: str) -> None:
    token = await begun(store)
    data = bytearray(DATA)
    if change == "first":
        data[0] ^= 1
    elif change == "middle":
        data[550_000] ^= 1
    else:
        del data[400_001:]
    await (await store.begin_upload("a", token=token)).send(bytes(data))
    assert await store.get("a") == data
    assert (await store.verify(deep=True)).ok


async def test_hole_in_what_is_stored(store: ObjectStore) -> None:
    token = await begun(store)
    subject = next(iter(await chunk_counts(store)))
    third = await store.js.get_message(stream(store), seq=3, next_by_subject=subject)
    await store.js.delete_message(stream(store), third.seq)
    await (await store.begin_upload("a", token=token)).send(DATA)
    assert await store.get("a") == DATA


async def test_cancelled_upload_keeps_its_chunks(store: ObjectStore) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield DATA
        reached.set()
        await asyncio.Event().wait()

    reached = asyncio.Event()
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    task = asyncio.create_task(upload.send(endless()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await upload.stored() >= 30
    await upload.send(DATA)
    assert await store.get("a") == DATA


async def test_abort(store: ObjectStore) -> None:
    upload = await store.begin_upload("a", token=await begun(store))
    await upload.abort()
    assert await chunk_counts(store) == {}
    await upload.send(DATA)
    await upload.abort()
    assert await store.get("a") == DATA, "a committed upload cannot be aborted"


async def test_abort_of_chunks_that_another_object_names(store: ObjectStore) -> None:
    upload = await store.begin_upload("film", chunk_size=CHUNK)
    await upload.send(DATA)
    document = await read_raw(store, "film")
    await store.js.purge_stream(stream(store), subject=meta_subject(store, "film"))
    await write_raw(store.js, meta_subject(store, "mine"), {**document, "name": "mine"})
    with pytest.raises(OutcomeUnknownError, match=r"'mine'.* names the chunks of .* 'film', they are"):
        await upload.abort()
    assert await store.get("mine") == DATA


async def test_abort_after_a_rename(store: ObjectStore) -> None:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    await upload.send(DATA)
    await store.rename("a", "b")
    await upload.abort()
    assert await store.get("b") == DATA


async def test_gc_leaves_a_young_upload_alone(store: ObjectStore) -> None:
    token = await begun(store)
    report = await store.gc()
    assert len(report.recent) == 1
    await (await store.begin_upload("a", token=token)).send(DATA)


async def test_condition(store: ObjectStore) -> None:
    await store.put("a", b"1")
    token = await begun(store)
    with pytest.raises(RevisionConflictError):
        await (await store.begin_upload("a", token=token)).send(DATA, if_revision=0)
    assert await store.get("a") == b"1"


async def test_bad_tokens(store: ObjectStore) -> None:
    upload = await store.begin_upload("a")
    for token in ("", "nonsense", "e30=", upload.token[:-4], 5, "ä"):
        with pytest.raises(BadObjectMetaError):
            await store.begin_upload("a", token=token)  # type: ignore[arg-type]
    with pytest.raises(BadObjectMetaError, match="'a'"):
        await store.begin_upload("b", token=upload.token)
    with pytest.raises(BadObjectMetaError):
        await store.begin_upload("a", chunk_size=0)


async def test_a_forged_meta_names_its_chunks(store: ObjectStore) -> None:
    """An upload was interrupted before its commit; somebody's meta says that they are another object's."""
    upload = await store.begin_upload("film", chunk_size=CHUNK)
    info = await upload.send(DATA)
    document = await read_raw(store, "film")
    await store.js.purge_stream(stream(store), subject=meta_subject(store, "film"))
    await write_raw(store.js, meta_subject(store, "mine"), {**document, "name": "mine"})
    for source in (iter([DATA]), DATA):
        again = await upload.send(source)
        assert (again.name, again.digest) == ("film", info.digest)
        assert again.nuid != info.nuid
        assert await store.get("film") == DATA
        assert await store.get("mine") == DATA


@pytest.mark.parametrize("chunks", [1, 3, 10, 31])
async def test_a_forged_meta_without_its_bytes(store: ObjectStore, chunks: int) -> None:
    """Who may not read the chunks of an upload cannot keep it from going on with them."""
    upload = await store.begin_upload("film", chunk_size=CHUNK)
    for _ in range(2):

        def stop(done: int, total: int | None) -> None:
            if done >= 10 * CHUNK:
                raise Stop

        with pytest.raises(Stop):
            await upload.send(DATA, progress=stop)
        document = {
            "name": "mine",
            "bucket": store.bucket,
            "nuid": upload.nuid,
            "size": chunks * CHUNK,
            "chunks": chunks,
            "digest": wire_digest(DATA[1:]),
        }
        await write_raw(store.js, meta_subject(store, "mine"), document)
    info = await upload.send(iter([DATA]))
    assert info.nuid == upload.nuid
    assert await store.get("film") == DATA


async def test_renamed_since_and_other_bytes(store: ObjectStore) -> None:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    await upload.send(DATA)
    moved = await store.rename("a", "b")
    again = await store.begin_upload("a", token=upload.token)
    assert (await again.send(DATA)).name == "b"
    assert (await again.send(iter([DATA]))).name == "b"
    other = await again.send(DATA[1:])
    assert (other.name, other.size) == ("a", len(DATA) - 1)
    assert other.nuid != moved.nuid
    assert await store.get("b") == DATA
