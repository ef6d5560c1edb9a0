"""B2 of the put: doubled chunks and acknowledgements, forged answers, loss both ways.

Whatever answers come, nothing but what this put has stored is ever deleted: other objects stay, the name
reads as what was put or as what it was before, and an OK means the bytes.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.errors import NatsError
from natsproto.jetstream import publisher
from natsproto.server import LocalServer
from natsproto.testing import DROP, DUPLICATE, HOLD, FaultProxy, delay
from natsproto.wire import Msg, Pub
from objstore import (
    ForeignBucketError,
    IntegrityError,
    ObjectStore,
    OutcomeUnknownError,
    StoreFullError,
)
from support.frames import FORGED, Traffic, forged_frame, message, own
from support.objects import CHUNK, assert_exact, chunk_counts, pattern

OLD, NEW = pattern(2 * CHUNK, 1), pattern(6 * CHUNK + 1, 2)
CHUNKS = 7
OTHERS = {f"other{n}": pattern(100 + n, n) for n in range(8)}
LIMIT = 40.0


@pytest.fixture
async def proxy(server: LocalServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.url) as proxy:
        yield proxy
        assert proxy.errors == []


@pytest.fixture
async def faulty(
    proxy: FaultProxy, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    """The bucket of ``store`` with other objects in it, through the proxy."""
    monkeypatch.setattr("objstore.write.chunks.SETTLE", 0.5)
    monkeypatch.setattr("objstore.write.put.SETTLE", 0.5)
    for name, data in OTHERS.items():
        await store.put(name, data)
    await store.put("a", OLD)
    async with natsproto.connect(proxy.url, reconnect_wait=0.02) as client:
        same = await client.jetstream().object_store(store.bucket)
        yield same.with_options(retry_budget=5)
        proxy.to_server = proxy.to_client = None


@pytest.fixture
def hurried(faulty: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The same with short patience, for what is lost: a machine that is busy loses more."""
    monkeypatch.setitem(publisher.PublishWindow.__init__.__kwdefaults__, "progress_timeout", 0.3)
    faulty.js.timeout = 0.4
    return faulty


@pytest.fixture
def traffic(proxy: FaultProxy, faulty: ObjectStore) -> Traffic:
    return Traffic(proxy, faulty)


def once(data: bytes) -> Iterator[bytes]:
    """A source that cannot be read a second time."""
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]


def source(restartable: bool, data: bytes = NEW) -> Any:
    return data if restartable else once(data)


async def outcome(store: ObjectStore, call: Any, new: bytes = NEW) -> NatsError | None:
    """Run ``call``; whatever happens, the name is one of the two, the others are as they were."""
    error: NatsError | None = None
    async with asyncio.timeout(LIMIT):
        try:
            await call
        except NatsError as exc:
            error = exc
    if isinstance(error, OutcomeUnknownError):
        assert await store.get("a") in (OLD, new)
    else:
        assert await store.get("a") == (new if error is None else OLD)
        await assert_exact(store)
    for name, data in OTHERS.items():
        assert await store.get(name) == data
    assert (await store.verify(deep=True)).ok
    return error


def twice(event: Any, raw: bytes) -> Any:
    return DUPLICATE


# -- doubled on the way -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 3, 6, None])
@pytest.mark.parametrize("restartable", [True, False])
async def test_ack_twice(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore, n: int | None, restartable: bool
) -> None:
    traffic.on_ack(traffic.chunks, n, twice)
    assert await outcome(store, faulty.put("a", source(restartable))) is None
    assert traffic.hits == (1 if n is not None else CHUNKS)
    assert traffic.deleted == []


@pytest.mark.parametrize("n", [0, 3, 6, None])
@pytest.mark.parametrize("restartable", [True, False])
async def test_chunk_twice(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore, n: int | None, restartable: bool
) -> None:
    """The copies are found and removed, in place: nothing is sent a second time."""
    traffic.on_publish(traffic.chunks, n, twice)
    assert await outcome(store, faulty.put("a", source(restartable))) is None
    assert traffic.counts[traffic.chunks] == CHUNKS
    assert len(traffic.deleted) == (1 if n is not None else CHUNKS)


