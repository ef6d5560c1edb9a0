"""One listing as directories and files; no name is lost."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from objstore import ObjectHeaders, ObjectInfo, ObjectLink, ObjectMetaOptions
from objstore.filesystem.tree import Tree, directory_entry, file_entry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["a", "a/b", "a//b", "d/e/f", "/tmp/x", "d/../g", "m/"]


def info(name: str, size: int = 3) -> ObjectInfo:
    return ObjectInfo(name, None, None, size, 1, "SHA-256=00", False, NOW, "n", "b", revision=7)


@pytest.fixture
def tree() -> Tree:
    tree = Tree("b")
    for name in NAMES:
        tree.add(info(name), info(name))
    return tree


def names(tree: Tree, directory: str = "") -> list[str]:
    return [f"{entry['name']} {entry['type']}" for entry in tree.children(directory)]


def test_children(tree: Tree) -> None:
    assert names(tree) == ["b//tmp directory", "b/a directory", "b/a file", "b/d directory", "b/m directory"]
    assert names(tree, "a") == ["b/a//b file", "b/a/b file"]
    assert names(tree, "d") == ["b/d/.. directory", "b/d/e directory"]
    assert names(tree, "/tmp") == ["b//tmp/x file"]
    assert names(tree, "m") == []
    assert [marker.name for marker in tree.markers] == ["m/"]
    assert tree.is_directory("")
    assert tree.is_directory("m")
    assert not tree.is_directory("d/e/f")


def test_find(tree: Tree) -> None:
    everything = tree.find("", None, "", withdirs=False)
    assert list(everything) == sorted("b/" + name for name in NAMES if name != "m/")
    assert list(tree.find("a", None, "", withdirs=False)) == ["b/a", "b/a//b", "b/a/b"]
    assert list(tree.find("d", 1, "", withdirs=True)) == ["b/d", "b/d/..", "b/d/e"]
    assert list(tree.find("d", None, "e", withdirs=True)) == ["b/d", "b/d/e", "b/d/e/f"]
    assert list(tree.find("", 1, "", withdirs=True)) == ["b", "b//tmp", "b/a", "b/d", "b/m"]
    assert (
        tree.find("", 1, "", withdirs=True)["b/a"]["type"] == "file"
    )  # a file is not lost behind a directory
    assert dict(tree.find("none", None, "", withdirs=True)) == {}


@pytest.mark.parametrize("topdown", [True, False])
def test_a_name_with_more_directories_than_calls_can_be_nested(topdown: bool) -> None:
    deep = Tree("b")
    deep.add(info("d/" * 1400 + "f"), info("f"))
    walked = [at for at, _, _ in deep.walk("", None, topdown=topdown)]
    assert len(walked) == 1401
    assert walked == sorted(walked, reverse=not topdown)
    assert len(list(deep.walk("", 7, topdown=topdown))) == 7
    assert list(deep.find("", None, "", withdirs=False)) == ["b/" + "d/" * 1400 + "f"]
    found = deep.find("", None, "", withdirs=True)
    assert [entry["type"] for entry in found.values()] == ["directory"] * 101 + ["file"]
    assert list(deep.find("d/d", None, "", withdirs=True, levels=1)) == [
        "b/d/d",
        "b/d/d/d",
        "b/" + "d/" * 1400 + "f",
    ]


def test_characters_around_the_slash_in_their_order() -> None:
    tree = Tree("b")
    for name in ("a0", "a0/z", "a/y", "a", "a-/x", "a//y", "a/"):
        tree.add(info(name), info(name))
    assert names(tree) == ["b/a directory", "b/a file", "b/a- directory", "b/a0 directory", "b/a0 file"]
    assert names(tree, "a") == ["b/a//y file", "b/a/y file"]
    assert [list(each) for each in tree.listed("")] == [["a", "a-", "a0"], ["a", "a0"]]
    assert list(tree.find("a", None, "", withdirs=True)) == ["b/a", "b/a//y", "b/a/y"]
    assert not tree.is_directory("a/")


def test_memory_is_in_proportion_to_the_names() -> None:
    # The names: 56 kB; the paths of their directories: 40 MB.
    deep = [info(f"{number}/" + "d/" * 1400 + "f") for number in range(20)]
    tracemalloc.start()
    try:
        tree = Tree("b")
        for each in deep:
            tree.add(each, each)
        assert len(tree.children("")) == 20
        assert len(tree.children("7" + "/d" * 700)) == 1
        assert len(tree.find("", None, "", withdirs=False)) == 20
        assert len(tree.find("", 3, "", withdirs=True)) == 61
        assert len(tree.find("", None, "", withdirs=True, levels=0)) == 21
        assert tree.is_directory("19" + "/d" * 1400)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_walk(tree: Tree) -> None:
    walked = [(at, list(dirs), list(files)) for at, dirs, files in tree.walk("", None, topdown=True)]
    assert walked[0] == ("b", ["/tmp", "a", "d", "m"], ["a"])
    assert ("b/a", [], ["/b", "b"]) in walked
    upward = [at for at, _, _ in tree.walk("d", None, topdown=False)]
    assert upward == ["b/d/..", "b/d/e", "b/d"]
    assert len(list(tree.walk("", 1, topdown=True))) == 1
    pruned = []
    for at, dirs, _ in tree.walk("", None, topdown=True):
        pruned.append(at)
        dirs.pop("d", None)
    assert "b/d" not in pruned


def test_entries() -> None:
    full = replace(info("n"), headers=ObjectHeaders({"A": "1"}), metadata={"k": "v"}, expires=NOW)
    entry = file_entry("b/n", full, full)
    assert (entry["size"], entry["type"], entry["digest"]) == (3, "file", "SHA-256=00")
    assert (entry["headers"], entry["metadata"], entry["expires"]) == ({"A": ["1"]}, {"k": "v"}, NOW)
    assert (entry["mtime"], entry["created"], entry["revision"], entry["islink"]) == (NOW, NOW, 7, False)
    link = replace(info("l", 0), options=ObjectMetaOptions(link=ObjectLink("b", "n")))
    later = replace(full, mtime=NOW + timedelta(1))
    entry = file_entry("b/l", link, later)
    assert (entry["name"], entry["size"], entry["islink"], entry["destination"]) == ("b/l", 3, True, "b/n")
    assert entry["mtime"] == later.mtime
    assert file_entry("b/l", link, None)["type"] == "other"
    assert directory_entry("b") == {"name": "b", "size": 0, "type": "directory"}
    assert directory_entry("b", NOW)["created"] == NOW
