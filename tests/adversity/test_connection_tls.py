"""TLS: what is verified, what is refused, and that nothing hangs or spins (rows A9, S4)."""

from __future__ import annotations

import asyncio
import resource
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.errors import NatsError, NoServersError, SecureConnectionRequiredError
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy, ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from natsproto.transport import TransportKind
from natsproto.wire import Connect, Ping, Sub
from support.calls import Calls
from support.certs import Certs, make_certs
from support.nkeys import USER, Key
from support.tls import ServerMaker, made_servers, url
from support.waits import eventually

make = pytest.fixture(made_servers)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return make_certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture
def context(certs: Certs) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certs.ca_file)


def start_with(server: LocalServer, certs: Certs) -> None:
    """Start a killed server with other certificates, on its port, which was not free meanwhile."""
    assert server._tls is not None
    server._tls = {**server._tls, "cert_file": certs.cert_file, "key_file": certs.key_file}
    server.start()


async def test_upgrade_by_scheme_context_and_demand(
    make: ServerMaker, certs: Certs, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make(certs)
    async with natsproto.connect(url(server), tls=context) as nc:
        sub = await nc.subscribe("s")
        payload = bytes(range(256)) * 3000
        await nc.publish("s", payload)
        await nc.publish("s", b"small")
        assert (await sub.next_msg(timeout=10)).data == payload
        assert (await sub.next_msg(timeout=10)).data == b"small"
    for where in (url(server, "nats"), url(server, host="127.0.0.1"), url(server, "nats", "127.0.0.1")):
        async with natsproto.connect(where, tls=context) as nc:
            await nc.flush()
    # The scheme alone, or the server's demand, uses the machine's authorities.
    monkeypatch.setenv("SSL_CERT_FILE", certs.ca_file)
    for where in (url(server), url(server, "nats")):
        async with natsproto.connect(where) as nc:
            await nc.flush()
    async with natsproto.connect(url(server, "nats"), tls=True) as nc:
        await nc.flush()
    with pytest.raises(SecureConnectionRequiredError):
        await natsproto.connect(url(server, "nats"), tls=False)


async def test_s4_unknown_authority(make: ServerMaker, certs: Certs) -> None:
    await not_accepted(url(make(certs)))


async def test_s4_wrong_host(make: ServerMaker, tmp_path: Path) -> None:
    certs = make_certs(tmp_path, hosts=("good.example", "10.1.2.3"))
    context = ssl.create_default_context(cafile=certs.ca_file)
    server = make(certs)
    for host in ("localhost", "127.0.0.1"):
        await not_accepted(url(server, host=host), tls=context)
    async with natsproto.connect(url(server), tls=context, tls_hostname="good.example") as nc:
        await nc.flush()
    await not_accepted(url(server), tls=context, tls_hostname="other.example")


async def test_s4_expired(make: ServerMaker, tmp_path: Path) -> None:
    certs = make_certs(tmp_path, valid=-1)
    await not_accepted(url(make(certs)), tls=ssl.create_default_context(cafile=certs.ca_file))


async def not_accepted(where: str, **options: Any) -> None:
    start = time.monotonic()
    with pytest.raises(NoServersError, match="certificate not accepted") as info:
        await natsproto.connect(where, **options)
    assert time.monotonic() - start < 5
    assert isinstance(info.value.attempts[0][1], ssl.SSLCertVerificationError)


async def test_s4_discovered_addresses_are_verified_by_the_first_name(
    certs: Certs, context: ssl.SSLContext
) -> None:
    """nats.go calls it saveTLSName: connect_urls has IP addresses, certificates have names."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certs.cert_file, certs.key_file)
    asked: list[str | None] = []
    tls.sni_callback = lambda sock, name, _: asked.append(name)

    async def handshake(conn: ScriptedConnection, **info: object) -> None:
        await conn.info(tls_required=True)
        await conn.start_tls(tls)
        await conn.expect(Connect)
        await conn.expect(Ping)
        await conn.pong()
        await conn.info(**info)

    async def second(conn: ScriptedConnection) -> None:
        await handshake(conn)
        await conn.serve()

    async with ScriptedServer(second, host="127.0.0.2") as other:

        async def first(conn: ScriptedConnection) -> None:
            await handshake(conn, connect_urls=[f"127.0.0.2:{other.port}"])
            await conn.expect(Ping)

        async with ScriptedServer(first) as server:
            back = Calls()
            where = f"tls://localhost:{server.port}"
            async with natsproto.connect(where, tls=context, reconnected_cb=back, reconnect_wait=0.02) as nc:
                with pytest.raises(NatsError):
                    await nc.flush()
                await back.until(1)
                assert nc.connected_url == f"tls://127.0.0.2:{other.port}"
                assert asked == ["localhost", "localhost"]


async def test_mtls(make: ServerMaker, certs: Certs, context: ssl.SSLContext) -> None:
    server = make(certs, ca_file=certs.ca_file, verify=True)
    start = time.monotonic()
    with pytest.raises(NatsError):  # with TLS 1.3 the refusal comes after the handshake
        await natsproto.connect(url(server), tls=context)
    assert time.monotonic() - start < 5
    context.load_cert_chain(certs.client_cert_file, certs.client_key_file)
    async with natsproto.connect(url(server), tls=context) as nc:
        await nc.flush()


async def test_tls_first(new_server: LocalServer, certs: Certs, context: ssl.SSLContext) -> None:
    tls = {"cert_file": certs.cert_file, "key_file": certs.key_file, "handshake_first": True}
    async with LocalServer(binary=new_server.binary.path, jetstream=False, tls=tls) as server:
        async with natsproto.connect(url(server), tls=context, tls_first=True) as nc:
            await nc.flush()
        with pytest.raises(NatsError):
            await natsproto.connect(url(server), tls=context, connect_timeout=0.3)
        with pytest.raises(NatsError, match="certificate"):
            await natsproto.connect(url(server), tls_first=True)


async def test_tls_first_at_a_server_that_is_not(
    make: ServerMaker, certs: Certs, context: ssl.SSLContext
) -> None:
    with pytest.raises(NatsError):
        await natsproto.connect(url(make(certs)), tls=context, tls_first=True, connect_timeout=0.5)


async def garbage(conn: ScriptedConnection) -> None:
    await conn.info(tls_required=True)
    await conn._reader.read(5)
    await conn.send(b"this is no ServerHello" * 10)
    await conn._reader.read()


async def eof(conn: ScriptedConnection) -> None:
    await conn.info(tls_required=True)
    await conn._reader.read(5)


async def hang(conn: ScriptedConnection) -> None:
    await conn.info(tls_required=True)
    await conn._reader.read()


@pytest.mark.parametrize("script", [garbage, eof, hang])
async def test_a9_a_handshake_that_fails(script: Any, context: ssl.SSLContext) -> None:
    """Typed error in time, no spinning (nats.py issue 490)."""
    async with ScriptedServer(script) as server:
        start, cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        with pytest.raises(NoServersError):
            await natsproto.connect(server.url, tls=context, connect_timeout=0.4)
        assert time.monotonic() - start < 0.4 + 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu < 0.3
        await server.finished()


async def test_a9_a_certificate_swapped_at_a_restart(
    make: ServerMaker, certs: Certs, context: ssl.SSLContext, tmp_path: Path
) -> None:
    """Reconnecting goes on, with pauses, and without ever sending anything to the impostor."""
    first = make(certs)
    lost, errors = Calls(), Calls()
    async with natsproto.connect(
        url(first),
        tls=context,
        disconnected_cb=lost,
        error_cb=errors,
        reconnect_wait=0.05,
        reconnect_wait_max=0.1,
    ) as nc:
        first.kill()
        await lost.until(1)
        start_with(first, make_certs(tmp_path))
        await eventually(lambda: isinstance(nc.last_error, ssl.SSLCertVerificationError))
        cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        with pytest.raises(NatsError):
            await nc.flush(0.4)
        assert not nc.is_connected
        assert isinstance(nc.last_error, ssl.SSLCertVerificationError)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu < 0.35
        first.kill()
        start_with(first, certs)
        await nc.flush()


async def test_an_info_in_clear_takes_no_headers_away(certs: Certs, context: ssl.SSLContext) -> None:
    """Whoever is on the network for one handshake would break every JetStream call after it."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certs.cert_file, certs.key_file)

    async def script(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True, headers=False)
        await conn.start_tls(tls)
        await conn.serve()

    async with ScriptedServer(script) as server:
        where = server.url.replace("nats://127.0.0.1", "tls://localhost")
        async with natsproto.connect(where, tls=context):
            assert server.connections[0].connect["headers"] is True


@pytest.mark.parametrize("signed", [True, False])
async def test_a_nonce_in_clear_may_have_been_altered(
    signed: bool, certs: Certs, context: ssl.SSLContext
) -> None:
    """What was signed fits no more, and the honest server says so: no reason to give it up."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certs.cert_file, certs.key_file)

    async def first(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True, nonce="abcdefghijk")
        await conn.start_tls(tls)
        await conn.expect(Connect)
        await conn.expect(Ping)
        await conn.send(b"PONG\r\n")
        await conn.expect(Sub)

    async def refusing(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True, nonce="altered")
        await conn.start_tls(tls)
        assert ("sig" in (await conn.expect(Connect)).data) is signed
        await conn.err("Authorization Violation")

    async def last(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True, nonce="abcdefghijk")
        await conn.start_tls(tls)
        await conn.serve()

    seed = Key(USER, bytes(range(32))).seed
    who: dict[str, Any] = {"nkey_seed": seed} if signed else {"user": "u", "password": "CANARY"}
    async with ScriptedServer(first, refusing, refusing, refusing, last) as server:
        where = server.url.replace("nats://127.0.0.1", "tls://localhost")
        back, closed = Calls(), Calls()
        nc = await natsproto.connect(
            where, tls=context, reconnect_wait=0.01, reconnected_cb=back, closed_cb=closed, **who
        )
        await nc.subscribe("x")
        await (back if signed else closed).until(1)
        assert nc.is_closed is not signed
        await nc.close()


async def test_encryption_that_was_there_is_not_given_up(
    make: ServerMaker, certs: Certs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the server demanded it. Whoever can answer in its place for a moment gets no password."""
    monkeypatch.setenv("SSL_CERT_FILE", certs.ca_file)
    first = make(certs)

    async def impostor(conn: ScriptedConnection) -> None:
        await conn.info()
        await conn.expect_eof()  # no CONNECT, which has the password

    lost = Calls()
    async with natsproto.connect(
        url(first, "nats"),
        user="u",
        password="CANARY",
        disconnected_cb=lost,
        reconnect_wait=0.02,
        reconnect_wait_max=0.05,
    ) as nc:
        first.kill()
        await lost.until(1)
        async with ScriptedServer(impostor, port=first.port) as there:
            await eventually(lambda: isinstance(nc.last_error, SecureConnectionRequiredError))
            with pytest.raises(NatsError):
                await nc.flush(0.3)
            assert not nc.is_connected
            await there.finished()
        first.start()
        await nc.flush()


@pytest.mark.parametrize("transport", ["buffered", "streams"])
@pytest.mark.parametrize("announced", ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"])
async def test_a_given_server_that_was_announced_through_tls_is_not_reached_in_clear(
    certs: Certs, monkeypatch: pytest.MonkeyPatch, announced: str, transport: TransportKind
) -> None:
    """Both are given as nats://, and only the first server's demand brings TLS about."""
    monkeypatch.setenv("SSL_CERT_FILE", certs.ca_file)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certs.cert_file, certs.key_file)

    async def impostor(conn: ScriptedConnection) -> None:
        await conn.info()
        await conn.expect_eof()  # no CONNECT, which has the password

    async with ScriptedServer(impostor) as other:

        async def first(conn: ScriptedConnection) -> None:
            await conn.info(tls_required=True)
            await conn.start_tls(tls)
            await conn.expect(Connect)
            await conn.expect(Ping)
            await conn.pong()
            await conn.info(tls_required=True, connect_urls=[f"{announced}:{other.port}"])
            await conn.expect("go")

        async with ScriptedServer(first, impostor) as server:
            lost = Calls()
            async with natsproto.connect(
                [f"nats://localhost:{server.port}", f"nats://localhost:{other.port}"],
                user="u",
                password="CANARY",
                randomize=False,
                transport=transport,
                disconnected_cb=lost,
                reconnect_wait=0.02,
                reconnect_wait_max=0.05,
            ) as nc:
                await nc.publish("go")
                await lost.until(1)
                await eventually(lambda: isinstance(nc.last_error, SecureConnectionRequiredError))
                with pytest.raises(NatsError):
                    await nc.flush(0.3)
                assert not nc.is_connected
            assert other.connections
            await other.finished()


@pytest.mark.parametrize("names", [("localhost", "127.0.0.1"), ("127.0.0.1", "localhost")])
async def test_a_server_that_was_reached_through_tls_is_known_by_its_other_name(
    certs: Certs, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certs.ca_file)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certs.cert_file, certs.key_file)

    async def first(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True)
        await conn.start_tls(tls)
        await conn.expect(Connect)
        await conn.expect(Ping)
        await conn.pong()
        await conn.expect("go")

    async def impostor(conn: ScriptedConnection) -> None:
        await conn.info()
        await conn.expect_eof()

    async with ScriptedServer(first, impostor) as server:
        failures = Calls()
        async with natsproto.connect(
            [f"nats://{name}:{server.port}" for name in names],
            user="u",
            password="CANARY",
            randomize=False,
            reconnect_error_cb=failures,
            reconnect_wait=0.02,
            reconnect_wait_max=0.05,
        ) as nc:
            await nc.publish("go")
            await failures.until(3)
        assert {type(error) for error in failures.items} == {SecureConnectionRequiredError}
        await server.finished()


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_tls_reconnect(make: ServerMaker, certs: Certs, context: ssl.SSLContext, how: str) -> None:
    server = make(certs)
    async with FaultProxy(server.url) as proxy:
        back = Calls()
        where = f"tls://localhost:{proxy.port}"
        async with natsproto.connect(where, tls=context, reconnected_cb=back, reconnect_wait=0.02) as nc:
            sub = await nc.subscribe("s")
            await nc.flush()
            proxy.cut() if how == "rst" else proxy.fin()
            await back.until(1)
            await nc.publish("s", bytes(100_000))
            assert len((await sub.next_msg(timeout=10)).data) == 100_000


