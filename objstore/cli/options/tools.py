"""Arguments of the commands around the store."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser

from .. import arguments


def server(parser: ArgumentParser) -> None:
    """Add the arguments of ``server``."""
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", default="objstore-data", help="where it keeps its data"
    )
    parser.add_argument(
        "--port", metavar="N", type=arguments.port, help="default: the one of its last run, or a free one"
    )


def doctor(parser: ArgumentParser) -> None:
    """Add the arguments of ``doctor``."""
    parser.add_argument(
        "bucket",
        metavar="BUCKET",
        nargs="?",
        help="check the rights to this bucket; default: to one of its own",
    )
    parser.add_argument("--read-only", action="store_true", help="store, change and delete nothing")


def completion(parser: ArgumentParser) -> None:
    """Add the arguments of ``completion``."""
    shells = ("bash", "zsh", "fish", "buckets")  # the scripts ask for the last one
    parser.add_argument("shell", metavar="SHELL", choices=shells, help="bash, zsh or fish")
    parser.add_argument("line", nargs="*", help=SUPPRESS)


def demo(parser: ArgumentParser) -> None:
    """Add the arguments of ``demo``."""
    parser.add_argument("file", metavar="FILE", nargs="?", help="file to store; default: the server's binary")
