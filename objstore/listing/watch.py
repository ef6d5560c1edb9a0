"""Watch the newest meta of every name, and the changes that follow, with one ordered consumer."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from natsproto.errors import ConnectionClosedError, NatsError
from natsproto.jetstream.ordered import OrderedConsumer

from ..bucket.bucket import Bucket, log
from ..bucket.counts import PAUSE, STEPS_DOWN, count_from, leads
from ..bucket.ways import ANY_WAY
from ..errors import BucketNotFoundError
from ..format.marks import shown
from ..format.naming import all_meta_subject
from .decode import OnInvalid, meta_reader
from .metas import LeaderEnd

if TYPE_CHECKING:
    from natsproto.jetstream.api.acks import Delivery
    from natsproto.wire import Msg as WireMsg

    from ..format.models import ObjectInfo

VALUE = 100
"""Bytes of memory, about, that each value of a meta takes besides its text."""

MOST_WAITING = 64 * 1024 * 1024
"""Bytes of metas, about, that wait to be read, before a watch that has caught up holds the server back."""

WATCH_HEARTBEAT = 5.0
"""Seconds between the heartbeats of an idle watch."""


OBJECT = 600
"""Bytes of memory that the smallest decoded meta takes."""


def weight(payload: bytes) -> int:
    """Return the bytes of memory, about, that a decoded meta takes."""
    narrow = payload.isascii() and b"\\u" not in payload
    wide = 1 if narrow else 4  # one rare character makes all of a text wide
    return OBJECT + len(payload) * wide + VALUE * payload.count(b",")


class Watch:
    """A running watch: one ordered consumer, and the states not read yet."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        updates_only: bool,
        ignore_deletes: bool,
        from_revision: int | None,
        prefix: str,
        on_invalid: OnInvalid,
    ) -> None:
        """Arguments as :class:`Watcher`."""
        self._bucket = bucket
        self._updates_only = updates_only
        self._ignore_deletes = ignore_deletes
        self._from_revision = from_revision
        self._prefix = prefix
        self._on_invalid = on_invalid
        self._read_meta = meta_reader(bucket, on_invalid)
        self._loop: asyncio.AbstractEventLoop | None = None
        # Taking the first item of a dict is slow after many deletions; of an OrderedDict it is not.
        self._pending: OrderedDict[str, tuple[ObjectInfo, int]] = OrderedDict()  # with their sizes
        self._waiting = 0  # bytes of them
        self._due = math.inf  # messages that there were at the beginning
        self._delivered = 0
        self._paused = False
        self._consumer: OrderedConsumer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._caught_up = False
        self._leader_end: LeaderEnd | None = None
        self._proving: asyncio.Task[None] | None = None
        self._stopped = False
        self._ending: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._stopped:
            raise ConnectionClosedError("the watcher was stopped")
        if self._starting is None:
            self._loop = asyncio.get_running_loop()
            self._starting = self._bucket.connection.spawn(self._start(), "objstore-watch")
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        try:
            await self._begin()
        except BaseException as exc:
            self._fail(exc)
            await self._leave()  # at once: whoever keeps the error keeps the watcher alive
            raise

    def _consume(
        self,
        on_idle: Callable[[], None],
        deliver_policy: str,
        start_seq: int | None = None,
        heartbeat: float | None = None,
    ) -> OrderedConsumer:
        """Return the consumer of this watch, not started yet."""
        bucket = self._bucket
        self._consumer = OrderedConsumer(
            bucket.js,
            bucket.stream,
            all_meta_subject(bucket.name),
            on_message=self._on_message,
            on_failure=self._fail,
            on_idle=on_idle,
            deliver_policy=deliver_policy,
            start_seq=start_seq,
            heartbeat=WATCH_HEARTBEAT if heartbeat is None else heartbeat,
            created=bucket.created,
            patience=bucket.consumer_timeout,
            retry_budget=bucket.retry_budget,
        )
        return self._consumer

    async def _begin(self) -> None:
        bucket = self._bucket
        await bucket.refresh()
        await self._check_revision()
        # When pending metas have vanished, no delivery says "0 pending", but the consumer is idle.
        consumer = self._consume(self._idle, self._policy(), self._from_revision)
        self._leader_end = LeaderEnd(bucket)
        info = await bucket.retrying(consumer.start)
        self._due = info.num_pending
        if self._updates_only:
            self._set_caught_up()
        elif self._has_all(info.num_pending):
            self._arrived()

    async def _check_revision(self) -> None:
        """Refuse to continue from a revision that the bucket has not reached: its changes would not be seen.

        Raises:
            BucketNotFoundError: this is not the bucket that had it, or it has lost its newest messages.
        """
        bucket, revision = self._bucket, self._from_revision
        if revision is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(STEPS_DOWN, bucket.retry_budget)
        while True:
            info = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
            if revision <= info.last_seq + 1:
                return
            if leads(info.raw) or loop.time() > deadline:
                raise BucketNotFoundError(
                    f"bucket {bucket.name!r} ends at revision {info.last_seq}, so it cannot continue from "
                    f"{revision}: it was deleted and created again, or restored: watch it from the beginning",
                    bucket=bucket.name,
                )
            await asyncio.sleep(PAUSE)

    def _policy(self) -> str:
        if self._from_revision is not None:
            return "by_start_sequence"
        return "new" if self._updates_only else "last_per_subject"

    async def stop(self) -> None:
        """Stop the watch. A cancelled call still finishes: otherwise the consumer would stay."""
        ending = self.end()
        await asyncio.wait([ending])
        if not ending.cancelled():
            ending.result()

    def end(self) -> asyncio.Task[None]:
        """Begin to stop; the returned task ends by itself."""
        self._stopped = True
        self._pending.clear()
        self._wake()
        if self._ending is None:
            connection = self._bucket.connection
            self._ending = connection.spawn(self._leave_when_started(), "objstore-watch-stop", due=True)
        return self._ending

    async def _leave_when_started(self) -> None:
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await self._leave()

    async def _leave(self) -> None:
        """End all that runs for this watch."""
        if self._proving is not None:
            self._proving.cancel()
            await asyncio.wait([self._proving])
        if self._leader_end is not None:
            self._leader_end.close()
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    def abandon(self) -> None:
        """End a watch whose watcher was dropped; may run in any thread, and after the loop has ended."""
        if self._stopped or self._loop is None or self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self.end)

    # -- the reading side -------------------------------------------------------------------------

    def _on_message(self, msg: WireMsg, delivery: Delivery) -> None:
        info = self._read_meta(msg, delivery)
        if info is not None:
            self._offer(info, weight(bytes(msg.payload)))
        self._delivered += 1
        if self._has_all(delivery.num_pending):
            self._arrived()

    def _has_all(self, num_pending: int) -> bool:
        """Whether everything has come; or, once much waits to be read, as much as there was at the beginning.

        Others may write faster than this reads.
        """
        return num_pending == 0 or (self._waiting > MOST_WAITING and self._delivered >= self._due)

    def _arrived(self) -> None:
        """Handle the end of the consumer's backlog; in a cluster its server may lack newer metas."""
        if self._bucket.replicated:
            self._idle()
        elif not self._stopped:
            self._set_caught_up()

    def _idle(self) -> None:
        """Handle what seems to be the end: the heartbeat may be that of somebody's pull."""
        if not (self._caught_up or self._stopped) and self._proving is None:
            self._proving = self._bucket.connection.spawn(self._prove(), "objstore-watch-prove")

    async def _prove(self) -> None:
        """Declare the watch caught up if it has reached the leader's end at the start, or its end now."""
        bucket, consumer, leader_end = self._bucket, self._consumer, self._leader_end
        assert consumer is not None
        assert leader_end is not None
        try:
            seq = consumer.stream_seq
            reached = bucket.replicated and await leader_end.reached(seq)
            if reached or not await self._follows(seq):
                self._set_caught_up()  # else it is on its way, or the next heartbeat checks again
        except NatsError as exc:
            log.debug("it is not known yet whether a watch of bucket %r has caught up: %s", bucket.name, exc)
        finally:
            self._proving = None

    async def _follows(self, seq: int) -> bool:
        """Whether a meta lies after this sequence: one that the leader has, or that a consumer counts."""
        bucket, subject = self._bucket, all_meta_subject(self._bucket.name)
        if bucket.replicated and await bucket.first_after(subject, seq, ANY_WAY) is not None:
            return True
        return await count_from(bucket, subject, seq + 1) > 0

    def _offer(self, info: ObjectInfo, size: int) -> None:
        if info.name.startswith(self._prefix):
            _, older = self._pending.pop(info.name, (None, 0))  # a state of the name that was not read yet
            self._waiting -= older
            if not (info.deleted and self._ignore_deletes):
                self._pending[info.name] = shown(info), size
                self._waiting += size
                self._wake()
        self._hold_back()

    @property
    def _full(self) -> bool:
        """Whether the reader is behind. Before it has caught up it may wait for that, and read nothing."""
        return self._caught_up and self._waiting > MOST_WAITING

    def _hold_back(self) -> None:
        if self._full != self._paused and self._consumer is not None:
            self._paused = self._full
            if self._paused:
                self._consumer.pause()
            else:
                self._consumer.resume()

    def _set_caught_up(self) -> None:
        if not self._caught_up:
            self._caught_up = True
            self._wake()

    def _fail(self, exc: BaseException) -> None:
        if self._failure is None:
            self._failure = self._bucket.translate(exc) if isinstance(exc, NatsError) else exc
        self._wake()

    def _wake(self) -> None:
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    # -- the application's side -------------------------------------------------------------------

    async def wait_caught_up(self) -> None:
        if not self._caught_up:
            await self.start()
        while not self._caught_up:
            if self._failure is not None:
                raise self._failure
            if self._stopped:
                raise ConnectionClosedError("the watcher was stopped")
            await self._wait()

    async def next(self) -> ObjectInfo:
        if not self._pending and not self._stopped:
            await self.start()
        while not self._pending:
            if self._stopped:
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            await self._wait()
        info, size = self._pending.popitem(last=False)[1]
        self._waiting -= size
        self._hold_back()
        return info