async def test_tls_through_a_link_that_splits_everything(
    make: ServerMaker, certs: Certs, context: ssl.SSLContext
) -> None:
    server = make(certs)
    async with FaultProxy(server.url) as proxy:
        proxy.chunk = 7
        async with natsproto.connect(f"tls://localhost:{proxy.port}", tls=context) as nc:
            sub = await nc.subscribe("s")
            await nc.publish("s", bytes(5000))
            assert len((await sub.next_msg(timeout=10)).data) == 5000


async def test_tls_close_is_quick(
    make: ServerMaker, certs: Certs, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the time-out of a peer that says nothing."""
    monkeypatch.setattr("natsproto.aio.session.CLOSE_TIMEOUT", 60.0)
    server = make(certs)
    nc = await natsproto.connect(url(server), tls=context)
    start = time.monotonic()
    await nc.close()
    assert time.monotonic() - start < 5
    tasks = [task for task in asyncio.all_tasks() if "natsproto" in task.get_name()]
    assert tasks == []


async def test_cancelled_tls_connects_leave_nothing(
    make: ServerMaker, certs: Certs, context: ssl.SSLContext
) -> None:
    server = make(certs)

    async def connect() -> None:
        async with natsproto.connect(url(server), tls=context):
            pass

    for steps in range(30):
        task = asyncio.create_task(connect())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.done()
        if not task.cancelled():
            assert task.exception() is None


async def test_close_waits_for_the_session_that_lame_duck_has_left(
    certs: Certs, context: ssl.SSLContext
) -> None:
    """Its server takes no part in the end of TLS; the socket is gone all the same when close() returns."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certs.cert_file, certs.key_file)
    end = asyncio.Event()

    async def leaving(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True)
        await conn.start_tls(tls)
        await conn.expect(Connect)
        await conn.expect(Ping)
        await conn.pong()
        await conn.info(ldm=True)
        await conn.expect(Ping)
        await conn.pong()
        conn._writer.transport.pause_reading()
        await end.wait()

    async def staying(conn: ScriptedConnection) -> None:
        await conn.info(tls_required=True)
        await conn.start_tls(tls)
        await conn.serve()

    async with ScriptedServer(leaving) as old, ScriptedServer(staying) as new:
        back = Calls()
        urls = [f"tls://localhost:{server.port}" for server in (old, new)]
        nc = await natsproto.connect(urls, tls=context, randomize=False, reconnected_cb=back)
        session = nc.connection.session
        assert session is not None
        assert session.server.url == urls[0]
        assert session.transport is not None
        sock = session.transport.get_extra_info("socket")
        await back.until(1)
        assert sock.fileno() != -1
        async with asyncio.timeout(4 + 5):
            await nc.close()
        assert sock.fileno() == -1
        end.set()
