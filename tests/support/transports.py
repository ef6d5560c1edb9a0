"""Both ends of a transport: a receiver that keeps what it gets, and a peer with one connection."""

from __future__ import annotations

import asyncio

from natsproto.transport import Transport, TransportKind, open_transport


class Recorder:
    """A receiver that keeps what it gets."""

    def __init__(self, size: int = 100) -> None:
        self.data = b""
        self.pieces: list[int] = []
        self.losses: list[BaseException | None] = []
        self.after = 0
        self.fail: Exception | None = None
        self._buffer = bytearray(size)
        self._changed = asyncio.Event()

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        self.after += bool(self.losses)
        if self.fail is not None:
            raise self.fail
        self.data += data
        self.pieces.append(len(data))
        self._changed.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.losses.append(exc)
        self._changed.set()

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(8):
            while not condition():  # type: ignore[operator]
                self._changed.clear()
                await self._changed.wait()


class Peer:
    """The other end, one connection."""

    def __init__(self) -> None:
        self.connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.get_running_loop().create_future()
        )

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.set_result((reader, writer))

    async def __aenter__(self) -> Peer:
        self.server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.server.close()
        _, writer = await self.connected
        writer.transport.abort()


async def opened(
    kind: TransportKind, peer: Peer, size: int = 100
) -> tuple[Transport, Recorder, asyncio.StreamReader, asyncio.StreamWriter]:
    receiver = Recorder(size)
    transport = await open_transport(kind, receiver, "127.0.0.1", peer.port)
    reader, writer = await peer.connected
    return transport, receiver, reader, writer
