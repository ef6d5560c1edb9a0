"""NATS over WebSocket: against real servers, and against peers that frame as no real one does."""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.aio import liveness as liveness_module
from natsproto.aio.connection import Connection
from natsproto.aio.options import Options
from natsproto.aio.server_pool import parse_url
from natsproto.errors import (
    MissingExtraError,
    NatsError,
    NoRespondersError,
    RequestTimeoutError,
    SecureConnectionRequiredError,
)
from natsproto.server import LocalServer
from natsproto.transport import TransportKind
from support.calls import Calls
from support.certs import make_certs
from support.clock import Clock
from support.fake_session import turns
from support.sockets import reserved_port
from support.waits import eventually

websockets = pytest.importorskip("websockets")
from websockets.frames import Opcode  # noqa: E402
from websockets.server import ServerProtocol  # noqa: E402


def port_of(server: LocalServer) -> int:
    found = re.search(r"Listening for websocket clients on wss?://[^:]+:(\d+)", server.log(200))
    assert found is not None, server.log(50)
    return int(found[1])


@pytest.fixture
async def ws_server(server: LocalServer) -> AsyncIterator[LocalServer]:
    config = "websocket { port: -1, no_tls: true }"
    async with LocalServer(binary=server.binary.path, config=config) as own:
        yield own


async def test_real_server(ws_server: LocalServer) -> None:
    async with natsproto.connect(f"ws://127.0.0.1:{port_of(ws_server)}") as nc:
        sub = await nc.subscribe("s.>")
        payloads = [b"", b"x", b"\r\n", bytes(range(256)) * 4, bytes(200_000), bytes(1_000_000)]
        for payload in payloads:
            await nc.publish("s.a", payload, headers={"K": "v"})
        for payload in payloads:
            assert (await sub.next_msg(timeout=10)).data == payload
        with pytest.raises(NoRespondersError):
            await nc.request("nobody")
        await nc.flush()
        store = await nc.jetstream().create_object_store(bucket="over-ws")
        await store.put("a", bytes(700_000))
        assert await store.get("a") == bytes(700_000)


async def test_real_server_restart(ws_server: LocalServer) -> None:
    with reserved_port() as port:
        await restarted(ws_server.binary.path, f"websocket {{ port: {port}, no_tls: true }}")


async def restarted(binary: str, config: str) -> None:
    async with LocalServer(binary=binary, jetstream=False, config=config) as own:
        lost, back = Calls(), Calls()
        async with natsproto.connect(
            f"ws://127.0.0.1:{port_of(own)}", disconnected_cb=lost, reconnected_cb=back, reconnect_wait=0.02
        ) as nc:
            sub = await nc.subscribe("s")
            await nc.flush()
            own.kill()
            await lost.until(1)
            await nc.publish("s", b"kept")
            own.start()
            await back.until(1)
            assert (await sub.next_msg(timeout=10)).data == b"kept"


async def test_wss(server: LocalServer, tmp_path: Path) -> None:
    certs = make_certs(tmp_path)
    config = (
        f'websocket {{ port: -1, tls {{ cert_file: "{certs.cert_file}", key_file: "{certs.key_file}" }} }}'
    )
    async with LocalServer(binary=server.binary.path, jetstream=False, config=config) as own:
        context = ssl.create_default_context(cafile=certs.ca_file)
        port = port_of(own)
        for url in (f"wss://localhost:{port}", f"ws://localhost:{port}"):
            async with natsproto.connect(url, tls=context) as nc:
                await nc.flush()
        with pytest.raises(NatsError, match="certificate"):
            await natsproto.connect(f"wss://localhost:{port}")


# -- peers that frame as they like ---------------------------------------------------------------------

Script = Callable[["Peer"], Awaitable[None]]
INFO = b'INFO {"server_id":"x","headers":true,"max_payload":1000}\r\n'


