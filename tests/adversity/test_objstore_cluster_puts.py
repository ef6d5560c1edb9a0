"""Puts to three replicas: cancelled, killed, over faults of every server, and as fast as it goes."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError
from natsproto.server import LocalCluster, LocalServer
from natsproto.testing import DROP, FaultProxy
from natsproto.wire import Pub
from objstore import ObjectStore
from support.clusters import leader_of
from support.objects import CHUNK, MIB, assert_exact, chunk_counts, impatient, pattern

pytestmark = pytest.mark.cluster

OLD = pattern(3 * CHUNK, 1)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One for all tests here: each mends what it breaks."""
    with LocalCluster(3) as cluster:
        yield cluster


@pytest.fixture
async def store(cluster: LocalCluster, bucket_name: str) -> AsyncIterator[ObjectStore]:
    async with natsproto.connect(cluster.urls) as client:
        js = client.jetstream()
        store = await js.create_object_store(bucket=bucket_name, replicas=3)
        await store.put("a", OLD)
        yield store
        await js.delete_object_store(bucket_name)


async def exact(store: ObjectStore) -> None:
    """Every live object has its chunks, and nothing else has any, once all has been cleaned up."""
    async with asyncio.timeout(30):
        while tasks := [task for task in asyncio.all_tasks() if task.get_name().startswith("objstore-")]:
            await asyncio.wait(tasks)
    await assert_exact(store)


# -- cancelled: B4 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True], ids=["arrives", "lost"])
@pytest.mark.parametrize("what", ["chunk", "meta"])
async def test_cancelled(cluster: LocalCluster, store: ObjectStore, what: str, lost: bool) -> None:
    """At a chunk nothing is left of it; at the meta it is stored whole, or nothing is left."""
    new = pattern(6 * CHUNK + 1, 2)
    prefix = f"$O.{store.bucket}.{'M' if what == 'meta' else 'C'}.".encode()
    task: asyncio.Task[Any]
    async with (
        FaultProxy(cluster.servers[1].url) as proxy,
        natsproto.connect(proxy.url, ignore_discovered=True, connect_timeout=10) as client,
    ):
        faulty = await impatient(client, store.bucket, 0.5)

        def cancel(event: Any, raw: bytes) -> Any:
            if isinstance(event, Pub) and event.subject.startswith(prefix):
                proxy.to_server = None
                task.cancel()
                return DROP if lost else None
            return None

        proxy.to_server = cancel
        task = asyncio.ensure_future(faulty.put("a", new))
        done, _ = await asyncio.wait([task], timeout=5 + 10)
        assert done
        assert task.cancelled()
        assert await store.get("a") in ((OLD, new) if what == "meta" else (OLD,))
        await exact(store)


# -- killed: B5 ---------------------------------------------------------------------------------------------

CLIENT = """
import asyncio, sys
import natsproto

async def main(url, bucket):
    async with natsproto.connect(url, connect_timeout=10) as client:
        store = await client.jetstream().object_store(bucket)

        async def source():
            for _ in range(8):
                yield bytes(131072)
            print("sent", flush=True)
            await asyncio.Event().wait()
            yield b""

        await store.put("a", source(), window=131072)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_client_killed(cluster: LocalCluster, store: ObjectStore) -> None:
    """``gc`` finds what it leaves once that is old; the object is the one before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CLIENT,
        cluster.servers[2].url,
        store.bucket,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(45):
            assert await process.stdout.readline() == b"sent\n"
    finally:
        process.kill()
        await process.wait()
    live = (await store.get_info("a")).nuid
    (orphan,) = set(await chunk_counts(store)) - {live}
    report = await store.gc()
    assert (report.orphans, report.recent) == ([], [orphan])
    assert orphan in await chunk_counts(store)
    report = await store.gc(older_than=timedelta(0))
    assert [each.nuid for each in report.orphans] == [orphan]
    assert await store.get("a") == OLD
    await assert_exact(store)


# -- faults of servers: B13 ---------------------------------------------------------------------------------


