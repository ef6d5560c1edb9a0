"""What comes out of a parser depends on the bytes alone: events, error text and position, however split."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from natsproto.errors import RemoteProtocolError
from natsproto.wire import Limits, Parser

Pieces = list[bytes]

FRAGMENTS = [b"-ERR", b"-err", b"-E", b"RR", b" ", b"\t", b"\r", b"\n", b"\r\n", b"'", b"text", b"'it''"]
FRAGMENTS += [b"\xff", b"+OK", b"PING", b"pInG\r\n", b"INFO", b"{}", b"\x0b", b"X" * 20, b"z" * 70]
FRAGMENTS += [b"MSG a 1 2\r\nhi\r\n", b"MSG a 1 ", b"100\r\n" + b"y" * 100 + b"\r\n", b"PUB a 3\r\nabc\r\n"]
FRAGMENTS += [b"HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n", b"CONNECT {}\r\n", b"SUB a b 1\r\n"]
STREAMS = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=6).map(b"".join)
LIMITS = [
    None,
    Limits(control_line=24, info_line=40),
    Limits(control_line=3, info_line=6),
    Limits(info_line=2),
]


def outcome(pieces: Pieces, role: Any, limits: Limits | None, *, fed: bool) -> tuple[Any, ...]:
    parser = Parser(role, limits=limits, buffer_size=64)
    events: list[Any] = []
    try:
        for piece in pieces:
            if fed:
                events += parser.feed(piece)
                continue
            while piece:
                target = parser.get_buffer()
                count = min(len(target), len(piece))
                target[:count] = piece[:count]
                piece = piece[count:]
                events += parser.buffer_updated(count)
    except RemoteProtocolError as exc:
        return events + exc.events, str(exc), exc.position
    return events, parser.position, parser.buffered


@given(STREAMS, st.lists(st.integers(0, 200), max_size=4), st.sampled_from(LIMITS), st.booleans())
@example(b"-ERRtext 'a'\r\n", [1], None, True)
@example(b"-ER\n", [1], None, True)
@example(b"INFO-ERR", [], Limits(info_line=2), False)
@example(b"INFO\r\n", [], Limits(info_line=2), False)
@example(b"HTTP/1.1 400 Bad Request\r\n", [3], None, True)
def test_any_partition(stream: bytes, cuts: list[int], limits: Limits | None, fed: bool) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    some = [stream[a:b] for a, b in itertools.pairwise(edges)]
    each = [stream[i : i + 1] for i in range(len(stream))]
    for role in ("client", "server"):
        whole = outcome([stream], role, limits, fed=True)
        assert outcome([stream], role, limits, fed=False) == whole
        assert outcome(some, role, limits, fed=fed) == whole
        assert outcome(each, role, limits, fed=not fed) == whole


ERRS = [
    b"-ERR 'a b'",
    b"-ERR",
    b"-err  'x' ",
    b"-ERR\t'\xff'",
    b"-ERR ''",
    b"-ERR '",
    b"-ERRx",
    b"-ERR\r",
    b"-ER",
]


@pytest.mark.parametrize("line", ERRS)
def test_every_partition_of_an_err_line(line: bytes) -> None:
    """All 2^n of them."""
    stream = line + b"\r\nPING\r\n"
    whole = outcome([stream], "client", None, fed=True)
    head = stream[: min(len(line) + 2, 12)]
    for cuts in itertools.product((False, True), repeat=len(head) - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(stream)]
        pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
        assert outcome(pieces, "client", None, fed=True) == whole
        assert outcome(pieces, "client", None, fed=False) == whole


# --- what is only announced ---------------------------------------------------------------------------

HUGE = 60_000_000
WIDE = Limits(header_block=HUGE, message=2 * HUGE)
ANNOUNCED = {
    "message": (b"MSG a 1 %d\r\n" % HUGE, None),
    "header": (b"HMSG a 1 %d %d\r\n" % (HUGE, HUGE + 5), WIDE),
    "message after a header": (b"HMSG a 1 12 %d\r\nNATS/1.0\r\n\r\n" % HUGE, None),
}


def feed(parser: Parser, data: bytes) -> list[Any]:
    return parser.feed(data)


def receive(parser: Parser, data: bytes) -> list[Any]:
    events = []
    while data:
        target = parser.get_buffer()  # the view before is still held: as an event loop does it
        count = min(len(target), len(data))
        target[:count] = data[:count]
        events += parser.buffer_updated(count)
        data = data[count:]
    return events


WAYS = pytest.mark.parametrize("way", [feed, receive])


@WAYS
@pytest.mark.parametrize(("line", "limits"), ANNOUNCED.values(), ids=ANNOUNCED)
@pytest.mark.parametrize("came", [0, 1, 5000])
def test_nothing_is_taken_for_what_is_announced(
    way: Callable[[Parser, bytes], list[Any]], line: bytes, limits: Limits | None, came: int
) -> None:
    parser = Parser(limits=limits)
    way(parser, b"PING\r\n")
    tracemalloc.start()
    try:
        way(parser, line + b"x" * came)
        parser.get_buffer()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@WAYS
@pytest.mark.parametrize("header", [0, 12, 3_000_000])
@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 3_000_000, 4 << 20])
@pytest.mark.parametrize("piece", [77_777, 1 << 20, 1 << 30])
def test_large_messages_come_whole(
    way: Callable[[Parser, bytes], list[Any]], header: int, size: int, piece: int
) -> None:
    block = b"NATS/1.0\r\n" + b"h" * (header - 12) + b"\r\n" if header else b""
    payload = bytes(range(256)) * (size // 256) + b"!" * (size % 256)
    line = b"HMSG a 1 %d %d\r\n" % (header, header + size) if header else b"MSG a 1 %d\r\n" % size
    stream = b"PING\r\n" + (line + block + payload + b"\r\n") * 2 + b"PONG\r\n"
    parser = Parser(limits=WIDE)
    events = []
    for at in range(0, len(stream), piece):
        events += way(parser, stream[at : at + piece])
    assert [type(event).__name__ for event in events] == ["Ping", "Msg", "Msg", "Pong"]
    for event in events[1:3]:
        assert type(event.payload) is bytes
        assert event.payload == payload
        assert (event.header or b"") == block
    assert parser.idle


@WAYS
def test_growing_is_bounded(way: Callable[[Parser, bytes], list[Any]]) -> None:
    """At most twice what came, and what came with the last piece."""
    parser = Parser()
    piece = b"x" * 100_000
    tracemalloc.start()
    try:
        way(parser, b"MSG a 1 60000000\r\n")
        for count in range(1, 100):
            way(parser, piece)
            assert tracemalloc.get_traced_memory()[0] < 2 * count * len(piece) + 2_000_000
        assert tracemalloc.get_traced_memory()[1] < 4 * 100 * len(piece)
    finally:
        tracemalloc.stop()
