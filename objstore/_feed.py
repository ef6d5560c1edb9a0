"""The one way chunks are read: in stream order, from a sequence cursor, into a verifying sink.

Direct-get batch windows where the server has them and the bucket allows it; elsewhere the ordered consumer
(deleted afterwards), or a single read from the leader when there is but one chunk. A lost connection, a
missing leader or a stalled window is resumed from the cursor; nothing is read twice into the sink.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from natsproto.errors import APIError, NatsError, RequestTimeoutError
from natsproto.jetstream.api.codec import dumps_str
from natsproto.jetstream.api.errors import MessageNotFoundError, retryable
from natsproto.jetstream.direct_get import BatchSlot, header_int
from natsproto.jetstream.ordered import OrderedConsumer

from ._bucket import FIRST_RETRY, LAST_RETRY, RETRY_BUDGET, Bucket
from .format.models import ObjectInfo
from .format.naming import DEFAULT_CHUNK_SIZE, chunk_subject

if TYPE_CHECKING:
    from natsproto.jetstream.api.delivery import Delivery
    from natsproto.wire import Msg as WireMsg
    from natsproto.wire import Target

WINDOW = 4 * 1024 * 1024
"""Bytes of one batch request. The next one is sent when it has arrived; the socket buffers bridge the gap."""

PROGRESS = 15.0
"""Seconds without a byte or a heartbeat before a read is resumed on a fresh footing."""

SILENCE = 2.5
"""Seconds without a byte on the connection after which a batch that has begun is asked for once more: a
server whose stream was deleted meanwhile says nothing."""

HEARTBEAT = 0.75
"""Idle heartbeat of the reading consumer: how soon vanished chunks are noticed."""

LAG = 3.0
"""Seconds a replica may be behind before chunks that it lacks count as missing."""

MAX_BATCH = 4096


class WrongPlace(Exception):
    """The first message read is not the chunk that was meant: the guess of its sequence was wrong."""


class Missing(Exception):
    """The stream has fewer chunks than the meta message says, as far as this source can see."""


class Sink(Protocol):
    """Where chunks go. Called from the reading side: neither blocks nor waits."""

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

    Attributes:
        seq: sequence of the first one, or a guess: a wrong one is noticed.
        first, last: indexes, inclusive.
        total: messages of the object in the stream.
    """

    __slots__ = ("first", "last", "seq", "total")

    def __init__(self, seq: int, first: int, last: int, total: int) -> None:
        self.seq = seq
        self.first = first
        self.last = last
        self.total = total


