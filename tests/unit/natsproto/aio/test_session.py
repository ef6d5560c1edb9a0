"""One TCP life: the handshake, what is believed before it, and what ends it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from natsproto.aio import session as module
from natsproto.aio.client import Client
from natsproto.aio.lifeline import lifeline
from natsproto.aio.options import Options
from natsproto.aio.server_pool import parse_url
from natsproto.aio.session import CLOSE_TIMEOUT, LEAVE_TIMEOUT, Session, describe, error_from_line, summary
from natsproto.errors import (
    AuthorizationError,
    MissingExtraError,
    NatsError,
    NoServersError,
    RemoteProtocolError,
    SecureConnectionRequiredError,
    ServerError,
    StaleConnectionError,
)
from natsproto.transport.base import MAX_UNREAD_PONGS
from support.calls import Calls
from support.fake_session import turns
from support.simulation import in_virtual_time

INFO = {"max_payload": 1 << 20, "headers": True}


def info(**fields: Any) -> bytes:
    return b"INFO " + json.dumps({**INFO, **fields}).encode() + b"\r\n"


class Wire:
    """A transport that keeps what is written; ``ended`` says how it was ended."""

    def __init__(self) -> None:
        self.written = b""
        self.ended: list[str] = []
        self.congested = False
        self.gone = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def write_parts(self, parts: Sequence[Any]) -> None:
        self.write(b"".join(parts))

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("10.0.0.1", 4222)}.get(name)

    def close(self) -> None:
        self.ended.append("closed")

    def abort(self) -> None:
        self.ended.append("aborted")
        self.gone.set()

    async def wait_closed(self) -> None:
        await self.gone.wait()


class Link:
    """A session of a client over a :class:`Wire`, which is there as soon as it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.client = Client(Options(reconnect=False, **options))
        self.session = Session(self.client.connection, self.client.connection.pool.servers[0])
        self.wire = Wire()

        async def there(*args: Any, **named: Any) -> Wire:
            return self.wire

        monkeypatch.setattr(module, "open_transport", there)

    def says(self, data: bytes) -> None:
        self.session.data_received(data)

    async def established(self) -> Session:
        """Shake hands, and hand the session to the connection."""
        establishing = asyncio.ensure_future(self.session.establish())
        await turns()
        self.says(info())
        await turns()
        self.says(b"PONG\r\n")
        await establishing
        self.client.connection._connected(self.session)
        self.wire.written = b""
        return self.session


@pytest.fixture
async def link(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Link]:
    link = Link(monkeypatch, user="u", password="CANARY")
    yield link
    link.wire.gone.set()
    await link.client.close()


# -- the handshake ---------------------------------------------------------------------------------


async def test_nothing_is_said_in_clear_at_an_address_where_tls_was_used(link: Link) -> None:
    link.session.connection.pool.discover(["10.0.0.1:4222"], via=parse_url("tls://h"), secure=True)
    establishing = asyncio.ensure_future(link.session.establish())
    await turns()
    link.says(info())
    await turns()
    assert link.wire.written == b""
    with pytest.raises(SecureConnectionRequiredError, match="nothing was sent"):
        await establishing


async def test_nothing_is_said_before_info_and_nothing_is_done_before_pong(link: Link) -> None:
    establishing = asyncio.ensure_future(link.session.establish())
    await turns()
    assert link.wire.written == b""
    link.says(info(nonce="abc"))
    await turns()
    head, _, rest = link.wire.written.partition(b"\r\n")
    document = json.loads(head.removeprefix(b"CONNECT "))
    assert (document["user"], document["pass"], document["headers"]) == ("u", "CANARY", True)
    assert rest == b"PING\r\n"
    assert not establishing.done()
    link.says(b"PONG\r\n")
    await establishing
    assert not link.session.secure


