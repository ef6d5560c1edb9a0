"""What is fuzzed: one function for each decoder of foreign bytes, which raises when a property does not hold.

Foreign bytes give a value or the one typed error that is documented, never another exception; what was read
can be written and read again; shortcuts agree with the long way.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from natsproto import wire
from natsproto.errors import (
    APIError,
    BadSubjectError,
    LocalProtocolError,
    MaxPayloadError,
    RemoteProtocolError,
)
from natsproto.headers import encode_headers, header_value, parse_headers, status_of
from natsproto.jetstream.api.acks import parse_ack_subject, parse_pub_ack, plain_ack_head, plain_ack_seq
from natsproto.jetstream.api.codec import loads, parse_time
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.api.statuses import pull_end
from natsproto.subjects import (
    check_publish_subject,
    check_queue,
    check_subscribe_subject,
    subject_matches,
)
from natsproto.wire import Connect, Event, Info, Limits, Msg, Parser, Pub, Sub
from objstore.bucket.bucket import Bucket
from objstore.errors import BadObjectMetaError, IntegrityError
from objstore.format.codec import GROWTH, MAX_META_BYTES, MetaDecodeError, decode_meta, encode_meta, tombstone
from objstore.format.limits import limits_of
from objstore.format.models import ObjectInfo
from objstore.format.naming import chunk_subject, decode_meta_name, is_safe_nuid, meta_subject
from objstore.format.plain_meta import plain_reader
from objstore.write import upload as _upload
from objstore.write.checks import prepare

LIMITS = Limits(control_line=300, info_line=1000, header_block=200, message=500)
TIME = datetime(2026, 11, 22, tzinfo=UTC)
MAX_LENGTH = 4096


# --- the parser ---------------------------------------------------------------------------------------


def outcome(pieces: list[bytes], role: Any, *, receive: bool = False, **options: Any) -> tuple[Any, ...]:
    """Events, and where the error was; what is held stays below the limits, and a dead parser stays dead."""
    parser = Parser(role, limits=LIMITS, **options)
    longest = max(LIMITS.info_line, LIMITS.control_line + LIMITS.message) + 4
    events: list[Event] = []
    error = None
    for piece in pieces:
        try:
            if receive:
                view = memoryview(piece)
                while view:
                    target = parser.get_buffer()
                    count = min(len(target), len(view))
                    target[:count] = view[:count]
                    del target
                    view = view[count:]
                    events += parser.buffer_updated(count)
            else:
                events += parser.feed(piece)
        except RemoteProtocolError as exc:
            events += exc.events
            error = exc.position
            try:
                parser.feed(b"PING\r\n")
            except RemoteProtocolError:
                break
            raise AssertionError("a parser went on after an error") from None
        assert parser.buffered <= longest, parser.buffered
    return [plain(event) for event in events], error, None if error is not None else parser.position


def plain(event: Event) -> tuple[Any, ...]:
    """An event by value, whatever memory its payload is in."""
    if isinstance(event, (Msg, Pub)):
        sid = event.sid if isinstance(event, Msg) else b""
        return type(event), event.subject, sid, event.reply, event.header, bytes(event.payload)
    if isinstance(event, (Info, Connect)):
        return type(event), repr(event.data)
    return type(event), event


def parser(role: str, data: bytes) -> None:
    """P1: however a stream is split, the same events and the same error; P3: and nothing else is raised."""
    whole = outcome([data], role)
    chance = random.Random(zlib.crc32(data))
    marks = sorted(chance.randrange(len(data) + 1) for _ in range(6))
    pieces = [data[a:b] for a, b in pairwise([0, *marks, len(data)])]
    assert outcome(pieces, role) == whole
    assert outcome(pieces, role, receive=True, buffer_size=24) == whole
    assert outcome([data[i : i + 1] for i in range(min(len(data), 600))] + [data[600:]], role) == whole
    placed = {"place": lambda event, size: bytearray(size), "place_from": 3}
    assert outcome(pieces, role, receive=True, **placed) == whole
    for event in wire_events(whole[0]):
        assert Parser(role).feed(b"".join(event[0])) == [event[1]], event


def wire_events(events: list[tuple[Any, ...]]) -> list[tuple[Any, Event]]:
    """P2: the messages among the events, written again as a server or a client writes them."""
    found: list[tuple[Any, Event]] = []
    for kind, *fields in events:
        if kind is Msg:
            subject, sid, reply, header, payload = fields
            again = wire.msg(subject, sid, payload, reply=reply, header=header)
            found.append((again, Msg(subject, sid, reply, header, payload)))
        elif kind is Pub:
            subject, _, reply, header, payload = fields
            try:
                again = wire.pub(subject, payload, reply=reply, header=header)
            except (BadSubjectError, LocalProtocolError):
                continue  # servers take more than we send
            found.append((again, Pub(subject, reply, header, payload)))
    return found


# --- documents ----------------------------------------------------------------------------------------


_VERSION_LINE = re.compile(rb"NATS/1\.0(?:[ \t]+([0-9]{3})(?:[ \t].*)?)?", re.DOTALL)


def headers(data: bytes) -> None:
    status = status_of(data)
    if status is not None:
        end = pull_end(status, data)
        assert end is None or len(str(end)) < 600
    try:
        parsed = parse_headers(data)
    except RemoteProtocolError:
        return
    assert parsed.status == status
    items = parsed.headers.multi_items()
    line = _VERSION_LINE.fullmatch(data[: data.index(b"\r\n")])
    assert line is not None
    assert parsed.status == (None if line[1] is None else int(line[1]))
    names = {name for name, _ in items}
    assert "" not in names
    assert set(parsed.headers) <= names
    for name in names:
        values = [value for key, value in items if key == name]
        raw = name.encode("utf-8", "surrogateescape")
        first = header_value(data, raw)
        assert first is not None
        assert first.decode("utf-8", "surrogateescape") == values[0]
    if status is not None and not 100 <= status <= 999:
        status = None
    try:
        again = encode_headers(
            parsed.headers, status=status, description=parsed.description if status else ""
        )
    except LocalProtocolError:
        return  # names and values that are read, and not written
    assert parse_headers(again).headers.multi_items() == items
    assert status_of(again) == status


def info(data: bytes) -> None:
    """INFO, and JSON of the API."""
    for line in (b"INFO " + data, b"CONNECT " + data):
        role: Any = "client" if line.startswith(b"INFO") else "server"
        read = Parser(role, limits=Limits(info_line=MAX_LENGTH + 100))
        try:
            events = read.feed(line + b"\r\n")
        except RemoteProtocolError:
            continue
        for event in events:
            if isinstance(event, Info):
                payload = event.data.get("max_payload", 0)
                assert isinstance(payload, int)
                assert payload >= 0
                assert isinstance(event.data.get("connect_urls", []), list)
            repr(event)
    try:
        document = loads(data)
    except RemoteProtocolError:
        return
    for value in document.values():
        try:
            assert parse_time(value).utcoffset() is not None
        except RemoteProtocolError:
            pass


def meta(data: bytes) -> None:
    """A meta message: the first line is the name that its subject stands for, or nothing."""
    head, _, payload = data.partition(b"\n")
    name = head.decode("utf-8", "ignore")
    subject = meta_subject("b", name) if name else None
    known: Any = {"bucket": "b", "revision": 7, "timestamp": TIME}
    found: ObjectInfo | None = None
    refused: MetaDecodeError | None = None
    try:
        found = decode_meta(payload, subject=subject, **known)
    except MetaDecodeError as exc:
        refused = exc
    if refused is not None:
        assert str(refused)
        assert (refused.revision, refused.bucket) == (7, "b")
    if subject is not None:
        short = plain_reader("b")(subject.encode(), payload, 7, TIME)
        assert short is None or short == found
    if found is None:
        return
    check_info(found)
    for write in (encode_meta, tombstone):
        try:
            again = write(found)
        except BadObjectMetaError:
            assert write is encode_meta
            assert len(payload) > MAX_META_BYTES // GROWTH
            continue
        second = decode_meta(again, subject=meta_subject("b", found.name), **known)
        if write is encode_meta:
            assert encode_meta(second) == again, (found, second)
        else:
            assert second.deleted
            assert second.name == found.name
            assert not second.chunks


def check_info(info: ObjectInfo) -> None:
    """What a caller may rely on, whoever wrote the meta."""
    assert info.name
    assert info.mtime == TIME
    assert info.size >= 0
    assert info.chunks >= 0
    assert not info.digest or isinstance(info.wire_digest, str)
    info.name.encode()
    hash(info)
    try:
        subject = chunk_subject("b", info.nuid)
    except IntegrityError:
        assert not is_safe_nuid(info.nuid)
    else:
        assert re.fullmatch(r"\$O\.b\.C\.[0-9A-Za-z_-]+", subject)


def pub_ack(data: bytes) -> None:
    try:
        found = parse_pub_ack(data)
    except APIError as exc:
        retryable(exc)
        return
    except RemoteProtocolError:
        assert plain_ack_seq(data, plain_ack_head("S")) == 0
        return
    assert isinstance(found.stream, str)
    assert isinstance(found.seq, int)
    assert type(found.duplicate) is bool
    assert found.domain is None or isinstance(found.domain, str)
    try:
        head = plain_ack_head(found.stream)
    except UnicodeEncodeError:
        return
    seq = plain_ack_seq(data, head)
    if seq:
        assert (seq, found.duplicate, found.domain) == (found.seq, False, None)


def ack_subject(data: bytes) -> None:
    """The reply subject of a delivered message."""
    found = parse_ack_subject(data)
    if found is None:
        return
    assert data.startswith(b"$JS.ACK.")
    numbers = found.stream_seq, found.consumer_seq, found.time_ns, found.num_pending, found.delivered
    assert all(type(number) is int and 0 <= number < 10**100 for number in numbers)
    tokens = data.split(b".")
    assert b"%d" % found.stream_seq == (tokens[5] if len(tokens) == 9 else tokens[7]).lstrip(b"0") or (
        found.stream_seq == 0
    )
    assert found.stream.encode() in tokens
    assert found.consumer.encode() in tokens
    repr(found)


# --- names --------------------------------------------------------------------------------------------


def subjects(data: bytes) -> None:
    """Two names, with a line feed between them: what is accepted is one token of one control line."""
    first, _, second = data.decode("utf-8", "surrogateescape").partition("\n")
    for check, error in (
        (check_publish_subject, BadSubjectError),
        (check_subscribe_subject, BadSubjectError),
        (check_queue, BadSubjectError),
    ):
        try:
            check(first)  # type: ignore[operator]
        except error:
            continue
        raw = first.encode()
        assert raw
        assert not set(raw) & {*range(33), 127}
        (read,) = Parser("server").feed(b"SUB %b 1\r\n" % raw)
        assert isinstance(read, Sub)
        assert read.subject == raw
        if check is check_publish_subject:
            assert Parser("server").feed(b"".join(wire.pub(first, b"x"))) == [Pub(raw, None, None, b"x")]
            assert subject_matches(first, first)
            assert subject_matches(">", first)
    if first.count(".") < 100:
        assert subject_matches(first, second) == matches(first.split("."), second.split("."))
    name = decode_meta_name(first)
    if name is not None:
        assert name
        assert decode_meta_name(meta_subject("b", name)) == name


def matches(pattern: list[str], tokens: list[str]) -> bool:
    """As the protocol's documentation has it, token by token."""
    if pattern == [">"]:
        return len(tokens) > 0
    if not pattern or not tokens:
        return pattern == tokens
    return pattern[0] in ("*", tokens[0]) and matches(pattern[1:], tokens[1:])


