"""A session that was lost here: what is known of its end at the server."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.aio.lifeline import has_ended, lifeline
from natsproto.errors import StaleConnectionError
from natsproto.wire import Pub
from support.fake_session import FakeServer, turns
from support.simulation import in_virtual_time

GONE = b"NATS/1.0 503\r\n\r\n"


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


async def test_one_subject_for_each_session(server: FakeServer) -> None:
    first = lifeline(server.client)
    assert first.startswith(b"_INBOX.")
    assert lifeline(server.client) == first
    server.lose()
    assert lifeline(server.client) == b""
    server.connect()
    assert lifeline(server.client) not in (b"", first), "the next session does not listen to the old one"


async def test_nobody_listens_any_more(server: FakeServer) -> None:
    asked: list[Pub] = []

    def on_pub(pub: Pub) -> None:
        asked.append(pub)
        if len(asked) == 3:  # the server notices after a while
            server.reply(pub, header=GONE)

    line = lifeline(server.client)
    server.lose()
    server.connect()
    server.session.on_pub = on_pub
    assert await has_ended(server.client, line, 60.0)
    assert [pub.subject for pub in asked] == [line] * 3


def test_the_server_holds_it() -> None:
    async def work() -> None:
        server = FakeServer()
        line = lifeline(server.client)
        server.lose()
        server.connect()
        assert not await has_ended(server.client, line, 0.2)
        assert len(server.pubs) == 2

    in_virtual_time(work)


async def test_somebody_else_answers(server: FakeServer) -> None:
    """Who listens to all inboxes: whether the session listens as well cannot be found out."""
    line = lifeline(server.client)
    server.lose()
    server.connect()
    server.session.on_pub = lambda pub: server.reply(pub, b"hello")
    async with asyncio.timeout(5):
        assert not await has_ended(server.client, line, 60.0)
    assert len(server.pubs) == 1


def test_it_is_not_asked_for_longer_than_one_has_patience() -> None:
    async def work() -> None:
        server = FakeServer()
        line = lifeline(server.client)
        server.lose()
        server.connect()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert not await has_ended(server.client, line, 0.35)
        assert 0.35 <= loop.time() - began < 0.5
        assert len(server.pubs) == 3  # 0.1, 0.2, and what is left; 0.4 would be beyond it

    in_virtual_time(work)


async def test_a_session_without_a_subject(server: FakeServer) -> None:
    assert not await has_ended(server.client, b"", 60.0)


async def test_lost_again_while_it_asks(server: FakeServer) -> None:
    line = lifeline(server.client)
    server.lose()
    server.connect()
    asking = asyncio.ensure_future(has_ended(server.client, line, 60.0))
    await turns()
    server.lose()
    with pytest.raises(StaleConnectionError):
        await asking


async def test_who_may_not_publish_there_cannot_find_out(server: FakeServer) -> None:
    line = lifeline(server.client)
    server.lose()
    server.connect()
    asking = asyncio.ensure_future(has_ended(server.client, line, 60.0))
    await turns()
    said = f'Permissions Violation for Publish to "{line.decode()}"'
    server.connection.server_error(server.session, said)  # type: ignore[arg-type]
    assert not await asking
