"""Listings under faults: complete, retried like the rest, and nothing left on the server (D1, D3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

import natsproto
from natsproto.errors import NatsError, NoRespondersError, RequestTimeoutError, StaleConnectionError
from natsproto.jetstream.api.errors import ConsumerNotFoundError, TemporarilyUnavailableError
from natsproto.jetstream.message import JetStreamMsg
from natsproto.jetstream.ordered import DELETE_TIMEOUT
from natsproto.jetstream.pull import PullConsumer
from natsproto.server import LocalServer
from natsproto.testing import CUT, DROP, FaultProxy
from natsproto.testing.proxy import HookResult
from natsproto.wire import Event, Msg, Pub
from objstore import ObjectStore
from objstore.format.naming import meta_subject
from objstore.listing.pages import _Pages
from support.fake_session import turns
from support.objects import impatient, read_raw, stream, write_raw

NAMES = [f"n{number:02}" for number in range(40)]


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        proxy.to_server = proxy.to_client = None
        assert proxy.errors == []


@pytest.fixture
async def filled(store: ObjectStore) -> ObjectStore:
    for name in NAMES:
        await store.put(name, name.encode() * 10)
    await store.put("gone", b"x")
    await store.delete("gone")
    return store


@pytest.fixture
async def faulty(proxy: FaultProxy, filled: ObjectStore) -> AsyncIterator[ObjectStore]:
    """The bucket through the proxy, with short patience, and without growing pauses after short sessions."""
    async with natsproto.connect(proxy.url, reconnect_wait=0.02, reconnect_wait_max=0.02) as client:
        yield await impatient(client, filled.bucket, 0.4)
        proxy.to_server = proxy.to_client = None


async def no_consumer(store: ObjectStore) -> None:
    assert await store.js.consumer_names(stream(store)) == []


async def test_an_iteration_that_resumes_tells_of_nothing_replaced(
    filled: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was replaced may still be stored: written without roll-up, or by a server that was killed since.

    A consumer that goes on after a lost one is given it; the first one never is.
    """
    monkeypatch.setattr("objstore.listing.pages.PAGE", 3)
    for name in (NAMES[30], NAMES[35], "gone"):
        for number in range(3):
            document = await read_raw(filled, NAMES[0])
            document |= {"name": name, "description": f"{number}", "deleted": name == "gone"}
            await write_raw(filled.js, meta_subject(filled.bucket, name), document, rollup=number == 0)
    seen = []
    async for info in filled.iter(include_deleted=True):
        seen.append((info.name, info.description))
        if len(seen) in (3, 33):
            for consumer in await filled.js.consumer_names(stream(filled)):
                await filled.js.delete_consumer(stream(filled), consumer)
    assert len(seen) == len(set(seen)) == len(NAMES) + 1
    for name in (NAMES[30], NAMES[35], "gone"):
        assert (name, "2") in seen


# -- what a cancelled iteration leaves --------------------------------------------------------------------


async def test_iter_cancelled_at_every_step(filled: ObjectStore) -> None:
    """Its consumer is deleted, also when the server made it after the cancellation."""
    done, steps = False, 0
    while not done:
        started = asyncio.Event()

        async def read(started: asyncio.Event = started) -> None:
            started.set()
            async for _ in filled.iter():
                await asyncio.sleep(0)

        task = asyncio.create_task(read())
        await started.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        await asyncio.wait([task])
        steps += 1 + steps // 8
        async with asyncio.timeout(15):
            while await filled.js.consumer_names(stream(filled)):
                pass  # of a generator that was dropped: closed by the loop


async def test_iter_cancelled_before_its_consumer_is_there(
    proxy: FaultProxy, faulty: ObjectStore, filled: ObjectStore
) -> None:
    asked = asyncio.Event()

    def hold(event: Event, raw: bytes) -> HookResult:
        if isinstance(event, Msg) and b"consumer_create_response" in bytes(event.payload):
            asked.set()
            return natsproto.testing.delay(0.2)
        return None

    proxy.to_client = hold
    task = asyncio.create_task(anext(faulty.iter()))
    if filled._bucket.consumers_skip:
        await task  # all metas are read at once there
    else:
        async with asyncio.timeout(15):
            await asked.wait()
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.timeout(15):
        while await filled.js.consumer_names(stream(filled)):
            pass


