"""Asyncio's high-level streams: :class:`asyncio.StreamReader` and :class:`asyncio.StreamWriter`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import RemoteProtocolError, StaleConnectionError
from .asyncio_base import WRITE_HIGH_WATER, AsyncioTransport
from .base import Receiver

if TYPE_CHECKING:
    import ssl


READ_SIZE = 256 * 1024
"""Bytes that one read of the ``streams`` transport takes at most."""

TURN = 0.05
"""Seconds after which the reading task yields to other tasks: reading does not yield while data is waiting,
and a peer can keep data waiting all the time."""


class StreamsTransport(AsyncioTransport):
    """asyncio streams with one reading task; see the module docstring."""

    def __init__(self, receiver: Receiver, read_size: int = READ_SIZE) -> None:
        super().__init__()
        self._receiver = receiver
        self._read_size = read_size
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._plain_writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def start(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.StreamReaderProtocol,
        reader: asyncio.StreamReader,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._attach(transport)
        self._reader = reader
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._task = loop.create_task(self._read(reader), name="natsproto-read")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        error: BaseException | None = None
        clock = asyncio.get_running_loop().time
        spent = 0.0
        try:
            while data := await reader.read(self._read_size):
                began = clock()
                self._receiver.data_received(data)
                spent += clock() - began
                if spent > TURN:
                    spent = 0.0
                    await asyncio.sleep(0)
        except Exception as exc:
            error = exc
        # A cancelled reader is not a lost connection: start_tls() replaces it.
        self._lost(error)

    def _lost(self, exc: BaseException | None) -> None:
        if not self._gate.lost:
            self.abort()
            self._gate.lose()
            self._receiver.connection_lost(exc)

    @property
    def congested(self) -> bool:
        transport = self._transport
        return transport is not None and transport.get_write_buffer_size() > WRITE_HIGH_WATER

    async def drain(self) -> None:
        if self._gate.lost or self._writer is None:
            raise StaleConnectionError("the connection was lost while writing")
        try:
            await self._writer.drain()
        except OSError as exc:
            raise StaleConnectionError(f"the connection was lost while writing: {exc}") from exc
        if self._wire.is_closing():
            raise StaleConnectionError("the connection was lost while writing")

    def pause_reading(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        loop = asyncio.get_running_loop()
        if self._reader is not None:
            self._reader.feed_eof()
            if await self._reader.read():
                raise RemoteProtocolError("bytes arrived between INFO and the TLS handshake")
        reader = asyncio.StreamReader(limit=READ_SIZE)
        protocol = asyncio.StreamReaderProtocol(reader)
        upgraded = await loop.start_tls(self._wire, protocol, context, server_hostname=server_hostname)
        if upgraded is None:
            raise StaleConnectionError("the connection was lost during the TLS handshake")
        protocol.connection_made(upgraded)  # loop.start_tls() does not call it
        # Kept: since Python 3.11.5 a garbage-collected writer closes its transport, here the one below TLS.
        self._plain_writer = self._writer
        self.start(upgraded, protocol, reader)

    async def wait_closed(self) -> None:
        # The reading task ends by itself once the asyncio transport is closed (end of stream).
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait([self._task])
        if not self._gate.lost:
            self._lost(None)
        if self._writer is not None:
            try:
                # All waiters share its future: a cancelled one must not cancel it.
                await asyncio.shield(self._writer.wait_closed())
            except OSError:
                pass
