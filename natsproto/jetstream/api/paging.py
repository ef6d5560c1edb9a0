"""Limits for listings of the API that come page by page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
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


LIST_TRIES = 10
"""Times that a listing is begun while none has all entries."""

LIST_PAUSE = 0.02
"""Seconds before the second try; before later ones so many more."""

OVERLAP = 16
"""A page begins so much of a page before the end of the last one: what is removed meanwhile moves all that
follows, and entries between the two would be missing."""


class Incomplete(Exception):
    """Entries are missing: too many went between two pages, or an answer is that to another request."""


class Paging:
    """The progress of a listing that comes page by page. It does not trust the peer's word on the length.

    Attributes:
        offset: where the next page should begin.
    """

    def __init__(self, what: str) -> None:
        self.offset: int = 0
        self._what = what
        self._tail: frozenset[str] = frozenset()  # entries that the next page should begin with
        self._pages = 0
        self._memory = 0

    def add_page(
        self, answer: Mapping[str, object], page: Mapping[str, object], count: int, *, new: int, memory: int
    ) -> bool:
        """Count a page; tell whether another one follows.

        Args:
            answer: the answer, with ``total`` and the page's ``offset``.
            page: its entries, by name, in the order of the answer.
            count: how many the server counts.
            new: how many of them no earlier page had.
            memory: bytes that its entries take.

        Raises:
            Incomplete: it begins too late, after those that were removed meanwhile.
            RemoteProtocolError: it begins too early, repeats earlier pages, or the listing does not end.
        """
        at, total = answer.get("offset"), answer.get("total")
        if self._tail and self._tail.isdisjoint(page):
            raise Incomplete
        self._pages += 1
        self._memory += memory + count * ENTRY
        if isinstance(at, int) and at < self.offset:
            raise RemoteProtocolError(f"{self._what} go backwards: page {self._pages} begins too early")
        end, overlap = self.offset + count, count // OVERLAP
        more = isinstance(total, int) and end < total
        told_apart = count == len(page)  # else several are written alike
        if (more and not new and told_apart) or self._pages > MAX_PAGES:
            raise RemoteProtocolError(f"{self._what} do not end: {self._pages} pages so far")
        if self._memory > MAX_MEMORY:
            raise RemoteProtocolError(f"{self._what} take too much memory: {self._pages} pages so far")
        self.offset = end - overlap
        self._tail = frozenset(islice(page, max(0, len(page) - overlap), None))
        return more

    def end(self) -> None:
        """Take an empty page.

        Raises:
            Incomplete: it lacks the end of the page before.
        """
        if self._tail:
            raise Incomplete
