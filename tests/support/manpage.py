"""The manual page: made from the table of commands, and shipped as ``share/man/man1/objstore.1``.

``python -m tests.support.manpage`` writes it again, after a change of commands, options or the environment.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from objstore.cli.parser import CONNECTION, DESCRIPTION, EXIT_CODES, Parser, command_parser, sentence
from objstore.cli.table import COMMANDS, GROUPS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "objstore.1"

WORDS = """\
BUCKET NAME...: the bucket comes first, then the names of its objects. Where a file could stand as well, an
object is natsobj://BUCKET/NAME, and a directory ends in a slash. Options may stand anywhere; after --
everything is a name. Sizes are 10GiB, 512k or bytes; durations need a unit: 500ms, 30s, 1h30m, 7d."""

ENVIRONMENT = {
    "NATS_URL": "the server",
    "NATS_CONTEXT": "name of the context of the nats command",
    "NATS_USER, NATS_PASSWORD": "user and password",
    "NATS_TOKEN": "token",
    "NATS_CREDS": "credentials file",
    "NATS_NKEY": "file with an NKey seed",
    "NATS_JWT, NATS_SEED": "the JWT and the seed of a user, or files with them",
    "NATS_CA, NATS_CERT, NATS_KEY": "files for TLS, as of --tlsca, --tlscert and --tlskey",
    "NATS_TIMEOUT": "as of --timeout",
    "NATS_SERVER_BIN": "the nats-server that --local, server, demo and bench start",
}

FILES = {
    "$XDG_CONFIG_HOME/nats/context/NAME.json": "contexts of the nats command (~/.config)",
    "$XDG_STATE_HOME/objstore/uploads": "what put --resume continues with (~/.local/state)",
}

EXAMPLES = (
    "objstore bucket add media --ttl 90d",
    "objstore put media report.pdf --name 2026/report.pdf",
    "objstore get media '2026/*.pdf' -O reports/",
    "objstore cat media 2026/report.pdf | lpr",
    "objstore sync photos natsobj://media/photos/ --delete",
    "objstore --local ./store bench put --duration 10s",
)


def escaped(text: str) -> str:
    """Text that is nothing but text to roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def filled(text: str) -> str:
    """A paragraph, in lines of a usual length."""
    return escaped(textwrap.fill(text, 75, break_long_words=False, break_on_hyphens=False))


def bold(text: str) -> str:
    return f"\\fB{escaped(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{escaped(text)}\\fR"


def item(head: str, text: str) -> Iterator[str]:
    yield from (".TP", head, filled(text) or "\\&")


def values(action: argparse.Action) -> str:
    """The values of an argument, as the synopsis shows them."""
    if action.nargs == 0:
        return ""
    if action.metavar is None and action.choices:
        return bold("|".join(map(str, action.choices)))
    name = italic(str(action.metavar))
    if str(action.metavar).count(" ") > 1:
        return name  # all of them stand there
    return {"?": f"[{name}]", "*": f"[{name}...]", "+": f"{name}..."}.get(str(action.nargs), name)


def arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The arguments of a parser: first those that have a place, then options."""
    helped = [
        action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != "help"
    ]
    for action in sorted(helped, key=lambda action: bool(action.option_strings)):
        about = parser._get_formatter()._expand_help(action) if action.help else ""
        if action.option_strings:
            names = ", ".join(map(bold, action.option_strings))
            yield from item(f"{names} {values(action)}".rstrip(), about)
        elif about:
            yield from item(italic(str(action.metavar)), about)


def command(name: str) -> Iterator[str]:
    """The section of a command."""
    row = COMMANDS[name]
    parser = command_parser(name)
    places = [
        values(action) for action in parser._get_positional_actions() if action.help != argparse.SUPPRESS
    ]
    yield " ".join([f".SS {bold(f'objstore {name}')} [{italic('OPTIONS')}]", *places])
    about = f"{sentence(row.about)} {row.more}".splitlines()
    also = [f"Also called: {', '.join(row.aliases)}."] if row.aliases else []
    yield "\n.br\n".join(filled(line) for line in [*about, *also] if line)
    yield from arguments(parser)


def shared() -> Iterator[str]:
    """The options that every command has."""
    for group in Parser(top=True)._action_groups:
        if group.title in ("connection", "output"):
            yield f".SS {group.title}"
            if group.title == "connection":
                yield filled(CONNECTION)
            only = argparse.ArgumentParser(add_help=False)
            only._actions = group._group_actions
            yield from arguments(only)


def lines() -> Iterator[str]:
    yield from (
        '.\\" Made by tests/support/manpage.py from the table of commands.',
        '.TH OBJSTORE 1 "" natsproto',
    )
    yield from (".SH NAME", f"objstore \\- {escaped(DESCRIPTION[0].lower() + DESCRIPTION[1:].rstrip('.'))}")
    yield from (
        ".SH SYNOPSIS",
        f"{bold('objstore')} [{italic('OPTIONS')}] {italic('COMMAND')} [{italic('ARGUMENTS')}]",
    )
    yield from (".SH DESCRIPTION", filled(WORDS))
    for group, title in GROUPS.items():
        yield f".SH COMMANDS: {title.upper()}"
        for name, row in COMMANDS.items():
            if row.group == group:
                yield from command(name)
    yield ".SH OPTIONS OF ALL COMMANDS"
    yield from shared()
    for title, rows in (("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        yield f".SH {title}"
        for name, about in rows.items():
            yield from item(bold(name), about)
    yield ".SH EXIT STATUS"
    for code, about in re.findall(r"^  (\d+) +(.+)$", EXIT_CODES, re.MULTILINE):
        yield from item(bold(code), about)
    yield from (".SH EXAMPLES", ".nf", *map(escaped, EXAMPLES), ".fi")
    yield from (".SH SEE ALSO", f"{bold('objstore help')} {italic('COMMAND')}")


def page() -> str:
    """The whole page."""
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
