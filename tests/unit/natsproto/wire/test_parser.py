"""The parser's rules, one test (or one table row) each. Splitting is covered by the property tests too."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from natsproto.errors import RemoteProtocolError
from natsproto.wire import Connect, Err, Event, Info, Limits, Msg, Ok, Parser, Ping, Pong, Pub, Sub, Unsub


def feed_whole(parser: Parser, data: bytes) -> list[Event]:
    return parser.feed(data)


def feed_bytewise(parser: Parser, data: bytes) -> list[Event]:
    return [event for i in range(len(data)) for event in parser.feed(data[i : i + 1])]


def feed_buffered(parser: Parser, data: bytes) -> list[Event]:
    """As an event loop with a BufferedProtocol does it."""
    events: list[Event] = []
    view = memoryview(data)
    while view:
        target = parser.get_buffer()
        assert len(target) > 0
        count = min(len(target), len(view))
        target[:count] = view[:count]
        view = view[count:]
        events += parser.buffer_updated(count)
    return events


def feed_buffered_bytewise(parser: Parser, data: bytes) -> list[Event]:
    return [event for i in range(len(data)) for event in feed_buffered(parser, data[i : i + 1])]


Feeder = Callable[[Parser, bytes], list[Event]]
WAYS = [feed_whole, feed_bytewise, feed_buffered, feed_buffered_bytewise]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def feed(request: pytest.FixtureRequest) -> Any:
    return request.param


# --- good frames ----------------------------------------------------------------------------------

CLIENT_FRAMES: list[tuple[bytes, Event]] = [
    (b"MSG a.b 1 5\r\nhello\r\n", Msg(b"a.b", b"1", payload=b"hello")),
    (b"MSG a.b 1 reply 0\r\n\r\n", Msg(b"a.b", b"1", b"reply")),
    (b"HMSG a 12 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", Msg(b"a", b"12", None, b"NATS/1.0\r\n\r\n", b"hi")),
    (b"HMSG a 1 r 0 2\r\nhi\r\n", Msg(b"a", b"1", b"r", b"", b"hi")),
    (b"HMSG a 1 0 0\r\n\r\n", Msg(b"a", b"1", None, b"", b"")),
    (b"MSG a 1 8\r\n\r\nPING\r\n\r\n", Msg(b"a", b"1", payload=b"\r\nPING\r\n")),
    (b"MSG a 1 1\r\n\r\r\n", Msg(b"a", b"1", payload=b"\r")),
    (b"mSg a 1 1\r\nx\r\n", Msg(b"a", b"1", payload=b"x")),
    (b"MSG\ta \t 1\t1 \r\nx\r\n", Msg(b"a", b"1", payload=b"x")),
    (b"MSG a 0000000001 0000000001\r\nx\r\n", Msg(b"a", b"0000000001", payload=b"x")),
    (b"PING\r\n", Ping()),
    (b"ping \t\r\n", Ping()),
    (b"PONG\r\n", Pong()),
    (b"+OK\r\n", Ok()),
    (b"+ok\r\n", Ok()),
    (b"-ERR 'Stale Connection'\r\n", Err("Stale Connection")),
    (b"-err 'it''s'\r\n", Err("it''s")),
    (b"-ERR bare words \r\n", Err("bare words")),
    (b"-ERR \r\n", Err("")),
    (b"-ERR\r\n", Err("")),
    (b"-ERR '\r\n", Err("'")),
    (b"-ERR '\xff'\r\n", Err("\\xff")),
    (
        b'INFO {"max_payload":1048576,"version":"2.15.1"} \r\n',
        Info({"max_payload": 1048576, "version": "2.15.1"}),
    ),
    (b'INFO\t{"new_field":{"a":[1]},"domain":null}\r\n', Info({"new_field": {"a": [1]}})),
]

SERVER_FRAMES: list[tuple[bytes, Event]] = [
    (b"PUB a.b 5\r\nhello\r\n", Pub(b"a.b", payload=b"hello")),
    (b"PUB a.b r 0\r\n\r\n", Pub(b"a.b", b"r")),
    (b"HPUB a r 12 13\r\nNATS/1.0\r\n\r\nx\r\n", Pub(b"a", b"r", b"NATS/1.0\r\n\r\n", b"x")),
    (b"hpub a 12 12\r\nNATS/1.0\r\n\r\n\r\n", Pub(b"a", None, b"NATS/1.0\r\n\r\n")),
    (b"SUB a.> 1\r\n", Sub(b"a.>", None, b"1")),
    (b"SUB a.* workers 2\r\n", Sub(b"a.*", b"workers", b"2")),
    (b"UNSUB 1\r\n", Unsub(b"1")),
    (b"UNSUB 1 5\r\n", Unsub(b"1", 5)),
    (b"PING\r\n", Ping()),
    (b"PONG\r\n", Pong()),
    (b'CONNECT {"verbose":false}\r\n', Connect({"verbose": False})),
]


@pytest.mark.parametrize(("data", "event"), CLIENT_FRAMES)
def test_client_frame(feed: Feeder, data: bytes, event: Event) -> None:
    parser = Parser()
    assert feed(parser, data) == [event]
    assert parser.idle
    assert parser.buffered == 0
    assert parser.position == len(data)
    assert feed(parser, data * 2) == [event, event]  # now with the number tokens remembered


@pytest.mark.parametrize(("data", "event"), SERVER_FRAMES)
def test_server_frame(feed: Feeder, data: bytes, event: Event) -> None:
    parser = Parser("server")
    assert feed(parser, data + data) == [event, event]
    assert parser.idle


@pytest.mark.parametrize("role", ["client", "server"])
def test_frames_in_a_row(feed: Feeder, role: Any) -> None:
    frames = CLIENT_FRAMES if role == "client" else SERVER_FRAMES
    data = b"".join(data for data, _ in frames) * 3
    assert feed(Parser(role, buffer_size=7), data) == [event for _, event in frames] * 3


@pytest.mark.parametrize(
    "name", [b"a\x0bb", b"\x0c", b"a\rb", b"\x00", b"\xff\xfe", b"\xc2\xa0", b"a..b", b">"]
)
def test_tokens_end_at_space_and_tab_only(feed: Feeder, name: bytes) -> None:
    """VT, FF, NUL, a lone CR, no UTF-8: real servers deliver them, so one peer's oddity is no error."""
    data = b"MSG %b 1 %b 1\r\nx\r\n" % (name, name)
    assert feed(Parser(), data * 2) == [Msg(name, b"1", name, None, b"x")] * 2


