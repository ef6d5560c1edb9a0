"""What can go wrong until a connection is established, by a scripted server (A1, A2, S1, S3, S5, S6)."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

import natsproto
from natsproto.errors import (
    NatsError,
    NoServersError,
    RemoteProtocolError,
    RequestTimeoutError,
    SecureConnectionRequiredError,
    ServerError,
    StaleConnectionError,
)
from natsproto.testing import ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from natsproto.wire import Connect, Ping, Pub, Sub
from support.calls import Calls
from support.clock import Clock
from support.fake_session import turns

TIMEOUT = 0.3
AT_ONCE = 5.0
"""Seconds within which it happens that has to wait for nothing, also on a busy machine."""


async def refused(server: ScriptedServer, **options: object) -> NatsError:
    """Connect, expect an error long before connect_timeout, and return it."""
    return await refused_within(AT_ONCE, server, connect_timeout=60, **options)


async def refused_within(limit: float, server: ScriptedServer, **options: object) -> NatsError:
    start = time.monotonic()
    with pytest.raises(NatsError) as info:
        await natsproto.connect(server.url, **options)  # type: ignore[arg-type]
    assert time.monotonic() - start < limit
    return info.value


async def silent(conn: ScriptedConnection) -> None:
    await conn.expect_eof()


async def info_only(conn: ScriptedConnection) -> None:
    conn.auto_pong = False
    await conn.info()
    await conn.expect_eof()


async def no_pong(conn: ScriptedConnection) -> None:
    conn.auto_pong = False
    await conn.info()
    await conn.expect(Ping)
    await conn.expect_eof()


async def half_an_info(conn: ScriptedConnection) -> None:
    await conn.send(b"INFO {")
    await conn.expect_eof()


@pytest.mark.parametrize("script", [silent, info_only, no_pong, half_an_info])
async def test_a1_a_silent_server_costs_connect_timeout(script: object) -> None:
    async with ScriptedServer(script) as server:  # type: ignore[arg-type]
        error = await refused_within(TIMEOUT + 5, server, connect_timeout=TIMEOUT)
    assert isinstance(error, NoServersError)
    ((url, reason),) = error.attempts
    assert url == server_url(error)
    assert isinstance(reason, StaleConnectionError)
    assert f"{TIMEOUT} s" in str(reason)


def server_url(error: NoServersError) -> str:
    return error.attempts[0][0]


HANDSHAKE = b'INFO {"server_id":"x","version":"2.15.1","headers":true,"max_payload":100} \r\nPONG\r\n'


async def test_a1_end_of_stream_at_each_byte_of_the_handshake() -> None:
    offsets = [*range(12), 40, *range(len(HANDSHAKE) - 10, len(HANDSHAKE))]

    async def script(conn: ScriptedConnection) -> None:
        offset = offsets[conn.number]
        end_of_info = len(HANDSHAKE) - 6
        await conn.send(HANDSHAKE[: min(offset, end_of_info)])
        if offset >= end_of_info:
            await conn.expect(Connect)
            conn.auto_pong = False
            await conn.expect(Ping)
            await conn.send(HANDSHAKE[end_of_info:offset])

    async with ScriptedServer(script) as server:
        for _ in offsets:
            error = await refused(server)
            assert isinstance(error, NoServersError)
            assert isinstance(error.attempts[0][1], StaleConnectionError)


async def test_pong_and_end_in_one_piece_is_a_failure() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.info()
        await conn.expect(Ping)
        await conn.send(b"PONG\r\nBROKEN\r\n")
        await conn.expect_eof()

    async with ScriptedServer(script) as server:
        error = await refused(server)
    assert isinstance(error, RemoteProtocolError)


async def test_a2_frames_before_the_first_pong() -> None:
    async def script(conn: ScriptedConnection) -> None:
        conn.auto_pong = False
        await conn.info()
        await conn.expect(Connect)
        await conn.expect(Ping)
        await conn.send(b"+OK\r\nPING\r\n")
        await conn.info(server_name="second", connect_urls=["127.0.0.1:1"])
        await conn.send(b"PONG\r\n")
        await conn.info(server_name="third", max_payload=77)
        await conn.serve()

    async with ScriptedServer(script) as server, natsproto.connect(server.url) as nc:
        assert nc.is_connected
        await nc.flush()
        assert nc.server_info["server_name"] == "third"
        assert nc.max_payload == 77
        assert nc.servers == [server.url, "nats://127.0.0.1:1"]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        # Nothing was sent yet that could have been refused, and two refusals are for good.
        (b"-ERR 'Authorization Violation'\r\n", NoServersError),
        (b"-ERR 'Authentication Timeout'\r\n", NoServersError),
        (b"-ERR 'User Authentication Expired'\r\n", NoServersError),
        (b"-ERR 'User Authentication Revoked'\r\n", NoServersError),
        (b"-ERR 'Secure Connection - TLS Required'\r\n", SecureConnectionRequiredError),
        (b"-ERR 'maximum connections exceeded'\r\n", ServerError),
        (b"-ERR\r\n", ServerError),
        (b"-ERR \xff\xfe\r\n", ServerError),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", RemoteProtocolError),
        (b"INFO []\r\n", RemoteProtocolError),
        (b"INFO {}\r\nINFO {}\r\n", RemoteProtocolError),
        (b"INFO {}\r\nPING\r\n", RemoteProtocolError),
        (b"INFO {}\r\nMSG a 1 0\r\n\r\n", RemoteProtocolError),
        (b"\x16\x03\x01\x00\x00", RemoteProtocolError),
        (b"INFO " + b"[" * 100_000, None),
        (b"INFO {" + b"x" * 1_100_000, RemoteProtocolError),
    ],
)
@pytest.mark.parametrize("then", ["stay", "close"])
async def test_words_instead_of_a_handshake(said: bytes, kind: type[Exception] | None, then: str) -> None:
    """The peer's socket is closed at once, also when the peer itself keeps it open."""

    async def script(conn: ScriptedConnection) -> None:
        await conn.send(said)
        if then == "stay":
            await conn.expect_eof(timeout=AT_ONCE)

    async with ScriptedServer(script) as server:
        if kind is None:  # one of the lines has no end, which only the time-out notices
            await refused_within(TIMEOUT + 5, server, connect_timeout=TIMEOUT)
        else:
            error = await refused(server)
            assert isinstance(error, kind), error
        await ended(server)


