"""Globs: which names they match, and in what time."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore.cli import globs
from objstore.cli.globs import glob_matcher, literal
from objstore.cli.output import CommandError
from objstore.cli.select import Pattern

NAMES = ["a.log", "b.txt", "dir/a.log", "dir/b/c.log", "dir2/x", "[x]", "-", "a\nb"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.log", ["a.log"]),
        ("**.log", ["a.log", "dir/a.log", "dir/b/c.log"]),
        ("**/*.log", ["a.log", "dir/a.log", "dir/b/c.log"]),
        ("dir/**", ["dir/a.log", "dir/b/c.log"]),
        ("dir*/*", ["dir/a.log", "dir2/x"]),
        ("*", ["a.log", "b.txt", "[x]", "-", "a\nb"]),
        ("?.*", ["a.log", "b.txt"]),
        ("[ab].*", ["a.log", "b.txt"]),
        ("[!a].*", ["b.txt"]),
        ("[^a].*", ["b.txt"]),
        ("[a-b].txt", ["b.txt"]),
        ("[[]x]", ["[x]"]),
        ("dir[!x]a.log", []),
        ("a?b", ["a\nb"]),
        ("a[", []),
        ("a.log", ["a.log"]),
    ],
)
def test_globs(pattern: str, found: list[str]) -> None:
    match = glob_matcher(pattern)
    assert [name for name in NAMES if match(name)] == found


@given(st.text("ab*?[]!^-\\/.&|~\n", max_size=12), st.text("ab*?[]-/\\.", max_size=8))
def test_any_pattern_is_a_pattern(pattern: str, name: str) -> None:
    """Or is refused; none is an error of ``re``, or warns of what ``re`` may mean by it one day."""
    with suppress(CommandError):
        glob_matcher(pattern)(name)


@given(st.text(min_size=1, max_size=8))
def test_a_name_without_wildcards_means_itself(name: str) -> None:
    if literal(name) == name:
        assert glob_matcher(name)(name)
        assert Pattern(name).exact
        assert Pattern(name).matches(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a", "a"),
        ("a[*]b", "a*b"),
        ("[[]1]", "[1]"),
        ("x[?]", "x?"),
        ("a[", "a["),
        ("a[1]", None),
        ("*[*]", None),
    ],
)
def test_what_is_escaped(text: str, name: str | None) -> None:
    assert literal(text) == name
    if name is not None:
        assert Pattern(text).matches(name)
        assert Pattern(text).exact


@pytest.mark.parametrize("pattern", ["[z-a]", "[]", "[]?", "a[!]b"])
def test_a_set_that_makes_no_sense(pattern: str) -> None:
    with pytest.raises(CommandError, match="not a valid pattern") as told:
        glob_matcher(pattern)
    assert told.value.code == 2


@given(st.text("ab*?[]!-/", max_size=10), st.text("ab/-\n", max_size=8))
def test_one_pass_finds_the_same(pattern: str, name: str) -> None:
    with suppress(CommandError), pytest.MonkeyPatch.context() as patched:
        expected = bool(glob_matcher(pattern)(name))
        patched.setattr(globs, "MOST_STEPS", -1)
        assert bool(glob_matcher(pattern)(name)) == expected


@pytest.mark.parametrize("pattern", ["*-*-*.log", "**/*-*-*.log", "*-*-**-*x*y", "[!-]*-*-*z"])
@pytest.mark.parametrize("name", ["-" * 2800, "-" * 2800 + "/0", "-/" * 1400])
def test_a_name_of_somebody_else_takes_no_ages(pattern: str, name: str) -> None:
    """An expression would try all divisions of it among the stars: billions."""
    assert not glob_matcher(pattern)(name)
    assert glob_matcher("**-*-*")("-" * 2800)
