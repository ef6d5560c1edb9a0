"""Reading messages against scripted answers: the leader, direct get, batches."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    ConfigError,
    NoRespondersError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.jetstream.api.errors import (
    MessageNotFoundError,
)
from natsproto.jetstream.context import JetStreamContext
from natsproto.wire import Pub
from support.api_answers import NOBODY, answering, body, stored
from support.fake_session import FakeServer


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.5)


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
