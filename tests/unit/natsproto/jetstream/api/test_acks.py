"""Whose acknowledgement it is: of the right stream and domain, once, for its own token; else a doubt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from natsproto.errors import APIError, RemoteProtocolError, RequestTimeoutError, WrongStreamError
from natsproto.jetstream import publisher
from natsproto.jetstream.api.acks import ANY_DOMAIN, ANY_MESSAGE, CAUSES, AckCheck, can_cause
from natsproto.jetstream.api.errors import StorageFullError, WrongLastSequenceError
from natsproto.jetstream.publisher import MAX_MESSAGES, OutOfOrderError, PublishWindow
from support.fake_session import FakeServer, turns
from support.publish_windows import ack, refuse

NEW = b'{"stream":"S","seq":5}'
NEW_HUB = b'{"stream":"S","domain":"hub","seq":5}'
OLD = b'{"stream":"S", "seq":5}'
OLD_HUB = b'{"stream":"S", "domain":"hub", "seq":5}'
DUPLICATE_HUB = b'{"stream":"S","domain":"hub","seq":5,"duplicate": true}'
BATCH_HUB = b'{"stream":"S","domain":"hub","seq":5,"batch":"B","count":3}'
OTHER_ORDER = b'{"seq":5,"domain":"hub","stream":"S"}'
OTHER = b'{"stream":"T","seq":5}'
REFUSED = b'{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"S","seq":0}'
REFUSED_OTHER = b'{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"T","seq":0}'


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


# -- one acknowledgement ----------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [NEW, OLD])
@pytest.mark.parametrize("domain", [None, ANY_DOMAIN])
def test_without_a_domain(payload: bytes, domain: str | None) -> None:
    ack = AckCheck("S", domain).parse(payload)
    assert (ack.stream, ack.seq, ack.duplicate, ack.domain) == ("S", 5, False, None)


@pytest.mark.parametrize("payload", [NEW_HUB, OLD_HUB, BATCH_HUB, OTHER_ORDER, DUPLICATE_HUB])
@pytest.mark.parametrize("domain", ["hub", ANY_DOMAIN])
def test_with_a_domain(payload: bytes, domain: str) -> None:
    ack = AckCheck("S", domain).parse(payload)
    assert (ack.stream, ack.seq, ack.duplicate) == ("S", 5, payload is DUPLICATE_HUB)
    assert ack.domain == "hub"


@pytest.mark.parametrize(
    ("domain", "payload", "found"),
    [
        (None, NEW_HUB, ("S", "hub")),
        (None, OLD_HUB, ("S", "hub")),
        (None, DUPLICATE_HUB, ("S", "hub")),
        ("leaf", NEW_HUB, ("S", "hub")),
        ("leaf", OLD_HUB, ("S", "hub")),
        ("leaf", BATCH_HUB, ("S", "hub")),
        ("leaf", NEW, ("S", None)),
        ("leaf", OLD, ("S", None)),
        ("hu", NEW_HUB, ("S", "hub")),
        (None, OTHER, ("T", None)),
        ("leaf", OTHER, ("T", None)),
        (ANY_DOMAIN, OTHER, ("T", None)),
        (None, REFUSED_OTHER, ("T", None)),
    ],
)
def test_of_another(domain: str | None, payload: bytes, found: tuple[str, str | None]) -> None:
    with pytest.raises(WrongStreamError) as caught:
        AckCheck("S", domain).parse(payload)
    exc = caught.value
    assert (exc.stream, exc.domain) == found
    assert (exc.expected_stream, exc.expected_domain) == ("S", None if domain == ANY_DOMAIN else domain)
    for name in (*found, "S"):
        assert name is None or repr(name) in str(exc)


def test_names_of_megabytes_are_not_repeated() -> None:
    long = "x" * 1_000_000
    with pytest.raises(WrongStreamError) as caught:
        AckCheck("S", None).parse(json.dumps({"stream": long, "domain": long, "seq": 5}).encode())
    assert len(str(caught.value)) < 300
    assert caught.value.stream == long


@pytest.mark.parametrize("domain", [None, "hub", ANY_DOMAIN])
def test_refusals_name_no_domain(domain: str | None) -> None:
    with pytest.raises(StorageFullError):
        AckCheck("S", domain).parse(REFUSED)


@pytest.mark.parametrize("stream", ["", '"stream":"",', '"stream":5,', '"stream":null,'])
def test_an_error_that_names_no_stream_is_no_answer(stream: str) -> None:
    """It answers another request: who may send one can have its answer sent to any inbox."""
    error = '{"code":404,"err_code":10037,"description":"no message found"}'
    with pytest.raises(RemoteProtocolError, match="names no stream"):
        AckCheck("S", None).parse(f'{{{stream}"error":{error}}}'.encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"+OK",
        b"{}",
        b"[]",
        b'{"seq":5}',
        b'{"stream":"S"}',
        b'{"stream":"S","seq":"5"}',
        b'{"stream":"S","seq":-1}',
        b'{"stream":"S","seq":18446744073709551616}',
        b'{"stream":"S","seq":%d}' % 10**30,
        b"\xff",
    ],
)
def test_no_acknowledgement(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        AckCheck("S", None).parse(payload)


async def test_publish_in_a_domain(server: FakeServer) -> None:
    js = server.client.jetstream(domain="hub")
    server.session.on_pub = lambda pub: server.reply(pub, NEW_HUB)
    assert (await js.publish("s.a", b"x", stream="S")).domain == "hub"
    for answer in (NEW, b'{"stream":"S","domain":"leaf","seq":5}'):
        server.session.on_pub = lambda pub, answer=answer: server.reply(pub, answer)  # type: ignore[misc]
        with pytest.raises(WrongStreamError, match="hub"):
            await js.publish("s.a", b"x")
    server.session.on_pub = lambda pub: server.reply(pub, OTHER)
    assert (await server.client.jetstream().publish("s.a", b"x")).stream == "T"
    with pytest.raises(WrongStreamError):
        await server.client.jetstream(timeout=0.02).publish("s.a", b"x", stream="S")


# -- a window ---------------------------------------------------------------------------------------------


def make(server: FakeServer, domain: str | None = None, **options: Any) -> PublishWindow:
    return PublishWindow(server.client, b"s.a", AckCheck("S", domain), **options)


async def sent(server: FakeServer, count: int, **options: Any) -> PublishWindow:
    window = make(server, **options)
    for _ in range(count):
        await window.publish(b"x")
    return window


@pytest.mark.parametrize("when", ["before", "after"])
async def test_of_another_domain(server: FakeServer, when: str) -> None:
    """Ours still counts, whichever comes first; the window has failed all the same."""
    window = await sent(server, 2, domain="leaf")
    if when == "after":
        ack(server, 0, 7, domain="leaf")
    ack(server, 0, 1, domain="hub")
    with pytest.raises(WrongStreamError):
        await window.settle()
    with pytest.raises(WrongStreamError):
        await window.publish(b"y")
    if when == "before":
        ack(server, 0, 7, domain="leaf")
    assert (window.acknowledged, window.last_seq) == (1, 7)
    ack(server, 1, 8, domain="leaf")
    await window.quiesce(60)
    assert (window.acknowledged, window.unproven) == (2, {})
    window.close()


async def test_what_is_no_answer_is_waited_out(server: FakeServer) -> None:
    window = await sent(server, 1)
    server.reply(server.pubs[0], b"hello")
    ack(server, 0, 1)
    await window.settle()
    assert window.unproven == {}
    window.close()


async def test_a_second_answer_changes_nothing(server: FakeServer) -> None:
    window = await sent(server, 3)
    for n in (0, 1, 2):
        ack(server, n, n + 1)
    before = (window.acknowledged, window.last_seq, window.unproven, window.failure)
    ack(server, 1, 2)  # the same once more
    assert window.doubts == {0}
    ack(server, 0, 9)
    ack(server, 2, 700, duplicate=True)
    server.reply(server.pubs[1], REFUSED)
    server.reply(server.pubs[1], b"hello")
    server.reply(server.pubs[1], b"", b"NATS/1.0 503\r\n\r\n")
    assert window.doubts == {0, 9}
    assert (window.acknowledged, window.last_seq, window.unproven, window.failure) == before
    await window.settle()
    window.close()


async def test_a_second_answer_to_one_acknowledged_early(server: FakeServer) -> None:
    window = await sent(server, 3)
    ack(server, 2, 5)
    ack(server, 2, 5)
    assert window.doubts == {0}
    ack(server, 2, 6)
    assert window.doubts == {0, 6}
    ack(server, 0, 3)
    ack(server, 1, 4)
    await window.settle()
    assert window.last_seq == 5
    window.close()


async def test_answers_to_what_was_never_sent(server: FakeServer) -> None:
    window = await sent(server, 1)
    for rest in (b"", b".", b".-1", b".7", b".0.0", b".x", b"." + b"9" * 5000):
        server.reply_to(window.inbox + rest, {"stream": "S", "seq": 4})
    assert (window.acknowledged, window.failure, window.doubts) == (0, None, {0})
    ack(server, 0, 5)
    await window.settle()
    window.close()


async def test_a_duplicate_is_a_doubt(server: FakeServer) -> None:
    """Nothing was stored now. Without an id it is the answer to somebody else's message."""
    window = await sent(server, 1, header=b"NATS/1.0\r\nNats-Msg-Id: m\r\n\r\n")
    ack(server, 0, 5, duplicate=True)
    await window.settle()
    assert window.doubts == {0}
    window.close()
    server.pubs.clear()
    window = await sent(server, 1)
    ack(server, 0, 5, duplicate=True)
    assert (window.acknowledged, window.doubts, window.failure) == (0, set(), None)
    ack(server, 0, 7)
    await window.settle()
    assert (window.last_seq, window.doubts) == (7, set())
    window.close()
    server.pubs.clear()
    window = await sent(server, 1, progress_timeout=0.1)
    ack(server, 0, 5, duplicate=True)
    with pytest.raises(RemoteProtocolError, match="without an id"):
        await window.settle()
    window.close()


