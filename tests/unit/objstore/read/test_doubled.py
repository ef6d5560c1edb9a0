"""An object with copies among its chunks, as in a mirror whose origin has removed them, is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from objstore import IntegrityError, ObjectInfo, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.ways import ANY_WAY
from objstore.format.codec import encode_meta
from objstore.format.digest import hex_digest, new_hasher
from objstore.format.naming import meta_subject
from objstore.read import doubled as _doubled
from objstore.read import get as _get
from objstore.read.doubled import Known, doubled_chunks
from support.memory_server import ROLL_UP, MemoryServer

CHUNK = 100
DATA = b"".join(b"%0100d" % number for number in range(66)) + b"the end"
WHOLE = list(range(67))

KINDS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "batches": ("2.15.1", {}, set()),
    "2.11": ("2.11.4", {}, set()),
    "consumer": ("2.10.4", {}, set()),
    "leader": ("2.15.1", {"allow_direct": False}, set()),
    "one by one": ("2.15.1", {"allow_direct": False}, {"CONSUMER.CREATE"}),
}

ORDERS: dict[str, list[int]] = {
    "one": [*range(8), *range(7, 67)],
    "the first": [0, *range(67)],
    "the last": [*range(67), 66],
    "each": [index for index in range(67) for _ in range(2)],
    "three times": [*range(8), 7, 7, *range(8, 67)],
    "some": [*range(8), *range(7, 40), 39, *range(40, 67)],
    "a run sent again": [*range(30), *range(20, 67)],
    "a run that comes late": [*range(30), *range(35, 40), *range(30, 67)],
    "a run behind others": [*range(40), *range(20, 25), *range(40, 67), *range(3)],
}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_get, "RECHECK_DELAYS", (0.0, 0.0))


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest) -> Any:
    version, config, refused = KINDS[request.param]
    server = MemoryServer(version)
    await server.bucket(**config)
    server.stream().config["sources"] = [{"name": "OBJ_origin"}]
    server.refused = refused
    yield server
    await server.client.close()


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    return await server.js.object_store("b")


async def arrange(
    server: MemoryServer, store: ObjectStore, order: list[int], data: bytes = DATA
) -> ObjectInfo:
    """Put an object, and have its chunks stored in another order."""
    await store.put("a", data, chunk_size=CHUNK)
    info = await store.get_info("a")
    stream, subject = server.stream(), f"$O.b.C.{info.nuid}"
    meta = stream.of(meta_subject("b", "a"))[0]
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    stream.remove([each.seq for each in (*stream.of(subject), meta)])
    for index in order:
        server.put_raw(subject, chunks[index])
    server.put_raw(meta.subject, meta.payload, ROLL_UP)
    return info


async def test_another_meta_for_the_same_chunks(server: MemoryServer, store: ObjectStore) -> None:
    """Its digest chooses others of the messages: what is known of one object says nothing of the other."""
    good = await store.put("good", DATA[:500], chunk_size=CHUNK)
    stream, subject = server.stream(), f"$O.b.C.{good.nuid}"
    chunks = [each.payload for each in stream.of(subject)]
    stream.remove([each.seq for each in (*stream.of(subject), *stream.of(meta_subject("b", "good")))])
    for index in (0, 1, 2, 0, 3, 4):
        server.put_raw(subject, chunks[index])
    other = b"".join(chunks[index] for index in (1, 2, 0, 3, 4))
    digest = hex_digest(new_hasher(other).digest())
    for name, info in (("good", good), ("mine", replace(good, name="mine", digest=digest))):
        server.put_raw(meta_subject("b", name), encode_meta(info), ROLL_UP)
    for name, data in (("mine", other), ("good", DATA[:500]), ("mine", other)):
        for start in (10, 110, 210, 310, 410):
            assert await store.get_range(name, start, start + 20) == data[start : start + 20]
        assert await store.get(name) == data


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
async def test_every_way_of_reading(
    server: MemoryServer, store: ObjectStore, tmp_path: Path, order: list[int]
) -> None:
    await arrange(server, store, order)
    for verify in (True, False):
        assert await store.get("a", verify=verify) == DATA
    for start, end in ((5, 50), (750, 760), (650, 850), (2950, 4050), (6000, len(DATA))):
        assert await store.get_range("a", start, end) == DATA[start:end]
    await store.get_file("a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA
    async with store.open_reader("a") as reader:
        assert await reader.read() == DATA
        await reader.seek(650)
        assert await reader.read(300) == DATA[650:950]
    await store.copy("a", "copy")
    assert await store.get("copy") == DATA
    assert server.stream().consumers == {}


@pytest.mark.parametrize("window", [CHUNK, 350])
async def test_small_windows(server: MemoryServer, store: ObjectStore, window: int, tmp_path: Path) -> None:
    """Copies lie between windows, and in those that are requested ahead."""
    for order in ORDERS.values():
        await arrange(server, store, order)
        await store.get_file("a", tmp_path / "out", window=window)
        assert (tmp_path / "out").read_bytes() == DATA


async def test_a_file_that_is_continued(server: MemoryServer, store: ObjectStore, tmp_path: Path) -> None:
    await arrange(server, store, ORDERS["some"])
    part = tmp_path / "out.part"
    with part.open("wb") as file:
        file.write(DATA[:750])
    with part.open("r+b") as file:
        await store.get_file("a", file)
    assert part.read_bytes() == DATA


async def test_an_empty_message_at_the_end(server: MemoryServer, store: ObjectStore) -> None:
    """Some writers end objects with one, and do not count it."""
    info = await arrange(server, store, ORDERS["some"])
    server.put_raw(f"$O.b.C.{info.nuid}", b"")
    assert await store.get("a") == DATA
    assert await store.get_range("a", 650, 850) == DATA[650:850]


async def test_an_object_that_repeats_itself(server: MemoryServer, store: ObjectStore) -> None:
    """Its own repetitions are no copies, as far as they come more often, or not one behind the other."""
    zeros = bytes(20 * CHUNK)
    data = DATA[:1000] + zeros + DATA[1000:2000] + DATA[300:600] + DATA[2000:]
    every = list(range(len(data) // CHUNK + 1))
    for order in (
        [*range(6), *range(5, len(every))],  # one of the others
        [*range(40), *range(36, len(every))],
        [*range(15), 14, *every[15:]],  # a zero
    ):
        await arrange(server, store, order, data)
        assert await store.get("a") == data
        assert await store.get_range("a", 550, 650) == data[550:650]


@pytest.mark.parametrize("server", ["batches"], indirect=True)
class TestDamage:
    @pytest.fixture
    async def bucket(self, server: MemoryServer) -> Bucket:
        return await bind(server.js, "b")

    @pytest.mark.parametrize(
        "order",
        [
            [*range(8), *range(7, 66)],
            [0, 1, 3, 2, 4, *range(4, 67)],
            [0, *WHOLE, *WHOLE],
            [7, *WHOLE[:7], *WHOLE[8:], 66],
        ],
        ids=["one is missing", "in disorder", "too many", "moved"],
    )
    async def test_the_digest_decides(
        self, server: MemoryServer, store: ObjectStore, bucket: Bucket, order: list[int]
    ) -> None:
        info = await arrange(server, store, order)
        assert await doubled_chunks(bucket, info, ANY_WAY) is None
        for verify in (True, False):
            with pytest.raises(IntegrityError):
                await store.get("a", verify=verify)

    async def test_something_else(self, server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
        info = await arrange(server, store, ORDERS["one"])
        server.stream().of(f"$O.b.C.{info.nuid}")[9].payload = b"x" * CHUNK
        assert await doubled_chunks(bucket, info, ANY_WAY) is None
        with pytest.raises(IntegrityError):
            await store.get("a")

    async def test_a_bucket_that_copies_none(self, server: MemoryServer, store: ObjectStore) -> None:
        await arrange(server, store, ORDERS["one"])
        del server.stream().config["sources"]
        with pytest.raises(IntegrityError):
            await (await server.js.object_store("b")).get("a")

    async def test_without_a_digest(self, server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
        info = replace(await arrange(server, store, ORDERS["one"]), digest="")
        assert await doubled_chunks(bucket, info, ANY_WAY) is None

    async def test_a_larger_object(
        self, server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = await arrange(server, store, ORDERS["one"])
        monkeypatch.setattr(_doubled, "MOST", info.chunks - 1)
        server.asked.clear()
        assert await doubled_chunks(bucket, info, ANY_WAY) is None
        assert server.asked == []

    @pytest.mark.parametrize("earlier", [0, 1])
    async def test_more_come_meanwhile(
        self, server: MemoryServer, store: ObjectStore, bucket: Bucket, earlier: int
    ) -> None:
        info = await arrange(server, store, ORDERS["one"])
        looks = 0

        def hook(verb: str, body: dict[str, Any]) -> None:
            nonlocal looks
            looks += body.get("next_by_subj") == f"$O.b.C.{info.nuid}" and body.get("seq") == 1
            if looks > earlier:
                server.hook = None
                server.put_raw(f"$O.b.C.{info.nuid}", b"more")

        server.hook = hook
        assert await doubled_chunks(bucket, info, ANY_WAY) is None
        assert server.hook is None

    async def test_what_is_remembered(
        self, server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = await arrange(server, store, ORDERS["one"])
        found = await doubled_chunks(bucket, info, ANY_WAY)
        assert found is not None
        assert (len(found.seqs), found.offsets[-1], len(found.copies)) == (67, len(DATA), 1)
        server.asked.clear()
        assert await doubled_chunks(bucket, info, ANY_WAY) is found
        assert server.verbs() == ["STREAM.INFO"]
        server.put_raw(f"$O.b.C.{info.nuid}", DATA[:CHUNK])
        assert len((await doubled_chunks(bucket, info, ANY_WAY) or found).copies) == 2
        monkeypatch.setattr(_doubled, "REMEMBERED", 100)
        other = await arrange(server, store, ORDERS["one"])
        assert await doubled_chunks(bucket, other, ANY_WAY) is not None
        assert [key[0] for key in bucket.remembered(Known)] == [other.nuid]


@pytest.mark.parametrize("server", ["batches", "consumer", "leader"], indirect=True)
async def test_what_is_whole_needs_no_look(server: MemoryServer, store: ObjectStore) -> None:
    await store.put("a", DATA, chunk_size=CHUNK)
    looks: list[Any] = []
    server.hook = lambda verb, body: looks.append(verb) if "subjects_filter" in body else None
    assert await store.get("a") == DATA
    assert looks == []


async def test_what_is_far_too_large_is_not_read(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of an object's chunks are no more than the object once more."""
    info = await arrange(server, store, WHOLE)
    for _ in range(60):
        server.put_raw(f"$O.b.C.{info.nuid}", b"x" * 5000)
    monkeypatch.setattr(Bucket, "max_message", 10_000)
    messages, read = Bucket.messages, 0

    async def counted(self: Bucket, *args: Any, **options: Any) -> AsyncIterator[Any]:
        nonlocal read
        async for message in messages(self, *args, **options):
            read += 1
            yield message

    monkeypatch.setattr(Bucket, "messages", counted)
    assert await doubled_chunks(bucket, info, ANY_WAY) is None
    assert read == len(WHOLE) + 4
