"""Pull consumers against scripted answers: every way a fetch ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    ConfigError,
    ConnectionClosedError,
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.jetstream.api.errors import (
    ConsumerNotFoundError,
)
from natsproto.jetstream.api.models import ConsumerInfo
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.pull import PullConsumer
from natsproto.wire import Pub
from support.clock import Clock
from support.fake_session import FakeServer, turns, until


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=0.5)


def body(pub: Pub) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bytes(pub.payload))
    return document


def ack_subject(seq: int) -> bytes:
    return b"$JS.ACK.S.c.1.%d.%d.1700000000000000000.0" % (seq, seq)


class Pulled:
    """A pull consumer whose requests the test answers."""

    def __init__(self, server: FakeServer, js: JetStreamContext) -> None:
        self.server = server
        self.exists = True
        self.requests: list[Pub] = []
        self.on_next: Callable[[Pub], None] = lambda pub: None
        info: dict[str, Any] = {"stream_name": "S", "name": "c", "config": {}}
        self.info = info
        self.consumer = PullConsumer(js, ConsumerInfo.from_json(info))
        server.session.on_pub = self.on_pub

    def on_pub(self, pub: Pub) -> None:
        if b".MSG.NEXT." in pub.subject:
            self.requests.append(pub)
            self.on_next(pub)
        elif b".CONSUMER.INFO." in pub.subject:
            missing = {"error": {"code": 404, "err_code": 10014, "description": "consumer not found"}}
            self.server.reply(pub, self.info if self.exists else missing)

    def message(self, pub: Pub, seq: int) -> None:
        assert pub.reply is not None
        self.server.send(pub.reply, b"m%d" % seq, subject=b"s.a", reply=ack_subject(seq))

    def status(self, pub: Pub, text: bytes) -> None:
        assert pub.reply is not None
        self.server.send(pub.reply, header=b"NATS/1.0 " + text + b"\r\n\r\n")


@pytest.fixture
def expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a request for no reason comes at its time."""
    monkeypatch.setattr("natsproto.jetstream.pull.EARLY", 0.0)


@pytest.fixture
async def pulled(server: FakeServer, js: JetStreamContext) -> Pulled:
    return Pulled(server, js)


async def test_fetch(pulled: Pulled) -> None:
    def on_next(pub: Pub) -> None:
        pulled.status(pub, b"100 Idle Heartbeat")
        for seq in (4, 5):
            pulled.message(pub, seq)

    pulled.on_next = on_next
    found = await pulled.consumer.fetch(2, timeout=3, max_bytes=100)
    assert [(m.seq, m.data) for m in found] == [(4, b"m4"), (5, b"m5")]
    request = body(pulled.requests[0])
    assert request == {"batch": 2, "expires": 3_000_000_000, "max_bytes": 100}
    await pulled.consumer.fetch(2, no_wait=True)
    assert body(pulled.requests[1]) == {"batch": 2, "no_wait": True}
    assert len(pulled.server.connection.mux) == 0
    assert len(pulled.server.connection.handlers) == 1


async def test_no_more_bytes_than_were_asked_for(pulled: Pulled) -> None:
    """But for the last message: what the server counts of it is its own affair."""

    def on_next(pub: Pub) -> None:
        for seq in range(1, 6):
            pulled.message(pub, seq)

    pulled.on_next = on_next
    assert len(await pulled.consumer.fetch(5, max_bytes=10)) == 5
    assert len(await pulled.consumer.fetch(2, max_bytes=3)) == 2
    with pytest.raises(RemoteProtocolError, match="consumer 'c' sends more than was asked for"):
        await pulled.consumer.fetch(5, max_bytes=3)


@pytest.mark.parametrize(
    "end", [b"404 No Messages", b"408 Request Timeout", b"409 Leadership Change", b"409 Batch Completed"]
)
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.usefixtures("expired")
async def test_a_fetch_that_ends_early(pulled: Pulled, end: bytes, count: int) -> None:
    def on_next(pub: Pub) -> None:
        for seq in range(count):
            pulled.message(pub, seq + 1)
        pulled.status(pub, end)

    pulled.on_next = on_next
    assert len(await pulled.consumer.fetch(5)) == count


