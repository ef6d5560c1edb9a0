"""Store an object: chunks through a window of unacknowledged publishes, then one meta message.

``write/chunks.py`` sends the chunks, and proves that they are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn, TypedDict

from natsproto._values import seconds
from natsproto.errors import NatsError
from natsproto.jetstream.api.errors import retryable
from natsproto.jetstream.publisher import DEFAULT_WINDOW

from ..bucket.bucket import Bucket, UserMeta, log
from ..bucket.budget import HURRY, PURGE, SPENT, Budget
from ..bucket.capacity import Guard
from ..bucket.locate import Lookup
from ..bucket.operation import Progress, check_callback
from ..bucket.ttl import chunk_header, end_line
from ..commit.commit import (
    Commit,
    Conflict,
    ConflictBackoff,
    lost_race,
    standing_of,
    unknown_outcome,
)
from ..commit.discard import discard, purge_metas, remove_older
from ..commit.renames import finish_rename
from ..commit.states import Step
from ..errors import (
    BadObjectMetaError,
    BucketNotFoundError,
    IntegrityError,
    ObjectAlreadyExists,
    OutcomeUnknownError,
)
from ..format.codec import MetaDecodeError, encode_meta
from ..format.digest import hex_digest
from ..format.marks import was_moved
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
"""Bytes reserved per message for the headers of a batch."""

GUESS_AFTER = 4
"""Consecutive puts to new names after which a small put skips reading the previous meta."""


class NewNames:
    """Counts a handle's consecutive puts that replaced nothing."""

    def __init__(self, bucket: Bucket) -> None:  # Bucket.remembered passes itself
        self.in_a_row: int = 0

    def note(self, new: bool) -> None:
        """Record whether one put's name was new."""
        self.in_a_row = self.in_a_row + 1 if new else 0


RESTARTS = 2
"""Times that a put starts over on a new nuid when its chunks cannot be repaired."""


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
    size: int | None


