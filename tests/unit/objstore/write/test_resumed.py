"""A put on chunks that are there already: compared, never taken on trust; one commit, whoever else sends."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from objstore import BadObjectMetaError, ObjectStore, OutcomeUnknownError
from objstore.bucket.binding import bind
from objstore.bucket.bucket import NO_USER_META, Bucket
from objstore.format.codec import encode_meta
from objstore.format.marks import MOVED, MOVED_TO
from objstore.format.naming import meta_subject
from objstore.write import resumed
from objstore.write.resumed import age, same_content
from objstore.write.source import open_source
from objstore.write.upload import Upload, begin, resume
from support.fake_session import turns
from support.memory_server import ROLL_UP, SILENCE, MemoryServer

DATA = bytes(range(256)) * 10
CHUNK = 100


@pytest.fixture
async def upload(bucket: Bucket) -> Upload:
    return begin(bucket, "a", NO_USER_META, CHUNK)


async def partly(server: MemoryServer, upload: Upload, chunks: int) -> None:
    """Chunks as a process that was killed has left them."""
    task = asyncio.ensure_future(upload.send(slow(chunks)))
    while server.chunks().get(upload.nuid, 0) < chunks:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def slow(chunks: int) -> AsyncIterator[bytes]:
    yield DATA[: chunks * CHUNK]
    await asyncio.Event().wait()


@pytest.mark.parametrize("have", [1, 12, 25])
@pytest.mark.parametrize("source", ["bytes", "once"])
async def test_only_what_is_missing_is_sent(
    server: MemoryServer, store: ObjectStore, upload: Upload, have: int, source: str
) -> None:
    await partly(server, upload, have)
    sent: list[bytes] = []

    def note(subject: str, header: bytes, payload: bytes) -> None:
        if subject.startswith("$O.b.C.") and payload:
            sent.append(payload)

    server.on_publish = note
    info = await upload.send(DATA if source == "bytes" else iter([DATA]))
    assert b"".join(sent) == DATA[have * CHUNK :]
    assert (info.nuid, info.chunks) == (upload.nuid, 26)
    assert await store.get("a") == DATA


async def test_chunks_have_numbers(server: MemoryServer, upload: Upload) -> None:
    """The same ones from every sender: what comes twice is stored once."""
    await upload.send(DATA)
    headers = [each.header for each in server.stream().of(f"$O.b.C.{upload.nuid}")]
    assert all(b"Nats-Msg-Id: " in header for header in headers)
    assert len(set(headers)) == 26


async def test_what_was_deleted_is_sent_again_under_other_numbers(
    server: MemoryServer, store: ObjectStore, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server still knows the old ones. Only where no token names the chunks are any deleted."""
    monkeypatch.setattr("objstore.write.chunks.SETTLE", 0.05)
    await upload.send(b"other")
    await store.delete("a")
    seen = 0

    def lossy(subject: str, header: bytes, payload: bytes) -> Any:
        nonlocal seen
        if not subject.startswith("$O.b.C.") or not payload:
            return None
        seen += 1
        if seen == 8:
            server.lose()
            server.connect()
        return SILENCE if seen in (5, 8) else None

    server.on_publish = lossy
    info = await upload.send(iter([DATA]))
    assert info.nuid != upload.nuid
    assert await store.get("a") == DATA
    assert server.chunks() == {info.nuid: 26}


@pytest.mark.parametrize("change", ["bytes", "more", "length"])
async def test_wrong_ones_are_not_built_upon(
    server: MemoryServer, store: ObjectStore, upload: Upload, change: str
) -> None:
    await partly(server, upload, 10)
    stream = server.stream()
    subject = f"$O.b.C.{upload.nuid}"
    if change == "bytes":
        stream.of(subject)[3].payload = b"x" * CHUNK
    elif change == "length":
        stream.of(subject)[3].payload += b"x"
    else:
        for _ in range(30):
            server.put_raw(subject, b"of somebody")
    await upload.send(DATA)
    assert await store.get("a") == DATA


