"""Slow links and slow readers (rows A13, A17)."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

import natsproto
from natsproto.errors import ConnectionClosedError, SlowConsumerError
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy, ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from natsproto.wire import Sub
from support.calls import Calls
from support.certs import make_certs
from support.waits import held


async def test_a13_only_the_slow_subscription_drops(server: LocalServer) -> None:
    errors = Calls()
    async with natsproto.connect(server.url, error_cb=errors) as nc, natsproto.connect(server.url) as source:
        slow = await nc.subscribe("a", pending_msgs_limit=100)
        small = await nc.subscribe("a", pending_bytes_limit=5000)
        fast = await nc.subscribe("a")
        await nc.flush()
        for n in range(1000):
            await source.publish("a", b"%d" % n + b"x" * 100)
        await source.flush()
        await nc.flush()
        assert (slow.pending_msgs, slow.dropped) == (100, 900)
        assert small.pending_bytes <= 5000
        assert small.dropped == 1000 - small.pending_msgs
        assert (fast.pending_msgs, fast.dropped) == (1000, 0)
        await errors.until(2)
        assert len(errors) == 2, "one report for each episode"
        assert all(isinstance(error, SlowConsumerError) for error in errors.items)
        for n in range(100):
            assert (await slow.next_msg(timeout=10)).data.startswith(b"%d" % n)
        await source.publish("a", b"later")
        assert (await slow.next_msg(timeout=10)).data == b"later"
        assert nc.is_connected


async def test_a13_a_blocked_reader_does_not_block_the_connection(server: LocalServer) -> None:
    async with natsproto.connect(server.url, ping_interval=3.0) as nc:
        await nc.subscribe("a", pending_bytes_limit=1 << 20)
        await nc.flush()
        for _ in range(64):
            await nc.publish("a", bytes(256 * 1024))
        await nc.flush(20)
        assert nc.stats.reconnects == 0


@pytest.mark.parametrize("fault", ["chunk", "rate", "latency"])
async def test_a17_bad_links_work(server: LocalServer, fault: str) -> None:
    async with FaultProxy(server.url) as proxy:
        payload = bytes(range(256)) * 8
        if fault == "chunk":
            proxy.chunk = 1
        elif fault == "rate":
            proxy.rate = 64 * 1024
        else:
            proxy.latency = 0.05
        lost = Calls()
        async with natsproto.connect(proxy.url, disconnected_cb=lost, ping_interval=5.0) as nc:
            sub = await nc.subscribe("s.*", queue="q")
            await nc.publish("s.a", payload, headers={"K": "v"})
            msg = await sub.next_msg(timeout=20)
            assert msg.data == payload
            assert msg.headers is not None
            assert msg.headers["K"] == "v"
            with pytest.raises(natsproto.errors.NoRespondersError):
                await nc.request("nobody")
            await nc.flush()
            await sub.drain()
            assert len(lost) == 0


async def test_a17_large_payloads_split_anyhow(new_server: LocalServer) -> None:
    """Placement of payloads and the fallback to the buffer do not depend on how bytes arrive."""
    async with FaultProxy(new_server.url) as proxy, natsproto.connect(proxy.url) as nc:
        sub = await nc.subscribe("s")
        for chunk, size in [(4093, 300_000), (65_537, 1_000_000), (1, 5000), (7, 20_000)]:
            proxy.chunk = chunk
            payload = bytes(n * 7 & 255 for n in range(size))
            await nc.publish("s", payload)
            await nc.publish("s", b"small")
            assert (await sub.next_msg(timeout=20)).data == payload
            assert (await sub.next_msg(timeout=20)).data == b"small"


async def test_a17_ping_waits_behind_data_on_a_slow_uplink() -> None:
    """256 KiB at 256 KiB/s, and messages are echoed meanwhile: several PING intervals, no false alarm."""
    count = 64

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        for _ in range(count):
            await conn.msg("tick", (await conn.expect("tick")).payload)
        await conn.serve()

    async with ScriptedServer(script) as server, FaultProxy(server.url) as proxy:
        lost = Calls()
        async with natsproto.connect(proxy.url, disconnected_cb=lost, ping_interval=0.2) as nc:
            echo = await nc.subscribe("tick")
            await nc.flush()
            proxy.rate = 256 * 1024
            for n in range(count):
                await nc.publish("tick", b"%d" % n)
                await nc.publish("bulk", bytes(4096))
            for n in range(count):
                assert (await echo.next_msg(timeout=10)).data == b"%d" % n
            await nc.flush()
            assert len(lost) == 0


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_a6_one_direction_that_stands_still(
    new_server: LocalServer, tmp_path: Path, scheme: str
) -> None:
    """Nothing is taken any more while bytes still come: whoever waits for room does not wait for ever."""
    certs = make_certs(tmp_path)
    config = (
        "" if scheme == "nats" else f'tls {{ cert_file: "{certs.cert_file}", key_file: "{certs.key_file}" }}'
    )
    context = None if scheme == "nats" else ssl.create_default_context(cafile=certs.ca_file)
    async with LocalServer(binary=new_server.binary.path, jetstream=False, config=config) as own:
        stalled = asyncio.Event()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", own.port)

            async def down() -> None:
                while data := await up_reader.read(65536):
                    writer.write(data)

            downwards = asyncio.ensure_future(down())
            while not stalled.is_set() and (data := await reader.read(4096)):
                up_writer.write(data)
            await stopped.wait()
            downwards.cancel()
            up_writer.transport.abort()
            writer.transport.abort()

        stopped = asyncio.Event()
        listening = await asyncio.start_server(relay, "127.0.0.1", 0, limit=4096)
        port = listening.sockets[0].getsockname()[1]
        lost = Calls()
        nc = await natsproto.connect(
            f"{scheme}://localhost:{port}", tls=context, ping_interval=0.5, reconnect=False, error_cb=lost
        )
        try:
            async with natsproto.connect(f"{scheme}://localhost:{own.port}", tls=context) as source:
                await nc.subscribe("tick")
                await nc.flush()

                async def tick() -> None:
                    while nc.is_connected:
                        await source.publish("tick", b".")
                        await source.flush()
                        await held(0.01)

                ticking = asyncio.ensure_future(tick())
                stalled.set()
                payload = bytes(1_000_000)
                with pytest.raises(ConnectionClosedError, match="takes nothing"):
                    async with asyncio.timeout(1.5 + 5):
                        while True:
                            await nc.publish("bulk", payload)
                await ticking
                assert nc.connection.silent_sessions == 1
        finally:
            stopped.set()
            await nc.close()
            listening.close()
