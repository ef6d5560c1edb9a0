"""TLS: a certificate counts for the names and addresses among its alternative names, and for no other."""

from __future__ import annotations

import re
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

import natsproto
from natsproto.errors import NatsError, NoServersError, SecureConnectionRequiredError
from natsproto.testing import ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from support.certs import make_certs
from support.tls import ServerMaker, made_servers, url

make = pytest.fixture(made_servers)


async def test_a_common_name_alone_is_no_name(make: ServerMaker, tmp_path: Path) -> None:
    certs = make_certs(tmp_path, hosts=(), name="localhost")
    server = make(certs)
    mine = ssl.create_default_context(cafile=certs.ca_file)
    with pytest.raises(SecureConnectionRequiredError, match="alternative name"):
        await natsproto.connect(url(server), tls=mine)
    mine.check_hostname = False  # who asks for no name gets none checked
    async with natsproto.connect(url(server), tls=mine) as nc:
        await nc.flush()


async def test_a_common_name_alone_at_a_server_that_listens_first(tmp_path: Path) -> None:
    certs = make_certs(tmp_path, hosts=(), name="localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certs.cert_file, certs.key_file)

    async def script(conn: ScriptedConnection) -> None:
        await conn.start_tls(tls)
        await conn.info()
        await conn.expect_eof()  # no CONNECT

    mine = ssl.create_default_context(cafile=certs.ca_file)
    async with ScriptedServer(script) as server:
        with pytest.raises(SecureConnectionRequiredError, match="alternative name"):
            await natsproto.connect(f"tls://localhost:{server.port}", tls=mine, tls_first=True)
        await server.finished()


OTHER_KINDS = [
    x509.IPAddress(ip_address("10.9.8.7")),
    x509.RFC822Name("eve@example.org"),
    x509.UniformResourceIdentifier("https://eve.example.org"),
    x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
    x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])),
    x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x09localhost"),
]


@pytest.mark.parametrize("how", ["upgrade", "first", "websocket"])
@pytest.mark.parametrize("other", OTHER_KINDS, ids=lambda one: type(one).__name__)
async def test_a_common_name_beside_names_of_other_kinds_is_no_name(
    other: x509.GeneralName, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL goes back to the common name for as long as there is no DNS name."""
    websockets = pytest.importorskip("websockets.utils") if how == "websocket" else None
    certs = make_certs(tmp_path, hosts=(other,), name="localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certs.cert_file, certs.key_file)

    async def script(conn: ScriptedConnection) -> None:
        if how == "upgrade":
            await conn.info(tls_required=True)
        await conn.start_tls(tls)
        if how == "first":
            await conn.info()
        if how == "websocket":
            request = await conn._reader.readuntil(b"\r\n\r\n")
            key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
            assert key is not None
            accept = websockets.accept_key(key[1].decode())
            await conn.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
            )
        await conn.expect_eof()  # no CONNECT

    async def impostor(conn: ScriptedConnection) -> None:
        """Refused within the handshake."""
        if how == "upgrade":
            await conn.info(tls_required=True)
        with pytest.raises(OSError):
            await conn.start_tls(tls)

    async def connect(port: int, **options: Any) -> None:
        scheme = "wss" if how == "websocket" else "tls"
        where = f"{scheme}://localhost:{port}"
        async with natsproto.connect(where, tls_first=how == "first", user="u", password="p", **options):
            pytest.fail("connected")

    mine = ssl.create_default_context(cafile=certs.ca_file)
    async with ScriptedServer(script) as server:
        with pytest.raises(SecureConnectionRequiredError, match="alternative name"):
            await connect(server.port, tls=mine)
        await server.finished()
    assert mine.hostname_checks_common_name  # it is the caller's
    monkeypatch.setenv("SSL_CERT_FILE", certs.ca_file)
    async with ScriptedServer(impostor) as server:
        with pytest.raises(NoServersError, match="certificate not accepted"):
            await connect(server.port)
        await server.finished()


@pytest.mark.parametrize(
    ("hostname", "hosts", "accepted"),
    [
        ("127.0.0.1", ("127.0.0.1",), True),
        ("::1", ("::1",), True),
        ("localhost", ("10.9.8.7", "localhost"), True),
        ("127.0.0.1", ("localhost",), False),
        ("127.0.0.1", ("10.9.8.7",), False),
        ("localhost", ("127.0.0.1",), False),
        ("fe80::1%eth0", ("fe80::1",), False),  # to OpenSSL no address, so the common name would do
        ("127.0.0.01", ("127.0.0.2",), False),
    ],
)
async def test_names_and_addresses_have_their_own_alternative_names(
    hostname: str, hosts: tuple[str, ...], accepted: bool, make: ServerMaker, tmp_path: Path
) -> None:
    certs = make_certs(tmp_path, hosts=hosts, name=hostname)
    server = make(certs)
    mine = ssl.create_default_context(cafile=certs.ca_file)
    if accepted:
        async with natsproto.connect(url(server), tls=mine, tls_hostname=hostname) as nc:
            await nc.flush()
    else:
        with pytest.raises(NatsError, match="certificate"):
            await natsproto.connect(url(server), tls=mine, tls_hostname=hostname)
