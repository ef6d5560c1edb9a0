"""Listings of the API that come page by page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import RemoteProtocolError

MAX_PAGES = 10_000
"""Pages of one listing; the server puts 256 to 100 000 entries on one."""


class Paging:
    """Where a listing stands that comes page by page; what a peer says of its length is not believed."""

    def __init__(self, what: str) -> None:
        self.offset = 0
        self._what = what
        self._pages = 0

    def goes_on(self, answer: Mapping[str, Any], count: int, *, new: int) -> bool:
        """Take in a page.

        Args:
            answer: with ``total``, and the ``offset`` it begins at.
            count: its entries, one at least.
            new: those among them that no page before had.

        Raises:
            RemoteProtocolError: it begins too early, repeats the ones before, or there is no end.
        """
        at, total = answer.get("offset"), answer.get("total")
        self._pages += 1
        if isinstance(at, int) and at < self.offset:
            raise RemoteProtocolError(f"{self._what} go backwards: page {self._pages} begins at {at}")
        if not new or self._pages > MAX_PAGES:
            raise RemoteProtocolError(f"{self._what} do not end: {self._pages} pages so far")
        self.offset += count
        return isinstance(total, int) and self.offset < total
