"""Parts of an object: offsets are proven, never assumed; sequences are guessed, wrong ones are noticed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from array import array
from copy import copy
from dataclasses import replace
from typing import Any

import pytest

from natsproto.errors import NatsError
from natsproto.jetstream.in_flight import in_flight
from natsproto.wire import Pub
from objstore import IntegrityError, ObjectChangedError, ObjectInfo, ObjectMeta, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.models import ObjectMetaOptions
from objstore.read import ranges as _ranges
from objstore.read.by_sequence import Begins
from objstore.read.feed import Missing
from objstore.read.get import get_part
from objstore.read.parts import NotWhole, content_key
from objstore.read.ranges import Layout, another_part, damaged, find_part, measure, prove, read_range
from objstore.read.reader import ObjectReader
from support.memory_server import MemoryServer

DATA = bytes(range(256)) * 10


@pytest.fixture(params=["batches", "2.11", "no batches", "replicas", "leader only"])
async def server(request: pytest.FixtureRequest) -> Any:
    version = {"2.11": "2.11.4", "no batches": "2.10.4"}.get(request.param, "2.15.1")
    server = MemoryServer(version)
    await server.bucket(
        replicas=3 if request.param == "replicas" else 1, allow_direct=request.param != "leader only"
    )
    yield server
    await server.client.close()


@pytest.fixture
async def bucket(server: MemoryServer) -> Bucket:
    return await bind(server.js, "b")


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    return await server.js.object_store("b")


def scattered(server: MemoryServer, info: ObjectInfo, sizes: list[int]) -> ObjectInfo:
    """An object whose chunks lie apart, and have any length."""
    at = last = 0
    for number, size in enumerate(sizes):
        server.put_raw(f"$O.b.C.other{number % 3}", b"between")
        last = server.put_raw("$O.b.C.SCATTERED", DATA[at : at + size])
        at += size
    options = ObjectMetaOptions(max_chunk_size=max(sizes))
    return replace(info, nuid="SCATTERED", size=at, chunks=len(sizes), options=options, revision=last + 1)


RANGES = [(0, 1), (0, 100), (99, 101), (250, 251), (150, 999), (2000, 2560), (2559, 2560), (0, 2560)]


@pytest.mark.parametrize(("start", "end"), RANGES)
async def test_a_regular_object(store: ObjectStore, bucket: Bucket, start: int, end: int) -> None:
    info = await store.put("a", DATA, chunk_size=100)
    for _ in range(2):
        assert await read_range(bucket, info, start, end) == DATA[start:end]


@pytest.mark.parametrize(("start", "end"), RANGES)
async def test_a_mirror_that_has_more_chunks(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, start: int, end: int
) -> None:
    """It answers batches, and keeps what was removed: how many follow a chunk tells nothing of it."""
    old = await store.put("a", DATA, chunk_size=100)
    stream, subject = server.stream(), "$O.b.C.DOUBLED"
    for at in range(0, len(DATA), 100):
        for _ in range(2):
            last = server.put_raw(subject, DATA[at : at + 100])
    mirror, direct = copy(stream), stream.direct
    mirror.config = {**stream.config, "name": "OBJ_b-copy"}
    mirror.messages = dict(stream.messages)
    stream.remove([each.seq for each in stream.of(subject)[1::2]])

    def answers(pub: Pub, body: dict[str, Any]) -> None:
        (mirror.direct if "batch" in body else direct)(pub, body)

    stream.direct = answers  # type: ignore[method-assign]
    info = replace(old, nuid="DOUBLED", revision=last + 1)
    for _ in range(2):
        assert await read_range(bucket, info, start, end) == DATA[start:end]


@pytest.mark.parametrize(("start", "end"), RANGES)
async def test_an_object_in_pieces(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, start: int, end: int
) -> None:
    info = scattered(server, await store.put("a", b"x"), [100] * 25 + [60])
    for _ in range(2):
        assert await read_range(bucket, info, start, end) == DATA[start:end]


@pytest.mark.parametrize(("start", "end"), RANGES)
async def test_chunks_of_any_length(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, start: int, end: int
) -> None:
    sizes = [100, 1, 99, 50, 0, 100, 70, 30] * 6
    while sum(sizes) > len(DATA):
        sizes.pop()
    sizes += [100] * ((len(DATA) - sum(sizes)) // 100)
    sizes.append(len(DATA) - sum(sizes))
    info = scattered(server, await store.put("a", b"x"), sizes)
    assert await read_range(bucket, info, start, end) == DATA[start:end]


async def test_an_object_is_measured_once(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    measuring = _ranges._measure

    async def spy(*args: Any, **options: Any) -> None:
        measured.append(args)
        await measuring(*args, **options)

    monkeypatch.setattr(_ranges, "_measure", spy)
    sizes = [100, 1, 99, 50, 100, 70, 30, 50]
    info = scattered(server, await store.put("a", b"x"), sizes)
    assert await read_range(bucket, info, 100, 105) == DATA[100:105]
    assert measured
    measured.clear()
    assert await read_range(bucket, info, 260, 300) == DATA[260:300]
    assert not measured


async def test_a_bucket_that_was_restored_from_a_copy(server: MemoryServer, store: ObjectStore) -> None:
    """It has the same nuids, at other sequences."""
    info = await store.put("a", DATA[:950], chunk_size=100)
    odd = scattered(server, info, [100, 1, 99, 50, 100, 70, 30, 50])
    bucket = await bind(server.js, "b")
    for each in (info, odd):
        assert await read_range(bucket, each, 260, 300) == DATA[260:300]
    messages, stream = list(server.stream().messages.values()), server.stream()
    stream.remove([each.seq for each in messages])
    stream.seq = 0
    server.put_raw("$O.b.C.other", b"what comes first")
    for message in messages:
        last = server.put_raw(message.subject, message.payload)
    for each in (info, odd):
        restored = replace(each, revision=last + 1)
        for start in (0, 260, 320):
            assert await read_range(bucket, restored, start, start + 40) == DATA[start : start + 40]


@pytest.mark.parametrize("copied", [False, True])
async def test_chunks_that_are_newer_than_the_meta(
    server: MemoryServer, store: ObjectStore, copied: bool
) -> None:
    """Somebody has stored them again, perhaps others; or sources have brought the meta first."""
    info = await store.put("a", DATA[:950], chunk_size=100)
    stream = server.stream()
    if copied:
        stream.config["sources"] = [{"name": "OBJ_origin"}]
    chunks = stream.of(f"$O.b.C.{info.nuid}")
    stream.remove([each.seq for each in chunks])
    for chunk in chunks:
        server.put_raw(chunk.subject, chunk.payload)
    for _ in range(2):
        bucket = await bind(server.js, "b")
        for start in (0, 150, 260, 260, 0):
            if copied:
                assert await read_range(bucket, info, start, start + 40) == DATA[start : start + 40]
            else:
                with pytest.raises(IntegrityError, match="newer than its meta"):
                    await read_range(bucket, info, start, start + 40)
        server.refused = {"CONSUMER.CREATE"}  # then it is measured


async def test_a_chunk_that_is_gone_and_another_one_behind(server: MemoryServer, store: ObjectStore) -> None:
    """There are as many as recorded, and their lengths fit: but the last one is newer than the meta."""
    info = await store.put("a", DATA[:1000], chunk_size=100)
    odd = scattered(server, info, [100] * 10)
    stream = server.stream()
    for each in (info, odd):
        stream.remove([stream.of(f"$O.b.C.{each.nuid}")[0].seq])
        server.put_raw(f"$O.b.C.{each.nuid}", b"x" * 100)
        for _ in range(2):
            bucket = await bind(server.js, "b")
            with pytest.raises(IntegrityError, match="newer than its meta"):
                await read_range(bucket, each, 5, 1000)
            for start in (0, 50, 150, 450, 950):
                with pytest.raises(IntegrityError, match="newer than its meta"):
                    await read_range(bucket, each, start, start + 40)
                reader = ObjectReader(bucket, each, verify=True)
                await reader.seek(start or 1)
                with pytest.raises(NatsError):
                    await reader.read(40)
                await reader.aclose()


@pytest.mark.parametrize("turns", range(4))
async def test_a_range_that_is_given_up(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, turns: int
) -> None:
    """At once, or a little later: nothing is left of it, not even a coroutine that nobody awaits."""
    info = await store.put("a", DATA, chunk_size=100)
    others = asyncio.all_tasks()
    reading = asyncio.create_task(read_range(bucket, info, 0, 150))
    for _ in range(turns):
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    gc.collect()
    assert asyncio.all_tasks() == others
    assert in_flight(bucket.connection).bytes == 0
    assert await read_range(bucket, info, 0, 150) == DATA[:150]


@pytest.mark.parametrize(("end", "more"), [(50, True), (900, True), (901, False), (1000, False)])
async def test_who_asks_whether_a_chunk_is_newer(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, end: int, more: bool
) -> None:
    """Not who reads the last chunk: its sequence is seen."""
    if bucket.replicated:
        return  # the places are proven
    info = await store.put("a", DATA[:1000], chunk_size=100)
    asked: list[int] = []

    def hook(verb: str, body: dict[str, Any]) -> None:
        if body.get("seq") == info.revision + 1:
            asked.append(info.revision)

    server.hook = hook
    assert await read_range(bucket, info, 0, end) == DATA[:end]
    assert bool(asked) == more


async def test_an_imported_api(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a consumer comes: the chunks are measured one by one, and that is known for a while."""
    monkeypatch.setattr("objstore.bucket.collect.HEARTBEAT", 0.01)
    server.importing = True
    info = await store.put("a", b"x")
    for number in range(2):
        odd = replace(scattered(server, info, [100, 1, 99, 50, 100, 70, 30, 50]), digest=f"{number}")
        server.verbs()
        assert await read_range(bucket, odd, 260, 300) == DATA[260:300]
        assert ("CONSUMER.CREATE" in server.verbs()) == (number == 0)
        server.stream().remove([each.seq for each in server.stream().of("$O.b.C.SCATTERED")])


