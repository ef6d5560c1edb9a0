"""Whose process is at the other end of a connection; servers whose port another user was quicker to take."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsproto import _owner
from natsproto._owner import peer_user
from natsproto.errors import ServerProcessError
from natsproto.server import LocalCluster, LocalServer, find_server, local
from natsproto.server.process import Ports
from support.servers import old_binary
from support.sockets import reserved_port

STRANGER = 65534

linux = pytest.mark.skipif(sys.platform != "linux", reason="left out: only Linux tells who it is")
root = pytest.mark.skipif(os.geteuid() != 0, reason="left out: only root can listen as another user")

ENDS = [
    ("127.0.0.1", "127.0.0.1"),
    ("0.0.0.0", "127.0.0.1"),
    ("::1", "::1"),
    ("::", "::1"),
    ("::", "127.0.0.1"),
]
LISTEN = """
import os, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
os.setuid(65534)
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.create_server((host, port), family=family, dualstack_ipv6=host == "::") as server:
    print(server.getsockname()[1], flush=True)
    kept = []
    while True:
        kept.append(server.accept()[0])
        kept[-1].sendall(b"INFO {}\\r\\n")
"""


@pytest.fixture(params=["environment", "old"])
def binary(request: pytest.FixtureRequest) -> str:
    return find_server().path if request.param == "environment" else old_binary()


@pytest.fixture
def sleeper(tmp_path: Path) -> Path:
    """A server that never listens anywhere."""
    path = tmp_path / "nats-server"
    path.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo "nats-server: v9.9.9"; exit 0; }\nexec sleep 60\n'
    )
    path.chmod(0o755)
    return path


class Strangers:
    """Processes of another user that listen."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def listen(self, host: str, port: int = 0) -> int:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", LISTEN, host, str(port)], stdout=subprocess.PIPE
        )
        self.processes.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())


@pytest.fixture
def strangers() -> Iterator[Strangers]:
    found = Strangers()
    yield found
    for process in found.processes:
        process.kill()
        process.communicate()


@pytest.fixture
def free_port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def whose(connection: socket.socket) -> int | None:
    return peer_user(connection.getsockname(), connection.getpeername())


# --- connections ----------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize(("host", "to"), ENDS)
def test_our_own_user_once_it_was_accepted(host: str, to: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as server,
        socket.create_connection((to, server.getsockname()[1])) as connection,
    ):
        assert whose(connection) is None
        with server.accept()[0] as accepted:
            assert whose(connection) == whose(accepted) == os.geteuid()
            accepted.shutdown(socket.SHUT_WR)
            assert whose(connection) is None
        assert whose(connection) is None


@linux
@root
@pytest.mark.parametrize(("host", "to"), ENDS)
def test_another_user(strangers: Strangers, host: str, to: str) -> None:
    with socket.create_connection((to, strangers.listen(host)), timeout=15) as connection:
        assert connection.recv(100) == b"INFO {}\r\n"
        assert whose(connection) == STRANGER


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "tcp"
    empty.write_text("  sl  local_address rem_address   st tx_queue rx_queue\n")
    ends = ("127.0.0.1", 1), ("127.0.0.1", 2)
    for tables in ((str(tmp_path / "none"), str(tmp_path / "none6")), (str(empty), str(empty))):
        monkeypatch.setattr(_owner, "_TABLES", tables)
        with pytest.raises(OSError, match="own end"):
            peer_user(*ends)


# --- servers --------------------------------------------------------------------------------------


def test_another_user_is_not_taken_for_the_server(
    sleeper: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """Somebody listens there between the choice of the port and the start; here we say who he is."""
    taken: list[socket.socket] = []
    init = Ports.__init__

    def losing(self: Ports, wanted: list[tuple[str, int]]) -> None:
        init(self, wanted)
        taken.append(socket.create_server(("127.0.0.1", self.numbers[0])))

    monkeypatch.setattr(Ports, "__init__", losing)
    monkeypatch.setattr(local, "peer_user", lambda *ends: os.geteuid() + 1)
    for port, attempts in ((free_port, 1), (None, 5)):
        with pytest.raises(ServerProcessError, match=r"another user at 127\.0\.0\.1:\d+, address already"):
            LocalServer(binary=sleeper, port=port, monitoring=False).start()
        assert len({each.getsockname()[1] for each in taken}) == attempts
        while taken:
            taken.pop().close()


@linux
@root
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_a_server_finds_another_port(
    binary: str, monkeypatch: pytest.MonkeyPatch, strangers: Strangers, host: str
) -> None:
    init = Ports.__init__
    lost: list[int] = []

    def losing(self: Ports, wanted: list[tuple[str, int]]) -> None:
        init(self, wanted)
        if not lost:
            lost.append(strangers.listen(host, self.numbers[0]))

    monkeypatch.setattr(Ports, "__init__", losing)
    with LocalServer(binary=binary, monitoring=False, token="t") as server:
        assert server.port not in lost
        with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
            assert b'"server_id"' in connection.recv(4096)
            assert whose(connection) == os.geteuid()
    assert lost


def test_a_server_that_ended_meanwhile_is_not_ready(
    sleeper: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """Somebody of our own user listens there, and the server is about to say so and end."""
    server = LocalServer(binary=sleeper, port=free_port, monitoring=False)

    def ending(*ends: object) -> int:
        assert server._process is not None
        server._process.kill()
        server._process.wait()
        return os.geteuid()

    monkeypatch.setattr(local, "peer_user", ending)
    server._choose_ports()
    with (
        socket.create_server(("127.0.0.1", free_port)),
        pytest.raises(ServerProcessError, match="ended at once"),
    ):
        server.start()
    server.stop()


def test_the_servers_own_word_where_the_system_does_not_tell(
    binary: str, sleeper: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    def untold(*ends: object) -> int | None:
        raise PermissionError

    monkeypatch.setattr(local, "peer_user", untold)
    with LocalServer(binary=binary, monitoring=False) as server:
        port = server.port
        server.kill()
        assert server.start().port == port
    server = LocalServer(binary=sleeper, port=free_port, monitoring=False, start_timeout=0.5)
    server._choose_ports()
    with (
        socket.create_server(("127.0.0.1", free_port)),
        pytest.raises(ServerProcessError, match=r"not ready after 0\.5 s"),
    ):
        server.start()
    server.stop()


@pytest.mark.cluster
def test_a_cluster_finds_other_ports(binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def stranger_first(ours: tuple[str, int], peer: tuple[str, int]) -> int:
        asked.append(peer[1])
        return os.geteuid() + (len(asked) == 1)

    monkeypatch.setattr(local, "peer_user", stranger_first)
    with LocalCluster(2, binary=binary, jetstream=False) as cluster:
        assert {server.port for server in cluster.servers} == set(asked[1:])
        assert asked[0] not in asked[1:]
