"""Two processes send one upload: what one has acknowledged is not damaged by what the other had under way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock

import pytest

from natsproto.errors import StaleConnectionError
from natsproto.headers import header_value
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.publisher import PublishWindow
from objstore import IntegrityError, ObjectInfo, ObjectStore, OutcomeUnknownError
from objstore.bucket.numbered import NumberedWindow, numbered
from objstore.write import resumed
from objstore.write.doubt import fence
from objstore.write.resumed import ResumedPut
from support.objects import assert_exact, chunk_subject, stream
from support.uploads import BEFORE, CHUNK, DATA, Sleeper, begun, intact, sent


@pytest.mark.parametrize("pause", ["short", "long"])
async def test_who_wakes_up_later(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, pause: str) -> None:
    """Its chunks are there already, and so is its object."""
    token, sleeper = await begun(store), Sleeper()
    task = await sleeper.begin(store, token)
    info = await sent(store, token)
    if pause == "long":
        monkeypatch.setattr(resumed, "PAUSE", -1.0)
    sleeper.awake.set()
    if pause == "long":
        with pytest.raises(OutcomeUnknownError):  # it cannot read its source again to compare
            await task
    else:
        assert (await task).revision == info.revision
    await intact(store, info)


@pytest.mark.parametrize(
    "by", ["a pause", "a lost connection", "its commit", "a look before its commit", "a rename"]
)
async def test_what_was_committed_ends_where_it_slept(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The other one's file was shorter: the beginning of a source is not the source."""
    token, sleeper = await begun(store), Sleeper()
    task = await sleeper.begin(store, token)
    info = await sent(store, token, DATA[: sleeper.at])
    assert (await store.get_info("a")).size == info.size == sleeper.at
    if by == "a rename":
        info = await store.rename("a", "renamed")
    if by == "a pause":
        monkeypatch.setattr(resumed, "PAUSE", -1.0)
    elif by == "a look before its commit":
        commit = ResumedPut._commit

        async def looked(self: ResumedPut, previous: Any) -> ObjectInfo:
            self._looked = True
            return await commit(self, previous)

        monkeypatch.setattr(ResumedPut, "_commit", looked)
    elif by == "a lost connection":
        publish = NumberedWindow.publish

        async def lost(self: NumberedWindow, payload: bytes) -> None:
            monkeypatch.setattr(NumberedWindow, "publish", publish)
            raise StaleConnectionError("gone")

        monkeypatch.setattr(NumberedWindow, "publish", lost)
    sleeper.awake.set()
    with pytest.raises(OutcomeUnknownError):
        await task
    if by == "a rename":
        assert await store.get("renamed") == DATA[: sleeper.at]
        await assert_exact(store)
    else:
        await intact(store, info, DATA[: sleeper.at])


