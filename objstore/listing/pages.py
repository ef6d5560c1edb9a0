"""Enumerating a bucket: names without reading metas, metas one after the other, directories."""

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
from natsproto.jetstream.ordered import DELETE_TIMEOUT, forget_consumers
from natsproto.jetstream.pull import PullConsumer
from natsproto.subjects import secret_name

from ..bucket.bucket import Bucket
from ..bucket.message_reads import ANY_WAY
from ..format.models import shown
from ..format.naming import all_meta_subject, decode_meta_name
from .metas import (
    PROOF,
    Goal,
    OnInvalid,
    each_newest,
    finish_following,
    following,
    meta_reader,
    meta_subjects,
    newest_metas,
    read_stored,
    warn_invalid,
)

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import ConsumerInfo
    from natsproto.jetstream.message import JetStreamMsg

    from ..format.models import ObjectInfo

PAGE_BYTES = 8 * 1024 * 1024
"""Bytes of a page, unless it is a single meta: what an iteration holds in memory."""

PAGE = 500
"""Metas fetched at a time."""

FIRST_PAGE = 8
"""Metas fetched before it is known how large they are."""

WHOLE = 10_000
"""So many names of a bucket with replicas are read before the first one is told of. Of a larger one, a name
that was replaced just before the call may be told of twice: as it was, and as it is."""

ROUNDS = 10
"""How often what was changed meanwhile is read as well. A name is told of unless it is changed in each of
them, in the moment between; without a bound an iteration would last as long as others write."""

FEW_ROUNDS = 2
"""The same where all names are known, and one server has all metas: what is lacking then is asked for."""

IDLE = 10_000_000_000
"""Nanoseconds a page may be looked at before the server forgets the consumer; then another one goes on."""

START = 2.0
"""Seconds a consumer may take to become known to the server we are connected to."""


@dataclass(frozen=True, slots=True)
class DirListing:
    """One level of names.

    Attributes:
        prefixes: what goes on below, each up to and including the delimiter, sorted.
        objects: the objects of this level, sorted by name.
    """

    prefixes: list[str]
    objects: list[ObjectInfo]


async def names(bucket: Bucket, prefix: str, *, live: bool) -> list[str]:
    """Every name with a meta message, sorted; see :meth:`ObjectStore.names`."""
    subjects = None if live else await meta_subjects(bucket)
    if subjects is None:
        found = {
            info.name
            for info in await newest_metas(bucket, lambda invalid: None)
            if not (live and info.deleted)
        }
    else:
        found = {name for name in map(decode_meta_name, subjects) if name is not None}
    return sorted(name for name in found if name.startswith(prefix))


async def iterate(
    bucket: Bucket, prefix: str, *, include_deleted: bool, on_invalid: OnInvalid | None
) -> AsyncGenerator[ObjectInfo, None]:
    """The newest meta of every name, a page at a time; see :meth:`ObjectStore.iter`."""

    def wanted(info: ObjectInfo | None) -> bool:
        return info is not None and info.name.startswith(prefix) and (include_deleted or not info.deleted)

    subjects = await meta_subjects(bucket)
    # Consumers of old servers lose their place when a meta is replaced meanwhile; and one whose server is
    # behind tells of what was replaced before the call, which nobody can take back: read all at once.
    whole = bucket.skips_live or (bucket.replicated and subjects is not None and len(subjects) <= WHOLE)
    if not whole:
        told = False
        try:
            async with aclosing(_paged(bucket, wanted, subjects, on_invalid)) as metas:
                async for info in metas:
                    told = True
                    yield shown(info)
        except PermissionsViolationError as exc:
            if told or not bucket.note_refusal(exc):
                raise
            whole = True  # a list needs fewer rights
    if whole:
        for info in await newest_metas(bucket, on_invalid):
            if wanted(info):
                yield shown(info)


