"""The parser: usage errors, where options may stand, and what is not imported."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from objstore.cli.main import build_parser, main
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
        (["get", "b", "x", "-O", "-", "--json"], "--json"),
        (["rm", "b"], "NAME"),
        (["bucket"], "ACTION"),
        (["bucket", "add"], "BUCKET"),
        (["bucket", "add", "b", "--ttl", "long"], "is not a valid duration"),
        (["bucket", "add", "b", "--replicas", "0"], "is not a whole number"),
        (["bucket", "add", "b", "--storage", "tape"], "invalid choice"),
        (["ls", "--time", "1s"], "--time"),
        (["ls", "--timeout", "0"], "above 0"),
        (["ls", "--local", "d", "--server", "nats://h"], "--local"),
        (["ls", "--local", "d", "--user", "u"], "--local"),
        (["ls", "--password", "a", "--password-file", "b"], "not both"),
        (["ls", "--tlscert", "a"], "go together"),
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


@pytest.mark.parametrize("command", ["demo", "put", "get", "ls", "info", "rm", "bucket", "verify", "gc"])
def test_each_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert out.startswith(f"usage: objstore {command}")


def test_options_stand_before_or_after_the_command() -> None:
    parser = build_parser()
    for words in (
        ["--json", "-s", "u", "ls", "b"],
        ["ls", "--json", "b", "-s", "u"],
        ["-s", "u", "ls", "--json", "b"],
    ):
        args = parser.parse_args(words)
        assert (args.json, args.server, args.bucket) == (True, "u", "b")
    args = parser.parse_args(["-q", "bucket", "--json", "add", "b", "-s", "u"])
    assert (args.quiet, args.json, args.server) == (True, True, "u")


def test_names_may_begin_with_a_dash() -> None:
    args = build_parser().parse_args(["rm", "-f", "b", "--", "-x"])
    assert args.name == "-x"


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


def test_help_loads_little() -> None:
    program = (
        "import sys; from objstore.cli.main import main; main(['put', '--help']);"
        "print(sorted({'asyncio', 'ssl', 'logging', 'json', 'natsproto.aio'} & set(sys.modules)))"
    )
    # -S: what the environment loads into every interpreter is not ours.
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
