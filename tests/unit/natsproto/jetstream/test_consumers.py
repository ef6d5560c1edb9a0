"""Pauses, priority groups, and servers that have neither."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    ConfigError,
    InvalidNameError,
    RemoteProtocolError,
    RequestTimeoutError,
    UnsupportedFeatureError,
)
from natsproto.jetstream.api.errors import StreamConfigError
from natsproto.jetstream.api.features import MINIMUM
from natsproto.jetstream.api.models import ConsumerConfig, ConsumerInfo
from natsproto.jetstream.api.statuses import (
    BadPullError,
    MaxBytesError,
    NotPullConsumerError,
    PullError,
    PullLimitError,
)
from natsproto.jetstream.consumers import ConsumerPause, explains, pinned, priority_fields
from natsproto.jetstream.context import JetStreamContext
from natsproto.wire import Pub
from support.fake_session import FakeServer

UNTIL = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.05)


def answers(server: FakeServer, **by_call: Any) -> None:
    """Let the server answer the calls of these names; to others it says nothing."""

    def on_pub(pub: Pub) -> None:
        answer = by_call.get(pub.subject.split(b".")[3].decode())
        if answer is not None:
            server.reply(pub, answer)

    server.session.on_pub = on_pub


def info(**config: Any) -> ConsumerInfo:
    return ConsumerInfo.from_json({"stream_name": "S", "name": "c", "config": config})


def failure(code: int, err_code: int, text: str = "bad") -> dict[str, Any]:
    return {"error": {"code": code, "err_code": err_code, "description": text}}


async def test_pause_and_resume(server: FakeServer, js: JetStreamContext) -> None:
    paused = {"paused": True, "pause_until": "2030-01-01T00:00:00Z", "pause_remaining": 5_000_000_000}
    answers(server, PAUSE=paused)
    there = UNTIL.astimezone(timezone(timedelta(hours=2)))
    assert await js.pause_consumer("S", "c", there) == ConsumerPause(
        paused=True, pause_until=UNTIL, pause_remaining=timedelta(seconds=5)
    )
    answers(server, PAUSE={"paused": False, "pause_until": "0001-01-01T00:00:00Z"})
    assert await js.resume_consumer("S", "c") == ConsumerPause(
        paused=False, pause_until=None, pause_remaining=None
    )
    assert {pub.subject for pub in server.pubs} == {b"$JS.API.CONSUMER.PAUSE.S.c"}
    documents = [json.loads(bytes(pub.payload)) for pub in server.pubs]
    assert documents == [{"pause_until": "2030-01-01T00:00:00Z"}, {}]


async def test_unpin(server: FakeServer, js: JetStreamContext) -> None:
    answers(server, UNPIN={})
    await js.unpin_consumer("S", "c", "g")
    (pub,) = server.pubs
    assert (pub.subject, json.loads(bytes(pub.payload))) == (b"$JS.API.CONSUMER.UNPIN.S.c", {"group": "g"})


async def test_nothing_is_sent(server: FakeServer, js: JetStreamContext) -> None:
    for until in (datetime(2030, 1, 1), "2030-01-01T00:00:00Z", 5):
        with pytest.raises(ConfigError, match="time zone"):
            await js.pause_consumer("S", "c", until)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="group"):
        await js.unpin_consumer("S", "c", "")
    for names in (("S.", "c"), ("S", "c.*")):
        with pytest.raises(InvalidNameError):
            await js.pause_consumer(*names, UNTIL)
    assert server.pubs == []


@pytest.mark.parametrize("says", ["nothing", "bad request"])
async def test_servers_that_know_neither(server: FakeServer, js: JetStreamContext, says: str) -> None:
    known = {"stream_name": "S", "name": "c", "config": {"metadata": {}}}
    bad = None if says == "nothing" else failure(400, 10003)
    answers(server, PAUSE=bad, UNPIN=bad, INFO=known)
    for call in (
        js.pause_consumer("S", "c", UNTIL),
        js.resume_consumer("S", "c"),
        js.unpin_consumer("S", "c", "g"),
    ):
        with pytest.raises(UnsupportedFeatureError) as caught:
            await call
        assert caught.value.minimum == "2.11.0"


async def test_a_server_that_knows_it_and_does_not_answer(server: FakeServer, js: JetStreamContext) -> None:
    config = {"metadata": {"_nats.level": "1", "_nats.ver": "2.11.0"}}
    answers(server, INFO={"stream_name": "S", "name": "c", "config": config})
    with pytest.raises(RequestTimeoutError, match="PAUSE"):
        await js.pause_consumer("S", "c", UNTIL)


async def test_other_refusals_and_answers(server: FakeServer, js: JetStreamContext) -> None:
    answers(server, PAUSE={}, UNPIN=failure(400, 10160))
    with pytest.raises(RemoteProtocolError, match="paused"):
        await js.resume_consumer("S", "c")
    with pytest.raises(APIError) as caught:
        await js.unpin_consumer("S", "c", "g")
    assert caught.value.err_code == 10160


async def test_fields_that_a_server_drops(server: FakeServer, js: JetStreamContext) -> None:
    answers(server, CREATE={"stream_name": "S", "name": "c", "config": {"durable_name": "c"}})
    for field, value in (
        ("priority_policy", "overflow"),
        ("priority_groups", ["g"]),
        ("pause_until", "2030-01-01T00:00:00Z"),
        ("filter_subjects", ["a"]),
    ):
        mapping = {"durable_name": "c", field: value}
        for config in (mapping, ConsumerConfig.from_json(mapping)):
            with pytest.raises(UnsupportedFeatureError, match=field) as caught:
                await js.create_consumer("S", config)
            assert caught.value.minimum == MINIMUM[field]
    await js.create_consumer("S", {"durable_name": "c", "priority_groups": []})
    kept = {"durable_name": "c", "priority_groups": ["g"], "priority_policy": "overflow"}
    answers(server, CREATE={"stream_name": "S", "name": "c", "config": kept})
    await js.create_consumer("S", kept)


async def test_a_policy_that_a_server_does_not_know(server: FakeServer, js: JetStreamContext) -> None:
    answers(server, CREATE=failure(400, 10025, 'unknown priority policy: "prioritized"'))
    config = {"durable_name": "c", "priority_groups": ["g"], "priority_policy": "prioritized"}
    with pytest.raises(UnsupportedFeatureError) as caught:
        await js.create_consumer("S", config)
    assert caught.value.minimum == "2.12.0"
    with pytest.raises(StreamConfigError):
        await js.create_consumer("S", {**config, "priority_policy": "overflow"})


def test_fields_of_a_pull() -> None:
    overflow = info(priority_groups=["g"], priority_policy="overflow")
    fields = {"group": "g", "min_pending": 5, "min_ack_pending": 1}
    assert priority_fields(overflow, fields) == fields  # type: ignore[arg-type]
    assert priority_fields(overflow, {"group": "g", "min_pending": None}) == {"group": "g"}
    prioritized = info(priority_groups=["g", "h"], priority_policy="prioritized")
    assert priority_fields(prioritized, {"group": "h", "priority": 0}) == {"group": "h", "priority": 0}
    assert priority_fields(info(), {}) == {}
    assert not pinned(overflow)
    assert pinned(info(priority_groups=["g"], priority_policy="pinned_client"))


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        ({}, {"group": "g"}, "has no priority groups"),
        ({"priority_groups": []}, {"min_pending": 1}, "has no priority groups"),
        ({"priority_groups": ["g"], "priority_policy": "overflow"}, {}, "give one of"),
        ({"priority_groups": ["g"], "priority_policy": "overflow"}, {"group": "h"}, "give one of"),
        ({"priority_groups": ["g"], "priority_policy": "pinned_client"}, {"min_pending": 1}, "'overflow'"),
        ({"priority_groups": ["g"], "priority_policy": "overflow"}, {"priority": 1}, "'prioritized'"),
        ({"priority_groups": ["g"], "priority_policy": "prioritized"}, {"priority": 10}, "from 0 to 9"),
        ({"priority_groups": ["g"], "priority_policy": "prioritized"}, {"priority": True}, "from 0 to 9"),
        ({"priority_groups": ["g"], "priority_policy": "overflow"}, {"min_ack_pending": 0}, "from 1"),
        ({"priority_groups": ["g"], "priority_policy": "overflow"}, {"min_pending": "5"}, "from 1"),
    ],
)
def test_options_that_do_not_fit(config: dict[str, Any], options: dict[str, Any], words: str) -> None:
    if "group" not in options and "give" not in words:
        options = {**options, "group": "g"}
    with pytest.raises(ConfigError, match=words):
        priority_fields(info(**config), options)  # type: ignore[arg-type]


def test_options_that_do_not_exist() -> None:
    with pytest.raises(TypeError, match="'grupo'"):
        priority_fields(info(), {"grupo": "g"})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize(
    ("kind", "config", "asked", "explained"),
    [
        (PullLimitError, {"max_batch": 5}, {"batch": 6}, True),
        (PullLimitError, {"max_batch": 5}, {"batch": 5}, False),
        (
            PullLimitError,
            {"max_batch": 0, "max_expires": -1},
            {"batch": 6, "expires": 6},
            False,
        ),
        (PullLimitError, {"max_expires": 5}, {"batch": 6, "expires": 6}, True),
        (PullLimitError, {"max_bytes": 5}, {"batch": 6, "max_bytes": 6}, True),
        (PullLimitError, {"max_bytes": 5}, {"batch": 6}, False),
        (NotPullConsumerError, {"deliver_subject": "x"}, {}, True),
        (NotPullConsumerError, {}, {}, False),
        (BadPullError, {}, {"batch": 1, "expires": 2}, False),
        (BadPullError, {"priority_groups": ["g"], "priority_policy": "overflow"}, {}, True),
        (BadPullError, {"priority_groups": ["g"], "priority_policy": "overflow"}, {"group": "h"}, True),
        (BadPullError, {"priority_groups": ["g"], "priority_policy": "overflow"}, {"group": "g"}, False),
        (
            BadPullError,
            {"priority_groups": ["g"], "priority_policy": "overflow"},
            {"group": "g", "id": "i"},
            True,
        ),
        (
            BadPullError,
            {"priority_groups": ["g"], "priority_policy": "pinned_client"},
            {"group": "g", "id": "i"},
            False,
        ),
        (MaxBytesError, {}, {"max_bytes": 5}, False),  # nothing is pending
        (PullError, {}, {}, False),
    ],
)
def test_what_explains_the_end_of_a_pull(
    kind: type[PullError], config: dict[str, Any], asked: dict[str, Any], explained: bool
) -> None:
    assert explains(info(**config), kind(409, 0, "x"), asked) is explained
