"""Frames of every kind, cut at every byte: what they hold is passed on, and what is broken is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("websockets")
from websockets.frames import Frame, Opcode

from natsproto.errors import RemoteProtocolError, StaleConnectionError
from natsproto.transport import websocket
from support.websocket import Ends


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


def long(first: int, size: int, width: int, data: bytes = b"") -> bytes:
    """A frame whose length is in ``width`` bytes."""
    return bytes((first, {2: 126, 8: 127}[width])) + size.to_bytes(width, "big") + data


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """In two, at each byte; and byte by byte."""
    for at in range(len(data) + 1):
        yield [data[:at], data[at:]]
    yield [data[at : at + 1] for at in range(len(data))]


SOUND = {
    "small": (frame(Opcode.BINARY, b"abc") + frame(Opcode.BINARY, b"d"), b"abcd"),
    "empty": (frame(Opcode.BINARY) + frame(Opcode.BINARY, b"a") + frame(Opcode.BINARY), b"a"),
    "a length in two bytes": (
        frame(Opcode.BINARY, b"a" * 126) + frame(Opcode.BINARY, b"b"),
        b"a" * 126 + b"b",
    ),
    "fragments": (
        frame(Opcode.BINARY, b"a", fin=False)
        + frame(Opcode.CONT, b"", fin=False)
        + frame(Opcode.PONG)
        + frame(Opcode.CONT, b"b" * 130, fin=False)
        + frame(Opcode.CONT, b"c")
        + frame(Opcode.BINARY, b"d"),
        b"a" + b"b" * 130 + b"cd",
    ),
    "fragments with nothing in them": (
        frame(Opcode.BINARY, b"", fin=False) + frame(Opcode.CONT) + frame(Opcode.BINARY, b"a"),
        b"a",
    ),
}


@pytest.mark.parametrize("kind", SOUND)
async def test_sound_frames(kind: str) -> None:
    """Also those that come with the answer to the handshake."""
    data, held = SOUND[kind]
    for pieces in cuts(data):
        ends = Ends()
        for piece in pieces:
            ends.client.data_received(piece)
        assert b"".join(ends.received) == held, pieces
        assert ends.failure is None
        assert ends.below.written == []
    for at in range(len(Ends(opened=False).answer) + len(data) + 1):
        ends = Ends(opened=False)
        whole = ends.answer + data  # each handshake has its own answer
        for piece in (whole[:at], whole[at:]):
            ends.client.data_received(piece)
        assert b"".join(ends.received) == held, at
        assert ends.failure is None


async def test_a_length_in_eight_bytes() -> None:
    """Cut at each byte of the head, and near the end."""
    size = 1 << 16
    data = frame(Opcode.BINARY, bytes(size)) + frame(Opcode.BINARY, b"x")
    for at in (*range(12), *range(len(data) - 5, len(data) + 1)):
        ends = Ends()
        ends.client.data_received(data[:at])
        ends.client.data_received(data[at:])
        assert b"".join(ends.received) == bytes(size) + b"x"
        assert ends.failure is None


async def test_pings_are_answered_wherever_they_are_cut() -> None:
    texts = [b"", b"x", b"y" * 125]
    data = b"".join(frame(Opcode.PING, text) for text in texts) + frame(Opcode.BINARY, b"z")
    for pieces in cuts(data):
        ends = Ends()
        for piece in pieces:
            ends.client.data_received(piece)
        ends.peer.receive_data(b"".join(ends.below.written))
        answers = ends.peer.events_received()
        assert [(answer.opcode, bytes(answer.data)) for answer in answers] == [  # type: ignore[union-attr]
            (Opcode.PONG, text) for text in texts
        ]
        assert ends.received == [b"z"]


BEGUN = frame(Opcode.BINARY, b"ab", fin=False)
LIMIT = 200

BROKEN = {
    "reserved bit 1": (b"\xc2", b"\x01x", "reserved bits"),
    "reserved bit 2": (b"\xa2", b"\x01x", "reserved bits"),
    "reserved bit 3": (b"\x92", b"\x01x", "reserved bits"),
    "reserved bit in a ping": (b"\xc9\x01", b"x", "reserved bits"),
    "masked": (b"\x82", b"\x81\0\0\0\0x", "incorrect masking"),
    "masked and empty": (b"\x82", b"\x80\0\0\0\0", "incorrect masking"),
    "a long masked ping": (b"\x89", b"\xfe\x00\x7e", "incorrect masking"),
    "masked ping": (b"\x89", b"\x80\0\0\0\0", "incorrect masking"),
    **{
        f"opcode {code}": (bytes((0x80 | code,)), b"\x01x", "invalid opcode")
        for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "text": (b"\x81", b"\x01x", "text frame"),
    "begun text": (b"\x01", b"\x01x", "text frame"),
    "ping in fragments": (b"\x09\x01", b"x", "fragmented control frame"),
    "close in fragments": (b"\x08", b"\x00", "fragmented control frame"),
    "a long ping": (b"\x89", b"\x7e\x00\x7e" + bytes(126), "control frame too long"),
    "a huge pong": (b"\x8a", b"\x7f" + (1 << 40).to_bytes(8, "big"), "control frame too long"),
    "a short ping with a long length": (b"\x89", b"\x7e\x00\x01x", "control frame too long"),
    "goes on without a beginning": (b"\x80", b"\x01x", "unexpected continuation"),
    "goes on after the end": (
        BEGUN + frame(Opcode.CONT, b"c") + b"\x00",
        b"\x01x",
        "unexpected continuation",
    ),
    "begins in a message": (BEGUN + b"\x82", b"\x01x", "expected a continuation"),
    "text in a message": (BEGUN + b"\x81", b"\x01x", "expected a continuation"),
    "close in a message": (BEGUN + b"\x88\x02\x03", b"\xe8", "incomplete fragmented message"),
    "close with half a code": (b"\x88\x01", b"\x03", "close frame too short"),
    "close with an unknown code": (b"\x88\x02\x00", b"\x01", "invalid status code"),
    "close with a broken reason": (b"\x88\x03\x03\xe8", b"\xff", "utf-8"),
    "above the limit": (b"\x82\x7e\x00", b"\xc9", "a message of 201 bytes"),
    "above the limit, in eight bytes": (b"\x82\x7f\0\0\0\0\0\x01\0", b"\0", "a message of 65536 bytes"),
    "negative": (b"\x82\x7f" + b"\xff" * 7, b"\xff", "a message of 18446744073709551615 bytes"),
    "above the limit in fragments": (BEGUN + b"\x80\x7e\x00", b"\xc7", "a message of 201 bytes"),
    "a length of no need of two bytes": (b"\x82\x7e\x00", b"\x7d", "more bytes than it needs"),
    "a length of no need of eight bytes": (b"\x82\x7f\0\0\0\0\0\0\xff", b"\xff", "more bytes than it needs"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_broken_frames(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused at the latest when their last byte is here, and nothing after it is passed on."""
    monkeypatch.setattr(websocket, "MAX_FRAME", LIMIT)
    first, second, why = BROKEN[kind]
    before = frame(Opcode.BINARY, b"before")
    data = before + first + second
    for pieces in cuts(data):
        ends = Ends()
        for piece in pieces:
            ends.client.data_received(piece)
        assert isinstance(ends.failure, RemoteProtocolError), (pieces, ends.received)
        assert why in str(ends.failure)
        assert ends.below.aborted
        passed = b"".join(ends.received)
        assert passed in (b"before", b"beforeab", b"beforeabc")
        assert ends.below.written == [], "no answer"
        ends.client.data_received(frame(Opcode.BINARY, b"after"))
        assert b"".join(ends.received) == passed
    ends = Ends()
    ends.client.data_received(before + first)
    assert ends.failure is None, "not before it is known"