class Disturbed(io.BytesIO):
    """A file that does something before it gives on, once each time it has given so many bytes."""

    def __init__(self, data: bytes, actions: list[Callable[[], object]], every: int) -> None:
        super().__init__(data)
        self.actions = actions
        self.every = every
        self.given = 0
        self.done = 0

    def read(self, size: int | None = -1, /) -> bytes:
        while self.done < len(self.actions) and self.given >= (self.done + 1) * self.every:
            self.done += 1
            self.actions[self.done - 1]()
        size = self.every if size is None or size < 0 else size
        piece = super().read(min(size, self.every - self.given % self.every))
        self.given += len(piece)
        return piece


def standstill(server: LocalServer, seconds: float) -> None:
    server.pause()
    try:
        threading.Event().wait(seconds)
    finally:
        server.resume()


EVERYTHING = ("step down", "stop near", "stop other", "stop leader", "kill near", "kill other", "kill leader")
SHORT = EVERYTHING[1:5]
"""A step-down alone takes a third of the budget: ``test_budget_cluster.py`` has it."""


@pytest.mark.parametrize(
    ("faults", "size", "pause", "ours"),
    [
        (SHORT, 12 * MIB, 0.5, "follower"),
        pytest.param(EVERYTHING, 12 * MIB, 0.5, "leader", marks=pytest.mark.soak),
        pytest.param(EVERYTHING, 120 * MIB, 5.0, "follower", marks=pytest.mark.soak),
        pytest.param(EVERYTHING, 120 * MIB, 5.0, "leader", marks=pytest.mark.soak),
    ],
)
async def test_everything_happens_to_the_servers(
    cluster: LocalCluster, store: ObjectStore, faults: tuple[str, ...], size: int, pause: float, ours: str
) -> None:
    """Step-down, standstill and kill of leader, follower and the server connected to, during one put."""
    new = pattern(size, 3)
    loop = asyncio.get_running_loop()
    leader = await leader_of(store.js, cluster, f"OBJ_{store.bucket}")
    followers = [server for server in cluster.servers if server is not leader]
    near, other = (leader, followers[0]) if ours == "leader" else (followers[0], followers[1])
    servers = [near.url, *(server.url for server in cluster.servers if server is not near)]
    async with natsproto.connect(servers, randomize=False, reconnect_wait=0.05) as client:
        js = client.jetstream()
        faulty = await js.object_store(store.bucket)

        def on_loop(coroutine: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

        def leading() -> LocalServer:
            return on_loop(leader_of(store.js, cluster, f"OBJ_{store.bucket}"))

        def step_down() -> None:
            on_loop(store.js.request(f"STREAM.LEADER.STEPDOWN.OBJ_{store.bucket}"))

        def kill(server: LocalServer) -> None:
            server.kill()
            server.start()
            cluster.wait_ready(30)

        actions: dict[str, Callable[[], object]] = {
            "step down": step_down,
            "stop near": lambda: standstill(near, pause),
            "stop other": lambda: standstill(other, pause),
            "stop leader": lambda: standstill(leading(), pause),
            "kill near": lambda: kill(near),
            "kill other": lambda: kill(other),
            "kill leader": lambda: kill(leading()),
        }
        source = Disturbed(new, [actions[fault] for fault in faults], size // (len(faults) + 1))
        failure: NatsError | None = None
        try:
            await faulty.put("a", source, window=MIB)
        except NatsError as exc:
            failure = exc
        assert source.done == len(faults)
        assert failure is None, "the cluster was whole again each time, and the source can be read again"
    assert await store.get("a") == new
    await exact(store)


# -- as fast as it goes: B14 --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [24 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.soak)])
@pytest.mark.parametrize("puts", [1, 3])
async def test_as_fast_as_it_goes(store: ObjectStore, size: int, puts: int) -> None:
    """Nothing slows the source down, and the window is a large one: it takes its time, and succeeds."""
    piece = pattern(MIB, 4)

    async def source() -> AsyncIterator[bytes]:
        for _ in range(size // MIB // puts):
            yield piece

    infos = await asyncio.gather(
        *(store.put(f"{n}", source(), window=16 * MIB) for n in range(puts)),
    )
    for info in infos:
        assert info.size == size // MIB // puts * MIB
        async with store.open_reader(info.name) as reader:
            while block := await reader.read(MIB):
                assert block == piece[: len(block)]
    await exact(store)
