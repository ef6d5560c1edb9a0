"""Who may write a single name makes no call endless, and no reader keep what he has written."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.api.models import StoredMessage
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.message import JetStreamMsg
from natsproto.server import LocalServer
from natsproto.subjects import secret_name
from objstore import (
    IntegrityError,
    InvalidMeta,
    ObjectChangedError,
    ObjectInfo,
    ObjectMeta,
    ObjectStore,
    RevisionConflictError,
)
from objstore.bucket.bucket import Bucket
from objstore.bucket.ways import Ways
from objstore.commit.references import References
from objstore.format.codec import MetaDecodeError, encode_meta
from objstore.format.naming import meta_subject
from objstore.listing import metas as newest
from objstore.listing import pages as _pages
from support.objects import forge

NOW = timedelta(0)


async def publish_meta(store: ObjectStore, info: ObjectInfo) -> None:
    """As a writer that rolls up."""
    subject = meta_subject(store.bucket, info.name)
    await store.js.publish(subject, encode_meta(info), headers={"Nats-Rollup": "sub"})


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.update_meta("mine", ObjectMeta("mine", description="x")),
        lambda store: store.rename("mine", "other"),
    ],
    ids=["update_meta", "rename"],
)
async def test_a_name_that_is_marked_again_and_again(
    server: LocalServer,
    store: ObjectStore,
    change: Callable[[ObjectStore], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look finds the old end of another rename: that ends with the retry budget, as any lost race."""
    await store.put("mine", b"x")
    turns = 0

    async def settled(bucket: Bucket, info: ObjectInfo, new_name: str) -> bool:
        nonlocal turns
        turns += 1
        return True

    monkeypatch.setattr("objstore.change.update.settle_rename", settled)
    async with natsproto.connect(server.url) as client:
        same = (await client.jetstream().object_store(store.bucket)).with_options(retry_budget=2.0)
        with pytest.raises(RevisionConflictError):
            async with asyncio.timeout(2 + 10):
                await change(same)  # type: ignore[misc]
    assert turns > 3


@pytest.fixture
async def singly(js: JetStreamContext, bucket_name: str) -> ObjectStore:
    """A bucket whose metas are read one by one."""
    return await js.create_object_store(bucket=bucket_name, allow_direct=False)


async def test_names_that_are_written_faster_than_they_are_read(singly: ObjectStore) -> None:
    """gc() ends, and takes nothing for an orphan whose meta is changed behind its back."""
    template = await singly.put("quick", b"x")
    slow = await singly.put("slow", b"chunks of an old object")
    orphans = {secret_name() for _ in range(5)}
    for orphan in orphans:
        await singly.js.publish(f"$O.{singly.bucket}.C.{orphan}", b"orphan")

    async def write() -> None:
        for count in itertools.count():
            await publish_meta(singly, template)
            await publish_meta(singly, replace(slow, description=f"changed {count}"))

    writing = asyncio.create_task(write())
    removed: set[str] = set()
    async with asyncio.timeout(60):
        for _ in range(3):
            report = await singly.gc(older_than=NOW)
            removed |= {each.nuid for each in report.orphans if each.removed}
    writing.cancel()
    assert removed <= orphans
    report = await singly.gc(older_than=NOW)
    assert removed | {each.nuid for each in report.orphans if each.removed} == orphans
    assert await singly.get("slow") == b"chunks of an old object"


