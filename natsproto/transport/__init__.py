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

from .base import Buffer, Receiver, Transport, TransportKind
from .open import open_transport

__all__ = ["Buffer", "Receiver", "Transport", "TransportKind", "open_transport"]
