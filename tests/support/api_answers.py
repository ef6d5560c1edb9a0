"""What the API answers, scripted, and requests as documents."""

from __future__ import annotations

import json
from typing import Any

from natsproto.wire import Pub
from support.fake_session import FakeServer

NOBODY = b"NATS/1.0 503\r\n\r\n"
TIME = b"Nats-Time-Stamp: 2024-01-01T00:00:00Z\r\n"


def body(pub: Pub) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bytes(pub.payload))
    return document


def answering(server: FakeServer, *answers: dict[str, Any] | bytes) -> None:
    """Answer the requests to come, one after the other; bytes are a status line."""
    left = list(answers)

    def on_pub(pub: Pub) -> None:
        answer = left.pop(0)
        if isinstance(answer, bytes):
            server.reply(pub, b"", answer)
        else:
            server.reply(pub, answer)

    server.session.on_pub = on_pub


def stored(
    seq: int,
    pending: int | None = None,
    extra: bytes = b"",
    line: bytes = b"NATS/1.0",
    *,
    subject: str = "s.a",
    stream: str = "S",
    previous: int | None = None,
) -> bytes:
    """The header with which a server answers a direct get, of a batch if there is ``pending``."""
    own = f"Nats-Stream: {stream}\r\nNats-Subject: {subject}\r\nNats-Sequence: {seq}\r\n".encode() + TIME
    for name, number in ((b"Nats-Num-Pending", pending), (b"Nats-Last-Sequence", previous)):
        own += b"" if number is None else b"%b: %d\r\n" % (name, number)
    return line + b"\r\n" + extra + own + b"\r\n"


def eob(left: int, last: int, up_to: int | None = 99) -> bytes:
    """The end of a batch."""
    end = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: %d\r\nNats-Last-Sequence: %d\r\n" % (left, last)
    return end + (b"" if up_to is None else b"Nats-UpTo-Sequence: %d\r\n" % up_to) + b"\r\n"


def pages(server: FakeServer, *answers: list[bytes]) -> None:
    """Answer each request to come with messages without payload."""
    left = list(answers)

    def on_pub(pub: Pub) -> None:
        for header in left.pop(0):
            server.reply(pub, b"", header)

    server.session.on_pub = on_pub
