"""Names, counts, iteration, directories, watching from a revision."""

from __future__ import annotations

import asyncio
from copy import copy
from datetime import timedelta
from typing import Any

import pytest

from natsproto import Client, JetStreamContext
from natsproto.errors import StaleConnectionError
from natsproto.jetstream.in_flight import in_flight
from natsproto.jetstream.message import JetStreamMsg
from natsproto.jetstream.pull import PullConsumer
from objstore import BucketNotFoundError, InvalidMeta, ObjectInfo, ObjectStore
from objstore.bucket.ways import CONSUMER, Ways
from objstore.format.naming import meta_subject
from objstore.listing.newest import each_newest
from objstore.listing.pages import PAGE, _Pages

TREE = ["a.txt", "dir/b.txt", "dir/sub/c.txt", "dir/sub/d.txt", "other/e.txt", "dirx"]


@pytest.fixture
async def tree(store: ObjectStore) -> ObjectStore:
    for name in TREE:
        await store.put(name, name.encode())
    await store.put("dir/gone.txt", b"x")
    await store.delete("dir/gone.txt")
    return store


async def test_names_and_count(tree: ObjectStore) -> None:
    assert await tree.names() == sorted([*TREE, "dir/gone.txt"])
    assert await tree.names(live=True) == sorted(TREE)
    assert await tree.names("dir/") == ["dir/b.txt", "dir/gone.txt", "dir/sub/c.txt", "dir/sub/d.txt"]
    assert await tree.names("dir/", live=True) == ["dir/b.txt", "dir/sub/c.txt", "dir/sub/d.txt"]
    assert await tree.names("none") == []
    assert await tree.count() == 7
    assert await tree.count(live=True) == 6
    assert await tree.count("dir/") == 4


async def test_names_of_an_empty_bucket(store: ObjectStore) -> None:
    assert await store.names() == []
    assert await store.names(live=True) == []
    assert await store.count() == 0
    assert [info async for info in store.iter()] == []


async def test_names_cost_one_round_trip(store: ObjectStore) -> None:
    await asyncio.gather(*(store.put(f"n{number:04}", b"") for number in range(300)))
    before = store.js.client.stats.out_msgs
    assert len(await store.names()) == 300
    assert store.js.client.stats.out_msgs - before == 1


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("other", [meta_subject("b", "n0003"), "$O.{}.C.>", ">", "none"])
async def test_the_answer_to_another_list(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, few: bool, other: str
) -> None:
    """A peer that may ask for the stream's info can have the answer sent to our inbox: no name is missing."""
    monkeypatch.setattr("objstore.listing.metas.SMALL", 1000 if few else 10)
    await asyncio.gather(*(store.put(f"n{number:04}", b"x" * (number % 2)) for number in range(100)))
    js, request, wanted = store.js, JetStreamContext.request, ">" if few else f"$O.{store.bucket}.M.>"
    other = other.replace("$O.b.", f"$O.{store.bucket}.").format(store.bucket)
    misled = 0

    async def misleading(self: JetStreamContext, suffix: str, document: Any = None, **options: Any) -> Any:
        nonlocal misled
        if (document or {}).get("subjects_filter") == wanted and misled % 3 != 2:
            misled += 1
            document = {**document, "subjects_filter": other}
        elif document is not None:
            misled += 1
        return await request(self, suffix, document, **options)

    monkeypatch.setattr(JetStreamContext, "request", misleading)
    expected = [f"n{number:04}" for number in range(100)]
    again = await js.object_store(store.bucket)
    for _ in range(3):
        assert await again.names() == expected
    assert await again.count() == 100
    monkeypatch.setattr(Ways, "allowed", lambda ways, way: way != CONSUMER)
    assert sorted(info.name for info in await again.list()) == expected
    assert await again.names(live=True) == expected
    assert misled


