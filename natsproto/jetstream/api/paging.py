"""Listings of the API that come page by page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import getsizeof

from ...errors import RemoteProtocolError

MAX_PAGES = 10_000
"""Pages of one listing; the server puts 256 to 100 000 entries on one."""

MAX_MEMORY = 512 * 1024 * 1024
"""Bytes that all pages of one listing may take: two million subjects, or some 50 000 streams."""

MAX_SECONDS = 300.0
"""Seconds that all of them may take: a page each time before the request's time is over would have no end."""

ENTRY = 100
"""Bytes of an entry besides its text, in the mapping that holds it."""


def memory_of(values: Iterable[object]) -> int:
    """How many bytes values of an answer take, about."""
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
    """Where a listing stands that comes page by page; what a peer says of its length is not believed."""

    def __init__(self, what: str) -> None:
        self.offset: int = 0
        self._what = what
        self._pages = 0
        self._memory = 0

    def goes_on(self, answer: Mapping[str, object], count: int, *, new: int, memory: int) -> bool:
        """Take in a page.

        Args:
            answer: with ``total``, and the ``offset`` it begins at.
            count: its entries, one at least.
            new: those among them that no page before had.
            memory: bytes that its entries take.

        Raises:
            RemoteProtocolError: it begins too early, repeats the ones before, or there is no end.
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
