"""Pulls with heartbeats and priority groups, and iterations over what ends them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.errors import (
    ConfigError,
    ConnectionClosedError,
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
)
from natsproto.jetstream.api.errors import ConsumerNotFoundError
from natsproto.jetstream.api.statuses import (
    BadPullError,
    ConsumerDeletedError,
    LeadershipChangeError,
    MaxBytesError,
    MaxWaitingError,
    MissedHeartbeatError,
    NotPullConsumerError,
    PinIdMismatchError,
    PullLimitError,
    ServerShutdownError,
)
from natsproto.wire import Pub
from support.fake_session import turns, until
from support.pulls import Pulled

PINNED = {"priority_groups": ["g"], "priority_policy": "pinned_client"}


@pytest.fixture
async def pulled() -> Pulled:
    return Pulled({})


@pytest.fixture
async def group() -> Pulled:
    return Pulled(PINNED)


@pytest.fixture
def expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a request for no reason comes at its time."""
    monkeypatch.setattr("natsproto.jetstream.pull.EARLY", 0.0)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natsproto.jetstream.pull.FIRST_PAUSE", 0.0)


# -- heartbeats -----------------------------------------------------------------------------------


async def test_what_is_asked_for(pulled: Pulled) -> None:
    pulled.answers = [pulled.says(1)]
    await pulled.consumer.fetch(1, timeout=2, idle_heartbeat=0.5)
    await pulled.consumer.fetch(1, timeout=31)
    await pulled.consumer.fetch(1, timeout=31, idle_heartbeat=0)
    await pulled.consumer.fetch(1, timeout=30)
    assert [request.get("idle_heartbeat") for request in pulled.requests] == [
        500_000_000,
        5_000_000_000,
        None,
        None,
    ]
    assert await pulled.read(1, timeout=2, idle_heartbeat=1, max_bytes=9) == [b"m5"]
    assert pulled.requests[-1] == {
        "batch": 100, "expires": 2_000_000_000, "idle_heartbeat": 1_000_000_000, "max_bytes": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 1, "idle_heartbeat": 0.6},
        {"idle_heartbeat": -1},
        {"idle_heartbeat": float("nan")},
        {"no_wait": True, "idle_heartbeat": 1},
        {"group": "g"},
    ],
)
async def test_options_that_cannot_work(pulled: Pulled, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        await pulled.consumer.fetch(**options)
    if "no_wait" not in options:
        with pytest.raises(ConfigError):
            await pulled.read(1, **options)
    assert pulled.requests == []


async def test_missed_heartbeats_end_a_fetch(pulled: Pulled) -> None:
    pings = pulled.server.session.pings_sent
    with pytest.raises(MissedHeartbeatError, match=r"every 0\.01 s"):
        await pulled.consumer.fetch(2, timeout=20, idle_heartbeat=0.01)
    assert pulled.server.session.pings_sent == pings + 1
    assert isinstance(pulled.consumer.last_end, MissedHeartbeatError)
    pulled.answers = [pulled.says(1)]
    assert len(await pulled.consumer.fetch(2, timeout=20, idle_heartbeat=0.01)) == 1
    assert isinstance(pulled.consumer.last_end, MissedHeartbeatError)


async def test_missed_heartbeats_of_a_consumer_that_is_gone(pulled: Pulled) -> None:
    pulled.exists = False
    with pytest.raises(ConsumerNotFoundError):
        await pulled.consumer.fetch(2, timeout=20, idle_heartbeat=0.01)


async def test_heartbeats_keep_a_fetch_without_a_ping(pulled: Pulled) -> None:
    clock = asyncio.get_running_loop().time
    pings = pulled.server.session.pings_sent
    task = asyncio.ensure_future(pulled.consumer.fetch(1, timeout=20, idle_heartbeat=0.1))
    await until(lambda: pulled.pubs)
    ends = clock() + 0.5

    def beat() -> bool:
        pulled.status(pulled.pubs[0], "100 Idle Heartbeat")
        return clock() > ends

    await until(beat)
    pulled.message(pulled.pubs[0])
    assert len(await task) == 1
    assert pulled.server.session.pings_sent == pings


async def test_heartbeats_keep_a_fetch(pulled: Pulled) -> None:
    """What arrives while the PING is under way counts, too: this program did not run meanwhile."""
    session = pulled.server.session
    session.pongs = False
    task = asyncio.ensure_future(pulled.consumer.fetch(1, timeout=20, idle_heartbeat=0.01))
    for count in (1, 2, 3):
        await until(lambda count=count: session.pings_sent == count)
        pulled.status(pulled.pubs[0], "100 Idle Heartbeat")
        session.answer_pings()
    pulled.message(pulled.pubs[0])
    assert [msg.data for msg in await task] == [b"m1"]


async def test_the_connection_is_lost_while_heartbeats_are_missed(pulled: Pulled) -> None:
    pulled.server.session.pongs = False
    task = asyncio.ensure_future(pulled.consumer.fetch(1, timeout=20, idle_heartbeat=0.01))
    await until(lambda: pulled.server.session.pings_sent)
    session = pulled.server.session
    exc = pulled.server.lose()
    for waiter in session._pings:
        waiter.set_exception(exc)
    with pytest.raises(StaleConnectionError):
        await task


# -- why a pull ended -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("404 No Messages", None),
        ("408 Request Timeout", None),
        ("409 Batch Completed", None),
        ("409 Leadership Change", LeadershipChangeError),
        ("409 Server Shutdown", ServerShutdownError),
    ],
)
@pytest.mark.usefixtures("expired")
async def test_ends_that_are_told_and_not_raised(pulled: Pulled, text: str, kind: type | None) -> None:
    pulled.answers = [pulled.says(text)]
    assert await pulled.consumer.fetch(3) == []
    assert type(pulled.consumer.last_end) is (kind or type(None))
    pulled.answers = [pulled.says(1)]
    await pulled.consumer.fetch(1)
    assert pulled.consumer.last_end is None


