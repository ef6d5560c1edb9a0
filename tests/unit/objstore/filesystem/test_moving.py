"""What goes where, as with ``cp``."""

from __future__ import annotations

from objstore.filesystem.moving import Move, plan
from objstore.filesystem.tree import Entry, directory_entry

FILE: Entry = {"name": "b/a/x", "size": 1, "type": "file"}
TREE = {"b/a": directory_entry("b/a"), "b/a/x": FILE}


def test_one_file() -> None:
    one = {"b/a/x": FILE}
    assert plan("b/a/x", one, "to", into=False, only_files=True) == [Move("b/a/x", "to", False)]
    assert plan("b/a/x", one, "to/", into=True, only_files=True) == [Move("b/a/x", "to/x", False)]
    assert plan("b/a/*", one, "to", into=False, only_files=True) == [Move("b/a/x", "to/x", False)]
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
