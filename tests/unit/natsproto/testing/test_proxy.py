"""``FaultProxy`` between scripted or real servers and raw sockets or another library's client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from natsproto.errors import ConfigError
from natsproto.server import LocalServer
from natsproto.testing import (
    CUT,
    DROP,
    DUPLICATE,
    HOLD,
    Action,
    FaultProxy,
    ScriptedConnection,
    ScriptedServer,
    corrupt,
    cut_after,
    delay,
)
from natsproto.wire import Err, Event, Info, Msg, Ping, Pong, Pub, Sub
from support.certs import make_certs
from support.leaks import no_task_left

nothing_left = pytest.fixture(autouse=True)(no_task_left)


class Wire:
    """A bare client of a proxy, and what reaches the server behind it."""

    def __init__(self, proxy: FaultProxy, conn: ScriptedConnection, streams: Any) -> None:
        self.proxy = proxy
        self.conn = conn
        self.reader: asyncio.StreamReader = streams[0]
        self.writer: asyncio.StreamWriter = streams[1]
        self.from_client: asyncio.StreamReader = conn._reader

    async def at_server(self, size: int) -> bytes:
        return await self.from_client.readexactly(size)


@asynccontextmanager
async def wired(setup: Callable[[FaultProxy], None] = lambda proxy: None) -> AsyncIterator[Wire]:
    """A client, a proxy and a server that does nothing of its own."""
    done = asyncio.Event()

    async def script(conn: ScriptedConnection) -> None:
        await done.wait()

    async with asyncio.timeout(10), ScriptedServer(script) as server, FaultProxy(server.url) as proxy:
        setup(proxy)
        streams = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            yield Wire(proxy, await server.connection(), streams)
        finally:
            streams[1].transport.abort()
            done.set()


FRAMES = [
    b'CONNECT {"verbose":false} \r\n',
    b"pub  odd\x00.>\tr 3 \r\n\r\n\n\r\n",
    b"PING\r\n",
    b"HPUB h 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
    b"SUB a.* q 7\r\n",
    b"UNSUB 7 5\r\n",
    b"PUB big 200000\r\n" + bytes(200000) + b"\r\n",
    b"PONG\r\n",
]


def numbered(*actions: Any) -> Callable[[Event, bytes], Any]:
    """A hook that gives the n-th PUB the n-th action; the rest passes."""
    left = list(actions)
    return lambda event, raw: left.pop(0) if left and isinstance(event, (Pub, Msg)) else None


def pubs(count: int) -> list[bytes]:
    return [b"PUB s 1\r\n%d\r\n" % n for n in range(count)]


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("step", [1 << 20, 1000])
async def test_every_byte_passes_unchanged_and_frames_are_shown(hooked: bool, step: int) -> None:
    seen: list[bytes] = []

    def hook(event: Event, raw: bytes) -> None:
        seen.append(raw)

    stream = b"".join(FRAMES)
    async with wired() as wire:
        if hooked:
            wire.proxy.to_server = hook
        for start in range(0, len(stream), step):
            wire.writer.write(stream[start : start + step])
            await wire.writer.drain()
            await asyncio.sleep(0)
        assert await wire.at_server(len(stream)) == stream
        assert wire.proxy.bytes_to_server == len(stream)
    assert seen == (FRAMES if hooked else [])


async def test_towards_the_client() -> None:
    seen: list[Event] = []
    stream = (
        b'INFO {"server_id":"x"} \r\nMSG s 1 r 2\r\n\r\n\r\n'
        b"HMSG s 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n+OK\r\n-ERR 'x'\r\nPING\r\n"
    )
    async with wired() as wire:
        wire.proxy.to_client = lambda event, raw: seen.append(event)
        await wire.conn.send(stream, chunk=7)
        assert await wire.reader.readexactly(len(stream)) == stream
        assert wire.proxy.bytes_to_client == len(stream)
    assert [type(event).__name__ for event in seen] == ["Info", "Msg", "Msg", "Ok", "Err", "Ping"]


ACTIONS: list[tuple[list[Any], bytes]] = [
    ([DROP], b"123"),
    ([b""], b"123"),
    ([[]], b"123"),
    ([DUPLICATE, None, DROP], b"0013"),
    ([[b"PUB s 1\r\nx\r\n", bytearray(b"PUB s 1\r\ny\r\n")]], b"xy123"),
    ([b"PUB s 1\r\nz\r\n"], b"z123"),
    ([corrupt()], b"1123"),
    ([corrupt(9)], b"1123"),
    ([corrupt(10**6)], b"0123"),
]


@pytest.mark.parametrize(("actions", "expected"), ACTIONS, ids=str)
async def test_actions(actions: list[Any], expected: bytes) -> None:
    async with wired() as wire:
        wire.proxy.to_server = numbered(*actions)
        wire.writer.write(b"".join(pubs(4)) + b"PING\r\n")
        payloads = bytearray()
        while isinstance(event := await wire.conn.expect(), Pub):
            payloads += event.payload
    assert bytes(payloads) == expected


async def test_corrupt_without_a_payload_changes_nothing() -> None:
    async with wired() as wire:
        wire.proxy.to_server = lambda event, raw: corrupt()
        wire.writer.write(b"PING\r\nPUB s 3\r\nabc\r\n")
        assert await wire.at_server(20) == b"PING\r\nPUB s 3\r\nacc\r\n"
        wire.proxy.to_server = lambda event, raw: corrupt(-3)
        wire.writer.write(b"PING\r\n")
        assert await wire.at_server(6) == b"PINF\r\n"


async def test_hold_and_release() -> None:
    async with wired() as wire:
        wire.proxy.to_server = numbered(HOLD, HOLD, None)
        first, second, third = pubs(3)
        wire.writer.write(first + second + third)
        assert await wire.at_server(len(third)) == third
        assert wire.proxy.held == 2
        assert wire.proxy.release(reverse=True) == 2
        assert await wire.at_server(2 * len(third)) == second + first
        assert wire.proxy.release() == 0


async def test_delayed_frames_are_overtaken() -> None:
    async with wired() as wire:
        wire.proxy.to_server = numbered(delay(0.02), None)
        first, second = pubs(2)
        wire.writer.write(first + second)
        assert await wire.at_server(2 * len(first)) == second + first


async def test_a_coroutine_as_hook_keeps_the_order() -> None:
    gate = asyncio.Event()
    waiting = asyncio.Event()

    async def hook(event: Event, raw: bytes) -> Action | None:
        waiting.set()
        await gate.wait()
        return None

    async with wired() as wire:
        wire.proxy.to_server = hook
        stream = b"".join(pubs(3))
        wire.writer.write(stream)
        await waiting.wait()
        assert wire.proxy.bytes_to_server == 0
        gate.set()
        assert await wire.at_server(len(stream)) == stream


@pytest.mark.parametrize("size", range(13))
async def test_cut_inside_of_a_frame(size: int) -> None:
    async with wired() as wire:
        wire.proxy.to_server = numbered(None, cut_after(size) if size else CUT)
        first, second = pubs(2)
        wire.writer.write(first + second)
        got = bytearray()
        try:
            while data := await wire.from_client.read(1):
                got += data
            pytest.fail("EOF where a reset was to come")
        except ConnectionResetError:
            pass
        with pytest.raises(ConnectionResetError):
            await wire.reader.read()
        await wire.proxy.wait_until(lambda: not wire.proxy.connections)
        # What was under way when a reset comes may be lost, but nothing else may come.
        assert (first + second[:size]).startswith(got)


async def test_hooks_set_and_taken_away_inside_of_a_frame() -> None:
    seen: list[bytes] = []
    first, second, third = pubs(3)
    async with wired() as wire:
        proxy = wire.proxy
        wire.writer.write(first[:5])
        assert await wire.at_server(5) == first[:5]
        proxy.to_server = lambda event, raw: seen.append(raw)
        wire.writer.write(first[5:] + second + third[:4])
        assert await wire.at_server(len(first) - 5 + len(second)) == first[5:] + second
        proxy.to_server = None
        wire.writer.write(third[4:])
        assert await wire.at_server(len(third)) == third
    assert seen == [second]


async def test_a_failing_hook_passes_the_frame_and_fails_the_block() -> None:
    def hook(event: Event, raw: bytes) -> None:
        raise KeyError("bug in the hook")

    async def test() -> None:
        async with ScriptedServer() as server, FaultProxy(server.url) as proxy:
            proxy.to_client = hook
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert (await reader.readline()).startswith(b"INFO")
            writer.transport.abort()

    with pytest.raises(KeyError, match="bug in the hook"):
        await test()


@pytest.mark.parametrize("hooked", [False, True])
async def test_what_is_not_nats_passes(hooked: bool) -> None:
    async with wired() as wire:
        if hooked:
            wire.proxy.to_server = lambda event, raw: None
        wire.writer.write(b"PING\r\nNONSENSE\r\nPI")
        assert await wire.at_server(18) == b"PING\r\nNONSENSE\r\nPI"
        wire.writer.write(b"\x16\x03")
        assert await wire.at_server(2) == b"\x16\x03"


async def test_an_unfinished_frame_passes_at_the_end() -> None:
    async with wired() as wire:
        wire.proxy.to_server = lambda event, raw: None
        wire.writer.write(b"PING\r\nPUB s 5\r\nab")
        wire.writer.write_eof()
        assert await wire.from_client.read() == b"PING\r\nPUB s 5\r\nab"


async def test_cut() -> None:
    async with wired() as wire:
        wire.proxy.cut()
        with pytest.raises(ConnectionResetError):
            await wire.reader.read()
        with pytest.raises(ConnectionResetError):
            await wire.from_client.read()
        await wire.proxy.wait_until(lambda: not wire.proxy.connections)


async def test_fin_to_one_side_leaves_the_other_open() -> None:
    async with wired() as wire:
        wire.proxy.fin("client")
        assert await wire.reader.read() == b""
        wire.writer.write(b"PING\r\n")
        assert await wire.at_server(6) == b"PING\r\n"
        wire.proxy.fin("server")
        assert await wire.from_client.read() == b""
        await wire.proxy.wait_until(lambda: not wire.proxy.connections)


async def test_fin_to_both() -> None:
    async with wired() as wire:
        wire.writer.write(b"PING\r\n")
        assert await wire.at_server(6) == b"PING\r\n"
        wire.proxy.fin()
        assert (await wire.reader.read(), await wire.from_client.read()) == (b"", b"")


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_reset_is_passed_on(who: str) -> None:
    async with wired() as wire:
        wire.writer.write(b"PING\r\n")
        assert await wire.at_server(6) == b"PING\r\n"
        if who == "server":
            wire.conn.abort()
            other = wire.reader
        else:
            from natsproto.testing.listener import reset

            reset(wire.writer)
            other = wire.from_client
        with pytest.raises(ConnectionResetError):
            await other.read()


async def test_blackhole() -> None:
    async with wired() as wire:
        proxy = wire.proxy
        proxy.blackhole()
        wire.writer.write(b"PING\r\n")
        await wire.conn.send(b"PONG\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.wait_until(lambda: proxy.accepted == 2)
        assert (proxy.bytes_to_server, proxy.bytes_to_client) == (0, 0)
        proxy.blackhole(False, side="server")
        assert await wire.at_server(6) == b"PING\r\n"
        assert proxy.bytes_to_client == 0
        proxy.blackhole(False)
        assert await wire.reader.readexactly(6) == b"PONG\r\n"
        proxy.connections[1].reset()
        await proxy.wait_until(lambda: len(proxy.connections) == 1)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.transport.abort()


async def test_cut_inside_of_a_blackhole() -> None:
    async with wired() as wire:
        proxy = wire.proxy
        proxy.blackhole()
        wire.writer.write(b"PING\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.wait_until(lambda: proxy.accepted == 2)
        proxy.cut()
        await proxy.wait_until(lambda: not proxy.connections)
        for cut in (reader, wire.reader):
            with pytest.raises(ConnectionResetError):
                await cut.read()
        writer.transport.abort()


async def test_pieces_rate_and_latency() -> None:
    def slow(proxy: FaultProxy) -> None:
        proxy.chunk, proxy.rate, proxy.latency = 3, 20000, 0.01

    stream = b"".join(pubs(100))
    async with wired(slow) as wire:
        loop = asyncio.get_running_loop()
        start = loop.time()
        wire.writer.write(stream)
        assert await wire.at_server(len(stream)) == stream
        assert loop.time() - start >= 0.01 + len(stream) / 20000 - 0.005


async def test_chunks_arrive_one_by_one() -> None:
    async with wired(lambda proxy: setattr(proxy, "chunk", 1)) as wire:
        wire.writer.write(b"PING\r\n")
        got = [await wire.from_client.read(10)]
        while sum(map(len, got)) < 6:
            got.append(await wire.from_client.read(10))
        assert b"".join(got) == b"PING\r\n"
        assert len(got) > 1


async def test_a_slow_receiver_stops_the_sender() -> None:
    async with wired() as wire:
        wire.writer.write(b"PING\r\n")
        assert await wire.at_server(6) == b"PING\r\n"
        wire.proxy.blackhole(side="server")
        wire.writer.write(bytes(64 << 20))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await wire.writer.drain()
        direction = wire.proxy.connections[0]._directions["server"]
        assert direction._pending < 2 << 20


async def test_inject() -> None:
    async with wired() as wire:
        wire.writer.write(b"PING\r\n")
        assert await wire.at_server(6) == b"PING\r\n"
        wire.proxy.connections[0].inject("client", b"-ERR 'x'\r\n")
        wire.proxy.connections[0].inject("server", b"PONG\r\n")
        assert await wire.reader.readexactly(10) == b"-ERR 'x'\r\n"
        assert await wire.at_server(6) == b"PONG\r\n"


async def test_refuse_and_a_dead_target() -> None:
    async with ScriptedServer() as server, FaultProxy(server.url) as proxy:
        port = proxy.port
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        proxy.refuse(False)
        assert proxy.port == port
        server.refuse()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.transport.abort()
        async with ScriptedServer() as other:
            proxy.target = other.url
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert (await reader.readline()).startswith(b"INFO")
            writer.transport.abort()
        assert proxy.accepted == 2


async def test_urls_and_misuse() -> None:
    async with FaultProxy("tls://joe:pw@127.0.0.1:1") as proxy:
        assert proxy.url == f"tls://joe:pw@127.0.0.1:{proxy.port}"
        with pytest.raises(TimeoutError):
            await proxy.wait_until(lambda: False, timeout=0.01)
    with pytest.raises(ConfigError):
        FaultProxy("nats://")
    with pytest.raises(ConfigError, match="'async with' block"):
        _ = FaultProxy("127.0.0.1").url


# --- a real server --------------------------------------------------------------------------------


async def echo(url: str, work: Callable[[nats.NATS], Awaitable[None]], **options: Any) -> None:
    nc = await nats.connect(url, connect_timeout=10, **options)
    try:
        await work(nc)
    finally:
        await nc.close()


async def test_a_real_session(server: LocalServer) -> None:
    seen: set[type] = set()

    async def work(nc: nats.NATS) -> None:
        messages = await nc.subscribe("t.>")
        for n in range(50):
            await nc.publish("t.x", bytes(n * 1000), headers={"n": str(n)})
        for n in range(50):
            msg = await messages.next_msg(5)
            assert msg.headers == {"n": str(n)}
            assert msg.data == bytes(n * 1000)

    async with FaultProxy(server.url) as proxy:
        proxy.to_server = proxy.to_client = lambda event, raw: seen.add(type(event))
        await echo(proxy.url, work)
        proxy.chunk = 100
        await echo(proxy.url, work)
        await proxy.wait_until(lambda: not proxy.connections)
        assert proxy.accepted == 2
    assert {Pub, Sub, Msg, Info, Ping, Pong} <= seen
    assert Err not in seen


async def test_through_tls(tmp_path: Path) -> None:
    certs = make_certs(tmp_path)
    context = ssl.create_default_context(cafile=certs.ca_file)

    async def work(nc: nats.NATS) -> None:
        await nc.publish("t", bytes(100_000))
        await nc.flush(5)

    tls = {"cert_file": certs.cert_file, "key_file": certs.key_file}
    async with LocalServer(tls=tls) as server, FaultProxy(server.url) as proxy:
        kinds = []
        proxy.to_server = proxy.to_client = lambda event, raw: kinds.append(type(event))
        await echo(proxy.url, work, tls=context, tls_hostname="localhost")
        assert kinds == [Info]