class Peer:
    """A WebSocket server by script."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.protocol = ServerProtocol()
        self.reader, self.writer = reader, writer
        self.events: list[object] = []
        self.received = b""

    def send(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.writer.write(data)

    async def event(self) -> object:
        while not self.events:
            async with asyncio.timeout(30):
                data = await self.reader.read(65536)
            if not data:
                raise ConnectionError
            self.protocol.receive_data(data)
            self.send()
            self.events += self.protocol.events_received()
        return self.events.pop(0)

    async def until(self, what: bytes) -> None:
        while what not in self.received:
            event = await self.event()
            self.received += bytes(getattr(event, "data", b""))
        self.received = self.received.partition(what)[2]

    async def opened(self) -> None:
        self.request = await self.event()
        self.protocol.send_response(self.protocol.accept(self.request))  # type: ignore[arg-type]
        self.send()

    def binary(self, data: bytes, *, fin: bool = True) -> None:
        self.protocol.send_binary(data, fin)
        self.send()

    async def handshake(self, info: bytes = INFO) -> None:
        await self.opened()
        self.binary(info)
        await self.until(b"PING\r\n")
        self.binary(b"PONG\r\n")

    async def serve(self) -> None:
        try:
            while True:
                await self.until(b"PING\r\n")
                self.binary(b"PONG\r\n")
        except ConnectionError:
            return


class PeerServer:
    """Listens; runs the scripts in order, the last one for all further connections."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.count = 0
        self.errors: list[BaseException] = []

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[min(self.count, len(self.scripts) - 1)]
        self.count += 1
        try:
            await script(Peer(reader, writer))
        except ConnectionError:
            pass
        except Exception as exc:
            self.errors.append(exc)
        finally:
            writer.transport.abort()

    async def __aenter__(self) -> PeerServer:
        self.server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.server.close()
        assert self.errors == []


async def plain(peer: Peer) -> None:
    await peer.handshake()
    await peer.serve()


async def test_frames_split_and_merged_anyhow() -> None:
    async def script(peer: Peer) -> None:
        await peer.opened()
        for n, byte in enumerate(INFO):
            peer.binary(bytes([byte])) if n % 2 else peer.binary(b"")
            if not n % 2:
                peer.binary(bytes([byte]))
        await peer.until(b"PING\r\n")
        peer.binary(b"PO", fin=False)
        peer.protocol.send_ping(b"between")
        peer.protocol.send_continuation(b"NG", fin=False)
        peer.protocol.send_continuation(b"\r\n", fin=True)
        peer.send()
        await peer.until(b"SUB s 1\r\n")
        peer.binary(b"MSG s 1 3\r\nabc\r\nMSG s 1 3\r\nde")
        peer.binary(b"f\r\nMSG s 1 0\r\n\r\n")
        await peer.serve()

    async with PeerServer(script) as server, natsproto.connect(server.url) as nc:
        sub = await nc.subscribe("s")
        assert [(await sub.next_msg(timeout=10)).data for _ in range(3)] == [b"abc", b"def", b""]
        await nc.flush()


async def test_announced_servers_get_the_path_and_the_headers() -> None:
    """They are behind the same proxy, and INFO has no paths."""
    requests: list[Any] = []
    back = Calls()

    async def second(peer: Peer) -> None:
        await peer.handshake()
        requests.append(peer.request)
        await peer.serve()

    async with PeerServer(second) as other:
        address = other.url.removeprefix("ws://")

        async def first(peer: Peer) -> None:
            await peer.handshake(INFO.replace(b"{", b'{"ws_connect_urls":["%b"],' % address.encode()))
            requests.append(peer.request)
            await peer.until(b"go")

        async with (
            PeerServer(first) as server,
            natsproto.connect(
                f"{server.url}/a/path",
                ws_connection_headers={"X": ["1", "2"]},
                reconnected_cb=back,
                randomize=False,
            ) as nc,
        ):
            assert nc.discovered_servers == [f"{other.url}/a/path"]
            await nc.publish("go")
            await back.until(1)
            assert nc.connected_url == f"{other.url}/a/path"
    assert [request.path for request in requests] == ["/a/path"] * 2
    assert [request.headers.get_all("X") for request in requests] == [["1", "2"]] * 2


