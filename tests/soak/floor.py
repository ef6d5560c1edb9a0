"""What was certainly in place, and when. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left


class Floor:
    """The newest revision known to be in place, as a function of time. Filled in the order of time."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._values: list[float] = []

    def add(self, time: float, value: float) -> None:
        if not self._values or value > self._values[-1]:
            self._times.append(time)
            self._values.append(value)

    def reset(self, time: float) -> None:
        """Nothing is certain any more."""
        self._times.append(time)
        self._values.append(0)

    def since(self, value: float) -> float:
        """When something newer than ``value`` was known first, after nothing was certain."""
        begin = max((pos for pos, newest in enumerate(self._values) if not newest), default=0)
        known = zip(self._times[begin:], self._values[begin:], strict=True)
        return next((time for time, newest in known if newest > value), math.inf)

    def at(self, time: float) -> float:
        """What was known strictly before ``time``; 0 when nothing was."""
        pos = bisect_left(self._times, time)
        return self._values[pos - 1] if pos else 0