@pytest.mark.parametrize(
    ("end", "kind", "config"),
    [
        (b"409 Consumer Deleted", ConsumerNotFoundError, None),
        (b"409 Exceeded MaxRequestBatch of 1", APIError, {"max_batch": 1}),
        (b"409 Exceeded MaxWaiting", APIError, {}),
        (b"409 Message Size Exceeds MaxBytes", APIError, {}),
        (b"409 Consumer is push based", APIError, {"deliver_subject": "x"}),
        (b"400 Bad Request", APIError, {"priority_groups": ["g"]}),
        (b"503", NoRespondersError, {}),
    ],
)
async def test_a_fetch_that_is_refused(
    pulled: Pulled, end: bytes, kind: type, config: dict[str, Any] | None
) -> None:
    """Never an empty list: an iteration over it would spin."""
    pulled.exists = config is not None
    pulled.info = {**pulled.info, "config": config, "num_pending": 1}
    pulled.on_next = lambda pub: pulled.status(pub, end)
    with pytest.raises(kind):
        await pulled.consumer.fetch(5, max_bytes=100)

    def one(pub: Pub) -> None:
        pulled.message(pub, 1)
        pulled.status(pub, end)

    pulled.on_next = one
    assert len(await pulled.consumer.fetch(5, max_bytes=100)) == 1


