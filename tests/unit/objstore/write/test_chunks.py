"""The chunks of a put: what was lost is sent again, what came twice is removed, all of it is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from natsproto.errors import NatsError
from natsproto.jetstream.api.errors import MessageTooLargeError
from objstore import (
    BadBucketError,
    BucketSealedError,
    ForeignBucketError,
    ObjectStore,
    StoreFullError,
)
from objstore.format.naming import meta_subject
from objstore.write.doubt import Unrepairable
from objstore.write.put import Put
from support.memory_server import NO_MESSAGE, SILENCE, MemoryServer, error

DATA = bytes(range(256)) * 10
CHUNK = 100


@pytest.fixture
async def store(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setattr("objstore.write.chunks.SETTLE", 0.05)
    monkeypatch.setattr("objstore.write.put.SETTLE", 0.05)
    store = await server.bucket()
    store.bound_bucket.js.timeout = 1.0
    return store.with_options(retry_budget=3.0)


def once(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 33):
        yield data[at : at + 33]


def is_chunk(subject: str) -> bool:
    return subject.startswith("$O.b.C.")


class Nth:
    """Acts on one chunk."""

    def __init__(self, server: MemoryServer, n: int, action: Any) -> None:
        self.server = server
        self.n = n
        self.action = action
        self.seen = -1
        server.on_publish = self

    def __call__(self, subject: str, header: bytes, payload: bytes) -> Any:
        if not is_chunk(subject) or not payload:
            return None
        self.seen += 1
        return self.action(subject, header, payload) if self.seen == self.n else None


async def test_in_order_and_whole(server: MemoryServer, store: ObjectStore) -> None:
    info = await store.put("a", DATA, chunk_size=CHUNK)
    stored = server.stream().of(f"$O.b.C.{info.nuid}")
    assert [each.payload for each in stored] == [DATA[at : at + CHUNK] for at in range(0, len(DATA), CHUNK)]
    assert stored[-1].seq < info.revision


@pytest.mark.parametrize("n", [0, 5, 25])
@pytest.mark.parametrize("restartable", [True, False])
@pytest.mark.parametrize("what", ["lost", "answer lost"])
async def test_lost(server: MemoryServer, store: ObjectStore, n: int, restartable: bool, what: str) -> None:
    """Looked at first: none is stored twice."""

    def act(subject: str, header: bytes, payload: bytes) -> Any:
        if what == "answer lost":
            server.stream().publish(subject, header, payload)
        server.lose()
        server.connect()
        return SILENCE

    Nth(server, n, act)
    info = await store.put("a", DATA if restartable else once(DATA), chunk_size=CHUNK)
    assert await store.get("a") == DATA
    assert server.chunks()[info.nuid] == info.chunks
    assert len(server.chunks()) == 1


async def test_answers_to_others_requests_about_chunks_in_doubt(
    server: MemoryServer, store: ObjectStore
) -> None:
    """Whoever had a second answer to a chunk sent to us may have "no message" sent, too: three times, say."""

    def twice(subject: str, header: bytes, payload: bytes) -> Any:
        pub = server.session.pubs[-1]
        server.answer(pub, server.stream().publish(subject, header, payload))
        server.answer(pub, {"stream": "OBJ_b", "seq": 999})
        return SILENCE

    Nth(server, 3, twice)
    left = 3

    def hook(verb: str, body: dict[str, Any]) -> Any:
        nonlocal left
        asked = body.get("last_by_subj", body.get("next_by_subj", ""))
        if verb != "STREAM.MSG.GET" or not is_chunk(asked) or not left:
            return None
        left -= 1
        return NO_MESSAGE

    server.hook = hook
    await store.put("a", once(DATA), chunk_size=CHUNK)
    assert left == 0
    assert await store.get("a") == DATA


@pytest.mark.parametrize("restartable", [True, False])
async def test_twice(server: MemoryServer, store: ObjectStore, restartable: bool) -> None:
    """The second answer to one chunk is a hint; what is too much is removed before the commit, or after."""

    def twice(subject: str, header: bytes, payload: bytes) -> Any:
        pub = server.session.pubs[-1]
        server.answer(pub, server.stream().publish(subject, header, payload))
        return None

    Nth(server, 3, twice)
    info = await store.put("a", DATA if restartable else once(DATA), chunk_size=CHUNK)
    assert server.chunks() == {info.nuid: info.chunks}
    assert await store.get("a") == DATA


@pytest.mark.parametrize("restartable", [True, False])
@pytest.mark.parametrize("at", [12, 25, "meta"])
async def test_held_back_for_a_leader_that_leads_again(
    server: MemoryServer, store: ObjectStore, restartable: bool, at: int | str
) -> None:
    """Copies of chunks that were sent again come between later ones, behind them, or with the meta."""
    sent: list[bytes] = []
    late: list[bytes] = []

    def hold(subject: str, header: bytes, payload: bytes) -> Any:
        if is_chunk(subject) and payload:
            sent.append(payload)
            if len(sent) == 4:
                late.extend(sent)
                server.lose()
                server.connect()
                return SILENCE
        of = f"$O.b.C.{next(iter(server.chunks()), '')}"
        if late and (len(server.stream().of(of)) == at or subject.startswith("$O.b.M.")):
            for each in late:
                server.stream().publish(of, b"", each)
            late.clear()
        return None

    server.on_publish = hold
    info = await store.put("a", DATA if restartable else once(DATA), chunk_size=CHUNK)
    assert not late
    assert server.chunks() == {info.nuid: info.chunks}
    assert await store.get("a") == DATA


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(503, 10077, "maximum bytes exceeded"), StoreFullError),
        (error(400, 10109, "invalid operation on sealed stream"), BucketSealedError),
        (error(400, 10054, "message size exceeds maximum allowed"), MessageTooLargeError),
        ({"stream": "OTHER", "seq": 7}, ForeignBucketError),
    ],
)
async def test_refused(server: MemoryServer, store: ObjectStore, answer: Any, kind: type[NatsError]) -> None:
    """The previous object stays, and none of the chunks."""
    old = await store.put("a", b"old")
    Nth(server, 4, lambda *message: answer)
    with pytest.raises(kind):
        await store.put("a", DATA, chunk_size=CHUNK)
    server.on_publish = None
    assert await store.get("a") == b"old"
    assert set(server.chunks()) == {old.nuid}


async def test_acknowledged_and_not_there(server: MemoryServer, store: ObjectStore) -> None:
    """As by a server that was killed: the order of what follows shows it, and a look at what is stored."""

    def drop(subject: str, header: bytes, payload: bytes) -> Any:
        return {"stream": "OBJ_b", "seq": server.stream().seq + 1}

    Nth(server, 3, drop)
    info = await store.put("a", DATA, chunk_size=CHUNK)
    assert await store.get("a") == DATA
    assert server.chunks() == {info.nuid: info.chunks}


async def test_an_object_that_is_copied_can_be_read_again(server: MemoryServer, store: ObjectStore) -> None:
    """As bytes that are put: the copy starts over if its chunks cannot be trusted."""
    await store.put("a", DATA, chunk_size=CHUNK)

    def drop(subject: str, header: bytes, payload: bytes) -> Any:
        return {"stream": "OBJ_b", "seq": server.stream().seq + 1}

    Nth(server, 3, drop)
    copied = await store.copy("a", "b")
    assert await store.get("b") == DATA
    assert server.chunks()[copied.nuid] == copied.chunks
    assert len(server.chunks()) == 2


async def test_a_stream_that_makes_room_by_itself(server: MemoryServer, store: ObjectStore) -> None:
    """The chunks are counted before the commit: one that has gone again is noticed."""
    server.stream().config |= {"discard": "old", "max_bytes": 100_000}
    store = (await server.js.object_store("b")).with_options(retry_budget=1.0)

    def rolled(subject: str, header: bytes, payload: bytes) -> Any:
        stream = server.stream()
        stream.remove([stream.of(subject)[0].seq])
        return None

    Nth(server, 25, rolled)
    with pytest.raises(NatsError):
        await store.put("a", once(DATA), chunk_size=CHUNK)
    assert server.stream().of(meta_subject("b", "a")) == []
    assert server.chunks() == {}


async def test_more_than_a_subject_keeps(server: MemoryServer, store: ObjectStore) -> None:
    server.stream().config["max_msgs_per_subject"] = 5
    store = await server.js.object_store("b")
    for data in (DATA, once(DATA)):
        with pytest.raises(BadBucketError, match="max_msgs_per_subject"):
            await store.put("a", data, chunk_size=CHUNK)
    assert server.chunks() == {}


async def test_a_source_that_fails(server: MemoryServer, store: ObjectStore) -> None:
    closed = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            for _ in range(5):
                yield b"x" * CHUNK
            raise KeyError("of the application")
        finally:
            closed = True

    with pytest.raises(KeyError):
        await store.put("a", source(), chunk_size=CHUNK)
    assert closed
    assert server.chunks() == {}
    assert not await store.exists("a")


async def test_nothing_that_lasts(server: MemoryServer, store: ObjectStore) -> None:
    """A server that answers nothing is given up, and what may be there is said to be left behind."""
    store = store.with_options(retry_budget=0.3)
    store.bound_bucket.js.timeout = 0.1
    server.on_publish = lambda subject, header, payload: SILENCE if is_chunk(subject) else None
    with pytest.raises(NatsError):
        await store.put("a", DATA, chunk_size=CHUNK)
    server.on_publish = None
    assert not await store.exists("a")


async def test_copies_are_removed_if_all_that_was_read_is_the_buckets(
    server: MemoryServer, store: ObjectStore
) -> None:
    """In another stream the same chunks have other numbers, and one of them may be that of a copy here."""
    sender = Put.__new__(Put)
    sender._bucket, sender._subject = store.bound_bucket, "$O.b.C.n"
    chunk, copy = (server.put_raw(sender._subject, b"x") for _ in range(2))
    with pytest.raises(Unrepairable):
        await sender._delete([chunk], [chunk - 1])
    assert server.chunks() == {"n": 2}
    await sender._delete([copy], [chunk])
    assert list(server.stream().messages) == [chunk]
