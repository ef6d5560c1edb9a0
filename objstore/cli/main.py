"""The entry point: parse, run, report. The library is not imported before a command runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from .output import Output


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments after the command's name; default: those of the process.

    Returns:
        The exit code; see ``objstore --help``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        return _version()
    from .output import CommandError, Output
    from .parser import parse, top_parser

    try:
        if not words:
            top_parser().print_help(sys.stderr)
            return 2
        args = parse(words)
    except SystemExit as exc:  # help or the version; argparse has printed it
        return _flushed(exc)
    except CommandError as exc:
        before = words[: words.index("--")] if "--" in words else words
        Output(json="--json" in before).error(str(exc), exc)
        return exc.code
    except OSError as exc:
        return _unwritable(exc)
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


def _version() -> int:
    """Print the version without the parser, which would double the time: scripts ask for it."""
    from natsproto._version import __version__

    try:
        print(f"objstore {__version__}", flush=True)
    except OSError as exc:
        return _unwritable(exc)
    return 0


def _flushed(exc: SystemExit) -> int:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as failed:
        return _unwritable(failed)
    return exc.code if isinstance(exc.code, int) else 2


def _unwritable(exc: OSError) -> int:
    """Report that help could not be written; a reader that stops is no failure."""
    from .output import silence

    silence(sys.stdout)
    if isinstance(exc, BrokenPipeError):
        return 0
    print(f"objstore: {(exc.strerror or str(exc)).lower()}", file=sys.stderr)
    return 1


def _run(args: Namespace, out: Output) -> None:
    """Find the handler and run it, in an event loop if it needs one."""
    from . import table

    running = table.handler(args)(args, out)
    if running is not None:
        import asyncio

        asyncio.run(running)


def _report(args: Namespace, out: Output, exc: BaseException) -> int:
    from .output import ReaderStopped

    if isinstance(exc, ReaderStopped):
        return exc.code
    if args.trace:
        import traceback

        out.end_progress()
        traceback.print_exception(exc)
    from .failures import failure

    text, code = failure(exc)
    out.error(text, exc, code)
    return code


if __name__ == "__main__":
    sys.exit(main())
