"""Who may remove which chunks: a meta's word is enough for those that were stored for its name alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError
from objstore import ObjectInfo, ObjectMeta, ObjectStore, OutcomeUnknownError
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.numbered import GONE
from objstore.commit.discard import COMMIT_TIME, discard, purge_metas, remove_older
from objstore.commit.renames import commit_meta
from objstore.format.codec import encode_meta
from objstore.format.marks import MOVED, RENAMED_FROM, RENAMING
from objstore.format.naming import meta_subject, meta_subjects, new_nuid
from support.memory_server import MemoryServer, error


class World:
    """A bucket with one object, as everybody sees it."""

    def __init__(self, server: MemoryServer, store: ObjectStore, bucket: Bucket, info: ObjectInfo) -> None:
        self.server = server
        self.store = store
        self.bucket = bucket
        self.info = info

    @property
    def there(self) -> bool:
        return self.info.nuid in self.server.chunks()


@pytest.fixture
async def world(server: MemoryServer) -> World:
    store = await server.bucket()
    info = await store.put("a", b"content")
    return World(server, store, await bind(server.js, "b"), info)


async def test_its_own_chunks_go_at_once(world: World) -> None:
    world.server.verbs()
    await discard(world.bucket, world.info, "test")
    assert not world.there
    assert world.server.verbs() == ["STREAM.PURGE"]


async def test_what_is_newer_than_the_meta_stays(world: World) -> None:
    """An upload goes on with it."""
    seq = world.server.put_raw(f"$O.b.C.{world.info.nuid}", b"newer")
    await discard(world.bucket, world.info, "test")
    assert [each.seq for each in world.server.stream().of("$O.b.C.*")] == [seq]


@pytest.mark.parametrize("nuid", ["", "*", ">", "a.b"])
async def test_what_is_no_nuid_removes_nothing(
    world: World, nuid: str, caplog: pytest.LogCaptureFixture
) -> None:
    await discard(world.bucket, replace(world.info, nuid=nuid), "test")
    assert world.there
    assert bool(caplog.records) == bool(nuid)


async def test_links_have_none(world: World) -> None:
    link = await world.store.add_link("l", world.info)
    world.server.verbs()
    await discard(world.bucket, link, "test")
    assert world.server.verbs() == []


@pytest.mark.parametrize("filed", [None, "elsewhere"])
async def test_another_objects_chunks(
    world: World, filed: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A forged meta of another name, or one that lies where no put of its name would meet it."""
    name = "forged" if filed is None else "a"
    forged = replace(world.info, name=name, revision=world.server.stream().seq + 1)
    await discard(world.bucket, forged, "delete", filed and meta_subject("b", "?"))
    assert world.there
    assert "another object names them" in caplog.text


