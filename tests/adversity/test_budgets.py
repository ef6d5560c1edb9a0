"""One budget without progress for everything an operation waits for: the bounds do not add up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.errors import ConfigError, NatsError
from natsproto.server import LocalServer
from natsproto.testing import DROP, FaultProxy
from natsproto.wire import Pub
from objstore import ObjectMeta, ObjectStore, OutcomeUnknownError
from objstore.bucket.binding import BIND_BUDGET
from support.objects import CHUNK, assert_exact, pattern
from support.waits import held

BUDGET = 2.0
TIMEOUT = 0.8
BOUND = BUDGET + 5
OLD = pattern(2 * CHUNK + 5, 1)
NEW = pattern(6 * CHUNK + 7, 2)


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture
async def faulty(proxy: FaultProxy, store: ObjectStore) -> AsyncIterator[ObjectStore]:
    """The bucket of ``store`` through the proxy, by a client with a short budget."""
    await store.put("a", OLD)
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        usual = await client.jetstream().object_store(store.bucket)  # with time enough
        usual.js.timeout = TIMEOUT
        yield usual.with_options(retry_budget=BUDGET)
        proxy.to_server = proxy.to_client = None
        proxy.cut()  # what is held back must not come later
        proxy.blackhole(False)


async def pieces() -> AsyncIterator[bytes]:
    for n in range(12):
        yield NEW[n * CHUNK // 2 : (n + 1) * CHUNK // 2]


async def written(store: ObjectStore) -> None:
    async with store.open_writer("a") as writer:
        await writer.write(NEW)


async def uploaded(store: ObjectStore) -> None:
    await (await store.begin_upload("a")).send(NEW)


async def read(store: ObjectStore) -> None:
    async with store.open_reader("a") as reader:
        await reader.read()


async def iterated(store: ObjectStore) -> None:
    async for _ in store.iter():
        pass


async def filed(store: ObjectStore) -> None:
    await store.get_file("a", "copy")


Verb = Callable[[ObjectStore], Awaitable[Any]]
WRITING: dict[str, Verb] = {
    "put": lambda store: store.put("a", NEW),
    "put small": lambda store: store.put("a", b"new"),
    "put, a narrow window": lambda store: store.put("a", NEW, window=CHUNK),
    "put of a generator": lambda store: store.put("a", pieces()),
    "put with a revision": lambda store: store.put("a", NEW, if_revision=4),
    "create": lambda store: store.create("b", NEW),
    "writer": written,
    "upload": uploaded,
}
OTHERS: dict[str, Verb] = {
    "delete": lambda store: store.delete("a"),
    "update_meta": lambda store: store.update_meta("a", ObjectMeta("a", "new")),
    "rename": lambda store: store.rename("a", "b"),
    "get": lambda store: store.get("a"),
    "get_range": lambda store: store.get_range("a", 5, CHUNK + 5),
    "get_info": lambda store: store.get_info("a"),
    "get_file": filed,
    "reader": read,
    "list": lambda store: store.list(),
    "iter": iterated,
    "status": lambda store: store.status(),
    "gc": lambda store: store.gc(),
}


def chunks_are_lost(store: ObjectStore) -> Callable[[Any, bytes], Any]:
    """As a server whose disk is full: it answers every question and stores nothing."""
    prefix = f"$O.{store.bucket}.C.".encode()

    def hook(event: Any, raw: bytes) -> Any:
        return DROP if isinstance(event, Pub) and event.subject.startswith(prefix) else None

    return hook


async def gives_up(verb: Verb, store: ObjectStore, bound: float = BOUND) -> NatsError:
    async with asyncio.timeout(bound):
        with pytest.raises(NatsError) as caught:
            await verb(store)
    return caught.value


@pytest.mark.parametrize("name", WRITING)
async def test_nothing_is_stored(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, name: str
) -> None:
    proxy.to_server = chunks_are_lost(store)
    error = await gives_up(WRITING[name], faulty)
    assert isinstance(error, TimeoutError)
    assert not isinstance(error, OutcomeUnknownError)
    assert "no acknowledgement" in str(error)
    assert await store.get("a") == OLD
    await assert_exact(store)


@pytest.mark.parametrize("name", ["put", "put of a generator", "writer"])
async def test_nothing_is_stored_from_some_chunk_on(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, name: str
) -> None:
    """The budget runs from the last acknowledgement, and what was stored is removed."""
    passed = 0
    lost = chunks_are_lost(store)

    def hook(event: Any, raw: bytes) -> Any:
        nonlocal passed
        if lost(event, raw) is None:
            return None
        passed += 1
        return None if passed <= 2 else DROP

    proxy.to_server = hook
    await gives_up(WRITING[name], faulty)
    assert passed > 2
    assert await store.get("a") == OLD
    await assert_exact(store)


@pytest.mark.parametrize("name", [*WRITING, *OTHERS])
async def test_silence(
    proxy: FaultProxy,
    faulty: ObjectStore,
    store: ObjectStore,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing comes any more, and no new connection either."""
    monkeypatch.chdir(tmp_path)
    proxy.blackhole()
    faulty.js.timeout = TIMEOUT / 2
    await gives_up({**WRITING, **OTHERS}[name], faulty.with_options(retry_budget=BUDGET / 2))
    assert list(tmp_path.iterdir()) == []
    assert await store.get("a") == OLD
    await assert_exact(store)


