"""What goes where, as with ``cp``."""

from __future__ import annotations

import pytest

from objstore.filesystem.moving import Move, check_files, check_targets, plan
from objstore.filesystem.tree import Entry, directory_entry

FILE: Entry = {"name": "b/a/x", "size": 1, "type": "file"}
TREE = {"b/a": directory_entry("b/a"), "b/a/x": FILE}


def test_one_file() -> None:
    one = {"b/a/x": FILE}
    assert plan("b/a/x", one, "to", into=False, only_files=True) == [Move("b/a/x", "to", False)]
    assert plan("b/a/x", one, "to/", into=True, only_files=True) == [Move("b/a/x", "to/x", False)]
    assert plan("b/a/*", one, "to", into=False, only_files=True, pattern=True) == [
        Move("b/a/x", "to/x", False)
    ]
    assert plan(["b/a/x"], one, "to", into=False, only_files=False) == [Move("b/a/x", "to/x", False)]


def test_a_tree() -> None:
    assert plan("b/a", TREE, "to", into=False, only_files=False) == [
        Move("b/a", "to", True),
        Move("b/a/x", "to/x", False),
    ]
    inside = [Move("b/a", "to/a", True), Move("b/a/x", "to/a/x", False)]
    assert plan("b/a", TREE, "to", into=True, only_files=False) == inside
    assert plan("b/a/", TREE, "to", into=True, only_files=False)[1] == Move("b/a/x", "to/x", False)
    assert plan("b/a", {"b/a": TREE["b/a"]}, "to", into=True, only_files=True) == []


def test_no_source_replaces_another_one() -> None:
    for pairs in ([("a", "x"), ("b", "x")], [("a", "b"), ("b", "c")], [("a", "b"), ("b", "a")]):
        with pytest.raises(ValueError, match=r"both be|would replace"):
            check_files([Move(source, target, False) for source, target in pairs])
    for pairs in ([("a", "x"), ("a", "x")], [("a", "a"), ("b", "c")], [("a", "x"), ("a", "y")]):
        check_files([Move(source, target, False) for source, target in pairs])
    check_targets([("a", "b"), ("b", "a")])
    with pytest.raises(ValueError, match="'a' and 'b' would both be 'x'"):
        check_targets([("a", "x"), ("b", "x")])
