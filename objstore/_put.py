"""Storing an object: chunks through a window of unacknowledged publishes, then one meta message.

Chunk buffers are held until acknowledged: the window is the replay buffer. After a failure that a retry can
mend, what the stream holds is compared with the window, strays are deleted, and the rest is sent again; no
chunk is ever published twice without looking first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from natsproto._values import seconds
from natsproto.errors import MaxPayloadError, NatsError
from natsproto.jetstream.api.errors import MessageNotFoundError, retryable
from natsproto.jetstream.publisher import DEFAULT_WINDOW, OutOfOrderError, PublishWindow
from natsproto.nuid import next_nuid

from ._atomic import AtomicPut, check_atomic
from ._bucket import FIRST_RETRY, LAST_RETRY, RETRY_BUDGET, About, Bucket, MetaDecodeError, log
from ._callbacks import check_callback
from ._commit import Commit, Conflict, Patience, lost_race
from ._prepare import prepare
from ._rename import finish_rename, shares_chunks
from ._source import ObjectData, Source, open_source
from ._ttl import chunk_header
from .errors import (
    BadObjectMetaError,
    BucketNotFoundError,
    IntegrityError,
    ObjectAlreadyExists,
    OutcomeUnknownError,
)
from .format.chunking import Chunker
from .format.codec import encode_meta
from .format.digest import hex_digest, new_hasher
from .format.models import ObjectInfo, ObjectMetaOptions, as_stored, complete
from .format.naming import chunk_subject

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

Progress = Callable[[int, "int | None"], None]
SETTLE = 5.0
"""Seconds a failed put waits for acknowledgements still to come before it purges its chunks."""

PURGE = 10.0
"""Seconds a failed put tries to purge them; what is left then is for ``gc``."""

HURRY = 4.0
"""Seconds for both when the put was cancelled."""

LONG = 1.0
"""Seconds after which a put counts its chunks before it commits: the bucket may have been made anew."""

BATCH_ROOM = 128
"""Bytes the headers of a batch take of every message."""

GUESS_AFTER = 4
"""So many puts to new names in a row let the next small one expect a new name, too."""

RESTARTS = 2
"""How often a put starts over on a new nuid when its chunks cannot be repaired."""


class Unrepairable(Exception):
    """The stored chunks are not the ones sent and cannot be made so; ``reason`` is what began it."""

    def __init__(self, reason: NatsError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Put:
    """One put of one object.

    Args:
        bucket: where.
        template: the object's info as far as it is known before the bytes: name, description, headers,
            metadata, options. It becomes the result.
        source: the bytes.
        chunk_size: bytes of a chunk.
        if_revision: compare-and-set; ``None`` = last writer wins, 0 = absent or deleted.
        must_not_exist: report a conflict as ``ObjectAlreadyExists``.
        window: unacknowledged bytes.
        progress: called with ``(bytes sent, total or None)``.
        ttl: how long the object lives; ``None`` = for ever.
    """

    counts_afterwards = False
    """Whether :meth:`_discard` has work even if nothing was replaced."""

    def __init__(
        self,
        bucket: Bucket,
        template: ObjectInfo,
        source: Source,
        *,
        chunk_size: int,
        if_revision: int | None = None,
        must_not_exist: bool = False,
        window: int = DEFAULT_WINDOW,
        progress: Progress | None = None,
        ttl: timedelta | None = None,
    ) -> None:
        check_callback("progress", progress)
        self._ttl = ttl
        self._bucket = bucket
        self._template = template
        self._source = source
        self._chunk_size = chunk_size
        self._if_revision = if_revision
        self._must_not_exist = must_not_exist
        self._window_bytes = max(window, chunk_size)
        self._progress = progress
        self._loop = bucket.client._connection._loop
        self._repaired = False
        self._hurry = False

    async def run(self) -> ObjectInfo:
        """Store the object; returns its info with the revision the server gave it."""
        bucket = self._bucket
        subject = bucket.meta_subject(self._template.name)
        # The previous meta is asked for beside the first chunks: one round trip less.
        reading = None if self._expects_new() else bucket.start_leader_read(subject)
        # A guess that costs little: the commit replaces nothing, or is refused and says what to read.
        previous: tuple[int, ObjectInfo | None] | None = (0, None) if reading is None else None
        self._begin()
        try:
            if self._if_revision is not None:
                previous = await self._previous(reading, subject)
                self._check_condition(previous)
            for attempt in range(RESTARTS + 1):
                try:
                    await self._send_chunks()
                    break
                except Unrepairable as exc:
                    await self._abandon(exc)
                    if attempt == RESTARTS or not self._source.restartable:
                        raise exc.reason from None
                    log.warning("put of %r starts over on a new nuid: %s", self._template.name, exc.reason)
                    self._begin()
            if previous is None:
                previous = await self._previous(reading, subject)
                bucket.new_names = 0 if previous[0] else bucket.new_names + 1
        except BaseException as exc:
            if reading is not None:
                reading.close()
            await self._abandon(exc)
            raise
        try:
            return await self._commit(previous)
        finally:
            if self._window is not None:
                self._window.close()

    def _expects_new(self) -> bool:
        """Whether not to ask what this small put replaces: the last ones replaced nothing."""
        size = self._source.size
        return (
            self._if_revision is None
            and size is not None
            and 0 < size <= self._chunk_size  # a bucket that is gone shows with its chunk
            and self._bucket.new_names >= GUESS_AFTER
        )

    async def run_atomic(self) -> ObjectInfo:
        """:meth:`run` as one all-or-nothing batch."""
        bucket = self._bucket
        check_atomic(bucket, self._source.size, self._chunk_size)
        reading = bucket.start_leader_read(bucket.meta_subject(self._template.name))
        whole = AtomicPut(bucket, self._template, chunk_size=self._chunk_size, ttl=self._ttl)
        try:
            await whole.load(self._source, self._progress)
            previous = await self._previous(reading, bucket.meta_subject(self._template.name))
        finally:
            reading.close()
        self._check_condition(previous)
        patience = Patience(bucket)
        while True:
            try:
                return await whole.commit(*previous)
            except Conflict as conflict:
                if self._if_revision is not None or not await patience.again():
                    self._lost(conflict, previous[0])
                previous = (conflict.revision, conflict.current)

    # -- chunks -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._nuid = next_nuid()
        self._subject = chunk_subject(self._bucket.name, self._nuid)
        self._hasher = new_hasher()
        self._size = 0
        self._chunks = 0
        self._window: PublishWindow | None = None

    def _open_window(self, first: int = 0, last_seq: int = 0) -> PublishWindow:
        return PublishWindow(
            self._bucket.client,
            self._subject.encode(),  # of a bucket's name and a nuid, both checked
            self._bucket.stream,
            max_bytes=self._window_bytes,
            first=first,
            last_seq=last_seq,
            header=chunk_header(self._ttl),
        )

    async def _send_chunks(self) -> None:
        connection = self._bucket.client._connection
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
        while self._window is not None:
            try:
                await self._window.settle()
                break
            except NatsError as exc:
                await self._repair(exc)
        if self._window is not None and self._window.copies:
            await self._delete_copies()
        doubtful = self._repaired or connection.epoch != epoch or self._loop.time() - began > LONG
        if self._window is not None and doubtful:
            await self._check_count()  # what was acknowledged may be gone, or be there twice

    async def _send_pieces(self, chunker: Chunker) -> None:
        pieces: AsyncIterator[Any] = self._source.pieces()
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
        if self._window is None:
            self._window = self._open_window()
        try:
            await self._window.publish(chunk)
        except NatsError as exc:
            await self._repair(exc, chunk)
        # Hashed after it was handed to the kernel: the server works while we do.
        self._count(chunk)

    def _count(self, chunk: memoryview) -> None:
        self._hasher.update(chunk)
        self._chunks += 1
        self._size += len(chunk)
        if self._progress is not None:
            self._progress(self._size, self._source.size)

    async def _repair(self, failure: NatsError, refused: memoryview | None = None) -> None:
        """Make the stream hold exactly the chunks sent so far, and send those it lacks again.

        Args:
            failure: why the window failed.
            refused: the chunk that the failed window did not take any more.

        Raises:
            NatsError: what cannot be mended, translated.
            Unrepairable: the budget is used up, or the order cannot be restored.
        """
        bucket = self._bucket
        deadline = self._loop.time() + RETRY_BUDGET
        wait = FIRST_RETRY
        assert self._window is not None
        reached = self._window.acknowledged
        queued: deque[Any] = deque(() if refused is None else (refused,))
        self._repaired = True
        while True:
            window = self._window
            if isinstance(failure, OutOfOrderError):
                # Swapped on the way, or acknowledged and lost by a server that was killed: what lies before
                # cannot be trusted any more.
                await bucket.retrying(self._check_bucket)
                raise Unrepairable(
                    IntegrityError(
                        f"the chunks of {self._template.name!r} were not stored in order: {failure}",
                        bucket=bucket.name,
                        name=self._template.name,
                    )
                ) from failure
            if not retryable(failure):
                raise bucket.translate(failure, self._template.name) from failure
            if window.acknowledged > reached:  # progress: the budget counts from here
                reached = window.acknowledged
                deadline = self._loop.time() + RETRY_BUDGET
                wait = FIRST_RETRY
            if self._loop.time() > deadline:
                raise bucket.translate(failure, self._template.name) from failure
            await window.quiesce(SETTLE)
            window.close()
            try:
                await bucket.pause(wait, deadline)
                await self._delete_copies()
                await self._check_bucket()
                wait = min(wait * 2, LAST_RETRY)
                self._check_max_payload()
                pending = [*window.unproven.values(), *queued]
                stored, last_seq = await self._reconcile(window.last_seq, pending)
                self._window = window = self._open_window(window.acknowledged + stored, last_seq)
                queued = deque(pending[stored:])
                while queued:
                    await window.publish(queued[0])
                    queued.popleft()
                await window.settle()
                return
            except NatsError as exc:
                failure = exc

    async def _check_bucket(self) -> None:
        """A bucket deleted and made again has begun to count anew: what was acknowledged is gone."""
        bucket = self._bucket
        if (await bucket.js.stream_info(bucket.stream)).created != bucket.created:
            raise self._made_anew()

    def _made_anew(self) -> BucketNotFoundError:
        name = self._bucket.name
        return BucketNotFoundError(
            f"bucket {name!r} was deleted and created again meanwhile", bucket=name, name=self._template.name
        )

    def _check_max_payload(self) -> None:
        limit = self._bucket.client.max_payload
        if limit < self._chunk_size:
            raise MaxPayloadError(
                f"the server now connected to takes {limit} bytes, the chunks have {self._chunk_size}",
                size=self._chunk_size,
                max_payload=limit,
            )

    async def _reconcile(self, last_seq: int, unproven: list[Any]) -> tuple[int, int]:
        """Compare what is stored after ``last_seq`` with the chunks whose fate is unknown.

        Returns how many of them are stored, in order, and the sequence of the last of those; whatever is
        stored beyond is deleted.
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
            else:
                strays.append(seq)
        for stray in strays:
            await self._delete(stray)
        return matched, proven

    async def _delete(self, seq: int) -> None:
        try:
            await self._bucket.js.delete_message(self._bucket.stream, seq)
        except MessageNotFoundError:
            pass

    async def _delete_copies(self) -> None:
        """Remove what something on the way has doubled; readers would take it for damage."""
        window = self._window
        while window is not None and window.copies:
            seq = window.copies.pop()
            await self._bucket.retrying(lambda seq=seq: self._delete(seq))  # type: ignore[misc]

    async def _stored_after(self, seq: int) -> StoredMessage | None:
        bucket = self._bucket
        try:
            return await bucket.js.get_message(bucket.stream, seq=seq + 1, next_by_subject=self._subject)
        except MessageNotFoundError:
            return None

    async def _check_count(self) -> None:
        """A copy may have arrived late, a killed server have lost a chunk, a bucket been made anew."""
        bucket = self._bucket
        counts = await bucket.retrying(lambda: bucket.js.stream_subjects(bucket.stream, self._subject))
        stored = counts.get(self._subject, 0)
        if stored != self._chunks:
            await bucket.retrying(self._check_bucket)
            raise Unrepairable(
                IntegrityError(
                    f"{stored} chunks are stored where {self._chunks} were sent",
                    bucket=bucket.name,
                    name=self._template.name,
                )
            )

    # -- meta -------------------------------------------------------------------------------------

    async def _previous(self, reading: Any, subject: str) -> tuple[int, ObjectInfo | None]:
        """Revision and meta of what the put replaces; the meta is ``None`` when there is none to read."""
        bucket = self._bucket
        try:
            message = await bucket.finish_leader_read(reading)
        except NatsError as exc:
            if not retryable(exc):
                raise
            message = await bucket.leader_message(subject)
        if message is None:
            return 0, None
        try:
            return message.seq, bucket.decode(message)
        except MetaDecodeError:
            return message.seq, None  # unreadable: replaced, but nothing of it is purged

    def _check_condition(self, previous: tuple[int, ObjectInfo | None]) -> None:
        """Fail early what compare-and-set would refuse anyway."""
        if self._if_revision is None:
            return
        revision, info = previous
        absent = revision == 0 or (info is not None and info.deleted)
        if self._if_revision == 0 and absent:
            return
        if self._if_revision != revision:
            self._lost(Conflict(revision, info), self._if_revision)

    def _lost(self, conflict: Conflict, expected: int | None) -> NoReturn:
        name = self._template.name
        if self._must_not_exist:
            raise ObjectAlreadyExists(
                f"{name!r} exists in bucket {self._bucket.name!r}",
                bucket=self._bucket.name,
                name=name,
                revision=conflict.revision,
            )
        raise lost_race(self._bucket, name, expected, conflict)

    async def _commit(self, previous: tuple[int, ObjectInfo | None]) -> ObjectInfo:
        bucket = self._bucket
        digest = self._hasher.digest()
        info = complete(
            self._template,
            nuid=self._nuid,
            size=self._size,
            chunks=self._chunks,
            digest=hex_digest(digest),
            mtime=datetime.now(UTC),
        )
        patience: Patience | None = None
        while True:
            expected, old = previous
            commit: Commit | None = None
            try:
                if old is not None:
                    await finish_rename(bucket, old)
                payload = encode_meta(info, digest)
                commit = Commit(bucket, info.name, payload, expected=expected, nuid=self._nuid, ttl=self._ttl)
                revision = await commit.run(partial(self._after_cancel, old))
            except Conflict as conflict:
                previous = (conflict.revision, conflict.current)
                bucket.new_names = 0
                patience = patience or Patience(bucket)
                try:
                    again = self._if_revision is None and await patience.again()
                except BaseException as exc:
                    await self._abandon(exc)
                    raise
                if not again:
                    await self._abandon(conflict)
                    self._lost(conflict, expected)
            except (OutcomeUnknownError, asyncio.CancelledError) as exc:
                # Unknown: the chunks may be referenced. Cancelled: _after_cancel() has seen to them.
                if commit is None:
                    await self._abandon(exc)
                raise
            except BaseException as exc:
                await self._abandon(exc)
                raise
            else:
                if self._window is not None and revision <= self._window.last_seq:
                    await bucket.shielded(self._retract(revision))
                    raise self._made_anew()
                copies = self._window is not None and self._window.copies
                if self.counts_afterwards or copies or self._replaced(old):
                    await bucket.shielded(self._committed(old))
                expires = None if self._ttl is None else info.mtime + self._ttl
                return as_stored(info, revision, expires)

    async def _after_cancel(self, old: ObjectInfo | None, revision: int | None) -> None:
        await (self._cleanup() if revision is None else self._committed(old))

    async def _retract(self, revision: int) -> None:
        """The meta went into a bucket made anew, without its chunks: remove what is ours there."""
        await self._bucket.retrying(lambda: self._delete(revision))
        await self._cleanup()

    async def _committed(self, old: ObjectInfo | None) -> None:
        try:
            await self._delete_copies()  # the answers to copies have come, at the latest, before the meta's
        except NatsError as exc:
            log.warning("a doubled chunk of %r could not be removed: %s", self._template.name, exc)
        await self._discard(old)

    async def _discard(self, old: ObjectInfo | None) -> None:
        """Remove the chunks of exactly the revision that was replaced."""
        if old is not None and self._replaced(old) and not await shares_chunks(self._bucket, old):
            await self._bucket.discard_chunks(old, "put")

    def _replaced(self, old: ObjectInfo | None) -> bool:
        """Whether the revision that was replaced has chunks of its own."""
        return old is not None and not old.deleted and old.chunks > 0 and old.nuid != self._nuid

    async def _abandon(self, why: BaseException) -> None:
        """Remove the chunks of a put that failed; runs to its end even when cancelled (again).

        A cancelled put gets less time than one that failed: somebody waits for it to be gone.
        """
        self._hurry = isinstance(why, asyncio.CancelledError)
        await self._bucket.shielded(self._cleanup())

    async def _cleanup(self) -> None:
        window = self._window
        if window is None:
            return
        settle, purge = (HURRY / 2, HURRY / 2) if self._hurry else (SETTLE, PURGE)
        # A chunk still on its way would survive the purge.
        await window.quiesce(settle)
        window.close()
        reason: object = f"not done within {seconds(purge)} s"
        try:
            async with asyncio.timeout(purge):
                await self._bucket.purge_chunks(self._nuid)
            return
        except NatsError as exc:
            reason = exc
        except TimeoutError:
            pass
        log.warning("chunks %r in bucket %r are left behind: %s", self._nuid, self._bucket.name, reason)


def put(
    bucket: Bucket,
    name: str,
    data: ObjectData,
    about: About,
    *,
    options: ObjectMetaOptions | None,
    chunk_size: int | None,
    if_revision: int | None,
    window: int | None,
    progress: Progress | None,
    ttl: timedelta | None = None,
    atomic: bool = False,
    must_not_exist: bool = False,
) -> Coroutine[Any, Any, ObjectInfo]:
    """Prepare one put, and return what runs it; arguments as :meth:`ObjectStore.put` and :func:`prepare`."""
    template, size = prepare(bucket, name, about, options, chunk_size, ttl, BATCH_ROOM if atomic else 0)
    if window is not None and (not isinstance(window, int) or isinstance(window, bool) or window <= 0):
        raise BadObjectMetaError("window must be a positive number of bytes", bucket=bucket.name, name=name)
    work = Put(
        bucket,
        template,
        open_source(data),
        chunk_size=size,
        if_revision=if_revision,
        must_not_exist=must_not_exist,
        window=DEFAULT_WINDOW if window is None else window,
        progress=progress,
        ttl=ttl,
    )
    return work.run_atomic() if atomic else work.run()
