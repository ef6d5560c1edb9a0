"""The clock of the running event loop, put forward: what waits for a time is due at once."""

from __future__ import annotations

import asyncio
from typing import Any


class Clock:
    """As if the process had stood still for a while; nothing has to wait for that, on no machine.

    It is for the loop that the test runs in, which ends with the test. Bounds of others in the same loop,
    such as the ``timeout`` of a :class:`~natsproto.testing.ScriptedServer`, are over as well.
    """

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        real = loop.time
        self._ahead = 0.0
        loop.time = lambda: real() + self._ahead

    def forward(self, seconds: float) -> None:
        self._ahead += seconds
