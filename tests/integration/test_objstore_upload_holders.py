"""An upload that another sender has committed: its object stays whole, whatever became of it since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from natsproto.jetstream.publisher import PublishWindow
from objstore import (
    IntegrityError,
    ObjectChangedError,
    ObjectInfo,
    ObjectMeta,
    ObjectStore,
    OutcomeUnknownError,
    Upload,
)
from objstore.bucket.bucket import Bucket
from objstore.bucket.numbered import NumberedWindow
from objstore.write import resumed, upload_holders
from objstore.write.put import Put
from objstore.write.upload_holders import Holders
from support.objects import assert_exact, chunk_counts, meta_subject, read_raw, stream, wire_digest, write_raw
from support.uploads import BEFORE, CHUNK, DATA, begun, intact, sent
from support.waits import held

SHORT = DATA[: 4 * CHUNK]
LONGER = DATA[: 5 * CHUNK]


class Steps:
    """A sender whose source gives so many chunks at each step."""

    def __init__(self, store: ObjectStore, token: str, *, data: bytes = DATA) -> None:
        self.store, self.token, self.data, self.given = store, token, data, 0
        self.waits: asyncio.Queue[int] = asyncio.Queue()
        self.ready = asyncio.Event()
        self.task: asyncio.Task[ObjectInfo]

    async def source(self) -> AsyncIterator[bytes]:
        while self.given < len(self.data):
            self.ready.set()
            for _ in range(await self.waits.get()):
                yield self.data[self.given : self.given + CHUNK]
                self.given += CHUNK

    async def begin(self) -> Steps:
        upload = await self.store.begin_upload("a", token=self.token)
        self.nuid = upload.nuid
        self.task = asyncio.create_task(upload.send(self.source()))
        await self.step(4)
        return self

    async def step(self, chunks: int, stored: bool = True) -> None:
        """Let it send so many more; until they are stored."""
        await self.ready.wait()
        before = (await chunk_counts(self.store)).get(self.nuid, 0)
        self.ready.clear()
        self.waits.put_nowait(chunks)
        await self.ready.wait()
        async with asyncio.timeout(10):
            while stored and (await chunk_counts(self.store)).get(self.nuid, 0) < before + chunks:
                pass

    async def end(self) -> ObjectInfo:
        self.waits.put_nowait(len(self.data))
        return await self.task


async def update(store: ObjectStore) -> str:
    await store.update_meta("a", ObjectMeta("a", "another description"))
    return "a"


async def rename(store: ObjectStore) -> str:
    await store.rename("a", "b")
    return "b"


async def rename_twice(store: ObjectStore) -> str:
    await rename(store)
    await store.rename("b", "c")
    return "c"


async def rename_and_replace(store: ObjectStore) -> str:
    await rename(store)
    await store.put("a", b"another one")
    return "b"


async def rename_and_remove(store: ObjectStore) -> str:
    await rename_and_replace(store)
    await store.delete("a")
    return "b"


CHANGES = [update, rename, rename_twice, rename_and_replace, rename_and_remove]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
async def test_what_is_behind_it_is_withdrawn(
    store: ObjectStore, change: Callable[[ObjectStore], Any], late: bool
) -> None:
    """Changed before or after another sender has stored a chunk behind it: never is it an object of that."""
    token = await begun(store)
    sender = await Steps(store, token).begin()
    await sent(store, token, SHORT)
    if late:
        await sender.step(1)
    name = await change(store)
    if not late:
        await sender.step(1)
    with pytest.raises(OutcomeUnknownError):
        await sender.end()
    assert await store.get(name) == SHORT
    await store.put("a" if name != "a" else "x", b"later")
    assert await store.get(name) == SHORT
    await assert_exact(store)


async def test_the_name_is_free_again_after_long(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stood there at the beginning, and nothing does now: not even the marker of the rename."""
    token = (await store.begin_upload("a", chunk_size=CHUNK)).token
    sender = await Steps(store, token).begin()
    await sent(store, token, LONGER)
    await rename(store)
    await store.js.purge_stream(stream(store), subject=meta_subject(store, "a"))
    monkeypatch.setattr(upload_holders, "MARKED", -1.0)
    with pytest.raises((OutcomeUnknownError, IntegrityError)):
        await sender.end()
    assert await store.get("b") == LONGER
    await assert_exact(store)


