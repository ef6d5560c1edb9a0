"""The connection: what survives a session and what does not, what a server announces, and refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from natsproto.aio.client import Client
from natsproto.aio.connection import DEFAULT_MAX_PAYLOAD, State, Stats
from natsproto.aio.handlers import Handler
from natsproto.aio.options import Options
from natsproto.errors import (
    AuthorizationError,
    BadSubjectError,
    ConnectionClosedError,
    MaxPayloadError,
    NatsError,
    PermissionsViolationError,
    RemoteProtocolError,
    ServerError,
    StaleConnectionError,
    UnsupportedFeatureError,
)
from natsproto.wire import Msg
from support.calls import Calls
from support.fake_session import FakeServer, FakeSession, turns


class Told(Handler):
    """Keeps what it is told."""

    __slots__ = ("raises", "told")

    def __init__(self, subject: bytes, queue: bytes | None = None, raises: str = "") -> None:
        super().__init__(subject, queue)
        self.told: list[Any] = []
        self.raises = raises

    def _note(self, what: str, value: object = None) -> None:
        self.told.append((what, value))
        if what == self.raises:
            raise ValueError(f"{what} of a layer above")

    def deliver(self, msg: Msg) -> None:
        self._note("message", bytes(msg.payload))

    def on_disconnect(self, exc: BaseException) -> None:
        self._note("disconnect", exc)

    def on_reconnect(self) -> None:
        self._note("reconnect")

    def on_end(self, exc: BaseException | None) -> None:
        self._note("end", exc)


@pytest.fixture
async def server() -> FakeServer:
    return FakeServer()


def lines(server: FakeServer) -> list[bytes]:
    """Control lines of the session from now on."""
    found: list[bytes] = []
    write = server.session.write

    def record(data: bytes) -> None:
        found.append(data)
        write(data)

    server.session.write = record  # type: ignore[method-assign]
    return found


# -- sessions come and go --------------------------------------------------------------------------


async def test_handlers_are_told_of_every_change(server: FakeServer) -> None:
    connection = server.connection
    first, second = Told(b"a", raises="disconnect"), Told(b"b")
    for handler in (first, second):
        connection.subscribe(handler)
    assert (connection.epoch, first.sid, second.sid, connection.next_sid()) == (1, b"1", b"2", b"3")
    lost = StaleConnectionError("cut")
    server.session.fail(lost)
    assert connection.state is State.CLOSED  # reconnect=False
    assert second.told == [("disconnect", lost), ("end", lost)]
    assert first.told == second.told, "one that raises keeps nothing from the others, nor from itself"
    assert connection.handlers == {}
    with pytest.raises(ConnectionClosedError, match="cut"):
        connection.check_open()


async def test_subscriptions_are_back_before_what_was_kept() -> None:
    client = Client(Options())
    server = FakeServer()
    server.client, server.connection = client, client.connection
    server.connect()
    connection = server.connection
    handler = Told(b"a", b"group")
    handler.max_msgs = 10
    connection.subscribe(handler)
    handler.delivered = 4
    server.lose()
    connection.publish(b"kept", b"1")
    connection.publish(b"kept", bytes(20_000), header=b"NATS/1.0\r\n\r\n")
    with pytest.raises(BadSubjectError):
        connection.publish(b"s" * 5000, b"")
    connection.state = State.RECONNECTING
    session = server.connect()
    assert [pub.subject for pub in session.pubs] == [b"kept", b"kept"]
    assert handler.told == [("disconnect", handler.told[0][1]), ("reconnect", None)]
    assert handler.base == 4
    assert connection.epoch == 2
    await client.close()


async def test_a_reconnect_says_how_many_are_still_wanted(server: FakeServer) -> None:
    handler = Told(b"a")
    server.connection.subscribe(handler)
    server.connection.unsubscribe(handler, 10)
    handler.delivered = 4
    server.lose()
    connection = server.connection
    connection.state = State.RECONNECTING
    written: list[bytes] = []
    original = type(server.session).write
    try:
        type(server.session).write = lambda self, data: written.append(data)  # type: ignore[method-assign]
        server.connect()
    finally:
        type(server.session).write = original  # type: ignore[method-assign]
    assert written == [b"SUB a 1\r\n", b"UNSUB 1 6\r\n"]


def another(server: FakeServer, **info: object) -> FakeSession:
    """The client comes back to a server that announces something else."""
    fake = type(server.session)
    init = fake.__init__

    def announcing(self: Any, connection: Any) -> None:
        init(self, connection)
        self.info.update(info)

    fake.__init__ = announcing  # type: ignore[method-assign]
    try:
        return server.connect()
    finally:
        fake.__init__ = init  # type: ignore[method-assign]


async def test_what_no_longer_fits_is_reported() -> None:
    errors = Calls()
    server = FakeServer()
    server.connection.options.error_cb = errors
    server.lose()
    server.connection.publish(b"a", bytes(1000))
    server.connection.publish(b"b", b"small")
    session = another(server, max_payload=999)
    assert [pub.subject for pub in session.pubs] == [b"b"]
    (error,) = await errors.until(1)
    assert isinstance(error, MaxPayloadError)
    assert (error.size, error.max_payload) == (1000, 999)


async def test_kept_messages_with_headers_for_a_server_without() -> None:
    """It would hang up at the first one, and the others would be lost, too."""
    errors = Calls()
    server = FakeServer()
    server.connection.options.error_cb = errors
    server.lose()
    await server.client.publish("a", b"1", headers={"H": "v"})
    await server.client.publish("HPUB", b"2")
    session = another(server, headers=False)
    assert [(pub.subject, pub.header) for pub in session.pubs] == [(b"HPUB", None)]
    (error,) = await errors.until(1)
    assert isinstance(error, UnsupportedFeatureError)
    assert (error.minimum, "dropped" in str(error)) == ("2.2", True)


async def test_headers_that_a_server_does_not_take(server: FakeServer) -> None:
    """They are refused, whoever sends them, and nothing else is; what is said in clear does not count."""
    client, connection = server.client, server.connection
    session: Any = server.session
    session.info["headers"] = False
    connection.info_changed(session)
    calls = [
        lambda: client.publish("a", headers={"H": "v"}),
        lambda: client.publish("a", bytearray(20_000), reply="r", headers={"H": "v"}),
        lambda: client.request("a", headers={"H": "v"}),
    ]
    for call in calls:
        with pytest.raises(UnsupportedFeatureError, match=r"with headers needs nats-server 2\.2 or newer"):
            await call()
    assert server.pubs == []
    for headers in (None, {}):
        await client.publish("a", headers=headers)
    connection.check_size(0, 10)
    with pytest.raises(UnsupportedFeatureError, match="a fetch"):
        connection.check_headers("a fetch")
    server.lose()
    with pytest.raises(UnsupportedFeatureError):
        await client.publish("a", headers={"H": "v"})  # the last server is the best guess
    server.connect()
    await client.publish("a", headers={"H": "v"})
    session = server.session
    session.info["headers"], session.info_in_clear = False, True
    connection.info_changed(session)
    await client.publish("a", headers={"H": "v"})
    assert [pub.header is None for pub in server.pubs] == [False, False]
    session.info_in_clear = False
    del session.info["headers"]  # older than 2.2
    connection.info_changed(session)
    with pytest.raises(UnsupportedFeatureError):
        await client.publish("a", headers={"H": "v"})


async def test_waiting_for_a_session(server: FakeServer) -> None:
    connection = server.connection
    await connection.wait_connected()
    server.lose()
    with pytest.raises(StaleConnectionError, match=r"not connected again within 0\.01 s"):
        await connection.wait_connected(0.01)
    waiting = asyncio.ensure_future(connection.wait_connected(20))
    pinging = asyncio.ensure_future(connection.ping())
    await turns()
    assert not waiting.done()
    server.connect()
    await asyncio.gather(waiting, pinging)
    server.lose()
    waiting = asyncio.ensure_future(connection.wait_connected())
    await turns()
    await connection.close()
    with pytest.raises(ConnectionClosedError):
        await waiting


async def test_what_ends_a_session_is_told() -> None:
    """A broken protocol belongs to no call; refused credentials count against the server."""
    for exc in (RemoteProtocolError("rubbish"), AuthorizationError("revoked"), StaleConnectionError("x")):
        server = FakeServer()
        errors, gone = Calls(), Calls()
        options = server.connection.options
        options.error_cb, options.disconnected_cb = errors, gone
        handler = Told(b"a")
        server.connection.subscribe(handler)
        server.session.fail(exc)
        await gone.until(1)
        await turns()
        lost = handler.told[0][1]
        assert isinstance(lost, StaleConnectionError)
        assert (lost is exc) == isinstance(exc, StaleConnectionError)
        assert lost is exc or lost.__cause__ is exc
        assert (exc in errors.items) == (not isinstance(exc, AuthorizationError))
        assert server.connection.pool.servers[0].auth_failures == isinstance(exc, AuthorizationError)
        assert server.connection.silent_sessions == 0


async def test_one_that_was_given_up_is_counted(server: FakeServer) -> None:
    server.session.fail(StaleConnectionError("silence", silent=True))
    assert server.connection.silent_sessions == 1


async def test_an_old_session_says_nothing(server: FakeServer) -> None:
    old = server.session
    server.lose()
    new = server.connect()
    server.connection.session_lost(old, StaleConnectionError("late"))  # type: ignore[arg-type]
    old.info = {"max_payload": 1, "ldm": True}
    server.connection.info_changed(old)  # type: ignore[arg-type]
    assert server.connection.session is new
    assert server.connection.max_payload == 1 << 20


# -- subscriptions ---------------------------------------------------------------------------------


async def test_unsubscribing(server: FakeServer) -> None:
    connection = server.connection
    written = lines(server)
    now, later, strange = Told(b"a"), Told(b"b", b"q"), Told(b"c")
    connection.subscribe(now)
    connection.subscribe(later)
    connection.unsubscribe(strange)
    connection.unsubscribe(later, 3)
    connection.unsubscribe(now)
    connection.unsubscribe(now)
    assert written == [b"SUB a 1\r\n", b"SUB b q 2\r\n", b"UNSUB 2 3\r\n", b"UNSUB 1\r\n"]
    assert (now.told, strange.told) == ([("end", None)], [])
    connection.complete(later)
    assert connection.handlers == {}
    assert later.told == []
    await turns()
    assert later.told == [("end", None)]
    with pytest.raises(BadSubjectError):
        connection.subscribe(Told(b"s" * 3000, b"q" * 3000))
    assert connection.handlers == {}


async def test_draining_a_handler_lets_the_rest_come(server: FakeServer) -> None:
    connection = server.connection
    handler = Told(b"a")
    connection.subscribe(handler)
    server.session.pongs = False
    draining = asyncio.ensure_future(connection.drain_handler(handler))
    await turns()
    server.send(b"a", b"under way")
    server.session.fail(StaleConnectionError("cut"))
    await draining
    assert [what for what, _ in handler.told] == ["message", "disconnect", "end"]
    await connection.drain_handler(handler)


# -- what a server says ----------------------------------------------------------------------------


async def test_info_that_comes_later(server: FakeServer) -> None:
    connection, session = server.connection, server.session
    discovered, ducks = Calls(), Calls()
    connection.options.discovered_server_cb = discovered
    connection.options.lame_duck_cb = ducks
    session.lame_duck = False  # type: ignore[attr-defined]
    session.info = {"connect_urls": ["10.0.0.9:4222"], "ldm": True}
    for _ in range(2):
        connection.info_changed(session)  # type: ignore[arg-type]
    await turns()
    assert connection.max_payload == DEFAULT_MAX_PAYLOAD
    assert (len(discovered), len(ducks)) == (1, 1)
    connection.options.ignore_discovered = True
    session.info = {"connect_urls": ["10.0.0.10:4222"]}
    connection.info_changed(session)  # type: ignore[arg-type]
    assert len(connection.pool.servers) == 2


@pytest.mark.parametrize(
    ("text", "goes_on"),
    [
        ("Invalid Subject", True),
        ("Invalid Publish Subject", True),
        ("maximum subscriptions exceeded", True),
        ("Maximum Payload Violation", False),
        ("Slow Consumer", False),
        ("", False),
    ],
)
async def test_errors_of_no_call(server: FakeServer, text: str, goes_on: bool) -> None:
    errors = Calls()
    server.connection.options.error_cb = errors
    assert server.connection.server_error(server.session, text) is goes_on  # type: ignore[arg-type]
    (error,) = await errors.until(1)
    assert isinstance(error, ServerError)
    assert error.text == text
    assert server.client.stats.errors == 1
    assert server.client.last_error is error


async def test_a_refused_subscription_ends(server: FakeServer) -> None:
    """That of the queue group that is named, and no other one; the reply inbox is made anew."""
    connection = server.connection
    errors = Calls()
    connection.options.error_cb = errors
    plain, grouped, other = Told(b"a"), Told(b"a", b"q"), Told(b"b")
    for handler in (plain, grouped, other):
        connection.subscribe(handler)

    def refuse(what: str) -> None:
        assert connection.server_error(server.session, f"Permissions Violation for {what}")  # type: ignore[arg-type]

    refuse('Subscription to "a" using queue "q"')
    assert [handler.told for handler in (plain, other)] == [[], []]
    ((what, error),) = grouped.told
    assert what == "end"
    assert isinstance(error, PermissionsViolationError)
    assert (error.subject, error.operation) == ("a", "subscription")
    refuse('Subscription to "a"')
    assert len(plain.told) == 1
    mux = connection.mux
    refuse(f'Subscription to "{mux.subject.decode()}"')
    assert connection.mux is not mux
    await turns()
    assert errors.items == []
    refuse('Subscription to "nobody.here"')
    assert isinstance((await errors.until(1))[0], PermissionsViolationError)


@pytest.mark.parametrize("together", [False, True])
async def test_a_refused_request_fails_at_once(server: FakeServer, together: bool) -> None:
    """Also when all refusals come in one piece: the next one that is no request's is reported."""
    errors = Calls()
    server.connection.options.error_cb = errors
    tasks = [asyncio.ensure_future(server.client.request("secret")) for _ in range(3)]
    await turns()
    text = 'Permissions Violation for Publish to "secret"'
    for _ in range(3):  # the server refuses each by itself; the first ends them all
        assert server.connection.server_error(server.session, text)  # type: ignore[arg-type]
        if not together:
            await turns()
    for task in tasks:
        with pytest.raises(PermissionsViolationError, match=r"may not publish to 'secret'"):
            await task
    await turns()
    assert errors.items == [], "told by the calls already"
    assert server.connection.server_error(server.session, text)  # type: ignore[arg-type]
    await errors.until(1)


