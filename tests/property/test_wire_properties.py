"""Properties P1 to P6 of the wire format: splits, round trips, garbage, a state machine, refusals, headers.

The oracle is a parser that sees the whole stream at once, shares no code with the real one, and is as
plain as can be. The corpus under tests/fuzz/corpus/ (one stream a file) is replayed against it as well.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from natsproto import wire
from natsproto.errors import BadSubjectError, LocalProtocolError, RemoteProtocolError
from natsproto.headers import Headers, encode_headers, header_value, parse_headers, status_of
from natsproto.wire import Connect, Err, Event, Info, Limits, Msg, Ok, Parser, Ping, Pong, Pub, Sub, Unsub

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"
STREAMS = sorted((*CORPUS.glob("client/*"), *CORPUS.glob("server/*")))
LIMITS = Limits(control_line=300, info_line=1000, header_block=200, message=500)

# --- the oracle -----------------------------------------------------------------------------------

NUMBER = rb"([0-9]{1,10})"
NAME = rb"([^ \t\n]+)"
GAP = rb"[ \t]+"
OPTIONAL = rb"(?:" + NAME + GAP + rb")?"


def _grammar(**lines: bytes) -> list[tuple[str, re.Pattern[bytes]]]:
    return [(name, re.compile(line + rb"[ \t]*", re.DOTALL | re.IGNORECASE)) for name, line in lines.items()]


GRAMMAR = {
    "client": _grammar(
        MSG=rb"MSG" + GAP + NAME + GAP + NUMBER + GAP + OPTIONAL + NUMBER,
        HMSG=rb"HMSG" + GAP + NAME + GAP + NUMBER + GAP + OPTIONAL + NUMBER + GAP + NUMBER,
        PING=rb"PING",
        PONG=rb"PONG",
        OK=rb"\+OK",
        ERR=rb"-ERR(?:[ \t](.*))?",
        INFO=rb"INFO[ \t](.*)",
    ),
    "server": _grammar(
        PUB=rb"PUB" + GAP + NAME + GAP + OPTIONAL + NUMBER,
        HPUB=rb"HPUB" + GAP + NAME + GAP + OPTIONAL + NUMBER + GAP + NUMBER,
        SUB=rb"SUB" + GAP + NAME + GAP + OPTIONAL + NUMBER,
        UNSUB=rb"UNSUB" + GAP + NUMBER + rb"(?:" + GAP + NUMBER + rb")?",
        PING=rb"PING",
        PONG=rb"PONG",
        CONNECT=rb"CONNECT[ \t](.*)",
    ),
}
INFO_TYPES = {"max_payload": int, "version": str, "headers": bool, "connect_urls": list}


def _json(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text.decode(), parse_constant=lambda name: [][0])
    except (ValueError, RecursionError, IndexError):
        return None
    return value if isinstance(value, dict) else None


def _plain_event(name: str, groups: Any) -> Event | None:
    if name in ("PING", "PONG", "OK"):
        return {"PING": Ping, "PONG": Pong, "OK": Ok}[name]()  # type: ignore[return-value]
    if name == "SUB":
        return Sub(*groups)
    if name == "UNSUB":
        return Unsub(groups[0], None if groups[1] is None else int(groups[1]))
    if name == "ERR":
        text = (groups[0] or b"").strip(b" \t")
        text = text[1:-1] if re.fullmatch(rb"'.*'", text, re.DOTALL) and len(text) > 1 else text
        return Err(text.decode("utf-8", "backslashreplace"))
    data = _json(groups[0])
    if data is None:
        return None
    if name == "CONNECT":
        return Connect(data)
    data = {key: value for key, value in data.items() if value is not None or key not in INFO_TYPES}
    if any(type(data.get(key, kind())) is not kind for key, kind in INFO_TYPES.items()):
        return None
    if not all(isinstance(url, str) for url in data.get("connect_urls", [])):
        return None
    return Info(data) if 0 <= data.get("max_payload", 0) < 2**31 else None


def oracle(data: bytes, role: str, limits: Limits) -> tuple[list[Event], int | None, int]:
    """Return the events of ``data``, the position of the error or None, and the last frame boundary."""
    events: list[Event] = []
    at = 0
    ops = {
        name if name not in ("OK", "ERR") else {"OK": "+OK", "ERR": "-ERR"}[name] for name, _ in GRAMMAR[role]
    }
    while at < len(data):
        rest = data[at:]
        op = re.split(rb"[ \t]", rest.split(b"\n")[0])[0].decode("latin-1").upper()
        longest = limits.info_line if op in ("INFO", "CONNECT") else limits.control_line
        end = rest.find(b"\n")
        if (len(rest) if end < 0 else end) > longest + 1:
            return events, at, at
        if end < 0:
            possible = any(o.startswith(op) or op == o + "\r" for o in ops)
            whole = re.match(rb"[^ \t]*[ \t]", rest)
            return events, None if (op in ops if whole else possible) else at, at
        if rest[:end][-1:] != b"\r":
            return events, at, at
        found = [(n, m.groups()) for n, pattern in GRAMMAR[role] if (m := pattern.fullmatch(rest[: end - 1]))]
        if len(found) != 1:
            return events, at, at
        name, groups = found[0]
        if name in ("MSG", "HMSG", "PUB", "HPUB"):
            total = int(groups[-1])
            header = int(groups[-2]) if name[0] == "H" else 0
            if header > total or header > limits.header_block or total > limits.message:
                return events, at, at
            stop = end + 1 + total
            if len(rest) < stop + 2:
                return events, None, at
            if rest[stop : stop + 2] != b"\r\n":
                return events, at + stop, at
            block = rest[end + 1 : end + 1 + header] if name[0] == "H" else None
            payload = rest[end + 1 + header : stop]
            if role == "client":
                events.append(Msg(groups[0], groups[1], groups[2], block, payload))
            else:
                events.append(Pub(groups[0], groups[1], block, payload))
            at += stop + 2
            continue
        event = _plain_event(name, groups)
        if event is None:
            return events, at, at
        events.append(event)
        at += end + 1
    return events, None, at


# --- driving the parser ---------------------------------------------------------------------------


class Driver:
    """Feeds a parser and keeps what came out, events carried by an error included."""

    def __init__(self, role: Any, limits: Limits, *, buffer_size: int = 65536, place: str = "no") -> None:
        self.events: list[Any] = []
        self.error: int | None = None
        self.placed: list[tuple[bytes, bytes | None, int]] = []

        def target(event: Msg | Pub, size: int) -> bytearray | tuple[memoryview, memoryview] | None:
            assert event.payload == b""
            self.placed.append((event.subject, event.header, size))
            if place == "roomy":
                memory = memoryview(bytearray(size + 1 + size % 40))
                return memory[:size], memory
            return bytearray(size) if place == "yes" else None

        self.parser = Parser(
            role,
            limits=limits,
            buffer_size=buffer_size,
            place=None if place == "no" else target,
            place_from=3,
        )

    def feed(self, data: bytes) -> None:
        self._collect(lambda: self.parser.feed(data))

    def receive(self, data: bytes) -> None:
        """As an event loop does it with get_buffer and buffer_updated."""
        view = memoryview(data)
        while view and self.error is None:
            target = self.parser.get_buffer()
            count = min(len(target), len(view))
            assert count > 0
            target[:count] = view[:count]
            view = view[count:]
            del target
            self._collect(lambda count=count: self.parser.buffer_updated(count))

    def _collect(self, call: Any) -> None:
        if self.error is not None:
            return
        try:
            self.events += call()
        except RemoteProtocolError as exc:
            self.events += exc.events
            self.error = exc.position


def drive(data: bytes, pieces: list[bytes], role: Any, limits: Limits, **options: Any) -> Driver:
    driver = Driver(role, limits, **options)
    for number, piece in enumerate(pieces):
        if number % 2:
            driver.feed(piece)
        else:
            driver.receive(piece)
    return driver


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = [0, *sorted(mark % (len(data) + 1) for mark in at), len(data)]
    return [data[a:b] for a, b in pairwise(marks)]


def check_all_ways(data: bytes, role: str, limits: Limits, at: list[int]) -> None:
    """P1: whatever the split, the buffer and the places, the outcome is the oracle's."""
    events, error, boundary = oracle(data, role, limits)
    splits = [[b"", data], [data], cut(data, at), [data[i : i + 1] for i in range(len(data))]]
    for place in ("no", "yes", "roomy", "declined"):
        asked: list[Any] = []
        for buffer_size in (1, 24, 65536):
            for pieces in splits:
                driver = drive(data, pieces, role, limits, buffer_size=buffer_size, place=place)
                assert driver.events == events
                assert driver.error == error
                asked.append(driver.placed)
                if error is None:
                    assert driver.parser.position == boundary
                    assert driver.parser.buffered == len(data) - boundary
                    assert driver.parser.idle == (len(data) == boundary)
        assert all(placed == asked[0] for placed in asked)


