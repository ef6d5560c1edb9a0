"""Changing metadata, renaming, making links, deleting; and metas that want to do harm."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from natsproto.errors import InvalidNameError, MaxPayloadError
from natsproto.jetstream.context import JetStreamContext
from objstore import (
    BadBucketError,
    BadObjectMetaError,
    BucketNotFoundError,
    LinkError,
    ObjectAlreadyExists,
    ObjectDeletedError,
    ObjectInfo,
    ObjectLink,
    ObjectMeta,
    ObjectMetaOptions,
    ObjectNotFoundError,
    ObjectStore,
    RevisionConflictError,
)
from support.objects import (
    CHUNK,
    assert_exact,
    chunk_counts,
    chunk_subject,
    forge,
    meta_subject,
    pattern,
    read_raw,
    stream,
    write_raw,
)

DATA = pattern(3 * CHUNK)


# -- update_meta --------------------------------------------------------------------------------------


async def test_none_keeps_and_empty_clears(store: ObjectStore) -> None:
    """T22: headers and metadata are not ignored."""
    first = await store.put(
        "a", DATA, "about", "f.bin", {"K": ["1", "2"]}, metadata={"m": "1"}, chunk_size=100_000
    )
    kept = await store.update_meta("a", ObjectMeta("a"))
    assert kept.revision > first.revision
    for info in (kept, await store.get_info("a")):
        assert (info.description, info.filename, dict(info.metadata)) == (
            "about",
            "f.bin",
            {"m": "1", "filename": "f.bin"},
        )
        assert info.headers == {"K": ["1", "2"]}
        assert (info.nuid, info.size, info.chunks, info.digest) == (
            first.nuid,
            first.size,
            first.chunks,
            first.digest,
        )
        assert info.options == ObjectMetaOptions(max_chunk_size=100_000)
    await store.update_meta("a", ObjectMeta("a", "new", {"X": "y"}, metadata={"n": "2"}, filename="g"))
    info = await store.get_info("a")
    assert (info.description, info.headers, info.metadata) == ("new", {"X": "y"}, {"n": "2", "filename": "g"})
    await store.update_meta("a", ObjectMeta("a", "", {}, metadata={}, filename=""))
    info = await store.get_info("a")
    assert (info.description, info.headers, info.metadata) == (None, None, {})
    assert {"description", "headers", "metadata"}.isdisjoint(await read_raw(store, "a"))
    assert await store.get("a") == DATA
    await assert_exact(store)


async def test_unknown_keys_survive(store: ObjectStore) -> None:
    await store.put("a", b"1")
    await forge(store, "a", future={"x": [1]}, revision=99)
    await store.update_meta("a", ObjectMeta("a", "d"))
    document = await read_raw(store, "a")
    assert document["future"] == {"x": [1]}
    assert "revision" not in document


async def test_update_refused(store: ObjectStore) -> None:
    await store.put("gone", b"")
    await store.delete("gone")
    first = await store.put("a", b"1")
    second = await store.update_meta("a", ObjectMeta("a", "2"), if_revision=first.revision)
    with pytest.raises(RevisionConflictError):
        await store.update_meta("a", ObjectMeta("a", "3"), if_revision=first.revision)
    with pytest.raises(ObjectNotFoundError):
        await store.update_meta("missing", ObjectMeta("missing"))
    with pytest.raises(ObjectDeletedError):
        await store.update_meta("gone", ObjectMeta("gone"))
    with pytest.raises(BadObjectMetaError):
        await store.update_meta("a", {"name": "a"})  # type: ignore[arg-type]
    with pytest.raises(BadObjectMetaError):
        await store.update_meta("a", ObjectMeta("a", headers={"x": 5}))  # type: ignore[dict-item]
    with pytest.raises(InvalidNameError):
        await store.update_meta("a", ObjectMeta(""))
    with pytest.raises((MaxPayloadError, BadObjectMetaError)):
        await store.update_meta("a", ObjectMeta("a", "x" * 2_000_000))
    with pytest.raises((MaxPayloadError, BadObjectMetaError)):
        await store.put("a", b"1", "x" * 2_000_000)
    info = await store.get_info("a")
    assert (info.revision, info.description) == (second.revision, "2")


async def test_times_and_revisions(store: ObjectStore) -> None:
    """``mtime`` is the server's; what the JSON says does not count (T21)."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    put = await store.put("a", b"1")
    info = await store.get_info("a")
    message = await store.js.get_message(stream(store), last_by_subject=meta_subject(store, "a"))
    assert info.mtime == message.time
    assert put.revision == info.revision == message.seq
    for mtime in ("0001-01-01T00:00:00Z", "", None, "rubbish", 5):
        await forge(store, "a", mtime=mtime)
        info = await store.get_info("a")
        assert before < info.mtime < datetime.now(UTC) + timedelta(seconds=1)
        assert info.mtime.utcoffset() == timedelta(0)
        assert await store.get("a") == b"1"


