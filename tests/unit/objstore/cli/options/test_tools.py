"""Arguments of the commands around the store."""

from __future__ import annotations

import pytest

from objstore.cli.parser import UsageError, parse


def test_server() -> None:
    args = parse(["server"])
    assert (args.directory, args.port, args.server) == ("objstore-data", None, None)
    assert parse(["server", "d", "--port", "4222"]).port == 4222
    with pytest.raises(UsageError, match="the highest is 65535"):
        parse(["server", "--port", "65536"])


def test_doctor() -> None:
    args = parse(["doctor"])
    assert (args.bucket, args.read_only) == (None, False)
    assert parse(["doctor", "b", "--read-only"]).read_only


def test_completion() -> None:
    assert parse(["completion", "zsh"]).shell == "zsh"
    with pytest.raises(UsageError, match="invalid choice"):
        parse(["completion", "tcsh"])


def test_demo() -> None:
    assert parse(["demo"]).file is None
    assert parse(["demo", "f"]).file == "f"
