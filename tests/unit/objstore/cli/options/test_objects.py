"""Arguments of the commands on objects: their defaults, and where their values go."""

from __future__ import annotations

import pytest

from objstore.cli.parser import UsageError, parse


def test_put() -> None:
    args = parse(["put", "b", "f"])
    assert (args.bucket, args.file, args.name, args.headers, args.metadata) == ("b", "f", None, [], [])
    args = parse(["put", "b", "f", "-H", "A:1", "--header", "B:2", "--metadata", "k=v", "--chunk-size", "1k"])
    assert args.headers == [("A", "1"), ("B", "2")]
    assert (args.metadata, args.chunk_size) == ([("k", "v")], 1024)


def test_get() -> None:
    args = parse(["get", "b", "n"])
    assert (args.name, args.output, args.force) == ("n", None, False)


def test_ls_info_rm() -> None:
    assert parse(["ls"]).bucket is None
    assert parse(["info", "b"]).name is None
    assert parse(["rm", "-f", "b", "n"]).force


def test_watch() -> None:
    args = parse(["watch", "b"])
    assert (args.prefix, args.all, args.from_revision, args.count, args.exec) == ("", False, None, None, None)
    args = parse(["watch", "b", "p/", "--from-revision", "7", "--exec", "x y"])
    assert (args.prefix, args.from_revision, args.exec) == ("p/", 7, "x y")
    with pytest.raises(UsageError, match="not allowed with"):
        parse(["watch", "b", "--all", "--from-revision", "7"])
