"""Properties of names, meta messages, chunking and reassembly that hold for every input."""

import hashlib
import json
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproto.errors import InvalidNameError
from objstore.errors import IntegrityError
from objstore.format.assembly import Assembly
from objstore.format.chunking import Chunker
from objstore.format.codec import GROWTH, MetaDecodeError, decode_meta, encode_meta, tombstone
from objstore.format.digest import hex_digest, parse_digest, wire_digest
from objstore.format.models import (
    ObjectHeaders,
    ObjectInfo,
    ObjectLink,
    ObjectMetaOptions,
    as_stored,
    complete,
    plain_info,
)
from objstore.format.naming import (
    check_object_name,
    chunk_subject,
    decode_meta_name,
    encodes_name,
    is_safe_nuid,
    meta_subject,
    meta_subjects,
)
from objstore.read.sinks import WholeSink

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TEXT = st.text(st.characters(codec="utf-8"))
NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
KNOWN = ["name", "description", "headers", "metadata", "options", "bucket", "nuid", "size", "mtime",
"chunks", "digest",
         "deleted", "revision"]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
OPTIONS = st.none() | st.builds(
    ObjectMetaOptions,
    st.none() | st.builds(ObjectLink, st.text("ab", min_size=1), st.none() | NAME),
    max_chunk_size=st.just(131072),
)


@st.composite
def infos(draw):
    options = draw(OPTIONS)
    link = options is not None and options.link is not None
    deleted = draw(st.booleans())
    return ObjectInfo(
        draw(NAME),
        draw(TEXT) or None,
        ObjectHeaders(draw(st.dictionaries(NAME, st.lists(TEXT, min_size=1, max_size=3), max_size=3)))
        or None,
        draw(st.integers(0, 2**63 - 1)),
        draw(st.integers(0, 2**63 - 1)),
        "" if link or deleted else hex_digest(draw(st.binary(min_size=32, max_size=32))),
        deleted,
        NOW,
        draw(TEXT),
        draw(st.text("ab-_", min_size=1)),
        options=options,
        metadata=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        revision=draw(st.integers(0, 2**63 - 1)),
        extra={k: v for k, v in draw(st.dictionaries(st.text(), JSON, max_size=3)).items() if k not in KNOWN},
    )


OFFSETS = st.sampled_from([UTC, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(1) / 2)])


@given(
    st.text(min_size=1, max_size=200),  # lone surrogates among them
    st.text(max_size=40),
    st.integers(0, 2**63 - 1),
    st.integers(1, 2**40),
    st.binary(min_size=32, max_size=32),
    st.datetimes(timezones=OFFSETS),
)
def test_the_short_way_to_a_meta_is_the_long_way(name, nuid, size, chunk_size, digest, mtime):
    """Byte by byte, for an object of which nothing is said."""
    options = ObjectMetaOptions(max_chunk_size=chunk_size)
    try:
        mtime.astimezone(UTC)
    except OverflowError:
        return
    plain = plain_info(name, "b-_1", options, mtime, size, 3, hex_digest(digest), nuid, 7)
    assert plain == ObjectInfo(
        name, None, None, size, 3, hex_digest(digest), False, mtime, nuid, "b-_1", options=options, revision=7
    )
    payload = encode_meta(plain)
    assert encode_meta(plain, digest) == payload
    # An unknown key makes it go the long way; it is the last one.
    assert payload[:-1] + b',"x":1}' == encode_meta(replace(plain, extra={"x": 1}))


def test_filling_in_is_the_same_as_making():
    mtime = datetime(2026, 1, 2, tzinfo=UTC)
    expires = mtime + timedelta(days=1)
    info = plain_info("a", "b", None, datetime.now(UTC))
    assert complete(info, nuid="N", size=5, chunks=1, digest="d", mtime=mtime) is info
    assert as_stored(info, 7, expires) is info
    assert type(info) is ObjectInfo
    assert info == ObjectInfo("a", None, None, 5, 1, "d", False, mtime, "N", "b", revision=7, expires=expires)
    with pytest.raises(FrozenInstanceError):
        info.size = 6


@given(infos())
def test_meta_round_trip(info):
    payload = encode_meta(info)
    json.loads(payload)
    again = decode_meta(
        payload,
        bucket=info.bucket,
        subject=meta_subject(info.bucket, info.name),
        revision=info.revision,
        timestamp=NOW,
    )
    assert again == info
    assert again.extra == info.extra
    assert encode_meta(again) == payload


@given(infos())
def test_written_meta_is_what_adr_20_readers_take(info):
    for payload in (encode_meta(info), tombstone(info)):
        doc = json.loads(payload)
        assert all(isinstance(v, list) and v for v in doc.get("headers", {}).values())
        assert doc["mtime"].endswith("Z")
        assert None not in (value for key, value in doc.items() if key in KNOWN)
        assert "" not in (doc.get("description"), doc.get("digest"), doc["mtime"])


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_payload_is_an_info_or_a_decode_error(payload):
    try:
        info = decode_meta(payload, bucket="b", revision=1, timestamp=NOW)
    except MetaDecodeError:
        pass
    else:
        encode_meta(info)
        tombstone(info)


