"""``server``: what it refuses, what it prints, and when it ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from objstore.cli import server as module
from objstore.cli.local import LocalDirectory
from objstore.cli.output import CommandError, Output
from objstore.cli.parser import parse
from support.waits import eventually

RUNNING: Any = SimpleNamespace(version="2.15.1", pid=7, running=True, log=lambda lines: "the last words")


@pytest.mark.parametrize("option", ["--server=u", "--local=d", "--context=c"])
def test_options_that_do_not_apply(option: str) -> None:
    with pytest.raises(CommandError, match="it is the server") as told:
        module.check(parse(["server", option]))
    assert told.value.code == 2
    module.check(parse(["server", "d", "--port", "4222"]))


@pytest.mark.parametrize("plain", [True, False])
def test_how_to_connect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = LocalDirectory("my store")
    directory.url = "nats://token@127.0.0.1:4222"
    out = Output(json=not plain)
    module._tell(directory, RUNNING, out)
    out.deliver()
    text = capsys.readouterr().out
    if plain:
        assert "export NATS_URL=nats://token@127.0.0.1:4222" in text
        assert "objstore --local 'my store' ls" in text
        return
    assert json.loads(text) == {
        "url": "nats://token@127.0.0.1:4222",
        "directory": str(tmp_path / "my store"),
        "pid": 7,
        "version": "2.15.1",
    }


async def test_it_runs_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.001)
    looks = 0

    class Running(SimpleNamespace):
        @property
        def running(self) -> bool:
            nonlocal looks
            looks += 1
            return True

    stop = asyncio.Event()
    waiting = asyncio.create_task(module._until(stop, Running()))  # type: ignore[arg-type]
    await eventually(lambda: looks > 2)
    stop.set()
    await waiting


async def test_a_server_that_ends_by_itself() -> None:
    ended: Any = SimpleNamespace(running=False, log=lambda lines: "the last words")
    with pytest.raises(CommandError, match="nats-server has ended: the last words") as told:
        await module._until(asyncio.Event(), ended)
    assert told.value.code == 5