async def test_an_ok_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a verbose server says about CONNECT comes before its PONG."""
    link = Link(monkeypatch, verbose=True)
    establishing = asyncio.ensure_future(link.session.establish())
    await turns()
    link.says(info())
    await turns()
    assert json.loads(link.wire.written.partition(b"\r\n")[0].removeprefix(b"CONNECT "))["verbose"] is True
    link.says(b"+OK\r\n" * 3)
    await turns()
    assert not establishing.done()
    link.says(b"PONG\r\n")
    await establishing
    link.client.connection._connected(link.session)
    flushing = asyncio.ensure_future(link.client.flush())
    await link.client.publish("a", b"1")
    await turns()
    link.says(b"+OK\r\n" * 3)
    await turns()
    assert not flushing.done()
    link.says(b"+OK\r\nPONG\r\n")
    await flushing
    assert link.client.stats.in_msgs == link.client.stats.errors == 0
    link.wire.gone.set()
    await link.client.close()


@pytest.mark.parametrize(
    "data",
    [
        b"PING\r\n",
        b"+OK\r\n",
        b"MSG a 1 0\r\n\r\n",
        info() + b"PING\r\n",
        info() + info(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=lambda data: data[:20].decode(),
)
async def test_who_speaks_out_of_turn_gets_nothing(link: Link, data: bytes) -> None:
    establishing = asyncio.ensure_future(link.session.establish())
    await turns()
    link.says(data)
    with pytest.raises(RemoteProtocolError):
        await establishing
    assert link.wire.written == b""
    assert link.wire.ended[0] == "aborted"


async def test_an_early_refusal_is_no_word_about_the_credentials(link: Link) -> None:
    establishing = asyncio.ensure_future(link.session.establish())
    await turns()
    link.says(b"-ERR 'Authorization Violation'\r\n")
    with pytest.raises(StaleConnectionError, match="before the credentials were sent"):
        await establishing
    assert link.wire.written == b""


async def test_a_refusal_of_the_credentials(link: Link) -> None:
    establishing = asyncio.ensure_future(link.session.establish())
    await turns()
    link.says(info())
    await turns()
    link.says(b"-ERR 'Authorization Violation'\r\n")
    with pytest.raises(AuthorizationError) as told:
        await establishing
    assert "CANARY" not in str(told.value)


@pytest.mark.parametrize("options", [{"tls": True}, {"servers": "tls://localhost"}])
async def test_tls_that_is_not_offered(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    link = Link(monkeypatch, user="u", password="CANARY", **options)
    establishing = asyncio.ensure_future(link.session.establish())
    await turns()
    link.says(info())
    with pytest.raises(SecureConnectionRequiredError, match="nothing was sent"):
        await establishing
    assert link.wire.written == b""
    await link.client.close()


async def test_tls_that_is_forbidden_here(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(monkeypatch, tls=False)
    establishing = asyncio.ensure_future(link.session.establish())
    await turns()
    link.says(info(tls_required=True))
    with pytest.raises(SecureConnectionRequiredError, match="tls=False forbids it"):
        await establishing
    assert link.wire.written == b""
    await link.client.close()


async def test_whoever_is_not_the_right_process_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(monkeypatch)

    def check(transport: object) -> None:
        assert transport is link.wire
        raise PermissionError("another user")

    link.client.connection.options.check_peer = check
    establishing = asyncio.ensure_future(link.session.establish())
    await turns()
    link.says(info())
    with pytest.raises(PermissionError):
        await establishing
    assert link.wire.written == b""
    await link.client.close()


# -- an established one ----------------------------------------------------------------------------


async def test_of_later_infos_only_known_fields_stay(link: Link) -> None:
    session = await link.established()
    link.says(info(version="2.15.0", unheard_of="x"))
    link.says(info(ldm=False))
    assert session.info["version"] == "2.15.0"
    assert "unheard_of" not in session.info


async def test_pongs_find_their_pings_in_order(link: Link) -> None:
    session = await link.established()
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    session.ping(first)
    session.ping(None)
    session.ping(second)
    assert link.wire.written == b"PING\r\n" * 3
    link.says(b"PONG\r\nPONG\r\n")
    assert (first.done(), second.done()) == (True, False)
    session.fail(StaleConnectionError("cut"))
    with pytest.raises(StaleConnectionError):
        await second
    link.says(b"PONG\r\n" * 10)  # after the end nothing counts


async def test_a_peer_that_reads_no_answers_is_left(link: Link) -> None:
    session = await link.established()
    link.says(b"PING\r\n" * (MAX_UNREAD_PONGS + 10))
    assert session.lost is None
    link.wire.congested = True
    session.write_now(b"")
    link.says(b"PING\r\n" * MAX_UNREAD_PONGS)
    assert session.lost is None
    link.says(b"PING\r\n")
    assert isinstance(session.lost, RemoteProtocolError)


def test_a_stray_message_is_answered_by_unsub_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        link = Link(monkeypatch)
        await link.established()
        loop: Any = asyncio.get_running_loop()
        for seconds in (0.0, 0.1, 2.0, 0.1):
            loop.now += seconds
            link.says(b"MSG a 99 0\r\n\r\n" * 3)
            await turns()
        assert link.wire.written == b"UNSUB 99\r\n"
        link.wire.gone.set()
        await link.client.close()

    in_virtual_time(work)


async def test_a_message_to_the_lifeline_is_ignored(link: Link) -> None:
    """Anybody may have sent it, and the server must keep the subscription as long as the session."""
    session = await link.established()
    line = lifeline(link.client)
    assert line is not None
    link.wire.written = b""
    session._unsub_again = 0.0
    link.says(b"MSG a %b 0\r\n\r\n" % line.sid)
    await turns()
    assert b"UNSUB" not in link.wire.written
    assert session.lost is None


async def test_what_was_whole_before_the_break_counts(link: Link) -> None:
    session = await link.established()
    sub = await link.client.subscribe("a")
    link.says(b"MSG a 1 2\r\nok\r\nRUBBISH\r\n")
    assert isinstance(session.lost, RemoteProtocolError)
    assert link.wire.ended == ["aborted"]
    assert (await sub.next_msg(timeout=5)).data == b"ok"
    assert link.client.stats.in_msgs == 1


async def test_a_handler_that_raises_ends_the_session(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    """It must not; and a reader that goes on regardless would be a zombie."""
    session = await link.established()
    sub = await link.client.subscribe("a")
    monkey: Any = sub
    type(monkey).deliver, deliver = (lambda self, msg: 1 / 0), type(monkey).deliver
    try:
        link.says(b"MSG a 1 2\r\nok\r\n")
    finally:
        type(monkey).deliver = deliver
    assert isinstance(session.lost, StaleConnectionError)
    assert "internal error" in str(session.lost)
    assert "internal error while reading" in caplog.text


@pytest.mark.parametrize("exc", [None, OSError("reset"), RemoteProtocolError("of the transport")])
async def test_the_end_of_the_stream(link: Link, exc: BaseException | None) -> None:
    session = await link.established()
    session.connection_lost(exc)
    session.connection_lost(OSError("again"))
    if isinstance(exc, NatsError):
        assert session.lost is exc
    else:
        assert isinstance(session.lost, StaleConnectionError)
        assert ("end of stream" if exc is None else "reset") in str(session.lost)


async def test_an_error_line_explains_the_end_of_the_stream(link: Link) -> None:
    session = await link.established()
    link.says(b"-ERR 'Stale Connection'\r\n")
    assert session.lost is None
    session.connection_lost(None)
    assert "found the connection stale" in str(session.lost)


def test_a_lame_duck_is_left_once_it_has_taken_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(answers: bool) -> None:
        link = Link(monkeypatch)
        session = await link.established()
        lost = Calls()
        link.client.connection.options.disconnected_cb = lost
        loop = asyncio.get_running_loop()
        began = loop.time()
        session.leave(StaleConnectionError("about to shut down"))
        assert link.wire.written == b"PING\r\n"
        if answers:
            link.says(b"PONG\r\n")
        await lost.until(1)
        assert loop.time() - began == pytest.approx(0 if answers else LEAVE_TIMEOUT, abs=0.1)
        assert link.wire.ended == (["closed"] if answers else ["aborted"])
        link.wire.gone.set()
        await link.client.close()

    for answers in (True, False):
        in_virtual_time(lambda answers=answers: work(answers))  # type: ignore[misc]


def test_closing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued is sent; a network that does not take it has its time, and then the socket goes."""

    async def work() -> None:
        link = Link(monkeypatch)
        session = await link.established()
        session.write(b"PUB a 0\r\n\r\n")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await session.close()
        assert loop.time() - began == pytest.approx(CLOSE_TIMEOUT)
        assert link.wire.written == b"PUB a 0\r\n\r\n"
        assert link.wire.ended == ["closed", "aborted"]
        await link.client.close()

    in_virtual_time(work)


