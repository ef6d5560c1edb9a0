"""What every verb shares: the bucket's stream, reads of meta messages, purges, and error mapping."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from natsproto import _values
from natsproto.aio.client import Client, PendingRequest
from natsproto.aio.connection import Connection
from natsproto.aio.lifeline import lifeline
from natsproto.errors import (
    APIError,
    NatsError,
    PermissionsViolationError,
    WrongStreamError,
)
from natsproto.jetstream.api.acks import AckCheck
from natsproto.jetstream.api.codec import loads
from natsproto.jetstream.api.errors import (
    MessageNotFoundError,
    StorageFullError,
    StreamNotFoundError,
    retryable,
)
from natsproto.jetstream.api.models import PubAck, StoredMessage, StreamInfo
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.direct_get import answering_stream

from ..errors import BadBucketError, BucketNotFoundError, BucketSealedError, ForeignBucketError
from ..format.codec import decode_meta, meta_fields
from ..format.limits import Limits, limits_of
from ..format.models import ObjectInfo, ObjectMetaOptions, plain_info
from ..format.naming import (
    check_bucket,
    check_object_name,
    chunk_subject,
    meta_subject,
    meta_subjects,
    stream_name,
)
from .capacity import Ledger
from .counts import count_messages
from .locate import Lookup
from .message_reads import ANY_WAY, DIRECT, DIRECT_FIRST, PROOFS, REFUSED_FOR, MessageRead, way_refused
from .refusals import missing, sealed, translated
from .retry import pause, retrying
from .ttl import expiry

log: logging.Logger = logging.getLogger("objstore")
T = TypeVar("T")


BIND_BUDGET = 6.0
"""Seconds an open is retried without a leader; much shorter than for a bucket known to exist."""

BIND_PATIENCE = 2.0
"""Seconds one attempt of an open may take: while a stream changes its leader, nobody answers a request."""

DIRECT_PATIENCE = 1.0
"""Seconds a direct read may take before the leader is asked (nats-server 2.9: silence without a stream)."""

CONFIG_AGE = 1.0
"""Seconds for which small puts trust what is known of the stream's configuration."""

CONFIG_PATIENCE = 1.0
"""Seconds a put waits for it at most; it is asked for beside the chunks."""

ASK_ABOVE = 1024 * 1024
"""Bytes above which a put always asks: it can afford that, and has the most chunks to lose."""

USED_UP = (10002, 10023)
"""The storage of account or server is used up.

nats-server 2.9 stores such a message and removes it again, and forgets then which message of the subject is
the newest; nor does it take anything off what is used when messages are purged by subject. Once one of these
was heard there, chunks are deleted one by one, and what is not found is looked for from the beginning.
"""
PATIENCE = 2.0
"""Seconds the creation of a consumer may take where another server might be given the next one."""

About = tuple[str | None, str | None, Mapping[str, str | Sequence[str]] | None, Mapping[str, str] | None]
"""What a caller says of an object: description, filename, headers, metadata; ``None`` = nothing."""

NOTHING_SAID: About = (None, None, None, None)

