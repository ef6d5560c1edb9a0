"""One request, many answers: each way in which they end, what is left then, and what a flood does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from natsproto import Responses
from natsproto.aio.msg import Msg
from natsproto.errors import (
    BadSubjectError,
    ConfigError,
    ConnectionClosedError,
    LocalProtocolError,
    MaxPayloadError,
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    SlowConsumerError,
    StaleConnectionError,
    UnsupportedFeatureError,
)
from support.fake_session import FakeServer, turns
from support.simulation import in_virtual_time, passing

NOBODY = b"NATS/1.0 503\r\n\r\n"


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


def answer(server: FakeServer, *payloads: bytes, rest: bytes = b"") -> None:
    """Answer the newest request."""
    reply = server.pubs[-1].reply
    assert reply is not None
    for payload in payloads:
        server.reply_to(reply + rest, payload)


async def rest_of(responses: Responses) -> list[bytes]:
    async with asyncio.timeout(60):
        return [msg.data async for msg in responses]


def nothing_left(server: FakeServer) -> bool:
    return len(server.connection.mux) == 0 and not server.connection.operations.holds


# -- how they end ----------------------------------------------------------------------------------


def timed(work: Callable[[FakeServer], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test in virtual time."""

    def test() -> None:
        async def run() -> None:
            server = FakeServer()
            await work(server)
            assert nothing_left(server)
            await server.client.close()

        in_virtual_time(run)

    test.__name__, test.__doc__ = work.__name__, work.__doc__
    return test


@timed
async def test_by_the_total_time(server: FakeServer) -> None:
    clock = server.connection.loop.time
    began = clock()
    responses = server.client.request_many("a", b"?", timeout=3)
    for number in range(5):
        answer(server, b"%d" % number)
        await passing(0.5)
    assert responses.ended_by is None
    assert await rest_of(responses) == [b"0", b"1", b"2", b"3", b"4"]
    assert clock() - began == pytest.approx(3, abs=0.01)
    assert (responses.ended_by, responses.last) == ("timeout", None)
    answer(server, b"late")
    assert await rest_of(responses) == []
    with_default = server.client.request_many("a")
    began = clock()
    assert await rest_of(with_default) == []  # no answer at all is no error
    assert clock() - began == pytest.approx(server.connection.options.request_timeout, abs=0.01)


@timed
async def test_by_the_stall(server: FakeServer) -> None:
    """The first answer has the whole time; each further one the stall since the one before."""
    clock = server.connection.loop.time
    responses = server.client.request_many("a", timeout=10, stall=0.5)
    await passing(4)
    for number in range(3):
        answer(server, b"%d" % number)
        await passing(0.4)
    began = clock()
    assert await rest_of(responses) == [b"0", b"1", b"2"]
    assert clock() - began == pytest.approx(0.1, abs=0.01)
    assert responses.ended_by == "stall"


@timed
async def test_the_stall_never_outlasts_the_total_time(server: FakeServer) -> None:
    for stall in (2.0, 5.0, 100.0):
        clock = server.connection.loop.time
        began = clock()
        responses = server.client.request_many("a", timeout=5, stall=stall)
        await passing(4)
        answer(server, b"x")
        assert await rest_of(responses) == [b"x"]
        assert clock() - began == pytest.approx(5, abs=0.01)
        assert responses.ended_by == "timeout"


@timed
async def test_a_reader_that_is_slow_is_no_stall(server: FakeServer) -> None:
    """When an answer has come counts, and not when it is read (ADR-47)."""
    responses = server.client.request_many("a", timeout=10, stall=0.5)
    answer(server, b"1")
    await passing(0.4)
    answer(server, b"2")
    seen = []
    async for msg in responses:
        seen.append(msg.data)
        await passing(3)
    assert seen == [b"1", b"2"]
    assert responses.ended_by == "stall"


