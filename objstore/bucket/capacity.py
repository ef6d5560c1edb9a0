"""Checks by which a put makes sure that the stream keeps what it acknowledges.

A stream's configuration may remove messages again (:mod:`objstore.format.limits`). The put knows it since
the bucket was opened, and requests it again beside the chunks, since it may change at any time.

A stream that makes room by removing its oldest messages (``discard: old`` with ``max_bytes`` or
``max_msgs``; on nats-server 2.9 any with ``max_bytes``) refuses nothing and drops the chunks of objects that
were acknowledged before. With such a stream every put checks the free room first, and reports the bucket as
full where the server would not. Puts through one handle reserve their room. Other clients may fill the last
bit of room at the same time, so each put counts its own chunks before it commits.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import StoreFullError
from ..format.codec import largest_meta
from ..format.limits import RECORD
from ..format.naming import chunk_subject

if TYPE_CHECKING:
    from natsproto.aio.client import PendingRequest

    from ..format.models import ObjectInfo
    from .bucket import Bucket

STREAM_FULL = 10077
"""The server's error code for a message that a full stream refuses."""


class Ledger:
    """Free room of one bucket, shared by the writes through one handle.

    Attributes:
        bytes: free bytes that no running write has reserved.
        messages: free messages that no running write has reserved.
    """

    def __init__(self) -> None:
        self.bytes: int = 0
        self.messages: int = 0
        self._promised = [0, 0]
        self._arrived = [0, 0]

    async def look(self, bucket: Bucket) -> None:
        """Request the current state of the stream and compute what is free.

        The response may or may not count what arrived while it was on its way: it is always subtracted.
        """
        arrived = list(self._arrived)
        info = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
        bucket.learn(info)
        late = [now - then for now, then in zip(self._arrived, arrived, strict=True)]
        limits = bucket.limits
        unlimited = 1 << 62
        self.bytes = (limits.max_bytes or unlimited) - info.bytes - self._promised[0] - late[0]
        self.messages = (limits.max_msgs or unlimited) - info.messages - self._promised[1] - late[1]

    def fits(self, size: int, messages: int) -> bool:
        """Whether this much is free."""
        return size <= self.bytes and messages <= self.messages

    def take(self, size: int, messages: int) -> bool:
        """Reserve room for a write; false when there is not enough."""
        if not self.fits(size, messages):
            return False
        self.bytes -= size
        self.messages -= messages
        self._promised[0] += size
        self._promised[1] += messages
        return True

    def arrive(self, size: int, messages: int) -> None:
        """End a reservation: the messages are stored, or never will be."""
        self._promised[0] -= size
        self._promised[1] -= messages
        self._arrived[0] += size
        self._arrived[1] += messages


