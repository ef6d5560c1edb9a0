"""``doctor``: each check, what it says when it fails, and the exit code; nothing is left behind."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto._version import __version__
from natsproto.errors import ServerProcessError
from objstore.cli import doctor as module
from objstore.cli.doctor import Report
from objstore.cli.output import CommandError, Output
from support.memory_server import SILENCE, MemoryServer, error
from support.waits import eventually

ALL = [
    "software",
    "reachability",
    "server version",
    "features",
    "round trip",
    "message size",
    "JetStream",
    "JetStream limits",
    "list buckets",
    "create a bucket",
    "clock",
    "put",
    "get",
    "list objects",
    "watch",
    "delete",
    "purge chunks",
    "edit a bucket",
    "delete a bucket",
]


async def examined(
    command: Any, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0
) -> dict[str, dict[str, Any]]:
    """The checks by their names; the exit code is as expected."""
    if code:
        with pytest.raises(CommandError, match="checks failed") as told:
            await command("doctor", "--json", *words)
        assert told.value.code == code
        out = capsys.readouterr().out
    else:
        out, _ = await command("doctor", "--json", *words)
    checks = [json.loads(line) for line in out.splitlines()]
    return {check["check"]: check for check in checks}


async def test_all_is_well(server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    checks = await examined(command, capsys)
    assert list(checks) == ALL
    assert {check["result"] for check in checks.values()} == {"ok"}
    assert "2.12.0" in checks["server version"]["detail"]
    assert "atomic puts: yes" in checks["features"]["detail"]
    assert checks["clock"]["detail"] == "the same as the server's"
    assert server.streams == {}


@pytest.mark.parametrize("there", [True, False])
async def test_software(
    command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def find_server() -> Any:
        if there:
            return SimpleNamespace(version="2.15.1")
        raise ServerProcessError("there is none")

    monkeypatch.setattr("natsproto.server.find_server", find_server)
    told = (await examined(command, capsys, "--read-only"))["software"]["detail"]
    assert f"natsproto {__version__}, Python 3." in told
    assert ("nats-server 2.15.1 for --local" in told) == there
    assert ("natsproto[server]" in told) != there


async def test_lines_for_people(command: Any) -> None:
    out, err = await command("doctor")
    assert [line[:6] for line in out.splitlines()] == ["ok    "] * len(ALL)
    assert f"all {len(ALL)} checks are fine" in err


@pytest.mark.parametrize(
    ("right", "check"),
    [
        ("STREAM.NAMES", "list buckets"),
        ("CONSUMER.CREATE", "watch"),
        ("STREAM.PURGE", "purge chunks"),
        ("STREAM.UPDATE", "edit a bucket"),
    ],
)
async def test_a_right_that_is_missing(
    server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str], right: str, check: str
) -> None:
    server.refused = {right}
    checks = await examined(command, capsys, code=6)
    assert [name for name, each in checks.items() if each["result"] == "fails"] == [check]
    assert f"$JS.API.{right}" in checks[check]["detail"]
    assert "Ask for the permission" in checks[check]["detail"]
    assert checks[check]["exit_code"] == 6
    assert server.streams == {}


async def test_no_right_to_delete_what_it_has_created(
    server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refused = {"STREAM.DELETE"}
    checks = await examined(command, capsys, code=6)
    assert "objstore bucket rm objstore-doctor-" in checks["left behind"]["detail"]


async def test_no_right_to_create(
    server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await server.bucket()
    server.refused = {"STREAM.CREATE", "INFO"}
    checks = await examined(command, capsys, code=6)
    assert checks["create a bucket"]["result"] == "fails"
    assert "objstore doctor BUCKET" in checks["other rights"]["detail"]
    assert checks["JetStream limits"]["result"] == "note"
    checks = await examined(command, capsys, "b")
    assert "create a bucket" not in checks
    assert checks["put"]["result"] == "ok"
    assert await (await server.js.object_store("b")).list() == []


async def test_nothing_is_stored(
    server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await server.bucket()
    server.verbs()
    checks = await examined(command, capsys, "b", "--read-only")
    assert list(checks)[-4:] == ["list buckets", "open the bucket", "list objects", "watch"]
    assert "list buckets" in await examined(command, capsys, "--read-only")
    assert not server.stream().messages
    assert {"STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE"}.isdisjoint(server.verbs())
    checks = await examined(command, capsys, "missing", code=3)
    assert checks["open the bucket"]["exit_code"] == 3


async def test_no_jetstream(server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server.hook = lambda verb, body: error(503, 10076, "jetstream not enabled") if verb == "INFO" else None
    checks = await examined(command, capsys, code=1)
    assert "nats-server -js" in checks["JetStream"]["detail"]
    assert "list buckets" not in checks


async def test_a_server_that_is_silent(
    server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "js", server.client.jetstream(timeout=0.01))
    server.hook = lambda verb, body: SILENCE if verb == "INFO" else None
    checks = await examined(command, capsys, code=5)
    assert "Try again" in checks["JetStream"]["detail"]


@pytest.mark.parametrize(
    ("version", "result", "text"),
    [("2.8.4", "fails", "use nats-server 2.9.10 or newer"), ("odd", "note", "nothing is known")],
)
async def test_versions(
    server: MemoryServer,
    command: Any,
    capsys: pytest.CaptureFixture[str],
    version: str,
    result: str,
    text: str,
) -> None:
    assert server.connection.session is not None
    server.connection.session.info["version"] = version
    checks = await examined(command, capsys, "--read-only", code=1 if result == "fails" else 0)
    assert checks["server version"]["result"] == result
    assert text in checks["server version"]["detail"]
    assert ("features" in checks) == (result == "fails")


async def test_small_messages(server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.connection.session is not None
    server.connection.session.info["max_payload"] = 65536
    checks = await examined(command, capsys, "--read-only", code=1)
    assert "--chunk-size 65536" in checks["message size"]["detail"]


@pytest.mark.parametrize(("hours", "which"), [(1, "behind"), (-1, "ahead of")])
async def test_clocks(
    server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str], hours: int, which: str
) -> None:
    server.ahead = timedelta(hours=hours)
    checks = await examined(command, capsys)
    assert checks["clock"]["result"] == "note"
    assert f"s {which} the server's" in checks["clock"]["detail"]


async def test_limits(server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    limits = {"max_storage": 1000, "max_memory": 0, "max_streams": 10, "max_consumers": -1}
    full = {"storage": 950, "memory": 0, "streams": 1, "consumers": 2, "limits": limits}
    server.hook = lambda verb, body: {**full, "domain": "hub"} if verb == "INFO" else None
    checks = await examined(command, capsys, "--read-only")
    assert checks["JetStream"]["detail"] == "on, domain hub"
    assert checks["JetStream limits"] == {
        "check": "JetStream limits",
        "result": "note",
        "detail": "file storage 950 B of 1000 B, memory storage 0 B of 0 B, "
        "buckets and other streams 1 of 10, consumers 2 of any: nearly full: file storage",
    }
    server.hook = lambda verb, body: {"tiers": {"R3": full}} if verb == "INFO" else None
    checks = await examined(command, capsys, "--read-only")
    assert checks["JetStream limits R3"]["result"] == "note"


async def test_a_round_trip_that_is_slow(
    command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW", 0.0)
    checks = await examined(command, capsys, "--read-only")
    assert "small objects take as many round trips" in checks["round trip"]["detail"]


async def test_data_that_comes_back_changed(
    server: MemoryServer, command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(self: Any, name: str) -> bytes:
        return b"other"

    monkeypatch.setattr("objstore.store.ObjectStore.get", get)
    checks = await examined(command, capsys, code=7)
    assert checks["get"]["exit_code"] == 7
    assert server.streams == {}


async def test_an_interrupt_leaves_nothing_behind(server: MemoryServer, command: Any) -> None:
    server.hook = lambda verb, body: SILENCE if verb == "STREAM.PURGE" else None
    running = asyncio.create_task(command("doctor"))
    await eventually(lambda: any(verb == "STREAM.PURGE" for verb, _ in server.asked))
    assert server.streams
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert server.streams == {}


async def test_the_worst_counts(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(Output())
    for code in (5, 6, 1):
        await report.fails("x", CommandError("y", code))
    assert (report.checks, report.failed, report.code) == (3, 3, 6)