# -- rename: D9 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b", "ü/🙂 b", "x" * 2900])
async def test_rename(store: ObjectStore, name: str) -> None:
    first = await store.put("a", DATA, "d", headers={"k": "v"})
    info = await store.update_meta("a", ObjectMeta(name, "e"))
    assert (info.name, info.nuid, info.description, info.headers) == (name, first.nuid, "e", {"k": "v"})
    assert info.revision == (await store.get_info(name)).revision
    assert await store.get(name) == DATA
    with pytest.raises(ObjectDeletedError):
        await store.get_info("a")
    assert [found.name for found in await store.list()] == [name]
    await assert_exact(store)
    await store.put("a", b"next")
    assert await store.get(name) == DATA
    await store.delete("a")
    assert await store.get(name) == DATA
    await store.put(name, b"over")
    await assert_exact(store)


async def test_rename_there_and_back(store: ObjectStore) -> None:
    await store.put("a", DATA)
    for old, new in (("a", "b"), ("b", "c"), ("c", "a"), ("a", "b")):
        await store.update_meta(old, ObjectMeta(new))
        assert await store.get(new) == DATA
        await assert_exact(store)
    await store.delete("b")
    assert await chunk_counts(store) == {}


async def test_rename_onto(store: ObjectStore) -> None:
    """A live target is refused and nothing has changed; a deleted one is taken."""
    await store.put("a", DATA)
    taken = await store.put("b", b"other")
    with pytest.raises(ObjectAlreadyExists) as caught:
        await store.update_meta("a", ObjectMeta("b"))
    assert caught.value.revision == taken.revision
    assert await store.get("a") == DATA
    assert await store.get("b") == b"other"
    await store.delete("b")
    await store.update_meta("a", ObjectMeta("b"))
    assert await store.get("b") == DATA
    with pytest.raises(ObjectDeletedError):
        await store.update_meta("a", ObjectMeta("c"))
    with pytest.raises(ObjectNotFoundError):
        await store.update_meta("missing", ObjectMeta("c"))
    await assert_exact(store)


async def test_rename_if_revision(store: ObjectStore) -> None:
    first = await store.put("a", b"1")
    second = await store.put("a", b"2")
    with pytest.raises(RevisionConflictError):
        await store.update_meta("a", ObjectMeta("b"), if_revision=first.revision)
    await store.update_meta("a", ObjectMeta("b"), if_revision=second.revision)
    assert await store.get("b") == b"2"


async def test_rename_onto_unrelated_metas_without_nuid(store: ObjectStore) -> None:
    """Two metas without a nuid are not two ends of one rename."""
    for name, target in (("a", "x"), ("b", "y")):
        link = {"bucket": store.bucket, "name": target}
        await write_raw(
            store.js, meta_subject(store, name), {"name": name, "bucket": "z", "options": {"link": link}}
        )
    with pytest.raises(ObjectAlreadyExists):
        await store.update_meta("a", ObjectMeta("b"))
    assert (await store.get_info("b")).links == [f"{store.bucket}/y"]


async def half_renamed(store: ObjectStore, steps: int, *, early: bool = False) -> None:
    """What a client leaves that died after ``steps`` steps of renaming ``a`` to ``b``.

    ``early``: by an early version of this library, which wrote the marks into the metadata.
    """

    async def write(name: str, marks: dict[str, str]) -> None:
        changed = {**document, "name": name}
        if early:
            changed["metadata"] = marks
        await write_raw(store.js, meta_subject(store, name), changed, marks={} if early else marks)

    await store.put("a", DATA)
    document = await read_raw(store, "a")
    await write("a", {"natsproto.renaming": "b"})
    if steps == 2:
        await write("b", {"natsproto.renamed-from": "a"})


async def told(store: ObjectStore, name: str) -> list[ObjectInfo]:
    """What each call tells of the name."""
    found = [await store.get_info(name, show_deleted=True)]
    found += [info for info in await store.list(include_deleted=True) if info.name == name]
    found += [info async for info in store.iter(include_deleted=True) if info.name == name]
    async with store.watch(prefix=name) as watcher:
        found.append(await anext(watcher))
    if not found[0].deleted:
        found += (await store.list_dirs(name)).objects
        async with store.open_reader(name) as reader:
            found.append(reader.info)
    return found