# --- strategies -----------------------------------------------------------------------------------

odd_names = st.one_of(
    st.sampled_from([b"a", b"a.b", b"a\x0bb", b"\x0c", b"a\rb", b"\xff", b"a..b", b">", b"\x00"]),
    st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b" \t\n")),
)
sids = st.integers(0, 10**10 - 1).map(lambda n: b"%d" % n) | st.sampled_from([b"1", b"2", b"0000000007"])
payloads = st.binary(max_size=40) | st.sampled_from([b"\r\nPING\r\n", b"\r", b"\n", b"\r\n", b"x" * 100])
json_objects = st.dictionaries(
    st.text(max_size=5).map("x".__add__),
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    max_size=3,
)
blocks = st.none() | payloads | st.just(encode_headers({"A": ["1", "2"], "b": ""}))

client_events = st.one_of(
    st.builds(Msg, odd_names, sids, st.none() | odd_names, blocks, payloads),
    st.just(Ping()),
    st.just(Pong()),
    st.just(Ok()),
    st.builds(Err, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20)),
    st.builds(Info, json_objects),
    st.builds(lambda n: Info({"max_payload": n, "connect_urls": ["a:1"]}), st.integers(0, 2**31 - 1)),
)
good_tokens = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=".*>" + "".join(map(chr, [*range(33), 127]))),
    min_size=1,
    max_size=6,
)
good_subjects = st.lists(good_tokens, min_size=1, max_size=3).map(".".join)
header_names = st.text(st.characters(codec="ascii", min_codepoint=33, exclude_characters=":\x7f"), min_size=1)
header_values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0")).map(
    lambda value: value.strip(" \t")
)
header_pairs = st.lists(st.tuples(header_names, header_values), max_size=5)
good_blocks = st.none() | header_pairs.map(encode_headers)
publishes = st.builds(
    Pub, good_subjects.map(str.encode), st.none() | good_subjects.map(str.encode), good_blocks, payloads
)
server_events = st.one_of(
    publishes,
    st.builds(Sub, good_subjects.map(str.encode), st.none() | good_tokens.map(str.encode), sids),
    st.builds(Unsub, sids, st.none() | st.integers(0, 10**10 - 1)),
    st.just(Ping()),
    st.just(Pong()),
    st.builds(Connect, json_objects),
)


