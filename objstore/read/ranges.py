"""Read parts of an object without the bytes before them.

An offset is a chunk's index times the chunk size only in a *regular* object: every chunk but the last has the
recorded size. Its chunks mostly follow each other, too. Both are proven, not assumed, by :mod:`.by_sequence`,
which also reads small ranges. All other objects are measured once, headers only: those of writers that store
short chunks, with messages of others between their chunks, or with more chunks than recorded.
Either way the sequence of each chunk is known before it is read. How many messages follow a chunk does not
identify it: others may be stored behind the object at any time. Only what begins with the first chunk needs
no proof, but that none is newer than the meta.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from functools import partial
from operator import eq
from typing import TYPE_CHECKING

from natsproto._values import seconds
from natsproto.backoff import Backoff
from natsproto.errors import APIError, NatsError, PermissionsViolationError, RequestTimeoutError
from natsproto.jetstream.direct_get import header_bytes
from natsproto.jetstream.in_flight import in_flight

from ..bucket.at_once import run_all
from ..bucket.bucket import Bucket
from ..bucket.collect import Collector, SilentConsumer
from ..bucket.message_reads import MessageRead
from ..bucket.shared import Shared
from ..bucket.unheard import UnheardConsumers
from ..bucket.ways import ANY_WAY, DIRECT, DIRECT_FIRST, LEADER
from ..format.assembly import Unfit
from ..format.memory import BytesTarget, Places
from ..format.naming import DEFAULT_CHUNK_SIZE, chunk_subject
from .by_sequence import Begins, begin_of, note_measured, read_by_sequence
from .doubled import doubled_chunks
from .expected import expected
from .feed import ChunkFeed, next_chunk
from .late_copies import late_copies
from .parts import ContentKey, Missing, Part, WrongPlace, check_count, content_key, damaged, is_newer

if TYPE_CHECKING:
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.wire import Msg as WireMsg
    from natsproto.wire import Target

    from ..format.models import ObjectInfo

Payload = bytes | bytearray | memoryview

HEADERS = 256
"""Bytes of a chunk that is delivered without its payload, about."""


class Irregular(Unfit):
    """A chunk does not have the length that its index requires."""


class Layout:
    """Where the chunks of one object lie: their offsets and, as far as known, their sequences.

    Attributes:
        total: messages in the stream, including an empty one at the end.
        copies: sequences of copies among the chunks.
    """

    __slots__ = (
        "_begin",
        "_chunk_size",
        "_info",
        "_offsets",
        "_seqs",
        "copies",
        "total",
    )

    def __init__(self, info: ObjectInfo) -> None:
        self._info = info
        options = info.options
        self._chunk_size = options.max_chunk_size if options is not None else DEFAULT_CHUNK_SIZE
        self.total: int = info.chunks
        self.copies: frozenset[int] = frozenset()
        self._begin = 0
        self._offsets: array[int] | None = None
        self._seqs: array[int] | None = None

    @property
    def plausible(self) -> bool:
        """Whether the counts allow a regular object."""
        return -(-self._info.size // self._chunk_size) == self._info.chunks

    @property
    def placed(self) -> bool:
        """Whether the sequence of every chunk is known."""
        return self._begin > 0 or self._seqs is not None

    @property
    def known(self) -> bool:
        """Whether every chunk was measured."""
        return self._seqs is not None

    def measured(self, offsets: array[int], seqs: array[int]) -> None:
        """Use measured values from now on: the offsets of all messages (and the end), and their sequences."""
        self._offsets, self._seqs = offsets, seqs
        self.total = len(seqs)

    def copy(self, other: Layout) -> None:
        """Use what was measured of the same object before."""
        assert other._offsets is not None
        assert other._seqs is not None
        self.measured(other._offsets, other._seqs)
        self.copies = other.copies

    def locate(self, begin: int) -> None:
        """Record that the object is regular and contiguous from sequence ``begin`` on; 0: unknown."""
        self._begin = begin

    @property
    def even(self) -> bool:
        """Whether the size is a multiple of the chunk size.

        Then the number of messages alone proves that the object is regular. (Some writers end such an object
        with an empty message, which they do not count.)
        """
        return self._info.chunks * self._chunk_size == self._info.size

    def index_of(self, offset: int) -> int:
        """Return the index of the chunk that holds the byte at ``offset``."""
        if self._offsets is not None:
            return bisect_right(self._offsets, offset) - 1
        return offset // self._chunk_size

    def offset_of(self, index: int) -> int:
        """Return the offset of a chunk's first byte."""
        if self._offsets is not None:
            return self._offsets[index]
        return index * self._chunk_size

    def length_of(self, index: int) -> int:
        """Return the length a chunk must have."""
        if self._offsets is not None:
            return self._offsets[index + 1] - self._offsets[index]
        return min(self._chunk_size, self._info.size - index * self._chunk_size)

    def empty_before(self, index: int) -> int:
        """Return how many measured chunks before that one are empty."""
        if self._offsets is None:
            return 0
        return sum(map(eq, self._offsets[:index], self._offsets[1 : index + 1]))

    def seq_of(self, index: int) -> int:
        """Return the sequence of a chunk; or a guess, the highest possible one.

        Each later chunk and the meta take one. For the first chunk it is the lowest: the server's index tells
        where a subject begins, without a search.
        """
        if self._seqs is not None:
            return self._seqs[index]
        if self._begin or not index:
            return max(1, self._begin + index)
        return max(1, self._info.revision - self.total + index)

    def part(self, start: int, end: int) -> Part:
        """Return the chunks that hold the bytes from ``start`` to ``end`` (exclusive)."""
        first, last = self.index_of(start), self.index_of(end - 1)
        known = self.seq_of if self.placed else None
        return Part(self.seq_of(first), first, last, self.total, known, self.copies)


