"""Garbage collection: what no meta names goes when it is old enough, and nothing that may be needed."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import NatsError, PermissionsViolationError, RequestTimeoutError
from objstore import BucketNotFoundError, ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.numbered import GONE
from objstore.commit import references
from objstore.commit.references import References
from objstore.commit.renames import commit_meta
from objstore.format.codec import encode_meta
from objstore.format.digest import hex_digest, new_hasher
from objstore.format.marks import RENAMING
from objstore.format.naming import all_meta_subject, meta_subject
from objstore.maintenance.gc import DEFAULT_AGE, gc
from support.memory_server import NO_MESSAGE, MemoryServer, error

NOW = timedelta(0)


@pytest.fixture
async def named(store: ObjectStore) -> ObjectInfo:
    return await store.put("a", b"content")


async def test_nothing_to_collect(server: MemoryServer, bucket: Bucket, named: ObjectInfo) -> None:
    report = await gc(bucket, older_than=NOW, dry_run=False)
    assert (report.orphans, report.recent, report.renames, report.unreadable) == ([], [], [], [])
    assert server.chunks() == {named.nuid: 1}


@pytest.mark.parametrize("dry_run", [True, False])
async def test_orphans(server: MemoryServer, bucket: Bucket, named: ObjectInfo, dry_run: bool) -> None:
    for _ in range(3):
        server.put_raw("$O.b.C.ORPHAN", b"x")
    report = await gc(bucket, older_than=NOW, dry_run=dry_run)
    (orphan,) = report.orphans
    assert (orphan.nuid, orphan.chunks, orphan.removed) == ("ORPHAN", 3, not dry_run)
    assert report.dry_run == dry_run
    assert set(server.chunks()) == ({named.nuid, "ORPHAN"} if dry_run else {named.nuid})


async def test_no_chunk_of_an_orphan_is_kept(server: MemoryServer, bucket: Bucket, named: ObjectInfo) -> None:
    """There may be as many as objects were replaced, by writers without the right to purge."""
    for number in range(100):
        server.put_raw(f"$O.b.C.ORPHAN{number}", bytes(100_000))
    tracemalloc.start()
    try:
        report = await gc(bucket, older_than=NOW, dry_run=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(report.orphans) == 100
    assert peak < 5_000_000


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("verb", ["STREAM.INFO", "STREAM.MSG.GET"])
async def test_answers_to_other_questions_make_no_orphans(
    server: MemoryServer, bucket: Bucket, store: ObjectStore, verb: str, replicas: int
) -> None:
    """A peer may ask the same API subject something else, and have the answer sent to our inbox."""
    server.stream().config["num_replicas"] = replicas
    bucket = await bind(server.js, "b")
    bucket.retry_budget = 0.5
    for number in range(40):
        await store.put(f"o{number}", b"x")
    stream = server.stream()
    find = stream.find

    def narrower(asked: str, body: dict[str, Any]) -> Any:
        if asked == verb == "STREAM.INFO" and body.get("subjects_filter") == ">":
            return stream.info({"subjects_filter": meta_subject("b", "o7")})
        return None

    def another(body: dict[str, Any]) -> Any:
        if "last_by_subj" in body and ".M." in body["last_by_subj"]:
            return []
        return find({"last_by_subj": meta_subject("b", "o39")} if "next_by_subj" in body else body)

    server.hook = narrower
    if verb == "STREAM.MSG.GET":
        stream.find = another  # type: ignore[method-assign]
    chunks = server.chunks()
    with suppress(NatsError):
        await gc(bucket, older_than=NOW, dry_run=False)
    assert server.chunks() == chunks


@pytest.mark.parametrize("forged", [1, 3, 1000])
async def test_an_older_meta_of_the_name_is_no_answer(
    server: MemoryServer, bucket: Bucket, named: ObjectInfo, forged: int
) -> None:
    """Writers without roll-up leave several: a peer may have the oldest sent as the newest."""
    older = server.stream().of(meta_subject("b", "a"))[0]
    server.put_raw("$O.b.C.NEWER", b"content")
    server.put_raw(meta_subject("b", "a"), encode_meta(replace(named, nuid="NEWER")))
    bucket.direct_meta, bucket.retry_budget = False, 0.3
    left = forged

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal left
        asked = body.get("last_by_subj", body.get("next_by_subj"))
        if verb == "STREAM.MSG.GET" and asked == older.subject and left:
            left -= 1
            return server.leader_message(older) if body.get("seq", 0) <= older.seq else NO_MESSAGE
        return None

    server.hook = hook
    with suppress(NatsError):
        await gc(bucket, older_than=NOW, dry_run=False)
    assert server.chunks()["NEWER"] == 1
    server.hook = None
    await gc(bucket, older_than=NOW, dry_run=False)
    assert server.chunks() == {"NEWER": 1}


async def test_young_ones_may_be_a_put_in_progress(server: MemoryServer, bucket: Bucket) -> None:
    server.put_raw("$O.b.C.YOUNG", b"x")
    report = await gc(bucket, older_than=DEFAULT_AGE, dry_run=False)
    assert (report.orphans, report.recent) == ([], ["YOUNG"])
    server.ahead = DEFAULT_AGE + timedelta(minutes=1)
    report = await gc(bucket, older_than=DEFAULT_AGE, dry_run=False)
    assert [orphan.nuid for orphan in report.orphans] == ["YOUNG"]


async def test_the_age_is_that_of_the_newest_chunk(server: MemoryServer, bucket: Bucket) -> None:
    """A peer can have an older one sent to us as the newest: the put may be in progress."""
    for _ in range(3):
        server.put_raw("$O.b.C.YOUNG", b"x")
    oldest = server.stream().of("$O.b.C.YOUNG")[0]

    def hook(verb: str, body: dict[str, Any]) -> Any:
        asked = verb.endswith("GET") and "last_by_subj" in body
        return server.leader_message(oldest) if asked and verb == "STREAM.MSG.GET" else None

    bucket.direct_meta = bucket.direct = False
    server.hook = hook
    assert (await gc(bucket, older_than=NOW, dry_run=False)).orphans == []
    server.refused.add("CONSUMER.CREATE")
    with pytest.raises(PermissionsViolationError, match="CONSUMER"):
        await gc(bucket, older_than=NOW, dry_run=False)
    assert server.chunks() == {"YOUNG": 3}


async def test_uploads_wait_longer(server: MemoryServer, bucket: Bucket) -> None:
    server.put_raw("$O.b.C.UPLOAD", b"x", b"NATS/1.0\r\nNats-Msg-Id: s.0\r\n\r\n")
    server.ahead = GONE - timedelta(minutes=1)
    hour = timedelta(hours=1)
    assert (await gc(bucket, older_than=hour, dry_run=False)).recent == ["UPLOAD"]
    server.ahead = GONE + timedelta(minutes=1)
    assert [each.nuid for each in (await gc(bucket, older_than=hour, dry_run=False)).orphans] == ["UPLOAD"]


async def test_one_that_is_committed_meanwhile_stays(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, named: ObjectInfo
) -> None:
    """It is looked at once more before it is purged."""
    stream = server.stream()
    meta = stream.of(meta_subject("b", "a"))[0]
    stream.remove([meta.seq])
    looks = 0

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal looks
        if verb == "STREAM.MSG.GET" and body.get("last_by_subj") == f"$O.b.C.{named.nuid}":
            looks += 1
            if looks == 2:
                server.put_raw(meta.subject, meta.payload)
        assert verb != "STREAM.PURGE"

    server.hook = hook
    report = await gc(bucket, older_than=NOW, dry_run=False)
    assert report.orphans == []
    assert looks == 2
    assert await store.get("a") == b"content"


async def test_an_upload_that_goes_on_meanwhile_stays(server: MemoryServer, bucket: Bucket) -> None:
    server.put_raw("$O.b.C.ORPHAN", b"x")
    server.ahead = timedelta(hours=2)
    looks = 0

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal looks
        if verb == "STREAM.MSG.GET" and body.get("last_by_subj") == "$O.b.C.ORPHAN":
            looks += 1
            if looks == 2:
                server.put_raw("$O.b.C.ORPHAN", b"more")

    server.hook = hook
    report = await gc(bucket, older_than=timedelta(hours=1), dry_run=False)
    assert report.orphans == []
    assert server.chunks() == {"ORPHAN": 2}


async def test_metas_that_cannot_be_read_keep_what_they_may_name(
    server: MemoryServer, bucket: Bucket
) -> None:
    server.put_raw("$O.b.C.KEPT", b"x")
    server.put_raw("$O.b.C.GONE", b"x")
    server.put_raw(meta_subject("b", "bad"), b'{"name":"bad","nuid":"KEPT"')
    report = await gc(bucket, older_than=NOW, dry_run=False)
    assert [each.nuid for each in report.orphans] == ["GONE"]
    assert len(report.unreadable) == 1
    assert server.chunks() == {"KEPT": 1}


async def test_more_words_than_are_kept_do_not_keep_all_chunks(
    server: MemoryServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the words of unreadable metas only nuids of stored chunks matter: anybody may write any number."""
    monkeypatch.setattr(references, "MOST_WORDS", 10)
    server.put_raw("$O.b.C.KEPT", b"x")
    server.put_raw("$O.b.C.GONE", b"x")
    server.put_raw(meta_subject("b", "bad"), b" ".join(b"w%d" % number for number in range(100)) + b" KEPT")
    report = await gc(bucket, older_than=NOW, dry_run=False)
    assert [each.nuid for each in report.orphans] == ["GONE"]
    assert server.chunks() == {"KEPT": 1}


