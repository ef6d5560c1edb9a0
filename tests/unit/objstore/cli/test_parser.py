"""The parser: where options may stand, what errors suggest, and the help."""

from __future__ import annotations

import pytest

from objstore.cli.parser import UsageError, command_parser, parse
from objstore.cli.table import ALIASES, COMMANDS, PARENTS


@pytest.mark.parametrize("command", [*COMMANDS, *PARENTS])
def test_each_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    for words in ([*command.split(), "--help"], ["help", *command.split()]):
        with pytest.raises(SystemExit) as ended:
            parse(words)
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: objstore {command}")


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["help"]):
        with pytest.raises(SystemExit):
            parse(words)
        out = capsys.readouterr().out
        for name, command in COMMANDS.items():
            assert f"  {name:<17}{command.about}\n" in out


def test_the_help_of_a_parent_lists_its_actions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["bucket", "--help"])
    assert "  add              create a bucket\n" in capsys.readouterr().out


def test_options_stand_anywhere() -> None:
    for words in (
        ["--json", "-s", "u", "ls", "b"],
        ["ls", "--json", "b", "-s", "u"],
        ["-s", "u", "ls", "--json", "b"],
        ["ls", "b", "--json", "-su"],
        ["ls", "--server=u", "b", "--json"],
    ):
        args = parse(words)
        assert (args.command, args.json, args.server, args.bucket) == ("ls", True, "u", "b")
    args = parse(["-q", "bucket", "--json", "add", "b", "-s", "u"])
    assert (args.command, args.quiet, args.json, args.server) == ("bucket add", True, True, "u")
    args = parse(["get", "-O", "-", "b", "n", "-f"])
    assert (args.output, args.bucket, args.names, args.force) == ("-", "b", ["n"], True)
    args = parse(["ls", "-n0", "b"])
    assert (args.names, args.null, args.bucket) == (True, True, "b")


def test_options_first() -> None:
    parser = command_parser("get")
    for words, expected in (
        (["b", "-O", "x", "n"], ["-O", "x", "--", "b", "n"]),
        (["b", "-fO", "x", "n"], ["-fO", "x", "--", "b", "n"]),
        (["b", "-Ox", "n"], ["-Ox", "--", "b", "n"]),
        (["b", "--output=x", "n"], ["--output=x", "--", "b", "n"]),
        (["-f", "--", "b", "-n"], ["-f", "--", "b", "-n"]),
        (["b", "-", "-x"], ["-x", "--", "b", "-"]),
        (["-O"], ["-O"]),
    ):
        assert parser.options_first(words) == expected


def test_names_may_begin_with_a_dash() -> None:
    args = parse(["rm", "-f", "b", "--", "-x"])
    assert args.targets == ["b", "-x"]
    assert parse(["rm", "b", "-f", "--", "--json"]).targets == ["b", "--json"]


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases(alias: str, name: str) -> None:
    words = {"ls": [], "bucket ls": []}.get(name, ["b", "x"][: 1 if name.startswith("bucket") else 2])
    assert parse([*alias.split(), *words]).command == name


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["putt", "b", "f"], "'putt' is no command (did you mean put?). See: objstore --help"),
        (["gte"], "(did you mean get?)"),
        (["buckt"], "(did you mean bucket?)"),
        (["bucket", "ad"], "bucket: invalid choice: 'ad' is no action (did you mean add?)"),
        (["frobnicate"], "'frobnicate' is no command. See"),
        (["--jsno", "ls"], "unrecognized arguments: --jsno (did you mean --json?). See: objstore --help"),
        (["put", "b", "f", "--nmae=x"], "--nmae=x (did you mean --name?). See: objstore put --help"),
        (["bucket", "add", "b", "--replica", "3"], "(did you mean --replicas?). See: objstore bucket add"),
        (["info", "a", "b", "c"], "info: unrecognized arguments: c. See: objstore info --help"),
        (["--json"], "the following arguments are required: COMMAND"),
        (["help", "putt"], "did you mean put?"),
    ],
)
def test_errors_suggest_the_nearest(words: list[str], hint: str) -> None:
    with pytest.raises(UsageError) as told:
        parse(words)
    assert hint in str(told.value)
    assert told.value.code == 2


def test_a_name_of_two_dashes_is_a_name() -> None:
    """Others choose names: without it ``get`` would mean the whole bucket."""
    args = parse(["get", "b", "--", "--", "a", "--"])
    assert [args.bucket, *args.names] == ["b", "--", "a", "--"]
    assert parse(["get", "--", "--", "a"]).bucket == "--"
    assert parse(["rm", "b", "--", "--", "a", "--"]).targets == ["b", "--", "a", "--"]
    assert parse(["put", "b", "-", "--name=--"]).name == "--"
    assert parse(["put", "b", "-", "--name", "a=--"]).name == "a=--"
