"""Arguments of the commands on objects: their defaults, and where their values go."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import pytest

from objstore.cli.parser import UsageError, parse
from objstore.read.links import FollowLinks


def test_put() -> None:
    args = parse(["put", "b", "f"])
    assert (args.bucket, args.files, args.name, args.headers, args.metadata) == ("b", ["f"], None, [], [])
    args = parse(["put", "b", "f", "-H", "A:1", "--header", "B:2", "--metadata", "k=v", "--chunk-size", "1k"])
    assert args.headers == [("A", "1"), ("B", "2")]
    assert (args.metadata, args.chunk_size) == ([("k", "v")], 1024)
    args = parse(
        ["put", "b", "f", "g", "-r", "--create", "--ttl", "1h", "--atomic", "--resume", "--prefix", "p/"]
    )
    assert (args.files, args.prefix, args.ttl) == (["f", "g"], "p/", timedelta(hours=1))
    assert all([args.recursive, args.create, args.atomic, args.resume])
    assert parse(["put", "b", "f", "--if-revision", "7"]).if_revision == 7


def test_get() -> None:
    args = parse(["get", "b", "n"])
    assert (args.names, args.output, args.force, args.recursive) == (["n"], None, False, False)
    assert parse(["get", "-r", "b", "--resume"]).resume


def test_cat() -> None:
    args = parse(["cat", "b", "n", "--range", "0-99"])
    assert (args.targets, args.range) == (["b", "n"], (0, 99))
    assert parse(["cat", "b", "n", "--range=-5"]).range == (None, 5)


def test_ls_info_rm() -> None:
    assert parse(["ls"]).bucket is None
    args = parse(["ls", "b", "p", "-lr", "-n", "--sort", "size", "--since", "2026-01-31", "-0", "--deleted"])
    assert (args.bucket, args.prefixes, args.sort, args.since.year) == ("b", ["p"], "size", 2026)
    assert all([args.long, args.recursive, args.names, args.null, args.deleted])
    assert parse(["info", "b"]).name is None
    args = parse(["rm", "-f", "b", "n", "-r", "--dry-run"])
    assert all([args.force, args.recursive, args.dry_run])


def test_find_du() -> None:
    args = parse(["find", "b", "--name", "*.log", "--larger", "1k", "--smaller", "1M", "--newer", "7d"])
    assert (args.match, args.larger, args.smaller, args.older) == ("*.log", 1024, 1 << 20, None)
    assert parse(["du", "b", "-d", "2"]).depth == 2


def test_changes() -> None:
    assert parse(["mv", "b", "n", "m", "-f"]).places == ["b", "n", "m"]
    assert parse(["cp", "-r", "dir", "natsobj://b/"]).recursive
    assert parse(["ln", "b", "n", "m", "--description", "d"]).description == "d"
    args = parse(["meta", "b", "n", "--no-header", "A", "--no-metadata", "k", "--if-revision", "3"])
    assert (args.no_headers, args.no_metadata, args.if_revision) == (["A"], ["k"], 3)
    args = parse(["sync", "dir", "natsobj://b/", "--delete", "--dry-run"])
    assert (args.source, args.target, args.delete, args.dry_run) == ("dir", "natsobj://b/", True, True)


def test_links() -> None:
    """The words and the default of the API."""
    for words in (["get", "b", "n"], ["cat", "b", "n"], ["cp", "b", "n", "m"], ["mv", "b", "n", "m"]):
        assert parse(words).follow_links == "all"
        for follow in get_args(FollowLinks):
            assert parse([*words, "--follow-links", follow]).follow_links == follow
        with pytest.raises(UsageError, match="invalid choice: 'some'"):
            parse([*words, "--follow-links", "some"])


def test_watch() -> None:
    args = parse(["watch", "b"])
    assert (args.prefix, args.all, args.from_revision, args.count, args.exec) == ("", False, None, None, None)
    args = parse(["watch", "b", "p/", "--from-revision", "7", "--exec", "x y"])
    assert (args.prefix, args.from_revision, args.exec) == ("p/", 7, "x y")
    with pytest.raises(UsageError, match="not allowed with"):
        parse(["watch", "b", "--all", "--from-revision", "7"])