@pytest.mark.parametrize(
    ("text", "kind", "info"),
    [
        ("409 Consumer Deleted", ConsumerDeletedError, None),
        ("409 Exceeded MaxRequestBatch of 1", PullLimitError, {"config": {"max_batch": 1}}),
        ("409 Exceeded MaxWaiting", MaxWaitingError, {}),
        ("409 Message Size Exceeds MaxBytes", MaxBytesError, {"num_pending": 1}),
        ("423 Nats-Pin-Id mismatch", PinIdMismatchError, {}),
    ],
)
async def test_refusals(
    pulled: Pulled, text: str, kind: type[NatsError], info: dict[str, Any] | None
) -> None:
    pulled.now(info)
    pulled.answers = [pulled.says(text)]
    with pytest.raises(kind):
        await pulled.consumer.fetch(3, max_bytes=100)
    pulled.answers = [pulled.says(2, text)]
    assert len(await pulled.consumer.fetch(3, max_bytes=100)) == 2
    assert isinstance(pulled.consumer.last_end, kind)


async def test_what_is_no_status_ends_nothing(pulled: Pulled) -> None:
    def answer(pub: Pub) -> None:
        assert pub.reply is not None
        for header in (b"NATS/1.0\r\nStatus: 409\r\n\r\n", b"NATS/1.0 4x9\r\n\r\n"):
            pulled.server.send(pub.reply, header=header)
        pulled.server.send(pub.reply, header=b"NATS/1.0 404 No Messages\r\n\r\n", reply=b"x")
        pulled.message(pub)

    pulled.answers = [answer]
    assert len(await pulled.consumer.fetch(1)) == 1


# -- iterating ------------------------------------------------------------------------------------


async def test_messages_are_passed_on_as_they_come(pulled: Pulled) -> None:
    messages = pulled.consumer.messages(batch=3, timeout=20)
    first = asyncio.ensure_future(anext(messages))
    await until(lambda: pulled.pubs)
    pulled.message(pulled.pubs[0])
    assert (await first).data == b"m1"
    second = asyncio.ensure_future(anext(messages))
    await turns()
    assert not second.done()
    pulled.message(pulled.pubs[0])
    assert (await second).data == b"m2"
    assert len(pulled.requests) == 1
    await messages.aclose()
    assert len(pulled.server.connection.mux) == 0
    assert len(pulled.server.connection.handlers) == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("404 No Messages", None),
        ("408 Request Timeout", None),
        ("409 Batch Completed", None),
        ("409 Leadership Change", None),
        ("409 Server Shutdown", None),
        ("409 Exceeded MaxWaiting", MaxWaitingError),
        ("423 Nats-Wrong-Pin-Id", PinIdMismatchError),
        ("503", NoRespondersError),
    ],
)
@pytest.mark.usefixtures("expired")
async def test_what_an_iteration_survives(pulled: Pulled, text: str, kind: type | None) -> None:
    """And reports once, however often it happens before the next message."""
    pulled.answers = [
        pulled.says(text),
        pulled.says(2, text),
        pulled.says(text),
        pulled.says(text),
        pulled.says(1),
    ]
    assert await pulled.read(3) == [b"m1", b"m2", b"m3"]
    assert len(pulled.requests) == 5
    assert {type(exc) for exc in pulled.reported} == ({kind} if kind else set())
    assert len(pulled.reported) <= 2


