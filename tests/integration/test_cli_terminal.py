"""The command on a terminal: questions, the bar, Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

import natsproto
from natsproto.server import LocalServer
from support.skips import left_out
from support.terminal import Terminal
from support.waits import eventually_here


@pytest.fixture
def run(new_server: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Terminal]:
    for name in [name for name in os.environ if name.startswith("NATS_") and name != "NATS_SERVER_BIN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("NATS_URL", new_server.url)
    monkeypatch.setenv("NATS_TIMEOUT", "10s")
    monkeypatch.chdir(tmp_path)
    return partial(Terminal, sys.executable, "-m", "objstore")


def consumers(url: str, bucket: str) -> list[str]:
    async def names() -> list[str]:
        async with natsproto.connect(url) as client:
            return await client.jetstream().consumer_names(f"OBJ_{bucket}")

    return asyncio.run(names())


def test_what_cannot_be_undone_asks(run: Callable[..., Terminal], bucket_name: str) -> None:
    with run("bucket", "add", bucket_name, "--storage", "memory") as added:
        assert added.ended() == 0
        assert f"bucket '{bucket_name}' is ready" in added.text
    with run("bucket", "rm", bucket_name) as asked:
        asked.see(f"Delete bucket '{bucket_name}' with everything in it? [y/N] ")
        asked.type("\n")
        assert asked.ended() == 1
        assert "nothing was deleted" in asked.text
    with run("bucket", "rm", bucket_name) as interrupted:
        interrupted.see("[y/N] ")
        interrupted.type("\x03")
        assert interrupted.ended() == 130
        assert "objstore: interrupted" in interrupted.text
    with run("rb", bucket_name) as asked:
        asked.see("[y/N] ")
        asked.type("y\n")
        assert asked.ended() == 0


def test_the_bar(run: Callable[..., Terminal], bucket_name: str) -> None:
    if find_spec("tqdm") is None:
        left_out("tqdm is in the extra 'progress'")
    Path("big").write_bytes(bytes(9 << 20))
    with run("mb", bucket_name, "--storage", "memory") as added:
        assert added.ended() == 0
    for words, columns, done in (
        (["put", bucket_name, "big"], 100, "stored"),
        (["get", bucket_name, "big", "-f"], 0, "wrote"),
    ):
        with run(*words, columns=columns) as shown:
            assert shown.ended() == 0
            assert "big: 100%|" in shown.text
            assert "9.00M/9.00M" in shown.text
            assert "B/s]" in shown.text
            assert shown.text.rstrip().rpartition("\r")[2].startswith(f"{done} 'big'")
    with run("rb", "-f", bucket_name) as removed:
        assert removed.ended() == 0


def test_a_watch_ends_on_control_c(
    run: Callable[..., Terminal], new_server: LocalServer, bucket_name: str
) -> None:
    with run("mb", bucket_name, "--storage", "memory") as added:
        assert added.ended() == 0
    Path("f\x1b").touch()
    with run("watch", bucket_name) as watching:
        eventually_here(lambda: consumers(new_server.url, bucket_name))
        with run("put", bucket_name, "f\x1b") as stored:
            assert stored.ended() == 0
        watching.see("PUT         0 B  f\\x1b")
        watching.type("\x03")
        assert watching.ended() == 130
        assert "objstore: interrupted" in watching.text
    assert consumers(new_server.url, bucket_name) == []
    with run("rb", "-f", bucket_name) as removed:
        assert removed.ended() == 0


def test_objects_on_a_terminal(run: Callable[..., Terminal], bucket_name: str, tmp_path: Path) -> None:
    """Names act on no terminal, ``rm`` asks once for all, and one bar shows several transfers."""
    evil = "evil\x1b[2J\rname"
    for name in ("a", "b", evil):
        (tmp_path / "files" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "files" / name).write_bytes(bytes(3_000_000))
    place = f"natsobj://{bucket_name}/dir/"
    for words in (["bucket", "add", bucket_name, "--storage", "memory"], ["sync", "files", place]):
        with run(*words) as done:
            assert done.ended() == 0, done.text
    assert "evil\\x1b[2J\\rname" in done.text
    assert "stored 3 files" in done.text
    for words in (
        ["ls", "-r", bucket_name],
        ["ls", "-rn", bucket_name],
        ["find", bucket_name],
        ["sync", place, "x"],
    ):
        with run(*words) as shown:
            shown.ended()
        assert "evil\\x1b[2J\\rname" in shown.text
        assert "evil\x1b" not in shown.text
    assert sorted(os.listdir(tmp_path / "x")) == ["a", "b"]
    with run("rm", "-r", bucket_name, "dir") as asked:
        asked.see(f"Delete 'dir' and everything below from bucket '{bucket_name}'? [y/N] ")
        asked.type("y\n")
        assert asked.ended() == 0
    assert asked.text.count("[y/N]") == 1
    assert "deleted 3 objects" in asked.text
