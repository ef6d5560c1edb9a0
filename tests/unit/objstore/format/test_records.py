"""The data types as plain values: JSON takes them, the names are those of the fields."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone

import pytest

import objstore
from objstore import (
    BucketSource,
    DirListing,
    GcReport,
    InvalidMeta,
    ObjectHeaders,
    ObjectInfo,
    ObjectLink,
    ObjectMeta,
    ObjectMetaOptions,
    ObjectStoreConfig,
    ObjectStoreStatus,
    Orphan,
    Placement,
    Problem,
    VerifyReport,
)
from objstore.format.models import complete, plain_info
from objstore.format.records import Record, format_rfc3339, plain

NOON = datetime(2026, 11, 29, 13, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
SHOWN = "2026-11-29T12:00:00.000005Z"

INFO = ObjectInfo(
    "a\udcff",
    None,
    ObjectHeaders({"Tag": ["1", "2"], "Type": "text"}),
    3,
    1,
    "SHA-256=00",
    False,
    NOON,
    "N",
    "b",
    options=ObjectMetaOptions(link=ObjectLink("b", "c")),
    metadata={"k": "v"},
    revision=7,
    extra={"theirs": {"deep": object()}},
)
STATUS = ObjectStoreStatus(
    "b",
    "d",
    timedelta(seconds=90),
    "file",
    1,
    False,
    10,
    2,
    "JetStream",
    placement=Placement("east", ("ssd",)),
    sources=(BucketSource("other"),),
    created=NOON,
    raw={"theirs": object()},
)
INVALID = InvalidMeta("$O.b.M.x", 3, ValueError("no JSON"))


def test_an_object() -> None:
    assert INFO.to_dict() == {
        "name": "a\udcff",
        "description": None,
        "headers": {"Tag": ["1", "2"], "Type": ["text"]},
        "size": 3,
        "chunks": 1,
        "digest": "SHA-256=00",
        "deleted": False,
        "mtime": SHOWN,
        "nuid": "N",
        "bucket": "b",
        "links": ["b/c"],
        "options": {
            "link": {"bucket": "b", "name": "c"},
            "chunk_size": None,
            "max_chunk_size": 128 * 1024,
        },
        "metadata": {"k": "v"},
        "revision": 7,
        "expires": None,
    }


def test_a_bucket() -> None:
    shown = STATUS.to_dict()
    assert (shown["ttl"], shown["created"]) == (90.0, SHOWN)
    assert shown["placement"] == {"cluster": "east", "tags": ["ssd"]}
    assert shown["sources"] == [{"bucket": "other", "domain": None}]
    assert "raw" not in shown


def test_an_error_is_its_text() -> None:
    assert INVALID.to_dict() == {"subject": "$O.b.M.x", "revision": 3, "error": "no JSON"}


@pytest.mark.parametrize(
    "record",
    [
        INFO,
        STATUS,
        INVALID,
        ObjectLink("b"),
        ObjectMeta("a", headers={"Tag": ["1", "2"], "Type": "text"}),
        ObjectMetaOptions(chunk_size=5),
        ObjectStoreConfig("b", ttl=timedelta(hours=1), mirror=BucketSource("o", "hub")),
        Placement(),
        BucketSource("o"),
        DirListing(["a/"], [INFO]),
        Problem("damaged", "a", "digest", 7),
        VerifyReport("b", 1, 0, 3, deep=True, problems=[Problem("damaged", "a", "digest", 7)]),
        Orphan("n", 2, NOON, removed=True),
        GcReport("b", dry_run=True, orphans=[Orphan("n", 2, NOON, removed=False)], renames=[("a", "b")]),
    ],
    ids=lambda record: type(record).__name__,
)
def test_json_takes_it_and_gives_it_back(record: Record) -> None:
    shown = record.to_dict()
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    names = {name for name in record.__dataclass_fields__ if name not in ("extra", "raw")}
    assert set(shown) == names


def test_every_data_type_has_it() -> None:
    """Whatever the package exports that has fields."""
    types = {value for name in objstore.__all__ if isinstance(value := getattr(objstore, name), type)}
    assert {each.__name__ for each in types if hasattr(each, "__dataclass_fields__")} == {
        each.__name__ for each in types if issubclass(each, Record)
    }


def test_infos_made_in_another_way() -> None:
    """Those of listings, and those of puts, become infos without the constructor."""
    info = plain_info("a", "b", None, NOON)
    assert complete(info, nuid="N", size=1, chunks=1, digest="d", mtime=NOON).to_dict()["nuid"] == "N"
    assert not hasattr(info, "__dict__"), "the base class costs no memory"
    assert pickle.loads(pickle.dumps(INFO.options)) == INFO.options
    assert [field.name for field in fields(info)][:2] == ["name", "description"]


def test_headers() -> None:
    headers = ObjectHeaders({"Tag": ["1", "2"]})
    shown = headers.to_dict()
    assert json.loads(json.dumps(shown)) == shown == {"Tag": ["1", "2"]}
    shown["Tag"].append("3")
    assert headers.get_all("Tag") == ["1", "2"]


def test_values() -> None:
    assert [plain(value) for value in (None, True, 1, 0.5, "a")] == [None, True, 1, 0.5, "a"]
    assert plain({"a": (1, [NOON])}) == {"a": [1, [SHOWN]]}
    assert format_rfc3339(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000000Z"