@pytest.mark.parametrize("block", [b"XXXX", b"NATS/1.0", b"NATS/1.0503\r\n\r\n", b"\xff\r\n\r\n", b"\r\n"])
def test_malformed_header_block_is_a_property_of_the_message(feed: Feeder, block: bytes) -> None:
    data = b"HMSG a 1 %d %d\r\n%bhi\r\n" % (len(block), len(block) + 2, block)
    assert feed(Parser(), data * 2) == [Msg(b"a", b"1", None, block, b"hi")] * 2


# --- broken rules ---------------------------------------------------------------------------------

BAD_CLIENT_LINES = [
    b"",
    b" PING",
    b"PIN",
    b"PINGS",
    b"PING x",
    b"PING\x0b",
    b"+OK 1",
    b"GET / HTTP/1.1",
    b"\x16\x03\x01",
    b"PUB a 1",  # a client's operation
    b"MSG",
    b"MSG a",
    b"MSG a 1",
    b"MSG  1 1",
    b"MSG a 1 b c 1",
    b"HMSG a 1 1",
    b"HMSG a 1 r s 1 1",
    b"MSG a\x0b1 2",
    b"INFO",
    b"INFO ",
    b"INFO{}",
    b"INFO []",
    b"INFO 1",
    b"INFO {",
    b"INFO {} {}",
    b'INFO {"a":"\xff"}',
    b'INFO {"a":NaN}',
    b'INFO {"a":-Infinity}',
    b'INFO {"max_payload":-1}',
    b'INFO {"max_payload":2147483648}',
    b'INFO {"max_payload":1e6}',
    b'INFO {"max_payload":true}',
    b'INFO {"max_payload":"1"}',
    b'INFO {"max_payload":1' + b"0" * 5000 + b"}",
    b'INFO {"connect_urls":"host"}',
    b'INFO {"connect_urls":[1]}',
    b'INFO {"nonce":5}',
    b'INFO {"ldm":1}',
    b"INFO " + b"[" * 10_000,
    b'INFO {"a":' * 5_000,
]