async def test_the_limit_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one frame, and in several: each message has it anew."""
    monkeypatch.setattr(websocket, "MAX_FRAME", LIMIT)
    ends = Ends()
    for _ in range(2):
        ends.client.data_received(frame(Opcode.BINARY, bytes(LIMIT)))
        ends.client.data_received(frame(Opcode.BINARY, bytes(LIMIT - 1), fin=False))
        ends.client.data_received(frame(Opcode.PING, bytes(125)))
        ends.client.data_received(frame(Opcode.CONT, b"", fin=False))
        ends.client.data_received(frame(Opcode.CONT, b"x"))
    assert ends.failure is None
    assert len(b"".join(ends.received)) == 4 * LIMIT


@pytest.mark.parametrize("code", [b"", b"\x03\xe8", b"\x03\xe9going"])
async def test_close(code: bytes) -> None:
    for pieces in cuts(frame(Opcode.BINARY, b"a") + frame(Opcode.CLOSE, code)):
        ends = Ends()
        for piece in pieces:
            ends.client.data_received(piece)
        assert isinstance(ends.failure, StaleConnectionError)
        assert ends.received == [b"a"]
        ends.peer.receive_data(b"".join(ends.below.written))
        (answer,) = ends.peer.events_received()
        assert answer.opcode is Opcode.CLOSE  # type: ignore[union-attr]
