"""The end of a client with operations under way: drain() lets them end, close() lets them clean up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto import Client
from natsproto.aio.session import Session
from natsproto.errors import ConnectionClosedError, NatsError, RequestTimeoutError
from natsproto.server import LocalServer
from natsproto.testing import DROP, FaultProxy, ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from natsproto.wire import Msg as WireMsg
from natsproto.wire import Pub
from objstore import ObjectStore
from support.calls import Calls
from support.objects import CHUNK, assert_exact, chunk_counts, pattern

BOUND = 10.0
OLD = pattern(2 * CHUNK, 1)
NEW = pattern(40 * CHUNK + 1, 2)


class Ending:
    """A client that is about to end, its bucket, and the same bucket of one that stays."""

    def __init__(self, client: Client, store: ObjectStore, witness: ObjectStore) -> None:
        self.client = client
        self.store = store
        self.witness = witness
        self.began = asyncio.Event()
        self.gate = asyncio.Event()

    def progress(self, done: int, total: int | None) -> None:
        self.began.set()

    async def source(self) -> AsyncIterator[bytes]:
        """Half of the object, then a wait at the gate."""
        yield NEW[: 20 * CHUNK]
        self.began.set()
        await self.gate.wait()
        yield NEW[20 * CHUNK :]

    async def start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        async with asyncio.timeout(BOUND):
            await self.began.wait()
        return task


@pytest.fixture
async def ending(server: LocalServer, store: ObjectStore) -> AsyncIterator[Ending]:
    await store.put("a", OLD)
    async with natsproto.connect(server.url, drain_timeout=BOUND) as client:
        yield Ending(client, await client.jetstream().object_store(store.bucket), store)


async def stored_in_part(store: ObjectStore) -> None:
    """Wait until something of the new object is stored."""
    async with asyncio.timeout(BOUND):
        while len(await chunk_counts(store)) < 2:
            pass


# -- drain ------------------------------------------------------------------------------------------------


async def test_drain_lets_a_put_end(ending: Ending) -> None:
    putting = await ending.start(ending.store.put("a", NEW, progress=ending.progress))
    await ending.client.drain()
    assert ending.client.is_closed
    assert (await putting).size == len(NEW)
    assert await ending.witness.get("a") == NEW
    await assert_exact(ending.witness)


async def test_drain_waits_for_the_source(ending: Ending) -> None:
    putting = await ending.start(ending.store.put("a", ending.source()))
    draining = asyncio.ensure_future(ending.client.drain())
    await stored_in_part(ending.witness)
    assert not draining.done()
    with pytest.raises(ConnectionClosedError, match="nothing new"):
        await ending.store.put("b", b"x")
    with pytest.raises(ConnectionClosedError, match="nothing new"):
        await ending.store.get("a")
    with pytest.raises(ConnectionClosedError, match="draining"):
        await ending.client.subscribe("a")
    ending.gate.set()
    async with asyncio.timeout(BOUND):
        await asyncio.gather(putting, draining)
    assert await ending.witness.get("a") == NEW
    await assert_exact(ending.witness)


async def test_drain_waits_for_a_writer(ending: Ending) -> None:
    async def write() -> None:
        async with ending.store.open_writer("a") as writer:
            ending.began.set()
            await ending.gate.wait()
            await writer.write(NEW)

    writing = await ending.start(write())
    draining = asyncio.ensure_future(ending.client.drain())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not draining.done()
    ending.gate.set()
    async with asyncio.timeout(BOUND):
        await asyncio.gather(writing, draining)
    assert await ending.witness.get("a") == NEW


async def test_drain_waits_for_a_reader(ending: Ending) -> None:
    await ending.witness.put("a", NEW)

    async def read() -> bytes:
        async with ending.store.open_reader("a") as reader:
            first = await reader.read(10)
            ending.began.set()
            await ending.gate.wait()
            return first + await reader.read()

    reading = await ending.start(read())
    draining = asyncio.ensure_future(ending.client.drain())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not draining.done()
    ending.gate.set()
    async with asyncio.timeout(BOUND):
        assert await reading == NEW
        await draining


@pytest.mark.parametrize("verb", ["get", "get_file", "copy", "upload"])
async def test_drain_lets_others_end(ending: Ending, verb: str, tmp_path: Path) -> None:
    """Calls of several steps; what comes in a later step is no new operation."""
    store, path = ending.store, tmp_path / "a"
    if verb != "upload":
        await ending.witness.put("a", NEW)

    async def upload() -> Any:
        upload = await store.begin_upload("a")
        return await upload.send(NEW, progress=ending.progress)

    work: dict[str, Callable[[], Any]] = {
        "get": lambda: store.get("a", progress=ending.progress),
        "get_file": lambda: store.get_file("a", path, progress=ending.progress),
        "copy": lambda: store.copy("a", "b", progress=ending.progress),
        "upload": upload,
    }
    task = await ending.start(work[verb]())
    await ending.client.drain()
    result = await task
    if verb == "get":
        assert result == NEW
    elif verb == "get_file":
        assert path.read_bytes() == NEW
    else:
        assert await ending.witness.get(result.name) == NEW
    await assert_exact(ending.witness)


async def test_drain_lets_requests_end(server: LocalServer, nc: Client) -> None:
    async with natsproto.connect(server.url) as asking:
        sub = await nc.subscribe("work")
        await nc.flush()
        asked = asyncio.ensure_future(asking.request("work"))
        msg = await sub.next_msg(BOUND)
        draining = asyncio.ensure_future(asking.drain())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not draining.done()
        await msg.respond(b"done")
        async with asyncio.timeout(BOUND):
            await draining
        assert (await asked).data == b"done"


async def test_operations_of_a_responder(server: LocalServer, store: ObjectStore, nc: Client) -> None:
    """While queues are being read everything goes on: what is in them may need it."""
    service = await natsproto.connect(server.url)
    kept = await service.jetstream().object_store(store.bucket)
    sub = await service.subscribe("work")
    await service.flush()
    requests = [asyncio.ensure_future(nc.request("work", b"%d" % n)) for n in range(5)]
    await nc.flush()
    await service.flush()
    draining = asyncio.ensure_future(service.drain())
    async for msg in sub:
        await kept.put(msg.data.decode(), msg.data)
        await msg.respond(await kept.get(msg.data.decode()))
    async with asyncio.timeout(BOUND):
        await draining
        assert [reply.data for reply in await asyncio.gather(*requests)] == [b"%d" % n for n in range(5)]


@pytest.mark.parametrize("writer", [False, True], ids=["put", "writer"])
async def test_a_put_that_cannot_end(server: LocalServer, store: ObjectStore, writer: bool) -> None:
    """It fails typed when the time is over; the old object stays, no chunk does."""
    await store.put("a", OLD)
    async with natsproto.connect(server.url, drain_timeout=0.3) as client:
        ending = Ending(client, await client.jetstream().object_store(store.bucket), store)

        async def write() -> None:
            async with ending.store.open_writer("a") as stuck:
                async for piece in ending.source():
                    await stuck.write(piece)
                    ending.began.set()

        putting = await ending.start(write() if writer else ending.store.put("a", ending.source()))
        await stored_in_part(store)
        async with asyncio.timeout(0.3 + 9 + 5):
            with pytest.raises(RequestTimeoutError, match=r"1 operations .* 0\.3 s"):
                await client.drain()
        assert client.is_closed
        ending.gate.set()
        async with asyncio.timeout(BOUND):
            with pytest.raises(ConnectionClosedError):
                await putting
    assert await store.get("a") == OLD
    await assert_exact(store)


async def test_drain_in_the_middle_of_ones_own_reading(ending: Ending) -> None:
    """Nobody waits for himself."""
    async with ending.store.open_reader("a") as reader:
        assert await reader.read(5) == OLD[:5]
        async with asyncio.timeout(5):
            await ending.client.drain()


async def test_a_cancelled_drain_closes(ending: Ending) -> None:
    putting = await ending.start(ending.store.put("a", ending.source()))
    draining = asyncio.ensure_future(ending.client.drain())
    await stored_in_part(ending.witness)
    draining.cancel()
    async with asyncio.timeout(BOUND):
        with pytest.raises(asyncio.CancelledError):
            await draining
        with pytest.raises(ConnectionClosedError):
            await putting
    assert ending.client.is_closed
    assert await ending.witness.get("a") == OLD
    await assert_exact(ending.witness)


# -- close ------------------------------------------------------------------------------------------------


async def test_close_lets_puts_clean_up(ending: Ending) -> None:
    """Ten at once, in whatever state they are."""
    store = ending.store
    putting = [
        asyncio.ensure_future(store.put(f"n{n}", NEW if n % 2 else ending.source(), progress=ending.progress))
        for n in range(10)
    ]
    await stored_in_part(ending.witness)
    async with asyncio.timeout(BOUND):
        await ending.client.close()
    assert ending.client.is_closed
    async with asyncio.timeout(BOUND):
        results = await asyncio.gather(*putting, return_exceptions=True)
    assert sum(isinstance(result, ConnectionClosedError) for result in results) >= 5
    assert all(not isinstance(r, BaseException) or isinstance(r, NatsError) for r in results)
    assert await ending.witness.get("a") == OLD
    await assert_exact(ending.witness)


async def test_close_lets_a_writer_clean_up(ending: Ending) -> None:
    async with ending.store.open_writer("a") as writer:
        await writer.write(NEW)
        await stored_in_part(ending.witness)
        await ending.client.close()
        with pytest.raises(ConnectionClosedError):
            await writer.write(NEW)
        await writer.abort()
    assert await ending.witness.get("a") == OLD
    await assert_exact(ending.witness)


async def test_close_waits_for_a_cancelled_put(ending: Ending) -> None:
    """Cancelled twice nobody waits for its clean-up any more, but it still needs the connection."""
    putting = await ending.start(ending.store.put("a", ending.source()))
    await stored_in_part(ending.witness)
    putting.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    putting.cancel()
    async with asyncio.timeout(BOUND):
        await ending.client.close()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await assert_exact(ending.witness)


async def test_ones_own_cancellation_stays_one(ending: Ending) -> None:
    """A task that is cancelled and whose client is closed raises CancelledError, and is not eaten."""
    putting = await ending.start(ending.store.put("a", ending.source()))
    putting.cancel()
    await ending.client.close()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert putting.cancelled()


async def test_close_within_an_operation(ending: Ending) -> None:
    """The source of a put closes the client: no deadlock, and a typed error."""

    async def source() -> AsyncIterator[bytes]:
        yield NEW[:CHUNK]
        await ending.client.close()
        yield NEW[CHUNK:]

    async with asyncio.timeout(BOUND):
        with pytest.raises(ConnectionClosedError):
            await ending.store.put("a", source())
    assert await ending.witness.get("a") == OLD


async def test_tasks_go_on_after_a_close(ending: Ending) -> None:
    """The task of the operation is not cancelled for good: what it does next is its own affair."""

    async def work() -> str:
        try:
            await ending.store.put("a", ending.source())
        except ConnectionClosedError:
            await asyncio.sleep(0)
            return "went on"
        return "was not closed"

    task = await ending.start(work())
    await ending.client.close()
    assert await task == "went on"
    assert not task.cancelling()


async def test_close_with_a_commit_on_its_way(server: LocalServer, store: ObjectStore) -> None:
    """The meta's answer is late: the old or the new object is there, with exactly its chunks."""
    await store.put("a", OLD)
    metas = f"$O.{store.bucket}.M.".encode()
    sent = asyncio.Event()

    def to_server(event: Any, raw: bytes) -> Any:
        if isinstance(event, Pub) and event.subject.startswith(metas):
            sent.set()
        return None

    def to_client(event: Any, raw: bytes) -> Any:
        return DROP if sent.is_set() and isinstance(event, WireMsg) and b'"seq":' in raw else None

    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as client:
        faulty = await client.jetstream().object_store(store.bucket)
        faulty.js.timeout = 1.0
        proxy.to_server, proxy.to_client = to_server, to_client
        putting = asyncio.ensure_future(faulty.put("a", NEW[: 5 * CHUNK]))
        async with asyncio.timeout(BOUND):
            await sent.wait()
        async with asyncio.timeout(5 + 5):
            await client.close()
        async with asyncio.timeout(BOUND):
            with pytest.raises(NatsError):
                await putting
        proxy.to_server = proxy.to_client = None
    assert await store.get("a") in (OLD, NEW[: 5 * CHUNK])