class Put(ChunkSender):
    """One put of one object.

    Args:
        bucket: the bucket to store in.
        template: the object's info without its content: name, description, headers, metadata, options. It
            becomes the result.
        source: the source of the bytes.
        chunk_size: bytes of a chunk.
        if_revision: compare-and-set; ``None`` = last writer wins, 0 = absent or deleted.
        must_not_exist: report a conflict as ``ObjectAlreadyExists``.
        window: unacknowledged bytes.
        progress: called with ``(bytes sent, total or None)``.
        ttl: how long the object lives; ``None`` = for ever.
        end: the earlier expiry, to be kept when the same object is stored anew; ``None`` = now + ``ttl``.
    """

    __slots__ = (
        "_bucket",
        "_budget",
        "_chunk_size",
        "_end",
        "_guard",
        "_hurry",
        "_if_revision",
        "_located",
        "_loop",
        "_meta_subject",
        "_must_not_exist",
        "_patience",
        "_progress",
        "_source",
        "_template",
        "_ttl",
        "_window_bytes",
    )

    counts_afterwards = False
    """Whether to count the chunks after every commit."""

    header_room = 0
    """Bytes of additional headers of each chunk."""

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
        self._budget = Budget(bucket.retry_budget, self._loop)
        self._begun = 0
        self._repaired = False
        self._hurry = False
        self._patience: ConflictBackoff | None = None
        self._chunks_may_be_gone = False  # removed meanwhile: count them after the commit
        self._meta_subject: str | None = None  # subject of the commit, if it is not the name's own
        self._located: Lookup | None = None  # other subjects of the name

    async def run(self) -> ObjectInfo:
        """Store the object; return its info with the server's revision."""
        bucket = self._bucket
        # Request the previous meta beside the first chunks: this saves one round trip.
        reading = None if self._expects_new() else self._start_reading()
        # A cheap guess: the commit replaces nothing. If that is wrong, it is refused, and repeated with the
        # meta found then.
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
                # Requested before the first chunk, but read by the server after it.
                self._chunks_may_be_gone |= self._window is not None and previous[0] > self._window.first_seq
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
        """Whether this small put skips reading the previous meta: the last puts replaced nothing."""
        size = self._source.size
        return (
            self._if_revision is None
            and size is not None
            and 0 < size <= self._chunk_size  # its chunk reveals whether the bucket is gone
            and self._bucket.remembered(NewNames).in_a_row >= GUESS_AFTER
        )

    async def run_atomic(self) -> ObjectInfo:
        """Store the object as one all-or-nothing batch; see :meth:`run`."""
        bucket = self._bucket
        check_atomic(bucket, self._source.size, self._chunk_size)
        reading = self._start_reading()
        whole = AtomicPut(bucket, self._template, chunk_size=self._chunk_size, ttl=self._ttl)
        try:
            await self._guard.begin()
            await whole.load(self._source, self._progress)
            self._nuid = whole.info.nuid
            previous = await self._previous(reading)
            self._check_condition(previous)
            expected, old = previous
            await finish_rename(bucket, old)
            if self._located is not None:
                await remove_older(bucket, self._located, old)
            on_newer = self._on_newer()
            commit = whole.commit(expected, old, on_newer, self._discard, self._meta_subject)
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
        """Request the previous meta; a condition concerns the name under every client's subject."""
        name = self._template.name
        if self._if_revision is not None:
            return self._bucket.start_locating(name)
        return self._bucket.leader_read(self._bucket.meta_subject(name))

    async def _previous(self, reading: MessageRead | Lookup | None) -> tuple[int, ObjectInfo | None]:
        """Return revision and meta of what the put replaces; the meta is ``None`` if absent or unreadable."""
        bucket = self._bucket
        if isinstance(reading, Lookup):
            self._meta_subject, message = await reading.wait(expected=bool(self._if_revision))
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
            return message.seq, None  # unreadable: replace it, but purge none of its chunks

    def _check_condition(self, previous: tuple[int, ObjectInfo | None]) -> None:
        """Fail early if compare-and-set would refuse the commit anyway."""
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
        self._chunks_may_be_gone |= self._chunks > 0 and self._idle > self.idle_limit
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
                on_newer=self._on_newer(),
                discard=self._discard,
                conditional=self._if_revision is not None,
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
            # The commit has handled the chunks, except for duplicates.
            if commit.states.step in (Step.DONE, Step.KEPT) and self._must_recount():
                await self._recheck_in_background()
            raise
        except BaseException as exc:
            if commit.states.certain:
                await self._abandon(exc)
            raise
        too_early = revision <= self._last_chunk
        if too_early:
            await bucket.run_to_end(self._explain(commit))
        if too_early or self._must_recount():
            await bucket.run_to_end(self._recheck_chunks())
        kept = commit.kept
        if kept is not None:
            return kept
        expires = None if self._ttl is None else self._end or info.mtime + self._ttl
        return as_stored(info, revision, expires)

    @property
    def _last_chunk(self) -> int:
        """The sequence of the last chunk; the meta must have a higher one."""
        return 0 if self._window is None else self._window.last_seq

    async def _undo(self) -> None:
        self._hurry = True
        await self._cleanup()

    def _on_newer(self) -> Callable[[Conflict], Awaitable[bool]] | None:
        """Return what to do about a newer meta that blocks the commit; ``None``: report a conflict."""
        if self._if_revision is None:
            return self._prepare_to_overwrite
        return self._still_absent if self._if_revision == 0 else None

    async def _still_absent(self, conflict: Conflict) -> bool:
        """Continue if no live object exists: the expected delete marker was removed or replaced."""
        return conflict.absent and await self._prepare_to_overwrite(conflict)

    async def _prepare_to_overwrite(self, conflict: Conflict) -> bool:
        """The last writer wins: prepare to replace the newer meta; false after too many conflicts.

        Raises:
            OutcomeUnknownError: ours was renamed, so it was committed, and the refusal was forged.
        """
        if conflict.current is not None and was_moved(conflict.current, self._nuid):
            raise unknown_outcome(self._bucket, self._template.name, self._nuid)
        self._bucket.remembered(NewNames).note(False)
        if self._begun:  # 0 in run_atomic(), which sends no chunks of its own
            # If no meta exists any more, it was just removed, with the chunks it referred to.
            after = self._last_chunk and not 0 < conflict.revision <= self._last_chunk
            self._chunks_may_be_gone |= bool(self._chunks > 1 or after)
        if self._patience is None:
            self._patience = ConflictBackoff(self._bucket)
        if not await self._patience.again():
            return False
        await finish_rename(self._bucket, conflict.current)
        return True

    async def _explain(self, commit: Commit) -> None:
        """Find out why our meta has no higher sequence than our chunks: else an acknowledgement was forged.

        Raises:
            BucketNotFoundError: the bucket was recreated meanwhile.
            OutcomeUnknownError: the leader cannot be asked.
        """
        try:
            await self._bucket.check_same(self._template.name)
        except BucketNotFoundError:
            await self._retract(commit)
            raise
        except NatsError as exc:
            raise commit.unknown() from exc

    async def _retract(self, commit: Commit) -> None:
        """Remove our meta from a recreated bucket, which does not have its chunks."""
        bucket = self._bucket
        subject = self._meta_subject or bucket.meta_subject(self._template.name)
        standing = standing_of(bucket, await bucket.leader_message(subject))
        if standing.msg_id == commit.states.msg_id:
            await purge_metas(bucket, subject, standing.revision)
        await self._cleanup()

    async def _recheck_in_background(self) -> None:
        """Run :meth:`_recheck_chunks` for a cancelled caller, in the background; wait for it only briefly."""

        async def recheck() -> None:
            try:
                await self._recheck_chunks()
            except NatsError as exc:
                log.warning("after a cancelled put of %r: %s", self._template.name, exc)

        task = self._bucket.connection.spawn(recheck(), "objstore-recheck", due=True)
        await asyncio.wait([task], timeout=1.0)

    def _must_recount(self) -> bool:
        """Whether the chunks must be counted after the commit.

        Duplicates show up before the commit is acknowledged, and so may late copies of chunks that were sent
        again. And if another writer wrote the name after our chunks, they may be gone: a forged meta can make
        them look like those of a renamed object.
        """
        return bool(self.counts_afterwards or self._doubts or self._repaired or self._chunks_may_be_gone)

    async def _recheck_chunks(self) -> None:
        try:
            await self._check_again()
        except IntegrityError:
            raise
        except NatsError as exc:
            log.warning("the chunks of %r could not be checked again: %s", self._template.name, exc)

    async def _discard(self, old: ObjectInfo) -> None:
        """Remove the chunks of the replaced revision, and no others."""
        await discard(self._bucket, old, "put", self._meta_subject)

    async def _abandon(self, why: BaseException) -> None:
        """Remove the chunks of a failed put; finish even when cancelled (again).

        A cancelled put gets less time than a failed one: its caller waits for its end.
        """
        self._hurry = isinstance(why, asyncio.CancelledError)
        await self._bucket.run_to_end(self._cleanup())

    async def _cleanup(self) -> None:
        window, self._window = self._window, None  # a second call then does nothing
        if window is None:
            return
        left = self._budget.left if self._repaired else self._budget.seconds - window.silent
        limit = HURRY if self._hurry else min(max(SPENT, left / 2), SETTLE + PURGE)
        reason: object = f"not done within {seconds(limit)} s"
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
    about: UserMeta,
    *,
    options: ObjectMetaOptions | None,
    chunk_size: int | None,
    if_revision: int | None,
    window: int | None,
    progress: Progress | None,
    ttl: timedelta | None = None,
    end: datetime | None = None,
    atomic: bool = False,
    size: int | None = None,
    must_not_exist: bool = False,
) -> Coroutine[object, None, ObjectInfo]:
    """Prepare one put, return its coroutine; see :meth:`ObjectStore.put`, :func:`prepare`, :class:`Put`."""
    room = (BATCH_ROOM if atomic else 0) + len(end_line(end))
    template, bytes_each = prepare(bucket, name, about, options, chunk_size, ttl, room)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise BadObjectMetaError("size must be a number of bytes", bucket=bucket.name, name=name)
    source = open_source(data)
    if window is not None and (not isinstance(window, int) or isinstance(window, bool) or window <= 0):
        raise BadObjectMetaError("window must be a positive number of bytes", bucket=bucket.name, name=name)
    work = Put(
        bucket,
        template,
        source if size is None else source.sized(size),
        chunk_size=bytes_each,
        if_revision=if_revision,
        must_not_exist=must_not_exist,
        window=DEFAULT_WINDOW if window is None else window,
        progress=progress,
        ttl=ttl,
        end=end,
    )
    return work.run_atomic() if atomic else work.run()
