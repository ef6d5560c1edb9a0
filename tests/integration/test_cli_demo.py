"""``objstore demo`` from start to end, as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from objstore.cli import local
from objstore.cli.local import process_mark
from objstore.cli.main import main

WAIT = 60.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tmp").mkdir()
    path = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NATS_URL")}
    return {**kept, "PYTHONPATH": path, "TMPDIR": str(tmp_path / "tmp"), "NATS_TIMEOUT": "10s"}


def run(environment: dict[str, str], tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "objstore", *words],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )


def test_demo(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, tmp_path, "demo")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert 12 <= len(lines) <= 15, done.stdout
    found = re.search(r"nats-server ([\d.]+), pid (\d+): (\S+)", done.stdout)
    assert found is not None
    assert process_mark(int(found[2])) is None
    digest = hashlib.sha256(Path(found[3]).read_bytes()).hexdigest()
    assert f"SHA-256={digest}" in done.stdout
    store = re.search(r"nats://127\.0\.0\.1:\d+, JetStream in (\S+)", done.stdout)
    assert store is not None
    assert not os.path.exists(store[1])
    assert os.listdir(tmp_path / "tmp") == []
    for word in ("MiB/s", "identical byte for byte", "watch", "list", "was deleted", "clean-up"):
        assert word in done.stdout


def test_who_has_read_enough_does_not_end_the_demo(environment: dict[str, str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "objstore", "demo"]
    with open(writer, "wb") as output:
        done = subprocess.run(
            words, env=environment, stdout=output, stderr=subprocess.PIPE, timeout=WAIT, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_to_try_next_works_as_printed(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "a file 'of mine'.bin"
    file.write_bytes(os.urandom(3_000_000))
    done = run(environment, tmp_path, "demo", str(file))
    assert done.returncode == 0, done.stderr
    steps = [line.strip() for line in done.stdout.splitlines()[-3:]]
    for step in steps:
        last = subprocess.run(
            step, shell=True, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert last.returncode == 0, (step, last.stderr)
    assert "a file 'of mine'.bin  2.9 MiB" in last.stdout


def test_document(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 300_000)
    done = run(environment, tmp_path, "demo", "f", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["object"]["digest"] == "SHA-256=" + hashlib.sha256(b"x" * 300_000).hexdigest()
    assert document["object"]["chunks"] == 3
    assert document["put"]["bytes_per_second"] > 0
    assert document["get"]["identical"] is True
    assert document["event"]["revision"] == document["object"]["revision"]
    assert [info["name"] for info in document["list"]] == ["f"]
    assert document["delete"]["deleted"] is True
    assert document["gone"] == {"server": True, "store_dir": True}
    assert set(document["server"]) == {"binary", "version", "origin", "pid", "url", "store_dir"}
    assert len(document["next"]) == 3
    assert os.listdir(tmp_path / "tmp") == []


def test_without_a_server_binary(environment: dict[str, str], tmp_path: Path) -> None:
    program = (
        "import sys, sysconfig; sysconfig.get_path = lambda *a, **k: '/nonexistent';"
        "from objstore.cli.main import main; sys.exit(main(['demo']))"
    )
    environment = {**environment, "PATH": "/nonexistent"}
    environment.pop("NATS_SERVER_BIN", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install 'natsproto[server]'" in done.stderr


def test_a_file_that_is_not_there(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, tmp_path, "demo", "missing")
    assert done.returncode == 1
    assert done.stderr == "objstore: demo: 'missing' is not a file\n"


def test_who_took_the_servers_place_is_shown_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each connection is looked at before it is used."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(local, "peer_user", lambda *ends: os.geteuid() + 1)
    file = tmp_path / "private"
    file.write_text("private")
    assert main(["demo", str(file)]) == 5
    shown = capfd.readouterr()
    assert "another user of this machine listens" in shown.err
    assert "digest" not in shown.out
