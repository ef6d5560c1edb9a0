"""The soak's smaller parts: the history on disk, the bytes, the judgement of errors, the command line."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from natsproto.errors import NatsError
from objstore import ObjectInfo, OutcomeUnknownError
from tests.soak import runner as running
from tests.soak.cli import chosen_faults, main
from tests.soak.content import body_id, digest, draw_size, make, part_of
from tests.soak.effects import effects
from tests.soak.errors import judge_errors
from tests.soak.history import FAIL, OK, UNKNOWN, Log, Op, Version, read
from tests.soak.nemesis import CLUSTER, EVERY, NETWORK, Nemesis
from tests.soak.report import Report
from tests.soak.routes import Routes
from tests.soak.run import Plan, Soak
from tests.soak.runner import Runner, Stalls
from tests.soak.verbs import WEIGHTS, Verbs

ROOT = Path(__file__).resolve().parents[3]


# -- bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5, 100, 70_000])
def test_bytes_are_made_from_their_name(size: int) -> None:
    body = body_id("a1-7", size)
    data = make(body)
    assert len(data) == size
    assert data == make(body)
    assert data.startswith(f"<{body}>".encode()[:size])
    if size > 20:
        assert digest(data) != digest(make(body_id("a1-8", size)))


def test_short_parts_name_nobody() -> None:
    data = make("a1-7:1000")
    assert part_of("a1-7:1000", 100, 200, data[100:200]) == {"body": "a1-7:1000"}
    assert part_of("a1-7:1000", 2, 3, data[2:3]) == {}, "many bodies have that byte there"
    assert part_of("a1-8:1000", 100, 103, data[100:103]) == {"part": [100, 103, digest(data[100:103])]}
    assert "part" in part_of("a1-7:1000", 100, 200, data[100:199]), "a part that is too short"


def test_sizes_are_mostly_small_and_reach_the_ends() -> None:
    rng = random.Random(1)
    sizes = [draw_size(rng, 2 << 20) for _ in range(5000)]
    assert min(sizes) == 0
    assert max(sizes) > 1 << 20
    assert max(sizes) <= 2 << 20
    assert sum(size < 16 * 1024 for size in sizes) > 3500


# -- the history ------------------------------------------------------------------------------------------


def test_history_is_what_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    log = Log(path)
    log.write({"i": "a-1", "v": "put", "b": "b", "n": "n", "t": 1.0, "a": {"body": "a-1:3"}})
    log.write({"i": "a-2", "v": "get", "b": "b", "n": "n", "t": 2.0, "a": {}})
    version = Version("n", 7, "a-1", "a-1:3", "00", "x", link=True)
    log.write({"r": "a-1", "t": 3.0, "o": "ok", "x": {"info": version.row()}, "s": 0.5})
    log.write({"w": "watch", "b": "b", "t": 3.5, "x": version.row()})
    log.write({"bad": "hang", "t": 4.0, "by": "a", "m": "text"})
    log.close()
    with open(path, "ab") as file:
        file.write(b'{"i": "a-3", "v": "pu')  # cut off by a kill
    history = read([path])
    put, get = history.ops
    assert (put.outcome, put.end, put.result, put.stalled) == (OK, 3.0, {"info": version.row()}, 0.5)
    assert (get.outcome, get.end) == (UNKNOWN, float("inf"))
    assert history.told[0].version == version
    assert history.bad[0]["bad"] == "hang"


def test_history_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log"
    program = (
        "import sys, os, signal; from tests.soak.history import Log; log = Log(sys.argv[1])\n"
        "log.write({'i': 'a-1', 'v': 'put', 'b': 'b', 'n': 'n', 't': 1.0, 'a': {}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert [op.id for op in read([str(path)]).ops] == ["a-1"]


def test_what_a_listing_leaves_out_is_absent() -> None:
    op = Op(
        "a-1", "list", "b", "", 1.0, 2.0, OK, args={"prefix": "n"}, result={"list": [Version("n1", 3).row()]}
    )
    made = effects(op, frozenset({"n1", "n2", "m1"}), {})
    assert sorted((seen.kind, seen.name) for seen in made.seen) == [("absent", "n2"), ("version", "n1")]


# -- running operations -----------------------------------------------------------------------------------


class Lines(Log):
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, document: dict[str, Any]) -> None:
        self.lines.append(document)


@pytest.fixture
def runner() -> Runner:
    made = Runner("a1", random.Random(1), Stalls())
    made.log = Lines()
    return made


async def outcome(runner: Runner, work: Any, **options: Any) -> dict[str, Any]:
    await runner.op("put", "b", "n", work, way="direct", disturb=False, **options)
    assert isinstance(runner.log, Lines)
    return next(line for line in runner.log.lines if "r" in line)


async def test_outcomes(runner: Runner) -> None:
    async def fine() -> Any:
        return None, {"size": 3}

    line = await outcome(runner, fine, body="x", nothing=None)
    assert (line["o"], line["x"]) == (OK, {"size": 3})
    assert isinstance(runner.log, Lines)
    assert runner.log.lines[0]["a"] == {"body": "x", "way": "direct"}


@pytest.mark.parametrize(
    ("error", "expected", "untyped"),
    [
        (OutcomeUnknownError("?"), UNKNOWN, False),
        (NatsError("no"), FAIL, False),
        (ValueError("no"), FAIL, False),
        (KeyError("no"), FAIL, True),
        (TimeoutError("not ours"), FAIL, True),
        (running.OurTimeout(), UNKNOWN, False),
    ],
)
async def test_errors(runner: Runner, error: Exception, expected: str, untyped: bool) -> None:
    async def fails() -> Any:
        raise error

    line = await outcome(runner, fails)
    assert line["o"] == expected
    assert isinstance(runner.log, Lines)
    assert any("bad" in item for item in runner.log.lines) == untyped


async def test_hang_is_noticed_and_ended(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "HANG", 0.1)
    monkeypatch.setattr(running, "SPARE", 0.0)

    async def hangs() -> Any:
        await asyncio.Event().wait()

    line = await outcome(runner, hangs)
    assert line["o"] == UNKNOWN
    assert isinstance(runner.log, Lines)
    assert [item["bad"] for item in runner.log.lines if "bad" in item] == ["hang"]


async def test_cancellation_that_does_not_end_is_noticed(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "CANCEL", 0.05)
    monkeypatch.setattr(running, "SPARE", 0.0)
    monkeypatch.setattr(runner, "_disturbance", lambda: (0.01, "cancel"))
    release = asyncio.Event()

    async def stubborn() -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()
            raise

    asyncio.get_running_loop().call_later(0.3, release.set)
    await runner.op("put", "b", "n", stubborn, way="direct")
    assert isinstance(runner.log, Lines)
    kinds = [item["bad"] for item in runner.log.lines if "bad" in item]
    assert kinds == ["a cancelled operation does not end"]


async def test_random_disturbances_are_of_every_kind(runner: Runner) -> None:
    kinds = Counter(runner._disturbance()[1] for _ in range(2000))
    assert set(kinds) == {"", "cancel", "timeout"}
    assert kinds[""] > 1500


def test_every_verb_that_is_drawn_exists() -> None:
    assert {name.removeprefix("do_") for name in vars(Verbs) if name.startswith("do_")} == set(WEIGHTS)


def test_every_fault_that_is_named_exists() -> None:
    known = {name.removeprefix("do_").replace("_", "-") for name in vars(Nemesis) if name.startswith("do_")}
    assert known == set(EVERY)


# -- errors -----------------------------------------------------------------------------------------------


def error(kind: str, *, way: str = "proxy", outcome: str = FAIL, bucket: str = "b", **result: Any) -> Op:
    return Op("a-1", "get", bucket, "n", 100.0, 101.0, outcome, kind, args={"way": way}, result=result)


def verdicts(op: Op, faults: bool = False, tolerated: bool = False) -> list[str]:
    found = judge_errors([op], lambda *_: faults, lambda *_: tolerated, frozenset({"small"}))
    return [violation.kind for violation in found]


def test_damage_is_excused_by_what_changes_frames_only() -> None:
    assert verdicts(error("IntegrityError")) == ["damaged"]
    assert verdicts(error("DigestMismatchError"), faults=True) == ["damaged"]
    assert verdicts(error("IntegrityError"), faults=True, tolerated=True) == []
    assert verdicts(error("IntegrityError", way="direct"), True, True) == ["damaged"]


def test_errors_need_a_fault() -> None:
    assert verdicts(error("NoRespondersError")) == ["an error without a fault"]
    assert verdicts(error("NoRespondersError"), faults=True) == []
    assert verdicts(error("OutcomeUnknownError", outcome=UNKNOWN)) == ["an error without a fault"]
    assert verdicts(error("cancelled", outcome=UNKNOWN)) == []
    assert verdicts(error("ObjectNotFoundError")) == []


def test_only_small_buckets_are_full() -> None:
    assert verdicts(error("StoreFullError")) == ["an error without a fault"]
    assert verdicts(error("StoreFullError", bucket="small")) == []


def test_damage_that_verify_reports() -> None:
    assert verdicts(error("", outcome=OK, problems=[["missing chunks", "n", "", 3]])) == [
        "verify found damage"
    ]
    assert verdicts(error("", outcome=OK, problems=[["half-done rename", "n", "", 3]])) == []


# -- command line -----------------------------------------------------------------------------------------


def test_fault_lists() -> None:
    assert chosen_faults("all") == list(EVERY)
    assert chosen_faults("none") == []
    assert chosen_faults("kill, cut") == ["kill", "cut"]
    assert set(chosen_faults("network,-corrupt")) == set(NETWORK) - {"corrupt"}
    assert set(chosen_faults("-cluster")) == set(EVERY) - set(CLUSTER)
    with pytest.raises(ValueError, match="unknown fault 'kil'"):
        chosen_faults("kil")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--minutes", "0"],
        ["--minutes", "nan"],
        ["--minutes", "x"],
        ["--minutes", "1", "--faults", "earthquake"],
        ["--minutes", "1", "--server", "/does/not/exist"],
        ["--minutes", "1", "--server", "1.2.3"],
        ["--minutes", "1", "--report", "/does/not/exist/report.json"],
        ["--minutes", "1", "--processes", "0"],
        ["--minutes", "1", "--seed", "one"],
        ["--minutes", "1", "--what"],
    ],
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "python -m tests.soak: error:" in capsys.readouterr().err


def test_seed_gives_the_same_plan() -> None:
    names = [Soak(Plan(1, 5), print).names for _ in range(2)]
    assert names[0] == names[1]


# -- routes -----------------------------------------------------------------------------------------------


def test_partitions() -> None:
    routes = Routes(3)
    try:
        assert routes.lets(0, 1)
        routes.cut({(0, 1)})
        assert not routes.lets(0, 1)
        assert routes.lets(1, 0)
        assert routes.lets(1, 2)
        assert not routes.lets(None, 1), "who has not said its name must not slip through"
        assert routes.who(b'INFO {"server_name":"soak-2"}') == 1
        assert routes.who(b"PING\r\n") is None
    finally:
        for sock in routes.sockets:
            sock.close()


async def test_what_a_partition_holds_back_arrives_when_it_heals() -> None:
    routes = Routes(2)
    told, arrived = asyncio.Event(), asyncio.Event()

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            told.set()
            if b"late" in data:
                arrived.set()
        writer.close()

    server = await asyncio.start_server(target, "127.0.0.1", 0)
    routes.targets[1] = server.sockets[0].getsockname()[1]
    await routes.start()
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", routes.ports[1])
        writer.write(b'INFO {"server_name":"soak-1"}\r\n')
        async with asyncio.timeout(20):
            await told.wait()
        routes.cut({(0, 1)})
        writer.write(b"late")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await arrived.wait()
        routes.cut(set())
        async with asyncio.timeout(20):
            await arrived.wait()
        writer.close()
    finally:
        await routes.stop()
        server.close()


def test_report_counts() -> None:
    report = Report(1.0, 7, 1)
    assert '"seed": 7' in report.as_json()
    assert "violations: 0" in report.as_text()


def test_watch_row_of_an_info() -> None:
    from datetime import UTC, datetime

    info = ObjectInfo(
        "n", "a-1", None, 3, 1, "SHA-256=00ff", False, datetime.now(UTC), "x", "b",
        metadata={"body": "a-1:3"}, revision=4,
    )  # fmt: skip
    assert Version.of_row(running.row(info)) == Version("n", 4, "a-1", "a-1:3", "00ff", "x")
