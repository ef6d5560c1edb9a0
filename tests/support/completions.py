"""What the shells complete: made by shtab from the table of commands, and shipped.

``python -m tests.support.completions`` writes the files again, after a change of commands or options.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from objstore.cli.completion import DIRECTORY, SHELLS
from objstore.cli.parser import Parser
from objstore.cli.table import ALIASES, COMMANDS, PARENTS, add_options


def whole_parser() -> argparse.ArgumentParser:
    """One parser of all commands; the command itself makes only the one that it needs."""
    top = Parser("objstore", "Objects in NATS JetStream", top=True)
    top.add_argument("--version", action="version", version="")
    commands = top.add_subparsers(dest="command")
    actions: dict[str, Any] = {}
    for name, about in PARENTS.items():
        parent = Parser(f"objstore {name}", top=False)
        actions[name] = parent.add_subparsers(dest="action")
        commands.choices[name] = parent  # type: ignore[index]
        commands._choices_actions.append(commands._ChoicesPseudoAction(name, [], about))
    for name, command in COMMANDS.items():
        parser = Parser(f"objstore {name}", command.about, top=False)
        add_options(name, parser)
        others = [alias for alias, of in ALIASES.items() if of == name and " " not in alias]
        for each in [name, *others]:
            parent_name, space, word = each.rpartition(" ")
            place = actions[parent_name] if space else commands
            place.choices[word] = parser
            place._choices_actions.append(place._ChoicesPseudoAction(word, [], command.about))
    helped = argparse.ArgumentParser(prog="objstore help", add_help=False)
    helped.add_argument("of", nargs="*", choices=[name.split()[0] for name in COMMANDS])
    commands.choices["help"] = helped  # type: ignore[index]
    commands._choices_actions.append(commands._ChoicesPseudoAction("help", [], "show the help of a command"))
    _name_files(top)
    return top


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Tell shtab which arguments are files, and show it the shared options, which the help leaves out."""
    import shtab

    about = {action.dest: action.help for action in Parser("objstore", top=True)._actions}
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            action.help = about.get(action.dest)
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _name_files(each)
        elif action.metavar in ("FILE", "PLACE"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def script(shell: str) -> str:
    """The script of a shell."""
    import shtab

    text = shtab.complete(whole_parser(), shell)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).rstrip() + "\n"


if __name__ == "__main__":
    Path(DIRECTORY).mkdir(exist_ok=True)
    for shell in SHELLS:
        Path(DIRECTORY, f"objstore.{shell}").write_text(script(shell))