class RangeSink:
    """The bytes of a range, in memory."""

    __slots__ = ("_end", "_index", "_layout", "_part", "_places", "_start", "_target")

    def __init__(self, layout: Layout, part: Part, start: int, end: int) -> None:
        self._layout = layout
        self._part = part
        self._start = start
        self._end = end
        self._target = BytesTarget(end - start)
        self._places = Places(self._target)
        self._index = part.first  # of the next chunk

    def reserve(self) -> None:
        self._target.reserve()

    def place(self, size: int) -> Target:
        return self._places.place(size)

    def accept(self, payload: Payload) -> None:
        index = self._index
        if index > self._part.last:
            return
        length = self._layout.length_of(index)
        if len(payload) != length:
            raise Irregular
        self._index += 1
        offset = self._layout.offset_of(index)
        low, high = max(0, self._start - offset), min(length, self._end - offset)
        # A part of a chunk is copied, since its payload lies at another offset.
        self._places.store(payload if high - low == length else bytes(payload[low:high]))

    def forget_places(self) -> None:
        self._places.forget()

    @property
    def complete(self) -> bool:
        return self._places.filled == self._target.size

    @property
    def congested(self) -> bool:
        return False

    async def drained(self) -> None:
        return

    def getvalue(self) -> bytes:
        """Return the bytes."""
        return self._target.getvalue()

    def release(self) -> None:
        """End the read: an error that someone keeps then keeps no memory."""
        self._places.release()


REMEMBERED = 200_000
"""Chunks of the measured objects of a bucket that are remembered, 16 bytes for each."""