LOOKS = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds between the looks at what is stored before chunks are called missing: a leader that is not one any
more answers until it notices."""


class Bucket:
    """One bound bucket. Immutable but for what is learnt about the server."""

    __slots__ = (
        "_answered_by",
        "_info_subject",
        "_look_after",
        "_near",
        "_refused",
        "_remembered",
        "acks",
        "atomic",
        "batches",
        "client",
        "connection",
        "created",
        "direct",
        "direct_meta",
        "direct_subject",
        "js",
        "leader_subject",
        "ledger",
        "limits",
        "max_age",
        "mirror_of",
        "miscounts",
        "msg_ttl",
        "name",
        "replicated",
        "retry_budget",
        "stream",
    )

    connection: Connection
    """The one below :attr:`client`."""

    retry_budget: float
    """Seconds without progress after which an operation gives up: the client's, or a handle's own."""

    def __init__(self, js: JetStreamContext, name: str, info: StreamInfo) -> None:
        self.js: JetStreamContext = js
        self.client: Client = js.client
        self.connection: Connection = js.client.connection
        name = _values.text(name)
        self.name: str = name
        self.stream: str = stream_name(name)
        self.created: datetime = info.created
        self.replicated: bool = False
        self._answered_by = self.stream.encode()
        self.ledger: Ledger = Ledger()
        self.miscounts: bool = False
        self.learn(info)
        # Until a server shows that it has none. An older one hands on a header that says it has.
        self.batches: bool = not self._older_than(2, 11)
        self._refused: dict[str, tuple[int, float]] = {}  # ways to read: epoch of the connection, until when
        self._remembered: dict[object, Any] = {}
        self.retry_budget = js.client.connection.options.retry_budget
        self.acks: AckCheck = AckCheck(self.stream, domain_of(info))
        self._near = self._domain_connected_to()
        self.leader_subject: bytes = js.subject(f"STREAM.MSG.GET.{self.stream}")
        """The API subject for one message, from the leader."""
        self.direct_subject: bytes = js.subject(f"DIRECT.GET.{self.stream}")
        """The API subject for messages from whoever holds the stream."""
        self._info_subject = js.subject(f"STREAM.INFO.{self.stream}")
        lifeline(self.client)  # now: the server has to have seen it before a put may rely on it

    async def other(self, name: str) -> Bucket:
        """:func:`bind` another bucket, for the same operation."""
        found = await bind(self.js, name)
        found.retry_budget = self.retry_budget
        return found

    def remembered(self, make: Callable[[Bucket], T]) -> T:
        """What a part of the object store remembers of this handle: made by ``make`` when first asked for."""
        found: T | None = self._remembered.get(make)
        if found is None:
            found = self._remembered[make] = make(self)
        return found

    @property
    def skips_live(self) -> bool:
        """True for servers whose consumers may skip messages stored just before a roll-up (seen on 2.9)."""
        return self._older_than(2, 10)

    @property
    def batches_count(self) -> bool:
        """Whether the messages of a batch say how many follow: in 2.11 each says one too many."""
        return not self._older_than(2, 12)

    @property
    def patience(self) -> float:
        """Seconds the creation of a consumer may take.

        In a cluster it is given to any server with a replica. One that hangs says nothing, and the next try
        is given to another one: so there must be time for several.
        """
        return min(self.js.timeout, PATIENCE) if self.replicated else self.js.timeout

    def _older_than(self, *wanted: int) -> bool:
        if told_in_clear(self.client):
            return True
        version = server_version(self.client)
        return version is not None and version[:2] < wanted

    # -- whose answers count ----------------------------------------------------------------------

    def own_ack(self, payload: bytes | bytearray | memoryview) -> PubAck:
        """The acknowledgement of a message to this bucket: of its stream, in its domain.

        Whatever is published to the bucket is acknowledged through here or through a window with
        :attr:`acks`; see :class:`AckCheck` for the rule. An error other than ``APIError`` says nothing of
        what became of the message: the bucket's own answer may still be on its way.

        Raises:
            APIError: the message was refused.
            WrongStreamError: something else than this bucket has answered.
            RemoteProtocolError: no acknowledgement at all.
        """
        return self.acks.parse(payload)

    def elsewhere(self, exc: WrongStreamError, name: str = "", nuid: str = "") -> ForeignBucketError:
        """The object store's error for an answer that is not this bucket's."""
        left = f"; chunks {nuid} may be left there for its gc()" if nuid else ""
        if exc.stream == self.stream:
            advice = (
                f"messages to bucket {self.name!r} of {_domain(self.acks.domain)} reach the one of "
                f"{_domain(exc.domain)}, too: give them different names, or open the one that is meant by "
                "jetstream(domain=…)"
            )
        else:
            advice = f"another stream listens to the subjects of bucket {self.name!r}"
        return ForeignBucketError(
            f"{exc}{left}; {advice}",
            bucket=self.name,
            name=name,
            stream=exc.stream,
            domain=exc.domain,
            expected_stream=self.stream,
            expected_domain=self.acks.domain,
        )

    def _domain_connected_to(self) -> object:
        return self.connection.info.get("domain")

    @property
    def moved(self) -> bool:
        """Whether the server connected to is of another domain than the one before."""
        return self._domain_connected_to() != self._near and self.connection.session is not None

    async def check_same(self, name: str = "") -> None:
        """Make sure that the bucket that answers now is the one that was opened.

        Raises:
            ForeignBucketError: the connection has moved to a server of another domain, with a bucket of its
                own.
            BucketNotFoundError: there is none, or it was deleted and made again: it has begun to count anew.
        """
        near = self._domain_connected_to()
        self.learn(info := await self.js.stream_info(self.stream))
        domain = domain_of(info)
        if domain != self.acks.domain:
            raise ForeignBucketError(
                f"bucket {self.name!r} was opened in {_domain(self.acks.domain)}, and the server connected "
                f"to now answers for {_domain(domain)}: open it by jetstream(domain=…)",
                bucket=self.name,
                name=name,
                stream=self.stream,
                domain=domain,
                expected_stream=self.stream,
                expected_domain=self.acks.domain,
            )
        if info.created != self.created:
            raise self.made_anew(name)
        self._near = near

    def made_anew(self, name: str = "") -> BucketNotFoundError:
        """The error for a bucket that is not the one opened any more."""
        return BucketNotFoundError(
            f"bucket {self.name!r} was deleted and created again meanwhile", bucket=self.name, name=name
        )

    async def delete_own(self, seq: int, ours: Callable[[StoredMessage], bool]) -> bool:
        """Delete one message by its sequence, after it was read at the leader and found to be ours.

        Args:
            seq: where it is said to be.
            ours: whether what was read there is what the caller has stored.

        Returns:
            False when there is none, or another one: then nothing was deleted.
        """

        async def attempt() -> bool:
            message = await self._stored(seq)
            if message is None or not ours(message):
                return False
            try:
                await self.js.delete_message(self.stream, seq)
            except APIError:
                # An earlier attempt whose answer was lost has done it: servers have several codes for that.
                if await self._stored(seq) is not None:
                    raise
            return True

        return await self.retrying(attempt)

    async def _stored(self, seq: int) -> StoredMessage | None:
        try:
            return await self.js.get_message(self.stream, seq=seq)
        except MessageNotFoundError:
            return None

    # -- meta messages ----------------------------------------------------------------------------

    def meta_subject(self, name: str) -> str:
        """The meta subject of a checked name."""
        return meta_subject(self.name, name)

    def check_name(self, name: str) -> str:
        """The text of a name; one that cannot be stored is refused, before any byte is sent."""
        return check_object_name(name, self.name, reply_length=self.client.reply_length)

    def learn(self, info: StreamInfo) -> None:
        """Take over the stream's configuration as it is now: anybody may change it at any time."""
        raw = info.raw.get("config")
        limits = limits_of(self.name, raw if isinstance(raw, dict) else {})  # first: it may be refused
        config = info.config
        self.direct: bool = config.allow_direct is True
        mirror = config.mirror
        self.mirror_of: str | None = None if mirror is None else str(mirror.get("name"))
        self.max_age: timedelta | None = config.max_age or None
        self.msg_ttl: bool = config.extra.get("allow_msg_ttl") is True
        self.atomic: bool = config.extra.get("allow_atomic") is True
        # Once and for all: a mirror that has answered may be unknown to the stream's info.
        self.replicated = self.replicated or (
            (config.num_replicas or 1) > 1
            or mirror is not None
            or bool(config.sources)
            or bool(info.raw.get("alternates"))
        )
        # Direct get may be stale as soon as more than one server holds the stream.
        self.direct_meta: bool = self.direct and not self.replicated
        # 2.9 forgets a message's overhead when it compares with max_bytes, takes it, and removes the oldest.
        rolls = limits.max_bytes and self._older_than(2, 10)
        self.limits: Limits = limits._replace(rolls=True) if rolls else limits
        self._look_after = self.connection.loop.time() + CONFIG_AGE

    def look_again(self, size: int | None) -> PendingRequest | None:
        """Ask for the stream's configuration beside an object's chunks, when what is known of it may be old.

        Anybody may change it at any time, and some changes make a stream acknowledge what it does not keep.
        Large puts always ask, small ones once in :data:`CONFIG_AGE` seconds; finish with :meth:`looked`.
        """
        if size is not None and size <= ASK_ABOVE and self.connection.loop.time() < self._look_after:
            return None
        return self.client.start_request(self._info_subject, b"", b"", CONFIG_PATIENCE)

    async def looked(self, pending: PendingRequest) -> None:
        """Take over the answer; where none comes, what was known before has to do."""
        try:
            answer = loads((await pending.wait()).payload)
            self.learn(StreamInfo.from_json(answer))
        except NatsError:
            return  # whether the bucket is there, and its leader, the put itself finds out

    @property
    def max_message(self) -> int:
        """Bytes of the largest message that server and stream take, headers included."""
        limit, own = self.client.max_payload, self.limits.message
        return min(limit, own) if own else limit

    @property
    def limits_messages(self) -> bool:
        """Whether it is the stream that limits messages, not the server."""
        return 0 < self.limits.message <= self.client.max_payload

    def check_chunks(self, chunks: int, name: str) -> None:
        """Refuse an object of more chunks than the stream keeps on one subject.

        Raises:
            BadBucketError: it has more.
        """
        most = self.limits.chunks
        if most and chunks > most:
            raise BadBucketError(
                f"{name!r} has {chunks} chunks or more, and the stream of bucket {self.name!r} keeps "
                f"{most} (max_msgs_per_subject): use a larger chunk_size, or set max_msgs_per_subject to -1",
                bucket=self.name,
                name=name,
                field="max_msgs_per_subject",
                value=most,
            )

    def check_original(self) -> None:
        """Refuse to change a mirror, before any byte is sent: it listens to nothing.

        Raises:
            BucketSealedError: the bucket is a mirror.
        """
        if self.mirror_of is not None:
            raise BucketSealedError(
                f"bucket {self.name!r} is a mirror of stream {self.mirror_of!r} and read-only: write there",
                bucket=self.name,
            )

    def check_writable(self) -> None:
        """Refuse to write where objects cannot be kept, before any byte is sent.

        The stream's configuration is known since the bucket was opened, or since a later put; once it is
        mended, open the bucket again.

        Raises:
            BucketSealedError: the bucket is sealed, or a mirror.
            BadBucketError: the stream's configuration; ``field`` names which part of it.
        """
        self.check_original()
        if self.limits.sealed:
            raise sealed(self.name)
        refusal = self.limits.refusal
        if refusal is not None:
            value = _values.cut(repr(refusal.value), 80)
            raise BadBucketError(
                f"objects cannot be kept in bucket {self.name!r}: its stream has {refusal.field} "
                f"{value}: {refusal.why}; {refusal.remedy}, and open the bucket again",
                bucket=self.name,
                field=refusal.field,
                value=refusal.value,
            )

    def template(self, name: str, about: About, options: ObjectMetaOptions) -> ObjectInfo:
        """The info of an object without content yet, from what a caller says about it.

        Raises:
            BadObjectMetaError: a value of the wrong type.
        """
        if about == NOTHING_SAID and options.link is None:
            return plain_info(name, self.name, options, datetime.now(UTC))
        text, filename, values, pairs = about
        description, headers, metadata = meta_fields(text, values, pairs, filename)
        return ObjectInfo(
            name,
            description,
            headers,
            0,
            0,
            "",
            False,
            datetime.now(UTC),
            "",
            self.name,
            options=options,
            metadata=metadata,
        )

    def decode(self, message: StoredMessage) -> ObjectInfo:
        """Decode a meta message.

        Raises:
            MetaDecodeError: it cannot be read.
        """
        return self.decode_raw(message.data, message.header, message.subject, message.seq, message.time)

    def decode_raw(
        self,
        payload: bytes | bytearray | memoryview,
        header: bytes | None,
        subject: str,
        revision: int,
        time: datetime,
    ) -> ObjectInfo:
        """:meth:`decode` for a message that is still in parts."""
        info = decode_meta(payload, bucket=self.name, subject=subject, revision=revision, timestamp=time)
        expires = expiry(header, time)
        return info if expires is None else replace(info, expires=expires)

    def allowed(self, way: str) -> bool:
        """Whether the user may ask that way, as far as is known; see ``bucket/message_reads.py``."""
        refused = self._refused.get(way) if self._refused else None
        if refused is None:
            return True
        epoch, until = refused
        connection = self.connection
        if epoch == connection.epoch and connection.loop.time() < until:
            return False
        self._refused.pop(way, None)
        return True

    def note_refusal(self, exc: PermissionsViolationError) -> bool:
        """Remember which way was refused, for a while; false when it is about something else."""
        way = way_refused(self, exc)
        if way is not None:
            connection = self.connection
            self._refused[way] = connection.epoch, connection.loop.time() + REFUSED_FOR
        return way is not None

    def forget_refusals(self) -> None:
        """Try every way again."""
        self._refused.clear()

    @property
    def can_batch(self) -> bool:
        """Whether batches can be asked for: the server has them, and the user may."""
        return self.batches and self.allowed(DIRECT)

    @property
    def proofs(self) -> tuple[str, ...]:
        """The ways that prove what is there, to whoever changes something because of it."""
        return PROOFS[:1] if self.replicated else PROOFS

    def is_copy(self, header: bytes | None) -> bool:
        """Whether it was a mirror that has answered a direct get, and not the stream itself.

        Mirrors may, whoever made them, and on a single server nothing else tells of them. From then on the
        bucket counts as one with replicas. True as well when that cannot be told: the server appends its
        lines to those of the message, and a header without an end makes its first one the rest of another.
        Then the line of that name is the writer's, and the bucket stays what it was.
        """
        if header is None:
            return False
        stream = answering_stream(header)
        if stream == self._answered_by:
            return False
        if stream is not None:
            self.replicated, self.direct_meta = True, False
        return True

    def leader_read(
        self, subject: str, *, after: int | None = None, ways: tuple[str, ...] | None = None
    ) -> MessageRead:
        """Ask the leader for the newest message of ``subject``, or the next one after a sequence.

        Args:
            ways: in which else, for readers that change nothing; default: :attr:`proofs`.
        """
        return MessageRead(self, subject, after=after, ways=ways or self.proofs)

    async def leader_message(self, subject: str, ways: tuple[str, ...] | None = None) -> StoredMessage | None:
        """The newest message of ``subject`` from the leader, retried while there is none."""
        message = await self.retrying(lambda: self.leader_read(subject, ways=ways).wait())
        if message is None and self.miscounts:
            async with aclosing(self.messages(subject, ways=ways)) as messages:
                async for older in messages:
                    message = older
        return message

    def start_locating(self, name: str) -> Lookup:
        """Begin :meth:`locate`, to be finished by :meth:`Lookup.wait` or closed."""
        return Lookup(self, name)

    async def locate(
        self, name: str, ways: tuple[str, ...] | None = None
    ) -> tuple[str, StoredMessage | None]:
        """The newest message of a name at the leader, and its subject, wherever some client has filed it.

        Writers replace what stands there. Where there is none, the subject is this library's.
        """
        return await Lookup(self, name, ways).wait()

    async def leader_meta(self, name: str, ways: tuple[str, ...] | None = None) -> ObjectInfo | None:
        """The newest meta of ``name`` from the leader, delete markers included; ``None`` when none."""
        message = (await self.locate(name, ways))[1]
        return None if message is None else self.decode(message)

    async def read_meta(self, name: str) -> ObjectInfo | None:
        """The newest meta for readers: by direct get where that cannot be stale, else from the leader.

        A name that is not found is looked up in the encodings other clients use as well. One whose encoding
        differs in nats.java's alphabet is looked up in all of them, and at the leader: that no message lies
        under the others only the leader can tell. (Only old clients leave out the padding, and two of three
        names have some: those are asked for one after the other. What writes here removes what is older
        elsewhere.)
        """
        own, *others = meta_subjects(self.name, name)
        encoded = own.rpartition(".")[2]
        message = None if "-" in encoded or "_" in encoded else await self._newest(own)
        if message is None and others:
            message = (await self.locate(name, ANY_WAY))[1]
        return None if message is None else self.decode(message)

    async def _newest(self, subject: str) -> StoredMessage | None:
        if not self.direct_meta or self.moved:
            return await self.leader_message(subject, ANY_WAY)
        patience = min(self.js.timeout, DIRECT_PATIENCE)
        try:
            message = await MessageRead(self, subject, ways=DIRECT_FIRST, timeout=patience).wait()
        except NatsError as exc:
            # 503: the bucket is gone, its leader is away, or direct get was switched off. The leader tells.
            if not retryable(exc) and not isinstance(exc, APIError):
                raise
            return await self.leader_message(subject, ANY_WAY)
        if message is None and self.miscounts:
            return await self.leader_message(subject, ANY_WAY)
        return message

    async def messages(
        self,
        subject: str,
        batch: int = 256,
        *,
        after: int = 0,
        leader: bool = False,
        ways: tuple[str, ...] | None = None,
    ) -> AsyncGenerator[StoredMessage, None]:
        """All stored messages of a subject, in order, by their sequences.

        Read from the stream itself, where that cannot be stale: a consumer might skip some (2.9 does).

        Args:
            batch: how many are asked for at a time where the stream itself answers, and no replica or mirror.
            after: only what follows this sequence.
            leader: one by one from the leader, whatever the bucket allows.
            ways: as of :meth:`leader_read`.
        """
        cursor, size = after, batch
        try:
            while self.direct_meta and self.can_batch and not leader:
                left, doubtful = 0, False
                request = self.js.get_batch(self.stream, subject=subject, seq=cursor + 1, batch=size)
                size = min(2 * size, batch)
                try:
                    async with aclosing(request) as answers:
                        async for message in answers:
                            if message.num_pending is None:
                                self.batches = False  # one message, and nothing that tells of the rest
                                break
                            if doubtful := self.is_copy(message.header):
                                break
                            cursor, left = message.seq, message.num_pending
                            yield message
                except MessageNotFoundError:
                    break  # unless a mirror says so
                except PermissionsViolationError as exc:
                    if not self.note_refusal(exc):
                        raise
                except NatsError as exc:
                    if not retryable(exc):
                        raise
                    doubtful = True
                if doubtful:
                    size = 1  # the server sends all that was asked for, and the next one may be alike
                    # The leader tells what comes next, as soon as there is one; then batches may go on.
                    next_one = await self.first_after(subject, cursor, ways)
                    if next_one is None:
                        return
                    cursor, left = next_one.seq, 1
                    yield next_one
                if self.direct_meta and self.can_batch and not left:
                    return
            while (next_one := await self.first_after(subject, cursor, ways)) is not None:
                cursor = next_one.seq
                yield next_one
        except NatsError as exc:
            raise self.translate(exc) from None

    async def first_after(
        self, subject: str, seq: int, ways: tuple[str, ...] | None = None
    ) -> StoredMessage | None:
        """The first message of ``subject`` after a sequence from the leader, or ``None``."""
        return await self.retrying(lambda: self.leader_read(subject, after=seq, ways=ways).wait())

    async def stored_chunks(self, nuid: str, wanted: int = 1) -> int:
        """How many chunks of a nuid the leader has.

        Args:
            wanted: so many are believed at once, fewer only from a leader that is one.
        """
        return await count_messages(self, chunk_subject(self.name, nuid), wanted)

    # -- chunks -----------------------------------------------------------------------------------

    async def purge_chunks(self, nuid: str, *, before: int | None = None) -> None:
        """Remove the chunks of one nuid: always an exact subject, never a wildcard.

        Args:
            before: only those with smaller sequences.

        Raises:
            IntegrityError: the nuid must not be used in a subject.
        """
        subject = chunk_subject(self.name, nuid)
        try:
            if self.miscounts:
                await self._delete_each(subject, before)
            await self.retrying(lambda: self.purge_once(nuid, before=before))
        except APIError as exc:
            raise self.translate(exc) from exc

    async def purge_once(self, nuid: str, *, before: int | None = None) -> None:
        """One request of :meth:`purge_chunks`, for who has to look before each of them."""
        await self.js.purge_stream(self.stream, subject=chunk_subject(self.name, nuid), seq=before)

    async def _delete_each(self, subject: str, before: int | None) -> None:
        """Remove messages one by one; what is left then is for the purge.

        They are all read first: nats-server 2.9 finds no next one of a subject whose first one was deleted.
        """
        async with aclosing(self.messages(subject)) as messages:
            sequences = [message.seq async for message in messages if before is None or message.seq < before]
        for seq in sequences:  # what is left after the first is no beginning that an upload could go on from
            try:
                await self.retrying(partial(self.js.delete_message, self.stream, seq))
            except APIError:
                pass  # gone already, or not allowed

    async def shielded(self, coroutine: Coroutine[object, None, T]) -> T:
        """Run what must be done to its end; a cancellation of the caller is raised, but does not stop it."""
        task: asyncio.Task[T] = self.connection.spawn(coroutine, "objstore-cleanup", due=True)
        return await asyncio.shield(task)

    async def outlast(self, coroutine: Coroutine[object, None, T], grace: float = 5.0) -> T:
        """:meth:`shielded`, and a cancelled caller waits ``grace`` seconds for the end of it."""
        task: asyncio.Task[T] = self.connection.spawn(coroutine, "objstore-outlast", due=True)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                await asyncio.wait([task], timeout=grace)
            raise

    # -- errors and retries -----------------------------------------------------------------------

    def translate(self, exc: NatsError, name: str = "") -> NatsError:
        """The object store's error for a JetStream one; others are returned unchanged."""
        if isinstance(exc, StorageFullError) and exc.err_code in USED_UP and self._older_than(2, 10):
            self.miscounts = True
        if isinstance(exc, WrongStreamError) and not isinstance(exc, ForeignBucketError):
            return self.elsewhere(exc, name)
        return translated(exc, self.name, name)

    async def retrying(self, call: Callable[[], Awaitable[T]], budget: float | None = None) -> T:
        """:func:`retrying` with this bucket's errors and budget; never with another one of the same name."""

        async def attempt() -> T:
            if self.moved:
                await self.check_same()
            return await call()

        try:
            return await retrying(self.client, attempt, self.retry_budget if budget is None else budget)
        except NatsError as exc:
            error = self.translate(exc)
            raise error from (exc if error is not exc else None)

    async def pause(self, wait: float, deadline: float) -> None:
        """:func:`pause` for this bucket's client."""
        await pause(self.client, wait, deadline)


