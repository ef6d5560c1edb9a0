"""Arguments of the commands around the store."""

from __future__ import annotations

from argparse import ArgumentParser


def demo(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", help="file to store; default: the server's binary")
