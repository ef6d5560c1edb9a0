"""Two metas that name the same chunks, because somebody forged one of them: the other loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

import natsproto
from natsproto.server import LocalServer
from objstore import BadObjectMetaError, ObjectInfo, ObjectStore, OutcomeUnknownError
from objstore.commit import discard as discarding
from objstore.commit import scan as looking
from objstore.commit.references import References
from objstore.format.naming import is_nuid_of
from support.objects import (
    CHUNK,
    assert_exact,
    chunk_counts,
    chunk_subject,
    forge,
    meta_subject,
    pattern,
    read_raw,
    write_raw,
)

DATA = pattern(3 * CHUNK + 1)

Ending = Callable[[ObjectStore], Awaitable[object]]


async def replaced(store: ObjectStore) -> None:
    await store.put("forged", b"new")


async def replaced_at_its_revision(store: ObjectStore) -> None:
    revision = (await store.get_info("forged")).revision
    await store.put("forged", b"new", if_revision=revision)


async def deleted(store: ObjectStore) -> None:
    await store.delete("forged")


async def written(store: ObjectStore) -> None:
    async with store.open_writer("forged") as writer:
        await writer.write(b"new")


async def uploaded(store: ObjectStore) -> None:
    await (await store.begin_upload("forged")).send(b"new")


async def copied_onto(store: ObjectStore) -> None:
    await store.put("other", b"other")
    await store.copy("other", "forged")


async def renamed_and_deleted(store: ObjectStore) -> None:
    await store.rename("forged", "forged too")
    await store.delete("forged too")


ENDINGS = [
    replaced, replaced_at_its_revision, deleted, written, uploaded, copied_onto, renamed_and_deleted,
]  # fmt: skip


async def forged(store: ObjectStore, data: bytes = DATA) -> ObjectInfo:
    """An object, and another name whose meta says that its chunks are that one's."""
    info = await store.put("victim", data, chunk_size=CHUNK)
    document = await read_raw(store, "victim")
    await write_raw(store.js, meta_subject(store, "forged"), {**document, "name": "forged"})
    assert await store.get("forged") == data
    return info


@pytest.mark.parametrize("end", ENDINGS)
async def test_the_other_one_keeps_its_chunks(
    store: ObjectStore, end: Ending, caplog: pytest.LogCaptureFixture
) -> None:
    info = await forged(store)
    await end(store)
    assert await store.get("victim") == DATA
    assert (await chunk_counts(store))[info.nuid] == 4
    assert f"chunks {info.nuid!r}" in caplog.text
    assert "left behind: another object names them" in caplog.text
    await store.delete("victim")
    await assert_exact(store)


async def test_an_atomic_put(new_server: LocalServer) -> None:
    async with natsproto.connect(new_server.url) as client:
        store = await client.jetstream().create_object_store(bucket="shared-atomic", allow_atomic=True)
        info = await forged(store)
        own = await store.put("forged", b"new", atomic=True)
        assert is_nuid_of(own.nuid, "forged")
        assert await store.get("victim") == DATA
        assert (await chunk_counts(store))[info.nuid] == 4
        await store.js.delete_object_store(store.bucket)


async def test_an_unreadable_meta_names_them(store: ObjectStore) -> None:
    info = await forged(store)
    await write_raw(
        store.js, meta_subject(store, "victim"), b'{"name": "victim", "nuid": "%b"' % info.nuid.encode()
    )
    await store.delete("forged")
    assert (await chunk_counts(store))[info.nuid] == 4


async def test_somebody_is_storing_more_of_them(store: ObjectStore) -> None:
    """A put under way: some chunks, then the forged meta, then more chunks, and its own meta at last."""
    info = await forged(store)
    await store.js.purge_stream(f"OBJ_{store.bucket}", subject=meta_subject(store, "victim"))
    await store.js.publish(chunk_subject(store, info.nuid), b"the next chunk")
    await store.delete("forged")
    assert (await chunk_counts(store))[info.nuid] == 5


