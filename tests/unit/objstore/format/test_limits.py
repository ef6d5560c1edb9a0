"""What a stream's configuration leaves of the room for objects."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.errors import RemoteProtocolError
from natsproto.jetstream.api.models import StreamInfo
from objstore.bucket.bucket import Bucket
from objstore.errors import BadBucketError
from objstore.format.buckets import stream_config
from objstore.format.limits import Limits, _covers, _overlap, holds_bucket, limits_of
from objstore.format.models import ObjectStoreConfig
from support.fake_session import FakeServer

C, M = "$O.b.C.>", "$O.b.M.>"
OURS = stream_config(ObjectStoreConfig("b"))
# What servers add to it.
ADDED = {
    "max_consumers": -1,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "duplicate_window": 120 * 10**9,
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "mirror_direct": False,
    "consumer_limits": {},
    "allow_msg_ttl": False,
    "metadata": {"_nats.level": "5"},
}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"max_bytes": 1000},
        {"replicas": 3, "compression": True},
        {"allow_atomic": True, "allow_msg_ttl": True},
        {"sources": ("c",)},
        {"mirror": "c"},
    ],
    ids=repr,
)
def test_buckets_of_ours_keep_everything(params: dict[str, Any]) -> None:
    wanted = Limits(max_bytes=params.get("max_bytes", 0))
    document = stream_config(ObjectStoreConfig("b", **params))
    for config in (document, {**ADDED, **document}):
        assert limits_of("b", config) == wanted


@pytest.mark.parametrize("source", [5, ["a"], {"a": 1}, True], ids=repr)
def test_a_field_of_another_type(source: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="src"):
        limits_of("b", {**OURS, "subject_transform": {"src": source, "dest": "x"}})


def test_nothing_known_is_nothing_wrong() -> None:
    assert limits_of("b", {}) == Limits()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"retention": "interest"}, "retention"),
        ({"retention": "workqueue"}, "retention"),
        ({"retention": "something new"}, "retention"),
        ({"no_ack": True}, "no_ack"),
        ({"allow_rollup_hdrs": False}, "allow_rollup_hdrs"),
        ({"allow_rollup_hdrs": False, "deny_purge": True}, "deny_purge"),
        ({"allow_msg_counter": True, "discard": "old"}, "allow_msg_counter"),
        ({"subjects": [C]}, "subjects"),
        ({"subjects": [M]}, "subjects"),
        ({"subjects": ["$O.b.*"]}, "subjects"),
        ({"subjects": ["$O.b.C.*", "$O.b.M.a"]}, "subjects"),
        ({"subjects": ["$O.c.>"]}, "subjects"),
        ({"subjects": []}, "subjects"),
        ({"subjects": None, "sources": [{"name": "OBJ_c"}]}, "subjects"),
        ({"subject_transform": {"src": ">", "dest": "x.>"}}, "subject_transform"),
        ({"subject_transform": {"src": "", "dest": "x.>"}}, "subject_transform"),
        ({"subject_transform": {"src": "$O.*.C.>", "dest": "$O.{{wildcard(1)}}.D.>"}}, "subject_transform"),
        ({"subject_transform": {"src": "$O.b.M.abc", "dest": "x"}}, "subject_transform"),
    ],
    ids=repr,
)
def test_refused(change: dict[str, Any], field: str) -> None:
    refusal = limits_of("b", {**ADDED, **OURS, **change}).refusal
    assert refusal is not None
    assert refusal.field == field
    assert refusal.value == change[field]
    assert refusal.why
    assert refusal.remedy


@pytest.mark.parametrize(
    "change",
    [
        {"deny_delete": True},
        {"discard": "old"},
        {"discard": "old", "max_age": 10**12},
        {"subjects": ["$O.>"]},
        {"subjects": ["$O.b.>"]},
        {"subjects": ["other", "$O.*.C.>", M]},
        {"subjects": [">"]},
        {"subject_transform": {"src": "other.>", "dest": "x.>"}},
        {"subject_transform": {"src": "$O.c.>", "dest": "x.>"}},
        {"subject_transform": {"src": ">", "dest": ">"}},
        {"subject_transform": None},
    ],
    ids=repr,
)
def test_harmless(change: dict[str, Any]) -> None:
    assert limits_of("b", {**ADDED, **OURS, **change}) == Limits()


@pytest.mark.parametrize(
    ("change", "limits"),
    [
        ({"max_msg_size": 1000}, Limits(message=1000)),
        ({"max_msg_size": 0}, Limits()),
        ({"max_msgs_per_subject": 1}, Limits(chunks=1)),
        ({"max_msgs_per_subject": 7, "discard_new_per_subject": True}, Limits(chunks=7)),
        ({"discard": "old", "max_bytes": 5}, Limits(evicts_oldest=True, max_bytes=5)),
        ({"discard": "old", "max_msgs": 5}, Limits(evicts_oldest=True, max_msgs=5)),
        ({"max_msgs": 5}, Limits(max_msgs=5)),
        ({"sealed": True, "allow_rollup_hdrs": None}, Limits(sealed=True)),
        ({"max_msg_size": "1000"}, Limits()),
    ],
    ids=repr,
)
def test_limits(change: dict[str, Any], limits: Limits) -> None:
    assert limits_of("b", {**ADDED, **OURS, **change}) == limits


@pytest.mark.parametrize(
    ("pattern", "filter", "covers"),
    [
        ("a.>", "a.>", True),
        (">", "a.>", True),
        ("a.*.>", "a.b.c.>", True),
        ("a.>", "a", False),
        ("a.*", "a.>", False),
        ("a.*", "a.b", True),
        ("a.b.c", "a.b", False),
        ("a.b", "a.b.c", False),
        ("a.b.c.d", "a.b.>", False),
        ("a.*.>", "a.>", False),
    ],
)
def test_covers(pattern: str, filter: str, covers: bool) -> None:
    assert _covers(pattern, filter) is covers


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a.>", "a.b.>", True),
        ("a.b.>", "a.>", True),
        ("a.*.c", "a.b.*", True),
        ("a.b", "a.c", False),
        ("a.b", "a.b.c", False),
        ("a", "b.>", False),
        ("a.>", "a", False),
    ],
)
def test_overlap(one: str, other: str, overlap: bool) -> None:
    assert _overlap(one, other) is _overlap(other, one) is overlap


@pytest.mark.parametrize(
    ("config", "bucket"),
    [
        ({"subjects": ["$O.b.C.>", "$O.b.M.>"]}, True),
        ({"subjects": ["$O.b.M.>"]}, True),
        ({"subjects": ["$O.b.C.*", "x"]}, True),
        ({"subjects": [">"]}, True),
        ({"subjects": ["OBJ_b"]}, False),
        ({"subjects": ["orders.>", "$KV.b.>"]}, False),
        ({"subjects": ["$O.b"]}, False),
        ({"subjects": [7, None]}, False),
        ({"subjects": "$O.b.C.>"}, False),
        ({}, False),
        ({"mirror": {"name": "OBJ_b"}}, True),
        ({"mirror": {"name": "ORDERS"}}, False),
        ({"mirror": {"name": "X", "subject_transforms": [{"src": ">", "dest": "$O.b.>"}]}}, True),
        ({"mirror": {"name": "X", "subject_transforms": [{"src": ">", "dest": "x.>"}, 7]}}, False),
        ({"mirror": {"name": "X", "subject_transforms": "$O."}}, False),
        ({"mirror": 7}, False),
        ({"sources": [{"name": "ORDERS"}, {"name": "OBJ_b"}]}, True),
        ({"sources": [{"name": "ORDERS"}]}, False),
        ({"sources": 7}, False),
        ({"subjects": ["x"], "sources": [{"name": "OBJ_b"}]}, True),
    ],
    ids=str,
)
def test_which_streams_are_buckets(config: dict[str, Any], bucket: bool) -> None:
    assert holds_bucket(config) is bucket


async def test_what_is_refused_is_told_in_short() -> None:
    config = {"subject_transform": {"src": "$O.b.C." + "x" * 100_000, "dest": "x"}}
    info = StreamInfo.from_json(
        {"config": {**ADDED, **OURS, **config}, "state": {}, "created": "2024-01-01T00:00:00Z"}
    )
    bucket = Bucket(FakeServer().client.jetstream(), "b", info)
    with pytest.raises(BadBucketError) as refused:
        bucket.check_writable()
    assert len(str(refused.value)) < 1000
