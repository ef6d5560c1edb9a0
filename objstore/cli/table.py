"""The table of commands: what each is called, which file has its options, and what runs it.

To add a command, write

1. its row in :data:`COMMANDS`;
2. a function with its name in the file of its group in ``options/``, which adds its arguments to a parser
   (``purge-deleted`` is ``purge_deleted``, ``bucket add`` is ``bucket_add``);
3. the handler, ``async def name(args, out)``, or a plain function if it needs no event loop.

Only the file of the chosen command is loaded: this one and ``options/`` import nothing of the library.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .output import Output

Handler = Callable[[Namespace, "Output"], Coroutine[object, None, None] | None]


class Command(NamedTuple):
    """One command.

    Attributes:
        about: one line for the list of commands.
        group: file of ``options/``, and section of the list.
        handler: ``file:function`` that runs it.
        check: ``file:function`` that refuses arguments that cannot work, before a connection and outside of
            an event loop: the place to ask a person.
        aliases: other names: those of ``nats object``, ``mc`` and ``aws s3``.
        more: what else its own help says.
    """

    about: str
    group: str
    handler: str
    check: str = ""
    aliases: tuple[str, ...] = ()
    more: str = ""


GROUPS = {
    "objects": "objects",
    "buckets": "buckets",
    "upkeep": "upkeep",
    "tools": "around",
    "bench": "measuring a server",
}
"""Sections of the list of commands, by their file in ``options/``."""

PARENTS = {"bucket": "manage buckets", "bench": "measure a server"}
"""Words that begin a command of two words, and what they are about."""

BUCKET = "Creates a bucket of its own, bench-…, and deletes it at the end, also after an interrupt.\n"
CHECKED = """\
All bytes are checked. With --json the result can be kept, and compared later: objstore bench compare."""

COMMANDS = {
    "put": Command(
        "store files",
        "objects",
        "storing:put",
        "storing:check_put",
        more="Each object appears complete, or not at all.",
    ),
    "get": Command(
        "read objects into files",
        "objects",
        "fetching:get",
        "fetching:check_get",
        more="Each file appears complete and verified, or not at all.\nStandard output cannot be undone: with"
        " '-O -' only exit code 0 means that all of it was correct.",
    ),
    "cat": Command("write objects to standard output", "objects", "fetching:cat", "fetching:check_cat"),
    "ls": Command(
        "list buckets, or the objects of one",
        "objects",
        "commands:ls",
        aliases=("list",),
        more="Shows one level of names; a directory ends in /.\nUp to 1000 rows are sorted by name; more come"
        " in the order of their last change, unless --sort is given.",
    ),
    "info": Command(
        "show details of a bucket or an object", "objects", "commands:info", aliases=("show", "stat")
    ),
    "find": Command(
        "find objects by name, size and time", "objects", "listing:find", more="Prints their names."
    ),
    "du": Command("show the size of directories", "objects", "listing:du"),
    "rm": Command("delete objects", "objects", "change:rm", "change:check_rm", ("del", "delete")),
    "mv": Command(
        "move or rename objects and files",
        "objects",
        "copying:cp",
        "copying:check_cp",
        ("rename",),
        more="Within a bucket the data stay where they are. Elsewhere the source is deleted when the copy is"
        " verified.",
    ),
    "cp": Command("copy objects and files", "objects", "copying:cp", "copying:check_cp", ("copy",)),
    "ln": Command("link to an object or a bucket", "objects", "change:ln", "change:check_ln", ("link",)),
    "meta": Command(
        "show or change description, headers and metadata", "objects", "change:meta", "change:check_meta"
    ),
    "sync": Command(
        "make a directory of objects equal to one of files, or back",
        "objects",
        "sync:sync",
        "sync:check_sync",
        ("mirror",),
        more="What has the same size and SHA-256 on both sides is skipped.",
    ),
    "watch": Command(
        "show changes as they happen",
        "objects",
        "watch:watch",
        more="Begins with what changes from now on. Ends when it is interrupted.",
    ),
    "bucket add": Command(
        "create a bucket",
        "buckets",
        "buckets:add",
        aliases=("bucket create", "bucket mb", "mb", "add"),
        more="Succeeds if it exists with the same configuration.",
    ),
    "bucket ls": Command("list the buckets", "buckets", "buckets:ls", aliases=("bucket list",)),
    "bucket info": Command(
        "show details of a bucket", "buckets", "buckets:info", aliases=("bucket show", "bucket stat")
    ),
    "bucket edit": Command(
        "change the configuration of a bucket",
        "buckets",
        "buckets:edit",
        "buckets:check_edit",
        ("edit",),
        "What is not named stays. --metadata adds pairs; --tag and --source replace all of theirs.",
    ),
    "bucket seal": Command(
        "make a bucket read-only for good", "buckets", "buckets:seal", "buckets:check_seal", ("seal",)
    ),
    "bucket rm": Command(
        "delete a bucket with everything in it",
        "buckets",
        "buckets:rm",
        "buckets:check_rm",
        ("bucket del", "bucket delete", "bucket rb", "rb"),
    ),
    "verify": Command(
        "check that the stored chunks match the metas",
        "upkeep",
        "maintain:verify",
        more="Changes nothing. Counts the chunks; reads them only with --deep.\n"
        "Exit code 7 if it finds problems.",
    ),
    "gc": Command(
        "remove chunks that no object uses",
        "upkeep",
        "maintain:gc",
        more="Crashed writers leave such chunks. Also completes interrupted renames.\n"
        "Younger chunks may belong to a put in progress or a paused upload: they are kept.",
    ),
    "purge-deleted": Command(
        "remove the markers of deleted objects",
        "upkeep",
        "maintain:purge_deleted",
        more="Markers younger than about three and a half minutes always stay.",
    ),
    "server": Command(
        "run a private server over a directory",
        "tools",
        "server:server",
        "server:check",
        more="Prints how to connect, and ends on Ctrl-C. The data is kept.",
    ),
    "doctor": Command(
        "check the connection, the server and the rights",
        "tools",
        "doctor:doctor",
        more="A line per check, and what to do. Without BUCKET it creates one of its own, and deletes it.\n"
        "The exit code is the highest one of the checks that fail.",
    ),
    "completion": Command(
        "print what a shell needs to complete words",
        "tools",
        "completion:completion",
        more="\nbash: source <(objstore completion bash)\n"
        "zsh: objstore completion zsh > _objstore, in a directory of $fpath\n"
        "fish: objstore completion fish > ~/.config/fish/completions/objstore.fish",
    ),
    "demo": Command(
        "show a put, get, watch and delete on a private server", "tools", "demo:demo", "demo:check"
    ),
    **{
        f"bench {work}": Command(about, "bench", "bench:bench", "bench:check", more=BUCKET + CHECKED)
        for work, about in {
            "put": "measure storing objects",
            "get": "measure reading objects",
            "range": "measure reading ranges of objects",
            "list": "measure listing a bucket",
            "mixed": "measure reads, writes and deletes of the same objects",
        }.items()
    },
    "bench core": Command(
        "measure messages: publish, subscribe or request", "bench", "bench:bench", "bench:check", more=CHECKED
    ),
    "bench compare": Command(
        "say what changed between two results of --json, and what is within noise",
        "bench",
        "bench:compare",
    ),
}

ALIASES = {alias: name for name, command in COMMANDS.items() for alias in command.aliases}


def add_options(name: str, parser: ArgumentParser) -> None:
    """Add the arguments of a command to its parser."""
    module = import_module(f".options.{COMMANDS[name].group}", __package__)
    getattr(module, name.replace(" ", "_").replace("-", "_"))(parser)


def handler(args: Namespace) -> Handler:
    """Check the arguments, and return what runs the chosen command.

    Raises:
        CommandError: the arguments cannot work; exit code 2.
    """
    from .connection import check_connection
    from .output import CommandError

    command = COMMANDS[args.command]
    try:
        check_connection(args)
        if command.check:
            check: Callable[[Namespace], None] = _load(command.check)
            check(args)
    except CommandError as exc:
        if exc.code == 2 and "--help" not in str(exc):
            exc.args = (f"{exc}. See: objstore {args.command} --help",)
        raise
    found: Handler = _load(command.handler)
    return found


def _load(reference: str) -> Callable[..., None]:
    module, _, function = reference.partition(":")
    found: Callable[..., None] = getattr(import_module(f".{module}", __package__), function)
    return found
