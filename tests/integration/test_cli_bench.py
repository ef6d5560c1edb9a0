"""``objstore bench`` as a user runs it: what it prints and keeps, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import natsproto
from natsproto.server import LocalServer
from objstore.bench.messages import Request
from objstore.bench.payloads import Payloads
from objstore.bench.settings import Settings
from objstore.bench.sizes import Part, Sizes
from objstore.cli.main import main
from support.imports import ROOT
from support.waits import eventually_here

WAIT = 60.0
FEW = ("--warmup", "0", "--count", "6")

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], server: LocalServer) -> Run:
    def run(*words: str, code: int = 0) -> tuple[str, str]:
        assert main(["bench", *words, "--server", server.url]) == code, capsys.readouterr().err
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


def buckets(server: LocalServer) -> list[str]:
    async def names() -> list[str]:
        async with natsproto.connect(server.url) as nc:
            return await nc.jetstream().object_store_names()

    return [name for name in asyncio.run(names()) if name.startswith("bench-")]


@pytest.mark.parametrize(
    "words",
    [
        "put --size 4KiB:80,300KiB:20 --concurrency 2",
        "put --size 17MiB --count 1",
        "put --objects 2 --chunk-size 64KiB --storage memory",
        "get --size 1KiB-300KiB --objects 4 --concurrency 2",
        "get --size 10KiB --objects 4 --rate 100",
        "range --size 1MiB --range-size 100KiB --objects 2",
        "range --size 17MiB --range-size 2MiB --objects 1",
        "list --objects 20",
        "mixed --size 4KiB --objects 20 --count 60 --concurrency 4",
        "core publish --count 3000",
        "core sub --count 3000 --concurrency 2",
        "core req --size 1KiB --concurrency 2",
    ],
)
def test_each_load(run: Run, server: LocalServer, words: str) -> None:
    name, *others = words.split()
    out, err = run(name, *FEW, *others)
    assert err == ""
    assert "errors      none" in out
    assert f"nats-server {server.version} at {server.url}" in out
    assert buckets(server) == []


def test_several_processes(run: Run, server: LocalServer, tmp_path: Path) -> None:
    path = tmp_path / "figures.csv"
    words = ("--processes", "2", "--size", "10KiB", "--objects", "4", "--csv", str(path))
    out, err = run("get", *FEW, *words)
    assert err == ""
    assert "get 10KiB, 2 at a time, 2 processes" in out
    rows = [line.split(",") for line in path.read_text().splitlines()]
    assert [(row[1], row[2]) for row in rows[1:]] == [("P0", "3"), ("P1", "3"), ("all", "6")]
    assert buckets(server) == []


def test_two_results_are_compared(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    words = ("--duration", "3s", "--warmup", "0", "--size", "1KiB", "--objects", "4")
    out, _ = run("get", *words, "--json")
    path.write_text(out)
    assert main(["bench", "compare", str(path), str(path)]) == 0
    out = capsys.readouterr().out
    assert out.count("within noise") >= 5
    assert "get    p99" in out


def test_an_error_of_the_server_is_reported(
    run: Run, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = run("core", "pub", "--size", "2MiB", code=2)
    assert err == "objstore: bench core: the server takes messages of at most 1048576 bytes\n"
    _, err = run("put", "--replicas", "3", code=2)
    assert err.count("\n") == 1
    assert buckets(server) == []
    assert main(["bench", "put", "--server", "nats://127.0.0.1:1"]) == 5
    assert "cannot reach nats://127.0.0.1:1" in capsys.readouterr().err


def test_the_commands_of_the_page_run(
    server: LocalServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As written, but shorter, and with fewer objects."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NATS_URL", server.url)
    page = (ROOT / "docs" / "bench.md").read_text()
    rows = re.findall(r"^\$ objstore (bench .*)$", page, re.MULTILINE)
    assert len(rows) >= 7
    for row in rows:
        command, _, file = row.partition(" | tee -a ")
        words = command.split()
        if words[1] != "compare":
            words += ["--warmup", "0", "--count", "20"]
            words += ["--objects", "4"] if words[1] == "get" else []
        assert main(words) == 0, row
        out = capsys.readouterr().out
        assert out
        if file:
            with open(file, "a") as kept:
                kept.write(out)
    assert buckets(server) == []


def start(server: LocalServer, *words: str, **options: int) -> subprocess.Popen[str]:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignored"
    command = [sys.executable, "-m", "objstore", "bench", *words, "--server", server.url]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        **{"stderr": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(server: LocalServer, processes: str, number: signal.Signals) -> None:
    words = ("--size", "100KiB", "--duration", "1h", "--processes", processes)
    with start(server, "put", *words) as process:
        eventually_here(lambda: buckets(server) or process.poll() is not None)
        process.send_signal(number)
        out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, out, err) == (130, "", "objstore: interrupted\n")
    assert buckets(server) == []


def test_processes_end_with_a_command_that_is_killed(server: LocalServer) -> None:
    with start(server, "put", "--duration", "1h", "--processes", "2") as process:
        eventually_here(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        process.kill()
        process.wait(WAIT)
        eventually_here(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    remove(server)


def children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


def remove(server: LocalServer) -> None:
    """The bucket that a killed command leaves behind."""

    async def remove() -> None:
        async with natsproto.connect(server.url) as nc:
            for name in buckets_left:
                await nc.jetstream().delete_object_store(name)

    buckets_left = buckets(server)
    asyncio.run(remove())


def test_a_live_line_on_a_terminal(server: LocalServer) -> None:
    terminal, end = pty.openpty()
    words = ("--size", "10KiB", "--duration", "600ms", "--warmup", "0", "--objects", "4")
    with start(server, "get", *words, stderr=end) as process:
        out, _ = process.communicate(timeout=WAIT)
    os.close(end)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert process.returncode == 0
    assert "\r\x1b[Kget 10KiB  storing 4 objects" in shown
    assert "get 10KiB  measuring 0 s  " in shown
    assert shown.endswith("\r\x1b[K")
    assert "errors      none" in out


async def test_the_responder_does_not_act_for_others(server: LocalServer) -> None:
    """A fellow client sees the requests, and sends one of its own: the answer would delete a stream."""
    settings = Settings("request", Sizes([Part(16, 16, 1)], "16"))
    async with (
        natsproto.connect(server.url) as nc,
        natsproto.connect(server.url) as fellow,
        AsyncExitStack() as stack,
    ):
        js = nc.jetstream()
        await js.create_stream({"name": "bench-victim", "subjects": ["bench.victim"], "storage": "memory"})
        work = Request(nc, settings, Payloads(1, 16), "bench.request")
        await work.open(stack)
        await fellow.publish("bench.request.echo", b"{}", reply="$JS.API.STREAM.DELETE.bench-victim")
        await fellow.flush()
        await work.next(0)[1]()  # it answers its own, after that one
        assert await js.delete_stream("bench-victim") is None
