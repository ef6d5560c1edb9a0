"""What is published while there is no connection, kept for the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import OutboundBufferLimitError

SWEEP = 1.0
"""Seconds between two looks at a full buffer for requests that nobody waits for any more."""


class Kept(NamedTuple):
    """One message: the bytes of header and payload, its frame, and the subject of the reply."""

    size: int
    frame: bytes
    reply: bytes | None


class ReconnectBuffer:
    """Frames in the order in which they were published, up to a limit in bytes.

    Args:
        limit: bytes of all frames.
        wanted: whether a message with this reply subject is still to be sent: a request whose caller was told
            that it failed is not. Done later, it would hit what was made since.
        clock: the time in seconds.
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
        # It costs 100 ms for a full buffer of small messages: not each time that one is refused.
        if self._clock() - self._swept < SWEEP:
            return
        self._swept = self._clock()
        self._kept = [kept for kept in self._kept if self._wanted(kept.reply)]
        self._size = sum(len(kept.frame) for kept in self._kept)

    def take(self) -> Iterator[Kept]:
        """Empty the buffer; returns what is still to be sent."""
        kept, self._kept, self._size = self._kept, [], 0
        return (each for each in kept if self._wanted(each.reply))
