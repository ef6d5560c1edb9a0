"""Arguments of the commands that keep a bucket in order."""

from __future__ import annotations

from datetime import timedelta

from objstore.cli.parser import parse


def test_verify() -> None:
    assert not parse(["verify", "b"]).deep
    assert parse(["verify", "b", "--deep"]).deep


def test_gc() -> None:
    args = parse(["gc", "b"])
    assert (args.older_than, args.dry_run) == (None, False)
    assert parse(["gc", "b", "--older-than", "0"]).older_than == timedelta(0)


def test_purge_deleted() -> None:
    assert parse(["purge-deleted", "b"]).older_than is None
    assert parse(["purge-deleted", "b", "--older-than", "1d"]).older_than == timedelta(days=1)
