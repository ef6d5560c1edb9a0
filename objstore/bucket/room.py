"""Lists take turns with what else a connection reads: others decide how large the metas of a bucket are."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from natsproto.jetstream.in_flight import LIMIT, Flow, in_flight

from .known import Known

if TYPE_CHECKING:
    from typing import Self

    from .bucket import Bucket

KNOWN_FOR = 60.0
"""Seconds for which a list is taken for as large as the last one; then it may take all the room again."""

LATER = 1024 * 1024
"""Bytes that the metas which were stored during a list are taken to have."""

_sizes = Known[int](KNOWN_FOR)
"""How many bytes came during the last list of a kind."""


class Room:
    """The share of one list in what is on its way to a connection, while a block runs.

    It is taken for as large as the last one: what else came meanwhile counts, too. If the connection is lost,
    perhaps because it was larger, it goes on as one that needs all the room: alone.

    Args:
        bucket: the bucket to list.
        subject: the subject with wildcards that is read.
        names: only the subjects are listed, in one answer.
        size: the bytes that come, if they are known.
    """

    def __init__(self, bucket: Bucket, subject: str, *, names: bool = False, size: int | None = None) -> None:
        self._connection = bucket.connection
        self._key = None if size is not None else (bucket.stream, subject, names)
        if self._key is not None:
            last = _sizes.get(self._connection, self._key)
            size = LIMIT if last is None else last
        self._size = max(1, min(size or 0, LIMIT))
        self._flow: Flow | None = None
        self._epoch = self._before = 0

    async def __aenter__(self) -> Self:
        await self._take()
        return self

    async def again(self) -> None:
        """Before a consumer is replaced by another one: wait for all the room, if the connection was lost."""
        if self._size < LIMIT and self._was_lost:
            self._end()
            self._size = LIMIT
            await self._take()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lost = self._was_lost
        self._end()
        if self._key is not None and (lost or kind is None):  # else it may have been ended early
            _sizes.note(self._connection, self._key, LIMIT if lost else self._came)

    @property
    def _was_lost(self) -> bool:
        return self._connection.session is None or self._connection.epoch != self._epoch

    @property
    def _came(self) -> int:
        return self._connection.stats.in_bytes - self._before

    async def _take(self) -> None:
        self._flow = in_flight(self._connection).flow(self._size)
        await self._flow.begin()
        self._epoch, self._before = self._connection.epoch, self._connection.stats.in_bytes

    def _end(self) -> None:
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.end(self._came)