async def test_by_count(server: FakeServer) -> None:
    responses = server.client.request_many("a", b"?", max_messages=2, headers={"H": "v"})
    answer(server, b"1", b"2", b"3", rest=b".7")
    assert nothing_left(server)  # before anything is read
    assert responses.pending_msgs == 2
    assert await rest_of(responses) == [b"1", b"2"]
    assert responses.ended_by == "max_messages"
    (pub,) = server.pubs
    assert (pub.subject, bytes(pub.payload), pub.header) == (b"a", b"?", b"NATS/1.0\r\nH: v\r\n\r\n")


async def test_by_the_sentinel(server: FakeServer) -> None:
    seen: list[Msg] = []

    def sentinel(msg: Msg) -> bool:
        seen.append(msg)
        return not msg.data

    responses = server.client.request_many("a", sentinel=sentinel, max_messages=9)
    answer(server, b"1", b"2", b"", b"3")
    assert await rest_of(responses) == [b"1", b"2"]
    assert responses.ended_by == "sentinel"
    assert responses.last is seen[-1]
    assert [msg.data for msg in seen] == [b"1", b"2", b""]
    assert nothing_left(server)
    assert await rest_of(responses) == []
    # The count was reached first, but the sentinel is among the answers.
    responses = server.client.request_many("a", sentinel=sentinel, max_messages=2)
    answer(server, b"1", b"")
    assert await rest_of(responses) == [b"1"]
    assert responses.ended_by == "sentinel"


async def test_a_sentinel_that_raises(server: FakeServer) -> None:
    def sentinel(msg: Msg) -> bool:
        raise ZeroDivisionError

    responses = server.client.request_many("a", sentinel=sentinel)
    answer(server, b"1", b"2")
    with pytest.raises(ZeroDivisionError):
        await anext(responses)
    assert await rest_of(responses) == []
    assert responses.ended_by == "error"
    assert nothing_left(server)


