"""What every verb shares: the bucket's stream, reads of meta messages, purges and error mapping."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from natsproto import _values
from natsproto.aio.client import Client, PendingRequest
from natsproto.aio.connection import Connection
from natsproto.aio.lifeline import lifeline
from natsproto.errors import (
    APIError,
    NatsError,
    PermissionsViolationError,
    RequestTimeoutError,
    WrongStreamError,
)
from natsproto.jetstream.api.acks import AckCheck, check_ack
from natsproto.jetstream.api.answers import STREAM_INFO
from natsproto.jetstream.api.codec import loads
from natsproto.jetstream.api.errors import (
    MessageNotFoundError,
    StorageFullError,
    retryable,
)
from natsproto.jetstream.api.models import PubAck, StoredMessage, StreamConfig, StreamInfo
from natsproto.jetstream.context import JetStreamContext
from natsproto.jetstream.direct_get import answering_stream, has_said, said_by
from natsproto.jetstream.in_flight import in_flight
from natsproto.subjects import MAX_NAMES, secret_name

from ..errors import BadBucketError, BucketSealedError, ForeignBucketError
from ..format.codec import decode_meta, meta_fields
from ..format.limits import Limits, limits_of
from ..format.marks import marks_in
from ..format.models import ObjectInfo, ObjectMetaOptions, plain_info
from ..format.naming import (
    check_object_name,
    chunk_subject,
    meta_subject,
    meta_subjects,
    stream_name,
)
from .capacity import Ledger
from .counts import count_messages
from .locate import Lookup
from .message_reads import MessageRead, can_be_requested
from .old_leader import USED_UP, OldLeader
from .refusals import recreated, sealed, translated
from .retry import pause, retrying
from .server import domain_of, domain_text, server_version, told_in_clear
from .shown import NotShown, shown
from .ttl import expiry
from .unheard import UnheardBatches
from .ways import ANY_WAY, DIRECT, DIRECT_FIRST, LEADER, PROOFS, Ways

if TYPE_CHECKING:
    from natsproto.wire import Msg as WireMsg

log: logging.Logger = logging.getLogger("objstore")
T = TypeVar("T")


DIRECT_TIMEOUT = 1.0
"""Seconds a direct read may take before the leader is asked (nats-server 2.9 is silent without a stream)."""

HEADERS_WANTED = "the object store"
"""What needs headers, for the error: every commit has some, and most answers to reads."""

CONFIG_AGE = 1.0
"""Seconds for which small puts trust the known configuration of the stream."""

ALONE_AGE = 10.0
"""Seconds for which reads trust that one server has the stream: it may get replicas at any time."""

CONFIG_TIMEOUT = 1.0
"""Seconds a put waits for the configuration; it is requested beside the chunks."""

ASK_ABOVE = 1024 * 1024
"""Bytes above which a put always requests the configuration: it costs little, and has the most to lose."""

CANCEL_WAIT = 5.0
"""Seconds for which a cancelled caller waits for a change of several steps that must finish."""

CONSUMER_TIMEOUT = 2.0
"""Seconds the creation of a consumer may take where the next try may reach another server."""

NOT_KNOWN = object()
"""In place of the server's domain where the bucket's own was checked: it never was."""

UserMeta = tuple[str | None, str | None, Mapping[str, str | Sequence[str]] | None, Mapping[str, str] | None]
"""A caller's metadata of an object: description, filename, headers, metadata; ``None`` = not given."""

NO_USER_META: UserMeta = (None, None, None, None)

FIRST_DELIVERY = 2 * 1024 * 1024
"""Bytes that a server delivers before it waits for the first answer to the flow control of a consumer."""

