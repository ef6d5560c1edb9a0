"""Listings page by page: what a peer says of their length, their place and their size is not believed."""

from __future__ import annotations

import sys

import pytest

from natsproto.errors import RemoteProtocolError
from natsproto.jetstream.api import paging as module
from natsproto.jetstream.api.paging import ENTRY, MAX_MEMORY, Incomplete, Paging, memory_of


def entries(count: int, first: int = 0) -> dict[str, None]:
    return {f"{number:03}": None for number in range(first, first + count)}


def test_it_goes_on_until_the_total() -> None:
    paging = Paging("streams")
    assert paging.offset == 0
    assert paging.add_page({"total": 5, "offset": 0}, entries(2), 2, new=2, memory=10)
    assert paging.offset == 2
    assert paging.add_page({"total": 5, "offset": 2}, entries(2), 2, new=2, memory=10)
    assert not paging.add_page({"total": 5, "offset": 4}, entries(1), 1, new=1, memory=10)
    assert paging.offset == 5


@pytest.mark.parametrize("total", [None, "5", 5.0, 1, 0, -3])
def test_a_total_that_says_nothing_ends_it(total: object) -> None:
    assert not Paging("streams").add_page({"total": total}, entries(1), 1, new=1, memory=0)


def test_it_may_grow_while_it_is_read() -> None:
    paging = Paging("streams")
    assert paging.add_page({"total": 2}, entries(1), 1, new=1, memory=0)
    assert paging.add_page({"total": 3, "offset": 1}, entries(1), 1, new=1, memory=0)
    assert not paging.add_page({"total": 3, "offset": 2}, entries(1), 1, new=1, memory=0)


def test_backwards() -> None:
    paging = Paging("streams")
    paging.add_page({"total": 9, "offset": 0}, entries(3), 3, new=3, memory=0)
    with pytest.raises(RemoteProtocolError, match="streams go backwards: page 2 begins too early"):
        paging.add_page({"total": 9, "offset": 2}, entries(3), 3, new=3, memory=0)


def test_nothing_new() -> None:
    paging = Paging("subjects")
    paging.add_page({"total": 9}, entries(3), 3, new=3, memory=0)
    with pytest.raises(RemoteProtocolError, match="subjects do not end: 2 pages so far"):
        paging.add_page({"total": 9}, entries(3), 3, new=0, memory=0)


def test_pages_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 3)
    paging = Paging("streams")
    for _ in range(3):
        assert paging.add_page({"total": sys.maxsize}, entries(1), 1, new=1, memory=0)
    with pytest.raises(RemoteProtocolError, match="do not end: 4 pages"):
        paging.add_page({"total": sys.maxsize}, entries(1), 1, new=1, memory=0)


def test_memory_is_counted_over_all_pages() -> None:
    paging = Paging("streams")
    assert paging.add_page({"total": 9}, entries(1), 1, new=1, memory=MAX_MEMORY - ENTRY)
    with pytest.raises(RemoteProtocolError, match="take too much memory"):
        paging.add_page({"total": 9}, entries(1), 1, new=1, memory=1)


def test_what_values_take() -> None:
    text = "x" * 1000
    assert memory_of([]) == 0
    assert memory_of([text]) == sys.getsizeof(text)
    nested = {"key": [text, {"deep": text}]}
    assert memory_of([nested]) > 2000 + sys.getsizeof(nested)
    deep: list[object] = []
    for _ in range(100_000):  # deeper than any recursion
        deep = [deep]
    assert memory_of([deep]) > 100_000 * 8


def test_pages_overlap() -> None:
    paging = Paging("streams")
    assert paging.add_page({"total": 300, "offset": 0}, entries(160), 160, new=160, memory=0)
    assert paging.offset == 150
    assert paging.add_page(
        {"total": 297, "offset": 150}, entries(80, 153), 80, new=73, memory=0
    )  # 3 are gone
    assert paging.offset == 225
    with pytest.raises(Incomplete):  # 10 went
        paging.add_page({"total": 287, "offset": 225}, entries(60, 238), 60, new=60, memory=0)
    with pytest.raises(Incomplete):  # more than that
        paging.end()


def test_the_last_page_may_have_nothing_new() -> None:
    paging = Paging("streams")
    assert paging.add_page({"total": 170}, entries(160), 160, new=160, memory=0)
    assert not paging.add_page({"total": 160}, entries(10, 150), 10, new=0, memory=0)
    empty = Paging("streams")
    empty.end()


def test_entries_that_are_written_alike() -> None:
    paging = Paging("subjects")
    for at in (0, 94):
        assert paging.add_page({"total": 250, "offset": at}, {"\ufffd": None}, 100, new=not at, memory=0)
    assert not paging.add_page(
        {"total": 250, "offset": 188}, {"\ufffd": None, "a": None}, 62, new=1, memory=0
    )