async def test_unusable_nuids_are_left_alone(server: MemoryServer, bucket: Bucket) -> None:
    server.put_raw("$O.b.C.b@d", b"x")
    assert (await gc(bucket, older_than=NOW, dry_run=False)).orphans == []
    assert server.chunks() == {"b@d": 1}


@pytest.mark.parametrize("dry_run", [True, False])
async def test_half_done_renames_are_completed(
    store: ObjectStore, bucket: Bucket, named: ObjectInfo, dry_run: bool
) -> None:
    await commit_meta(bucket, replace(named, metadata={RENAMING: "new"}), named.revision)
    report = await gc(bucket, older_than=NOW, dry_run=dry_run)
    assert report.renames == [("a", "new")]
    assert [info.name for info in await store.list()] == (["a"] if dry_run else ["new"])
    if not dry_run:
        assert await store.get("new") == b"content"


def behind(server: MemoryServer, info: ObjectInfo, *payloads: bytes, header: bytes = b"") -> None:
    for payload in payloads:
        server.put_raw(f"$O.b.C.{info.nuid}", payload, header)


@pytest.mark.parametrize("dry_run", [True, False])
async def test_late_copies(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, named: ObjectInfo, dry_run: bool
) -> None:
    behind(server, named, b"content", b"", b"content")
    report = await gc(bucket, older_than=NOW, dry_run=dry_run)
    assert (report.copies, report.orphans) == ([("a", 3)], [])
    assert server.chunks() == {named.nuid: 4 if dry_run else 1}
    assert await store.get("a") == b"content"


