"""Arguments of the commands on buckets."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction

from .. import arguments


def bucket_add(parser: ArgumentParser) -> None:
    """Add the arguments of ``bucket add``."""
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument(
        "--storage", choices=("file", "memory"), default="file", help="where the server keeps it (file)"
    )
    _configuration(parser)
    parser.add_argument(
        "--mirror",
        metavar="BUCKET[@DOMAIN]",
        type=arguments.source,
        help="be a read-only copy of that bucket",
    )


def bucket_edit(parser: ArgumentParser) -> None:
    """Add the arguments of ``bucket edit``."""
    parser.add_argument("bucket", metavar="BUCKET")
    _configuration(parser)
    parser.add_argument(
        "--unset-metadata", metavar="KEY", action="append", default=[], help="remove a pair; may be repeated"
    )


def _configuration(parser: ArgumentParser) -> None:
    parser.add_argument("--description", metavar="TEXT")
    parser.add_argument(
        "--ttl", metavar="TIME", type=arguments.duration, help="age at which objects expire: 7d (0: never)"
    )
    parser.add_argument(
        "--max-bytes", "--max-bucket-size", metavar="SIZE", type=arguments.size, help="limit: 10GiB (0: none)"
    )
    parser.add_argument("--replicas", metavar="N", type=arguments.count, help="copies in a cluster (1)")
    parser.add_argument("--cluster", metavar="NAME", help="place it in that cluster")
    parser.add_argument(
        "--tag",
        metavar="TAG",
        dest="tags",
        action="append",
        help="place it on servers with it; may be repeated",
    )
    parser.add_argument(
        "--metadata",
        metavar="K=V",
        type=arguments.pair,
        action="append",
        default=[],
        help="pair of the bucket; may be repeated",
    )
    parser.add_argument("--compress", action=BooleanOptionalAction, help="compress the stored data")
    parser.add_argument("--allow-direct", action=BooleanOptionalAction, help="replicas answer reads (yes)")
    parser.add_argument("--allow-atomic", action=BooleanOptionalAction, help="for put --atomic")
    parser.add_argument("--allow-ttl", action=BooleanOptionalAction, help="for put --ttl")
    parser.add_argument(
        "--source",
        metavar="BUCKET[@DOMAIN]",
        dest="sources",
        type=arguments.source,
        action="append",
        help="copy the objects of that bucket into this one; may be repeated",
    )


def bucket_ls(parser: ArgumentParser) -> None:
    """Add the arguments of ``bucket ls``."""
    parser.add_argument("-n", "--names", action="store_true", help="names only")
    parser.add_argument("-0", "--null", action="store_true", help="names only, each followed by a NUL")


def bucket_info(parser: ArgumentParser) -> None:
    """Add the arguments of ``bucket info``."""
    parser.add_argument("bucket", metavar="BUCKET")


def bucket_seal(parser: ArgumentParser) -> None:
    """Add the arguments of ``bucket seal``."""
    _one(parser)


def bucket_rm(parser: ArgumentParser) -> None:
    """Add the arguments of ``bucket rm``."""
    _one(parser)


def _one(parser: ArgumentParser) -> None:
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
