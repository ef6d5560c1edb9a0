"""How many calls of a function run at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class Calls:
    """Counts the calls of an asynchronous function, and lets each other one begin before it ends."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self.most = 0
        self._running = 0
        self._function = function

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await asyncio.sleep(0)
            return await self._function(*args, **kwargs)
        finally:
            self._running -= 1
