"""Growing pauses between attempts."""

from __future__ import annotations

import random

FIRST = 0.05
"""Seconds of the first pause after a call that a retry can mend."""

CEILING = 1.0
"""Seconds of the longest one: a leader is elected within a few."""


class Backoff:
    """A pause that doubles with each attempt.

    Args:
        first: seconds of the first pause.
        ceiling: seconds of the longest one.

    Attributes:
        seconds: the next pause.
    """

    __slots__ = ("_ceiling", "_first", "seconds")

    def __init__(self, first: float = FIRST, ceiling: float = CEILING) -> None:
        self._first = first
        self.seconds: float = first
        self._ceiling = ceiling

    def grow(self) -> None:
        """An attempt has failed."""
        self.seconds = min(self.seconds * 2, self._ceiling)

    def reset(self) -> None:
        """There was progress."""
        self.seconds = self._first


def jittered(attempt: int, *, first: float, ceiling: float, rng: random.Random) -> float:
    """Seconds to wait before round ``attempt`` (0 = none): doubling, with full jitter on the upper half."""
    if attempt <= 0:
        return 0.0
    limit = min(ceiling, first * 2.0 ** min(attempt - 1, 30))
    return limit / 2 + rng.random() * limit / 2
