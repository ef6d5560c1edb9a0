"""What a direct get's reply says of itself: the server's lines come after those of the stored message."""

from __future__ import annotations

import pytest

from natsproto.jetstream.direct_get import answering_stream, header_bytes, header_int, status_error

OWN = b"Nats-Stream: S\r\nNats-Subject: a.b\r\nNats-Sequence: 7\r\nNats-Time-Stamp: t\r\n\r\n"


@pytest.mark.parametrize(
    ("stored", "stream"),
    [
        (b"NATS/1.0\r\n", b"S"),
        (b"NATS/1.0\r\nNats-Stream: X\r\n", b"S"),
        (b"NATS/1.0\r\nNats-Stream: X\r\nNats-Subject: c\r\n", b"S"),
        (b"NATS/1.0\r\nX: ", None),  # the server has cut off the end, and its first line is the rest of X
        (b"NATS/1.0\r\nNats-Stream: X\r\nX: ", None),
        (b"NATS/1.0\r\nNats-Stream: X\r\nNats-Subject: c\r\nX: ", None),
        (b"NATS/1.0\r\nNats-Subject: c\r\nX: ", None),
        (b"NATS/1.0\r\nNats-Stream: X", None),
        (b"NATS/1.0\r\nNats-Stream: ", None),
    ],
)
def test_which_stream_has_answered(stored: bytes, stream: bytes | None) -> None:
    assert answering_stream(stored + OWN) == stream


def test_without_the_lines_of_a_server() -> None:
    assert answering_stream(b"NATS/1.0\r\n\r\n") is None
    assert answering_stream(b"NATS/1.0\r\nNats-Stream: X\r\n\r\n") is None


def test_the_last_line_counts() -> None:
    block = b"NATS/1.0\r\nNats-Sequence: 1\r\nNats-Subject: x\r\n" + OWN
    assert header_int(block, b"Nats-Sequence") == 7
    assert header_bytes(block, b"Nats-Subject") == b"a.b"
    assert header_int(b"NATS/1.0\r\nN: 1x\r\n\r\n", b"N") is None
    assert header_int(b"NATS/1.0\r\nN: 12345678901234567890\r\n\r\n", b"N") is None
    assert header_bytes(b"NATS/1.0\r\n\r\n", b"N") is None


def test_a_refusal_of_megabytes_is_not_repeated() -> None:
    assert len(str(status_error(b"NATS/1.0 408 " + b"x" * 1_000_000 + b"\r\n\r\n", "s"))) < 600