BAD_NUMBERS = [b"+5", b"-1", b"1_0", b"5x", b"", b"\xb2", b"0x1", b"1.0", b"12345678901", b"9" * 5000, b"\r"]


@pytest.mark.parametrize("line", BAD_CLIENT_LINES, ids=lambda line: line[:24].decode("latin-1"))
def test_bad_line(feed: Feeder, line: bytes) -> None:
    parser = Parser()
    good = b"PING\r\n"
    parser.feed(good)
    with pytest.raises(RemoteProtocolError) as caught:
        feed(parser, line + b"\r\n")
    assert caught.value.position == len(good)
    assert caught.value.events == []
    assert not parser.idle


@pytest.mark.parametrize("number", BAD_NUMBERS, ids=lambda number: number[:16].decode("latin-1"))
@pytest.mark.parametrize(
    "line",
    [b"MSG a 1 %b", b"MSG a %b 1", b"HMSG a 1 %b 1", b"HMSG a 1 0 %b", b"HMSG a %b r 0 1"],
    ids=lambda line: line.decode(),
)
def test_numbers_are_one_to_ten_ascii_digits(line: bytes, number: bytes) -> None:
    parser = Parser()
    parser.feed(b"HMSG a 1 0 1\r\nx\r\nHMSG a 1 r 0 1\r\nx\r\n")  # remembered tokens must not help
    with pytest.raises(RemoteProtocolError):
        parser.feed(line % number + b"\r\nx\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"PUB a",
        b"PUB a 1 b 1",
        b"HPUB a 2 1",
        b"SUB a",
        b"SUB a b c 1",
        b"SUB a x",
        b"UNSUB",
        b"UNSUB x",
        b"UNSUB 1 2 3",
        b"UNSUB 1 -1",
        b"CONNECT",
        b"CONNECT []",
        b"CONNECT {,}",
        b"MSG a 1 1",  # a server's operation
        b" a 1 1",
        b"INFO {}",
        b"-ERR 'x'",
    ],
)
def test_bad_line_from_a_client(feed: Feeder, line: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        feed(Parser("server"), line + b"\r\n")
    assert caught.value.position == 0


def test_line_feed_alone_does_not_end_a_line(feed: Feeder) -> None:
    for data in (b"PING\n", b"MSG a 1 1\nx\r\n", b"\n", b"MSG a\nb 1 1\r\nx\r\n"):
        with pytest.raises(RemoteProtocolError) as caught:
            feed(Parser(), data)
        assert caught.value.position == 0


@pytest.mark.parametrize("end", [b"XY", b"\n\r", b"\rX", b"X\n", b"x\r\n"])
def test_payload_must_be_followed_by_crlf(feed: Feeder, end: bytes) -> None:
    good = b"MSG a 1 2\r\nhi\r\n"
    for head in (b"MSG a 1 2\r\nhi", b"HMSG a 1 1 3\r\n.hi"):
        for parser in (
            Parser(),
            Parser(buffer_size=4),
            Parser(place=lambda m, n: bytearray(n), place_from=1),
        ):
            parser.feed(good)
            with pytest.raises(RemoteProtocolError) as caught:
                feed(parser, head + end + b"PING\r\n")
            assert caught.value.position == len(good + head)


def test_header_longer_than_the_whole() -> None:
    parser = Parser()
    parser.feed(b"HMSG a 1 3 5\r\nxxxxx\r\nMSG a 1 2\r\nxx\r\n")
    with pytest.raises(RemoteProtocolError, match="longer than the whole") as caught:
        parser.feed(b"HMSG a 1 3 2\r\n")  # refused at once, although every token is a remembered one
    assert caught.value.position == 36


def test_error_carries_the_events_before_it() -> None:
    parser = Parser()
    with pytest.raises(RemoteProtocolError) as caught:
        parser.feed(b"PING\r\nMSG a 1 1\r\nx\r\nBOOM\r\nPONG\r\n")
    assert caught.value.events == [Ping(), Msg(b"a", b"1", payload=b"x")]
    assert caught.value.position == 20


def test_dead_parser_raises_on_every_call() -> None:
    parser = Parser()
    with pytest.raises(RemoteProtocolError):
        parser.feed(b"BOOM\r\n")
    for call in (
        lambda: parser.feed(b"PING\r\n"),
        lambda: parser.feed(b""),
        parser.get_buffer,
        lambda: parser.buffer_updated(1),
        parser.feed_eof,
    ):
        with pytest.raises(RemoteProtocolError, match="dead") as caught:
            call()
        assert caught.value.position == 0
        assert caught.value.events == []
    assert not parser.idle


def test_hopeless_line_is_refused_before_its_end(feed: Feeder) -> None:
    """A TLS record or an HTTP request must not wait for a line feed."""
    for data in (b"\x16\x03\x01\x02\x00", b"GET ", b"x" * 100, b"MSGS", b" "):
        with pytest.raises(RemoteProtocolError):
            feed(Parser(), data)


# --- limits ---------------------------------------------------------------------------------------

SMALL = Limits(control_line=40, info_line=100, header_block=20, message=30)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"-ERR " + b"x" * 35, b"-ERR " + b"x" * 36),
        (b"PING" + b" " * 36, b"PING" + b" " * 37),
        (b'INFO {"a":"' + b"x" * 87 + b'"}', b'INFO {"a":"' + b"x" * 88 + b'"}'),
        (b"MSG a 1 30", b"MSG a 1 31"),
        (b"MSG a 1 30", b"MSG a 1 9999999999"),
        (b"MSG " + b"a" * 32 + b" 1 0", b"MSG " + b"a" * 33 + b" 1 0"),
        (b"HMSG a 1 20 30", b"HMSG a 1 21 30"),
        (b"HMSG a 1 20 30", b"HMSG a 1 20 31"),
    ],
)
def test_limits(feed: Feeder, good: bytes, bad: bytes) -> None:
    parser = Parser(limits=SMALL, buffer_size=16)
    body = b"" if good[:1] not in b"MH" else b"x" * int(good.split()[-1]) + b"\r\n"
    assert len(feed(parser, (good + b"\r\n" + body) * 2)) == 2
    at = parser.position
    with pytest.raises(RemoteProtocolError) as caught:
        feed(parser, bad + b"\r\n")
    assert caught.value.position == at


