import base64
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproto.errors import InvalidNameError
from objstore.errors import BadBucketError, IntegrityError
from objstore.format import naming
from support.imports import ROOT


def test_documented_constants():
    assert naming.DEFAULT_CHUNK_SIZE == 128 * 1024
    assert naming.MAX_CHUNK_SIZE == 1024 * 1024
    assert naming.VALID_BUCKET_RE == r"^[a-zA-Z0-9_-]+$"
    assert (
        naming.OBJ_ALL_CHUNKS_PRE_TEMPLATE.format(bucket="b") == "$O.b.C.>" == naming.all_chunks_subject("b")
    )
    assert naming.OBJ_ALL_META_PRE_TEMPLATE.format(bucket="b") == "$O.b.M.>" == naming.all_meta_subject("b")
    assert naming.OBJ_STREAM_TEMPLATE.format(bucket="b") == "OBJ_b" == naming.stream_name("b")


@pytest.mark.parametrize("name", ["b", "B-1_z", "-", "0", "x" * 251])
def test_buckets_accepted(name):
    assert naming.check_bucket(name) == name


@pytest.mark.parametrize(
    "name", ["", "a\n", "a b", "a.b", "ä", "a*", ">", "a/b", "a\x00", "x" * 252, None, b"b", 5]
)
def test_buckets_refused(name):
    with pytest.raises(BadBucketError):
        naming.check_bucket(name)


@pytest.mark.parametrize("name", ["n", "a/b.c", "ä€😀", "a>b", " ", "\n", "x" * 300])
def test_meta_subject_is_padded_urlsafe_base64(name):
    subject = naming.meta_subject("b", name)
    encoded = subject.removeprefix("$O.b.M.")
    assert base64.urlsafe_b64decode(encoded).decode() == name
    assert len(encoded) % 4 == 0
    assert naming.decode_meta_name(subject) == name


def test_other_clients_encodings_are_read():
    name = "??>>~~"  # hits both characters in which the alphabets differ
    canonical = naming.meta_subject("b", name)
    others = naming.meta_subjects("b", name)[1:]
    assert canonical not in others
    assert len(set(others)) == len(others)
    assert "$O.b.M." + base64.b64encode(name.encode()).decode() in others
    for name in ("?>?", "a?>~", "x", "xy", "xyz", "~~~~~"):
        for subject in naming.meta_subjects("b", name)[1:]:
            assert naming.decode_meta_name(subject) == name


@pytest.mark.parametrize("name", ["?>?", "a?>~", "x", "xy", "xyz", "~~~~~", "ä€😀", "??>>~~", "??>>~ü"])
def test_whatever_is_read_as_a_name_is_looked_for(name):
    raw = name.encode()
    full = base64.urlsafe_b64encode(raw).decode(), base64.b64encode(raw).decode()
    wanted = {f"$O.b.M.{text}" for encoded in full for text in (encoded, encoded.rstrip("="))}
    subjects = naming.meta_subjects("b", name)
    assert subjects[0] == naming.meta_subject("b", name)
    assert set(subjects) == wanted
    assert len(subjects) == len(wanted)
    assert [naming.decode_meta_name(subject) for subject in subjects] == [name] * len(subjects)


@pytest.mark.parametrize(
    "encoded",
    [
        "YR==",  # a, with bits that stand for nothing
        "YWI==",  # ab, padded too much
        "YQ=",  # a, padded by half
        "Pz8-Pz8+",  # one alphabet, then the other
    ],
)
def test_nobody_encodes_like_this(encoded):
    assert naming.decode_meta_name(f"$O.b.M.{encoded}") is None


def test_no_alternatives_where_all_encodings_agree():
    assert naming.meta_subjects("b", "abc")[1:] == []
    assert naming.meta_subjects("b", "abcd")[1:] == ["$O.b.M.YWJjZA"]


