"""The parser and the entry point. The library is not imported before a command runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, NoReturn

from ..cli import arguments

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from .output import Output

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

VERIFY = "Changes nothing. Counts the chunks; reads them only with --deep. Exit code 7 if it finds problems."

GC = """Crashed writers leave such chunks. Also completes interrupted renames.
Younger chunks may belong to a put in progress or a paused upload: they are kept."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line and accepts no abbreviations."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if message and file is not None and file is sys.stdout:
            file.write(message)  # argparse of some releases ignores a failure
        elif message:
            from .output import say

            say(message)

    def error(self, message: str) -> NoReturn:
        from natsproto._values import printable

        name, _, command = self.prog.partition(" ")
        where = f"{command}: " if command else ""
        self.exit(2, printable(f"{name}: {where}{message}. See: {self.prog} --help") + "\n")


def _shared(*, top: bool) -> Parser:
    """Return the options allowed before and after the command; only those before it have defaults."""
    parser = Parser(add_help=False, allow_abbrev=False, argument_default=None if top else argparse.SUPPRESS)

    def flag(target: argparse._ArgumentGroup, *names: str, help: str) -> None:
        target.add_argument(
            *names, action="store_true", default=False if top else argparse.SUPPRESS, help=help
        )

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
    group.add_argument("--tlsca", metavar="FILE", help="certificates to trust (NATS_CA); requires TLS")
    group.add_argument("--tlscert", metavar="FILE", help="certificate of this client (NATS_CERT)")
    group.add_argument("--tlskey", metavar="FILE", help="its key (NATS_KEY)")
    group.add_argument(
        "--timeout", metavar="TIME", type=arguments.timeout, help="for connecting (2s) and each request (5s)"
    )
    group.add_argument("--js-domain", metavar="NAME", help="JetStream domain")
    group = parser.add_argument_group("output")
    flag(group, "--json", help="one JSON document on standard output")
    flag(group, "-q", "--quiet", help="only errors on standard error")
    flag(group, "--no-progress", help="no progress line")
    flag(group, "--trace", help="show the traceback of an error")
    return parser