@pytest.mark.parametrize("forger", ["0", "b"])
@pytest.mark.parametrize(
    ("copied", "messages", "chosen"),
    [(True, "ABACB", "ABAC"), (False, "ABACB", "ABAC"), (True, "ABACAB", "ABACA")],
)
async def test_a_meta_that_chooses_others_of_the_messages(
    server: MemoryServer, store: ObjectStore, forger: str, copied: bool, messages: str, chosen: str
) -> None:
    """A source keeps a chunk that was stored twice: what one meta calls a copy is another's own."""
    if copied:
        server.stream().config["sources"] = [{"name": "OBJ_origin"}]
    parts = (b"A", b"B", b"C", b"B")
    info = await store.put("a", b"".join(parts), chunk_size=1)
    stream, subject = server.stream(), f"$O.b.C.{info.nuid}"
    stream.remove([each.seq for each in (*stream.of(subject), *stream.of(meta_subject("b", "a")))])
    for part in messages:
        server.put_raw(subject, part.encode())
    count, digest = len(chosen), hex_digest(new_hasher(chosen.encode()).digest())
    forged = replace(info, name=forger, digest=digest, chunks=count, size=count)
    for each in (info, forged):
        server.put_raw(meta_subject("b", each.name), encode_meta(each))
    before = server.chunks()
    report = await gc(await bind(server.js, "b"), older_than=NOW, dry_run=False)
    assert (report.copies, server.chunks()) == ([], before)
    if messages == "ABACB" and copied:
        assert await (await server.js.object_store("b")).get("a") == b"ABCB"


