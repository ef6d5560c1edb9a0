"""-ERR lines and poisonous frames on an established connection (rows A3, S10)."""

from __future__ import annotations

import asyncio

import pytest

import natsproto
from natsproto.errors import (
    AuthorizationError,
    ConnectionClosedError,
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    ServerError,
    StaleConnectionError,
)
from natsproto.server import LocalServer
from natsproto.testing import ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from natsproto.wire import Connect, Pub, Sub
from support.calls import Calls


async def plain(conn: ScriptedConnection) -> None:
    await conn.handshake()
    await conn.serve()


TRANSIENT = [
    b"-ERR 'Invalid Subject'\r\n",
    b"-ERR 'Invalid Publish Subject'\r\n",
    b"-ERR 'maximum subscriptions exceeded'\r\n",
    b"-ERR 'Permissions Violation for Publish to \"x.y\"'\r\n",
    b"-ERR 'Permissions Violation for Subscription to \"y.z\"'\r\n",
    b'-ERR \'Permissions Violation for Subscription to "y.z" using queue "q"\'\r\n',
    b"-ERR 'PERMISSIONS VIOLATION FOR PUBLISH TO \"x.y\"'\r\n",
]
UNKNOWN = [
    b"-ERR 'something new'\r\n",
    b"-ERR \r\n",
    b"-ERR\r\n",
    b"-ERR ''\r\n",
    b"-ERR '\xff\xfe'\r\n",
    b"-ERR x",
]
FATAL = [
    b"-ERR 'Unknown Protocol Operation'\r\n",
    b"-ERR 'Maximum Payload Violation'\r\n",
    b"-ERR 'maximum control line exceeded'\r\n",
    b"-ERR 'Stale Connection'\r\n",
    b"-ERR 'maximum connections exceeded'\r\n",
    *UNKNOWN,
]


@pytest.mark.parametrize("line", [*TRANSIENT, *UNKNOWN[:5]])
async def test_a3_errors_after_which_the_server_stays(line: bytes) -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.send(line)
        request = await conn.expect("service")
        await conn.msg(request.reply.decode(), b"still here")
        await conn.serve()

    async with ScriptedServer(script) as server:
        errors, lost = Calls(), Calls()
        async with natsproto.connect(server.url, error_cb=errors, disconnected_cb=lost) as nc:
            await errors.until(1)
            assert isinstance(errors.items[0], ServerError | PermissionsViolationError)
            assert (await nc.request("service")).data == b"still here"
            assert nc.is_connected
            assert len(lost) == 0


@pytest.mark.parametrize("line", FATAL)
async def test_a3_errors_with_end_of_stream(line: bytes) -> None:
    """A request under way fails at once, with the reason; then the client reconnects."""

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect("service")
        await conn.send(line)

    async with ScriptedServer(script, plain) as server:
        errors, back = Calls(), Calls()
        async with natsproto.connect(server.url, error_cb=errors, reconnected_cb=back) as nc:
            with pytest.raises(StaleConnectionError):
                await asyncio.wait_for(nc.request("service", timeout=60), 7)
            await back.until(1)
            await nc.flush()
            if b"x" not in line[-2:]:
                assert len(errors) == 1


