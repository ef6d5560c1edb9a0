"""Ranges of objects in one piece: each chunk by its sequence, all at once, proven once for all of them."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import Any

import pytest

from natsproto.errors import StaleConnectionError
from natsproto.jetstream.in_flight import in_flight
from objstore import ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.read import by_sequence as _by_sequence
from objstore.read import by_sequence as module
from objstore.read.by_sequence import MOST, Begins, begin_of, read_by_sequence
from objstore.read.ranges import Layout
from support.memory_server import MemoryServer, error

DATA = bytes(range(256)) * 40
CHUNK = 100


@pytest.fixture
async def info(store: ObjectStore) -> ObjectInfo:
    await store.put("before", b"x")
    return await store.put("a", DATA, chunk_size=CHUNK)


async def picked(bucket: Bucket, info: ObjectInfo, start: int, end: int) -> bytes | None:
    return await read_by_sequence(bucket, info, Layout(info), start, end)


@pytest.mark.parametrize(
    ("start", "end"), [(100, 101), (150, 450), (199, 201), (10_200, 10_240), (555, 2555)]
)
async def test_what_was_asked_for(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo, start: int, end: int
) -> None:
    for _ in range(2):
        assert await picked(bucket, info, start, end) == DATA[start:end]
    assert len(server.connection.mux) == 0


async def test_the_proof_is_remembered(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    await picked(bucket, info, 500, 700)
    server.verbs()
    assert await picked(bucket, info, 1500, 1700) == DATA[1500:1700]
    assert await picked(bucket, info, 0, 50) == DATA[:50], "now the first chunk, too"
    assert server.verbs() == ["DIRECT.GET"] * 3


async def test_the_proof_is_shared(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    """Each asks for the first and the last chunk, whole."""
    server.verbs()
    found = await asyncio.gather(*(picked(bucket, info, 500 + each, 700) for each in range(8)))
    assert found == [DATA[500 + each : 700] for each in range(8)]
    verbs = server.verbs()
    assert verbs.count("STREAM.INFO") == 1
    assert verbs.count("DIRECT.GET") == 2 + 8 * 2
    assert bucket.remembered(module._Proving)._running == {}


async def test_who_proves_is_cancelled(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    tasks = [asyncio.create_task(picked(bucket, info, 500 + each, 700)) for each in range(4)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [DATA[500 + each : 700] for each in range(1, 4)]
    assert len(server.connection.mux) == 0
    assert in_flight(bucket.connection).bytes == 0


async def test_who_is_cancelled_while_the_connection_is_lost(
    bucket: Bucket, info: ObjectInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody awaits the error any more: nothing is logged of it."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    assert await picked(bucket, info, 500, 700) == DATA[500:700]

    async def lost(self: module._ChunkReads) -> bool:
        self.on_lost(StaleConnectionError("lost"))
        raise asyncio.CancelledError  # before it is awaited

    monkeypatch.setattr(module._ChunkReads, "_all", lost)
    with pytest.raises(asyncio.CancelledError):
        await picked(bucket, info, 500, 700)
    gc.collect()
    assert told == []


async def test_who_can_prove_nothing_asks_for_nothing(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo
) -> None:
    """Who may not create consumers, where no batch counts either: the first range learns it."""
    server.refused = {"CONSUMER.CREATE"}
    bucket.batches = False
    assert await picked(bucket, info, 500, 700) is None
    server.verbs()
    assert await picked(bucket, info, 900, 1000) is None
    assert server.verbs() == []


async def test_what_is_left_to_the_feed(bucket: Bucket, info: ObjectInfo) -> None:
    assert await picked(bucket, info, 0, 50) is None, "found without a guess, by one batch"
    assert await picked(bucket, info, 100, 100 + (MOST + 1) * CHUNK) is None, "too many"


async def test_an_object_in_pieces(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, info: ObjectInfo
) -> None:
    for n in range(5):
        server.put_raw("$O.b.C.APART", DATA[n * 100 : n * 100 + 100])
        server.put_raw("$O.b.C.other", b"x")
    apart = replace(info, nuid="APART", size=500, chunks=5, revision=server.stream().seq)
    assert await picked(bucket, apart, 150, 250) is None
    server.verbs()
    assert await picked(bucket, apart, 150, 250) is None
    assert server.verbs() == [], "it is remembered that it is not in one piece"


@pytest.mark.parametrize("change", ["length", "subject", "gone", "refused"])
async def test_another_answer(server: MemoryServer, bucket: Bucket, info: ObjectInfo, change: str) -> None:
    """Whatever else comes, the feed sees what it means; and the next one proves it anew."""
    assert await picked(bucket, info, 500, 700) == DATA[500:700]
    stream = server.stream()
    message = stream.of(f"$O.b.C.{info.nuid}")[6]
    if change == "length":
        message.payload += b"x"
    elif change == "subject":
        message.subject = "$O.b.C.other"
    elif change == "gone":
        stream.remove([message.seq])
    else:
        server.refused = {"DIRECT.GET"}
    assert await picked(bucket, info, 500, 700) is None
    assert len(bucket.remembered(Begins)) == (change == "refused")  # that says nothing of the object
    assert len(server.connection.mux) == 0


async def test_at_the_leader(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    first = server.stream().of(f"$O.b.C.{info.nuid}")[0].seq
    assert await begin_of(bucket, info, Layout(info)) == first
    server.verbs()
    assert await begin_of(bucket, info, Layout(info)) == first
    assert server.verbs() == []
    missing = replace(info, nuid="MISSING")
    assert await begin_of(bucket, missing, Layout(missing)) == 0
    server.hook = lambda verb, body: error(503, 10008, "unavailable") if verb == "STREAM.INFO" else None
    other = replace(info, nuid="n2")
    with pytest.raises(Exception, match="unavailable"):
        await begin_of(bucket, other, Layout(other))
    assert len(server.connection.mux) == 0


async def test_only_so_many_are_remembered(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    begins = Begins(bucket)
    keys: list[Any] = [(f"n{n}", 1, 1, 1) for n in range(5)]
    for number, key in enumerate(keys):
        begins.note(key, number)
    assert list(begins) == keys[2:]


@pytest.mark.parametrize("answered", ["first", "last"])
@pytest.mark.parametrize("allowed", [True, False])
async def test_another_chunk_of_the_object_as_the_first_or_the_last(
    server: MemoryServer, store: ObjectStore, info: ObjectInfo, answered: str, allowed: bool
) -> None:
    """A peer has asked for it: then as many sequences as chunks lie between, and one of them is another's."""
    server.stream().config["num_replicas"] = 3
    for number, nuid in enumerate(["APART", "APART", "x", "APART", "APART"]):
        server.put_raw(f"$O.b.C.{nuid}", bytes([number]) * 100)
    bucket = await bind(server.js, "b")
    stored = server.stream().of("$O.b.C.APART")
    forged = stored[1] if answered == "first" else stored[-2]
    asked = "next_by_subj" if answered == "first" else "last_by_subj"
    if not allowed:
        server.refused.add("CONSUMER.CREATE")

    def hook(verb: str, body: dict[str, Any]) -> Any:
        return server.leader_message(forged) if verb == "STREAM.MSG.GET" and asked in body else None

    server.hook = hook
    apart = replace(info, nuid="APART", size=400, chunks=4, revision=server.stream().seq + 1)
    found = Layout(apart)
    assert await begin_of(bucket, apart, found) == 0
    assert await read_by_sequence(bucket, apart, Layout(apart), 150, 250) is None
    assert not bucket.remembered(Begins)