async def test_late_copies_behind_several_objects(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, named: ObjectInfo
) -> None:
    """Metas of the same bytes, and one of fewer chunks, which is not asked where nothing was copied."""
    for name, info in (("same", named), ("fewer", replace(named, chunks=0, size=0))):
        server.put_raw(meta_subject("b", name), encode_meta(replace(info, name=name)))
    behind(server, named, b"content")
    report = await gc(bucket, older_than=NOW, dry_run=False)
    assert report.copies == [("a", 1)]
    assert server.chunks() == {named.nuid: 1}
    wrong = replace(named, name="wrong", digest=hex_digest(new_hasher(b"CONTENT").digest()))
    server.put_raw(meta_subject("b", "wrong"), encode_meta(wrong))
    behind(server, named, b"content")
    assert (await gc(bucket, older_than=NOW, dry_run=False)).copies == []
    assert server.chunks() == {named.nuid: 2}


async def test_late_copies_that_are_too_young(
    server: MemoryServer, bucket: Bucket, named: ObjectInfo
) -> None:
    """A put under that nuid may be in progress: anybody may have written a meta that names it."""
    behind(server, named, b"content")
    hour = timedelta(hours=1)
    assert (await gc(bucket, older_than=hour, dry_run=False)).copies == []
    server.ahead = 2 * hour
    behind(server, named, b"content", header=b"NATS/1.0\r\nNats-Msg-Id: s.0\r\n\r\n")  # of an upload
    server.ahead += 2 * hour
    assert (await gc(bucket, older_than=hour, dry_run=False)).copies == []
    server.ahead += GONE
    assert (await gc(bucket, older_than=hour, dry_run=False)).copies == [("a", 2)]


@pytest.mark.parametrize("what", [b"other", b""])
async def test_what_is_no_copy_stays(
    server: MemoryServer, bucket: Bucket, named: ObjectInfo, what: bytes
) -> None:
    behind(server, named, what)
    assert (await gc(bucket, older_than=NOW, dry_run=False)).copies == []
    assert server.chunks() == {named.nuid: 2}


@pytest.mark.parametrize("unreadable", [True, False])
async def test_a_meta_that_counts_fewer(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, unreadable: bool
) -> None:
    """The rest of the object equals its beginning: whoever names all of it decides."""
    info = await store.put("zeros", bytes(500), chunk_size=100)
    forged = replace(info, name="z", size=200, chunks=2, digest=hex_digest(new_hasher(bytes(200)).digest()))
    await commit_meta(bucket, forged, 0)
    if unreadable:
        stream = server.stream()
        stream.remove([stream.of(meta_subject("b", "zeros"))[0].seq])
        server.put_raw(meta_subject("b", "zeros"), b'{"name":"zeros","nuid":"%b"' % info.nuid.encode())
    assert (await gc(bucket, older_than=NOW, dry_run=False)).copies == []
    assert server.chunks() == {info.nuid: 5}
    if not unreadable:
        behind(server, info, bytes(100))
        assert (await gc(bucket, older_than=NOW, dry_run=False)).copies == [("zeros", 1)]
        assert await store.get("zeros") == bytes(500)


async def test_late_copies_that_cannot_be_removed(
    server: MemoryServer, bucket: Bucket, named: ObjectInfo, caplog: pytest.LogCaptureFixture
) -> None:
    behind(server, named, b"content")
    server.refused = {"STREAM.MSG.DELETE"}
    server.put_raw("$O.b.C.ORPHAN", b"x")
    report = await gc(bucket, older_than=NOW, dry_run=False)
    assert (report.copies, [each.nuid for each in report.orphans]) == ([], ["ORPHAN"])
    assert f"late copies of chunks {named.nuid!r}" in caplog.text