async def test_pings_are_answered() -> None:
    async def script(peer: Peer) -> None:
        await peer.handshake()
        peer.protocol.send_ping(b"are you there")
        peer.send()
        while getattr(event := await peer.event(), "opcode", None) is not Opcode.PONG:
            pass
        assert bytes(event.data) == b"are you there"  # type: ignore[attr-defined]
        peer.binary(b"MSG s 1 2\r\nok\r\n")
        await peer.serve()

    async with PeerServer(script) as server, natsproto.connect(server.url) as nc:
        sub = await nc.subscribe("s")
        assert (await sub.next_msg(timeout=10)).data == b"ok"


@pytest.mark.parametrize("transport", ["buffered", "streams"])
@pytest.mark.parametrize("means", ["ping", "probe"])
async def test_a17_a_large_frame_on_a_slow_link_is_no_silence(means: str, transport: TransportKind) -> None:
    """Its messages are delivered as they come, and show that the server is alive."""
    messages = [b"MSG s 1 1000\r\n%b\r\n" % bytes([n] * 1000) for n in range(10)]
    more = asyncio.Semaphore(0)

    async def script(peer: Peer) -> None:
        await peer.handshake()
        await peer.until(b"SUB s 1\r\n")
        if means == "probe":
            await peer.until(b"no.answer")
        size = sum(map(len, messages)) + len(b"PONG\r\n")
        peer.writer.write(b"\x82\x7e" + size.to_bytes(2, "big"))
        for message in messages:  # no PONG to whatever is asked
            await more.acquire()
            peer.writer.write(message)
        peer.writer.write(b"PONG\r\n")
        while True:
            await peer.event()

    async with PeerServer(script) as server:
        lost, clock = Calls(), Clock()
        interval, wait = (5, 5) if means == "ping" else (1000, liveness_module.PROBE_TIMEOUT)
        async with natsproto.connect(
            server.url, ping_interval=interval, disconnected_cb=lost, transport=transport
        ) as nc:
            sub = await nc.subscribe("s")
            if means == "probe":
                with pytest.raises(RequestTimeoutError):
                    await nc.request("no.answer", timeout=0.05)
            for n in range(len(messages)):
                more.release()
                assert (await sub.next_msg(timeout=10)).data == bytes([n] * 1000)
                clock.forward(wait)
                await turns()
            assert len(lost) == 0


class SlowLink:
    """Passes on what a server sends; once :attr:`slow` is set, in pieces, one for each :meth:`piece`."""

    SIZE = 16_384

    def __init__(self, target: int) -> None:
        self.slow = False
        self._target = target
        self._more = asyncio.Semaphore(0)

    def piece(self) -> None:
        self._more.release()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(self.SIZE):
            writer.write(data)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self.slow and (data := await reader.read(self.SIZE)):
            writer.write(data)
        while True:
            data = await reader.readexactly(self.SIZE)
            await self._more.acquire()
            writer.write(data)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, onward = await asyncio.open_connection("127.0.0.1", self._target)
        both = self._up(reader, onward), self._down(behind, writer)
        ways = [asyncio.create_task(way) for way in both]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, onward):
            end.transport.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


async def test_a17_large_messages_of_a_real_server_on_a_slow_link(ws_server: LocalServer) -> None:
    payloads = [bytes([n]) * 900_000 for n in range(3)]
    link = SlowLink(port_of(ws_server))
    lost, clock = Calls(), Clock()
    async with (
        link.listening() as url,
        natsproto.connect(url, disconnected_cb=lost, ping_interval=1000) as nc,
        natsproto.connect(ws_server.url, ping_interval=1000) as other,
    ):
        sub = await nc.subscribe("s")
        await nc.flush()
        session = nc.connection.session
        assert session is not None
        link.slow = True
        for payload in (*payloads, bytes(900_000)):  # the last one makes the pieces before it full
            await other.publish("s", payload)
        await other.flush()
        with pytest.raises(RequestTimeoutError):
            await nc.request("nobody", timeout=0.05)
        while sub.pending_msgs < len(payloads):
            reads = session.reads
            link.piece()
            await eventually(lambda reads=reads: session.reads > reads or len(lost))  # type: ignore[misc]
            assert len(lost) == 0
            clock.forward(liveness_module.PROBE_TIMEOUT)
            await turns()
        for payload in payloads:
            assert (await sub.next_msg(timeout=10)).data == payload
        assert len(lost) == 0


