"""Storing an object: chunks through a window of unacknowledged publishes, then one meta message.

How the chunks get there, and how that is proven, is in ``_chunks.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NoReturn

from natsproto.errors import NatsError
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.publisher import DEFAULT_WINDOW

from ._atomic import AtomicPut, check_atomic
from ._bucket import About, Bucket, MetaDecodeError, log
from ._chunks import SETTLE, ChunkSender, Unrepairable
from ._commit import Commit, Conflict, Patience, lost_race
from ._prepare import prepare
from ._rename import finish_rename, shares_chunks
from ._source import ObjectData, Source, open_source
from .errors import (
    BadObjectMetaError,
    IntegrityError,
    ObjectAlreadyExists,
    OutcomeUnknownError,
)
from .format.codec import encode_meta
from .format.digest import hex_digest
from .format.models import ObjectInfo, ObjectMetaOptions, as_stored, complete

Progress = Callable[[int, "int | None"], None]

PURGE = 10.0
"""Seconds a failed put tries to purge its chunks; what is left then is for ``gc``."""

HURRY = 4.0
"""Seconds a cancelled put takes to wait for its acknowledgements and to purge."""

BATCH_ROOM = 128
"""Bytes the headers of a batch take of every message."""

GUESS_AFTER = 4
"""So many puts to new names in a row let the next small one expect a new name, too."""

RESTARTS = 2
"""How often a put starts over on a new nuid when its chunks cannot be repaired."""


class Put(ChunkSender):
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
                if self.counts_afterwards or self._doubts or self._replaced(old):
                    await bucket.shielded(self._committed(old))
                expires = None if self._ttl is None else info.mtime + self._ttl
                return as_stored(info, revision, expires)

    async def _after_cancel(self, old: ObjectInfo | None, revision: int | None) -> None:
        if revision is None:
            await self._cleanup()
            return
        try:
            await self._committed(old)
        except IntegrityError as exc:  # the caller gets the cancellation
            log.warning("put of %r, cancelled when it was committed: %s", self._template.name, exc)

    async def _retract(self, revision: int) -> None:
        """The meta went into a bucket made anew, without its chunks: remove what is ours there."""
        await self._bucket.retrying(lambda: self._delete(revision))
        await self._cleanup()

    async def _committed(self, old: ObjectInfo | None) -> None:
        damaged: IntegrityError | None = None
        if self._doubts:  # the answers to copies have come, at the latest, before the meta's
            try:
                await self._check_again()
            except IntegrityError as exc:
                damaged = exc
            except NatsError as exc:
                log.warning("the chunks of %r could not be looked at again: %s", self._template.name, exc)
        await self._discard(old)
        if damaged is not None:
            raise damaged

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
        reason: object = f"not done within {purge} s"
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