class _Bucket:
    """As much of a bucket as an upload needs before anything is sent."""

    name = "b"
    stream = "OBJ_b"
    mirror_of = None
    limits = limits_of("b", {})
    max_message = 1 << 20
    limits_messages = False
    check_original = Bucket.check_original
    client = SimpleNamespace(max_payload=1 << 20, reply_length=80)
    connection = SimpleNamespace(check_open=lambda: None, check_headers=lambda what="": None)
    check_name = Bucket.check_name
    check_writable = Bucket.check_writable
    template = Bucket.template


def token(data: bytes) -> None:
    """The token of an upload: by whomever it was kept, it is of this object, or refused."""
    bucket: Any = _Bucket()
    try:
        upload = _upload.resume(bucket, "n", data.decode("latin-1"))
    except BadObjectMetaError:
        return
    assert upload.name == "n"
    assert is_safe_nuid(upload.nuid)
    assert _upload.resume(bucket, "n", upload.token).token == upload.token
    document = upload._document
    about: Any = tuple(document.get(key) for key in ("description", "filename", "headers", "metadata"))
    try:
        template, size = prepare(bucket, upload.name, about, None, document["chunk_size"], None)
    except (BadObjectMetaError, MaxPayloadError):
        return
    assert template.name == "n"
    assert 0 < size <= 1 << 20


