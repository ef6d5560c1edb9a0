"""Globs, directories and conditions: which names of a bucket a command means."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objstore import ObjectStore
from objstore.cli.output import CommandError, Output
from objstore.cli.select import Filter, Pattern, choose, glob_matcher, is_glob, literal, patterns_of

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
    if not is_glob(name):
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


def test_a_set_that_makes_no_sense() -> None:
    with pytest.raises(CommandError, match="not a valid pattern") as told:
        glob_matcher("[z-a]")
    assert told.value.code == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", NAMES),
        ("dir", ["dir/a.log", "dir/b/c.log"]),
        ("dir/", ["dir/a.log", "dir/b/c.log"]),
        ("dir/b", ["dir/b/c.log"]),
        ("dir*", ["dir/a.log", "dir/b/c.log", "dir2/x"]),
        ("dir*/", ["dir/a.log", "dir/b/c.log", "dir2/x"]),
        ("a.log", ["a.log"]),
    ],
)
def test_directories(text: str, found: list[str]) -> None:
    pattern = Pattern(text, recursive=True)
    assert not pattern.exact
    assert [name for name in NAMES if pattern.matches(name)] == found


@pytest.mark.parametrize(
    ("text", "name", "directory"),
    [("a/b/c", "a/b/c", "a/b/"), ("a/b/*", "a/b/c", "a/b/"), ("a/b*/c", "a/b/c", "a/"), ("*", "x", "")],
)
def test_the_certain_directory(text: str, name: str, directory: str) -> None:
    assert Pattern(text).directory_of(name) == directory


@pytest.mark.parametrize(
    ("text", "name", "directory"),
    [("a", "a/b/c", "a/"), ("a/", "a/b/c", "a/"), ("a", "a", ""), ("", "a/b", ""), ("a*", "ab/c", "")],
)
def test_the_certain_directory_of_a_directory(text: str, name: str, directory: str) -> None:
    assert Pattern(text, recursive=True).directory_of(name) == directory


async def chosen(store: ObjectStore, *names: str, recursive: bool = False) -> list[tuple[str, str]]:
    found = await choose(store, patterns_of(names, recursive=recursive), Output())
    return [(one.name, one.path) for one in found]


async def test_choose(store: ObjectStore) -> None:
    for name in ("a", "dir/b", "dir/c/d", "x[1]"):
        await store.put(name, b"")
    assert await chosen(store, "nothing") == [("nothing", "nothing")]  # it is not asked for
    assert await chosen(store, "dir/*", "a", "dir/b") == [("dir/b", "b"), ("a", "a")]
    assert await chosen(store, "dir/", recursive=True) == [("dir/b", "b"), ("dir/c/d", "c/d")]
    assert await chosen(store, "dir", recursive=True) == [("dir/b", "b"), ("dir/c/d", "c/d")]
    assert await chosen(store, "d*", recursive=True) == [("dir/b", "dir/b"), ("dir/c/d", "dir/c/d")]
    assert await chosen(store, recursive=True) == [(name, name) for name in ("a", "dir/b", "dir/c/d", "x[1]")]
    assert await chosen(store, "x[1]") == [("x[1]", "x[1]")]
    for names, recursive in ((("*.z",), False), (("a/",), True), (("b*",), True)):
        with pytest.raises(CommandError, match="in bucket") as told:
            await chosen(store, *names, recursive=recursive)
        assert told.value.code == 3


async def test_a_meta_that_cannot_be_read(server: Any, store: ObjectStore, capsys: Any) -> None:
    await store.put("a", b"")
    server.put_raw(store.bound_bucket.meta_subject("bad"), b"no JSON")
    assert await chosen(store, "*") == [("a", "a")]
    assert "is skipped" in capsys.readouterr().err


async def test_conditions(store: ObjectStore) -> None:
    info = await store.put("dir/a.log", b"12345")
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    for condition, met in (
        (Filter(), True),
        (Filter(name="*.log"), True),
        (Filter(name="dir/*"), True),
        (Filter(name="*.txt"), False),
        (Filter(larger=4), True),
        (Filter(larger=5), False),
        (Filter(smaller=6), True),
        (Filter(smaller=5), False),
        (Filter(newer=info.mtime), True),
        (Filter(newer=now + hour), False),
        (Filter(older=now + hour), True),
        (Filter(older=info.mtime), False),
        (Filter(name="*.log", larger=5), False),
    ):
        assert condition.test()(info) is met, condition