class _Measured(dict[ContentKey, Layout]):
    """The objects that were measured."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()
        self._chunks = 0

    def note(self, info: ObjectInfo, layout: Layout) -> None:
        """Remember one; forget the oldest while there are too many."""
        self.forget(info)
        self[content_key(info)] = layout
        self._chunks += layout.total
        while self._chunks > REMEMBERED and len(self) > 1:
            self._chunks -= self.pop(next(iter(self))).total

    def forget(self, info: ObjectInfo) -> None:
        """Measure an object anew."""
        layout = self.pop(content_key(info), None)
        if layout is not None:
            self._chunks -= layout.total


async def read_range(bucket: Bucket, info: ObjectInfo, start: int, end: int) -> bytes:
    """Return the bytes from ``start`` to ``end`` (exclusive; within the object).

    Raises:
        Missing: chunks are missing.
        IntegrityError: the object does not match its meta.
        NatsError: as for :class:`ChunkFeed`.
    """
    layout = Layout(info)
    if (
        bucket.direct
        and bucket.ways.allowed(DIRECT)
        and layout.plausible
        and (data := await read_by_sequence(bucket, info, layout, start, end)) is not None
    ):
        return data
    part = await find_part(bucket, info, layout, start, end)
    while True:
        sink = RangeSink(layout, part, start, end)
        try:
            steps = [ChunkFeed(bucket, info, sink, part=part).run]
            if part.seq_of is None and part.last < info.chunks - 1:  # else the last chunk is seen to be older
                steps.append(partial(check_none_newer, bucket, info))
            await run_all((step() for step in steps), len(steps))
            return sink.getvalue()
        except (Irregular, WrongPlace):
            part = await another_part(bucket, info, layout, start, end)
        finally:
            sink.release()


async def find_part(bucket: Bucket, info: ObjectInfo, layout: Layout, start: int, end: int) -> Part:
    """Return the chunks that hold these bytes, and where they are.

    Raises:
        Missing, IntegrityError: chunks are missing, or do not add up.
    """
    measured = not layout.plausible or content_key(info) in bucket.remembered(_Measured)
    if measured or bucket.replicated or start >= layout.length_of(0):
        await prove(bucket, info, layout)
    return layout.part(start, end)


async def check_none_newer(bucket: Bucket, info: ObjectInfo) -> None:
    """Check that no chunk is newer than the meta: the first one may be gone, and another one be the last.

    Raises:
        WrongPlace: there is one.
        NatsError: this could not be determined.
    """
    subject, after = chunk_subject(bucket.name, info.nuid), info.revision
    async with in_flight(bucket.connection).during(_chunk(bucket, info)):
        newer = await bucket.retrying(
            lambda: MessageRead(bucket, subject, after=after, ways=DIRECT_FIRST).wait()
        )
    if newer is not None and is_newer(bucket, info, newer.seq):
        raise WrongPlace


async def another_part(bucket: Bucket, info: ObjectInfo, layout: Layout, start: int, end: int) -> Part:
    """Return the same from a measurement: the chunks are not as the meta says, or others come first.

    Raises:
        Missing, IntegrityError: chunks are missing, or do not add up.
    """
    if layout.known:
        forget_places(bucket, info)
        raise damaged(info, "its chunks do not add up")
    await measure(bucket, info, layout)
    return layout.part(start, end)


async def prove(bucket: Bucket, info: ObjectInfo, layout: Layout) -> None:
    """Make sure that the offset and the sequence of each chunk are known, by proof or by measuring.

    Raises:
        Missing, IntegrityError: chunks are missing, or do not add up.
    """
    if layout.placed:
        return
    if layout.plausible and content_key(info) not in bucket.remembered(_Measured):
        layout.locate(await bucket.retrying(lambda: begin_of(bucket, info, layout)))
    if not layout.placed:
        await measure(bucket, info, layout)


def forget_places(bucket: Bucket, info: ObjectInfo) -> None:
    """Forget where the chunks of an object are: they were not found there."""
    bucket.remembered(_Measured).forget(info)
    bucket.remembered(Begins).pop(content_key(info), None)


async def measure(bucket: Bucket, info: ObjectInfo, layout: Layout) -> None:
    """Learn the length and sequence of every chunk, headers only; or remember them.

    Raises:
        Missing: the leader has fewer chunks than there must be.
        IntegrityError: the chunks do not add up to the object's size.
        RequestTimeoutError: no server delivered all of the leader's chunks within the retry budget.
    """
    known = bucket.remembered(_Measured).get(content_key(info))
    if known is None:
        measuring = bucket.remembered(_Measuring)
        key = info.name, *content_key(info)  # an error names the object
        known = await measuring.get(key, lambda: _measure_all(bucket, info), bucket.retry_budget)
    layout.copy(known)


class _Measuring(Shared[Layout]):
    """The objects that are being measured: ranges of one that are read at once need it once."""


async def _measure_all(bucket: Bucket, info: ObjectInfo) -> Layout:
    check_count(info)
    layout = Layout(info)
    loop = asyncio.get_running_loop()
    offsets, seqs = array("Q", [0]), array("Q")
    deadline, backoff = loop.time() + bucket.retry_budget, Backoff()
    while True:
        before = len(seqs)
        await _measure(bucket, info, offsets, seqs)
        if _exceeded(info, offsets):
            break
        if len(seqs) >= info.chunks and offsets[-1] == info.size and not bucket.replicated:
            break
        stored = await bucket.stored_chunks(info.nuid, info.chunks)
        if stored < info.chunks or not stored:
            raise Missing
        if len(seqs) >= stored:
            break
        # The consumer's server is behind: the next consumer may run elsewhere, and continues after the last.
        if len(seqs) > before:
            deadline, backoff = loop.time() + bucket.retry_budget, Backoff()
        elif loop.time() > deadline:
            raise RequestTimeoutError(
                f"the leader of bucket {bucket.name!r} has {stored} chunks of {info.name!r}, "
                f"no server delivered more than {len(seqs)} within {seconds(bucket.retry_budget)} s"
            )
        await bucket.pause(backoff.seconds, deadline)
        backoff.grow()
    if _exceeded(info, offsets) and (doubled := await doubled_chunks(bucket, info, ANY_WAY)) is not None:
        seqs, offsets, layout.copies = doubled.seqs, doubled.offsets, doubled.copies
    elif _exceeded(info, offsets) and (late := await late_copies(bucket, info, ANY_WAY)) is not None:
        own = bisect_right(seqs, late.end)
        del seqs[own:], offsets[own + 1 :]
    if offsets[-1] != info.size:
        raise damaged(info, f"{offsets[-1]} of {info.size} bytes are stored")
    if len(seqs) > info.chunks and (len(seqs) > info.chunks + 1 or offsets[-1] != offsets[-2]):
        raise damaged(info, f"{len(seqs)} chunks are stored, {info.chunks} recorded")
    if seqs and is_newer(bucket, info, seqs[min(len(seqs), info.chunks) - 1]):
        raise damaged(info, "a chunk is newer than its meta")  # and an earlier one may be gone
    if layout.plausible:
        note_measured(bucket, info, layout, offsets, seqs)
    layout.measured(offsets, seqs)
    bucket.remembered(_Measured).note(info, layout)
    return layout


def _chunk(bucket: Bucket, info: ObjectInfo) -> int:
    """Return how many bytes a chunk brings."""
    recorded = DEFAULT_CHUNK_SIZE if info.options is None else info.options.max_chunk_size
    return expected(bucket, max(1, min(recorded, bucket.max_message)))


def _exceeded(info: ObjectInfo, offsets: array[int]) -> bool:
    """Whether there are too many chunks, even with an empty one at the end: do not wait for their writer."""
    return len(offsets) > info.chunks + 2 or offsets[-1] > info.size


async def _measure(
    bucket: Bucket, info: ObjectInfo, offsets: array[int], seqs: array[int], *, singly: bool = False
) -> None:
    """Continue with the chunks on one consumer's server, or with chunks read one by one."""
    silent = bucket.remembered(UnheardConsumers)
    if singly or silent.now or not bucket.ways.can_deliver(info.chunks * HEADERS):
        subject = chunk_subject(bucket.name, info.nuid)
        stored = await bucket.stored_chunks(info.nuid, info.chunks)
        while len(seqs) < stored:
            async with in_flight(bucket.connection).during(_chunk(bucket, info)):
                message = await next_chunk(bucket, subject, seqs[-1] if seqs else 0)
            if message is None:
                return
            seqs.append(message.seq)
            offsets.append(offsets[-1] + len(message.data))
            if _exceeded(info, offsets):
                return
        return

    def on_message(msg: WireMsg, delivery: Delivery) -> None:
        if reading.over:
            return
        # The last header of that name is the server's: the chunk's writer may have set one, too.
        size = None if msg.header is None else header_bytes(msg.header, b"Nats-Msg-Size")
        length = int(size) if size is not None and size.isdigit() and len(size) < 12 else 0
        if msg.payload:
            length = len(msg.payload)  # whoever may create consumers has changed this one
        seqs.append(delivery.stream_seq)
        offsets.append(offsets[-1] + length)
        if delivery.num_pending == 0 or len(seqs) == end or _exceeded(info, offsets):
            reading.finish()

    before = len(seqs)
    end = -1  # later chunks were stored meanwhile, and may come for as long as others write
    subject = chunk_subject(bucket.name, info.nuid)
    try:
        async with Collector(
            bucket,
            subject,
            on_message,
            "all",
            after=seqs[-1] if seqs else None,
            headers_only=True,
            other_way=bucket.ways.allowed(LEADER) or bucket.ways.allowed(DIRECT),
        ) as reading:
            end = before + (await reading.start()).num_pending
            if len(seqs) >= end:
                reading.finish()
            await reading.ended  # the caller checks whether chunks are missing
    except (PermissionsViolationError, APIError) as exc:
        if not bucket.ways.note_refusal(exc):
            raise bucket.translate(exc, info.name) from None
        await _measure(bucket, info, offsets, seqs, singly=isinstance(exc, PermissionsViolationError))
    except SilentConsumer:
        silent.note()
        await _measure(bucket, info, offsets, seqs, singly=True)
    except NatsError as exc:
        raise bucket.translate(exc, info.name) from None
