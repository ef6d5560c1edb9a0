"""Limits for listings of the API that come page by page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import getsizeof

from ...errors import RemoteProtocolError

MAX_PAGES = 10_000
"""Pages of one listing; the server puts 256 to 100 000 entries on a page."""

MAX_MEMORY = 512 * 1024 * 1024
"""Bytes that all pages of one listing may take: two million subjects, or some 50 000 streams."""

MAX_SECONDS = 300.0
"""Seconds that all of them may take: a server that sends each page just in time could go on for ever."""

ENTRY = 100
"""Bytes that an entry takes besides its text, in the mapping that holds it."""


def memory_of(values: Iterable[object]) -> int:
    """Return about how many bytes the values of an answer take."""
    size = 0
    left = list(values)
    while left:
        value = left.pop()
        size += getsizeof(value)
        if isinstance(value, dict):
            left += value.keys()
            left += value.values()
        elif isinstance(value, list):
            left += value
    return size


class Paging:
    """The progress of a listing that comes page by page. It does not trust the peer's word on the length."""

    def __init__(self, what: str) -> None:
        self.offset: int = 0
        self._what = what
        self._pages = 0
        self._memory = 0

    def add_page(self, answer: Mapping[str, object], count: int, *, new: int, memory: int) -> bool:
        """Count a page; tell whether another one follows.

        Args:
            answer: the answer, with ``total`` and the page's ``offset``.
            count: its entries, at least one.
            new: how many of them no earlier page had.
            memory: bytes that its entries take.

        Raises:
            RemoteProtocolError: it begins too early, repeats earlier pages, or the listing does not end.
        """
        at, total = answer.get("offset"), answer.get("total")
        self._pages += 1
        self._memory += memory + count * ENTRY
        if isinstance(at, int) and at < self.offset:
            raise RemoteProtocolError(f"{self._what} go backwards: page {self._pages} begins too early")
        if not new or self._pages > MAX_PAGES:
            raise RemoteProtocolError(f"{self._what} do not end: {self._pages} pages so far")
        if self._memory > MAX_MEMORY:
            raise RemoteProtocolError(f"{self._what} take too much memory: {self._pages} pages so far")
        self.offset += count
        return isinstance(total, int) and self.offset < total
