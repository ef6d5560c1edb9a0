"""Bounds of the parser: memory under a flood (P3), and cost that grows with the bytes, not their square."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest

from natsproto.errors import RemoteProtocolError
from natsproto.wire import Limits, Parser

Way = Callable[[Parser, bytes], None]


def feed(parser: Parser, piece: bytes) -> None:
    parser.feed(piece)


def receive(parser: Parser, piece: bytes) -> None:
    """As an event loop does it with get_buffer and buffer_updated."""
    while piece:
        target = parser.get_buffer()
        count = min(len(target), len(piece))
        target[:count] = piece[:count]
        del target
        piece = piece[count:]
        parser.buffer_updated(count)


LIMITS = Limits(control_line=64 * 1024, info_line=256 * 1024, header_block=64 * 1024, message=512 * 1024)
FLOODS = {
    "payload": b"MSG a 1 524288\r\n" + b"x" * 524288,
    "header": b"HMSG a 1 65536 524288\r\n" + b"x" * 524287,
    "info": b"INFO {" + b" " * 262000,
    "endless info": b"INFO {" + b" " * 2_000_000,
    "endless line": b"-ERR " + b"y" * 2_000_000,
    "huge size": b"MSG a 1 9999999999\r\n" + b"x" * 2_000_000,
    "tiny frames": b"PING\r\n" * 100_000,
    "empty messages": b"MSG a 1 0\r\n\r\n" * 50_000,
}


@pytest.mark.parametrize("way", [feed, receive])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_p3_memory_stays_below_twice_the_limit(flood: bytes, way: Way) -> None:
    pieces = [flood[i : i + 1000] for i in range(0, len(flood), 1000)]
    tracemalloc.start()
    try:
        parser = Parser(limits=LIMITS)
        for piece in pieces:
            way(parser, piece)
    except RemoteProtocolError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= 2 * LIMITS.message


# Each kind with a size at which ten times as much takes the same way through the parser.
GROWTH: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "small frames": (20_000, lambda size: b"MSG a.b 1 16\r\n0123456789abcdef\r\n" * (size // 32)),
    "one payload": (70_000, lambda size: b"MSG a.b 1 %d\r\n%b\r\n" % (size, b"x" * size)),
    "one line": (20_000, lambda size: b'INFO {"a":"' + b"x" * size + b'"}\r\n'),
}


def seconds(data: bytes, way: Way) -> float:
    parser = Parser()
    pieces = [data[i : i + 1] for i in range(len(data))]
    start = time.process_time()
    for piece in pieces:
        way(parser, piece)
    taken = time.process_time() - start
    assert parser.idle
    return taken


@pytest.mark.parametrize("way", [feed, receive])
@pytest.mark.parametrize(("size", "stream"), GROWTH.values(), ids=GROWTH.keys())
def test_cost_is_linear_when_fed_bytewise(size: int, stream: Callable[[int], bytes], way: Way) -> None:
    """Ten times the bytes take at most fifteen times as long (quadratic would be a hundred times).

    One of several tries has to show it: a busy machine makes a try slow, but none of quadratic cost fast.
    """
    small, large = stream(size), stream(10 * size)
    ratios: list[float] = []
    while len(ratios) < 8 and not (ratios and ratios[-1] <= 15):
        ratios.append(seconds(large, way) / seconds(small, way))
    assert min(ratios) <= 15, ratios
