"""The conversation about a fast-ingest batch: gaps, refusals, faults, answers that are none."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    ConnectionClosedError,
    NoRespondersError,
    PermissionsViolationError,
    RequestTimeoutError,
    StaleConnectionError,
    UnsupportedFeatureError,
    WrongStreamError,
)
from natsproto.jetstream import fast_batch
from natsproto.jetstream.api.errors import WrongLastSequenceError
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.fast_batch import MAX_REFUSED, BatchIncompleteError
from natsproto.wire import Pub
from support.api_answers import NOBODY
from support.clock import Clock
from support.fake_session import FakeServer, turns, until
from support.fast_batches import Leader, Stream, answer, batches, error, final, flow, parts, refusal


@pytest.fixture
async def server() -> FakeServer:
    server = FakeServer()
    server.session.info["api_lvl"] = 4
    Stream(server)
    return server


@pytest.fixture
def js(server: FakeServer) -> JetStreamContext:
    return server.client.jetstream(timeout=5)


# -- gaps and refusals ------------------------------------------------------------------------------


async def test_a_gap_ends_the_batch(server: FakeServer, js: JetStreamContext) -> None:
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S")
    for _ in range(3):
        await batch.add("s.a", b"x")
    leader.say({"type": "gap", "last_seq": 2, "seq": 3})
    assert await batch.add("s.a", b"x") == 4  # another stream may have said so: the end does not
    leader.say(final(server.pubs[-1], 1))
    with pytest.raises(BatchIncompleteError, match="1 of 4 messages: message 2 was lost") as caught:
        await batch.add("s.a", b"x")
    assert caught.value.stored == batch.acknowledged == 1
    assert caught.value.ack is not None
    assert caught.value.ack.seq == 101
    with pytest.raises(BatchIncompleteError):
        await batch.close()
    assert len(server.pubs) == 4
    assert batches(server) == []


async def test_a_gap_while_waiting(server: FakeServer, js: JetStreamContext) -> None:
    leader = Leader(server, msgs=1)
    batch = js.fast_publisher("S", max_outstanding_acks=1)
    await batch.add("s.a", b"x")
    adding = asyncio.ensure_future(batch.add("s.a", b"x"))
    await turns()
    leader.say({"type": "gap", "last_seq": 1, "seq": 2})
    await turns()
    leader.say(final(server.pubs[-1], 0))
    with pytest.raises(BatchIncompleteError):
        await adding


async def test_an_end_without_a_reason(server: FakeServer, js: JetStreamContext) -> None:
    """The gap may have been reported in vain: the answers to a batch may be lost."""
    leader = Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    await batch.add("s.a", b"x")
    leader.say(final(server.pubs[-1], 1))
    with pytest.raises(BatchIncompleteError, match=r"after 1 of 2 messages$"):
        await batch.commit("s.a", b"x")


async def test_a_commit_that_stored_less(server: FakeServer, js: JetStreamContext) -> None:
    leader = Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    server.session.on_pub = None
    ending = asyncio.ensure_future(batch.commit("s.a", b"x"))
    await turns()
    leader.say({"type": "gap", "last_seq": 1, "seq": 2})
    leader.say(final(server.pubs[-1], 0))
    with pytest.raises(BatchIncompleteError) as caught:
        await ending
    assert caught.value.stored == 0


async def test_gaps_that_are_allowed(server: FakeServer, js: JetStreamContext) -> None:
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S", continue_on_gap=True)
    for _ in range(4):
        await batch.add("s.a", b"x")
    leader.say({"type": "gap", "last_seq": 2, "seq": 4})
    leader.say({"type": "err", "seq": 4, "error": error(10071, "wrong last sequence: 1")})
    assert await batch.add("s.a", b"x") == 5
    assert (batch.lost, [seq for seq, _ in batch.refused]) == (2, [4])
    assert isinstance(batch.refused[0][1], WrongLastSequenceError)
    for _ in range(MAX_REFUSED):
        leader.say({"type": "err", "seq": 5, "error": None})
    assert len(batch.refused) == MAX_REFUSED
    ack = await batch.close()
    assert ack is not None
    assert ack.count == 5


async def test_a_refused_message_ends_the_batch(server: FakeServer, js: JetStreamContext) -> None:
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    await batch.add("s.a", b"x", expected_last_seq=7)
    leader.say({"type": "err", "seq": 2, "error": error(10071, "wrong last sequence: 1")})
    leader.say({"type": "gap", "last_seq": 2, "seq": 3})  # not the reason
    leader.say(final(server.pubs[-1], 1))
    for _ in range(2):
        with pytest.raises(WrongLastSequenceError):
            await batch.add("s.a", b"x")
    assert batch.acknowledged == 1


@pytest.mark.parametrize("continue_on_gap", [False, True])
@pytest.mark.parametrize("refused", ["s.a", "s.b"])
async def test_a_right_that_lacks_ends_the_batch(
    server: FakeServer, js: JetStreamContext, refused: str, continue_on_gap: bool
) -> None:
    """The newest message, or an earlier one, has a subject that the user may not publish to: it is named."""
    Leader(server, msgs=10)
    batch = js.fast_publisher("S", continue_on_gap=continue_on_gap)
    for subject in ("s.c", "s.a", "s.b"):
        await batch.add(subject, b"x")
    violation = 'Permissions Violation for Publish to "{}"'.format
    server.connection.server_error(server.session, violation("s.d"))  # somebody else's
    assert await batch.add("s.b", b"x") == 4
    server.connection.server_error(server.session, violation(refused))
    for _ in range(2):
        with pytest.raises(PermissionsViolationError) as caught:
            await batch.add("s.c", b"x")
        assert caught.value.subject == refused


async def test_the_first_message_is_refused(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: answer(server, pub, refusal(10205))
    batch = js.fast_publisher("S")
    for _ in range(2):
        with pytest.raises(APIError) as caught:
            await batch.add("s.a", b"x")
        assert caught.value.err_code == 10205
    assert len(server.pubs) == 1
    assert batches(server) == []


async def test_the_first_message_is_a_duplicate(server: FakeServer, js: JetStreamContext) -> None:
    """Some servers end the batch with it."""
    server.session.on_pub = lambda pub: answer(server, pub, {**final(pub, 1), "duplicate": True})
    batch = js.fast_publisher("S")
    with pytest.raises(BatchIncompleteError) as caught:
        await batch.add("s.a", b"x", msg_id="1")
    assert caught.value.stored == 1


# -- faults -----------------------------------------------------------------------------------------


async def test_no_stream(server: FakeServer, js: JetStreamContext) -> None:
    server.session.on_pub = lambda pub: answer(server, pub, b"", NOBODY)
    with pytest.raises(NoRespondersError):
        await js.fast_publisher("S").add("s.a", b"x")


@pytest.mark.parametrize("continue_on_gap", [False, True])
async def test_the_leader_is_gone(server: FakeServer, js: JetStreamContext, continue_on_gap: bool) -> None:
    """A message is lost; where that is allowed, the next leader goes on with the batch."""
    leader = Leader(server)
    batch = js.fast_publisher("S", continue_on_gap=continue_on_gap)
    await batch.add("s.a", b"x")
    leader.say(b"", NOBODY)
    if continue_on_gap:
        assert await batch.add("s.a", b"x") == 2
        leader.say({"type": "gap", "last_seq": 1, "seq": 2})
        assert (await batch.commit("s.a", b"x")).count == 3
        assert batch.lost == 1
    else:
        with pytest.raises(NoRespondersError):
            await batch.add("s.a", b"x")


async def test_no_answer(server: FakeServer, js: JetStreamContext) -> None:
    """Nothing is asked again before the batch is known: an older server would store it."""
    batch = js.fast_publisher("S", timeout=0.05)
    with pytest.raises(RequestTimeoutError, match=r"within 0\.05 s"):
        await batch.add("s.a", b"x")
    assert len(server.pubs) == 1
    with pytest.raises(RequestTimeoutError):
        await batch.add("s.a", b"x")
    assert batches(server) == []


async def test_an_acknowledgement_that_was_lost(server: FakeServer, js: JetStreamContext) -> None:
    """A ping has it sent again. It has no sequence of its own, and no payload."""
    leader = Leader(server, msgs=1)
    batch = js.fast_publisher("S", timeout=0.5)
    for _ in range(2):
        await batch.add("s.a", b"x")

    def ping(pub: Pub) -> None:
        assert (parts(pub)[3:], bytes(pub.payload)) == ((2, fast_batch.PING), b"")
        answer(server, pub, flow(2, 1))
        leader.server.session.on_pub = leader.on_pub

    server.session.on_pub = ping
    assert await batch.add("s.a", b"x") == 3
    await batch.close()


async def test_acknowledgements_that_do_not_come(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server, msgs=1)
    clock = Clock()
    batch = js.fast_publisher("S", timeout=10)
    for _ in range(2):
        await batch.add("s.a", b"x")
    ending = asyncio.ensure_future(batch.add("s.a", b"x"))
    while not ending.done():
        clock.forward(3)
        await turns()
    with pytest.raises(RequestTimeoutError):
        await ending
    assert {parts(pub)[3:] for pub in server.pubs[2:]} == {(2, fast_batch.PING)}


async def test_pings_are_no_progress(server: FakeServer, js: JetStreamContext) -> None:
    """A server that answers them, and stores nothing, is not waited for without an end."""
    Leader(server, msgs=1)
    batch = js.fast_publisher("S", timeout=0.05)
    for _ in range(2):
        await batch.add("s.a", b"x")
    server.session.on_pub = lambda pub: answer(server, pub, flow(0, 1))
    with pytest.raises(RequestTimeoutError):
        await batch.add("s.a", b"x")


async def test_an_idle_batch_is_kept_alive(
    server: FakeServer, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_batch, "KEEP_ALIVE", 0.01)
    Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    await until(lambda: len(server.pubs) == 4)
    assert {parts(pub)[3:] for pub in server.pubs[1:]} == {(1, fast_batch.PING)}
    await batch.close()
    assert batches(server) == []


async def test_the_answer_to_the_commit_is_lost(server: FakeServer, js: JetStreamContext) -> None:
    """The server has forgotten the batch: whether all of it is stored is unknown."""
    Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    server.session.on_pub = lambda pub: answer(server, pub, refusal(10208))
    with pytest.raises(RequestTimeoutError, match="commit of a batch was lost"):
        await batch.close()


async def test_a_batch_that_the_server_forgot(server: FakeServer, js: JetStreamContext) -> None:
    leader = Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    leader.say(refusal(10208))
    with pytest.raises(APIError) as caught:
        await batch.add("s.a", b"x")
    assert caught.value.err_code == 10208


async def test_the_connection_is_lost(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server, msgs=1)
    batch = js.fast_publisher("S", max_outstanding_acks=1)
    await batch.add("s.a", b"x")
    adding = asyncio.ensure_future(batch.add("s.a", b"x"))
    await turns()
    server.lose()
    with pytest.raises(StaleConnectionError):
        await adding
    with pytest.raises(StaleConnectionError):  # nothing waits in a buffer for the next connection
        await js.fast_publisher("S").add("s.a", b"x")
    server.connect()
    with pytest.raises(StaleConnectionError):
        await batch.close()
    assert server.pubs == []


async def test_whoever_begins_again_at_once_lets_the_client_connect(
    server: FakeServer, js: JetStreamContext
) -> None:
    """Nothing else in the program would run, and the connection would never come back."""
    begins = [
        lambda: js.publish_window("s.a", "S").publish(b"x"),
        lambda: js.fast_publisher("S").add("s.a", b"x"),
    ]
    for begin in begins:
        others = 0

        def other() -> None:
            nonlocal others
            others += 1

        server.lose()
        for _ in range(5):
            asyncio.get_running_loop().call_soon(other)
            with pytest.raises(StaleConnectionError):
                await begin()
        assert others == 5


async def test_the_client_is_closed(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    await server.client.close()
    for call in (batch.add("s.a", b"x"), js.fast_publisher("S").add("s.a", b"x"), batch.close()):
        with pytest.raises(ConnectionClosedError):
            await call


async def test_no_right_to_a_subject(server: FakeServer, js: JetStreamContext) -> None:
    Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    await batch.add("s.secret", b"x")
    server.refuse("s.secret")
    with pytest.raises(PermissionsViolationError):
        await batch.add("s.a", b"x")


# -- answers that are none --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x",
        b"[]",
        b"{}",
        b" " * (1 << 17),
        {"type": "ack"},
        {"type": "ack", "seq": 2, "msgs": 1},
        {"type": "ack", "seq": -1, "msgs": 1},
        {"type": "ack", "seq": 1, "msgs": "1"},
        {"type": "ack", "seq": 1, "msgs": 1 << 16},
        {"type": "gap", "seq": 3, "last_seq": 1},
        {"type": "gap", "seq": 1, "last_seq": 2},
        {"type": "gap", "seq": 1},
        {"type": "err", "seq": 2, "error": {}},
        {"type": "new", "seq": 1},
        {"stream": "S", "seq": 5, "batch": "other", "count": 1},
        {"error": error(10205)},
    ],
)
async def test_no_answer_to_a_batch(
    server: FakeServer, js: JetStreamContext, answer: dict[str, Any] | bytes
) -> None:
    """The right one still counts. Where none comes, the error tells of the other."""
    leader = Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    leader.say(answer)
    assert (batch.sent, batch.acknowledged) == (1, 0)
    await batch.close()
    assert batch.acknowledged == 1

    batch = js.fast_publisher("S", timeout=0.05)
    await batch.add("s.a", b"x")
    leader.say(answer)
    server.session.on_pub = None
    with pytest.raises(RequestTimeoutError, match=r"within 0\.05 s, but "):
        await batch.close()
    assert batch.acknowledged == 0
    assert batches(server) == []


@pytest.mark.parametrize("count", [-1, 2, "1", None, True])
async def test_a_count_that_is_none(server: FakeServer, js: JetStreamContext, count: Any) -> None:
    leader = Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    leader.say({**final(server.pubs[0], 1), "count": count})
    assert batch.acknowledged == 0
    ack = await batch.close()
    assert ack is not None
    assert ack.count == 1


@pytest.mark.parametrize("answer", [{"stream": "S", "seq": 5}, {"stream": "S", "seq": 5, "batch": 5}])
async def test_a_server_that_has_no_batches_any_more(
    server: FakeServer, js: JetStreamContext, answer: dict[str, Any]
) -> None:
    """It stores the messages as others: nothing more is sent, no ping either."""
    leader = Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    leader.say(answer)
    with pytest.raises(UnsupportedFeatureError, match="stored a message as 5"):
        await batch.add("s.a", b"x")
    assert len(server.pubs) == 1
    assert batches(server) == []


async def test_a_message_is_no_answer(server: FakeServer, js: JetStreamContext) -> None:
    """Anybody may have a stored message sent to any inbox: it has headers."""
    leader = Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    leader.say(flow(1, 2), b"NATS/1.0\r\nNats-Sequence: 1\r\n\r\n")
    assert batch.acknowledged == 0
    await batch.close()


async def test_another_stream(server: FakeServer, js: JetStreamContext) -> None:
    """Its answer is the error when the batch's own stream sends none."""
    leader, clock = Leader(server), Clock()
    batch = js.fast_publisher("S", timeout=60)
    await batch.add("s.a", b"x")
    server.session.on_pub = None
    ending = asyncio.ensure_future(batch.close())
    await turns()
    leader.say({**final(server.pubs[-1], 1), "stream": "T"})
    await turns()
    assert not ending.done()
    clock.forward(61)
    with pytest.raises(WrongStreamError, match="stored as 101 in"):
        await ending
    named = server.client.jetstream(domain="hub").fast_publisher("S", timeout=0.05)
    server.session.on_pub = lambda pub: answer(
        server, pub, {"api": {"level": 4}} if b".INFO" in pub.subject else final(pub, 1)
    )
    with pytest.raises(WrongStreamError):
        await named.commit("s.a", b"x")


