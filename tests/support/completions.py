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

# Each asks the command for the buckets of the server that the line names, with the words before the cursor.
# Names of buckets are letters, digits, _ and -: no shell finds anything in them to expand.
BUCKETS = {
    "bash": "_objstore_buckets",
    "zsh": "_objstore_buckets",
    "fish": "(objstore completion buckets -- (commandline -opc)[2..-1] 2>/dev/null)",
    "preamble": {
        "bash": r"""
_objstore_buckets() {
  compgen -W "$(objstore completion buckets -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "$1"
}""",
        "zsh": r"""
_objstore_buckets() {
  local -a line names  # $words lacks what stands before the command
  line=(${(Q)${(z)LBUFFER}})
  line=(${line[${line[(I)(*/|)objstore]}+1,-1]})
  names=(${(f)"$(objstore completion buckets -- $line 2>/dev/null)"})
  _wanted buckets expl bucket compadd -a names
}""",
    },
}

JOINED = r"""
  # bash cuts words at colons; a URL is one word, not five
  local words=() last=-1 at cword
  for ((at = 0; at < ${#COMP_WORDS[@]}; at++)); do
    if ((at > 0)) && [[ ${COMP_WORDS[at]} == :* || ${words[last]} == *: ]]; then
      words[last]+=${COMP_WORDS[at]}
    else
      words[++last]=${COMP_WORDS[at]}
    fi
    ((at != COMP_CWORD)) || cword=$last
  done
  local COMP_WORDS=("${words[@]}") COMP_CWORD=$cword
"""


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
    for place, action in enumerate(parser._actions):
        words = str(action.metavar).split()
        if len(words) > 1 and words[0] == "BUCKET":  # one argument, as the first word may be an address
            parser._actions.insert(place, argparse.Action([], "bucket", metavar="BUCKET"))
            action.metavar, action.nargs = words[1], "*"
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            action.help = about.get(action.dest, argparse.SUPPRESS)
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _name_files(each)
        elif action.metavar == "BUCKET" and not parser.prog.endswith(" add"):
            action.complete = BUCKETS  # type: ignore[attr-defined]
        elif action.metavar == "SHELL":
            action.choices = SHELLS
        elif action.metavar in ("FILE", "PLACE"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def script(shell: str) -> str:
    """The script of a shell."""
    import shtab

    text = shtab.complete(whole_parser(), shell)
    if shell == "bash":
        text = text.replace("\n_shtab_objstore() {\n", f"\n_shtab_objstore() {{{JOINED}")
    if shell == "zsh":
        text = re.sub(r'^  "\(\*\)::?', '  "*:', text, flags=re.MULTILINE)  # else only the first of several
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).rstrip() + "\n"


if __name__ == "__main__":
    Path(DIRECTORY).mkdir(exist_ok=True)
    for shell in SHELLS:
        Path(DIRECTORY, f"objstore.{shell}").write_text(script(shell))
