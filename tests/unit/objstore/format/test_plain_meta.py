"""Ordinary metas by regular expressions: the shapes of three libraries, and nothing that is not of them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from objstore.format.codec import decode_meta, encode_meta
from objstore.format.digest import hex_digest
from objstore.format.models import ObjectInfo, ObjectMetaOptions, plain_info
from objstore.format.naming import meta_subject
from objstore.format.plain_meta import plain_reader

STORED = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
DIGEST = hex_digest(b"\x01" * 32)
PLAIN = plain_info("a", "b", None, STORED, 1000, 2, DIGEST, "NUID", 7)


def read(payload: bytes, name: str = "a", bucket: str = "b") -> ObjectInfo | None:
    return plain_reader(bucket)(meta_subject(bucket, name).encode(), payload, 7, STORED)


def decoded(payload: bytes, name: str = "a") -> ObjectInfo:
    return decode_meta(payload, bucket="b", subject=meta_subject("b", name), revision=7, timestamp=STORED)


@pytest.mark.parametrize("name", ["a", "a/b c.txt", "größe", "日本", "~{}[]", "x" * 1000])
@pytest.mark.parametrize("options", [None, ObjectMetaOptions(None, 131072)])
def test_what_this_library_writes(name: str, options: ObjectMetaOptions | None) -> None:
    payload = encode_meta(replace(PLAIN, name=name, options=options))
    found = read(payload, name)
    assert found == decoded(payload, name)
    assert found is not None
    assert (found.name, found.size, found.chunks, found.revision) == (name, 1000, 2, 7)


def test_what_nats_py_writes() -> None:
    document = json.loads(encode_meta(PLAIN))
    document = {key: document[key] for key in ("name", "bucket", "nuid", "size", "mtime", "chunks", "digest")}
    payload = json.dumps({**document, "deleted": False}).encode()
    assert read(payload) == decoded(payload)
    assert read(payload) is not None
    sized = json.dumps({**document, "deleted": False, "options": {"max_chunk_size": 9}}).encode()
    assert read(sized) == decoded(sized)


def test_an_empty_object() -> None:
    payload = encode_meta(replace(PLAIN, size=0, chunks=0, digest=hex_digest(b"\0" * 32)))
    assert read(payload) == decoded(payload)


@pytest.mark.parametrize(
    "change",
    [
        {"description": "d"},
        {"metadata": {"k": "v"}},
        {"deleted": True},
        {"digest": ""},
        {"digest": "SHA-512=" + "0" * 64},
        {"nuid": "with.dot"},
        {"name": 'quo"te'},
        {"name": "back\\slash"},
    ],
)
def test_what_is_left_to_the_slow_reader(change: dict[str, object]) -> None:
    name = str(change.get("name", "a"))
    document = json.loads(encode_meta(PLAIN)) | change
    assert read(json.dumps(document, separators=(",", ":")).encode(), name) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"size":1000', b'"size":01000'),
        (b'"size":1000', b'"size":-1'),
        (b'"size":1000', b'"size":1e3'),
        (b'"size":1000', b'"size":' + b"9" * 19),
        (b'"name":"a"', b'"name":"\xff"'),
        (b'"name":"a"', b'"name":""'),
        (b"{", b" {"),
        (b"}", b"} "),
        (b"}", b"}\n"),
        (b'"digest":"SHA-256=', b'"digest":"sha-256='),
    ],
)
def test_to_the_byte(before: bytes, after: bytes) -> None:
    payload = encode_meta(PLAIN)
    assert before in payload
    assert read(payload.replace(before, after, 1)) is None


def test_only_where_the_name_is_filed_as_here() -> None:
    """Another subject is another client's encoding, or forged: that is for the other reader to judge."""
    payload = encode_meta(PLAIN)
    assert read(payload, "b") is None
    assert plain_reader("c")(meta_subject("b", "a").encode(), payload, 7, STORED) is None
    unpadded = meta_subject("b", "a").rstrip("=").encode()
    assert plain_reader("b")(unpadded, payload, 7, STORED) is None
