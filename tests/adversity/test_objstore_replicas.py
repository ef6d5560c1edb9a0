"""Read-your-writes on replicas: a follower that lags, on purpose, changes no answer (C10).

A follower is stopped while objects are written and goes on just before they are read: for a moment it has the
old state, and consumers and direct reads that it serves know no better.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.server import LocalCluster, LocalServer
from objstore import BucketNotFoundError, ObjectInfo, ObjectStore
from objstore.bucket.bucket import Bucket
from support.clusters import SERVERS, client_each, leader_of
from support.objects import CHUNK, part_file, pattern
from support.servers import old_binary

pytestmark = pytest.mark.cluster

STREAM = "OBJ_b"
BIG = 5 * CHUNK + 1000


@pytest.fixture(params=SERVERS, scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """One for all tests here: each mends what it breaks."""
    with LocalCluster(3, binary=old_binary() if request.param == "old" else None) as cluster:
        yield cluster


class Setting:
    """A writer at the leader, a reader at a follower, and that follower."""

    def __init__(self, writer: ObjectStore, reader: ObjectStore, follower: LocalServer) -> None:
        self.writer = writer
        self.reader = reader
        self.follower = follower
        self.revisions: dict[str, int] = {}
        self.data: dict[str, bytes] = {}
        self.round = 0

    async def behind(self) -> None:
        """Write while the follower stands still; return when it has just gone on."""
        self.round += 1
        self.follower.pause()
        try:
            for name in ("a", "dir/b", "c", "dir/sub/d"):
                await self.put(name, pattern(BIG, self.round))
            for number in range(10):
                await self.put("hot", b"%d" % number)
            await self.put(f"new{self.round}", b"x")
            await self.put("brief", b"x")
            await self.writer.delete("brief")
            del self.revisions["brief"], self.data["brief"]
        finally:
            self.follower.resume()

    async def put(self, name: str, data: bytes) -> None:
        self.revisions[name] = (await self.writer.put(name, data)).revision
        self.data[name] = data


async def delete(client: Client) -> None:
    """Servers that stood still need a moment."""
    async with asyncio.timeout(30):
        while True:
            try:
                await client.jetstream().delete_object_store("b")
                return
            except BucketNotFoundError:
                return
            except (natsproto.NatsError, TimeoutError):
                pass


@asynccontextmanager
async def setting(cluster: LocalCluster) -> AsyncIterator[Setting]:
    async with client_each(cluster) as clients:
        await clients[0].jetstream().create_object_store(bucket="b", replicas=3)
        leader = await leader_of(clients[0].jetstream(), cluster, STREAM)
        follower = next(server for server in cluster.servers if server is not leader)
        stores = [
            await clients[cluster.servers.index(server)].jetstream().object_store("b")
            for server in (leader, follower)
        ]
        try:
            yield Setting(*stores, follower)
        finally:
            await delete(clients[0])


Check = Callable[[Setting, ObjectStore, Path], Awaitable[None]]


async def listed(at: Setting, store: ObjectStore, tmp: Path) -> None:
    assert {info.name: info.revision for info in await store.list()} == at.revisions
    revisions = [info.revision for info in await store.list(include_deleted=True)]
    assert revisions == sorted(revisions), "in the order of the last change"


async def iterated(at: Setting, store: ObjectStore, tmp: Path) -> None:
    assert {info.name: info.revision async for info in store.iter()} == at.revisions


async def named(at: Setting, store: ObjectStore, tmp: Path) -> None:
    assert await store.names(live=True) == sorted(at.revisions)
    assert await store.names() == sorted({*at.revisions, "brief"})
    assert await store.count(live=True) == len(at.revisions)


async def stated(at: Setting, store: ObjectStore, tmp: Path) -> None:
    assert (await store.status()).count == len(at.revisions)


async def dirs(at: Setting, store: ObjectStore, tmp: Path) -> None:
    found = await store.list_dirs()
    assert found.prefixes == ["dir/"]
    wanted = {name: revision for name, revision in at.revisions.items() if "/" not in name}
    assert {info.name: info.revision for info in found.objects} == wanted


async def ranges(at: Setting, store: ObjectStore, tmp: Path) -> None:
    for name in ("a", "dir/sub/d"):
        for start, end in ((0, 10), (CHUNK - 5, CHUNK + 5), (200_000, 600_000), (BIG - 10, BIG)):
            assert await store.get_range(name, start, end) == at.data[name][start:end]


async def sought(at: Setting, store: ObjectStore, tmp: Path) -> None:
    async with store.open_reader("dir/sub/d") as reader:
        for start in (3 * CHUNK + 7, 10, BIG - 5):
            await reader.seek(start)
            assert await reader.read(2 * CHUNK) == at.data["dir/sub/d"][start : start + 2 * CHUNK]


async def resumed(at: Setting, store: ObjectStore, tmp: Path) -> None:
    data = at.data["c"]
    part_file(tmp / "file", await at.writer.get_info("c")).write_bytes(data[: 2 * CHUNK + 77])
    await store.get_file("c", tmp / "file", resume=True)
    assert (tmp / "file").read_bytes() == data


async def got(at: Setting, store: ObjectStore, tmp: Path) -> None:
    for name in ("c", "dir/sub/d", "hot"):
        assert await store.get(name) == at.data[name]


async def verified(at: Setting, store: ObjectStore, tmp: Path) -> None:
    for deep in (False, True):
        report = await store.verify(deep=deep)
        assert (report.problems, report.objects) == ([], len(at.revisions))


async def copied(at: Setting, store: ObjectStore, tmp: Path) -> None:
    info = await store.copy("dir/sub/d", "copy")
    at.revisions["copy"], at.data["copy"] = info.revision, at.data["dir/sub/d"]
    assert await at.writer.get("copy") == at.data["copy"]


async def caught_up(at: Setting, store: ObjectStore, tmp: Path) -> None:
    async with store.watch(ignore_deletes=True) as watcher:
        await watcher.caught_up
        seen = {info.name: info.revision for info, _ in watcher._watch._pending.values()}
        assert seen == at.revisions


async def collected(at: Setting, store: ObjectStore, tmp: Path) -> None:
    report = await store.gc(dry_run=True)
    assert (report.orphans, report.recent) == ([], [])


CHECKS: list[Check] = [
    *(listed, iterated, named, stated, dirs, ranges, sought),
    *(resumed, got, verified, copied, caught_up, collected),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_what_was_acknowledged_is_read(cluster: LocalCluster, check: Check, tmp_path: Path) -> None:
    """Also what another client wrote, and through the server that is behind."""
    async with setting(cluster) as at, asyncio.timeout(120):
        for number in range(4):
            await at.behind()
            tmp = tmp_path / str(number)
            tmp.mkdir()
            await check(at, at.reader, tmp)
            await at.behind()
            await check(at, at.writer, tmp)


async def test_what_is_missing_is_said_at_once(cluster: LocalCluster) -> None:
    """The proof works both ways: what the leader lacks, too, is not waited for."""
    async with setting(cluster) as at:
        await at.behind()
        js = at.writer.js
        info = await at.writer.get_info("a")
        last = await js.get_message(STREAM, last_by_subject=f"$O.b.C.{info.nuid}")
        await js.delete_message(STREAM, last.seq)
        async with asyncio.timeout(15):  # and not the budget of 20 s, three times
            with pytest.raises(natsproto.NatsError, match="damaged"):
                while True:  # the follower may hear of the deletion later
                    assert await at.reader.get("a") == at.data["a"]
            with pytest.raises(natsproto.NatsError, match="damaged"):
                await at.reader.get_range("a", BIG - 5, BIG)
            async with at.reader.open_reader("a") as reader:
                await reader.seek(10)
                with pytest.raises(natsproto.NatsError, match="damaged"):
                    await reader.read()
        kinds = [(problem.kind, problem.name) for problem in (await at.reader.verify()).problems]
        assert kinds == [("missing chunks", "a")]


async def test_a_leader_that_was_cut_off(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on answering, with metas older than what others say of the chunks: nothing is damaged."""
    async with setting(cluster) as at, asyncio.timeout(60):
        old = await at.writer.put("a", b"old" * 100)
        await at.writer.put("a", b"new" * 100)
        true = Bucket.leader_meta
        answers = [old, old]

        async def stale(bucket: Bucket, name: str, *_: object) -> ObjectInfo | None:
            return answers.pop() if answers else await true(bucket, name)

        async def before(bucket: Bucket, name: str, *_: object) -> ObjectInfo | None:
            return old

        for read in (at.reader.get("a"), at.reader.get_range("a", 0, 300)):
            with monkeypatch.context() as patch:
                patch.setattr(Bucket, "leader_meta", stale)
                patch.setattr(Bucket, "read_meta", before)
                answers[:] = [old, old]
                assert await read == b"new" * 100
                assert not answers


