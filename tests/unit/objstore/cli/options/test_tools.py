"""Arguments of the commands around the store."""

from __future__ import annotations

from objstore.cli.parser import parse


def test_demo() -> None:
    assert parse(["demo"]).file is None
    assert parse(["demo", "f"]).file == "f"
