"""What a direct get's reply says of itself: the server's lines come after those of the stored message."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from natsproto.errors import RemoteProtocolError
from natsproto.jetstream.direct_get import (
    BatchSlot,
    answering_stream,
    batch_int,
    header_bytes,
    header_int,
    status_error,
    stored_message,
)
from natsproto.wire import Msg

OWN = b"Nats-Stream: S\r\nNats-Subject: a.b\r\nNats-Sequence: 7\r\nNats-Time-Stamp: t\r\n\r\n"


@pytest.mark.parametrize(
    ("stored", "stream"),
    [
        (b"NATS/1.0\r\n", b"S"),
        (b"NATS/1.0\r\nNats-Stream: X\r\n", b"S"),
        (b"NATS/1.0\r\nNats-Stream: X\r\nNats-Subject: c\r\n", b"S"),
        (b"NATS/1.0\r\nX: ", b"S"),  # the server has cut off the end, and its first line is the rest of X
        (b"NATS/1.0\r\nNats-Stream: X\r\nX: ", b"S"),
        (b"NATS/1.0\r\nNats-Stream: X\r\nNats-Subject: c\r\nX: ", b"S"),
        (b"NATS/1.0\r\nNats-Subject: c\r\nX: ", b"S"),
        (b"NATS/1.0\r\nNats-Stream: X", b"S"),
        (b"NATS/1.0\r\nNats-Stream: ", b"S"),
        (b"NATS/1", b"S"),
    ],
)
def test_which_stream_has_answered(stored: bytes, stream: bytes | None) -> None:
    assert answering_stream(stored + OWN) == stream


def test_without_the_lines_of_a_server() -> None:
    assert answering_stream(b"NATS/1.0\r\n\r\n") is None
    assert answering_stream(b"NATS/1.0\r\nNats-Stream: X\r\n\r\n") is None
    assert answering_stream(b"NATS/1.0\r\nNats-Stream: X\r\nY: 1\r\nNats-Subject: c\r\n\r\n") is None
    assert answering_stream(b"NATS/1.0\r\nNats-Subject: c\r\nNats-Stream: X\r\n\r\n") is None


def test_the_last_line_counts() -> None:
    block = b"NATS/1.0\r\nNats-Sequence: 1\r\nNats-Subject: x\r\n" + OWN
    assert header_int(block, b"Nats-Sequence") == 7
    assert header_bytes(block, b"Nats-Subject") == b"a.b"
    assert header_int(b"NATS/1.0\r\nN: 1x\r\n\r\n", b"N") is None
    assert header_int(b"NATS/1.0\r\nN: 12345678901234567890\r\n\r\n", b"N") is None
    assert header_bytes(b"NATS/1.0\r\n\r\n", b"N") is None


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"Nats-Rollup: sub\r\n",
        b"Nats-Sequence: 1\r\nNats-Subject: x\r\nNats-Time-Stamp: never\r\n",
        b"Nats-Subject: x\r\nNats-Sequence: 1\r\nNats-Time-Stamp: 2020-01-01T00:00:00Z\r\n",
    ],
)
@pytest.mark.parametrize("more", [b"", b"Nats-Num-Pending: 5\r\n"])
@pytest.mark.parametrize("seq", [b"7", b"9999999999999999999"])
def test_the_lines_of_the_server_are_read(stored: bytes, more: bytes, seq: bytes) -> None:
    own = OWN.replace(b": t", b": 2026-01-01T00:00:00Z").replace(b"Sequence: 7", b"Sequence: " + seq)
    block = b"NATS/1.0\r\n" + stored + own[:-2] + more + b"\r\n"
    message = stored_message(Msg(b"r", b"1", None, block, b"x"))
    assert (message.subject, message.seq, message.data, message.header) == ("a.b", int(seq), b"x", block)
    assert message.time == datetime(2026, 1, 1, tzinfo=UTC)
    assert message.num_pending == (5 if more else None)


@pytest.mark.parametrize(
    "lines",
    [
        b"Nats-Subject: a.b\r\nNats-Sequence: 7x\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n",
        b"Nats-Subject: a.b\r\nNats-Sequence: 7\r\nNats-Time-Stamp: never\r\n",
        b"Nats-Subject: a.b\r\nNats-Sequence: 7\r\n",
        b"Nats-Sequence: 7\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n",
    ],
)
def test_no_lines_of_a_server(lines: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        stored_message(Msg(b"r", b"1", None, b"NATS/1.0\r\n" + lines + b"\r\n", b"x"))


def test_a_number_that_the_writer_stored_is_not_the_servers() -> None:
    stored = b"NATS/1.0\r\nNats-Num-Pending: 7\r\nNats-Last-Sequence: 3\r\n"
    block = stored + OWN.replace(b": t", b": 2026-01-01T00:00:00Z")
    assert stored_message(Msg(b"r", b"1", None, block, b"x")).num_pending is None
    assert batch_int(block, b"Nats-Last-Sequence") is None
    block = block[:-2] + b"Nats-Num-Pending: 5\r\nNats-Last-Sequence: 6\r\n\r\n"
    assert stored_message(Msg(b"r", b"1", None, block, b"x")).num_pending == 5
    assert batch_int(block, b"Nats-Last-Sequence") == 6
    assert batch_int(b"NATS/1.0 204 EOB\r\nNats-Last-Sequence: 6\r\n\r\n", b"Nats-Last-Sequence") == 6


def test_a_refusal_of_megabytes_is_not_repeated() -> None:
    assert len(str(status_error(b"NATS/1.0 408 " + b"x" * 1_000_000 + b"\r\n\r\n", "s"))) < 600


@pytest.mark.parametrize(
    "subject",
    [b"b", b"a.b", b"x.a", b"a\r\nNats-Subject: b", b"$O.b.C.n", None],
    ids=["another", "longer", "ends so", "said by its writer", "of another bucket", "none"],
)
def test_messages_of_another_subject(subject: bytes | None) -> None:
    """They change nothing: not what is taken next, nor how many may come."""
    taken: list[int | None] = []
    ends: list[object] = []
    slot = BatchSlot(b"API", lambda msg, seq: taken.append(seq), ends.append, most=2, only="a")

    def come(subject: bytes | None, seq: int) -> None:
        line = b"" if subject is None else b"Nats-Subject: %b\r\n" % subject
        header = b"NATS/1.0\r\nNats-Stream: S\r\n%bNats-Sequence: %d\r\n\r\n" % (line, seq)
        slot.on_reply(b"", Msg(b"inbox", b"1", None, header, b"x"))

    for seq in range(90, 99):
        come(subject, seq)
    come(b"a", 1)
    come(b"b\r\nNats-Subject: a", 2)  # its writer's header is not the server's
    assert (taken, ends) == ([1, 2], [])
