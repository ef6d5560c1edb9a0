"""Patterns: they mean what they mean to fsspec, and none takes ages."""

from __future__ import annotations

import re
import time

import pytest
from fsspec.utils import glob_translate
from hypothesis import given
from hypothesis import strategies as st

from objstore.filesystem import NatsObjectFileSystem
from objstore.filesystem.globs import compiled

LEVELS = st.sampled_from(["**", "*", "a", "a*", "*b", "?", "a*b", "*a*b*", "", "b?a"])


@given(st.lists(LEVELS, min_size=1, max_size=6).map("/".join), st.text("aab/", max_size=12))
def test_levels(pattern: str, path: str) -> None:
    assert bool(compiled(pattern).match(path)) == bool(re.match(glob_translate(pattern), path))


@given(st.text("aab*?[]!^-.", min_size=1, max_size=10), st.text("aab^-]!.\n", max_size=8))
def test_within_a_level(pattern: str, path: str) -> None:
    try:
        wanted = re.compile(glob_translate(pattern))
    except ValueError:
        with pytest.raises(ValueError, match="can only be an entire path component"):
            compiled(pattern)
        return
    assert bool(compiled(pattern).match(path)) == bool(wanted.match(path))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 14 + "*[" + "a" * 60 + "][z-z]", "*a" * 14 + "*[" + "a" * 60 + "][z-z]"),
        ("*a" * 40 + "b", "a" * 3000),
        ("/".join(["**/a"] * 12), "a/" * 1500 + "b"),
        ("**/*a*/**/*b*/**/*a*b*/**/c", "ab/ba/" * 500),
        ("*a" * 30 + "b/**/" + "*a" * 30 + "/c", ("a" * 100 + "b/") * 30),
    ],
)
def test_none_takes_ages(pattern: str, path: str) -> None:
    began = time.monotonic()
    assert not compiled(pattern).match(path)
    assert time.monotonic() - began < 5


def test_a_name_that_is_a_pattern_for_itself(fs: NatsObjectFileSystem) -> None:
    """Whoever chose it would else keep a reader of all busy for ever."""
    name = "in/" + "*a" * 14 + "*[" + "a" * 60 + "][z-z]"
    fs.pipe({f"b/{name}": b"1", "b/in/2": b"2"})
    assert dict(fs.get_mapper("b")) == {name: b"1", "in/2": b"2"}
