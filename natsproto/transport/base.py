"""The protocols of a transport and its receiver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import ssl


MAX_UNREAD_PONGS = 10_000
"""PONGs buffered (60 kB) for a peer that sends PING but does not read. A server pings every two minutes."""

TransportKind = Literal["buffered", "streams"]
"""Which transport carries the bytes; see :mod:`natsproto.transport`."""


Buffer = bytes | bytearray | memoryview


class Receiver(Protocol):
    """Gets what a transport receives; implemented by ``natsproto.aio.session.Session``."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the (never empty) buffer for the next bytes."""
        ...

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` were written to the buffer returned last."""
        ...

    def data_received(self, data: bytes) -> None:
        """``data`` arrived (``streams`` transport)."""
        ...

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; ``exc`` is ``None`` at a plain end of stream."""
        ...


class Transport(Protocol):
    """A connected byte stream."""

    def write(self, data: Buffer) -> None:
        """Send bytes; a ``memoryview`` must stay unchanged until they are acknowledged."""
        ...

    def write_parts(self, parts: Sequence[Buffer]) -> None:
        """Send several pieces, none of them empty, in this order."""
        ...

    @property
    def congested(self) -> bool:
        """True while more than 512 KiB wait to be sent; then await :meth:`drain`."""
        ...

    @property
    def taken(self) -> int | None:
        """Bytes that the peer has acknowledged so far; ``None`` where the system does not report them."""
        ...

    async def drain(self) -> None:
        """Wait until the transport takes more; raises ``StaleConnectionError`` on a lost connection."""
        ...

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        """Upgrade in place. Raises the errors of ``ssl``, and ``RemoteProtocolError`` for early bytes."""
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