class Guard:
    """The checks of one put before and after its chunks.

    Args:
        bucket: the bucket of the put.
        template: the object's info without its content.
        size: bytes of the object, ``None`` when unknown.
        chunk_size: bytes of a chunk.
        header: bytes of the headers of a chunk.

    Attributes:
        free: number of chunks that may be sent without :meth:`admit`.
        partial: a part of the chunks is already stored.

    Raises:
        BadBucketError: the object has more chunks than the stream keeps.
    """

    def __init__(
        self, bucket: Bucket, template: ObjectInfo, size: int | None, chunk_size: int, header: int
    ) -> None:
        self._bucket = bucket
        self._limits = bucket.limits
        self._template = template
        self._name = template.name
        self._size = size
        self._chunks = 0 if size is None else -(-size // chunk_size)
        self._header = header
        self._overhead = 0
        self._config: PendingRequest | None = None
        self._taken = self._spare = (0, 0)  # bytes and messages
        self.free: int = sys.maxsize
        self.partial = False
        bucket.check_chunks(self._chunks, template.name)

    async def begin(self) -> None:
        """Check the room before the first chunk.

        Raises:
            StoreFullError: there is not enough room; nothing was sent.
        """
        bucket = self._bucket
        self._config = bucket.request_config(self._size)
        self.free = bucket.limits.chunks or sys.maxsize
        if not bucket.limits.evicts_oldest:
            return
        self.free = 0
        self._overhead = RECORD + len(chunk_subject(bucket.name, "x" * 22)) + self._header
        await bucket.ledger.look(bucket)
        size, messages = (0, 0) if self.partial else (self._size or 0, self._chunks)
        total = size + messages * self._overhead
        meta = largest_meta(self._template) + len(bucket.meta_subject(self._name)) + RECORD
        self._take(total + meta, messages + 1)
        self._spare = total, messages

    def admit(self, chunks: int, size: int) -> None:
        """Check whether one more chunk of ``size`` bytes may follow the first ``chunks``.

        Raises:
            BadBucketError: the stream does not keep so many chunks.
            StoreFullError: there is no room; the chunk must not be sent.
        """
        bucket = self._bucket
        bucket.check_chunks(chunks + 1, self._name)
        if not bucket.limits.evicts_oldest:
            return
        size += self._overhead
        spare, messages = self._spare
        if spare >= size and messages:
            self._spare = spare - size, messages - 1
        else:
            self._take(size, 1)

    def _take(self, size: int, messages: int) -> None:
        if not self._bucket.ledger.take(size, messages):
            raise stream_full(self._bucket, self._name)
        self._taken = self._taken[0] + size, self._taken[1] + messages

    async def end(self, chunks: int) -> bool:
        """Finish the checks after the last chunk; return whether to count the chunks before the commit.

        Raises:
            BucketSealedError, BadBucketError: the configuration has changed; nothing may be committed.
        """
        if self._config is not None:
            await self._bucket.take_config(self._config)
        self.check(chunks)
        return self._bucket.limits.evicts_oldest

    def check(self, chunks: int) -> None:
        """Refuse what the stream does not keep, by its configuration as known now."""
        bucket = self._bucket
        if bucket.limits is not self._limits:
            bucket.check_writable()
        bucket.check_chunks(chunks, self._name)

    def explain(self, stored: int, chunks: int) -> None:
        """Raise the bucket-full error if the stream explains why fewer chunks are stored."""
        if self._bucket.limits.evicts_oldest and stored < chunks:
            raise stream_full(self._bucket, self._name)

    def close(self) -> None:
        """End the reservation: everything admitted is stored, or never will be. Idempotent."""
        if self._config is not None:
            self._config.close()
            self._config = None
        if self._taken[1]:
            self._bucket.ledger.arrive(*self._taken)
            self._taken = 0, 0


async def check_meta_room(bucket: Bucket, name: str, size: int) -> None:
    """Refuse a meta message that the stream would store only by removing other objects' messages.

    Operations that change a meta without chunks call it. It costs one request where the stream removes its
    oldest messages, and none elsewhere.

    Args:
        size: bytes of the message, headers included.

    Raises:
        StoreFullError: there is no room; the message must not be sent.
    """
    if not bucket.limits.evicts_oldest:
        return
    await bucket.ledger.look(bucket)
    if not bucket.ledger.fits(size + len(bucket.meta_subject(name)) + RECORD, 1):
        raise stream_full(bucket, name)


def stream_full(bucket: Bucket, name: str) -> StoreFullError:
    """Return the error for a message that such a stream would store only at the cost of other objects."""
    limits = bucket.limits
    held = f"max_bytes {limits.max_bytes}" if limits.max_bytes else f"max_msgs {limits.max_msgs}"
    return StoreFullError(
        f"bucket {bucket.name!r} is full: its stream has {held} and would remove chunks of other objects "
        f"(discard 'old', or nats-server 2.9) to take {name!r}: delete objects, or raise that limit",
        bucket=bucket.name,
        name=name,
        err_code=STREAM_FULL,
    )
