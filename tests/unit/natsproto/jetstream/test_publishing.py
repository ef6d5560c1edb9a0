"""Publishing against scripted answers: retries, expectations, what is refused before a byte is sent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    BadSubjectError,
    ConfigError,
    NoRespondersError,
    RemoteProtocolError,
    RequestTimeoutError,
    UnsupportedFeatureError,
    WrongStreamError,
)
from natsproto.jetstream.api.errors import (
    StorageFullError,
    WrongLastSequenceError,
)
from natsproto.jetstream.api.publish_headers import PublishOptions
from natsproto.jetstream.context import JetStreamContext
from natsproto.wire import Pub
from support.api_answers import NOBODY, answering
from support.fake_session import FakeServer, until


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.5)


async def test_illegal_subjects_are_refused_before_any_byte(server: FakeServer, js: JetStreamContext) -> None:
    for subject in ("", "a b", "a.*", "a..b"):
        with pytest.raises(BadSubjectError):
            await js.publish(subject, b"")
        with pytest.raises(BadSubjectError):
            js.publish_window(subject, "S")
    with pytest.raises(BadSubjectError):
        await js.get_message("S", last_by_subject="a b")
    assert server.pubs == []


async def test_publish_retries_no_responders_twice(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"", NOBODY)
    with pytest.raises(NoRespondersError):
        await js.publish("s.a", b"x", retry_wait=0.001)
    assert len(server.pubs) == 3
    server.pubs.clear()

    def second(pub: Any) -> None:
        if len(server.pubs) == 1:
            server.reply(pub, b"", NOBODY)
        else:
            server.reply(pub, {"stream": "S", "seq": 1})

    server.session.on_pub = second
    assert (await js.publish("s.a", b"x", retry_wait=0)).seq == 1
    assert len(server.pubs) == 2


@pytest.mark.parametrize("attempts", [0, 1, 4])
async def test_attempts(server: FakeServer, js: JetStreamContext, attempts: int) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"", NOBODY)
    with pytest.raises(NoRespondersError):
        await js.publish("s.a", b"x", retry_attempts=attempts, retry_wait=0)
    assert len(server.pubs) == attempts + 1


async def test_attempts_until_the_time_is_over(server: FakeServer, js: JetStreamContext) -> None:
    answering(server, NOBODY, NOBODY, NOBODY, {"stream": "S", "seq": 7})
    assert (await js.publish("s.a", b"x", timeout=20, retry_attempts=-1, retry_wait=0)).seq == 7
    server.session.on_pub = lambda pub: server.reply(pub, b"", NOBODY)
    with pytest.raises(NoRespondersError):
        await js.publish("s.a", b"x", timeout=0.05, retry_attempts=-1, retry_wait=0.01)
    sent = len(server.pubs)
    assert sent > 5
    with pytest.raises(NoRespondersError):  # it does not wait for what is beyond its time
        await js.publish("s.a", b"x", timeout=5, retry_attempts=-1, retry_wait=6)
    assert len(server.pubs) == sent + 1


@pytest.mark.parametrize(
    "options",
    [
        {"retry_attempts": -2},
        {"retry_attempts": 1.5},
        {"retry_attempts": True},
        {"retry_wait": -0.1},
        {"retry_wait": float("inf")},
        {"retry_wait": float("nan")},
        {"retry_wait": "1"},
        {"retry_attempts": -2, "ttl": timedelta(seconds=5)},  # nor is the server asked what it knows
        {"expected_last_seq": -1},
        {"ttl": timedelta(0)},
    ],
)
async def test_options_that_make_no_sense(
    server: FakeServer, js: JetStreamContext, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        await js.publish("s.a", b"x", **options)
    with pytest.raises(TypeError):
        await js.publish("s.a", b"x", expected_last_sequence=5)  # type: ignore[call-arg]
    assert server.pubs == []


async def test_options_are_headers(server: FakeServer, js: JetStreamContext) -> None:
    server.session.info["api_lvl"] = 1
    answering(server, *[{"stream": "S", "seq": 1}] * 3)
    await js.publish("s.a", b"x")
    await js.publish("s.a", b"x", headers={"A": "1"}, stream="S", expected_last_msg_id="0", msg_id=None)
    await js.publish("s.a", b"x", ttl="never", expected_last_subject_seq=0)
    assert [pub.header for pub in server.pubs] == [
        None,
        b"NATS/1.0\r\nA: 1\r\nNats-Expected-Stream: S\r\nNats-Expected-Last-Msg-Id: 0\r\n\r\n",
        b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\nNats-TTL: never\r\n\r\n",
    ]


@pytest.mark.parametrize(
    "options",
    [
        PublishOptions(ttl=timedelta(seconds=5)),
        PublishOptions(expected_last_subject_seq=1, expected_last_subject_seq_subject="s.b"),
    ],
)
async def test_options_an_older_server_ignores(
    server: FakeServer, js: JetStreamContext, options: PublishOptions
) -> None:
    answering(server, {"api": {"total": 1}}, {"api": {"level": 1}}, *[{"stream": "S", "seq": 1}] * 2)
    for _ in range(2):
        with pytest.raises(UnsupportedFeatureError, match=r"2\.11\.0"):
            await js.publish("s.a", b"x", **options)
    assert [pub.subject for pub in server.pubs] == [b"$JS.API.INFO"]  # once per connection
    server.connection.stats.reconnects += 1
    await js.publish("s.a", b"x", **options)
    await js.publish("s.a", b"x", **options)
    assert [pub.subject for pub in server.pubs[1:]] == [b"$JS.API.INFO", b"s.a", b"s.a"]


async def test_servers_behind_the_current_one(server: FakeServer) -> None:
    """What INFO says is the level of this server: another domain may have an older one."""
    server.session.info["api_lvl"] = 5
    answering(server, *[{"api": {}}] * 2, {"stream": "S", "seq": 1})
    for options in ({"domain": "hub"}, {"prefix": "from.other"}):
        with pytest.raises(UnsupportedFeatureError):
            await server.client.jetstream(timeout=0.5, **options).publish("s.a", b"x", ttl="never")
    await server.client.jetstream().publish("s.a", b"x", ttl="never")
    assert len(server.pubs) == 3


async def test_publish_does_not_retry_anything_else(server: FakeServer) -> None:
    js = server.client.jetstream()
    server.session.on_pub = lambda pub: server.reply(
        pub, {"error": {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}}
    )
    with pytest.raises(StorageFullError):
        await js.publish("s.a", b"x")
    server.session.on_pub = None
    with pytest.raises(RequestTimeoutError):
        await js.publish("s.a", b"x", timeout=0.01)
    assert len(server.pubs) == 2
    await until(lambda: server.connection._liveness._probe_timer is None)
    assert len(server.connection.mux) == 0


# -- other streams' answers --------------------------------------------------------------------------

REFUSED = {"error": {"code": 400, "err_code": 10071, "description": "wrong last sequence: 5"}}
OTHERS: list[dict[str, Any]] = [
    {"stream": "OWN", "seq": 7},
    {**REFUSED, "stream": "OWN", "seq": 0},
    REFUSED,
    {"total": 5},
]


@pytest.mark.parametrize("attempts", [0, -1])
async def test_others_do_not_answer_for_the_stream(
    server: FakeServer, js: JetStreamContext, attempts: int
) -> None:
    """A peer that sees the message has its own stream answer it."""
    own: list[dict[str, Any]] = [{"stream": "S", "seq": 5}, {**REFUSED, "stream": "S", "seq": 0}]

    def on_pub(pub: Pub) -> None:
        for each in (*OTHERS, own[0], *OTHERS):
            server.reply(pub, each)

    server.session.on_pub = on_pub
    ack = await js.publish("s.a", b"x", stream="S", retry_attempts=attempts)
    assert (ack.stream, ack.seq) == ("S", 5)
    del own[0]
    with pytest.raises(WrongLastSequenceError):
        await js.publish("s.a", b"x", stream="S", expected_last_seq=4, retry_attempts=attempts)
    assert len(server.pubs) == 2


@pytest.mark.parametrize(
    ("err_code", "option"),
    [
        (10060, {}),
        (10070, {"expected_last_msg_id": "x"}),
        (10071, {"expected_last_seq": 4}),
        (10071, {"expected_last_subject_seq": 4}),
        (10164, {"expected_last_subject_seq": 4}),
        (10166, {"headers": {"Nats-TTL": "5s"}}),
        (10111, {"headers": {"Nats-Rollup": "sub"}}),
        (10168, {"headers": {"Nats-Incr": "1"}}),
        (10174, {"headers": {"Nats-Batch-Id": "b"}}),
        (10188, {"headers": {"Nats-Schedule": "@hourly"}}),
        (10097, {"headers": {"A": "b" * 65_000}}),
        (10999, {}),  # a code that is not known yet
    ],
)
async def test_what_cannot_be_the_answer_to_this_message(
    server: FakeServer, js: JetStreamContext, err_code: int, option: dict[str, Any]
) -> None:
    """A peer that may publish to the same stream has it answer a message of its own."""
    refusal = {"error": {"code": 400, "err_code": err_code, "description": "no"}, "stream": "S", "seq": 0}

    def on_pub(pub: Pub) -> None:
        for each in ({"stream": "S", "seq": 2, "duplicate": True}, refusal, {"stream": "S", "seq": 5}):
            server.reply(pub, each)

    server.session.on_pub = on_pub
    assert (await js.publish("s.a", b"x", stream="S")).seq == 5
    if option:
        with pytest.raises(APIError):
            await js.publish("s.a", b"x", stream="S", **option)
    assert (await js.publish("s.a", b"x", stream="S", msg_id="m")).duplicate
    server.session.on_pub = lambda pub: server.reply(pub, refusal)
    with pytest.raises(RequestTimeoutError, match="cannot have caused") as caught:
        await js.publish("s.a", b"x", stream="S", timeout=0.01)
    assert isinstance(caught.value.__cause__, APIError)
    assert caught.value.__cause__.err_code == err_code


@pytest.mark.parametrize("err_code", [10077, 10109, 10054, 10023, 10002, 10028, 10047, 10120, 10169])
async def test_what_any_message_can_cause(server: FakeServer, js: JetStreamContext, err_code: int) -> None:
    """Limits, a sealed stream, one of counters: told at once."""
    server.session.on_pub = lambda pub: server.reply(
        pub, {"error": {"code": 400, "err_code": err_code, "description": "no"}, "stream": "S", "seq": 0}
    )
    with pytest.raises(APIError) as caught:
        await js.publish("s.a", b"x", stream="S")
    assert caught.value.err_code == err_code


@pytest.mark.parametrize("other", [0, 1])
async def test_only_others_answer(server: FakeServer, js: JetStreamContext, other: int) -> None:
    """Whether the stream has stored the message is unknown, whatever the other one says."""

    def on_pub(pub: Pub) -> None:
        if len(server.pubs) == 1:
            server.reply(pub, b"", NOBODY)
            return
        for each in (REFUSED, OTHERS[other], {"total": 5}):
            server.reply(pub, each)

    server.session.on_pub = on_pub
    with pytest.raises(WrongStreamError, match="'OWN'; expected stream 'S'"):
        await js.publish("s.a", b"x", stream="S", timeout=0.02, retry_wait=0)
    assert len(server.pubs) == 2
    server.session.on_pub = lambda pub: server.reply(pub, REFUSED)
    with pytest.raises(RemoteProtocolError, match="names no stream"):
        await js.publish("s.a", b"x", stream="S", timeout=0.02)
    server.session.on_pub = None
    with pytest.raises(RequestTimeoutError):
        await js.publish("s.a", b"x", stream="S", timeout=0.02)


async def test_without_a_stream_the_first_answer_counts(server: FakeServer, js: JetStreamContext) -> None:
    answering(server, OTHERS[0], OTHERS[1])
    assert (await js.publish("s.a", b"x")).stream == "OWN"
    with pytest.raises(WrongLastSequenceError):
        await js.publish("s.a", b"x")
