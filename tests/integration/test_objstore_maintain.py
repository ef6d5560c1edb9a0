"""verify() finds what is wrong, gc() removes what nobody names, and neither touches anything else."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from natsproto import Client
from natsproto.errors import PermissionsViolationError
from natsproto.jetstream.api.models import StreamInfo
from natsproto.subjects import secret_name
from objstore import ObjectInfo, ObjectMeta, ObjectStore
from objstore.bucket.ways import CONSUMER, Ways
from objstore.format.codec import encode_meta
from objstore.format.marks import RENAMING, RENAMING_AT
from objstore.format.naming import meta_subject
from objstore.listing import metas as _metas

DATA = bytes(range(256)) * 2000
NOW = timedelta(0)


def stream(store: ObjectStore) -> str:
    return f"OBJ_{store.bucket}"


async def chunk_nuids(store: ObjectStore) -> set[str]:
    subjects = await store.js.stream_subjects(stream(store), f"$O.{store.bucket}.C.>")
    return {subject.rsplit(".", 1)[1] for subject in subjects}


async def publish_meta(store: ObjectStore, info: ObjectInfo) -> None:
    await store.js.publish(
        meta_subject(store.bucket, info.name), encode_meta(info), headers={"Nats-Rollup": "sub"}
    )


async def publish_chunks(store: ObjectStore, nuid: str, count: int = 3) -> None:
    for _ in range(count):
        await store.js.publish(f"$O.{store.bucket}.C.{nuid}", b"orphan")


# -- verify -----------------------------------------------------------------------------------------------


async def test_a_healthy_bucket(store: ObjectStore) -> None:
    info = await store.put("a", DATA, chunk_size=50_000)
    await store.put("empty", b"")
    await store.add_link("l", info)
    await store.put("gone", DATA)
    await store.delete("gone")
    for deep in (False, True):
        report = await store.verify(deep=deep)
        assert report.ok
        assert (report.objects, report.links, report.size, report.deep) == (2, 1, len(DATA), deep)


async def test_what_counts_tell(store: ObjectStore) -> None:
    infos = {
        name: await store.put(name, DATA, chunk_size=50_000) for name in ("fine", "less", "none", "more")
    }
    subject = {name: f"$O.{store.bucket}.C.{info.nuid}" for name, info in infos.items()}
    last = await store.js.get_message(stream(store), last_by_subject=subject["less"])
    await store.js.delete_message(stream(store), last.seq)
    await store.js.purge_stream(stream(store), subject=subject["none"])
    await store.js.publish(subject["more"], b"one too many")
    await publish_meta(store, replace(infos["fine"], name="nonsense", nuid=">"))
    await store.js.publish(meta_subject(store.bucket, "unreadable"), b"{")
    report = await store.verify()
    assert {(problem.kind, problem.name) for problem in report.problems} == {
        ("missing chunks", "less"),
        ("missing chunks", "none"),
        ("extra chunks", "more"),
        ("unusable nuid", "nonsense"),
        ("unreadable meta", "unreadable"),
    }
    assert not report.ok
    assert all(problem.detail for problem in report.problems)


async def test_late_copies(store: ObjectStore, tmp_path: Path) -> None:
    """What a leader that leads again stores once more: the object is read, and gc heals it."""
    info = await store.put("a", DATA, chunk_size=50_000)
    subject = f"$O.{store.bucket}.C.{info.nuid}"
    for payload in (b"", DATA[50_000:100_000], DATA[100_000:150_000], b""):
        await store.js.publish(subject, payload)
    assert await store.get("a") == DATA
    assert await store.get_range("a", 60_000, 160_000) == DATA[60_000:160_000]
    await store.get_file("a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA
    assert [problem.kind for problem in (await store.verify()).problems] == ["extra chunks"]
    assert (await store.gc(older_than=timedelta(0))).copies == [("a", 4)]
    assert (await store.verify(deep=True)).ok
    assert await store.get("a") == DATA


async def test_uncounted_empty_message_is_no_problem(store: ObjectStore) -> None:
    info = await store.put("net", DATA, chunk_size=50_000)
    await store.js.publish(f"$O.{store.bucket}.C.{info.nuid}", b"")
    assert (await store.verify(deep=True)).ok


async def test_deep_finds_changed_bytes(store: ObjectStore) -> None:
    info = await store.put("a", DATA, chunk_size=len(DATA) // 2)
    subject = f"$O.{store.bucket}.C.{info.nuid}"
    last = await store.js.get_message(stream(store), last_by_subject=subject)
    await store.js.delete_message(stream(store), last.seq)
    await store.js.publish(subject, bytes(len(last.data)))
    assert (await store.verify()).ok
    (problem,) = (await store.verify(deep=True)).problems
    assert (problem.kind, problem.name) == ("damaged", "a")


async def test_changes_meanwhile_are_no_problems(store: ObjectStore) -> None:
    async def churn() -> None:
        for number in range(30):
            await store.put("hot", bytes([number]) * 200_000, chunk_size=20_000)

    task = asyncio.create_task(churn())
    while not task.done():
        assert (await store.verify(deep=True)).ok
    await task


# -- gc ---------------------------------------------------------------------------------------------------


async def test_orphans(store: ObjectStore) -> None:
    live = await store.put("a", DATA)
    nuid = secret_name()
    await publish_chunks(store, nuid)
    young = await store.gc()
    assert (young.orphans, young.recent) == ([], [nuid])
    dry = await store.gc(older_than=NOW, dry_run=True)
    assert [(orphan.nuid, orphan.chunks, orphan.removed) for orphan in dry.orphans] == [(nuid, 3, False)]
    assert nuid in await chunk_nuids(store)
    done = await store.gc(older_than=NOW)
    assert [(orphan.nuid, orphan.removed) for orphan in done.orphans] == [(nuid, True)]
    assert await chunk_nuids(store) == {live.nuid}
    assert await store.get("a") == DATA
    assert (await store.gc(older_than=NOW)).orphans == []


async def test_nothing_named_is_an_orphan(store: ObjectStore) -> None:
    """Not by metas that cannot be read, nor by what such a meta has superseded: that can still be saved."""
    kept, doubted = secret_name(), secret_name()
    await publish_chunks(store, kept)
    await publish_chunks(store, doubted)
    template = await store.put("a", b"x")
    subject = meta_subject(store.bucket, "several")
    await store.js.publish(subject, encode_meta(replace(template, name="several", nuid=kept)))
    await store.js.publish(subject, b"{")  # no roll-up
    await store.js.publish(meta_subject(store.bucket, "odd"), b'{"nuid": "' + doubted.encode() + b'", broken')
    report = await store.gc(older_than=NOW)
    assert report.orphans == []
    assert [each.subject for each in report.unreadable] == [subject, meta_subject(store.bucket, "odd")]
    assert {kept, doubted} <= await chunk_nuids(store)


@pytest.mark.parametrize("deleted", [False, True])
async def test_superseded_metas_name_nothing(store: ObjectStore, deleted: bool) -> None:
    """A writer that does not roll up leaves them, and so does a server that forgot a purge."""
    superseded = secret_name()
    await publish_chunks(store, superseded)
    template = await store.put("a", DATA)
    subject = meta_subject(store.bucket, "several")
    info = replace(template, name="several", nuid=superseded, metadata={RENAMING: "elsewhere"})
    await store.js.publish(subject, encode_meta(info))
    newer = replace(template, name="several", metadata={}, deleted=deleted)
    await store.js.publish(subject, encode_meta(newer))
    report = await store.gc(older_than=NOW)
    assert ([orphan.nuid for orphan in report.orphans], report.renames) == ([superseded], [])
    assert await chunk_nuids(store) == {template.nuid}
    assert await store.get("a") == DATA


async def test_a_put_in_progress_is_not_touched(store: ObjectStore) -> None:
    go = asyncio.Event()

    async def slowly() -> object:
        yield DATA
        await go.wait()
        yield DATA

    task = asyncio.create_task(store.put("slow", slowly(), chunk_size=50_000))
    async with asyncio.timeout(30):
        while not await chunk_nuids(store):
            pass
    report = await store.gc()
    assert len(report.recent) == 1
    go.set()
    await task
    assert await store.get("slow") == DATA * 2


async def half_renamed(store: ObjectStore, *, published: bool) -> ObjectInfo:
    """What a crash in the middle of a rename leaves."""
    info = await store.put("old", DATA)
    marked = replace(info, metadata={RENAMING: "new"})
    await publish_meta(store, marked)
    if published:
        await publish_meta(store, replace(info, name="new", metadata={"natsproto.renamed-from": "old"}))
    return info


@pytest.mark.parametrize("published", [False, True])
async def test_half_done_rename(store: ObjectStore, published: bool) -> None:
    info = await half_renamed(store, published=published)
    if published:
        assert [problem.kind for problem in (await store.verify()).problems] == ["half-done rename"]
    assert (await store.gc()).renames == [], "too young"
    assert (await store.gc(older_than=NOW, dry_run=True)).renames == [("old", "new")]
    assert await store.exists("old")
    assert (await store.gc(older_than=NOW)).renames == [("old", "new")]
    assert await store.get("new") == DATA
    assert not await store.exists("old")
    assert await chunk_nuids(store) == {info.nuid}
    assert (await store.verify(deep=True)).ok
    assert (await store.gc(older_than=NOW)).renames == []


async def test_mark_whose_new_name_is_taken(store: ObjectStore) -> None:
    await half_renamed(store, published=False)
    await store.put("new", b"another")
    assert (await store.gc(older_than=NOW)).renames == []
    assert await store.get("old") == DATA
    assert await store.get("new") == b"another"
    assert (await store.get_info("old")).metadata == {}
    await store.update_meta("old", ObjectMeta("old", "still usable"))


async def test_mark_whose_new_name_was_changed(store: ObjectStore) -> None:
    """That rename has failed, whatever has become of the new name since: whoever began it may know."""
    info = await half_renamed(store, published=False)
    await publish_meta(store, replace(info, metadata={RENAMING: "new", RENAMING_AT: "0"}))
    await store.put("new", b"another")
    await store.delete("new")
    assert (await store.gc(older_than=NOW, dry_run=True)).renames == []
    await store.put("old", DATA * 2)
    assert not await store.exists("new")
    assert (await store.get_info("old")).metadata == {}
    again = await half_renamed(store, published=False)
    await publish_meta(store, replace(again, metadata={RENAMING: "new", RENAMING_AT: "0"}))
    assert (await store.gc(older_than=NOW)).renames == []
    assert (await store.get_info("old")).metadata == {}
    assert await store.get("old") == DATA
    assert (await store.verify(deep=True)).ok


async def test_many_metas(store: ObjectStore) -> None:
    await asyncio.gather(*(store.put(f"n{number}", b"x") for number in range(1203)))
    nuid = secret_name()
    await publish_chunks(store, nuid)
    report = await store.gc(older_than=NOW)
    assert [orphan.nuid for orphan in report.orphans] == [nuid]
    assert (await store.verify()).objects == 1203


async def test_many_unreadable_metas_and_orphans(store: ObjectStore, nc: Client) -> None:
    """What may be a nuid in a text that cannot be read is looked up, not searched for once a nuid."""
    await store.put("kept", b"x" * 100)
    info = await store.get_info("kept")
    text = b'{"name": broken, "nuid": "' + info.nuid.encode() + b'", "x": "' + b"y " * 200_000 + b'"}'
    for number in range(20):
        await nc.request(f"$O.{store.bucket}.M.{number}", text)
    for number in range(200):
        await nc.publish(f"$O.{store.bucket}.C.orphan{number}", b"1")
    await nc.flush()
    await nc.request(f"$O.{store.bucket}.C.{info.nuid}x", b"1")
    await store.js.delete_message(f"OBJ_{store.bucket}", info.revision)  # only the broken ones name it now
    began = time.process_time()
    report = await store.gc(older_than=timedelta(0), dry_run=True)
    assert time.process_time() - began < 5
    assert len(report.orphans) == 201
    assert info.nuid not in {orphan.nuid for orphan in report.orphans}
    assert len(report.unreadable) == 20
    assert all(each.error.__cause__ is None and each.error.__context__ is None for each in report.unreadable)


# -- subjects that no message holds -----------------------------------------------------------------------


@pytest.fixture
async def crowded(store: ObjectStore) -> ObjectStore:
    """Whoever may store chunks has stored empty ones: a page of their subjects is above 64 MiB."""
    for number in range(18_000):
        publish = store.client.publish if number % 200 else store.js.publish  # one that waits
        await publish(f"$O.{store.bucket}.C.{'x' * 3900}{number}", b"")
    return store


async def healthy_but_for(store: ObjectStore) -> str:
    """Two objects, one that lacks a chunk, and an orphan, whose nuid is returned."""
    await store.put("a", DATA)
    await store.put("b", DATA, chunk_size=100_000)
    gone = await store.put("c", DATA)
    await store.js.purge_stream(stream(store), subject=f"$O.{store.bucket}.C.{gone.nuid}")
    await publish_chunks(store, nuid := secret_name())
    return nuid


async def check_both(store: ObjectStore, orphan: str) -> None:
    report = await store.verify()
    assert [(each.kind, each.name) for each in report.problems] == [("missing chunks", "c")]
    dry = await store.gc(older_than=NOW, dry_run=True)
    assert [(each.nuid, each.chunks, each.removed) for each in dry.orphans] == [(orphan, 3, False)]
    found = await store.gc(older_than=NOW)
    assert [(each.nuid, each.chunks, each.removed) for each in found.orphans] == [(orphan, 3, True)]
    assert (await store.gc(older_than=NOW)).orphans == []
    assert await store.get("a") == await store.get("b") == DATA


async def test_subjects_too_long_to_be_told(crowded: ObjectStore) -> None:
    orphan = await healthy_but_for(crowded)
    epoch = crowded.client.connection.epoch
    await check_both(crowded, orphan)
    assert await crowded.names() == ["a", "b", "c"]
    assert crowded.client.connection.epoch == epoch, "the connection was lost"


async def test_subjects_too_long_that_do_not_look_it(
    crowded: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content beside them hides it. The connection is lost once a call, not for as long as the budget is."""
    monkeypatch.setattr(_metas, "LONGEST", 1)
    monkeypatch.setattr(
        crowded.bound_bucket.js, "timeout", 60.0
    )  # a busy server needs more than 5 s, and is asked again
    orphan = await healthy_but_for(crowded)
    epoch = crowded.client.connection.epoch
    await check_both(crowded, orphan)
    assert 1 <= crowded.client.connection.epoch - epoch <= 4


