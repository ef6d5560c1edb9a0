"""Growing pauses between attempts: of retried calls, with the defaults here, and of reconnects, whose
pauses are options of ``connect()``."""

from __future__ import annotations

import random

FIRST = 0.05
"""Seconds of the first pause after a call that may succeed when retried."""

CEILING = 1.0
"""Seconds of the longest pause: electing a leader takes a few seconds."""


class Backoff:
    """A pause that doubles with each attempt.

    Args:
        first: seconds of the first pause.
        ceiling: seconds of the longest pause.

    Attributes:
        seconds: the next pause.
    """

    __slots__ = ("_ceiling", "_first", "seconds")

    def __init__(self, first: float = FIRST, ceiling: float = CEILING) -> None:
        self._first = first
        self.seconds: float = first
        self._ceiling = ceiling

    def grow(self) -> None:
        """Double the pause: an attempt has failed."""
        self.seconds = min(self.seconds * 2, self._ceiling)

    def reset(self) -> None:
        """Start over with the first pause: there was progress."""
        self.seconds = self._first


def jittered(attempt: int, *, first: float, ceiling: float, rng: random.Random) -> float:
    """Return the seconds to wait before round ``attempt`` (none before round 0).

    They double with each round; the upper half is random.
    """
    if attempt <= 0:
        return 0.0
    limit = min(ceiling, first * 2.0 ** min(attempt - 1, 30))
    return limit / 2 + rng.random() * limit / 2