async def ended(server: ScriptedServer) -> None:
    try:
        await server.finished()
    except ConnectionError:
        pass  # we left before the script was done, which is what is expected


@pytest.mark.parametrize("script", [silent, no_pong])
async def test_next_server_is_tried(script: object) -> None:
    async with ScriptedServer(script, timeout=1000) as bad, ScriptedServer(timeout=1000) as good:  # type: ignore[arg-type]
        clock = Clock()
        urls = ["nats://127.0.0.1:1", "nats://host.invalid", bad.url, good.url]
        task = asyncio.create_task(_connect(urls, randomize=False, connect_timeout=60))
        await bad.connection()
        await turns()
        clock.forward(60)
        nc = await task
        assert nc.connected_url == good.url
        await nc.close()


async def test_unreachable_is_one_error_with_all_reasons(caplog: pytest.LogCaptureFixture) -> None:
    start = time.monotonic()
    called = Calls()
    with pytest.raises(NoServersError) as info:
        await natsproto.connect(
            ["nats://127.0.0.1:1", "nats://u:CANARY@127.0.0.1:2"],
            randomize=False, error_cb=called, closed_cb=called, disconnected_cb=called,
        )  # fmt: skip
    await asyncio.sleep(0)
    assert called.items == []
    assert time.monotonic() - start < AT_ONCE
    assert [url for url, _ in info.value.attempts] == ["nats://127.0.0.1:1", "nats://127.0.0.1:2"]
    assert all(isinstance(exc, ConnectionRefusedError) for _, exc in info.value.attempts)
    assert str(info.value).count("connection refused") == 2
    assert caplog.records == []


async def test_retry_on_failed_connect() -> None:
    """It returns at once; what is asked of the client meanwhile is done when it is connected."""

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        question = await conn.expect("question")
        assert isinstance(question, Pub)
        assert question.reply is not None
        await conn.msg(question.reply.decode(), b"answer")
        await conn.serve()

    async with ScriptedServer(script) as server:
        server.refuse()
        errors, failures, connected, back = Calls(), Calls(), Calls(), Calls()
        nc = await _connect(
            server.url, retry_on_failed_connect=True, reconnect_wait=0.02, error_cb=errors,
            reconnect_error_cb=failures, connected_cb=connected, reconnected_cb=back,
        )  # fmt: skip
        assert (nc.state, nc.is_connected, nc.is_closed, nc.connected_url) == (
            "connecting",
            False,
            False,
            None,
        )
        await nc.subscribe("s")
        await nc.publish("s", b"early")
        asking = asyncio.create_task(nc.request("question", timeout=20))
        await errors.until(2)
        await failures.until(2)
        for each in (*errors.items, *failures.items):
            assert isinstance(each, NoServersError)
            assert [url for url, _ in each.attempts] == [server.url]
        with pytest.raises(StaleConnectionError, match="not connected"):
            await nc.rtt()
        with pytest.raises(RequestTimeoutError):
            await nc.request("s", b"given up", timeout=0.01)
        assert len(connected) == 0
        server.refuse(False)
        await nc.flush(20)
        assert nc.is_connected
        assert (await asking).data == b"answer"
        received = server.connections[0].received
        assert [each.payload for each in received if isinstance(each, Pub)] == [b"early", b""]
        assert b"s" in [each.subject for each in received if isinstance(each, Sub)]
        await connected.until(1)
        await nc.close()
        assert (len(connected), len(back), nc.stats.reconnects) == (1, 0, 0)


