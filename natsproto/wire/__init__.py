"""The NATS client protocol without I/O: bytes to events and events to bytes, for both sides.

Nothing here needs an event loop; a parser alone reads a captured session::

    >>> from natsproto.wire import Parser
    >>> parser = Parser("client")
    >>> parser.feed(b"PING\\r\\nMSG greet.joe 7 5\\r\\nhel")
    [Ping()]
    >>> parser.buffered
    22
    >>> parser.feed(b"lo\\r\\n")
    [Msg(subject=b'greet.joe', sid=b'7', reply=None, header=None, payload=b'hello')]

and the serializer writes one::

    >>> from natsproto.wire import pub
    >>> b"".join(pub("greet.joe", b"hello"))
    b'PUB greet.joe 5\\r\\nhello\\r\\n'
"""

from .events import (
    OK_EVENT,
    PING_EVENT,
    PONG_EVENT,
    Connect,
    Err,
    Event,
    Info,
    Msg,
    Ok,
    Payload,
    Ping,
    Pong,
    Pub,
    Sub,
    Unsub,
)
from .limits import Limits
from .parser import Parser, Place, Role, Target
from .serializer import Buffers, connect, err, info, msg, ok, ping, pong, pub, pub_line, sub, unsub

__all__ = [
    # events
    "Event",
    "Info",
    "Msg",
    "Ping",
    "Pong",
    "Ok",
    "Err",
    "Connect",
    "Pub",
    "Sub",
    "Unsub",
    "PING_EVENT",
    "PONG_EVENT",
    "OK_EVENT",
    "Payload",
    # parser
    "Parser",
    "Target",
    "Limits",
    "Place",
    "Role",
    # serializer
    "Buffers",
    "connect",
    "pub",
    "pub_line",
    "sub",
    "unsub",
    "ping",
    "pong",
    "info",
    "msg",
    "ok",
    "err",
]
