"""Puts and deletes under faults: exact, or a typed error with the old object intact and no chunk left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError
from natsproto.jetstream import publisher
from natsproto.server import LocalServer
from natsproto.testing import CUT, DROP, DUPLICATE, HOLD, FaultProxy, delay
from natsproto.wire import Msg, Pub
from objstore import (
    IntegrityError,
    ObjectDeletedError,
    ObjectMeta,
    ObjectStore,
    OutcomeUnknownError,
)
from support.objects import CHUNK, assert_exact, chunk_counts, impatient, once, pattern, settled

OLD, NEW = pattern(2 * CHUNK, 1), pattern(6 * CHUNK + 1, 2)
LIMIT = 30.0
"""Seconds: the usual budget, and 10 to spare."""


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture
async def faulty(
    proxy: FaultProxy, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    """The bucket of ``store`` through the proxy, with short patience."""
    monkeypatch.setitem(publisher.PublishWindow.__init__.__kwdefaults__, "progress_timeout", 0.4)
    await store.put("a", OLD)
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        yield await impatient(client, store.bucket, 0.5)
        proxy.to_server = proxy.to_client = None
        proxy.blackhole(False)


class Frames:
    """Hooks that act on the n-th frame of a kind, once."""

    def __init__(self, store: ObjectStore) -> None:
        self.chunks = f"$O.{store.bucket}.C.".encode()
        self.metas = f"$O.{store.bucket}.M.".encode()
        self.seen = 0
        self.hit = asyncio.Event()
        self.replies: set[bytes] = set()

    def publish(self, prefix: bytes, n: int, action: Any) -> Callable[[Any, bytes], Any]:
        def hook(event: Any, raw: bytes) -> Any:
            if isinstance(event, Pub) and event.subject.startswith(prefix):
                self.seen += 1
                if self.seen == n + 1:
                    self.hit.set()
                    return action() if callable(action) else action
            return None

        return hook

    def ack(self, proxy: FaultProxy, prefix: bytes, n: int, action: Any) -> None:
        """Act on the acknowledgement of the n-th publish."""

        def remember(event: Any, raw: bytes) -> Any:
            if isinstance(event, Pub) and event.subject.startswith(prefix):
                if self.seen == n and event.reply is not None:
                    self.replies.add(event.reply)
                self.seen += 1
            return None

        def answer(event: Any, raw: bytes) -> Any:
            if isinstance(event, Msg) and event.subject in self.replies:
                self.replies.discard(event.subject)
                self.hit.set()
                return action() if callable(action) else action
            return None

        proxy.to_server, proxy.to_client = remember, answer


async def outcome(store: ObjectStore, call: Any) -> BaseException | None:
    """Run ``call``; whatever happens, the object is one of the two and nothing is left over."""
    error: BaseException | None = None
    async with asyncio.timeout(LIMIT):
        try:
            await call
        except (NatsError, asyncio.CancelledError) as exc:
            error = exc
    assert await store.get("a") == (NEW if error is None else OLD)
    await assert_exact(store)
    return error


# -- chunks: B1, B2 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 3, 6])
@pytest.mark.parametrize("restartable", [True, False])
async def test_chunk_lost(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, n: int, restartable: bool
) -> None:
    frames = Frames(store)
    proxy.to_server = frames.publish(frames.chunks, n, DROP)
    assert await outcome(store, faulty.put("a", NEW if restartable else once(NEW))) is None
    assert frames.hit.is_set()


@pytest.mark.parametrize("n", [0, 3, 6])
async def test_chunk_ack_lost(proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, n: int) -> None:
    frames = Frames(store)
    frames.ack(proxy, frames.chunks, n, DROP)
    assert await outcome(store, faulty.put("a", once(NEW))) is None
    assert frames.hit.is_set()


async def test_chunk_ack_late(proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore) -> None:
    frames = Frames(store)
    frames.ack(proxy, frames.chunks, 2, delay(0.7))
    assert await outcome(store, faulty.put("a", once(NEW))) is None


@pytest.mark.parametrize("n", [0, 3, 6])
@pytest.mark.parametrize("restartable", [True, False])
async def test_chunk_twice(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, n: int, restartable: bool
) -> None:
    frames = Frames(store)
    proxy.to_server = frames.publish(frames.chunks, n, DUPLICATE)
    assert await outcome(store, faulty.put("a", NEW if restartable else once(NEW))) is None
    assert frames.hit.is_set()


@pytest.mark.parametrize("n", [0, 3, 5])
@pytest.mark.parametrize("restartable", [True, False])
async def test_chunks_swapped(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, n: int, restartable: bool
) -> None:
    frames = Frames(store)
    hold = frames.publish(frames.chunks, n, HOLD)

    def hook(event: Any, raw: bytes) -> Any:
        result = hold(event, raw)
        if result is None and proxy.held:
            asyncio.get_running_loop().call_soon(proxy.release)
        return result

    proxy.to_server = hook
    error = await outcome(store, faulty.put("a", NEW if restartable else once(NEW)))
    assert error is None or (not restartable and isinstance(error, IntegrityError))


@pytest.mark.parametrize("seed", [1, 2])
async def test_random_loss(proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, seed: int) -> None:
    """One chunk and one answer in ten is lost."""
    rng = random.Random(seed)
    chunks = Frames(store).chunks

    def to_server(event: Any, raw: bytes) -> Any:
        lost = isinstance(event, Pub) and event.subject.startswith(chunks) and rng.random() < 0.1
        return DROP if lost else None

    def to_client(event: Any, raw: bytes) -> Any:
        return DROP if isinstance(event, Msg) and b'"seq":' in event.payload and rng.random() < 0.1 else None

    proxy.to_server, proxy.to_client = to_server, to_client
    data = pattern(12 * CHUNK, seed)
    error: BaseException | None = None
    try:
        async with asyncio.timeout(LIMIT):
            await faulty.put("a", data)
    except (NatsError, TimeoutError) as exc:
        error = exc
    proxy.to_server = proxy.to_client = None
    if isinstance(error, OutcomeUnknownError | TimeoutError):
        assert await store.get("a") in (OLD, data)
    else:
        assert await store.get("a") == (data if error is None else OLD)
        if error is None:
            await assert_exact(store)


@pytest.mark.parametrize("n", [0, 3, 6])
@pytest.mark.parametrize("restartable", [True, False])
async def test_cut_at_chunk(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, n: int, restartable: bool
) -> None:
    frames = Frames(store)
    proxy.to_server = frames.publish(frames.chunks, n, CUT)
    assert await outcome(store, faulty.put("a", NEW if restartable else once(NEW))) is None
    assert frames.hit.is_set()


async def test_cut_several_times(proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore) -> None:
    data = pattern(40 * CHUNK)
    prefix = f"$O.{store.bucket}.C.".encode()
    count = 0

    def hook(event: Any, raw: bytes) -> Any:
        nonlocal count
        if isinstance(event, Pub) and event.subject.startswith(prefix):
            count += 1
            if count in (5, 12, 30):
                return CUT
        return None

    proxy.to_server = hook
    async with asyncio.timeout(LIMIT):
        await faulty.put("a", (data[i : i + CHUNK] for i in range(0, len(data), CHUNK)), window=4 * CHUNK)
    assert proxy.accepted >= 3
    assert await store.get("a") == data
    await assert_exact(store)


@pytest.mark.parametrize("when", ["first", "middle", "last", "meta"])
async def test_server_killed(new_server: LocalServer, when: str) -> None:
    """B1: kill -9 and a restart on the same store, at chunk k and before the meta."""
    async with (
        LocalServer() as server,
        FaultProxy(server.url) as proxy,
        natsproto.connect(proxy.url, reconnect_wait=0.02) as client,
    ):
        store = await client.jetstream().create_object_store(bucket="b")
        await store.put("a", OLD)
        frames = Frames(store)
        prefix = frames.metas if when == "meta" else frames.chunks
        number = {"first": 0, "middle": 3, "last": 6, "meta": 0}[when]

        def crash() -> None:
            server.kill()
            server.start()

        async def kill() -> Any:
            # The hook is cancelled when the connection ends; the restart must not be.
            await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(crash)))
            return DROP

        proxy.to_server = frames.publish(prefix, number, kill)
        assert await outcome(store, store.put("a", once(NEW))) is None
        assert frames.hit.is_set()


# -- the meta: B3 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [DROP, CUT, delay(0.7), DUPLICATE], ids=str)
@pytest.mark.parametrize("what", ["publish", "acknowledgement"])
@pytest.mark.parametrize("verb", ["put", "create", "empty"])
async def test_meta(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, action: Any, what: str, verb: str
) -> None:
    """Lost, late, doubled or cut off: found out by sending it again and reading back."""
    frames = Frames(store)
    if verb == "create":
        await store.delete("a")
    if what == "publish":
        proxy.to_server = frames.publish(frames.metas, 0, action)
    else:
        frames.ack(proxy, frames.metas, 0, action)
    data = b"" if verb == "empty" else NEW
    async with asyncio.timeout(LIMIT):
        info = await (faulty.create("a", data) if verb == "create" else faulty.put("a", data))
    assert frames.hit.is_set()
    assert await store.get("a") == data
    assert (await store.get_info("a")).revision == info.revision
    await assert_exact(store)


async def test_meta_never_answered(proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore) -> None:
    """What cannot be found out is said so, and no chunk is purged: the meta may be stored."""
    faulty = faulty.with_options(retry_budget=3.0)
    metas = Frames(store).metas

    def hook(event: Any, raw: bytes) -> Any:
        if isinstance(event, Pub) and event.subject.startswith(metas):
            proxy.blackhole(side="client")
        return None

    proxy.to_server = hook
    async with asyncio.timeout(LIMIT):
        with pytest.raises(OutcomeUnknownError) as caught:
            await faulty.put("a", NEW)
    assert (caught.value.name, caught.value.bucket) == ("a", store.bucket)
    assert await store.get("a") == NEW
    assert caught.value.nuid in await chunk_counts(store)


async def test_lost_race_found_out_late(proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore) -> None:
    """Our meta is lost, another writer's is stored: whether ours was there in between, nobody can tell.

    So nothing is removed, and nothing is sent again: it might name chunks that are gone.
    """
    frames = Frames(store)

    async def other() -> Any:
        await store.put("a", b"other")
        return DROP

    proxy.to_server = frames.publish(frames.metas, 0, other)
    async with asyncio.timeout(LIMIT):
        with pytest.raises(OutcomeUnknownError) as caught:
            await faulty.put("a", NEW)
    assert await store.get("a") == b"other"
    assert caught.value.nuid in await chunk_counts(store)
    report = await store.gc(older_than=timedelta(0))
    assert caught.value.nuid in [orphan.nuid for orphan in report.orphans]
    assert (await store.verify(deep=True)).ok


async def test_client_closed_during_put(proxy: FaultProxy, store: ObjectStore) -> None:
    await store.put("a", OLD)
    for n in (0, 3):
        async with natsproto.connect(proxy.url) as client:
            faulty = await client.jetstream().object_store(store.bucket)
            frames = Frames(store)
            proxy.to_server = frames.publish(frames.chunks, n, HOLD)
            putting = asyncio.ensure_future(faulty.put("a", NEW))
            async with asyncio.timeout(LIMIT):
                await frames.hit.wait()
                await client.close()
                with pytest.raises(ConnectionError):
                    await putting
            proxy._traffic.held.clear()
        assert await store.get("a") == OLD


# -- delete: D8 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [DROP, CUT, delay(0.7), DUPLICATE], ids=str)
@pytest.mark.parametrize("what", ["publish", "acknowledgement"])
async def test_delete_marker(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, action: Any, what: str
) -> None:
    frames = Frames(store)
    if what == "publish":
        proxy.to_server = frames.publish(frames.metas, 0, action)
    else:
        frames.ack(proxy, frames.metas, 0, action)
    async with asyncio.timeout(LIMIT):
        assert await faulty.delete("a") is True
    assert frames.hit.is_set()
    with pytest.raises(ObjectDeletedError):
        await store.get("a")
    assert await chunk_counts(store) == {}


async def test_delete_marker_never_sent(proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore) -> None:
    """The object is there, whole."""
    faulty = faulty.with_options(retry_budget=3.0)
    metas = Frames(store).metas

    def hook(event: Any, raw: bytes) -> Any:
        return DROP if isinstance(event, Pub) and event.subject.startswith(metas) else None

    proxy.to_server = hook
    async with asyncio.timeout(LIMIT):
        with pytest.raises(OutcomeUnknownError):
            await faulty.delete("a")
    assert await store.get("a") == OLD


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("action", [DROP, CUT], ids=str)
@pytest.mark.parametrize("what", ["publish", "acknowledgement"])
async def test_rename(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, n: int, action: Any, what: str
) -> None:
    """D9: each of its three messages, lost or cut off."""
    frames = Frames(store)
    if what == "publish":
        proxy.to_server = frames.publish(frames.metas, n, action)
    else:
        frames.ack(proxy, frames.metas, n, action)
    async with asyncio.timeout(LIMIT):
        await faulty.update_meta("a", ObjectMeta("b"))
    assert frames.hit.is_set()
    assert await store.get("b") == OLD
    assert [info.name for info in await store.list()] == ["b"]
    await assert_exact(store)


async def test_cancelled_while_the_outcome_is_open(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore
) -> None:
    """Once the meta is on its way a cancellation waits for what became of it."""
    for what in ("publish", "acknowledgement"):
        frames = Frames(store)
        if what == "publish":
            proxy.to_server = frames.publish(frames.metas, 0, DROP)
        else:
            frames.ack(proxy, frames.metas, 0, DROP)
        putting = asyncio.ensure_future(faulty.put("a", NEW))
        async with asyncio.timeout(LIMIT):
            await frames.hit.wait()
            putting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await putting
        await settled(store)
        assert await store.get("a") == NEW
        await store.put("a", OLD)


# -- many at once: B9, B15 --------------------------------------------------------------------------------


@pytest.mark.parametrize("writers", [2, 8, 32])
async def test_many_writers(server: LocalServer, store: ObjectStore, writers: int) -> None:
    """Last writer wins; exactly one set of chunks remains."""
    datas = [pattern(2 * CHUNK + n, n) for n in range(writers)]
    async with natsproto.connect(server.url) as second:
        stores = [store, await second.jetstream().object_store(store.bucket)]
        async with asyncio.timeout(LIMIT):
            results = await asyncio.gather(
                *(stores[n % 2].put("a", data) for n, data in enumerate(datas)), return_exceptions=True
            )
        failed = [result for result in results if isinstance(result, BaseException)]
        assert all(isinstance(result, NatsError) for result in failed)
        assert not failed or writers > 10
        last = max((r for r in results if not isinstance(r, BaseException)), key=lambda info: info.revision)
        assert await store.get("a") == datas[results.index(last)]
        await assert_exact(store)


async def test_one_winner(server: LocalServer, store: ObjectStore) -> None:
    for verb in ("create", "if_revision", "delete"):
        revision = 0
        if verb != "create":
            revision = (await store.put("a", OLD)).revision
        async with asyncio.timeout(LIMIT):
            results = await asyncio.gather(
                *(
                    store.create("a", pattern(CHUNK, n))
                    if verb == "create"
                    else store.put("a", pattern(CHUNK, n), if_revision=revision)
                    if verb == "if_revision"
                    else store.delete("a", if_revision=revision)
                    for n in range(8)
                ),
                return_exceptions=True,
            )
        winners = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
        assert len(winners) == 1
        assert all(isinstance(r, NatsError) for n, r in enumerate(results) if n not in winners)
        if verb == "delete":
            assert await chunk_counts(store) == {}
        else:
            assert await store.get("a") == pattern(CHUNK, winners[0])
        await assert_exact(store)


async def test_mix(server: LocalServer, store: ObjectStore) -> None:
    """Puts, deletes, renames and gets of few names: every get is some put's content, nothing is left."""
    contents = {pattern(CHUNK + n, n) for n in range(40)}

    async def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(15):
            name, other = rng.sample("abc", 2)
            verb = rng.choice(["put", "put", "get", "delete", "rename"])
            try:
                if verb == "put":
                    n = rng.randrange(40)
                    await store.put(name, pattern(CHUNK + n, n))
                elif verb == "get":
                    assert await store.get(name) in contents
                elif verb == "delete":
                    await store.delete(name)
                else:
                    await store.update_meta(name, ObjectMeta(other))
            except IntegrityError:
                raise
            except NatsError:
                pass

    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(work(seed) for seed in range(6)))
    for info in await store.list():
        assert await store.get(info.name) in contents
    # Of renamed objects whose old name was written since, the chunks are left to gc for an hour.
    await store.gc(older_than=timedelta(0))
    await assert_exact(store)
