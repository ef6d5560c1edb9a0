"""All or nothing: an object's chunks, meta and compare-and-set committed as one batch (ADR-50).

Needs nats-server 2.12 and a bucket created with ``allow_atomic``; an object of at most 999 chunks, which is
held in memory until the commit. Nothing of it is visible, or left behind, before.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from natsproto.errors import APIError, NatsError, StaleConnectionError, UnsupportedFeatureError
from natsproto.jetstream.publisher import parse_pub_ack
from natsproto.subjects import check_publish_subject, secret_name

from ._bucket import Bucket, log
from ._commit import Commit, Conflict, Unsent, meta_header
from ._ttl import CHUNK_GRACE, ttl_line
from .errors import BadObjectMetaError
from .format.chunking import Chunker
from .format.codec import encode_meta
from .format.digest import hex_digest, new_hasher
from .format.naming import chunk_subject, new_nuid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from natsproto.jetstream.api.models import PubAck

    from ._put import Progress
    from ._source import Source
    from .format.models import ObjectInfo

MAX_CHUNKS = 999
"""The server takes 1000 messages in a batch, and one of them is the meta."""

PACE = 8 * 1024 * 1024
"""Bytes after which an answer is waited for: the server stages a batch in memory."""

FEATURE = "an all-or-nothing put"
MINIMUM = "2.12.0"


def check_atomic(bucket: Bucket, size: int | None, chunk_size: int) -> None:
    """Refuse what cannot be done, before any byte is sent.

    Raises:
        UnsupportedFeatureError: the bucket does not allow it.
        BadObjectMetaError: too many chunks.
    """
    if not bucket.atomic:
        raise UnsupportedFeatureError(
            FEATURE, MINIMUM, f"create bucket {bucket.name!r} with allow_atomic=True"
        )
    if size is not None and -(-size // chunk_size) > MAX_CHUNKS:
        raise _too_many(bucket)


def _too_many(bucket: Bucket) -> BadObjectMetaError:
    return BadObjectMetaError(
        f"an all-or-nothing put takes at most {MAX_CHUNKS} chunks: use larger ones, or atomic=False",
        bucket=bucket.name,
    )


class AtomicPut:
    """One put as one batch; see the module docstring.

    Args:
        bucket: where.
        template: the object's info without content.
        chunk_size: bytes of a chunk.
        ttl: how long the object lives.
    """

    def __init__(
        self, bucket: Bucket, template: ObjectInfo, *, chunk_size: int, ttl: timedelta | None
    ) -> None:
        self._bucket = bucket
        self._template = template
        self._chunk_size = chunk_size
        self._ttl = ttl
        self._chunks: list[bytes | memoryview] = []

    async def load(self, source: Source, progress: Progress | None) -> None:
        """Take the whole object in.

        Raises:
            BadObjectMetaError: more than 999 chunks.
        """
        chunker = Chunker(self._chunk_size, copy=source.refills)
        hasher = new_hasher()
        size = 0
        pieces = source.pieces()
        try:
            async for piece in pieces:
                self._chunks.extend(chunker.push(piece))
                if len(self._chunks) > MAX_CHUNKS:
                    raise _too_many(self._bucket)
        finally:
            aclose = getattr(pieces, "aclose", None)
            if aclose is not None:
                await aclose()
        last = chunker.finish()
        if last is not None:
            self._chunks.append(last)
        if len(self._chunks) > MAX_CHUNKS:
            raise _too_many(self._bucket)
        self._bucket.check_chunks(len(self._chunks), self._template.name)
        for chunk in self._chunks:
            hasher.update(chunk)
            size += len(chunk)
            if progress is not None:
                progress(size, source.size)
        self.info = replace(
            self._template,
            nuid=new_nuid(self._template.name),
            size=size,
            chunks=len(self._chunks),
            digest=hex_digest(hasher.digest()),
            mtime=datetime.now(UTC),
        )

    def commit(
        self,
        expected: int,
        old: ObjectInfo | None,
        before: Callable[[Conflict], Awaitable[bool]] | None,
        discard: Callable[[ObjectInfo], Awaitable[None]],
        subject: str | None,
    ) -> Commit:
        """The commit of everything as the successor of revision ``expected``; arguments as :class:`Commit`.

        Cancelled before the commit message is sent, nothing is stored.
        """
        return BatchCommit(
            self._bucket,
            self.info.name,
            encode_meta(self.info),
            expected=expected,
            nuid=self.info.nuid,
            subject=subject,
            ttl=self._ttl,
            replaces=old,
            owns=self.info,
            before=before,
            discard=discard,
            chunks=self._chunks,
        )


class BatchCommit(Commit):
    """A commit whose copies are whole batches: the chunks, then the meta.

    A copy is a new batch under the same id; a batch that was not ended is forgotten by the server after 10 s.
    """

    def __init__(self, *args: Any, chunks: list[bytes | memoryview], **options: Any) -> None:
        super().__init__(*args, **options)
        self._chunks = chunks

    async def _publish(self, expected: int, msg_id: str, timeout: float) -> PubAck:
        bucket = self._bucket
        subject = check_publish_subject(chunk_subject(bucket.name, self._nuid))
        ttl = b"" if self._ttl is None else ttl_line(self._ttl + CHUNK_GRACE)
        batch = Batch(bucket, timeout)
        try:
            for chunk in self._chunks:
                await batch.add(subject, chunk, b"NATS/1.0\r\n%b\r\n" % ttl)
        except AlreadyStored:
            self._bucket.atomic = False
            try:
                await bucket.purge_chunks(self._nuid)
            except NatsError as exc:
                log.warning("chunks %r in bucket %r are left behind: %s", self._nuid, bucket.name, exc)
            raise Unsent(
                UnsupportedFeatureError(FEATURE, MINIMUM, "this server stores the messages of a batch singly")
            ) from None
        except NatsError as exc:
            raise Unsent(exc) from exc
        self.states.sent()
        return await batch.end(self._wire_subject, self._payload, meta_header(expected, msg_id, self._ttl))


FORGOTTEN = frozenset((10175, 10176, 10201))
"""Errors for the end of a batch that is not there, or whose id is: a message that came twice may have ended
it already. The leader knows."""


class AlreadyStored(Exception):
    """The server knows no batches: it has stored the first message as any other."""


class Batch:
    """One batch of messages for one stream (ADR-50).

    Args:
        bucket: where.
        timeout: seconds for each answer.
    """

    def __init__(self, bucket: Bucket, timeout: float) -> None:
        self._bucket = bucket
        self._timeout = timeout
        self._id = secret_name().encode()
        self._count = 0
        self._unpaced = 0
        self._epoch = bucket.client._connection.epoch

    def _header(self, header: bytes) -> bytes:
        self._count += 1
        return header[:-2] + b"Nats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n\r\n" % (self._id, self._count)

    async def add(self, subject: bytes, payload: bytes | memoryview, header: bytes) -> None:
        """Stage a message.

        Raises:
            AlreadyStored: it is no batch for this server.
            NatsError: the batch has failed.
        """
        client = self._bucket.client
        connection = client._connection
        header = self._header(header)
        client._check_size(len(header), len(payload))
        self._unpaced += len(payload)
        if self._count == 1 or self._unpaced > PACE:
            self._unpaced = 0
            answer = await client.request_frame(subject, payload, header, self._timeout)
            if answer.payload:
                parse_pub_ack(answer.payload)  # raises the refusal
                raise AlreadyStored
        else:
            connection.publish(subject, payload, None, header)
            if connection.congested:
                await connection.drain()
        if connection.epoch != self._epoch:
            raise StaleConnectionError("the connection was replaced in the middle of a batch")

    async def end(self, subject: bytes, payload: bytes, header: bytes) -> PubAck:
        """Commit the batch with its last message."""
        client = self._bucket.client
        header = self._header(header)[:-2] + b"Nats-Batch-Commit: 1\r\n\r\n"
        client._check_size(len(header), len(payload))
        answer = await client.request_frame(subject, payload, header, self._timeout)
        try:
            return self._bucket.own_ack(answer.payload)
        except APIError as exc:
            if exc.err_code in FORGOTTEN:
                raise StaleConnectionError(f"the server has no such batch any more: {exc}") from exc
            raise
