"""Enumerate a bucket: names without reading metas, metas page by page, directories."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from natsproto.backoff import Backoff
from natsproto.errors import (
    APIError,
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    StaleConnectionError,
)
from natsproto.jetstream.api.errors import ConsumerNotFoundError, retryable
from natsproto.jetstream.in_flight import in_flight
from natsproto.jetstream.ordered import DELETE_TIMEOUT, forget_consumers
from natsproto.jetstream.pull import PullConsumer
from natsproto.subjects import secret_name

from ..bucket.at_once import run_all
from ..bucket.bucket import Bucket
from ..bucket.ways import ANY_WAY, PAGES
from ..format.marks import shown
from ..format.naming import all_meta_subject, decode_meta_name
from ..format.records import Record
from .decode import OnInvalid, meta_reader, read_stored, report_invalid, warn_invalid
from .metas import (
    LeaderEnd,
    finish_following,
    following,
    meta_subjects,
    newest_metas,
    of_meta_subjects,
)
from .newest import AT_ONCE, each_newest
from .shown import each_shown, show_newest

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import ConsumerInfo, StoredMessage
    from natsproto.jetstream.message import JetStreamMsg

    from ..format.models import InvalidMeta, ObjectInfo

PAGE_BYTES = 8 * 1024 * 1024
"""Bytes that a page, and so an iteration, holds in memory; a single meta may be larger."""

PAGE = 500
"""Metas fetched at a time."""

FIRST_PAGE = 8
"""Metas fetched while their size is unknown."""

WHOLE = 10_000
"""Names up to which a bucket with replicas is read whole before the first result. In a larger bucket, a name
that was replaced just before the call may be returned twice: in its old and in its new state."""

ROUNDS = 10
"""Rounds in which concurrent changes are read, too. A name may be missed only if it is replaced in every
round before its turn comes. Without a bound an iteration would last as long as others write."""

FEW_ROUNDS = 2
"""Rounds where all names are known and one server has all metas: missing names are then requested."""

LOOKS_AT_ONCE = 16
"""Names stored under several subjects that are looked at at the same time."""

IDLE = 10_000_000_000
"""Nanoseconds between two pages after which the server removes the consumer; then a new one continues."""

START = 2.0
"""Seconds a new consumer may take to become known to the current server."""


@dataclass(frozen=True, slots=True)
class DirListing(Record):
    """One level of names.

    Attributes:
        prefixes: the levels below, each up to and including the delimiter, sorted.
        objects: the objects of this level, sorted by name.
    """

    prefixes: list[str]
    objects: list[ObjectInfo]


async def names(bucket: Bucket, prefix: str, *, live: bool) -> list[str]:
    """Return every name with a meta message, sorted; see :meth:`ObjectStore.names`."""
    found = None if live else await of_meta_subjects(bucket, _names_of)
    if found is None:
        try:
            metas = await newest_metas(bucket, lambda invalid: None)
            found = {info.name for info in metas if not (live and info.deleted)}
        except PermissionsViolationError:
            # Who may not read the metas may have their names: perhaps the connection was lost by accident.
            found = None if live else await of_meta_subjects(bucket, _names_of)
            if found is None:
                raise
    return sorted([name for name in found if name.startswith(prefix)] if prefix else found)


def _names_of(subjects: dict[str, int]) -> set[str]:
    return {name for name in map(decode_meta_name, subjects) if name is not None}


async def iterate(
    bucket: Bucket, prefix: str, *, include_deleted: bool, on_invalid: OnInvalid | None
) -> AsyncGenerator[ObjectInfo, None]:
    """Yield the newest meta of every name, read page by page; see :meth:`ObjectStore.iter`."""

    def wanted(info: ObjectInfo | None) -> bool:
        return info is not None and info.name.startswith(prefix) and (include_deleted or not info.deleted)

    await bucket.refresh()
    subjects = await meta_subjects(bucket)
    # Consumers of old servers skip messages when a meta is replaced meanwhile. A consumer whose server is
    # behind delivers metas that were replaced before the call. In both cases read all metas first.
    whole = bucket.consumers_skip or (bucket.replicated and subjects is not None and len(subjects) <= WHOLE)
    if not whole and bucket.ways.allowed(PAGES):
        yielded = False
        try:
            async with aclosing(_paged(bucket, wanted, subjects, on_invalid)) as metas:
                async for info in metas:
                    yielded = True
                    yield shown(info)
        except (PermissionsViolationError, APIError) as exc:
            if yielded or not bucket.ways.note_refusal(exc):
                raise
        else:
            return
    for info in await newest_metas(bucket, on_invalid):  # it can do without a consumer
        if wanted(info):
            yield shown(info)


async def _paged(
    bucket: Bucket,
    wanted: Callable[[ObjectInfo | None], bool],
    subjects: dict[str, int] | None,
    on_invalid: OnInvalid | None,
) -> AsyncGenerator[ObjectInfo, None]:
    """Iterate page by page, with one consumer after the other; see :func:`iterate`."""
    report = on_invalid or warn_invalid
    invalid: list[InvalidMeta] = []
    read = meta_reader(bucket, invalid.append)
    under_several_subjects = _stored_under_several(subjects or {})

    async def newest(info: ObjectInfo) -> bool:
        if info.name not in under_several_subjects:
            return True
        subject, message = await bucket.locate(info.name, ANY_WAY)
        if message is not None and message.seq > info.revision:
            message = await show_newest(bucket, subject, message)
        return message is None or message.seq <= info.revision

    lacking = set(subjects or ())
    unread: dict[str, int] = {}  # the sequence that a page has shown of a subject
    leader_end = LeaderEnd(bucket)
    pages = _Pages(bucket)
    rounds = ROUNDS if subjects is None or bucket.replicated else FEW_ROUNDS
    deadline, backoff = asyncio.get_running_loop().time() + bucket.retry_budget, Backoff()
    try:
        while rounds:
            while page := await pages.next():
                newer = await _newer(bucket, page) if pages.resumed else {}
                infos: list[ObjectInfo] = []
                for msg in page:
                    if newer.get(msg.subject, 0) > msg.metadata.stream_seq:
                        lacking.add(msg.subject)  # until the newer one comes
                        continue
                    found = read(msg.frame, msg.metadata)
                    if found is None:
                        if bucket.can_request(msg.subject):
                            lacking.add(msg.subject)  # see _Found.delivered()
                            unread[msg.subject] = msg.metadata.stream_seq
                        else:
                            report_invalid(report, invalid[-1])
                        invalid.clear()
                        continue
                    lacking.discard(msg.subject)
                    if wanted(found):
                        infos.append(found)
                current = [True] * len(infos)
                if under_several_subjects:
                    current = await run_all(map(newest, infos), LOOKS_AT_ONCE)
                for info, is_newest in zip(infos, current, strict=True):
                    if is_newest:
                        yield info
            # As for a list (see metas.py) the leader decides; its response comes during the deletion.
            proof = following(bucket, pages.cursor)
            try:
                await bucket.run_to_end(pages.close())
                message = await finish_following(bucket, pages.cursor, proof)
            finally:
                if proof is not None:
                    proof.close()
            reached = await leader_end.reached(pages.cursor)
            if message is None:
                # But a peer can have that answer sent to us, too.
                rounds = 0 if reached else rounds - 1
            elif reached:
                rounds -= 1
            else:  # the consumer's server is behind
                if asyncio.get_running_loop().time() > deadline:
                    raise StaleConnectionError("the leader has metas that no consumer delivers")
                await bucket.pause(backoff.seconds, deadline)
                backoff.grow()
        # A consumer gives no sign of the messages it has skipped.
        async with aclosing(_each_shown(bucket, list(lacking), unread)) as messages:
            async for message in messages:
                found = None if message is None else read_stored(bucket, message, report)
                if found is not None and wanted(found) and await newest(found):
                    yield found
    except NatsError as exc:
        error = bucket.translate(exc)
        raise error from (exc if error is not exc else None)
    finally:
        leader_end.close()
        # Also when cancelled: else the server would keep the consumer for minutes.
        await bucket.run_to_end(pages.close())


async def _each_shown(
    bucket: Bucket, subjects: list[str], shown_before: dict[str, int]
) -> AsyncGenerator[StoredMessage | None, None]:
    """Yield the newest message of each subject: the leader's if that was shown, else a consumer's."""
    doubted: list[tuple[str, StoredMessage | None]] = []
    async with aclosing(each_newest(bucket, subjects)) as answers:
        async for subject, message in answers:
            if message is not None and message.seq == shown_before.get(subject):
                yield message
                continue
            doubted.append((subject, message))
            if len(doubted) == AT_ONCE:
                async with aclosing(each_shown(bucket, doubted)) as messages:
                    async for _, message in messages:
                        yield message
                doubted = []
    async with aclosing(each_shown(bucket, doubted)) as messages:
        async for _, message in messages:
            yield message


async def _newer(bucket: Bucket, page: list[JetStreamMsg]) -> dict[str, int]:
    """Return the sequence of the newest meta of each subject of a page, as the leader has it.

    The first consumer delivers only the newest metas. A consumer that continues after it also delivers
    replaced metas that are still stored: by writers without roll-up, or because a killed server has forgotten
    that it removed them.
    """
    newest: dict[str, int] = {}
    async with aclosing(each_newest(bucket, list({msg.subject for msg in page}), whole=False)) as answers:
        async for subject, message in answers:
            # 0: deleted since; the copy on the page was current when it was read.
            newest[subject] = 0 if message is None else message.seq
    return newest


def _stored_under_several(subjects: dict[str, int]) -> set[str]:
    """Return the names that are stored under several subjects, by (old) clients with other encodings."""
    found = [name for name in map(decode_meta_name, subjects) if name is not None]
    once = set(found)
    if len(once) == len(found):
        return set()
    return {name for name, times in Counter(found).items() if times > 1}


def _size(msg: JetStreamMsg) -> int:
    frame = msg.frame
    return sum(map(len, (frame.subject, frame.reply or b"", frame.header or b"", frame.payload)))


class _Pages:
    """Pages of metas in stream order, from one consumer after the other.

    They end after as many metas as existed at the beginning, or after the last :meth:`close`: later ones were
    stored meanwhile, and may come for as long as others write.

    Attributes:
        cursor: sequence of the last meta returned.
        resumed: the consumer continues after another one.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.cursor = 0
        self.resumed = False
        self._bucket = bucket
        self._consumer: PullConsumer | None = None
        self._creating: asyncio.Task[ConsumerInfo] | None = None
        self._names: list[str] = []  # of all consumers that may exist
        self._received = 0  # consumer sequence of the last message
        self._left = 0
        self._due = -1  # metas to return before the next close; -1 = unknown
        self._batch = min(FIRST_PAGE, PAGE)
        self._each = PAGE_BYTES // FIRST_PAGE  # bytes that one is taken to have
        self._since = 0.0  # when the consumer was created

    async def next(self) -> list[JetStreamMsg]:
        """Return the next page; empty at the end.

        Raises:
            NatsError: nothing came within the retry budget.
        """
        bucket = self._bucket
        loop = asyncio.get_running_loop()
        deadline, backoff = loop.time() + bucket.retry_budget, Backoff()
        while True:
            try:
                if self._consumer is None:
                    await self._open()
                assert self._consumer is not None
                if not self._left or not self._due:
                    return []
                batch = self._batch
                size = min(PAGE_BYTES, batch * self._each + bucket.max_message)  # one of them may be larger
                async with in_flight(bucket.connection).during(size):
                    page = await self._consumer.fetch(
                        batch,
                        timeout=bucket.js.timeout,
                        max_bytes=size if batch > 1 else None,
                        no_wait=True,
                    )
                taken = self._take(page)
                if len(page) < batch and self._left:
                    # Perhaps the byte limit was reached. With "last_per_subject" the server (2.15) then skips
                    # the message that did not fit: a new consumer starts with it.
                    self.give_up()
                if page:
                    self._each = 2 * max(map(_size, page))  # the next metas may be larger
                    self._batch = max(1, min(PAGE, PAGE_BYTES // self._each))
                if taken:
                    return taken
                if loop.time() > deadline:
                    raise StaleConnectionError("the pages of metas hold only what was read before")
                if not page:
                    # What was pending has been removed; or a peer has had its own consumer say so.
                    await bucket.pause(backoff.seconds, deadline)
                    backoff.grow()
            except NatsError as exc:
                if isinstance(exc, APIError) and exc.code == 409 and self._batch > 1:
                    self.give_up()  # as above: the first meta alone was too large
                    self._batch = 1
                    continue
                # A new consumer is not known everywhere at once; a consumer that was known is gone.
                starting = isinstance(exc, NoRespondersError | ConsumerNotFoundError)
                if not (starting or retryable(exc)) or loop.time() + backoff.seconds > deadline:
                    raise
                if not (starting and loop.time() < self._since + START and not self._received):
                    self.give_up()
                await bucket.pause(backoff.seconds, deadline)
                backoff.grow()

    def _take(self, page: list[JetStreamMsg]) -> list[JetStreamMsg]:
        """Return the messages of a page that are new and in sequence.

        Raises:
            StaleConnectionError: its first message is not the next one.
        """
        taken: list[JetStreamMsg] = []
        for msg in page:
            delivery = msg.metadata
            if delivery.consumer_seq != self._received + 1:
                # A message was lost, or the consumer has started over: continue after what came.
                if taken:
                    self.give_up()
                    return taken
                raise StaleConnectionError("a page of metas arrived incomplete")
            self._received = delivery.consumer_seq
            self._left = delivery.num_pending
            if delivery.stream_seq > self.cursor:  # else from a server that is behind the previous one
                self.cursor = delivery.stream_seq
                self._due = max(0, self._due - 1)
                taken.append(msg)
        return taken

    async def _open(self) -> None:
        """Create a consumer for the metas after the cursor."""
        bucket = self._bucket
        name = secret_name()
        config: dict[str, object] = {
            "name": name,
            "deliver_policy": "by_start_sequence" if self.cursor else "last_per_subject",
            "filter_subject": all_meta_subject(bucket.name),
            "ack_policy": "none",
            "inactive_threshold": IDLE,
            "mem_storage": True,
            "num_replicas": 1,
        }
        resumed = self.cursor > 0
        if resumed:
            config["opt_start_seq"] = self.cursor + 1
        self._names.append(name)
        # A cancelled creation continues at the server: close() waits for its end and deletes the consumer.
        create = bucket.js.create_consumer(bucket.stream, config, timeout=bucket.consumer_timeout)
        self._creating = bucket.connection.spawn(create, "objstore-iter")
        try:
            info = await asyncio.shield(self._creating)
        except PermissionsViolationError as exc:
            if exc.certain:
                self._names.remove(name)  # there is none to delete, and that may be forbidden, too
            raise
        self._creating = None
        self._consumer = PullConsumer(bucket.js, info)
        self._received, self._left = 0, info.num_pending
        # A consumer that continues after the first also counts replaced metas that are still stored.
        known = self._due >= 0 and self.resumed
        self._due = min(self._due, info.num_pending) if known else info.num_pending
        self.resumed = resumed
        self._since = asyncio.get_running_loop().time()

    def give_up(self) -> None:
        """Continue with another consumer; :meth:`close` deletes this one."""
        self._consumer = None
        self._received = 0

    async def close(self) -> None:
        """Delete the consumers, within 2 s; the rest expire. The next page comes from a new consumer."""
        self.give_up()
        self._due = -1
        if self._creating is not None and not self._creating.done():
            await asyncio.wait([self._creating])
        names, self._names = self._names, []  # a cancelled close continues beside the next one
        try:
            async with asyncio.timeout(DELETE_TIMEOUT):
                while names:
                    await self._delete(names[-1])
                    names.pop()
        except (NatsError, TimeoutError):
            forget_consumers(self._bucket.js, self._bucket.stream, names)

    async def _delete(self, name: str) -> None:
        bucket = self._bucket
        subject = f"CONSUMER.DELETE.{bucket.stream}.{name}"
        with suppress(ConsumerNotFoundError):
            await bucket.retrying(lambda: bucket.js.request(subject), DELETE_TIMEOUT)


async def list_dirs(bucket: Bucket, prefix: str, delimiter: str) -> DirListing:
    """Return one level of names; see :meth:`ObjectStore.list_dirs`."""
    prefixes: set[str] = set()
    objects: list[ObjectInfo] = []
    for info in await newest_metas(bucket, None):
        if info.deleted or not info.name.startswith(prefix):
            continue
        head, found, _ = info.name[len(prefix) :].partition(delimiter)
        if found:
            prefixes.add(prefix + head + delimiter)
        else:
            objects.append(shown(info))
    return DirListing(sorted(prefixes), sorted(objects, key=lambda info: info.name))
