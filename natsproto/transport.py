"""The one seam between the client and the network.

A *transport* carries bytes; a *receiver* (the connection) is told what arrived. Two transports stand
behind the seam and behave alike:

``buffered``
    an :class:`asyncio.BufferedProtocol`: the event loop receives straight into the buffer that the
    parser names, so a large payload lands where it belongs without a copy.
``streams``
    :class:`asyncio.StreamReader` and :class:`asyncio.StreamWriter`: the plainest asyncio there is.

Rules both keep: ``connection_lost`` is called exactly once, after which no other receiver method is
called; :meth:`Transport.drain` always has a wake path (space, or loss); bytes that arrive before a TLS
upgrade and were not read are an error, never fed to the encrypted session.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from .errors import ConfigError, RemoteProtocolError, StaleConnectionError

if TYPE_CHECKING:
    import ssl

TransportKind = Literal["buffered", "streams"]
Buffer = bytes | bytearray | memoryview

SOCKET_BUFFER = 4 * 1024 * 1024
"""SO_SNDBUF/SO_RCVBUF asked for: a whole window fits the kernel, so ``write`` seldom has to copy."""

WRITE_HIGH_WATER = 512 * 1024
"""Bytes the transport may hold itself before :meth:`Transport.drain` waits."""

READS = 8
"""Receive calls after the first one of a turn of the loop, as long as each fills a large place."""

LARGE_PLACE = 64 * 1024
"""Bytes above which a place is a large payload's own. Small messages stay at one call a turn: who takes them
from a queue must get its turn, too."""

READ_SIZE = 256 * 1024
"""Bytes one read of the ``streams`` transport takes at the most."""


class Receiver(Protocol):
    """What a transport drives; implemented by the connection."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Name the (never empty) place for the next bytes."""
        ...

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` were written to the buffer named last."""
        ...

    def data_received(self, data: bytes) -> None:
        """Bytes arrived by value (``streams`` transport)."""
        ...

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; ``exc`` is ``None`` at a plain end of stream."""
        ...


class Transport(Protocol):
    """A connected byte carrier."""

    def write(self, data: Buffer) -> None:
        """Hand bytes over; a ``memoryview`` must stay unchanged until they are acknowledged."""
        ...

    def write_parts(self, parts: Sequence[Buffer]) -> None:
        """Hand over several pieces, none of them empty, as :meth:`write` would one after the other."""
        ...

    @property
    def congested(self) -> bool:
        """True while more than :data:`WRITE_HIGH_WATER` bytes wait; then await :meth:`drain`."""
        ...

    async def drain(self) -> None:
        """Wait until the transport takes more; raises ``StaleConnectionError`` when it is gone."""
        ...

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        """Upgrade in place. Raises what ``ssl`` raises, or ``RemoteProtocolError`` on early bytes."""
        ...

    def pause_reading(self) -> None:
        """Stop taking bytes from the network (used between INFO and the TLS handshake)."""
        ...

    def get_extra_info(self, name: str) -> Any:
        """As :meth:`asyncio.BaseTransport.get_extra_info`."""
        ...

    def close(self) -> None:
        """Send what is buffered, then close."""
        ...

    def abort(self) -> None:
        """Close now; buffered bytes are dropped."""
        ...

    async def wait_closed(self) -> None:
        """Wait until ``connection_lost`` was delivered."""
        ...


class _WriteGate:
    """Pause/resume of writing: one future per waiting writer, all woken by space or by loss."""

    __slots__ = ("closed", "lost", "paused", "waiters")

    def __init__(self) -> None:
        self.paused = False
        self.lost = False
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


def _tune(transport: asyncio.BaseTransport) -> None:
    """Ask for large socket buffers; a refusal (other socket kinds, limits) costs only speed."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        except OSError:
            pass


class _AsyncioTransport:
    """What both transports share: an asyncio transport and the write gate in front of it."""

    def __init__(self) -> None:
        self._gate = _WriteGate()
        self._transport: asyncio.Transport | None = None
        self._socket: Any = None  # where bytes may be written past asyncio while that has none

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
        # A failed asyncio transport warns on standard error of each write until it tells us that it is lost.
        if transport is not None and not self._gate.lost and not transport.is_closing():
            transport.write(data)

    def write_parts(self, parts: Sequence[Buffer]) -> None:
        """In one system call, without joining them; what the socket does not take is left to asyncio."""
        transport = self._transport
        if transport is None or self._gate.lost or transport.is_closing():
            return
        taken = 0
        if self._socket is not None and not transport.get_write_buffer_size():
            try:
                taken = os.writev(self._socket.fileno(), parts)
            except OSError:
                pass  # full, or broken: asyncio finds out and tells the receiver
        for part in parts:
            if taken < len(part):
                transport.write(memoryview(part)[taken:] if taken else part)
            taken = max(0, taken - len(part))

    @property
    def congested(self) -> bool:
        return self._gate.paused

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
                pass  # asyncio: one that closed after writing its buffer has no loop any more (3.11)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._gate.closed)


class BufferedTransport(_AsyncioTransport, asyncio.BufferedProtocol):
    """Receives into the buffer the receiver names; see the module docstring."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self._receiver = receiver
        # Looked up on every read: bound methods, not wrappers.
        self._place, self._take = receiver.get_buffer, receiver.buffer_updated
        self._room = 0
        # Other loops (uvloop) read as often as they think right.
        self._reads = READS if isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop) else 0
        self._failure: OSError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._attach(cast(asyncio.Transport, transport))

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self._place(sizehint)
        self._room = len(buffer)
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what came; and what more there is at once, instead of in another turn of the loop."""
        take = self._take
        take(nbytes)
        sock, room = self._socket, self._room
        if nbytes < room or room <= LARGE_PLACE or sock is None:
            return
        transport, fd = self._wire, sock.fileno()
        for _ in range(self._reads):
            if transport.is_closing() or not transport.is_reading():
                return
            buffer = self._place(-1)
            room = len(buffer)
            try:
                nbytes = os.readv(fd, (buffer,))
            except BlockingIOError:
                return
            except OSError as exc:  # asyncio will see the end of the stream, but not why
                self._failure = exc
                return
            if not nbytes:
                return  # asyncio will see that, too
            take(nbytes)
            if nbytes < room or room <= LARGE_PLACE:
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
        self._socket = None  # from here on nothing goes past the TLS layer
        try:
            upgraded = await loop.start_tls(self._wire, self, context, server_hostname=server_hostname)
        except BaseException:
            self._gate.lose()  # asyncio tells nobody that the connection is gone
            raise
        if upgraded is None:
            raise StaleConnectionError("the connection was lost during the TLS handshake")
        self._attach(upgraded)


class StreamsTransport(_AsyncioTransport):
    """asyncio streams with one reading task; see the module docstring."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self._receiver = receiver
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._plain_writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def _start(
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
        try:
            while data := await reader.read(READ_SIZE):
                self._receiver.data_received(data)
        except Exception as exc:
            error = exc
        # A cancelled reader is not a lost connection: start_tls() puts another in its place.
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
        protocol.connection_made(upgraded)  # start_tls() leaves that to its caller
        # Kept: since Python 3.11.5 a writer that is collected closes its transport, and so the TLS one on it.
        self._plain_writer = self._writer
        self._start(upgraded, protocol, reader)

    async def wait_closed(self) -> None:
        # The reading task ends by itself once the asyncio transport is closed (end of stream).
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait([self._task])
        if not self._gate.lost:
            self._lost(None)
        if self._writer is not None:
            try:
                await self._writer.wait_closed()
            except OSError:
                pass


async def open_transport(
    kind: TransportKind,
    receiver: Receiver,
    host: str,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> Transport:
    """Connect and return a transport that drives ``receiver``.

    Args:
        kind: ``"buffered"`` or ``"streams"``.
        receiver: who is told what arrives.
        host, port: where to connect to.
        ssl_context: TLS from the first byte (``tls_first``); ``None`` connects in clear.
        server_hostname: the name to verify; only with ``ssl_context``.

    Raises:
        OSError: cannot connect (refused, no route, DNS). Time bounds are the caller's.
        ssl.SSLError: the handshake failed.
    """
    loop = asyncio.get_running_loop()
    hostname = server_hostname if ssl_context is not None else None
    if kind == "buffered":
        link = BufferedTransport(receiver)
        transport, _ = await loop.create_connection(
            lambda: link, host, port, ssl=ssl_context, server_hostname=hostname
        )
        _tune(transport)
        return link
    if kind == "streams":
        streams = StreamsTransport(receiver)
        reader = asyncio.StreamReader(limit=READ_SIZE)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.create_connection(
            lambda: protocol, host, port, ssl=ssl_context, server_hostname=hostname
        )
        _tune(transport)
        streams._start(transport, protocol, reader)
        return streams
    raise ConfigError(f"unknown transport {kind!r}: use 'buffered' or 'streams'")
