"""S14: what an object's name may do to the file system of who reads it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore.cli import transfer
from objstore.cli.output import CommandError
from objstore.cli.paths import MAX_LEVELS, check_inside, output_name, output_path

SAFE = {
    "report.pdf": "report.pdf",
    "a/b/report.pdf": "report.pdf",
    "a//b.txt": "b.txt",
    "./x": "x",
    "a/./x": "x",
    "with space": "with space",
    "ünïcode-名前.txt": "ünïcode-名前.txt",
    "x..y": "x..y",
    "console": "console",
    "com10": "com10",
    "null": "null",
    "auxiliary.txt": "auxiliary.txt",
    "ab:c": "ab:c",
    "2026-01-01T10:00.log": "2026-01-01T10:00.log",
    "10:00/x": "x",
    "-dir/file": "file",
    "tab-less": "tab-less",
    "~": "~",
    "$HOME": "$HOME",
    "*": "*",
    "con/x": "x",
    "x" * 255: "x" * 255,
}

UNSAFE = [
    ".hidden",
    "a/.bashrc",
    "...x",
    "..x",
    "",
    ".",
    "..",
    "/",
    "//",
    "a/",
    "a/.",
    "a/..",
    "../x",
    "../../etc/passwd",
    "a/../x",
    "a/../../x",
    "./../x",
    "/etc/passwd",
    "//server/share",
    "\\\\server\\share",
    "\\etc\\passwd",
    "a\\b",
    "..\\x",
    "a/..\\x",
    "C:",
    "C:x",
    "c:/windows/x",
    "a/C:x",
    "x:",
    "nul\0l",
    "\0",
    "x\0.txt",
    "line\nbreak",
    "cr\r",
    "tab\t",
    "bell\x07",
    "esc\x1b[31mred",
    "del\x7f",
    "csi\x9b31m",
    "evil\x1b]0;title\x07/x",
    "con",
    "CON",
    "Con.txt",
    "a/prn",
    "aux.tar.gz",
    "nul",
    "NUL.",
    "nul .txt",
    "com1",
    "COM9.log",
    "com\xb9",
    "lpt1",
    "LPT3.txt",
    "conin$",
    "CONOUT$",
    "clock$",
    "x.",
    "x..",
    "x ",
    "a/ ",
    "-",
    "-rf",
    "--force",
    "a/-x",
    "x" * 256,
    "ü" * 128,
    "\ud800",
    "doc\u202egpj.exe",
    "\u2067a",
    "a\u200f",
]


@pytest.mark.parametrize(("name", "expected"), SAFE.items())
def test_safe(name: str, expected: str) -> None:
    assert output_name(name) == expected


@pytest.mark.parametrize("name", UNSAFE)
def test_refused(name: str) -> None:
    with pytest.raises(CommandError, match="-O FILE") as caught:
        output_name(name)
    assert caught.value.code == 2


def test_the_tables_are_of_some_size() -> None:
    assert len(SAFE) + len(UNSAFE) >= 60


@given(st.text(st.one_of(st.characters(), st.sampled_from("/\\.:-~ \0conul1")), max_size=30))
def test_never_leaves_the_directory(name: str) -> None:
    try:
        found = output_name(name)
    except CommandError:
        return
    assert found
    assert os.path.basename(found) == found
    root = os.path.abspath("some/where")
    path = os.path.abspath(os.path.join(root, found))
    assert os.path.commonpath([root, path]) == root
    assert os.path.dirname(path) == root


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_pipe_that_was_exchanged_is_not_followed(kind: str, tmp_path: Path) -> None:
    """It was a pipe when it was looked at, and is something of somebody else's when it is opened."""
    target, other = tmp_path / "target", tmp_path / "other"
    other.write_bytes(b"theirs")
    os.mkfifo(target)
    assert transfer.is_stream(str(target))
    target.unlink()
    if kind == "link":
        target.symlink_to(other)
    else:
        target.write_bytes(b"theirs")
    with pytest.raises((OSError, CommandError)) as caught:
        transfer._open_stream(str(target))
    if kind == "file":
        assert "--force" in str(caught.value)
    assert target.read_bytes() == other.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("path", "device"),
    [("/dev/null", True), ("/proc/self/fd/1", True), ("/dev/../tmp/x", False), ("/dev/shm/x", False)],
)
def test_where_links_are_the_systems_own(path: str, device: bool) -> None:
    assert transfer._is_device(path) == device


@pytest.mark.parametrize("name", ["setup.exe:Zone.Identifier", "a/bc::$DATA", "2026-01-01T10:00.log"])
def test_a_colon_on_windows(name: str) -> None:
    with pytest.raises(CommandError, match="colon"):
        output_name(name, windows=True)
    assert output_name(name, windows=False)


@pytest.mark.parametrize(
    "path", ["a", "dir/b.txt", "dir/deep/er", "a b/c", "x..y/z", ".hidden", "dir/.git/config"]
)
def test_paths_below_a_directory(path: str) -> None:
    assert output_path(f"p/{path}", path, hidden=True) == path
    if "." in path.replace("..", "").split("/") or "/." in f"/{path}":
        with pytest.raises(CommandError, match="hidden"):
            output_path(f"p/{path}", path, hidden=False)
    else:
        assert output_path(path, path, hidden=False) == path


@pytest.mark.parametrize(
    "name", [name for name in UNSAFE if name not in (".hidden", "a/.bashrc", "...x", "..x")]
)
def test_every_level_is_checked(name: str) -> None:
    """What may not be the name of a file may not be that of a directory either."""
    for path in (name, f"dir/{name}", f"{name}/file"):
        with pytest.raises(CommandError, match="object name") as told:
            output_path(path, path, hidden=True)
        assert told.value.code == 2


def test_levels() -> None:
    """Each is a directory that is made: a name of 3 kB can have 1,500."""
    path = "d/" * (MAX_LEVELS - 1) + "f"
    assert output_path("p/" + path, path, hidden=True) == path
    with pytest.raises(CommandError, match="more than 100 levels: name the file with -O") as told:
        output_path("d/" + path, "d/" + path, hidden=True)
    assert told.value.code == 2
    assert output_name("d/" * 1400 + "f") == "f"


@given(st.text(min_size=1, max_size=40))
def test_a_path_stays_below(name: str) -> None:
    try:
        path = output_path(name, name, hidden=True)
    except CommandError:
        return
    assert os.path.normpath(os.path.join("/target", path)) == f"/target/{path}"


def test_links_that_lead_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to("..")
    check_inside(str(tmp_path / "in"), str(tmp_path / "in" / "new" / "f"))
    with pytest.raises(CommandError, match="leads out"):
        check_inside(str(tmp_path / "in"), str(tmp_path / "in" / "out" / "f"))
