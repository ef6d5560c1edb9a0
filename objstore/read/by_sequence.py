"""Read ranges of contiguous objects: request each chunk by its sequence, all of them at once.

A batch request for a subject makes the server count the messages that follow. For that it loads the block of
the first message, drops it, and loads it again to read it. It also needs the index of each block between
there and the object's beginning (or the stream's end). It drops an index after two minutes and then loads
those blocks as well, so that the cost depends on the size of the object after all. A message requested by its
sequence costs only its own block.

The response to such a request does not say which chunk it is. Three facts that the server knows without a
search prove it once for all chunks of an object: the sequences of its first and its last message, and the
number of its messages. If as many messages as there are sequences from the first to the last are stored, each
of these sequences holds a chunk. A consumer confirms that these two are the first and the last: its answer
names the question, theirs do not. Chunks never move, so the result is remembered.
"""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING

from natsproto.aio.handlers import ReplySlot
from natsproto.errors import APIError, NatsError, PermissionsViolationError
from natsproto.jetstream.api.answers import STREAM_INFO
from natsproto.jetstream.api.codec import dumps, loads
from natsproto.jetstream.api.errors import api_error
from natsproto.jetstream.direct_get import header_bytes, header_int
from natsproto.jetstream.in_flight import LIMIT, in_flight

from ..bucket.counts import count_by_batch, counts_from
from ..bucket.message_reads import MessageRead
from ..bucket.shared import Shared
from ..bucket.ways import ANY_WAY, CONSUMER, DIRECT_FIRST
from ..format.memory import BytesTarget
from ..format.naming import chunk_subject
from .expected import expected, is_doubted, note_larger
from .feed import DEFAULT_WINDOW
from .parts import ContentKey, content_key, is_newer
from .window import PROGRESS

if TYPE_CHECKING:
    from natsproto.wire import Msg as WireMsg

    from ..bucket.bucket import Bucket
    from ..format.models import ObjectInfo
    from .ranges import Layout

MOST = 64
"""Chunks that are requested one by one; for more, the windows of a feed cost less."""

REMEMBERED = 1024
"""Objects of a bucket whose first sequence is remembered."""