RECHECK_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds before each check of the stored chunks, until they count as missing: a deposed leader responds
until it notices."""


class Bucket:
    """One bound bucket. Immutable, except for what it learns about the server.

    Attributes:
        batches: whether the server knows batched direct gets, as far as is known.
        created: when the bucket was created; a later time means another bucket.
        direct: whether the stream allows direct get.
        direct_meta: whether direct get of a meta is never stale.
        old: what holds for a leader that is older than 2.10.
        ledger: the free room, where the stream evicts its oldest messages.
        num_subjects: how many subjects had messages when this client had sent ``sent_by_then`` messages.
        replicated: more than one server, or another stream, may answer reads.
        max_age, msg_ttl, atomic, mirror_of, limits: from the stream's configuration; see :meth:`learn`.
    """

    __slots__ = (
        "_alone_until",
        "_answering",
        "_checked_domain",
        "_checking",
        "_config_trusted_until",
        "_info_subject",
        "_remembered",
        "_room",
        "acks",
        "atomic",
        "batches",
        "client",
        "connection",
        "copied",
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
        "msg_ttl",
        "name",
        "num_subjects",
        "old",
        "opened_with",
        "replicated",
        "retry_budget",
        "sent_by_then",
        "stream",
        "ways",
    )

    connection: Connection
    """The connection of :attr:`client`."""

    retry_budget: float
    """Seconds without progress after which an operation gives up: the client's option, or a handle's own."""

    def __init__(
        self, js: JetStreamContext, name: str, info: StreamInfo, *, domain_known: bool = True
    ) -> None:
        self.opened_with: JetStreamContext = js
        self.js: JetStreamContext = copy(js)
        self.js.known_streams = {info.config.name: info.raw.get("created")}
        self.client: Client = js.client
        self.connection: Connection = js.client.connection
        name = _values.text(name)
        self.name: str = name
        self.stream: str = stream_name(name)
        self.created: datetime = info.created
        self.replicated: bool = False
        self._answering = said_by(self.stream.encode())
        self.ledger: Ledger = Ledger()
        self.old: OldLeader = OldLeader(self)
        self._checking: asyncio.Task[None] | None = None
        self.acks: AckCheck = AckCheck(self.stream, domain_of(info))
        self.learn(info)
        # Assumed until an answer lacks Nats-Num-Pending. The version decides about old servers: they pass on
        # what a writer calls so.
        self.batches: bool = not self._older_than(2, 11)
        self.ways: Ways = Ways(self.connection, js.prefix, self.stream)
        self._remembered: dict[object, Any] = {}
        self.retry_budget = js.client.connection.options.retry_budget
        self._checked_domain = self._domain_connected_to() if domain_known else NOT_KNOWN
        if not domain_known:
            self.acks = AckCheck(self.stream, secret_name())  # no acknowledgement names that one
        self.leader_subject: bytes = js.subject(f"STREAM.MSG.GET.{self.stream}")
        """The API subject for one message from the leader."""
        self.direct_subject: bytes = js.subject(f"DIRECT.GET.{self.stream}")
        """The API subject for messages from any server that holds the stream."""
        self._info_subject = js.subject(f"STREAM.INFO.{self.stream}")
        longest = js.subject(f"CONSUMER.CREATE.{self.stream}.{secret_name()}")
        self._room = MAX_NAMES - js.client.reply_length - len(longest) - len(".")
        lifeline(self.client)  # subscribed now: a put may rely on it once the server has confirmed it

    def remembered(self, make: Callable[[Bucket], T]) -> T:
        """Return what a part of the object store keeps for this handle; ``make`` creates it on first use."""
        found: T | None = self._remembered.get(make)
        if found is None:
            found = self._remembered[make] = make(self)
        return found

    @property
    def consumers_skip(self) -> bool:
        """True for servers whose consumers may skip messages stored just before a roll-up (seen on 2.9)."""
        return self._older_than(2, 10)

    @property
    def batch_counts_are_right(self) -> bool:
        """Whether the messages of a batch report how many follow: on 2.11 each reports one too many."""
        return not self._older_than(2, 12)

    @property
    def consumer_timeout(self) -> float:
        """Seconds the creation of a consumer may take.

        In a cluster any server with a replica may get the request. A server that hangs does not respond, and
        the next try may reach another server: so there must be time for several tries.
        """
        return min(self.js.timeout, CONSUMER_TIMEOUT) if self.replicated else self.js.timeout

    def _older_than(self, *wanted: int) -> bool:
        if told_in_clear(self.client):
            return True
        version = server_version(self.client)
        return version is not None and version[:2] < wanted

    # -- which responses count --------------------------------------------------------------------

    def own_ack(self, msg: WireMsg) -> PubAck:
        """Parse the acknowledgement of a message to this bucket: from its stream, in its domain.

        Every acknowledgement of the bucket passes through here or through a window with :attr:`acks`; see
        :class:`AckCheck` for the rule. An error other than ``APIError`` does not tell whether the message was
        stored: the bucket's own acknowledgement may still be on its way.

        Raises:
            APIError: the message was refused.
            WrongStreamError: another stream has responded.
            RemoteProtocolError: it is not an acknowledgement.
        """
        check_ack(msg)
        return self.acks.parse(msg.payload)

    def foreign_error(self, exc: WrongStreamError, name: str = "", nuid: str = "") -> ForeignBucketError:
        """Return the object store's error for a response that is not this bucket's."""
        left = f"; chunks {nuid} may be left there for its gc()" if nuid else ""
        if exc.stream == self.stream:
            advice = (
                f"messages to bucket {self.name!r} of {domain_text(self.acks.domain)} also reach the bucket "
                f"of {domain_text(exc.domain)}: give them different names, or open the right one with "
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
    def domain_changed(self) -> bool:
        """Whether the current server belongs to another domain than the previous one, or none is known."""
        session = self.connection.session
        if session is None:
            return self._checked_domain is NOT_KNOWN
        return session.info.get("domain") != self._checked_domain

    async def check_same(self, name: str = "") -> None:
        """Check that the bucket that responds now is the one that was opened.

        Raises:
            ForeignBucketError: the connection has moved to a server of another domain, which has its own
                bucket of that name.
            BucketNotFoundError: there is none, or it was recreated: its sequences have started again.
        """
        near = self._domain_connected_to()
        info = await self.opened_with.stream_info(self.stream)
        domain = domain_of(info)
        if self._checked_domain is NOT_KNOWN:
            if info.created != self.created:
                raise recreated(self.name, name)
            self.acks = AckCheck(self.stream, domain)
        self.learn(info)
        if domain != self.acks.domain:
            raise ForeignBucketError(
                f"bucket {self.name!r} was opened in {domain_text(self.acks.domain)}, and the current server "
                f"answers for {domain_text(domain)}: open the bucket with jetstream(domain=…)",
                bucket=self.name,
                name=name,
                stream=self.stream,
                domain=domain,
                expected_stream=self.stream,
                expected_domain=self.acks.domain,
            )
        if info.created != self.created:
            raise recreated(self.name, name)
        self._checked_domain = near

    async def delete_own(
        self, seq: int, ours: Callable[[StoredMessage], bool], *, proven: bool = False
    ) -> bool:
        """Delete one message by its sequence, after checking that it is ours.

        What the leader answers names no stream, and another one may have such a message under that number. So
        a consumer must show that the bucket has one of this subject there.

        Args:
            seq: the reported sequence.
            ours: returns whether the message read there is the one the caller stored, at least by its
                subject.
            proven: a consumer has shown it already; see :func:`shown`.

        Returns:
            False when there is no message, or another one: then nothing was deleted.

        Raises:
            PermissionsViolationError: this user may create no consumer, or delete no message.
            NotShown: no consumer shows the message.
        """

        async def attempt() -> bool:
            nonlocal proven
            message = await self._stored(seq)
            if message is None or not ours(message):
                return False
            if not proven:
                try:
                    await shown(self, message.subject, (seq,))
                except NotShown:
                    if await self._stored(seq) is None:
                        return False
                    raise
                proven = True
            try:
                await self.js.delete_message(self.stream, seq)
            except APIError:
                # Perhaps an earlier attempt did it and its response was lost: several codes report that.
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
        """Return the meta subject of a checked name."""
        return meta_subject(self.name, name)

    def check_name(self, name: str) -> str:
        """Return the name as plain text; refuse one that cannot be stored, before any byte is sent."""
        return check_object_name(name, self.name, reply_length=self.client.reply_length)

    def can_request(self, subject: str) -> bool:
        """Whether the newest message of a subject can be requested; the others encode no name.

        Or only with a subject that is too long for some: other clients take longer names than this library.
        """
        if not can_be_requested(subject):
            return False
        return self.fits(subject) or self.ways.allowed(LEADER) or (self.direct and self.ways.allowed(DIRECT))

    def fits(self, subject: str) -> bool:
        """Whether a subject fits into the subject of an API request, with that of the reply on one line."""
        return len(subject.encode("utf-8", "surrogateescape")) <= self._room

    def is_about(self, info: StreamInfo) -> bool:
        """Whether this is the info of the bucket's stream: another domain may have one of the same name.

        So may have another account whose API is imported; and the bucket may have been created again.
        """
        same = info.config.name == self.stream and domain_of(info) == self.acks.domain
        return same and info.created == self.created

    def learn(self, info: StreamInfo) -> None:
        """Update from the stream's current configuration, which may change at any time."""
        if not self.is_about(info):
            return  # somebody has had that sent
        raw = info.raw.get("config")
        limits = limits_of(self.name, raw if isinstance(raw, dict) else {})  # first: it may raise
        self.old.learn(info)
        config = info.config
        self.count_subjects(info.num_subjects)
        self.direct: bool = config.allow_direct is True
        mirror = config.mirror
        self.mirror_of: str | None = None if mirror is None else str(mirror.get("name"))
        self.copied: bool = mirror is not None or bool(config.sources)
        self.max_age: timedelta | None = config.max_age or None
        self.msg_ttl: bool = config.allow_msg_ttl is True
        self.atomic: bool = config.allow_atomic is True
        # Never reset: the stream's info may not list a mirror that has responded.
        self.replicated = self.replicated or (
            (config.num_replicas or 1) > 1 or self.copied or bool(info.raw.get("alternates"))
        )
        # Direct get may be stale as soon as more than one server holds the stream.
        self.direct_meta: bool = self.direct and not self.replicated
        # 2.9 ignores a message's overhead when it checks max_bytes, stores it, and removes the oldest one.
        evicts = limits.max_bytes and self._older_than(2, 10)
        self.limits: Limits = limits._replace(evicts_oldest=True) if evicts else limits
        now = self.connection.loop.time()
        self._config_trusted_until = now + CONFIG_AGE
        self._alone_until = now + ALONE_AGE

    def count_subjects(self, count: int) -> None:
        """Note how many subjects have messages now."""
        self.num_subjects: int = count
        self.sent_by_then: int = self.connection.stats.out_msgs

    def request_config(self, size: int | None) -> PendingRequest | None:
        """Request the stream's configuration beside an object's chunks, if the known one may be outdated.

        It may change at any time, and some changes make a stream acknowledge what it does not keep. Large
        puts always request it, small ones once in :data:`CONFIG_AGE` seconds.
        Finish with :meth:`take_config`.
        """
        if (
            size is not None
            and size <= ASK_ABOVE
            and self.connection.loop.time() < self._config_trusted_until
        ):
            return None
        return self.request_info(CONFIG_TIMEOUT)

    def request_info(self, timeout: float | None = None) -> PendingRequest:
        """Request the stream's info, together with other requests; see :meth:`Client.start_request`."""
        limit = self.js.timeout if timeout is None else timeout
        return self.client.start_request(self._info_subject, b"", b"", limit, begins=STREAM_INFO)

    async def take_config(self, pending: PendingRequest) -> None:
        """Update from the response; without one the previous configuration stays."""
        try:
            answer = loads((await pending.wait()).payload)
            self.learn(StreamInfo.from_json(answer))
        except NatsError:
            return  # the put itself finds out whether the bucket and its leader exist

    async def refresh(self) -> None:
        """Make sure that what is known about replicas is no older than :data:`ALONE_AGE`.

        Raises:
            NatsError: the stream's info does not come within the retry budget.
        """
        if not self.replicated and self.connection.loop.time() >= self._alone_until:
            self.learn(await self.retrying(lambda: self.js.stream_info(self.stream)))

    def _check_alone(self) -> asyncio.Task[None]:
        """Request the stream's info beside a direct get; one request for all that need it meanwhile.

        Raises:
            NatsError: there is no connection to send it on.
        """
        if self._checking is None or self._checking.done():
            pending = self.request_info(min(self.js.timeout, DIRECT_TIMEOUT))
            self._checking = self.connection.spawn(self.take_config(pending), "objstore-check-alone")
        return self._checking

    @property
    def max_message(self) -> int:
        """Bytes of the largest message that server and stream accept, headers included."""
        limit, own = self.client.max_payload, self.limits.message
        return min(limit, own) if own else limit

    @property
    def limits_messages(self) -> bool:
        """Whether the stream limits the message size, rather than the server."""
        return 0 < self.limits.message <= self.client.max_payload

    def check_chunks(self, chunks: int, name: str) -> None:
        """Refuse an object with more chunks than the stream keeps on one subject.

        Raises:
            BadBucketError: the object has too many chunks.
        """
        most = self.limits.chunks
        if most and chunks > most:
            raise BadBucketError(
                f"{name!r} has at least {chunks} chunks, and the stream of bucket {self.name!r} keeps "
                f"{most} (max_msgs_per_subject): use a larger chunk_size, or set max_msgs_per_subject to -1",
                bucket=self.name,
                name=name,
                field="max_msgs_per_subject",
                value=most,
            )

    def check_original(self) -> None:
        """Refuse to change a mirror, before any byte is sent: it has no subjects.

        Raises:
            BucketSealedError: the bucket is a mirror.
            UnsupportedFeatureError: the server that the client is connected to now takes no headers.
        """
        self.connection.check_headers(HEADERS_WANTED)
        if self.mirror_of is not None:
            raise BucketSealedError(
                f"bucket {self.name!r} is a read-only mirror of stream {self.mirror_of!r}: write to that one",
                bucket=self.name,
            )

    def check_writable(self) -> None:
        """Refuse to write to a bucket that cannot keep objects, before any byte is sent.

        The stream's configuration is known since the bucket was opened, or since a later put. Once it is
        corrected, open the bucket again.

        Raises:
            BucketSealedError: the bucket is sealed, or a mirror.
            BadBucketError: the stream's configuration prevents writes; ``field`` names the field.
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

    def template(self, name: str, about: UserMeta, options: ObjectMetaOptions) -> ObjectInfo:
        """Return the info of an object without content yet, from the caller's metadata.

        Raises:
            BadObjectMetaError: a value has the wrong type.
        """
        if about == NO_USER_META and options.link is None:
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
        """Decode a meta message given in parts, as :meth:`decode` does."""
        info = decode_meta(payload, bucket=self.name, subject=subject, revision=revision, timestamp=time)
        expires, marks = expiry(header, time), marks_in(header)
        if expires is None and not marks:
            return info
        return replace(info, expires=expires, metadata={**info.metadata, **marks} if marks else info.metadata)

    @property
    def can_batch(self) -> bool:
        """Whether batches can be requested: the server supports them, the user may, and all of them comes."""
        return self.batches and self.ways.allowed(DIRECT) and not self.remembered(UnheardBatches).now

    @property
    def proofs(self) -> tuple[str, ...]:
        """The ways to read a message when the response decides about a change."""
        return PROOFS[:1] if self.replicated else PROOFS

    def is_copy(self, header: bytes | None) -> bool:
        """Whether a mirror has responded to a direct get, and not the stream itself.

        Any mirror may respond, and on a single server nothing else reveals it. From then on the bucket counts
        as replicated. True also when the header does not tell; then the bucket's state does not change.
        """
        if header is None or has_said(self._answering, header):
            return False
        stream = answering_stream(header)
        if stream is not None:
            self.replicated, self.direct_meta = True, False
        return True

    def leader_read(
        self, subject: str, *, after: int | None = None, ways: tuple[str, ...] | None = None
    ) -> MessageRead:
        """Ask the leader for the newest message of ``subject``, or the next one after a sequence.

        Args:
            ways: the allowed ways, for readers that change nothing; default: :attr:`proofs`.
        """
        return MessageRead(self, subject, after=after, ways=ways or self.proofs)

    async def leader_message(self, subject: str, ways: tuple[str, ...] | None = None) -> StoredMessage | None:
        """Return the newest message of ``subject`` from the leader; retried while there is no leader."""
        message = await self.retrying(lambda: self.leader_read(subject, ways=ways).wait())
        if message is None and await self.old.check_index(subject):
            async with aclosing(self.messages(subject, ways=ways)) as messages:
                async for older in messages:
                    message = older
        return message

    def start_locating(self, name: str) -> Lookup:
        """Begin :meth:`locate`; call :meth:`Lookup.wait` or :meth:`Lookup.close`."""
        return Lookup(self, name)

    async def locate(
        self, name: str, ways: tuple[str, ...] | None = None
    ) -> tuple[str, StoredMessage | None]:
        """Return the newest message of a name at the leader and its subject, whichever client stored it.

        Writers replace this message. If there is none, the subject is this library's.
        """
        return await Lookup(self, name, ways).wait()

    async def leader_meta(self, name: str, ways: tuple[str, ...] | None = None) -> ObjectInfo | None:
        """Return the newest meta of ``name`` from the leader, delete markers included; ``None`` when none."""
        message = (await self.locate(name, ways))[1]
        return None if message is None else self.decode(message)

    async def read_meta(self, name: str) -> ObjectInfo | None:
        """Return the newest meta for readers: by direct get where it cannot be stale, else from the leader.

        A name that is not found is also looked up in the encodings of other clients. A name whose encoding
        differs in nats.java's alphabet is looked up in all encodings at the leader: only the leader can tell
        that the other subjects have no message. (Only old clients leave out the padding, and two of three
        names have padding: these lookups follow one after the other. Our writers remove older messages under
        other encodings.)
        """
        own = meta_subject(self.name, name)
        encoded = own.rpartition(".")[2]
        message = None if "-" in encoded or "_" in encoded else await self._newest(own)
        if message is None and len(meta_subjects(self.name, name)) > 1:
            message = (await self.locate(name, ANY_WAY))[1]
        return None if message is None else self.decode(message)

    async def _newest(self, subject: str) -> StoredMessage | None:
        if not self.direct_meta or self.domain_changed:
            return await self.leader_message(subject, ANY_WAY)
        timeout = min(self.js.timeout, DIRECT_TIMEOUT)
        checking: asyncio.Task[None] | None = None
        try:
            if self.connection.loop.time() >= self._alone_until:
                checking = self._check_alone()
            message = await MessageRead(self, subject, ways=DIRECT_FIRST, timeout=timeout).wait()
        except NatsError as exc:
            # 503: the bucket is gone, has no leader, or has direct get switched off. The leader tells.
            if not retryable(exc) and not isinstance(exc, APIError):
                raise
            return await self.leader_message(subject, ANY_WAY)
        if checking is not None:
            await asyncio.wait([checking])
            if not self.direct_meta or self.connection.loop.time() >= self._alone_until:
                return await self.leader_message(subject, ANY_WAY)
        if message is None and self.old.leads:
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
        """Yield all stored messages of a subject in stream order.

        They are read from the stream itself, where it cannot be stale: a consumer might skip some (2.9 does).

        Args:
            batch: messages per request where the stream itself responds, and no replica or mirror.
            after: only messages after this sequence.
            leader: read one by one from the leader, whatever the bucket allows.
            ways: as for :meth:`leader_read`.
        """
        cursor, size = after, batch
        try:
            while self.direct_meta and self.can_batch and not leader:
                left, came, doubtful = 0, 0, False
                request = self.js.get_batch(self.stream, subject=subject, seq=cursor + 1, batch=size)
                size = min(2 * size, batch)
                try:
                    async with aclosing(request) as answers:
                        async for message in answers:
                            if message.num_pending is None:
                                self.batches = False  # one message, and no sign of the rest
                                break
                            if doubtful := self.is_copy(message.header):
                                break
                            cursor, left, came = message.seq, message.num_pending, came + 1
                            yield message
                except MessageNotFoundError:
                    break  # the leader decides: this may be a mirror's response
                except PermissionsViolationError as exc:
                    if not self.ways.note_refusal(exc):
                        raise
                except NatsError as exc:
                    if not retryable(exc):
                        raise
                    if isinstance(exc, RequestTimeoutError):
                        self.remembered(UnheardBatches).note_came(came)
                    doubtful = True
                if doubtful:
                    size = 1  # the server always sends the whole batch; the next may be from a mirror, too
                    # The leader returns the next message, once there is a leader; then batches may continue.
                    next_one = await self.first_after(subject, cursor, ways)
                    if next_one is None:
                        return
                    cursor, left = next_one.seq, 1
                    yield next_one
                if self.direct_meta and self.can_batch and not left:
                    return
            while run := await self._run_after(subject, cursor, ways):
                cursor = run[-1].seq
                for message in run:
                    yield message
        except NatsError as exc:
            raise self.translate(exc) from None

    async def _run_after(self, subject: str, seq: int, ways: tuple[str, ...] | None) -> list[StoredMessage]:
        async with in_flight(self.connection).during(FIRST_DELIVERY):
            return await self.retrying(lambda: self.leader_read(subject, after=seq, ways=ways).wait_for_run())

    async def first_after(
        self, subject: str, seq: int, ways: tuple[str, ...] | None = None
    ) -> StoredMessage | None:
        """Return the first message of ``subject`` after a sequence from the leader, or ``None``."""
        return await self.retrying(lambda: self.leader_read(subject, after=seq, ways=ways).wait())

    async def stored_chunks(self, nuid: str, wanted: int = 1) -> int:
        """Return how many chunks of a nuid the leader has.

        Args:
            wanted: accept this count at once; accept a lower one only from a leader with a majority.
        """
        return await count_messages(self, chunk_subject(self.name, nuid), wanted)

    # -- chunks -----------------------------------------------------------------------------------

    async def purge_chunks(self, nuid: str, *, before: int | None = None) -> None:
        """Remove the chunks of one nuid: always an exact subject, never a wildcard.

        Args:
            before: remove only chunks with smaller sequences.

        Raises:
            IntegrityError: the nuid is not safe in a subject.
        """
        subject = chunk_subject(self.name, nuid)
        try:
            if self.old.index_broken:
                await self.old.delete_each(subject, before)
            await self.retrying(lambda: self.purge_once(nuid, before=before))
        except APIError as exc:
            raise self.translate(exc) from exc

    async def purge_once(self, nuid: str, *, before: int | None = None) -> None:
        """Send one request of :meth:`purge_chunks`, for callers that must check before each."""
        await self.js.purge_stream(self.stream, subject=chunk_subject(self.name, nuid), seq=before)

    async def run_to_end(self, coroutine: Coroutine[object, None, T], *, wait_if_cancelled: float = 0.0) -> T:
        """Run a coroutine that must finish: a cancellation of the caller is raised, but does not stop it.

        Args:
            wait_if_cancelled: seconds for which a cancelled caller waits for its end.
        """
        task: asyncio.Task[T] = self.connection.spawn(coroutine, "objstore-run-to-end", due=True)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if wait_if_cancelled and not task.done():
                await asyncio.wait([task], timeout=wait_if_cancelled)
            raise

    # -- errors and retries -----------------------------------------------------------------------

    def translate(self, exc: NatsError, name: str = "") -> NatsError:
        """Return the object store's error for a JetStream error; others are returned unchanged."""
        if isinstance(exc, StorageFullError) and exc.err_code in USED_UP and self._older_than(2, 10):
            self.old.index_broken = True
        if isinstance(exc, WrongStreamError) and not isinstance(exc, ForeignBucketError):
            return self.foreign_error(exc, name)
        return translated(exc, self.name, name)

    async def retrying(self, call: Callable[[], Awaitable[T]], budget: float | None = None) -> T:
        """Retry with this bucket's errors and budget; never on another bucket of the same name."""

        async def attempt() -> T:
            if self.domain_changed:
                await self.check_same()
            return await call()

        try:
            return await retrying(self.client, attempt, self.retry_budget if budget is None else budget)
        except NatsError as exc:
            error = self.translate(exc)
            raise error from (exc if error is not exc else None)

    async def update_stream(self, config: StreamConfig | Mapping[str, object]) -> StreamInfo:
        """Replace the stream's configuration, for :meth:`retrying`: never that of another bucket.

        What is sent without a connection reaches the next server, whichever domain that one belongs to.
        """
        connection = self.connection
        while connection.session is None or self.domain_changed:
            await connection.wait_connected(self.js.timeout)
            await self.check_same()
        return await self.js.update_stream(config)

    async def pause(self, wait: float, deadline: float) -> None:
        """Wait before a retry, see :func:`pause`."""
        await pause(self.client, wait, deadline)
