"""The JetStream context against scripted answers: subjects, paging, direct get, batches, fetches."""

from __future__ import annotations

import asyncio
import base64
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    BadSubjectError,
    ConfigError,
    ConnectionClosedError,
    InvalidNameError,
    MaxPayloadError,
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.jetstream.api.errors import (
    JetStreamNotEnabledError,
    MessageNotFoundError,
)
from natsproto.jetstream.context import JetStreamContext
from natsproto.wire import Pub
from support.fake_session import FakeServer, until

NOBODY = b"NATS/1.0 503\r\n\r\n"
TIME = b"Nats-Time-Stamp: 2024-01-01T00:00:00Z\r\n"


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.5)


def body(pub: Pub) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bytes(pub.payload))
    return document


def answering(server: FakeServer, *answers: dict[str, Any] | bytes) -> None:
    """Answer the requests to come, one after the other; bytes are a status line."""
    left = list(answers)

    def on_pub(pub: Pub) -> None:
        answer = left.pop(0)
        if isinstance(answer, bytes):
            server.reply(pub, b"", answer)
        else:
            server.reply(pub, answer)

    server.session.on_pub = on_pub


# -- API subjects -----------------------------------------------------------------------------------


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


def test_domain_and_prefix_exclude_each_other(server: FakeServer) -> None:
    with pytest.raises(ConfigError):
        server.client.jetstream(domain="a", prefix="b")
    for options in ({"domain": "a.b"}, {"domain": "a b"}, {"domain": ""}):
        with pytest.raises(InvalidNameError):
            server.client.jetstream(**options)
    for prefix in ("a b", "a.*", "a..b", "a.\r\nPUB x 0", ""):
        with pytest.raises(BadSubjectError):
            server.client.jetstream(prefix=prefix)


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


BOMB = b'{"a":[' + b"[]," * (3 << 20) + b"[]]}"  # 9 MiB, and 200 as objects
OTHER_CALLS: list[Callable[[JetStreamContext, str], Any]] = [
    lambda js, name: js.account_info(),
    lambda js, name: js.stream_names(),
    lambda js, name: js.streams(),
    lambda js, name: js.publish(name, b""),
]


@pytest.mark.parametrize("call", [*CALLS, *OTHER_CALLS])
async def test_an_answer_of_many_values_takes_no_memory(
    server: FakeServer, js: JetStreamContext, call: Callable[[JetStreamContext, str], Any]
) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, BOMB)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            await call(js, "S")
        assert tracemalloc.get_traced_memory()[1] < 5 * len(BOMB)
    finally:
        tracemalloc.stop()


async def test_large_answers(server: FakeServer, js: JetStreamContext) -> None:
    """The pages of listings and messages may be large, others only if the caller says so."""
    large = {"more": "x" * (5 << 20)}
    message = {"subject": "a", "seq": 1, "time": "2024-01-01T00:00:00Z"}
    answering(
        server,
        {"state": {"subjects": {"a": 1}}, **large},
        {"streams": ["S"], **large},
        {"streams": [], **large},
        {"message": message, **large},
        large,
        large,
    )
    assert await js.stream_subjects("S") == {"a": 1}
    assert await js.stream_names() == ["S"]
    assert await js.streams() == []
    assert (await js.get_message("S", seq=1)).seq == 1
    assert await js.request("STREAM.OTHER", limit=6 << 20) == large
    with pytest.raises(RemoteProtocolError, match="bytes is refused"):
        await js.request("STREAM.OTHER")


async def test_illegal_subjects_are_refused_before_any_byte(server: FakeServer, js: JetStreamContext) -> None:
    for subject in ("", "a b", "a.*", "a..b"):
        with pytest.raises(BadSubjectError):
            await js.publish(subject, b"")
        with pytest.raises(BadSubjectError):
            js.publish_window(subject, "S")
    with pytest.raises(BadSubjectError):
        await js.get_message("S", last_by_subject="a b")
    assert server.pubs == []


async def test_choosing_a_message(server: FakeServer, js: JetStreamContext) -> None:
    found = {
        "message": {
            "subject": "a",
            "seq": 5,
            "data": base64.b64encode(b"data").decode(),
            "hdrs": base64.b64encode(b"NATS/1.0\r\nA: b\r\n\r\n").decode(),
            "time": "2024-01-01T00:00:00Z",
        }
    }
    answering(server, *[found] * 4)
    for choice in (
        {"seq": 5},
        {"last_by_subject": "a.*"},
        {"next_by_subject": "a.>"},
        {"next_by_subject": "a", "seq": 3},
    ):
        message = await js.get_message("S", **choice)  # type: ignore[arg-type]
        assert (message.seq, message.data, message.header) == (5, b"data", b"NATS/1.0\r\nA: b\r\n\r\n")
    assert [body(pub) for pub in server.pubs] == [
        {"seq": 5},
        {"last_by_subj": "a.*"},
        {"next_by_subj": "a.>"},
        {"seq": 3, "next_by_subj": "a"},
    ]
    for choice in ({}, {"seq": 1, "last_by_subject": "a"}, {"last_by_subject": "a", "next_by_subject": "a"}):
        with pytest.raises(ConfigError):
            await js.get_message("S", **choice)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"message": []},
        {"message": {"subject": 5, "seq": 1}},
        {"message": {"subject": "a"}},
        {"message": {"subject": "a", "seq": 1, "data": "!", "time": "x"}},
        {"message": {"subject": "a", "seq": 1, "data": 5, "time": "2024-01-01T00:00:00Z"}},
        {"message": {"subject": "a", "seq": 1}},
    ],
)
async def test_a_leader_answer_that_is_none(
    server: FakeServer, js: JetStreamContext, answer: dict[str, Any]
) -> None:
    answering(server, answer)
    with pytest.raises(RemoteProtocolError):
        await js.get_message("S", seq=1)