async def _paged(
    bucket: Bucket,
    wanted: Callable[[ObjectInfo | None], bool],
    subjects: dict[str, int] | None,
    on_invalid: OnInvalid | None,
) -> AsyncGenerator[ObjectInfo, None]:
    """:func:`iterate` by one consumer after the other."""
    report = on_invalid or warn_invalid
    read = meta_reader(bucket, report)
    several = _filed_twice(subjects or {})

    async def newest(info: ObjectInfo) -> bool:
        if info.name not in several:
            return True
        message = (await bucket.locate(info.name, ANY_WAY))[1]
        return message is None or message.seq <= info.revision

    lacking = set(subjects or ())
    goal = Goal(bucket)
    pages = _Pages(bucket)
    rounds = ROUNDS if subjects is None or bucket.replicated else FEW_ROUNDS
    try:
        while rounds:
            while page := await pages.next():
                newer = await _newer(bucket, page) if pages.resumed else {}
                for msg in page:
                    if newer.get(msg.subject, 0) > msg.metadata.stream_seq:
                        continue  # comes later
                    lacking.discard(msg.subject)
                    found = read(msg.frame, msg.metadata)
                    if found is not None and wanted(found) and await newest(found):
                        yield found
            # As for a list (see metas.py) the leader has the last word; it comes along with the deletion.
            proof = following(bucket, pages.cursor)
            try:
                await bucket.shielded(pages.close())
                message = await finish_following(bucket, pages.cursor, proof)
            finally:
                if proof is not None:
                    proof.close()
            for _ in range(PROOF):
                if message is None:
                    rounds = 0
                    break
                pages.cursor = message.seq
                latest = await bucket.leader_message(message.subject, ANY_WAY)
                replaced = latest is not None and latest.seq > message.seq  # as in _newer()
                if not replaced:
                    lacking.discard(message.subject)
                found = None if replaced else read_stored(bucket, message, report)
                if found is not None and wanted(found) and await newest(found):
                    yield found
                if await goal.reached(pages.cursor):
                    rounds -= 1
                    break
                message = await bucket.first_after(all_meta_subject(bucket.name), pages.cursor, ANY_WAY)
        # Nothing in what a consumer delivers tells of what it has left out.
        async with aclosing(each_newest(bucket, list(lacking))) as answers:
            async for _, message in answers:
                found = None if message is None else read_stored(bucket, message, report)
                if found is not None and wanted(found) and await newest(found):
                    yield found
    except NatsError as exc:
        error = bucket.translate(exc)
        raise error from (exc if error is not exc else None)
    finally:
        goal.close()
        # Also when cancelled: the server would keep the consumer for minutes.
        await bucket.shielded(pages.close())


async def _newer(bucket: Bucket, page: list[JetStreamMsg]) -> dict[str, int]:
    """Where the newest meta of each subject of a page lies, as the leader has it.

    The first consumer tells of nothing but the newest ones. One that goes on after it also tells of those
    that were replaced and are still stored: by writers without roll-up, or since a server that was killed has
    forgotten that it removed them.
    """
    newest: dict[str, int] = {}
    async with aclosing(each_newest(bucket, list({msg.subject for msg in page}))) as answers:
        async for subject, message in answers:
            # What is gone by now was there when it was read.
            newest[subject] = 0 if message is None else message.seq
    return newest


def _filed_twice(subjects: dict[str, int]) -> set[str]:
    """Names that clients with other encodings have filed under another subject as well (old ones have)."""
    found = [name for name in map(decode_meta_name, subjects) if name is not None]
    once = set(found)
    if len(once) == len(found):
        return set()
    return {name for name, times in Counter(found).items() if times > 1}


def _size(msg: JetStreamMsg) -> int:
    return len(msg.frame.payload) + len(msg.frame.header or b"") + 1


