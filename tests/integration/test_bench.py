"""The benchmark command: what it prints, keeps and removes, and what bad input gets. No rate is looked at."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import natsproto
from bench import charts, scale, suites
from bench.contestants import Contestant, Figures, LeftOut
from bench.rows import Row, Settings, _samples
from bench.targets import Targets
from natsproto.server import LocalServer
from support.skips import left_out, missing

pytestmark = pytest.mark.bench

ROOT = Path(__file__).resolve().parents[2]
WAIT = 120.0


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options
    )


def bench(*words: str, code: int = 0, **options: Any) -> tuple[str, str]:
    with start(*words, **options) as process:
        out, err = process.communicate(timeout=WAIT)
    assert process.returncode == code, (out, err)
    return out, err


def one_line(err: str) -> str:
    assert err.count("\n") == 1, err
    assert err.startswith("bench: ")
    return err


async def buckets(server: LocalServer) -> list[str]:
    async with natsproto.connect(server.url) as nc:
        return [name for name in await nc.jetstream().object_store_names() if name.startswith("bench-")]


async def test_a_run_prints_keeps_and_removes(server: LocalServer, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    words = ["--size", "1KiB", "--concurrency", "1", "4", "--url", server.url, "--json", str(result)]
    clients = ["--clients", "natsproto,nats-py,natsio"]
    out, err = bench("e2e", "--work", "put", "get", "range", "list", *words, *clients, "--quick")
    assert err == ""
    assert "natsio                       left out: needs Python >= 3.13" in out
    found = json.loads(result.read_text())
    assert {"cpu", "cores", "kernel", "python", "revision", "date"} <= set(found["machine"])
    assert [row["title"] for row in found["rows"]] == [
        "put 1 KiB",
        "put 1 KiB, 4 at once",
        "get 1 KiB",
        "get 1 KiB, 4 at once",
        "1 MiB out of 2 MiB",
        "list 20",
    ]
    for row in found["rows"]:
        assert row["server"]["version"] == server.version
        assert row["summary"]["natsproto"]["median"] > 0
        assert row["clients"]["natsproto"]["version"] == natsproto.__version__
    assert "nats-py" in found["rows"][0]["summary"]
    assert await buckets(server) == []

    out, _ = bench("compare", str(result), str(result))
    assert "put 1 KiB, 4 at once" in out
    assert "1.00x as fast" in out
    out, _ = bench("table", str(result))
    assert out.startswith("| | natsproto | nats-py |")


def test_growth_is_drawn(server: LocalServer, tmp_path: Path) -> None:
    bench("growth", "--quick", "--only", "put,get,list", "--url", server.url, "--charts", str(tmp_path))
    for path in ("growth-rates.svg", "growth-lists.svg"):
        text = (tmp_path / path).read_text()
        assert "<svg" in text
        assert "<script" not in text


def test_titles_say_what_is_really_run() -> None:
    whole = {
        "reach": suites.reach(),
        "factors": suites.factors(),
        "growth": suites.growth(),
        "scale": scale.rows(),
    }
    for suite, rows in whole.items():
        kept = json.loads((ROOT / "bench" / "results" / f"{suite}.json").read_text())
        assert [row.name for row in rows] == [row["title"] for row in kept["rows"]], suite
    quick = {row.key: suites.tiny(row).name for row in suites.reach()}
    assert quick["put-100m"] == "put 2 MiB from bytes"
    assert quick["memory-get"] == "memory, read of 2 MiB"
    assert quick["put-1k-32"] == "put 1 KiB, 4 at once"
    assert quick["list-10k"] == "list 20"
    assert suites.tiny(suites.works(["range"], sizes=[1 << 30])[0]).name == "1 MiB out of 2 MiB"


def test_bars_begin_where_both_are_as_fast(tmp_path: Path) -> None:
    found = json.loads((ROOT / "bench" / "results" / "reach.json").read_text())
    (path,) = charts.draw(found, tmp_path / "new")
    bars = re.findall(r'<rect x="([\d.]+)"[^>]*class="rect', path.read_text())
    assert len(bars) > 30
    assert set(bars) == {"0.0"}  # ours is faster everywhere: the axis begins there, too


async def test_an_interrupted_run_cleans_up(server: LocalServer) -> None:
    words = ("--work", "put", "--size", "1KiB", "--clients", "natsproto", "--runs", "10000")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignored"
        with start("e2e", *words, "--url", server.url) as process:
            deadline = time.monotonic() + WAIT
            while not await buckets(server):
                assert process.poll() is None
                assert time.monotonic() < deadline
            process.send_signal(number)
            _, err = process.communicate(timeout=WAIT)
        assert process.returncode == 130
        assert err == "bench: interrupted\n"
        assert await buckets(server) == []


class TestBadInput:
    def test_no_server(self) -> None:
        _, err = bench("e2e", "--url", "nats://127.0.0.1:1", code=1)
        assert "no NATS server answers at nats://127.0.0.1:1" in one_line(err)

    def test_no_binary(self) -> None:
        _, err = bench("e2e", "--server-binary", "/nowhere/nats-server", code=1)
        assert "/nowhere/nats-server" in one_line(err)

    def test_too_little_disk(self, tmp_path: Path) -> None:
        if os.geteuid() or not Path("/dev/shm").is_dir():
            missing("root, for a file system of its own size,")
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "none", str(small)])
        if mounted.returncode:
            left_out("no file system can be mounted here")
        try:
            environment = {**os.environ, "TMPDIR": str(small)}
            _, err = bench("e2e", "--work", "put", code=1, env=environment)
        finally:
            subprocess.run(["umount", str(small)], check=True)
        assert "MiB free and" in one_line(err)

    def test_no_interpreter(self, server: LocalServer) -> None:
        words = ["--work", "put", "--quick", "--url", server.url, "--clients", "natsproto,natsio"]
        out, _ = bench("e2e", *words, "--natsio-python", "/nowhere/python")
        assert "left out: /nowhere/python cannot be run" in out

    def test_a_peer_that_is_not_installed(self, server: LocalServer) -> None:
        words = ["--work", "put", "--quick", "--url", server.url, "--clients", "natsproto,natsio"]
        out, _ = bench("e2e", *words, "--natsio-python", sys.executable)
        assert "left out: not installed" in out

    @pytest.mark.parametrize("words", [("compare", "nothing", "nothing"), ("chart", "nothing")])
    def test_no_result(self, words: tuple[str, ...]) -> None:
        _, err = bench(*words, code=1)
        assert "nothing cannot be read" in one_line(err)

    def test_another_file(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        for text in ("{", "[]", '{"rows": []}'):
            path.write_text(text)
            _, err = bench("table", str(path), code=1)
            assert str(path) in one_line(err)

    def test_no_such_row(self) -> None:
        _, err = bench("reach", "--only", "nothing", code=1)
        assert "no row's key begins with 'nothing'" in one_line(err)

    @pytest.mark.parametrize(
        "words", [("--size", "1XB"), ("--runs", "0"), ("--work", "none"), ("--url", "a", "--local")]
    )
    def test_usage(self, words: tuple[str, ...]) -> None:
        _, err = bench("e2e", *words, code=2)
        assert "usage: python -m bench" in err


@pytest.mark.parametrize("words", [("compare", "RESULT", "RESULT"), ("e2e", "--quick", "--work", "names")])
def test_a_reader_that_has_enough(words: tuple[str, ...]) -> None:
    """As ``| head``: no traceback, and no success either."""
    result = str(ROOT / "bench" / "results" / "reach.json")
    with start(*(result if word == "RESULT" else word for word in words)) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(WAIT) == 1


def test_in_each_round_another_one_begins() -> None:
    order: list[str] = []

    class Recorder:
        def join(self, contestants: list[Contestant]) -> list[Contestant]:
            return contestants

        def measure(self, contestant: Contestant, work: str, options: dict[str, Any]) -> Figures:
            order.append(contestant.label)
            if order.count("b") == 3 and contestant.label == "b":  # once to warm up, twice for the table
                raise LeftOut("it had enough")
            return {"seconds": 1.0}

    contestants = [Contestant(label, label) for label in "abc"]
    row = Row("parse", "parser", "parse", {"size": 16, "count": 1}, contestants)
    crew: Any = Recorder()
    samples = _samples(row, Settings(Targets("local"), 4), crew, contestants, "", "")
    assert "".join(order) == "abc" + "abc" + "bca" + "ac" + "ca"
    assert {label: len(found) for label, found in samples.items()} == {"a": 4, "c": 4}
