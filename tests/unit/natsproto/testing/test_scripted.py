"""``ScriptedServer``, driven by raw sockets and by another library's client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from natsproto.errors import RemoteProtocolError
from natsproto.testing import PeerGoneError, ScriptedConnection, ScriptedServer, ScriptError
from natsproto.wire import PING_EVENT, Connect, Ping, Pub, Sub, ping
from support.certs import make_certs
from support.leaks import no_task_left

nothing_left = pytest.fixture(autouse=True)(no_task_left)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def dial(port: int) -> AsyncIterator[Streams]:
    """A bare client."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def test_a_client_connects_and_gets_an_answer() -> None:
    async def script(conn: ScriptedConnection) -> None:
        options = await conn.handshake(max_payload=99)
        assert options["lang"] == "python3"
        await conn.expect(Sub)
        request = await conn.expect("service.>")
        await conn.msg(request.reply.decode(), b"answer to " + bytes(request.payload))
        await conn.serve()

    async with ScriptedServer(script) as server:
        nc = await nats.connect(server.url, connect_timeout=10)
        assert nc.max_payload == 99
        assert (await nc.request("service.x", b"q", timeout=5)).data == b"answer to q"
        await nc.close()
        await server.finished()
        assert [type(event) for event in server.connections[0].received[:2]] == [Connect, Ping]


async def test_without_a_script_it_is_a_polite_server() -> None:
    async with ScriptedServer() as server:
        nc = await nats.connect(server.url, connect_timeout=10)
        await nc.flush(5)
        await nc.close()


async def test_one_script_per_connection_and_the_last_for_all_others() -> None:
    async def first(conn: ScriptedConnection) -> None:
        await conn.send(b"first")

    async def others(conn: ScriptedConnection) -> None:
        await conn.send(b"number %d" % conn.number)

    async with ScriptedServer(first, others) as server:
        for expected in (b"first", b"number 1", b"number 2"):
            async with dial(server.port) as (reader, _):
                assert await reader.read() == expected
        assert [conn.number for conn in server.connections] == [0, 1, 2]
        assert await server.connection(2) is server.connections[2]
        await server.finished(3)


async def test_expect() -> None:
    async def script(conn: ScriptedConnection) -> None:
        assert await conn.expect(PING_EVENT) == PING_EVENT
        first = await conn.expect(lambda event: isinstance(event, Pub) and event.payload == b"2")
        assert first.subject == b"a.2"
        assert (await conn.expect(b"b.*")).payload == b"3"
        assert (await conn.expect("odd\x00..subject")).payload == b""
        assert isinstance(await conn.expect(), Sub)
        assert isinstance(await conn.expect(Pub, strict=True), Pub)
        with pytest.raises(ScriptError, match="expected Sub, got Ping"):
            await conn.expect(Sub, strict=True)
        await conn.pong()
        await conn.expect_eof()
        assert len(conn.received) == 9

    async with ScriptedServer(script) as server, dial(server.port) as (reader, writer):
        writer.write(b"PING\r\nPUB a.1 1\r\n1\r\nPING\r\nPUB a.2 1\r\n2\r\nPUB b.3 1\r\n3\r\n")
        writer.write(b"PUB odd\x00..subject 0\r\n\r\nSUB s 1\r\nPUB x 0\r\n\r\nPING\r\n")
        assert await reader.readexactly(12) == b"PONG\r\nPONG\r\n"  # for the second and the third PING
        writer.write_eof()
        await server.finished()


async def test_expect_has_a_bound_and_tells_what_came_instead() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.expect("ready")  # what follows has come with it
        await conn.expect("wanted", timeout=0.05)

    async with ScriptedServer(script) as server, dial(server.port) as (_, writer):
        writer.write(b"PUB ready 0\r\n\r\nPUB other 0\r\n\r\n")
        with pytest.raises(ScriptError, match=r"'wanted' within 0.05 s, got \[Pub\(.*other"):
            await server.finished()


async def test_a_failing_script_fails_the_block() -> None:
    async def script(conn: ScriptedConnection) -> None:
        raise KeyError("bug in the script")

    with pytest.raises(KeyError, match="bug in the script"):
        async with ScriptedServer(script) as server, dial(server.port) as (reader, _):
            assert await reader.read() == b""


async def test_a_failing_test_is_not_masked_by_a_failing_script() -> None:
    async def script(conn: ScriptedConnection) -> None:
        raise KeyError("bug in the script")

    async def test() -> None:
        async with ScriptedServer(script) as server, dial(server.port) as (reader, _):
            assert await reader.read() == b""
            raise RuntimeError("the test itself")

    with pytest.raises(RuntimeError, match="the test itself") as caught:
        await test()
    assert "bug in the script" in caught.value.__notes__[0]