@pytest.mark.parametrize(("there", "beyond"), [(0, 0), (-1, 0), (None, 0), (0, 1), (0, None)])
async def test_what_batches_count_proves_it(
    server: MemoryServer,
    store: ObjectStore,
    info: ObjectInfo,
    monkeypatch: pytest.MonkeyPatch,
    there: int | None,
    beyond: int | None,
) -> None:
    """For users without consumers: as many as there must be from the first one on, none behind the last."""
    server.refused = {"CONSUMER.CREATE"}
    first = server.stream().of(f"$O.b.C.{info.nuid}")[0].seq
    bucket = await bind(server.js, "b")

    async def counted(bucket: Bucket, subject: str, seq: int) -> int | None:
        if seq == first:
            return None if there is None else info.chunks + there
        assert seq == first + info.chunks
        return beyond

    monkeypatch.setattr(_by_sequence, "count_by_batch", counted)
    assert await begin_of(bucket, info, Layout(info)) == (first if (there, beyond) == (0, 0) else 0)


async def test_without_consumers_an_object_is_measured_once(server: MemoryServer, info: ObjectInfo) -> None:
    """Reading each of its chunks proves where they lie, too."""
    server.stream().config["num_replicas"] = 3
    server.refused.add("CONSUMER.CREATE")
    store = await server.js.object_store("b")
    assert await store.get_range("a", 500, 700) == DATA[500:700]
    server.verbs()
    assert await store.get_range("a", 1500, 1700) == DATA[1500:1700]
    assert len(server.verbs()) < 10