def test_endless_line_is_refused_without_its_end(feed: Feeder) -> None:
    parser = Parser(limits=SMALL)
    with pytest.raises(RemoteProtocolError, match="longer than 40"):
        feed(parser, b"-ERR " + b"x" * 37)
    parser = Parser("server", limits=SMALL)
    with pytest.raises(RemoteProtocolError, match="longer than 100"):
        feed(parser, b"CONNECT " + b"x" * 94)


def test_big_info_is_fine() -> None:
    """About 200 connect_urls break a 4 KiB limit, 200 KB a 64 KiB one."""
    data = {"connect_urls": [f"10.0.0.1:{i}" for i in range(20_000)]}
    line = b"INFO " + json.dumps(data).encode() + b"\r\n"
    assert len(line) > 200_000
    for way in (feed_whole, feed_buffered):
        assert way(Parser(), line) == [Info(data)]


def test_refused_before_anything_is_allocated() -> None:
    parser = Parser(limits=Limits(message=1000))
    tracemalloc.start()
    try:
        for line in (b"MSG a 1 9999999999\r\n", b"HMSG a 1 0 9999999999\r\n"):
            with pytest.raises(RemoteProtocolError):
                Parser(limits=Limits(message=1000)).feed(line)
        with pytest.raises(RemoteProtocolError):
            parser.feed(b"-ERR " + b"x" * 70_000)
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_memory_stays_below_twice_the_limit(size: int) -> None:
    limits = Limits(control_line=4096, info_line=4096, header_block=4096, message=1_000_000)
    piece = b"x" * 10_000
    tracemalloc.start()
    try:
        parser = Parser(limits=limits)
        for _ in range(3):
            parser.feed(b"MSG a 1 %d\r\n" % size)
            for _ in range(size // len(piece)):
                parser.feed(piece)
            (event,) = parser.feed(b"\r\n")
            assert isinstance(event, Msg)
            assert len(event.payload) == size
            del event
        assert tracemalloc.get_traced_memory()[1] < 2 * limits.message
    finally:
        tracemalloc.stop()


def test_buffer_shrinks_after_a_long_line() -> None:
    parser = Parser()
    feed_buffered(parser, b'INFO {"a":"' + b"x" * 500_000 + b'"}\r\n')
    assert len(parser.get_buffer()) == 64 * 1024


def test_many_different_numbers_do_not_pile_up() -> None:
    parser = Parser()
    for sid in range(10_000):
        parser.feed(b"MSG a %d 0\r\n\r\n" % sid)
    assert len(parser._numbers) <= 4096


# --- end of stream, progress ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", [b"P", b"PING", b"PING\r", b"MSG a 1 1\r\n", b"MSG a 1 1\r\nx", b"MSG a 1 1\r\nx\r"]
)
@pytest.mark.parametrize("buffer_size", [2, 65536])
def test_eof_inside_a_frame(feed: Feeder, part: bytes, buffer_size: int) -> None:
    parser = Parser(buffer_size=buffer_size)
    assert feed(parser, b"PONG\r\n" + part) == [Pong()]
    assert parser.buffered == len(part)
    assert parser.position == 6
    assert not parser.idle
    with pytest.raises(RemoteProtocolError) as caught:
        parser.feed_eof()
    assert caught.value.position == 6
    with pytest.raises(RemoteProtocolError):
        parser.feed(b"\r\n")


