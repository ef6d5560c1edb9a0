"""Listing, watching, status and sealing."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import ConnectionClosedError
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import (
    BucketNotFoundError,
    BucketSealedError,
    InvalidMeta,
    ObjectInfo,
    ObjectMeta,
    ObjectStore,
    Watcher,
)
from objstore.listing.watch import Watch
from support.objects import CHUNK, meta_subject, pattern, read_raw, stream, write_raw
from support.steps import cancel_at
from support.waits import eventually

LIMIT = 20.0
BAD: dict[str, Any] = {
    "not json": b"{nonsense",
    "empty": b"",
    "array": [],
    "string": "x",
    "null": None,
    "no name": {"bucket": "b", "nuid": "n"},
    "other name": {"name": "other", "nuid": "n"},
    "name number": {"name": 5},
    "size text": {"name": "{name}", "size": "5"},
    "size huge": b'{"name":"%s","size":1e30}',
    "size negative": {"name": "{name}", "size": -1},
    "headers list": {"name": "{name}", "headers": [1]},
    "deleted text": {"name": "{name}", "deleted": "yes"},
    "options": {"name": "{name}", "options": 5},
    "link": {"name": "{name}", "options": {"link": {"bucket": ""}}},
    "nested": b"[" * 50_000,
    "long number": b'{"name":"%s","size":' + b"9" * 5000 + b"}",
    "not utf-8": b'{"name":"\xff"}',
}


async def bad_meta(store: ObjectStore, name: str, kind: str) -> int:
    document = BAD[kind]
    if isinstance(document, bytes):
        document = document.replace(b"%s", name.encode())
    elif isinstance(document, dict) and document.get("name") == "{name}":
        document = {**document, "name": name}
    return await write_raw(store.js, meta_subject(store, name), document)


async def take(watcher: Watcher, count: int) -> list[ObjectInfo]:
    async with asyncio.timeout(LIMIT):
        return [await anext(watcher) for _ in range(count)]


# -- list: D1, D2, D3 -----------------------------------------------------------------------------------


async def test_list(store: ObjectStore) -> None:
    async with asyncio.timeout(6):
        assert await store.list() == []
    for name in ("a", "b", "ab", "c"):
        await store.put(name, name.encode())
    await store.put("a", b"newer")
    await store.delete("c")
    assert [info.name for info in await store.list()] == ["b", "ab", "a"]
    assert [info.name for info in await store.list(prefix="a")] == ["ab", "a"]
    found = await store.list(include_deleted=True)
    assert [(info.name, info.deleted) for info in found] == [
        ("b", False),
        ("ab", False),
        ("a", False),
        ("c", True),
    ]
    for info in found:
        assert info == await store.get_info(info.name, show_deleted=True)


async def test_list_of_deleted_ones(store: ObjectStore) -> None:
    for name in ("a", "b"):
        await store.put(name, b"")
        await store.delete(name)
    async with asyncio.timeout(6):
        assert await store.list() == []
    assert (await store.status()).count == 0


async def test_list_many(store: ObjectStore) -> None:
    names = [f"dir/{n:04}" for n in range(1000)]
    for start in range(0, 1000, 100):
        await asyncio.gather(*(store.put(name, b"") for name in names[start : start + 100]))
    async with asyncio.timeout(LIMIT):
        assert sorted(info.name for info in await store.list()) == names
    async with store.watch() as watcher:
        assert sorted(info.name for info in await take(watcher, 1000)) == names


@pytest.mark.parametrize("where", ["first", "middle", "last", "only"])
@pytest.mark.parametrize("kind", BAD)
async def test_unreadable_metas(
    store: ObjectStore, kind: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Reported, never hiding others and never a hang."""
    good = ["x", "y"] if where != "only" else []
    if where == "middle":
        await store.put("x", b"1")
    elif where == "last":
        for name in good:
            await store.put(name, b"1")
    revision = await bad_meta(store, "bad", kind)
    if where == "first":
        for name in good:
            await store.put(name, b"1")
    elif where == "middle":
        await store.put("y", b"1")
    reported: list[InvalidMeta] = []
    async with asyncio.timeout(LIMIT):
        assert [info.name for info in await store.list(on_invalid=reported.append)] == good
    assert [(invalid.subject, invalid.revision) for invalid in reported] == [
        (meta_subject(store, "bad"), revision)
    ]
    async with asyncio.timeout(LIMIT):
        assert [info.name for info in await store.list()] == good
    assert [record.levelname for record in caplog.records if record.name == "objstore"] == ["WARNING"]
    async with store.watch(on_invalid=reported.append) as watcher:
        async with asyncio.timeout(LIMIT):
            await watcher.caught_up
        assert [info.name for info in await take(watcher, len(good))] == good
    assert len(reported) == 2
    assert (await store.status()).count == len(good)


