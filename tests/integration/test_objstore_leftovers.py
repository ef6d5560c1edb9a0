"""Deleting what is gone already counts as done; what a killed server brings back is found by gc."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.errors import APIError
from natsproto.jetstream.api.errors import MessageDeleteError, MessageNotFoundError
from natsproto.server import LocalServer
from natsproto.testing import DROP, FaultProxy
from natsproto.wire import Msg as WireMsg
from natsproto.wire import Pub
from objstore import ObjectNotFoundError, ObjectStore
from support.objects import CHUNK, assert_exact, chunk_counts, chunk_sequences, impatient, pattern

OLD = pattern(5 * CHUNK, 1)
NEW = pattern(5 * CHUNK, 2)


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


async def test_what_the_server_says(store: ObjectStore) -> None:
    """The codes that repeated deletions are answered with."""
    info = await store.put("a", OLD)
    first, second, *_ = await chunk_sequences(store, info.nuid)
    stream = f"OBJ_{store.bucket}"
    await store.js.delete_message(stream, second)
    with pytest.raises(MessageNotFoundError) as deleted:
        await store.js.delete_message(stream, second)
    assert deleted.value.err_code == 10043
    await store.js.purge_stream(stream, seq=second + 1)
    with pytest.raises(MessageDeleteError) as purged:
        await store.js.delete_message(stream, first)
    assert purged.value.err_code == 10057
    for seq in (first, second):
        await store._bucket.delete_own(seq, lambda message: True)


async def test_other_failures_are_told(store: ObjectStore) -> None:
    """A message that is still there was not deleted, whatever the code."""
    info = await store.put("a", OLD)
    seq = (await chunk_sequences(store, info.nuid))[0]

    async def fails(stream: str, seq: int) -> None:
        raise MessageDeleteError(500, 10057, "disk trouble")

    store.bound_bucket.js.delete_message = fails  # type: ignore[assignment, method-assign]
    with pytest.raises(APIError, match="disk trouble"):
        await store._bucket.delete_own(seq, lambda message: True)


def once_answered(store: ObjectStore, subject: bytes) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Hooks that lose the first answer to a request, which is carried out."""
    inbox: list[bytes] = []
    lost: list[bytes] = []

    def to_server(event: Any, raw: bytes) -> Any:
        if isinstance(event, Pub) and event.subject == subject and event.reply and not lost:
            inbox.append(event.reply)
        return None

    def to_client(event: Any, raw: bytes) -> Any:
        if isinstance(event, WireMsg) and event.subject in inbox and not lost:
            lost.append(event.subject)
            return DROP
        return None

    return to_server, to_client


async def test_a_lost_answer_to_a_deletion(proxy: FaultProxy, store: ObjectStore) -> None:
    """It is repeated, finds nothing any more, and that is what was wanted."""
    info = await store.put("a", OLD)
    seq = (await chunk_sequences(store, info.nuid))[-1]
    async with natsproto.connect(proxy.url) as client:
        same = await impatient(client, store.bucket, 0.2)
        subject = f"$JS.API.STREAM.MSG.DELETE.OBJ_{store.bucket}".encode()
        proxy.to_server, proxy.to_client = once_answered(store, subject)
        async with asyncio.timeout(30):
            await same._bucket.delete_own(seq, lambda message: True)
        proxy.to_server = proxy.to_client = None
    assert len(await chunk_sequences(store, info.nuid)) == 4


async def test_strays_of_a_resumed_upload(store: ObjectStore) -> None:
    """They may be named by a commit that is still on its way: the object goes elsewhere, they are for gc."""
    upload = await store.begin_upload("a")
    strays = (OLD[:CHUNK], b"stray", b"other")
    for chunk in strays:
        await store.js.publish(f"$O.{store.bucket}.C.{upload.nuid}", chunk)
    info = await (await store.begin_upload("a", token=upload.token)).send(OLD)
    assert info.nuid != upload.nuid
    assert await upload.stored() == len(strays)
    assert await store.get("a") == OLD
    report = await store.gc(older_than=timedelta(0))
    assert [orphan.nuid for orphan in report.orphans] == [upload.nuid]
    await assert_exact(store)


@pytest.mark.parametrize("binary", ["new", "old"])
async def test_what_a_killed_server_forgets(
    binary: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """kill -9 may bring purged chunks back: nothing refers to them, and gc removes them."""
    path = request.getfixturevalue(f"{binary}_server").binary.path
    with LocalServer(binary=path, store_dir=tmp_path / "js") as server:
        async with natsproto.connect(server.url) as client:
            store = await client.jetstream().create_object_store(bucket="b")
            for _ in range(3):
                await store.put("replaced", OLD)
            await store.put("replaced", NEW)
            await store.put("deleted", OLD)
            await store.delete("deleted")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
        async with natsproto.connect(server.url) as client:
            store = await client.jetstream().object_store("b")
            before = await chunk_counts(store)
            report = await store.gc(older_than=timedelta(0))
            assert {orphan.nuid for orphan in report.orphans} == set(before) - {
                info.nuid for info in await store.list()
            }
            assert all(orphan.removed for orphan in report.orphans)
            assert await store.get("replaced") == NEW
            with pytest.raises(ObjectNotFoundError):
                await store.get("deleted")
            await assert_exact(store)
            assert (await store.verify(deep=True)).ok
