"""For how long it is known that nobody has committed an upload: as of one revision of its name."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from natsproto.errors import PermissionsViolationError
from natsproto.jetstream.api.errors import MaxConsumersError
from natsproto.jetstream.api.models import StoredMessage
from objstore import ObjectMeta
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.codec import MetaDecodeError, encode_meta
from objstore.format.models import InvalidMeta, ObjectInfo, plain_info
from objstore.format.naming import meta_subject
from objstore.listing import metas
from objstore.write import upload_holders
from objstore.write.upload_holders import MARKED, Holders, ReferencesTo, clocks, passed, withdraw
from support.memory_server import NO_MESSAGE, ROLL_UP, MemoryServer, error


def looked(revision: int) -> Holders:
    """One whose last look has found nobody."""
    found = Holders(cast(Bucket, None), "a", "nuid")
    found._revision, found._checked_at = revision, clocks()
    return found


async def test_what_was_written_since_may_stand_for_a_commit() -> None:
    known = looked(7)
    assert known.certainly_uncommitted(7)
    assert not known.certainly_uncommitted(8)
    assert not known.certainly_uncommitted(0)
    assert not Holders(cast(Bucket, None), "a", "nuid").certainly_uncommitted(0)


@pytest.mark.parametrize("revision", [0, 7])
async def test_an_empty_name_is_known_for_as_long_as_a_marker_stays(revision: int) -> None:
    known = looked(revision)
    known._checked_at = (known._checked_at[0] - MARKED + 5, known._checked_at[1] - MARKED + 5)
    assert known.certainly_uncommitted(revision)
    known._checked_at = (known._checked_at[0] - 6, known._checked_at[1] - 6)
    assert known.certainly_uncommitted(revision) == (revision > 0)


async def test_looks_go_by_time() -> None:
    known = looked(7)
    assert known.looked_within(1.0)
    assert not known.looked_within(-1.0)
    assert not Holders(cast(Bucket, None), "a", "nuid").looked_within(1e9)


@pytest.mark.parametrize("suspended", [True, False])
async def test_time_passes_by_either_clock(monkeypatch: pytest.MonkeyPatch, suspended: bool) -> None:
    """A machine that slept has its monotonic clock stand still; the other one may be set back."""
    before = clocks()
    monkeypatch.setattr(upload_holders, "time", Shifted(3600.0 if suspended else -3600.0))
    assert 3599 < passed(before) < 3700
    monkeypatch.undo()
    assert passed(before) < 60
    assert passed((asyncio.get_running_loop().time() - 100, time.time())) >= 100


async def test_who_has_the_chunks(server: MemoryServer) -> None:
    """Under whatever name; a meta that cannot be read has none."""
    store = await server.bucket()
    bucket = await bind(server.js, "b")
    assert await Holders(bucket, "a", "nuid").look() is None
    info = await store.put("a", b"x")
    assert await Holders(bucket, "a", "other").look() is None
    found = await Holders(bucket, "a", info.nuid).look()
    assert found is not None
    assert (found.name, found.revision) == ("a", info.revision)
    renamed = await store.rename("a", "new")
    moved = await Holders(bucket, "a", info.nuid).look()
    assert moved is not None
    assert (moved.name, moved.revision) == ("new", renamed.revision)
    await store.delete("new")
    assert await Holders(bucket, "a", info.nuid).look() is None
    server.put_raw(meta_subject("b", "bad"), b"no JSON")
    assert await Holders(bucket, "bad", "nuid").look() is None


class Shifted:
    """The module ``time`` with another time of day."""

    def __init__(self, by: float) -> None:
        self.by = by

    def time(self) -> float:
        return time.time() + self.by

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


async def test_who_has_them_is_found_under_whatever_name(server: MemoryServer) -> None:
    store = await server.bucket()
    bucket = await bind(server.js, "b")

    async def holder(nuid: str, name: str = "a") -> tuple[str, int] | None:
        info = await Holders(bucket, name, nuid).look()
        return None if info is None else (info.name, info.revision)

    assert await holder("n") is None
    info = await store.put("a", b"x")
    assert await holder("other") is None
    assert await holder(info.nuid) == ("a", info.revision)
    renamed = await store.rename("a", "new")
    assert await holder(info.nuid) == ("new", renamed.revision)
    await store.put("a", b"in its place")
    newest = await store.rename("new", "newest")
    assert await holder(info.nuid) == ("newest", newest.revision)
    await store.delete("newest")
    assert await holder(info.nuid) is None
    server.put_raw("$O.b.M.YmFk", b"no JSON")
    assert await holder("n", "bad") is None


async def test_without_the_leader_no_consumer_decides() -> None:
    """Others may change a consumer. A meta that cannot be read is nothing, as for who may ask the leader."""
    server = MemoryServer("2.9.10")  # later ones read batches in another way
    store = await server.bucket()
    bucket = await bind(server.js, "b")
    info = await store.put("a", b"x")
    await store.rename("a", "new")
    server.refused = {"STREAM.MSG.GET"}
    found = await Holders(bucket, "a", info.nuid).look()
    assert found is not None
    assert found.name == "new"
    assert "CONSUMER.CREATE" not in server.verbs()
    server.put_raw(meta_subject("b", "bad"), b"no JSON")
    found = await Holders(bucket, "a", info.nuid).look()
    assert found is not None
    assert found.name == "new"
    await server.client.close()


async def test_where_names_do_not_fit_nothing_is_unproven(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found decides about a purge. Without a consumer one answer could end the list."""

    async def too_many_subjects(*_: object) -> None:
        raise metas._TooMany

    monkeypatch.setattr(metas, "_subjects", too_many_subjects)
    store = await server.bucket()
    for number in range(20):
        await store.put(f"n{number}", b"x")
    info = await store.put("a", b"x")
    await store.rename("a", "new")
    bucket = await bind(server.js, "b")
    renamed = await Holders(bucket, "a", info.nuid).look()
    assert renamed is not None
    assert renamed.name == "new"
    behind = Holders(bucket, "a", info.nuid)
    behind._read_up_to = server.stream().seq  # as after an earlier look; the object was updated since
    await store.update_meta("new", ObjectMeta("new", description="d"))
    found = await behind.look()
    assert found is not None
    assert found.description == "d"
    too_many = error(400, 10026, "maximum consumers limit reached")
    none = error(404, 10037, "no message found")

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if verb == "CONSUMER.CREATE":
            return too_many
        return none if verb == "STREAM.MSG.GET" and "next_by_subj" in body else None

    server.hook = hook
    for _ in range(3):
        with pytest.raises(MaxConsumersError):
            await Holders(bucket, "a", info.nuid).look()
    server.hook = None
    server.refused = {"CONSUMER.CREATE"}  # an uploader needs no consumer elsewhere
    server.hook = lambda verb, body: none if verb == "STREAM.MSG.GET" and "next_by_subj" in body else None
    with pytest.raises(PermissionsViolationError):
        await Holders(bucket, "a", info.nuid).look()


