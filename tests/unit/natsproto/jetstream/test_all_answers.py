"""All answers to one request: those of its type, without errors, as long as none can have been missed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError
from natsproto.jetstream.all_answers import all_answers
from natsproto.wire import Pub
from support.fake_session import FakeServer

INFO: dict[str, Any] = {"domain": "a"}
ERROR: dict[str, Any] = {"error": {"code": 503, "err_code": 10076, "description": "JetStream is off"}}


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.mark.parametrize(
    ("answers", "found", "complete"),
    [
        ([INFO], ["a"], True),
        ([INFO, {"domain": "b"}, INFO], ["a", "b", "a"], True),
        ([ERROR, b"", b"x", b"{}", INFO], ["a"], True),
        ([ERROR, b"{}"], [], False),
        ([], [], False),
        ([INFO, *[b"x"] * 10], ["a"], False),  # another may lie behind it
    ],
)
async def test_what_is_an_answer(
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[dict[str, Any] | bytes],
    found: list[str],
    complete: bool,
) -> None:
    monkeypatch.setattr("natsproto.jetstream.all_answers.WAIT", 0.05)
    monkeypatch.setattr("natsproto.jetstream.all_answers.MOST", 10)

    def on_pub(pub: Pub) -> None:
        for answer in answers:
            server.reply(pub, answer)

    server.session.on_pub = on_pub
    told: list[object] = []
    js = server.client.jetstream()
    assert await all_answers(js, "INFO", lambda info: told.append(info["domain"])) is complete
    assert told == found


async def test_what_the_callback_raises_ends_it(server: FakeServer) -> None:
    server.session.on_pub = lambda pub: server.reply(pub, INFO)

    def take(info: dict[str, object]) -> None:
        raise LookupError("enough")

    async with asyncio.timeout(1.5):  # less than it would wait
        with pytest.raises(LookupError, match="enough"):
            await all_answers(server.client.jetstream(), "INFO", take)


@pytest.mark.parametrize("subject", ["$JS.API.INFO", "$JS.hub.API.INFO"])
async def test_a_refusal_ends_it(server: FakeServer, subject: str) -> None:
    """Whatever has come before: somebody else has had it sent."""

    def on_pub(pub: Pub) -> None:
        server.reply(pub, INFO)
        asyncio.get_running_loop().call_soon(server.refuse, subject)

    server.session.on_pub = on_pub
    async with asyncio.timeout(1.5):  # less than it would wait
        with pytest.raises(PermissionsViolationError) as caught:
            await all_answers(server.client.jetstream(), "INFO", lambda info: None)
    assert caught.value.subject == subject
    assert len(server.connection.mux) == 0


async def test_a_lost_connection_does_not(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natsproto.jetstream.all_answers.WAIT", 0.05)
    server.session.on_pub = lambda pub: asyncio.get_running_loop().call_soon(server.lose)
    assert not await all_answers(server.client.jetstream(), "INFO", lambda info: None)