async def test_only_the_newest_meta_of_a_name_counts(store: ObjectStore) -> None:
    """Of writers without roll-up, too: a list tells neither of older states nor of what was unreadable."""
    js = store.js
    for name in ("mended", "broken", "changed"):
        await store.put(name, name.encode())
    changed = await read_raw(store, "changed")
    for name, *documents in (
        ("mended", b"?", await read_raw(store, "mended")),
        ("broken", b"?", await read_raw(store, "broken"), b"?", b"??"),
        ("changed", changed | {"description": "1"}, changed | {"description": "2"}),
    ):
        for document in documents:
            last = await write_raw(js, meta_subject(store, name), document, rollup=False)
        if name == "broken":
            broken = last
    reported: list[InvalidMeta] = []
    found = await store.list(on_invalid=reported.append)
    assert [(info.name, info.description) for info in found] == [("mended", None), ("changed", "2")]
    assert [(each.subject, each.revision) for each in reported] == [(meta_subject(store, "broken"), broken)]


async def test_on_invalid_raises(store: ObjectStore) -> None:
    def on_invalid(invalid: InvalidMeta) -> None:
        raise RuntimeError("mine")

    await bad_meta(store, "bad", "array")
    await store.put("a", b"")
    async with asyncio.timeout(LIMIT):
        assert [info.name for info in await store.list(on_invalid=on_invalid)] == ["a"]


# -- watch: D5, D7 --------------------------------------------------------------------------------------


async def test_watch_default(store: ObjectStore) -> None:
    """Current state, deleted ones included, then live changes; each revision once, in order."""
    await store.put("a", b"1")
    await store.put("b", b"2")
    await store.delete("b")
    async with store.watch() as watcher:
        first = await take(watcher, 2)
        assert [(info.name, info.deleted) for info in first] == [("a", False), ("b", True)]
        await store.put("a", b"3")
        await store.update_meta("a", ObjectMeta("a", "d"))
        await store.delete("a")
        last = await take(watcher, 1)
        while not last[-1].deleted:
            last += await take(watcher, 1)
        revisions = [info.revision for info in first + last]
        assert revisions == sorted(set(revisions))
        assert last[-1] == await store.get_info("a", show_deleted=True)


async def test_watch_caught_up(store: ObjectStore) -> None:
    async with store.watch() as watcher, asyncio.timeout(LIMIT):
        await watcher.caught_up  # an empty bucket
    for name in "abc":
        await store.put(name, b"")
    watcher = store.watch()
    async with asyncio.timeout(LIMIT):
        await watcher.caught_up
        await watcher.caught_up  # as often as one likes
    assert [info.name for info in await take(watcher, 3)] == ["a", "b", "c"]
    await watcher.stop()


@pytest.mark.parametrize("existing", [0, 3])
async def test_watch_updates_only(store: ObjectStore, existing: int) -> None:
    for n in range(existing):
        await store.put(str(n), b"")
    async with store.watch(updates_only=True) as watcher:
        async with asyncio.timeout(LIMIT):
            await watcher.caught_up
        await store.put("new", b"")
        assert [info.name for info in await take(watcher, 1)] == ["new"]