async def test_a3_expired_credentials_end_the_client_after_two_refusals() -> None:
    async def first(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        await conn.err("User Authentication Expired")

    async def refusing(conn: ScriptedConnection) -> None:
        await conn.info(auth_required=True)
        await conn.expect(Connect)
        await conn.err("Authorization Violation")

    async with ScriptedServer(first, refusing) as server:
        closed = Calls()
        nc = await natsproto.connect(server.url, closed_cb=closed, reconnect_wait=0.01)
        await nc.subscribe("x")
        await closed.until(1)
        assert nc.is_closed
        assert isinstance(nc.last_error, ConnectionClosedError)
        assert isinstance(nc.last_error.__cause__, AuthorizationError)
        assert len(server.connections) == 2
        with pytest.raises(ConnectionClosedError, match="credentials"):
            await nc.publish("a")
        await nc.close()


async def test_a3_credentials_that_come_late_are_not_refused() -> None:
    """A server that waits no longer for CONNECT says nothing of the credentials: that is tried on."""

    async def late(conn: ScriptedConnection) -> None:
        await conn.info(auth_required=True)
        await conn.expect(Connect)
        await conn.err("Authentication Timeout")

    async def first(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)

    async def last(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.serve()

    async with ScriptedServer(first, late, late, late, last) as server:
        back = Calls()
        async with natsproto.connect(server.url, reconnected_cb=back, reconnect_wait=0.01) as nc:
            await nc.subscribe("x")
            await back.until(1)
            await nc.flush()
        assert len(server.connections) == 5


@pytest.mark.parametrize("how", ["request", "request of two"])
async def test_a3_a_refused_request_fails_at_once(how: str) -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect("forbidden")
        await conn.err('Permissions Violation for Publish to "forbidden"')
        await conn.serve()

    async with ScriptedServer(script) as server, natsproto.connect(server.url) as nc:
        other = asyncio.create_task(nc.request("allowed", timeout=60)) if how != "request" else None
        with pytest.raises(PermissionsViolationError) as info:
            await asyncio.wait_for(nc.request("forbidden", timeout=60), 7)
        assert (info.value.subject, info.value.operation) == ("forbidden", "publish")
        assert isinstance(info.value, PermissionError)
        if other is not None:
            assert not other.done()
            other.cancel()
            await asyncio.wait([other])


async def test_a3_a_refused_subscription_ends_and_only_that_one() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        for _ in range(4):
            await conn.expect(Sub)
        await conn.err('Permissions Violation for Subscription to "s" using queue "q"')
        await conn.msg("s", b"plain", sid=1)
        await conn.msg("s", b"other queue", sid=3)
        await conn.serve()

    async with ScriptedServer(script) as server:
        errors = Calls()
        async with natsproto.connect(server.url, error_cb=errors) as nc:
            normal = await nc.subscribe("s")
            refused = await nc.subscribe("s", queue="q")
            third = await nc.subscribe("s", queue="r")
            await nc.subscribe("t")
            with pytest.raises(PermissionsViolationError):
                await refused.next_msg(timeout=10)
            with pytest.raises(PermissionsViolationError):
                async for _ in refused:
                    pass
            assert (await normal.next_msg(timeout=10)).data == b"plain"
            assert (await third.next_msg(timeout=10)).data == b"other queue"
            await refused.unsubscribe()
            (error,) = await errors.until(1)
            assert isinstance(error, PermissionsViolationError)
            assert (error.subject, error.operation) == ("s", "subscription")


async def test_a_refused_inbox_fails_requests_and_a_new_one_is_tried() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        sub = await conn.expect(Sub)
        await conn.expect("a")
        await conn.err(f'Permissions Violation for Subscription to "{sub.subject.decode()}"')
        second = await conn.expect(Sub)
        assert second.subject != sub.subject
        request = await conn.expect("b")
        await conn.msg(request.reply.decode(), b"answer")
        await conn.serve()

    async with ScriptedServer(script) as server, natsproto.connect(server.url) as nc:

        async def first() -> None:
            with pytest.raises(PermissionsViolationError):
                await nc.request("a", timeout=60)

        async def again() -> bytes:
            with pytest.raises(PermissionsViolationError):
                await nc.request("a", timeout=60)
            return (await nc.request("b", timeout=10)).data

        # The second request of the refused inbox is closed after the new inbox has got its first.
        assert (await asyncio.wait_for(asyncio.gather(again(), first()), 10))[0] == b"answer"


POISON = [
    b"MSG \xff\xfe 1 2\r\nhi\r\n",
    b"MSG a\x0bb\x0cc 1 2\r\nhi\r\n",
    b"MSG a\rb 1 2\r\nhi\r\n",
    b"MSG a\x00b 1 2\r\nhi\r\n",
    b"MSG s 1 \xff\xff 2\r\nhi\r\n",
    b"HMSG s 1 4 6\r\nXXXXhi\r\n",
    b"HMSG s 1 8 10\r\nNATS/1.0hi\r\n",
    b"HMSG s 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
    b"HMSG s 1 16 18\r\nNATS/1.0 xyz\r\n\r\nhi\r\n",
    b"HMSG s 1 0 2\r\nhi\r\n",
    b"HMSG s 1 25 27\r\nNATS/1.0\r\nno colon\r\nx\r\n\r\nhi\r\n",
    b"MSG unknown 999 2\r\nhi\r\n",
]


@pytest.mark.parametrize("frame", POISON)
async def test_s10_what_a_peer_may_send_is_survived(frame: bytes) -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        await conn.send(frame)
        await conn.msg("s", b"next", sid=1)
        await conn.serve()

    async with ScriptedServer(script) as server:
        lost = Calls()
        async with natsproto.connect(server.url, disconnected_cb=lost) as nc:
            sub = await nc.subscribe(">")
            while (msg := await sub.next_msg(timeout=10)).data != b"next":
                assert msg.data == b"hi"
                assert msg.subject.encode("utf-8", "surrogateescape") in frame
                repr((msg, msg.reply, msg.headers, msg.status))
            assert len(lost) == 0


@pytest.mark.parametrize(
    "frame",
    [b"MSG s 1 2\r\nhiX\r\n", b"MSG s 1 99999999999\r\n", b"NONSENSE\r\n", b"MSG s 1 -1\r\n", b"\x00" * 100,
     b"HMSG s 1 10 2\r\nhi\r\n", b"MSG s 1 2 3 4 5\r\n", b"MSG s 1 4000000000\r\n"],
)  # fmt: skip
async def test_broken_protocol_means_a_new_session(frame: bytes) -> None:
    async def broken(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        await conn.msg("s", b"before", sid=1)
        await conn.send(frame)
        await conn.expect_eof()

    async def second(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        await conn.msg("s", b"after", sid=1)
        await conn.serve()

    async with ScriptedServer(broken, second) as server, natsproto.connect(server.url) as nc:
        sub = await nc.subscribe("s")
        assert [(await sub.next_msg(timeout=10)).data for _ in range(2)] == [b"before", b"after"]


async def test_a_raising_handler_is_no_zombie() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        await conn.msg("s", b"x", sid=1)
        await conn.serve()

    async with ScriptedServer(script, plain) as server:
        back = Calls()
        async with natsproto.connect(server.url, reconnected_cb=back) as nc:
            sub = await nc.subscribe("s")
            sub._msgs = None  # type: ignore[assignment]
            await back.until(1)
            await nc.flush()


async def test_s10_a_forged_status_is_believed_on_empty_payloads_only() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        status = b"NATS/1.0 503\r\n\r\n"
        for payload in (b"data", b""):
            request = await conn.expect(Pub)
            await conn.msg(request.reply.decode(), payload, header=status)
        await conn.serve()

    async with ScriptedServer(script) as server, natsproto.connect(server.url) as nc:
        assert (await nc.request("a")).data == b"data"
        with pytest.raises(NoRespondersError):
            await nc.request("a")


PERMISSIONS = """
authorization { users: [
  {user: limited, password: pw, permissions: {
     publish: {deny: ["deny.>"]}, subscribe: {deny: ["deny.>", "q.*"]} } }
] }
"""


@pytest.mark.parametrize("which", ["new", "old"])
async def test_a3_permissions_of_real_servers(which: str, request: pytest.FixtureRequest) -> None:
    binary = request.getfixturevalue(f"{which}_server").binary.path
    async with LocalServer(binary=binary, jetstream=False, config=PERMISSIONS) as server:
        errors = Calls()
        async with natsproto.connect(server.url, user="limited", password="pw", error_cb=errors) as nc:
            with pytest.raises(PermissionsViolationError):
                await asyncio.wait_for(nc.request("deny.x", timeout=60), 7)
            sub = await nc.subscribe("deny.y")
            with pytest.raises(PermissionsViolationError):
                await sub.next_msg(timeout=10)
            queue = await nc.subscribe("q.y", queue="g")
            with pytest.raises(PermissionsViolationError):
                await queue.next_msg(timeout=10)
            refused = await errors.until(2)  # the subscriptions: not every program reads them
            assert [error.subject for error in refused] == ["deny.y", "q.y"]
            await nc.publish("deny.z", b"x")
            error = (await errors.until(3))[2]
            assert isinstance(error, PermissionsViolationError)
            assert error.subject == "deny.z"
            assert nc.is_connected


async def test_real_answers_to_illegal_frames(server: LocalServer) -> None:
    """What the server says to frames the public calls refuse: fatal ones mean a new session."""
    for frame, fatal in [
        (b"SUB a..b 9\r\n", False),
        (b"BOGUS\r\n", True),
        (b"PUB a 99999999\r\n", True),
        (b"PUB " + b"x" * 5000 + b" 0\r\n\r\n", True),
        (b"PUB a nonsense\r\n", True),
    ]:
        errors, lost, back = Calls(), Calls(), Calls()
        async with natsproto.connect(
            server.url, error_cb=errors, disconnected_cb=lost, reconnected_cb=back
        ) as nc:
            session = nc.connection.session
            assert session is not None
            session.write(frame)
            if fatal:
                await lost.until(1)
                await back.until(1)
            else:
                await errors.until(1)
                assert len(lost) == 0
            await nc.flush()
            assert all(isinstance(error, NatsError) for error in errors.items)