class TestUnheard:
    """In a cluster the server of the client may not know yet that somebody listens."""

    @pytest.fixture
    def pulled(self, pulled: Pulled) -> Pulled:
        pulled.on_next = lambda pub: (
            pulled.status(pub, b"503") if len(pulled.requests) < 3 else pulled.message(pub, 1)
        )
        return pulled

    @pytest.mark.parametrize("may_ask", [True, False])
    async def test_it_is_sent_again(self, pulled: Pulled, may_ask: bool) -> None:
        """Also for a user who may not ask what the server knows of the consumer."""
        pulled.may_ask = may_ask
        assert len(await pulled.consumer.fetch(1, idle_heartbeat=2.5)) == 1
        assert len({pub.reply for pub in pulled.requests}) == 3
        for before, after in pairwise(map(body, pulled.requests)):
            assert 3e9 < after["expires"] < before["expires"]  # all of them end when the first one would
            assert after["idle_heartbeat"] <= after["expires"] / 2
        assert pulled.consumer.last_end is None

    async def test_one_that_does_not_wait(self, pulled: Pulled) -> None:
        assert len(await pulled.consumer.fetch(1, no_wait=True)) == 1
        assert [body(pub) for pub in pulled.requests] == 3 * [{"batch": 1, "no_wait": True}]

    async def test_one_waits_after_all(self, pulled: Pulled) -> None:
        """Then it may be this one: whoever has sent the status, messages may come for it."""
        pulled.info = {**pulled.info, "num_waiting": 1}
        with pytest.raises(NoRespondersError):
            await pulled.consumer.fetch(1)
        assert len(pulled.requests) == 1

    @pytest.mark.parametrize(("unheard", "timeout"), [(50, 500), (500, 50)])
    async def test_for_how_long(
        self, pulled: Pulled, unheard: float, timeout: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As long as either lasts, here 50 s."""
        monkeypatch.setattr("natsproto.jetstream.pull.UNHEARD", unheard)
        clock = Clock()

        def late(pub: Pub) -> None:
            clock.forward(15)
            pulled.status(pub, b"503")

        pulled.on_next = late
        with pytest.raises(NoRespondersError):
            await pulled.consumer.fetch(1, timeout=timeout, idle_heartbeat=0)
        assert len(pulled.requests) == 4


async def test_a_refusal_of_megabytes_is_not_repeated(
    pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natsproto.jetstream.pull.GRACE", 0.01)
    pulled.on_next = lambda pub: pulled.status(pub, b"409 " + b"x" * 1_000_000)
    with pytest.raises(APIError) as caught:
        await pulled.consumer.fetch(5, timeout=0.01)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("says", ["503", "nothing"])
async def test_fetch_from_a_consumer_that_does_not_exist(
    pulled: Pulled, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("natsproto.jetstream.pull.GRACE", 0.01)
    pulled.exists = False
    if says == "503":
        pulled.on_next = lambda pub: pulled.status(pub, b"503")
    with pytest.raises(ConsumerNotFoundError):
        await pulled.consumer.fetch(timeout=0.01)


async def test_fetch_from_a_server_that_says_nothing(pulled: Pulled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natsproto.jetstream.pull.GRACE", 0.01)
    with pytest.raises(RequestTimeoutError):
        await pulled.consumer.fetch(timeout=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 0},
        {"batch": -1},
        {"batch": "5"},
        {"batch": 1.5},
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": "5"},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"max_bytes": 0},
        {"max_bytes": "5"},
        {"idle_heartbeat": "1"},
        {"idle_heartbeat": float("nan")},
    ],
)
async def test_fetch_of_nothing(pulled: Pulled, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        await pulled.consumer.fetch(**options)
    assert pulled.requests == []


async def test_fetch_waits_for_the_connection(pulled: Pulled) -> None:
    pulled.server.lose()
    with pytest.raises(StaleConnectionError):
        await pulled.consumer.fetch(timeout=0.01)
    task = asyncio.ensure_future(pulled.consumer.fetch())
    await turns()
    session = pulled.server.connect()
    assert session.pubs == []  # what a fetch that has ended asked for is not sent
    session.on_pub = pulled.on_pub
    pulled.on_next = lambda pub: pulled.message(pub, 1)
    assert len(await task) == 1


async def test_the_connection_is_lost_during_a_fetch(pulled: Pulled) -> None:
    task = asyncio.ensure_future(pulled.consumer.fetch(2))
    await until(lambda: pulled.requests)
    pulled.server.lose()
    with pytest.raises(StaleConnectionError):
        await task


async def test_a_fetch_that_is_not_permitted(pulled: Pulled) -> None:
    task = asyncio.ensure_future(pulled.consumer.fetch(2))
    await until(lambda: pulled.requests)
    text = 'Permissions Violation for Publish to "$JS.API.CONSUMER.MSG.NEXT.S.c"'
    pulled.server.connection.server_error(pulled.server.session, text)  # type: ignore[arg-type]
    with pytest.raises(PermissionsViolationError):
        await task


async def test_the_client_is_closed_during_a_fetch(pulled: Pulled) -> None:
    task = asyncio.ensure_future(pulled.consumer.fetch(2))
    await until(lambda: pulled.requests)
    await pulled.server.client.close()
    with pytest.raises(ConnectionClosedError):
        await task


async def test_a_fetch_is_cancelled(pulled: Pulled) -> None:
    task = asyncio.ensure_future(pulled.consumer.fetch(2))
    await until(lambda: pulled.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(pulled.server.connection.mux) == 0
    assert len(pulled.server.connection.handlers) == 1


async def test_forged_deliveries_are_dropped(pulled: Pulled) -> None:
    def on_next(pub: Pub) -> None:
        assert pub.reply is not None
        for reply in (None, b"x", b"$JS.ACK.S.c.1", ack_subject(1).replace(b".c.", b".other.")):
            pulled.server.send(pub.reply, b"x", subject=b"s.a", reply=reply)
        pulled.server.send(pub.reply, b"x", reply=ack_subject(1))
        pulled.server.send(pub.reply, b"", subject=b"s.a", header=b"NATS/1.0 404 x\r\n\r\n")
        pulled.message(pub, 1)

    pulled.on_next = on_next
    assert [m.data for m in await pulled.consumer.fetch(1)] == [b"m1"]


@pytest.mark.usefixtures("expired")
async def test_ends_before_their_time_do_not_make_a_busy_loop(
    pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sees a request may answer it."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def skip(delay: float) -> None:
        pauses.append(delay)
        await sleep(0)

    def on_next(pub: Pub) -> None:
        if len(pulled.requests) in (10, 12):
            pulled.message(pub, len(pulled.requests))
        pulled.status(pub, b"404 No Messages")

    monkeypatch.setattr(asyncio, "sleep", skip)
    pulled.on_next = on_next
    async for message in pulled.consumer.messages():
        if message.seq == 12:
            break
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 0.01]


async def test_words_of_acknowledgement(pulled: Pulled) -> None:
    pulled.on_next = lambda pub: pulled.message(pub, 1)
    (message,) = await pulled.consumer.fetch(1)
    pulled.server.pubs.clear()
    await message.ack()
    await message.nak()
    await message.nak(1.5)
    await message.in_progress()
    await message.term()
    assert {pub.subject for pub in pulled.server.pubs} == {ack_subject(1)}
    assert [bytes(pub.payload) for pub in pulled.server.pubs] == [
        b"+ACK",
        b"-NAK",
        b'-NAK {"delay":1500000000}',
        b"+WPI",
        b"+TERM",
    ]
    assert repr(message) == f"<JetStreamMsg {message.subject!r} seq=1>"


async def test_a_push_consumer_is_not_pulled_from(server: FakeServer, js: JetStreamContext) -> None:
    answer = {"stream_name": "S", "name": "c", "config": {"deliver_subject": "x"}}
    server.session.on_pub = lambda pub: server.reply(pub, answer)
    with pytest.raises(ConfigError, match="push"):
        await js.pull_consumer("S", "c")
    for options in ({}, {"consumer": "c", "config": {}}):
        with pytest.raises(ConfigError):
            await js.pull_consumer("S", **options)
