"""All or nothing: an object's chunks, meta and compare-and-set committed as one batch (ADR-50).

Needs nats-server 2.12 and a bucket created with ``allow_atomic``; an object of at most 999 chunks, which is
held in memory until the commit. Nothing of it is visible, or left behind, before.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from natsproto.errors import APIError, NatsError, StaleConnectionError, UnsupportedFeatureError
from natsproto.jetstream.api.errors import WrongLastSequenceError, retryable
from natsproto.jetstream.publisher import parse_pub_ack
from natsproto.nuid import next_nuid
from natsproto.subjects import check_publish_subject

from ._bucket import FIRST_RETRY, LAST_RETRY, RETRY_BUDGET, Bucket, MetaDecodeError, log
from ._commit import Conflict, rollup_header
from ._rename import finish_rename, shares_chunks
from ._ttl import CHUNK_GRACE, ttl_line
from .errors import BadObjectMetaError, OutcomeUnknownError
from .format.chunking import Chunker
from .format.codec import encode_meta
from .format.digest import hex_digest, new_hasher
from .format.naming import chunk_subject

if TYPE_CHECKING:
    from datetime import timedelta

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
        for chunk in self._chunks:
            hasher.update(chunk)
            size += len(chunk)
            if progress is not None:
                progress(size, source.size)
        self._info = replace(
            self._template,
            nuid=next_nuid(),
            size=size,
            chunks=len(self._chunks),
            digest=hex_digest(hasher.digest()),
            mtime=datetime.now(UTC),
        )

    async def commit(self, expected: int, old: ObjectInfo | None) -> ObjectInfo:
        """Send everything as the successor of revision ``expected``.

        Cancelled before the commit message is sent, nothing is stored; later, it is finished in the
        background.

        Raises:
            Conflict: another revision is there.
            UnsupportedFeatureError: the server has no batches.
            OutcomeUnknownError: could not be found out.
            NatsError: refused; nothing was stored.
        """
        bucket = self._bucket
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RETRY_BUDGET
        wait = FIRST_RETRY
        await finish_rename(bucket, old)
        while True:
            try:
                revision = await self._send(expected, old)
                break
            except WrongLastSequenceError:
                current = await self._current()
                if current[1] is not None and current[1].nuid == self._info.nuid:
                    revision = current[0]  # an earlier try had been committed
                    break
                raise Conflict(*current) from None
            except NatsError as exc:
                if not retryable(exc):
                    raise bucket.translate(exc, self._info.name) from exc
                if loop.time() > deadline:
                    raise self._unknown() from exc
            await bucket.pause(wait, deadline)
            wait = min(wait * 2, LAST_RETRY)
        expires = None if self._ttl is None else self._info.mtime + self._ttl
        return replace(self._info, revision=revision, expires=expires)

    async def _current(self) -> tuple[int, ObjectInfo | None]:
        message = await self._bucket.leader_message(self._bucket.meta_subject(self._info.name))
        if message is None:
            return 0, None
        try:
            return message.seq, self._bucket.decode(message)
        except MetaDecodeError:
            return message.seq, None

    async def _send(self, expected: int, old: ObjectInfo | None) -> int:
        """One batch; a new try is a new batch, and the old one is forgotten by the server after 10 s."""
        bucket = self._bucket
        client = bucket.client
        connection = client._connection
        batch = next_nuid().encode()
        subject = check_publish_subject(chunk_subject(bucket.name, self._info.nuid))
        ttl = b"" if self._ttl is None else ttl_line(self._ttl + CHUNK_GRACE)
        epoch = connection.epoch
        unpaced = 0
        for index, chunk in enumerate(self._chunks, 1):
            header = b"NATS/1.0\r\nNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n%b\r\n" % (
                batch,
                index,
                ttl,
            )
            unpaced += len(chunk)
            if index == 1 or unpaced > PACE:
                unpaced = 0
                answer = await client.request_frame(subject, chunk, header, bucket.js.timeout)
                if answer.payload:
                    await self._not_accepted(bytes(answer.payload))
            else:
                connection.publish(subject, chunk, None, header)
                if connection.congested:
                    await connection.drain()
            if connection.epoch != epoch:
                raise StaleConnectionError("the connection was replaced in the middle of a batch")
        meta = encode_meta(self._info)
        header = rollup_header(expected, self._ttl)[:-2] + (
            b"Nats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\nNats-Batch-Commit: 1\r\n\r\n"
            % (batch, len(self._chunks) + 1)
        )
        return await bucket.shielded(self._finish(meta, header, old))

    async def _finish(self, meta: bytes, header: bytes, old: ObjectInfo | None) -> int:
        """The commit message, and the end of what it replaces; not interrupted by a cancellation."""
        bucket = self._bucket
        subject = check_publish_subject(bucket.meta_subject(self._info.name))
        answer = await bucket.client.request_frame(subject, meta, header, bucket.js.timeout)
        revision = parse_pub_ack(answer.payload).seq
        if old is not None and not old.deleted and old.chunks and not await shares_chunks(bucket, old):
            await bucket.discard_chunks(old, "put")
        return revision

    async def _not_accepted(self, payload: bytes) -> None:
        """An answer with content: a refusal, or an old server that has stored the message as any other."""
        try:
            parse_pub_ack(payload)
        except APIError:
            raise
        self._bucket.atomic = False
        try:
            await self._bucket.purge_chunks(self._info.nuid)
        except NatsError as exc:
            log.warning("chunks %r in bucket %r are left behind: %s", self._info.nuid, self._bucket.name, exc)
        raise UnsupportedFeatureError(FEATURE, MINIMUM, "this server stores the messages of a batch singly")

    def _unknown(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"whether {self._info.name!r} was stored in bucket {self._bucket.name!r} could not be found out",
            bucket=self._bucket.name,
            name=self._info.name,
            nuid=self._info.nuid,
        )