def told_in_clear(client: Client) -> bool:
    """Whether what INFO says came before TLS: anybody may have written it."""
    session = client.connection.session
    return session is not None and session.info_in_clear


_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})(?!\d)(?:\.(\d{1,9})(?!\d))?", re.ASCII)


def server_version(client: Client) -> tuple[int, int, int] | None:
    """The version of the server connected to; ``None`` when it says none that is one."""
    found = _VERSION.match(str(client.server_info.get("version", "")))
    if found is None:
        return None
    major, minor, patch = found.groups("0")
    return int(major), int(minor), int(patch)


def domain_of(info: StreamInfo) -> str | None:
    """The JetStream domain that holds a stream, as its leader says; ``None`` = none."""
    domain = info.raw.get("domain")
    return domain if isinstance(domain, str) and domain else None


def _domain(domain: str | None) -> str:
    return "no domain" if domain is None else f"domain {domain!r}"


async def bind(js: JetStreamContext, bucket: str) -> Bucket:
    """Look a bucket's stream up.

    Raises:
        BadBucketError: not a bucket name.
        BucketNotFoundError: no such bucket.
    """
    return Bucket(js, bucket, await bind_info(js, bucket))


async def bind_info(js: JetStreamContext, bucket: str) -> StreamInfo:
    """What :func:`bind` learns; raises the same."""
    name = stream_name(check_bucket(bucket))
    lifeline(js.client)  # its PONG comes before the answer
    try:
        budget = min(BIND_BUDGET, js.client.connection.options.retry_budget)
        patience = min(BIND_PATIENCE, js.timeout)
        return await retrying(js.client, lambda: js.stream_info(name, timeout=patience), budget)
    except StreamNotFoundError:
        raise missing(bucket) from None
