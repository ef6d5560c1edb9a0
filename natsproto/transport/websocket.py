"""NATS over WebSocket (extra ``ws``): a transport that wraps another one.

The sans-I/O protocol of the ``websockets`` library does framing, masking and the opening handshake; bytes
travel through :mod:`natsproto.transport` as always. NATS frames and WebSocket frames are independent of
each other: either side may split and merge them as it likes (nats-server, ADR-43).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError, RemoteProtocolError, StaleConnectionError
from .base import MAX_UNREAD_PONGS
from .open import open_transport

if TYPE_CHECKING:
    import ssl
    from logging import Logger

    from .base import Buffer, Receiver, Transport, TransportKind

MAX_FRAME = 65 * 1024 * 1024
"""Bytes of the largest frame accepted: a server sends all that waits for a client (up to 64 MiB) as one."""

READ_SIZE = 64 * 1024
"""Bytes that one read takes at most."""

PIECE = 16 * 1024
"""Bytes that are parsed before the number of their frames is checked."""

MAX_FRAMES = PIECE // 8
"""Frames in one piece. The smallest that a server has reason to send, PING, has 8 bytes. A flood of smaller
ones (down to 2 bytes) would block the loop: a frame costs about 40 microseconds, whatever its size."""


class WebSocketTransport:
    """A :class:`~natsproto.transport.Transport` to the connection, and a
    :class:`~natsproto.transport.Receiver` to the transport below. See the module docstring."""

    def __init__(self, receiver: Receiver, protocol: Any) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receiver = receiver
        self._protocol = protocol
        self._inner: Transport | None = None
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._fragmented = False
        self._unread_pongs = 0
        self._failure: RemoteProtocolError | StaleConnectionError | None = None

    def start(self, inner: Transport, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send the opening handshake over ``inner``, with ``headers`` besides those that it needs."""
        self._inner = inner
        request = self._protocol.connect()
        for name, value in headers:
            request.headers[name] = value  # adds one, whatever there is of that name
        self._protocol.send_request(request)
        self._send()

    # -- receiver of the transport below ------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received(self._buffer[:nbytes])

    def data_received(self, data: bytes) -> None:
        self._received(memoryview(data))

    def _received(self, data: memoryview) -> None:
        for start in range(0, len(data), PIECE):
            if self._failure is not None:
                return
            self._piece(data[start : start + PIECE])

    def _piece(self, data: memoryview) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        events = protocol.events_received()
        if len(events) > MAX_FRAMES:
            self._fail(RemoteProtocolError("the server sends a flood of tiny frames"))
            return
        for event in events:
            self._event(event)
            if self._failure is not None:
                return
        if protocol.parser_exc is not None:
            self._fail(RemoteProtocolError(f"broken WebSocket frame: {protocol.parser_exc}"))
        elif protocol.handshake_exc is not None:
            self._fail(RemoteProtocolError("the peer does not speak HTTP"))
        else:
            self._send()  # answers to pings

    def connection_lost(self, exc: BaseException | None) -> None:
        reason = self._failure or exc
        if not self.opened.done():
            self.opened.set_exception(reason or StaleConnectionError("closed during the WebSocket handshake"))
            self.opened.exception()
        self._receiver.connection_lost(reason)

    def _event(self, event: Any) -> None:
        from websockets.frames import Opcode
        from websockets.http11 import Response

        if isinstance(event, Response):
            if self._protocol.handshake_exc is not None:
                self._fail(RemoteProtocolError(f"not a WebSocket: the server answered {event.status_code}"))
            elif not self.opened.done():
                self.opened.set_result(None)
        elif event.opcode is Opcode.BINARY or (event.opcode is Opcode.CONT and self._fragmented):
            self._fragmented = not event.fin
            if event.data:
                self._receiver.data_received(bytes(event.data))
        elif event.opcode is Opcode.CLOSE:
            self._send()
            close = self._protocol.close_rcvd
            code = "" if close is None else f" ({close.code})"
            self._fail(StaleConnectionError(f"the server closed the WebSocket{code}"))
        elif event.opcode is Opcode.PING:
            # The protocol has queued the pong. As with NATS, a peer that does not read gets only so many.
            self._unread_pongs = self._unread_pongs + 1 if self.congested else 0
            if self._unread_pongs > MAX_UNREAD_PONGS:
                self._fail(RemoteProtocolError("the server keeps pinging and does not read the answers"))
        elif event.opcode is Opcode.TEXT:
            self._fail(RemoteProtocolError("a text frame on a NATS WebSocket"))

    def _fail(self, exc: RemoteProtocolError | StaleConnectionError) -> None:
        self._failure = exc
        self.abort()

    # -- transport ----------------------------------------------------------------------------------

    @property
    def _below(self) -> Transport:
        if self._inner is None:
            raise StaleConnectionError("the transport is not connected")
        return self._inner

    def _send(self) -> None:
        for data in self._protocol.data_to_send():
            if data:  # b"" means end of stream, which close() and abort() deal with
                self._below.write(data)

    def write(self, data: Buffer) -> None:
        from websockets.protocol import OPEN

        if self._protocol.state is OPEN:
            self._protocol.send_binary(data)
            self._send()

    def write_parts(self, parts: Sequence[Buffer]) -> None:
        self.write(b"".join(parts))

    @property
    def congested(self) -> bool:
        return self._below.congested

    @property
    def taken(self) -> int | None:
        return self._below.taken

    async def drain(self) -> None:
        await self._below.drain()

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        raise RemoteProtocolError("a WebSocket is encrypted from its first byte or not at all: use wss://")

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def get_extra_info(self, name: str) -> Any:
        return self._below.get_extra_info(name)

    def close(self) -> None:
        from websockets.protocol import OPEN

        if self._protocol.state is OPEN:
            self._protocol.send_close(1000)
            self._send()
        self._below.close()

    def abort(self) -> None:
        if self._inner is not None:
            self._inner.abort()

    async def wait_closed(self) -> None:
        await self._below.wait_closed()