@pytest.mark.parametrize(("steps", "early"), [(1, False), (1, True), (2, False), (2, True), (3, False)])
async def test_the_marks_of_a_rename_are_nobodys_metadata(
    store: ObjectStore, steps: int, early: bool
) -> None:
    """They stay where they are needed, and are told nowhere."""
    if steps < 3:
        await half_renamed(store, steps, early=early)
    else:
        await store.put("a", DATA)
        await store.rename("a", "b")
    names = ["a", "b"] if steps > 1 else ["a"]
    for name in names:
        assert ("natsproto." in str(await read_raw(store, name))) == early, "other clients would show it"
    marked = await store.bound_bucket.leader_meta("a")
    assert marked is not None
    assert marked.metadata
    seen = [info for name in names for info in await told(store, name)]
    assert len(seen) >= 4 * len(names)
    assert [dict(info.metadata) for info in seen] == [{}] * len(seen)
    new = "b" if steps == 1 else "c"  # the same rename goes on
    assert (await store.rename(names[-1], new)).metadata == {}
    assert await contents(store) == {new: DATA}


async def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.name: await store.get(info.name) for info in await store.list()}


CUT_SHORT = [
    (steps, name, verb)
    for steps, name in ((1, "a"), (1, "b"), (2, "a"), (2, "b"))
    for verb in ("put", "put empty", "delete", "rename", "rename elsewhere", "update")
    if (steps, name) != (1, "b") or verb.startswith("put")  # there is no b yet
]


@pytest.mark.parametrize(("steps", "name", "verb"), CUT_SHORT)
async def test_rename_cut_short(store: ObjectStore, steps: int, name: str, verb: str) -> None:
    """Whoever comes next completes it: nothing is lost, nothing is left over."""
    await half_renamed(store, steps, early=verb == "put empty")
    if verb == "put":
        await store.put(name, b"new")
    elif verb == "put empty":
        await store.put(name, b"")
    elif verb == "delete":
        await store.delete(name)
    elif verb == "rename" and name == "a":
        await store.update_meta("a", ObjectMeta("b"))  # the same once more
    elif verb == "rename":
        await store.update_meta("b", ObjectMeta("a"))  # and back
    elif name == "a":  # the rename took place before: there is no a any more
        changed = ObjectMeta("c") if verb == "rename elsewhere" else ObjectMeta("a", "updated", metadata={})
        with pytest.raises(ObjectDeletedError):
            await store.update_meta("a", changed)
    elif verb == "rename elsewhere":
        await store.update_meta(name, ObjectMeta("c"))
    else:
        await store.update_meta(name, ObjectMeta(name, "updated", metadata={}))
    found = await contents(store)
    new = {"put": b"new", "put empty": b""}
    if verb in new and (steps, name) == (1, "b"):
        assert found == {"a": DATA, "b": new[verb]}  # b was free: that rename has failed
    elif verb in new and name == "a":
        assert found == {"a": new[verb], "b": DATA}
    elif verb in new:
        assert found == {"b": new[verb]}
    elif verb == "delete":
        assert found == ({"b": DATA} if name == "a" else {})
    elif verb == "rename":
        assert found == ({"b": DATA} if name == "a" else {"a": DATA})
    elif verb == "rename elsewhere":
        assert found == ({"b": DATA} if name == "a" else {"c": DATA})
    else:
        assert found == {"b": DATA}
    await assert_exact(store)
    for left in list(found):
        await store.delete(left)
    assert await store.list() == []
    if (verb, name) in (("put", "a"), ("put empty", "a")) or (verb in new and steps == 1):
        # "a" tells nothing of the rename any more: whether a put of it is under way, only the age tells. Or
        # it bears the mark of a rename whose new meta may still be on its way.
        assert len((await store.gc(older_than=timedelta(0))).orphans) == 1
    assert await chunk_counts(store) == {}


# -- links --------------------------------------------------------------------------------------------


