"""Directories of this machine: what is found in them, and that nothing is written or deleted outside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from objstore.cli.output import CommandError, Output
from objstore.cli.trees import State, Tree, at_or_above, check_unchanged, remove_file
from support.skips import left_out


def state(path: Path) -> State:
    return State.of(os.stat(path))


def test_more_directories_in_each_other_than_calls_can_be_nested(tmp_path: Path) -> None:
    """An object may have such a name."""
    made = []
    try:
        for depth in range(1, 1201):
            made.append(os.path.join(tmp_path, *"d" * depth))
            os.mkdir(made[-1])
        Path(made[-1], "f").write_bytes(b"1")
        tree = Tree(str(tmp_path), Output())
        assert [each.path for each in tree] == ["d/" * 1200 + "f"]
        assert tree.complete
        os.unlink(made[-1] + "/f")
    finally:
        for directory in reversed(made):  # shutil.rmtree() calls itself for each
            os.rmdir(directory)


def test_what_is_in_a_directory(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "b").write_bytes(b"12")
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "f").write_bytes(b"1")
    (tmp_path / ".hidden").write_bytes(b"")
    (tmp_path / "link").symlink_to("b")
    (tmp_path / "elsewhere").symlink_to("/")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / f".objstore-{'0a' * 8}").write_bytes(b"half")
    (tmp_path / f".b.{'0a' * 6}.part").write_bytes(b"half")
    tree = Tree(str(tmp_path), Output())
    assert [(each.path, each.size) for each in tree] == [
        (".hidden", 0),
        ("a/deep/f", 1),
        ("b", 2),
        ("link", 2),
    ]
    assert not tree.complete  # the dangling link: nobody knows what should be there
    ours = {f".objstore-{'0a' * 8}", f".b.{'0a' * 6}.part"}
    assert tree.left_out == {"dangling", "elsewhere", "pipe", *ours}
    assert tree.links == {"dangling", "elsewhere", "link"}
    err = capsys.readouterr().err
    for what in ("elsewhere' is left out: it is a link to a directory", "pipe' is left out: it is neither"):
        assert what in err
    assert err.count("is left out: its name is that of an unfinished transfer") == 2
    with pytest.raises(NotADirectoryError):
        Tree(str(tmp_path / "b"), Output())


def test_a_directory_that_cannot_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        left_out("root reads everything")
    (tmp_path / "closed").mkdir(mode=0)
    assert not Tree(str(tmp_path), Output()).complete


def test_a_directory_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    tree = Tree(str(tmp_path), Output())
    assert (tree.complete, tree.left_out) == (False, {"closed"})


def test_directories_that_become_empty_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "a" / "b").mkdir(parents=True)
    (target / "a" / "b" / "f").write_bytes(b"")
    (target / "a" / "g").write_bytes(b"")
    remove_file(str(target), str(target / "a" / "b" / "f"), state(target / "a" / "b" / "f"))
    assert sorted(os.listdir(target / "a")) == ["g"]
    remove_file(str(target) + "/", str(target / "a" / "g"), state(target / "a" / "g"))
    assert os.listdir(target) == []
    (target / "out").symlink_to(tmp_path)
    (tmp_path / "precious").write_bytes(b"")
    with pytest.raises(CommandError, match="behind a link"):
        remove_file(str(target), str(target / "out" / "precious"), state(tmp_path / "precious"))
    assert (tmp_path / "precious").exists()


def rewritten(path: Path) -> None:
    """Other bytes of the same size under the same time: the clock of files may be coarse."""
    before = os.stat(path)
    while os.stat(path).st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(b"9")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    path.with_name("new").write_bytes(b"9")
    os.replace(path.with_name("new"), path)


def linked(path: Path) -> None:
    path.with_name("moved").write_bytes(b"1")
    path.unlink()
    path.symlink_to("moved")


@pytest.mark.parametrize("change", [rewritten, replaced, linked, lambda path: path.write_bytes(b"longer")])
def test_what_changed_since_it_was_listed_is_kept(tmp_path: Path, change: Any) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"1")
    (listed,) = Tree(str(tmp_path), Output())
    check_unchanged(str(file), listed.state)
    change(file)
    with pytest.raises(CommandError, match="f' is not as it was listed: it is kept") as told:
        remove_file(str(tmp_path), str(file), listed.state)
    assert told.value.code == 4
    assert file.exists()
    with pytest.raises(CommandError, match="is not as it was listed"):
        check_unchanged(str(file), None)
    check_unchanged(str(tmp_path / "none"), None)


def test_files_of_several_names(tmp_path: Path) -> None:
    """To delete one changes the ctime of the other."""
    (tmp_path / "a").write_bytes(b"1")
    os.link(tmp_path / "a", tmp_path / "b")
    for file in list(Tree(str(tmp_path), Output())):
        remove_file(str(tmp_path), file.file, file.state)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", None),
        ("a/b", "a/b"),
        ("a/b/c/d", "a/b"),
        ("a/bc", None),
        ("a/b//d", "a/b"),
        ("", None),
        ("/a/b", None),
    ],
)
def test_at_or_above(path: str, found: str | None) -> None:
    assert at_or_above(path, {"a/b"}) == found
