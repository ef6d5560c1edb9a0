"""What both transports share: writing, back-pressure, socket options."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..errors import StaleConnectionError
from .base import Buffer

TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None

BYTES_ACKED = 120
"""Byte offset of the count of acknowledged bytes in Linux's ``struct tcp_info`` (4.1 or newer)."""

SOCKET_BUFFER = 4 * 1024 * 1024
"""Bytes asked for as SO_SNDBUF and SO_RCVBUF: the kernel takes a whole window, so ``write`` seldom copies."""


WRITE_HIGH_WATER = 512 * 1024
"""Bytes that the transport itself may buffer before :meth:`Transport.drain` waits."""


class WriteGate:
    """Pauses and resumes writers: each waits on its own future; space or a lost connection wakes them all."""

    __slots__ = ("closed", "lost", "paused", "waiters")

    def __init__(self) -> None:
        self.paused: bool = False
        self.lost: bool = False
        self.waiters: deque[asyncio.Future[None]] = deque()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        self.paused = False
        self._wake()

    def lose(self) -> None:
        self.lost = True
        self._wake()
        if not self.closed.done():
            self.closed.set_result(None)

    def _wake(self) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        while self.paused and not self.lost:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            try:
                await waiter
            finally:
                if not waiter.done():
                    waiter.cancel()
        if self.lost:
            raise StaleConnectionError("the connection was lost while writing")


def tune(transport: asyncio.BaseTransport) -> None:
    """Ask for large socket buffers; a refusal (another kind of socket, a limit) costs only speed."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        except OSError:
            pass


class AsyncioTransport:
    """What both transports share: an asyncio transport and the write gate in front of it."""

    def __init__(self) -> None:
        self._gate = WriteGate()
        self._transport: asyncio.Transport | None = None
        self._socket: Any = None  # for writing past asyncio while asyncio buffers nothing

    def _attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        plain = hasattr(os, "writev") and transport.get_extra_info("sslcontext") is None
        self._socket = transport.get_extra_info("socket") if plain else None

    @property
    def _wire(self) -> asyncio.Transport:
        if self._transport is None:
            raise StaleConnectionError("the transport is not connected")
        return self._transport

    def write(self, data: Buffer) -> None:
        transport = self._transport
        # A failed asyncio transport logs a warning at each write, until it calls connection_lost.
        if transport is not None and not self._gate.lost and not transport.is_closing():
            transport.write(data)

    def write_parts(self, parts: Sequence[Buffer]) -> None:
        """Write all in one system call, without joining them; asyncio gets what the socket does not take."""
        transport = self._transport
        if transport is None or self._gate.lost or transport.is_closing():
            return
        taken = 0
        if self._socket is not None and not transport.get_write_buffer_size():
            try:
                taken = os.writev(self._socket.fileno(), parts)
            except OSError:
                pass  # full, or broken: asyncio will notice and tell the receiver
        for part in parts:
            if taken < len(part):
                transport.write(memoryview(part)[taken:] if taken else part)
            taken = max(0, taken - len(part))

    @property
    def congested(self) -> bool:
        return self._gate.paused

    @property
    def taken(self) -> int | None:
        # Acknowledged bytes, not buffered ones: a full buffer keeps its size although bytes move.
        sock = self.get_extra_info("socket")
        if sock is None or TCP_INFO is None:
            return None
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, BYTES_ACKED + 8)
        except (OSError, ValueError):  # another kind of socket; closed
            return None
        if len(info) < BYTES_ACKED + 8:
            return None
        value: int = struct.unpack_from("=Q", info, BYTES_ACKED)[0]
        return value

    async def drain(self) -> None:
        await self._gate.wait()

    def pause_reading(self) -> None:
        self._wire.pause_reading()

    def get_extra_info(self, name: str) -> Any:
        return None if self._transport is None else self._transport.get_extra_info(name)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None and not self._gate.lost:
            try:
                self._transport.abort()
            except AttributeError:
                pass  # Python 3.11: a transport that closed after writing its buffer has no loop any more

    async def wait_closed(self) -> None:
        await asyncio.shield(self._gate.closed)