async def test_add_link(store: ObjectStore, js: JetStreamContext) -> None:
    target = await store.put("target", DATA)
    info = await store.add_link("l", target, description="d")
    assert info.revision == (await store.get_info("l")).revision
    document = await read_raw(store, "l")
    assert document["options"] == {"link": {"bucket": store.bucket, "name": "target"}}
    assert (document["size"], document["chunks"], "digest" in document) == (0, 0, False)
    assert document["description"] == "d"
    await store.add_link("l", ObjectLink(store.bucket, "target"))  # a link replaces a link
    await store.delete("l")
    await store.add_link("l", target)  # and a delete marker
    await store.put("gone", b"")
    await store.delete("gone")
    for name, link, error in (
        ("target", ObjectLink(store.bucket, "target"), ObjectAlreadyExists),
        ("x", ObjectLink(store.bucket, "missing"), ObjectNotFoundError),
        ("x", ObjectLink(store.bucket, "gone"), ObjectDeletedError),
        ("x", ObjectLink(store.bucket, "l"), LinkError),
        ("x", ObjectLink("nowhere", "a"), BucketNotFoundError),
        ("x", ObjectLink("bad bucket", "a"), BadBucketError),
        ("x", ObjectLink(store.bucket, ""), InvalidNameError),
        ("", ObjectLink(store.bucket, "target"), InvalidNameError),
        ("x", ObjectLink(store.bucket), BadObjectMetaError),
        ("x", "target", BadObjectMetaError),
    ):
        with pytest.raises(error):
            await store.add_link(name, link)  # type: ignore[arg-type]
    assert await store.get("target") == DATA
    await store.put("l", b"an object now")
    assert await store.get("l") == b"an object now"
    await assert_exact(store)


async def test_bucket_link(store: ObjectStore) -> None:
    info = await store.add_bucket_link("l", "somewhere-else", description="d")
    assert info.links == ["somewhere-else"]
    document = await read_raw(store, "l")
    assert document["options"]["link"] == {"bucket": "somewhere-else", "name": None}
    with pytest.raises(LinkError, match="open that bucket"):
        await store.get("l")
    await store.put("object", b"1")
    with pytest.raises(ObjectAlreadyExists):
        await store.add_bucket_link("object", "b")
    for bad in ("", "a b", "a\n", "a.b"):
        with pytest.raises(BadBucketError):
            await store.add_bucket_link("m", bad)


async def test_link_by_update_meta(store: ObjectStore) -> None:
    await store.put("target", DATA)
    options = ObjectMetaOptions(ObjectLink(store.bucket, "target"))
    info = await store.update_meta("new", ObjectMeta("new", "d", {"h": "v"}, options))
    assert (info.links, info.description, info.headers) == ([f"{store.bucket}/target"], "d", {"h": "v"})
    assert await store.get("new") == DATA
    with pytest.raises(ObjectAlreadyExists):
        await store.update_meta("target", ObjectMeta("target", options=options))
    with pytest.raises(BadObjectMetaError):
        await store.update_meta("new", ObjectMeta("other", options=options))
    info = await store.update_meta("new", ObjectMeta("new", "e"))  # without a link it stays one
    assert (info.links, info.description) == ([f"{store.bucket}/target"], "e")
    await store.update_meta("new", ObjectMeta("renamed"))
    assert await store.get("renamed") == DATA
    await store.delete("renamed")
    assert await store.get("target") == DATA


# -- delete: D8 ---------------------------------------------------------------------------------------


async def test_delete(store: ObjectStore) -> None:
    await store.put("a", DATA, "about", headers={"k": "v"})
    assert await store.delete("a") is True
    document = await read_raw(store, "a")
    assert (document["deleted"], document["size"], document["chunks"]) == (True, 0, 0)
    assert "digest" not in document or document["digest"] == ""
    assert document["mtime"]  # T2
    assert (document["description"], document["headers"]) == ("about", {"k": ["v"]})
    assert await chunk_counts(store) == {}
    with pytest.raises(ObjectDeletedError):
        await store.delete("a")
    with pytest.raises(ObjectNotFoundError):
        await store.delete("missing")
    info = await store.put("a", b"again")
    assert not info.deleted
    assert await store.get("a") == b"again"


@pytest.mark.parametrize(
    "nuid", [">", "*", "a.b", "", "x>", ">.>", " ", "a\r\nb", "é", "x" * 65, None, "C.>"]
)
async def test_forged_nuid(store: ObjectStore, nuid: str | None) -> None:
    """S13: the text of a stored meta never becomes a purge of other objects."""
    await store.put("other", DATA)
    await store.put("a", b"1")
    for verb in ("delete", "put", "rename", "update", "if_revision"):
        revision = await forge(store, "a", nuid=nuid, deleted=False, size=5, chunks=7, metadata={})
        if verb == "delete":
            await store.delete("a")
        elif verb == "put":
            await store.put("a", b"2")
        elif verb == "rename":
            await store.update_meta("a", ObjectMeta("b"))
            await store.delete("b")
        elif verb == "if_revision":
            await store.put("a", b"3", if_revision=revision)
        else:
            await store.update_meta("a", ObjectMeta("a", "d"))
        assert await store.get("other") == DATA
    counts = await chunk_counts(store)
    assert sorted(counts.values()) == [1, 1, 1, 3]  # two of them became orphans by the forging itself