async def test_a_put_that_may_be_about_to_name_them(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Its chunks are stored, and its meta is on its way; an hour later it is not any more."""
    stream = world.server.stream()
    stream.remove(each.seq for each in stream.of("$O.b.M.*"))
    forged = replace(world.info, name="forged", revision=stream.seq + 1)
    await discard(world.bucket, forged, "delete")
    assert world.there
    assert "may be about to name them" in caplog.text
    world.server.ahead = COMMIT_TIME + timedelta(minutes=1)
    await world.store.put("clock", b"")
    await discard(world.bucket, forged, "delete")
    assert not world.there


async def test_chunks_of_an_upload_wait_longer(world: World) -> None:
    nuid = new_nuid("up")
    world.server.put_raw(f"$O.b.C.{nuid}", b"x", b"NATS/1.0\r\nNats-Msg-Id: s.0\r\n\r\n")
    forged = replace(world.info, name="forged", nuid=nuid, revision=world.server.stream().seq + 1)
    world.server.ahead = COMMIT_TIME + timedelta(minutes=1)
    await world.store.put("clock", b"")
    await discard(world.bucket, forged, "delete")
    assert nuid in world.server.chunks()
    world.server.ahead = GONE + timedelta(minutes=1)
    await world.store.put("clock", b"")
    await discard(world.bucket, forged, "delete")
    assert nuid not in world.server.chunks()


async def test_another_clients_chunks(world: World) -> None:
    """Its nuids prove nothing by themselves: they go when nobody else names them."""
    world.server.put_raw("$O.b.C.FOREIGN", b"x")
    info = replace(world.info, name="f", nuid="FOREIGN", revision=world.server.stream().seq + 1)
    await discard(world.bucket, info, "delete")
    assert "FOREIGN" not in world.server.chunks()


async def test_more_were_stored_since(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.server.put_raw("$O.b.C.FOREIGN", b"x")
    info = replace(world.info, name="f", nuid="FOREIGN", revision=1)
    await discard(world.bucket, info, "delete")
    assert "FOREIGN" in world.server.chunks()
    assert "stored more of them since" in caplog.text


async def test_an_object_that_was_renamed(world: World) -> None:
    """Its chunks were stored for the old name, whose delete marker says where they went."""
    await world.store.rename("a", "new")
    info = await world.store.get_info("new")
    other = await bind(world.server.js, "b")
    message = await other.leader_meta("a")
    assert message is not None
    assert message.metadata[MOVED] == world.info.nuid
    stream = world.server.stream()
    stream.remove(each.seq for each in stream.of(meta_subject("b", "new")))
    await discard(other, info, "delete")
    assert not world.there


@pytest.mark.parametrize("mark", [RENAMING, RENAMED_FROM])
async def test_both_ends_of_a_rename_share_them(world: World, mark: str) -> None:
    bucket = world.bucket
    await commit_meta(bucket, replace(world.info, name="new", metadata={RENAMED_FROM: "a"}), 0)
    marked = replace(world.info, metadata={mark: "new"})
    await discard(bucket, marked, "delete")
    assert world.there


async def test_a_failure_is_logged_and_not_raised(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.server.hook = lambda verb, body: error(400, 10110, "no") if verb == "STREAM.PURGE" else None
    await discard(world.bucket, world.info, "delete")
    assert world.there
    (record,) = caplog.records
    assert "are left behind" in record.getMessage()


async def test_freeing_a_name(world: World) -> None:
    subject = meta_subject("b", "a")
    assert await purge_metas(world.bucket, subject, world.info.revision - 1) == 0
    assert await purge_metas(world.bucket, subject, world.info.revision) == 1
    answers: list[Any] = [error(503, 10008, "unavailable")]
    world.server.hook = lambda verb, body: answers.pop() if answers else None
    assert await purge_metas(world.bucket, subject, 99) is None, "whether it was the first try is not known"


async def test_older_metas_under_other_subjects(server: MemoryServer) -> None:
    """They go before the newest one is changed, and what only they name goes as well."""
    name = "größe?"
    store = await server.bucket()
    bucket = await bind(server.js, "b")
    own, other = meta_subjects("b", name)[:2]
    server.put_raw("$O.b.C.FOREIGN", b"x")
    older = bucket.template(name, (None, None, None, None), (await store.put("t", b"x")).options)  # type: ignore[arg-type]
    server.put_raw(other, encode_meta(replace(older, nuid="FOREIGN", size=1, chunks=1)))
    server.put_raw(own, encode_meta(replace(older, nuid="NEWEST")))
    lookup = bucket.start_locating(name)
    message = (await lookup.wait())[1]
    assert message is not None
    await remove_older(bucket, lookup, bucket.decode(message))
    assert [each.subject for each in server.stream().of(other)] == []
    assert "FOREIGN" not in server.chunks()
    assert len(server.stream().of(own)) == 1
    server.verbs()
    await remove_older(bucket, bucket.start_locating("t"), None)
    assert "STREAM.PURGE" not in server.verbs()
    await store.update_meta("t", ObjectMeta("t", "still there"))


async def test_refused_after_a_lost_answer(world: World) -> None:
    """The first request may have been carried out, so the refusal of the second one proves nothing."""
    answers: list[Any] = [error(403, 10110, "stream purge not permitted"), error(503, 10008, "unavailable")]
    world.server.hook = lambda verb, body: answers.pop() if answers else None
    with pytest.raises(OutcomeUnknownError, match=r"could not be found out: .* stream purge not"):
        await purge_metas(world.bucket, meta_subject("b", "a"), world.info.revision)


@pytest.mark.parametrize("certain", [False, True])
async def test_a_refusal_that_may_be_anothers(
    world: World, monkeypatch: pytest.MonkeyPatch, certain: bool
) -> None:
    refusal = PermissionsViolationError("no", subject="$JS.API.STREAM.PURGE.OBJ_b", operation="publish")
    refusal.certain = certain

    async def refused(*args: object, **more: object) -> int:
        raise refusal

    monkeypatch.setattr(world.bucket.js, "purge_stream", refused)
    with pytest.raises(PermissionsViolationError if certain else OutcomeUnknownError):
        await purge_metas(world.bucket, meta_subject("b", "a"), world.info.revision)