async def test_who_wakes_up_before_the_commit(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause it compares what the other one has added, and goes on behind that."""
    token, sleeper, other = await begun(store), Sleeper(), Sleeper(at=8 * CHUNK)
    task = await sleeper.begin(store, token)
    second = await other.begin(store, token)
    monkeypatch.setattr(resumed, "PAUSE", -1.0)
    sleeper.awake.set()
    info = await task
    other.awake.set()
    with pytest.raises(OutcomeUnknownError):
        await second
    await intact(store, info)


async def test_who_is_stopped_when_it_wakes_up(store: ObjectStore) -> None:
    token, sleeper = await begun(store), Sleeper()
    task = await sleeper.begin(store, token)
    info = await sent(store, token)
    sleeper.awake.set()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await intact(store, info)


async def test_frames_that_come_late(store: ObjectStore) -> None:
    """What a process that was killed had given to its socket: the same messages once more."""
    token = await begun(store)
    info = await sent(store, token)
    subject = chunk_subject(store, info.nuid)
    messages = [message async for message in store._bucket.messages(subject)]
    for message in messages:
        assert message.header is not None
        await store.client.request_frame(subject.encode(), message.data, message.header, 5.0)
    await intact(store, info)


async def test_other_bytes_of_who_wakes_up(store: ObjectStore) -> None:
    """The numbers are known, the bytes are others: it is told, and the object stays."""
    token = await begun(store)
    sleeper = Sleeper(DATA[: 4 * CHUNK] + os.urandom(6 * CHUNK))
    task = await sleeper.begin(store, token)
    info = await sent(store, token)
    sleeper.awake.set()
    with pytest.raises(IntegrityError, match="another process"):
        await task
    await intact(store, info)


async def test_numbers_that_were_forgotten(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that were stuck for longer than the server remembers numbers: their sender removes them."""
    token, sleeper = await begun(store), Sleeper()
    task = await sleeper.begin(store, token)
    info = await sent(store, token)

    async def unnumbered(self: NumberedWindow, payload: bytes) -> None:
        self.header = b""
        await PublishWindow.publish(self, payload)

    monkeypatch.setattr(NumberedWindow, "publish", unnumbered)
    sleeper.awake.set()
    with pytest.raises(IntegrityError, match="16 chunks are stored where 10 were sent"):
        await task
    await intact(store, info)


async def test_who_wakes_up_without_a_connection(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose the chunks are that are stored cannot be told by their bytes: not one is deleted."""
    data = bytes(10 * CHUNK)
    token, sleeper = await begun(store), Sleeper(data)
    task = await sleeper.begin(store, token)
    info = await sent(store, token, data)
    publish = NumberedWindow.publish
    monkeypatch.setattr(ResumedPut, "_holder", AsyncMock(return_value=None))  # asked just before the commit

    async def lost(self: NumberedWindow, payload: bytes) -> None:
        monkeypatch.setattr(NumberedWindow, "publish", publish)
        raise StaleConnectionError("gone")

    monkeypatch.setattr(NumberedWindow, "publish", lost)
    sleeper.awake.set()
    assert (await task).revision == info.revision
    await intact(store, info, data)


@pytest.mark.parametrize("source", ["again", "once"])
@pytest.mark.parametrize("then", ["renamed", "replaced"])
async def test_committed_by_another_and(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, source: str, then: str
) -> None:
    """The chunks are another object's, or about to be removed: not committed a second time."""
    token = await begun(store)
    upload = await store.begin_upload("a", token=token)
    commit = ResumedPut._commit

    async def late(self: ResumedPut, previous: tuple[int, ObjectInfo | None]) -> ObjectInfo:
        monkeypatch.setattr(ResumedPut, "_commit", commit)
        await sent(store, token)
        await (store.rename("a", "b") if then == "renamed" else store.put("a", b"newer"))
        return await commit(self, previous)

    monkeypatch.setattr(ResumedPut, "_commit", late)
    if source == "again":
        await upload.send(DATA)
        assert await store.get("a") == DATA
    else:
        with pytest.raises(OutcomeUnknownError):
            await upload.send(iter([DATA]))
    if then == "renamed":
        assert await store.get("b") == DATA
    elif source == "once":
        assert await store.get("a") == b"newer"
    await assert_exact(store)


async def test_committed_right_after_a_look(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """All was read that was there, and no object had it: what has come since is read, and is the same."""
    token, sleeper = await begun(store), Sleeper()
    task = await sleeper.begin(store, token)
    holder = ResumedPut._holder

    async def late(self: ResumedPut) -> ObjectInfo | None:
        monkeypatch.setattr(ResumedPut, "_holder", holder)
        found = await holder(self)
        sleeper.awake.set()
        await task
        return found

    monkeypatch.setattr(ResumedPut, "_holder", late)
    info = await sent(store, token)
    assert info.revision == (await task).revision
    await intact(store, info)


async def test_a_chunk_between_count_and_commit(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of another sender, and of no object: what is left is read before it is removed."""
    token = await begun(store)
    upload = await store.begin_upload("a", token=token)
    commit = ResumedPut._commit

    async def late(self: ResumedPut, previous: tuple[int, ObjectInfo | None]) -> ObjectInfo:
        await store.js.publish(chunk_subject(store, upload.nuid), b"late")
        return await commit(self, previous)

    monkeypatch.setattr(ResumedPut, "_commit", late)
    await intact(store, await upload.send(DATA))


async def test_a_chunk_before_the_count(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be of one who goes on: both are stored, each on its own."""
    token = await begun(store)
    upload = await store.begin_upload("a", token=token)
    look = ResumedPut._check_stored
    seen = False

    async def late(self: ResumedPut) -> None:
        nonlocal seen
        if not seen:
            await store.js.publish(chunk_subject(store, upload.nuid), b"late")
        seen = True
        await look(self)

    monkeypatch.setattr(ResumedPut, "_check_stored", late)
    with pytest.raises(IntegrityError):
        await upload.send(iter([DATA]))
    assert await store.get("a") == BEFORE
    info = await upload.send(DATA)
    assert await store.get("a") == DATA
    assert info.nuid != upload.nuid


async def test_no_number_is_that_of_another_upload(store: ObjectStore, js: JetStreamContext) -> None:
    """A bucket that has both for sources would take the second one for a duplicate of the first."""
    other = await js.create_object_store(bucket=f"{store.bucket}-other")
    for each in (store, other):
        await (await each.begin_upload("o", chunk_size=512)).send(b"x" * 2000)
    found = [await js.get_message(stream(each), seq=seq) for each in (store, other) for seq in range(1, 5)]
    ids = [header_value(message.header or b"", b"Nats-Msg-Id") for message in found]
    assert len(set(ids)) == len(ids) == 8
    assert None not in ids


async def test_two_at_once(store: ObjectStore) -> None:
    """Both are told that it is stored, and it is, once."""
    token = await begun(store)
    infos = await asyncio.gather(*(sent(store, token) for _ in range(3)))
    assert len({info.revision for info in infos}) == 1
    await intact(store, infos[0])


async def test_chunks_that_were_removed_under_a_sender(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, sleeper = await begun(store), Sleeper()
    task = await sleeper.begin(store, token)
    monkeypatch.setattr(resumed, "PAUSE", -1.0)
    await (await store.begin_upload("a", token=token)).abort()
    sleeper.awake.set()
    with pytest.raises(OutcomeUnknownError):
        async with asyncio.timeout(60):
            await task
    assert await store.get("a") == BEFORE
    assert (await store.js.stream_info(stream(store))).messages >= 2


async def test_fences_that_nobody_has_removed(store: ObjectStore) -> None:
    """With replicas a fence is an empty chunk, and its acknowledgement may be lost. They go at the end."""
    token = await begun(store)
    for chunks in (2, 4):
        sleeper = Sleeper(at=chunks * CHUNK)
        task = await sleeper.begin(store, token)
        task.cancel()
        await asyncio.wait([task])
        nuid = (await store.begin_upload("a", token=token)).nuid
        await store.js.publish(chunk_subject(store, nuid), b"")

    async def once() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), CHUNK):
            yield DATA[start : start + CHUNK]

    info = await (await store.begin_upload("a", token=token)).send(once())
    assert info.nuid == nuid
    await intact(store, info)


async def test_a_fence_that_stays_is_an_uploads_message(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no id counts as a put's, whose chunks are left over much sooner."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    bucket, subject = store._bucket, chunk_subject(store, upload.nuid)
    monkeypatch.setattr(bucket, "replicated", True)
    monkeypatch.setattr("objstore.write.doubt.delete_own", AsyncMock())
    fences: list[bytes] = []

    async def fenced(bucket: Any, subject: str, header: bytes) -> None:
        fences.append(header)
        raise StaleConnectionError("gone")

    monkeypatch.setattr("objstore.write.chunks.fence", fenced)
    publish = NumberedWindow.publish

    async def lost(self: NumberedWindow, payload: bytes) -> None:
        monkeypatch.setattr(NumberedWindow, "publish", publish)
        raise StaleConnectionError("gone")

    monkeypatch.setattr(NumberedWindow, "publish", lost)
    same = store.with_options(retry_budget=0.5)
    with pytest.raises(StaleConnectionError):
        await (await same.begin_upload("a", token=upload.token)).send(DATA)
    await fence(bucket, subject, fences[0])
    message = await bucket.leader_message(subject)
    assert message is not None
    assert numbered(message)
