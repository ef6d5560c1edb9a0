"""Who asks whether another object names some chunks: what one look has read serves the next ones as well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError, RequestTimeoutError, StaleConnectionError
from natsproto.server import LocalServer
from objstore import BadObjectMetaError, ObjectInfo, ObjectMeta, ObjectStore
from objstore.bucket.bucket import Bucket
from objstore.commit import references as reading
from objstore.commit import scan as looking
from objstore.commit.references import References
from objstore.commit.scan import Scan
from support.objects import assert_exact, chunk_counts, chunk_subject, meta_subject, read_raw, write_raw

NAMES = 60
"""More than are read one after the other."""


@pytest.fixture
async def spread(store: ObjectStore) -> ObjectStore:
    """Some names, as of a bucket with replicas: there a direct get proves nothing."""
    await asyncio.gather(*(store.put(f"n{number}", b"x") for number in range(NAMES)))
    store._bucket.replicated, store._bucket.direct_meta = True, False
    return store


@pytest.fixture(params=[False, True], ids=["one server", "replicas"])
async def many(spread: ObjectStore, request: pytest.FixtureRequest) -> ObjectStore:
    spread._bucket.replicated = request.param
    spread._bucket.direct_meta = spread._bucket.direct and not request.param
    return spread


async def foreign(store: ObjectStore, name: str, nuid: str = "") -> str:
    """An object of another client, whose nuid says nothing of its name."""
    nuid = nuid or f"{name:A<22}"
    await store.put("model", b"content")
    document = await read_raw(store, "model")
    await store.js.publish(chunk_subject(store, nuid), b"content")
    await write_raw(store.js, meta_subject(store, name), {**document, "name": name, "nuid": nuid})
    return nuid


async def names_it(store: ObjectStore, name: str, nuid: str) -> None:
    """Another meta, with other chunks."""
    document = await read_raw(store, "model")
    await write_raw(store.js, meta_subject(store, name), {**document, "name": name, "nuid": nuid})


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The subjects of all metas that looks have read."""
    subjects: list[str] = []
    take = References._take

    def noted(self: References, bucket: Bucket, message: Any) -> None:
        subjects.append(message.subject)
        take(self, bucket, message)

    monkeypatch.setattr(References, "_take", noted)
    return subjects


async def test_the_next_look_reads_only_what_is_new(many: ObjectStore, taken: list[str]) -> None:
    for name in ("f0", "f1", "f2", "f3"):
        nuid = await foreign(many, name)
        taken.clear()
        await many.delete(name)
        assert nuid not in await chunk_counts(many)
        assert (
            len(taken) > NAMES
            if name == "f0"
            else set(taken) <= {meta_subject(many, each) for each in ("model", name)}
        )