async def test_watch_filters(store: ObjectStore) -> None:
    await store.put("a/1", b"")
    await store.put("b/1", b"")
    await store.delete("a/1")
    await store.put("a/2", b"")
    async with store.watch(ignore_deletes=True, prefix="a/") as watcher:
        assert [info.name for info in await take(watcher, 1)] == ["a/2"]
        await store.put("b/2", b"")
        await store.delete("a/2")
        await store.put("a/3", b"")
        assert [info.name for info in await take(watcher, 1)] == ["a/3"]


async def test_watch_three_ways(store: ObjectStore) -> None:
    await store.put("a", b"")
    watcher = await store.watch()
    assert [info.name for info in await take(watcher, 1)] == ["a"]
    await watcher.stop()
    async with store.watch() as watcher:
        assert [info.name for info in await take(watcher, 1)] == ["a"]
    async for info in store.watch():
        assert info.name == "a"
        break
    gc.collect()
    async with asyncio.timeout(LIMIT):
        while await store.js.consumer_names(stream(store)):
            pass


async def test_watch_stop(store: ObjectStore) -> None:
    """Idempotent, also from another task, before the start, and while somebody waits."""
    watcher = store.watch()
    await watcher.stop()
    await watcher.stop()
    with pytest.raises(StopAsyncIteration):
        await anext(watcher)
    watcher = await store.watch()
    waiting = asyncio.ensure_future(anext(watcher, None))
    catching_up = asyncio.ensure_future(watcher._watch.wait_caught_up())
    await asyncio.sleep(0)
    async with asyncio.timeout(6):
        await asyncio.gather(watcher.stop(), watcher.stop())
        assert await waiting is None
        await asyncio.wait([catching_up])
    catching_up.exception()
    await watcher.stop()
    for n in range(50):
        await store.put(str(n), b"")
    watcher = await store.watch()
    async with asyncio.timeout(6):
        async for _ in watcher:
            await watcher.stop()  # from within, with a full queue


async def nothing_runs(store: ObjectStore) -> None:
    """No watch listens any more, and the server has no consumer: at once, not by a time-out."""
    connection = store.js.client.connection
    async with asyncio.timeout(LIMIT + 5):
        while await store.js.consumer_names(stream(store)) or set(connection.handlers.values()) != {
            connection._mux
        }:
            pass


async def test_watch_stop_cancelled(store: ObjectStore) -> None:
    """At whatever point it waits: what was begun is carried out, though somebody keeps the watcher."""
    await store.put("a", b"")
    reached, step, kept = True, 0, []
    while reached:
        step += 1
        watcher = await store.watch()
        kept.append(watcher)
        await take(watcher, 1)
        reached, exc = await cancel_at(watcher.stop(), step)
        assert reached == isinstance(exc, asyncio.CancelledError)
        await nothing_runs(store)
    assert step > 1
    for watcher in kept:
        await watcher.stop()


async def test_watch_start_cancelled(store: ObjectStore) -> None:
    """At whatever point it waits, though somebody keeps what was cancelled."""
    await store.put("a", b"")

    async def enter(watcher: Watcher) -> None:
        async with watcher:
            pass

    for start in (enter, Watcher.start):
        reached, step, kept = True, 0, []
        while reached:
            step += 1
            watcher = store.watch()
            kept.append(watcher)
            reached, _ = await cancel_at(start(watcher), step)
            if not reached:
                await watcher.stop()
            await nothing_runs(store)
        assert step > 1
        with pytest.raises(ConnectionClosedError, match="stopped"):
            await kept[0].start()


