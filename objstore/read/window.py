"""One batch request of a feed, and the replies to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from natsproto._values import seconds
from natsproto.errors import NatsError, RequestTimeoutError, StaleConnectionError
from natsproto.jetstream.api.codec import dumps
from natsproto.jetstream.direct_get import BatchSlot, header_int

if TYPE_CHECKING:
    from natsproto.aio.requests import RequestMux
    from natsproto.wire import Msg as WireMsg
    from natsproto.wire import Target

    from .feed import ChunkFeed

PROGRESS = 15.0
"""Seconds without a byte or a heartbeat before a read restarts after its last sequence."""

SILENCE = 2.5
"""Seconds without a byte on the connection after which a batch that has begun is requested again: a server
whose stream was deleted meanwhile is silent."""


class Window:
    """One batch request: its replies go to the feed as they come, or when its turn has come.

    Replies to the previous window may come later than the first reply to this one: several servers respond.

    Args:
        feed: the feed of the window.
        seq, batch, bytes: the first sequence, and how many messages and bytes to request.

    Attributes:
        announced: messages whose header has arrived.
        seen: messages that have arrived.
        taken: messages that went to the sink.
        first: sequence of the first message taken; 0 = none yet.
        apart: later payloads get no destination in the sink, and are copied.
        waited: seconds of silence until the next check.
    """

    def __init__(self, feed: ChunkFeed, seq: int, batch: int) -> None:
        self._feed = feed
        self._loop = feed.loop
        self.seq = seq
        self.batch = batch
        self.bytes = feed.bytes_of(batch)
        self._reserved = 0.0  # when it was counted as in flight; 0 = it is not
        self.announced: int = 0
        self.seen: int = 0
        self.taken: int = 0
        self.first: int = 0
        self._last = 0  # sequence of the last message that came
        self.apart: bool = False
        self._early: list[tuple[WireMsg, int | None]] = []  # messages that came before its turn
        self._end: tuple[NatsError | None] | None = None  # the end, if it came before its turn
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._slot: BatchSlot | None = None
        self._mux: RequestMux | None = None  # where it is open
        self._last_seen = 0
        self.waited: float = 0.0
        self._reads_before = 0
        self._timer: asyncio.TimerHandle | None = None

    def reserve(self) -> bool:
        """Count the request as in flight, if there is room for it now."""
        room = self._feed.in_flight.take(self.bytes)
        if room:
            self._reserved = self._loop.time()
        return room

    async def wait_for_room(self) -> None:
        """Count the request as in flight, when there is room for it."""
        await self._feed.in_flight.wait(self.bytes)
        self._reserved = self._loop.time()

    def _release(self) -> None:
        began, self._reserved = self._reserved, 0.0
        if began:
            self._feed.in_flight.release(self.bytes, self._loop.time() - began)

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
            max_bytes=self.bytes,
            only=feed.subject,
        )
        mux = self._mux = connection.mux
        mux.open(slot)
        batch = {"seq": self.seq, "next_by_subj": feed.subject, "batch": self.batch, "max_bytes": self.bytes}
        connection.publish(bucket.direct_subject, dumps(batch), slot.inbox)

    async def read(self) -> None:
        """Wait for the end of the response; send the request first if it was not sent yet.

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
            # A response begins as soon as one to any other request; later messages may take longer.
            self._watch(SILENCE if self.seen else min(PROGRESS, bucket.js.timeout))
            await self._ended
        finally:
            self.close()

    def close(self) -> None:
        """Ignore further replies."""
        self._release()
        if self._timer is not None:
            self._timer.cancel()
        if self._slot is not None and self._mux is not None:
            self._mux.close(self._slot)
        self._slot = None  # breaks the reference cycle, which would keep both until a garbage collection
        self._early.clear()

    def catch_up(self) -> None:
        """Pass on the messages that came before its turn."""
        early, self._early = self._early, []
        for msg, seq in early:
            self._on_message(msg, seq)
        if self._end is not None:
            self._on_end(*self._end)

    def _on_message(self, msg: WireMsg, seq: int | None) -> None:
        feed = self._feed
        if feed.current is not self:
            if feed.ahead is self and len(self._early) < self.batch:
                self._early.append((msg, seq))
            elif feed.ahead is self:
                feed.drop_ahead()  # more than requested
            return
        if self._ended.done():
            return
        self.seen += 1
        block = msg.header
        if block is None or seq is None or seq <= self._last:
            return  # not a reply to this request, or a duplicate
        pending = header_int(block, b"Nats-Num-Pending")
        if pending is None:
            feed.bucket.batches = False  # older than 2.11: one message, and no end of batch
            self._on_done(None)
            return
        before, self._last = self._last, seq
        if header_int(block, b"Nats-Last-Sequence") not in (None, before):
            self._on_done(StaleConnectionError("a chunk was lost on the way"))  # each names its predecessor
            return
        if seq <= feed.cursor:
            return  # taken with the previous window
        if feed.doubts(block, pending):
            self._on_done(None)
            return
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
        # The sink assigns destinations in request order. If a frame of the next window arrives before all
        # frames of the current one were announced, the payloads of the next window are copied instead; so
        # are the remaining ones of a current window that was thought to be fully announced.
        if current is self:
            self.apart |= ahead is not None and ahead.announced > 0 and not ahead.apart
        else:
            self.apart |= current is None or current.announced < current.batch
        return None if self.apart else feed.place(size)

    def _on_end(self, exc: NatsError | None) -> None:
        self._release()  # also if its turn comes later: who reads the object may pause for any time
        feed = self._feed
        if feed.current is not self:
            self._end = (exc,)
            return
        if self._ended.done():
            return
        left = None if self._slot is None else self._slot.left
        if left is not None and self.seen:
            feed.after = left  # the messages of 2.11 reported one too many
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
            # No chunk yet, but a large message is arriving on a slow link: ours, or one before it.
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
        """Whether a message has partly arrived, and bytes have come since :meth:`_watch`."""
        session = self._feed.bucket.connection.session
        if session is None or session.reads == self._reads_before:
            return False
        # The parser does not see a WebSocket frame that has partly arrived.
        return not session.parser.idle or session.server.scheme in ("ws", "wss")