# -- another stream answers, too --------------------------------------------------------------------


@pytest.mark.parametrize("continue_on_gap", [False, True])
async def test_answers_of_another_stream(
    server: FakeServer, js: JetStreamContext, continue_on_gap: bool
) -> None:
    """Whatever it says: the batch's own stream has all messages."""
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S", continue_on_gap=continue_on_gap)
    for _ in range(3):
        await batch.add("s.a", b"x")
        for said in (
            {"type": "err", "seq": 1, "error": error(10071)},
            {"type": "gap", "last_seq": 1, "seq": 2},
            {"type": "ack", "seq": 900, "msgs": 1},
            {**final(server.pubs[-1], 1), "stream": "T"},
            {**refusal(10205), "stream": "T"},
            {**refusal(10208), "stream": "T"},
        ):
            leader.say(said)
    ack = await batch.close()
    assert ack is not None
    assert (ack.stream, ack.count, batch.acknowledged) == ("S", 3, 3)


async def test_answers_to_messages_of_no_batch(server: FakeServer, js: JetStreamContext) -> None:
    """Whoever may publish to the same stream has it refuse a message whose reply subject only begins so."""
    Leader(server, msgs=10)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    reply = server.pubs[-1].reply
    assert reply is not None
    inbox, flows = reply.rsplit(b".", 5)[0], reply.rsplit(b".", 3)[0]
    for subject in (
        inbox + b".x",
        inbox + b".other.10.fail.2.1.$FI",
        inbox + b".10.ok.2.1.$FI",
        flows + b".other.10.fail.2.1.$FI",
        flows + b".2.1.x",
        flows + b".2.$FI",
    ):
        for code in (10208, 10206, 10071):
            server.send(inbox + b".>", json.dumps(refusal(code)).encode(), subject=subject)
    await batch.add("s.a", b"x")
    ack = await batch.close()
    assert ack is not None
    assert ack.count == 2