async def test_watch_start_failed(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had begun goes at once, though somebody keeps the watcher; each use tells of the failure."""

    def failing(self: Watch) -> None:
        raise BucketSealedError("no")

    monkeypatch.setattr(Watch, "_set_caught_up", failing)
    watcher = store.watch(updates_only=True)
    for use in (watcher.start, watcher.start, lambda: anext(watcher)):
        with pytest.raises(BucketSealedError):
            await use()
        await nothing_runs(store)


async def test_watch_slow_reader(store: ObjectStore) -> None:
    """Bounded by the number of names, and the last state of each comes; another watcher sees all."""
    async with store.watch() as slow, store.watch(updates_only=True) as quick:
        seen: list[int] = []

        async def read() -> None:
            async for info in quick:
                seen.append(info.revision)
                if info.name == "end":
                    return

        reading = asyncio.create_task(read())
        for n in range(300):
            await store.put(f"name {n % 3}", b"", str(n))
        await store.put("end", b"")
        async with asyncio.timeout(LIMIT):
            await reading
        await eventually(lambda: "end" in slow._watch._pending)  # it has a consumer of its own
        assert len(slow._watch._pending) <= 4
        found = await take(slow, 4)
        assert [(info.name, info.description) for info in found] == [
            ("name 0", "297"),
            ("name 1", "298"),
            ("name 2", "299"),
            ("end", None),
        ]
        assert seen == sorted(set(seen))


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "recreated"])
async def test_watch_bucket_deleted(
    js: JetStreamContext, bucket_name: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silence: the heartbeats stop, and the watcher says why."""
    monkeypatch.setattr("objstore.listing.watch.WATCH_HEARTBEAT", 0.3)
    store = await js.create_object_store(bucket=bucket_name)
    await store.put("a", b"")
    async with store.watch() as watcher:
        await take(watcher, 1)
        await js.delete_object_store(bucket_name)
        if again:
            await js.create_object_store(bucket=bucket_name)
        with pytest.raises(BucketNotFoundError):
            await take(watcher, 1)
        with pytest.raises(BucketNotFoundError):
            await take(watcher, 1)
    if again:
        await js.delete_object_store(bucket_name)


async def test_watch_client_closed(server: LocalServer, store: ObjectStore) -> None:
    async with natsproto.connect(server.url) as client:
        mine = await client.jetstream().object_store(store.bucket)
        watcher = await mine.watch()
        waiting = asyncio.ensure_future(anext(watcher))
        await client.close()
        async with asyncio.timeout(6):
            with pytest.raises(ConnectionError):
                await waiting
            await watcher.stop()
    for name in await store.js.consumer_names(stream(store)):
        await store.js.delete_consumer(stream(store), name)  # nobody was left to do that


async def test_watch_consumer_deleted(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """C4, D4: the missing heartbeats lead to a new consumer, which goes on where the old one was."""
    monkeypatch.setattr("objstore.listing.watch.WATCH_HEARTBEAT", 0.6)
    await store.put("a", b"")
    for updates_only in (False, True):
        async with store.watch(updates_only=updates_only) as watcher:
            if not updates_only:
                await take(watcher, 1)
            (name,) = await store.js.consumer_names(stream(store))
            await store.js.delete_consumer(stream(store), name)
            await store.put("b", b"")
            assert [info.name for info in await take(watcher, 1)] == ["b"]


async def test_get_consumer_deleted(js: JetStreamContext, bucket_name: str) -> None:
    """C4: the same while an object is read."""
    store = await js.create_object_store(bucket=bucket_name, allow_direct=False)
    data = pattern(24 * 1024 * 1024)
    await store.put("a", data)
    deleting: list[asyncio.Task[None]] = []

    async def delete() -> None:
        for name in await js.consumer_names(stream(store)):
            await js.delete_consumer(stream(store), name)

    def progress(done: int, total: int | None) -> None:
        if not deleting:
            deleting.append(asyncio.ensure_future(delete()))

    async with asyncio.timeout(LIMIT):
        assert await store.get("a", progress=progress) == data
    await deleting[0]
    assert await js.consumer_names(stream(store)) == []
    await js.delete_object_store(bucket_name)


# -- status and seal --------------------------------------------------------------------------------------


async def test_status(store: ObjectStore) -> None:
    empty = await store.status()
    assert (empty.bucket, empty.count, empty.sealed, empty.ttl, empty.description) == (
        store.bucket,
        0,
        False,
        None,
        None,
    )
    assert (empty.storage, empty.replicas, empty.backing_store, empty.max_bytes) == (
        "file",
        1,
        "JetStream",
        -1,
    )
    await store.put("a", pattern(3 * CHUNK))
    await store.put("b", b"")
    await store.add_link("l", await store.get_info("a"))
    await store.delete("b")
    status = await store.status()
    assert status.count == 2
    assert 3 * CHUNK < status.size < 3 * CHUNK + 4096


async def test_seal(js: JetStreamContext, bucket_name: str) -> None:
    """Nothing of the configuration is lost but what the server itself drops."""
    store = await js.create_object_store(bucket=bucket_name, description="d", max_bytes=1 << 20)
    await store.put("a", b"1")
    before = (await js.stream_info(stream(store))).config.to_json()
    assert await store.seal() is True
    assert await store.seal() is True
    after = (await js.stream_info(stream(store))).config.to_json()
    forced = {"sealed", "deny_delete", "deny_purge", "allow_rollup_hdrs", "metadata"}
    assert {key: value for key, value in after.items() if key not in forced} == {
        key: value for key, value in before.items() if key not in forced
    }
    assert (await store.status()).sealed
    for call in (
        store.put("b", b"2"),
        store.put("b", b""),
        store.put("a", pattern(20 * CHUNK)),
        store.create("b", b""),
        store.delete("a"),
        store.update_meta("a", ObjectMeta("a", "d")),
        store.update_meta("a", ObjectMeta("b")),
        store.add_bucket_link("b", "c"),
    ):
        async with asyncio.timeout(LIMIT):
            with pytest.raises(BucketSealedError):
                await call
    assert await store.get("a") == b"1"
    assert "natsproto.renaming" not in str(await read_raw(store, "a"))
    await js.delete_object_store(bucket_name)


async def test_other_calls_on_the_connection(nc: Client, store: ObjectStore) -> None:
    """A watcher, a list and transfers share one connection."""
    async with store.watch() as watcher:
        await asyncio.gather(*(store.put(str(n), pattern(CHUNK, n)) for n in range(8)), store.list())
        assert {info.name for info in await take(watcher, 8)} == {str(n) for n in range(8)}
        assert await nc.flush() is None


@pytest.mark.parametrize("version", ["new", "old"])
async def test_an_account_that_imports_the_api_alone(
    request: pytest.FixtureRequest, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a consumer comes there, one message of a batch: names and chunks are read one by one."""
    monkeypatch.setattr("objstore.read.window.PROGRESS", 0.5)
    monkeypatch.setattr("objstore.read.feed.HEARTBEAT", 0.1)
    binary = request.getfixturevalue(f"{version}_server").binary.path
    config = """
    accounts {
      A { jetstream: enabled, users: [ { user: own, password: o } ], exports: [ { service: "$JS.API.>" } ] }
      B { users: [ { user: b, password: b } ],
          imports: [ { service: { account: A, subject: "$JS.API.>" }, to: "A.API.>" } ] }
    }
    """
    with LocalServer(binary=binary, config=config) as server:
        async with (
            natsproto.connect(server.url, user="own", password="o") as owner,
            natsproto.connect(server.url, user="b", password="b") as other,
        ):
            there = await owner.jetstream().create_object_store(bucket="b")
            names = {(await there.put(f"n{number}", b"x")).name for number in range(20)}
            store = await other.jetstream(prefix="A.API").object_store("b")
            async with asyncio.timeout(15):
                assert {info.name for info in await store.list()} == names
            async with asyncio.timeout(5):  # it is known for a while
                assert len(await store.names(live=True)) == 20
            data = pattern(10 * CHUNK)
            await there.put("chunks", data, chunk_size=CHUNK)
            async with asyncio.timeout(20):
                assert await store.get("chunks") == data
            # The second time nothing is tried that does not come.
            monkeypatch.setattr(store.bound_bucket.js, "create_consumer", None)
            monkeypatch.setattr("objstore.read.window.BatchSlot", None)
            async with asyncio.timeout(20):
                assert await store.get("chunks") == data
