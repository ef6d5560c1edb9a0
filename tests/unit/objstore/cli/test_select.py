"""Globs, directories and conditions: which names of a bucket a command means."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from objstore import ObjectStore
from objstore.cli import listing, select
from objstore.cli.output import CommandError, Output
from objstore.cli.select import Filter, Pattern, choose, patterns_of
from support.waits import standstill

NAMES = ["a.log", "b.txt", "dir/a.log", "dir/b/c.log", "dir2/x", "[x]", "-", "a\nb"]


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


async def chosen(
    store: ObjectStore, *names: str, recursive: bool = False, literal: bool | None = None
) -> list[tuple[str, str]]:
    args = Namespace(recursive=recursive, literal=literal)
    found = await choose(store, patterns_of(names, args), Output())
    return [(one.name, one.path) for one in found]


@pytest.mark.parametrize(
    ("text", "recursive", "called", "matching"),
    [
        ("report[1].pdf", False, ["report[1].pdf"], ["report1.pdf"]),
        ("tmp/**", False, ["tmp/**"], ["tmp/**", "tmp/a", "tmp/b/c"]),
        ("tm?", True, ["tm?/x"], ["tm?/x", "tmp/**", "tmp/a", "tmp/b/c"]),
        ("in/rep[*]rt", False, ["in/rep[*]rt"], ["in/rep*rt"]),
        ("in[?]/a", False, ["in[?]/a"], ["in?/a"]),
        ("in[?]", True, ["in[?]/a"], ["in?/a"]),
    ],
)
async def test_others_do_not_decide_what_a_pattern_means(
    store: ObjectStore, text: str, recursive: bool, called: list[str], matching: list[str]
) -> None:
    """Who may choose a name could have another object taken for it, or others beside it."""
    names_stored = "report[1].pdf report1.pdf tmp/** tmp/a tmp/b/c tm?/x in/rep*rt in/rep[*]rt in?/a in[?]/a"
    for name in names_stored.split():
        await store.put(name, b"")
    with pytest.raises(CommandError, match=r"pass --literal or --glob") as told:
        await chosen(store, text, recursive=recursive)
    assert told.value.code == 2

    async def names(*, literal: bool) -> list[str]:
        return [name for name, _ in await chosen(store, text, recursive=recursive, literal=literal)]

    assert await names(literal=True) == called
    assert await names(literal=False) == matching
    for name in set(matching) - set(called):
        await store.delete(name)
    left = await chosen(store, text, recursive=recursive)
    assert [name for name, _ in left] == called
    assert all(name.endswith(path) for name, path in left)


async def test_literally(store: ObjectStore) -> None:
    for name in ("[*]", "-x", "natsobj://b/a", "--"):
        await store.put(name, b"")
        assert await chosen(store, name, literal=True) == [(name, name.rpartition("/")[2])]


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


@pytest.mark.parametrize("words", [["find", "--name", "*x"], ["find"], ["ls"], ["rm", "-f"]], ids=str)
async def test_an_interrupt_while_names_are_matched(
    store: ObjectStore, command: Any, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """A pattern can take a long time, and its event loop then cancels the command."""
    for number in range(50):
        await store.put(f"{number:02}x", b"")
    matched = 0

    def slow(pattern: str) -> Any:
        def match(name: str) -> bool:
            nonlocal matched
            matched += 1
            if matched == 1:
                asyncio.get_running_loop().call_soon(running.cancel)
            standstill(0.01)
            return True

        return match

    for module in (select, listing):
        monkeypatch.setattr(module, "glob_matcher", slow)
    patterns = [] if "--name" in words else ["*x"]
    running = asyncio.ensure_future(command(words[0], "b", *patterns, *words[1:]))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert matched < 10
    assert len(await store.names()) == 50