async def test_two_at_once_commit_one(server: MemoryServer, store: ObjectStore, upload: Upload) -> None:
    other = resume(await bind(server.js, "b"), "a", upload.token)
    found = await asyncio.gather(upload.send(DATA), other.send(DATA), return_exceptions=True)
    infos: list[Any] = [each for each in found if not isinstance(each, BaseException)]
    assert infos
    assert len({info.nuid for info in infos}) == 1
    assert await store.get("a") == DATA
    assert (await store.verify(deep=True)).ok


@pytest.mark.parametrize("same", [True, False])
async def test_another_sender_commits_meanwhile(
    server: MemoryServer, store: ObjectStore, upload: Upload, same: bool
) -> None:
    """The chunks that were there had been read to their end, and the other sender was not noticed yet."""
    await partly(server, upload, 5)
    other = resume(upload._bucket, "a", upload.token)

    async def pieces() -> AsyncIterator[bytes]:
        yield DATA[: 5 * CHUNK]
        await other.send(DATA)
        yield DATA[5 * CHUNK :] if same else b"x" * len(DATA)

    if same:
        info = await upload.send(pieces())
        assert (info.nuid, info.chunks) == (upload.nuid, 26)
    else:
        with pytest.raises((BadObjectMetaError, OutcomeUnknownError)):
            await upload.send(pieces())
    assert await store.get("a") == DATA
    assert server.chunks() == {upload.nuid: 26}


async def test_the_same_bytes(store: ObjectStore) -> None:
    info = await store.put("a", DATA)
    assert await same_content(open_source(DATA), info)
    assert await same_content(open_source(iter([DATA[:7], DATA[7:]])), info)
    assert not await same_content(open_source(DATA[:-1]), info)
    assert not await same_content(open_source(DATA[:-1] + b"x"), info)


async def test_ages_by_the_servers_clock(server: MemoryServer, bucket: Bucket) -> None:
    server.ahead = timedelta(hours=5)
    found = await age(bucket, datetime.now(UTC))
    assert abs(found - timedelta(hours=5)) < timedelta(minutes=1)


async def test_a_failure_keeps_the_chunks(server: MemoryServer, upload: Upload) -> None:
    await partly(server, upload, 7)
    await turns()
    assert server.chunks() == {upload.nuid: 7}


async def test_a_flood_of_empty_messages_is_not_read_to_its_end(
    server: MemoryServer, store: ObjectStore, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may be a fence that its sender has not removed; so many are an attack: new chunks."""
    monkeypatch.setattr(resumed, "MOST_FOREIGN", 20)
    await partly(server, upload, 3)
    for _ in range(50):
        server.put_raw(f"$O.b.C.{upload.nuid}", b"")
    info = await upload.send(DATA)
    assert info.nuid != upload.nuid
    assert await store.get("a") == DATA
    assert not [verb for verb, _ in server.asked if verb == "STREAM.MSG.DELETE"]


class Forging(io.BytesIO):
    """A source; in the middle of it somebody writes metas."""

    def __init__(self, write: Callable[[], None]) -> None:
        super().__init__(DATA)
        self._write = write

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() and self._write is not None:
            self._write()
        return super().read(CHUNK)


@pytest.mark.parametrize("renamed", [False, True], ids=["forged", "renamed"])
async def test_another_name_has_its_chunks(
    server: MemoryServer, store: ObjectStore, upload: Upload, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    """Anybody may write such a meta. Only a rename that the upload's own name records proves it."""
    monkeypatch.setattr(resumed, "PAUSE", 0.0)  # look before each chunk
    other = await store.put("other", DATA)
    have = 10
    await partly(server, upload, have)
    written: list[int] = []

    def forge() -> None:
        stored = server.chunks()[upload.nuid]
        if written or stored < have + 3:
            return
        mark = {MOVED: upload.nuid, MOVED_TO: "z"} if renamed else {}
        marker = replace(other, name="a", nuid="", size=0, chunks=0, digest="", deleted=True, metadata=mark)
        written.append(server.put_raw(meta_subject("b", "a"), encode_meta(marker), ROLL_UP))
        z = replace(other, name="z", nuid=upload.nuid, chunks=stored)
        written.append(server.put_raw(meta_subject("b", "z"), encode_meta(z), ROLL_UP))

    info = await upload.send(Forging(forge))
    assert len(written) == 2
    assert info.name == ("z" if renamed else "a")
    if not renamed:
        assert await store.get("a") == DATA
