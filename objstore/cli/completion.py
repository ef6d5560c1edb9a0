"""``completion``: print what a shell needs to complete commands, options and buckets.

The scripts are made by ``tests/support/completions.py`` and lie in ``completions/``. They call
``completion buckets``.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Coroutine, Sequence

from .output import CommandError, Output

DIRECTORY = os.path.join(os.path.dirname(__file__), "completions")
SHELLS = ("bash", "zsh", "fish")
BUCKETS = "buckets"
"""What the scripts ask for, instead of a shell."""

SOON = 2.0
"""Seconds in which a server must answer: somebody has pressed a key, and waits."""


def completion(args: Namespace, out: Output) -> Coroutine[object, None, None] | None:
    """``completion SHELL``, and for its script ``completion buckets -- WORD…``."""
    if args.shell == BUCKETS:
        return _buckets(args.line, out)
    if args.line:
        raise CommandError(f"{' '.join(args.line)!r} is one argument too many", 2)
    with open(os.path.join(DIRECTORY, f"objstore.{args.shell}"), encoding="utf-8") as file:
        out.lines(file.read().splitlines())
    return None


async def _buckets(words: Sequence[str], out: Output) -> None:
    """Print the buckets of the server that an unfinished command line means."""
    from .buckets import list_buckets
    from .connection import check_connection, session
    from .parser import shared_options

    args, _ = shared_options(top=True).parse_known_args(words)
    if args.local is not None:
        return  # a key press starts no server, and creates no directory
    check_connection(args)
    args.timeout = min(args.timeout or SOON, SOON)
    args.names, args.null = True, False
    async with session(args, out) as link:
        await list_buckets(link, args, out)
