"""Documents of the API: nothing that is read is lost when it is written back."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from natsproto.errors import ConfigError, RemoteProtocolError
from natsproto.jetstream.api.models import (
    ConsumerConfig,
    ConsumerInfo,
    PubAck,
    SequenceInfo,
    StoredMessage,
    StreamConfig,
    StreamInfo,
)

CONFIG: dict[str, Any] = {
    "name": "S",
    "subjects": ["a.>"],
    "retention": "limits",
    "max_age": 3_600_000_000_000,
    "duplicate_window": 120_000_000_000,
    "allow_msg_ttl": True,
    "republish": {"src": ">", "dest": "r.>"},
    "metadata": {"_nats.ver": "2.15.1"},
    "some_future_field": {"deep": [1, None]},
}


NO_NUMBERS = ["x", [1], None, True, 1.0, -1, 2**64, 10**40]


def test_unknown_fields_are_kept_and_written_back() -> None:
    config = StreamConfig.from_json(CONFIG)
    assert config.max_age == timedelta(hours=1)
    assert config.extra == {"some_future_field": {"deep": [1, None]}}
    assert (config.allow_msg_ttl, config.republish) == (True, {"src": ">", "dest": "r.>"})
    assert config.to_json() == CONFIG


@pytest.mark.parametrize("key", ["extra", "durations", "from_json", "to_json", "__slots__"])
def test_fields_named_as_ours_are_unknown_fields(key: str) -> None:
    document = {"name": "S", key: 1}
    assert StreamConfig.from_json(document).to_json() == document


def test_a_known_field_wins_over_the_same_name_in_extra() -> None:
    assert StreamConfig(name="S", extra={"name": "other", "max_bytes": 5}).to_json() == {
        "name": "S",
        "max_bytes": 5,
    }


def test_consumer_config_round_trip() -> None:
    document = {
        "name": "c",
        "ack_wait": 30_000_000_000,
        "idle_heartbeat": 500_000_000,
        "inactive_threshold": 5_000_000_000,
        "max_expires": 1_000_000_000,
        "backoff": [1, 0, 333_333_333, 1_000_000_000],
        "pause_until": "2030-01-01T00:00:00Z",
        "priority_groups": ["a"],
        "sourcing": True,
    }
    config = ConsumerConfig.from_json(document)
    assert (config.ack_wait, config.max_expires) == (timedelta(seconds=30), timedelta(seconds=1))
    assert config.backoff is not None
    assert config.backoff[1:] == [timedelta(0), timedelta(microseconds=333_333), timedelta(seconds=1)]
    assert (config.priority_groups, config.extra) == (["a"], {"sourcing": True})
    assert config.to_json() == document


@pytest.mark.parametrize("value", [5, ["1s"], [True], [-1], [2**63], [1.5]])
def test_a_backoff_that_is_none(value: object) -> None:
    with pytest.raises(RemoteProtocolError, match="backoff"):
        ConsumerConfig.from_json({"backoff": value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("priority_groups", "g"), ("filter_subjects", [1]), ("max_expires", "1s"), ("pause_until", 5)],
)
def test_a_field_of_another_type(field: str, value: object) -> None:
    with pytest.raises(RemoteProtocolError, match=field):
        ConsumerConfig.from_json({field: value})


def test_a_duration_that_is_no_whole_number_of_microseconds() -> None:
    """Who reads and writes back a configuration leaves it as it is; who changes the field changes it."""
    document = {"name": "S", "max_age": 333_333_333, "duplicate_window": 5001}
    config = StreamConfig.from_json(document)
    assert config.max_age == timedelta(microseconds=333_333)
    assert config.to_json() == document
    assert copy.deepcopy(config).to_json() == pickle.loads(pickle.dumps(config)).to_json() == document
    assert replace(config, max_age=timedelta(seconds=1)).to_json()["max_age"] == 1_000_000_000


def test_a_stream_config_without_a_name() -> None:
    with pytest.raises(RemoteProtocolError, match="name"):
        StreamConfig.from_json({"subjects": []})


def test_stream_info() -> None:
    info = StreamInfo.from_json(
        {
            "config": CONFIG,
            "created": "2024-01-02T03:04:05.123456789Z",
            "state": {"messages": 3, "bytes": 40, "first_seq": 1, "last_seq": 3},
        }
    )
    assert info.created == datetime(2024, 1, 2, 3, 4, 5, 123456, UTC)
    assert (info.messages, info.bytes, info.last_seq) == (3, 40, 3)
    assert (info.num_subjects, info.consumer_count) == (0, 0)
    assert (info.first_time, info.domain, info.cluster, info.sources, info.timestamp) == (None,) * 5


def test_all_of_a_stream_info() -> None:
    at = "2024-01-02T03:04:05Z"
    document: dict[str, Any] = {
        "config": CONFIG,
        "created": at,
        "state": {"first_ts": at, "last_ts": "0001-01-01T00:00:00Z", "num_deleted": 2},
        "domain": "hub",
        "cluster": {"leader": "n1"},
        "mirror": {"name": "M", "lag": 3},
        "sources": [{"name": "A"}],
        "alternates": [{"name": "S", "cluster": "c"}],
        "ts": at,
    }
    info = StreamInfo.from_json(document)
    assert info.first_time == info.timestamp == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (info.last_time, info.num_deleted, info.domain) == (None, 2, "hub")
    assert (info.cluster, info.mirror) == (document["cluster"], document["mirror"])
    assert (info.sources, info.alternates) == (document["sources"], document["alternates"])
    for key, wrong in (("domain", 1), ("cluster", []), ("mirror", "M"), ("sources", [1]), ("ts", 5)):
        with pytest.raises(RemoteProtocolError):
            StreamInfo.from_json({**document, key: wrong})


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": {}, "state": {}},
        {"config": [], "state": {}},
        {"config": CONFIG, "state": 5},
        {"config": CONFIG, "state": {}},
        {"config": CONFIG, "state": {}, "created": "never"},
        *(
            {"config": CONFIG, "state": {key: value}, "created": "2024-01-02T03:04:05Z"}
            for key in ("messages", "bytes", "first_seq", "last_seq", "num_subjects", "consumer_count")
            for value in NO_NUMBERS
        ),
    ],
)
def test_no_stream_info(document: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        StreamInfo.from_json(document)


def test_consumer_info() -> None:
    info = ConsumerInfo.from_json({"stream_name": "S", "name": "c", "config": {}, "num_pending": 7, "x": 1})
    assert (info.stream, info.name, info.num_pending, info.raw["x"]) == ("S", "c", 7, 1)
    assert (info.created, info.delivered, info.ack_floor, info.paused) == (
        None,
        SequenceInfo(),
        SequenceInfo(),
        False,
    )


def test_all_of_a_consumer_info() -> None:
    at = "2024-01-02T03:04:05Z"
    time = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    document: dict[str, Any] = {
        "stream_name": "S",
        "name": "c",
        "config": {},
        "created": at,
        "delivered": {"consumer_seq": 5, "stream_seq": 9, "last_active": at},
        "ack_floor": {"consumer_seq": 3, "stream_seq": 7},
        "num_ack_pending": 2,
        "num_redelivered": 1,
        "num_waiting": 4,
        "push_bound": True,
        "paused": True,
        "pause_remaining": 1_000_000_000,
        "priority_groups": [{"group": "g", "pinned_client_id": "x"}],
        "cluster": {"leader": "n1"},
        "ts": at,
    }
    info = ConsumerInfo.from_json(document)
    assert info.created == info.timestamp == time
    assert (info.delivered, info.ack_floor) == (SequenceInfo(5, 9, time), SequenceInfo(3, 7))
    assert (info.num_ack_pending, info.num_redelivered, info.num_waiting) == (2, 1, 4)
    assert (info.push_bound, info.paused, info.pause_remaining) == (True, True, timedelta(seconds=1))
    assert (info.priority_groups, info.cluster) == (document["priority_groups"], document["cluster"])
    for key, wrong in (
        ("delivered", 5),
        ("ack_floor", {"stream_seq": "x"}),
        ("num_waiting", -1),
        ("priority_groups", {}),
        ("created", "never"),
    ):
        with pytest.raises(RemoteProtocolError):
            ConsumerInfo.from_json({**document, key: wrong})


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_consumer_info_that_counts_with_no_numbers(value: object) -> None:
    with pytest.raises(RemoteProtocolError, match="num_pending"):
        ConsumerInfo.from_json({"stream_name": "S", "name": "c", "config": {}, "num_pending": value})


@pytest.mark.parametrize("drop", ["stream_name", "name", "config"])
def test_no_consumer_info(drop: str) -> None:
    document = {"stream_name": "S", "name": "c", "config": {}}
    del document[drop]
    with pytest.raises(RemoteProtocolError):
        ConsumerInfo.from_json(document)


def test_reprs() -> None:
    assert repr(PubAck("S", 5)) == "PubAck(stream='S', seq=5, duplicate=False)"
    message = StoredMessage("a", 5, b"xy", None, datetime(2024, 1, 1, tzinfo=UTC))
    assert repr(message) == "<StoredMessage 'a' seq=5 2 bytes>"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ack_wait": 5}, "ack_wait of a ConsumerConfig must be timedelta, not 5"),  # it would be 5 ns
        ({"ack_wait": timedelta(seconds=-1)}, "must be timedelta"),
        ({"backoff": [timedelta(seconds=1), 5]}, r"must be list\[timedelta\]"),
        ({"backoff": timedelta(seconds=1)}, r"must be list\[timedelta\]"),
        ({"filter_subjects": "a"}, r"must be list\[str\], not 'a'"),
        ({"opt_start_time": datetime(2030, 1, 1)}, "opt_start_time of a ConsumerConfig must be str"),
        ({"max_deliver": 1.5}, "must be int"),
        ({"max_deliver": True}, "must be int"),
        ({"flow_control": 1}, "must be bool"),
        ({"metadata": {"a": 5}}, r"must be dict\[str, str\]"),
    ],
)
def test_fields_of_another_type(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ConsumerConfig(**fields).to_json()


def test_tuples_are_lists() -> None:
    fields: dict[str, Any] = {"filter_subjects": ("a", "b")}
    assert ConsumerConfig(**fields).to_json() == {"filter_subjects": ["a", "b"]}