async def test_chunks_and_acks_twice(traffic: Traffic, faulty: ObjectStore, store: ObjectStore) -> None:
    """Second answers that name a copy, and others that name the message itself."""
    traffic.on_publish(traffic.chunks, 2, twice)
    traffic.on_ack(traffic.chunks, 0, twice)
    traffic.on_ack(traffic.chunks, 4, twice)
    assert await outcome(store, faulty.put("a", once(NEW))) is None
    assert len(traffic.deleted) == 1


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("restartable", [True, False])
async def test_copy_that_comes_late(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore, restartable: bool, same: bool
) -> None:
    """The copy of one chunk is stored after later ones, among chunks that are alike or not."""
    copies: list[bytes] = []

    def keep(event: Any, raw: bytes) -> None:
        copies.append(raw)

    def add(event: Any, raw: bytes) -> Any:
        return [raw, copies.pop()] if copies else None

    traffic.on_publish(traffic.chunks, 1, keep)
    traffic.on_publish(traffic.chunks, 4, add)
    data = bytes(6 * CHUNK + 1) if same else NEW
    assert await outcome(store, faulty.put("a", source(restartable, data)), data) is None
    assert len(traffic.deleted) == 1


@pytest.mark.parametrize("restartable", [True, False])
async def test_copy_of_an_older_chunk_beside_a_loss(
    traffic: Traffic, hurried: ObjectStore, store: ObjectStore, restartable: bool
) -> None:
    """Stored after the last proven chunk, and none of those to be sent again: it is compared at the end."""
    copies: list[bytes] = []

    def keep(event: Any, raw: bytes) -> None:
        copies.append(raw)

    def lose(event: Any, raw: bytes) -> Any:
        return copies.pop() if copies else None  # another one in its place

    traffic.on_publish(traffic.chunks, 0, keep)
    traffic.on_publish(traffic.chunks, 3, lose)
    error = await outcome(store, hurried.put("a", source(restartable), window=CHUNK))
    assert error is None


async def test_copy_after_the_last_acknowledgement(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore
) -> None:
    """The copy of the last chunk is acknowledged while the meta is on its way: removed after the commit."""
    held: list[bytes] = []

    def first_only(event: Any, raw: bytes) -> None:
        held.append(raw)

    def with_copy(event: Any, raw: bytes) -> Any:
        return [held.pop(), raw] if held else None

    traffic.on_publish(traffic.chunks, 6, first_only)
    traffic.on_publish(traffic.metas, 0, with_copy)
    assert await outcome(store, faulty.put("a", once(NEW))) is None
    assert len(traffic.deleted) == 1


async def test_copy_after_the_last_acknowledgement_of_a_cancelled_put(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore
) -> None:
    """It was stored for all that: then its copies go as well."""
    held: list[bytes] = []
    put = asyncio.ensure_future(faulty.put("a", NEW))

    def with_copy(event: Any, raw: bytes) -> Any:
        put.cancel()
        return [held.pop(), raw] if held else None

    traffic.on_publish(traffic.chunks, CHUNKS - 1, lambda event, raw: held.append(raw))
    traffic.on_publish(traffic.metas, 0, with_copy)
    async with asyncio.timeout(LIMIT):
        await asyncio.wait([put])
    assert put.cancelled()
    assert await store.get("a") == NEW
    assert len(traffic.deleted) == 1
    await assert_exact(store)


@pytest.mark.parametrize("restartable", [True, False])
async def test_chunk_after_the_time_out(
    traffic: Traffic, proxy: FaultProxy, hurried: ObjectStore, store: ObjectStore, restartable: bool
) -> None:
    """It was taken for lost and sent again; then the first copy comes as well."""
    sent = 0

    def hold(event: Any, raw: bytes) -> Any:
        return HOLD

    def release(event: Any, raw: bytes) -> None:
        nonlocal sent
        sent += 1
        if proxy.held and sent > CHUNKS + 2:
            asyncio.get_running_loop().call_soon(proxy.release)

    traffic.on_publish(traffic.chunks, 2, hold)
    traffic.on_publish(traffic.chunks, None, release)
    error = await outcome(store, hurried.put("a", source(restartable)))
    assert error is None or (not restartable and isinstance(error, IntegrityError))