async def test_a_chunk_is_never_taken_for_another(cluster: LocalCluster) -> None:
    """Chunks of two objects lie between each other: where one is cannot be computed, only counted."""
    chunk = 4096
    async with setting(cluster) as at, asyncio.timeout(120):
        for number in range(4):
            at.follower.pause()
            try:
                data = {name: pattern(60 * chunk - 5, 100 * number + seed) for seed, name in enumerate("xyz")}
                await asyncio.gather(
                    *(
                        at.writer.put(name, each, chunk_size=chunk, window=chunk)
                        for name, each in data.items()
                    )
                )
            finally:
                at.follower.resume()
            for name, each in data.items():
                for start in (0, 7 * chunk + 1, 30 * chunk, 59 * chunk):
                    assert await at.reader.get_range(name, start, start + 9000) == each[start : start + 9000]
                async with at.reader.open_reader(name) as reader:
                    await reader.seek(31 * chunk + 3)
                    assert await reader.read() == each[31 * chunk + 3 :]


async def test_a_thousand_names(cluster: LocalCluster) -> None:
    """D3: complete, in every way there is, while others are written, and without a consumer left."""
    async with setting(cluster) as at, asyncio.timeout(180):
        names = [f"n{number:04}" for number in range(1000)]
        for part in range(0, 1000, 50):
            await asyncio.gather(*(at.put(name, b"") for name in names[part : part + 50]))
        assert await at.reader.names() == names
        assert {info.name: info.revision for info in await at.reader.list()} == at.revisions
        assert {info.name: info.revision async for info in at.reader.iter()} == at.revisions
        assert sorted([info.name async for info in at.reader.iter(prefix="n09")]) == names[900:]

        stop = asyncio.Event()

        async def replace(start: int) -> None:
            number = start
            while not stop.is_set():
                await at.put(names[number % 1000], b"y")
                number += 7

        writers = [asyncio.create_task(replace(start)) for start in range(3)]
        try:
            for _ in range(3):
                before = dict(at.revisions)
                found = {info.name: info.revision for info in await at.reader.list()}
                assert sorted(found) == names
                assert [name for name in names if found[name] < before[name]] == []
                before = dict(at.revisions)
                found = {info.name: info.revision async for info in at.reader.iter()}
                assert sorted(found) == names
                assert [name for name in names if found[name] < before[name]] == []
                async with at.reader.watch() as watcher:
                    await watcher.caught_up
                    assert sorted(watcher._watch._pending) == names
        finally:
            stop.set()
            await asyncio.gather(*writers)
        assert await at.writer.js.consumer_names(STREAM) == []


async def test_a_follower_that_hangs(cluster: LocalCluster) -> None:
    """Consumers that are given to it never answer; the next one is given to another server."""
    async with setting(cluster) as at:
        await at.behind()
        at.follower.pause()
        try:
            async with asyncio.timeout(20 + 5):
                found = await asyncio.gather(
                    at.writer.list(),
                    _all(at.writer),
                    at.writer.get_range("a", 10, BIG),
                    at.writer.names(live=True),
                )
        finally:
            at.follower.resume()
        for infos in found[:2]:
            assert {info.name: info.revision for info in infos} == at.revisions
        assert found[2] == at.data["a"][10:]
        assert found[3] == sorted(at.revisions)


async def _all(store: ObjectStore) -> list[ObjectInfo]:
    return [info async for info in store.iter()]