async def test_one_that_cannot_be_removed_does_not_end_it(
    server: MemoryServer, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    for nuid in ("FIRST", "SECOND"):
        server.put_raw(f"$O.b.C.{nuid}", b"x")

    def hook(verb: str, body: dict[str, Any]) -> Any:
        refused = verb == "STREAM.PURGE" and body["filter"].endswith("FIRST")
        return error(500, 10001, "no") if refused else None

    server.hook = hook
    report = await gc(bucket, older_than=NOW, dry_run=False)
    assert {each.nuid: each.removed for each in report.orphans} == {"FIRST": False, "SECOND": True}
    assert "orphan chunks 'FIRST'" in caplog.text


@pytest.mark.parametrize(
    "consumers", ["all comes", "ended early", "without payloads", "not at all", "silent"]
)
@pytest.mark.parametrize("seq", [None, 1000], ids=["older", "newer"])
async def test_the_meta_of_another_stream_is_no_answer(
    server: MemoryServer,
    bucket: Bucket,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    consumers: str,
    seq: int | None,
) -> None:
    """A mirror by another tool has the same subjects, and keeps what was replaced: answers name no stream.

    Another domain may have a bucket of the same name, with higher sequences.
    """
    old = await store.put("a", b"old")
    other = server.leader_message(server.stream().messages[old.revision])
    if seq is not None:
        other["message"]["seq"] = seq
    new = await store.put("a", b"new")
    await store.put("b", b"x")
    bucket.batches = False  # they name their stream
    bucket.retry_budget = 0.5
    due = server.stream().due

    def changed(consumer: Any, found: Any) -> None:
        config = consumer.config
        if config["deliver_policy"] == "last_per_subject" and config["filter_subject"] == all_meta_subject(
            "b"
        ):
            inbox = config["deliver_subject"].encode()
            if consumers == "ended early":
                server.send(inbox, header=b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\n\r\n")
                return
            config["headers_only"] = True
        due(consumer, found)

    asked = 0

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal asked
        if verb != "STREAM.MSG.GET" or body.get("last_by_subj") != meta_subject("b", "a"):
            return None
        asked += 1
        return other

    server.hook = hook
    monkeypatch.setattr("objstore.bucket.collect.HEARTBEAT", 0.2)
    server.importing = consumers == "silent"
    if consumers in ("ended early", "without payloads"):
        server.stream().due = changed  # type: ignore[method-assign]
    if consumers == "not at all":
        server.refused = {"CONSUMER.CREATE"}
    if consumers in ("all comes", "ended early"):  # the next consumer shows the rest
        report = await gc(bucket, older_than=NOW, dry_run=False)
        assert report.orphans == []
        assert asked
    else:
        with pytest.raises(PermissionsViolationError if consumers == "not at all" else RequestTimeoutError):
            await gc(bucket, older_than=NOW, dry_run=False)
    assert new.nuid in server.chunks()


async def test_the_meta_of_another_stream_that_comes_later(
    server: MemoryServer, bucket: Bucket, store: ObjectStore
) -> None:
    """What replaces a meta after all were read does not count, until a consumer shows it."""
    old = await store.put("a", b"old")
    other = server.leader_message(server.stream().messages[old.revision])
    info = await store.put("a", b"new")
    references = References()
    await references.read_on(bucket)
    assert references.naming(info.nuid) == [meta_subject("b", "a")]

    def hook(verb: str, body: dict[str, Any]) -> Any:
        return other if verb == "STREAM.MSG.GET" and references.cursor < body.get("seq", 0) <= end else None

    await store.put("b", b"x")
    end = other["message"]["seq"] = server.stream().seq
    server.hook = hook
    await references.read_on(bucket)
    assert references.cursor == end
    assert references.named(info.nuid)
    server.hook = None
    await store.put("a", b"newer")
    await references.read_on(bucket)
    assert not references.named(info.nuid)


async def test_what_a_consumer_could_not_show_is_shown_later(
    server: MemoryServer, bucket: Bucket, store: ObjectStore
) -> None:
    """An interrupted call leaves nothing unproven for the next one."""
    old = await store.put("a", b"old")
    other = server.leader_message(server.stream().messages[old.revision])
    info = await store.put("a", b"new")
    server.hook = lambda verb, body: (
        other if verb == "STREAM.MSG.GET" and body.get("last_by_subj") == meta_subject("b", "a") else None
    )
    bucket.batches, bucket.retry_budget = False, 0.3
    references = References()
    server.hook, hook = (
        (lambda verb, body: error(503, 10008, "later") if verb == "CONSUMER.CREATE" else hook(verb, body)),
        server.hook,
    )
    with pytest.raises(NatsError):
        await references.read_on(bucket)
    assert references.cursor
    assert not references.named(info.nuid)
    server.hook = hook
    await references.read_on(bucket)
    assert references.named(info.nuid)


@pytest.mark.parametrize(("lag", "kept"), [(0, False), (3, True)])
async def test_chunks_that_a_source_has_sent(
    server: MemoryServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, lag: int, kept: bool
) -> None:
    """Their meta is under way, perhaps: so it must be certain that the source has sent all that it had."""
    monkeypatch.setattr("objstore.maintenance.sourced.PAUSE", 0.0)
    server.stream().config["sources"] = [{"name": "OBJ_media"}]
    server.stream().sources = [{"name": "OBJ_media", "lag": lag, "active": 2_000_000_000}]
    server.put_raw("$O.b.C.SENT", b"x", b"NATS/1.0\r\nNats-Stream-Source: OBJ_media 1\r\n\r\n")
    server.put_raw("$O.b.C.OWN", b"x")
    server.ahead += timedelta(seconds=1)
    report = await gc(bucket, older_than=NOW, dry_run=False)
    assert report.recent == ["SENT"], "it was heard of two seconds ago"
    assert [each.nuid for each in report.orphans] == ["OWN"]
    server.ahead += timedelta(seconds=5)
    report = await gc(bucket, older_than=NOW, dry_run=False)
    assert (report.recent == ["SENT"]) == kept
    assert set(server.chunks()) == ({"SENT"} if kept else set())


async def test_a_bucket_that_is_gone(server: MemoryServer, bucket: Bucket) -> None:
    server.streams.clear()
    with pytest.raises(BucketNotFoundError):
        await gc(bucket, older_than=NOW, dry_run=False)
    server.hook = lambda verb, body: error(400, 10003, "bad request")
    with pytest.raises(NatsError):
        await gc(bucket, older_than=NOW, dry_run=True)


@pytest.mark.parametrize(("first", "numbers"), [("a", (1, 3)), ("k", (2, 3))], ids=["another's", "its own"])
async def test_late_copies_have_other_numbers_elsewhere(
    server: MemoryServer,
    bucket: Bucket,
    store: ObjectStore,
    caplog: pytest.LogCaptureFixture,
    first: str,
    numbers: tuple[int, int],
) -> None:
    """A stream with the bucket among its sources may answer for it: its number is that of a live chunk."""
    server.stream().config["num_replicas"] = 3
    bucket = await bind(server.js, "b")
    for name in (first, "a" if first == "k" else "k"):
        await store.put(name, name.encode())
    info = await store.get_info("a")
    behind(server, info, b"a")
    subject = f"$O.b.C.{info.nuid}"
    copy = max(server.stream().of(subject), key=lambda each: each.seq)
    elsewhere = [server.leader_message(replace(copy, seq=number)) for number in numbers]

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if verb != "STREAM.MSG.GET" or not (body.get("next_by_subj") == subject or set(body) == {"seq"}):
            return None
        return next(
            (each for each, seq in zip(elsewhere, numbers, strict=True) if seq >= body["seq"]), NO_MESSAGE
        )

    server.hook = hook
    stored = server.chunks()
    assert (await gc(bucket, older_than=NOW, dry_run=False)).copies == []
    assert server.chunks() == stored
    assert f"late copies of chunks {info.nuid!r}" in caplog.text
    server.hook = None
    assert (await gc(bucket, older_than=NOW, dry_run=False)).copies == [("a", 1)]
    assert await store.get("a") == b"a"
