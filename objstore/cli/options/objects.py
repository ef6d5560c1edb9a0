"""Arguments of the commands on objects."""

from __future__ import annotations

from argparse import ArgumentParser

from .. import arguments


def put(parser: ArgumentParser) -> None:
    """Add the arguments of ``put``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("file", metavar="FILE", help="- is standard input and needs --name")
    parser.add_argument("--name", metavar="NAME", help="name of the object; default: the file's base name")
    parser.add_argument("--description", metavar="TEXT")
    parser.add_argument(
        "-H",
        "--header",
        metavar="K:V",
        dest="headers",
        type=arguments.header,
        action="append",
        default=[],
        help="header of the object; may be repeated",
    )
    parser.add_argument("--metadata", metavar="K=V", type=arguments.pair, action="append", default=[])
    parser.add_argument("--chunk-size", metavar="SIZE", type=arguments.size, help="bytes of a chunk (128KiB)")


def get(parser: ArgumentParser) -> None:
    """Add the arguments of ``get``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "-O",
        "--output",
        metavar="FILE",
        help="file to write; - is standard output; default: the base name of NAME in the current directory",
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing file")


def ls(parser: ArgumentParser) -> None:
    """Add the arguments of ``ls``."""
    parser.add_argument("bucket", metavar="BUCKET", nargs="?")
    parser.add_argument("-n", "--names", action="store_true", help="names only")
    parser.add_argument(
        "-0", "--null", action="store_true", help="names only, each followed by a NUL: for xargs -0"
    )


def info(parser: ArgumentParser) -> None:
    """Add the arguments of ``info``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("name", metavar="NAME", nargs="?")


def rm(parser: ArgumentParser) -> None:
    """Add the arguments of ``rm``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")


def watch(parser: ArgumentParser) -> None:
    """Add the arguments of ``watch``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only names that begin so")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--all", action="store_true", help="begin with the objects that are there")
    start.add_argument(
        "--from-revision", metavar="N", type=arguments.count, help="begin with that revision, to continue"
    )
    parser.add_argument("--ignore-deletes", action="store_true", help="leave out deletions")
    parser.add_argument("--count", metavar="N", type=arguments.count, help="end after N changes")
    parser.add_argument(
        "--exec",
        metavar="COMMAND",
        help="run it by the shell for each change, one after the other: the JSON document is on its standard"
        " input, and OBJSTORE_EVENT (put, delete), OBJSTORE_BUCKET, OBJSTORE_NAME, OBJSTORE_REVISION,"
        " OBJSTORE_SIZE and OBJSTORE_DIGEST are in its environment",
    )
