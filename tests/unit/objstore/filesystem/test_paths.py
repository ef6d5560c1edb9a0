"""Every name has one path, and no tree is written elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore.filesystem.paths import (
    LEVELS,
    check_apart,
    check_local,
    is_within,
    join,
    limits,
    merged,
    parents,
    split,
    strip,
)

NAMES = st.text("ab/.", min_size=1, max_size=12).filter(lambda name: not name.endswith("/"))


def test_paths_with_and_without_protocol() -> None:
    for path in ("natsobj://b/a/c", "natsobj::b/a/c", "/b/a/c", "b/a/c/", "b/a/c"):
        assert strip(path) == "b/a/c"
    for path in ("", "/", "natsobj://", "natsobj:///"):
        assert strip(path) == ""
    assert strip("natsobj://b//x") == "b//x"
    assert [split("b"), split("b/a/c"), split("b//x"), split("")] == [
        ("b", ""),
        ("b", "a/c"),
        ("b", "/x"),
        ("", ""),
    ]
    assert [join("b", ""), join("b", "a/c"), join("b", "/x")] == ["b", "b/a/c", "b//x"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a", []),
        ("a/b/c", ["a", "a/b"]),
        ("/tmp/f", ["/tmp"]),
        ("a//b", ["a"]),
        ("a//b/c", ["a", "a//b"]),
        ("a/b/", ["a", "a/b"]),
        ("a//", ["a"]),
        ("/", []),
        ("a/../b", ["a", "a/.."]),
    ],
)
def test_directories_of_a_name(name: str, found: list[str]) -> None:
    assert parents(name) == found
    assert all(is_within(name, each) for each in [*found, ""])


@given(NAMES)
def test_a_path_is_one_name(name: str) -> None:
    assert split(strip("natsobj://" + join("bucket", name))) == ("bucket", name)


@given(NAMES)
def test_directories_have_paths_of_their_own(name: str) -> None:
    assert not [each for each in parents(name) if each.endswith("/") or not is_within(name, each)]


def test_a_tree_stays_where_it_belongs(tmp_path: Path) -> None:
    base = str(tmp_path / "to")
    check_local(["b/a", "b/a/x", "b/a//y"], [base, base + "/x", base + "//y"], base)
    for name in ("../x", "a/../../x", "..", "a/.."):
        with pytest.raises(ValueError, match=r"outside|'\.\.'"):
            check_local(["b/" + name], [f"{base}/{name}"], base)
    with pytest.raises(ValueError, match=r"part '\.'"):
        check_local(["b/./x"], [base + "/./x"], base)
    with pytest.raises(ValueError, match="outside"):
        check_local(["b/x"], [base + "2/x"], base)
    with pytest.raises(ValueError, match=r"'b/a//x' and 'b/a/x' would both be"):
        check_local(["b/a/x", "b/a//x"], [base + "/a/x", base + "/a//x"], base)
    for top in (base, "/"):
        fits = top.rstrip("/") + "/d" * LEVELS
        check_local(["b/x", "b/y"], ["/x", fits] if top == "/" else [base, fits], top)
        with pytest.raises(ValueError, match="'b/x' has more than 100 levels: get it by itself"):
            check_local(["b/x"], [fits + "/f"], top)


def test_a_link_does_not_lead_a_tree_elsewhere(tmp_path: Path) -> None:
    for name in ("real/in", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "to").symlink_to("real")
    base = str(tmp_path / "to")
    (tmp_path / "real" / "near").symlink_to("in")
    (tmp_path / "real" / "link").symlink_to(tmp_path / "elsewhere")
    check_local(["b/near/x", "b/link"], [base + "/near/x", base + "/link"], base)
    check_local(["b/x"], [base], base)
    with pytest.raises(ValueError, match="'b/link/new/x' would be written behind a link that leads out of"):
        check_local(["b/in/x", "b/link/new/x"], [base + "/in/x", base + "/link/new/x"], base)


def test_a_file_is_no_directory() -> None:
    check_apart(["/t/a", "/t/a-"], ["/t/a", "/t/a-", "/t/ab/c"])
    with pytest.raises(ValueError, match="'/t/a' would be both a file and a directory"):
        check_apart(["/t/a-", "/t/a"], ["/t/a", "/t/a-", "/t/a/b"])


@given(st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9), st.integers(0, 6))
def test_limits_are_those_of_a_slice(start: int | None, end: int | None, size: int) -> None:
    low, high = limits(start, end, size)
    assert bytes(range(size))[low:high] == bytes(range(size))[start:end]
    assert 0 <= low <= high <= size


def test_ranges_that_are_close_become_one() -> None:
    assert merged([(5, 9), (0, 3), (8, 12)], 0) == [(0, 3), (5, 12)]
    assert merged([(5, 9), (0, 3)], 2) == [(0, 9)]
    assert merged([], 2) == []
