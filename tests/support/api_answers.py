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


def stored(seq: int, pending: int | None = None, extra: bytes = b"", line: bytes = b"NATS/1.0") -> bytes:
    block = (
        line + b"\r\n" + extra + b"Nats-Stream: S\r\nNats-Subject: s.a\r\nNats-Sequence: %d\r\n" % seq + TIME
    )
    return block + (b"" if pending is None else b"Nats-Num-Pending: %d\r\n" % pending) + b"\r\n"
