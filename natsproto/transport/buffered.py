"""The event loop receives straight into the buffer that the receiver returns."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, cast

from ..errors import StaleConnectionError
from .asyncio_base import AsyncioTransport
from .base import Receiver

if TYPE_CHECKING:
    import ssl


READS = 8
"""Receive calls after the first one of a loop iteration, as long as each fills a large destination."""


LARGE_DESTINATION = 64 * 1024
"""Bytes above which a buffer must be a large payload's destination. Small messages get one receive call per
loop iteration, so that the tasks that consume them are not starved."""


class BufferedTransport(AsyncioTransport, asyncio.BufferedProtocol):
    """Receives into the receiver's buffers; see the module docstring."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self._receiver = receiver
        # Bound once: every read calls both.
        self._get_buffer, self._take = receiver.get_buffer, receiver.buffer_updated
        self._room = 0
        # Other loops (uvloop) decide themselves how often to read.
        self._reads = READS if isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop) else 0
        self._failure: OSError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._attach(cast(asyncio.Transport, transport))

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self._get_buffer(sizehint)
        self._room = len(buffer)
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what arrived, then read on at once instead of in the next loop iteration."""
        take = self._take
        take(nbytes)
        sock, room = self._socket, self._room
        if nbytes < room or room <= LARGE_DESTINATION or sock is None:
            return
        transport, fd = self._wire, sock.fileno()
        for _ in range(self._reads):
            if transport.is_closing() or not transport.is_reading():
                return
            buffer = self._get_buffer(-1)
            room = len(buffer)
            try:
                nbytes = os.readv(fd, (buffer,))
            except BlockingIOError:
                return
            except OSError as exc:  # asyncio will see the end of the stream, but not the reason
                self._failure = exc
                return
            if not nbytes:
                return  # the end of the stream: asyncio will see it, too
            take(nbytes)
            if nbytes < room or room <= LARGE_DESTINATION:
                return

    def eof_received(self) -> bool:
        return False  # the transport closes itself and calls connection_lost

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._gate.lost:
            self._gate.lose()
            self._receiver.connection_lost(exc or self._failure)

    def pause_writing(self) -> None:
        self._gate.paused = True

    def resume_writing(self) -> None:
        self._gate.resume()

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        # Reading is paused since INFO, so early bytes are still in the kernel: they reach the TLS
        # layer as garbage and fail the handshake.
        loop = asyncio.get_running_loop()
        self._socket = None  # from here on nothing may bypass the TLS layer
        try:
            upgraded = await loop.start_tls(self._wire, self, context, server_hostname=server_hostname)
        except BaseException:
            self._gate.lose()  # asyncio tells nobody that the connection is gone
            raise
        if upgraded is None:
            raise StaleConnectionError("the connection was lost during the TLS handshake")
        self._attach(upgraded)