@pytest.mark.parametrize("n", [0, 3, 6])
async def test_ack_after_the_time_out(
    traffic: Traffic, hurried: ObjectStore, store: ObjectStore, n: int
) -> None:
    traffic.on_ack(traffic.chunks, n, lambda event, raw: delay(0.5))
    assert await outcome(store, hurried.put("a", once(NEW))) is None
    assert traffic.deleted == []


# -- answers of others --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "restartable"), [(0, False), (6, True), (None, False)])
@pytest.mark.parametrize("kind", FORGED)
async def test_forged_second_answer(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore, kind: str, n: int | None, restartable: bool
) -> None:
    what = FORGED[kind](faulty)
    traffic.on_ack(traffic.chunks, n, lambda event, raw: [raw, forged_frame(event, what)])
    error = await outcome(store, faulty.put("a", source(restartable)))
    assert traffic.hits
    if "domain" in kind:
        # After the last chunk's acknowledgement it may come too late to stop the put.
        assert isinstance(error, ForeignBucketError) or (error is None and n == 6)
    else:
        assert error is None
    assert traffic.deleted == []


@pytest.mark.parametrize(("n", "restartable"), [(0, False), (6, True), (None, False)])
@pytest.mark.parametrize("kind", FORGED)
async def test_forged_first_answer(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore, kind: str, n: int | None, restartable: bool
) -> None:
    """It may fail the put; it touches nothing else. Another stream's does not: the own one follows."""
    what = FORGED[kind](faulty)
    traffic.on_ack(traffic.chunks, n, lambda event, raw: [forged_frame(event, what), raw])
    before = set(await chunk_counts(store))
    error = await outcome(store, faulty.put("a", source(restartable)))
    assert traffic.hits
    if kind == "full":
        assert isinstance(error, StoreFullError)
    if "stream" in kind or kind in ("text", "empty"):
        assert error is None
    if "domain" in kind:
        assert isinstance(error, ForeignBucketError)
        assert error.expected_stream == f"OBJ_{store.bucket}"
        assert (error.bucket, error.name, error.expected_domain) == (store.bucket, "a", None)
    nuids = {filter_.rpartition(".")[2] for filter_ in traffic.purged if filter_}
    assert len(nuids & before) == (1 if error is None else 0)  # of what was replaced


@pytest.mark.parametrize("n", [0, 6])
async def test_forged_answer_long_before_the_own_one(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore, n: int
) -> None:
    """A sequence to come makes our meta look older than its chunks, as in a recreated bucket."""
    late: list[bytes] = []

    def forge(event: Msg, raw: bytes) -> list[bytes]:
        late.append(raw)
        return [forged_frame(event, FORGED["one to come"](faulty))]

    traffic.on_ack(traffic.chunks, n, forge)
    traffic.on_ack(traffic.metas, 0, lambda event, raw: [*late, raw])
    error = await outcome(store, faulty.put("a", NEW))
    assert traffic.hits
    assert error is None


@pytest.mark.parametrize("restartable", [True, False])
async def test_forged_hint_beside_a_copy(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore, restartable: bool
) -> None:
    """One chunk is there twice, and another second answer names a chunk that belongs there."""

    def forge(event: Msg, raw: bytes) -> list[bytes]:
        seq = json.loads(bytes(event.payload))["seq"]
        return [raw, message(event, own(faulty, seq - 1))]

    traffic.on_publish(traffic.chunks, 2, twice)
    traffic.on_ack(traffic.chunks, 5, forge)
    error = await outcome(store, faulty.put("a", source(restartable)))
    assert error is None if restartable else isinstance(error, IntegrityError)
    assert traffic.deleted == []  # the rest would not have been what was sent


