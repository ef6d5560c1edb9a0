"""``objstore doctor`` against real servers: all is well, nothing is there, rights are missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natsproto.server import LocalServer
from objstore.cli.main import main

Examine = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Examine:
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATS_TIMEOUT", "10s")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*words: str, code: int = 0) -> dict[str, dict[str, Any]]:
        found = main(["doctor", "--json", *words])
        out, err = capsys.readouterr()
        assert found == code, out + err
        if code:
            assert json.loads(err.splitlines()[-1])["exit_code"] == code
        return {check["check"]: check for check in map(json.loads, out.splitlines())}

    return run


def test_all_is_well(examine: Examine, server: LocalServer) -> None:
    checks = examine("-s", server.url)
    assert {check["result"] for check in checks.values()} == {"ok"}, checks
    assert server.version in checks["server version"]["detail"]
    assert checks.keys() >= {
        "round trip",
        "JetStream limits",
        "clock",
        "put",
        "purge chunks",
        "delete a bucket",
    }


def test_nobody_is_there(examine: Examine) -> None:
    checks = examine("-s", "nats://127.0.0.1:1", code=5)
    assert list(checks) == ["software", "reachability"]
    assert "nats-server -js" in checks["reachability"]["detail"]


def test_without_jetstream(examine: Examine, server: LocalServer) -> None:
    with LocalServer(binary=server.binary.path, jetstream=False) as bare:
        checks = examine("-s", bare.url, code=1)
    assert "nats-server -js" in checks["JetStream"]["detail"]


def test_rights(examine: Examine, server: LocalServer) -> None:
    """A reader learns what it may do with a bucket, and that it may do no more."""
    allowed = [
        "$JS.API.STREAM.INFO.OBJ_b",
        "$JS.API.DIRECT.GET.OBJ_b",
        "$JS.API.CONSUMER.*.OBJ_b.>",
        "$JS.FC.>",
    ]
    users = f"""users: [ {{ user: all, password: p }}
        {{ user: reader, password: p, permissions: {{ publish: {json.dumps(allowed)} }} }} ]"""
    with LocalServer(
        binary=server.binary.path, config=f"accounts {{ A {{ jetstream: enabled, {users} }} }}"
    ) as strict:
        host = strict.url.removeprefix("nats://")
        assert main(["-s", f"nats://all:p@{host}", "-q", "bucket", "add", "b"]) == 0
        checks = examine("-q", "-s", f"nats://reader:p@{host}", "b", code=6)
        results = {name: check["result"] for name, check in checks.items()}
        assert results["list buckets"] == results["put"] == results["purge chunks"] == "fails"
        assert results["open the bucket"] == results["list objects"] == results["watch"] == "ok"
        assert results["JetStream limits"] == "note"
        refused = examine("-q", "-s", f"nats://other:p@{host}", code=6)
        assert refused["reachability"]["exit_code"] == 6