async def test_what_was_lost_is_sent_again_within_the_budget(proxy: FaultProxy, store: ObjectStore) -> None:
    """A leader that steps down drops what it had not stored: that is noticed with time to spare."""
    lost = chunks_are_lost(store)
    dropped = 0

    def hook(event: Any, raw: bytes) -> Any:
        nonlocal dropped
        if lost(event, raw) is None or dropped == 3:
            return None
        dropped += 1
        return DROP

    proxy.to_server = hook
    async with asyncio.timeout(8 + 5), natsproto.connect(proxy.url, retry_budget=8.0) as client:
        faulty = await client.jetstream(timeout=3.2).object_store(store.bucket)
        await faulty.put("a", pieces())
    assert dropped == 3
    assert await store.get("a") == NEW[: 6 * CHUNK]
    await assert_exact(store)


async def test_progress_renews_the_budget(proxy: FaultProxy, store: ObjectStore) -> None:
    """Three chunks are lost once each: in all it takes longer than the budget, but never without progress."""
    budget = 3 * BUDGET  # three quarters of it go with each loss; the rest is for a machine that is busy
    lost = chunks_are_lost(store)
    seen: set[bytes] = set()

    def hook(event: Any, raw: bytes) -> Any:
        if lost(event, raw) is None or not event.payload:
            return None
        if len(seen) == 3 or bytes(event.payload) in seen:
            return None
        seen.add(bytes(event.payload))
        return DROP

    async with natsproto.connect(proxy.url, reconnect_wait=0.02, retry_budget=budget) as client:
        faulty = await client.jetstream().object_store(store.bucket)
        faulty.js.timeout = 0.4
        proxy.to_server = hook
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(60):
            await faulty.put("a", pieces(), window=CHUNK)
        assert asyncio.get_running_loop().time() - began > budget
    assert len(seen) == 3
    assert await store.get("a") == NEW[: 6 * CHUNK]
    await assert_exact(store)


async def test_a_slow_source_costs_no_budget(faulty: ObjectStore, store: ObjectStore) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield NEW[:CHUNK]
        await held(BUDGET)
        yield NEW[CHUNK:]

    async with asyncio.timeout(2 * BOUND):
        await faulty.put("a", slow())
    assert await store.get("a") == NEW


