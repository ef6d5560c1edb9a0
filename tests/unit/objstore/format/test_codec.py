import base64
import hashlib
import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from objstore.errors import BadObjectMetaError, DigestMismatchError, IntegrityError
from objstore.format import codec
from objstore.format.assembly import Assembly
from objstore.format.codec import DEEPEST, MetaDecodeError, decode_meta, encode_meta
from objstore.format.models import ObjectHeaders, ObjectInfo, ObjectLink, ObjectMetaOptions
from objstore.format.naming import chunk_subject, is_safe_nuid, meta_subject, meta_subjects

NOW = datetime(2026, 11, 22, 14, 15, 10, 159027, tzinfo=UTC)
RAW = hashlib.sha256(b"abc").digest()
WIRE = "SHA-256=" + base64.urlsafe_b64encode(RAW).decode()
HEX = "SHA-256=" + RAW.hex()
MIB = codec.MAX_META_BYTES
NUID = "AbCdEfGhIjKlMnOpQrStUv"
LONG = "\u0378" * 300_000  # no character: repr() makes six of each


def decode(doc, *, bucket="b", subject=None, revision=7):
    payload = doc if isinstance(doc, bytes) else json.dumps(doc).encode()
    return decode_meta(payload, bucket=bucket, subject=subject, revision=revision, timestamp=NOW)


def info(**changes):
    base = ObjectInfo(
        "n", None, None, 3, 1, HEX, False, NOW, NUID, "b", options=ObjectMetaOptions(max_chunk_size=131072)
    )
    return replace(base, **changes)


def written(one):
    return json.loads(encode_meta(one))