async def test_what_was_stored_since_is_seen(many: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    """By new names and old ones, few and many."""
    await foreign(many, "first")
    await many.delete("first")
    for number, names in enumerate((["new"], ["n7"], [f"n{number}" for number in range(NAMES)])):
        nuid = await foreign(many, f"f{number}")
        for name in names:
            await names_it(many, name, nuid)
        await many.delete(f"f{number}")
        assert nuid in await chunk_counts(many)
        assert caplog.text.count("another object names them") == number + 1


async def test_an_object_that_was_renamed_since(many: ObjectStore) -> None:
    """What named the chunks at the first look is gone at the second one; they have another name."""
    nuid = await foreign(many, "f")
    await names_it(many, "forged", nuid)
    await many.delete("forged")
    await many.rename("f", "g")
    await names_it(many, "forged", nuid)
    await many.delete("forged")
    assert await many.get("g") == b"content"


async def test_a_meta_that_was_removed_without_a_newer_one(many: ObjectStore) -> None:
    """It is known from an earlier look, and names nothing any more."""
    nuid = await foreign(many, "f")
    await names_it(many, "second", nuid)
    await foreign(many, "g")
    await many.delete("g")
    assert many._bucket.remembered(Scan)._references is not None
    assert many._bucket.remembered(Scan)._references.named(nuid)
    await many.js.purge_stream(f"OBJ_{many.bucket}", subject=meta_subject(many, "second"))
    await many.delete("f")
    assert nuid not in await chunk_counts(many)


@pytest.mark.parametrize("why", ["leader", "lost", "connection"])
async def test_what_need_not_hold_any_more_is_read_again(many: ObjectStore, why: str) -> None:
    """Another leader, a stream that has lost its end, another connection."""
    await foreign(many, "first")
    await many.delete("first")
    nuid = await foreign(many, "f")
    await names_it(many, "other", nuid)
    look = many._bucket.remembered(Scan)
    assert look._references is not None
    epoch, created, leader = look._of
    look._references.cursor = (await many.js.stream_info(f"OBJ_{many.bucket}")).last_seq
    look._references.cursor += 100 if why == "lost" else 0
    if why != "lost":
        look._of = (epoch, created, "another") if why == "leader" else (-1, created, leader)
    await many.delete("f")
    assert nuid in await chunk_counts(many)


async def test_a_marker_that_is_gone_tells_nothing(
    many: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    info = await many.put("old", b"x")
    await many.rename("old", "new")
    await foreign(many, "f")
    await many.delete("f")
    await many.js.purge_stream(f"OBJ_{many.bucket}", subject=meta_subject(many, "old"))
    many._bucket.remembered(Scan)._moved.clear()  # another client would not have known of it
    await many.delete("new")
    assert info.nuid in await chunk_counts(many)
    assert "a put, or a rename, may be about to name them" in caplog.text


async def test_another_handle_knows_what_was_renamed(store: ObjectStore) -> None:
    """The delete marker that told of it was replaced."""
    info = await store.put("old", b"x")
    await store.rename("old", "new")
    await store.put("old", b"y")
    await (await store.js.object_store(store.bucket)).delete("new")
    assert info.nuid not in await chunk_counts(store)


async def test_the_leader_changes_meanwhile(spread: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one may have known less: all is read again."""
    look, read_on = spread._bucket.remembered(Scan), References.read_on
    read: list[References] = []

    async def elsewhere(self: References, bucket: Bucket) -> None:
        read.append(self)
        if len(read) == 1:
            look._of = (*look._of[:2], "another")
        await read_on(self, bucket)

    monkeypatch.setattr(References, "read_on", elsewhere)
    assert await look.latest(spread._bucket) is read[1]
    assert len(read) == 2
    assert read[0] is not read[1]


async def test_who_asks_meanwhile_shares_the_next_look(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one under way: what he has committed may be lacking there."""
    rounds: list[asyncio.Event] = []
    began = asyncio.Event()
    read_on = References.read_on

    async def held(self: References, bucket: Bucket) -> None:
        rounds.append(asyncio.Event())
        began.set()
        await rounds[-1].wait()
        await read_on(self, bucket)

    monkeypatch.setattr(References, "read_on", held)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        bucket = store._bucket
        first = group.create_task(bucket.remembered(Scan).latest(bucket))
        await began.wait()
        began.clear()
        others = [group.create_task(bucket.remembered(Scan).latest(bucket)) for _ in range(5)]
        await asyncio.sleep(0)
        rounds[0].set()
        await first
        await began.wait()
        assert not any(other.done() for other in others)
        rounds[1].set()
    assert len(rounds) == 2
    assert {other.result() for other in others} == {first.result()}


async def test_a_look_that_failed_serves_nobody(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[NatsError | None] = [StaleConnectionError("lost"), None]
    read_on = References.read_on

    async def failing(self: References, bucket: Bucket) -> None:
        if (error := errors.pop(0)) is not None:
            raise error
        await read_on(self, bucket)

    monkeypatch.setattr(References, "read_on", failing)
    bucket = store._bucket
    one, other = await asyncio.gather(
        bucket.remembered(Scan).latest(bucket), bucket.remembered(Scan).latest(bucket), return_exceptions=True
    )
    assert isinstance(one, StaleConnectionError)
    assert isinstance(other, References)
    assert errors == []


async def test_many_deletes_at_once(many: ObjectStore, taken: list[str]) -> None:
    names = [f"f{number}" for number in range(20)]
    nuids = [await foreign(many, name) for name in names]
    await asyncio.gather(*map(many.delete, names))
    assert not set(nuids) & (await chunk_counts(many)).keys()
    assert len(taken) < 5 * NAMES


async def test_by_name_few_are_asked_for_alone(spread: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counting(ask: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            nonlocal asked
            asked += 1
            return ask(*args)

        return counted

    monkeypatch.setattr(Bucket, "first_after", counting(Bucket.first_after))
    monkeypatch.setattr(Bucket, "_run_after", counting(Bucket._run_after))
    await foreign(spread, "f")
    await spread.delete("f")
    assert asked < 10


def interrupted(each_newest: Callable[..., AsyncIterator[Any]], asked: list[str], end: Any) -> Any:
    async def some(bucket: Bucket, subjects: list[str], *args: Any, **more: Any) -> AsyncIterator[Any]:
        async for subject, message in each_newest(bucket, subjects, *args, **more):
            asked.append(subject)
            yield subject, end.pop()() if end and len(asked) > 20 else message

    return some


async def test_an_interrupted_look_goes_on(spread: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise StaleConnectionError("lost")

    asked: list[str] = []
    monkeypatch.setattr(reading, "each_newest", interrupted(reading.each_newest, asked, [fail]))
    references = References()
    with pytest.raises(StaleConnectionError):
        await references.read_on(spread._bucket)
    assert references.cursor == 0
    await references.read_on(spread._bucket)
    assert len(asked) == NAMES + 1, "but for the one that was lost none twice"
    assert len(references._standing) == NAMES


@pytest.mark.parametrize("left_out", [7, -1])
async def test_a_name_that_cannot_be_asked_for_any_more(
    spread: ObjectStore, monkeypatch: pytest.MonkeyPatch, left_out: int
) -> None:
    """As when a right is lost meanwhile: it is not taken for read."""
    newest = reading.each_newest

    async def less(bucket: Bucket, subjects: list[str], *args: Any, **more: Any) -> AsyncIterator[Any]:
        async for subject, message in newest(bucket, subjects, *args, **more):
            if subject == subjects[20] and left_out == 7:
                raise StaleConnectionError("lost")  # too late: what is left to read was not known
            if subject != subjects[left_out]:
                yield subject, message

    references = References()
    monkeypatch.setattr(reading, "each_newest", less)
    with pytest.raises(RequestTimeoutError, match="does not return"):
        await references.read_on(spread._bucket)
    monkeypatch.setattr(reading, "each_newest", newest)
    await references.read_on(spread._bucket)
    assert len(references._standing) == NAMES


async def test_a_name_that_is_gone_meanwhile(spread: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the leader has forgotten where its meta is: then they are read in order."""
    asked: list[str] = []
    monkeypatch.setattr(reading, "each_newest", interrupted(reading.each_newest, asked, [lambda: None]))
    references = References()
    await references.read_on(spread._bucket)
    assert len(references._standing) == NAMES


@pytest.mark.parametrize("token", [b"\xff", b"*"])
async def test_a_subject_that_cannot_be_asked_for(spread: ObjectStore, token: bytes) -> None:
    """It is no name's, and is read all the same."""
    spread.client.connection.publish(b"$O.%b.M.%b" % (spread.bucket.encode(), token), b'{"nuid": "AAAA"')
    await spread.client.flush()
    references = References()
    await references.read_on(spread._bucket)
    assert references.named("AAAA")


async def test_no_whole_metas_are_kept(spread: ObjectStore) -> None:
    await spread.put("large", b"x", metadata={"k": "v" * 100_000})
    references = References()
    await references.read_on(spread._bucket)
    held = [each for value in vars(references).values() if isinstance(value, dict) for each in value.values()]
    assert not any(isinstance(each, ObjectInfo) for each in held)
    assert sum(len(str(each)) for each in held) < 100 * NAMES


@pytest.mark.parametrize("long", [False, True])
async def test_more_names_than_are_remembered(many: ObjectStore, long: bool) -> None:
    """Nothing of them is kept; a name of thousands of characters counts for several."""
    if long:
        await many.put("long" * 300, b"x")
    references = References(NAMES + 6 if long else NAMES - 1)
    await references.read_on(many._bucket)
    assert references.full
    assert not references._standing
    await references.read_on(many._bucket)
    assert references.full
    enough = References(NAMES + 20)
    await enough.read_on(many._bucket)
    assert not enough.full


async def test_a_look_is_forgotten(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is full not so soon: it would fill up again."""
    bucket, look = store._bucket, store._bucket.remembered(Scan)
    await look.latest(bucket)
    for full in (False, True):
        references = await look.latest(bucket)
        references.full = full
        look._forget(1.0)
        assert look._references is (references if full else None)
    look._forget(0.0)
    assert look._references is None


# -- renaming back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("atomic", [False, True])
async def test_renamed_back_without_a_look(
    new_server: LocalServer, atomic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delete marker of the old name shows that nobody else has the chunks."""
    monkeypatch.setattr(looking, "scan_for", None)
    async with natsproto.connect(new_server.url) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket=f"back-{atomic}", allow_atomic=atomic)
        info = await store.put("a", b"content")
        for _ in range(2):
            await store.rename("a", "b")
            assert (await store.rename("b", "a")).nuid == info.nuid
        assert await store.get("a") == b"content"
        await store.put("a", b"x")
        await assert_exact(store)
        await js.delete_object_store(store.bucket)


async def changed(store: ObjectStore) -> None:
    await store.update_meta("b", ObjectMeta("b", "described"))


async def test_renamed_back_after_a_change(store: ObjectStore) -> None:
    """The marker does not show it any more; a look does."""
    await store.put("a", b"content")
    await store.rename("a", "b")
    await changed(store)
    await store.rename("b", "a")
    assert await store.get("a") == b"content"


async def test_renamed_back_and_not_found_out_in_time(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> None:
        await asyncio.Event().wait()

    await store.put("a", b"content")
    await store.rename("a", "b")
    await changed(store)
    with monkeypatch.context() as patched:
        patched.setattr(looking, "SCAN_TIME", 0.1)
        patched.setattr(References, "read_on", silent)
        with pytest.raises(RequestTimeoutError, match=r"not found out within 0\.1 s.*try again"):
            await store.rename("b", "a")
    await store.rename("b", "a")
    assert await store.get("a") == b"content"


async def test_renamed_back_among_too_many(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.put("a", b"content")
    await store.rename("a", "b")
    await changed(store)
    monkeypatch.setattr(looking, "MOST_NAMES", 1)
    with pytest.raises(BadObjectMetaError, match="another object of more than 1 might need them: copy it"):
        await store.rename("b", "a")
    assert await store.get("b") == b"content"


async def test_what_went_further_is_not_brought_back(store: ObjectStore) -> None:
    """The name that it had meanwhile is forged: the marker of the first one says that it went there."""
    await store.put("a", b"content")
    await store.rename("a", "b")
    document = await read_raw(store, "b")
    await store.rename("b", "c")
    await write_raw(store.js, meta_subject(store, "b"), document)
    with pytest.raises(BadObjectMetaError, match="another object may need them"):
        await store.rename("b", "a")
    await store.put("a", b"x")
    assert await store.get("c") == b"content"


async def test_a_forged_neighbour_is_not_brought_back(store: ObjectStore) -> None:
    """It was written right after the marker, and the marker says that the object went elsewhere."""
    await store.put("a", b"content")
    await store.rename("a", "b")
    document = await read_raw(store, "b")
    marker = await read_raw(store, "a")
    await write_raw(store.js, meta_subject(store, "a"), marker)
    await write_raw(store.js, meta_subject(store, "evil"), {**document, "name": "evil"})
    with pytest.raises(BadObjectMetaError, match="another object may need them"):
        await store.rename("evil", "a")
    await store.delete("evil")
    assert await store.get("b") == b"content"


async def test_gc_completes_a_marked_rename_it_reads_again(store: ObjectStore) -> None:
    await store.put("a", b"content")
    document = await read_raw(store, "a")
    await write_raw(store.js, meta_subject(store, "a"), {**document, "metadata": {"natsproto.renaming": "b"}})
    report = await store.gc(older_than=timedelta(seconds=-60))
    assert report.renames == [("a", "b")]
    assert await store.get("b") == b"content"
