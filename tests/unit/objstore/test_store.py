"""The public face of writing: each verb does what its page says, and refuses what it does not take."""

from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import ConnectionClosedError
from objstore import (
    BadObjectMetaError,
    BucketSealedError,
    LinkError,
    ObjectAlreadyExists,
    ObjectDeletedError,
    ObjectMeta,
    ObjectNotFoundError,
    ObjectStore,
    RevisionConflictError,
)
from objstore.store_reads import StoreReads
from support.memory_server import MemoryServer

VERBS = [name for name, value in vars(ObjectStore).items() if inspect.isfunction(value) and name[0] != "_"]


async def test_put_and_create(store: ObjectStore) -> None:
    info = await store.put("a", b"1", "d", "f.txt", {"H": "v"}, metadata={"k": "v"}, chunk_size=10)
    assert (info.description, dict(info.metadata)) == ("d", {"k": "v", "filename": "f.txt"})
    with pytest.raises(ObjectAlreadyExists) as told:
        await store.create("a", b"2")
    assert told.value.revision == info.revision
    await store.delete("a")
    await store.create("a", b"3")
    assert await store.get("a") == b"3"


async def test_put_file(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"content")
    await store.put_file("a", path)
    assert await store.get("a") == b"content"
    await store.put_file("b", str(path))
    assert await store.get("b") == b"content"
    with pytest.raises(FileNotFoundError):
        await store.put_file("c", tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        await store.put_file("c", tmp_path)
    assert not await store.exists("c")


async def test_delete(store: ObjectStore) -> None:
    info = await store.put("a", b"x")
    with pytest.raises(RevisionConflictError):
        await store.delete("a", if_revision=info.revision + 1)
    assert await store.delete("a", if_revision=info.revision) is True
    with pytest.raises(ObjectDeletedError):
        await store.delete("a")
    with pytest.raises(ObjectNotFoundError):
        await store.delete("never")


async def test_rename_and_update(store: ObjectStore) -> None:
    info = await store.put("a", b"x")
    with pytest.raises(RevisionConflictError):
        await store.rename("a", "b", if_revision=info.revision + 1)
    renamed = await store.rename("a", "b")
    assert (await store.update_meta("b", ObjectMeta("b", "d"))).description == "d"
    assert renamed.nuid == info.nuid
    assert await store.names(live=True) == ["b"]


async def test_copy(server: MemoryServer, store: ObjectStore) -> None:
    info = await store.put("a", b"x" * 100, "d", metadata={"k": "v"}, chunk_size=10)
    copied = await store.copy("a", "b")
    assert copied.nuid != info.nuid
    assert (copied.description, dict(copied.metadata), copied.chunks) == ("d", {"k": "v"}, 10)
    assert await store.get("b") == b"x" * 100
    with pytest.raises(ObjectNotFoundError):
        await store.copy("none", "c")


async def test_links(server: MemoryServer, store: ObjectStore) -> None:
    info = await store.put("a", b"x")
    link = await store.add_link("l", info)
    assert link.is_link
    with pytest.raises(LinkError):
        await store.add_link("m", link)
    await server.bucket("other")
    whole = await store.add_bucket_link("w", "other", description="d")
    assert (whole.is_link, whole.description) == (True, "d")


async def test_uploads_and_writers(store: ObjectStore) -> None:
    upload = await store.begin_upload("a", chunk_size=10)
    await upload.send(b"x" * 25)
    again = await store.begin_upload("a", token=upload.token)
    assert await again.stored() == 3
    async with store.open_writer("w", "d") as writer:
        await writer.write(b"written")
    assert writer.info is not None
    assert writer.info.description == "d"


async def test_maintenance(server: MemoryServer, store: ObjectStore) -> None:
    server.put_raw("$O.b.C.ORPHAN", b"x")
    assert (await store.gc()).recent == ["ORPHAN"]
    assert [each.removed for each in (await store.gc(older_than=timedelta(0), dry_run=True)).orphans] == [
        False
    ]
    await store.gc(older_than=timedelta(0))
    assert server.chunks() == {}
    await store.put("a", b"")
    await store.delete("a")
    assert await store.purge_deleted() == 0
    server.ahead = timedelta(days=2)
    assert await store.purge_deleted() == 1


async def test_sealing(server: MemoryServer, store: ObjectStore) -> None:
    await store.put("a", b"x")
    assert await store.seal() is True
    assert server.stream().config["sealed"] is True
    assert await store.get("a") == b"x"
    for call in (store.put("b", b""), store.delete("a"), store.rename("a", "c")):
        with pytest.raises(BucketSealedError):
            await call


async def test_callbacks_are_checked_at_once(store: ObjectStore) -> None:
    async def later(*args: object) -> None:
        pass

    wrong: Any = later
    for call in (store.put("a", b"", progress=wrong), store.create("a", b"", progress=wrong)):
        with pytest.raises(TypeError, match="plain function"):
            await call
    with pytest.raises(BadObjectMetaError):
        await store.put("a", b"", chunk_size=0)
    assert await store.names() == []


async def test_after_the_end_of_the_client(server: MemoryServer, store: ObjectStore) -> None:
    await server.client.close()
    for call in (store.put("a", b""), store.delete("a"), store.gc(), store.seal(), store.copy("a", "b")):
        with pytest.raises(ConnectionClosedError):
            await call


async def test_another_loop_is_refused(store: ObjectStore) -> None:
    async def work() -> None:
        for call in (store.put("a", b""), store.get("a"), store.list()):
            with pytest.raises(ConnectionClosedError, match="another event loop"):
                await call

    await asyncio.to_thread(lambda: asyncio.run(work()))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_page(verb: str) -> None:
    function = getattr(ObjectStore, verb)
    assert inspect.getdoc(function)
    assert not hasattr(StoreReads, verb), "what changes something needs other rights than what does not"
