"""The entry point: usage errors, help, questions, errors as JSON, and what is not imported."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from natsproto._version import __version__
from objstore.cli import table
from objstore.cli.main import main
from objstore.cli.output import ReaderStopped
from support.imports import ROOT


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["frobnicate"], "invalid choice"),
        (["put"], "BUCKET, FILE"),
        (["put", "b"], "FILE"),
        (["put", "b", "f", "--nonsense"], "--nonsense"),
        (["put", "b", "f", "--chunk-size", "much"], "is not a valid size"),
        (["put", "b", "f", "-H", "novalue"], "is not a header"),
        (["put", "b", "f", "--metadata", "novalue"], "is not a pair"),
        (["put", "b", "-"], "--name"),
        (["put", "b", "dir/"], "--name"),
        (["put", "b", "f", "--name", ""], "--name"),
        (["get", "b"], "NAME"),
        (["get", "b", "../x"], "'..'"),
        (["get", "b", "x", "-O", ""], "-O"),
        (["rm", "b"], "NAME"),
        (["bucket"], "ACTION"),
        (["bucket", "add"], "BUCKET"),
        (["bucket", "add", "b", "--ttl", "long"], "is not a valid duration"),
        (["bucket", "add", "b", "--replicas", "0"], "is not a whole number"),
        (["bucket", "add", "b", "--storage", "tape"], "invalid choice"),
        (["ls", "--time", "1s"], "--time"),
        (["ls", "--timeout", "0"], "above 0"),
        (["ls", "--timeout", "5"], "'5' has no unit: write 5s"),
        (["bucket", "add", "b", "--ttl", "5"], "'5' has no unit: write 5s"),
        (["ls", "--local", "d", "--server", "nats://h"], "--local"),
        (["ls", "--local", "d", "--user", "u"], "--local"),
        (["ls", "--password", "a", "--password-file", "b"], "not both"),
        (["ls", "--tlscert", "a"], "go together"),
        (["ls", "--jwt", "a"], "go together"),
        (["ls", "--js-domain", "a", "--js-api-prefix", "b"], "not both"),
        (["ls", "--local", "d", "--inbox-prefix", "b"], "omit --inbox-prefix"),
        (["demo", "--server", "nats://h"], "private server"),
        (["demo", "--local", "d"], "private server"),
    ],
)
def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], text: str) -> None:
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert text in err
    assert err.startswith("objstore: ")
    assert err.count("\n") == 1


def test_usage_errors_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, "ls", "--bad\x1b[2J")
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["--json", "frobnicate"], "UsageError"),
        (["ls", "--json", "--bad"], "UsageError"),
        (["get", "b", "..", "--json"], "CommandError"),
        (["put", "report.pdf", "b", "--json"], "AddressError"),
    ],
)
def test_errors_are_one_json_object(capsys: pytest.CaptureFixture[str], words: list[str], kind: str) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    document = json.loads(err)
    assert document == {"error": document["error"], "kind": kind, "exit_code": 2}


def test_json_after_two_dashes_is_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, "rm", "--bad", "b", "--", "--json")
    assert err.startswith("objstore: rm: ")


def test_nothing_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert code == 2
    assert out == ""
    assert err.startswith("usage: objstore")


def test_help_has_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for number in ("0", "1", "2", "3", "4", "5", "6", "7", "130"):
        assert f"\n  {number}  " in out


class Answer(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rm_asks_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", Answer("n\n"))
    code, _, err = run(capsys, "rm", "b", "n\x1bame", "-s", "nats://127.0.0.1:1")
    assert code == 1
    assert "Delete 'n\\x1bame' from bucket 'b'? [y/N]" in err
    assert "nothing was deleted" in err


def test_rm_refuses_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, _, err = run(capsys, "rm", "b", "name", "-s", "nats://127.0.0.1:1")
    assert code == 2
    assert "pass -f" in err


def test_put_of_a_missing_file_needs_no_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "put", "b", str(tmp_path / "missing"), "-s", "nats://127.0.0.1:1")
    assert code == 1
    assert "no such file" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("code", [0, 1])
def test_a_reader_that_stops_ends_the_command_quietly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def stopped(args: object, out: object) -> None:
        raise ReaderStopped(code)

    monkeypatch.setattr(table, "handler", lambda args: stopped)
    assert run(capsys, "ls", "--trace") == (code, "", "")


def test_a_trace_of_a_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(args: object, out: object) -> None:
        raise ZeroDivisionError("why")

    monkeypatch.setattr(table, "handler", lambda args: failing)
    code, out, err = run(capsys, "ls", "--trace")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback")
    assert err.endswith("objstore: internal error: ZeroDivisionError: why (--trace shows where)\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--version"], ["-q", "--version"]):
        assert run(capsys, *words) == (0, f"objstore {__version__}\n", "")


def test_the_version_loads_no_parser() -> None:
    program = "import sys; from objstore.cli.main import main; main(['--version']); print(*sys.modules)"
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert {"argparse", "asyncio", "objstore.cli.table"}.isdisjoint(done.stdout.splitlines()[-1].split())


def test_help_loads_little() -> None:
    program = (
        "import sys; from objstore.cli.main import main; main(['put', '--help']);"
        "print(sorted({'asyncio', 'ssl', 'logging', 'json', 'natsproto.aio'} & set(sys.modules)))"
    )
    # -S: what the environment loads into every interpreter is not ours.
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
