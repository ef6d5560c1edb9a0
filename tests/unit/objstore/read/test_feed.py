"""The one way chunks are read: by batches, a consumer, or singly; resumed where it was, and never twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from objstore import IntegrityError, ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.read.feed import ChunkFeed, Missing, Part, WrongPlace
from objstore.read.sinks import WholeSink
from support.memory_server import NO_MESSAGE, SILENCE, MemoryServer, error

DATA = bytes(range(256)) * 40
CHUNK = 100

KINDS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "batches": ("2.15.1", {}, set()),
    "2.11": ("2.11.4", {}, set()),
    "consumer": ("2.10.4", {}, set()),
    "leader": ("2.15.1", {"allow_direct": False}, set()),
    "one by one": ("2.15.1", {"allow_direct": False}, {"CONSUMER.CREATE"}),
    "replicas": ("2.15.1", {"replicas": 3}, set()),
}


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest) -> Any:
    version, config, refused = KINDS[request.param]
    server = MemoryServer(version)
    await server.bucket(**config)
    server.refused = refused
    yield server
    await server.client.close()


@pytest.fixture
async def bucket(server: MemoryServer) -> Bucket:
    return await bind(server.js, "b")


@pytest.fixture
async def info(server: MemoryServer) -> ObjectInfo:
    store: ObjectStore = await server.js.object_store("b")
    return await store.put("a", DATA, chunk_size=CHUNK)


def whole(info: ObjectInfo, **options: Any) -> WholeSink:
    return WholeSink(info, **{"verify": True, "progress": None, **options})


async def fed(bucket: Bucket, info: ObjectInfo, **options: Any) -> bytes:
    sink = whole(info)
    try:
        await ChunkFeed(bucket, info, sink, **options).run()
        return sink.finish()
    finally:
        sink.release()


@pytest.mark.parametrize("window", [1, 250, 5000, 1 << 22])
async def test_whole(server: MemoryServer, bucket: Bucket, info: ObjectInfo, window: int) -> None:
    assert await fed(bucket, info, window=window) == DATA
    assert server.stream().consumers == {}
    assert len(server.connection.mux) == 0


async def test_one_chunk(server: MemoryServer, bucket: Bucket) -> None:
    store = await server.js.object_store("b")
    info = await store.put("one", b"chunk")
    assert await fed(bucket, info) == b"chunk"


@pytest.mark.parametrize("later", [1, 2, 7, 1000])
@pytest.mark.parametrize("runs", [False, True])
async def test_the_answer_to_another_question(
    server: MemoryServer, bucket: Bucket, later: int, runs: bool
) -> None:
    """Whoever may ask the leader can have a later chunk sent to our inbox, or that there is none."""
    store = await server.js.object_store("b")
    server.put_raw("$O.b.C.other", b"x")
    sent = 0

    def beside(subject: str, header: bytes, payload: bytes) -> None:
        nonlocal sent
        sent += 1
        if runs and sent % 10 == 0:
            server.put_raw("$O.b.C.other", b"x")

    server.on_publish = beside
    info = await store.put("a", DATA, chunk_size=CHUNK)
    count = 0

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal count
        if verb != "STREAM.MSG.GET" or ".C." not in body.get("next_by_subj", ""):
            return None
        count += 1
        if count % 3 == 0:
            return None
        found = server.stream().find({**body, "seq": body["seq"] + later})
        return server.leader_message(found[0]) if found else NO_MESSAGE

    server.hook = hook
    assert await fed(bucket, info) == DATA


async def test_missing_ones(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    stream = server.stream()
    for index in (50, 0):
        stream.remove([stream.of(f"$O.b.C.{info.nuid}")[index].seq])
        with pytest.raises(Missing):
            await fed(bucket, info)
    stream.remove(each.seq for each in stream.of("$O.b.C.*"))
    with pytest.raises(Missing):
        await fed(bucket, info)
    assert stream.consumers == {}


async def test_one_too_many(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    server.put_raw(f"$O.b.C.{info.nuid}", b"more")
    with pytest.raises(IntegrityError):
        await fed(bucket, info)


async def test_one_too_long(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    server.stream().of(f"$O.b.C.{info.nuid}")[-1].payload += b"x"
    with pytest.raises(IntegrityError):
        await fed(bucket, info)


async def test_after_an_error_it_goes_on_where_it_was(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo
) -> None:
    failures = 3

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal failures
        if verb in ("CONSUMER.CREATE", "STREAM.MSG.GET") and failures:
            failures -= 1
            return error(503, 10008, "system temporarily unavailable")
        return None

    server.hook = hook
    assert await fed(bucket, info, window=1000) == DATA


async def test_a_connection_that_is_lost_on_the_way(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo
) -> None:
    seen = 0

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal seen
        seen += verb in ("DIRECT.GET", "STREAM.MSG.GET", "CONSUMER.CREATE")
        if seen in (2, 5):
            seen += 1
            server.lose()
            server.connect()
            return SILENCE
        return None

    server.hook = hook
    assert await fed(bucket, info, window=1000) == DATA


async def test_in_an_account_that_imports_the_api(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message of a batch comes there, and none of a consumer: this is learnt, and known from then on."""
    monkeypatch.setattr("objstore.read.window.PROGRESS", 0.05)
    monkeypatch.setattr("objstore.read.window.SILENCE", 0.05)
    monkeypatch.setattr("objstore.read.feed.HEARTBEAT", 0.02)
    bucket.retry_budget = 1.0
    server.importing = True
    assert await fed(bucket, info) == DATA
    several = ("CONSUMER.CREATE", "DIRECT.GET")
    assert len([verb for verb in server.verbs() if verb in several]) >= 2
    assert await fed(bucket, info) == DATA
    assert [verb for verb in server.verbs() if verb in several] == []
    assert server.stream().consumers == {}
    assert len(server.connection.mux) == 0


async def test_a_part(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    first = server.stream().of(f"$O.b.C.{info.nuid}")[0].seq
    wanted = replace(info, size=500, chunks=5, digest="")
    sink = whole(wanted, verify=False)
    part = Part(first + 10, 10, 14, info.chunks, lambda index: first + index)
    await ChunkFeed(bucket, info, sink, part=part).run()
    assert sink.finish() == DATA[1000:1500]
    sink.release()


async def test_a_part_in_the_wrong_place(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    """How many follow tells which chunk it is; where that cannot be told, the guess proves nothing."""
    first = server.stream().of(f"$O.b.C.{info.nuid}")[0].seq
    sink = whole(replace(info, size=500, chunks=5), verify=False)
    with pytest.raises(WrongPlace):
        await ChunkFeed(bucket, info, sink, part=Part(first + 11, 10, 14, info.chunks)).run()
    sink.release()


async def test_a_callback_that_raises_does_the_connection_no_harm(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo
) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyError("of the application")

    sink = whole(info, progress=stop)
    with pytest.raises(KeyError):
        await ChunkFeed(bucket, info, sink).run()
    sink.release()
    assert server.client.is_connected
    assert await fed(bucket, info) == DATA