async def _connect(url: str | list[str], **options: object) -> natsproto.Client:
    return await natsproto.connect(url, **options)  # type: ignore[arg-type]


async def test_connect_can_be_cancelled_while_waiting() -> None:
    async with ScriptedServer(silent) as server:
        task = asyncio.create_task(_connect(server.url, connect_timeout=60))
        await server.connection()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.finished()


# -- TLS downgrade and early bytes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options"), [("tls", {}), ("nats", {"tls": True}), ("nats", {"tls_hostname": "h", "tls": True})]
)
@pytest.mark.parametrize("offer", [{}, {"tls_required": False}, {"tls_verify": True}])
async def test_s1_downgrade_is_refused_with_nothing_sent(
    url: str, options: dict[str, object], offer: dict[str, object]
) -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.info(**offer)
        await conn.expect_eof()
        assert conn.received == []

    async with ScriptedServer(script) as server:
        address = server.url.replace("nats://", f"{url}://CANARY:CANARY@")
        with pytest.raises(SecureConnectionRequiredError, match="nothing was sent"):
            await natsproto.connect(address, **options)  # type: ignore[arg-type]
        await server.finished()


async def test_s1_tls_forbidden_but_demanded() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True)
        await conn.expect_eof()
        assert conn.received == []

    async with ScriptedServer(script) as server:
        with pytest.raises(SecureConnectionRequiredError, match="forbids"):
            await natsproto.connect(server.url, tls=False)
        await server.finished()


@pytest.mark.parametrize("early", [b"PING\r\n", b"PIN", b"-ER", b"INFO {}\r\n", b"MSG a 1 0\r\n\r\n"])
async def test_s3_bytes_between_info_and_tls_are_refused(early: bytes) -> None:
    """In one piece with INFO: what a man in the middle would inject (CVE-2021-23222 and its kin)."""

    async def script(conn: ScriptedConnection) -> None:
        await conn.send(b'INFO {"tls_required":true,"headers":true}\r\n' + early)
        await conn.expect_eof()

    async with ScriptedServer(script) as server:
        error = await refused(server, tls=True, user="u", password="CANARY")
    assert isinstance(error, RemoteProtocolError)


async def test_s3_bytes_after_info_break_the_handshake() -> None:
    """Later ones reach the TLS layer as the garbage they are, or are refused."""
    gone = asyncio.Event()

    async def script(conn: ScriptedConnection) -> None:
        await conn.send(b'INFO {"tls_required":true,"headers":true}\r\n')
        await conn.send(b"PING\r\n" * 10)
        with pytest.raises(NatsError):  # ClientHello is no NATS
            await conn.expect(Connect)
        gone.set()

    async with ScriptedServer(script) as server:
        error = await refused(server, tls=True, user="u", password="CANARY")
        assert isinstance(error, NatsError)
        await asyncio.wait_for(gone.wait(), 7)
        assert server.connections[0].connect == {}


# -- CONNECT, discovery ------------------------------------------------------------------------------


async def test_s6_connect_document() -> None:
    async with ScriptedServer() as server:
        url = server.url.replace("//", "//u:p@")
        async with natsproto.connect(url, name='a "name"\r\nPING', token="t", tls_hostname="h", echo=False):
            connect = server.connections[0].connect
    assert connect == {
        "verbose": False, "pedantic": False, "tls_required": False, "lang": "python-natsproto",
        "version": natsproto.__version__, "protocol": 1, "echo": False, "headers": True,
        "no_responders": True, "name": 'a "name"\r\nPING', "user": "u", "pass": "p",
    }  # fmt: skip


async def test_a_server_without_headers_is_not_asked_for_them() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake(headers=False)
        await conn.serve()

    async with ScriptedServer(script) as server, natsproto.connect(server.url):
        assert server.connections[0].connect["no_responders"] is False


