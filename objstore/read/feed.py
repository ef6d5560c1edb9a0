"""Read chunks in stream order, from a sequence cursor, into a verifying sink.

A feed uses direct-get batch windows where the server supports them and the bucket allows them. Elsewhere it
uses the ordered consumer (deleted afterwards), or a single read from the leader if there is only one chunk.
After a lost connection, a missing leader or a stalled window it resumes from the cursor; the sink gets no
chunk twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from natsproto._values import seconds
from natsproto.backoff import Backoff
from natsproto.errors import (
    APIError,
    NatsError,
    PermissionsViolationError,
    RequestTimeoutError,
)
from natsproto.jetstream.api.errors import MessageNotFoundError, retryable
from natsproto.jetstream.direct_get import header_int
from natsproto.jetstream.in_flight import Flow, InFlight, in_flight
from natsproto.jetstream.ordered import OrderedConsumer

from ..bucket.bucket import FIRST_DELIVERY, Bucket
from ..bucket.budget import Budget
from ..bucket.collect import SILENT, SilentConsumer
from ..bucket.message_reads import MessageRead
from ..bucket.unheard import UnheardBatches, UnheardConsumers
from ..bucket.ways import ANY_WAY, DELIVERIES, DIRECT, LEADER
from ..errors import IntegrityError
from ..format.assembly import Unfit
from ..format.models import ObjectInfo
from ..format.naming import DEFAULT_CHUNK_SIZE, chunk_subject
from .doubled import doubled_chunks
from .expected import expected, note_larger
from .late_copies import late_copies
from .parts import MOST_NEWER, Missing, Part, Sink, WrongPlace, check_count, damaged, is_newer
from .window import Window

if TYPE_CHECKING:
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.jetstream.api.models import StoredMessage
    from natsproto.wire import Msg as WireMsg
    from natsproto.wire import Target

DEFAULT_WINDOW = 4 * 1024 * 1024
"""Bytes of one batch request. At most two are in flight."""

AHEAD = 0.9
"""Share of a window that may still be on its way when the next one is requested."""

HEARTBEAT = 0.75
"""Seconds between the idle heartbeats of the reading consumer: how soon vanished chunks are noticed."""

AT_SEQUENCE = (LEADER, DIRECT)
"""The ways to request a chunk by its sequence."""

MAX_BATCH = 4096
"""Messages of one batch request."""

LEAST_BYTES = 1024 * 1024
"""Bytes of a batch request, at least: its messages have headers, too."""


class _TooMany(Unfit):
    """More chunks are stored than recorded. Nothing went to the sink yet."""


class ChunkFeed:
    """Reads the chunks of one object into a sink.

    Args:
        bucket: the bucket to read from.
        info: a live object that is not a link.
        sink: the destination of the chunks.
        window: bytes of one batch request, at least one chunk.
        part: read only these chunks, from the part's sequence on; default: all chunks.

    Attributes:
        bucket, sink, window: as given.
        in_flight: the bytes that all reads of the connection wait for.
        subject: the subject of the chunks.
        loop: the event loop that runs the feed.
        cursor: sequence of the last accepted chunk.
        after: messages of the subject after the cursor; -1 = unknown.
        current: the window whose messages go to the sink.
        ahead: the next window, already requested.
    """

    def __init__(
        self,
        bucket: Bucket,
        info: ObjectInfo,
        sink: Sink,
        *,
        window: int = DEFAULT_WINDOW,
        part: Part | None = None,
    ) -> None:
        self.bucket = bucket
        self._info = info
        self.sink = sink
        options = info.options
        recorded = options.max_chunk_size if options is not None else DEFAULT_CHUNK_SIZE
        self._chunk = max(1, min(recorded, bucket.client.max_payload))  # no chunk is larger, whatever is said
        self.window: int = max(window, self._chunk)
        self.in_flight: InFlight = in_flight(bucket.connection)
        self.subject: str = chunk_subject(bucket.name, info.nuid)
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._part = part
        self.cursor: int = 0 if part is None else part.seq - 1
        self._messages = 0 if part is None else part.first  # index of the next message
        self.after: int = -1
        self._failure: BaseException | None = None
        self.current: Window | None = None
        self.ahead: Window | None = None
        self._copies = frozenset[int]() if part is None else part.copies  # left out
        self._unsure = bucket.copied and part is None  # whether there are any
        self._newer = 0  # chunks that are newer than the meta
        self._singly = False  # others change our consumers, or nothing of them comes
        self._straight = True  # the last window was complete and without a gap

    async def run(self) -> None:
        """Read until the sink is complete and no message is left.

        Raises:
            Missing: there are fewer chunks than there must be.
            WrongPlace: the part's sequences are not known, and there are not as many messages as chunks.
            IntegrityError: a chunk cannot belong to the object.
            NatsError: the read could not be resumed within its budget.
        """
        check_count(self._info)
        try:
            try:
                await self._read()
            except _TooMany:
                self._failure = None
                doubled = await doubled_chunks(self.bucket, self._info, ANY_WAY)
                if doubled is not None:
                    self._copies = doubled.copies
                await self._read()
        except Missing:
            if self._part is None and self._messages >= self._info.chunks:
                raise damaged(self._info, f"its chunks have fewer than {self._info.size} bytes") from None
            raise
        except IntegrityError:
            # Everything may have come, and copies of it follow.
            if self._part is not None or not self.sink.complete:
                raise
            late = await late_copies(self.bucket, self._info, ANY_WAY)
            if late is None or not late.end <= self.cursor or 0 < late.first <= self.cursor:
                raise

    async def _read(self) -> None:
        bucket = self.bucket
        try:
            if bucket.direct and bucket.can_batch and (self._part is None or bucket.batch_counts_are_right):
                try:
                    await self._read_batches()
                finally:
                    self._drop_windows()
        except Missing:
            if not await self._stored():
                raise  # else this replica is behind, or a response was lost
            self._failure = None
        if self._info.chunks == 1 and not self._messages and self._part is None:
            await self._read_single()
        if not self.done:
            await self._read_proven()

    @property
    def _end(self) -> int:
        """The index after the last chunk to read."""
        return self._info.chunks if self._part is None else self._part.last + 1

    @property
    def done(self) -> bool:
        """Whether everything has come, and no message is left."""
        return self.sink.complete and (self.after <= 0 or self._part is not None)

    def accept(self, payload: bytes | bytearray | memoryview, seq: int, after: int) -> bool:
        """Pass one payload to the sink; false when the read must not continue."""
        part = self._part
        if len(payload) > self._chunk:
            note_larger(self.bucket, len(payload))
        try:
            if self._unsure:
                self._unsure = False
                if after >= self._info.chunks:
                    raise _TooMany
            if seq in self._copies:
                self.cursor, self.after = seq, after
                return True
            if part is None:
                # What lies behind is checked as a whole.
                if is_newer(self.bucket, self._info, seq) and not self.sink.complete:
                    self._newer += 1
                    if self._newer > MOST_NEWER:
                        raise damaged(self._info, "its chunks are newer than its meta, and go on")
            elif is_newer(self.bucket, self._info, seq):
                raise damaged(self._info, "a chunk is newer than its meta")
            elif part.seq_of is not None:
                if seq != part.seq_of(self._messages):
                    raise Missing  # this server lacks the chunk
            elif after >= 0 and part.total - 1 - after != self._messages:
                raise WrongPlace
            self.sink.accept(payload)
        except Exception as exc:  # a progress callback may raise anything; the connection must survive it
            # The traceback would keep the destination alive; only that of a callback's error is useful.
            self._failure = exc.with_traceback(None) if isinstance(exc, (NatsError, Unfit)) else exc
            return False
        self.cursor = seq
        self.after = after
        self._messages += 1
        return True

    def doubts(self, block: bytes, after: int) -> bool:
        """Whether a mirror has responded that may have too many chunks: what was removed stays there."""
        part = self._part
        more = self._messages + after >= self._info.chunks if part is None else part.seq_of is None
        if more and self.bucket.is_copy(block):
            self._failure = Missing() if part is None else WrongPlace()  # how many follow identifies none
            return True
        return False

    def place(self, size: int) -> Target:
        """Return the destination of the next large payload; a copy gets none, nor what might be one."""
        return None if self._copies else self.sink.place(size)

    def _nothing(self) -> Exception:
        """Return why there is no message at the cursor."""
        part = self._part
        if part is None or part.seq_of is not None or self._messages != part.first:
            return Missing()
        return WrongPlace()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # -- one chunk, from the leader ---------------------------------------------------------------

    async def _read_single(self) -> None:
        """Read the last message, which must also be the first; if it is not, the consumer finds out why."""
        bucket = self.bucket
        async with self.in_flight.during(expected(bucket, min(self._info.size, self._chunk))):
            message = await bucket.retrying(lambda: bucket.leader_read(self.subject, ways=ANY_WAY).wait())
        if message is None:
            return  # one answer proves nothing; and 2.9 may not find it when a later message was deleted
        newer = 0 < self._info.revision < message.seq  # a copy, perhaps, that came late
        if len(message.data) == self._info.size and not newer:
            self.accept(message.data, message.seq, 0)
            self._check()

    # -- direct get batches -----------------------------------------------------------------------

    async def _read_batches(self) -> None:
        """Read windows one after the other; return early if the server turns out not to support batches."""
        bucket = self.bucket
        budget = Budget(bucket.retry_budget, bucket.connection.loop)
        backoff = Backoff()
        while not self.done:
            if self.current is None:
                if self.sink.congested:
                    await self.sink.drained()
                    budget.progress()
                self.current = Window(self, self.cursor + 1, self._batch_size(self._messages))
                await self.current.wait_for_room()
                budget.progress()
            window = self.current
            try:
                await window.read()
            except MessageNotFoundError:
                raise self._nothing() from None
            except NatsError as exc:
                self._check()
                if window.taken:
                    budget.progress(ago=window.waited)
                    backoff.reset()
                if isinstance(exc, RequestTimeoutError) and window.batch > 1:
                    bucket.remembered(UnheardBatches).note_came(window.seen)
                    if not bucket.can_batch:
                        return
                if isinstance(exc, PermissionsViolationError) and bucket.ways.note_refusal(exc):
                    return
                if isinstance(exc, APIError) and not retryable(exc):
                    bucket.batches = False  # a request this server does not understand
                    return
                if not retryable(exc):
                    raise bucket.translate(exc, self._info.name) from None
                if not budget.left:
                    raise
                # Gone for good (bucket deleted, direct get switched off), or only for a moment?
                stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream), budget.left)
                if stream.config.allow_direct is not True:
                    return
                await bucket.pause(backoff.seconds, budget.deadline)
                backoff.grow()
                continue
            finally:
                if self.current is window:  # else the next window took over, and already uses destinations
                    self._drop_windows()
                    self.sink.forget_places()
            self._check()
            if not bucket.batches:
                return
            if not window.taken and window.seq > self.cursor:
                raise self._nothing()
            budget.progress()
            backoff.reset()

    def bytes_of(self, batch: int) -> int:
        """Return how many bytes to request with so many chunks: a little more than they should have."""
        return min(self.window, max(LEAST_BYTES, 2 * batch * self._chunk))

    def _batch_size(self, messages: int) -> int:
        """Return how many messages to request after these: the rest, and one to see that none follows."""
        end = self._end + 1 if self._part is None else self._end
        left = max(1, end - messages)
        return min(left, MAX_BATCH, self.window // self._chunk)

    def look_ahead(self) -> None:
        """Request the window after the current one, so that the server need not wait for us.

        This is done only while the chunks have no gaps, as when one writer writes at a time: then the first
        sequence of the next window is known. If a gap comes later, the window begins too early, and messages
        already taken are skipped.
        """
        window = self.current
        assert window is not None
        missing = window.batch - window.seen
        messages = self._messages + missing
        if (
            self.ahead is None
            and missing <= window.batch * AHEAD
            and self._straight
            and self.cursor - window.first + 1 == window.taken
            and messages < self._end
            and not self.sink.congested
        ):
            ahead = Window(self, self.cursor + missing + 1, self._batch_size(messages))
            if not ahead.reserve():
                return  # other reads are under way: it is requested when its turn has come
            self.ahead = ahead
            try:
                ahead.ask()
            except NatsError:  # the connection is lost; the current window will notice, too
                self.drop_ahead()

    def take_turns(self) -> None:
        """Make the next window current after the end of this one, unless chunks lie between them."""
        window, ahead = self.current, self.ahead
        assert window is not None
        self._straight = (
            window.seen == window.batch and self.cursor - window.first + 1 == window.taken
        )  # else chunks have gaps, or are larger than recorded, and fewer came than were requested
        if ahead is not None and ahead.seq <= self.cursor + 1 and not self.done:
            self.current, self.ahead = ahead, None
            window.close()  # no task may be waiting for it: all of it may have come before its turn
            ahead.catch_up()

    def drop_ahead(self) -> None:
        """Drop the window that was requested ahead; it will be requested again."""
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None

    def _drop_windows(self) -> None:
        self.drop_ahead()
        if self.current is not None:
            self.current.close()
            self.current = None

    # -- the ordered consumer ---------------------------------------------------------------------

    async def _read_proven(self) -> None:
        """Read with consumers until the object is complete, or the leader lacks the missing chunks, too.

        A consumer may run on a server that is behind, and it is also idle when its connection stalls: a chunk
        it does not deliver may still exist. The next consumer may run on another server.
        """
        deadline, backoff = self.loop.time() + self.bucket.retry_budget, Backoff()
        silent, batches = self.bucket.remembered(UnheardConsumers), self.bucket.remembered(UnheardBatches)
        refusal: PermissionsViolationError | None = None  # of flow control
        while True:
            before = self._messages
            left = (self._end - before) * self._chunk
            singly = self._singly or silent.now or batches.now or not self.bucket.ways.can_deliver(left)
            try:
                await (self._read_singly() if singly else self._read_consumer())
                return
            except PermissionsViolationError as exc:
                if singly or not self.bucket.ways.note_refusal(exc):
                    raise refusal or exc from None
                if self.bucket.ways.refused_by(exc) == DELIVERIES:
                    self._singly, refusal = True, exc
                continue
            except APIError as exc:
                if singly or not self.bucket.ways.note_refusal(exc):
                    raise
                continue
            except SilentConsumer:
                silent.note()
                continue
            except Missing:
                if not await self._stored():
                    raise
            if self._messages > before:
                deadline, backoff = self.loop.time() + self.bucket.retry_budget, Backoff()
            elif self.loop.time() > deadline:
                raise RequestTimeoutError(
                    f"the leader of bucket {self.bucket.name!r} has chunks of {self._info.name!r} that no "
                    f"server delivered within {seconds(self.bucket.retry_budget)} s"
                )
            await self.bucket.pause(backoff.seconds, deadline)
            backoff.grow()

    async def _read_singly(self) -> None:
        """Read chunk by chunk from the leader, one round trip each: no consumer can be had, or relied on."""
        part = self._part
        if part is not None and part.seq_of is None and self._messages == part.first:
            raise WrongPlace  # how many messages follow is unknown here: the sequences must be known
        if self._unsure:
            self._unsure = False
            raise _TooMany  # perhaps: the messages do not tell
        while not self.done:
            await self.sink.drained()
            async with self.in_flight.during(expected(self.bucket, self._chunk)):
                message = await self._next()
            if message is not None:
                # Only the next request tells whether another message follows.
                self.accept(message.data, message.seq, 1 if part is None else -1)
                self._check()
            elif self.sink.complete:
                self.after = 0
            else:
                raise Missing

    async def _next(self) -> StoredMessage | None:
        """Return the next chunk."""
        bucket, part = self.bucket, self._part
        if part is not None and part.seq_of is not None and bucket.ways.allowed(LEADER):
            return await chunk_at(bucket, self.subject, part.seq_of(self._messages))
        return await next_chunk(bucket, self.subject, self.cursor)

    async def _stored(self) -> bool:
        """Whether the leader has the missing chunks: as many as there must be, and not all of them were read.

        Their number decides: that nothing follows may be the answer to another question. If the chunk's
        sequence is known, it decides: no message ever gets the sequence of a removed one.
        """
        bucket, part, chunks = self.bucket, self._part, self._info.chunks
        if bucket.ways.allowed(LEADER):
            following = await next_chunk(bucket, self.subject, self.cursor)
            if part is not None and part.seq_of is not None:
                return following is not None and following.seq == part.seq_of(self._messages)
            if following is None and self._messages >= chunks:
                return False
        stored = await bucket.stored_chunks(self._info.nuid, chunks)
        return stored >= chunks and self._messages < max(stored, self._end)

    def _share(self, chunk: int) -> Flow:
        """Return the share of what is left in what is on its way; a chunk counts as so many bytes.

        What follows a part comes as well, until the consumer is gone.
        """
        part, rest = self._end - self._messages, self._info.chunks - self._messages
        return self.in_flight.flow(max(part * chunk, min(rest * chunk, FIRST_DELIVERY)))

    async def _read_consumer(self) -> None:
        bucket = self.bucket
        self._failure = None
        ended: asyncio.Future[None] = self.loop.create_future()
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
            larger = len(msg.payload) > counted  # before it is passed on
            if not msg.payload and msg.header is not None and header_int(msg.header, b"Nats-Msg-Size"):
                # Whoever may create consumers has changed this one: it leaves the payloads out.
                self._singly = True
                finish(Missing())
            elif not self.accept(msg.payload, delivery.stream_seq, delivery.num_pending):
                finish(self._failure)
            elif self.done:
                finish(None)
            elif delivery.num_pending == 0:
                finish(Missing())
            elif self.sink.congested or larger:
                consumer.pause()
                turn.set()

        def on_restart() -> None:
            self.sink.forget_places()
            if consumer.silent == SILENT and (bucket.ways.allowed(LEADER) or bucket.ways.allowed(DIRECT)):
                finish(SilentConsumer(f"consumers of stream {bucket.stream!r} are silent"))

        def on_idle() -> None:
            # Nothing is due although chunks are missing: they were purged during the read.
            if not self.sink.congested and self._messages == seen[0]:
                finish(Missing())
            seen[0] = self._messages

        seen = [-1]
        consumer = OrderedConsumer(
            bucket.js,
            bucket.stream,
            self.subject,
            on_message=on_message,
            on_failure=finish,
            on_idle=on_idle,
            on_restart=on_restart,
            placer=lambda msg, size: self.place(size),
            deliver_policy="by_start_sequence" if self.cursor else "all",
            start_seq=self.cursor + 1 if self.cursor else None,
            heartbeat=HEARTBEAT,
            created=bucket.created,
            patience=bucket.consumer_timeout,
            retry_budget=bucket.retry_budget,
            limit=bucket.retry_budget,
        )
        before = self._messages  # deliveries may overtake the response to the creation
        counted = expected(bucket, self._chunk)
        flow = self._share(counted)
        try:
            await flow.begin()
            info = await bucket.retrying(consumer.start)
            part = self._part
            if part is not None and part.seq_of is None and info.num_pending != part.total - before:
                raise WrongPlace
            empty = not info.num_pending and self._messages == before
            if (empty or info.num_pending + before < self._info.chunks) and not self.done:
                # Known before the first byte; some writers do not count an empty message at the end.
                raise Missing
            while not ended.done():
                await turn.wait()
                turn.clear()
                if not ended.done():
                    flow.end()  # who reads the object may pause for any time
                    await self.sink.drained()
                    if not ended.done():
                        counted = expected(bucket, self._chunk)
                        flow = self._share(counted)
                        await flow.begin()
                consumer.resume()
            ended.result()
        except NatsError as exc:
            raise bucket.translate(exc, self._info.name) from None
        finally:
            flow.end()
            ended.cancel()
            if ended.done() and not ended.cancelled():
                ended.exception()
            await consumer.stop()
            consumer.release()
            self.sink.forget_places()


async def next_chunk(bucket: Bucket, subject: str, cursor: int) -> StoredMessage | None:
    """Return the first message of a subject after a sequence, from the leader.

    Somebody may have a later one sent to our inbox. Most chunks follow each other. Where one does not, the
    sequences after the cursor and before that chunk must have none: a whole run between them is not noticed.
    """
    # A consumer for each chunk is slow: the error for whoever lacks that right names it.
    ways = ANY_WAY if bucket.ways.allowed(DELIVERIES) else AT_SEQUENCE
    message = await bucket.first_after(subject, cursor, ways)
    if message is not None and cursor and message.seq > cursor + 2:
        following = await chunk_at(bucket, subject, cursor + 1)
        if following is not None:
            return following
    while message is not None and message.seq > cursor + 1:
        before = await chunk_at(bucket, subject, message.seq - 1)
        if before is None:
            break
        message = before
    return message


async def chunk_at(bucket: Bucket, subject: str, seq: int) -> StoredMessage | None:
    """Return the message at a sequence, from the leader; ``None`` if its subject is another, or unknown."""
    if not (bucket.ways.allowed(LEADER) or (bucket.direct and bucket.ways.allowed(DIRECT))):
        return None
    return await bucket.retrying(lambda: MessageRead(bucket, subject, at=seq, ways=AT_SEQUENCE).wait())
