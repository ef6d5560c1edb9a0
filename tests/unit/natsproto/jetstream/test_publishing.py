"""Publishing against scripted answers: retries, expectations, what is refused before a byte is sent."""

from __future__ import annotations

from typing import Any

import pytest

from natsproto.errors import (
    BadSubjectError,
    NoRespondersError,
    RequestTimeoutError,
)
from natsproto.jetstream.api.errors import (
    StorageFullError,
)
from natsproto.jetstream.context import JetStreamContext
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


async def test_publish_retries_no_responders_twice(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natsproto.jetstream.publishing.PUBLISH_RETRY_WAIT", 0.001)
    js = server.client.jetstream()
    server.session.on_pub = lambda pub: server.reply(pub, b"", b"NATS/1.0 503\r\n\r\n")
    with pytest.raises(NoRespondersError):
        await js.publish("s.a", b"x")
    assert len(server.pubs) == 3
    server.pubs.clear()

    def second(pub: Any) -> None:
        if len(server.pubs) == 1:
            server.reply(pub, b"", b"NATS/1.0 503\r\n\r\n")
        else:
            server.reply(pub, {"stream": "S", "seq": 1})

    server.session.on_pub = second
    assert (await js.publish("s.a", b"x")).seq == 1
    assert len(server.pubs) == 2


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
