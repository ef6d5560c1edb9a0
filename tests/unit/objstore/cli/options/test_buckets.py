"""Arguments of the commands on buckets: their defaults, and where their values go."""

from __future__ import annotations

from datetime import timedelta

from objstore.cli.parser import parse


def test_bucket_add() -> None:
    args = parse(["bucket", "add", "b"])
    assert (args.ttl, args.max_bytes, args.storage, args.replicas) == (None, None, "file", None)
    assert (args.mirror, args.sources, args.compress) == (None, None, None)
    args = parse(["bucket", "add", "b", "--ttl", "7d", "--max-bucket-size", "1G", "--replicas", "3"])
    assert (args.ttl, args.max_bytes, args.replicas) == (timedelta(days=7), 1 << 30, 3)
    args = parse(["bucket", "add", "b", "--mirror", "o", "--source", "p@hub", "--tag", "t", "--no-compress"])
    assert (args.mirror, args.sources, args.tags) == (("o", None), [("p", "hub")], ["t"])
    assert args.compress is False


def test_bucket_edit() -> None:
    args = parse(["bucket", "edit", "b", "--metadata", "k=v", "--unset-metadata", "l"])
    assert (args.metadata, args.unset_metadata) == ([("k", "v")], ["l"])


def test_bucket_ls_info_seal_rm() -> None:
    assert parse(["bucket", "ls", "-n"]).names
    assert parse(["bucket", "info", "b"]).bucket == "b"
    assert not parse(["bucket", "seal", "b"]).force
    assert parse(["bucket", "rm", "-f", "b"]).force
