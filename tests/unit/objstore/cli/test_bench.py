"""``bench`` on a server in this process: what is asked for, printed, kept and refused."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.errors import RequestTimeoutError
from objstore import ObjectStore
from objstore.bench import run as running
from objstore.bench.record import Totals
from objstore.cli import bench
from objstore.cli.output import CommandError, Output
from objstore.cli.parser import parse
from objstore.errors import IntegrityError
from support.bench_results import result, steady
from support.memory_server import MemoryServer

from .conftest import Command

FEW = ("--count", "5", "--warmup", "0", "--size", "1KiB")


@pytest.mark.parametrize("load", ["put", "get", "range", "list", "mixed"])
async def test_a_report(command: Command, server: MemoryServer, load: str) -> None:
    out, err = await command("bench", load, *FEW, "--objects", "4", "--concurrency", "2")
    assert err == ""
    assert out.startswith(f"{load} 1KiB, 2 at a time, ")
    assert "errors      none" in out
    assert await server.js.object_store_names() == []


async def test_a_document_can_be_compared(command: Command, tmp_path: Path) -> None:
    out, _ = await command("bench", "get", *FEW, "--objects", "4", "--json")
    document = json.loads(out)
    assert document["kind"] == "objstore bench"
    assert document["settings"]["count"] == 5
    assert document["operations"]["get"]["count"] == 5


async def test_figures_as_csv(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "figures.csv"
    await command("bench", "put", *FEW, "--csv", str(path))
    head, row = path.read_text().splitlines()
    assert head.startswith("#RunID,ClientID,MsgCount,MsgBytes,MsgsPerSec,BytesPerSec,DurationSecs,")
    assert row.split(",")[1:4] == ["P0", "5", "5120"]


async def test_csv_that_cannot_be_written(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "figures.csv"
    (tmp_path / "figures.csv.new").mkdir()
    with pytest.raises(CommandError, match="cannot be written") as failed:
        await command("bench", "put", *FEW, "--csv", str(path))
    assert failed.value.code == 1


async def test_failed_operations_are_an_error(
    command: Command, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = running.objects.prepare

    async def prepare_wrongly(store: ObjectStore, *others: Any) -> None:
        await prepare(store, *others)
        await store.put("object-0", b"something else")

    monkeypatch.setattr(running.objects, "prepare", prepare_wrongly)
    with pytest.raises(CommandError, match=r"bench: 5 of 5 operations failed: wrong bytes") as failed:
        await command("bench", "get", *FEW, "--objects", "1")
    assert failed.value.code == 7
    assert await server.js.object_store_names() == []


def judged(*failures: tuple[str, Exception]) -> CommandError:
    figures = steady(1.0, 10.0, lambda source: 0.001)
    for kind, exc in failures:
        figures.failed(kind, exc)
    with pytest.raises(CommandError) as failed:
        bench._judge(figures)
    return failed.value


def test_the_exit_code_of_failures() -> None:
    slow = ("get", RequestTimeoutError("slow"))
    assert judged(slow).code == 5
    assert str(judged(slow)) == "bench: 1 of 11 operations failed: slow"
    assert judged(slow, slow, ("get", IntegrityError("wrong bytes"))).code == 7
    bench._judge(steady(1.0, 10.0, lambda source: 0.001))


def settings(*words: str) -> Any:
    return bench.settings(parse(["bench", *words]))


def test_what_is_measured() -> None:
    found = settings("put")
    assert (found.work, found.seconds, found.count, found.warmup) == ("put", 10.0, None, 1.0)
    assert (found.concurrency, found.processes, found.storage, found.objects) == (1, 1, "file", None)
    assert settings("put", "--count", "5").seconds is None
    assert settings("put", "--count", "5", "--duration", "2s").seconds == 2.0
    assert settings("put", "--warmup", "0").warmup == 0.0
    assert settings("put", "--processes", "3").concurrency == 3
    assert settings("put", "--processes", "2", "--rate", "5").concurrency == 64
    assert settings("put", "--rate", "5", "--concurrency", "2").concurrency == 2
    assert [settings("core", action).work for action in ("pub", "sub", "req", "request")] == [
        "publish",
        "subscribe",
        "request",
        "request",
    ]
    assert settings("range", "--range-size", "5").range_size == 5
    assert settings("mixed", "--mix", "get:1").mix == (("get", 1),)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("put --processes 3 --concurrency 2", "--concurrency is for all --processes together"),
        ("put --processes 3 --count 2", "--count is for all --processes together"),
        ("mixed --processes 3 --objects 2", "--objects are shared out among the --processes"),
        ("put --csv /nowhere/at/all.csv", "--csv '/nowhere/at/all.csv' cannot be written there"),
        ("put --csv /", "cannot be written there"),
    ],
)
def test_what_cannot_work_is_refused_before(words: str, why: str) -> None:
    with pytest.raises(CommandError, match=why) as refused:
        bench.check(parse(["bench", *words.split()]))
    assert refused.value.code == 2


def test_messages_must_fit() -> None:
    link: Any = SimpleNamespace(client=SimpleNamespace(max_payload=1000))
    bench._check_sizes(settings("core", "pub", "--size", "1000"), link)
    bench._check_sizes(settings("put", "--size", "1001"), link)
    with pytest.raises(CommandError, match="at most 1000 bytes"):
        bench._check_sizes(settings("core", "pub", "--size", "10-1001"), link)


async def test_a_request_to_terminate_cleans_up(
    command: Command, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = running.objects.prepare

    async def terminated(*args: Any) -> None:
        await prepare(*args)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    monkeypatch.setattr(running.objects, "prepare", terminated)
    with pytest.raises(KeyboardInterrupt):
        await command("bench", "get", *FEW, "--objects", "2")
    assert await server.js.object_store_names() == []


async def test_cancelled_by_others_stays_cancelled(
    command: Command, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(*args: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(running.objects, "prepare", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await command("bench", "get", *FEW, "--objects", "2")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def live(*words: str) -> bench.Live:
    args = parse(["bench", "get", *words])
    return bench.Live(args, Output(quiet=args.quiet), bench.settings(args))


def test_the_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    shown = live()
    shown.preparing(0)
    shown.preparing(5)
    totals = [Totals("measuring", 2.0, 100, 0, 0, {})]
    shown.show(totals)
    shown.show(totals)
    shown.left_behind("bench-x", OSError("refused"))
    shown.hide()
    assert made.getvalue() == (
        "\r\x1b[Kget 1MiB  storing 5 objects"
        "\r\x1b[Kget 1MiB  measuring 2 s  50.0/s"
        "\r\x1b[K"
        "objstore: warning: bucket 'bench-x' is left behind (refused): "
        "delete it with: objstore bucket rm bench-x\n"
    )


@pytest.mark.parametrize("words", [["--quiet"], ["--no-progress"]])
def test_no_live_line(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    live(*words).preparing(5)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    live().preparing(5)
    assert made.getvalue() == ""


def compared(*words: str, json: bool = False) -> str:
    args = parse(["bench", "compare", *words])
    out = Output(json=json)
    bench.compare(args, out)
    return "".join(out._held)


@pytest.fixture
def kept(tmp_path: Path) -> str:
    path = tmp_path / "kept.json"
    figures = steady(3.0, 100.0, lambda source: source.uniform(0.001, 0.002))
    path.write_text(json.dumps(result(figures).document()))
    return str(path)


def test_compare(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "within noise" in compared(kept, kept)
    monkeypatch.setattr(sys, "stdin", io.StringIO(Path(kept).read_text()))
    document = json.loads(compared("-", kept, "--noise", "1%", json=True))
    assert document["noise"] == 0.01
    assert document["settings"] == []
    assert {change["verdict"] for change in document["changes"]} == {"within noise"}


def test_compare_what_is_no_result(kept: str, tmp_path: Path) -> None:
    for words in ((kept, str(tmp_path / "missing")), (__file__, kept)):
        with pytest.raises(CommandError, match="bench compare: ") as failed:
            compared(*words)
        assert failed.value.code == 1