async def test_acknowledged_by_another_stream(server: FakeServer, js: JetStreamContext) -> None:
    """A hint, until the stream's own answer says how many are stored."""
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S")
    for _ in range(3):
        await batch.add("s.a", b"x")
    leader.say(flow(3, 10))
    assert batch.acknowledged == 3
    leader.say({"type": "gap", "last_seq": 2, "seq": 3})
    leader.say(final(server.pubs[-1], 1))
    with pytest.raises(BatchIncompleteError) as caught:
        await batch.close()
    assert caught.value.stored == batch.acknowledged == 1


async def test_a_stream_that_says_nothing(server: FakeServer, js: JetStreamContext) -> None:
    """Nothing that another one says is a success, or a certain failure."""
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S", timeout=0.05)
    await batch.add("s.a", b"x")
    server.session.on_pub = None
    ending = asyncio.ensure_future(batch.commit("s.a", b"x"))
    await turns()
    for said in (flow(2, 10), {"type": "err", "seq": 2, "error": error(10071)}):
        leader.say(said)
    with pytest.raises(RequestTimeoutError):
        await ending


async def test_the_reason_that_another_stream_gives(server: FakeServer, js: JetStreamContext) -> None:
    """A message that is stored was neither refused nor lost."""
    leader = Leader(server, msgs=10)
    batch = js.fast_publisher("S")
    for _ in range(3):
        await batch.add("s.a", b"x")
    leader.say({"type": "err", "seq": 2, "error": error(10071)})
    leader.say({"type": "gap", "last_seq": 2, "seq": 3})
    leader.say(final(server.pubs[-1], 2))
    with pytest.raises(BatchIncompleteError, match=r"after 2 of 3 messages$"):
        await batch.close()


async def test_a_delivery_is_no_answer(server: FakeServer, js: JetStreamContext) -> None:
    """Anybody may have a consumer deliver to any inbox: its messages keep their subjects."""
    Leader(server)
    batch = js.fast_publisher("S")
    await batch.add("s.a", b"x")
    reply = server.pubs[0].reply
    assert reply is not None
    server.send(reply.rsplit(b".", 5)[0] + b".>", json.dumps(flow(1, 2)).encode(), subject=b"s.b")
    assert batch.acknowledged == 0
    await batch.close()


async def test_late_answers(server: FakeServer, js: JetStreamContext) -> None:
    leader = Leader(server)
    batch = js.fast_publisher("S")
    await batch.commit("s.a", b"x")
    leader.say(flow(1, 2))
    leader.say(refusal(10208))
    assert batch.acknowledged == 1
    assert await batch.close() is not None