async def test_forged_rename_marks(store: ObjectStore) -> None:
    """Anybody can write the marks of a rename: they lead to nothing but what they name, checked."""
    await store.put("other", DATA)
    for mark in ("other", "a", "", "\ud800", "x" * 5000, "missing"):
        await store.put("a", b"1")
        await forge(store, "a", metadata={"natsproto.renaming": mark, "natsproto.renamed-from": mark})
        await store.put("a", b"2")
        assert await store.get("a") == b"2"
        assert await store.get("other") == DATA
    await store.delete("a")
    assert await store.get("other") == DATA


async def test_meta_of_another_bucket_and_name(store: ObjectStore) -> None:
    """What a meta claims about its bucket does not count; a wrong name makes it unreadable."""
    await store.put("a", DATA)
    await forge(store, "a", bucket="elsewhere")
    info = await store.get_info("a")
    assert info.bucket == store.bucket
    assert await store.get("a") == DATA
    await store.delete("a")
    assert await chunk_counts(store) == {}
    kept = await store.put("b", DATA)
    await forge(store, "b", name="c")
    await store.delete("b")  # unreadable: only the message goes
    assert await chunk_counts(store) == {kept.nuid: 3}
    await store.js.purge_stream(stream(store), subject=chunk_subject(store, kept.nuid))
    await assert_exact(store)


async def test_metas_filed_elsewhere(store: ObjectStore) -> None:
    """T9: nats.java encodes names with the standard alphabet, old clients without padding."""
    import base64

    name = "??>>~ü"
    subject = f"$O.{store.bucket}.M." + base64.b64encode(name.encode()).decode()
    assert subject != meta_subject(store, name)
    await store.put("a", DATA)
    document = {**await read_raw(store, "a"), "name": name, "nuid": "A" * 22}
    await store.delete("a")
    for at in range(0, len(DATA), CHUNK):
        await store.js.publish(chunk_subject(store, "A" * 22), DATA[at : at + CHUNK])
    await write_raw(store.js, subject, document)
    assert (await store.get_info(name)).size == len(DATA)
    assert await store.get(name) == DATA
    assert [info.name for info in await store.list()] == [name]
    await store.update_meta(name, ObjectMeta(name, "d"))
    assert [info.description for info in await store.list()] == ["d"]
    await store.delete(name)
    with pytest.raises(ObjectDeletedError):
        await store.get(name)
    await assert_exact(store)


async def test_writers_without_rollup(store: ObjectStore) -> None:
    """T7: nats.js leaves several metas on a subject; the newest counts, once."""
    await store.put("a", DATA)
    document = await read_raw(store, "a")
    for n in range(3):
        document["description"] = str(n)
        await write_raw(store.js, meta_subject(store, "a"), document, rollup=False)
    assert [info.description for info in await store.list()] == ["2"]
    assert (await store.get_info("a")).description == "2"
    assert (await store.status()).count == 1
    await store.delete("a")
    assert await store.list() == []
    await assert_exact(store)


async def test_no_call_hangs_on_a_missing_bucket(js: JetStreamContext, bucket_name: str) -> None:
    store = await js.create_object_store(bucket=bucket_name)
    await js.delete_object_store(bucket_name)
    calls: dict[str, Any] = {
        "put": lambda: store.put("a", DATA),
        "put empty": lambda: store.put("a", b""),
        "create": lambda: store.create("a", DATA),
        "get": lambda: store.get("a"),
        "get_info": lambda: store.get_info("a"),
        "exists": lambda: store.exists("a"),
        "delete": lambda: store.delete("a"),
        "list": store.list,
        "status": store.status,
        "seal": store.seal,
        "update_meta": lambda: store.update_meta("a", ObjectMeta("a")),
        "rename": lambda: store.update_meta("a", ObjectMeta("b")),
        "add_link": lambda: store.add_link("a", ObjectLink(bucket_name, "b")),
        "add_bucket_link": lambda: store.add_bucket_link("a", "b"),
        "watch": lambda: store.watch().start(),
    }
    for call in calls.values():
        async with asyncio.timeout(15):
            with pytest.raises(BucketNotFoundError):
                await call()
