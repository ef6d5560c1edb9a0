"""Enumerating: names without metas, metas a page at a time, directories."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from objstore import BucketNotFoundError, InvalidMeta, ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.codec import encode_meta
from objstore.format.marks import RENAMING
from objstore.format.naming import meta_subject
from objstore.listing.pages import FIRST_PAGE, LOOKS_AT_ONCE, iterate, list_dirs, names
from support.at_once import Calls
from support.memory_server import BEGAN, NO_MESSAGE, ROLL_UP, MemoryServer, Stored, error

COUNT = 3 * FIRST_PAGE


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    store = await server.bucket()
    for number in range(COUNT):
        await store.put(f"n{number:03}", b"")
    await store.put("gone", b"x")
    await store.delete("gone")
    return store


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


async def none(bucket: Bucket) -> None:
    """The names do not fit into one message."""


async def told(bucket: Bucket, prefix: str = "", **options: Any) -> list[ObjectInfo]:
    options = {"include_deleted": False, "on_invalid": None, **options}
    return [info async for info in iterate(bucket, prefix, **options)]


async def test_names_without_reading_metas(server: MemoryServer, bucket: Bucket) -> None:
    server.verbs()
    assert await names(bucket, "", live=False) == ["gone", *(f"n{n:03}" for n in range(COUNT))]
    assert server.verbs() == ["STREAM.INFO"]
    assert await names(bucket, "n00", live=False) == [f"n00{n}" for n in range(10)]
    assert "gone" not in await names(bucket, "", live=True)
    server.put_raw("$O.b.M.!!", b"no name of anybody")
    assert len(await names(bucket, "", live=False)) == COUNT + 1


async def test_an_iteration(server: MemoryServer, bucket: Bucket) -> None:
    found = await told(bucket)
    assert sorted(info.name for info in found) == [f"n{n:03}" for n in range(COUNT)]
    assert len(await told(bucket, include_deleted=True)) == COUNT + 1
    assert [info.name for info in await told(bucket, "n001")] == ["n001"]
    assert server.stream().consumers == {}
    assert server.verbs().count("CONSUMER.MSG.NEXT") > 3


async def test_short_pages_and_no_more_at_the_leader(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names do not fit into one message, a replica is behind, and a peer has the leader say "no more"."""
    monkeypatch.setattr("objstore.listing.pages.meta_subjects", none)
    server.stream().config["num_replicas"] = 3
    bucket = await bind(server.js, "b")
    stream = server.stream()
    consume, every = stream.consume, stream.of

    def behind(name: str, config: dict[str, Any]) -> Any:
        stream.consume = consume  # type: ignore[method-assign]
        stream.of = lambda pattern: every(pattern)[:10]  # type: ignore[method-assign]
        try:
            return consume(name, config)
        finally:
            stream.of = every  # type: ignore[method-assign]

    def hook(verb: str, body: dict[str, Any]) -> Any:
        if verb != "STREAM.MSG.GET" or "next_by_subj" not in body:
            return None
        server.hook = None
        return NO_MESSAGE

    stream.consume, server.hook = behind, hook  # type: ignore[method-assign]
    assert sorted(info.name for info in await told(bucket)) == [f"n{n:03}" for n in range(COUNT)]


async def test_left_early_it_leaves_nothing(server: MemoryServer, bucket: Bucket) -> None:
    async with aclosing(iterate(bucket, "", include_deleted=False, on_invalid=None)) as infos:
        await anext(infos)
        assert len(server.stream().consumers) == 1
    assert server.stream().consumers == {}


@pytest.mark.parametrize("case", ["old server", "replicas", "no right"])
async def test_read_at_once_where_pages_prove_nothing(case: str) -> None:
    server = MemoryServer("2.9.10" if case == "old server" else "2.15.1")
    store = await server.bucket(replicas=3 if case == "replicas" else 1)
    for name in ("a", "b", "c"):
        await store.put(name, b"")
    if case == "no right":
        server.refused = {"CONSUMER.CREATE"}
    bucket = await bind(server.js, "b")
    assert {info.name for info in await told(bucket)} == {"a", "b", "c"}
    assert "CONSUMER.MSG.NEXT" not in server.verbs()
    if case == "no right":
        assert "CONSUMER.DELETE" not in server.verbs(), "there is none, and that may be forbidden, too"
    await server.client.close()


async def test_a_consumer_that_is_gone_is_replaced(server: MemoryServer, bucket: Bucket) -> None:
    """It goes on after what came; nothing is told of twice."""
    fetches = 0

    def hook(verb: str, body: dict[str, Any]) -> None:
        nonlocal fetches
        if verb == "CONSUMER.MSG.NEXT":
            fetches += 1
            if fetches == 2:
                server.stream().consumers.clear()

    server.hook = hook
    found = [info.name for info in await told(bucket)]
    assert sorted(found) == [f"n{n:03}" for n in range(COUNT)]