# -- retries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        NoRespondersError("x", "no leader"),
        ConsumerNotFoundError(404, 10014, "consumer not found"),
        StaleConnectionError("lost"),
        RequestTimeoutError("silence"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_consumer_that_is_not_known_yet(
    filled: ObjectStore, error: NatsError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch may come before the news of its consumer: tried again, not told to the caller."""
    fetch = PullConsumer.fetch
    left = 3

    async def late(self: PullConsumer, batch: int = 1, **options: object) -> list[JetStreamMsg]:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        return await fetch(self, batch, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(PullConsumer, "fetch", late)
    async with asyncio.timeout(25):
        assert [info.name async for info in filled.iter()] == NAMES
    await no_consumer(filled)


async def test_an_iteration_whose_consumer_never_answers(
    filled: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends, with what was wrong."""
    if filled._bucket.consumers_skip:
        return  # all metas are read at once there

    async def never(self: PullConsumer, batch: int = 1, **options: object) -> list[JetStreamMsg]:
        raise NoRespondersError("x", "no leader")

    monkeypatch.setattr(PullConsumer, "fetch", never)
    filled = filled.with_options(retry_budget=3.0)
    async with asyncio.timeout(3 + 5):
        with pytest.raises(NoRespondersError):
            await anext(filled.iter())
    await no_consumer(filled)


async def test_the_end_of_an_iteration_is_bounded(
    filled: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many consumers it has made, and whatever does not answer: they expire by themselves."""
    sent: list[bytes] = []
    connection = filled.js.client.connection

    async def silent(suffix: str, document: object = None, **options: object) -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    pages = _Pages(filled._bucket)
    pages._names = [f"c{number}" for number in range(40)]
    monkeypatch.setattr(filled.bound_bucket.js, "request", silent)
    monkeypatch.setattr(connection, "publish", lambda subject, payload, reply: sent.append(subject))
    async with asyncio.timeout(DELETE_TIMEOUT + 5):
        await pages.close()
    assert len(sent) == 40
    assert pages._names == []


async def test_an_iteration_is_closed_again_while_it_is_closed(
    filled: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled close goes on in the background."""
    deleted: list[str] = []

    async def slow(suffix: str, document: object = None, **options: object) -> dict[str, object]:
        await turns()
        deleted.append(suffix)
        return {}

    pages = _Pages(filled._bucket)
    pages._names = [f"c{number}" for number in range(5)]
    monkeypatch.setattr(filled.bound_bucket.js, "request", slow)
    await asyncio.gather(pages.close(), pages.close(), pages.close())
    assert sorted(deleted) == [f"CONSUMER.DELETE.{stream(filled)}.c{number}" for number in range(5)]


async def names(store: ObjectStore) -> None:
    assert await store.names() == sorted([*NAMES, "gone"])
    assert await store.names(live=True) == NAMES
    assert (await store.status()).count == len(NAMES)


async def lists(store: ObjectStore) -> None:
    assert [info.name for info in await store.list()] == NAMES
    assert [info.name async for info in store.iter()] == NAMES
    assert len((await store.list_dirs()).objects) == len(NAMES)


async def verifies(store: ObjectStore) -> None:
    report = await store.verify()
    assert (report.problems, report.objects) == ([], len(NAMES))
    deep = await store.verify(deep=True)
    assert deep.ok


async def collects(store: ObjectStore) -> None:
    report = await store.gc(older_than=timedelta(0), dry_run=True)
    assert (report.orphans, report.recent, report.unreadable) == ([], [], [])


@pytest.mark.parametrize("call", [names, lists, verifies, collects])
@pytest.mark.parametrize("fault", ["requests lost", "answers lost", "connection cut"])
async def test_every_reading_call_is_retried(
    proxy: FaultProxy, faulty: ObjectStore, call: Callable[[ObjectStore], Awaitable[None]], fault: str
) -> None:
    counted = 0

    def hook(event: Event, raw: bytes) -> HookResult:
        nonlocal counted
        subject = bytes(event.subject) if isinstance(event, Pub | Msg) else b""
        api = subject.startswith((b"$JS.API.STREAM.", b"$JS.API.DIRECT.", b"$JS.API.CONSUMER.CREATE"))
        if api or (isinstance(event, Msg) and subject.startswith(b"_INBOX")):
            counted += 1
            if counted % 9 == 4:
                return CUT if fault == "connection cut" else DROP
        return None

    if fault == "answers lost":
        proxy.to_client = hook
    else:
        proxy.to_server = hook
    async with asyncio.timeout(60):
        await call(faulty)


async def test_a_list_whose_metas_are_lost(proxy: FaultProxy, faulty: ObjectStore) -> None:
    """Messages of pages and of the ordered consumer: what is missing is seen, and asked for again."""
    counted = 0

    def hook(event: Event, raw: bytes) -> HookResult:
        nonlocal counted
        if isinstance(event, Msg) and bytes(event.reply or b"").startswith(b"$JS.ACK."):
            counted += 1
            if counted % 17 == 5:
                return DROP
        return None

    proxy.to_client = hook
    async with asyncio.timeout(60):
        assert [info.name for info in await faulty.list()] == NAMES
        assert [info.name async for info in faulty.iter()] == NAMES


async def test_the_last_meta_is_lost(proxy: FaultProxy, faulty: ObjectStore) -> None:
    """No later message shows the gap."""
    last = meta_subject(faulty.bucket, "gone").encode()
    lost = 0

    def hook(event: Event, raw: bytes) -> HookResult:
        nonlocal lost
        if isinstance(event, Msg) and bytes(event.reply or b"").startswith(b"$JS.ACK."):
            lost += event.subject == last
            return DROP if event.subject == last and lost < 3 else None
        return None

    proxy.to_client = hook
    async with asyncio.timeout(60):
        wanted = [*NAMES, "gone"]
        assert [info.name for info in await faulty.list(include_deleted=True)] == wanted
        assert [info.name async for info in faulty.iter(include_deleted=True)] == wanted


@pytest.mark.parametrize(
    "error",
    [
        NoRespondersError("x", "no leader"),
        RequestTimeoutError("silence"),
        TemporarilyUnavailableError(503, 10008, "JetStream system temporarily unavailable"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_names_without_a_leader(
    filled: ObjectStore, error: NatsError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment: they are asked for again."""
    plain = filled.bound_bucket.js.stream_subjects
    left = 3

    async def late(*args: str) -> dict[str, int]:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        return await plain(*args)

    monkeypatch.setattr(filled.bound_bucket.js, "stream_subjects", late)
    async with asyncio.timeout(25):
        assert await filled.names() == sorted([*NAMES, "gone"])
    assert left == -1


async def test_more_names_than_one_answer_holds(filled: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metas are read instead, and no connection is lost again and again for it."""
    asked = 0

    async def too_long(*args: object) -> dict[str, int]:
        nonlocal asked
        asked += 1
        raise StaleConnectionError("a frame above the limit")

    monkeypatch.setattr(filled.bound_bucket.js, "stream_subjects", too_long)
    assert await filled.names() == sorted([*NAMES, "gone"])
    assert await filled.names(live=True) == NAMES
    assert asked <= 3


# -- cost -------------------------------------------------------------------------------------------------


async def test_many_states_that_were_not_read(store: ObjectStore) -> None:
    """Reading them costs the same each, however many there are."""
    info = await store.put("a", b"")

    async def cost(count: int) -> float:
        async with store.watch(updates_only=True) as watcher:
            for number in range(count):
                watcher._watch._offer(replace(info, name=f"n{number}"), 100)
            began = time.process_time()
            for number in range(count):
                assert (await anext(watcher)).name == f"n{number}"
            return time.process_time() - began

    few = min([await cost(10_000) for _ in range(3)])
    assert min([await cost(100_000) for _ in range(2)]) < 40 * few


async def test_a_list_costs_no_more_round_trips(store: ObjectStore) -> None:
    """Of one replica: make a consumer, delete it, and with that ask for what follows."""
    if store._bucket.consumers_skip:
        return  # there the names are asked for as well
    for name in NAMES:
        await store.put(name, b"")
    waits = 0
    request = store.js.client.request_frame

    async def counting(*args: object, **options: object) -> object:
        nonlocal waits
        waits += 1
        return await request(*args, **options)  # type: ignore[arg-type]

    store.js.client.request_frame = counting  # type: ignore[method-assign,assignment]
    try:
        assert len(await store.list()) == len(NAMES)
    finally:
        del store.js.client.request_frame
    assert waits == 2
