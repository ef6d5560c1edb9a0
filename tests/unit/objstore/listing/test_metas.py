"""Listing: the newest meta of every name, what was acknowledged before the call included."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from natsproto.errors import RequestTimeoutError, StaleConnectionError
from objstore import BucketNotFoundError, InvalidMeta, ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.collect import SILENT
from objstore.bucket.message_reads import can_be_requested
from objstore.bucket.ways import CONSUMER, DELIVERIES, Ways
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subject, meta_subjects
from objstore.listing.in_order import metas_so_far
from objstore.listing.metas import LeaderEnd, newest_metas, subjects_at_once
from objstore.listing.metas import meta_subjects as subjects_of
from support.fake_session import turns
from support.memory_server import BEGAN, NO_MESSAGE, ROLL_UP, SILENCE, MemoryServer, Stored, error


async def fill(store: ObjectStore, count: int) -> list[ObjectInfo]:
    return [await store.put(f"n{number:02}", b"") for number in range(count)]


async def listed(bucket: Bucket) -> list[tuple[str, int, bool]]:
    return [(info.name, info.revision, info.deleted) for info in await newest_metas(bucket)]


@pytest.mark.parametrize("version", ["2.9.10", "2.15.1"])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("consumers", [True, False])
async def test_everybody_finds_the_same(version: str, replicas: int, consumers: bool) -> None:
    """Whatever the server can, and the user may."""
    server = MemoryServer(version)
    store = await server.bucket(replicas=replicas)
    infos = await fill(store, 12)
    replaced = await store.put("n03", b"again")
    await store.delete("n05")
    bucket = await bind(server.js, "b")
    if not consumers:
        server.refused = {"CONSUMER.CREATE"}
    for _ in range(2):
        found = {info.name: info for info in await newest_metas(bucket)}
        assert set(found) == {info.name for info in infos}
        assert found["n03"].revision == replaced.revision
        assert found["n05"].deleted
        assert [info.name for info in found.values() if info.deleted] == ["n05"]
    assert server.stream().consumers == {}
    assert len(server.connection.mux) == 0
    await server.client.close()


async def test_an_empty_bucket(bucket: Bucket) -> None:
    assert await newest_metas(bucket) == []


async def test_in_stream_order(store: ObjectStore, bucket: Bucket) -> None:
    await fill(store, 5)
    await store.put("n01", b"later")
    assert [name for name, _, _ in await listed(bucket)] == ["n00", "n02", "n03", "n04", "n01"]


async def test_of_several_metas_of_a_name_the_newest_counts(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """Writers without roll-up leave the older ones; clients file a name under subjects of their own."""
    name = "größe?"
    template = await store.put("t", b"")
    for number, subject in enumerate((*meta_subjects("b", name)[:2], meta_subjects("b", name)[0])):
        server.put_raw(subject, encode_meta(replace(template, name=name, description=f"{number}")))
    found = [info for info in await newest_metas(bucket) if info.name == name]
    assert [info.description for info in found] == ["2"]


async def test_what_cannot_be_read_is_reported_once(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless there is a newer one that can."""
    subject = meta_subject("b", "bad")
    server.put_raw(subject, b"no JSON")
    last = server.put_raw(subject, b"no JSON either")
    server.put_raw(meta_subject("b", "mended"), b"no JSON")
    await store.put("mended", b"")
    told: list[InvalidMeta] = []
    assert [info.name for info in await newest_metas(bucket, told.append)] == ["mended"]
    assert [(each.subject, each.revision) for each in told] == [(subject, last)]
    await newest_metas(bucket)
    assert len(caplog.records) == 1
    assert "is skipped" in caplog.records[0].getMessage()