class TestEncode:
    def test_smallest_object(self):
        assert encode_meta(info()) == (
            b'{"name":"n","options":{"max_chunk_size":131072},"bucket":"b","nuid":"'
            + NUID.encode()
            + b'","size":3,'
            b'"mtime":"2026-11-22T14:15:10.159027Z","chunks":1,"digest":"' + WIRE.encode() + b'"}'
        )

    def test_everything(self):
        doc = written(
            info(
                description="dä",
                headers=ObjectHeaders({"A": ["1", "2"], "B": "3"}),
                metadata={"filename": "f", "k": "v"},
            )
        )
        assert doc["description"] == "dä"
        assert doc["headers"] == {"A": ["1", "2"], "B": ["3"]}
        assert doc["metadata"] == {"filename": "f", "k": "v"}

    def test_empty_keys_are_left_out(self):
        doc = written(info(description="", headers=ObjectHeaders(), metadata={}, digest="", options=None))
        assert set(doc) == {"name", "bucket", "nuid", "size", "mtime", "chunks"}

    def test_plain_dict_headers_are_written_as_lists(self):
        assert written(info(headers={"A": "1"}))["headers"] == {"A": ["1"]}

    def test_chunk_size_override_is_what_is_recorded(self):
        options = ObjectMetaOptions(chunk_size=1000, max_chunk_size=2000)
        assert written(info(options=options))["options"] == {"max_chunk_size": 1000}

    @pytest.mark.parametrize("name", [None, ""])
    def test_bucket_link_has_an_explicit_null(self, name):
        doc = written(info(options=ObjectMetaOptions(ObjectLink("tb", name)), size=0, chunks=0, digest=""))
        assert doc["options"] == {"link": {"bucket": "tb", "name": None}}
        assert "digest" not in doc

    def test_object_link(self):
        doc = written(info(options=ObjectMetaOptions(ObjectLink("tb", "t"))))
        assert doc["options"] == {"link": {"bucket": "tb", "name": "t"}}

    def test_mtime_is_utc_with_microseconds(self):
        east = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
        assert written(info(mtime=east))["mtime"] == "2025-12-31T23:00:00.000000Z"

    def test_tombstone(self):
        one = info(description="d", metadata={"k": "v"}, headers=ObjectHeaders({"A": "1"}), extra={"x": 1})
        later = NOW + timedelta(seconds=1)
        doc = json.loads(codec.tombstone(one, mtime=later))
        assert doc == {
            "name": "n", "description": "d", "headers": {"A": ["1"]}, "metadata": {"k": "v"},
            "options": {"max_chunk_size": 131072}, "bucket": "b", "nuid": NUID, "size": 0, "chunks": 0,
            "mtime": "2026-11-22T14:15:11.159027Z", "deleted": True, "x": 1,
        }  # fmt: skip
        assert json.loads(codec.tombstone(one))["mtime"] == "2026-11-22T14:15:10.159027Z"
        assert one.size == 3
        again = decode(codec.tombstone(one))
        assert (again.deleted, again.size, again.chunks, again.digest) == (True, 0, 0, "")

    def test_unknown_keys_are_kept_as_text(self):
        doc = {"name": "n", "nuid": NUID, "new": [{}] * 10_000, "\ud800": 1.5, "options": {"o": [None]}}
        one = decode(doc)
        assert not isinstance(one.extra, dict)
        assert one.extra == {"new": doc["new"], "\ud800": 1.5, "options": {"o": [None]}}
        assert (len(one.extra), "new" in one.extra, "name" in one.extra) == (3, True, False)
        assert list(one.extra) == ["new", "\ud800", "options"]
        assert list(one.extra.values())[1:] == [1.5, {"o": [None]}]
        assert repr(one.extra).startswith("{'new': [{}, ")
        assert pickle.loads(pickle.dumps(one)).extra == one.extra
        assert written(one)["new"] == doc["new"]

    def test_commas_within_text_are_no_values(self):
        one = decode({"name": "n", "nuid": NUID, "description": "a, {b}, [c]," * 10_000})
        assert written(one)["description"] == one.description

    def test_more_values_than_can_be_read_are_not_written(self):
        metadata = {f"k{n}": "" for n in range(49_000)}
        assert decode(encode_meta(info(metadata=metadata))).metadata == metadata
        with pytest.raises(BadObjectMetaError, match="more than 50000 values"):
            encode_meta(info(metadata={f"k{n}": "" for n in range(51_000)}))

    def test_unknown_keys_are_written_back_and_cannot_replace_known_ones(self):
        doc = {
            "name": "n",
            "nuid": NUID,
            "new": [1, {"a": None}],
            "options": {"max_chunk_size": 5, "o": 1},
            "revision": 9,
        }
        one = decode(doc)
        assert dict(one.extra) == {"new": [1, {"a": None}], "options": {"o": 1}}
        again = written(one)
        assert again["new"] == [1, {"a": None}]
        assert again["options"] == {"max_chunk_size": 5, "o": 1}
        assert "revision" not in again
        assert written(info(extra={"name": "other", "size": 99}))["name"] == "n"
        assert written(info(extra={"options": {"max_chunk_size": 1}}))["options"] == {
            "max_chunk_size": 131072
        }

    @pytest.mark.parametrize(
        "change",
        [
            {"description": "x" * MIB},
            {"headers": ObjectHeaders({"A": "x" * MIB})},
            {"nuid": "x" * MIB},
            {"nuid": "", "digest": "x" * MIB},
            {"options": ObjectMetaOptions(ObjectLink("x" * MIB))},
            {"extra": {"x": float("inf")}},
            {"metadata": {"x": "x" * MIB}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_delete_marker_can_always_be_written(self, change):
        """It says less."""
        one = info(**change)
        with pytest.raises(BadObjectMetaError):
            encode_meta(one)
        gone = decode(codec.tombstone(one))
        assert (gone.name, gone.deleted, gone.description, gone.headers) == ("n", True, None, None)
        assert gone.nuid == ("" if "nuid" in change else NUID)
        assert len(codec.tombstone(one)) < 500
        assert gone.metadata == {}

    def test_a_delete_marker_within_a_limit(self):
        one = info(description="x" * 1000)
        whole = codec.tombstone(one)
        assert codec.tombstone(one, limit=len(whole)) == whole
        short = decode(codec.tombstone(one, limit=len(whole) - 1))
        assert (short.deleted, short.description, short.options) == (True, None, one.options)

    def test_digest_that_is_not_understood_is_written_back(self):
        assert written(info(digest="MD5=abc"))["digest"] == "MD5=abc"

    def test_lone_surrogates_of_foreign_metas_survive(self):
        one = decode(b'{"name":"n","nuid":"N","description":"\\ud800x"}')
        assert written(one)["description"] == "\ud800x"

    def test_lone_surrogates_do_not_lengthen_the_rest(self):
        """As the bytes that were read, which may be just below the limit."""
        payload = ('{"name":"n","description":"\\ud800","x":"%s"}' % ("é" * 500_000)).encode()
        one = decode(payload)
        assert len(encode_meta(one)) < len(payload) + 150
        assert decode(encode_meta(one)).extra == one.extra

    def test_too_large(self):
        with pytest.raises(BadObjectMetaError, match="limit"):
            encode_meta(info(description="x" * MIB))

    @pytest.mark.parametrize("value", [object(), float("nan"), b"x"])
    def test_extra_that_is_not_json(self, value):
        with pytest.raises(BadObjectMetaError):
            encode_meta(info(extra={"x": value}))


class TestFields:
    def test_normalized(self):
        headers = {"A": ["1"]}
        metadata = {"k": "v"}
        description, wire, pairs = codec.meta_fields("d", headers, metadata, "f.txt")
        assert (description, wire, pairs) == ("d", {"A": ["1"]}, {"k": "v", "filename": "f.txt"})
        assert (headers, metadata) == ({"A": ["1"]}, {"k": "v"})

    def test_absent_and_empty(self):
        assert codec.meta_fields() == (None, None, {})
        assert codec.meta_fields("", {}, {}, "") == (None, None, {})
        assert codec.meta_fields(metadata={"filename": "old"}, filename="")[2] == {}
        assert codec.meta_fields(metadata={"filename": "old"}, filename="new")[2] == {"filename": "new"}

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"description": 5}, {"description": b"x"}, {"description": "\ud800"}, {"filename": 5},
            {"filename": "\udfff"},
            {"headers": [("A", "1")]}, {"headers": {"A": 1}}, {"headers": {"A": [None]}},
            {"headers": {1: "x"}},
            {"headers": {"": "x"}}, {"headers": {"A": "\ud800"}}, {"metadata": {"k": 1}},
            {"metadata": {1: "v"}},
            {"metadata": [1]}, {"metadata": {"k": "\ud800"}},
            {"metadata": {"natsproto.renaming": "admin/config"}}, {"metadata": {"natsproto.": ""}},
        ],
        ids=repr,
    )  # fmt: skip
    def test_refused(self, kwargs):
        with pytest.raises(BadObjectMetaError):
            codec.meta_fields(**kwargs)


