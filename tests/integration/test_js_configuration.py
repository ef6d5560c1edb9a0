"""Configurations on real servers: every field of the newest one is known, and no round trip loses any."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from natsproto.aio.client import Client
from natsproto.errors import UnsupportedFeatureError
from natsproto.jetstream.api.features import MINIMUM
from natsproto.jetstream.api.models import ConsumerConfig, StreamConfig
from natsproto.jetstream.context import JetStreamContext

THIRD = 333_333_333_333  # nanoseconds, no whole number of microseconds


@pytest.fixture
async def name(js: JetStreamContext) -> AsyncIterator[str]:
    name = "c-" + uuid.uuid4().hex[:12]
    yield name
    for each in await js.stream_names():
        if each.startswith(name):
            await js.delete_stream(each)


def is_new(nc: Client) -> bool:
    return "api_lvl" in nc.server_info


EVERYWHERE: dict[str, Any] = {
    "description": "d",
    "retention": "limits",
    "max_consumers": 9,
    "max_msgs": 1000,
    "max_bytes": 1 << 20,
    "max_age": THIRD,
    "max_msgs_per_subject": 5,
    "max_msg_size": 1 << 16,
    "discard": "new",
    "discard_new_per_subject": True,
    "storage": "file",
    "num_replicas": 1,
    "duplicate_window": 1_000_000_001,
    "sealed": False,
    "deny_delete": True,
    "deny_purge": True,
    "allow_rollup_hdrs": False,
    "allow_direct": True,
    "mirror_direct": False,
}

NEWEST: list[dict[str, Any]] = [
    {
        "subject_transform": {"src": ">", "dest": "t.>"},
        "republish": {"src": ">", "dest": "r.>", "headers_only": True},
        "consumer_limits": {"inactive_threshold": THIRD, "max_ack_pending": 77},
        "compression": "s2",
        "first_seq": 1000,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": 1_000_000_001,
        "deny_purge": False,  # markers roll up
        "allow_atomic": True,
        "allow_batched": True,
        "metadata": {"a": "b"},
    },
    {"allow_msg_counter": True, "discard": "old", "discard_new_per_subject": False},
    {"allow_msg_schedules": True, "deny_purge": False, "discard": "old", "discard_new_per_subject": False},
    {"persist_mode": "async", "no_ack": True},
]


async def test_streams(nc: Client, js: JetStreamContext, name: str) -> None:
    for number, more in enumerate(NEWEST if is_new(nc) else [{}]):
        wanted = {**EVERYWHERE, **more, "name": f"{name}-{number}", "subjects": [f"{name}.{number}"]}
        made = await js.create_stream(wanted)
        answered = made.raw["config"]
        assert isinstance(answered, dict)
        lost = {key for key, value in wanted.items() if value and answered.get(key) != value}
        assert lost <= {"metadata"}  # which gets more
        assert made.config.extra == {}  # each field is known
        again = await js.update_stream((await js.stream_info(made.config.name)).config)
        assert again.raw["config"] == answered
        changed = await js.update_stream(replace(again.config, description="other"))
        assert changed.raw["config"] == {**answered, "description": "other"}


async def test_a_mirror_and_sources(nc: Client, js: JetStreamContext, name: str) -> None:
    await js.create_stream({"name": f"{name}-0", "subjects": [f"{name}.>"], "storage": "memory"})
    source: dict[str, Any] = {"name": f"{name}-0", "opt_start_seq": 3}
    for number, fields in enumerate(
        ({"mirror": source}, {"sources": [{**source, "filter_subject": f"{name}.a"}]})
    ):
        made = await js.create_stream({"name": f"{name}-{number + 1}", "storage": "memory", **fields})
        again = await js.update_stream((await js.stream_info(made.config.name)).config)
        assert again.raw["config"] == made.raw["config"]
    mirror, sources = await js.stream_info(f"{name}-1"), await js.stream_info(f"{name}-2")
    assert mirror.mirror is not None
    assert sources.sources is not None
    assert mirror.mirror["name"] == sources.sources[0]["name"] == f"{name}-0"


async def test_stream_infos(nc: Client, js: JetStreamContext, name: str) -> None:
    empty = await js.create_stream({"name": name, "subjects": [f"{name}.>"], "storage": "memory"})
    assert (empty.first_time, empty.last_time, empty.num_deleted) == (None, None, 0)
    for n in range(3):
        await js.publish(f"{name}.a", b"%d" % n)
    await js.delete_message(name, 2)
    info = await js.stream_info(name)
    assert info.first_time is not None
    assert info.last_time is not None
    assert timedelta(0) <= info.last_time - info.first_time < timedelta(minutes=1)
    assert (info.num_deleted, info.domain) == (1, None)
    assert (info.timestamp is not None) == is_new(nc)


CONSUMER: dict[str, Any] = {
    "durable_name": "c",
    "description": "d",
    "deliver_policy": "by_start_time",
    "opt_start_time": "2024-01-02T03:04:05.123456789Z",
    "ack_policy": "explicit",
    "ack_wait": THIRD,
    "max_deliver": 5,
    "backoff": [THIRD, 2 * THIRD],
    "replay_policy": "original",
    "sample_freq": "30%",
    "max_waiting": 9,
    "max_ack_pending": 8,
    "headers_only": True,
    "max_batch": 7,
    "max_expires": THIRD,
    "max_bytes": 1 << 20,
    "inactive_threshold": THIRD,
    "num_replicas": 1,
    "mem_storage": True,
}
NEW_CONSUMER = {
    "metadata": {"a": "b"},
    "pause_until": "2100-01-02T03:04:05Z",
    "priority_groups": ["g"],
    "priority_policy": "pinned_client",
    "priority_timeout": THIRD,
}
PUSH = {
    "durable_name": "p",
    "deliver_subject": "_INBOX.nobody",
    "deliver_group": "q",
    "ack_policy": "none",
    "flow_control": True,
    "idle_heartbeat": THIRD,
    "rate_limit_bps": 1 << 20,
}


async def test_consumers(nc: Client, js: JetStreamContext, name: str) -> None:
    await js.create_stream({"name": name, "subjects": [f"{name}.>"], "storage": "memory"})
    several = {"filter_subjects": [f"{name}.a", f"{name}.b"]}
    for wanted in (
        {**CONSUMER, **({**NEW_CONSUMER, **several} if is_new(nc) else {"filter_subject": f"{name}.a"})},
        {**PUSH, "filter_subject": f"{name}.*"},
    ):
        made = await js.create_consumer(name, wanted)
        answered = made.raw["config"]
        assert isinstance(answered, dict)
        assert made.config.extra == {}  # each field is known
        lost = {key for key, value in wanted.items() if answered.get(key) != value}
        assert lost <= {"metadata", "ack_wait"}  # which get more, and the first of the backoff
        again = await js.create_consumer(name, (await js.consumer_info(name, made.name)).config)
        assert again.raw["config"] == answered


async def test_consumer_infos(nc: Client, js: JetStreamContext, name: str) -> None:
    await js.create_stream({"name": name, "subjects": [f"{name}.>"], "storage": "memory"})
    for n in range(3):
        await js.publish(f"{name}.a", b"%d" % n)
    pull = await js.pull_consumer(name, config=ConsumerConfig(durable_name="c", ack_policy="explicit"))
    first, _ = await pull.fetch(2)
    await first.ack_sync()
    info = await js.consumer_info(name, "c")
    assert (info.delivered.consumer_seq, info.delivered.stream_seq) == (2, 2)
    assert (info.ack_floor.stream_seq, info.num_ack_pending, info.num_pending) == (1, 1, 1)
    assert info.created is not None
    assert abs(info.created - datetime.now(UTC)) < timedelta(minutes=1)
    assert (info.paused, info.push_bound, info.num_redelivered) == (False, False, 0)


async def test_what_a_server_is_too_old_for(nc: Client, js: JetStreamContext, name: str) -> None:
    """The newest server has all, the oldest drops what it does not know."""
    dropped = []
    for number, field in enumerate(("allow_msg_ttl", "allow_atomic", "allow_batched")):
        wanted: dict[str, Any] = {"name": f"{name}-{number}", "subjects": [f"{name}.{number}"], field: True}
        try:
            await js.create_stream(StreamConfig(**wanted, storage="memory"))
        except UnsupportedFeatureError as exc:
            dropped.append((exc.feature, exc.minimum))
    try:
        await js.create_consumer(f"{name}-0", ConsumerConfig(filter_subjects=[f"{name}.0"]))
    except UnsupportedFeatureError as exc:
        dropped.append((exc.feature, exc.minimum))
    lacking = ("allow_msg_ttl", "allow_atomic", "allow_batched", "filter_subjects")
    assert dropped == ([] if is_new(nc) else [(field, MINIMUM[field]) for field in lacking])
