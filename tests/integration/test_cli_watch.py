"""``objstore watch`` and ``purge-deleted`` against real servers of both ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natsproto.server import LocalServer
from objstore.cli.main import main

Run = Callable[..., list[Any]]


@pytest.fixture
def run(
    server: LocalServer,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Run:
    """Run the command with --json; the documents that it printed, one per line."""
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATS_TIMEOUT", "10s")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> list[Any]:
        code = main(["--server", server.url, "--json", *words])
        out, err = capfd.readouterr()
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()] if words[0] == "watch" else [json.loads(out)]

    return command


def test_changes(run: Run, bucket_name: str, tmp_path: Path) -> None:
    run("bucket", "add", bucket_name, "--storage", "memory")
    Path("f").write_bytes(b"x")
    for name in ("a/1", "a/2", "b"):
        run("put", bucket_name, "f", "--name", name)
    run("rm", "-f", bucket_name, "a/1")
    seen = run("watch", bucket_name, "--all", "--count", "3")
    assert {each["name"]: each["deleted"] for each in seen} == {"a/1": True, "a/2": False, "b": False}
    (last,) = run("watch", bucket_name, "a/", "--from-revision", str(seen[-1]["revision"]), "--count", "1")
    assert (last["name"], last["deleted"]) == ("a/1", True)
    words = [
        "--all",
        "--ignore-deletes",
        "--count",
        "2",
        "--exec",
        'cat > "$(basename "$OBJSTORE_NAME").json"',
    ]
    assert run("watch", bucket_name, *words) == []
    assert json.loads((tmp_path / "2.json").read_text())["name"] == "a/2"
    assert run("purge-deleted", bucket_name) == [{"bucket": bucket_name, "removed": 0}]  # it is too young
    run("rb", "-f", bucket_name)
