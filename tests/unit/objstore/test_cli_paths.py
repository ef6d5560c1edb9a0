"""S14: what an object's name may do to the file system of who reads it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore.cli.output import CommandError
from objstore.cli.paths import output_name

SAFE = {
    "report.pdf": "report.pdf",
    "a/b/report.pdf": "report.pdf",
    "a//b.txt": "b.txt",
    "./x": "x",
    "a/./x": "x",
    "with space": "with space",
    "ünïcode-名前.txt": "ünïcode-名前.txt",
    "...x": "...x",
    "..x": "..x",
    "x..y": "x..y",
    ".hidden": ".hidden",
    "console": "console",
    "com10": "com10",
    "null": "null",
    "auxiliary.txt": "auxiliary.txt",
    "ab:c": "ab:c",
    "2026-01-01T10:00.log": "2026-01-01T10:00.log",
    "-dir/file": "file",
    "tab-less": "tab-less",
    "~": "~",
    "$HOME": "$HOME",
    "*": "*",
    "con/x": "x",
    "x" * 255: "x" * 255,
}

UNSAFE = [
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