def encode(event: Any) -> bytes:
    match event:
        case Msg():
            parts = wire.msg(event.subject, event.sid, event.payload, reply=event.reply, header=event.header)
        case Pub():
            parts = wire.pub(event.subject, event.payload, reply=event.reply, header=event.header)
        case Sub():
            parts = wire.sub(event.subject, event.sid, queue=event.queue)
        case Unsub():
            parts = wire.unsub(event.sid, max_msgs=event.max_msgs)
        case Info():
            parts = wire.info(event.data)
        case Connect():
            parts = wire.connect(event.data)
        case Err():
            parts = wire.err(event.text)
        case _:
            parts = {Ping: wire.ping, Pong: wire.pong, Ok: wire.ok}[type(event)]()
    return b"".join(parts)


LENGTHS = [
    b"0",
    b"1",
    b"2",
    b"9",
    b"2147483648",
    b"9223372036854775808",
    b"1" + b"0" * 50,
    b"+1",
    b"1_0",
    b"-1",
]


@st.composite
def mutated_streams(draw: st.DrawFn, events: st.SearchStrategy[Any]) -> bytes:
    """A valid stream with a few bytes changed, or a number replaced by a spiteful one."""
    data = bytearray(b"".join(encode(event) for event in draw(st.lists(events, max_size=5))))
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["flip", "insert", "delete", "length", "copy"]))
        at = draw(st.integers(0, len(data)))
        if kind == "flip" and at < len(data):
            data[at] = draw(st.sampled_from(b" \t\r\n\x0b0159MHP'{}\xff"))
        elif kind == "insert":
            data[at:at] = draw(
                st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\t", b"MSG a 1 1\r\n", b"PUB a 1\r\n"])
            )
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 4))]
        elif kind == "copy":
            data[at:at] = data[: draw(st.integers(0, 40))]
        elif numbers := list(re.finditer(rb"[0-9]+", data)):
            number = draw(st.sampled_from(numbers))
            near = int(number[0][:15]) + draw(st.sampled_from([-1, 1]))
            data[number.start() : number.end()] = draw(st.sampled_from([*LENGTHS, b"%d" % near]))
    return bytes(data)


