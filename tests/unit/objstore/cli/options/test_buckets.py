"""Arguments of the commands on buckets: their defaults, and where their values go."""

from __future__ import annotations

from datetime import timedelta

from objstore.cli.parser import parse


def test_bucket_add() -> None:
    args = parse(["bucket", "add", "b"])
    assert (args.ttl, args.max_bytes, args.storage, args.replicas) == (None, None, "file", 1)
    args = parse(["bucket", "add", "b", "--ttl", "7d", "--max-bucket-size", "1G", "--replicas", "3"])
    assert (args.ttl, args.max_bytes, args.replicas) == (timedelta(days=7), 1 << 30, 3)
