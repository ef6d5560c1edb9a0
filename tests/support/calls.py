"""A callback that remembers its calls and can be waited for."""

from __future__ import annotations

import asyncio
from typing import Any


class Calls:
    """Pass it as a callback; ``items`` has the first argument of each call (``None`` without one)."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._changed = asyncio.Event()

    def __call__(self, *args: Any) -> None:
        self.items.append(args[0] if args else None)
        self._changed.set()

    def __len__(self) -> int:
        return len(self.items)

    async def until(self, count: int = 1, *, timeout: float = 20.0) -> list[Any]:
        """Wait until there were ``count`` calls."""
        async with asyncio.timeout(timeout):
            while len(self.items) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.items
