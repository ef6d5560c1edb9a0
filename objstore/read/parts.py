"""The input and output of a feed: parts of objects, the sink that takes the chunks, possible errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from natsproto.errors import StaleConnectionError

from ..errors import IntegrityError
from ..format.assembly import Unfit

if TYPE_CHECKING:
    from natsproto.wire import Target

    from ..bucket.bucket import Bucket
    from ..format.models import ObjectInfo


MOST_NEWER = 1000
"""Chunks that may be newer than the object's meta, as when somebody has stored again what was lost.

With more of them a read would go on for as long as others store them.
"""


class NotWhole(StaleConnectionError):
    """An intact object did not come whole: somebody may remove and store chunks of it all the time.

    This says nothing of other objects.
    """


class WrongPlace(Unfit):
    """There are more messages, or fewer, than the part must have: those that were read may be others."""


class Missing(Exception):
    """The stream has fewer chunks than the meta message says, as far as this source can see."""


class Sink(Protocol):
    """The destination of chunks. The receive path calls it: its methods must not block or wait."""

    def reserve(self) -> None:
        """Allocate the memory now: during a request, and where a lack of memory fails only this read."""
        ...

    def place(self, size: int) -> Target:
        """Return the destination of the next large payload, or ``None``."""
        ...

    def accept(self, payload: bytes | bytearray | memoryview) -> None:
        """Take the next payload in order; raise ``IntegrityError`` if it cannot belong to the object."""
        ...

    def forget_places(self) -> None:
        """Give up the destinations of payloads that never came."""
        ...

    @property
    def complete(self) -> bool:
        """Whether all bytes and chunks have arrived."""
        ...

    @property
    def congested(self) -> bool:
        """Whether the reader must catch up before more is requested."""
        ...

    async def drained(self) -> None:
        """Wait until the reader has caught up."""
        ...


class Part:
    """Some chunks of an object.

    The sequences of its chunks are known, unless it begins with the object's first chunk: then the number of
    messages that follow shows that no other ones are among them.

    Attributes:
        seq: sequence of the first chunk; 1 for the object's first one, if it is not known.
        first, last: indexes, inclusive.
        total: messages of the object in the stream.
        seq_of: returns the sequence of a chunk by its index, when the sequences are known and required.
        copies: sequences of messages that are to be left out.
    """

    __slots__ = ("copies", "first", "last", "seq", "seq_of", "total")

    def __init__(
        self,
        seq: int,
        first: int,
        last: int,
        total: int,
        seq_of: Callable[[int], int] | None = None,
        copies: frozenset[int] = frozenset(),
    ) -> None:
        self.seq: int = seq
        self.first: int = first
        self.last: int = last
        self.total: int = total
        self.seq_of: Callable[[int], int] | None = seq_of
        self.copies: frozenset[int] = copies


ContentKey = tuple[str, int, int, str, int]
"""Nuid, chunks, size, digest, and the sequence of the meta."""


def content_key(info: ObjectInfo) -> ContentKey:
    """Return what is known of an object's chunks by: no two that lie elsewhere have the same.

    A newer meta may have others before it. And the bucket may have been deleted, and restored from a copy:
    then all nuids are the same, but the sequences are not.
    """
    return info.nuid, info.chunks, info.size, info.digest, info.revision


def is_newer(bucket: Bucket, info: ObjectInfo, seq: int) -> bool:
    """Whether a chunk is newer than the meta, and does not belong to what that describes.

    It comes from an upload that was sent again: its chunks have replaced the object's. Or somebody has stored
    again what was lost, or something else. (Sources and mirrors may bring a meta before its chunks.)
    """
    return 0 < info.revision < seq and not bucket.copied


def damaged(info: ObjectInfo, what: str) -> IntegrityError:
    """Return the error for an object whose chunks do not match its meta."""
    return IntegrityError(f"object {info.name!r} is damaged: {what}", bucket=info.bucket, name=info.name)


def check_count(info: ObjectInfo) -> None:
    """Refuse a meta that counts more chunks than bytes: it would be read for as long as others store more.

    Raises:
        IntegrityError: it does. (Some writers count an empty chunk at the end.)
    """
    if info.chunks > info.size + 1:
        raise damaged(info, f"its meta counts {info.chunks} chunks, and {info.size} bytes")
