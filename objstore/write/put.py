"""Storing an object: chunks through a window of unacknowledged publishes, then one meta message.

How the chunks get there, and how that is proven, is in ``write/chunks.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn, TypedDict

from natsproto.errors import NatsError
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.publisher import DEFAULT_WINDOW

from ..bucket.bucket import About, Bucket, log
from ..bucket.budget import HURRY, PURGE, SPENT, Budget
from ..bucket.capacity import Guard
from ..bucket.locate import Lookup
from ..bucket.operation import Progress, check_callback
from ..bucket.ttl import chunk_header
from ..commit.commit import Commit, Conflict, Patience, lost_race, standing_of
from ..commit.discard import discard, remove_older
from ..commit.renames import finish_rename
from ..commit.states import Step
from ..errors import BadObjectMetaError, IntegrityError, ObjectAlreadyExists, OutcomeUnknownError
from ..format.codec import MetaDecodeError, encode_meta
from ..format.digest import hex_digest
from ..format.models import ObjectInfo, ObjectMetaOptions, as_stored, complete
from .atomic import AtomicPut, check_atomic
from .checks import prepare
from .chunks import SETTLE, ChunkSender
from .doubt import Unrepairable
from .source import ObjectData, Source, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..bucket.message_reads import MessageRead

BATCH_ROOM = 128
"""Bytes the headers of a batch take of every message."""

GUESS_AFTER = 4
"""So many puts to new names in a row let the next small one expect a new name, too."""


class NewNames:
    """How many puts of a handle in a row have replaced nothing."""

    def __init__(self, bucket: Bucket) -> None:
        self.in_a_row: int = 0

    def note(self, new: bool) -> None:
        """Take what one put has found under its name."""
        self.in_a_row = self.in_a_row + 1 if new else 0


RESTARTS = 2
"""How often a put starts over on a new nuid when its chunks cannot be repaired."""


class PutOptions(TypedDict, total=False):
    """The keywords of :meth:`objstore.ObjectStore.put`."""

    metadata: Mapping[str, str] | None
    options: ObjectMetaOptions | None
    chunk_size: int | None
    if_revision: int | None
    window: int | None
    progress: Progress | None
    ttl: timedelta | None
    atomic: bool


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
        end: when that ends, of what is stored once more.
    """

    counts_afterwards = False
    """Whether the chunks are counted after every commit."""

    header_room = 0
    """Bytes of further headers that each chunk has."""

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
        end: datetime | None = None,
    ) -> None:
        check_callback("progress", progress)
        self._ttl = ttl
        self._end = end
        self._bucket = bucket
        self._template = template
        self._source = source
        self._chunk_size = chunk_size
        self._if_revision = if_revision
        self._must_not_exist = must_not_exist
        self._window_bytes = max(window, chunk_size)
        self._progress = progress
        self._loop = bucket.connection.loop
        header = len(chunk_header(ttl)) + self.header_room
        self._guard = Guard(bucket, template, source.size, chunk_size, header)
        self._budget = Budget(bucket.retry_budget)
        self._begun = 0
        self._repaired = False
        self._hurry = False
        self._patience: Patience | None = None
        self._overtaken = False  # the name may have been written after our first chunk
        self._meta_subject: str | None = None  # where the commit goes, when it is not the name's own
        self._located: Lookup | None = None  # where else the name is filed

    async def run(self) -> ObjectInfo:
        """Store the object; returns its info with the revision the server gave it."""
        bucket = self._bucket
        # The previous meta is asked for beside the first chunks: one round trip less.
        reading = None if self._expects_new() else self._start_reading()
        # A guess that costs little: the commit replaces nothing, or is refused and says what to read.
        previous: tuple[int, ObjectInfo | None] | None = (0, None) if reading is None else None
        self._begin()
        try:
            if self._if_revision is not None:
                previous = await self._previous(reading)
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
                previous = await self._previous(reading)
                bucket.remembered(NewNames).note(previous[0] == 0)
                # Asked before the first chunk, and answered after it.
                self._overtaken |= self._window is not None and previous[0] > self._window.first_seq
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
            and self._bucket.remembered(NewNames).in_a_row >= GUESS_AFTER
        )

    async def run_atomic(self) -> ObjectInfo:
        """:meth:`run` as one all-or-nothing batch."""
        bucket = self._bucket
        check_atomic(bucket, self._source.size, self._chunk_size)
        reading = self._start_reading()
        whole = AtomicPut(bucket, self._template, chunk_size=self._chunk_size, ttl=self._ttl)
        try:
            await self._guard.begin()
            await whole.load(self._source, self._progress)
            previous = await self._previous(reading)
            self._check_condition(previous)
            expected, old = previous
            await finish_rename(bucket, old)
            if self._located is not None:
                await remove_older(bucket, self._located, old)
            before = self._before()
            commit = whole.commit(expected, old, before, self._discard, self._meta_subject)
            revision = await commit.run()
        except Conflict as conflict:
            self._lost(conflict, expected)
        finally:
            reading.close()
            self._guard.close()
        kept = commit.kept
        if kept is not None:
            return kept
        expires = None if self._ttl is None else whole.info.mtime + self._ttl
        return replace(whole.info, revision=revision, expires=expires)

    # -- meta -------------------------------------------------------------------------------------

    def _start_reading(self) -> MessageRead | Lookup:
        """Ask what is there; a condition is about the name, wherever other clients may have filed it."""
        name = self._template.name
        if self._if_revision is not None:
            return self._bucket.start_locating(name)
        return self._bucket.leader_read(self._bucket.meta_subject(name))

    async def _previous(self, reading: MessageRead | Lookup | None) -> tuple[int, ObjectInfo | None]:
        """Revision and meta of what the put replaces; the meta is ``None`` when there is none to read."""
        bucket = self._bucket
        if isinstance(reading, Lookup):
            self._meta_subject, message = await reading.wait()
            self._located = reading
        else:
            assert reading is not None
            try:
                message = await reading.wait()
            except NatsError as exc:
                if not retryable(exc):
                    raise
                message = await bucket.leader_message(bucket.meta_subject(self._template.name))
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
        conflict = Conflict(*previous)
        if self._if_revision == 0 and conflict.absent:
            return
        if self._if_revision != conflict.revision:
            self._lost(conflict, self._if_revision)

    def _lost(self, conflict: Conflict, expected: int | None) -> NoReturn:
        name = self._template.name
        if self._must_not_exist and not conflict.absent:
            raise ObjectAlreadyExists(
                f"{name!r} exists in bucket {self._bucket.name!r}",
                bucket=self._bucket.name,
                name=name,
                revision=conflict.revision,
            )
        raise lost_race(self._bucket, name, expected, conflict)

    async def _commit(self, previous: tuple[int, ObjectInfo | None]) -> ObjectInfo:
        bucket = self._bucket
        self._overtaken |= self._chunks > 0 and self._idle > self.idle_limit
        digest = self._hasher.digest()
        info = complete(
            self._template,
            nuid=self._nuid,
            size=self._size,
            chunks=self._chunks,
            digest=hex_digest(digest),
            mtime=datetime.now(UTC),
        )
        expected, old = previous
        try:
            if old is not None:
                await finish_rename(bucket, old)
            if self._located is not None:
                await remove_older(bucket, self._located, old)
            commit = Commit(
                bucket,
                info.name,
                encode_meta(info, digest),
                expected=expected,
                nuid=self._nuid,
                subject=self._meta_subject,
                ttl=self._ttl,
                end=self._end,
                replaces=old,
                owns=info,
                after=self._last_chunk,
                before=self._before(),
                discard=self._discard,
            )
        except BaseException as exc:
            await self._abandon(exc)
            raise
        try:
            revision = await commit.run(self._undo)
        except Conflict as conflict:
            await self._abandon(conflict)
            self._lost(conflict, expected)
        except OutcomeUnknownError:
            raise  # the chunks may be needed
        except asyncio.CancelledError:
            # The commit has seen to the chunks, but for those that came twice.
            if commit.states.step in (Step.DONE, Step.KEPT) and self._counts():
                await self._tidy()
            raise
        except BaseException as exc:
            if commit.states.certain:
                await self._abandon(exc)
            raise
        if revision <= self._last_chunk:
            await bucket.shielded(self._retract(commit))
            raise self._made_anew()
        if self._counts():
            await bucket.shielded(self._committed())
        kept = commit.kept
        if kept is not None:
            return kept
        expires = None if self._ttl is None else self._end or info.mtime + self._ttl
        return as_stored(info, revision, expires)

    @property
    def _last_chunk(self) -> int:
        """The sequence of the last chunk: the meta comes after it."""
        return 0 if self._window is None else self._window.last_seq

    async def _undo(self) -> None:
        self._hurry = True
        await self._cleanup()

    def _before(self) -> Callable[[Conflict], Awaitable[bool]] | None:
        """What to do about a meta that stands in the way of the commit; ``None``: it is a conflict."""
        if self._if_revision is None:
            return self._stand_back
        return self._still_absent if self._if_revision == 0 else None

    async def _still_absent(self, conflict: Conflict) -> bool:
        """Go on where nothing lives: the delete marker that was to be replaced was removed, or is another."""
        return conflict.absent and await self._stand_back(conflict)

    async def _stand_back(self, conflict: Conflict) -> bool:
        """The last writer wins: get ready to replace what came in between; false when it has been enough."""
        self._bucket.remembered(NewNames).note(False)
        if self._begun:  # else all is one batch
            # Where nothing stands any more it was removed just now, with whatever it named.
            after = self._last_chunk and not 0 < conflict.revision <= self._last_chunk
            self._overtaken |= bool(self._chunks > 1 or after)
        if self._patience is None:
            self._patience = Patience(self._bucket)
        if not await self._patience.again():
            return False
        await finish_rename(self._bucket, conflict.current)
        return True

    async def _retract(self, commit: Commit) -> None:
        """The meta went into a bucket made anew, without its chunks: remove what is ours there."""
        bucket = self._bucket
        subject = self._meta_subject or bucket.meta_subject(self._template.name)
        standing = standing_of(bucket, await bucket.leader_message(subject))
        if standing.msg_id == commit.states.msg_id:
            await self._delete(standing.revision)
        await self._cleanup()

    async def _tidy(self) -> None:
        """:meth:`_committed` for a caller who was cancelled: it goes on, and is waited for for a moment."""

        async def tidy() -> None:
            try:
                await self._committed()
            except NatsError as exc:
                log.warning("after a cancelled put of %r: %s", self._template.name, exc)

        task = self._bucket.connection.spawn(tidy(), "objstore-tidy", due=True)
        await asyncio.wait([task], timeout=1.0)

    def _counts(self) -> bool:
        """Whether a commit leaves the chunks in doubt.

        The answers to copies have come, at the latest, before the meta's. And where the name was written
        after the chunks, and a forged meta names them, somebody may have taken them for a renamed object's.
        """
        return bool(self.counts_afterwards or self._doubts or self._overtaken)

    async def _committed(self) -> None:
        try:
            await self._check_again()
        except IntegrityError:
            raise
        except NatsError as exc:
            log.warning("the chunks of %r could not be looked at again: %s", self._template.name, exc)

    async def _discard(self, old: ObjectInfo) -> None:
        """Remove the chunks of exactly the revision that was replaced."""
        await discard(self._bucket, old, "put", self._meta_subject)

    async def _abandon(self, why: BaseException) -> None:
        """Remove the chunks of a put that failed; runs to its end even when cancelled (again).

        A cancelled put gets less time than one that failed: somebody waits for it to be gone.
        """
        self._hurry = isinstance(why, asyncio.CancelledError)
        await self._bucket.shielded(self._cleanup())

    async def _cleanup(self) -> None:
        window, self._window = self._window, None  # once is enough
        if window is None:
            return
        left = self._budget.left if self._repaired else self._budget.seconds - window.silent
        limit = HURRY if self._hurry else min(max(SPENT, left / 2), SETTLE + PURGE)
        reason: object = f"not done within {limit:.2g} s"
        deadline = self._loop.time() + limit
        # A chunk still on its way would survive the purge.
        await window.quiesce(min(SETTLE, limit / 2))
        window.close()
        try:
            async with asyncio.timeout_at(deadline):
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
) -> Coroutine[object, None, ObjectInfo]:
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
