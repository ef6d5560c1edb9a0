"""What every verb shares: the bucket's stream, reads of meta messages, purges, and error mapping."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from natsproto import _values
from natsproto._values import seconds
from natsproto.aio.client import Client, PendingRequest
from natsproto.aio.options import DEFAULT_RETRY_BUDGET
from natsproto.errors import (
    APIError,
    NatsError,
    NoRespondersError,
    RequestTimeoutError,
    WrongStreamError,
)
from natsproto.headers import status_of
from natsproto.jetstream.api.codec import dumps, dumps_str, loads
from natsproto.jetstream.api.errors import (
    MessageNotFoundError,
    StorageFullError,
    StreamNotFoundError,
    api_error,
    retryable,
)
from natsproto.jetstream.api.models import PubAck, StoredMessage, StreamInfo
from natsproto.jetstream.context import JetStreamContext, _leader_message
from natsproto.jetstream.direct_get import status_error, stored_message
from natsproto.jetstream.publisher import AckCheck

from ._locate import Lookup
from ._refusals import missing, sealed, translated
from ._room import Ledger
from ._ttl import expiry
from .errors import (
    BadBucketError,
    BucketNotFoundError,
    BucketSealedError,
    ForeignBucketError,
    IntegrityError,
)
from .format.codec import MetaDecodeError, decode_meta, meta_fields
from .format.limits import limits_of
from .format.models import ObjectInfo, ObjectMetaOptions, plain_info
from .format.naming import (
    alternative_meta_subjects,
    check_bucket,
    check_object_name,
    chunk_subject,
    meta_subject,
    stream_name,
)

log = logging.getLogger("objstore")
T = TypeVar("T")

RETRY_BUDGET = DEFAULT_RETRY_BUDGET
"""Seconds without progress that are spent on retries; of a bucket: :attr:`Bucket.retry_budget`."""

FIRST_ATTEMPT = 5.0
"""A budget below this bounds the first attempt of a call as well, which a request's own timeout bounds
otherwise."""

BIND_BUDGET = 3.0
"""Seconds an open is retried without a leader; much shorter than for a bucket known to exist."""

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

NO_MESSAGE = (
    b'{"type":"io.nats.jetstream.api.v1.stream_msg_get_response",'
    b'"error":{"code":404,"err_code":10037,"description":"no message found"}}'
)
"""What the leader says when there is none, letter for letter; other spellings take the long way."""

About = tuple[Any, Any, Any, Any]
"""What a caller says of an object: description, filename, headers, metadata; ``None`` = nothing."""

NOTHING_SAID: About = (None, None, None, None)

FIRST_RETRY = 0.05
LAST_RETRY = 1.0


class Bucket:
    """One bound bucket. Immutable but for what is learnt about the server."""

    __slots__ = (
        "_direct_subject",
        "_info_subject",
        "_leader_subject",
        "_look_after",
        "_near",
        "acks",
        "atomic",
        "batches",
        "client",
        "created",
        "direct",
        "direct_meta",
        "js",
        "ledger",
        "limits",
        "max_age",
        "mirror_of",
        "miscounts",
        "msg_ttl",
        "name",
        "new_names",
        "places",
        "replicated",
        "retry_budget",
        "stream",
    )

    retry_budget: float
    """Seconds without progress after which an operation gives up: the client's, or a handle's own."""

    def __init__(self, js: JetStreamContext, name: str, info: StreamInfo) -> None:
        self.js = js
        self.client = js.client
        self.name = name = _values.text(name)
        self.stream = stream_name(name)
        config = info.config
        self.created: datetime = info.created
        self.direct = config.allow_direct is True
        self.replicated = (
            (config.num_replicas or 1) > 1
            or config.mirror is not None
            or bool(config.sources)
            or bool(info.raw.get("alternates"))
        )
        # Direct get may be stale as soon as more than one server holds the stream.
        self.direct_meta = self.direct and not self.replicated
        self.ledger = Ledger()
        self.miscounts = False
        self.learn(info)
        mirror = config.mirror
        self.mirror_of: str | None = None if mirror is None else str(mirror.get("name"))
        self.max_age = config.max_age or None
        self.msg_ttl = config.extra.get("allow_msg_ttl") is True
        self.atomic = config.extra.get("allow_atomic") is True
        self.batches = True  # until a server shows that it has none
        self.places: dict[tuple[str, int, int, int], int] = {}  # see _pick.py
        self.new_names = 0  # puts in a row that replaced nothing; see _put.py
        self.retry_budget = js.client._options.retry_budget
        self.acks = AckCheck(self.stream, domain_of(info))
        self._near = self._domain_connected_to()
        self._leader_subject = js.subject(f"STREAM.MSG.GET.{self.stream}")
        self._direct_subject = js.subject(f"DIRECT.GET.{self.stream}")
        self._info_subject = js.subject(f"STREAM.INFO.{self.stream}")

    async def other(self, name: str) -> Bucket:
        """:func:`bind` another bucket, for the same operation."""
        found = await bind(self.js, name)
        found.retry_budget = self.retry_budget
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
        major, _, rest = str(self.client.server_info.get("version", "")).partition(".")
        minor = rest.partition(".")[0]
        return major.isdigit() and minor.isdigit() and (int(major), int(minor)) < wanted

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
        return self.client._connection.info.get("domain")

    @property
    def moved(self) -> bool:
        """Whether the server connected to is of another domain than the one before."""
        return self._domain_connected_to() != self._near and self.client._connection.session is not None

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
        return check_object_name(name, self.name)

    def learn(self, info: StreamInfo) -> None:
        """Take over what the stream's configuration, as it is now, lets us write."""
        config = info.raw.get("config")
        limits = limits_of(self.name, config if isinstance(config, dict) else {})
        # 2.9 forgets a message's overhead when it compares with max_bytes, takes it, and removes the oldest.
        self.limits = limits._replace(rolls=True) if limits.max_bytes and self._older_than(2, 10) else limits
        self._look_after = self.client._connection._loop.time() + CONFIG_AGE

    def look_again(self, size: int | None) -> PendingRequest | None:
        """Ask for the stream's configuration beside an object's chunks, when what is known of it may be old.

        Anybody may change it at any time, and some changes make a stream acknowledge what it does not keep.
        Large puts always ask, small ones once in :data:`CONFIG_AGE` seconds; finish with :meth:`looked`.
        """
        if size is not None and size <= ASK_ABOVE and self.client._connection._loop.time() < self._look_after:
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
            raise BadBucketError(
                f"objects cannot be kept in bucket {self.name!r}: its stream has {refusal.field} "
                f"{refusal.value!r}: {refusal.why}; {refusal.remedy}, and open the bucket again",
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

    def start_leader_read(self, subject: str) -> PendingRequest:
        """Ask the leader for the newest message of ``subject``; finish with :meth:`finish_leader_read`."""
        return self.client.start_request(self._leader_subject, last_of(subject), b"", self.js.timeout)

    def start_leader_request(self, document: dict[str, Any]) -> PendingRequest:
        """Ask the leader for another message; finish as :meth:`start_leader_read`."""
        return self.client.start_request(self._leader_subject, dumps(document), b"", self.js.timeout)

    async def finish_leader_read(self, pending: PendingRequest) -> StoredMessage | None:
        """The message, or ``None`` when there is none."""
        try:
            msg = await pending.wait()
        except NoRespondersError as exc:
            raise self.js._nobody(exc) from None
        if self.moved:
            await self.check_same()
        if msg.payload == NO_MESSAGE:
            return None  # before every put of a new name
        answer = loads(msg.payload)
        if "error" in answer:
            error = api_error(answer["error"])
            if isinstance(error, MessageNotFoundError):
                return None
            raise self.translate(error)
        return _leader_message(answer)

    async def leader_message(self, subject: str) -> StoredMessage | None:
        """The newest message of ``subject`` from the leader, retried while there is none."""
        message = await self.retrying(lambda: self.finish_leader_read(self.start_leader_read(subject)))
        if message is None and self.miscounts:
            async with aclosing(self.messages(subject)) as messages:
                async for older in messages:
                    message = older
        return message

    def start_locating(self, name: str) -> Lookup:
        """Begin :meth:`locate`, to be finished by :meth:`Lookup.wait` or closed."""
        return Lookup(self, name)

    async def locate(self, name: str) -> tuple[str, StoredMessage | None]:
        """The newest message of a name at the leader, and its subject, wherever some client has filed it.

        Writers replace what stands there. Where there is none, the subject is this library's.
        """
        return await Lookup(self, name).wait()

    async def leader_meta(self, name: str) -> ObjectInfo | None:
        """The newest meta of ``name`` from the leader, delete markers included; ``None`` when none."""
        message = (await self.locate(name))[1]
        return None if message is None else self.decode(message)

    async def read_meta(self, name: str) -> ObjectInfo | None:
        """The newest meta for readers: by direct get where that cannot be stale, else from the leader.

        A name that is not found is looked up in the encodings other clients use as well.
        """
        message = await self._newest(self.meta_subject(name))
        if message is None:
            for subject in alternative_meta_subjects(self.name, name):
                message = await self._newest(subject)
                if message is not None:
                    break
        return None if message is None else self.decode(message)

    async def _newest(self, subject: str) -> StoredMessage | None:
        if not self.direct_meta:
            return await self.leader_message(subject)
        if self.moved:
            return await self.leader_message(subject)
        try:
            msg = await self.client.request_frame(
                self._direct_subject, last_of(subject), b"", min(self.js.timeout, DIRECT_PATIENCE)
            )
        except NatsError as exc:
            # 503: the bucket is gone, its leader is away, or direct get was switched off. The leader tells.
            if not retryable(exc):
                raise
            return await self.leader_message(subject)
        if msg.header is not None and not msg.payload and status_of(msg.header) is not None:
            error = status_error(msg.header, "direct get")
            if isinstance(error, MessageNotFoundError) and not self.miscounts:
                return None
            return await self.leader_message(subject)
        return stored_message(msg)

    async def messages(
        self, subject: str, batch: int = 256, *, after: int = 0, leader: bool = False
    ) -> AsyncGenerator[StoredMessage, None]:
        """All stored messages of a subject, in order, by their sequences.

        Read from the stream itself, where that cannot be stale: a consumer might skip some (2.9 does).

        Args:
            batch: how many are asked for at a time where no other server could answer than the leader.
            after: only what follows this sequence.
            leader: one by one from the leader, whatever the bucket allows.
        """
        cursor = after
        try:
            while self.direct_meta and self.batches and not leader:
                left = 0
                request = self.js.get_batch(self.stream, subject=subject, seq=cursor + 1, batch=batch)
                try:
                    async with aclosing(request) as answers:
                        async for message in answers:
                            if message.num_pending is None:
                                self.batches = False  # one message, and nothing that tells of the rest
                                break
                            cursor, left = message.seq, message.num_pending
                            yield message
                except NatsError as exc:
                    if not retryable(exc):
                        raise
                    message = await self._following(subject, cursor)  # waits until there is a leader again
                    cursor, left = message.seq, 1
                    yield message
                if self.batches and not left:
                    return
            while True:
                message = await self._following(subject, cursor)
                cursor = message.seq
                yield message
        except MessageNotFoundError:
            return
        except NatsError as exc:
            raise self.translate(exc) from None

    async def _following(self, subject: str, seq: int) -> StoredMessage:
        read = partial(self.js.get_message, self.stream, seq=seq + 1, next_by_subject=subject)
        return await self.retrying(read)

    async def first_after(self, subject: str, seq: int) -> StoredMessage | None:
        """The first message of ``subject`` after a sequence from the leader, or ``None``."""
        try:
            return await self._following(subject, seq)
        except MessageNotFoundError:
            return None

    async def stored_chunks(self, nuid: str) -> int:
        """How many chunks of a nuid the leader has."""
        subject = chunk_subject(self.name, nuid)
        counts = await self.retrying(lambda: self.js.stream_subjects(self.stream, subject))
        return counts.get(subject, 0)

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

    async def discard_chunks(self, info: ObjectInfo, why: str) -> None:
        """Purge the chunks of a meta that was replaced; a failure is reported, the caller's work stands.

        They are older than the meta. What is newer on their nuid was stored since: an upload goes on with it.
        """
        if info.is_link or not info.nuid:
            return
        try:
            await self.purge_chunks(info.nuid, before=info.revision)
        except (NatsError, IntegrityError) as exc:
            log.warning(
                "%s: chunks %r of %r in bucket %r are left behind: %s",
                why,
                info.nuid,
                info.name,
                self.name,
                exc,
            )

    async def shielded(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run what must be done to its end; a cancellation of the caller is raised, but does not stop it."""
        task: asyncio.Task[T] = self.client._connection.spawn(coroutine, "objstore-cleanup", due=True)
        return await asyncio.shield(task)

    async def outlast(self, coroutine: Coroutine[Any, Any, T], grace: float = 5.0) -> T:
        """:meth:`shielded`, and a cancelled caller waits ``grace`` seconds for the end of it."""
        task: asyncio.Task[T] = self.client._connection.spawn(coroutine, "objstore-outlast", due=True)
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


def last_of(subject: str) -> bytes:
    """The request for the newest message of a subject: ``{"last_by_subj": subject}``."""
    return b'{"last_by_subj":%b}' % dumps_str(subject)


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
    try:
        budget = min(BIND_BUDGET, js.client._options.retry_budget)
        return await retrying(js.client, lambda: js.stream_info(name), budget)
    except StreamNotFoundError:
        raise missing(bucket) from None


async def retrying(client: Client, call: Callable[[], Awaitable[T]], budget: float) -> T:
    """Run an idempotent call until it succeeds, fails for good, or ``budget`` seconds are used up.

    The budget bounds the attempts, not only the pauses between them: one that is still under way when it is
    used up is given up. Without a budget there is one attempt.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + budget
    failure: NatsError | None = None
    if budget >= FIRST_ATTEMPT or not budget:
        # The usual case: what succeeds at once needs no timer.
        try:
            return await call()
        except NatsError as exc:
            if not retryable(exc):
                raise
            failure = exc
    wait = FIRST_RETRY
    bound = asyncio.timeout_at(deadline)
    try:
        async with bound:
            while True:
                if failure is not None:
                    if loop.time() + wait > deadline:
                        break
                    await pause(client, wait, deadline)
                    wait = min(wait * 2, LAST_RETRY)
                try:
                    return await call()
                except NatsError as exc:
                    if not retryable(exc):
                        raise
                    failure = exc
    except TimeoutError as exc:
        if not bound.expired() or isinstance(exc, NatsError):
            raise
    raise failure or RequestTimeoutError(f"no answer within {seconds(budget)} s (retry_budget)") from None


async def pause(client: Client, wait: float, deadline: float) -> None:
    """Wait before a retry, and until there is a connection again."""
    await asyncio.sleep(wait)
    connection = client._connection
    if connection.session is None:
        await connection.wait_connected(max(0.1, deadline - asyncio.get_running_loop().time()))


__all__ = ["RETRY_BUDGET", "Bucket", "MetaDecodeError", "bind", "log", "missing", "pause", "retrying"]
