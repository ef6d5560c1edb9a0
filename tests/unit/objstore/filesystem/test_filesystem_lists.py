"""Paths that may be patterns: others choose names, and a name may have the characters of a pattern."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from objstore.filesystem import NatsObjectFileSystem


def of_the_same(fs: NatsObjectFileSystem, *, patterns: bool) -> NatsObjectFileSystem:
    """A file system of the same server with another option."""
    other = NatsObjectFileSystem(skip_instance_cache=True, patterns=patterns)
    other._connections = fs._connections
    return other


def test_a_name_among_paths_does_not_decide_what_a_pattern_means(
    fs: NatsObjectFileSystem, tmp_path: Path
) -> None:
    """Anybody may choose a name: one that is also a pattern for others is neither."""
    asking = of_the_same(fs, patterns=True)
    stored = ["tmp/*", "tmp/new", "a[1]", "a1", "d*/x", "dir/x"]
    for name in stored:
        fs.pipe_file(f"b/{name}", name.encode())
    for use in (
        lambda: fs.cat(["b/tmp/*"]),
        lambda: fs.cat("b/tmp/*"),
        lambda: fs.get(["b/a[1]"], str(tmp_path / "to")),
        lambda: fs.get("b/a[1]", str(tmp_path / "to")),
        lambda: fs.cp(["b/d*"], "b/copies", recursive=True),
        lambda: fs.cp("b/tmp/*", "b/copies/"),
        lambda: asking.rm(["b/tmp/new", "b/tmp/*"]),
        lambda: asking.rm("b/d*", recursive=True),
        lambda: asking.mv(["b/tmp/*"], "b/moved/"),
        lambda: asking.mv("b/a[1]", "b/moved/"),
    ):
        with pytest.raises(ValueError, match="is the name of an object, and a pattern that matches others"):
            use()
    assert sorted(fs.find("b")) == sorted(f"b/{name}" for name in stored)
    assert not (tmp_path / "to").exists()
    fs.rm_file("b/a1")
    assert fs.cat(["b/a[1]"]) == {"b/a[1]": b"a[1]"}  # it matches nothing else
    asking.rm(["b/a[1]"])
    fs.rm_file("b/tmp/*")
    asking.rm(["b/tmp/*"])  # nothing is called so any more
    assert sorted(fs.find("b")) == ["b/d*/x", "b/dir/x"]
    fs.rm("b/d*", recursive=True)
    assert fs.find("b") == ["b/dir/x"]


Use = Callable[[NatsObjectFileSystem, str], object]

REMOVALS: dict[str, Use] = {
    "one": lambda fs, name: fs.rm(f"b/{name}"),
    "a list": lambda fs, name: fs.rm([f"b/{name}"]),
    "a tree": lambda fs, name: fs.rm(f"b/{name}", recursive=True),
    "some levels": lambda fs, name: fs.rm(f"b/{name}", recursive=True, maxdepth=1),
    "moved": lambda fs, name: fs.mv(f"b/{name}", "b/to"),
    "several moved": lambda fs, name: fs.mv([f"b/{name}"], "b/to/"),
    "a tree moved": lambda fs, name: fs.mv(f"b/{name}", "b/to", recursive=True),
    "of a mapping": lambda fs, name: fs.get_mapper("b").delitems([name]),
    "of a mapping, alone": lambda fs, name: fs.get_mapper("b").__delitem__(name),
    "of a directory": lambda fs, name: fsspec.filesystem("dir", path="b/in", fs=fs).rm(name[3:]),
}


@pytest.mark.parametrize("how", REMOVALS)
def test_what_removes_takes_no_patterns(fs: NatsObjectFileSystem, how: str) -> None:
    """Libraries without patterns pass on what they have listed, as plain text; it may be gone by then."""
    remove = REMOVALS[how]
    fs.pipe({"b/in/*": b"theirs", "b/in/1": b"1", "b/in/d/2": b"2"})
    remove(fs, "in/*")
    assert not fs.exists("b/in/*")
    assert fs.find("b/in") == ["b/in/1", "b/in/d/2"]
    with pytest.raises((FileNotFoundError, KeyError)) as caught:
        remove(fs, "in/*")
    if "of" not in how:
        assert "rm and mv take no patterns" in caught.value.__notes__[-1]
    assert fs.find("b/in") == ["b/in/1", "b/in/d/2"]


def test_patterns_may_be_asked_for(fs: NatsObjectFileSystem, tmp_path: Path) -> None:
    asking, literally = (of_the_same(fs, patterns=each) for each in (True, False))
    fs.pipe({"b/in/1": b"1", "b/in/2": b"2", "b/x": b"3"})
    for use in (
        lambda: literally.cat("b/in/*"),
        lambda: literally.get("b/in/*", str(tmp_path) + "/"),
        lambda: literally.cp("b/in/*", "b/to/", on_error="raise"),
    ):
        with pytest.raises(FileNotFoundError):
            use()
    assert fs.cat("b/in/*") == {"b/in/1": b"1", "b/in/2": b"2"}
    asking.mv("b/in/*", "b/to/")
    assert literally.glob("b/to/?") == ["b/to/1", "b/to/2"]
    asking.rm("b/to/*")
    assert fs.find("b") == ["b/x"]


def test_a_name_that_looks_like_a_pattern_is_copied_as_a_name(
    fs: NatsObjectFileSystem, tmp_path: Path
) -> None:
    fs.pipe_file("b/report[1].pdf", b"1")
    fs.get("b/report[1].pdf", str(tmp_path / "out.pdf"))
    assert (tmp_path / "out.pdf").read_bytes() == b"1"
    fs.cp("b/report[1].pdf", "b/copy.pdf")
    assert fs.cat("b/copy.pdf") == b"1"
    of_the_same(fs, patterns=True).mv("b/report[1].pdf", "b/moved.pdf")
    assert fs.find("b") == ["b/copy.pdf", "b/moved.pdf"]
    fs.get("b/mov*.pdf", str(tmp_path / "all"))
    assert (tmp_path / "all" / "moved.pdf").exists()


def test_a_local_file_that_looks_like_a_pattern(fs: NatsObjectFileSystem, tmp_path: Path) -> None:
    """Others may choose local names, too."""
    for name in ("l[1]", "l1", "s*/x", "sx/y", "n1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    fs.put(f"{tmp_path}/l[1]", "b/one")
    fs.put([f"{tmp_path}/l[1]"], "b/dir/")
    fs.put(f"{tmp_path}/s*", "b/tree", recursive=True)
    found = {path: data.decode() for path, data in fs.cat("b", recursive=True).items()}
    assert found == {"b/one": "l[1]", "b/dir/l[1]": "l[1]", "b/tree/x": "s*/x"}
    fs.put(f"{tmp_path}/n[1]", "b/matched/")
    assert fs.cat("b/matched/n1") == b"n1"
    with pytest.raises(FileNotFoundError):
        of_the_same(fs, patterns=False).put(f"{tmp_path}/n[1]", "b/none/")


@pytest.mark.parametrize("do", ["cp", "mv", "get"])
def test_of_a_list_neither(fs: NatsObjectFileSystem, tmp_path: Path, do: str) -> None:
    files = {"b/in/a": b"theirs", "b/in/a/new": b"1", "b/in/c": b"2"}
    fs.pipe(files)
    target = f"{tmp_path}/to/" if do == "get" else "b/to/"
    for paths in (["b/in/a", "b/in/c"], ["b/in/a"], [path for path in fs.find("b") if "new" not in path]):
        with pytest.raises(ValueError, match="both an object and a directory"):
            getattr(fs, do)(paths, target, recursive=True)
    assert fs.find("b") == sorted(files)
    getattr(fs, do)(["b/in/a", "b/in/c"], target)
    assert len(fs.find("b")) == {"get": 3, "cp": 5, "mv": 3}[do]


@pytest.mark.parametrize("do", ["cp", "mv"])
def test_an_object_called_like_a_directory_goes_alone(fs: NatsObjectFileSystem, do: str) -> None:
    """Lists of the directory above show the object; pyarrow moves everything with recursive=True."""
    files = {"b/in": b"theirs", "b/in/1": b"1", "b/in/d/2": b"2"}
    fs.pipe(files)
    with pytest.raises(ValueError, match="both an object and a directory"):
        getattr(fs, do)("b/in", "b/to", recursive=True)
    assert fs.find("b") == sorted(files)
    getattr(fs, do)("b/in/", "b/to", recursive=True)
    assert fs.find("b/to") == ["b/to/1", "b/to/d/2"]
    assert fs.exists("b/in")
    getattr(fs, do)("b/in", "b/one")
    assert fs.cat("b/one") == b"theirs"


@pytest.mark.parametrize("how", ["find", "detail", "ls", "glob", "walk"])
def test_a_listed_path_is_no_pattern(fs: NatsObjectFileSystem, tmp_path: Path, how: str) -> None:
    """What is called so may be deleted before the list is used: then the path means nothing else."""
    fs.pipe_file("b/in/old", b"old")
    fs.pipe_file("b/in/*", b"theirs")
    found = {
        "find": lambda: fs.find("b/in"),
        "detail": lambda: [entry["name"] for entry in fs.find("b/in", detail=True).values()],
        "ls": lambda: fs.ls("b/in", detail=False),
        "glob": lambda: fs.glob("b/in/*"),
        "walk": lambda: [
            entry["name"] for _, _, files in fs.walk("b/in", detail=True) for entry in files.values()
        ],
    }[how]()
    assert sorted(found) == ["b/in/*", "b/in/old"]
    fs.rm_file("b/in/*")
    fs.pipe_file("b/in/new", b"new")
    for use in (
        lambda paths: fs.get(paths, str(tmp_path / "to")),
        lambda paths: fs.cat(paths),
        lambda paths: fs.cp(paths, "b/copies/", on_error="raise"),
        lambda paths: fs.rm(paths),
        lambda paths: fs.rm(paths[0]),
        lambda paths: fs.rm(paths[:1], recursive=True),
    ):
        with pytest.raises(FileNotFoundError):
            use(sorted(found))
    assert fs.find("b/in") == ["b/in/new"]
    assert not fs.exists("b/copies/new")