async def test_missed_heartbeats_renew_an_iteration(pulled: Pulled) -> None:
    pulled.answers = [pulled.says(), pulled.says("100 Idle Heartbeat"), pulled.says(1)]
    assert await pulled.read(1, timeout=20, idle_heartbeat=0.01) == [b"m1"]
    assert [type(exc) for exc in pulled.reported] == [MissedHeartbeatError]


@pytest.mark.parametrize(
    ("text", "kind", "info"),
    [
        ("409 Consumer Deleted", ConsumerDeletedError, None),
        ("409 Exceeded MaxRequestExpires of 1s", PullLimitError, {"config": {"max_expires": 1_000_000_000}}),
        ("409 Message Size Exceeds MaxBytes", MaxBytesError, {"num_pending": 1}),
        ("409 Consumer is push based", NotPullConsumerError, {"config": {"deliver_subject": "x"}}),
        ("400 Bad Request", BadPullError, {"config": {"priority_groups": ["g"]}}),
    ],
)
async def test_what_ends_an_iteration(
    pulled: Pulled, text: str, kind: type[NatsError], info: dict[str, Any] | None
) -> None:
    pulled.now(info)
    pulled.answers = [pulled.says(text)]
    with pytest.raises(kind):
        await pulled.read(1, max_bytes=100)
    assert len(pulled.requests) == 1
    assert len(pulled.server.connection.handlers) == 1


async def test_the_end_of_a_batch_by_its_bytes_renews_it(pulled: Pulled) -> None:
    pulled.answers = [pulled.says(2, "409 Message Size Exceeds MaxBytes")]
    assert len(await pulled.read(5, max_bytes=100)) == 5


@pytest.mark.parametrize("kind", [ConsumerDeletedError, RemoteProtocolError])
async def test_messages_before_the_end_are_passed_on(pulled: Pulled, kind: type[NatsError]) -> None:
    deleted = kind is ConsumerDeletedError
    pulled.exists = not deleted
    pulled.answers = [pulled.says(2, "409 Consumer Deleted") if deleted else pulled.says(9)]
    found = []
    with pytest.raises(kind):
        async for msg in pulled.consumer.messages(max_bytes=None if deleted else 3):
            found += [msg.data]
    assert found == [b"m1", b"m2"]


async def test_an_iteration_gives_up(pulled: Pulled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulled.server.connection.options, "retry_budget", 0.02)
    pulled.answers = [pulled.says("503")]
    with pytest.raises(NoRespondersError):
        await pulled.read(1)
    assert len(pulled.reported) == 1
    assert len(pulled.requests) > 1


async def test_an_iteration_over_a_consumer_that_does_not_exist(pulled: Pulled) -> None:
    pulled.exists = False
    pulled.answers = [pulled.says("503")]
    with pytest.raises(ConsumerNotFoundError):
        await pulled.read(1)


async def test_an_iteration_survives_the_connection(pulled: Pulled) -> None:
    task = asyncio.ensure_future(pulled.read(1, timeout=20))
    await until(lambda: pulled.requests)
    pulled.server.lose()
    await turns()
    pulled.answers = [pulled.says(1)]
    pulled.server.connect()
    pulled.listen()
    assert await task == [b"m1"]
    assert pulled.reported == []
    again = asyncio.ensure_future(pulled.read(1, timeout=20))
    pulled.answers = [pulled.says()]
    await turns()
    pulled.server.lose()
    await turns()
    await pulled.server.client.close()
    with pytest.raises(ConnectionClosedError):
        await again


async def test_an_iteration_that_is_not_permitted(pulled: Pulled) -> None:
    task = asyncio.ensure_future(pulled.read(1))
    await until(lambda: pulled.requests)
    pulled.server.refuse("$JS.API.CONSUMER.MSG.NEXT.S.c")
    with pytest.raises(PermissionsViolationError):
        await task