# -- words for what happened -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Authorization Violation", AuthorizationError),
        ("User Authentication Expired", AuthorizationError),
        ("User Authentication Revoked", AuthorizationError),
        ("Authentication Timeout", StaleConnectionError),
        ("Stale Connection", StaleConnectionError),
        ("Secure Connection - TLS Required", SecureConnectionRequiredError),
        ("Unknown Protocol Operation", ServerError),
        ("", ServerError),
    ],
)
def test_error_lines(text: str, kind: type[NatsError]) -> None:
    assert type(error_from_line(text)) is kind


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (ConnectionRefusedError(111, "x"), "connection refused"),
        (TimeoutError(), "no answer in time"),
        (OSError(113, "No route to host"), "No route to host"),
        (OSError("as it is"), "as it is"),
        (StaleConnectionError("our own words"), "our own words"),
        (ValueError("x"), "ValueError('x')"),
    ],
)
def test_a_failed_attempt_in_one_line(exc: BaseException, text: str) -> None:
    assert text in describe(exc)


def test_a_handshake_that_failed() -> None:
    context = ssl.create_default_context()
    incoming = ssl.MemoryBIO()
    incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as told:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="h").do_handshake()
    assert describe(told.value).startswith("TLS handshake failed: ")


def test_a_certificate_that_is_not_accepted() -> None:
    exc = ssl.SSLCertVerificationError()
    exc.verify_message = "self-signed certificate"
    assert describe(exc) == "certificate not accepted: self-signed certificate"