async def test_metas_without_a_list_of_names_end_as_well(
    singly: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the names are too many for an answer and consumers are not allowed, metas are read one by one."""
    template = await singly.put("quick", b"x")
    await singly.put("slow", b"x")
    bucket = singly._bucket
    run_after = Bucket._run_after

    async def slower(
        bucket: Bucket, subject: str, seq: int, ways: tuple[str, ...] | None
    ) -> list[StoredMessage]:
        await publish_meta(singly, template)
        return await run_after(bucket, subject, seq, ways)

    async def too_many(bucket: Bucket) -> None:
        return None

    monkeypatch.setattr(Bucket, "_run_after", slower)
    monkeypatch.setattr(newest, "meta_subjects", too_many)
    monkeypatch.setattr(Ways, "allowed", lambda ways, way: way != newest.CONSUMER)
    async with asyncio.timeout(60):
        with pytest.raises(ObjectChangedError, match="change faster than they can be read"):
            await newest.newest_metas(bucket)


@pytest.mark.parametrize("names", ["known", "too many"])
@pytest.mark.parametrize("consumer", ["one", "lost again and again"])
async def test_an_iteration_whose_objects_are_changed_as_it_tells_of_them(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, names: str, consumer: str
) -> None:
    """What comes behind the end that there was is read some more times, not for as long as others write."""
    count = 20
    for number in range(count):
        await store.put(f"n{number}", b"")
    following = _pages._Pages.next

    async def with_another_one(pages: _pages._Pages) -> list[JetStreamMsg]:
        pages.give_up()
        return await following(pages)

    async def too_many(bucket: Bucket) -> None:
        return None

    if consumer != "one":
        monkeypatch.setattr(_pages._Pages, "next", with_another_one)
    if names != "known":
        monkeypatch.setattr(_pages, "meta_subjects", too_many)
    monkeypatch.setattr(_pages, "PAGE", 3)
    monkeypatch.setattr(_pages, "ROUNDS", 3)
    told: list[str] = []
    async with asyncio.timeout(60):
        async for info in store.iter():
            told.append(info.name)
            await publish_meta(store, info)
            assert len(told) < 10 * count
    assert set(told) == {f"n{number}" for number in range(count)}


async def test_only_the_newest_unreadable_meta_is_kept(store: ObjectStore) -> None:
    """Of a writer without roll-up there may be any number on one name, of a megabyte each."""
    await store.put("real", b"x")
    payload = b"[" + b"1," * 100_000
    for subject in ("flood", "other", "flood", "flood"):
        ack = await store.js.publish(meta_subject(store.bucket, subject), payload)
    expected = [
        (meta_subject(store.bucket, "other"), ack.seq - 2),
        (meta_subject(store.bucket, "flood"), ack.seq),
    ]

    def told(found: list[InvalidMeta]) -> list[tuple[str, int]]:
        assert [each.error.__traceback__ for each in found] == [None] * len(found), "it holds the payload"
        return [(each.subject, each.revision) for each in found]

    listed: list[InvalidMeta] = []
    assert [info.name for info in await store.list(on_invalid=listed.append)] == ["real"]
    assert sorted(told(listed)) == sorted(expected)
    assert told((await store.gc(dry_run=True)).unreadable) == expected
    problems = (await store.verify()).problems
    assert sorted(each.revision for each in problems) == sorted(seq for _, seq in expected)


def words_of(data: bytes) -> References:
    references = References()
    references.unread(InvalidMeta("$O.b.M.x", 1, MetaDecodeError("broken")), data)
    return references


@pytest.mark.parametrize("around", [(b"", b""), (b'{"nuid":"', b'", broken')])
def test_whole_words_that_may_be_nuids(around: tuple[bytes, bytes]) -> None:
    """Longer ones name no chunks, nor do parts of them; a megabyte without a space is not kept."""
    before, after = around
    for length in (1, 22, 64):
        assert words_of(before + b"a" * length + after).named("a" * length)
    long = words_of(before + b"a" * 65 + after)
    assert not any(long.named("a" * length) for length in (1, 63, 64, 65))


def test_too_many_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then everything is taken for named, and none of them is kept."""
    monkeypatch.setattr("objstore.commit.references.MOST_WORDS", 10)
    few = words_of(b" ".join(b"w%d" % number for number in range(10)))
    assert few.named("w9")
    assert not few.named("w10")
    many = words_of(b" ".join(b"w%d" % number for number in range(11)))
    assert many.named("w9")
    assert many.named("never seen")
    assert not many._words


class Endless:
    """A consumer to which more is always still to come."""

    def __init__(self, bucket: Bucket, subject: str, on_message: Any, *args: Any, **options: Any) -> None:
        self._on_message = on_message
        self.ended = asyncio.get_running_loop().create_future()
        self.finish = lambda: self.ended.done() or self.ended.set_result(None)

    @property
    def over(self) -> bool:
        return self.ended.done()

    async def start(self) -> Any:
        self._task = asyncio.create_task(self._deliver())
        return SimpleNamespace(num_pending=4)

    async def _deliver(self) -> None:
        for seq in itertools.count(1):
            await asyncio.sleep(0)
            self._on_message(
                SimpleNamespace(header=b"NATS/1.0\r\nNats-Msg-Size: 1\r\n\r\n", payload=b""),
                SimpleNamespace(stream_seq=seq, num_pending=9),
            )

    async def __aenter__(self) -> Endless:
        return self

    async def __aexit__(self, *args: object) -> None:
        self._task.cancel()


@pytest.mark.parametrize("way", ["consumer", "singly"])
async def test_chunks_that_are_stored_while_they_are_measured(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Of an object that claims to have any number of them."""
    info = await store.put("a", b"abcd", chunk_size=1)
    huge = 1 << 62
    await forge(store, "a", size=huge, chunks=huge - 1)

    def slower(read: Callable[..., Any]) -> Callable[..., Any]:
        async def then(*args: Any) -> Any:
            await store.js.publish(f"$O.{store.bucket}.C.{info.nuid}", b"x")
            return await read(*args)

        return then

    monkeypatch.setattr("objstore.read.get.RECHECK_DELAYS", (0.0,))
    monkeypatch.setattr("objstore.read.ranges.Collector", Endless)
    if way == "singly":
        monkeypatch.setattr(Bucket, "first_after", slower(Bucket.first_after))
        monkeypatch.setattr(Bucket, "_run_after", slower(Bucket._run_after))
        monkeypatch.setattr(Ways, "allowed", lambda ways, way: way != newest.CONSUMER)
    async with asyncio.timeout(2 + 10):
        with pytest.raises(IntegrityError):
            await store.get_range("a", 0, 4)