async def test_replaced_while_it_is_sent(store: ObjectStore) -> None:
    """By a put that has nothing to do with it: the last writer wins, on the chunks that there are."""
    token = await begun(store)
    sender = await Steps(store, token).begin()
    await store.put("a", b"in between")
    info = await sender.end()
    assert info.nuid == sender.nuid
    await intact(store, info)


async def test_an_upload_to_a_free_name_reads_no_metas(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Holders, "_read", AsyncMock(side_effect=AssertionError))
    info = await (await store.begin_upload("a", chunk_size=CHUNK)).send(DATA)
    await intact(store, info)


async def test_a_forged_meta_says_that_it_ends_sooner(store: ObjectStore) -> None:
    """It names the chunks and tells the truth of the first one: the others are an object's all the same."""
    token = await begun(store)
    sender = await Steps(store, token).begin()
    await sent(store, token, SHORT)
    document = {**await read_raw(store, "a"), "name": "forged", "chunks": 1, "size": CHUNK}
    document["digest"] = wire_digest(DATA[:CHUNK])
    await sender.step(1)
    await rename(store)
    await write_raw(store.js, meta_subject(store, "forged"), document)
    with pytest.raises(OutcomeUnknownError):
        await sender.end()
    assert await store.get("b") == SHORT


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_withdrawal_takes_its_time(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """The leader is away in that moment, for longer than a sender waits for anything else."""
    token = await begun(store)
    sender = await Steps(store, token).begin()
    info = await sent(store, token, SHORT)
    await sender.step(1)
    monkeypatch.setattr(resumed, "SETTLE", 0.2)
    monkeypatch.setattr(resumed, "HURRY", 0.2)
    delete = Bucket.delete_own

    async def late(self: Bucket, *args: Any, **named: Any) -> bool:
        await held(1)
        return await delete(self, *args, **named)

    monkeypatch.setattr(Bucket, "delete_own", late)
    if cancelled:
        sender.task.cancel()
        await asyncio.wait([sender.task])
    else:
        with pytest.raises(OutcomeUnknownError):
            await sender.end()
    await store.client.connection._callbacks.settle()
    await intact(store, info, SHORT)


async def test_its_own_commit_is_in_doubt(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has become of that: what is behind another one's object is no part of it."""
    token = await begun(store)
    sender = await Steps(store, token).begin()
    info = await sent(store, token, SHORT)
    doubt = OutcomeUnknownError("no answer", bucket=store.bucket, name="a", nuid=info.nuid)
    monkeypatch.setattr(Put, "_commit", AsyncMock(side_effect=doubt))
    monkeypatch.setattr(Holders, "certainly_uncommitted", lambda self, revision: True)
    with pytest.raises(OutcomeUnknownError, match="no answer"):
        await sender.end()
    await intact(store, info, SHORT)


# -- who notices in time ----------------------------------------------------------------------------------


async def remember_numbers(store: ObjectStore, seconds: float) -> None:
    config = (await store.js.stream_info(stream(store))).raw["config"]
    config["duplicate_window"] = int(seconds * 1e9)
    await store.js.request(f"STREAM.UPDATE.{stream(store)}", config)


async def test_a_slow_sender_looks_by_the_clock(store: ObjectStore) -> None:
    """Each chunk comes after a pause that is none: what it has stored is taken back while it goes on."""
    token = await begun(store)
    await remember_numbers(store, 8)
    upload = await store.begin_upload("a", token=token)
    committed = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield SHORT
        await committed.wait()
        while True:
            await held(0.3)
            yield DATA[4 * CHUNK : 5 * CHUNK]

    task = asyncio.create_task(upload.send(slowly()))
    async with asyncio.timeout(10):
        while (await chunk_counts(store)).get(upload.nuid, 0) < 4:
            pass
    info = await sent(store, token, SHORT)
    committed.set()
    with pytest.raises(OutcomeUnknownError):
        async with asyncio.timeout(15):
            await task
    await intact(store, info, SHORT)


@pytest.mark.parametrize("same", [True, False], ids=["same bytes", "other bytes"])
async def test_a_known_number_tells_of_another_sender(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """From then on it compares, and stores nothing once the server has forgotten the numbers."""
    token = await begun(store)
    sender = await Steps(store, token, data=DATA if same else DATA[:-1] + b"x").begin()
    info = await sent(store, token)
    told, odd = asyncio.Event(), PublishWindow._seq

    def duplicate(self: PublishWindow, msg: Any) -> int:
        told.set()
        return odd(self, msg)

    monkeypatch.setattr(PublishWindow, "_seq", duplicate)
    await sender.step(1, stored=False)
    async with asyncio.timeout(20):
        await told.wait()
    publish = AsyncMock(side_effect=AssertionError("stored once more"))
    monkeypatch.setattr(NumberedWindow, "publish", publish)
    monkeypatch.setattr(PublishWindow, "publish", publish)
    if same:
        assert (await sender.end()).revision == info.revision
    else:
        with pytest.raises(IntegrityError, match="another process"):
            await sender.end()
    await intact(store, info)
    assert await store.get("a") != BEFORE


# -- a nuid that other bytes get --------------------------------------------------------------------------

OTHER = bytes(reversed(DATA))


async def test_sent_again_after_it_was_deleted(store: ObjectStore) -> None:
    """Who has read of the old one may go on with its nuid."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    for change in (None, rename):
        info = await upload.send(DATA)
        if change is not None:
            await change(store)
        await store.delete("a" if change is None else "b")
        again = await (await store.begin_upload("a", token=upload.token)).send(OTHER)
        assert again.nuid != info.nuid
        await intact(store, again, OTHER)
        await store.delete("a")
        upload = await store.begin_upload("a", chunk_size=CHUNK)


async def sent_again(store: ObjectStore, upload: Upload) -> ObjectInfo:
    """After it was replaced, with other bytes: its token says nothing of what it has stored before."""
    await store.put("a", b"in between")
    info = await (await store.begin_upload("a", token=upload.token)).send(OTHER)
    assert info.nuid == upload.nuid
    return info


async def test_a_reader_gives_the_bytes_of_one_put(store: ObjectStore) -> None:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    await upload.send(DATA)
    async with store.open_reader("a") as reader:
        await reader.seek(CHUNK)
        assert await reader.read(10) == DATA[CHUNK : CHUNK + 10]
        await reader.seek(5 * CHUNK)
        await sent_again(store, upload)
        for _ in range(2):
            with pytest.raises(ObjectChangedError):
                await reader.read(10)


async def test_replaced_by_other_bytes_of_its_nuid(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its meta and its first chunk: it is no damage, and read once more."""
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    info = await upload.send(DATA)
    await sent_again(store, upload)
    monkeypatch.setattr("objstore.read.get.resolve", AsyncMock(return_value=(store._bucket, info)))
    assert await store.get("a") == OTHER


@pytest.mark.parametrize("verify", [True, False])
async def test_a_part_is_not_continued_with_other_bytes(
    store: ObjectStore, tmp_path: Path, verify: bool
) -> None:
    upload = await store.begin_upload("a", chunk_size=CHUNK)
    await upload.send(DATA)

    def stop(done: int, total: int | None) -> None:
        raise Stop

    with pytest.raises(Stop):
        await store.get_file("a", tmp_path / "file", resume=True, verify=verify, progress=stop)
    assert len(list(tmp_path.glob(".*.part"))) == 1
    await sent_again(store, upload)
    await store.get_file("a", tmp_path / "file", resume=True, verify=verify)
    assert (tmp_path / "file").read_bytes() == OTHER


class Stop(Exception):
    """What interrupts a transfer here."""
