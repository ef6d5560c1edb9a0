"""Arguments of the commands on objects."""

from __future__ import annotations

from argparse import ArgumentParser

from .. import arguments


def put(parser: ArgumentParser) -> None:
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
    parser.add_argument("bucket", metavar="BUCKET", nargs="?")
    parser.add_argument("-n", "--names", action="store_true", help="names only")
    parser.add_argument(
        "-0", "--null", action="store_true", help="names only, each followed by a NUL: for xargs -0"
    )


def info(parser: ArgumentParser) -> None:
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("name", metavar="NAME", nargs="?")


def rm(parser: ArgumentParser) -> None:
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