async def test_what_is_replaced_meanwhile_is_told_of(server: MemoryServer, bucket: Bucket) -> None:
    found: list[tuple[str, int]] = []
    stream = server.stream()
    async for info in iterate(bucket, "", include_deleted=False, on_invalid=None):
        found.append((info.name, info.revision))
        if len(found) == 2:
            for name in ("n000", f"n{COUNT - 1:03}"):
                message = stream.last_of(meta_subject("b", name))
                assert message is not None
                server.put_raw(message.subject, message.payload, ROLL_UP)
    assert {name for name, _ in found} == {f"n{n:03}" for n in range(COUNT)}
    newest = stream.last_of(meta_subject("b", "n000"))
    assert newest is not None
    assert ("n000", newest.seq) in found
    assert len(found) == len(set(found))


async def test_metas_that_cannot_be_read(server: MemoryServer, bucket: Bucket) -> None:
    server.put_raw(meta_subject("b", "bad"), b"no JSON")
    invalid: list[InvalidMeta] = []
    assert len(await told(bucket, on_invalid=invalid.append)) == COUNT
    assert [each.subject for each in invalid] == [meta_subject("b", "bad")]


async def test_failures(server: MemoryServer, bucket: Bucket) -> None:
    server.hook = lambda verb, body: error(404, 10059, "stream not found")
    with pytest.raises(BucketNotFoundError):
        await told(bucket)
    with pytest.raises(BucketNotFoundError):
        await names(bucket, "", live=True)
    with pytest.raises(BucketNotFoundError):
        await list_dirs(bucket, "", "/")


async def test_directories(server: MemoryServer) -> None:
    store = await server.bucket("d")
    for name in ("a", "x/1", "x/2", "x/y/3", "z//", "gone/1"):
        await store.put(name, b"")
    await store.delete("gone/1")
    bucket = await bind(server.js, "d")
    top = await list_dirs(bucket, "", "/")
    assert (top.prefixes, [info.name for info in top.objects]) == (["x/", "z/"], ["a"])
    below = await list_dirs(bucket, "x/", "/")
    assert (below.prefixes, [info.name for info in below.objects]) == (["x/y/"], ["x/1", "x/2"])
    assert await list_dirs(bucket, "none", "/") == await list_dirs(bucket, "gone/", "/")


async def test_marks_of_renames_are_not_shown(server: MemoryServer, bucket: Bucket) -> None:
    info = (await told(bucket, "n001"))[0]
    marked = replace(info, metadata={RENAMING: "x", "mine": "1"})
    server.put_raw(meta_subject("b", "n001"), encode_meta(marked), ROLL_UP)
    assert dict((await told(bucket, "n001"))[0].metadata) == {"mine": "1"}


async def test_a_consumer_that_others_have_changed(server: MemoryServer, bucket: Bucket) -> None:
    """See the test of the same name in test_metas."""
    server.put_raw("$O.b.M.YmFk", b"no meta")

    def update(verb: str, body: dict[str, Any]) -> None:
        if verb == "CONSUMER.CREATE":
            body["config"]["headers_only"] = True

    server.hook = update
    unreadable: list[InvalidMeta] = []
    infos = iterate(bucket, "", include_deleted=False, on_invalid=unreadable.append)
    assert sorted([info.name async for info in infos]) == [f"n{n:03}" for n in range(COUNT)]
    assert [each.subject for each in unreadable] == ["$O.b.M.YmFk"]


@pytest.mark.parametrize("listed", [True, False])
async def test_what_another_streams_leader_answers(
    server: MemoryServer, bucket: Bucket, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the names are deleted, with higher sequences; here a consumer continues after a lost one."""
    fetches = 0
    if not listed:
        monkeypatch.setattr("objstore.listing.pages.meta_subjects", none)

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal fetches
        if verb == "CONSUMER.MSG.NEXT":
            fetches += 1
            if fetches == 2:
                server.stream().consumers.clear()
        subject = body.get("last_by_subj") or body.get("next_by_subj")
        if verb != "STREAM.MSG.GET" or subject is None:
            return None
        if subject.endswith(">"):
            subject = meta_subject("b", "n000")
        meta = server.stream().last_of(subject)
        assert meta is not None
        document = meta.payload.replace(b"{", b'{"deleted": true, ', 1)
        return server.leader_message(Stored(meta.seq + 1000, subject, b"", document, BEGAN))

    server.hook = hook
    assert sorted(info.name for info in await told(bucket)) == [f"n{n:03}" for n in range(COUNT)]


async def test_who_may_not_pull_reads_with_another_consumer(server: MemoryServer, bucket: Bucket) -> None:
    """Not name by name: the right to create consumers is there."""
    server.refused = {"CONSUMER.MSG.NEXT"}
    for pulled in (1, 0):
        server.verbs()
        assert len(await told(bucket)) == COUNT
        verbs = server.verbs()
        assert verbs.count("CONSUMER.MSG.NEXT") == pulled, "the refusal is remembered"
        assert verbs.count("STREAM.MSG.GET") == 1


async def test_names_under_several_subjects_are_looked_at_at_once(
    server: MemoryServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old clients wrote another alphabet, or left out the padding."""
    for info in await told(bucket):
        server.put_raw(meta_subject("b", info.name).rstrip("="), encode_meta(info), ROLL_UP)
    locate = Calls(bucket.locate)
    monkeypatch.setattr(Bucket, "locate", lambda self, *args: locate(*args))
    found = await told(bucket)
    assert len({info.name for info in found}) == len(found) == COUNT
    assert locate.most == LOOKS_AT_ONCE
