"""Opening a transport of either kind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .asyncio_base import tune
from .base import Receiver, Transport, TransportKind
from .buffered import BufferedTransport
from .streams import READ_SIZE, StreamsTransport

if TYPE_CHECKING:
    import ssl


async def open_transport(
    kind: TransportKind,
    receiver: Receiver,
    host: str,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    read_size: int = READ_SIZE,
) -> Transport:
    """Connect and return a transport that drives ``receiver``.

    Args:
        kind: ``"buffered"`` or ``"streams"``.
        receiver: gets what arrives.
        host, port: where to connect to.
        ssl_context: TLS from the first byte (``tls_first``); ``None`` connects in clear.
        server_hostname: the name to verify; only with ``ssl_context``.
        read_size: the most bytes that ``data_received`` gets at a time.

    Raises:
        OSError: cannot connect (refused, no route, DNS). The caller sets the time limit.
        ssl.SSLError: the handshake failed.
    """
    loop = asyncio.get_running_loop()
    hostname = server_hostname if ssl_context is not None else None
    if kind == "buffered":
        link = BufferedTransport(receiver)
        transport, _ = await loop.create_connection(
            lambda: link, host, port, ssl=ssl_context, server_hostname=hostname
        )
        tune(transport)
        return link
    if kind == "streams":
        streams = StreamsTransport(receiver, read_size)
        reader = asyncio.StreamReader(limit=READ_SIZE)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.create_connection(
            lambda: protocol, host, port, ssl=ssl_context, server_hostname=hostname
        )
        tune(transport)
        streams.start(transport, protocol, reader)
        return streams
    raise ConfigError(f"unknown transport {kind!r}: use 'buffered' or 'streams'")
