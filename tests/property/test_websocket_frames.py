"""What the transport makes of a stream of frames is what the library's own parser makes of it.

The library keeps a frame until it is there as a whole. The transport passes on what a frame holds as it
comes, and refuses a broken frame as soon as that is known.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("websockets")
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side

from natsproto.errors import StaleConnectionError
from natsproto.transport import websocket
from support.websocket import Ends

LIMIT = 300


class Outcome(NamedTuple):
    """What was passed on, how it ended ("broken", "closed", or not at all), and what was answered."""

    passed: bytes
    end: str
    answers: list[tuple[int, bytes]]


def read(written: bytes) -> list[tuple[int, bytes]]:
    """As the peer reads it."""
    peer = Protocol(Side.SERVER)
    peer.receive_data(written)
    return [(event.opcode, bytes(event.data)) for event in peer.events_received()]  # type: ignore[union-attr]


def by_the_library(stream: bytes) -> Outcome:
    protocol = Protocol(Side.CLIENT, max_size=None)
    protocol.receive_data(stream)
    frames: list[Any] = protocol.events_received()  # type: ignore[assignment]
    passed, size, closed = b"", 0, False
    for frame in frames:
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):
            size = len(frame.data) + (size if frame.opcode is Opcode.CONT else 0)
            if size > LIMIT:
                return Outcome(passed, "broken", [])
            passed += bytes(frame.data)
        elif frame.opcode is Opcode.TEXT:
            return Outcome(passed, "broken", [])
        closed = frame.opcode is Opcode.CLOSE
    if protocol.parser_exc is not None:
        return Outcome(passed, "broken", [])
    return Outcome(passed, "closed" if closed else "", read(b"".join(protocol.data_to_send())))


async def _feed(pieces: list[bytes]) -> tuple[Outcome, str]:
    ends = Ends()
    for piece in pieces:
        ends.client.data_received(piece)
    failure, passed = ends.failure, b"".join(ends.received)
    assert ends.below.aborted == (failure is not None)
    if failure is not None and not isinstance(failure, StaleConnectionError):
        return Outcome(passed, "broken", []), str(failure)
    return Outcome(passed, "closed" if failure else "", read(b"".join(ends.below.written))), str(failure)


def by_the_transport(pieces: list[bytes]) -> tuple[Outcome, str]:
    """The outcome, and the error in words."""
    with mock.patch.object(websocket, "MAX_FRAME", LIMIT):
        return asyncio.run(_feed(pieces))


def frame(first: int, mask: int, data: bytes) -> bytes:
    size = len(data)
    length = bytes([mask | size]) if size < 126 else bytes([mask | 126]) + size.to_bytes(2, "big")
    return bytes([first]) + length + data


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(edge for edge in at if edge < len(stream)), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


FIRST = st.one_of(st.sampled_from([0x82, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0x81]), st.integers(0, 255))
SIZES = st.one_of(st.integers(0, 5), st.sampled_from([124, 125, 126, 127, 200, LIMIT - 1, LIMIT, LIMIT + 1]))
DATA = SIZES.map(lambda size: b"abcdefg"[:size] + bytes(max(0, size - 7)))
SHORT = st.binary(max_size=5)
CONTROL = st.builds(frame, st.sampled_from([0x89, 0x8A]), st.just(0), SHORT)
MIDDLE = st.one_of(CONTROL, st.builds(frame, st.just(0x00), st.just(0), SHORT))
MESSAGE = st.builds(
    lambda first, middle, last: frame(0x02, 0, first) + b"".join(middle) + frame(0x80, 0, last),
    st.one_of(SHORT, DATA),
    st.lists(MIDDLE, max_size=4),
    SHORT,
)
WHOLE = st.builds(frame, st.just(0x82), st.just(0), st.one_of(SHORT, DATA))
SOUND = st.lists(st.one_of(WHOLE, CONTROL, MESSAGE), max_size=6).map(b"".join)
HELD = st.one_of(DATA, st.sampled_from([b"", b"\x03\xe8end", b"\x03", b"\x00\x01", b"\x03\xe8\xff"]))
ANYHOW = st.lists(st.builds(frame, FIRST, st.sampled_from([0] * 9 + [0x80]), HELD), max_size=3).map(b"".join)
STREAMS = st.builds(bytes.__add__, SOUND, ANYHOW)
EDGES = st.lists(st.integers(0, 600), max_size=6)


@given(STREAMS, EDGES)
@example(b"\x02\x01a\x89\x01p\x00\x01b\x80\x01c\x82\x01d\x88\x02\x03\xe8\x82\x01e", [])
@example(b"\x02\x01a\x88\x02\x03\xe8", [1])
@example(b"\x02\x00\x80\x01a", [3])
def test_whole_frames(stream: bytes, edges: list[int]) -> None:
    expected = by_the_library(stream)
    for pieces in ([stream], cut(stream, edges), [stream[i : i + 1] for i in range(len(stream))]):
        found, why = by_the_transport(pieces)
        assert found == expected, why


@given(STREAMS, st.integers(0, 600), EDGES)
@example(b"\x82\x05abcde", 4, [])
def test_a_frame_that_is_not_all_here(stream: bytes, size: int, edges: list[int]) -> None:
    """What there is of a sound one is passed on. A broken one may be refused already."""
    found, why = by_the_transport(cut(stream[:size], edges))
    before, after = by_the_library(stream[:size]), by_the_library(stream)
    assert found.passed.startswith(before.passed), why
    assert after.passed.startswith(found.passed), why
    if before.end:
        assert found == before, why
    else:
        assert found.end in ("", after.end), why


@given(st.binary(max_size=600) | st.builds(bytes.__add__, STREAMS, st.binary(max_size=20)), EDGES)
@example(b"\x82\x7e\x00\x01a", [])
@example(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", [3])
def test_any_bytes(stream: bytes, edges: list[int]) -> None:
    """Only of a length in more bytes than it needs the library thinks otherwise."""
    found, why = by_the_transport(cut(stream, edges))
    expected = by_the_library(stream)
    if "more bytes than" in why or "control frame too long" in why:
        assert found.end == "broken"
        assert expected.passed.startswith(found.passed)
    elif expected.end:
        assert found == expected, why
    else:
        assert found.passed.startswith(expected.passed), why
