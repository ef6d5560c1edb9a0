"""Answers of the API with a field of another type: typed errors, whatever the call, and nothing harmed.

Real answers of a real server, of which one field at a time is replaced before the library sees it.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import natsproto
from natsproto import Client, JetStreamContext, wire
from natsproto.errors import NatsError, RemoteProtocolError, RequestTimeoutError
from natsproto.jetstream import requests
from natsproto.jetstream.api import codec, paging
from natsproto.jetstream.api.paging import memory_of
from natsproto.testing import FaultProxy, ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from natsproto.wire import Event, Msg, Pub
from objstore import ObjectMeta, ObjectStore
from objstore.bucket import bucket as _bucket
from objstore.bucket import message_reads as _message_reads
from objstore.read import by_sequence as _by_sequence
from objstore.read.ranges import Layout, measure
from support.objects import pattern
from support.waits import eventually

DATA = pattern(300_000)
VALUES: list[Any] = [None, "x", [1], {"a": 1}, 10**30]
GONE = object()

Path = tuple[Any, ...]


def paths(document: Any, prefix: Path = ()) -> Iterator[Path]:
    """The way to every value of a document; of a list only to its first."""
    items: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document[:1]))
    for key, value in items:
        yield (*prefix, key)
        yield from paths(value, (*prefix, key))


class Liar:
    """Stands in for ``loads``, and changes one value of one answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Any] | None = []
        self.lie: tuple[int, Path, Any] | None = None
        self.count = 0
        for module in (requests, _bucket, _message_reads, _by_sequence):
            monkeypatch.setattr(module, "loads", self.loads)

    def loads(self, payload: Any, limit: int | None = None) -> Any:
        document = codec.loads(payload, limit)
        if self.seen is not None:
            self.seen.append(copy.deepcopy(document))
        elif self.lie is not None and self.lie[0] == self.count:
            _, path, value = self.lie
            place: Any = document
            try:
                for key in path[:-1]:
                    place = place[key]
                if value is GONE:
                    del place[path[-1]]
                else:
                    place[path[-1]] = value
            except (KeyError, IndexError, TypeError):
                pass  # this answer has no such place
        self.count += 1
        return document


@pytest.fixture
async def two(js: JetStreamContext, bucket_name: str) -> AsyncIterator[list[ObjectStore]]:
    """A bucket that is read from the leader, and one with direct get."""
    stores = []
    for direct in (False, True):
        store = await js.create_object_store(
            bucket=f"{bucket_name}-{direct}",
            ttl=timedelta(hours=1),
            allow_direct=direct,
        )
        await store.put("o", DATA)
        await store.put("gone", b"x")
        await store.delete("gone")
        stores.append(store)
    yield stores
    for store in stores:
        await js.delete_object_store(store.bucket)


async def iterated(store: ObjectStore) -> None:
    async for _ in store.iter():
        pass