async def test_close_is_bounded_when_nothing_answers(server: LocalServer, store: ObjectStore) -> None:
    await store.put("a", OLD)
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as client:
        ending = Ending(client, await client.jetstream().object_store(store.bucket), store)
        putting = await ending.start(ending.store.put("a", ending.source()))
        proxy.blackhole()
        async with asyncio.timeout(5 + 5):
            await client.close()
        ending.gate.set()
        async with asyncio.timeout(BOUND):
            with pytest.raises(NatsError):
                await putting
        proxy.cut()
        proxy.blackhole(False)
    assert await store.get("a") == OLD


async def test_close_without_a_connection(server: LocalServer, store: ObjectStore) -> None:
    """There is nothing to clean up with: it does not wait."""
    await store.put("a", OLD)
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as client:
        ending = Ending(client, await client.jetstream().object_store(store.bucket), store)
        putting = await ending.start(ending.store.put("a", ending.source()))
        proxy.refuse()
        proxy.cut()
        async with asyncio.timeout(BOUND):
            while client.is_connected:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await client.close()
            with pytest.raises(ConnectionClosedError):
                await putting
        proxy.refuse(False)


# -- a close() that is cancelled ---------------------------------------------------------------------------


async def test_a_cancelled_close_ends_reconnecting(server: LocalServer, store: ObjectStore) -> None:
    """The connection is lost while close() waits for a put; then close() is cancelled: it stays closed."""
    async with FaultProxy(server.url) as proxy:
        lost = Calls()
        before = asyncio.all_tasks()
        client = await natsproto.connect(proxy.url, disconnected_cb=lost, reconnect_wait=0.02)
        ending = Ending(client, await client.jetstream().object_store(store.bucket), store)
        putting = await ending.start(ending.store.put("a", ending.source()))
        proxy.blackhole()  # what the put wants to clean up is not answered
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)
        proxy.refuse()
        proxy.cut()
        await lost.until(1)
        assert not closing.done()
        assert client.state == "reconnecting"
        async with asyncio.timeout(5):
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        assert client.is_closed
        assert not [t for t in asyncio.all_tasks() - before if t.get_name() == "natsproto-reconnect"]
        proxy.blackhole(False)
        proxy.refuse(False)
        async with asyncio.timeout(5 + 5):
            with pytest.raises((ConnectionClosedError, NatsError)):
                await putting
            await client.close()
        assert client.is_closed
        assert proxy.connections == []


