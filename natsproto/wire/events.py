"""The events: what the two sides of a NATS connection send each other, one class per control line.

They are plain slotted classes: constructing a frozen dataclass takes three times as long. Treat events as
values all the same.

No ``repr`` shows credentials, a nonce, or more than a few bytes of a payload.
"""

from __future__ import annotations

from typing import ClassVar

Payload = bytes | bytearray | memoryview


def _short(value: object) -> str:
    """Show a buffer without flooding a log."""
    if isinstance(value, (bytes, bytearray, memoryview)) and len(value) > 64:
        return f"<{len(value)} bytes>"
    return repr(bytes(value) if isinstance(value, (bytearray, memoryview)) else value)


class _Event:
    """Equality and ``repr`` by slots: events of the same class with the same field values are equal."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # events are mutable values

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_short(getattr(self, name))}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle and copy through the constructor; memoryviews, which allow neither, become ``bytes``."""
        names = [name for kind in reversed(type(self).__mro__) for name in getattr(kind, "__slots__", ())]
        values = (getattr(self, name) for name in names)
        return type(self), tuple(bytes(each) if isinstance(each, memoryview) else each for each in values)


class _JsonEvent(_Event):
    """An event whose argument is a JSON object. ``raw`` is its text, which equality ignores."""

    __slots__ = ("data", "raw")

    def __init__(self, data: dict[str, object], raw: bytes = b"") -> None:
        self.data: dict[str, object] = data
        self.raw: bytes = raw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _JsonEvent) or type(other) is not type(self):
            return NotImplemented
        return self.data == other.data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(fields={sorted(self.data)})"  # values may be secrets


class Info(_JsonEvent):
    """``INFO {…}`` from the server: the first line of a connection, and sent again at any time."""

    __slots__ = ()


class Connect(_JsonEvent):
    """``CONNECT {…}`` from the client."""

    __slots__ = ()


class Msg(_Event):
    """``MSG`` or ``HMSG``: a message delivered to a subscription.

    Attributes:
        subject: raw bytes; any peer may have put any bytes but SPACE, TAB and LF there.
        sid: the subscription's id, 1 to 10 digits.
        reply: reply subject or ``None``.
        header: the raw header block from the version line to the final CRLF CRLF, not yet parsed;
            ``None`` for ``MSG``.
        payload: ``bytes``, or a memoryview of the destination that ``Parser(place=…)`` returned.
    """

    __slots__ = ("subject", "sid", "reply", "header", "payload")  # noqa: RUF023  # the order of repr

    def __init__(
        self,
        subject: bytes,
        sid: bytes,
        reply: bytes | None = None,
        header: bytes | None = None,
        payload: Payload = b"",
    ) -> None:
        self.subject: bytes = subject
        self.sid: bytes = sid
        self.reply: bytes | None = reply
        self.header: bytes | None = header
        self.payload: Payload = payload


class Pub(_Event):
    """``PUB`` or ``HPUB``: a message published by a client. Fields as in :class:`Msg`."""

    __slots__ = ("subject", "reply", "header", "payload")  # noqa: RUF023  # the order of repr

    def __init__(
        self,
        subject: bytes,
        reply: bytes | None = None,
        header: bytes | None = None,
        payload: Payload = b"",
    ) -> None:
        self.subject: bytes = subject
        self.reply: bytes | None = reply
        self.header: bytes | None = header
        self.payload: Payload = payload


class Sub(_Event):
    """``SUB subject [queue] sid``."""

    __slots__ = ("subject", "queue", "sid")  # noqa: RUF023  # the order of repr

    def __init__(self, subject: bytes, queue: bytes | None, sid: bytes) -> None:
        self.subject: bytes = subject
        self.queue: bytes | None = queue
        self.sid: bytes = sid


class Unsub(_Event):
    """``UNSUB sid [max_msgs]``; without ``max_msgs`` the subscription ends at once."""

    __slots__ = ("sid", "max_msgs")  # noqa: RUF023  # the order of repr

    def __init__(self, sid: bytes, max_msgs: int | None = None) -> None:
        self.sid: bytes = sid
        self.max_msgs: int | None = max_msgs


class Ping(_Event):
    """``PING``, from either side."""

    __slots__ = ()


class Pong(_Event):
    """``PONG``, from either side."""

    __slots__ = ()


class Ok(_Event):
    """``+OK``, sent by a server to a verbose client."""

    __slots__ = ()


class Err(_Event):
    """``-ERR 'text'``: ``text`` without its quotes; bytes that are not UTF-8 appear as ``\\xNN``."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text: str = text


PING_EVENT = Ping()
PONG_EVENT = Pong()
OK_EVENT = Ok()

Event = Info | Connect | Msg | Pub | Sub | Unsub | Ping | Pong | Ok | Err
"""Everything a parser can return; its role decides which of them."""
