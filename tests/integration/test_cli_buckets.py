"""The commands on buckets against real servers."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore.cli.main import main

Run = Callable[..., Any]


@pytest.fixture
def run(
    server: LocalServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Run:
    """Run the command with --json; the documents it printed, those of standard error for a failure."""
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NATS_TIMEOUT", "10s")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def command(*words: str, code: int = 0) -> Any:
        found = main(["--server", server.url, "--json", *words])
        out, err = capsys.readouterr()
        assert found == code, err
        return json.loads(err if code else out)

    return command


def test_the_life_of_a_bucket(run: Run, bucket_name: str) -> None:
    words = ["bucket", "add", bucket_name, "--storage", "memory", "--ttl", "1h", "--description", "text"]
    made = run(*words)
    assert (made["ttl"], made["storage"], made["description"]) == (3600 * 10**9, "memory", "text")
    assert run(*words) == made
    refused = run("bucket", "add", bucket_name, code=4)
    assert refused["kind"] == "BucketAlreadyExistsError"
    for difference in (
        "storage is memory, not file",
        "ttl is 1h, not none",
        "description is text, not none",
    ):
        assert difference in refused["error"]
    changed = run("bucket", "edit", bucket_name, "--ttl", "0", "--max-bytes", "1GiB")
    assert (changed["ttl"], changed["max_bytes"], changed["description"]) == (0, 1 << 30, "text")
    assert run("bucket", "info", bucket_name) == changed
    assert run("bucket", "rm", bucket_name, code=2)["exit_code"] == 2  # nobody can be asked
    assert run("bucket", "seal", "-f", bucket_name)["sealed"] is True
    assert run("bucket", "edit", bucket_name, "--ttl", "2h", code=4)["kind"] == "BucketSealedError"
    assert run("bucket", "rm", "-f", bucket_name)["deleted"] is True
    assert run("bucket", "info", bucket_name, code=3)["kind"] == "BucketNotFoundError"


async def test_streams_of_others(
    run: Run, js: JetStreamContext, bucket_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are called OBJ_…, as a bucket's stream is."""
    foreign = f"{bucket_name}-foreign"
    await js.create_stream({"name": f"OBJ_{foreign}", "subjects": [f"{foreign}.>"]})
    await js.create_object_store(bucket=bucket_name)

    def commands() -> None:
        for words in (["bucket", "ls"], ["bucket", "ls", "--names"]):
            assert main(["--server", js.client.connected_url or "", *words]) == 0
            names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
            assert (bucket_name in names, foreign in names) == (True, False)
        for words in (["ls", foreign], ["bucket", "rm", "-f", foreign]):
            assert run(*words, code=2)["kind"] == "BadBucketError"

    await asyncio.to_thread(commands)
    await js.delete_stream(f"OBJ_{foreign}")


def test_features_of_newer_servers(run: Run, server: LocalServer, bucket_name: str) -> None:
    words = ["--storage", "memory", "--allow-ttl", "--allow-atomic", "--compress", "--metadata", "k=v"]
    words += ["--no-allow-direct"]
    if server.binary.version.startswith("2.9."):
        refused = run("bucket", "add", bucket_name, *words, code=1)
        assert refused["kind"] == "UnsupportedFeatureError"
        return
    made = run("bucket", "add", bucket_name, *words)
    assert (made["allow_msg_ttl"], made["allow_atomic"], made["allow_direct"]) == (True, True, False)
    assert (made["compression"], made["metadata"]) == (True, {"k": "v"})
    copy = run("bucket", "add", f"{bucket_name}-copy", "--storage", "memory", "--mirror", bucket_name)
    assert copy["mirror"] == {"bucket": bucket_name, "domain": None}
    both = run("bucket", "add", f"{bucket_name}-all", "--storage", "memory", "--source", bucket_name)
    assert both["sources"] == [{"bucket": bucket_name, "domain": None}]
    assert run("bucket", "edit", bucket_name, "--metadata", "l=w")["metadata"] == {"k": "v", "l": "w"}
    for name in (f"{bucket_name}-copy", f"{bucket_name}-all", bucket_name):
        run("rb", "-f", name)
