"""Arguments of the commands that keep a bucket in order."""

from __future__ import annotations

from argparse import ArgumentParser

from .. import arguments


def verify(parser: ArgumentParser) -> None:
    """Add the arguments of ``verify``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("--deep", action="store_true", help="read every object and compare its digest")


def gc(parser: ArgumentParser) -> None:
    """Add the arguments of ``gc``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument(
        "--older-than", metavar="TIME", type=arguments.duration, help="age of chunks to remove (24h)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only report")


def purge_deleted(parser: ArgumentParser) -> None:
    """Add the arguments of ``purge-deleted``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument(
        "--older-than", metavar="TIME", type=arguments.duration, help="age of markers to remove; default: all"
    )