async def test_by_a_status(server: FakeServer) -> None:
    responses = server.client.request_many("a")
    with pytest.raises(NoRespondersError, match="'a'"):
        server.reply(server.pubs[-1], b"", NOBODY)
        await anext(responses)
    with pytest.raises(NoRespondersError):
        await anext(responses)
    assert responses.ended_by == "status"
    responses = server.client.request_many("a")
    answer(server, b"1")
    server.reply(server.pubs[-1], b"", b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n")
    assert await rest_of(responses) == [b"1"]
    assert responses.ended_by == "status"
    assert responses.last is not None
    assert responses.last.status == 204
    assert nothing_left(server)


async def test_nobody_after_somebody(server: FakeServer) -> None:
    """A server says that nobody listens at once, or not at all: this is another responder's."""
    responses = server.client.request_many("a", max_messages=2)
    answer(server, b"1")
    server.reply(server.pubs[-1], b"", NOBODY)
    answer(server, b"2")
    assert await rest_of(responses) == [b"1", b"2"]
    assert responses.ended_by == "max_messages"


async def test_what_is_no_status(server: FakeServer) -> None:
    """As for a request: with a payload, or of a stored message, it is an answer like any other."""
    responses = server.client.request_many("a", max_messages=3)
    server.reply(server.pubs[-1], b"x", NOBODY)
    server.reply(server.pubs[-1], b"", NOBODY[:-2] + b"Nats-Stream: S\r\nNats-Sequence: 7\r\n\r\n")
    server.reply(server.pubs[-1], b"", b"NATS/1.0\r\nStatus: 503\r\n\r\n")
    assert await rest_of(responses) == [b"x", b"", b""]


# -- when something goes wrong ---------------------------------------------------------------------


async def test_the_connection_is_lost(server: FakeServer) -> None:
    responses = server.client.request_many("a")
    answer(server, b"1")
    lost = server.lose()
    assert (await anext(responses)).data == b"1"
    for _ in range(2):
        with pytest.raises(StaleConnectionError) as told:
            await anext(responses)
        assert told.value is lost
    server.connect()
    assert responses.ended_by == "error"
    assert nothing_left(server)
    assert server.pubs == []  # it is not asked again


async def test_asked_while_disconnected(server: FakeServer) -> None:
    """It is sent after the reconnect, unless nobody reads the answers any more."""
    server.lose()
    async with server.client.request_many("given.up"):
        pass
    responses = server.client.request_many("a", max_messages=1)
    server.connect()
    assert [pub.subject for pub in server.pubs] == [b"a"]
    answer(server, b"1")
    assert await rest_of(responses) == [b"1"]


async def test_the_client_is_closed(server: FakeServer) -> None:
    responses = server.client.request_many("a")
    reading = asyncio.ensure_future(rest_of(responses))
    await turns()
    await server.client.close()
    with pytest.raises(ConnectionClosedError):
        await reading
    with pytest.raises(ConnectionClosedError):
        server.client.request_many("a")


async def test_the_subject_is_refused(server: FakeServer) -> None:
    responses = server.client.request_many("a")
    server.refuse("a")
    with pytest.raises(PermissionsViolationError) as told:
        await anext(responses)
    assert told.value.certain  # no other message may be meant
    assert nothing_left(server)
    inbox = server.connection.mux.subject.decode()
    responses = server.client.request_many("a")
    server.refuse(inbox, "Subscription")
    with pytest.raises(PermissionsViolationError):
        await anext(responses)


async def test_a_refusal_after_it_was_given_up_is_not_certain(server: FakeServer) -> None:
    """That of a later request: the server may mean the earlier one. Where answers came, it cannot."""
    server.session.pongs = False
    for answered in (False, True):
        async with server.client.request_many("a"):
            if answered:
                answer(server, b"1")
        asking = asyncio.ensure_future(server.client.request("a"))
        await turns()
        server.refuse("a")
        with pytest.raises(PermissionsViolationError) as told:
            await asking
        assert told.value.certain is answered
        server.refuse("a")  # the other one: now it is


@pytest.mark.parametrize("limit", ["pending_msgs_limit", "pending_bytes_limit"])
async def test_a_flood(server: FakeServer, limit: str) -> None:
    """The queue is bounded; what is in it can be read, and then it is told that answers are missing."""
    options = server.connection.options
    setattr(options, limit, 10 if limit == "pending_msgs_limit" else 10_000)
    responses = server.client.request_many("a")
    answer(server, *[bytes(900)] * 1000)
    assert 9 <= responses.pending_msgs <= 10
    assert nothing_left(server)
    seen = 0
    with pytest.raises(SlowConsumerError, match=r"answers .* from 'a' wait to be read"):
        async for _ in responses:
            seen += 1
    assert 9 <= seen <= 10
    setattr(options, limit, getattr(type(options)(), limit))
    responses = server.client.request_many("a")
    for _ in range(50):  # whoever reads them has no limit
        answer(server, b"x" * 900)
        assert (await anext(responses)).data
    await responses.aclose()


@timed
async def test_a_request_without_an_answer_is_followed_by_a_ping(server: FakeServer) -> None:
    pings = server.session.pings_sent
    assert await rest_of(server.client.request_many("a", timeout=1)) == []
    assert server.session.pings_sent == pings + 1
    responses = server.client.request_many("a", timeout=1)
    answer(server, b"1")
    assert await rest_of(responses) == [b"1"]
    assert server.session.pings_sent == pings + 1


# -- leaving ---------------------------------------------------------------------------------------


async def test_leaving_early(server: FakeServer) -> None:
    async with server.client.request_many("a") as responses:
        answer(server, b"1", b"2")
        async for _ in responses:
            break
        assert not nothing_left(server)
    assert nothing_left(server)
    assert (responses.ended_by, responses.pending_msgs) == ("closed", 0)
    assert await rest_of(responses) == []
    await responses.aclose()
    ended = server.client.request_many("a", max_messages=1)
    answer(server, b"1")
    assert await rest_of(ended) == [b"1"]
    await ended.aclose()
    assert ended.ended_by == "max_messages"


async def test_one_that_is_dropped(server: FakeServer) -> None:
    async for _ in asked(server, b"1"):
        break
    gc.collect()
    assert nothing_left(server)


def asked(server: FakeServer, *answers: bytes) -> Responses:
    responses = server.client.request_many("a")
    answer(server, *answers)
    return responses


async def test_cancelled_while_waiting(server: FakeServer) -> None:
    responses = server.client.request_many("a", max_messages=1)
    first, second = (asyncio.ensure_future(anext(responses)) for _ in range(2))
    await turns()
    first.cancel()
    await asyncio.wait([first])
    answer(server, b"1")
    assert (await second).data == b"1"
    with pytest.raises(StopAsyncIteration):
        await anext(responses)


async def test_drain_waits_for_it(server: FakeServer) -> None:
    responses = server.client.request_many("a", max_messages=2)
    reading = asyncio.ensure_future(rest_of(responses))
    answer(server, b"1")

    async def end() -> None:
        await server.client.drain()

    draining = asyncio.ensure_future(end())
    await turns(200)
    assert not draining.done()
    answer(server, b"2")
    assert await reading == [b"1", b"2"]
    await draining
    assert server.client.is_closed


# -- what is refused -------------------------------------------------------------------------------


async def test_bad_input(server: FakeServer) -> None:
    async def later(msg: Msg) -> bool:
        return True

    cases: list[tuple[type[NatsError], dict[str, Any]]] = [
        (BadSubjectError, {"subject": "a b"}),
        (BadSubjectError, {"subject": "a.*"}),
        (BadSubjectError, {"subject": "a" * 4050}),
        (LocalProtocolError, {"payload": "text"}),
        (LocalProtocolError, {"headers": {"a b": "c"}}),
        (MaxPayloadError, {"payload": bytes(2 << 20)}),
        *((ConfigError, {"timeout": wrong}) for wrong in (0, -1, "1", True, float("nan"))),
        *((ConfigError, {"stall": wrong}) for wrong in (0, -1, "1", True)),
        *((ConfigError, {"max_messages": wrong}) for wrong in (0, -1, 1.5, "1", True)),
        *((ConfigError, {"sentinel": wrong}) for wrong in (b"", True, later)),
    ]
    for error, options in cases:
        with pytest.raises(error):
            server.client.request_many(**{"subject": "a", **options})
        assert nothing_left(server), options
    assert server.pubs == []
    server.connection.headers = False
    with pytest.raises(UnsupportedFeatureError):
        server.client.request_many("a", headers={"H": "v"})
    await server.client.request_many("a").aclose()
    assert len(server.pubs) == 1


async def test_in_another_thread(server: FakeServer) -> None:
    responses = server.client.request_many("a")
    with pytest.raises(ConnectionClosedError, match="thread"):
        await asyncio.to_thread(server.client.request_many, "a")
    with pytest.raises(ConnectionClosedError, match="thread"):
        await asyncio.to_thread(lambda: responses.__anext__().send(None))
    await asyncio.to_thread(responses.__del__)  # the collector may run anywhere
    assert not nothing_left(server)
    await responses.aclose()
    assert len(server.pubs) == 1


async def test_tokens_cannot_be_guessed(server: FakeServer) -> None:
    """An answer to another inbox of the client, or to none, is not taken."""
    responses = server.client.request_many("a")
    other = server.client.request_many("b")
    reply = server.pubs[0].reply
    assert reply is not None
    for wrong in (reply[:-1], reply + b"x", reply[:-12] + b"A" * 12, reply.rpartition(b".")[0]):
        server.reply_to(wrong, b"forged")
    assert (responses.pending_msgs, other.pending_msgs) == (0, 0)
    await responses.aclose()
    await other.aclose()
