"""The manual page is that of the table of commands, and readers of such pages find nothing wrong with it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from objstore.cli.parser import Parser, command_parser
from objstore.cli.table import ALIASES, COMMANDS
from support.imports import ROOT
from support.manpage import ENVIRONMENT, PAGE, page
from support.skips import missing


def plain() -> str:
    """The page without its marks."""
    return re.sub(r"\\f[BIR]", "", page()).replace("\\-", "-").replace("\\e", "\\").replace("\\&", "")


def test_it_is_up_to_date() -> None:
    """Write it again with: python -m tests.support.manpage."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option(name: str) -> None:
    (section,) = re.findall(rf"^\.SS objstore {name} (.+?)^\.S", plain(), re.MULTILINE | re.DOTALL)
    shared = Parser(top=True)._option_string_actions
    for option in command_parser(name)._option_string_actions:
        assert option in shared or re.search(rf"(^|, ){option}\b", section, re.MULTILINE), option
    for alias in (alias for alias, of in ALIASES.items() if of == name):
        assert re.search(rf"Also called: .*\b{alias}\b", section, re.DOTALL), alias


def test_every_shared_option() -> None:
    whole = plain()
    section = whole[whole.index("OPTIONS OF ALL COMMANDS") :]
    for option in Parser(top=True)._option_string_actions:
        assert option in ("-h", "--help") or re.search(rf"(^|, ){option}\b", section, re.MULTILINE), option


def test_every_environment_variable() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "objstore" / "cli").rglob("*.py"))
    used = set(re.findall(r"\bNATS_[A-Z_]+\b", sources)) - {"NATS_SOCKS_PROXY"}  # that one is refused
    assert used <= set(", ".join(ENVIRONMENT).split(", "))


def test_its_syntax() -> None:
    if shutil.which("mandoc") is None:
        missing("mandoc")
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(PAGE)], capture_output=True, text=True
    )
    found = [line for line in done.stdout.splitlines() if "missing date" not in line]  # it would need care
    assert found == []
