"""With ``--json``, a JSON reader understands everything that every command prints, on both streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from objstore.cli.main import main
from objstore.cli.table import COMMANDS
from support.memory_server import MemoryServer

LINES = ("ls", "bucket ls", "watch", "doctor")
"""What lists or streams: one document per line."""

ONE = {
    "put": ["b", "file"],
    "get": ["b", "n\x1b\n", "-O", "out"],
    "info": ["b", "n\x1b\n"],
    "rm": ["-f", "b", "n\x1b\n"],
    "bucket add": ["c"],
    "bucket info": ["b"],
    "bucket edit": ["b", "--description", "d"],
    "bucket seal": ["-f", "b"],
    "bucket rm": ["-f", "b"],
    "verify": ["b"],
    "gc": ["b"],
    "purge-deleted": ["b"],
}
"""What answers with one document."""

ELSEWHERE = {"demo", "server", "completion"}
"""The first two have servers of their own and tests of their own; a script for a shell is no document."""


@pytest.fixture
async def command(server: MemoryServer, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    store = await server.bucket()
    for name in ("n\x1b\n", "\u2028", "z"):
        await store.put(name, b"y")
    return command


@pytest.mark.parametrize("name", LINES)
async def test_one_document_per_line(command: Any, name: str) -> None:
    words = {"ls": ["b"], "watch": ["b", "--all", "--count", "3"]}.get(name, [])
    out, err = await command(*name.split(), *words, "--json")
    lines = out.split("\n")
    assert lines.pop() == ""
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict)
    assert err == ""


@pytest.mark.parametrize("name", ONE)
async def test_one_document(command: Any, name: str) -> None:
    out, err = await command(*name.split(), *ONE[name], "--json")
    assert isinstance(json.loads(out), dict)
    assert err == ""


def test_every_command_is_one_or_the_other() -> None:
    done_elsewhere = {name for name in COMMANDS if name not in (*LINES, *ONE)}
    assert done_elsewhere >= ELSEWHERE


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ELSEWHERE])
def test_an_error_is_one_object(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_TIMEOUT", "1s")
    words = [*name.split(), "--json", "-s", "nats://127.0.0.1:1"]
    for more, code in ((["--nonsense"], 2), (["a b", "c"], 2)):
        assert main([*words, *more]) in (code, 1, 5)
        out, err = capsys.readouterr()
        document = json.loads(err)
        assert document.keys() == {"error", "kind", "exit_code"}
        for line in out.splitlines():
            json.loads(line)