@pytest.mark.parametrize(
    ("quoted", "subject"),
    [
        (r"a\"b\\c", 'a"b\\c'),
        (r"\a\b\f\n\r\t\v", "\a\b\f\n\r\t\v"),
        (r"\x00\x7f\xff\x80", "\x00\x7f\udcff\udc80"),
        (r"\u202e\U000e0001\U00110000\ud800\udcff", "\u202e\U000e0001" + 3 * "\ufffd"),
        ("\xe4 b", "\xe4 b"),
    ],
)
async def test_a_refused_subject_is_written_as_go_does(server: FakeServer, quoted: str, subject: str) -> None:
    errors = Calls()
    server.connection.options.error_cb = errors
    text = f'Permissions Violation for Publish to "{quoted}"'
    assert server.connection.server_error(server.session, text)  # type: ignore[arg-type]
    (error,) = await errors.until(1)
    assert isinstance(error, PermissionsViolationError)
    assert error.subject == subject


async def test_without_a_callback_errors_are_logged(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.connection.report(NatsError("of no call"))
    server.connection.unexpected(ValueError("a fault of ours"))
    assert [record.getMessage() for record in caplog.records] == [
        "of no call",
        "internal error while reading",
    ]
    assert isinstance(server.client.last_error, ValueError)


# -- the end ---------------------------------------------------------------------------------------


async def test_the_end_is_told_once(server: FakeServer) -> None:
    closed = Calls()
    server.connection.options.closed_cb = closed
    handler = Told(b"a")
    server.connection.subscribe(handler)
    await asyncio.gather(server.connection.close(), server.connection.close())
    assert (handler.told, len(closed)) == ([("end", None)], 1)
    with pytest.raises(ConnectionClosedError, match="connect again"):
        server.connection.publish(b"a", b"")
    with pytest.raises(ConnectionClosedError):
        server.connection.subscribe(handler)


async def test_a_session_that_comes_after_the_end_is_ended(server: FakeServer) -> None:
    connection = server.connection
    late = type(server.session)(connection)
    await connection.close()
    connection._connected(late)  # type: ignore[arg-type]
    assert isinstance(late.lost, ConnectionClosedError)
    assert connection.session is None
    assert connection.state is State.CLOSED


def test_counters_show_all() -> None:
    stats = Stats()
    stats.in_msgs = 3
    assert "in_msgs=3" in repr(stats)
    assert all(f"{name}=" in repr(stats) for name in Stats.__slots__)