PY = {
    "name": "plain", "bucket": "PY", "nuid": NUID, "size": 50, "mtime": "2026-11-22T14:15:10.159027+00:00",
    "chunks": 1, "digest": WIRE, "deleted": False, "options": {"max_chunk_size": 131072},
}  # fmt: skip
RS = {
    "name": "small", "description": None, "metadata": {"m": "n"}, "headers": {"A": ["1", "2"]},
    "options": {"link": None, "max_chunk_size": 24576}, "bucket": "RS", "nuid": NUID, "size": 3, "chunks": 1,
    "mtime": "2026-11-22T14:15:10.194695102Z", "digest": WIRE,
}  # fmt: skip
RS_LINK = {
    "name": "l", "description": None, "metadata": {}, "headers": None, "bucket": "RS", "nuid": NUID,
    "size": 0,
    "options": {"link": {"name": "small", "bucket": "RS"}, "max_chunk_size": None}, "chunks": 0,
    "mtime": "2026-11-22T14:15:10.194695102Z",
}  # fmt: skip
GO = {
    "name": "n", "options": {"max_chunk_size": 131072}, "bucket": "b", "nuid": NUID, "size": 3,
    "mtime": "0001-01-01T00:00:00Z", "chunks": 1, "digest": WIRE,
}  # fmt: skip
JS = {
    "bucket": "b", "nuid": NUID, "size": 3, "chunks": 1, "name": "n", "description": "", "digest": WIRE,
    "options": {"max_chunk_size": 131072}, "mtime": "2026-11-22T14:15:10.159Z", "deleted": False,
}  # fmt: skip


