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
from natsproto.aio.client import Client, PendingRequest
from natsproto.errors import APIError, NatsError, NoRespondersError
from natsproto.headers import status_of
from natsproto.jetstream.api.codec import dumps_str, loads
from natsproto.jetstream.api.errors import (
    MessageNotFoundError,
    StorageFullError,
    StreamNotFoundError,
    StreamSealedError,
    api_error,
    retryable,
)
from natsproto.jetstream.api.models import StoredMessage, StreamInfo
from natsproto.jetstream.context import JetStreamContext, _leader_message
from natsproto.jetstream.direct_get import status_error, stored_message
from natsproto.jetstream.publisher import plain_ack_head

from ._ttl import expiry
from .errors import BucketNotFoundError, BucketSealedError, IntegrityError, StoreFullError
from .format.codec import MetaDecodeError, decode_meta, meta_fields
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

RETRY_BUDGET = 20.0
"""Seconds without progress that are spent on retries (a lost leader is replaced after about 7 s)."""

BIND_BUDGET = 3.0
"""Seconds an open is retried without a leader; much shorter than for a bucket known to exist."""

DIRECT_PATIENCE = 1.0
"""Seconds a direct read may take before the leader is asked (nats-server 2.9: silence without a stream)."""

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
        "_ack_head",
        "_direct_subject",
        "_leader_subject",
        "atomic",
        "batches",
        "client",
        "created",
        "direct",
        "direct_meta",
        "js",
        "mirror_of",
        "msg_ttl",
        "name",
        "new_names",
        "places",
        "replicated",
        "stream",
    )

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
        mirror = config.mirror
        self.mirror_of: str | None = None if mirror is None else str(mirror.get("name"))
        self.msg_ttl = config.extra.get("allow_msg_ttl") is True
        self.atomic = config.extra.get("allow_atomic") is True
        self.batches = True  # until a server shows that it has none
        self.places: dict[tuple[str, int, int, int], int] = {}  # see _pick.py
        self.new_names = 0  # puts in a row that replaced nothing; see _put.py
        self._ack_head = plain_ack_head(self.stream)
        self._leader_subject = js.subject(f"STREAM.MSG.GET.{self.stream}")
        self._direct_subject = js.subject(f"DIRECT.GET.{self.stream}")

    @property
    def skips_live(self) -> bool:
        """True for servers whose consumers may skip messages stored just before a roll-up (seen on 2.9)."""
        return self._older_than(2, 10)

    @property
    def batches_count(self) -> bool:
        """Whether the messages of a batch say how many follow: in 2.11 each says one too many."""
        return not self._older_than(2, 12)

    def _older_than(self, *wanted: int) -> bool:
        major, _, rest = str(self.client.server_info.get("version", "")).partition(".")
        minor = rest.partition(".")[0]
        return major.isdigit() and minor.isdigit() and (int(major), int(minor)) < wanted

    # -- meta messages ----------------------------------------------------------------------------

    def meta_subject(self, name: str) -> str:
        """The meta subject of a checked name."""
        return meta_subject(self.name, name)

    def check_name(self, name: str) -> str:
        """The text of a name; one that cannot be stored is refused, before any byte is sent."""
        return check_object_name(name, self.name)

    def check_writable(self) -> None:
        """Refuse to write to a mirror, before any byte is sent: it listens to nothing.

        Raises:
            BucketSealedError: the bucket is a mirror.
        """
        if self.mirror_of is not None:
            raise BucketSealedError(
                f"bucket {self.name!r} is a mirror of stream {self.mirror_of!r} and read-only: write there",
                bucket=self.name,
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

    async def finish_leader_read(self, pending: PendingRequest) -> StoredMessage | None:
        """The message, or ``None`` when there is none."""
        try:
            msg = await pending.wait()
        except NoRespondersError as exc:
            raise self.js._nobody(exc) from None
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
        return await self.retrying(lambda: self.finish_leader_read(self.start_leader_read(subject)))

    async def leader_meta(self, name: str) -> ObjectInfo | None:
        """The newest meta of ``name`` from the leader, delete markers included; ``None`` when none."""
        message = await self.leader_message(self.meta_subject(name))
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
            if isinstance(error, MessageNotFoundError):
                return None
            return await self.leader_message(subject)
        return stored_message(msg)

    async def messages(self, subject: str, batch: int = 256) -> AsyncGenerator[StoredMessage, None]:
        """All stored messages of a subject, in order, by their sequences.

        Read from the stream itself, where that cannot be stale: a consumer might skip some (2.9 does).
        """
        cursor = 0
        try:
            while self.direct_meta and self.batches:
                left = 0
                request = self.js.get_batch(self.stream, subject=subject, seq=cursor + 1, batch=batch)
                async with aclosing(request) as answers:
                    async for message in answers:
                        if message.num_pending is None:
                            self.batches = False  # one message, and nothing that tells of the rest
                            break
                        cursor, left = message.seq, message.num_pending
                        yield message
                if self.batches and not left:
                    return
            while True:
                read = partial(self.js.get_message, self.stream, seq=cursor + 1, next_by_subject=subject)
                message = await self.retrying(read)
                cursor = message.seq
                yield message
        except MessageNotFoundError:
            return
        except NatsError as exc:
            raise self.translate(exc) from None

    # -- chunks -----------------------------------------------------------------------------------

    async def purge_chunks(self, nuid: str) -> None:
        """Remove the chunks of one nuid: always an exact subject, never a wildcard.

        Raises:
            IntegrityError: the nuid must not be used in a subject.
        """
        subject = chunk_subject(self.name, nuid)
        try:
            await self.retrying(lambda: self.js.purge_stream(self.stream, subject=subject))
        except APIError as exc:
            raise self.translate(exc) from exc

    async def discard_chunks(self, info: ObjectInfo, why: str) -> None:
        """Purge what is no longer referenced; a failure is reported, the caller's work stands."""
        if info.is_link or not info.nuid:
            return
        try:
            await self.purge_chunks(info.nuid)
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
        task: asyncio.Task[T] = self.client._connection.spawn(coroutine, "objstore-cleanup")
        return await asyncio.shield(task)

    # -- errors and retries -----------------------------------------------------------------------

    def translate(self, exc: NatsError, name: str = "") -> NatsError:
        """The object store's error for a JetStream one; others are returned unchanged."""
        if isinstance(exc, StreamNotFoundError):
            return missing(self.name)
        if isinstance(exc, StorageFullError):
            return StoreFullError(
                f"bucket {self.name!r} is full: {exc.description}",
                bucket=self.name,
                name=name,
                err_code=exc.err_code,
            )
        if isinstance(exc, StreamSealedError):
            return BucketSealedError(
                f"bucket {self.name!r} is sealed (read-only)", bucket=self.name, name=name
            )
        return exc

    async def retrying(self, call: Callable[[], Awaitable[T]], budget: float = RETRY_BUDGET) -> T:
        """:func:`retrying` with this bucket's errors."""
        try:
            return await retrying(self.client, call, budget)
        except NatsError as exc:
            error = self.translate(exc)
            raise error from (exc if error is not exc else None)

    async def pause(self, wait: float, deadline: float) -> None:
        """:func:`pause` for this bucket's client."""
        await pause(self.client, wait, deadline)


def last_of(subject: str) -> bytes:
    """The request for the newest message of a subject: ``{"last_by_subj": subject}``."""
    return b'{"last_by_subj":%b}' % dumps_str(subject)


def missing(bucket: str) -> BucketNotFoundError:
    """The error for a bucket that is not there."""
    return BucketNotFoundError(f"bucket {bucket!r} does not exist", bucket=bucket)


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
        return await retrying(js.client, lambda: js.stream_info(name), BIND_BUDGET)
    except StreamNotFoundError:
        raise missing(bucket) from None


async def retrying(client: Client, call: Callable[[], Awaitable[T]], budget: float) -> T:
    """Run an idempotent call until it succeeds, fails for good, or ``budget`` seconds are used up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + budget
    wait = FIRST_RETRY
    while True:
        try:
            return await call()
        except NatsError as exc:
            if not retryable(exc) or loop.time() + wait > deadline:
                raise
        await pause(client, wait, deadline)
        wait = min(wait * 2, LAST_RETRY)


async def pause(client: Client, wait: float, deadline: float) -> None:
    """Wait before a retry, and until there is a connection again."""
    await asyncio.sleep(wait)
    connection = client._connection
    if connection.session is None:
        await connection.wait_connected(max(0.1, deadline - asyncio.get_running_loop().time()))


__all__ = ["RETRY_BUDGET", "Bucket", "MetaDecodeError", "bind", "log", "missing", "pause", "retrying"]