async def test_only_what_is_ours_is_deleted(store: ObjectStore) -> None:
    bucket = store._bucket
    await store.put("a", OLD)
    seq = (await store.get_info("a")).revision
    assert await bucket.delete_own(seq, lambda message: False) is False
    assert await bucket.delete_own(seq + 1, lambda message: True) is False
    assert await store.get("a") == OLD
    seen: list[str] = []

    def ours(stored: Any) -> bool:
        seen.append(stored.subject)
        return True

    assert await bucket.delete_own(seq, ours) is True
    assert await bucket.delete_own(seq, ours) is False
    assert seen == [bucket.meta_subject("a")]


@pytest.fixture
async def bystander(server: LocalServer, faulty: ObjectStore) -> AsyncIterator[Client]:
    """Sees every chunk, and with it where its acknowledgement goes."""
    async with natsproto.connect(server.url) as client:
        yield client


@pytest.mark.parametrize("kind", [*FORGED, "guesses"])
@pytest.mark.parametrize("size", [1, 20 * CHUNK])
async def test_bystander(
    bystander: Client, faulty: ObjectStore, store: ObjectStore, kind: str, size: int
) -> None:
    """Answers as fast as it can to all it sees, and to requests whose reply subjects it can only guess."""
    sub = await bystander.subscribe(f"$O.{store.bucket}.C.>")
    await bystander.flush()
    what = own(store, 3) if kind == "guesses" else FORGED[kind](store)

    async def answer() -> None:
        async for msg in sub:
            reply = msg.reply or ""
            head = b"" if what is not None else b"NATS/1.0 503\r\n\r\n"
            data = b"" if what is None else what if isinstance(what, bytes) else json.dumps(what).encode()
            subjects = [reply]
            if kind == "guesses":
                prefix, token = reply.split(".")[:2], reply.split(".")[2]
                subjects += [".".join([*prefix, guess]) for guess in ("1", "2", "3", "a", token[:-1] + "A")]
            for subject in subjects:
                bystander.connection.publish(subject.encode(), data, None, head)

    answering = asyncio.ensure_future(answer())
    try:
        data = pattern(size, 3)
        await outcome(store, faulty.put("a", once(data)), data)
    finally:
        answering.cancel()
        await asyncio.wait([answering])


# -- by chance, both ways -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_everything_twice_by_chance(
    traffic: Traffic, faulty: ObjectStore, store: ObjectStore, seed: int
) -> None:
    """One message in ten arrives twice: chunks, metas, requests and all their answers."""
    rng = random.Random(seed)
    traffic.on_all(lambda event, raw: DUPLICATE if rng.random() < 0.1 else None)
    for number in range(3):
        data = pattern(12 * CHUNK + 5, seed + number)
        assert await outcome(store, faulty.put("a", once(data)), data) is None


@pytest.mark.parametrize(("seed", "restartable"), [(1, True), (2, False), (4, False)])
async def test_loss_both_ways(
    traffic: Traffic,
    hurried: ObjectStore,
    store: ObjectStore,
    seed: int,
    restartable: bool,
) -> None:
    """One message in ten is lost, of every kind, in both directions."""
    rng = random.Random(seed)

    def lose(event: Any, raw: bytes) -> Any:
        return DROP if isinstance(event, Pub | Msg) and rng.random() < 0.1 else None

    traffic.on_all(lose)
    data = pattern(5 * CHUNK + 5, seed)
    error: NatsError | None = None
    async with asyncio.timeout(60):
        try:
            await hurried.put("a", source(restartable, data))
        except NatsError as exc:
            error = exc
    traffic.on_all(lambda event, raw: None)
    found = await store.get("a")
    assert found in ((OLD, data) if isinstance(error, OutcomeUnknownError) else (data if not error else OLD,))
    for name, other in OTHERS.items():
        assert await store.get(name) == other
    assert (await store.verify(deep=True)).ok
