"""Commit an object's chunks, meta and compare-and-set as one all-or-nothing batch (ADR-50).

This needs nats-server 2.12 and a bucket created with ``allow_atomic``. The object has at most 999 chunks,
held in memory until the commit. Before the commit nothing of it is visible or left behind.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from natsproto.errors import NatsError, StaleConnectionError, UnsupportedFeatureError
from natsproto.subjects import check_publish_subject

from ..bucket.bucket import Bucket, log
from ..bucket.ttl import CHUNK_GRACE, ttl_line
from ..commit.batch import MINIMUM, AlreadyStored, Batch
from ..commit.commit import Commit, Conflict, Unsent, meta_header
from ..errors import BadObjectMetaError
from ..format.chunking import Chunker
from ..format.codec import encode_meta
from ..format.digest import hex_digest, new_hasher
from ..format.naming import chunk_subject, new_nuid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from natsproto.jetstream.api.models import PubAck

    from ..bucket.operation import Progress
    from ..format.models import ObjectInfo
    from .source import Source

MAX_CHUNKS = 999
"""Chunks in a batch: the server allows 1000 messages, and one of them is the meta."""


FEATURE = "an all-or-nothing put"


def check_atomic(bucket: Bucket, size: int | None, chunk_size: int) -> None:
    """Refuse an impossible put before any byte is sent.

    Raises:
        UnsupportedFeatureError: the bucket does not allow all-or-nothing puts.
        BadObjectMetaError: the object has too many chunks.
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
        bucket: the bucket to store in.
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
        """Load the whole object into memory.

        Raises:
            BadObjectMetaError: the object has more than 999 chunks.
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
        self.info: ObjectInfo = replace(
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
        on_newer: Callable[[Conflict], Awaitable[bool]] | None,
        discard: Callable[[ObjectInfo], Awaitable[None]],
        subject: str | None,
    ) -> Commit:
        """Return the commit of everything as the successor of revision ``expected``.

        The arguments are those of :class:`Commit`. If it is cancelled before its last message is sent,
        nothing is stored.
        """
        commit = BatchCommit(
            self._bucket,
            self.info.name,
            encode_meta(self.info),
            expected=expected,
            nuid=self.info.nuid,
            subject=subject,
            ttl=self._ttl,
            replaces=old,
            owns=self.info,
            on_newer=on_newer,
            discard=discard,
        )
        commit.chunks = self._chunks
        return commit


class BatchCommit(Commit):
    """A commit whose copies are whole batches: the chunks, then the meta.

    A copy is a new batch with the same id; the server drops an unfinished batch after 10 s. While others have
    as many open as it allows, it is tried again.
    """

    chunks: list[bytes | memoryview]
    """The chunks to store before the meta."""

    began: bool = False
    """Whether a batch was begun."""

    async def _publish(self, expected: int, msg_id: str, timeout: float) -> PubAck:
        if not self.chunks:
            return await super()._publish(expected, msg_id, timeout)  # the meta is all
        bucket = self._bucket
        again, self.began = self.began, True
        if again and await bucket.stored_chunks(self._nuid):
            # The first batch's id was seen, and somebody else has ended it. The chunks must not come twice.
            raise StaleConnectionError(f"another client has ended the batch of {self._name!r}")
        subject = check_publish_subject(chunk_subject(bucket.name, self._nuid))
        ttl = b"" if self._ttl is None else ttl_line(self._ttl + CHUNK_GRACE)
        batch = Batch(bucket, timeout)
        try:
            for chunk in self.chunks:
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