def test_a_round_of_failures_in_one_error() -> None:
    one, other = parse_url("nats://u:CANARY@a:1"), parse_url("nats://b:2")
    refused, denied = ConnectionRefusedError(111, "x"), AuthorizationError("no")
    error = summary([(one, refused), (other, denied)])
    assert isinstance(error, NoServersError)
    assert error.attempts == [("nats://a:1", refused), ("nats://b:2", denied)]
    assert error.__cause__ is denied
    assert "CANARY" not in str(error)
    assert summary([(one, denied), (other, denied)]) is denied, "every server that answered said so"
    extra = MissingExtraError("needs that", "ws")
    assert summary([(one, extra)]) is extra, "nobody would look for it among addresses"
    assert isinstance(summary([(one, extra), (other, refused)]), NoServersError)
    assert "no server left" in str(summary([]))


@pytest.mark.parametrize(
    ("url", "exc", "first", "hint"),
    [
        ("nats://localhost", ConnectionRefusedError(111, "x"), True, True),
        ("nats://localhost:4222", OSError("Multiple exceptions: ::1 refused, 127.0.0.1 refused"), True, True),
        ("nats://[::1]", ConnectionRefusedError(111, "x"), True, True),
        ("nats://127.0.0.1", ConnectionRefusedError(111, "x"), False, False),
        ("nats://127.0.0.1", TimeoutError(), True, False),
        ("nats://127.0.0.1", ConnectionResetError(104, "x"), True, False),
        ("nats://127.0.0.1:4223", ConnectionRefusedError(111, "x"), True, False),
        ("nats://example.com", ConnectionRefusedError(111, "x"), True, False),
    ],
)
def test_how_to_start_a_server(url: str, exc: Exception, first: bool, hint: bool) -> None:
    """Only where nobody listens at the default address, and nobody ever did."""
    error = summary([(parse_url(url), exc)], first=first)
    assert ("to start a server: 'objstore server' or 'nats-server -js'" in str(error)) == hint
    mixed = [(parse_url(url), exc), (parse_url("nats://elsewhere"), exc)]
    assert "to start a server" not in str(summary(mixed, first=first))
