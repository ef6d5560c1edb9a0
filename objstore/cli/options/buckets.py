"""Arguments of the commands on buckets."""

from __future__ import annotations

from argparse import ArgumentParser

from .. import arguments


def bucket_add(parser: ArgumentParser) -> None:
    parser.add_argument("bucket", metavar="BUCKET")
    parser.add_argument("--description", metavar="TEXT")
    parser.add_argument(
        "--ttl", metavar="TIME", type=arguments.duration, help="age at which objects expire: 7d"
    )
    parser.add_argument(
        "--max-bytes", "--max-bucket-size", metavar="SIZE", type=arguments.size, help="limit: 10GiB"
    )
    parser.add_argument("--storage", choices=("file", "memory"), default="file")
    parser.add_argument("--replicas", metavar="N", type=arguments.count, default=1)
    parser.add_argument("--compress", action="store_true", help="compress the stored data")
    parser.add_argument("--metadata", metavar="K=V", type=arguments.pair, action="append", default=[])