async def test_a_client_that_goes_away_is_no_failure_unless_asked() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.expect(Pub)

    async with ScriptedServer(script) as server:
        async with dial(server.port) as (_, writer):
            writer.write_eof()
            with pytest.raises(PeerGoneError, match="before Pub"):
                await server.finished()
        async with dial(server.port):
            await server.connection(1)


async def test_waits_of_the_server_have_bounds() -> None:
    async with ScriptedServer(timeout=0.05) as server:
        with pytest.raises(ScriptError, match=r"no connection 0 within 0\.05 s"):
            await server.connection()
        with pytest.raises(ScriptError, match="no end of"):
            await server.finished()
    with pytest.raises(ScriptError, match="'async with' block"):
        _ = ScriptedServer().url


async def test_a_client_that_breaks_the_protocol() -> None:
    async def script(conn: ScriptedConnection) -> None:
        assert (await conn.expect(Pub)).subject == b"good"
        with pytest.raises(RemoteProtocolError) as caught:
            await conn.expect(Pub)
        assert caught.value.position == 14
        with pytest.raises(RemoteProtocolError):
            await conn.expect(Pub)

    async with ScriptedServer(script) as server, dial(server.port) as (_, writer):
        writer.write(b"PUB good 0\r\n\r\nNONSENSE\r\n")
        await server.finished()


async def test_bytes_go_out_as_they_are_and_in_pieces() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.send(b"-ERR broken\n", ping(), [b"x", memoryview(b"y")], chunk=1)
        await conn.err("Stale Connection")
        await conn.ping()
        await conn.info(version="2.9.10", jetstream=None)

    async with ScriptedServer(script) as server, dial(server.port) as (reader, _):
        sent = await reader.read()
    assert sent.startswith(b"-ERR broken\nPING\r\nxy-ERR 'Stale Connection'\r\nPING\r\nINFO {")
    assert b'"version":"2.9.10"' in sent
    assert b"jetstream" not in sent


async def test_a_stalled_client_is_noticed() -> None:
    async def script(conn: ScriptedConnection) -> None:
        with pytest.raises(TimeoutError):
            await conn.send(bytes(32 << 20))

    async with ScriptedServer(script, timeout=0.2) as server, dial(server.port) as (reader, _):
        await server.finished(timeout=20)
        del reader


async def test_subscriptions_are_remembered() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.expect(Ping)
        await conn.msg("a.b", b"1")
        await conn.msg("x.y", b"2", reply="r", header=b"NATS/1.0\r\n\r\n")
        await conn.msg("unknown", sid=9)
        with pytest.raises(ScriptError, match="no subscription"):
            await conn.msg("gone")

    async with ScriptedServer(script) as server, dial(server.port) as (reader, writer):
        writer.write(b"SUB a.* 1\r\nSUB x.> q 2\r\nSUB gone 3\r\nUNSUB 3\r\nPING\r\n")
        sent = await reader.read()
        await server.finished()
    expected = b"MSG a.b 1 1\r\n1\r\nHMSG x.y 2 r 12 13\r\nNATS/1.0\r\n\r\n2\r\nMSG unknown 9 0\r\n\r\n"
    assert sent == expected


async def test_ways_to_end_a_connection() -> None:
    async def resets(conn: ScriptedConnection) -> None:
        conn.abort()

    async def half_closes(conn: ScriptedConnection) -> None:
        conn.half_close()
        await conn.expect("after")

    async with ScriptedServer(resets, half_closes) as server:
        async with dial(server.port) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        async with dial(server.port) as (reader, writer):
            assert await reader.read() == b""
            writer.write(b"PUB after 0\r\n\r\n")
            await server.finished(2)


async def test_refuse() -> None:
    async with ScriptedServer() as server:
        server.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        server.refuse(False)
        async with dial(server.port) as (reader, _):
            assert (await reader.readline()).startswith(b"INFO ")


async def test_tls(tmp_path: Path) -> None:
    certs = make_certs(tmp_path)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certs.cert_file, certs.key_file)

    async def script(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True)
        await conn.start_tls(server_context)
        await conn.expect(Connect)
        await conn.expect(Ping)
        await conn.pong()
        await conn.serve()

    async def garbage(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True)
        await conn.send(b"this is no TLS record")

    async with ScriptedServer(script, garbage) as server:
        context = ssl.create_default_context(cafile=certs.ca_file)
        nc = await nats.connect(server.url, tls=context, tls_hostname="localhost")
        await nc.flush(5)
        await nc.close()
        async with dial(server.port) as (reader, writer):
            await reader.readline()
            with pytest.raises(OSError):  # an SSLError, or the end that came with the garbage
                await writer.start_tls(context, server_hostname="localhost")
