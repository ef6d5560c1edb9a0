"""A put that continues with the chunks of an earlier one, of this process or another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from datetime import datetime, timedelta
from math import inf
from secrets import token_bytes, token_hex
from typing import TYPE_CHECKING

from natsproto.errors import NatsError
from natsproto.jetstream.api.errors import WrongLastSequenceError
from natsproto.jetstream.publisher import MAX_MESSAGES

from ..bucket import numbered
from ..bucket.bucket import Bucket, log
from ..bucket.budget import HURRY, SPENT
from ..bucket.clock import server_time
from ..bucket.numbered import NUMBER_ROOM, SECRET_BYTES, NumberedWindow
from ..commit.commit import unknown_outcome
from ..errors import BadObjectMetaError, IntegrityError, OutcomeUnknownError, StoreFullError
from ..format.digest import hex_digest, new_hasher
from ..format.marks import was_moved
from ..format.naming import chunk_subject
from ..listing.metas import NamesNotSentError
from .chunks import MOST_FOREIGN, SETTLE
from .doubt import Unrepairable
from .put import Put
from .upload_holders import Holders, clocks, passed, withdraw

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage

    from ..bucket.operation import Progress
    from ..commit.commit import Conflict
    from ..format.memory import Payload
    from ..format.models import ObjectInfo
    from .source import Source

LOOK_EACH = 256
"""Chunks after which a sender checks whether another has committed the upload: one request per 32 MiB."""

PAUSE = 30.0
"""Seconds without a chunk, or without a check, after which a sender checks whether another has continued the
upload; at most a quarter of the time for which the server remembers numbers."""


async def same_content(source: Source, info: ObjectInfo) -> bool:
    """Whether the source has the bytes that a meta describes; reads it to the end."""
    hasher, size, pieces = new_hasher(), 0, source.pieces()
    try:
        async for piece in pieces:
            hasher.update(piece)
            size += memoryview(piece).nbytes
    finally:
        aclose = getattr(pieces, "aclose", None)
        if aclose is not None:
            await aclose()
    return size == info.size and hex_digest(hasher.digest()) == info.digest


async def age(bucket: Bucket, since: datetime) -> timedelta:
    """Return the age of a time, by the server's clock."""
    stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
    return server_time(stream) - since


class _Superseded(Exception):
    """An earlier commit of the chunks may already have been replaced; or they are wrong, for a ``reason``."""

    def __init__(self, reason: NatsError | None = None) -> None:
        super().__init__()
        self.reason = reason


class _Overtaken(Exception):
    """Another sender has committed the upload meanwhile: as ``info``, which may be renamed."""

    def __init__(self, info: ObjectInfo) -> None:
        super().__init__()
        self.info = info


