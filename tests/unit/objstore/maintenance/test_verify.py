"""Does what is stored agree with the metas? Each kind of disagreement, and what only looks like one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from objstore import ObjectInfo, ObjectStore, VerifyReport
from objstore.bucket import bucket as _bucket
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.commit.renames import commit_meta
from objstore.format.codec import encode_meta
from objstore.format.marks import RENAMED_FROM, RENAMING
from objstore.format.naming import meta_subject
from objstore.maintenance import verify as module
from objstore.maintenance.verify import verify
from objstore.read.parts import NotWhole
from support.at_once import Calls
from support.memory_server import ROLL_UP, MemoryServer


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECHECK_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(_bucket, "RECHECK_DELAYS", (0.0,))


def chunk(info: ObjectInfo) -> str:
    return f"$O.b.C.{info.nuid}"


def kinds(report: VerifyReport) -> list[tuple[str, str]]:
    return [(problem.kind, problem.name) for problem in report.problems]


def forge(server: MemoryServer, info: ObjectInfo, **changes: Any) -> None:
    payload = encode_meta(replace(info, **changes))
    server.put_raw(meta_subject("b", info.name), payload, ROLL_UP)


@pytest.mark.parametrize("deep", [False, True])
async def test_all_is_well(store: ObjectStore, bucket: Bucket, deep: bool) -> None:
    first = await store.put("a", bytes(1000), chunk_size=100)
    await store.put("empty", b"")
    await store.add_link("l", first)
    await store.put("gone", b"x")
    await store.delete("gone")
    report = await verify(bucket, deep=deep)
    assert report.ok
    assert (report.bucket, report.objects, report.links, report.size, report.deep) == ("b", 2, 1, 1000, deep)


@pytest.mark.parametrize("deep", [False, True])
async def test_chunks_that_are_missing_or_too_many(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, deep: bool
) -> None:
    missing = await store.put("missing", bytes(1000), chunk_size=100)
    extra = await store.put("extra", bytes(1000), chunk_size=100)
    stream = server.stream()
    stream.remove([stream.of(chunk(missing))[3].seq])
    server.put_raw(chunk(extra), b"more")
    report = await verify(bucket, deep=deep)
    assert sorted(kinds(report)) == [("extra chunks", "extra"), ("missing chunks", "missing")]
    details = {problem.name: problem.detail for problem in report.problems}
    assert details == {"missing": "9 stored, 10 recorded", "extra": "11 stored, 10 recorded"}


async def test_several_objects_are_looked_at_again_at_once(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:02}" for number in range(module.CONFIRMED_AT_ONCE * 2)]
    for name in names:
        server.stream().remove([server.stream().of(chunk(await store.put(name, b"x")))[0].seq])
    confirm = Calls(module._confirm)
    monkeypatch.setattr(module, "_confirm", confirm)
    report = await verify(bucket, deep=False)
    assert kinds(report) == [("missing chunks", name) for name in names]
    assert confirm.most == module.CONFIRMED_AT_ONCE


async def test_an_empty_message_at_the_end_is_some_writers_custom(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    info = await store.put("a", bytes(1000), chunk_size=100)
    server.put_raw(chunk(info), b"")
    assert (await verify(bucket, deep=True)).ok


async def test_wrong_bytes_are_found_by_a_deep_look_only(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    info = await store.put("a", b"content")
    message = server.stream().of(chunk(info))[0]
    message.payload = b"CONTENT"
    assert (await verify(bucket, deep=False)).ok
    report = await verify(bucket, deep=True)
    assert kinds(report) == [("damaged", "a")]
    assert "digest" in report.problems[0].detail.lower() or "SHA-256" in report.problems[0].detail


async def test_metas_that_cannot_be(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content")
    seq = server.put_raw(meta_subject("b", "bad"), b"no JSON")
    forge(server, info, nuid="*")
    other = await store.put("size", b"content")
    forge(server, other, size=0)
    report = await verify(bucket, deep=False)
    assert sorted(kinds(report)) == [("unreadable meta", "bad"), ("unusable nuid", "a")]
    assert report.problems[0].revision == seq
    forge(server, other, size=5, chunks=0)
    server.stream().remove(each.seq for each in server.stream().of(chunk(other)))
    assert ("impossible size", "size") in kinds(await verify(bucket, deep=False))


async def test_a_rename_that_is_half_done(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content")
    await commit_meta(bucket, replace(info, metadata={RENAMING: "new"}), info.revision)
    await commit_meta(bucket, replace(info, name="new", metadata={RENAMED_FROM: "a"}), 0)
    report = await verify(bucket, deep=True)
    assert kinds(report) == [("half-done rename", "a")]
    assert report.problems[0].detail == "to 'new'"


async def test_what_is_replaced_meanwhile_is_no_problem(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """The counts come from another answer than the metas."""
    info = await store.put("a", b"content")
    first = True

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal first
        if verb == "STREAM.INFO" and "subjects_filter" in body and first:
            first = False
            stream = server.stream()
            stream.remove(each.seq for each in stream.of(chunk(info)))
            forge(server, info, nuid="NEWER")
            server.put_raw("$O.b.C.NEWER", b"content")

    server.hook = hook
    assert (await verify(bucket, deep=False)).ok
    assert not first


async def test_what_expires_is_no_problem(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    """Chunks are older than their meta, and expire before it."""
    info = await store.put("a", bytes(1000), chunk_size=100)
    server.stream().remove([server.stream().of(chunk(info))[0].seq])
    server.stream().config["max_age"] = int(timedelta(hours=1).total_seconds() * 1e9)
    assert (await verify(await bind(server.js, "b"), deep=False)).ok
    assert not (await verify(bucket, deep=False)).ok


async def test_chunks_that_come_and_go_all_the_time(
    store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object that cannot be read whole is no reason to tell nothing of the others."""
    await store.put("a", b"x")
    await store.put("b", b"x")

    async def blocks(bucket: Bucket, info: ObjectInfo) -> Any:
        if info.name == "a":
            raise NotWhole("read it again")
        yield [b"x"]

    monkeypatch.setattr(module, "blocks", blocks)
    report = await verify(bucket, deep=True)
    assert (report.objects, report.problems) == (2, [])