async def test_budget_of_one_call(proxy: FaultProxy, store: ObjectStore) -> None:
    """The client's is the default, a handle has its own; the bucket is the same."""
    await store.put("a", OLD)
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        usual = await client.jetstream().object_store(store.bucket)
        assert usual._bucket.retry_budget == 20
        hurried = usual.with_options(retry_budget=BUDGET)
        assert (hurried._bucket.retry_budget, usual._bucket.retry_budget) == (BUDGET, 20)
        assert await hurried.get("a") == OLD
        usual.js.timeout = TIMEOUT
        proxy.to_server = chunks_are_lost(store)
        await gives_up(lambda store: store.put("a", NEW), hurried)
        proxy.blackhole()
        await gives_up(lambda store: store.get("a"), hurried)
        await gives_up(lambda store: store.list(), hurried)
        proxy.blackhole(False)
    for wrong in (0, -1, "1", None, True, float("nan")):
        with pytest.raises(ConfigError, match="retry_budget"):
            store.with_options(retry_budget=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="retry_budget"):
            natsproto.connect("nats://127.0.0.1", retry_budget=wrong)  # type: ignore[arg-type]


async def test_links_are_followed_with_the_same_budget(store: ObjectStore, bucket_name: str) -> None:
    from objstore.read.links import resolve

    other = await store.js.create_object_store(bucket=bucket_name + "2")
    await store.add_link("link", await other.put("a", b"x"))
    found, _ = await resolve(store.with_options(retry_budget=7)._bucket, "link")
    assert (found.name, found.retry_budget) == (other.bucket, 7)
    await store.js.delete_object_store(other.bucket)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["put", "put of a generator", "writer"])
async def test_the_default_budget(proxy: FaultProxy, store: ObjectStore, name: str) -> None:
    """20 s, and five to spare."""
    await store.put("a", OLD)
    async with natsproto.connect(proxy.url) as client:
        faulty = await client.jetstream().object_store(store.bucket)
        proxy.to_server = chunks_are_lost(store)
        await gives_up(WRITING[name], faulty, 25)
    assert await store.get("a") == OLD
    await assert_exact(store)


async def test_budget_of_buckets(proxy: FaultProxy, store: ObjectStore) -> None:
    """Opening and creating them, too."""
    async with natsproto.connect(proxy.url, reconnect_wait=0.02, retry_budget=BUDGET) as client:
        js = client.jetstream(timeout=0.4)
        proxy.blackhole()
        await gives_up(lambda store: js.object_store("b"), store)
        await gives_up(lambda store: js.create_object_store(bucket="b"), store)
        proxy.cut()
        proxy.blackhole(False)


def test_ages_and_budgets_do_not_mix(store: ObjectStore) -> None:
    """A budget is a number of seconds, not a timedelta."""
    with pytest.raises(ConfigError, match="retry_budget"):
        store.with_options(retry_budget=timedelta(seconds=1))  # type: ignore[arg-type]


async def test_an_open_asks_again_when_nobody_answers(proxy: FaultProxy, store: ObjectStore) -> None:
    """As while a stream changes its leader: the first request is lost, and no answer says so."""
    asked: list[bytes] = []

    def first_is_lost(event: Any, raw: bytes) -> Any:
        if isinstance(event, Pub) and event.subject.startswith(b"$JS.API.STREAM.INFO."):
            asked.append(event.subject)
            return DROP if len(asked) == 1 else None
        return None

    async with natsproto.connect(proxy.url) as client, asyncio.timeout(BIND_BUDGET + 5):
        proxy.to_server = first_is_lost
        assert (await client.jetstream().object_store(store.bucket)).bucket == store.bucket
    assert len(asked) >= 2


async def test_a_put_whose_bytes_are_not_taken_while_others_come(
    proxy: FaultProxy, faulty: ObjectStore, store: ObjectStore, nc: natsproto.Client
) -> None:
    """What comes keeps the connection alive; the put's budget is over all the same."""
    client = faulty._bucket.client
    await client.subscribe("tick")
    await client.flush()
    epoch = client.connection.epoch
    data = bytes(64 << 20)

    async def tick() -> None:
        while True:
            await nc.publish("tick", b".")
            await nc.flush()
            await held(0.01)

    ticking = asyncio.ensure_future(tick())
    proxy.blackhole(side="server")
    async with asyncio.timeout(BOUND):
        with pytest.raises(NatsError):
            await faulty.put("a", data, window=len(data))
    assert client.connection.epoch == epoch, "it was not the connection's end that ended it"
    ticking.cancel()
    assert await store.get("a") == OLD
