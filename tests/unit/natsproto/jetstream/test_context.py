"""The JetStream context as a whole: each call honours the prefix, and refuses names that are none."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from natsproto.errors import (
    ConnectionClosedError,
    InvalidNameError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
    UnsupportedFeatureError,
)
from natsproto.jetstream.api.answers import answer_begins
from natsproto.jetstream.api.errors import (
    MessageNotFoundError,
)
from natsproto.jetstream.api.models import ConsumerConfig
from natsproto.jetstream.context import JetStreamContext
from natsproto.wire import Pub
from support.api_answers import answering
from support.fake_session import FakeServer


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.5)


@pytest.mark.parametrize(
    ("options", "prefix"),
    [({}, "$JS.API"), ({"domain": "hub"}, "$JS.hub.API"), ({"prefix": "from.other"}, "from.other")],
)
async def test_every_request_honours_the_prefix(
    server: FakeServer, options: dict[str, Any], prefix: str
) -> None:
    js = server.client.jetstream(timeout=0.5, **options)
    found = {"message": {"subject": "a", "seq": 1, "time": "2024-01-01T00:00:00Z"}}
    answering(server, {}, found, b"NATS/1.0 404 Message Not Found\r\n\r\n", b"NATS/1.0 204 EOB\r\n\r\n")
    await js.account_info()
    await js.get_message("S", seq=1)
    with pytest.raises(MessageNotFoundError):
        await js.direct_get("S", seq=1)
    assert [m async for m in js.get_batch("S")] == []
    assert [pub.subject.decode() for pub in server.pubs] == [
        f"{prefix}.INFO",
        f"{prefix}.STREAM.MSG.GET.S",
        f"{prefix}.DIRECT.GET.S",
        f"{prefix}.DIRECT.GET.S",
    ]


CALLS: list[Callable[[JetStreamContext, str], Any]] = [
    lambda js, name: js.create_stream({"name": name}),
    lambda js, name: js.update_stream({"name": name}),
    lambda js, name: js.stream_info(name),
    lambda js, name: js.stream_subjects(name),
    lambda js, name: js.delete_stream(name),
    lambda js, name: js.purge_stream(name),
    lambda js, name: js.get_message(name, seq=1),
    lambda js, name: js.direct_get(name, seq=1),
    lambda js, name: anext(js.get_batch(name)),
    lambda js, name: anext(js.get_last_messages(name, ["a"])),
    lambda js, name: js.delete_message(name, 1),
    lambda js, name: js.create_consumer(name, {}),
    lambda js, name: js.create_consumer("S", {"name": name or "a.b"}),
    lambda js, name: js.consumer_info("S", name),
    lambda js, name: js.delete_consumer(name, "c"),
    lambda js, name: js.consumer_names(name),
    lambda js, name: js.pull_consumer(name, "c"),
]


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "a b", "a\r\nPUB x 0\r\n"])
@pytest.mark.parametrize("call", range(len(CALLS)))
async def test_illegal_names_are_refused_before_any_byte(
    server: FakeServer, js: JetStreamContext, call: int, name: str
) -> None:
    with pytest.raises(InvalidNameError):
        await CALLS[call](js, name)
    assert server.pubs == []
    assert server.connection._mux is None or len(server.connection.mux) == 0


BOMB = b',"a":[' + b"[]," * (3 << 20) + b"[]]}"  # 9 MiB, and 200 as objects
OTHER_CALLS: list[Callable[[JetStreamContext, str], Any]] = [
    lambda js, name: js.account_info(),
    lambda js, name: js.stream_names(),
    lambda js, name: js.streams(),
    lambda js, name: js.publish(name, b""),
]


DIRECT_GETS = CALLS[7:10]
"""They ignore what has no headers: the stream's own answer may follow."""


@pytest.mark.parametrize("call", [*CALLS, *OTHER_CALLS])
async def test_an_answer_of_many_values_takes_no_memory(
    server: FakeServer, js: JetStreamContext, call: Callable[[JetStreamContext, str], Any]
) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, answer_begins(pub.subject[8:].decode()) + BOMB)
    tracemalloc.start()
    try:
        with pytest.raises(RequestTimeoutError if call in DIRECT_GETS else RemoteProtocolError):
            await call(js, "S")
        assert tracemalloc.get_traced_memory()[1] < 5 * len(BOMB)
    finally:
        tracemalloc.stop()


async def test_after_close(server: FakeServer, js: JetStreamContext) -> None:
    await server.client.close()
    with pytest.raises(ConnectionClosedError):
        await js.account_info()
    with pytest.raises(ConnectionClosedError):
        await js.publish("a", b"")
    with pytest.raises(ConnectionClosedError):
        await anext(js.get_batch("S"))


async def test_pages_of_consumers(server: FakeServer, js: JetStreamContext) -> None:
    answering(server, {"total": 3, "consumers": ["a", "b"]}, {"total": 3, "consumers": ["c", 5]})
    assert await js.consumer_names("S") == ["a", "b", "c"]


async def test_consumer_fields_an_older_server_lacks(server: FakeServer, js: JetStreamContext) -> None:
    unknown = {"code": 400, "err_code": 10025, "description": 'unknown field "priority_groups"'}
    answering(server, {"stream_name": "S", "name": "c", "config": {}}, *[{"error": unknown}] * 2)
    with pytest.raises(UnsupportedFeatureError, match=r"filter_subjects needs nats-server 2\.10\.0"):
        await js.create_consumer("S", ConsumerConfig(name="c", filter_subjects=["a", "b"]))
    for config in (ConsumerConfig(name="c", priority_groups=["a"]), {"name": "c", "priority_groups": ["a"]}):
        with pytest.raises(UnsupportedFeatureError, match=r"priority_groups needs nats-server 2\.11\.0"):
            await js.create_consumer("S", config)


async def test_a_filter_is_appended(server: FakeServer, js: JetStreamContext) -> None:
    """A user may have the right to consumers of some subjects only; wildcards are part of the right."""
    answering(server, *[{"stream_name": "S", "name": "c", "config": {"filter_subjects": ["a", "b"]}}] * 5)
    long = "s." + "x" * 4000
    for fields in ({"filter_subject": "s.>"}, {"filter_subjects": ["a", "b"]}, {"filter_subject": ""}):
        await js.create_consumer("S", {"name": "c", **fields})
    for wanted in (long, "not a subject"):
        await js.create_consumer("S", {"name": "c", "filter_subject": wanted})
    plain = b"$JS.API.CONSUMER.CREATE.S.c"
    assert [pub.subject for pub in server.pubs] == [plain + b".s.>", plain, plain, plain, plain]


async def test_the_right_to_all_consumers(server: FakeServer, js: JetStreamContext) -> None:
    """Who has it, and no right to subjects, asks for it."""

    def on_pub(pub: Pub) -> None:
        if pub.subject == b"$JS.API.CONSUMER.CREATE.S.c":
            server.reply(pub, {"stream_name": "S", "name": "c", "config": {}})
        else:
            asyncio.get_running_loop().call_soon(server.refuse, pub.subject.decode())

    server.session.on_pub = on_pub
    assert (await js.create_consumer("S", {"name": "c", "filter_subject": "s.a"})).name == "c"
    for config in ({"name": "d", "filter_subject": "s.a"}, {"name": "d"}):
        with pytest.raises(PermissionsViolationError) as caught:
            await js.create_consumer("S", config)
        assert caught.value.subject == "$JS.API.CONSUMER.CREATE.S.d"
