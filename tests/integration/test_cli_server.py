"""``objstore server``: others find it, it ends on Ctrl-C, and the data is kept."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from objstore.cli.main import main

WAIT = 60.0
Start = Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start ``objstore server``; the process, and what it says of itself."""
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:

        def begin(*words: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "objstore", "server", "--json", *words],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            return process, json.loads(process.stdout.readline())

        yield begin


def ended(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> str:
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, out) == (0, ""), err
    return err


def test_its_life(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process, told = start("data")
    assert told["directory"] == str(tmp_path / "data")
    assert main(["--local", "data", "bucket", "add", "b"]) == 0
    assert main(["-s", told["url"], "put", "b", __file__, "--name", "n"]) == 0
    capsys.readouterr()
    assert main(["server", "data", "--json"]) == 4
    assert "is served by process" in json.loads(capsys.readouterr().err)["error"]
    ended(process)
    again, told_again = start("data")
    assert told_again["url"].rpartition(":")[2] == told["url"].rpartition(":")[2]  # the port
    assert told_again["url"] != told["url"]
    assert main(["--local", "data", "ls", "b", "-n"]) == 0
    assert capsys.readouterr().out == "n\n"
    ended(again, signal.SIGTERM)


def test_a_port(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["server", "data", "--port", str(taken.getsockname()[1])]) == 1
    assert "is already in use" in capsys.readouterr().err
    process, told = start("data")
    port = told["url"].rpartition(":")[2]
    ended(process)
    process, told = start("other", "--port", port)
    assert told["url"].endswith(f":{port}")
    ended(process)


def test_a_server_that_dies(start: Start) -> None:
    process, told = start("data")
    os.kill(told["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=WAIT)
    assert process.returncode == 5
    assert "nats-server has ended" in json.loads(err)["error"]
