"""The interface between the client and the network.

A *transport* carries bytes and passes what arrives to a *receiver* (the connection). There are two, which
behave alike:

``buffered``
    an :class:`asyncio.BufferedProtocol`: the event loop receives straight into the parser's buffer or a
    large payload's destination, without a copy.
``streams``
    :class:`asyncio.StreamReader` and :class:`asyncio.StreamWriter`: the simplest that asyncio offers.

Both keep these rules: ``connection_lost`` is called exactly once, and no other receiver method after it;
:meth:`Transport.drain` always wakes up, when there is space or the connection is lost; unread bytes that
arrived before a TLS upgrade are an error, never part of the encrypted session.
"""

from .base import Buffer, Receiver, Transport, TransportKind
from .open import open_transport

__all__ = ["Buffer", "Receiver", "Transport", "TransportKind", "open_transport"]