SOUP = b"MSG |HMSG |PUB |HPUB |SUB |PING|+OK|-ERR |INFO |{}|\r\n|\n|\r| |\t|"
SOUP += b"a|1|2|0|12|a 1 2\r\n|a 1 1 2\r\n|x|\xff|\x0b"
protocol_soup = st.lists(st.sampled_from(SOUP.split(b"|")), max_size=14).map(b"".join)


# --- P1 and P3 ------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    mutated_streams(client_events) | protocol_soup | st.binary(max_size=60), st.lists(st.integers(0, 10**6))
)
@example(b"MSG\r\na\r\n1 2\r\nhi\r\n", [])
@example(b"HMSG a 1 3 5\r\nxxxxx\r\nMSG a 1 2\r\nxx\r\nHMSG a 1 3 2\r\nxxx\r\n", [])
def test_p1_any_split_gives_the_same_outcome_client(data: bytes, at: list[int]) -> None:
    check_all_ways(data, "client", LIMITS, at)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    mutated_streams(server_events) | protocol_soup | st.binary(max_size=60), st.lists(st.integers(0, 10**6))
)
def test_p1_any_split_gives_the_same_outcome_server(data: bytes, at: list[int]) -> None:
    check_all_ways(data, "server", LIMITS, at)


@settings(deadline=None)
@given(
    st.sampled_from(["client", "server"]),
    st.binary(max_size=2000) | protocol_soup,
    st.integers(1, 100),
)
def test_p3_garbage_gives_events_then_an_error_or_nothing(role: str, data: bytes, step: int) -> None:
    """No other exception comes out, and what is kept stays below the limits."""
    driver = Driver(role, LIMITS, buffer_size=64)
    for i in range(0, len(data), step):
        driver.feed(data[i : i + step])
        longest = max(LIMITS.info_line, LIMITS.control_line + LIMITS.message) + 4
        assert driver.error is not None or driver.parser.buffered <= longest


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_corpus(path: Path) -> None:
    """Streams that once mattered: captured sessions, spiteful frames, and whatever the fuzzers find."""
    data = path.read_bytes()
    role: Any = path.parent.name
    chance = random.Random(1)
    for limits in (LIMITS, Limits()):
        events, error, _ = oracle(data, role, limits)
        pieces = cut(data, [chance.randrange(10**6) for _ in range(20)])
        for split in ([b"", data], [data], pieces, [data[i : i + 1] for i in range(len(data))]):
            for place in ("yes", "roomy"):
                driver = drive(data, split, role, limits, place=place, buffer_size=256)
                assert (driver.events, driver.error) == (events, error)
    if path.stem.startswith("session-"):
        assert error is None
        assert len(events) > 15


def test_corpus_is_there() -> None:
    assert {path.parent.name for path in STREAMS} == {"client", "server"}


# --- P2 -------------------------------------------------------------------------------------------


@given(st.lists(client_events, max_size=8))
def test_p2_round_trip_of_what_servers_send(events: list[Any]) -> None:
    assert Parser().feed(b"".join(encode(event) for event in events)) == events


@given(st.lists(server_events, max_size=8))
def test_p2_round_trip_of_what_clients_send(events: list[Any]) -> None:
    parser = Parser("server")
    assert parser.feed(b"".join(encode(event) for event in events)) == events
    assert parser.idle


# --- P4 -------------------------------------------------------------------------------------------