@pytest.mark.parametrize("end", ENDINGS)
async def test_what_nobody_else_names_is_removed(store: ObjectStore, end: Ending) -> None:
    """As other clients make them: nuids that have nothing to do with the name."""
    await store.put("model", DATA, chunk_size=CHUNK)
    document, nuid = await read_raw(store, "model"), "A" * 22
    for at in range(0, len(DATA), CHUNK):
        await store.js.publish(chunk_subject(store, nuid), DATA[at : at + CHUNK])
    await write_raw(store.js, meta_subject(store, "forged"), {**document, "name": "forged", "nuid": nuid})
    assert await store.get("forged") == DATA
    await end(store)
    assert nuid not in await chunk_counts(store)
    await assert_exact(store)


async def test_a_put_under_way(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    """Its chunks are stored, its meta is on its way, and a forged meta names them meanwhile."""
    info = await forged(store)
    document = await read_raw(store, "victim")
    await store.js.purge_stream(f"OBJ_{store.bucket}", subject=meta_subject(store, "victim"))
    await store.delete("forged")
    assert "a put, or a rename, may be about to name them" in caplog.text
    await write_raw(store.js, meta_subject(store, "victim"), document)
    assert await store.get("victim") == DATA
    assert (await chunk_counts(store))[info.nuid] == 4


async def test_an_upload_that_is_paused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its chunks are left for 13 hours, also where a forged meta names them."""
    monkeypatch.setattr(discarding, "COMMIT_TIME", timedelta(0))
    upload = await store.begin_upload("victim")

    async def breaks_off() -> AsyncIterator[bytes]:
        yield DATA
        raise EOFError

    with pytest.raises(EOFError):
        await upload.send(breaks_off())
    await store.put("forged", DATA)
    await forge(store, "forged", nuid=upload.nuid)
    await store.delete("forged")
    assert (await chunk_counts(store))[upload.nuid] == 3
    monkeypatch.setattr("objstore.bucket.numbered.GONE", timedelta(0))
    await store.put("forged", DATA)
    await forge(store, "forged", nuid=upload.nuid)
    await store.delete("forged")
    assert upload.nuid not in await chunk_counts(store)


async def test_a_put_that_never_came_to_its_end(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discarding, "COMMIT_TIME", timedelta(0))
    info = await forged(store)
    await store.js.purge_stream(f"OBJ_{store.bucket}", subject=meta_subject(store, "victim"))
    await store.delete("forged")
    assert info.nuid not in await chunk_counts(store)


async def test_a_look_that_takes_too_long(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def silent(*_: object) -> bool:
        await asyncio.Event().wait()
        return True

    info = await forged(store)
    monkeypatch.setattr(looking, "SCAN_TIME", 0.1)
    monkeypatch.setattr(References, "read_on", silent)
    await store.delete("forged")
    assert "was not found out within 0.1 s" in caplog.text
    assert (await chunk_counts(store))[info.nuid] == 4


async def test_an_object_that_was_renamed(store: ObjectStore) -> None:
    for _ in range(3):
        await store.put("old", DATA)
        await store.rename("old", "new")
        await store.delete("new")
        await assert_exact(store)


async def test_an_object_whose_old_name_is_used_again(
    store: ObjectStore,
    server: LocalServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The old name does not tell others any more that it was renamed: its age has to."""
    async with natsproto.connect(server.url) as nc:
        other = await nc.jetstream().object_store(store.bucket)
        for age in (discarding.COMMIT_TIME, timedelta(0)):
            monkeypatch.setattr(discarding, "COMMIT_TIME", age)
            info = await store.put("old", DATA)
            await store.rename("old", "new")
            await store.put("old", b"x")
            await other.delete("new")
            assert (info.nuid in await chunk_counts(store)) == bool(age)
    assert "a put, or a rename, may be about to name them" in caplog.text
    await store.gc(older_than=timedelta(0))
    await assert_exact(store)


@pytest.mark.parametrize("end", ["put", "delete", "gc", "rename"])
async def test_a_mark_does_not_bring_chunks_back(store: ObjectStore, end: str) -> None:
    """A forged mark of a rename, to the name that an object had before it was renamed itself."""
    await store.put("incoming", DATA)
    moved = await store.rename("incoming", "archive")
    document = await read_raw(store, "archive")
    forgery = {**document, "name": "evil", "metadata": {"natsproto.renaming": "incoming"}}
    await write_raw(store.js, meta_subject(store, "evil"), forgery)
    if end == "put":
        await store.put("evil", b"x")
    elif end == "delete":
        await store.delete("evil")
    elif end == "gc":
        await store.gc(older_than=timedelta(seconds=-60))
    else:
        with pytest.raises(BadObjectMetaError, match="stored for 'incoming'"):
            await store.rename("evil", "incoming")
    assert not await store.exists("incoming")
    await store.put("incoming", b"the next one")
    assert await store.get("archive") == DATA
    assert (await chunk_counts(store))[moved.nuid] == -(-len(DATA) // (128 * 1024))


async def test_renamed_back(store: ObjectStore) -> None:
    await store.put("a", DATA)
    await store.rename("a", "b")
    await store.rename("b", "a")
    assert await store.get("a") == DATA
    await store.put("a", b"x")
    await assert_exact(store)


async def test_more_objects_than_are_looked_at(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(looking, "MOST_NAMES", 3)
    info = await store.put("renamed", DATA)
    await store.rename("renamed", "n")
    for number in range(3):
        await store.put(f"n{number}", b"x")
    await store.delete("n")
    assert info.nuid in await chunk_counts(store)
    assert "only gc() finds out" in caplog.text
    report = await store.gc(older_than=timedelta(0))
    assert [orphan.nuid for orphan in report.orphans] == [info.nuid]
    await assert_exact(store)


async def test_many_old_metas_of_one_name(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are counted: a writer that does not roll up cannot make every look end early."""
    monkeypatch.setattr(looking, "MOST_NAMES", 3)
    await store.put("renamed", DATA)
    await store.rename("renamed", "n")
    document = {"name": "other", "bucket": store.bucket, "nuid": "", "size": 0, "chunks": 0}
    for _ in range(6):
        await write_raw(store.js, meta_subject(store, "other"), document)
    await store.delete("n")
    assert await chunk_counts(store) == {}


@pytest.mark.parametrize("forge_marker", [False, True])
async def test_a_meta_names_the_chunks_of_a_put_under_way(store: ObjectStore, forge_marker: bool) -> None:
    """Between its chunks and its meta the name is written, and a forged meta with its chunks is replaced.

    They stay, whatever the delete marker of another name says, unless one of the put's own name is forged as
    well: then the put may have been committed and renamed.
    """
    await store.put("third", b"x")
    await store.delete("third")

    def noticed(done: int, _: int | None) -> None:
        if done == 3 * CHUNK:
            sent.set()

    sent = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield DATA
        async with asyncio.timeout(30):
            await sent.wait()
            while 3 not in (stored := await chunk_counts(store)).values():
                pass  # handed on, and not stored yet
        (nuid,) = stored
        await store.put("a", b"x")
        document = await read_raw(store, "a")
        await write_raw(store.js, meta_subject(store, "forged"), {**document, "name": "forged", "nuid": nuid})
        await forge(store, "third", metadata={"natsproto.moved": nuid})
        if forge_marker:
            await store.delete("a")
            await forge(store, "a", metadata={"natsproto.moved": nuid})
        await store.put("forged", b"y")

    if forge_marker:
        with pytest.raises(OutcomeUnknownError):
            await store.put("a", pieces(), chunk_size=CHUNK, progress=noticed)
    else:
        await store.put("a", pieces(), chunk_size=CHUNK, progress=noticed)
        assert await store.get("a") == DATA


async def test_ones_own_are_removed_without_a_look(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual case costs nothing: no other name can have this nuid."""
    monkeypatch.setattr(discarding, "_reason_to_leave", None)
    for end in (replaced, replaced_at_its_revision, deleted, written, uploaded, copied_onto):
        info = await store.put("forged", DATA, chunk_size=CHUNK)
        assert is_nuid_of(info.nuid, "forged")
        await end(store)
        await assert_exact(store)
    await store.put("empty", b"")
    await forge(store, "empty", nuid="")
    await store.delete("empty")