class TestFixturesOfOtherClients:
    """Every meta in spec/interop-fixtures.md: listed, described and deleted; live ones readable."""

    def check(self, doc, **kwargs):
        one = decode(doc, subject=meta_subject("b", doc["name"]), **kwargs)
        assert one.bucket == "b"
        assert one.mtime is NOW
        assert one.revision == 7
        again = decode(encode_meta(one), subject=meta_subject("b", doc["name"]))
        assert again == one
        gone = decode(codec.tombstone(one))
        assert gone.deleted
        return one

    def test_py_put(self):
        one = self.check(PY)
        assert (one.name, one.size, one.chunks, one.digest, one.nuid) == ("plain", 50, 1, HEX, NUID)
        assert (one.headers, one.description, one.metadata, one.deleted) == (None, None, {}, False)
        assert one.options == ObjectMetaOptions(max_chunk_size=131072)
        assert one.wire_digest == WIRE

    def test_py_put_with_string_headers(self):
        one = self.check(PY | {"headers": {"K": "V"}})
        assert one.headers == {"K": ["V"]}
        assert written(one)["headers"] == {"K": ["V"]}

    def test_py_delete(self):
        one = self.check(PY | {"size": 0, "mtime": "", "chunks": 0, "digest": "", "deleted": True})
        assert one.deleted
        assert one.digest == ""

    def test_rs_put(self):
        one = self.check(RS)
        assert one.headers.get_all("A") == ["1", "2"]
        assert one.headers["A"] == "1"
        assert one.metadata == {"m": "n"}
        assert one.options.max_chunk_size == 24576

    def test_rs_link(self):
        one = self.check(RS_LINK)
        assert one.is_link
        assert one.options.link == ObjectLink("RS", "small")
        assert one.links == ["RS/small"]
        assert one.digest == ""

    def test_rs_bucket_link(self):
        one = self.check(
            RS_LINK | {"options": {"link": {"name": None, "bucket": "PY"}, "max_chunk_size": None}}
        )
        assert one.options.link == ObjectLink("PY", None)
        assert one.links == ["PY"]

    def test_rs_delete_keeps_the_digest_on_the_wire_only(self):
        one = self.check(RS | {"size": 0, "chunks": 0, "deleted": True})
        assert (one.deleted, one.digest) == (True, "")

    def test_go_put(self):
        assert self.check(GO).digest == HEX

    def test_go_link(self):
        doc = {k: v for k, v in GO.items() if k != "digest"}
        doc |= {"options": {"link": {"bucket": "b", "name": "t"}}, "size": 0, "chunks": 0}
        assert self.check(doc).links == ["b/t"]

    @pytest.mark.parametrize(
        "link", [{"bucket": "b2"}, {"bucket": "b2", "name": ""}, {"bucket": "b2", "name": None}]
    )
    def test_go_py_js_bucket_links(self, link):
        one = self.check(GO | {"options": {"link": link}, "size": 0, "chunks": 0})
        assert one.options.link == ObjectLink("b2", None)

    def test_go_delete(self):
        doc = {k: v for k, v in GO.items() if k != "digest"} | {"size": 0, "chunks": 0, "deleted": True}
        assert self.check(doc).deleted

    def test_js_put(self):
        assert self.check(JS).description is None

    def test_js_update_with_a_revision(self):
        one = self.check(JS | {"revision": 3})
        assert one.revision == 7
        assert "revision" not in written(one)

    def test_js_link_names_the_target_bucket_and_little_else(self):
        doc = {"name": "l", "bucket": "tb", "options": {"link": {"bucket": "tb", "name": "t"}}}
        one = self.check(doc)
        assert (one.bucket, one.nuid, one.size, one.chunks, one.digest) == ("b", "", 0, 0, "")
        assert one.links == ["tb/t"]

    def test_java_put_without_mtime_under_a_standard_base64_subject(self):
        doc = {k: v for k, v in GO.items() if k != "mtime"} | {"name": "??>>"}
        self.check(doc)
        for subject in meta_subjects("b", "??>>")[1:]:
            assert decode(doc, subject=subject).name == "??>>"

    def test_net_put_of_nothing_and_bucket_link(self):
        empty = hashlib.sha256(b"").digest()
        doc = {k: v for k, v in GO.items() if k not in ("size", "chunks", "mtime")}
        one = self.check(doc | {"digest": "SHA-256=" + base64.urlsafe_b64encode(empty).decode()})
        assert (one.size, one.chunks) == (0, 0)
        Assembly(one).finish()
        one = self.check(GO | {"options": {"link": {"name": "n", "bucket": "tb"}}})
        assert one.links == ["tb/n"]

    @pytest.mark.parametrize("headers", [{"inner": {"A": ["1"]}}, {"inner": {"A": "1"}}])
    def test_old_rs_headers(self, headers):
        one = self.check(RS | {"headers": headers})
        assert one.headers == {"A": ["1"]}
        assert written(one)["headers"] == {"A": ["1"]}

    def test_header_that_is_really_called_inner(self):
        assert self.check(RS | {"headers": {"inner": ["x"]}}).headers == {"inner": ["x"]}

    @pytest.mark.parametrize("prefix", ["SHA-256=", "sha-256=", "Sha-256="])
    def test_old_c_and_deno_unpadded_digest_in_any_case(self, prefix):
        assert self.check(GO | {"digest": prefix + WIRE[8:].rstrip("=")}).digest == HEX

    @pytest.mark.parametrize(
        "change",
        [
            {"headers": {}}, {"headers": {"A": None}}, {"headers": {"A": []}}, {"metadata": None},
            {"metadata": {}},
            {"options": None}, {"options": {}}, {"options": {"max_chunk_size": 0}}, {"deleted": None},
            {"description": None}, {"size": None, "chunks": None}, {"nuid": None}, {"bucket": None},
            {"bucket": 5},
            {"mtime": 5}, {"mtime": None}, {"digest": None}, {"brand_new": {"a": 1}},
        ],
        ids=repr,
    )  # fmt: skip
    def test_absent_in_every_way(self, change):
        one = self.check(GO | change)
        assert one.headers is None

    @pytest.mark.parametrize("nuid", ["", ">", "*", "a.b", "a b", "x" * 100])
    def test_unsafe_nuid_is_told_not_used(self, nuid):
        one = self.check(GO | {"nuid": nuid})
        assert one.nuid == nuid
        assert not is_safe_nuid(one.nuid)
        with pytest.raises(IntegrityError):
            chunk_subject("b", one.nuid)

    @pytest.mark.parametrize("digest", ["MD5=abc", "SHA-256=abc", "x"])
    def test_unknown_digest_is_told_not_trusted(self, digest):
        one = self.check(GO | {"digest": digest})
        assert one.digest == digest
        with pytest.raises(DigestMismatchError):
            Assembly(one)

    def test_deleted_with_chunks_left(self):
        one = self.check(GO | {"deleted": True})
        assert (one.deleted, one.digest) == (True, "")