class Conversation(RuleBasedStateMachine):
    """Feed, encode, reconnect in any order; the oracle sees the whole stream of each connection."""

    @initialize(
        role=st.sampled_from(["client", "server"]),
        buffer_size=st.sampled_from([1, 24, 65536]),
        place=st.sampled_from(["no", "yes", "roomy", "declined"]),
    )
    def begin(self, role: str, buffer_size: int, place: str) -> None:
        self.role = role
        self.options: Any = {"buffer_size": buffer_size, "place": place}
        self.reconnect()

    @rule()
    def reconnect(self) -> None:
        """A new connection has a new parser; nothing of the old stream may show up."""
        self.driver = Driver(self.role, LIMITS, **self.options)
        self.stream = b""
        self.fed = 0

    @rule(event=client_events)
    def server_says(self, event: Any) -> None:
        if self.role == "client":
            self.stream += encode(event)

    @rule(event=server_events)
    def client_says(self, event: Any) -> None:
        if self.role == "server":
            self.stream += encode(event)

    @rule(data=protocol_soup)
    def garbage(self, data: bytes) -> None:
        self.stream += data

    @rule(count=st.integers(0, 50), received=st.booleans())
    def deliver(self, count: int, received: bool) -> None:
        piece = self.stream[self.fed : self.fed + count]
        self.fed += len(piece)
        if received:
            self.driver.receive(piece)
        else:
            self.driver.feed(piece)

    @rule()
    def deliver_all(self) -> None:
        self.deliver(len(self.stream), False)

    @rule()
    def end_of_stream(self) -> None:
        clean = self.driver.parser.idle
        if not clean:
            with pytest.raises(RemoteProtocolError):
                self.driver.parser.feed_eof()
            self.reconnect()
        else:
            self.driver.parser.feed_eof()

    @invariant()
    def agrees_with_the_oracle(self) -> None:
        if not hasattr(self, "driver"):
            return
        events, error, boundary = oracle(self.stream[: self.fed], self.role, LIMITS)
        assert self.driver.events == events
        assert self.driver.error == error
        if error is None:
            assert self.driver.parser.position == boundary
            assert self.driver.parser.buffered == self.fed - boundary


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


# --- P5 -------------------------------------------------------------------------------------------

any_text = st.text(max_size=10) | st.text(st.sampled_from("a.*> \t\r\n\0\x0b\x7fü\ud800"), max_size=6)


def is_safe(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(name) and not any(ord(char) <= 32 or ord(char) == 127 for char in name)


@given(any_text)
def test_p5_exactly_the_unsafe_names_are_refused(name: str) -> None:
    tokens = name.split(".")
    sendable = is_safe(name) and "" not in tokens
    cases: list[tuple[bool, Callable[[], Any]]] = [
        (sendable and not {"*", ">"} & set(tokens), lambda: wire.pub(name)),
        (sendable and not {"*", ">"} & set(tokens), lambda: wire.pub("a", reply=name)),
        (sendable and ">" not in tokens[:-1], lambda: wire.sub(name, 1)),
        (is_safe(name), lambda: wire.sub("a", 1, queue=name)),
        (
            name.isascii() and name.isdigit() and len(name) <= 10,
            lambda: wire.unsub(name.encode("utf-8", "replace")),
        ),
    ]
    for allowed, call in cases:
        if allowed:
            call()
        else:
            with pytest.raises(BadSubjectError):
                call()


@given(any_text, any_text)
def test_p5_exactly_the_unsafe_headers_are_refused(name: str, value: str) -> None:
    encodable = not any(0xD800 <= ord(char) < 0xDC80 or 0xDCFF < ord(char) < 0xE000 for char in value)
    allowed = (
        bool(name)
        and all("!" <= char <= "~" and char != ":" for char in name)
        and encodable
        and not {"\r", "\n", "\0"} & set(value)
    )
    if not allowed:
        with pytest.raises(LocalProtocolError):
            encode_headers({name: value})
        return
    block = encode_headers({name: value})
    assert parse_headers(block).headers.multi_items() == [(name, value.strip(" \t"))]


@given(st.lists(publishes, min_size=1, max_size=4))
def test_p5_what_is_accepted_stays_one_frame(events: list[Any]) -> None:
    """No accepted argument can end its line and start another: as many frames as calls."""
    for event in events:
        assert oracle(encode(event), "server", Limits())[0] == [event]


# --- P6 -------------------------------------------------------------------------------------------


@given(header_pairs, st.none() | st.integers(100, 999), header_values)
def test_p6_header_round_trip(pairs: list[tuple[str, str]], status: int | None, description: str) -> None:
    if status is None:
        description = ""
    block = encode_headers(Headers(pairs), status=status, description=description)
    parsed = parse_headers(block)
    assert parsed.headers.multi_items() == pairs
    assert (parsed.status, parsed.description) == (status, description)
    assert status_of(block) == status
    for name, _ in pairs:
        first = next(value for key, value in pairs if key == name)
        assert header_value(block, name.encode()) == first.encode()


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"NATS/1.0" + rest + b"\r\n\r\n"))
def test_p6_any_block_parses_or_is_flagged(block: bytes) -> None:
    status = status_of(block)
    header_value(block, b"A")
    try:
        parsed = parse_headers(block)
    except RemoteProtocolError:
        return
    assert parsed.status == status