async def test_wrong_places_are_forgotten(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    """Whatever had them remembered: the error says that something is missing, and the next read asks anew."""
    info = await store.put("a", DATA[:950], chunk_size=100)
    odd = scattered(server, info, [100, 1, 99, 50, 100, 70, 30, 50])
    for each in (info, odd):
        layout = Layout(each)
        await measure(bucket, each, layout)
        sequences = [layout.seq_of(index) for index in range(layout.total)]
        offsets = [layout.offset_of(index) for index in range(layout.total)]
        layout.measured(array("Q", [*offsets, each.size]), array("Q", [seq + 1000 for seq in sequences]))
        for measured in (True, False):
            if not measured:
                bucket.remembered(_ranges._Measured).forget(each)
            bucket.remembered(Begins).clear()
            bucket.remembered(Begins).note(content_key(each), sequences[0] + 1000)
            with contextlib.suppress(NotWhole, ObjectChangedError):
                assert await get_part(bucket, each, 260, 300) == DATA[260:300]
            if each is info and not measured:
                assert bucket.remembered(Begins).get(content_key(each)) != sequences[0] + 1000
            assert await get_part(bucket, each, 260, 300) == DATA[260:300]


async def test_ranges_at_once_measure_an_object_once(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = 0
    measuring = _ranges._measure

    async def spy(*args: Any, **options: Any) -> None:
        nonlocal measured
        measured += 1
        await measuring(*args, **options)

    monkeypatch.setattr(_ranges, "_measure", spy)
    info = scattered(server, await store.put("a", b"x"), [100, 1, 99, 50, 100, 70, 30, 50])
    found = await asyncio.gather(*(read_range(bucket, info, at, at + 9) for at in range(100, 200, 10)))
    assert found == [DATA[at : at + 9] for at in range(100, 200, 10)]
    assert measured == 1
    wrong = replace(info, size=info.size + 5, digest="other")
    ends = await asyncio.gather(
        *(read_range(bucket, wrong, at, at + 9) for at in (1, 2, 3)), return_exceptions=True
    )
    assert all(isinstance(each, IntegrityError) for each in ends)
    assert bucket.remembered(_ranges._Measuring)._running == {}
    assert in_flight(bucket.connection).bytes == 0


async def test_other_objects_are_forgotten(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ranges, "REMEMBERED", 10)
    info = await store.put("a", b"x")
    found = [replace(scattered(server, info, [10, 1, 9, 5]), digest=f"{number}") for number in range(3)]
    for each in found:
        layout = Layout(each)
        layout.measured(array("Q", [0, 10, 11, 20, 25]), array("Q", [1, 2, 3, 4]))
        bucket.remembered(_ranges._Measured).note(each, layout)
    assert [key[3] for key in bucket.remembered(_ranges._Measured)] == ["1", "2"]
    monkeypatch.setattr(_ranges, "REMEMBERED", 3)
    bucket.remembered(_ranges._Measured).note(found[0], layout)
    assert [key[3] for key in bucket.remembered(_ranges._Measured)] == ["0"], "however large it is"


async def test_missing_chunks(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = await store.put("a", DATA, chunk_size=100)
    stream = server.stream()
    stream.remove([stream.of(f"$O.b.C.{info.nuid}")[3].seq])
    with pytest.raises((Missing, IntegrityError)):
        await read_range(bucket, info, 0, len(DATA))
    with pytest.raises(Missing):
        await measure(bucket, info, Layout(info))
    stream.remove(each.seq for each in stream.of(f"$O.b.C.{info.nuid}"))
    with pytest.raises(Missing):
        await read_range(bucket, info, 150, 160)


async def test_measuring(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    info = scattered(server, await store.put("a", b"x"), [10, 20, 0, 5])
    layout = Layout(info)
    assert not layout.known
    await measure(bucket, info, layout)
    assert (layout.known, layout.placed, layout.total) == (True, True, 4)
    assert [layout.offset_of(index) for index in range(4)] == [0, 10, 30, 30]
    assert [layout.length_of(index) for index in range(4)] == [10, 20, 0, 5]
    assert [layout.index_of(offset) for offset in (0, 9, 10, 29, 30, 34)] == [0, 0, 1, 1, 3, 3]
    sequences = [each.seq for each in server.stream().of("$O.b.C.SCATTERED")]
    assert [layout.seq_of(index) for index in range(4)] == sequences
    for size in (34, 36):
        with pytest.raises(IntegrityError, match=r"of \d+ bytes are stored|chunks are stored"):
            await measure(bucket, replace(info, size=size), Layout(info))
    with pytest.raises(IntegrityError):
        await measure(bucket, replace(info, chunks=2), Layout(info))
    assert server.stream().consumers == {}


async def test_proofs(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    for name, size in (("even", 1000), ("odd", 950)):
        info = await store.put(name, DATA[:size], chunk_size=100)
        layout = Layout(info)
        assert (layout.plausible, layout.even) == (True, name == "even")
        await prove(bucket, info, layout)
        first = server.stream().of(f"$O.b.C.{info.nuid}")[0].seq
        assert (layout.placed, layout.known, layout.offset_of(5), layout.seq_of(5)) == (
            True,
            False,
            500,
            first + 5,
        )
    for sizes in ([100, 50, 100, 50], [100, 100, 100, 50]):
        odd = scattered(server, info, sizes)
        layout = Layout(odd)
        await prove(bucket, odd, layout)
        assert layout.known, "it was measured"
        again = Layout(odd)
        server.verbs()
        await prove(bucket, odd, again)
        assert again.known
        assert server.verbs() == []
        server.stream().remove([each.seq for each in server.stream().of("$O.b.C.SCATTERED")])


async def test_users_who_may_create_no_consumer(
    server: MemoryServer, store: ObjectStore, bucket: Bucket
) -> None:
    """Batches count for them; who has none measures once, with the bytes of the chunks."""
    info = await store.put("a", DATA, chunk_size=100)
    server.refused = {"CONSUMER.CREATE"}
    counts = bucket.direct and bucket.batch_counts_are_right and not bucket.replicated
    for attempt in range(2):
        layout = Layout(info)
        server.verbs()
        await prove(bucket, info, layout)
        asked = server.verbs()
        assert ("CONSUMER.CREATE" in asked) == (attempt == 0)
        assert (layout.placed, layout.known) == (True, not counts)
        assert bool(asked) == (attempt == 0)
        assert layout.seq_of(7) == server.stream().of(f"$O.b.C.{info.nuid}")[7].seq


@pytest.mark.parametrize("start", [0, 99, 100, 2550])
async def test_where_a_part_is(server: MemoryServer, store: ObjectStore, bucket: Bucket, start: int) -> None:
    """Its sequences are known, unless it begins with the first chunk on a single server."""
    info = scattered(server, await store.put("a", b"x"), [100] * 25 + [60])
    part = await find_part(bucket, info, Layout(info), start, start + 1)
    index = start // 100
    sequences = [each.seq for each in server.stream().of("$O.b.C.SCATTERED")]
    assert (part.first, part.last) == (index, index)
    assert (part.seq_of is None) == (index == 0 and not bucket.replicated)
    if part.seq_of is not None:
        assert (part.seq, [part.seq_of(number) for number in range(26)]) == (sequences[index], sequences)
    layout = Layout(info)
    part = await another_part(bucket, info, layout, start, start + 1)
    assert part.seq_of is not None
    assert part.seq == sequences[index]
    assert (await find_part(bucket, info, Layout(info), start, start + 1)).seq_of is not None, (
        "it is remembered"
    )
    with pytest.raises(IntegrityError, match="do not add up"):
        await another_part(bucket, info, layout, start, start + 1)
    assert len(bucket.remembered(_ranges._Measured)) == 0


@pytest.mark.parametrize("size", [1000, 950])
async def test_what_is_stored_later(server: MemoryServer, store: ObjectStore, size: int) -> None:
    """Behind an object whose places were asked for: before the next read, or before the next meta."""
    info = await store.put("a", DATA[:size], chunk_size=100)
    gap = scattered(server, info, [100] * 9 + [size - 900])
    bucket = await bind(server.js, "b")
    for each in (info, gap):
        assert await read_range(bucket, each, 150, 159) == DATA[150:159]
    for nuid in (info.nuid, gap.nuid):
        for _ in range(6):
            server.put_raw(f"$O.b.C.{nuid}", DATA[size - 100 : size])
    renewed = await store.update_meta("a", ObjectMeta("a", "a newer one"))
    for bound in (bucket, await bind(server.js, "b")):
        for each in (info, gap, renewed):
            for start in range(150, size - 100, 100):
                try:
                    found = await read_range(bound, each, start, start + 9)
                except IntegrityError:
                    assert bound is not bucket or each is renewed, "no copy of a chunk lies behind it"
                else:
                    assert found == DATA[start : start + 9]


async def test_an_object_that_is_damaged_says_so(store: ObjectStore) -> None:
    info = await store.put("a", b"x")
    error = damaged(info, "2 chunks are stored, 1 recorded")
    assert (error.bucket, error.name) == ("b", "a")
    assert "2 chunks are stored" in str(error)