class Begins(dict[ContentKey, int]):
    """The first chunk's sequence of objects; 0 = not contiguous."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()

    def note(self, key: ContentKey, begin: int) -> None:
        """Remember a sequence; forget the oldest when there are too many."""
        if len(self) >= REMEMBERED:
            del self[next(iter(self))]
        self[key] = begin


def note_measured(
    bucket: Bucket, info: ObjectInfo, layout: Layout, offsets: array[int], seqs: array[int]
) -> None:
    """Remember where a regular, contiguous object begins whose chunks have all been seen.

    ``offsets`` are those of the chunks, and the end. Without a consumer there is no other proof.
    """
    length = layout.length_of(0)
    regular = offsets[:-1] == array("Q", range(0, info.size, length))
    if regular and seqs[-1] - seqs[0] == len(seqs) - 1:
        bucket.remembered(Begins).note(content_key(info), seqs[0])


async def read_by_sequence(
    bucket: Bucket, info: ObjectInfo, layout: Layout, start: int, end: int
) -> bytes | None:
    """Return the bytes from ``start`` to ``end``; ``None`` when the feed must read them, for any reason."""
    key, begins = content_key(info), bucket.remembered(Begins)
    known = begins.get(key)
    if known == 0:
        return None  # not contiguous
    first, last = layout.index_of(start), layout.index_of(end - 1)
    count = last - first + 1
    if count > MOST or (count > 1 and count * layout.length_of(0) > 2 * DEFAULT_WINDOW):
        return None
    if count > 1 and (is_doubted(bucket) or count * bucket.max_message > LIMIT):
        return None  # they may be larger than recorded; a batch brings no more bytes than it names
    if known is not None:
        layout.locate(known)
    elif not first or not bucket.ways.allowed(CONSUMER):
        return None  # needs no guess, and the server counts without loading: one batch; or nothing proves one
    proving: asyncio.Task[int | None] | None = None
    forget = True
    try:
        if known is None:
            proving = asyncio.create_task(_prove(bucket, info, layout))
        guess = layout.seq_of(first)
        data = await _ChunkReads(bucket, info, layout, start, end).read()
        if proving is not None:
            begin = await proving
            if begin is None:
                return None
            begins.note(key, begin)
            if not begin:
                return None
            layout.locate(begin)
            if layout.seq_of(first) != guess:
                data = await _ChunkReads(bucket, info, layout, start, end).read()
    except NatsError as exc:
        if isinstance(exc, PermissionsViolationError):
            forget = not bucket.ways.note_refusal(exc)  # this says nothing of the object
        data = None  # the feed decides what to retry
    finally:
        if proving is not None:
            proving.cancel()
            await asyncio.wait([proving])
            if not proving.cancelled():
                proving.exception()
    if data is None:
        if forget:
            begins.pop(key, None)
        layout.locate(0)
    return data


async def begin_of(bucket: Bucket, info: ObjectInfo, layout: Layout) -> int:
    """Return the sequence of the first chunk of a regular, contiguous object; 0 when the object is not one.

    Raises:
        NatsError: this could not be determined.
    """
    key, begins = content_key(info), bucket.remembered(Begins)
    known = begins.get(key)
    if known is not None:
        return known
    begin = await _prove(bucket, info, layout)
    if begin is None:
        return 0  # chunks are missing
    begins.note(key, begin)
    return begin


async def _prove(bucket: Bucket, info: ObjectInfo, layout: Layout) -> int | None:
    """Return what :meth:`_Proof.begin` does; ranges of one object that are read at once need it once."""
    size = layout.length_of(0)

    async def look_up() -> int | None:
        async with in_flight(bucket.connection).during(2 * expected(bucket, size)):
            proof = _Proof(bucket, info)
            try:
                return await proof.begin(layout)
            finally:
                proof.close()

    return await bucket.remembered(_Proving).get(content_key(info), look_up, bucket.retry_budget)


class _Proving(Shared[int | None]):
    """The objects whose first sequence is being proven."""


class _Proof:
    """Determines where an object begins, and whether it is regular and contiguous from there on.

    A replica that is behind may know the first chunk, but neither the last one nor the number of chunks: with
    replicas the leader is asked for all of it.
    """

    __slots__ = ("_bucket", "_count", "_first", "_info", "_last", "_subject")

    def __init__(self, bucket: Bucket, info: ObjectInfo) -> None:
        self._bucket = bucket
        self._info = info
        self._subject = subject = chunk_subject(bucket.name, info.nuid)
        ways = ANY_WAY if bucket.replicated else DIRECT_FIRST
        self._first = MessageRead(bucket, subject, after=0, ways=ways)
        self._last = MessageRead(bucket, subject, ways=ways)
        self._count = bucket.client.start_request(
            bucket.js.subject(f"STREAM.INFO.{bucket.stream}"),
            dumps({"subjects_filter": subject}),
            b"",
            bucket.js.timeout,
            begins=STREAM_INFO,
        )

    async def begin(self, layout: Layout) -> int | None:
        """Return the sequence of the first chunk, 0 if irregular or not contiguous, ``None`` if unknown.

        Raises:
            NatsError: this could not be determined.
        """
        first, last = await self._first.wait(), await self._last.wait()
        answer = loads((await self._count.wait()).payload)
        if "error" in answer:
            raise api_error(answer["error"])
        state = answer.get("state")
        subjects = state.get("subjects") if isinstance(state, dict) else None
        total = subjects.get(self._subject) if isinstance(subjects, dict) else None
        if first is None or last is None or not isinstance(total, int):
            return None
        if last.seq - first.seq + 1 != total or is_newer(self._bucket, self._info, last.seq):
            return 0
        chunks = self._info.chunks
        regular = total == chunks and len(last.data) == layout.length_of(chunks - 1)
        # An uncounted empty message at the end hides the last chunk from this proof.
        if not regular and not (layout.even and total == chunks + 1 and not last.data):
            return 0
        return first.seq if await self._alone(first.seq, last.seq, total) else None

    async def _alone(self, first: int, last: int, total: int) -> bool:
        """Whether no chunk is counted before or behind these two, either: by a consumer, if one can be had.

        Whoever may read chunks can have any chunk of the object sent to us as its first or last one.
        """
        bucket, subject = self._bucket, self._subject
        if bucket.ways.allowed(CONSUMER):
            try:
                there, beyond = await counts_from(bucket, subject, first, last + 1)
                return there == total and not beyond
            except (PermissionsViolationError, APIError) as exc:
                if not bucket.ways.note_refusal(exc):
                    raise
        if await count_by_batch(bucket, subject, first) != total:
            return False
        return await count_by_batch(bucket, subject, last + 1) == 0

    def close(self) -> None:
        """Drop the requests; late responses are ignored."""
        for request in (self._first, self._last, self._count):
            request.close()


class _ChunkReads(ReplySlot):
    """Requests for chunks by their sequences; the responses may come in any order."""

    __slots__ = (
        "_bucket",
        "_end",
        "_ended",
        "_first",
        "_last",
        "_layout",
        "_left",
        "_start",
        "_subject",
        "_target",
    )

    def __init__(self, bucket: Bucket, info: ObjectInfo, layout: Layout, start: int, end: int) -> None:
        super().__init__(bucket.direct_subject)
        self._bucket = bucket
        self._subject = chunk_subject(bucket.name, info.nuid).encode()
        self._layout = layout
        self._start = start
        self._end = end
        self._first, self._last = layout.index_of(start), layout.index_of(end - 1)
        self._left = set(range(self._first, self._last + 1))
        self._target = BytesTarget(end - start)
        self._ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def read(self) -> bytes | None:
        """Return the bytes; ``None`` when a chunk got the wrong message, no message or no response.

        Raises:
            NatsError: the connection was lost or is closed.
        """
        connection = self._bucket.connection
        connection.check_open()
        size = expected(self._bucket, self._layout.length_of(0))
        async with in_flight(connection).during(len(self._left) * size):
            return await self._read()

    async def _read(self) -> bytes | None:
        connection = self._bucket.connection
        mux = connection.mux
        mux.open(self)
        try:
            for index in range(self._first, self._last + 1):
                document = dumps({"seq": self._layout.seq_of(index)})
                connection.publish(self.subject, document, b"%b.%d" % (self.inbox, index))
            connection.flush_now()
            self._target.reserve()
            return self._target.getvalue() if await self._all() else None
        finally:
            mux.close(self)
            self._target.release()
            if self._ended.done():
                self._ended.exception()  # a caller that is cancelled no longer awaits it

    async def _all(self) -> bool:
        """Wait for the responses as long as bytes arrive."""
        connection = self._bucket.connection
        loop = asyncio.get_running_loop()
        left, deadline = 0, 0.0
        while not self._ended.done():
            if left != len(self._left):
                left, deadline = len(self._left), loop.time() + PROGRESS
            session = connection.session
            reads = None if session is None else session.reads
            await asyncio.wait({self._ended}, timeout=self._bucket.js.timeout)
            session = connection.session
            if not self._ended.done() and (
                session is None or session.reads == reads or loop.time() > deadline
            ):
                connection.probe()
                return False
        return self._ended.result()

    def _bounds(self, index: int) -> tuple[int, int, int]:
        """Return a chunk's offset, and the start and end of its wanted bytes, as offsets in the object."""
        offset = self._layout.offset_of(index)
        return offset, max(offset, self._start), min(offset + self._layout.length_of(index), self._end)

    def _index(self, rest: bytes, size: int) -> int | None:
        index = int(rest) if rest.isdigit() and len(rest) < 12 else -1
        return index if index in self._left and size == self._layout.length_of(index) else None

    def place(self, rest: bytes, msg: WireMsg, size: int) -> memoryview | None:
        index = self._index(rest, size)
        if index is None or self._ended.done():
            return None
        _, low, high = self._bounds(index)
        return self._target.slot(low - self._start, size) if high - low == size else None

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        if self._ended.done():
            return
        payload, block = msg.payload, msg.header
        if len(payload) > self._layout.length_of(0):
            note_larger(self._bucket, len(payload))
        index = self._index(rest, len(payload))
        if (
            index is None
            or block is None
            or header_int(block, b"Nats-Sequence") != self._layout.seq_of(index)
            or header_bytes(block, b"Nats-Subject") != self._subject
        ):
            self._ended.set_result(False)
            return
        offset, low, high = self._bounds(index)
        with self._target.slot(low - self._start, high - low) as slot:
            if not (isinstance(payload, memoryview) and payload.obj is slot.obj):
                slot[:] = memoryview(payload)[low - offset : high - offset]
        if isinstance(payload, memoryview):
            payload.release()
        self._left.remove(index)
        if not self._left:
            self._ended.set_result(True)

    def under_way(self) -> int:
        return len(self._left)

    def on_lost(self, exc: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(exc)