class _Pages:
    """Pages of metas in stream order, from one consumer after the other.

    They end with as many metas as there were at the beginning, or after the last :meth:`close`: what comes
    beyond was stored meanwhile, and may go on for as long as others write.

    Attributes:
        cursor: sequence of the last meta handed out.
        resumed: the consumer goes on after another one.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.cursor = 0
        self.resumed = False
        self._bucket = bucket
        self._consumer: PullConsumer | None = None
        self._creating: asyncio.Task[ConsumerInfo] | None = None
        self._names: list[str] = []  # of all consumers there may be
        self._received = 0  # consumer sequence of the last message
        self._left = 0
        self._due = -1  # metas to hand out before the next close; -1 = not known
        self._batch = min(FIRST_PAGE, PAGE)
        self._since = 0.0  # when the consumer was made

    async def next(self) -> list[JetStreamMsg]:
        """The next page; empty at the end.

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
                page = await self._consumer.fetch(
                    batch,
                    timeout=bucket.js.timeout,
                    max_bytes=PAGE_BYTES if batch > 1 else None,
                    no_wait=True,
                )
                taken = self._take(page)
                if len(page) < batch and self._left:
                    # The bytes may have been too many. Where the newest metas only are asked for, the server
                    # (2.15) goes on behind the one that did not fit: it is another consumer's first.
                    self.give_up()
                if page:
                    # Half of the bytes: the next ones may be larger.
                    self._batch = max(1, min(PAGE, PAGE_BYTES // 2 // max(map(_size, page))))
                if taken or not page:
                    return taken
                if loop.time() > deadline:
                    raise StaleConnectionError("the pages of metas hold nothing but what was read before")
            except NatsError as exc:
                if isinstance(exc, APIError) and exc.code == 409 and self._batch > 1:
                    self.give_up()  # as above: the first one alone was too large
                    self._batch = 1
                    continue
                # A consumer just made is not known everywhere at once; one that was known is gone.
                starting = isinstance(exc, NoRespondersError | ConsumerNotFoundError)
                if not (starting or retryable(exc)) or loop.time() + backoff.seconds > deadline:
                    raise
                if not (starting and loop.time() < self._since + START and not self._received):
                    self.give_up()
                await bucket.pause(backoff.seconds, deadline)
                backoff.grow()

    def _take(self, page: list[JetStreamMsg]) -> list[JetStreamMsg]:
        """What of a page is new and in its place.

        Raises:
            StaleConnectionError: its first message is not the next one.
        """
        taken: list[JetStreamMsg] = []
        for msg in page:
            delivery = msg.metadata
            if delivery.consumer_seq != self._received + 1:
                # Lost on the way, or the consumer has started over: go on after what came.
                if taken:
                    self.give_up()
                    return taken
                raise StaleConnectionError("a page of metas did not come whole")
            self._received = delivery.consumer_seq
            self._left = delivery.num_pending
            if delivery.stream_seq > self.cursor:  # else from a server that is behind the one before
                self.cursor = delivery.stream_seq
                self._due = max(0, self._due - 1)
                taken.append(msg)
        return taken

    async def _open(self) -> None:
        """Make a consumer for what follows the cursor."""
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
        # A cancelled creation goes on at the server: close() waits for its end, to delete what it made.
        create = bucket.js.create_consumer(bucket.stream, config, timeout=bucket.patience)
        self._creating = bucket.connection.spawn(create, "objstore-iter")
        info = await asyncio.shield(self._creating)
        self._creating = None
        self._consumer = PullConsumer(bucket.js, info)
        self._received, self._left = 0, info.num_pending
        # One that goes on after the first also counts what was replaced and is still stored.
        known = self._due >= 0 and self.resumed
        self._due = min(self._due, info.num_pending) if known else info.num_pending
        self.resumed = resumed
        self._since = asyncio.get_running_loop().time()

    def give_up(self) -> None:
        """Go on with another consumer; :meth:`close` deletes this one."""
        self._consumer = None
        self._received = 0

    async def close(self) -> None:
        """Delete the consumers, in 2 s; what fails expires by itself. The next page comes from a new one."""
        self.give_up()
        self._due = -1
        if self._creating is not None and not self._creating.done():
            await asyncio.wait([self._creating])
        names, self._names = self._names, []  # a cancelled close goes on beside the next one
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
    """One level of names; see :meth:`ObjectStore.list_dirs`."""
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