async def test_whoever_stores_an_answer_does_not_answer(server: FakeServer, js: JetStreamContext) -> None:
    """A peer can have its own stored message sent to the inbox of a request, by a direct get."""

    def on_pub(pub: Pub) -> None:
        server.reply(pub, {"config": {"republish": {"dest": "leak.>"}}}, b"NATS/1.0\r\nA: b\r\n\r\n")
        server.reply(pub, {"config": {"name": "S"}})

    server.session.on_pub = on_pub
    assert await js.request("STREAM.INFO.S") == {"config": {"name": "S"}}


async def test_jetstream_is_off(server: FakeServer, js: JetStreamContext) -> None:
    answering(server, NOBODY, NOBODY)
    with pytest.raises(NoRespondersError, match="leader"):
        await js.account_info()
    del server.session.info["jetstream"]
    with pytest.raises(JetStreamNotEnabledError):
        await js.account_info()


async def test_a_request_above_max_payload(server: FakeServer, js: JetStreamContext) -> None:
    server.connection.max_payload = 50
    with pytest.raises(MaxPayloadError):
        await js.create_stream({"name": "S", "description": "x" * 100})
    assert server.pubs == []


async def test_permissions_violation_of_a_request(server: FakeServer, js: JetStreamContext) -> None:
    task = asyncio.ensure_future(js.stream_info("S"))
    await until(lambda: server.pubs)
    server.connection.server_error(
        server.session,  # type: ignore[arg-type]
        'Permissions Violation for Publish to "$JS.API.STREAM.INFO.S"',
    )
    with pytest.raises(PermissionsViolationError):
        await task


async def test_after_close(server: FakeServer, js: JetStreamContext) -> None:
    await server.client.close()
    with pytest.raises(ConnectionClosedError):
        await js.account_info()
    with pytest.raises(ConnectionClosedError):
        await js.publish("a", b"")
    with pytest.raises(ConnectionClosedError):
        await anext(js.get_batch("S"))


# -- paging -----------------------------------------------------------------------------------------


async def test_pages_of_names(server: FakeServer, js: JetStreamContext) -> None:
    names = [f"S{n}" for n in range(2500)]

    def on_pub(pub: Pub) -> None:
        offset = body(pub)["offset"]
        server.reply(
            pub, {"total": 2500, "offset": offset, "limit": 1024, "streams": names[offset : offset + 1024]}
        )

    server.session.on_pub = on_pub
    assert await js.stream_names() == names
    assert [body(pub) for pub in server.pubs] == [{"offset": 0}, {"offset": 1024}, {"offset": 2048}]
    server.pubs.clear()
    await js.stream_names("a.>")
    assert body(server.pubs[0]) == {"subject": "a.>", "offset": 0}


async def test_a_name_on_two_pages(server: FakeServer, js: JetStreamContext) -> None:
    """A stream that was made meanwhile moves the others on."""
    answering(server, {"total": 5, "streams": ["a", "b", "c"]}, {"total": 5, "streams": ["c", "d"]})
    assert await js.stream_names() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("answer", [{}, {"total": 5, "streams": None}, {"total": 0, "streams": []}])
async def test_no_names(server: FakeServer, js: JetStreamContext, answer: dict[str, Any]) -> None:
    answering(server, answer)
    assert await js.stream_names() == []


async def test_pages_of_streams(server: FakeServer, js: JetStreamContext) -> None:
    def item(n: int) -> dict[str, Any]:
        return {"config": {"name": f"S{n}"}, "state": {"messages": n}, "created": "2024-01-01T00:00:00Z"}

    answering(server, {"total": 3, "streams": [item(0), item(1)]}, {"total": 3, "streams": [item(2)]})
    assert [(info.config.name, info.messages) for info in await js.streams()] == [
        ("S0", 0),
        ("S1", 1),
        ("S2", 2),
    ]


