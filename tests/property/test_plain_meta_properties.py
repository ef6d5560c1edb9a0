"""The shortcut for listings says what ``decode_meta`` says, or nothing."""

import dataclasses
import json
import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from objstore.format.codec import decode_meta, encode_meta
from objstore.format.digest import hex_digest
from objstore.format.models import ObjectHeaders, ObjectInfo, ObjectLink, ObjectMetaOptions
from objstore.format.naming import meta_subject, meta_subjects
from objstore.format.plain_meta import plain_reader

BUCKET = "b"
STORED = datetime(2026, 11, 22, 1, 2, 3, 456789, UTC)
read = plain_reader(BUCKET)

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
PLAIN_NAME = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters='"\\'), min_size=1
)
NUID = st.text("ABCxyz019_-", max_size=64)
DIGEST = st.binary(min_size=32, max_size=32).map(hex_digest)
COUNT = st.integers(0, 10**18 - 1)
LINK = ObjectMetaOptions(ObjectLink("other", "thing"))
OPTIONS = st.none() | st.builds(ObjectMetaOptions, max_chunk_size=st.integers(0, 2**63 - 1)) | st.just(LINK)


def info(name, size=0, chunks=0, digest="", nuid="n", **more):
    more = {"description": None, "headers": None, "deleted": False} | more
    return ObjectInfo(
        name=name, size=size, chunks=chunks, digest=digest, nuid=nuid, mtime=STORED, bucket=BUCKET, **more
    )


PLAIN = st.builds(
    info,
    PLAIN_NAME,
    size=COUNT,
    chunks=COUNT,
    digest=DIGEST,
    nuid=NUID,
    options=st.none() | st.builds(ObjectMetaOptions, max_chunk_size=st.integers(1, 10**18 - 1)),
)
ANY = st.builds(
    info,
    NAME,
    size=st.integers(0, 2**63 - 1),
    chunks=st.integers(0, 2**63 - 1),
    digest=DIGEST | TEXT,
    nuid=NUID | TEXT,
    options=OPTIONS,
    deleted=st.booleans(),
    description=st.none() | TEXT,
    headers=st.none() | st.dictionaries(NAME, TEXT, min_size=1, max_size=2).map(ObjectHeaders),
    metadata=st.dictionaries(TEXT, TEXT, max_size=2),
    extra=st.dictionaries(NAME, TEXT | st.integers(), max_size=2),
)


def both(subject, payload, revision=7):
    """What the shortcut says; asserts that ``decode_meta`` agrees."""
    found = read(subject.encode(), payload, revision, STORED)
    if found is not None:
        wanted = decode_meta(payload, bucket=BUCKET, subject=subject, revision=revision, timestamp=STORED)
        assert found == wanted
        for field in dataclasses.fields(ObjectInfo):  # equality leaves some out, and True == 1
            ours, theirs = getattr(found, field.name), getattr(wanted, field.name)
            assert (type(ours), ours) == (type(theirs), theirs)
        assert (repr(found), hash(found)) == (repr(wanted), hash(wanted))
    return found


@given(PLAIN)
def test_what_we_write_for_an_ordinary_object_takes_the_shortcut(one):
    found = both(meta_subject(BUCKET, one.name), encode_meta(one))
    assert found == dataclasses.replace(one, revision=7)


def as_nats_py(one):
    """The meta message nats-py writes, key by key and space by space."""
    doc = json.loads(encode_meta(one))
    keys = ("name", "bucket", "nuid", "size", "mtime", "chunks", "digest")
    options = {"options": doc["options"]} if "options" in doc else {}
    return json.dumps({key: doc[key] for key in keys} | {"deleted": False} | options).encode()


@given(PLAIN)
def test_what_nats_py_writes_for_an_ordinary_object_takes_the_shortcut(one):
    found = both(meta_subject(BUCKET, one.name), as_nats_py(one))
    if one.name.isascii():  # it escapes the others
        assert found == dataclasses.replace(one, revision=7)


@given(ANY)
def test_any_meta_is_read_alike_or_left_alone(one):
    payload = encode_meta(one)
    for subject in (meta_subject(BUCKET, one.name), *meta_subjects(BUCKET, one.name)[1:]):
        both(subject, payload)


@given(PLAIN, st.sampled_from([encode_meta, as_nats_py]), st.data())
def test_a_changed_byte_is_read_alike_or_left_alone(one, write, data):
    payload = bytearray(write(one))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    both(meta_subject(BUCKET, one.name), bytes(payload))


COMPACT = '{"name":%s,"options":{"max_chunk_size":%s},"bucket":%s,"nuid":%s,"size":%s,"mtime":%s,"chunks":%s,'
COMPACT += '"digest":%s}'
SPACED = '{"name": %s, "bucket": %s, "nuid": %s, "size": %s, "mtime": %s, "chunks": %s, "digest": %s, '
SPACED += '"deleted": false, "options": {"max_chunk_size": %s}}'
GOOD = ('"n"', "1", '"b"', '"N"', "1", '"m"', "1", '"SHA-256=' + "A" * 43 + '="')
ODD = ["0", "01", "-1", "1.0", "1e3", "true", "null", "NaN", " 1", "9" * 18, "9" * 19, "9" * 5000, "{}", "[]"]
ODD += ['""', '"\\u006e"', '"\\ud800"', '"é"', '"a\\"b"', '"a\tb"', '"\x7f"', '"' + "x" * 300 + '"', '"n" ']
ODD += [f'"{prefix}={digest}"' for prefix in ("SHA-256", "sha-256") for digest in ("_" * 43, "/" * 43 + "=")]


@given(st.dictionaries(st.integers(0, len(GOOD) - 1), st.sampled_from(ODD), max_size=2))
@example({})
def test_odd_values_in_the_shape_are_read_alike_or_left_alone(changes):
    name, size, *others = (changes.get(number, value) for number, value in enumerate(GOOD))
    for text in (COMPACT % (name, size, *others), SPACED % (name, *others, size)):
        found = both(meta_subject(BUCKET, "n"), text.encode())
        assert changes or found is not None


GO = (
    b'{"name":"n","options":{"max_chunk_size":131072},"bucket":"b","nuid":"N0","size":3,'
    b'"mtime":"0001-01-01T00:00:00Z","chunks":1,"digest":"SHA-256=' + b"A" * 43 + b'="}'
)


def test_what_nats_go_writes_takes_the_shortcut():
    found = both(meta_subject(BUCKET, "n"), GO)
    assert found is not None
    assert (found.name, found.size, found.chunks, found.revision, found.mtime) == ("n", 3, 1, 7, STORED)


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        (meta_subject(BUCKET, "m"), GO),
        (meta_subject("other", "n"), GO),
        ("$O.b.M.bg", GO),  # no padding: right, but for decode_meta() to say
        (meta_subject(BUCKET, "n"), GO + b"\n"),
        (meta_subject(BUCKET, "n"), b""),
        ("$O.b.M.bv8=", GO.replace(b'"n"', b'"n\xff"')),  # not UTF-8
    ],
)
def test_left_alone(subject, payload):
    assert read(subject.encode(), payload, 7, STORED) is None


def test_it_is_an_info_like_any_other():
    found = both(meta_subject(BUCKET, "n"), GO)
    assert type(found) is ObjectInfo
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.size = 4
    assert pickle.loads(pickle.dumps(found)) == found
    assert dataclasses.replace(found, size=4).size == 4
    assert found.metadata is not both(meta_subject(BUCKET, "n"), GO).metadata
