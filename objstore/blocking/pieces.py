"""Iterators across the threads: one of the caller for a put, one of the loop for the caller."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from .call import under_way

if TYPE_CHECKING:
    from natsproto.transport import Buffer

    from ..write.source import ObjectData
    from .loop_thread import Link

T = TypeVar("T")

GATHER = 256 * 1024
"""Bytes that are taken from an iterable at a time: each hand-over between the threads costs some 50 µs."""

MOST = 256
"""Items that are handed to the caller at a time."""

LONGEST = 0.01
"""Seconds after which what there is so far is handed over: large items take longer, and must not pile up."""


def by_caller(data: ObjectData) -> ObjectData:
    """Return data for a put in the loop; an iterable is iterated in the thread of the caller.

    It may then block, use what belongs to its thread, and make blocking calls itself.
    """
    if isinstance(data, str | bytes | bytearray | memoryview | list | tuple | os.PathLike | AsyncIterable):
        return data
    if callable(getattr(data, "read", None)) or not isinstance(data, Iterable):
        return data
    try:
        memoryview(cast("Buffer", data))
    except TypeError:
        return _CallersPieces(data)
    return data


class _CallersPieces:
    """An async iterable over an iterable of the thread that waits for the call."""

    def __init__(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes | bytearray | memoryview]:
        call = under_way()
        pieces = await call.ask(lambda: iter(self._data))
        while some := await call.ask(lambda: _take(pieces)):
            for piece in some:
                yield piece


def _take(
    pieces: Iterator[bytes | bytearray | memoryview],
) -> list[bytes | bytearray | memoryview]:
    """Take pieces for one hand-over; ``[]`` at the end. A buffer that may be filled again is the last one."""
    taken = []
    size = 0
    for piece in pieces:
        taken.append(piece)
        if type(piece) is not bytes:
            break
        size += len(piece)
        if size >= GATHER:
            break
    return taken


async def next_within(source: AsyncIterator[T], timeout: float | None) -> list[T] | None:
    """Return the next item in a list; ``[]`` at the end, ``None`` after ``timeout`` seconds without one."""
    try:
        async with asyncio.timeout(timeout) as limit:
            return [await anext(source)]
    except StopAsyncIteration:
        return []
    except TimeoutError:
        if not limit.expired():
            raise
        return None


class Pulled(Generic[T]):
    """An iterator over an asynchronous generator of the loop.

    Args:
        source: the generator.
        most: items of one hand-over; the first one takes 1, each further one twice as many.
    """

    def __init__(self, link: Link, source: AsyncGenerator[T, None], most: int = MOST) -> None:
        self._link = link
        self._source = source
        self._most = most
        self._size = 1
        self._ready: deque[T] = deque()
        self._error: Exception | None = None
        self._ended = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while not self._ready:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._ended:
                raise StopIteration
            self._link.call(self._fill)
        return self._ready.popleft()

    async def _fill(self) -> None:
        """Take the next items. An error after the first of them is raised when they were returned."""
        thread, source = self._link.thread, self._source
        thread.hold(source, self._link.client)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            for _ in range(self._size):
                self._ready.append(await anext(source))
                if loop.time() - begun > LONGEST:
                    break
        except BaseException as exc:
            self._ended = True
            thread.release(source)
            if isinstance(exc, Exception):
                self._error = None if isinstance(exc, StopAsyncIteration) else exc
            else:
                raise
        self._size = min(2 * self._size, self._most)

    def close(self) -> None:
        """End the iteration, and remove what it has on the server; dropping the iterator does so, too."""
        self._ended = True
        self._ready.clear()
        self._link.settle(self._leave())

    def _leave(self) -> Callable[[], Coroutine[object, None, None]]:
        # Without a reference to this object, which is being dropped.
        thread, source = self._link.thread, self._source

        async def leave() -> None:
            try:
                await source.aclose()
            finally:
                thread.release(source)

        return leave

    def __del__(self) -> None:
        if not self._ended:
            self._link.later(self._leave())