async def test_s5_hostile_connect_urls() -> None:
    urls = ["evil", "user:pw@h:1", "[::1]:5", "ünï:1", "a b:1", "x:0", *[f"h{n}:1" for n in range(10_000)]]

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        await conn.info(connect_urls=urls)
        await conn.serve()

    async with ScriptedServer(script) as server:
        found = Calls()
        url = server.url.replace("//", "//u:CANARY@")
        async with natsproto.connect(url, discovered_server_cb=found) as nc:
            await nc.subscribe("x")
            await found.until(1)
            assert len(nc.servers) <= 257
            assert "nats://[::1]:5" in nc.servers
            assert all(url.startswith("nats://") for url in nc.servers)
            assert not any("@" in url or " " in url or url.endswith(":0") for url in nc.servers)
            assert server.url not in nc.discovered_servers
            assert "CANARY" not in repr(nc) + str(nc.servers)


async def test_s5_ignore_discovered() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake(connect_urls=["a:1"])
        await conn.info(connect_urls=["b:1"])
        await conn.serve()

    async with (
        ScriptedServer(script) as server,
        natsproto.connect(server.url, ignore_discovered=True) as nc,
    ):
        await nc.flush()
        assert nc.servers == [server.url]


async def test_discovered_servers_get_the_credentials_and_are_used() -> None:
    async with ScriptedServer() as second:

        async def script(conn: ScriptedConnection) -> None:
            await conn.handshake(connect_urls=[f"127.0.0.1:{second.port}"])
            conn.abort()

        async with ScriptedServer(script) as first:
            first_url = first.url.replace("//", "//u:p@")
            back = Calls()
            async with natsproto.connect(first_url, reconnected_cb=back) as nc:
                await back.until(1)
                assert nc.connected_url == second.url
            assert second.connections[0].connect["user"] == "u"


async def test_malformed_info_later_ends_the_session_not_the_client() -> None:
    """Regression N10: never a reader that logs, stops, and still calls itself connected."""

    async def broken(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await conn.expect(Sub)
        await conn.send(b"INFO {nonsense\r\n")
        await conn.expect_eof()

    async with ScriptedServer(broken, _plain) as server:
        back = Calls()
        async with natsproto.connect(server.url, reconnected_cb=back) as nc:
            await nc.subscribe("s")
            await back.until(1)
            await nc.publish("a", b"x")
            await nc.flush()


async def test_an_error_line_in_one_piece_with_pong_is_that_of_a_connection() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.info(domain="hub")
        conn.auto_pong = False
        await conn.expect(Ping)
        await conn.send(b"PONG\r\n-ERR 'Invalid Subject'\r\nINFO {\"max_payload\":5}\r\n")
        conn.auto_pong = True
        await conn.serve()

    async with ScriptedServer(script) as server:
        errors = Calls()
        async with natsproto.connect(server.url, error_cb=errors) as nc:
            assert isinstance((await errors.until(1))[0], ServerError)
            await nc.flush()
            assert (nc.max_payload, nc.server_info["domain"]) == (5, "hub")


async def _plain(conn: ScriptedConnection) -> None:
    await conn.handshake()
    await conn.serve()


async def test_info_merges_into_what_is_known() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake(max_payload=10, domain="hub")
        await conn.send(b'INFO {"max_payload":20}\r\n')
        await conn.serve()

    async with ScriptedServer(script) as server, natsproto.connect(server.url) as nc:
        await nc.flush()
        assert nc.max_payload == 20
        assert nc.server_info["domain"] == "hub"
        with pytest.raises(natsproto.errors.MaxPayloadError):
            await nc.publish("a", b"x" * 21)
        json.dumps(nc.server_info)


async def test_a_server_that_thinks_of_ever_more_to_say() -> None:
    """Of what a peer sends not everything is kept for ever."""

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake(domain="hub", go="go1")
        for number in range(100):
            await conn.send(b'INFO {"k%d":"%b"}\r\n' % (number, b"x" * 10_000))
        await conn.serve()

    async with ScriptedServer(script) as server, natsproto.connect(server.url) as nc:
        await nc.flush()
        assert {key for key in nc.server_info if key.startswith("k")} == {"k99"}
        assert (nc.server_info["domain"], nc.server_info["go"]) == ("hub", "go1")


async def test_nothing_is_sent_before_connect() -> None:
    async def script(conn: ScriptedConnection) -> None:
        await conn.info()
        await conn.expect(Connect, strict=True)
        await conn.expect(Ping, strict=True)
        await conn.pong()
        assert isinstance(await conn.expect(strict=True), Pub)

    async with ScriptedServer(script) as server, natsproto.connect(server.url, reconnect=False) as nc:
        await nc.publish("a")
        await server.finished()
