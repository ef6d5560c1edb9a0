"""What is cut short for speed says the same as the long way round."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproto.aio.connection import LARGE
from natsproto.errors import NatsError, RemoteProtocolError
from natsproto.jetstream.api.acks import _parse_any_ack, parse_pub_ack, plain_ack_head, plain_ack_seq
from natsproto.jetstream.api.codec import dumps, dumps_str, loads, parse_time
from natsproto.wire import Msg, Parser, Pub, serializer
from objstore.bucket.message_reads import last_of
from support.fake_session import FakeServer

# --- acknowledgements ---------------------------------------------------------------------------------

names = st.one_of(st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True), st.text(max_size=8))
sequences = st.one_of(st.integers(0, 2**64), st.integers(-3, 3))
values = st.one_of(st.none(), st.booleans(), sequences, names, st.floats(allow_nan=False))
EXTRA = {"domain": st.one_of(names, values), "duplicate": values, "error": values, "x": values}


@st.composite
def acknowledgements(draw: st.DrawFn, stream: str | None = None) -> bytes:
    """What a server writes, what resembles it, and what is only nearly JSON."""
    document: dict[str, Any] = {
        "stream": draw(names) if stream is None else stream,
        "seq": draw(st.one_of(sequences, values)),
        **draw(st.fixed_dictionaries({}, optional=EXTRA)),
    }
    if draw(st.booleans()):
        document = {key: document[key] for key in draw(st.permutations(sorted(document)))}
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (", ", ":"), (",", ": ")]))
    text = json.dumps(document, separators=separators, ensure_ascii=draw(st.booleans()))
    raw = text.encode("utf-8", "surrogatepass")
    change = draw(st.sampled_from(["", "", "", "cut", "insert", "replace"]))
    at = draw(st.integers(0, len(raw)))
    byte = draw(st.sampled_from([b"0", b" ", b"\n", b"}", b'"', b",", b"-", b".", b"\xff", b"1e1"]))
    if change == "cut":
        return raw[:at]
    if change == "insert":
        return raw[:at] + byte + raw[at:]
    return raw[:at] + byte + raw[at + 1 :] if change == "replace" else raw


def outcome(parse: Any, payload: Any) -> Any:
    try:
        ack = parse(payload)
    except NatsError as exc:
        return type(exc), str(exc)
    return ack.stream, ack.seq, ack.duplicate, ack.domain


@given(payload=acknowledgements(), kind=st.sampled_from([bytes, bytearray, memoryview]))
def test_acknowledgement(payload: bytes, kind: Any) -> None:
    assert outcome(parse_pub_ack, kind(payload)) == outcome(_parse_any_ack, payload)


@pytest.mark.parametrize(
    "text",
    [
        '{"stream":"S","seq":1}',
        '{"stream":"S", "seq":1}',
        '{"stream":"S","seq":999999999999999999,"domain":"hub"}',
        '{"stream":"S","seq":7,"duplicate":true}',
        '{"stream":"S","seq":7,"domain":"hub","duplicate":true}',
        '{"stream":"S","seq":07}',
        '{"stream":"S","seq":0}',
        '{"stream":"S","seq":7}\n',
        '{"stream":"S","seq":7}x',
        '{"stream":"S","seq":7,"seq":8}',
        '{"stream":"S\\u0022","seq":7}',
    ],
)
def test_acknowledgements_servers_write(text: str) -> None:
    assert outcome(parse_pub_ack, text.encode()) == outcome(_parse_any_ack, text.encode())


@given(data=st.data(), stream=names)
def test_plain_acknowledgement(data: st.DataObject, stream: str) -> None:
    """Of what it takes for plain, the long way says the same, the name of the stream included."""
    try:
        stream.encode()
    except UnicodeEncodeError:
        return  # no stream has such a name
    payload = data.draw(acknowledgements(stream if data.draw(st.booleans()) else None))
    seq = plain_ack_seq(payload, plain_ack_head(stream))
    if seq:
        ack = parse_pub_ack(payload)
        assert (ack.stream, ack.seq) == (stream, seq)


def test_the_usual_acknowledgement_is_seen_as_such() -> None:
    for seq in (1, 10, 2**63):
        assert plain_ack_seq(b'{"stream":"S","seq":%d}' % seq, plain_ack_head("S")) == seq


# --- JSON ---------------------------------------------------------------------------------------------


@given(text=st.text())
def test_strings(text: str) -> None:
    try:
        wanted = dumps({"last_by_subj": text})
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            dumps_str(text)
        return
    assert last_of(text) == wanted
    assert loads(wanted) == {"last_by_subj": text}


@given(
    moment=st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1)), digits=st.text("0123456789", max_size=12)
)
def test_times(moment: datetime, digits: str) -> None:
    whole = moment.replace(microsecond=0)
    fraction = f".{digits}" if digits else ""
    wanted = whole.replace(microsecond=int(digits[:6].ljust(6, "0")), tzinfo=UTC)
    for zone in ("Z", "+00:00"):
        for text in (f"{whole.isoformat()}{fraction}{zone}", f"{whole.isoformat()}{fraction}{zone}".encode()):
            found = parse_time(text)
            assert found == wanted
            assert found.tzinfo is UTC


# --- publishing ---------------------------------------------------------------------------------------

tokens = st.from_regex(r"[a-z0-9$_-]{1,9}(\.[a-z0-9]{1,5}){0,2}", fullmatch=True).map(str.encode)
HEADER = b"NATS/1.0\r\nA: b\r\n\r\n"


@given(
    subject=tokens,
    reply=st.none() | tokens,
    header=st.sampled_from([b"", HEADER]),
    payload=st.binary(max_size=200),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_frames(subject: bytes, reply: bytes | None, header: bytes, payload: bytes, kind: Any) -> None:
    frame = serializer.pub_frame(subject, reply, header, kind(payload))
    pieces = serializer.pub(subject, payload, reply=reply, header=header or None)
    assert frame == b"".join(pieces)
    assert Parser("server").feed(frame) == [Pub(subject, reply, header or None, payload)]


@given(
    subject=st.text(max_size=12), size=st.sampled_from([0, 1, 16, LARGE - 1, LARGE, 1 << 20, (1 << 20) + 1])
)
async def test_publish(subject: str, size: int) -> None:
    """The usual message and one that takes the long way (a ``bytearray``): sent, counted, refused alike."""
    results = []
    for payload in (b"x" * size, bytearray(b"x" * size)):
        server = FakeServer()
        try:
            await server.client.publish(subject, payload)
            failure: Any = None
        except NatsError as exc:
            failure = type(exc), str(exc)
        stats = server.client.stats
        results.append((failure, server.pubs, stats.out_msgs, stats.out_bytes))
    assert results[0] == results[1]


# --- lines whose numbers were seen before ---------------------------------------------------------------


class Forgetful(Parser):
    """Takes every frame the long way."""

    def _remember(self, sid: bytes, header: int, total: int) -> None:
        pass


@st.composite
def similar_frames(draw: st.DrawFn) -> bytes:
    """Frames that share their numbers, some of them broken."""
    stream = b""
    for _ in range(draw(st.integers(1, 8))):
        size = draw(st.sampled_from([0, 3, 10, 11, 40, 200]))
        subject = draw(st.sampled_from([b"a", b"b.c", b"", b"a\tb"]))
        reply = draw(st.sampled_from([b"", b" r", b" ", b" r r"]))
        body = draw(st.binary(min_size=size, max_size=size))
        head = draw(st.sampled_from([None, 0, 4, 11, size]))
        numbers = b"%d" % size if head is None else b"%d %d" % (head, size)
        line = b"%b %b 1%b %b\r\n" % (b"MSG" if head is None else b"HMSG", subject, reply, numbers)
        stream += line + body + draw(st.sampled_from([b"\r\n"] * 6 + [b"\n", b"x\r\n"]))
    return stream


@given(
    similar_frames(),
    st.lists(st.integers(1, 90), max_size=12),
    st.sampled_from(["no", "all", "some", "roomy"]),
)
def test_known_numbers_change_nothing(stream: bytes, cuts: list[int], placing: str) -> None:
    def run(kind: type[Parser]) -> Any:
        asked: list[tuple[bytes, int]] = []

        def place(msg: Msg, size: int) -> Any:
            asked.append((msg.subject, size))
            if placing == "some" and len(asked) % 2:
                return None
            room = memoryview(bytearray(size + 7))
            return (room[:size], room) if placing == "roomy" and size else room[:size]

        parser = kind(place=None if placing == "no" else place, place_from=10, buffer_size=64)
        found: list[Any] = []
        at = 0
        try:
            for cut in [*cuts, *[50] * len(stream)]:
                piece = stream[at : at + cut]
                if not piece:
                    break
                if cut % 2:
                    view = parser.get_buffer()[: len(piece)]
                    view[:] = piece = piece[: len(view)]
                    found += parser.buffer_updated(len(piece))
                else:
                    found += parser.feed(piece)
                at += len(piece)
        except RemoteProtocolError as exc:
            found += exc.events
            found.append((str(exc), exc.position))
        return [
            (e.subject, e.sid, e.reply, e.header, bytes(e.payload)) if isinstance(e, Msg) else e
            for e in found
        ], asked

    assert run(Parser) == run(Forgetful)