def build_parser() -> Parser:
    """Return the parser of the whole command."""
    from natsproto._version import __version__

    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="objstore",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        parents=[_shared(top=True)],
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"objstore {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shared = _shared(top=False)

    def command(name: str, about: str, more: str = "") -> argparse.ArgumentParser:
        text = about[0].upper() + about[1:] + "."
        return commands.add_parser(
            name,
            help=about,
            description=f"{text} {more}".strip(),
            parents=[shared],
            formatter_class=formatter,
            allow_abbrev=False,
        )

    demo = command("demo", "show a put, get, watch and delete on a private server")
    demo.add_argument("file", metavar="FILE", nargs="?", help="file to store; default: the server's binary")

    put = command("put", "store a file")
    put.add_argument("bucket", metavar="BUCKET")
    put.add_argument("file", metavar="FILE", help="- is standard input and needs --name")
    put.add_argument("--name", metavar="NAME", help="name of the object; default: the file's base name")
    put.add_argument("--description", metavar="TEXT")
    put.add_argument(
        "-H",
        "--header",
        metavar="K:V",
        dest="headers",
        type=arguments.header,
        action="append",
        default=[],
        help="header of the object; may be repeated",
    )
    put.add_argument("--metadata", metavar="K=V", type=arguments.pair, action="append", default=[])
    put.add_argument("--chunk-size", metavar="SIZE", type=arguments.size, help="bytes of a chunk (128KiB)")

    get = command(
        "get",
        "read an object into a file",
        "The file appears complete and verified, or not at all.\nStandard output cannot be undone: with"
        " '-O -' only exit code 0 means that all of it was correct.",
    )
    get.add_argument("bucket", metavar="BUCKET")
    get.add_argument("name", metavar="NAME")
    get.add_argument(
        "-O",
        "--output",
        metavar="FILE",
        help="file to write; - is standard output; default: the base name of NAME in the current directory",
    )
    get.add_argument("-f", "--force", action="store_true", help="replace an existing file")

    ls = command("ls", "list buckets, or the objects of one")
    ls.add_argument("bucket", metavar="BUCKET", nargs="?")
    ls.add_argument("-n", "--names", action="store_true", help="names only")
    ls.add_argument(
        "-0", "--null", action="store_true", help="names only, each followed by a NUL: for xargs -0"
    )

    info = command("info", "show details of a bucket or an object")
    info.add_argument("bucket", metavar="BUCKET")
    info.add_argument("name", metavar="NAME", nargs="?")

    rm = command("rm", "delete an object")
    rm.add_argument("bucket", metavar="BUCKET")
    rm.add_argument("name", metavar="NAME")
    rm.add_argument("-f", "--force", action="store_true", help="do not ask")

    verify = command("verify", "check that the stored chunks match the metas", VERIFY)
    verify.add_argument("bucket", metavar="BUCKET")
    verify.add_argument("--deep", action="store_true", help="read every object and compare its digest")

    gc = command("gc", "remove chunks that no object uses", GC)
    gc.add_argument("bucket", metavar="BUCKET")
    gc.add_argument(
        "--older-than", metavar="TIME", type=arguments.duration, help="age of chunks to remove (24h)"
    )
    gc.add_argument("--dry-run", action="store_true", help="only report")

    bucket = command("bucket", "manage buckets")
    actions = bucket.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser(
        "add",
        help="create a bucket",
        description="Create a bucket. Succeeds if it exists with the same configuration.",
        parents=[shared],
        allow_abbrev=False,
    )
    add.add_argument("bucket", metavar="BUCKET")
    add.add_argument("--description", metavar="TEXT")
    add.add_argument("--ttl", metavar="TIME", type=arguments.duration, help="age at which objects expire: 7d")
    add.add_argument(
        "--max-bytes", "--max-bucket-size", metavar="SIZE", type=arguments.size, help="limit: 10GiB"
    )
    add.add_argument("--storage", choices=("file", "memory"), default="file")
    add.add_argument("--replicas", metavar="N", type=arguments.count, default=1)
    add.add_argument("--compress", action="store_true", help="compress the stored data")
    add.add_argument("--metadata", metavar="K=V", type=arguments.pair, action="append", default=[])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments after the command's name; default: those of the process.

    Returns:
        The exit code; see ``objstore --help``.
    """
    from .output import Output, silence

    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            parser = build_parser()
            if not words:
                parser.print_help(sys.stderr)
                return 2
            args = parser.parse_args(words)
        except SystemExit as exc:  # argparse has printed the message
            if sys.stdout is not None:
                sys.stdout.flush()
            return exc.code if isinstance(exc.code, int) else 2
    except OSError as exc:
        silence(sys.stdout)
        if isinstance(exc, BrokenPipeError):
            return 0
        print(f"objstore: {(exc.strerror or str(exc)).lower()}", file=sys.stderr)
        return 1
    out = Output(json=args.json, quiet=args.quiet, progress=not args.no_progress)
    failed: BaseException | None = None
    try:
        _run(args, out)
    except (Exception, KeyboardInterrupt) as exc:
        failed = exc
    try:
        out.deliver()
    except BrokenPipeError:
        pass  # the reader of our output has stopped: the result stays the same
    except (OSError, KeyboardInterrupt) as exc:
        if failed is None:
            failed = exc
    return 0 if failed is None else _report(args, out, failed)


def _run(args: argparse.Namespace, out: Output) -> None:
    """Find the handler and run it in an event loop."""
    handler: Callable[[argparse.Namespace, Output], Coroutine[object, None, None]]
    if args.command == "demo":
        from ..cli import demo

        demo.check(args)
        handler = demo.demo
    else:
        from ..cli import commands

        commands.check(args)
        handler = commands.HANDLERS[args.command]
    import asyncio

    asyncio.run(handler(args, out))


def _report(args: argparse.Namespace, out: Output, exc: BaseException) -> int:
    if args.trace:
        import traceback

        out.end_progress()
        traceback.print_exception(exc)
    from .failures import failure

    text, code = failure(exc)
    out.error(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
