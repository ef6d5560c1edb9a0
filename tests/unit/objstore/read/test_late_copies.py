"""Late copies of an object's chunks are told from damage, and every way of reading gives the object out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import APIError, PermissionsViolationError
from objstore import IntegrityError, ObjectInfo, ObjectMetaOptions, ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.bucket.ways import ANY_WAY
from objstore.format.codec import encode_meta
from objstore.format.naming import meta_subject
from objstore.maintenance import verify as _verify
from objstore.read import get as _get
from objstore.read.late_copies import LateCopies, _Verdicts, late_copies
from support.memory_server import MemoryServer, error

CHUNK = 100
DATA = b"".join(b"%0100d" % number for number in range(66)) + b"the end"

KINDS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "batches": ("2.15.1", {}, set()),
    "2.11": ("2.11.4", {}, set()),
    "consumer": ("2.10.4", {}, set()),
    "leader": ("2.15.1", {"allow_direct": False}, set()),
    "one by one": ("2.15.1", {"allow_direct": False}, {"CONSUMER.CREATE"}),
    "replicas": ("2.15.1", {"replicas": 3}, set()),
}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_get, "RECHECK_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(_verify, "RECHECK_DELAYS", (0.0, 0.0))


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest) -> Any:
    version, config, refused = KINDS[request.param]
    server = MemoryServer(version)
    await server.bucket(**config)
    server.refused = refused
    yield server
    await server.client.close()


@pytest.fixture
async def store(server: MemoryServer) -> ObjectStore:
    return await server.js.object_store("b")


@pytest.fixture
async def bucket(server: MemoryServer, store: ObjectStore) -> Bucket:
    return await bind(server.js, "b")


@pytest.fixture
async def info(server: MemoryServer, store: ObjectStore) -> ObjectInfo:
    return await store.put("a", DATA, chunk_size=CHUNK)


def sequences(server: MemoryServer, info: ObjectInfo) -> list[int]:
    return [each.seq for each in server.stream().of(f"$O.b.C.{info.nuid}")]


def append(server: MemoryServer, info: ObjectInfo, *payloads: bytes) -> list[int]:
    return [server.put_raw(f"$O.b.C.{info.nuid}", payload) for payload in payloads]


COPIES = [DATA[at : at + CHUNK] for at in range(5000, 5500, CHUNK)]


async def test_they_are_found(server: MemoryServer, bucket: Bucket, info: ObjectInfo) -> None:
    end = sequences(server, info)[-1]
    assert await late_copies(bucket, info) == LateCopies(end, 0, [], info.chunks)
    behind = append(server, info, b"", b"", *COPIES, b"", COPIES[3])
    assert await late_copies(bucket, info) == LateCopies(end, behind[2], behind, info.chunks)


@pytest.mark.parametrize(
    ("other", "place"), [(b"x", 0), (DATA[5050 : 5050 + CHUNK], -1)], ids=["one byte", "as long"]
)
async def test_anything_else_is_damage(
    server: MemoryServer, store: ObjectStore, bucket: Bucket, info: ObjectInfo, other: bytes, place: int
) -> None:
    behind = list(COPIES)
    behind.insert(place, other)
    append(server, info, *behind)
    assert await late_copies(bucket, info) is None
    with pytest.raises(IntegrityError):
        await store.get("a")
    with pytest.raises(IntegrityError):
        await store.get("a", verify=False)


async def test_empty_messages_alone_are_no_copies(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo
) -> None:
    append(server, info, b"", b"")
    assert await late_copies(bucket, info) is None


async def test_copies_of_what_is_not_the_object(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo
) -> None:
    """The chunks before must have the digest: a copy among them, or one less, is damage."""
    append(server, info, *COPIES)
    assert await late_copies(bucket, replace(info, digest="SHA-256=" + "0" * 64)) is None
    assert await late_copies(bucket, replace(info, digest="")) is None
    assert await late_copies(bucket, replace(info, chunks=info.chunks + 1)) is None
    server.stream().remove(sequences(server, info)[7:8])
    assert await late_copies(bucket, info) is None


async def test_more_of_them_than_a_put_can_have_under_way(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objstore.read.late_copies.MOST", len(COPIES) - 1)
    append(server, info, *COPIES)
    server.asked.clear()
    assert await late_copies(bucket, info) is None
    assert server.verbs() == ["STREAM.INFO"]  # an attacker's are not read


@pytest.mark.parametrize("behind", ["larger", "many"])
async def test_what_is_too_large_is_not_read(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo, monkeypatch: pytest.MonkeyPatch, behind: str
) -> None:
    """Others may have stored gigabytes behind a few bytes, and as many metas that refer to them."""
    monkeypatch.setattr(type(bucket), "max_message", 2 * 1024 * 1024)
    monkeypatch.setattr("objstore.read.late_copies.TIMES", 2)
    whole = [DATA[at : at + CHUNK] for at in range(0, len(DATA), CHUNK)]
    append(server, info, *([b"x" * (CHUNK + 1)] * 200 if behind == "larger" else whole * 4))
    read = 0
    messages = Bucket.messages

    async def counted(self: Bucket, *args: Any, **options: Any) -> AsyncIterator[Any]:
        nonlocal read
        async for message in messages(self, *args, **options):
            read += 1
            yield message

    monkeypatch.setattr(Bucket, "messages", counted)
    assert await late_copies(bucket, info, ANY_WAY) is None
    assert read == info.chunks + (1 if behind == "larger" else 2 * info.chunks + 1)
    assert await late_copies(bucket, info, ANY_WAY) is None
    assert read == info.chunks + (1 if behind == "larger" else 2 * info.chunks + 1), "it is remembered"
    assert await late_copies(bucket, info) is None
    assert read > 2 * info.chunks, "but for what is removed by it"
    wrong = sequences(server, info)[info.chunks :]
    server.stream().remove(wrong)
    assert await late_copies(bucket, info, ANY_WAY) is not None
    append(server, info, *(whole * 4)[: len(wrong)])
    monkeypatch.setattr("objstore.read.late_copies.TIMES", 100)
    assert await late_copies(bucket, info, ANY_WAY) is None, "as many messages as before"
    monkeypatch.setattr("objstore.read.late_copies.DAMAGED_FOR", 0.0)
    assert await late_copies(bucket, info, ANY_WAY) is not None


async def test_only_so_much_is_remembered(
    server: MemoryServer, bucket: Bucket, info: ObjectInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objstore.read.late_copies.REMEMBERED", 2)
    append(server, info, *COPIES)
    for number in range(5):
        assert await late_copies(bucket, replace(info, digest=f"{number}"), ANY_WAY) is None
    assert len(bucket.remembered(_Verdicts)) <= 2
    found = await late_copies(bucket, info, ANY_WAY)
    assert found is not None
    assert await late_copies(bucket, info, ANY_WAY) == found


@pytest.mark.parametrize("earlier", [0, 1])
@pytest.mark.parametrize("what", [COPIES, [b"x"]], ids=["copies", "other"])
async def test_messages_that_are_removed_meanwhile(
    server: MemoryServer,
    store: ObjectStore,
    info: ObjectInfo,
    tmp_path: Path,
    what: list[bytes],
    earlier: int,
) -> None:
    """By their writer, between the read that finds them and the end of the proof."""
    for read in (store.get("a"), store.get_file("a", tmp_path / "out"), store.get_range("a", 50, 5000)):
        behind = append(server, info, *what)
        counted = 0

        def hook(verb: str, body: dict[str, Any], behind: list[int] = behind) -> None:
            nonlocal counted
            counted += verb == "STREAM.INFO" and "subjects_filter" in body
            if counted > earlier:
                server.stream().remove(behind)

        server.hook = hook
        await read
        server.hook = None
        server.stream().remove(behind)


async def test_whole_reads(
    server: MemoryServer, store: ObjectStore, info: ObjectInfo, tmp_path: Path
) -> None:
    append(server, info, *COPIES, b"")
    assert await store.get("a") == DATA
    assert await store.get("a", verify=False) == DATA
    await store.get_file("a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA
    async with store.open_reader("a") as reader:
        assert await reader.read() == DATA
    await store.copy("a", "b")
    assert await store.get("b") == DATA
    assert server.stream().consumers == {}


@pytest.mark.parametrize("count", [1, len(COPIES)])
async def test_parts(server: MemoryServer, store: ObjectStore, info: ObjectInfo, count: int) -> None:
    append(server, info, *COPIES[:count])
    for start, end in ((5, 1005), (6000, len(DATA)), (5050, 5250)):
        assert await store.get_range("a", start, end) == DATA[start:end]
    async with store.open_reader("a") as reader:
        await reader.seek(5050)
        assert await reader.read(500) == DATA[5050:5550]


async def test_one_chunk(server: MemoryServer, store: ObjectStore) -> None:
    info = await store.put("one", b"chunk")
    append(server, info, b"chunk", b"chunk")
    assert await store.get("one") == b"chunk"
    assert await store.get_range("one", 1, 3) == b"hu"


async def test_more_chunks_than_bytes(server: MemoryServer, store: ObjectStore) -> None:
    """Others can store empty ones without end."""
    info = await store.put("few", b"0123456789")
    append(server, info, *[b""] * 50)
    forged = replace(info, chunks=10**9, options=ObjectMetaOptions(max_chunk_size=1))
    server.put_raw(meta_subject("b", "few"), encode_meta(forged))
    with pytest.raises(IntegrityError, match="1000000000 chunks"):
        await store.get("few")
    with pytest.raises(IntegrityError, match="1000000000 chunks"):
        await store.get_range("few", 1, 3)
    assert not (await store.verify(deep=True)).ok


@pytest.mark.parametrize("size", [10**6, 10**6 + 5], ids=["regular", "measured"])
async def test_chunks_that_are_newer_than_the_meta(
    server: MemoryServer, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """They came after it: others can store more for as long as they are read."""
    for module in ("feed", "late_copies"):
        monkeypatch.setattr(f"objstore.read.{module}.MOST_NEWER", 20)
    info = await store.put("long", b"0123456789")
    forged = replace(info, size=size, chunks=10**6, options=ObjectMetaOptions(max_chunk_size=1))
    server.put_raw(meta_subject("b", "long"), encode_meta(forged))
    stored = 0

    def more(verb: str, body: dict[str, Any]) -> None:
        nonlocal stored
        if stored < 1000:  # the read would go on
            for _ in range(3):
                append(server, info, b"x")
                stored += 1

    server.hook = more
    for read in (store.get("long"), store.get_range("long", 1, 300)):
        stored = 0
        with pytest.raises(IntegrityError):
            await read
        assert stored < 1000


@pytest.mark.parametrize("server", ["replicas"], indirect=True)
async def test_a_replica_that_lacks_a_chunk(
    server: MemoryServer, store: ObjectStore, info: ObjectInfo
) -> None:
    """It may seem whole there, with a copy in the place of the missing one: without the digest, too."""
    append(server, info, *COPIES)
    lacking = sequences(server, info)[3]
    stream = server.stream()
    find = stream.find

    def behind(body: dict[str, Any]) -> Any:
        found = find(body)
        return [each for each in found if each.seq != lacking] if "batch" in body else found

    stream.find = behind  # type: ignore[method-assign]
    for verify in (True, False):
        with pytest.raises(IntegrityError):
            await store.get("a", verify=verify)


@pytest.mark.parametrize("server", ["batches", "replicas"], indirect=True)
async def test_the_proof_may_not_be_read(server: MemoryServer, store: ObjectStore, info: ObjectInfo) -> None:
    """Then it is not known whether the object is damaged."""
    append(server, info, *COPIES)
    store = store.with_options(retry_budget=0.3)
    server.hook = lambda verb, body: (
        error(503, 10008, "system temporarily unavailable") if verb == "STREAM.INFO" else None
    )
    with pytest.raises(APIError, match="temporarily"):
        await store.get("a")


async def test_gc_heals(server: MemoryServer, store: ObjectStore, info: ObjectInfo) -> None:
    before = sequences(server, info)
    append(server, info, *COPIES, b"")
    assert [problem.kind for problem in (await store.verify()).problems] == ["extra chunks"]
    if server.refused:  # nothing shows that no meta, and no chunk, is newer
        with pytest.raises(PermissionsViolationError):
            await store.gc(older_than=timedelta(0))
        server.refused.clear()
        store = await server.js.object_store("b")
    report = await store.gc(older_than=timedelta(0))
    assert report.copies == [("a", len(COPIES) + 1)]
    assert sequences(server, info) == before
    assert (await store.verify(deep=True)).ok