async def test_what_a_replica_lacks_the_leader_has(server: MemoryServer) -> None:
    """The consumer's server is behind: it tells of the first ones only, and has a wrong count."""
    store = await server.bucket(replicas=3)
    await fill(store, 8)
    bucket = await bind(server.js, "b")
    stream = server.stream()
    consume = stream.of

    def behind(name: str, config: dict[str, Any]) -> Any:
        stream.of = lambda pattern: consume(pattern)[:3]  # type: ignore[method-assign]
        try:
            return plain(name, config)
        finally:
            stream.of = consume  # type: ignore[method-assign]

    plain, stream.consume = stream.consume, behind  # type: ignore[method-assign]
    assert len(await newest_metas(bucket)) == 8


async def test_what_is_replaced_while_it_is_read(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """Every name is told of, as it was or as it is."""
    infos = await fill(store, 6)
    raced = False

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal raced
        if verb == "CONSUMER.DELETE" and not raced:
            raced = True
            server.put_raw(meta_subject("b", "n00"), encode_meta(infos[0]), ROLL_UP)

    server.hook = hook
    assert {name for name, _, _ in await listed(bucket)} == {info.name for info in infos}
    assert raced


@pytest.mark.parametrize("behind", [0, 2])
async def test_an_older_meta_is_told_as_the_newest(server: MemoryServer, behind: int) -> None:
    """A peer has asked the leader for it; the consumer's server is behind, and an upload is under way."""
    store = await server.bucket(replicas=3)
    infos = await fill(store, 8)
    server.put_raw("$O.b.C.RUNNING", b"x")
    bucket = await bind(server.js, "b")
    stream = server.stream()
    oldest, delivered = stream.of(meta_subject("b", "n00"))[0], stream.consume

    def lacking(name: str, config: dict[str, Any]) -> Any:
        if config["filter_subject"] != "$O.b.M.>" or "headers_only" in config:
            return delivered(name, config)
        every = stream.of
        stream.of = lambda pattern: every(pattern)[: 8 - behind]  # type: ignore[method-assign]
        try:
            return delivered(name, config)
        finally:
            del stream.of

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if verb == "STREAM.MSG.GET" and "next_by_subj" in body:
            return NO_MESSAGE
        return server.leader_message(oldest) if body.get("last_by_subj") == "$O.b.M.>" else None

    stream.consume, server.hook = lacking, hook  # type: ignore[method-assign]
    found = await newest_metas(bucket)
    assert [info.name for info in found] == [info.name for info in infos]


async def test_a_goal(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    infos = await fill(store, 3)
    alone = LeaderEnd(bucket)
    assert await alone.reached(0), "one server has nobody to be behind of"
    server.stream().config["num_replicas"] = 3
    replicated = await bind(server.js, "b")
    leader_end = LeaderEnd(replicated)
    assert not await leader_end.reached(infos[1].revision)
    assert await leader_end.reached(infos[2].revision)
    leader_end.close()
    LeaderEnd(replicated).close()
    assert len(server.connection.mux) == 0


async def test_a_goal_that_is_gone(server: MemoryServer, store: ObjectStore) -> None:
    """The last meta at the start was replaced: the leader counts what lies beyond it, and then what lacks."""
    infos = await fill(store, 3)
    server.stream().config["num_replicas"] = 3
    leader_end = LeaderEnd(await bind(server.js, "b"))
    await turns()  # it is answered
    server.put_raw(meta_subject("b", infos[2].name), b"{}", ROLL_UP)
    oldest = server.stream().messages[infos[0].revision]
    # An answer to another question: the end seems to be reached.
    server.hook = lambda verb, body: server.leader_message(oldest) if verb == "STREAM.MSG.GET" else None
    server.verbs()
    assert not await leader_end.reached(infos[0].revision), "n01 lacks"
    create = "CONSUMER.CREATE"
    # Asked at once, a meta that is replaced in between would count as one of those beyond alone.
    assert [verb for verb in server.verbs() if verb.startswith("CONSUMER")] == [create, "CONSUMER.DELETE"] * 2


async def test_subjects(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    await fill(store, 3)
    assert await subjects_of(bucket) == {meta_subject("b", f"n{n:02}"): 1 for n in range(3)}

    def cut(verb: str, body: dict[str, Any]) -> Any:
        """As a server that has a page to send which is larger than any message may be."""
        if "subjects_filter" not in body:
            return None
        server.lose()
        server.connect()
        return SILENCE

    server.hook = cut
    assert await subjects_at_once(bucket, "$O.b.M.>") is None


def another(server: MemoryServer, question: str, *others: dict[str, Any], asked: list[int]) -> None:
    """Have the server answer what somebody else asks, with the inbox of each list of ``question``."""
    left = list(others)

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if body.get("subjects_filter") == question:
            asked.append(body["offset"])
            if left:
                return server.stream().info(left.pop(0))
        return None

    server.hook = hook


ONE_NAME = {"subjects_filter": meta_subject("b", "n03")}
LATE_NAMES = {"subjects_filter": "$O.b.M.>", "offset": 7}
ALL_METAS = {"subjects_filter": "$O.b.M.>"}
EVERYTHING = {"subjects_filter": ">"}
ALL_CHUNKS = {"subjects_filter": "$O.b.C.>"}
LATE_CHUNKS = {"subjects_filter": "$O.b.C.>", "offset": 19}
NOTHING = {"subjects_filter": "none"}


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize(
    "others",
    [[each] for each in (ONE_NAME, LATE_NAMES, EVERYTHING, ALL_CHUNKS, NOTHING, {})] + [[ONE_NAME] * 2],
)
async def test_the_answer_to_another_list(
    server: MemoryServer,
    store: ObjectStore,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    others: list[dict[str, Any]],
    few: bool,
) -> None:
    """Whoever may ask for the stream's info can have it sent to our inbox. No name is missing."""
    monkeypatch.setattr("objstore.listing.metas.SMALL", 1000 if few else 0)
    monkeypatch.setattr("objstore.listing.metas.LAST_CHUNKS", 1)
    for number in range(10):
        await store.put(f"n{number:02}", b"x")
        server.put_raw(f"$O.b.C.orphan{number}", b"x")
    expected = {meta_subject("b", f"n{number:02}"): 1 for number in range(10)}
    bucket = await bind(server.js, "b")
    asked: list[int] = []
    another(server, ">" if few else "$O.b.M.>", *others, asked=asked)
    assert await subjects_of(bucket) == expected
    assert asked
    assert await subjects_of(bucket) == expected
    server.refused = {"CONSUMER.CREATE"}
    another(server, ">" if few else "$O.b.M.>", *others, asked=asked)
    assert len(await newest_metas(bucket)) == 10


@pytest.mark.parametrize("other", [ONE_NAME, ALL_METAS, EVERYTHING, ALL_CHUNKS, LATE_CHUNKS, NOTHING, {}])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_the_answer_to_another_question_proves_nothing(
    server: MemoryServer,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    other: dict[str, Any],
    times: int,
) -> None:
    """Nor is one missing when the list and its proof are both another's."""
    monkeypatch.setattr("objstore.listing.metas.SMALL", 0)
    monkeypatch.setattr("objstore.listing.metas.LAST_CHUNKS", 1)
    for number in range(10):
        await store.put(f"n{number:02}", b"x")
        server.put_raw(f"$O.b.C.orphan{number}", b"x")
    bucket = await bind(server.js, "b")
    for one in (ONE_NAME, NOTHING):
        lists, proofs = [one] * times, [other] * times

        def hook(verb: str, body: dict[str, Any]) -> Any:
            wanted = {"$O.b.M.>": lists, "$O.b.C.>": proofs}.get(body.get("subjects_filter", ""))  # noqa: B023
            return server.stream().info(wanted.pop()) if wanted else None

        server.hook = hook
        assert len(await subjects_of(bucket) or ()) == 10


async def test_names_that_come_and_go_while_they_are_listed(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objstore.listing.metas.SMALL", 0)
    await fill(store, 5)
    bucket = await bind(server.js, "b")
    count = 0

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal count
        if "subjects_filter" in body:
            count += 1
            server.put_raw(f"$O.b.M.bmV3{count:04}", b"{}")
            if count % 3 == 0:
                server.stream().remove([min(each.seq for each in server.stream().of("$O.b.M.>"))])

    server.hook = hook
    for _ in range(5):
        before = {each.subject for each in server.stream().of("$O.b.M.>")}
        found = await subjects_of(bucket)
        assert found is not None
        assert before & {each.subject for each in server.stream().of("$O.b.M.>")} <= found.keys()


async def test_a_bucket_that_has_other_subjects_too(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that copies another. A list of everything still proves itself."""
    monkeypatch.setattr("objstore.listing.metas.SMALL", 0)
    infos = await fill(store, 5)
    for subject in ("$O.a.C.x", "$O.c.C.x", "$O.c.M.x", "zzz"):
        server.put_raw(subject, b"x")
    bucket = await bind(server.js, "b")
    assert await subjects_of(bucket) == {meta_subject("b", info.name): 1 for info in infos}


async def test_consumers_of_which_nothing_comes(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an account that imports the API alone: the names are read one by one, for a while at once."""
    monkeypatch.setattr("objstore.bucket.collect.HEARTBEAT", 0.02)
    infos = await fill(store, 5)
    bucket = await bind(server.js, "b")

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if verb == "CONSUMER.CREATE":
            name = body["config"]["name"]
            return {"stream_name": "OBJ_b", "name": name, "config": body["config"], "num_pending": 5}
        return {"success": True} if verb == "CONSUMER.DELETE" else None

    server.hook = hook
    server.verbs()
    expected = [(info.name, info.revision, False) for info in infos]
    assert sorted(await listed(bucket)) == expected
    assert server.verbs().count("CONSUMER.CREATE") == SILENT
    assert sorted(await listed(bucket)) == expected
    assert "CONSUMER.CREATE" not in server.verbs()
    monkeypatch.setattr(Ways, "allowed", lambda ways, way: way in (CONSUMER, DELIVERIES))
    bucket = await bind(server.js, "b")
    bucket.retry_budget = 0.5
    with pytest.raises(RequestTimeoutError, match="made no progress"):  # there is no other way
        await newest_metas(bucket)


@pytest.mark.parametrize(
    ("subject", "can"),
    [
        ("$O.b.M.YQ==", True),
        ("größe", True),
        ("\udcff", False),
        ("a\ufffd", False),
        ("$O.b.M.a*b>c", True),
        ("$O.b.M.*", False),
        ("$O.b.M.a.>", False),
        ("*.b", False),
        ("$O.b.M.*.a", False),
    ],
)
def test_what_can_be_requested(subject: str, can: bool) -> None:
    assert can_be_requested(subject) is can


async def test_a_bucket_that_is_gone(server: MemoryServer, bucket: Bucket) -> None:
    server.streams.clear()
    with pytest.raises(BucketNotFoundError):
        await newest_metas(bucket)
    with pytest.raises(BucketNotFoundError):
        await asyncio.wait_for(anext(metas_so_far(bucket)), 5)


async def test_a_leader_that_forgets_is_asked_for_a_while(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """It lists a name whose meta it does not have."""
    await fill(store, 2)
    server.refused = {"CONSUMER.CREATE"}
    bucket.retry_budget = 0.5
    last = server.stream().find
    gone = meta_subject("b", "n01")
    server.stream().find = lambda body: [] if body.get("last_by_subj") == gone else last(body)  # type: ignore[method-assign]
    with pytest.raises(ConnectionError, match="lists names whose metas it does not have"):
        await newest_metas(bucket)


async def test_a_consumer_that_others_have_changed(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """Whoever may create consumers can update this one: without payloads, nothing can be read from it."""
    names = {info.name for info in await fill(store, 3)}
    server.put_raw("$O.b.M.YmFk", b"no meta")

    def update(verb: str, body: dict[str, Any]) -> None:
        if verb == "CONSUMER.CREATE":
            body["config"]["headers_only"] = True

    server.hook = update
    unreadable: list[InvalidMeta] = []
    assert {info.name for info in await newest_metas(bucket, unreadable.append)} == names
    assert [each.subject for each in unreadable] == ["$O.b.M.YmFk"]
    assert "CONSUMER.CREATE" in server.verbs()


async def test_a_stream_that_allows_no_consumer(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """A work queue, or one with limits for consumers: the leader is asked name by name."""
    names = {info.name for info in await fill(store, 3)}
    refusal = error(400, 10098, "consumer must be deliver all on workqueue stream")
    server.hook = lambda verb, body: refusal if verb == "CONSUMER.CREATE" else None
    assert {info.name for info in await newest_metas(bucket)} == names


async def test_a_consumer_with_another_filter(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """Others have updated it after its creation: what it delivers matches, but most is left out."""
    infos = await fill(store, 5)
    newest = meta_subject("b", infos[-1].name)

    def update(verb: str, body: dict[str, Any]) -> Any:
        if verb != "CONSUMER.CREATE" or body["config"]["filter_subject"] == newest:
            return None
        server.hook = None
        body["config"]["filter_subject"] = newest
        answer = server.stream().consume(body["config"]["name"], body["config"])
        return {**answer, "num_pending": len(infos)}

    server.hook = update
    assert {info.name for info in await newest_metas(bucket)} == {info.name for info in infos}


def of_another_stream(server: MemoryServer, info: ObjectInfo, seq: int) -> None:
    """Have the leader's answers be those of a stream with the same subjects, where the name is deleted."""
    subject = meta_subject("b", info.name)
    marker = Stored(seq, subject, b"", encode_meta(replace(info, deleted=True)), BEGAN)

    def hook(verb: str, body: dict[str, Any]) -> Any:
        asked = (body.get("next_by_subj"), body.get("last_by_subj"))
        ours = verb == "STREAM.MSG.GET" and ("$O.b.M.>" in asked or subject in asked)
        return server.leader_message(marker) if ours else None

    server.hook = hook


@pytest.mark.parametrize("beyond", [True, False])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("one_by_one", [True, False])
async def test_what_another_streams_leader_answers(
    server: MemoryServer, replicas: int, beyond: bool, one_by_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces nothing that a consumer has shown, and no name is deleted because of it."""
    for module in ("metas", "shown"):
        monkeypatch.setattr(f"objstore.listing.{module}.CATCH_UP", (0.0, 0.01))
    store = await server.bucket(replicas=replicas)
    infos = await fill(store, 6)
    if not beyond:
        for _ in range(3):
            server.put_raw("$O.b.C.RUNNING", b"x")
    bucket = await bind(server.js, "b")
    of_another_stream(server, infos[1], 1000 if beyond else infos[-1].revision + 2)
    if one_by_one:
        stream = server.stream()
        consume, every = stream.consume, stream.of

        def some(name: str, config: dict[str, Any]) -> Any:
            """What was replaced meanwhile is not delivered."""
            stream.consume = consume  # type: ignore[method-assign]
            stream.of = lambda pattern: every(pattern)[3:]  # type: ignore[method-assign]
            try:
                return {**consume(name, config), "num_pending": len(infos)}
            finally:
                del stream.of

        stream.consume = some  # type: ignore[method-assign]
    if beyond or replicas == 1:
        found = await newest_metas(bucket)
        assert sorted((info.name, info.revision) for info in found) == [(i.name, i.revision) for i in infos]
        assert not any(info.deleted for info in found)
    else:  # it may be one that only the leader has so far
        bucket.retry_budget = 1.0
        with pytest.raises(StaleConnectionError, match="no consumer shows"):
            await newest_metas(bucket)