async def test_names_of_many_cost_one_round_trip(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list and the proof that it is whole are requested together."""
    monkeypatch.setattr("objstore.listing.metas.SMALL", 10)
    await asyncio.gather(*(store.put(f"n{number:04}", b"x") for number in range(300)))
    assert len(await store.names()) == 300  # whose number was unknown
    before = store.js.client.stats.out_msgs
    for _ in range(3):
        assert len(await store.names()) == 300
    assert store.js.client.stats.out_msgs - before <= 6 + 1
    await store.put("more", b"x")
    await store.delete("n0000")
    assert len(await store.names()) == 301


async def test_iter(store: ObjectStore) -> None:
    count = PAGE * 2 + 7
    await asyncio.gather(*(store.put(f"n{number:05}", b"") for number in range(count)))
    await store.delete("n00003")
    found = [info async for info in store.iter()]
    assert sorted(info.name for info in found) == sorted(
        f"n{number:05}" for number in range(count) if number != 3
    )
    assert [info.revision for info in found] == sorted(info.revision for info in found)
    assert len([info async for info in store.iter(include_deleted=True)]) == count
    assert [info.name async for info in store.iter(prefix="n0000")].count("n00001") == 1
    assert {info.name for info in found} == {info.name for info in await store.list()}


def on_its_way(store: ObjectStore) -> int:
    count = in_flight(store._bucket.connection)
    assert count._small is not None
    return count.bytes + count._small.bytes


async def test_iter_of_large_metas(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, and no more of them at once than a page has bytes, whatever comes after what."""
    monkeypatch.setattr("objstore.listing.pages.PAGE_BYTES", 20_000)
    monkeypatch.setattr("objstore.listing.pages.PAGE", 5)
    fetch, pages = PullConsumer.fetch, []

    async def look(self: PullConsumer, batch: int = 1, **options: Any) -> list[JetStreamMsg]:
        counted.append((options["max_bytes"] or 0) <= on_its_way(store))
        page = await fetch(self, batch, **options)
        pages.append([len(msg.data) for msg in page])
        return page

    counted: list[bool] = []
    monkeypatch.setattr(PullConsumer, "fetch", look)
    sizes = [9_000] * 6 + [0] * 30 + [6_000] * 9 + [30_000, 0, 0, 30_000, 30_000] + [0] * 20 + [19_000] * 2
    for number, size in enumerate(sizes):
        await store.put(f"n{number:03}", b"", metadata={"k": "v" * size})
    monkeypatch.setattr(type(store._bucket), "max_message", 1_000)  # which one meta more may have
    for prefix in ("", "n"):
        async with asyncio.timeout(60):
            found = [info.name async for info in store.iter(prefix=prefix)]
        assert found == [f"n{number:03}" for number in range(len(sizes))]
    assert all(len(page) == 1 or sum(page) <= 20_000 for page in pages if page)
    assert all(counted), "what comes after small ones may be as large as was asked for"


async def test_a_consumer_that_leaves_something_out(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers do not tell: what there was at the beginning does."""
    revisions = [(await store.put(f"n{number:02}", b"")).revision for number in range(20)]
    lost = {revisions[3], revisions[12], revisions[13]}
    fetch, behind = PullConsumer.fetch, 0

    async def some(self: PullConsumer, batch: int = 1, **options: Any) -> list[JetStreamMsg]:
        nonlocal behind
        kept = []
        for msg in await fetch(self, batch, **options):
            if msg.seq in lost:
                behind += 1
            else:
                msg.metadata.consumer_seq -= behind
                kept.append(msg)
        return kept

    monkeypatch.setattr(PullConsumer, "fetch", some)
    monkeypatch.setattr(_Pages, "give_up", lambda pages: None)  # one that does not even come short
    found = [info.name async for info in store.iter()]
    assert sorted(found) == [f"n{number:02}" for number in range(20)]


async def test_pages_that_hold_nothing_new(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever delivers the same again and again is given up, as if he delivered nothing."""
    for number in range(20):
        await store.put(f"n{number:02}", b"")
    pages = _Pages(store.with_options(retry_budget=0.2)._bucket)
    (first, *_) = await pages.next()
    number = pages._received

    async def same(self: PullConsumer, batch: int = 1, **options: Any) -> list[JetStreamMsg]:
        nonlocal number
        page = []
        for _ in range(batch):
            number += 1
            msg = copy(first)
            msg.metadata = copy(first.metadata)
            msg.metadata.consumer_seq = number
            page.append(msg)
        await asyncio.sleep(0)
        return page

    monkeypatch.setattr(PullConsumer, "fetch", same)
    try:
        async with asyncio.timeout(5 + 5):
            with pytest.raises(StaleConnectionError, match="read before"):
                await pages.next()
    finally:
        await pages.close()


async def test_iter_left_early_leaves_no_consumer(store: ObjectStore) -> None:
    for name in TREE:
        await store.put(name, b"")
    iterator = store.iter()
    assert (await anext(iterator)).name == TREE[0]
    await iterator.aclose()
    assert await store.js.consumer_names(f"OBJ_{store.bucket}") == []


async def test_iter_goes_on_without_its_consumer(store: ObjectStore) -> None:
    await asyncio.gather(*(store.put(f"n{number:05}", b"") for number in range(PAGE + 10)))
    seen: list[str] = []
    async for info in store.iter():
        if len(seen) == 5:
            for name in await store.js.consumer_names(f"OBJ_{store.bucket}"):
                await store.js.delete_consumer(f"OBJ_{store.bucket}", name)
        seen.append(info.name)
    assert sorted(seen) == [f"n{number:05}" for number in range(PAGE + 10)]


async def test_iter_reports_what_it_cannot_read(store: ObjectStore) -> None:
    await store.put("good", b"x")
    await store.js.publish(meta_subject(store.bucket, "bad"), b"not json")
    await store.put("better", b"x")
    invalid: list[InvalidMeta] = []
    found = [info.name async for info in store.iter(on_invalid=invalid.append)]
    assert found == ["good", "better"]
    assert [each.subject for each in invalid] == [meta_subject(store.bucket, "bad")]
    assert "bad" in await store.names()


async def test_list_while_names_are_replaced(store: ObjectStore) -> None:
    """Every name, each time, and nothing older than what was there before."""
    names = [f"n{number:03}" for number in range(200)]
    await asyncio.gather(*(store.put(name, b"") for name in names))
    newest: dict[str, int] = {}
    listed = 0

    async def replace(start: int) -> None:
        for number in range(start, 1_000_000, 7):
            info = await store.put(names[number % len(names)], b"x")
            newest[info.name] = max(newest.get(info.name, 0), info.revision)
            if listed == 8:
                return

    writers = [asyncio.create_task(replace(start)) for start in range(7)]
    try:
        for _ in range(8):
            before = dict(newest)
            async with asyncio.timeout(30):
                found = {info.name: info.revision for info in await store.list()}
            listed += 1
            assert sorted(found) == names
            assert [name for name, revision in before.items() if found[name] < revision] == []
    finally:
        listed = 8
        await asyncio.gather(*writers)
    assert newest


async def test_list_dirs(tree: ObjectStore) -> None:
    top = await tree.list_dirs()
    assert top.prefixes == ["dir/", "other/"]
    assert [info.name for info in top.objects] == ["a.txt", "dirx"]
    below = await tree.list_dirs("dir/")
    assert below.prefixes == ["dir/sub/"]
    assert [info.name for info in below.objects] == ["dir/b.txt"]
    assert (await tree.list_dirs("dir/sub/")).prefixes == []
    dotted = await tree.list_dirs("", ".")
    assert dotted.prefixes == ["a.", "dir/b.", "dir/sub/c.", "dir/sub/d.", "other/e."]
    with pytest.raises(ValueError, match="delimiter"):
        await tree.list_dirs("", "")


async def next_of(watcher: object) -> ObjectInfo:
    async with asyncio.timeout(30):
        return await anext(watcher)  # type: ignore[call-overload, no-any-return]


async def test_watch_from_a_revision(store: ObjectStore) -> None:
    revisions = [(await store.put(name, b"x")).revision for name in ("a", "b", "c")]
    async with store.watch(from_revision=revisions[1]) as watcher:
        assert [(await next_of(watcher)).name for _ in range(2)] == ["b", "c"]
        await watcher.caught_up
        await store.put("d", b"x")
        last = await next_of(watcher)
        assert last.name == "d"
    await store.delete("a")
    async with store.watch(from_revision=last.revision + 1) as watcher:
        info = await next_of(watcher)
        assert (info.name, info.deleted) == ("a", True)
    async with asyncio.timeout(30):
        end = (await store.get_info("a", show_deleted=True)).revision
        async with store.watch(from_revision=end + 1) as watcher:
            await watcher.caught_up
        with pytest.raises(BucketNotFoundError, match=f"ends at revision {end}"):
            async with store.watch(from_revision=10**6) as watcher:
                await watcher.caught_up
    for bad in ({"from_revision": 0}, {"from_revision": 5, "updates_only": True}):
        with pytest.raises(ValueError, match="from_revision"):
            store.watch(**bad)


async def test_many_subjects_that_are_no_text(store: ObjectStore, nc: Client) -> None:
    """In the server's lists all of them are written alike: they count for as many as they are."""
    info = await store.put("a", b"1")
    for kind in (b"C", b"M"):
        for number in range(50):
            nc.connection.publish(b"$O.%b.%b.\xff%c" % (store.bucket.encode(), kind, 128 + number), b"{")
    await nc.flush()
    async with asyncio.timeout(20):
        report = await store.gc(older_than=timedelta(0))
        assert not {info.nuid} & {each.nuid for each in report.orphans}
        assert await store.names() == ["a"]
        assert [info.name for info in await store.list(on_invalid=lambda invalid: None)] == ["a"]
        assert (await store.verify()).objects == 1
        upload = await store.begin_upload("b")
        await upload.abort()


async def test_a_meta_on_a_subject_that_is_no_text(store: ObjectStore, nc: Client) -> None:
    """It is nobody's name, and JSON cannot hold it: everything else is listed all the same."""
    await store.put("a", b"1")
    nc.connection.publish(b"$O.%b.M.\xff" % store.bucket.encode(), b'{"name": "evil"}')
    await nc.flush()
    await store.put("b", b"2")
    async with asyncio.timeout(5 + 5):
        assert [info.name for info in await store.list(on_invalid=lambda invalid: None)] == ["a", "b"]
        assert [info.name async for info in store.iter(on_invalid=lambda invalid: None)] == ["a", "b"]
        assert await store.names() == ["a", "b"]
        assert [
            name async for name, answer in each_newest(store._bucket, ["$O.b.M.\udcff", "$O.b.M.\ufffd"])
        ] == []