async def test_nobody_connects_a_closed_client(server: LocalServer) -> None:
    """A session that is ready when the client is closed is ended."""
    client = await natsproto.connect(server.url)
    connection = client.connection
    await client.close()
    session = Session(connection, connection.pool.servers[0])
    await session.establish()
    connection._connected(session)
    assert client.is_closed
    assert session.lost is not None
    assert connection.session is None
    assert session.transport is not None
    async with asyncio.timeout(5):
        await session.transport.wait_closed()


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_close_leaves_no_callback(new_server: LocalServer, turns: int) -> None:
    begun = asyncio.Event()

    async def stuck() -> None:
        begun.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    client = await natsproto.connect(new_server.url, closed_cb=stuck)
    closing = asyncio.ensure_future(client.close())
    if turns < 7:
        for _ in range(turns):
            await asyncio.sleep(0)
    else:
        await begun.wait()
    closing.cancel()
    async with asyncio.timeout(4 + 5):
        await asyncio.wait([closing])
    await asyncio.sleep(0)
    if turns:  # before it began there is nothing to end
        assert client.is_closed
        assert asyncio.all_tasks() <= before
    async with asyncio.timeout(4 + 5):
        await client.close()


@pytest.mark.parametrize("first_is", ["cancelled", "under way"])
async def test_close_waits_for_what_another_close_has_begun(
    first_is: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is gone when any of them returns, also where nobody takes what is queued."""
    monkeypatch.setattr("natsproto.aio.session.CLOSE_TIMEOUT", 0.2)
    end = asyncio.Event()

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await end.wait()

    async with ScriptedServer(script) as server:
        client = await natsproto.connect(server.url)
        session = client.connection.session
        assert session is not None
        assert session.transport is not None
        sock = session.transport.get_extra_info("socket")
        while not client.connection.congested:
            client.connection.publish(b"a", bytes(1_000_000))
        first = asyncio.ensure_future(client.close())
        while not client.is_closed:  # noqa: ASYNC110
            await asyncio.sleep(0)
        if first_is == "cancelled":
            first.cancel()
        async with asyncio.timeout(0.2 + 5):
            await client.close()
        assert sock.fileno() == -1
        await asyncio.wait([first])
        end.set()