async def test_pages_of_subjects(server: FakeServer, js: JetStreamContext) -> None:
    def page(subjects: dict[str, int] | None) -> dict[str, Any]:
        return {"total": 3, "state": {"subjects": subjects}}

    answering(server, page({"a": 1, "b": 2}), page({"c": 3}))
    assert await js.stream_subjects("S", "x.>") == {"a": 1, "b": 2, "c": 3}
    assert [body(pub)["offset"] for pub in server.pubs] == [0, 2]
    answering(server, page(None))
    assert await js.stream_subjects("S") == {}


async def test_pages_of_consumers(server: FakeServer, js: JetStreamContext) -> None:
    answering(server, {"total": 3, "consumers": ["a", "b"]}, {"total": 3, "consumers": ["c", 5]})
    assert await js.consumer_names("S") == ["a", "b", "c"]


# -- direct get -------------------------------------------------------------------------------------


def stored(seq: int, pending: int | None = None, extra: bytes = b"", line: bytes = b"NATS/1.0") -> bytes:
    block = (
        line + b"\r\n" + extra + b"Nats-Stream: S\r\nNats-Subject: s.a\r\nNats-Sequence: %d\r\n" % seq + TIME
    )
    return block + (b"" if pending is None else b"Nats-Num-Pending: %d\r\n" % pending) + b"\r\n"


async def test_a_stored_status_is_a_message(server: FakeServer, js: JetStreamContext) -> None:
    """Anybody may store an empty message whose header is a status."""
    server.session.on_pub = lambda pub: server.reply(pub, b"", stored(4, line=b"NATS/1.0 404 gone"))
    assert (await js.direct_get("S", seq=4)).seq == 4


async def test_forged_facts_do_not_count(server: FakeServer, js: JetStreamContext) -> None:
    forged = b"Nats-Sequence: 99\r\nNats-Subject: other\r\nNats-Time-Stamp: never\r\n"
    server.session.on_pub = lambda pub: server.reply(pub, b"x", stored(4, extra=forged))
    message = await js.direct_get("S", seq=4)
    assert (message.seq, message.subject) == (4, "s.a")


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: x\r\nNats-Subject: a\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: 1",
    ],
)
async def test_a_direct_answer_that_is_none(
    server: FakeServer, js: JetStreamContext, header: bytes | None
) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"data", header)
    with pytest.raises(RemoteProtocolError):
        await js.direct_get("S", seq=1)


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (b"NATS/1.0 404 Message Not Found\r\n\r\n", MessageNotFoundError),
        (b"NATS/1.0 408 Empty Request\r\n\r\n", APIError),
        (b"NATS/1.0 413 Too Many Results\r\n\r\n", APIError),
        (NOBODY, NoRespondersError),
    ],
)
async def test_status_of_a_batch(server: FakeServer, js: JetStreamContext, header: bytes, kind: type) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"", header)
    with pytest.raises(kind):
        await anext(js.get_batch("S"))
    with pytest.raises(kind):
        await anext(js.get_last_messages("S", ["a"], up_to_seq=9))
    assert body(server.pubs[1]) == {"multi_last": ["a"], "batch": 1024, "up_to_seq": 9}
    assert len(server.connection.mux) == 0


async def test_a_batch(server: FakeServer, js: JetStreamContext) -> None:
    def on_pub(pub: Pub) -> None:
        server.reply(pub, b"a", stored(3, 1))
        server.reply(pub, b"", stored(5, 0, line=b"NATS/1.0 204 EOB"))  # stored so by somebody
        server.reply(pub, b"", b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n")
        server.reply(pub, b"late", stored(6, 0))

    server.session.on_pub = on_pub
    found = [
        (m.seq, m.data, m.num_pending)
        async for m in js.get_batch("S", subject="s.>", seq=3, batch=9, max_bytes=7)
    ]
    assert found == [(3, b"a", 1), (5, b"", 0)]
    assert body(server.pubs[0]) == {"seq": 3, "next_by_subj": "s.>", "batch": 9, "max_bytes": 7}


async def test_a_server_without_batches(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3))
    assert [m.seq async for m in js.get_batch("S")] == [3]


async def test_a_batch_that_stalls(server: FakeServer, js: JetStreamContext) -> None:
    js.timeout = 0.02
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3, 1))
    batch = js.get_batch("S")
    assert (await anext(batch)).seq == 3
    with pytest.raises(RequestTimeoutError):
        await anext(batch)
    assert len(server.connection.mux) == 0


async def test_the_connection_is_lost_during_a_batch(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3, 1))
    batch = js.get_batch("S")
    await anext(batch)
    server.lose()
    with pytest.raises(StaleConnectionError):
        await anext(batch)


async def test_the_client_is_closed_during_a_batch(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3, 1))
    batch = js.get_batch("S")
    await anext(batch)
    await server.client.close()
    await batch.aclose()  # raises nothing


async def test_a_batch_that_is_not_read_to_its_end(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, b"a", stored(3, 1))
    batch = js.get_batch("S")
    await anext(batch)
    await batch.aclose()
    assert len(server.connection.mux) == 0
