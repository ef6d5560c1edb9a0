"""The table of commands: every row leads to a handler and to options."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from objstore.cli.output import CommandError
from objstore.cli.parser import parse
from objstore.cli.table import ALIASES, COMMANDS, GROUPS, PARENTS, handler
from support.imports import ROOT


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_leads_somewhere(name: str) -> None:
    command = COMMANDS[name]
    for reference in filter(None, (command.handler, command.check)):
        module, _, function = reference.partition(":")
        assert callable(getattr(import_module(f"objstore.cli.{module}"), function))
    options = import_module(f"objstore.cli.options.{command.group}")
    assert callable(getattr(options, name.replace(" ", "_").replace("-", "_")))
    assert command.about[0].islower()
    assert not command.about.endswith(".")


def test_names_are_unambiguous() -> None:
    names = [*COMMANDS, *PARENTS, "help", *(alias for each in COMMANDS.values() for alias in each.aliases)]
    assert len(names) == len(set(names))
    assert {name.split()[0] for name in (*COMMANDS, *ALIASES) if " " in name} == set(PARENTS)
    assert {command.group for command in COMMANDS.values()} == set(GROUPS)


def test_a_handler_is_given_after_its_checks() -> None:
    assert handler(parse(["ls"])).__name__ == "ls"
    assert handler(parse(["mb", "b"])).__name__ == "add"
    for words in (["ls", "--tlscert", "c"], ["put", "b", "-"]):
        with pytest.raises(CommandError, match=f"See: objstore {words[0]} --help$"):
            handler(parse(words))


def test_the_table_and_the_parser_load_nothing_of_the_library() -> None:
    program = (
        "import sys; from objstore.cli.parser import parse; parse(['put', 'b', 'f']);"
        "print(sorted(n for n in sys.modules if n.startswith(('natsproto.', 'objstore.'))))"
    )
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    parts = ("addresses", "arguments", "options", "options.objects", "output", "parser", "table")
    allowed = {"natsproto._values", "natsproto._version", "objstore.cli"}
    assert set(eval(done.stdout)) <= allowed | {f"objstore.cli.{part}" for part in parts}
