"""Renaming, in steps and in one batch: never a moment without a name, never two objects in one place."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from objstore import ObjectAlreadyExists, ObjectInfo, ObjectStore, OutcomeUnknownError
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.change.rename import _Batches, rename
from objstore.commit.commit import Conflict
from objstore.errors import StoreFullError
from objstore.format.codec import encode_meta
from objstore.format.marks import RENAMED_FROM, RENAMING
from objstore.format.naming import meta_subject
from support.memory_server import ROLL_UP, SILENCE, MemoryServer, error

OLD, NEW = meta_subject("b", "a"), meta_subject("b", "new")


def same(info: ObjectInfo) -> ObjectInfo:
    return info


@pytest.fixture(params=[False, True], ids=["steps", "batch"])
async def store(request: pytest.FixtureRequest, server: MemoryServer) -> ObjectStore:
    store = await server.bucket()
    server.stream().config["allow_atomic"] = request.param
    return store


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


async def live(store: ObjectStore) -> dict[str, bytes]:
    return {info.name: await store.get(info.name) for info in await store.list()}


async def test_it_has_its_new_name(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content", "d", metadata={"k": "v"})
    new = await rename(bucket, info, "new", same)
    assert await live(store) == {"new": b"content"}
    assert (new.name, new.nuid, new.description, dict(new.metadata)) == ("new", info.nuid, "d", {"k": "v"})
    found = await store.get_info("new")
    assert (found.revision, dict(found.metadata)) == (new.revision, {"k": "v"})
    assert server.chunks() == {info.nuid: 1}


async def test_with_a_change(store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content", "d")
    new = await rename(bucket, info, "new", lambda one: replace(one, description="e"))
    assert (new.description, (await store.get_info("new")).description) == ("e", "e")


async def test_a_forged_acknowledgement_of_the_new_name(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """The new meta was refused, and a peer said that it is stored: the old name stays."""
    if server.stream().config["allow_atomic"]:
        return  # both names change in one commit
    info = await store.put("a", b"content")
    bucket.retry_budget = 0.5

    def forge(subject: str, header: bytes, payload: bytes) -> dict[str, Any] | None:
        return {"stream": "OBJ_b", "seq": 999_999} if subject == NEW else None

    server.on_publish = forge
    with pytest.raises(OutcomeUnknownError):
        await rename(bucket, info, "new", same)
    server.on_publish = None
    assert await live(store) == {"a": b"content"}


async def test_there_is_always_a_name(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content")
    seen: list[tuple[bool, bool]] = []

    def alive(subject: str) -> bool:
        message = server.stream().last_of(subject)
        return message is not None and b'"deleted":true' not in message.payload

    def look(subject: str, header: bytes, payload: bytes) -> None:
        seen.append((alive(OLD), alive(NEW)))

    server.on_publish = look
    await rename(bucket, info, "new", same)
    assert all(old or new for old, new in seen)
    assert (True, False) in seen


@pytest.mark.parametrize("deleted", [False, True])
async def test_onto_what_is_there(store: ObjectStore, bucket: Bucket, deleted: bool) -> None:
    info = await store.put("a", b"content")
    other = await store.put("new", b"another")
    if deleted:
        await store.delete("new")
        await rename(bucket, info, "new", same)
        assert await live(store) == {"new": b"content"}
    else:
        with pytest.raises(ObjectAlreadyExists) as told:
            await rename(bucket, info, "new", same)
        assert told.value.revision == other.revision
        assert await live(store) == {"a": b"content", "new": b"another"}


async def test_the_old_object_was_changed(store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content")
    await store.put("a", b"newer")
    with pytest.raises(Conflict):
        await rename(bucket, info, "new", same)
    assert await live(store) == {"a": b"newer"}


async def test_a_step_that_is_refused(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    """Nothing was renamed, and no mark is left."""
    info = await store.put("a", b"content")
    full = error(503, 10077, "maximum bytes exceeded")

    def hook(subject: str, header: bytes, payload: bytes) -> Any:
        atomic = b"Nats-Batch-Commit" in header
        return full if (subject == NEW and b"Nats-Batch" not in header) or atomic else None

    server.on_publish = hook
    with pytest.raises(StoreFullError):
        await rename(bucket, info, "new", same)
    server.on_publish = None
    assert await live(store) == {"a": b"content"}
    assert dict((await store.get_info("a")).metadata) == {}


async def test_a_marker_that_is_refused_leaves_both(server: MemoryServer, store: ObjectStore) -> None:
    """Whoever changes one of them finishes it."""
    server.stream().config["allow_atomic"] = False  # in a batch there is no step in between
    bucket = await bind(server.js, "b")
    info = await store.put("a", b"content")
    server.on_publish = lambda subject, header, payload: (
        error(503, 10077, "maximum bytes exceeded") if b'"deleted":true' in payload else None
    )
    with pytest.raises(OutcomeUnknownError, match="has its new name 'new', and the old one still"):
        await rename(bucket, info, "new", same)
    server.on_publish = None
    marks = [dict((await bucket.read_meta(name)).metadata) for name in ("a", "new")]  # type: ignore[union-attr]
    assert marks[0][RENAMING] == "new"
    assert marks[1] == {RENAMED_FROM: "a"}
    assert (await store.gc(older_than=timedelta(0))).renames == [("a", "new")]
    assert await live(store) == {"new": b"content"}


async def test_cancelled_it_is_finished(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", b"content")
    task = asyncio.ensure_future(rename(bucket, info, "new", same))
    reached = asyncio.Event()
    server.on_publish = lambda subject, header, payload: reached.set()
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await live(store) == {"new": b"content"}


async def test_and_back_again(store: ObjectStore, bucket: Bucket) -> None:
    """The chunks were stored for the old name: nobody else may have them."""
    info = await store.put("a", b"content")
    new = await rename(bucket, info, "new", same)
    back = await rename(bucket, new, "a", same)
    assert back.nuid == info.nuid
    assert await live(store) == {"a": b"content"}


@pytest.mark.parametrize("taken", [False, True], ids=["full", "taken"])
async def test_a_mark_that_cannot_be_taken_off(server: MemoryServer, store: ObjectStore, taken: bool) -> None:
    """The next change of the name, or gc, may still finish it: no error says that nothing was renamed."""
    server.stream().config["allow_atomic"] = False
    bucket = await bind(server.js, "b")
    info = await store.put("a", b"content")
    marked: list[str] = []

    def hook(subject: str, header: bytes, payload: bytes) -> Any:
        marked.append(subject)
        return error(503, 10077, "maximum bytes exceeded") if len(marked) > 1 else None

    server.on_publish = hook
    with pytest.raises(OutcomeUnknownError, match="keeps the mark of it") as caught:
        await rename(bucket, info, "new", same)
    assert isinstance(caught.value.__cause__, StoreFullError)
    server.on_publish = None
    assert await live(store) == {"a": b"content"}
    if taken:
        await store.put("new", b"another object")
    await store.gc(older_than=timedelta(0))
    assert await live(store) == (
        {"a": b"content", "new": b"another object"} if taken else {"new": b"content"}
    )


@pytest.mark.parametrize("meanwhile", ["nothing", "replaced", "dropped"])
async def test_a_server_that_knows_no_batches(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, meanwhile: str
) -> None:
    """It has taken over: the new meta is stored by itself. Nobody knows yet that both names share chunks."""
    server.stream().config["allow_atomic"] = True
    bucket = await bind(server.js, "b")
    info = await store.put("a", b"content")

    def alone(subject: str, header: bytes, payload: bytes) -> Any:
        server.on_publish = None
        server.stream().config["allow_atomic"] = False
        if meanwhile == "dropped":  # the answer was forged
            return {"stream": "OBJ_b", "seq": 99}
        plain = re.sub(rb"Nats-Batch-[^\r]*\r\n", b"", header)
        seq = server.put_raw(subject, payload, plain)
        if meanwhile == "replaced":
            server.put_raw(meta_subject("b", "a"), encode_meta(replace(info, nuid="another")), ROLL_UP)
        return {"stream": "OBJ_b", "seq": seq}

    server.on_publish = alone
    if meanwhile == "replaced":
        with pytest.raises(Conflict):
            await rename(bucket, info, "new", same)
        assert [each.name for each in await store.list()] == ["a"]
        return
    new = await rename(bucket, info, "new", same)
    assert (new.name, new.revision) == ("new", (await store.get_info("new")).revision)
    assert await live(store) == {"new": b"content"}
    assert not bucket.atomic


@pytest.fixture
async def batches(server: MemoryServer) -> Bucket:
    """A bucket where renames are batches."""
    await server.bucket(allow_atomic=True)
    bucket = await bind(server.js, "b")
    bucket.retry_budget = 0.5
    return bucket


class Crowd:
    """Refuses the first message of each batch while others have all of them open; notes what is sent."""

    def __init__(self, server: MemoryServer, refused: int = 1 << 31) -> None:
        self.server = server
        self.left = refused
        self.batches = 0
        self.marks = 0
        server.on_publish = self

    def __call__(self, subject: str, header: bytes, payload: bytes) -> Any:
        self.marks += b"Natsproto-Renaming:" in header
        if b"Nats-Batch-Sequence: 1\r" not in header:
            return None
        self.batches += 1
        self.left -= 1
        return error(429, 10210, "atomic publish too many inflight") if self.left >= 0 else None


async def test_others_keep_all_batches_open(server: MemoryServer, batches: Bucket) -> None:
    """Steps do the same; and so they do at once, until it is time to look again."""
    store = ObjectStore(batches)
    await store.put("a", b"content")
    crowd = Crowd(server)
    await store.rename("a", "b")
    tried = crowd.batches
    assert tried > 1, "the server may take one a moment later"
    await store.rename("b", "c")
    assert await live(store) == {"c": b"content"}
    assert (crowd.batches, crowd.marks) == (tried, 2)
    crowd.left = 0
    batches.remembered(_Batches).open_until = 0.0
    await store.rename("c", "d")
    assert await live(store) == {"d": b"content"}
    assert (crowd.batches, crowd.marks) == (tried + 1, 2)
    assert server.chunks() == {(await store.get_info("d")).nuid: 1}


async def test_a_batch_that_must_wait(server: MemoryServer, batches: Bucket) -> None:
    batches.retry_budget = 20.0
    info = await ObjectStore(batches).put("a", b"content")
    crowd = Crowd(server, refused=2)
    await rename(batches, info, "new", same)
    assert (crowd.batches, crowd.marks) == (3, 0)
    assert await live(ObjectStore(batches)) == {"new": b"content"}


async def test_batches_that_are_no_longer_allowed(server: MemoryServer, batches: Bucket) -> None:
    info = await ObjectStore(batches).put("a", b"content")
    server.stream().config["allow_atomic"] = False
    await rename(batches, info, "new", same)
    assert await live(ObjectStore(batches)) == {"new": b"content"}
    assert not batches.atomic


@pytest.mark.parametrize("refused", [2, 1 << 31])
async def test_no_steps_after_a_batch_in_doubt(
    server: MemoryServer, batches: Bucket, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end got no answer: the server may still have it. Only the end of another one tells."""
    monkeypatch.setattr("objstore.change.rename.BATCH_WAIT", 0.0)
    info = await ObjectStore(batches).put("a", b"content")
    batches.js.timeout, batches.retry_budget = 0.02, 0.6 if refused > 2 else 20.0
    crowd = Crowd(server)
    crowd.left = 0

    def end(subject: str, header: bytes, payload: bytes) -> Any:
        if b"Nats-Batch-Commit" not in header:
            return crowd(subject, header, payload)
        crowd.left = refused
        server.on_publish = crowd
        return SILENCE

    server.on_publish = end
    if refused > 2:
        with pytest.raises(OutcomeUnknownError):
            await rename(batches, info, "new", same)
        assert await live(ObjectStore(batches)) == {"a": b"content"}
    else:
        await rename(batches, info, "new", same)
        assert (crowd.batches, await live(ObjectStore(batches))) == (4, {"new": b"content"})
    assert crowd.marks == 0


async def test_somebody_else_ends_the_batch(server: MemoryServer, store: ObjectStore) -> None:
    """Its id is seen with the first message: the new meta is committed, and the old name is as before."""
    server.stream().config["allow_atomic"] = True
    bucket = await bind(server.js, "b")
    info = await store.put("a", b"content")

    server.end_batch_early()
    new = await rename(bucket, info, "new", same)
    assert (new.name, new.revision) == ("new", (await store.get_info("new")).revision)
    assert await live(store) == {"new": b"content"}
    await store.put("a", b"another object")
    assert await live(store) == {"a": b"another object", "new": b"content"}