async def test_a_reader_that_slept_past_the_expiry(pulled: Pulled, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came meanwhile is read before the pull counts as unanswered."""
    monkeypatch.setattr("natsproto.jetstream.pull.GRACE", 0.0)
    session = pulled.server.session
    session.pongs = False
    task = asyncio.ensure_future(pulled.read(1, timeout=0.01))
    await until(lambda: session.pings_sent)
    pulled.message(pulled.pubs[0])
    session.answer_pings()
    assert await task == [b"m1"]
    assert len(pulled.requests) == 1


async def test_a_server_that_says_nothing(pulled: Pulled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natsproto.jetstream.pull.GRACE", 0.0)
    monkeypatch.setattr(pulled.server.connection.options, "retry_budget", 0.02)
    with pytest.raises(RequestTimeoutError):
        await pulled.read(1, timeout=0.01)


# -- priority groups ------------------------------------------------------------------------------


async def test_a_pinned_client_says_its_id(group: Pulled) -> None:
    header = b"NATS/1.0\r\nNats-Pin-Id: %b\r\n\r\n"
    group.answers = [
        lambda pub: group.message(pub, header % b"abc123"),
        group.says(1),
        lambda pub: group.message(pub, header % b"x"),
        group.says("423 Nats-Pin-Id mismatch"),
        group.says(1),
    ]
    consumer = group.consumer
    assert consumer.pin_id is None
    for _ in range(3):
        await consumer.fetch(1, group="g")
    assert consumer.pin_id == "x"
    with pytest.raises(PinIdMismatchError):
        await consumer.fetch(1, group="g")
    assert consumer.pin_id is None
    await consumer.fetch(1, group="g")
    assert [request.get("id") for request in group.requests] == [None, "abc123", "abc123", "x", None]
    assert {request["group"] for request in group.requests} == {"g"}


async def test_the_pin_is_no_part_of_the_bytes_that_were_asked_for(group: Pulled) -> None:
    """The server counts a message before it adds that header."""

    def three(pub: Pub) -> None:
        for _ in range(3):
            group.message(pub, b"NATS/1.0\r\nNats-Pin-Id: 1234567890123456789012\r\n\r\n")

    group.answers = [three]
    assert len(await group.consumer.fetch(3, group="g", max_bytes=20)) == 3


@pytest.mark.parametrize("stored", [b"Nats-Pin-Id: EVIL\r\n", b"Nats-Pin-Id: EVIL\r\nX"])
async def test_a_pin_that_the_writer_stored(group: Pulled, stored: bytes) -> None:
    """The server adds its own behind it; of a header that lacks its end it cuts off two bytes."""
    header = b"NATS/1.0\r\n%bNats-Pin-Id: own\r\n\r\n" % stored
    group.answers = [lambda pub: group.message(pub, header)]
    await group.consumer.fetch(1, group="g")
    assert group.consumer.pin_id == "own"


async def test_a_pin_that_is_gained_and_lost(group: Pulled) -> None:
    """By the same pull; a late refusal of an older one does not lose a newer pin."""
    header = b"NATS/1.0\r\nNats-Pin-Id: %b\r\n\r\n"
    task = asyncio.ensure_future(group.consumer.fetch(2, group="g"))
    await until(lambda: group.pubs)
    group.message(group.pubs[0], header % b"a")
    assert group.consumer.pin_id == "a"
    group.status(group.pubs[0], "423 Nats-Wrong-Pin-Id")
    assert len(await task) == 1
    assert group.consumer.pin_id is None

    group.answers = [lambda pub: group.message(pub, header % b"b")]
    await group.consumer.fetch(1, group="g")
    group.answers = [group.says()]
    old = asyncio.ensure_future(group.consumer.fetch(2, group="g"))
    await until(lambda: len(group.pubs) == 3)
    group.answers = [lambda pub: group.message(pub, header % b"c")]
    await group.consumer.fetch(1, group="g")
    group.status(group.pubs[2], "423 Nats-Wrong-Pin-Id")
    with pytest.raises(PinIdMismatchError):
        await old
    assert group.consumer.pin_id == "c"


@pytest.mark.usefixtures("expired")
async def test_an_iteration_that_loses_the_pin(group: Pulled) -> None:
    header = b"NATS/1.0\r\nNats-Pin-Id: abc\r\n\r\n"
    group.answers = [
        lambda pub: group.message(pub, header) or group.status(pub, "408 Request Timeout"),
        group.says("423 Nats-Wrong-Pin-Id"),
        group.says(1),
    ]
    assert await group.read(2, group="g") == [b"m1", b"m2"]
    assert [request.get("id") for request in group.requests] == [None, "abc", None]
    assert [type(exc) for exc in group.reported] == [PinIdMismatchError]


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b'"', b"\xff"])
async def test_ids_that_no_server_sends(group: Pulled, value: bytes) -> None:
    group.answers = [lambda pub: group.message(pub, b"NATS/1.0\r\nNats-Pin-Id: %b\r\n\r\n" % value)]
    await group.consumer.fetch(1, group="g")
    assert group.consumer.pin_id is None


async def test_a_header_of_other_consumers_is_no_id(pulled: Pulled) -> None:
    pulled.answers = [lambda pub: pulled.message(pub, b"NATS/1.0\r\nNats-Pin-Id: abc\r\n\r\n")]
    await pulled.consumer.fetch(1)
    assert pulled.consumer.pin_id is None
