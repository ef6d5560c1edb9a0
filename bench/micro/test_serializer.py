"""How fast publishes become buffers: with all checks, the control line alone, and nats-py's joined frame.

Run: ``pytest bench/micro/test_serializer.py --benchmark-enable --benchmark-group-by=param:size,param:kind``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from natsproto.wire import Parser, Pub
from natsproto.wire.serializer import pub, pub_line

SIZES = [0, 16, 128, 1024, 128 * 1024, 1024 * 1024]
COUNT = 500
SUBJECT = "$O.bucket.C.0123456789ABCDEFGHIJKL"
REPLY = "_INBOX.0123456789ABCDEFGHIJKL.a.17"
HEADER = b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n"

Serializer = Callable[[bytes, "bytes | None"], list[Any]]


def checked(payload: bytes, header: bytes | None) -> list[Any]:
    frames = [pub(SUBJECT, payload, reply=REPLY, header=header) for _ in range(COUNT)]
    return frames[-1]


def line_only(payload: bytes, header: bytes | None) -> list[Any]:
    """Like the hot path: the subject was checked once, buffers are passed on."""
    subject, reply, head = SUBJECT.encode(), REPLY.encode(), header or b""
    for _ in range(COUNT):
        frame = [pub_line(subject, reply, len(head), len(payload)), head, payload, b"\r\n"]
    return frame


def nats_py(payload: bytes, header: bytes | None) -> list[Any]:
    command = pytest.importorskip("nats.protocol.command")
    for _ in range(COUNT):
        if header is None:
            frame = command.pub_cmd(SUBJECT, REPLY, payload)
        else:
            frame = command.hpub_cmd(SUBJECT, REPLY, header, payload)
    return [frame]


@pytest.mark.parametrize("kind", ["pub", "hpub"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("serialize", [checked, line_only, nats_py])
def test_serializer(measure: Any, serialize: Serializer, size: int, kind: str) -> None:
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    header = HEADER if kind == "hpub" else None
    frame = measure(serialize, payload, header, count=COUNT)
    (event,) = Parser("server").feed(b"".join(frame))
    assert event == Pub(SUBJECT.encode(), REPLY.encode(), header, payload)
