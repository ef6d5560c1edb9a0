"""NATS over WebSocket (extra ``ws``): a transport that wraps another one.

The sans-I/O protocol of the ``websockets`` library does the opening handshake and frames what is sent; bytes
travel through :mod:`natsproto.transport` as always. NATS frames and WebSocket frames are independent of
each other: either side may split and merge them as it likes (nats-server, ADR-43).

A server sends all that waits for a client as one frame. So what a frame holds is passed on as it comes: it
shows that the peer is alive, and none of it is kept here. The library gets the first two bytes of each frame
to check, and control frames to answer.
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
"""Bytes of the largest message accepted, whatever its frames: a server sends all that waits for a client (up
to 64 MiB) as one."""

MAX_CONTROL = 125
"""Bytes that a control frame holds at most (RFC 6455, 5.5)."""

HEAD = 2
"""Bytes at the beginning of each frame: what it is, and how long if that is less than 126 bytes."""

WHOLE = 0x82
"""First byte of a frame of binary data that is a whole message: with nothing about it to check."""

LONG_HEADS = {126: 4, 127: 10}
"""Bytes of the head in which the length follows, by what is in the place of the length."""

READ_SIZE = 64 * 1024
"""Bytes that one read takes at most."""

PIECE = 16 * 1024
"""Bytes that are parsed before the number of their frames is checked."""

MAX_FRAMES = PIECE // 8
"""Frames in one piece. The smallest that a server has reason to send, PING, has 8 bytes. A flood of smaller
ones (down to 2 bytes) would block the loop: a frame costs up to 40 microseconds, whatever its size."""


class WebSocketTransport:
    """A :class:`~natsproto.transport.Transport` to the connection, and a
    :class:`~natsproto.transport.Receiver` to the transport below. See the module docstring."""

    def __init__(self, receiver: Receiver, protocol: Any) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receiver = receiver
        self._protocol = protocol
        self._inner: Transport | None = None
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._open = False
        self._head = bytearray()
        self._head_size = HEAD
        self._control = False
        self._fragmented = False
        self._left = 0  # bytes of the frame that are to come
        self._message = 0  # bytes of the message so far, with all of the frame
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
            self._piece(data[start : start + PIECE])

    def _piece(self, data: memoryview) -> None:
        count = 0
        while data and self._failure is None:
            if self._left:
                size = min(self._left, len(data))
                self._left -= size
                if self._control:
                    self._library(data[:size])
                else:
                    self._receiver.data_received(bytes(data[:size]))
            elif self._open:
                size = min(self._head_size - len(self._head), len(data))
                self._head += data[:size]
                if len(self._head) == self._head_size:
                    count += 1
                    self._head_received()
            else:  # line by line: the library must not see the frames that come with the last one
                size = bytes(data).find(b"\n") + 1 or len(data)
                count += 1
                self._library(data[:size])
            if count > MAX_FRAMES:
                self._fail(RemoteProtocolError("the server sends a flood of tiny frames"))
            data = data[size:]

    def _head_received(self) -> None:
        """Learn how much follows: after the first two bytes, or after the length that followed those."""
        head = self._head
        length = head[1] & 0x7F
        if len(head) == HEAD:
            self._control = bool(head[0] & 0x08)
            if head[0] != WHOLE or head[1] & 0x80 or self._fragmented:
                # The library takes a frame of data for an empty one, and checks all but its length.
                self._library(bytes((head[0], head[1] if self._control else head[1] & 0x80)))
                if self._failure is not None:
                    return
            if self._control and length > MAX_CONTROL:
                self._broken("control frame too long")
                return
            if length in LONG_HEADS:
                self._head_size = LONG_HEADS[length]
                return
        else:
            marker, length = length, int.from_bytes(head[HEAD:], "big")
            if length < (126 if marker == 126 else 1 << 16):
                self._broken("its length is in more bytes than it needs")
                return
        if not self._control:
            self._message = self._message + length if self._fragmented else length
            self._fragmented = not head[0] & 0x80
            if self._message > MAX_FRAME:
                self._broken(f"a message of {self._message} bytes, above the limit of {MAX_FRAME}")
        self._left = length
        self._head_size = HEAD
        head.clear()

    def _library(self, data: Buffer) -> None:
        """Have the library check ``data``, and answer it."""
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            self._event(event)
        if self._failure is not None:
            return
        if protocol.parser_exc is not None:
            self._broken(protocol.parser_exc)
        elif protocol.handshake_exc is not None:
            self._fail(RemoteProtocolError("the peer does not speak HTTP"))
        else:
            self._send()  # answers to pings

    def _broken(self, what: object) -> None:
        self._fail(RemoteProtocolError(f"broken WebSocket frame: {what}"))

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
            else:
                self._open = True
                if not self.opened.done():
                    self.opened.set_result(None)
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
    protocol = ClientProtocol(uri, max_size=MAX_CONTROL, logger=_quiet())
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