@pytest.mark.parametrize(
    "subject",
    ["", "$O.b.M", "$O.b.C.bmFtZQ==", "x.b.M.bmFtZQ==", "$O.b.M.bmFtZQ==.x", "$O.b.M.", "$O.b.M.!",
     "$O.b.M.A",
     "$O.b.M._w==", "$O.b.M.ä"],
)  # fmt: skip
def test_subjects_that_stand_for_no_name(subject):
    assert naming.decode_meta_name(subject) is None


@pytest.mark.parametrize("nuid", ["a", "0aZ_-", "x" * 64])
def test_safe_nuids(nuid):
    assert naming.is_safe_nuid(nuid)
    assert naming.chunk_subject("b", nuid) == f"$O.b.C.{nuid}"


@pytest.mark.parametrize("nuid", ["", ">", "*", "a.b", "a b", "a\n", "x" * 65, "ä", "a\x00"])
def test_unsafe_nuids_never_become_a_subject(nuid):
    assert not naming.is_safe_nuid(nuid)
    with pytest.raises(IntegrityError):
        naming.chunk_subject("b", nuid)


@pytest.mark.parametrize("name", ["n", " ", "..", "/x", "a\r\nb", "\x00", "😀", "x" * 2900, "ä" * 1450])
def test_object_names_accepted(name):
    assert naming.check_object_name(name, "bucket") == name


@pytest.mark.parametrize("name", ["", None, b"n", 5, "\ud800", "x" * 2901, "ä" * 1451, "x" * 4000])
def test_object_names_refused(name):
    with pytest.raises(InvalidNameError):
        naming.check_object_name(name, "bucket")


@pytest.mark.parametrize("bucket", ["b", "x" * 112, "x" * 200, "x" * 251])
@pytest.mark.parametrize("limit", [256, 1024, 4096, 65536])
@pytest.mark.parametrize("reply", [0, 80, 150, 1047])
def test_longest_name_fits_the_control_line(bucket, limit, reply):
    def accepted(size):
        try:
            naming.check_object_name("n" * size, bucket, max_control_line=limit, reply_length=reply)
        except InvalidNameError:
            return False
        return True

    sizes = [size for size in range(1, 3100) if accepted(size)]
    assert sizes == list(range(1, len(sizes) + 1))
    if not sizes:
        assert limit == 256 or (limit, reply) == (1024, 1047)
        return
    inbox = "r" * max(reply, 80)
    line = f"HPUB {naming.meta_subject(bucket, 'n' * sizes[-1])} {inbox} {'1' * 10} {'1' * 10}\r\n"
    assert len(line) <= limit
    assert sizes[-1] == naming.MAX_NAME_BYTES or len(line) + 4 > limit


def test_format_imports_no_io():
    code = (
        "import sys; import objstore.format.codec, objstore.format.chunking, objstore.format.assembly;"
        "bad = {'asyncio', 'socket', 'ssl', 'logging'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    # -S: what the environment loads into every interpreter is not ours.
    subprocess.run([sys.executable, "-S", "-c", code], check=True, timeout=30, cwd=ROOT)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_a_nuid_tells_whose_it_is(name, other):
    nuid = naming.new_nuid(name)
    assert re.fullmatch("[0-9A-Za-z_-]{24}", nuid)
    assert naming.is_nuid_of(nuid, name)
    assert naming.is_nuid_of(nuid, other) == (name == other)
    assert not naming.is_nuid_of(nuid[:-1], name)
    changed = ("A" if nuid[0] != "A" else "B") + nuid[1:]
    assert not naming.is_nuid_of(changed, name)


@pytest.mark.parametrize("nuid", ["", ">", "é" * 24, "A" * 24, "A" * 23 + "B", "A" * 22, "+" * 24, "=" * 24])
def test_nuids_of_other_clients(nuid):
    assert not naming.is_nuid_of(nuid, "a")


def test_nuids_have_nothing_in_common():
    assert len({naming.new_nuid("a") for _ in range(1000)}) == 1000