def named(name: str, nuid: str) -> ObjectInfo:
    return plain_info(name, "b", None, datetime.now(UTC), nuid=nuid, chunks=1, size=1)


def test_what_names_other_chunks_is_not_kept() -> None:
    """A bucket may have hundreds of thousands of names, and each may be long."""
    references = ReferencesTo("N")
    tracemalloc.start()
    try:
        for number in range(300):
            references.read(named(f"n{number}", f"other{number}"), f"{number}" * 3000)
            error = MetaDecodeError("no JSON")
            references.unread(InvalidMeta(f"u{number}" * 3000, number, error), b"words N" * 100)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 100_000, f"{kept} bytes are kept of 600 metas"
    assert references.naming("N") == []


def test_the_newest_meta_of_a_name_counts() -> None:
    references = ReferencesTo("N")
    for name in ("a", "b", "c"):
        references.read(named(name, "N"), name)
    assert references.naming("N") == ["a", "b", "c"]
    references.read(named("a", "another"), "a")
    references.unread(InvalidMeta("b", 9, MetaDecodeError("no JSON")), b"N")
    assert references.naming("N") == ["a", "b", "c"], "until a consumer shows the newer metas"


async def test_what_lies_behind_is_known_by_a_consumer(
    server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream with the bucket among its sources may answer: there they have other numbers."""
    store = await server.bucket(replicas=3)
    bucket = await bind(server.js, "b")
    await store.put("k", b"x")
    info = await store.put("a", b"123", chunk_size=1)
    subject = f"$O.b.C.{info.nuid}"
    own = server.stream().of(subject)
    surplus = server.put_raw(subject, b"3")
    mine = [own[-1].seq, surplus]

    def lower(verb: str, body: dict[str, Any]) -> Any:
        if verb != "STREAM.MSG.GET":
            return None
        if body.get("last_by_subj") == meta_subject("b", "a"):
            meta = server.stream().of(meta_subject("b", "a"))[0]
            return server.leader_message(replace(meta, seq=own[0].seq))
        if body.get("next_by_subj") != subject:
            return None
        chunks = [replace(each, seq=each.seq - 1) for each in own]
        chunks.append(replace(own[-1], seq=own[-1].seq))
        return next((server.leader_message(each) for each in chunks if each.seq >= body["seq"]), NO_MESSAGE)

    server.hook = lower
    await withdraw(Holders(bucket, "a", info.nuid), mine)
    assert server.chunks()[info.nuid] == 4
    assert "may be stored twice" in caplog.text
    server.hook = None
    await store.update_meta(
        "a", ObjectMeta(name="a", description="d")
    )  # a meta that is newer than all of them

    def other_chunks(verb: str, body: dict[str, Any]) -> Any:
        return None if "last_by_subj" in body else lower(verb, body)

    server.hook = other_chunks
    await withdraw(Holders(bucket, "a", info.nuid), mine)
    assert server.chunks()[info.nuid] == 4
    server.hook = None
    await withdraw(Holders(bucket, "a", info.nuid), mine)
    assert [each.seq for each in server.stream().of(subject)] == [each.seq for each in own]
    surplus = server.put_raw(subject, b"3")
    await withdraw(Holders(bucket, "a", info.nuid), [*mine, surplus])  # newer than the meta
    assert [each.seq for each in server.stream().of(subject)] == [each.seq for each in own]


async def test_others_store_more_without_end(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after this sender's chunks does not matter to it."""
    store = await server.bucket()
    info = await store.put("a", b"12", chunk_size=1)
    await store.update_meta("a", ObjectMeta(name="a", description="d"))
    bucket = await bind(server.js, "b")
    subject = f"$O.b.C.{info.nuid}"
    own = [each.seq for each in server.stream().of(subject)]
    mine = server.put_raw(subject, b"3")
    messages = Bucket.messages

    async def endless(self: Bucket, *args: Any, **options: Any) -> AsyncGenerator[StoredMessage, None]:
        last: StoredMessage | None = None
        async for message in messages(self, *args, **options):
            last = message
            yield message
        assert last is not None
        for seq in range(last.seq + 1, last.seq + 100):
            yield replace(last, seq=seq)
        raise AssertionError("it reads on")

    await store.update_meta("a", ObjectMeta(name="a", description="e"))  # newer than all of them
    monkeypatch.setattr(Bucket, "messages", endless)
    await withdraw(Holders(bucket, "a", info.nuid), [mine])
    assert [each.seq for each in server.stream().of(subject)] == own


async def test_only_the_names_that_follow_one_another_are_the_upload(server: MemoryServer) -> None:
    """That it was renamed is recorded, and where to: another name with its chunks is somebody's word."""
    store = await server.bucket()
    bucket = await bind(server.js, "b")
    upload = await store.begin_upload("a", chunk_size=100)
    info = await upload.send(bytes(300))
    holders = Holders(bucket, "a", info.nuid)
    assert await holders.is_upload(info)
    moved = await store.rename("a", "b")
    forged = replace(moved, name="own")
    server.put_raw(meta_subject("b", "own"), encode_meta(forged), ROLL_UP)
    assert await holders.is_upload(moved)
    assert not await holders.is_upload(forged)
    again = await store.rename("b", "c")
    assert await holders.is_upload(again)
    assert not await holders.is_upload(forged)
    await store.delete("c")
    for _ in range(3):
        server.put_raw(f"$O.b.C.{info.nuid}", bytes(100))  # as if they had been kept for the forged one
    assert not await holders.is_upload(forged)
    sent = await upload.send(bytes(300))
    assert sent.name == "a"
    assert await store.get("a") == bytes(300)


async def test_however_many_metas_name_the_chunks_they_are_read_once(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of metas of other names that nothing records, only one with the chunks' digest may be the upload's."""
    store = await server.bucket()
    bucket = await bind(server.js, "b")
    upload = await store.begin_upload("a", chunk_size=1)
    for byte in b"1234":
        server.put_raw(f"$O.b.C.{upload.nuid}", bytes([byte]))
    template = await store.put("k", b"123", chunk_size=1)
    for n in range(30):
        forged = replace(template, name=f"own{n}", nuid=upload.nuid, chunks=n % 6, size=2**62)
        server.put_raw(meta_subject("b", forged.name), encode_meta(forged), ROLL_UP)
    reads = list[str]()
    messages = Bucket.messages

    def counted(self: Bucket, subject: str, *args: Any, **options: Any) -> Any:
        if subject.startswith("$O.b.C."):
            reads.append(subject)
        return messages(self, subject, *args, **options)

    monkeypatch.setattr(Bucket, "messages", counted)
    assert await Holders(bucket, "a", upload.nuid).look() is None
    assert reads == [f"$O.b.C.{upload.nuid}"]
    true = replace(template, name="new", nuid=upload.nuid)
    server.put_raw(meta_subject("b", "new"), encode_meta(true), ROLL_UP)
    found = await Holders(bucket, "a", upload.nuid).look()
    assert found is not None
    assert found.name == "new"
    assert len(reads) == 2