async def test_chunks_that_are_not_told_at_once_without_consumers(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in order, and nothing shows that none was left out: nothing is removed."""
    monkeypatch.setattr(_metas, "_fit", lambda info: False)
    orphan = await healthy_but_for(store)
    with monkeypatch.context() as patched:
        for known in ("allowed", "has_right"):
            patched.setattr(Ways, known, lambda ways, way: way != CONSUMER)
        with pytest.raises(PermissionsViolationError, match=r"CONSUMER\.CREATE"):
            await store.gc(older_than=NOW)
    await check_both(store, orphan)


async def test_no_chunks_that_are_not_told_at_once(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_metas, "_fit", lambda info: False)
    assert (await store.gc(older_than=NOW)).orphans == []
    assert (await store.verify()).ok


@pytest.mark.parametrize(
    ("subjects", "size", "fit"),
    [
        (10, 10 << 40, True),
        (1_000_000, 60_000_000, True),
        (16_000, 100 << 20, True),  # of 4 KiB at most
        (18_000, 70_000_000, False),
        (10_000_000, 500_000_000, False),
        (40_000, 5 << 30, True),  # mostly content
    ],
)
def test_whether_subjects_fit(subjects: int, size: int, fit: bool) -> None:
    state = {"num_subjects": subjects, "bytes": size}
    info = StreamInfo.from_json({"config": {"name": "S"}, "created": "2024-01-01T00:00:00Z", "state": state})
    assert _metas._fit(info) == fit