class TestUndecodable:
    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            (b"", "not JSON"),
            (b"garbage", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b'{"name":"n"', "not JSON"),
            (b'{"name":"n"} x', "not JSON"),
            (b"[]", "not a JSON object"),
            (b"null", "not a JSON object"),
            (b'"n"', "not a JSON object"),
            (b"{}", "no name"),
            (b'{"name":""}', "no name"),
            (b'{"name":null}', "no name"),
            (b'{"name":5}', "no name"),
            (b'{"name":"\\ud800"}', "UTF-8"),
            (b"[" * 50_000 + b"]" * 50_000, "nested"),
            (b'{"name":"n","x":' + b'{"a":' * 40_000 + b"1" + b"}" * 40_000 + b"}", "nested"),
            (b'{"name":"n","size":' + b"9" * 5000 + b"}", "not JSON"),
            (b'{"name":"n","x":[1e999]}', "not JSON: 1e999 is out of range"),
            (b'{"name":"n","options":{"x":-1e999}}', "not JSON: -1e999 is out of range"),
            (b'{"name":"n","x":' + b"9" * 5000 + b".0}", f"not JSON: {'9' * 80} is out of range"),
            (b'{"name":"n","mtime":Infinity}', "not JSON"),
            (
                b'{"name":"n","y":"%b","x":[%b1]}' % (b"y" * 250_000, b"1e15," * 49_000),
                "written again",
            ),
            (b'{"name":"n","x":[' + b"{}," * 60_000 + b"1]}", "more than 50000 values"),
            (b'{"name":"n","x":[' + b'",{",' * 60_000 + b"1]}", "more than 50000 values"),
            (b'{"name":"n","x":"' + b'\\"' * 400_000 + b"," * 60_000, "not JSON"),
            (b'{"name":"n","x":"' + b"\\\n" * 400_000 + b"," * 60_000, "not JSON"),
            (b'{"name":"n","x":{' + b'"a":1,' * 60_000 + b'"b":1}}', "more than 50000 values"),
            (b'{"name":"n","x":"' + b"y" * (1 << 20) + b'"}', "limit"),
        ],
        ids=lambda value: repr(value[:24]),
    )
    def test_not_a_meta(self, payload, reason):
        with pytest.raises(MetaDecodeError, match=reason) as caught:
            decode(payload)
        assert caught.value.bucket == "b"
        assert caught.value.revision == 7
        assert caught.value.reason

    @pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"]":', "}")])
    def test_levels(self, opening, closing):
        """The bytes decide, not the version of Python; brackets in strings are none."""
        full = '{"name":"n","x":[[],{}],"y":%s1%s,"z":"%s\\"["}'
        levels = (DEEPEST - 1) * opening, (DEEPEST - 1) * closing, "{" * DEEPEST
        info = decode((full % levels).encode())
        assert decode(encode_meta(info)).extra == info.extra
        levels = DEEPEST * opening, DEEPEST * closing, ""
        with pytest.raises(MetaDecodeError, match="nested more than 200 levels"):
            decode((full % levels).encode())

    @pytest.mark.parametrize("key", ["size", "chunks"])
    @pytest.mark.parametrize(
        "value",
        [
            "-1",
            "1.5",
            "1e30",
            "1.0",
            "NaN",
            "Infinity",
            "-Infinity",
            "true",
            '"3"',
            "[]",
            "{}",
            str(2**63),
            "1" * 400,
        ],
    )
    def test_sizes(self, key, value):
        with pytest.raises(MetaDecodeError):
            decode(f'{{"name":"n","{key}":{value}}}'.encode())

    @pytest.mark.parametrize(
        "change",
        [
            {"description": 5}, {"nuid": 5}, {"digest": 5}, {"digest": []}, {"deleted": "true"},
            {"deleted": 1},
            {"headers": []}, {"headers": "x"}, {"headers": 0}, {"headers": ""}, {"headers": {"A": 1}},
            {"headers": {"A": [1]}}, {"headers": {"A": {}}}, {"headers": {"inner": {"A": 1}}},
            {"metadata": []}, {"metadata": {"k": 1}}, {"metadata": {"k": None}}, {"metadata": "x"},
            {"options": []}, {"options": "x"}, {"options": {"max_chunk_size": "1"}},
            {"options": {"max_chunk_size": -1}}, {"options": {"link": "x"}}, {"options": {"link": {}}},
            {"options": {"link": {"bucket": ""}}}, {"options": {"link": {"bucket": 5}}},
            {"options": {"link": {"bucket": "b", "name": 5}}},
        ],
        ids=repr,
    )  # fmt: skip
    def test_wrong_types(self, change):
        with pytest.raises(MetaDecodeError):
            decode(GO | change)

    @pytest.mark.parametrize("subject", [meta_subject("b", "other"), "$O.b.M.!", "$O.b.C.bg==", "x"])
    def test_name_must_be_the_subjects(self, subject):
        with pytest.raises(MetaDecodeError, match="subject") as caught:
            decode(GO, subject=subject)
        assert caught.value.subject == subject
        assert isinstance(caught.value, ValueError)

    def test_the_error_names_the_object_by_its_subject(self):
        with pytest.raises(MetaDecodeError) as caught:
            decode(b"garbage", subject=meta_subject("b", "thing"))
        assert caught.value.name == "thing"
        assert caught.value.__cause__ is None  # it would hold the whole text

    @pytest.mark.parametrize(
        "change",
        [
            {"headers": {LONG: 1}},
            {"headers": {LONG: [1]}},
            {"headers": {"inner": {LONG: 1}}},
            {"metadata": {LONG: 1}},
        ],
        ids=lambda change: "-".join(change),
    )
    def test_what_is_long_is_not_repeated(self, change):
        """Reports keep many of these errors, and a log is written to with each listing."""
        with pytest.raises(MetaDecodeError, match="…") as caught:
            decode(json.dumps(GO | change, ensure_ascii=False).encode())
        assert len(caught.value.reason) < 1000
        assert len(str(caught.value)) < 1000

    def test_a_reason_is_short(self):
        error = MetaDecodeError("x" * 1000)
        assert error.reason == "x" * 300 + "…"
        assert len(str(error)) < 400

    @pytest.mark.parametrize("buffer", [bytearray, memoryview])
    def test_any_buffer(self, buffer):
        assert decode_meta(buffer(json.dumps(GO).encode()), bucket="b", revision=1, timestamp=NOW).name == "n"


