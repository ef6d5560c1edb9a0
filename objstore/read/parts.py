"""What a feed is asked for and what it tells: parts of objects, the sink they go to, what may be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..errors import IntegrityError
from ..format.assembly import Unfit

if TYPE_CHECKING:
    from natsproto.wire import Target

    from ..format.models import ObjectInfo


class WrongPlace(Unfit):
    """The first message read is not the chunk that was meant: the guess of its sequence was wrong."""


class Missing(Exception):
    """The stream has fewer chunks than the meta message says, as far as this source can see."""


class Sink(Protocol):
    """Where chunks go. Called from the reading side: neither blocks nor waits."""

    def reserve(self) -> None:
        """Take the memory now: while a request is under way, and where a lack of it fails this read alone."""
        ...

    def place(self, size: int) -> Target:
        """Name the place of the next large payload, or ``None``."""
        ...

    def accept(self, payload: bytes | bytearray | memoryview) -> None:
        """Take the next payload in order; raises ``IntegrityError`` when it cannot belong."""
        ...

    def forget_places(self) -> None:
        """Places handed out for payloads that never came are free again."""
        ...

    @property
    def complete(self) -> bool:
        """All bytes and chunks are here."""
        ...

    @property
    def congested(self) -> bool:
        """The reader has to catch up before more is asked for."""
        ...

    async def drained(self) -> None:
        """Wait until the reader has caught up."""
        ...


class Part:
    """Some chunks of an object.

    What shows that the first one read is the one that was meant is the number of those that follow. A replica
    that is behind has fewer, and another chunk would be taken for it; there the sequences must be known.

    Attributes:
        seq: sequence of the first one, or a guess: a wrong one is noticed.
        first, last: indexes, inclusive.
        total: messages of the object in the stream.
        seq_of: the sequence of each chunk by its index, where they are known and nothing else is a proof.
    """

    __slots__ = ("first", "last", "seq", "seq_of", "total")

    def __init__(
        self, seq: int, first: int, last: int, total: int, seq_of: Callable[[int], int] | None = None
    ) -> None:
        self.seq: int = seq
        self.first: int = first
        self.last: int = last
        self.total: int = total
        self.seq_of: Callable[[int], int] | None = seq_of


def damaged(info: ObjectInfo, what: str) -> IntegrityError:
    """The error for an object whose chunks are not what its meta says."""
    return IntegrityError(f"object {info.name!r} is damaged: {what}", bucket=info.bucket, name=info.name)