async def test_a_refusal_of_another_message(server: FakeServer) -> None:
    """Whoever may publish to the same stream has it refuse a message of theirs, with our reply subject."""
    window = await sent(server, 1)
    refuse(server, 0, 10071)
    assert (window.acknowledged, window.failure) == (0, None)
    ack(server, 0, 7)
    await window.settle()
    assert (window.last_seq, window.doubts) == (7, set())
    window.close()
    server.pubs.clear()
    window = await sent(server, 1, progress_timeout=0.1)
    refuse(server, 0, 10071)
    with pytest.raises(RequestTimeoutError, match="cannot have caused") as caught:
        await window.settle()
    assert isinstance(caught.value.__cause__, WrongLastSequenceError)
    window.close()
    server.pubs.clear()
    window = await sent(server, 1, header=b"NATS/1.0\r\nNats-Expected-Last-Sequence: 4\r\n\r\n")
    refuse(server, 0, 10071)
    with pytest.raises(WrongLastSequenceError):
        await window.settle()
    window.close()


def test_which_refusals_a_message_can_cause() -> None:
    for code in ANY_MESSAGE:
        assert can_cause(b"", code)
    for code, headers in CAUSES.items():
        assert not can_cause(b"", code)
        assert not can_cause(
            b"NATS/1.0\r\nOther: \tNats-Schedule: Nats-Msg-Id: 5\r\nX-Nats-TTL: 1s\r\n\r\n", code
        )
        for name in headers:
            assert can_cause(b"NATS/1.0\r\nA: b\r\n%b: 1\r\n\r\n" % name.rstrip(b":"), code)
    whole = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence-Subject: a\r\n\r\n"
    assert can_cause(whole, 10193)
    assert not can_cause(whole, 10071)
    assert can_cause(b"", 10169)
    assert not can_cause(b"NATS/1.0\r\nNats-Incr: 1\r\n\r\n", 10169)
    assert not can_cause(b"NATS/1.0\r\nA: b\r\n\r\n", 10097)
    assert can_cause(b"NATS/1.0\r\nA: %b\r\n\r\n" % (b"b" * 65_530), 10097)
    for code in (0, 10060, 10059, 10999):  # we expect the stream that answers; and what is not known
        assert not can_cause(b"NATS/1.0\r\nNats-Expected-Stream: S\r\n\r\n", code)


