"""Uploads that were left for long, and gc beside those that go on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest

from natsproto.subjects import secret_name
from objstore import ObjectInfo, ObjectStore, Upload
from objstore.bucket import numbered
from objstore.change import update as change
from objstore.maintenance import gc as maintain
from objstore.write.resumed import ResumedPut
from objstore.write.upload_holders import Holders
from support.objects import assert_exact, chunk_counts, chunk_subject, stream

CHUNK = 50_000
DATA = os.urandom(10 * CHUNK)
NOW = timedelta(0)
SHORT = timedelta(microseconds=1)


class Stop(Exception):
    """What interrupts a transfer here."""


async def cut_off(chunks: int) -> AsyncIterator[bytes]:
    yield DATA[: chunks * CHUNK]
    raise Stop


async def begun(store: ObjectStore, chunks: int = 5) -> str:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    with pytest.raises(Stop):
        await upload.send(cut_off(chunks))
    return upload.token


async def stopped_before_its_commit(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    with monkeypatch.context() as patch:
        patch.setattr(ResumedPut, "_commit", AsyncMock(side_effect=Stop))
        with pytest.raises(Stop):
            await upload.send(DATA)
    return upload.token


async def again(store: ObjectStore, token: str, data: Any = DATA) -> ObjectInfo:
    return await (await store.begin_upload("a", token=token)).send(data)


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbered, "GOES_ON", NOW)
    monkeypatch.setattr(numbered, "GONE", NOW)


# -- too old ----------------------------------------------------------------------------------------------


async def test_its_token_goes_on_being_of_use(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, old: None
) -> None:
    """What is too old is removed, and what is sent instead can be continued."""
    token = await begun(store, 3)
    upload = await store.begin_upload("a", token=token)
    subject = chunk_subject(store, upload.nuid)
    first = await store.js.get_message(stream(store), last_by_subject=subject)
    with pytest.raises(Stop):
        await upload.send(cut_off(8))
    assert await chunk_counts(store) == {upload.nuid: 8}
    next_one = await store._bucket.first_after(subject, 0)
    assert next_one is not None
    assert next_one.seq > first.seq
    monkeypatch.undo()
    before = store.js.client.stats.out_bytes
    info = await again(store, token)
    assert store.js.client.stats.out_bytes - before < 3 * CHUNK
    assert info.nuid == upload.nuid
    assert (await again(store, token)).revision == info.revision
    assert await store.get("a") == DATA
    await assert_exact(store)


async def test_a_committed_one_is_not_stored_anew(store: ObjectStore, old: None) -> None:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    info = await upload.send(DATA)
    assert (await upload.send(DATA)).revision == info.revision


async def test_only_the_leader_knows_that_it_was_committed(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, old: None
) -> None:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    info = await upload.send(DATA)
    monkeypatch.setattr(Holders, "begin", AsyncMock(return_value=None))
    assert (await upload.send(DATA)).revision == info.revision
    assert await store.get("a") == DATA


async def test_somebody_may_still_go_on_with_it(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not old enough for its chunks to be removed, too old to go on."""
    token = await begun(store)
    monkeypatch.setattr(numbered, "GOES_ON", NOW)
    upload = await store.begin_upload("a", token=token)
    info = await upload.send(iter([DATA]))
    assert await chunk_counts(store) == {upload.nuid: 5, info.nuid: 10}
    await store.js.purge_stream(stream(store), subject=chunk_subject(store, upload.nuid))
    assert await store.get("a") == DATA


@pytest.mark.parametrize("whole", [False, True])
async def test_it_becomes_too_old_while_it_is_compared(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    token = await (stopped_before_its_commit(store, monkeypatch) if whole else begun(store))
    upload = await store.begin_upload("a", token=token)
    monkeypatch.setattr(numbered, "GOES_ON", NOW)
    monkeypatch.setattr(Upload, "_usable", AsyncMock(return_value=True))
    info = await upload.send(DATA)
    assert info.nuid != upload.nuid
    await store.js.purge_stream(stream(store), subject=chunk_subject(store, upload.nuid))
    assert await store.get("a") == DATA


# -- gc ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [1, 5])
async def test_gc_leaves_uploads_that_may_go_on(store: ObjectStore, chunks: int) -> None:
    """Whatever ``older_than`` says, unless it says that nobody writes."""
    token = await begun(store, chunks)
    nuid = (await store.begin_upload("a", token=token)).nuid
    put = secret_name()
    await store.js.publish(chunk_subject(store, put), b"orphan")
    await store.put("b", b"x")  # the server's clock goes on
    report = await store.gc(older_than=SHORT)
    assert [orphan.nuid for orphan in report.orphans] == [put]
    assert report.recent == [nuid]
    assert (await again(store, token)).nuid == nuid
    await begun(store)
    assert len((await store.gc(older_than=NOW)).orphans) == 1
    assert await store.get("a") == DATA
    await assert_exact(store)


async def test_gc_goes_by_the_clock_of_the_server(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store._bucket._older_than(2, 10):
        return  # it does not say what time it is

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(UTC) + timedelta(days=3)

    for module in (maintain, change):
        monkeypatch.setattr(module, "datetime", Ahead)
    nuid = secret_name()
    await store.js.publish(chunk_subject(store, nuid), b"young")
    report = await store.gc()
    assert (report.orphans, report.recent) == ([], [nuid])


@pytest.mark.parametrize("point", ["_last_stored", "count_from"])
async def test_gc_removes_only_what_it_has_seen(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    nuid = secret_name()
    await store.js.publish(chunk_subject(store, nuid), b"old")
    look = getattr(maintain, point)

    async def and_one_more(*args: Any) -> Any:
        found = await look(*args)
        await store.js.publish(chunk_subject(store, nuid), b"new")
        return found

    monkeypatch.setattr(maintain, point, and_one_more)
    await store.gc(older_than=NOW)
    if point == "_last_stored":  # and seen, then: the others wait for it
        assert await store._bucket.stored_chunks(nuid, 2) == 2
        return
    last = await store._bucket.first_after(chunk_subject(store, nuid), 0)
    assert last is not None
    assert last.data == b"new"
