"""The publish window: order, bounds, failures, and acknowledgements that come late, twice or wrongly."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from natsproto.errors import (
    APIError,
    BadSubjectError,
    ConnectionClosedError,
    MaxPayloadError,
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    StaleConnectionError,
    UnsupportedFeatureError,
    WrongStreamError,
)
from natsproto.jetstream.api.acks import AckCheck, parse_pub_ack
from natsproto.jetstream.api.errors import StorageFullError
from natsproto.jetstream.publisher import MAX_MESSAGES, OutOfOrderError, PublishWindow
from natsproto.subjects import MAX_NAMES
from support.fake_session import FakeServer, turns
from support.publish_windows import ack, make, refuse


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


async def test_acknowledged_in_order(server: FakeServer) -> None:
    window = make(server)
    for n in range(3):
        await window.publish(b"%d" % n)
    assert [bytes(pub.payload) for pub in server.pubs] == [b"0", b"1", b"2"]
    assert len({pub.reply for pub in server.pubs}) == 3
    task = asyncio.ensure_future(window.settle())
    for n, seq in enumerate((7, 9, 12)):
        await turns()
        assert not task.done()
        ack(server, n, seq)
    await task
    assert (window.acknowledged, window.last_seq, window.unproven, window.failure) == (3, 12, {}, None)
    window.close()
    assert len(server.connection.mux) == 0


async def test_settle_without_anything(server: FakeServer) -> None:
    window = make(server)
    await window.settle()
    await window.quiesce(0.01)
    window.close()
    window.close()


async def test_acknowledgements_in_another_order_of_arrival(server: FakeServer) -> None:
    window = make(server)
    for _ in range(4):
        await window.publish(b"x")
    ack(server, 2, 3)
    ack(server, 3, 4)
    assert (window.acknowledged, sorted(window.unproven)) == (0, [0, 1, 2, 3])
    ack(server, 0, 1)
    ack(server, 1, 2)
    await window.settle()
    assert (window.acknowledged, window.last_seq, window.unproven) == (4, 4, {})
    window.close()


@pytest.mark.parametrize("seqs", [(5, 4), (5, 5), (0, 1)])
async def test_sequences_that_do_not_rise(server: FakeServer, seqs: tuple[int, int]) -> None:
    window = make(server)
    await window.publish(b"a")
    await window.publish(b"b")
    for n, seq in enumerate(seqs):
        ack(server, n, seq)
    with pytest.raises(OutOfOrderError):
        await window.settle()
    assert 1 in window.unproven
    window.close()


async def test_stored_out_of_order_and_acknowledged_early(server: FakeServer) -> None:
    window = make(server)
    for _ in range(3):
        await window.publish(b"x")
    ack(server, 1, 1)
    ack(server, 0, 2)
    assert isinstance(window.failure, OutOfOrderError)
    assert (window.acknowledged, sorted(window.unproven)) == (1, [1, 2])
    window.close()


async def test_sequences_go_on_after_a_repair(server: FakeServer) -> None:
    window = make(server, first=10, last_seq=100)
    await window.publish(b"x")
    ack(server, 0, 100)
    assert isinstance(window.failure, OutOfOrderError)
    assert list(window.unproven) == [10]
    window.close()


async def test_another_stream_took_it(server: FakeServer) -> None:
    """And the right one does not answer."""
    window = make(server, progress_timeout=0.1)
    await window.publish(b"x")
    server.reply(server.pubs[0], {"stream": "OTHER", "seq": 1})
    with pytest.raises(WrongStreamError, match="OTHER") as caught:
        await window.settle()
    assert (caught.value.stream, caught.value.expected_stream) == ("OTHER", "S")
    window.close()


@pytest.mark.parametrize(
    "forged", [b'{"stream":"OTHER","seq":1}', b"", b'{"error":{"code":400,"err_code":10071}}']
)
async def test_what_another_stream_says_of_another_message(server: FakeServer, forged: bytes) -> None:
    """A peer publishes to its own stream with our reply subject: the own answer comes as well."""
    window = make(server)
    await window.publish(b"x")
    server.reply(server.pubs[0], forged)
    assert window.failure is None
    ack(server, 0, 7)
    server.reply(server.pubs[0], forged)
    await window.settle()
    assert (window.failure, window.last_seq) == (None, 7)
    window.close()


async def test_the_same_stream_of_another_domain(server: FakeServer) -> None:
    """It gets every message, and the right one may not: the first sign ends the window."""
    for first in (True, False):
        window = PublishWindow(server.client, b"s.a", AckCheck("S", None))
        await window.publish(b"x")
        if first:
            ack(server, 0, 7)
        server.reply(server.pubs[-1], {"stream": "S", "domain": "hub", "seq": 1})
        assert isinstance(window.failure, WrongStreamError)
        window.close()
        server.pubs.clear()


async def test_bounded_in_bytes(server: FakeServer) -> None:
    window = make(server, max_bytes=100)
    await window.publish(b"x" * 60)
    await window.publish(b"x" * 40)
    task = asyncio.ensure_future(window.publish(b"y"))
    await turns()
    assert not task.done()
    assert len(server.pubs) == 2
    ack(server, 0, 1)
    await task
    assert len(server.pubs) == 3
    window.close()


async def test_a_payload_above_the_bound_goes_alone(server: FakeServer) -> None:
    window = make(server, max_bytes=10)
    await window.publish(b"x" * 60)
    task = asyncio.ensure_future(window.publish(b"y" * 60))
    await turns()
    assert not task.done()
    ack(server, 0, 1)
    await task
    window.close()


async def test_bounded_in_messages(server: FakeServer) -> None:
    window = make(server)
    for _ in range(MAX_MESSAGES):
        await window.publish(b"")
    task = asyncio.ensure_future(window.publish(b""))
    await turns()
    assert not task.done()
    ack(server, 0, 1)
    await task
    window.close()


async def test_nothing_is_sent_after_a_failure(server: FakeServer) -> None:
    window = make(server)
    for _ in range(5):
        await window.publish(b"x")
    ack(server, 0, 1)
    refuse(server, 1, 10077)
    with pytest.raises(StorageFullError):
        await window.publish(b"late")
    assert len(server.pubs) == 5
    waiting = asyncio.ensure_future(window.quiesce(60))
    for n in (2, 3, 4):
        await turns()
        assert not waiting.done()
        ack(server, n, n)  # smaller ones fitted: the hole stays a hole
    await waiting
    with pytest.raises(StorageFullError):
        await window.settle()
    assert (window.acknowledged, sorted(window.unproven)) == (1, [1, 2, 3, 4])
    window.close()


async def test_the_first_failure_stays(server: FakeServer) -> None:
    window = make(server)
    for _ in range(2):
        await window.publish(b"x")
    refuse(server, 0, 10077)
    refuse(server, 1, 10167, 429)
    assert isinstance(window.failure, StorageFullError)
    window.close()


async def test_a_publish_that_waits_learns_of_the_failure(server: FakeServer) -> None:
    window = make(server, max_bytes=1)
    await window.publish(b"x")
    task = asyncio.ensure_future(window.publish(b"y"))
    await turns()
    refuse(server, 0, 10077)
    with pytest.raises(StorageFullError):
        await task
    assert len(server.pubs) == 1
    window.close()


async def test_no_responders(server: FakeServer) -> None:
    window = make(server)
    await window.publish(b"x")
    server.reply(server.pubs[0], b"", b"NATS/1.0 503\r\nNats-Subject: s.a\r\n\r\n")
    with pytest.raises(NoRespondersError):
        await window.settle()
    assert list(window.unproven) == [0]
    window.close()


@pytest.mark.parametrize(
    "answer", [b"", b"hello", b"{}", b'{"stream":"S","seq":"1"}', b'{"stream":"S","seq":true}']
)
async def test_an_answer_that_is_no_acknowledgement(server: FakeServer, answer: bytes) -> None:
    """It tells why, when no other one comes."""
    window = make(server, progress_timeout=0.1)
    await window.publish(b"x")
    server.reply(server.pubs[0], answer)
    with pytest.raises(RemoteProtocolError):
        await window.settle()
    window.close()


@pytest.mark.parametrize(
    ("header", "reply"),
    [
        (b"NATS/1.0\r\nNats-Sequence: 1\r\n\r\n", None),
        (b"NATS/1.0 503\r\nNats-Sequence: 1\r\n\r\n", None),
        (None, b"$JS.ACK.S.c.1.1.1.1.0"),
    ],
    ids=["stored", "stored status", "delivery"],
)
@pytest.mark.parametrize("payload", [b'{"stream":"S","seq":9}', b'{"stream":"T","seq":9}', b"no json", b""])
async def test_what_a_peer_has_sent_is_no_acknowledgement(
    server: FakeServer, header: bytes | None, reply: bytes | None, payload: bytes
) -> None:
    """Stored messages and deliveries can be sent to any inbox. They neither acknowledge nor disturb."""
    window = make(server)
    await window.publish(b"a")
    inbox = server.pubs[0].reply
    assert inbox is not None
    server.reply_to(inbox, payload, header, reply)
    assert list(window.unproven) == [0]
    ack(server, 0, 5)
    server.reply_to(inbox, payload, header, reply)
    await window.settle()
    assert (window.last_seq, window.failure, len(window.doubts)) == (5, None, 0)
    window.close()


async def test_the_connection_is_lost(server: FakeServer) -> None:
    window = make(server)
    for _ in range(3):
        await window.publish(b"x")
    ack(server, 0, 1)
    settling = asyncio.ensure_future(window.settle())
    await turns()
    server.lose()
    with pytest.raises(StaleConnectionError):
        await settling
    await window.quiesce(60)  # nothing to wait for
    assert sorted(window.unproven) == [1, 2]
    with pytest.raises(StaleConnectionError):
        await window.publish(b"y")
    window.close()


async def test_answers_after_the_loss_do_not_count(server: FakeServer) -> None:
    """The inbox survives a reconnect: what another server still had on its way comes late."""
    window = make(server)
    for _ in range(3):
        await window.publish(b"x")
    inboxes = [pub.reply for pub in server.pubs]
    server.lose()
    server.connect()
    for n, inbox in enumerate(inboxes):
        assert inbox is not None
        server.reply_to(inbox, {"stream": "S", "seq": n + 1})
    async with asyncio.timeout(6):
        await window.quiesce(60)
    assert isinstance(window.failure, StaleConnectionError)
    assert sorted(window.unproven) == [0, 1, 2]
    window.close()


async def test_lost_with_nothing_in_flight(server: FakeServer) -> None:
    """Everything sent is acknowledged, so the window goes on after the reconnect."""
    window = make(server)
    await window.publish(b"x")
    ack(server, 0, 1)
    server.lose()
    server.connect()
    await window.publish(b"y")
    assert [bytes(pub.payload) for pub in server.pubs] == [b"y"]
    ack(server, 0, 2)
    await window.settle()
    window.close()


async def test_never_through_the_reconnect_buffer(server: FakeServer) -> None:
    window = make(server)
    server.lose()
    with pytest.raises(StaleConnectionError):
        await window.publish(b"x")
    server.connect()
    assert server.pubs == []
    with pytest.raises(StaleConnectionError):
        await window.publish(b"x")  # failed once is failed
    window.close()


async def test_the_client_is_closed(server: FakeServer) -> None:
    window = make(server)
    await window.publish(b"x")
    settling = asyncio.ensure_future(window.settle())
    await turns()
    await server.client.close()
    with pytest.raises(ConnectionClosedError):
        await settling
    with pytest.raises(ConnectionClosedError):
        await window.publish(b"x")
    window.close()


async def test_the_client_is_closed_with_nothing_in_flight(server: FakeServer) -> None:
    window = make(server)
    await server.client.close()
    with pytest.raises(ConnectionClosedError):
        await window.publish(b"x")
    window.close()


async def test_a_permissions_violation_fails_it_at_once(server: FakeServer) -> None:
    window = make(server)
    await window.publish(b"x")
    server.connection.server_error(server.session, 'Permissions Violation for Publish to "s.a"')  # type: ignore[arg-type]
    with pytest.raises(PermissionsViolationError):
        await window.settle()
    window.close()


async def test_two_answers_to_one_message_count_once(server: FakeServer) -> None:
    window = make(server)
    for _ in range(3):
        await window.publish(b"x")
    refuse(server, 0, 10077)
    refuse(server, 0, 10077)
    ack(server, 2, 5)
    ack(server, 2, 5)
    waiting = asyncio.ensure_future(window.quiesce(60))
    await turns()
    assert not waiting.done()  # the answer to 1 is still to come
    ack(server, 1, 4)
    await waiting
    window.close()


async def test_forged_indexes_are_dropped(server: FakeServer) -> None:
    window = make(server)
    await window.publish(b"x")
    for rest in (b"", b".", b".-1", b".7", b".0.0", b".x", b"." + b"9" * 5000):
        server.reply_to(window.inbox + rest, {"stream": "S", "seq": 1})
    assert (window.acknowledged, window.failure) == (0, None)
    ack(server, 0, 1)
    await window.settle()
    window.close()


async def test_above_max_payload_is_refused_before_any_byte(server: FakeServer) -> None:
    window = make(server)
    server.connection.max_payload = 10
    with pytest.raises(MaxPayloadError):
        await window.publish(b"x" * 11)
    assert server.pubs == []
    await window.publish(b"x" * 10)
    ack(server, 0, 1)
    await window.settle()
    window.close()


async def test_headers_that_the_server_does_not_take(server: FakeServer) -> None:
    """They are refused before any byte, also after a reconnect; the window stays usable."""
    window = make(server, header=b"NATS/1.0\r\nNats-TTL: 5s\r\n\r\n")
    server.connection.headers = False
    with pytest.raises(UnsupportedFeatureError):
        await window.publish(b"x")
    assert server.pubs == []
    server.connection.headers = True
    await window.publish(b"x")
    ack(server, 0, 1)
    await window.settle()
    window.close()


async def test_cancelled_while_waiting_for_room(server: FakeServer) -> None:
    window = make(server, max_bytes=1)
    await window.publish(b"x")
    task = asyncio.ensure_future(window.publish(b"y"))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(window.unproven) == [0]
    ack(server, 0, 1)
    await window.publish(b"z")
    assert [bytes(pub.payload) for pub in server.pubs] == [b"x", b"z"]
    window.close()


async def test_cancelled_while_settling(server: FakeServer) -> None:
    window = make(server)
    await window.publish(b"x")
    task = asyncio.ensure_future(window.settle())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ack(server, 0, 1)
    await window.settle()
    window.close()


async def test_a_closed_window_sends_nothing(server: FakeServer) -> None:
    window = make(server)
    window.close()
    with pytest.raises(NatsError):
        await window.publish(b"x")
    assert server.pubs == []


@pytest.mark.parametrize("payload", [b"x", bytearray(b"x"), memoryview(b"x")])
async def test_the_buffer_is_held_not_copied(server: FakeServer, payload: Any) -> None:
    window = make(server)
    await window.publish(payload)
    assert window.unproven[0] is payload
    window.close()


def test_pub_ack() -> None:
    found = parse_pub_ack(b'{"stream":"S", "seq":5,"duplicate":true,"domain":"hub"}')
    assert (found.stream, found.seq, found.duplicate, found.domain) == ("S", 5, True, "hub")
    found = parse_pub_ack(json.dumps({"stream": "S", "seq": 5, "duplicate": "yes", "domain": 5}).encode())
    assert (found.duplicate, found.domain) == (False, None)
    with pytest.raises(APIError):
        parse_pub_ack(b'{"error":{}}')


async def test_a_subject_that_leaves_no_room_for_the_replies() -> None:
    """Known before anything is under way, which would wait for its answer."""
    server = FakeServer()
    with pytest.raises(BadSubjectError, match="too long"):
        PublishWindow(server.client, b"s" * (MAX_NAMES - 52), "S")
    assert len(server.connection.mux) == 0
    window = PublishWindow(server.client, b"s" * (MAX_NAMES - 53), "S")
    await window.publish(b"1")
    ack(server, 0, 1)
    await window.settle()
    window.close()
