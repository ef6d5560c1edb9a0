"""The one way chunks are read: in stream order, from a sequence cursor, into a verifying sink.

Direct-get batch windows where the server has them and the bucket allows it; elsewhere the ordered consumer
(deleted afterwards), or a single read from the leader when there is but one chunk. A lost connection, a
missing leader or a stalled window is resumed from the cursor; nothing is read twice into the sink.
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
    StaleConnectionError,
)
from natsproto.jetstream.api.codec import dumps
from natsproto.jetstream.api.errors import MessageNotFoundError, retryable
from natsproto.jetstream.direct_get import BatchSlot, header_int
from natsproto.jetstream.ordered import OrderedConsumer

from ..bucket.bucket import Bucket
from ..bucket.budget import Budget
from ..bucket.message_reads import ANY_WAY, CONSUMER, LEADER
from ..format.assembly import Unfit
from ..format.models import ObjectInfo
from ..format.naming import DEFAULT_CHUNK_SIZE, chunk_subject
from .parts import Missing, Part, Sink, WrongPlace, damaged

if TYPE_CHECKING:
    from natsproto.aio.requests import RequestMux
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.wire import Msg as WireMsg
    from natsproto.wire import Target

DEFAULT_WINDOW = 4 * 1024 * 1024
"""Bytes of one batch request. At most two are under way."""

AHEAD = 0.9
"""How much of a window may still be on its way when the next one is asked for."""

PROGRESS = 15.0
"""Seconds without a byte or a heartbeat before a read is resumed on a fresh footing."""

SILENCE = 2.5
"""Seconds without a byte on the connection after which a batch that has begun is asked for once more: a
server whose stream was deleted meanwhile says nothing."""

HEARTBEAT = 0.75
"""Idle heartbeat of the reading consumer: how soon vanished chunks are noticed."""

MAX_BATCH = 4096


class ChunkFeed:
    """Reads the chunks of one object into a sink.

    Args:
        bucket: where.
        info: a live object that is no link.
        sink: where the chunks go.
        window: bytes of one batch request, at least those of a chunk.
        part: read only these chunks, from that sequence on; default: all of them.

    Attributes:
        bucket, sink, window: as given.
        subject: that of the chunks.
        loop: the event loop that runs it.
        cursor: sequence of the last chunk accepted.
        after: messages of the subject after the cursor; -1 = not known.
        current: the window whose messages are taken.
        ahead: the one that is asked for already; its turn comes next.
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
        self._chunk = max(1, options.max_chunk_size if options is not None else DEFAULT_CHUNK_SIZE)
        self.window: int = max(window, self._chunk)
        self.subject: str = chunk_subject(bucket.name, info.nuid)
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._part = part
        self.cursor: int = 0 if part is None else part.seq - 1
        self._messages = 0 if part is None else part.first  # index of the next message
        self.after: int = -1
        self._failure: BaseException | None = None
        self.current: _Window | None = None
        self.ahead: _Window | None = None
        self._straight = True  # the last window was as expected: whole, without a gap

    async def run(self) -> None:
        """Read until the sink is complete and no message is left over.

        Raises:
            Missing: fewer chunks are there than there must be.
            WrongPlace: the part does not begin at the sequence given.
            IntegrityError: a chunk that cannot belong to the object.
            NatsError: the read could not be resumed within its budget.
        """
        bucket = self.bucket
        try:
            if bucket.direct and bucket.can_batch and (self._part is None or bucket.batches_count):
                try:
                    await self._read_batches()
                finally:
                    self._drop_windows()
        except Missing:
            if not await self._stored():
                raise  # else this replica is behind, or an answer was lost on the way
        if self._info.chunks == 1 and not self._messages and self._part is None:
            await self._read_single()
        if not self.done:
            await self._read_proven()

    @property
    def done(self) -> bool:
        """Whether all has come, and nothing is left over."""
        return self.sink.complete and (self.after <= 0 or self._part is not None)

    def accept(self, payload: bytes | bytearray | memoryview, seq: int, after: int) -> bool:
        """Hand one payload to the sink; false when it must not go on."""
        part = self._part
        try:
            if part is None:
                pass  # judged as a whole
            elif 0 < self._info.revision < seq:
                # Of an upload that was sent again, whose chunks have taken the place of those.
                raise damaged(self._info, "a chunk is newer than its meta")
            elif part.seq_of is not None:
                if seq != part.seq_of(self._messages):
                    raise Missing  # this one has a hole there
            elif after >= 0 and part.total - 1 - after != self._messages:
                raise WrongPlace
            self.sink.accept(payload)
        except Exception as exc:  # a progress callback may raise anything; the connection must not suffer
            # Its frames end with the event loop's, which holds the place; only a callback's say anything.
            self._failure = exc.with_traceback(None) if isinstance(exc, (NatsError, Unfit)) else exc
            return False
        self.cursor = seq
        self.after = after
        self._messages += 1
        return True

    def _nothing(self) -> Exception:
        """Why there is no message at the cursor: a part may have been looked for in the wrong place."""
        part = self._part
        if part is None or part.seq_of is not None or self._messages != part.first:
            return Missing()
        return WrongPlace()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # -- one chunk, from the leader ---------------------------------------------------------------

    async def _read_single(self) -> None:
        """The last message, which must be the first as well; when it is not, the consumer sees why."""
        bucket = self.bucket
        message = await bucket.retrying(lambda: bucket.leader_read(self.subject, ways=ANY_WAY).wait())
        if message is None:
            if bucket.skips_live:
                return  # 2.9 finds no last message of a subject when the one after it was deleted
            raise Missing
        if len(message.data) == self._info.size:
            self.accept(message.data, message.seq, 0)
            self._check()

    # -- direct get batches -----------------------------------------------------------------------

    async def _read_batches(self) -> None:
        """Windows one after the other; returns early where the server turns out to have no batches."""
        bucket = self.bucket
        budget = Budget(bucket.retry_budget)
        backoff = Backoff()
        while not self.done:
            if self.current is None:
                if self.sink.congested:
                    await self.sink.drained()
                    budget.progress()
                self.current = _Window(self, self.cursor + 1, self._batch_size(self._messages))
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
                if isinstance(exc, PermissionsViolationError) and bucket.note_refusal(exc):
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
                if self.current is window:  # else the next one took over, and fills places already
                    self._drop_windows()
                    self.sink.forget_places()
            self._check()
            if not bucket.batches:
                return
            if not window.taken and window.seq > self.cursor:
                raise self._nothing()
            budget.progress()
            backoff.reset()

    def _batch_size(self, messages: int) -> int:
        """Messages to ask for after so many: what is left, and one more to see that nothing follows."""
        end = self._info.chunks + 1 if self._part is None else self._part.last + 1
        left = max(1, end - messages)
        return min(left, MAX_BATCH, self.window // self._chunk)

    def look_ahead(self) -> None:
        """Ask for the window after the current one, so that the server need not wait for us.

        Only while the chunks follow each other without a gap, as those of one writer at a time do: then it is
        known with which sequence the next window begins. Where a gap comes later it begins too early, and
        what was taken already is passed over.
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
            and messages < (self._info.chunks if self._part is None else self._part.last + 1)
            and not self.sink.congested
        ):
            self.ahead = _Window(self, self.cursor + missing + 1, self._batch_size(messages))
            try:
                self.ahead.ask()
            except NatsError:  # the connection is gone, as the current window is about to learn
                self.drop_ahead()

    def take_turns(self) -> None:
        """The current window has ended well: the next one is current now, unless there are chunks between."""
        window, ahead = self.current, self.ahead
        assert window is not None
        self._straight = (
            window.seen == window.batch and self.cursor - window.first + 1 == window.taken
        )  # else chunks lie apart, or are larger than recorded, and fewer came than were asked for
        if ahead is not None and ahead.seq <= self.cursor + 1 and not self.done:
            self.current, self.ahead = ahead, None
            window.close()  # nobody may be waiting for it: all of it can have come before its turn
            ahead.catch_up()

    def drop_ahead(self) -> None:
        """Take nothing of the window that was asked for ahead; it is asked for again."""
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
        """Read by consumers, until the object is complete or the leader, too, lacks what is missing.

        A consumer may sit on a server that is behind, and idle, too, is one whose connection stalled: what it
        lacks proves nothing. The next one may sit elsewhere.
        """
        deadline, backoff = self.loop.time() + self.bucket.retry_budget, Backoff()
        while True:
            before = self._messages
            singly = not self.bucket.allowed(CONSUMER)
            try:
                await (self._read_singly() if singly else self._read_consumer())
                return
            except PermissionsViolationError as exc:
                if singly or not self.bucket.note_refusal(exc):
                    raise
                continue
            except Missing:
                if not await self._stored():
                    raise
            if self._messages > before:
                deadline, backoff = self.loop.time() + self.bucket.retry_budget, Backoff()
            elif self.loop.time() > deadline:
                raise RequestTimeoutError(
                    f"the leader of bucket {self.bucket.name!r} has chunks of {self._info.name!r} that no "
                    f"server delivered within {self.bucket.retry_budget:g} s"
                )
            await self.bucket.pause(backoff.seconds, deadline)
            backoff.grow()

    async def _read_singly(self) -> None:
        """Chunk by chunk from the leader, for a user who may not create consumers: a round trip each."""
        if self._part is not None and self._part.seq_of is None:
            raise WrongPlace  # how many messages follow would tell which chunk it is, and here nothing does
        while not self.done:
            await self.sink.drained()
            message = await self.bucket.first_after(self.subject, self.cursor, ANY_WAY)
            if message is not None:
                # Whether one more follows, only the next question tells.
                self.accept(message.data, message.seq, 1 if self._part is None else -1)
                self._check()
            elif self.sink.complete:
                self.after = 0
            else:
                raise Missing

    async def _stored(self) -> bool:
        """Whether the leader has what is missing here: as many chunks as there must be, one after the cursor.

        By its sequence, where that is known: that of a chunk that was removed is never another one's.
        """
        bucket, part = self.bucket, self._part
        if bucket.allowed(LEADER):
            following = await bucket.first_after(self.subject, self.cursor, ANY_WAY)
            if following is None:
                return False
            if part is not None and part.seq_of is not None:
                return following.seq == part.seq_of(self._messages)
        return await bucket.stored_chunks(self._info.nuid, self._info.chunks) >= self._info.chunks

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
            if not self.accept(msg.payload, delivery.stream_seq, delivery.num_pending):
                finish(self._failure)
            elif self.done:
                finish(None)
            elif delivery.num_pending == 0:
                finish(Missing())
            elif self.sink.congested:
                consumer.pause()
                turn.set()

        def on_idle() -> None:
            # Nothing is due although something is missing: purged while being read.
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
            on_restart=self.sink.forget_places,
            placer=lambda msg, size: self.sink.place(size),
            deliver_policy="by_start_sequence" if self.cursor else "all",
            start_seq=self.cursor + 1 if self.cursor else None,
            heartbeat=HEARTBEAT,
            created=bucket.created,
            patience=bucket.patience,
            retry_budget=bucket.retry_budget,
            limit=bucket.retry_budget,
        )
        before = self._messages  # deliveries may overtake the answer to the creation
        try:
            info = await bucket.retrying(consumer.start)
            part = self._part
            if part is not None and part.seq_of is None and info.num_pending != part.total - before:
                raise WrongPlace
            if info.num_pending + before < self._info.chunks and not self.done:
                # Known before the first byte; a trailing empty message is not counted by its writer.
                raise Missing
            while not ended.done():
                await turn.wait()
                turn.clear()
                await self.sink.drained()
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
            self.sink.forget_places()


class _Window:
    """One batch request: its replies go to the feed as they come, or when its turn has come.

    Replies to the window before may come later than the first of this one: several servers answer.

    Args:
        feed: whose window.
        seq, batch: where to begin, and how many messages to ask for.

    Attributes:
        announced: messages whose beginning came.
        seen: messages that came.
        taken: those among them that went to the sink.
        first: sequence of the first one of these; 0 = none yet.
        apart: what still comes gets no place in the sink, and is copied.
        waited: seconds of silence after which it is looked at next.
    """

    def __init__(self, feed: ChunkFeed, seq: int, batch: int) -> None:
        self._feed = feed
        self._loop = feed.loop
        self.seq = seq
        self.batch = batch
        self.announced: int = 0
        self.seen: int = 0
        self.taken: int = 0
        self.first: int = 0
        self._last = 0  # sequence of the last message that came
        self.apart: bool = False
        self._early: list[WireMsg] = []  # came before its turn
        self._end: tuple[NatsError | None] | None = None  # likewise
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._slot: BatchSlot | None = None
        self._mux: RequestMux | None = None  # where it is open
        self._last_seen = 0
        self.waited: float = 0.0
        self._reads_before = 0
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Send the request.

        Raises:
            NatsError: there is no connection to send it on.
        """
        feed = self._feed
        bucket = feed.bucket
        connection = bucket.connection
        connection.check_open()
        slot = self._slot = BatchSlot(
            bucket.direct_subject,
            self._on_message,
            self._on_end,
            self._place,
            most=self.batch,
            max_bytes=feed.window,
        )
        mux = self._mux = connection.mux
        mux.open(slot)
        batch = {"seq": self.seq, "next_by_subj": feed.subject, "batch": self.batch, "max_bytes": feed.window}
        connection.publish(bucket.direct_subject, dumps(batch), slot.inbox)

    async def read(self) -> None:
        """Wait for the end of the answer; the request is sent now if it was not yet.

        Raises:
            MessageNotFoundError: no message of the subject is left.
            RequestTimeoutError: nothing came for :data:`PROGRESS` seconds.
            NatsError: refused, or the connection was lost.
        """
        bucket = self._feed.bucket
        connection = bucket.connection
        try:
            if self._slot is None and not self._ended.done():
                self.ask()
                if len(connection.mux) == 1:
                    connection.flush_now()
                self._feed.sink.reserve()
            # An answer begins as soon as that to any other request; later messages may take longer.
            self._watch(SILENCE if self.seen else min(PROGRESS, bucket.js.timeout))
            await self._ended
        finally:
            self.close()

    def close(self) -> None:
        """Take no more replies."""
        if self._timer is not None:
            self._timer.cancel()
        if self._slot is not None and self._mux is not None:
            self._mux.close(self._slot)
        self._slot = None  # each knows the other: the object would stay until the collector comes
        self._early.clear()

    def catch_up(self) -> None:
        """Its turn has come: hand on what came before."""
        early, self._early = self._early, []
        for msg in early:
            self._on_message(msg)
        if self._end is not None:
            self._on_end(*self._end)

    def _on_message(self, msg: WireMsg) -> None:
        feed = self._feed
        if feed.current is not self:
            if feed.ahead is self and len(self._early) < self.batch:
                self._early.append(msg)
            elif feed.ahead is self:
                feed.drop_ahead()  # more than asked for
            return
        if self._ended.done():
            return
        self.seen += 1
        block = msg.header
        seq = None if block is None else header_int(block, b"Nats-Sequence")
        if block is None or seq is None or seq <= self._last:
            return  # not an answer to this request, or one that came twice
        pending = header_int(block, b"Nats-Num-Pending")
        if pending is None:
            feed.bucket.batches = False  # older than 2.11: one message, and no end of batch
            self._on_done(None)
            return
        before, self._last = self._last, seq
        if header_int(block, b"Nats-Last-Sequence") not in (None, before):
            self._on_done(StaleConnectionError("a chunk was lost on the way"))  # each names the one before
            return
        if seq <= feed.cursor:
            return  # taken with the window before
        self.first = self.first or seq
        self.taken += 1
        if not feed.accept(msg.payload, seq, pending) or feed.done:
            self._on_done(None)
        else:
            feed.look_ahead()

    def _place(self, msg: WireMsg, size: int) -> Target:
        feed = self._feed
        current, ahead = feed.current, feed.ahead
        self.announced += 1
        # The sink gives out places in the order in which it is asked. So a window whose frames come before
        # all those of the one before were announced stays apart, all of it; and so does the rest of one that
        # was thought to be announced.
        if current is self:
            self.apart |= ahead is not None and ahead.announced > 0 and not ahead.apart
        else:
            self.apart |= current is None or current.announced < current.batch
        return None if self.apart else feed.sink.place(size)

    def _on_end(self, exc: NatsError | None) -> None:
        feed = self._feed
        if feed.current is not self:
            self._end = (exc,)
            return
        if self._ended.done():
            return
        left = None if self._slot is None else self._slot.left
        if left is not None and self.seen:
            feed.after = left  # what the messages of 2.11 said was one too many
        self._on_done(exc)
        if exc is None:
            feed.take_turns()

    def _on_done(self, exc: NatsError | None) -> None:
        if not self._ended.done():
            if exc is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(exc)

    def _check_progress(self) -> None:
        if self.seen != self._last_seen:
            self._watch(min(SILENCE, PROGRESS))
        elif self.waited < PROGRESS and self._receiving():
            # Nothing for us yet, but a large chunk is on its way on a slow link: ours, or one before it.
            self._watch(PROGRESS - self.waited)
            self.waited = PROGRESS
        else:
            self._feed.bucket.connection.probe()
            self._on_done(RequestTimeoutError(f"no chunk came within {seconds(self.waited)} s"))

    def _watch(self, seconds: float) -> None:
        self._last_seen = self.seen
        self._reads_before = self._reads()
        self.waited = seconds
        self._timer = self._loop.call_later(seconds, self._check_progress)

    def _reads(self) -> int:
        session = self._feed.bucket.connection.session
        return -1 if session is None else session.reads

    def _receiving(self) -> bool:
        """Whether a message is half here, and bytes have come since :meth:`_watch`."""
        session = self._feed.bucket.connection.session
        if session is None or session.reads == self._reads_before:
            return False
        # What is half here of a WebSocket frame is not seen by the parser.
        return not session.parser.idle or session.server.scheme in ("ws", "wss")