async def test_doubts_go_on_in_the_next_window(server: FakeServer) -> None:
    doubts: set[int] = {3}
    window = await sent(server, 1, doubts=doubts)
    ack(server, 0, 5)
    ack(server, 0, 6)
    assert doubts == window.doubts == {3, 6}
    window.close()


async def test_memory_is_bounded(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "MAX_DOUBTS", 10)
    window = make(server, max_bytes=1 << 30)
    count = 3 * MAX_MESSAGES
    for n in range(count):
        await window.publish(b"")
        ack(server, n, n + 1)
    assert len(window._recent) <= 2 * MAX_MESSAGES
    ack(server, count - 1, count)
    ack(server, count - MAX_MESSAGES, count - MAX_MESSAGES + 1)
    assert window.doubts == {0}
    for n in range(50):
        ack(server, 0, count + 10 + n)
    assert len(window.doubts) == 10
    window.close()


async def test_a_forged_first_answer(server: FakeServer) -> None:
    """It may fail the window; the sequence is nothing but what the next ones must exceed."""
    window = await sent(server, 2)
    ack(server, 0, 10**6)
    ack(server, 0, 1)
    ack(server, 1, 2)
    with pytest.raises(OutOfOrderError):
        await window.settle()
    assert window.doubts == {1}
    window.close()


async def test_refused_counts_as_answered(server: FakeServer) -> None:
    window = await sent(server, 2)
    server.reply(server.pubs[0], REFUSED)
    ack(server, 1, 5)
    with pytest.raises(APIError):
        await window.settle()
    await window.quiesce(60)
    ack(server, 0, 6)  # a copy of the refused one may have been stored
    await turns()
    assert 0 in window.doubts
    window.close()
