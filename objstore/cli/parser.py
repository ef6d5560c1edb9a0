"""The parser: options that every command has, the parser of the chosen command, and the help."""

from __future__ import annotations

import argparse
import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn

from . import arguments
from .output import CommandError, say
from .table import ALIASES, COMMANDS, GROUPS, PARENTS, add_options

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

EXIT_CODES = """\
exit codes:
  0  done
  1  any other failure
  2  usage: invalid arguments or names
  3  no such bucket or object
  4  conflict: already exists, sealed, full
  5  connection or timeout; trying again may help
  6  credentials or permissions
  7  damaged data (digest mismatch, problems found by verify)
  130  interrupted
"""

DESCRIPTION = "Store, read, list and delete objects in NATS JetStream."

CONNECTION = """\
The server is that of --server, else of NATS_URL, else of the selected context of the nats command, else
nats://127.0.0.1:4222. --local DIR uses a private server that stores its data in DIR."""


SHARED = "options of connection and output, such as --server, --local, --json and --quiet: objstore --help"

DASHES = "\0--"
"""A name or value ``--``, which argparse may drop; no word of a command line has a NUL."""


class UsageError(CommandError):
    """The words of the command line make no sense; exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 2)


class Parser(argparse.ArgumentParser):
    """An argument parser that accepts no abbreviations, and raises its errors.

    Args:
        top: it is the one of what stands before the command: shared options have their defaults, and help.
    """

    def __init__(self, prog: str = "objstore", description: str = "", epilog: str = "", *, top: bool) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            parents=[shared_options(top=top)],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for action in self._actions:
            if not top and action.dest != "help":
                action.help = SUPPRESS  # twenty lines about the same in the help of each command

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if message and file is not None and file is sys.stdout:
            file.write(message)  # argparse of some releases ignores a failure
        elif message:
            say(message)

    def error(self, message: str) -> NoReturn:
        command = self.prog.removeprefix("objstore").lstrip()
        where = f"{command}: " if command else ""
        raise UsageError(f"{where}{message}. See: {self.prog} --help")

    def read(self, words: Sequence[str], args: Namespace | None = None) -> Namespace:
        """Parse all words into ``args``.

        Raises:
            UsageError: they make no sense; the message has the nearest options for unknown ones.
        """
        args = Namespace() if args is None else args
        _, unknown = self.parse_known_args(words, args)
        if unknown:
            options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            hint = nearest(options[0], self._option_string_actions) if options else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return args

    def options_first(self, words: Sequence[str]) -> list[str]:
        """Return the words with the options before everything else, so that they may stand anywhere."""
        options: list[str] = []
        others: list[str] = []
        rest = iter(words)
        for word in rest:
            if word == "--":
                others.extend(rest)
            elif len(word) < 2 or word[0] != "-":
                others.append(word)
            else:
                name, _, value = word.partition("=")
                options.append(f"{name}={DASHES}" if value == "--" else word)
                if self._takes_next(word) and (following := next(rest, None)) is not None:
                    options.append(following)
        return [*options, "--", *(DASHES if word == "--" else word for word in others)] if others else options

    def _takes_next(self, word: str) -> bool:
        """Whether the value of an option is the next word."""
        known = self._option_string_actions
        if word.startswith("--"):
            return word in known and known[word].nargs is None
        for place, letter in enumerate(word[1:], 2):
            action = known.get(f"-{letter}")
            if action is None:
                return False
            if action.nargs is None:
                return place == len(word)
        return False


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a question about the most similar of the known words, or ``""`` if none is similar."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), 1, 0.6 if word.startswith("-") else 0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def shared_options(*, top: bool) -> argparse.ArgumentParser:
    """Return the options allowed before and after the command; only those before it have defaults."""
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, argument_default=None if top else SUPPRESS
    )

    def flag(target: argparse._ArgumentGroup, *names: str, help: str) -> None:
        target.add_argument(*names, action="store_true", default=False if top else SUPPRESS, help=help)

    group = parser.add_argument_group("connection", CONNECTION if top else None)
    group.add_argument("-s", "--server", metavar="URL", help="server, or several separated by commas")
    group.add_argument("--local", metavar="DIR", help="private server over DIR, shared by running commands")
    group.add_argument("--context", metavar="NAME", help="context of the nats command (NATS_CONTEXT)")
    group.add_argument("--user", metavar="NAME", help="user (NATS_USER)")
    group.add_argument("--password-file", metavar="FILE", help="file with the password (or NATS_PASSWORD)")
    group.add_argument("--password", metavar="TEXT", help="password; everyone can see it in the process list")
    group.add_argument("--token", metavar="TEXT", help="token; NATS_TOKEN is safer")
    group.add_argument("--creds", metavar="FILE", help="credentials file (NATS_CREDS)")
    group.add_argument("--nkey", metavar="FILE", help="file with an NKey seed (NATS_NKEY)")
    group.add_argument("--jwt", metavar="FILE", help="JWT of the user, or a file with it (NATS_JWT)")
    group.add_argument("--seed", metavar="FILE", help="file with its seed (NATS_SEED)")
    group.add_argument("--tlsca", metavar="FILE", help="certificates to trust (NATS_CA); requires TLS")
    group.add_argument("--tlscert", metavar="FILE", help="certificate of this client (NATS_CERT)")
    group.add_argument("--tlskey", metavar="FILE", help="its key (NATS_KEY)")
    group.add_argument(
        "--tlsfirst",
        action=argparse.BooleanOptionalAction,
        default=None if top else SUPPRESS,
        help="begin with TLS, before the server says a word",
    )
    group.add_argument("--inbox-prefix", metavar="PREFIX", help="subjects of answers (_INBOX)")
    group.add_argument(
        "--timeout", metavar="TIME", type=arguments.timeout, help="for connecting (2s) and each request (5s)"
    )
    group.add_argument("--js-domain", metavar="NAME", help="JetStream domain")
    group.add_argument("--js-api-prefix", metavar="PREFIX", help="subjects of JetStream's API ($JS.API)")
    group = parser.add_argument_group("output")
    flag(group, "--json", help="JSON: one document, or one per line where it lists or streams")
    flag(group, "-q", "--quiet", help="only errors on standard error")
    flag(group, "--no-progress", help="no progress line")
    flag(group, "--trace", help="show the traceback of an error")
    return parser


def parse(words: Sequence[str]) -> Namespace:
    """Parse a command line; ``command`` is the name in :data:`.table.COMMANDS`.

    Raises:
        UsageError: it makes no sense; exit code 2.
        SystemExit: help or the version was asked for, and is printed.
    """
    top = top_parser()
    args = top.read(words)
    name, rest = _chosen(top, args)
    if name == "help":
        return parse([*rest, "--help"])
    if name in PARENTS:
        parent = parent_parser(name)
        parent.read(rest, args)
        name, rest = _chosen(parent, args, f"{name} ")
    parser = command_parser(name)
    parser.read(parser.options_first(rest), args)
    for key, value in vars(args).items():
        if isinstance(value, list):
            setattr(args, key, ["--" if word == DASHES else word for word in value])
        elif value == DASHES:
            setattr(args, key, "--")
    args.command = name
    return args


def _chosen(parser: Parser, args: Namespace, before: str = "") -> tuple[str, list[str]]:
    """Return the full name of the command, or of a parent, and the words after it."""
    word, *rest = args.words
    del args.words
    name = f"{before}{word}"
    name = ALIASES.get(name, name)
    if name not in COMMANDS and name not in PARENTS and (name != "help" or before):
        known = [each for each in (*COMMANDS, *ALIASES, *PARENTS, "help") if each.startswith(before)]
        words = [each.removeprefix(before) for each in known if before or " " not in each]
        what = "action" if before else "command"
        parser.error(f"invalid choice: {word!r} is no {what}{nearest(word, words)}")
    return name, rest


def top_parser() -> Parser:
    """Return the parser of what stands before the command."""
    from natsproto._version import __version__

    parser = Parser("objstore", _overview(), EXIT_CODES, top=True)
    parser.usage = "objstore [OPTIONS] COMMAND [ARGUMENTS]"
    parser.add_argument("--version", action="version", version=f"objstore {__version__}")
    parser.add_argument("words", metavar="COMMAND", nargs=argparse.PARSER, help=SUPPRESS)
    return parser


def parent_parser(name: str) -> Parser:
    """Return the parser of what stands between the two words of a command."""
    rows = {
        each.removeprefix(f"{name} "): row for each, row in COMMANDS.items() if each.startswith(f"{name} ")
    }
    text = "\n".join([sentence(PARENTS[name]), "", "actions:", *_rows(rows.items(), f"{name} ")])
    parser = Parser(f"objstore {name}", text, top=False)
    parser.usage = f"objstore {name} [OPTIONS] ACTION [ARGUMENTS]"
    parser.add_argument("words", metavar="ACTION", nargs=argparse.PARSER, help=SUPPRESS)
    return parser


def command_parser(name: str) -> Parser:
    """Return the parser of one command."""
    command = COMMANDS[name]
    also = f"\nalso called: {', '.join(command.aliases)}" if command.aliases else ""
    text = f"{sentence(command.about)} {command.more}".strip()
    parser = Parser(f"objstore {name}", text, SHARED + also, top=False)
    add_options(name, parser)
    return parser


def sentence(about: str) -> str:
    """Return what a command is about as a sentence."""
    return f"{about[0].upper()}{about[1:]}."


def _overview() -> str:
    parts = [DESCRIPTION]
    for group, title in GROUPS.items():
        rows = [(name, command) for name, command in COMMANDS.items() if command.group == group]
        parts += ["", f"{title}:", *_rows(rows)]
    parts += [f"  {'help [COMMAND]':<17}show the help of a command"]
    return "\n".join(parts)


def _rows(rows: Iterable[tuple[str, object]], before: str = "") -> list[str]:
    return [f"  {name:<17}{COMMANDS[before + name].about}" for name, _ in rows]