def test_eof_between_frames() -> None:
    parser = Parser()
    parser.feed_eof()
    parser.feed(b"PING\r\n")
    parser.feed_eof()


def test_feed_takes_any_buffer() -> None:
    parser = Parser()
    data = bytearray(b"MSG a 1 2\r\nhi\r\n")
    events = parser.feed(data) + parser.feed(memoryview(data))
    data[:] = bytes(len(data))
    assert events == [Msg(b"a", b"1", payload=b"hi")] * 2


def test_feed_and_get_buffer_may_alternate() -> None:
    parser = Parser(buffer_size=8)
    data = b"MSG a 1 20\r\n" + b"x" * 20 + b"\r\nPING\r\n"
    events: list[Event] = []
    for i in range(len(data)):
        way = feed_whole if i % 2 else feed_buffered
        events += way(parser, data[i : i + 1])
    assert events == [Msg(b"a", b"1", payload=b"x" * 20), Ping()]


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="role"):
        Parser("proxy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="buffer_size"):
        Parser(buffer_size=0)
    with pytest.raises(ValueError, match="positive"):
        Limits(message=0)
    assert repr(Limits()).startswith("Limits(control_line=65536")


# --- place ----------------------------------------------------------------------------------------


class Places:
    """Hands out destinations and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes | None, bytes, int]] = []
        self.given: list[memoryview] = []

    def __call__(self, event: Msg | Pub, size: int) -> memoryview:
        self.asked.append((event.subject, event.header, bytes(event.payload), size))
        self.given.append(memoryview(bytearray(size)))
        return self.given[-1]


@pytest.mark.parametrize("buffer_size", [5, 65536])
@pytest.mark.parametrize("role", ["client", "server"])
def test_place(feed: Feeder, role: Any, buffer_size: int) -> None:
    op, sid = (b"MSG", b" 1") if role == "client" else (b"PUB", b"")
    places = Places()
    parser = Parser(role, place=places, place_from=10, buffer_size=buffer_size)
    data = b"".join(
        [
            op + b" small" + sid + b" 9\r\n123456789\r\n",
            op + b" big" + sid + b" 10\r\n1234567890\r\n",
            b"H" + op + b" small" + sid + b" 2 11\r\n..123456789\r\n",
            b"H" + op + b" bigger" + sid + b" r 2 22\r\n..12345678901234567890\r\n",
        ]
        * 2
    )
    events: Any = feed(parser, data)
    assert places.asked == [(b"big", None, b"", 10), (b"bigger", b"..", b"", 20)] * 2
    assert [event.payload for event in events] == [
        b"123456789",
        b"1234567890",
        b"123456789",
        b"12345678901234567890",
    ] * 2
    assert [type(event.payload) for event in events] == [bytes, memoryview] * 4
    assert events[1].payload is places.given[0]
    assert parser.idle


def test_place_is_told_before_the_payload_comes() -> None:
    places = Places()
    parser = Parser(place=places, place_from=4)
    parser.feed(b"HMSG a 1 2 6\r\n.")
    assert places.asked == []  # the header block is not complete
    parser.feed(b".")
    assert places.asked == [(b"a", b"..", b"", 4)]
    buffer = parser.get_buffer()
    assert len(buffer) == 4
    buffer[:3] = b"abc"
    assert parser.buffer_updated(3) == []
    assert bytes(places.given[0]) == b"abc\0"
    assert len(parser.get_buffer()) == 1
    (event,) = parser.feed(b"d\r\n")
    assert event == Msg(b"a", b"1", None, b"..", b"abcd")


@pytest.mark.parametrize("size", [10, 100])
def test_place_may_decline(feed: Feeder, size: int) -> None:
    asked: list[int] = []

    def decline(msg: Msg, size: int) -> None:
        asked.append(size)

    parser = Parser(place=decline, place_from=10, buffer_size=64)
    data = b"HMSG a 1 2 %d\r\n..%b\r\n" % (size + 2, b"x" * size)
    events = feed(parser, data * 2)
    assert events == [Msg(b"a", b"1", None, b"..", b"x" * size)] * 2
    assert all(type(event.payload) is bytes for event in events if isinstance(event, Msg))
    assert asked == [size, size]  # once a frame, however it was split


def test_empty_payload_can_be_placed(feed: Feeder) -> None:
    parser = Parser(place=lambda msg, size: bytearray(size), place_from=0)
    assert feed(parser, b"MSG a 1 0\r\n\r\n" * 2) == [Msg(b"a", b"1")] * 2


def test_other_item_sizes_can_be_placed() -> None:
    room = memoryview(bytearray(8)).cast("I")
    parser = Parser(place=lambda msg, size: room, place_from=8)
    (event,) = parser.feed(b"MSG a 1 8\r\n12345678\r\n")
    assert isinstance(event, Msg)
    assert event.payload is room
    assert bytes(room) == b"12345678"


@pytest.mark.parametrize("target", [bytearray(3), memoryview(bytes(4))])
def test_bad_place(target: Any) -> None:
    parser = Parser(place=lambda msg, size: target, place_from=4)
    with pytest.raises(ValueError, match="writable buffer of 4 bytes"):
        parser.feed(b"MSG a 1 4\r\n")
    with pytest.raises(RemoteProtocolError, match="interrupted"):
        parser.feed(b"1234\r\n")


def test_error_in_place_kills_the_parser() -> None:
    def place(msg: Msg, size: int) -> bytearray:
        raise ZeroDivisionError

    parser = Parser(place=place, place_from=1)
    with pytest.raises(ZeroDivisionError):
        parser.feed(b"PING\r\nMSG a 1 4\r\n")
    with pytest.raises(RemoteProtocolError):
        parser.get_buffer()


def test_short_reads_between_large_payloads() -> None:
    """After a placed payload the next reads are short, so that the next payload goes to its place."""
    parser = Parser(place=Places(), place_from=4096)
    size = 128 * 1024
    frame = b"MSG a 1 %d\r\n" % size + b"x" * size + b"\r\n"
    assert len(parser.get_buffer()) == 64 * 1024
    feed_buffered(parser, frame[:-1])
    assert 0 < len(parser.get_buffer()) <= 4096
    feed_buffered(parser, frame[-1:])
    assert 0 < len(parser.get_buffer()) <= 4096
    feed_buffered(parser, b"MSG a 1 5\r\nhello\r\n")
    assert len(parser.get_buffer()) == 64 * 1024


def test_large_unplaced_payload_is_received_in_place(feed: Feeder) -> None:
    parser = Parser(buffer_size=64)
    events = feed(parser, (b"MSG a 1 1000\r\n" + b"x" * 1000 + b"\r\n") * 2)
    assert events == [Msg(b"a", b"1", payload=b"x" * 1000)] * 2
    assert all(type(event.payload) is bytes for event in events if isinstance(event, Msg))
