"""A session that was lost here: what is known of its end at the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.aio.lifeline import Lifeline, has_ended, lifeline
from natsproto.aio.server_pool import Server
from natsproto.errors import StaleConnectionError
from natsproto.wire import Pub
from support.fake_session import FakeServer, turns
from support.simulation import in_virtual_time

GONE = b"NATS/1.0 503\r\n\r\n"


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


def listens(server: FakeServer) -> Lifeline:
    """The lifeline of the present session, which the server has seen."""
    line = lifeline(server.client)
    assert line is not None
    return line


async def test_one_subject_for_each_session(server: FakeServer) -> None:
    first = listens(server)
    assert first.subject.startswith(b"_INBOX.")
    assert lifeline(server.client) is first
    server.lose()
    assert lifeline(server.client) is None
    server.connect()
    assert listens(server).subject != first.subject, "the next session does not listen to the old one"


async def test_nobody_listens_any_more(server: FakeServer) -> None:
    asked: list[Pub] = []

    def on_pub(pub: Pub) -> None:
        asked.append(pub)
        if len(asked) == 3:  # the server notices after a while
            server.reply(pub, header=GONE)

    line = listens(server)
    server.lose()
    server.connect()
    server.session.on_pub = on_pub
    assert await has_ended(server.client, line, 60.0)
    assert [pub.subject for pub in asked] == [line.subject] * 3


def test_the_server_holds_it() -> None:
    async def work() -> None:
        server = FakeServer()
        line = listens(server)
        server.lose()
        server.connect()
        assert not await has_ended(server.client, line, 0.2)
        assert len(server.pubs) == 2

    in_virtual_time(work)


async def test_somebody_else_answers(server: FakeServer) -> None:
    """Who listens to all inboxes: whether the session listens as well cannot be found out."""
    line = listens(server)
    server.lose()
    server.connect()
    server.session.on_pub = lambda pub: server.reply(pub, b"hello")
    async with asyncio.timeout(5):
        assert not await has_ended(server.client, line, 60.0)
    assert len(server.pubs) == 1


def test_it_is_not_asked_for_longer_than_one_has_patience() -> None:
    async def work() -> None:
        server = FakeServer()
        line = listens(server)
        server.lose()
        server.connect()
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert not await has_ended(server.client, line, 0.35)
        assert 0.35 <= loop.time() - began < 0.5
        assert len(server.pubs) == 3  # 0.1, 0.2, and what is left; 0.4 would be beyond it

    in_virtual_time(work)


async def test_a_session_without_a_subject(server: FakeServer) -> None:
    assert not await has_ended(server.client, None, 60.0)


async def test_what_the_server_may_not_have_seen_proves_nothing(server: FakeServer) -> None:
    """The subscription is held back together with what was sent after it."""
    server.session.pongs = False
    line = listens(server)
    server.session.fail(StaleConnectionError("cut"))
    server.connect()
    server.session.on_pub = lambda pub: server.reply(pub, header=GONE)
    assert not line.confirmed
    assert not await has_ended(server.client, line, 60.0)
    assert server.pubs == []


@pytest.mark.parametrize(
    ("then", "now", "followed"),
    [
        ({"server_id": "A"}, {"server_id": "A"}, True),  # connected to it again
        ({"server_id": "A"}, {"server_id": "B"}, True),  # alone at its address: started again
        ({"server_id": "A", "server_name": "A"}, {"server_id": "B", "server_name": "B"}, True),
        ({"server_id": "A", "server_name": "n"}, {"server_id": "B", "server_name": "n"}, True),
        ({"server_id": "A", "server_name": "n"}, {"server_id": "B", "server_name": "m"}, False),
        ({"server_id": "A"}, {"server_id": "B", "jetstream": False}, False),  # leaf nodes behind a balancer
        ({"server_id": "A", "jetstream": False}, {"server_id": "B"}, False),
        ({"server_id": "A", "cluster": "c"}, {"server_id": "B", "cluster": "c"}, False),
        ({"server_id": "A", "cluster": "c"}, {"server_id": "A", "cluster": "c"}, True),
        (
            {"server_id": "A", "server_name": "n", "cluster": "c"},
            {"server_id": "B", "server_name": "n", "cluster": "c"},
            True,
        ),
        (
            {"server_id": "A", "server_name": "n", "cluster": "c"},
            {"server_id": "B", "server_name": "m", "cluster": "c"},
            False,
        ),
    ],
)
async def test_what_follows_on_what(
    server: FakeServer, then: dict[str, Any], now: dict[str, Any], followed: bool
) -> None:
    server.session.info |= then
    line = listens(server)
    server.lose()
    assert not line.precedes_all_of(server.client)
    server.connect().info |= now
    assert line.precedes_all_of(server.client) is followed


async def test_another_address_is_another_server(server: FakeServer) -> None:
    server.session.info["server_id"] = "A"
    line = listens(server)
    server.lose()
    session = server.connect()
    session.info["server_id"] = "B"
    session.server = Server("nats", "127.0.0.2", 4222)
    assert not line.precedes_all_of(server.client)


async def test_lost_again_while_it_asks(server: FakeServer) -> None:
    line = listens(server)
    server.lose()
    server.connect()
    asking = asyncio.ensure_future(has_ended(server.client, line, 60.0))
    await turns()
    server.lose()
    with pytest.raises(StaleConnectionError):
        await asking


async def test_who_may_not_publish_there_cannot_find_out(server: FakeServer) -> None:
    line = listens(server)
    server.lose()
    server.connect()
    asking = asyncio.ensure_future(has_ended(server.client, line, 60.0))
    await turns()
    said = f'Permissions Violation for Publish to "{line.subject.decode()}"'
    server.connection.server_error(server.session, said)  # type: ignore[arg-type]
    assert not await asking


@pytest.mark.parametrize(
    ("text", "confirmed"),
    [
        ("maximum subscriptions exceeded", False),
        ('Permissions Violation for Subscription to "{subject}"', False),
        ('Permissions Violation for Subscription to "another"', True),
        ('Permissions Violation for Publish to "another"', True),
    ],
)
async def test_a_subscription_that_was_refused(server: FakeServer, text: str, confirmed: bool) -> None:
    """The server answers the PING behind it all the same."""
    server.session.pongs = False
    line = listens(server)
    said = text.format(subject=line.subject.decode())
    server.connection.server_error(server.session, said)  # type: ignore[arg-type]
    line.pong.set_result(None)
    assert line.confirmed is confirmed


@pytest.mark.parametrize("text", ["maximum subscriptions exceeded", 'for Subscription to "{subject}"'])
async def test_what_is_refused_after_it_was_confirmed(server: FakeServer, text: str) -> None:
    """Rights may be taken away at any time; that there are too many subscriptions concerns a later one."""
    line = listens(server)
    assert line.confirmed
    said = text.format(subject=line.subject.decode()).replace("for Sub", "Permissions Violation for Sub")
    server.connection.server_error(server.session, said)  # type: ignore[arg-type]
    assert line.confirmed is text.startswith("maximum")
