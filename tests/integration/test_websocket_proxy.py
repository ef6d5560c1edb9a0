"""A WebSocket through a proxy that wants a path and a header, to real servers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import natsproto
from natsproto.errors import RemoteProtocolError
from natsproto.server import LocalServer
from support.calls import Calls

pytest.importorskip("websockets")


class Gate:
    """A proxy that lets a handshake pass if ``allowed`` says so of its head; else it answers 401.

    Attributes:
        heads: of the handshakes so far, one line each.
    """

    def __init__(self, target: int, allowed: Callable[[list[str]], bool]) -> None:
        self.heads: list[list[str]] = []
        self._target = target
        self._allowed = allowed
        self._writers: list[asyncio.StreamWriter] = []

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode().splitlines()[:-1])
        if not self._allowed(self.heads[-1]):
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        behind, onward = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.append(onward)
        onward.write(head)
        await asyncio.gather(self._pass(reader, onward), self._pass(behind, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._handle, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self.cut()
            await server.wait_closed()


@pytest.fixture
async def web_port(server: LocalServer) -> AsyncIterator[int]:
    config = "websocket { port: -1, no_tls: true }"
    async with LocalServer(binary=server.binary.path, jetstream=False, config=config) as own:
        found = re.search(r"Listening for websocket clients on ws://[^:]+:(\d+)", own.log(200))
        assert found is not None, own.log(50)
        yield int(found[1])


async def test_a_path_and_a_header(web_port: int) -> None:
    tokens = ["first", "second", "third"]
    wanted = tokens[0]
    gate = Gate(
        web_port, lambda head: head[0].split()[1] == "/nats/ws" and f"Authorization: Bearer {wanted}" in head
    )

    def renewed() -> dict[str, str | list[str]]:
        return {"Authorization": f"Bearer {wanted}", "X-Tag": ["a", "b"]}

    back = Calls()
    async with (
        gate.listening() as port,
        natsproto.connect(
            f"ws://localhost:{port}/nats/ws",
            ws_connection_headers=renewed,
            reconnected_cb=back,
            reconnect_wait=0.01,
        ) as nc,
    ):
        assert nc.connected_url == f"ws://localhost:{port}/nats/ws"
        sub = await nc.subscribe("s")
        await nc.publish("s", bytes(100_000))
        assert len((await sub.next_msg(timeout=10)).data) == 100_000
        wanted = tokens[1]  # the proxy knows a new token, and so does the callable
        gate.cut()
        await back.until(1)
        await nc.flush()
    for head, token in zip(gate.heads, tokens, strict=False):
        wanted_lines = ("Authorization", "X-Tag", "Host", "Upgrade")
        lines = [line for line in head if line.startswith(wanted_lines)]
        assert sorted(lines) == [
            f"Authorization: Bearer {token}",
            f"Host: localhost:{port}",
            "Upgrade: websocket",
            "X-Tag: a",
            "X-Tag: b",
        ]
    assert len(gate.heads) == 2


async def test_a_proxy_that_refuses(web_port: int) -> None:
    gate = Gate(web_port, lambda head: "X-Key: CANARY" in head)
    async with gate.listening() as port:
        for headers in (None, {"X-Key": "CANARY2"}):
            with pytest.raises(RemoteProtocolError, match="answered 401") as info:
                await natsproto.connect(f"ws://localhost:{port}", ws_connection_headers=headers)
            assert "CANARY" not in str(info.value)
        async with natsproto.connect(
            f"ws://localhost:{port}", ws_connection_headers={"X-Key": "CANARY"}
        ) as nc:
            await nc.flush()
            assert "CANARY" not in repr(nc)


async def test_a_path_with_other_letters(web_port: int) -> None:
    gate = Gate(web_port, lambda head: True)
    async with gate.listening() as port, natsproto.connect(f"ws://localhost:{port}/größe/a%20b;c=1") as nc:
        await nc.flush()
    assert gate.heads[0][0] == "GET /gr%C3%B6%C3%9Fe/a%20b;c=1 HTTP/1.1"