class ChunkFeed:
    """Reads the chunks of one object into a sink.

    Args:
        bucket: where.
        info: a live object that is no link.
        sink: where the chunks go.
        window: bytes of one batch request.
        part: read only these chunks, from that sequence on; default: all of them.
    """

    def __init__(
        self, bucket: Bucket, info: ObjectInfo, sink: Sink, *, window: int = WINDOW, part: Part | None = None
    ) -> None:
        self._bucket = bucket
        self._info = info
        self._sink = sink
        self._window = window
        self._subject = chunk_subject(bucket.name, info.nuid)
        self._loop = asyncio.get_running_loop()
        self._part = part
        self._cursor = 0 if part is None else part.seq - 1  # sequence of the last chunk accepted
        self._messages = 0 if part is None else part.first  # index of the next message
        self._after = -1  # messages of the subject after the cursor; -1 = not known
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Read until the sink is complete and no message is left over.

        Raises:
            Missing: fewer chunks are there than there must be.
            WrongPlace: the part does not begin at the sequence given.
            IntegrityError: a chunk that cannot belong to the object.
            NatsError: the read could not be resumed within its budget.
        """
        bucket = self._bucket
        try:
            if bucket.direct and bucket.batches and (self._part is None or bucket.batches_count):
                await self._read_batches()
        except Missing:
            if not bucket.replicated:
                raise
            # A replica may lag behind: what follows is served by the leader.
        if self._info.chunks == 1 and not self._messages and self._part is None:
            await self._read_single()
        if not self._done:
            await self._read_from_leader()

    @property
    def _done(self) -> bool:
        return self._sink.complete and (self._after <= 0 or self._part is not None)

    def _accept(self, payload: bytes | bytearray | memoryview, seq: int, after: int) -> bool:
        """Hand one payload to the sink; false when it must not go on."""
        part = self._part
        try:
            if part is not None and after >= 0 and part.total - 1 - after != self._messages:
                raise WrongPlace
            self._sink.accept(payload)
        except Exception as exc:  # a progress callback may raise anything; the connection must not suffer
            self._failure = exc
            return False
        self._cursor = seq
        self._after = after
        self._messages += 1
        return True

    def _nothing(self) -> Exception:
        """Why there is no message at the cursor: a part may have been looked for in the wrong place."""
        part = self._part
        return WrongPlace() if part is not None and self._messages == part.first else Missing()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # -- one chunk, from the leader ---------------------------------------------------------------

    async def _read_single(self) -> None:
        """The last message, which must be the first as well; when it is not, the consumer sees why."""
        bucket = self._bucket
        try:
            message = await bucket.retrying(
                lambda: bucket.js.get_message(bucket.stream, last_by_subject=self._subject)
            )
        except MessageNotFoundError:
            raise Missing from None
        if len(message.data) == self._info.size:
            self._accept(message.data, message.seq, 0)
            self._check()

    # -- direct get batches -----------------------------------------------------------------------

    async def _read_batches(self) -> None:
        """Windows one after the other; returns early where the server turns out to have no batches."""
        bucket = self._bucket
        deadline = self._loop.time() + RETRY_BUDGET
        wait = FIRST_RETRY
        while not self._done:
            if self._sink.congested:
                await self._sink.drained()
            before = self._messages
            window = _Window(self)
            try:
                await window.read()
            except MessageNotFoundError:
                raise self._nothing() from None
            except NatsError as exc:
                self._check()
                if self._messages > before:
                    deadline = self._loop.time() + RETRY_BUDGET
                    wait = FIRST_RETRY
                if isinstance(exc, APIError) and not retryable(exc):
                    bucket.batches = False  # a request this server does not understand
                    return
                if not retryable(exc):
                    raise bucket.translate(exc, self._info.name) from None
                if self._loop.time() > deadline:
                    raise
                # Gone for good (bucket deleted, direct get switched off), or only for a moment?
                stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
                if stream.config.allow_direct is not True:
                    return
                await bucket.pause(wait, deadline)
                wait = min(wait * 2, LAST_RETRY)
                continue
            finally:
                self._sink.forget_places()
            self._check()
            if not bucket.batches:
                return
            if self._messages == before:
                raise self._nothing()
            deadline = self._loop.time() + RETRY_BUDGET
            wait = FIRST_RETRY

    def batch_size(self) -> int:
        """Messages to ask for: what is left and one more (nothing may follow), within the window."""
        options = self._info.options
        chunk = max(1, options.max_chunk_size if options is not None else DEFAULT_CHUNK_SIZE)
        end = self._info.chunks + 1 if self._part is None else self._part.last + 1
        left = max(1, end - self._messages)
        return min(left, MAX_BATCH, max(1, self._window // chunk))

    # -- the ordered consumer ---------------------------------------------------------------------

    async def _read_from_leader(self) -> None:
        """The consumer may sit on a server that is behind for a moment: ask again before it counts."""
        deadline = self._loop.time() + (LAG if self._bucket.replicated else 0.0)
        wait = FIRST_RETRY
        while True:
            before = self._messages
            try:
                await self._read_consumer()
                return
            except Missing:
                if self._loop.time() >= deadline and (self._messages == before or not await self._more()):
                    raise  # idle, too, is a consumer whose connection stalled: the leader knows better
            await asyncio.sleep(wait)
            wait = min(wait * 2, LAST_RETRY)

    async def _more(self) -> bool:
        """Whether the leader has a message after the cursor."""
        bucket = self._bucket
        seq = self._cursor + 1
        try:
            await bucket.retrying(
                lambda: bucket.js.get_message(bucket.stream, seq=seq, next_by_subject=self._subject)
            )
        except MessageNotFoundError:
            return False
        return True

    async def _read_consumer(self) -> None:
        bucket = self._bucket
        ended: asyncio.Future[None] = self._loop.create_future()
        turn = asyncio.Event()  # ended, or congested

        def finish(exc: BaseException | None) -> None:
            if not ended.done():
                if exc is None:
                    ended.set_result(None)
                else:
                    ended.set_exception(exc)
                turn.set()

        def on_message(msg: WireMsg, delivery: Delivery) -> None:
            if ended.done():
                return
            if not self._accept(msg.payload, delivery.stream_seq, delivery.num_pending):
                finish(self._failure)
            elif self._done:
                finish(None)
            elif delivery.num_pending == 0:
                finish(Missing())
            elif self._sink.congested:
                consumer.pause()
                turn.set()

        def on_idle() -> None:
            # Nothing is due although something is missing: purged while being read.
            if not self._sink.congested and self._messages == seen[0]:
                finish(Missing())
            seen[0] = self._messages

        seen = [-1]
        consumer = OrderedConsumer(
            bucket.js,
            bucket.stream,
            self._subject,
            on_message=on_message,
            on_failure=finish,
            on_idle=on_idle,
            on_restart=self._sink.forget_places,
            placer=lambda msg, size: self._sink.place(size),
            deliver_policy="by_start_sequence" if self._cursor else "all",
            start_seq=self._cursor + 1 if self._cursor else None,
            heartbeat=HEARTBEAT,
            created=bucket.created,
        )
        before = self._messages  # deliveries may overtake the answer to the creation
        try:
            info = await bucket.retrying(consumer.start)
            if self._part is not None and info.num_pending != self._part.total - before:
                raise WrongPlace
            if info.num_pending + before < self._info.chunks and not self._done:
                # Known before the first byte; a trailing empty message is not counted by its writer.
                raise Missing
            while not ended.done():
                await turn.wait()
                turn.clear()
                await self._sink.drained()
                consumer.resume()
            ended.result()
        except NatsError as exc:
            raise bucket.translate(exc, self._info.name) from None
        finally:
            ended.cancel()
            if ended.done() and not ended.cancelled():
                ended.exception()
            await consumer.stop()
            consumer.release()
            self._sink.forget_places()


class _Window:
    """One batch request: its replies go to the feed as they come."""

    def __init__(self, feed: ChunkFeed) -> None:
        self._feed = feed
        self._loop = feed._loop
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._slot: BatchSlot | None = None
        self._seen = 0
        self._last_seen = 0
        self._waited = 0.0
        self._reads_before = 0
        self._timer: asyncio.TimerHandle | None = None

    async def read(self) -> None:
        """Send the request and wait for the end of its answer.

        Raises:
            MessageNotFoundError: no message of the subject is left.
            RequestTimeoutError: nothing came for :data:`PROGRESS` seconds.
            NatsError: refused, or the connection was lost.
        """
        feed = self._feed
        bucket = feed._bucket
        connection = bucket.client._connection
        connection.check_open()
        slot = self._slot = BatchSlot(bucket._direct_subject, self._on_message, self._on_end, self._place)
        connection.mux.open(slot)
        document = b'{"seq":%d,"next_by_subj":%b,"batch":%d,"max_bytes":%d}' % (
            feed._cursor + 1,
            dumps_str(feed._subject),
            feed.batch_size(),
            feed._window,
        )
        # An answer begins as soon as that to any other request; later messages may take longer.
        self._watch(min(PROGRESS, bucket.js.timeout))
        try:
            connection.publish(bucket._direct_subject, document, slot.inbox)
            if len(connection.mux) == 1:
                connection.flush_now()
            await self._ended
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if connection._mux is not None:
                connection._mux.close(slot)
            self._slot = None  # each knows the other: the object would stay until the collector comes

    def _on_message(self, msg: WireMsg) -> None:
        if self._ended.done():
            return
        self._seen += 1
        block = msg.header
        seq = None if block is None else header_int(block, b"Nats-Sequence")
        if block is None or seq is None or seq <= self._feed._cursor:
            return  # not an answer to this request
        pending = header_int(block, b"Nats-Num-Pending")
        if pending is None and self._feed._part is not None:
            self._feed._bucket.batches = False  # nothing says which chunk it is: the consumer will
            self._on_done(None)
            return
        if pending is None:
            self._feed._bucket.batches = False  # older than 2.11: one message, and no end of batch
            self._on_done(None)
        elif not self._feed._accept(msg.payload, seq, pending) or self._feed._done:
            self._on_done(None)

    def _place(self, msg: WireMsg, size: int) -> Target:
        return self._feed._sink.place(size)

    def _on_end(self, exc: NatsError | None) -> None:
        left = None if self._slot is None else self._slot.left
        if left is not None and self._seen and not self._ended.done():
            self._feed._after = left  # what the messages of 2.11 said was one too many
        self._on_done(exc)

    def _on_done(self, exc: NatsError | None) -> None:
        if not self._ended.done():
            if exc is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(exc)

    def _check_progress(self) -> None:
        if self._seen != self._last_seen:
            self._watch(min(SILENCE, PROGRESS))
        elif self._waited < PROGRESS and self._reads() != self._reads_before:
            # Nothing for us yet, but bytes arrive: a large chunk on a slow link may be among them.
            self._watch(PROGRESS - self._waited)
            self._waited = PROGRESS
        else:
            self._feed._bucket.client._connection.probe()
            self._on_done(RequestTimeoutError(f"no chunk came within {self._waited} s"))

    def _watch(self, seconds: float) -> None:
        self._last_seen = self._seen
        self._reads_before = self._reads()
        self._waited = seconds
        self._timer = self._loop.call_later(seconds, self._check_progress)

    def _reads(self) -> int:
        session = self._feed._bucket.client._connection.session
        return -1 if session is None else session.reads
