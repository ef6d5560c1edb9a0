"""What was learnt on a connection, for a while: handles of buckets are cheap to make, and know nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Hashable

    from natsproto.aio.connection import Connection

MOST = 1000
"""Keys of a connection; beyond them all is forgotten."""

T = TypeVar("T")


class Known(Generic[T]):
    """Values by connection and key, each with the time until which it counts.

    Args:
        seconds: how long a value counts.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds
        self._values: WeakKeyDictionary[Connection, dict[Hashable, tuple[T, float]]] = WeakKeyDictionary()

    def get(self, connection: Connection, key: Hashable) -> T | None:
        """Return the value, if it still counts."""
        values = self._values.get(connection) if self._values else None
        found = None if values is None else values.get(key)
        return found[0] if found is not None and connection.loop.time() < found[1] else None

    def note(self, connection: Connection, key: Hashable, value: T) -> None:
        """Note a value; it counts from now on."""
        values = self._values.setdefault(connection, {})
        if len(values) >= MOST:
            values.clear()
        values[key] = value, connection.loop.time() + self.seconds