async def open_websocket(
    kind: TransportKind,
    receiver: Receiver,
    host: str,
    port: int,
    path: str,
    *,
    headers: Sequence[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None,
    server_hostname: str | None,
    connected: Callable[[Transport], None],
) -> Transport:
    """Connect to ``ws://`` or ``wss://`` and return a transport that drives ``receiver``.

    Args:
        kind: the transport below, ``"buffered"`` or ``"streams"``.
        receiver: gets what arrives.
        host, port: where to connect to.
        path: the path of the URL.
        headers: further ones for the opening handshake, names and values (checked).
        ssl_context: TLS; ``None`` connects in clear.
        server_hostname: the name to verify; only with ``ssl_context``.
        connected: called with the transport below before the opening handshake, which it prevents by an
            exception.

    Raises:
        MissingExtraError: the ``websockets`` library is not installed.
        RemoteProtocolError: the peer is not a WebSocket server.
        OSError: cannot connect, or the TLS handshake failed. The caller sets the time limit.
    """
    try:
        from websockets.client import ClientProtocol
        from websockets.uri import WebSocketURI
    except ImportError:
        raise MissingExtraError("ws:// and wss:// need the websockets library", "ws") from None
    uri = WebSocketURI(ssl_context is not None, host, port, path, "")
    protocol = ClientProtocol(uri, max_size=MAX_FRAME, logger=_quiet())
    transport = WebSocketTransport(receiver, protocol)
    inner = await open_transport(
        kind,
        transport,
        host,
        port,
        ssl_context=ssl_context,
        server_hostname=server_hostname,
        read_size=READ_SIZE,
    )
    try:
        connected(inner)
        transport.start(inner, headers)
        await transport.opened
    except BaseException:
        inner.abort()
        raise
    return transport


def _quiet() -> Logger:
    """Return a logger that never logs: at DEBUG the library logs frames, and with them credentials."""
    from logging import CRITICAL, Logger

    return Logger("natsproto.websocket", CRITICAL)
