"""The chunks of one put: sent through a window of unacknowledged publishes, repaired, and proven.

Chunk buffers are held until acknowledged: the window is the replay buffer. After a failure that a retry can
repair, the stored chunks are compared with the window, strays are deleted, and the rest is sent again; no
chunk is ever published again without this check.

An acknowledgement proves only that a chunk of ours was stored, and only if it is the first one for the chunk
and the bucket's own (:class:`natsproto.jetstream.api.acks.AckCheck`). After any irregularity the stored
chunks are counted, and if necessary read, at the leader before the meta is published. Surplus chunks are
deleted if the others, by their SHA-256, are exactly what was sent.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from functools import partial
from time import time
from typing import TYPE_CHECKING, NoReturn

from natsproto._values import seconds
from natsproto.aio.lifeline import Lifeline, has_ended, lifeline
from natsproto.backoff import Backoff
from natsproto.errors import MaxPayloadError, NatsError, WrongStreamError
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.publisher import MAX_MESSAGES, OutOfOrderError, PublishWindow

from ..bucket.bucket import RECHECK_DELAYS, Bucket, log
from ..bucket.budget import LEAST, STALL, Budget
from ..bucket.capacity import Guard
from ..bucket.ttl import chunk_header
from ..commit.discard import COMMIT_TIME
from ..errors import IntegrityError, StoreFullError
from ..format.chunking import Chunker
from ..format.codec import MetaDecodeError
from ..format.digest import new_hasher
from ..format.models import ObjectInfo
from ..format.naming import chunk_subject, new_nuid
from .doubt import (
    NOTICED,
    Unrepairable,
    budget_spent_error,
    check_shown,
    delete_own,
    fence,
    fence_behind,
    late_chunks_error,
)
from .source import Source

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

    from ..bucket.operation import Progress
    from ..format.memory import Payload

SETTLE = 5.0
"""Seconds a failed put waits for late acknowledgements before it purges its chunks."""

LONG = 1.0
"""Seconds after which a put counts its chunks, before and after its commit.

Meanwhile the bucket may have been recreated; or the removal of a forged meta of that name has removed them.
"""

MOST_FOREIGN = 4096
"""Foreign messages on a put's chunk subject that are read; a sender of more is an attacker."""

MOST_COPIES = 256
"""Late copies of chunks that a put removes, with two requests each. With more of them it begins again."""

REMOVALS = 3
"""Times that late copies of chunks are removed while more of them arrive."""