@pytest.mark.peer
class TestNatsPyReads:
    """What nats-py's decoder makes of our meta messages."""

    @pytest.fixture
    def api(self):
        return pytest.importorskip("nats.js.api")

    def test_object(self, api):
        one = info(description="d", headers=ObjectHeaders({"A": ["1", "2"]}), metadata={"filename": "f"})
        theirs = api.ObjectInfo.from_response(written(one))
        assert (theirs.name, theirs.bucket, theirs.nuid, theirs.size, theirs.chunks) == ("n", "b", NUID, 3, 1)
        assert theirs.digest == WIRE
        assert theirs.headers == {"A": ["1", "2"]}
        assert theirs.options.max_chunk_size == 131072
        assert not theirs.deleted
        assert not theirs.is_link()

    def test_links_and_delete_marker(self, api):
        bucket_link = api.ObjectInfo.from_response(written(info(options=ObjectMetaOptions(ObjectLink("tb")))))
        assert bucket_link.is_link()
        assert bucket_link.options.link.bucket == "tb"
        assert not bucket_link.options.link.name
        assert api.ObjectInfo.from_response(json.loads(codec.tombstone(info()))).deleted

    def test_what_nats_py_writes_we_read(self, api):
        theirs = api.ObjectInfo(
            name="n", bucket="other", nuid=NUID, size=3, chunks=1, digest=WIRE, headers={"K": "V"},
            options=api.ObjectMetaOptions(max_chunk_size=131072), mtime=NOW.isoformat(),
        )  # fmt: skip
        assert decode(theirs.as_dict()) == info(headers=ObjectHeaders({"K": "V"}), revision=7)


@pytest.mark.parametrize("key", ["natsproto.renaming", "natsproto.moved-to", "natsproto."])
def test_reserved_metadata(key):
    """A program may pass on what its users choose; these keys begin a rename."""
    with pytest.raises(BadObjectMetaError, match="reserved"):
        codec.meta_fields(metadata={key: "admin/config"})
    assert codec.meta_fields(metadata={f"my.{key}": "x"})[2] == {f"my.{key}": "x"}