def json_token(data: bytes) -> None:
    """The same, from inside: a fuzzer does not learn base64."""
    from base64 import urlsafe_b64encode

    token(urlsafe_b64encode(data))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "client": partial(parser, "client"),
    "server": partial(parser, "server"),
    "headers": headers,
    "info": info,
    "meta": meta,
    "pub_ack": pub_ack,
    "ack_subject": ack_subject,
    "subjects": subjects,
    "token": json_token,
}
"""Name on the command line, which is that of the corpus too, and what is checked."""


# --- mutations that know the format --------------------------------------------------------------------

_NUMBER = re.compile(rb"[0-9]+")
_BEYOND = (b"0", b"1", b"4096", b"2147483647", b"2147483648", b"9223372036854775808", b"1" * 5000)


def mutate_number(data: bytes, seed: int) -> bytes | None:
    """Another number in the place of one: a little off, twice as much, far beyond; ``None`` without any."""
    chance = random.Random(seed)
    found = list(_NUMBER.finditer(data))
    if not found:
        return None
    match = chance.choice(found)
    value = int(match[0][:20])
    others = [b"%d" % max(0, value + step) for step in (-1, 1, value)]
    other = chance.choice([*others, *_BEYOND, b"-" + match[0], b"+" + match[0], b"0" + match[0]])
    return data[: match.start()] + other + data[match.end() :]