NUMBER = st.from_regex(r"\A-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,4})?\Z")
STRING = TEXT.map(lambda text: json.dumps(text, ensure_ascii=False))
STRING |= st.text(st.characters(), max_size=5).map(json.dumps)  # half surrogate pairs among them
RAW = st.recursive(
    NUMBER | STRING | st.sampled_from(["null", "true"]),
    lambda inner: (
        st.lists(inner, max_size=9).map(lambda items: f"[{','.join(items)}]")
        | st.dictionaries(STRING, inner, max_size=4).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=30,
)


VALUES = dict.fromkeys(["description", "nuid", "digest"], STRING) | dict.fromkeys(["mtime", "x", "y"], RAW)


@given(st.fixed_dictionaries({}, optional=VALUES), st.booleans())
def test_what_is_read_can_be_written(values, link):
    """Whatever way its numbers and strings are written; and it is not much longer."""
    values |= {"name": '"n"'} | ({"options": '{"link":{"bucket":"b"}}'} if link else {})
    payload = "{" + ",".join(f'"{key}":{value}' for key, value in values.items()) + "}"
    try:
        info = decode_meta(payload.encode(), bucket="b", revision=1, timestamp=NOW)
    except MetaDecodeError:
        return
    again = encode_meta(info)
    assert len(again) <= GROWTH * len(payload.encode()) + 200
    assert decode_meta(again, bucket="b", revision=1, timestamp=NOW).extra == info.extra
    tombstone(info)


@given(infos(), st.sampled_from(KNOWN), JSON)
def test_any_value_in_any_key_is_an_info_or_a_decode_error(info, key, value):
    doc = json.loads(encode_meta(info)) | {key: value}
    try:
        again = decode_meta(json.dumps(doc).encode(), bucket="b", revision=1, timestamp=NOW)
    except MetaDecodeError:
        pass
    else:
        assert (again.bucket, again.mtime, again.revision) == ("b", NOW, 1)
        assert 0 <= again.size < 2**63
        encode_meta(again)
        if not is_safe_nuid(again.nuid):
            with pytest.raises(IntegrityError):
                chunk_subject("b", again.nuid)


@given(NAME, st.one_of(st.none(), NAME, st.text(st.characters())), st.integers(0, 3))
def test_the_name_that_a_subject_encodes(stored, asked, which):
    """What is found out at once is what decoding tells; also of a lone surrogate, and in another bucket."""
    name = stored if asked is None else asked
    subjects = meta_subjects("b", stored)
    subject = subjects[which % len(subjects)]
    for bucket in ("b", "c"):
        assert encodes_name(subject, bucket, name) == (decode_meta_name(subject) == name)


@given(NAME)
def test_names_round_trip_in_every_encoding(name):
    for subject in [meta_subject("b", name), *meta_subjects("b", name)[1:]]:
        assert decode_meta_name(subject) == name
        assert subject.count(".") == 3
        assert not set(subject) & set(" \t\r\n*>")


@given(st.text(max_size=1000) | st.text(min_size=900, max_size=1200).map(lambda text: text * 3))
def test_accepted_names_fit_the_control_line(name):
    try:
        check_object_name(name, "bucket")
    except InvalidNameError:
        return
    assert len(f"HPUB {meta_subject('bucket', name)} {'r' * 80} {'1' * 10} {'1' * 10}\r\n") <= 4096


@given(st.text())
def test_safe_nuids_are_one_plain_token(nuid):
    if is_safe_nuid(nuid):
        assert chunk_subject("b", nuid).split(".") == ["$O", "b", "C", nuid]
        assert nuid.isascii()


@given(st.binary(min_size=32, max_size=32))
def test_digest_forms(raw):
    for text in (
        hex_digest(raw),
        wire_digest(raw),
        wire_digest(raw).rstrip("="),
        wire_digest(raw).replace("_", "/"),
    ):
        assert parse_digest(text) == raw


PIECES = st.lists(st.binary(max_size=40), max_size=12)


@given(PIECES, st.integers(1, 50))
def test_chunks_depend_on_the_bytes_only(pieces, size):
    data = b"".join(pieces)
    chunker = Chunker(size)
    chunks = [bytes(chunk) for piece in pieces for chunk in chunker.push(piece)]
    last = chunker.finish()
    if last is not None:
        chunks.append(bytes(last))
    assert chunks == [data[i : i + size] for i in range(0, len(data), size)]


@given(PIECES, st.integers(1, 30), st.integers(0, 6), st.data())
def test_assembly_restores_any_chunks_placed_or_not(pieces, place_from, lag, data):
    whole = b"".join(pieces)
    # A writer counts its empty messages, or adds one at the end that it does not count.
    uncounted = bool(pieces) and not pieces[-1] and data.draw(st.booleans())
    info = ObjectInfo(
        "n", None, None, len(whole), len(pieces) - uncounted,
        hex_digest(hashlib.sha256(whole).digest()), False, NOW, "N", "b",
    )  # fmt: skip
    sink = WholeSink(info, verify=True, progress=None)
    queue = []
    for piece in pieces:
        place = sink.place(len(piece)) if len(piece) >= place_from else None
        slot, roomy = place if isinstance(place, tuple) else (place, None)
        if slot is not None:
            if roomy is not None:  # what comes next may arrive with it, and lie there for a while
                roomy[:] = piece + b"?" * (len(roomy) - len(piece))
            slot[:] = piece
        queue.append(piece if slot is None else slot)
        if len(queue) > lag and data.draw(st.booleans()):
            while queue:
                sink.accept(queue.pop(0))
    for payload in queue:
        sink.accept(payload)
    assert sink.complete
    assert sink.finish() == whole


@given(st.binary(min_size=1, max_size=100), st.data())
def test_no_single_wrong_byte_is_delivered(whole, data):
    info = ObjectInfo(
        "n", None, None, len(whole), 1, hex_digest(hashlib.sha256(whole).digest()), False, NOW, "N", "b"
    )
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    assembly = Assembly(info)
    assembly.accept(damaged)
    with pytest.raises(IntegrityError):
        assembly.finish()
