import inspect
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from objstore.format.models import (
    InvalidMeta,
    ObjectHeaders,
    ObjectInfo,
    ObjectLink,
    ObjectMeta,
    ObjectMetaOptions,
    ObjectStoreConfig,
    ObjectStoreStatus,
    Placement,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def positional(cls):
    signature = inspect.signature(cls)
    return [
        name if parameter.default is parameter.empty else (name, parameter.default)
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


def test_signatures_are_the_documents():
    assert positional(ObjectInfo) == [
        "name", "description", "headers", "size", "chunks", "digest", "deleted", "mtime", "nuid", "bucket",
        ("links", None),
    ]  # fmt: skip
    assert positional(ObjectMeta) == ["name", ("description", None), ("headers", None), ("options", None)]
    assert positional(ObjectMetaOptions) == [
        ("link", None), ("chunk_size", None), ("max_chunk_size", 128 * 1024),
    ]  # fmt: skip
    assert positional(ObjectLink) == ["bucket", ("name", None)]
    assert positional(ObjectStoreStatus) == [
        "bucket", "description", "ttl", "storage", "replicas", "sealed", "size", "count", "backing_store",
    ]  # fmt: skip
    assert positional(ObjectStoreConfig) == [
        "bucket", ("description", None), ("ttl", None), ("max_bytes", -1), ("storage", "file"),
        ("replicas", 1), ("placement", None), ("metadata", None),
    ]  # fmt: skip
    assert positional(Placement) == [("cluster", None), ("tags", ())]


@pytest.mark.parametrize(
    "cls",
    [
        ObjectInfo,
        ObjectMeta,
        ObjectMetaOptions,
        ObjectLink,
        ObjectStoreStatus,
        ObjectStoreConfig,
        Placement,
        InvalidMeta,
    ],
)
def test_frozen_and_slotted(cls):
    assert "__slots__" in vars(cls)
    assert cls.__dataclass_params__.frozen


def info(**changes):
    return replace(ObjectInfo("n", None, None, 3, 1, "SHA-256=" + "00" * 32, False, NOW, "N", "b"), **changes)


def test_info_defaults():
    one = info()
    assert (one.links, one.options, one.metadata, one.revision, one.filename) == (None, None, {}, 0, None)
    assert not one.is_link
    assert one.wire_digest == "SHA-256=" + "A" * 43 + "="
    assert info(digest="").wire_digest == ""
    assert info(digest="MD5=abc").wire_digest == "MD5=abc"
    assert info(metadata={"filename": "f"}).filename == "f"
    with pytest.raises(FrozenInstanceError):
        one.name = "other"


def test_links_are_derived_from_options():
    to_object = info(options=ObjectMetaOptions(ObjectLink("tb", "t")))
    assert to_object.is_link
    assert to_object.links == ["tb/t"]
    assert info(options=ObjectMetaOptions(ObjectLink("tb"))).links == ["tb"]
    assert replace(to_object, options=None).links is None
    assert info(links=["given"]).links is None
    assert asdict(to_object)["links"] == ["tb/t"]


def test_info_extra_is_neither_shown_nor_compared_and_info_hashes():
    assert info(extra={"x": 1}) == info()
    assert "extra" not in repr(info(extra={"x": 1}))
    assert hash(info(metadata={"a": "b"})) == hash(info())
    assert {f.name for f in fields(ObjectInfo)} >= {"extra", "revision", "metadata", "options"}


def test_status_knows_its_stream():
    status = ObjectStoreStatus("b", None, timedelta(1), "file", 1, False, 0, 0, "JetStream")
    assert status.stream == "OBJ_b"
    assert (status.metadata, status.compression, status.max_bytes, status.placement) == ({}, False, -1, None)


class TestHeaders:
    def test_first_value_all_values_and_wire(self):
        headers = ObjectHeaders({"A": ["1", "2"], "B": "3", "C": ("4",), "Empty": []})
        assert headers["A"] == "1"
        assert headers.get("nope") is None
        assert headers.get_all("A") == ["1", "2"]
        assert headers.get_all("nope") == []
        assert list(headers) == ["A", "B", "C"]
        assert len(headers) == 3
        assert dict(headers) == {"A": "1", "B": "3", "C": "4"}
        assert headers.as_wire() == {"A": ["1", "2"], "B": ["3"], "C": ["4"]}
        with pytest.raises(KeyError):
            headers["Empty"]

    def test_equality(self):
        headers = ObjectHeaders({"A": ["1", "2"], "B": "3"})
        assert headers == ObjectHeaders({"B": ["3"], "A": ("1", "2")})
        assert headers != ObjectHeaders({"A": "1", "B": "3"})
        assert headers == {"A": "1", "B": "3"}
        assert headers == {"A": ["1", "2"], "B": ["3"]}
        assert headers == {"A": ["1", "2"], "B": "3"}
        assert headers == {"A": "1", "B": "3"}
        assert headers != {"A": "2", "B": "3"}
        assert headers != {"A": ["1"], "B": "3"}
        assert headers != {"A": "1"}
        assert headers != {"A": "1", "C": "3"}
        assert headers != 5
        assert ObjectHeaders() == {}

    def test_immutable_and_independent_of_its_argument(self):
        given = {"A": ["1"]}
        headers = ObjectHeaders(given)
        given["A"].append("2")
        headers.get_all("A").append("3")
        headers.as_wire()["A"].append("4")
        assert headers.get_all("A") == ["1"]
        with pytest.raises(TypeError):
            headers["A"] = "x"
        with pytest.raises(TypeError):
            hash(headers)

    def test_copy_keeps_every_value(self):
        headers = ObjectHeaders({"A": ["1", "2"]})
        assert ObjectHeaders.of(headers) is headers
        assert ObjectHeaders.of({"A": "1"}) == {"A": "1"}
        assert (
            repr(ObjectHeaders({"A": ["1", "2"], "B": "3"})) == "ObjectHeaders({'A': ['1', '2'], 'B': '3'})"
        )

    @pytest.mark.parametrize(
        "bad", [{1: "x"}, {"A": 1}, {"A": [1]}, {"A": b"x"}, {"A": None}, {"A": {"B": "C"}}]
    )
    def test_wrong_types(self, bad):
        with pytest.raises(TypeError):
            ObjectHeaders(bad)
