"""What a relay has taken may reach the server long after the client has connected again, and gone on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import natsproto
from natsproto.errors import StaleConnectionError
from natsproto.server import LocalServer
from objstore import ObjectStore
from support.objects import CHUNK, assert_exact, pattern

OLD = pattern(2 * CHUNK + 5, 1)
NEW = pattern(40 * CHUNK + 7, 2)


class Relay:
    """Resets the client's side of the first connection, and delivers what it holds when it is told to."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._connections = 0
        self.most = 8 * CHUNK  # bytes that the first connection passes on
        self.resets = True
        self.holding = asyncio.Event()
        self.release = asyncio.Event()
        self.delivered = asyncio.Event()

    async def __aenter__(self) -> Relay:
        self._listener = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._listener.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        first = self._connections == 1
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server.port)
        down = asyncio.ensure_future(self._pass_on(from_server, writer))
        passed = 0
        held: list[bytes] = []
        try:
            while len(held) < 4 and (data := await reader.read(65536)):
                passed += len(data)
                if first and passed > self.most:
                    held.append(data)
                else:
                    to_server.write(data)
            if held:
                self.holding.set()
                if self.resets:
                    writer.transport.abort()
                await self.release.wait()
                to_server.write(b"".join(held))
                await to_server.drain()
        except ConnectionError:
            pass
        finally:
            down.cancel()
            to_server.close()
            writer.close()
            await asyncio.wait([down])
            if held:
                self.delivered.set()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def relay(server: LocalServer, store: ObjectStore) -> AsyncIterator[Relay]:
    await store.put("a", OLD)
    async with Relay(server) as relay:
        yield relay
        relay.release.set()


async def pieces() -> AsyncIterator[bytes]:
    for at in range(0, len(NEW), CHUNK):
        yield NEW[at : at + CHUNK]


async def written(store: ObjectStore, source: Any) -> None:
    async with store.open_writer("a", chunk_size=CHUNK) as writer:
        async for piece in pieces():
            await writer.write(piece)


async def put(store: ObjectStore, source: Any) -> None:
    await store.put("a", source, chunk_size=CHUNK)


async def test_chunks_that_come_after_the_commit(relay: Relay, store: ObjectStore) -> None:
    """They are on a nuid that was given up: the object is the one that was acknowledged."""
    async with natsproto.connect(relay.url, reconnect_wait=0.01) as client:
        through = await client.jetstream().object_store(store.bucket)
        async with asyncio.timeout(20 + 10):
            await put(through, NEW)
        relay.release.set()
        await asyncio.wait_for(relay.delivered.wait(), 10)
        await store.client.flush()
        assert await store.get("a") == NEW
        assert (await store.verify(deep=True)).ok


async def test_what_is_held_back_from_the_first_chunk_on(relay: Relay, store: ObjectStore) -> None:
    """The lifeline's subscription is among it: that nobody listens proves nothing."""
    async with natsproto.connect(relay.url, reconnect_wait=0.01) as client:
        through = await client.jetstream().object_store(store.bucket)
        relay.most = 0
        async with asyncio.timeout(20 + 10):
            await put(through, NEW)
        relay.release.set()
        await asyncio.wait_for(relay.delivered.wait(), 10)
        await store.client.flush()
        assert await store.get("a") == NEW
        assert (await store.verify(deep=True)).ok


async def test_left_by_a_forced_reconnect(
    relay: Relay, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client leaves a connection that still holds its chunks: they are on a nuid that was given up."""
    monkeypatch.setattr("natsproto.aio.session.LEAVE_TIMEOUT", 0.2)
    relay.resets = False
    async with natsproto.connect(relay.url, reconnect_wait=0.01) as client:
        through = await client.jetstream().object_store(store.bucket)
        putting = asyncio.create_task(put(through, NEW))
        await asyncio.wait_for(relay.holding.wait(), 10)
        await client.force_reconnect()
        async with asyncio.timeout(20 + 10):
            await putting
        relay.release.set()
        await asyncio.wait_for(relay.delivered.wait(), 10)
        await store.client.flush()
        assert await store.get("a") == NEW
        assert (await store.verify(deep=True)).ok


@pytest.mark.parametrize("write", [put, written])
async def test_a_source_that_cannot_be_read_again(
    relay: Relay, store: ObjectStore, write: Callable[[ObjectStore, Any], Any]
) -> None:
    """Nothing is acknowledged, and the version before stays."""
    async with natsproto.connect(relay.url, reconnect_wait=0.01) as client:
        through = await client.jetstream().object_store(store.bucket)
        with pytest.raises(StaleConnectionError, match="may still store chunks"):
            async with asyncio.timeout(20 + 10):
                await write(through, pieces())
        relay.release.set()
        await asyncio.wait_for(relay.delivered.wait(), 10)
        assert await store.get("a") == OLD


async def test_a_source_that_pauses_while_the_connection_is_made_again(
    relay: Relay, store: ObjectStore
) -> None:
    """The put learns of the loss with its next chunk, when it has a new session already."""
    async with natsproto.connect(relay.url, reconnect_wait=0.01) as client:
        through = await client.jetstream().object_store(store.bucket)
        await through.put("before", b"x")
        relay.most = 0

        async def source() -> AsyncIterator[bytes]:
            yield NEW[: 20 * CHUNK]
            async with asyncio.timeout(20):
                while client.stats.reconnects == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            yield NEW[20 * CHUNK :]

        with pytest.raises(StaleConnectionError, match="may still store chunks"):
            async with asyncio.timeout(20 + 10):
                await put(through, source())
        relay.release.set()
        await asyncio.wait_for(relay.delivered.wait(), 10)
        assert await store.get("a") == OLD


async def test_a_connection_that_has_ended_costs_no_chunks(relay: Relay, store: ObjectStore) -> None:
    """The server has closed it: the put goes on where it was, on the same nuid."""
    relay.release.set()  # it holds nothing back
    async with natsproto.connect(relay.url, reconnect_wait=0.01) as client:
        through = await client.jetstream().object_store(store.bucket)
        async with asyncio.timeout(20 + 10):
            await put(through, pieces())
    assert await store.get("a") == NEW
    await assert_exact(store)