Call = Callable[[ObjectStore], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "open": lambda store: store.js.object_store(store.bucket),
    "status": lambda store: store.status(),
    "statuses": lambda store: store.js.object_store_statuses(),
    "bucket names": lambda store: store.js.object_store_names(),
    "create": lambda store: store.js.create_object_store(bucket=store.bucket),
    "get": lambda store: store.get("o"),
    "range": lambda store: store.get_range("o", 1000, 200_000),
    "info": lambda store: store.get_info("o"),
    "list": lambda store: store.list(),
    "iter": iterated,
    "names": lambda store: store.names(),
    "verify": lambda store: store.verify(deep=True),
    "gc": lambda store: store.gc(older_than=timedelta(0), dry_run=True),
    "put": lambda store: store.put("p", b"1"),
    "update": lambda store: store.update_meta("o", ObjectMeta(name="o", description="d")),
    "purge_deleted": lambda store: store.purge_deleted(),
    "consumers": lambda store: store.js.consumer_names(f"OBJ_{store.bucket}"),
    "account": lambda store: store.js.account_info(),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_field_of_another_type(
    two: list[ObjectStore], js: JetStreamContext, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    liar = Liar(monkeypatch)
    usual = js.timeout
    for store in two:
        js.timeout = usual
        liar.seen = []
        try:
            await CALLS[name](store)
        except NatsError:
            assert name == "create"  # it exists, with another configuration
        answers, liar.seen = liar.seen, None
        js.timeout = 0.5
        hurried = store.with_options(retry_budget=0.2)
        shapes = set()
        for number, answer in enumerate(answers):
            shape = str(sorted(answer))
            if shape in shapes:
                continue
            shapes.add(shape)
            for path in paths(answer):
                for value in (*VALUES, GONE):
                    liar.lie, liar.count = (number, path, value), 0
                    try:
                        async with asyncio.timeout(5 + 10):
                            await CALLS[name](hurried)
                    except NatsError:
                        pass
    liar.lie, js.timeout = None, usual
    for store in two:
        fresh = await js.object_store(store.bucket)
        assert await fresh.get("o") == DATA
        assert (await fresh.verify()).ok


@pytest.mark.parametrize("change", [{"subject": "$O.x.M.eA=="}, {"seq": 1}], ids=["subject", "sequence"])
async def test_an_answer_to_another_question(
    two: list[ObjectStore], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """What is removed may depend on it."""
    store = two[0]
    real = _message_reads.leader_message

    def other(answer: dict[str, Any]) -> Any:
        return real({**answer, "message": {**answer["message"], **change}})

    monkeypatch.setattr(_message_reads, "leader_message", other)
    with pytest.raises(RemoteProtocolError, match="asked for"):
        await store._bucket.first_after(f"$O.{store.bucket}.M.>", 1)


# -- reply subjects and subjects -----------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["time", "sequence", "subject"])
async def test_what_no_server_says(
    js: JetStreamContext, bucket_name: str, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Numbers of deliveries that fit into no time and no array, subjects that nobody can ask for."""
    monkeypatch.setattr("objstore.bucket.collect.HEARTBEAT", 0.1)
    server_url = js.client.connection.pool.servers[0].url
    asked: set[bytes | None] = set()

    def to_server(event: Event, raw: bytes) -> None:
        if isinstance(event, Pub) and b".STREAM.MSG.GET." in event.subject:
            asked.add(event.reply)

    def to_client(event: Event, raw: bytes) -> bytes | None:
        if not isinstance(event, Msg):
            return None
        reply, payload = event.reply, event.payload
        if change == "subject" and event.subject in asked:
            payload = (
                b'{"message":{"subject":"$O.%b.M.\\ud800","seq":1000,"time":"2026-01-01T00:00:00Z","data":"e30="}}'
                % bucket_name.encode()
            )
        elif change != "subject" and (reply or b"").startswith(b"$JS.ACK."):
            parts = (reply or b"").split(b".")
            parts[-2 if change == "time" else -4] = b"9" * 25
            reply = b".".join(parts)
        else:
            return None
        return b"".join(
            map(bytes, wire.msg(event.subject, event.sid, payload, reply=reply, header=event.header))
        )

    mine = await js.create_object_store(bucket=bucket_name, allow_direct=False)
    info = await mine.put("o", DATA)
    async with FaultProxy(server_url) as proxy, natsproto.connect(proxy.url) as nc:
        store = (await nc.jetstream(timeout=1.0).object_store(bucket_name)).with_options(retry_budget=0.5)
        proxy.to_server, proxy.to_client = to_server, to_client
        reads: list[Awaitable[Any]] = [store.list(), store.status(), store.verify()]
        if change != "subject":
            reads.append(measure(store._bucket, info, Layout(info)))
        for read in reads:
            async with asyncio.timeout(5 + 5):
                with pytest.raises(NatsError):
                    await read
        assert proxy.errors == []
    await js.delete_object_store(bucket_name)


# -- listings that do not end -----------------------------------------------------------------------------


class Pages:
    """Answers every request with the next page of a listing, as ``page`` makes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, page: Callable[[int, int], dict[str, Any]]) -> None:
        self.asked = 0
        self._page = page
        monkeypatch.setattr(JetStreamContext, "request", self._request)

    async def _request(self, suffix: str, document: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.asked += 1
        return self._page(self.asked, document["offset"])


PAGES: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "the same page": lambda number, offset: {"streams": ["a"], "total": 9, "offset": offset},
    "backwards": lambda number, offset: {"streams": [f"s{number}"], "total": 9, "offset": max(0, offset - 1)},
    "for ever": lambda number, offset: {"streams": [f"s{number}"], "total": number + 1, "offset": offset},
}


@pytest.mark.parametrize("how", PAGES)
async def test_a_listing_without_an_end(nc: Client, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(paging, "MAX_PAGES", 50)
    pages = Pages(monkeypatch, PAGES[how])
    with pytest.raises(RemoteProtocolError, match=r"backwards|do not end"):
        await nc.jetstream().stream_names()
    assert pages.asked <= 51

    def subjects(number: int, offset: int) -> dict[str, Any]:
        page = PAGES[how](number, offset)
        return {"state": {"subjects": dict.fromkeys(page.pop("streams"), 1)}, **page}

    pages = Pages(monkeypatch, subjects)
    with pytest.raises(RemoteProtocolError, match=r"backwards|do not end"):
        await nc.jetstream().stream_subjects("S", "s.>")
    assert pages.asked <= 51
    with pytest.raises(NatsError):  # this list also has to show that it is complete
        await nc.jetstream().stream_subjects("S")


def entry(kind: str, name: str) -> dict[str, Any]:
    """A page of one kind of listing, with one entry."""
    if kind == "subjects":
        return {"state": {"subjects": {name: 1}}}
    if kind == "streams":
        config = {"name": name, "some_field": [[], {}] * 10}
        return {"streams": [{"config": config, "state": {}, "created": "2024-01-01T00:00:00Z"}]}
    return {"streams": [name], "consumers": [name]}


LISTINGS: dict[str, Callable[[JetStreamContext], Awaitable[Any]]] = {
    "names": lambda js: js.stream_names(),
    "streams": lambda js: js.streams(),
    "subjects": lambda js: js.stream_subjects("S"),
    "consumers": lambda js: js.consumer_names("S"),
}


@pytest.mark.parametrize("kind", LISTINGS)
async def test_a_listing_of_all_memory(nc: Client, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(paging, "MAX_MEMORY", 100_000)

    def page(number: int, offset: int) -> dict[str, Any]:
        return {**entry(kind, f"{number}".rjust(900, "x")), "total": 10**9, "offset": offset}

    pages = Pages(monkeypatch, page)
    with pytest.raises(RemoteProtocolError, match="memory"):
        await LISTINGS[kind](nc.jetstream())
    assert 20 < pages.asked <= 100


@pytest.mark.parametrize("kind", LISTINGS)
async def test_a_listing_that_takes_for_ever(nc: Client, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Each page comes in time, and all of them never."""
    monkeypatch.setattr(requests, "MAX_SECONDS", 0.05)
    monkeypatch.setattr(paging, "MAX_PAGES", 10**9)

    async def request(suffix: str, document: dict[str, Any], **_: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {**entry(kind, f"s{document['offset']}"), "total": 10**9, "offset": document["offset"]}

    js = nc.jetstream()
    monkeypatch.setattr(js, "request", request)
    async with asyncio.timeout(1 + 5):
        with pytest.raises(RequestTimeoutError, match=r"more than 0.05 s"):
            await LISTINGS[kind](js)


def test_the_memory_of_an_answer() -> None:
    """Whatever is in it, however deep."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert memory_of([deep]) > 100_000 * 56
    assert memory_of(["x" * 1000]) > 1000
    assert memory_of([{"a": [[]] * 10}]) > 10 * 56
    assert memory_of([None, 1, True]) > 0


# -- PING without end ----------------------------------------------------------------------------------------


async def test_answers_to_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many PONGs are kept; then the connection is given up."""
    monkeypatch.setattr("natsproto.aio.session.MAX_UNREAD_PONGS", 100)

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        while True:  # and reads nothing
            await conn.send(b"PING\r\n" * 1000)
            await asyncio.sleep(0)

    async with ScriptedServer(script) as server, natsproto.connect(server.url, reconnect=False) as nc:
        session = nc.connection.session
        assert session is not None
        async with asyncio.timeout(40):
            while not session.congested:
                session.write(b"PUB a 1000000\r\n" + bytes(1_000_000) + b"\r\n")
                await asyncio.sleep(0)
            await eventually(lambda: session.lost is not None, within=40)
        assert isinstance(session.lost, RemoteProtocolError)
        assert session._unread_pongs == 101