def _close(peer: Peer) -> None:
    peer.protocol.send_close(1001, "going")
    peer.send()


def _text(peer: Peer) -> None:
    peer.protocol.send_text(b"PING\r\n")
    peer.send()


def _garbage(peer: Peer) -> None:
    peer.writer.write(b"\xff\xff\xff\xff")


def _bomb(peer: Peer) -> None:
    peer.writer.write(b"\x82\x7f" + (1 << 40).to_bytes(8, "big"))


def _masked(peer: Peer) -> None:
    peer.writer.write(b"\x82\x81\x00\x00\x00\x00x")


def _reset(peer: Peer) -> None:
    peer.writer.transport.abort()


@pytest.mark.parametrize("end", [_close, _text, _garbage, _bomb, _masked, _reset])
async def test_a_broken_or_closed_websocket_means_a_new_session(end: Callable[[Peer], None]) -> None:
    async def script(peer: Peer) -> None:
        await peer.handshake()
        end(peer)
        await peer.serve()

    async with PeerServer(script, plain) as server:
        lost, back = Calls(), Calls()
        async with natsproto.connect(server.url, disconnected_cb=lost, reconnected_cb=back) as nc:
            await back.until(1)
            await nc.flush()


async def test_no_websocket_server_there(new_server: LocalServer) -> None:
    async def http(peer: Peer) -> None:
        await peer.event()
        peer.protocol.send_response(peer.protocol.reject(403, "no"))
        peer.send()
        await peer.serve()

    async def silent(peer: Peer) -> None:
        await peer.event()
        await peer.serve()

    async def ends(peer: Peer) -> None:
        await peer.event()

    for script, message, limit in [
        (http, "403", 10),
        (silent, "no answer", 0.2),
        (ends, "closed|lost", 10),
    ]:
        async with PeerServer(script) as server:
            with pytest.raises(NatsError, match=message):
                await natsproto.connect(server.url, connect_timeout=limit)
    with pytest.raises(NatsError, match="HTTP"):
        await natsproto.connect(f"ws://127.0.0.1:{new_server.port}", connect_timeout=10)


async def test_s1_a_websocket_in_clear_is_not_tls() -> None:
    async with PeerServer(plain) as server:
        with pytest.raises((SecureConnectionRequiredError, NatsError)):
            await natsproto.connect(server.url, tls=True, connect_timeout=0.5)


async def test_a_websocket_once_announced_through_tls_is_encrypted_from_its_first_byte() -> None:
    first = asyncio.get_running_loop().create_future()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first.set_result(await reader.read(1))
        writer.transport.abort()

    async with await asyncio.start_server(record, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        connection = Connection(Options(f"ws://127.0.0.1:{port}", user="u", password="CANARY"))
        connection.pool.servers[0].secured = True
        with pytest.raises(NatsError):
            await connection.open()
        assert await first == b"\x16", "a TLS record"


@pytest.mark.parametrize("transport", ["buffered", "streams"])
async def test_a_websocket_sends_nothing_in_clear_to_an_address_announced_through_tls(
    transport: TransportKind,
) -> None:
    """Not even the opening handshake: its headers may be secret."""
    received: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1))
        writer.transport.abort()

    async with await asyncio.start_server(record, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        secret = {"Authorization": "Bearer CANARY"}
        options = Options(f"ws://localhost:{port}", ws_connection_headers=secret, transport=transport)
        connection = Connection(options)
        pool = connection.pool
        pool.discover([f"127.0.0.1:{port}"], via=parse_url("wss://there"), secure=True)
        pool.servers = pool.servers[:1]
        with pytest.raises(SecureConnectionRequiredError, match="nothing was sent"):
            await connection.open()
        with pytest.raises(NatsError):
            await connection.open()
        assert received == [b"", b"\x16"], "nothing, and then a TLS record"


async def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.client", None)
    with pytest.raises(MissingExtraError, match=r"natsproto\[ws\]"):
        await natsproto.connect("ws://127.0.0.1:1")