class ChunkSender:
    """The part of :class:`objstore.write.put.Put` before its meta; ``Put`` sets the attributes."""

    # An instance of more than 30 attributes without slots has a dict of its own: slower to make and to read.
    __slots__ = (
        "_all_hashed",
        "_begun",
        "_chunks",
        "_chunks_may_be_gone",
        "_doubts",
        "_hasher",
        "_last_sent",
        "_lifeline",
        "_nuid",
        "_opened_after",
        "_repaired",
        "_session",
        "_silent_sessions",
        "_size",
        "_subject",
        "_window",
    )

    window_class = PublishWindow

    idle_limit: float = COMMIT_TIME.total_seconds() / 2
    """Seconds between two chunks after which others may consider the earlier ones orphans."""

    _bucket: Bucket
    _template: ObjectInfo
    _source: Source
    _chunk_size: int
    _window_bytes: int
    _progress: Progress | None
    _ttl: timedelta | None
    _loop: asyncio.AbstractEventLoop
    _guard: Guard
    _budget: Budget
    _begun: int
    _repaired: bool
    _chunks_may_be_gone: bool

    def _begin(self) -> None:
        self._begun += 1
        self._nuid = new_nuid(self._template.name)
        self._subject = chunk_subject(self._bucket.name, self._nuid)
        self._hasher = new_hasher()
        self._size = 0
        self._chunks = 0
        self._all_hashed = False  # the source has ended: size and digest are those of the whole object
        self._window: PublishWindow | None = None
        self._doubts: set[int] = set()  # see PublishWindow.doubts; of all windows of this nuid
        self._silent_sessions = self._bucket.connection.silent_sessions
        self._session = 0  # the session that sent the chunks that may still be in flight, and its lifeline
        self._lifeline: Lifeline | None = None
        self._last_sent = time()

    def _open_window(self, first: int = 0, last_seq: int = 0) -> PublishWindow:
        window = self.window_class(
            self._bucket.client,
            self._subject.encode(),  # made of a bucket's name and a nuid, both checked
            self._bucket.acks,
            max_bytes=self._window_bytes,
            first=first,
            last_seq=last_seq,
            header=chunk_header(self._ttl),
            doubts=self._doubts,
        )
        self._opened_after = last_seq
        self._note_session()
        budget = self._budget
        patience = STALL * budget.seconds if self._begun == 1 else max(LEAST, budget.left)
        window.progress_timeout = min(window.progress_timeout, patience)
        return window

    async def _send_chunks(self) -> None:
        guard = self._guard
        try:
            await guard.begin()
            await self._send_all()
            if await guard.end(self._chunks) and self._chunks:
                await self._check_stored()
        finally:
            guard.close()

    async def _send_all(self) -> None:
        if self._bucket.domain_changed:  # before a byte goes to the wrong bucket
            await self._bucket.retrying(self._check_bucket)
        connection = self._bucket.connection
        epoch, began = connection.epoch, self._loop.time()
        whole = self._source.whole
        if type(whole) is bytes and 0 < len(whole) <= self._chunk_size:
            await self._send(memoryview(whole))
        else:
            chunker = Chunker(self._chunk_size, copy=self._source.refills)
            if whole is None:
                await self._send_pieces(chunker)
            else:
                for chunk in chunker.push(whole):
                    await self._send(chunk)
                await self._send_last(chunker)
        self._all_hashed = True
        await self._settle()
        odd = self._doubts or self._repaired or connection.epoch != epoch
        if self._window is None:
            return
        if self._loop.time() - began > LONG:
            self._chunks_may_be_gone = True
            odd = True
        if odd:
            await self._check_stored()  # acknowledged chunks may be gone, or stored twice

    async def _settle(self) -> None:
        """Wait until everything sent is acknowledged, if necessary after sending it again."""
        while self._window is not None:
            try:
                await self._window.settle()
                break
            except NatsError as exc:
                await self._repair(exc)

    async def _send_pieces(self, chunker: Chunker) -> None:
        pieces: AsyncIterator[Payload] = self._source.pieces()
        try:
            async for piece in pieces:
                for chunk in chunker.push(piece):
                    await self._send(chunk)
            await self._send_last(chunker)
        finally:
            aclose = getattr(pieces, "aclose", None)
            if aclose is not None:
                await aclose()

    async def _send_last(self, chunker: Chunker) -> None:
        last = chunker.finish()
        if last is not None:
            await self._send(last)

    async def _send(self, chunk: memoryview) -> None:
        if self._chunks >= self._guard.free:
            self._guard.admit(self._chunks, len(chunk))
        if self._window is None:
            self._window = self._open_window()
        self._check_idle()
        if self._session != self._bucket.connection.epoch and not self._window.unproven:
            self._note_session()
        try:
            await self._window.publish(chunk)
        except NatsError as exc:
            await self._repair(exc, chunk)
        # Hash it after passing it to the kernel: the server works meanwhile.
        self._count(chunk)

    @property
    def _idle(self) -> float:
        """Seconds since the last chunk, by the clock that runs while the machine sleeps."""
        return time() - self._last_sent

    def _check_idle(self) -> None:
        """Restart after a long pause, since others may be about to remove the earlier chunks.

        If the source cannot be read again, the chunks are counted before and after the commit instead.
        """
        now = time()
        idle, self._last_sent = now - self._last_sent, now
        if idle > self.idle_limit and self._chunks and self._source.restartable:
            name = self._template.name
            raise Unrepairable(
                IntegrityError(
                    f"no chunk of {name!r} was sent for {seconds(idle)} s: earlier ones may count as orphans",
                    bucket=self._bucket.name,
                    name=name,
                )
            )

    def _count(self, chunk: memoryview) -> None:
        self._hasher.update(chunk)
        self._chunks += 1
        self._size += len(chunk)
        if self._progress is not None:
            self._progress(self._size, self._source.size)

    async def _repair(self, failure: NatsError, refused: memoryview | None = None) -> None:
        """Make the stream hold exactly the chunks sent so far: send missing ones again.

        Args:
            failure: why the window failed.
            refused: the chunk that the failed window did not accept.

        The window's wait before its failure counts towards the budget.

        Raises:
            NatsError: the failure cannot be repaired within the budget; translated.
            Unrepairable: the order cannot be restored.
        """
        bucket, budget = self._bucket, self._budget
        backoff = Backoff()
        assert self._window is not None
        reached = self._window.acknowledged
        if reached or self._begun == 1:  # to start over is no progress
            budget.progress(ago=self._window.silent)
        queued: deque[Payload] = deque(() if refused is None else (refused,))
        self._repaired = True
        while True:
            window = self._window
            if isinstance(failure, OutOfOrderError):
                # Swapped in transit, or acknowledged and then lost by a killed server: earlier chunks cannot
                # be trusted any more.
                await bucket.retrying(self._check_bucket)
                raise Unrepairable(
                    IntegrityError(
                        f"the chunks of {self._template.name!r} were not stored in order: {failure}",
                        bucket=bucket.name,
                        name=self._template.name,
                    )
                ) from failure
            if isinstance(failure, WrongStreamError):
                raise bucket.foreign_error(failure, self._template.name, self._nuid) from failure
            if not retryable(failure):
                raise bucket.translate(failure, self._template.name) from failure
            if window.acknowledged > reached:  # progress: the budget restarts here
                reached = window.acknowledged
                budget.progress(ago=window.silent)
                backoff.reset()
            if not budget.left:
                raise bucket.translate(budget_spent_error(failure, budget), self._template.name) from failure
            try:
                async with budget.bound():
                    await window.quiesce(SETTLE)
                    window.close()
                    await bucket.pause(backoff.seconds, budget.deadline)
                    await self._check_bucket()
                    await self._check_session(failure)
                    await fence(bucket, self._subject, self._fence_header())
                    self._check_silence(failure)
                    backoff.grow()
                    self._check_max_payload()
                    pending = [*window.unproven.values(), *queued]
                    stored, last_seq = await self._reconcile(window.last_seq, pending)
                self._window = window = self._open_window(window.acknowledged + stored, last_seq)
                patience = window.progress_timeout
                window.progress_timeout = min(patience, budget.left)
                queued = deque(pending[stored:])
                while queued:
                    await window.publish(queued[0])
                    queued.popleft()
                await window.settle()
                window.progress_timeout = patience
                return
            except NatsError as exc:
                failure = exc
                self._check_silence(failure)
            except TimeoutError:
                window.close()

    def _fence_header(self) -> bytes:
        """Return the header of a fence on a replicated stream."""
        return b""

    def _check_silence(self, failure: NatsError) -> None:
        assert self._window is not None
        if self._window.unproven and self._bucket.client.connection.silent_sessions != self._silent_sessions:
            self._raise_late_chunks(failure)

    def _note_session(self) -> None:
        client = self._bucket.client
        self._session, self._lifeline = client.connection.epoch, lifeline(client)

    async def _check_session(self, failure: NatsError) -> None:
        """Give up the nuid if chunks of an earlier connection may still be stored.

        A server that still holds the connection stores them when they arrive. It may also hold them back for
        another server while this client has moved on to a third one.
        """
        assert self._window is not None
        client, line = self._bucket.client, self._lifeline
        if not self._window.unproven or self._session == client.connection.epoch:
            return
        if line is None or not await has_ended(client, line, NOTICED):
            self._raise_late_chunks(failure)
        if not line.precedes_all_of(client) and (
            self._source.restartable  # faster than to wait for the other server
            or not await fence_behind(
                self._bucket, self._subject, self._fence_header(), line, self._budget.left / 2
            )
        ):
            self._raise_late_chunks(failure)

    def _raise_late_chunks(self, failure: NatsError) -> NoReturn:
        error = late_chunks_error(self._template.name, failure)
        raise (Unrepairable(error) if self._budget.left > LEAST else error) from failure

    async def _check_bucket(self) -> None:
        """Check the bucket: another one of the same name does not have the acknowledged chunks."""
        await self._bucket.check_same(self._template.name)
        self._guard.check(self._chunks)

    def _check_max_payload(self) -> None:
        limit = self._bucket.client.max_payload
        if limit < self._chunk_size:
            raise MaxPayloadError(
                f"the current server accepts {limit} bytes, the chunks have {self._chunk_size}",
                size=self._chunk_size,
                max_payload=limit,
            )

    async def _reconcile(self, last_seq: int, unproven: list[Payload]) -> tuple[int, int]:
        """Compare what is stored after ``last_seq`` with the chunks whose outcome is unknown.

        Return how many of them are stored in order, and the sequence of the last one. Chunks stored out of
        order are deleted, and so are fences. Other messages, such as a late copy of an earlier chunk, stay
        until everything can be compared.
        """
        matched = 0
        proven = last_seq
        strays: list[int] = []
        seq = last_seq
        while True:
            message = await self._stored_after(seq)
            if message is None:
                break
            seq = message.seq
            if not strays and matched < len(unproven) and message.data == unproven[matched]:
                matched += 1
                proven = seq
                self._budget.progress()
            elif not message.data or any(message.data == chunk for chunk in unproven):
                strays.append(seq)
            else:
                self._doubts.add(seq)
            if len(strays) + len(self._doubts) > MOST_FOREIGN:
                raise Unrepairable(self._flooded())
        await self._delete(strays)
        return matched, proven

    def _flooded(self) -> IntegrityError:
        return IntegrityError(
            f"another client keeps storing chunks of {self._template.name!r}",
            bucket=self._bucket.name,
            name=self._template.name,
        )

    async def _delete(self, seqs: list[int], beside: Collection[int] = ()) -> None:
        """Delete messages of this put's subject, which has its nuid; keep any other message.

        Args:
            seqs: their sequences.
            beside: those of others that were read: a consumer must show them, too. Another stream, which the
                bucket is a source of, has other numbers.
        """
        if not seqs:
            return
        bucket, subject = self._bucket, self._subject
        await check_shown(bucket, subject, {*seqs, *beside})
        for seq in seqs:
            await delete_own(bucket, seq, lambda message: message.subject == subject, proven=True)

    async def _stored_after(self, seq: int) -> StoredMessage | None:
        """Return the next message on this put's chunk subject, from the leader."""
        return await self._bucket.leader_read(self._subject, after=seq).wait()

    async def _check_stored(self) -> None:
        """Make sure that the leader has each chunk once, in order; delete duplicates.

        The chunks are counted. If an unexpected acknowledgement makes their sequences doubtful, the last
        chunk must also have the expected sequence; else all chunks are read and hashed.

        Raises:
            Unrepairable: the stored chunks differ from those sent.
        """
        bucket = self._bucket
        subject = self._subject
        for wait in RECHECK_DELAYS:
            await asyncio.sleep(wait)
            stored = await bucket.stored_chunks(self._nuid, self._chunks)
            if stored >= self._chunks or bucket.limits.evicts_oldest:
                break
        self._budget.progress()
        hints = self._doubts - {0}
        right = stored == self._chunks
        if right and self._doubts and self._window is not None:
            last = await bucket.leader_message(subject)
            right = last is not None and last.seq == self._window.last_seq
        elif not right:
            await bucket.retrying(self._check_bucket)
        copies = stored - self._chunks
        if not right:
            self._guard.explain(stored, self._chunks)
        if not right and not (
            copies >= 0 and (await self._remove_copies(copies, hints) if copies else await self._in_order())
        ):
            raise Unrepairable(
                IntegrityError(
                    f"{stored} chunks are stored where {self._chunks} were sent"
                    if copies
                    else "the stored chunks differ from those that were sent",
                    bucket=bucket.name,
                    name=self._template.name,
                )
            )
        self._doubts.clear()

    async def _in_order(self) -> bool:
        """Whether the chunks, whose number is right, are those that were sent, as the leader shows them.

        They are read again if not: a peer can have answers to its own requests sent to us.
        """
        for _ in range(REMOVALS):
            if await self._remove(set()):
                return True
        return False

    async def _remove_copies(self, count: int, hints: set[int]) -> bool:
        """Delete what is stored beside our chunks, if it can be told apart; more may be arriving.

        Args:
            count: how many messages there are at least.
            hints: sequences of some of them.
        """
        suspects: set[int] = set()
        for _ in range(REMOVALS):
            more = hints | await self._unacknowledged()
            if count > len(more) or more == suspects:
                return False
            if await self._remove(more):
                return True
            suspects = more
        return False

    async def _unacknowledged(self) -> set[int]:
        """Return the sequences among and behind our newest chunks that were not acknowledged to us.

        A server of a cluster has held them back for a leader that now leads again; meanwhile they were sent
        again, by way of another leader.
        """
        found: set[int] = set()
        if self._window is None:
            return found
        newest = self._window.newest
        seq = self._opened_after if len(newest) < MAX_MESSAGES else min(newest)  # older ones are forgotten
        ours = set(newest)
        while len(found) < MOST_COPIES:
            message = await self._bucket.retrying(partial(self._stored_after, seq))
            if message is None:
                break
            seq = message.seq
            if seq not in ours:
                found.add(seq)
        return found

    async def _remove(self, suspects: set[int]) -> bool:
        """Delete the ``suspects`` among the stored chunks if the others are exactly what was sent."""
        hasher = new_hasher()
        chunks = seq = last = 0
        copies: list[int] = []
        others = array("q")
        while True:
            message = await self._bucket.retrying(partial(self._stored_after, seq))
            if message is None:
                break
            seq = message.seq
            if seq in suspects:
                copies.append(seq)
                continue
            hasher.update(message.data)
            others.append(seq)
            chunks, last = chunks + 1, seq
            if chunks > self._chunks:
                return False
        if chunks != self._chunks or hasher.digest() != self._hasher.digest():
            return False
        await self._delete(copies, others)
        if self._window is not None:
            self._window.last_seq = last
        return True

    async def _check_again(self) -> None:
        """Run :meth:`_check_stored` after the commit, for chunks or acknowledgements that came late.

        Raises:
            IntegrityError: the object is committed, but chunks are missing.
        """
        bucket, name = self._bucket, self._template.name
        if self._window is not None and isinstance(self._window.failure, WrongStreamError):
            log.warning("put of %r: %s", name, bucket.foreign_error(self._window.failure, name, self._nuid))
        try:
            await self._check_stored()
        except (Unrepairable, StoreFullError) as exc:  # on 2.9 any missing chunk is reported as full
            try:
                current = await bucket.leader_meta(name)
            except MetaDecodeError:
                return
            if current is None or current.deleted or current.nuid != self._nuid:
                return  # replaced, or removed, meanwhile
            if isinstance(exc, Unrepairable):
                raise exc.reason from None
            raise IntegrityError(
                f"{name!r} was stored, and then the stream removed chunks of it to make room",
                bucket=bucket.name,
                name=name,
            ) from exc
