"""Messages published while disconnected, kept for the next connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import OutboundBufferLimitError

SWEEP = 1.0
"""Seconds between searches of a full buffer for requests that nobody waits for any more."""


class Kept(NamedTuple):
    """One message: the size of header and payload in bytes, its frame, and its reply subject."""

    size: int
    frame: bytes
    reply: bytes | None


class ReconnectBuffer:
    """Frames in the order of publishing, up to a limit in bytes.

    Args:
        limit: bytes of all frames.
        wanted: whether to send a message with this reply subject. A request that has failed for its caller is
            not wanted: carried out later, it could affect what was created since.
        clock: returns the time in seconds.
    """

    def __init__(
        self, limit: int, wanted: Callable[[bytes | None], bool], clock: Callable[[], float]
    ) -> None:
        self._limit = limit
        self._wanted = wanted
        self._clock = clock
        self._kept: list[Kept] = []
        self._size = 0
        self._swept = -SWEEP

    def keep(self, size: int, frame: bytes, reply: bytes | None) -> None:
        """Add one message.

        Raises:
            OutboundBufferLimitError: it does not fit, and nothing was kept.
        """
        if self._size + len(frame) > self._limit:
            self._sweep()
            if self._size + len(frame) > self._limit:
                raise OutboundBufferLimitError(
                    f"not connected, and {self._size} bytes wait already "
                    f"(reconnect_buffer_size={self._limit})"
                )
        self._kept.append(Kept(size, frame, reply))
        self._size += len(frame)

    def _sweep(self) -> None:
        # It takes 100 ms for a full buffer of small messages: too long for each refused message.
        if self._clock() - self._swept < SWEEP:
            return
        self._swept = self._clock()
        self._kept = [kept for kept in self._kept if self._wanted(kept.reply)]
        self._size = sum(len(kept.frame) for kept in self._kept)

    def take(self) -> Iterator[Kept]:
        """Empty the buffer; return the messages that are still wanted."""
        kept, self._kept, self._size = self._kept, [], 0
        return (each for each in kept if self._wanted(each.reply))
