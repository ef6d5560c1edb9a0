"""Ways to read of which several messages are due, and do not all come.

Where an account imports the JetStream API of another one, nothing of a consumer reaches it. Of a batch, only
the first message does, unless the export says ``response: stream``. The servers take both for delivered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .ways import REFUSED_FOR

if TYPE_CHECKING:
    from .bucket import Bucket

LONGEST = 600.0
"""Seconds for which such a way is left out, at most: the time doubles whenever nothing has changed."""

LONE = 2
"""Batches in a row of which one message came, until this is no accident."""


class Unheard:
    """Until when one such way is left out."""

    def __init__(self, bucket: Bucket) -> None:  # Bucket.remembered passes itself
        self._until = 0.0
        self._next = REFUSED_FOR
        self._lone = 0

    @property
    def now(self) -> bool:
        """Whether it is left out now."""
        return asyncio.get_running_loop().time() < self._until

    def note(self) -> None:
        """Leave it out for a while."""
        self._until = asyncio.get_running_loop().time() + self._next
        self._next = min(2 * self._next, LONGEST)

    def note_came(self, messages: int) -> None:
        """Note how many messages of a batch came before it timed out."""
        self._lone = self._lone + 1 if messages == 1 else 0
        if self._lone == LONE:
            self._lone = 0
            self.note()


class UnheardConsumers(Unheard):
    """Consumers of which no message comes, and no heartbeat."""


class UnheardBatches(Unheard):
    """Batches of which one message comes, and no end."""