class ResumedPut(Put):
    """A put on a nuid that may already have chunks, and that keeps them when it fails.

    An earlier put may have been committed, and replaced since: its successor is about to remove the chunks,
    and a new meta that refers to them would destroy the current object. Or the earlier commit may still be on
    its way, and would refer to chunks that are changed now. So

    * if the earlier commit is current, nothing is committed again;
    * no stored chunk is replaced or removed;
    * if all chunks are stored, they are committed only in place of a meta that is older than the last chunk:
      then no earlier commit has been stored, and none can be, since the revision has changed;
    * if chunks were missing, no commit was sent; or all chunks were removed after one: a late removal removes
      only chunks that are older than its meta.

    Otherwise the object is stored again, on another nuid.

    Another process may be sending with the same token, or may have slept and continue at any moment. So

    * a sender that starts to add chunks, or has paused, sends the next chunk alone, and only if no other
      sender has added one; else it compares that one, too. The numbers of later chunks prevent duplicates;
    * a sender whose number was already known compares before it sends, from then on; and at the end the
      stored chunks are read, not only counted;
    * every sender regularly checks whether another has committed, by number of chunks and by time, and always
      before its own commit (``upload_holders.py``);
    * a meta that is newer than the last chunk is not replaced: another sender may have committed before it;
    * a sender that has committed removes chunks after its last one. A sender that ends in any other way
      removes the chunks it has stored behind another sender's object.
    """

    counts_afterwards = True
    idle_limit = inf

    def _fence_header(self) -> bytes:
        """Return a header with an id, as all messages of an upload have: others count as a put's."""
        return b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % token_hex(8).encode()

    header_room = NUMBER_ROOM
    window_class = NumberedWindow

    def __init__(
        self,
        bucket: Bucket,
        template: ObjectInfo,
        source: Source,
        *,
        chunk_size: int,
        if_revision: int | None,
        progress: Progress | None,
        holders: Holders | None,
        secret: bytes,
    ) -> None:
        super().__init__(
            bucket, template, source, chunk_size=chunk_size, if_revision=if_revision, progress=progress
        )
        self._holders = holders
        self._fixed = None if holders is None else holders.nuid
        self._shared_secret = secret  # of the token: all its senders give the same ids to the same chunks
        self._restartable = self._source.restartable
        if holders is not None:
            self._source.restartable = False  # avoid another nuid: the token does not know it
        self._stored: AsyncGenerator[StoredMessage, None] | None = None
        self._last_time: datetime | None = None  # when the last compared chunk was stored
        self._looked = False  # whether others' chunks were checked for after some of ours
        self._mine: deque[int] = deque(maxlen=2 * MAX_MESSAGES)  # sequences of closed windows
        self._sent = (0.0, 0.0)
        self._beside = False  # another sender was seen to store the same chunks
        self._unread = False  # chunks whose number was known have not been compared yet

    async def run(self) -> ObjectInfo:
        """Store the object; see :meth:`Put.run`."""
        try:
            return await super().run()
        except _Overtaken as exc:
            await self._abandon(exc)  # our chunks behind the other sender's commit are not part of its object
            info = exc.info
            # The committed object may end where our read of the source has ended: that proves nothing.
            same = (
                self._all_hashed
                and info.size == self._size
                and info.digest == hex_digest(self._hasher.digest())
            )
            same = same or (self._restartable and await same_content(self._source, info))
            if same and self._holders is not None and await self._holders.is_upload(info):
                return info
            if not self._restartable:
                raise self._unknown() from None
            reason: object = "another process has committed other content"
        except (_Superseded, NamesNotSentError) as exc:
            await self._abandon(exc)
            cause = exc.reason if isinstance(exc, _Superseded) else exc
            if not self._restartable:
                raise cause or self._unknown() from None
            reason = cause or "those that are there may have been committed before"
        except BaseException as exc:
            # Also when our own commit is in doubt, or done: the current meta shows which chunks are surplus.
            self._hurry = isinstance(exc, asyncio.CancelledError)
            await self._bucket.run_to_end(self._take_back())
            raise
        log.warning("the upload of %r starts over on new chunks: %s", self._template.name, reason)
        self._fixed = None
        self._source.restartable = True
        self._guard.partial = False
        self._budget.progress()
        return await super().run()

    def _unknown(self) -> OutcomeUnknownError:
        bucket, name = self._bucket.name, self._template.name
        return OutcomeUnknownError(
            f"whether the upload of {name!r} to bucket {bucket!r} was stored before could not be found out, "
            f"and its source cannot be read again: begin another one; its chunks ({self._nuid}) are kept",
            bucket=bucket,
            name=name,
            nuid=self._nuid,
        )

    def _begin(self) -> None:
        super()._begin()
        self._first_seq = self._last_seq = self._fence = 0
        self._series = token_hex(8)  # of the number of the first chunk: a second first one is refused anyhow
        self._round = ""
        self._secret = token_bytes(SECRET_BYTES)
        if self._fixed is not None:
            self._nuid, self._secret = self._fixed, self._shared_secret
            self._subject = chunk_subject(self._bucket.name, self._nuid)

    def _expects_new(self) -> bool:
        return False  # the current meta must be read

    def _check_condition(self, previous: tuple[int, ObjectInfo | None]) -> None:
        if not self._ours(previous[1]):
            super()._check_condition(previous)

    async def _commit(self, previous: tuple[int, ObjectInfo | None]) -> ObjectInfo:
        if self._looked:  # the meta that was read before the chunks may be outdated
            previous = await self._previous(self._start_reading())
            self._check_condition(previous)
        revision, old = previous
        if self._renamed(old):
            raise _Superseded
        if old is not None and self._ours(old):
            sent = (self._size, self._chunks, hex_digest(self._hasher.digest()))
            if (old.size, old.chunks, old.digest) != sent or old.is_link:
                raise _Superseded  # it is damaged or forged, and these are other bytes
            return old
        if self._all_there and not 0 < revision <= self._last_seq:
            raise _Superseded
        self._check_replaces(revision)
        await self._check_free(revision)
        info = await super()._commit(previous)
        if self._fixed is not None and info.digest != hex_digest(self._hasher.digest()):
            raise _Superseded  # an earlier commit was stored, whose chunks differ from the current ones
        return info

    def _renamed(self, info: ObjectInfo | None) -> bool:
        """Whether another sender has committed the upload, and it was renamed since."""
        return self._fixed is not None and info is not None and was_moved(info, self._nuid)

    async def _prepare_to_overwrite(self, conflict: Conflict) -> bool:
        if self._renamed(conflict.current):
            raise _Superseded
        if conflict.current is not None and self._ours(conflict.current):
            raise _Overtaken(conflict.current)
        if self._all_there:
            raise _Superseded
        self._check_replaces(conflict.revision)
        await self._check_free(conflict.revision)
        return await super()._prepare_to_overwrite(conflict)

    def _check_replaces(self, revision: int) -> None:
        """Replace only a meta that is older than the last chunk.

        A newer one may have come after another sender's commit of these chunks: then they belong to a renamed
        object, or are about to be removed.

        Raises:
            _Superseded: the meta is newer.
        """
        if self._fixed is not None and self._chunks and revision > self._last_chunk:
            raise _Superseded

    async def _check_free(self, revision: int) -> None:
        """Commit in place of ``revision`` only if no other sender had committed the chunks before it.

        Raises:
            _Superseded: another sender had, or this is unknown, since the name keeps changing.
        """
        holders = self._holders
        if self._fixed is None or holders is None or holders.certainly_uncommitted(revision):
            return
        # A later revision makes the commit fail. Where none exists, one may have existed for a moment.
        if await holders.look() is not None or not (revision or holders.certainly_uncommitted(0)):
            raise _Superseded

    async def _holder(self) -> ObjectInfo | None:
        return None if self._holders is None else await self._holders.look()

    def _ours(self, info: ObjectInfo | None) -> bool:
        return self._fixed is not None and info is not None and not info.deleted and info.nuid == self._nuid

    @property
    def _all_there(self) -> bool:
        """Whether an earlier put may have sent its commit: no chunk was missing."""
        return self._fixed is not None and self._window is None and self._chunks > 0

    @property
    def _last_chunk(self) -> int:
        return self._last_seq if self._window is None else self._window.last_seq

    async def _send_chunks(self) -> None:
        if self._fixed is None:
            await super()._send_chunks()
            return
        self._stored = self._bucket.messages(self._subject)
        self._guard.partial = True
        try:
            await super()._send_chunks()
            await self._check_strays(None)
            if self._all_there:
                await self._check_age()
            if self._chunks:
                await self._check_stored()  # another process may be sending with the same token
        except Unrepairable as exc:
            raise _Superseded(exc.reason) from exc
        except StoreFullError as exc:
            if self._all_there:  # on 2.9 missing chunks are reported like this; none was sent
                raise _Superseded(exc) from exc
            raise
        finally:
            if self._stored is not None:
                await self._stored.aclose()

    async def _send(self, chunk: memoryview) -> None:
        if self._fixed is None:
            await super()._send(chunk)
            return
        if self._window is not None:
            if 0 in self._doubts:
                await self._go_beside()
            elif self._paused():
                await self._look_for_others()
            else:
                if self._chunks % LOOK_EACH == 0 or not self._has_looked():
                    await self._check_standing()  # chunks stored behind an object must be withdrawn
                await super()._send(chunk)
                return
        refused = again = False
        while True:
            if self._stored is not None:
                message = await anext(self._stored, None)
                while message is not None and not message.data:
                    self._note_fence(message)
                    message = await anext(self._stored, None)
                if message is not None and message.data == chunk:
                    self._last_seq, self._last_time = message.seq, message.time
                    self._first_seq = self._first_seq or message.seq
                    self._count(chunk)
                    return
                if self._beside and message is not None:
                    raise self._other_chunks()
                if message is None and (info := await self._holder()) is not None:
                    if not again:
                        again = True  # another sender's chunks and commit may have come after these were read
                        self._compare_on()
                        continue
                    if self._beside:
                        raise _Overtaken(info)
                    await self._check_uncommitted()
                await self._check_strays(message)
                if refused:  # no sender has added a chunk: the known ones were removed
                    raise _Superseded
            if await self._send_alone(chunk):
                self._count(chunk)
                return
            refused = True
            self._compare_on()

    def _note_fence(self, message: StoredMessage) -> None:
        """Note an empty message: a fence whose sender did not learn that it was stored."""
        self._fence = message.seq
        self._doubts.add(message.seq)
        if len(self._doubts) > MOST_FOREIGN:
            raise Unrepairable(self._flooded())

    def _paused(self) -> bool:
        """Whether the server may have forgotten the number of the last chunk by now."""
        before, self._sent = self._sent, clocks()
        return passed(before) > self._pause

    def _has_looked(self) -> bool:
        """Whether there was a check within that time: a slow source pauses before each chunk."""
        return self._holders is None or self._holders.looked_within(self._pause)

    @property
    def _pause(self) -> float:
        return PAUSE if self._holders is None else min(PAUSE, self._holders.remembers_for / 4)

    async def _send_alone(self, chunk: memoryview) -> bool:
        """Store the next chunk; false when another sender has added one to the known ones."""
        await self._check_age()
        if self._chunks >= self._guard.free:
            self._guard.admit(self._chunks, len(chunk))
        window = self._window = self._open_window(self._chunks, self._last_seq)
        window.expected = max(self._last_seq, self._fence)
        queued: memoryview | None = chunk
        try:
            await window.publish(chunk)
            queued = None
            await window.settle()
        except WrongLastSequenceError:
            self._close_window()
            return False
        except NatsError as exc:
            await self._repair(exc, queued)
        if not self._chunks:
            self._first_seq = self._last_chunk
        self._close_window()
        self._window = self._open_window(self._chunks + 1, self._last_seq)
        self._paused()
        return True

    async def _look_for_others(self) -> None:
        """After a pause, continue behind the chunks that are stored now.

        Raises:
            _Overtaken: another sender has committed the upload.
        """
        await self._settle()
        await self._check_standing()
        self._close_window()
        self._compare_on()

    async def _go_beside(self) -> None:
        """Compare from now on: another sender has stored our chunk, and may have stored the following ones.

        The server may forget their numbers before this sender gets there.
        """
        await self._settle()
        self._doubts.discard(0)
        self._beside = self._unread = True
        self._close_window()
        self._compare_on()

    def _other_chunks(self) -> Unrepairable:
        return Unrepairable(
            IntegrityError(
                "another process has stored other chunks of the same upload",
                bucket=self._bucket.name,
                name=self._template.name,
            )
        )

    async def _check_standing(self) -> None:
        info = await self._holder()
        if info is not None:
            raise _Overtaken(info)

    def _compare_on(self) -> None:
        self._looked = True
        self._stored = self._bucket.messages(self._subject, after=self._last_seq)

    def _open_window(self, first: int = 0, last_seq: int = 0) -> NumberedWindow:
        if self._window is not None:
            self._mine.extend(self._window.newest)
        window = super()._open_window(first, last_seq)
        assert isinstance(window, NumberedWindow)
        window.secret = self._secret
        window.series = f"{self._nuid}.{self._first_seq}" if self._first_seq else self._series
        window.series += self._round
        return window

    def _close_window(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            self._mine.extend(window.newest)
            self._last_seq = window.last_seq
            window.close()

    async def _check_age(self) -> None:
        """Continue only with chunks that no ``gc`` is about to remove.

        Raises:
            _Superseded: comparing them has taken too long.
        """
        bucket, last = self._bucket, self._last_time
        old = last is not None and await age(bucket, last) > numbered.GOES_ON
        if old and await self._holder() is None:
            raise _Superseded
        self._last_time = None

    async def _reconcile(self, last_seq: int, unproven: list[Payload]) -> tuple[int, int]:
        """Reconcile as a put does, but delete nothing: another sender may have committed the stored chunks.

        Raises:
            Unrepairable: other chunks are stored, or one is missing.
            _Overtaken: another sender has committed the upload.
        """
        if self._fixed is None:
            return await super()._reconcile(last_seq, unproven)
        await self._check_standing()
        self._sent = (0.0, 0.0)  # as after a pause
        matched, proven, seq = 0, last_seq, last_seq
        while matched < len(unproven):
            message = await self._stored_after(seq)
            if message is None:
                break
            seq = message.seq
            if message.data == unproven[matched]:
                matched, proven = matched + 1, seq
                self._budget.progress()
            elif not message.data:
                self._note_fence(message)
            else:
                name = self._template.name
                raise Unrepairable(
                    IntegrityError(
                        f"other chunks of {name!r} are stored than were sent",
                        bucket=self._bucket.name,
                        name=name,
                    )
                )
        return matched, proven

    async def _delete(self, seqs: list[int], beside: Collection[int] = ()) -> None:
        if seqs:
            self._round = f".{token_hex(4)}"  # the server still knows the numbers of the deleted messages
        await super()._delete(seqs, beside)

    async def _unacknowledged(self) -> set[int]:
        return set() if self._fixed is not None else await super()._unacknowledged()  # others send, too

    async def _check_stored(self) -> None:
        if self._fixed is not None and (self._unread or 0 in self._doubts):
            # A number was known: another sender has stored that chunk. Check its bytes.
            if not await self._remove(self._doubts - {0}):
                raise self._other_chunks()
            self._doubts.clear()
            self._unread = False
        await super()._check_stored()

    async def _check_strays(self, message: StoredMessage | None) -> None:
        """Give up the nuid if chunks are stored beyond those that match the source.

        Args:
            message: the first such chunk, if it was already read.
        """
        stored, self._stored = self._stored, None
        if stored is None:
            return
        if message is None:
            message = await anext(stored, None)
        await stored.aclose()
        if message is not None:
            await self._check_uncommitted()
            raise _Superseded

    async def _check_uncommitted(self) -> None:
        """Check that the chunks are not those of a committed, whole object.

        Raises:
            BadObjectMetaError: they are.
        """
        bucket, holders = self._bucket, self._holders
        whose = await self._holder()
        if whose is not None and holders is not None and await holders.is_upload(whose):
            raise BadObjectMetaError(
                f"the upload of {self._template.name!r} was committed already, with other content: begin "
                "another one",
                bucket=bucket.name,
                name=self._template.name,
            )

    async def _recheck_chunks(self) -> None:
        if not self._chunks:
            return
        try:
            if self._fixed is not None:
                # Chunks of another sender that came after our count belong to no object.
                after = self._bucket.messages(self._subject, after=self._last_chunk, leader=True)
                async with aclosing(after):
                    async for message in after:
                        self._doubts.add(message.seq)
                        if len(self._doubts) > MOST_FOREIGN:
                            raise self._flooded()
            await self._check_again()
        except IntegrityError:
            raise
        except NatsError as exc:  # it is committed: this failure must not look like a failed put
            raise unknown_outcome(self._bucket, self._template.name, self._nuid) from exc

    async def _cleanup(self) -> None:
        if self._fixed is None:
            await super()._cleanup()
            return
        if self._window is not None:
            await self._window.quiesce(HURRY / 2 if self._hurry else SETTLE)
            self._close_window()
        await self._take_back()

    async def _take_back(self) -> None:
        """Remove this sender's chunks behind another sender's commit, if there is one.

        It continues in the background for as long as necessary: no other client can do it.
        """
        if self._fixed is None or self._holders is None:
            return
        mine = [*self._mine, *(self._window.newest if self._window is not None else ())]
        self._mine.clear()
        if mine:
            taking = withdraw(self._holders, mine)
            task = self._bucket.connection.spawn(taking, "objstore-withdraw", due=True)
            left = self._budget.left if self._repaired else self._budget.seconds
            await asyncio.wait([task], timeout=HURRY / 2 if self._hurry else max(SPENT, left))
