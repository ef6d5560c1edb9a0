"""Committing a meta message: compare-and-set, and finding out what became of it.

The rules are those of the project's data-safety contract: the meta is published only after every chunk is
acknowledged; it carries the revision it replaces; an unknown outcome is resolved by sending the identical
message again (a second copy can only lose against the first) and reading back, never by purging.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from natsproto.errors import (
    APIError,
    ConfigError,
    ConnectionClosedError,
    NatsError,
    PermissionsViolationError,
)
from natsproto.jetstream.api.errors import WrongLastSequenceError, retryable
from natsproto.jetstream.publisher import parse_pub_ack, plain_ack_seq
from natsproto.subjects import check_publish_subject

from ._bucket import FIRST_RETRY, LAST_RETRY, RETRY_BUDGET, Bucket, MetaDecodeError
from ._ttl import ttl_line
from .errors import OutcomeUnknownError, RevisionConflictError
from .format.models import ObjectInfo

CANCEL_GRACE = 5.0
"""Seconds a cancelled commit may take to find out what became of it."""

AfterCancel = Callable[["int | None"], Awaitable[None]]


def rollup_header(expected: int, ttl: timedelta | None = None) -> bytes:
    """The header block of a meta message that replaces revision ``expected`` (0 = there is none)."""
    return b"NATS/1.0\r\nNats-Rollup: sub\r\nNats-Expected-Last-Subject-Sequence: %d\r\n%b\r\n" % (
        expected,
        ttl_line(ttl),
    )


class Conflict(Exception):
    """The revision was not the expected one; ``current`` is the newest meta (``None`` = none to read)."""

    def __init__(self, revision: int, current: ObjectInfo | None) -> None:
        super().__init__(revision)
        self.revision = revision
        self.current = current


class Commit:
    """One meta message on its way.

    Args:
        bucket: where.
        name: whose meta it is.
        payload: the encoded meta.
        expected: sequence the subject's last message must have; 0 = no message.
        nuid: of the chunks it names, for messages and errors.
        subject: where the meta lies, when that is not where this library puts it.
        ttl: how long the meta lives.
    """

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        payload: bytes,
        *,
        expected: int,
        nuid: str,
        subject: str | None = None,
        ttl: timedelta | None = None,
    ) -> None:
        self._bucket = bucket
        self._name = name
        self._payload = payload
        self._header = rollup_header(expected, ttl)
        self._nuid = nuid
        self._subject = subject or bucket.meta_subject(name)
        self._wire_subject = check_publish_subject(subject) if subject else self._subject.encode()

    async def run(self, after_cancel: AfterCancel | None = None) -> int:
        """Publish, and return the revision.

        Cancellation is held back, at most :data:`CANCEL_GRACE`, until the outcome is known; then
        ``after_cancel`` is run with the revision, or ``None`` when nothing was committed. It is not run
        when the outcome stays unknown.

        Raises:
            Conflict: another revision is there.
            StoreFullError, BucketSealedError, other NatsError: refused; nothing was committed.
            OutcomeUnknownError: could not be found out.
        """
        connection = self._bucket.client._connection
        connection.check_open()  # nothing has been sent yet: not an unknown outcome
        spawn = connection.spawn
        resolving: asyncio.Task[int] | None = None
        try:
            try:
                return await self._publish(None)
            except WrongLastSequenceError:
                raise await self._conflict() from None
            except NatsError as exc:
                if refused(exc):
                    raise self._bucket.translate(exc, self._name) from exc
                resolving = spawn(self._resolve(RETRY_BUDGET), "objstore-resolve")
            return await asyncio.shield(resolving)
        except asyncio.CancelledError:
            if resolving is None:
                resolving = spawn(self._resolve(CANCEL_GRACE), "objstore-resolve")
            await asyncio.shield(spawn(self._cancelled(resolving, after_cancel), "objstore-cancelled"))
            raise

    async def _publish(self, timeout: float | None) -> int:
        bucket = self._bucket
        msg = await bucket.js.publish_frame(self._wire_subject, self._payload, self._header, timeout)
        seq = plain_ack_seq(msg.payload, bucket._ack_head)
        if seq:
            return seq
        ack = parse_pub_ack(msg.payload)
        if ack.stream != bucket.stream:
            raise ConfigError(
                f"subject {self._subject} belongs to stream {ack.stream!r}, not to {bucket.stream!r}"
            )
        return ack.seq

    async def _conflict(self) -> Conflict:
        message = await self._bucket.leader_message(self._subject)
        if message is None:
            return Conflict(0, None)
        try:
            return Conflict(message.seq, self._bucket.decode(message))
        except MetaDecodeError:
            return Conflict(message.seq, None)

    async def _resolve(self, budget: float) -> int:
        """Send the identical message again until its fate is known; see the module docstring."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + budget
        wait = FIRST_RETRY
        try:
            async with asyncio.timeout(budget):
                while True:
                    try:
                        return await self._publish(min(budget, self._bucket.js.timeout))
                    except WrongLastSequenceError:
                        message = await self._bucket.leader_message(self._subject)
                        if message is not None and message.data == self._payload:
                            return message.seq  # it was the first copy
                        raise await self._conflict() from None
                    except ConnectionClosedError:
                        raise self._unknown() from None
                    except NatsError as exc:
                        if refused(exc):
                            # This copy was (full, sealed …); the first one may have been stored.
                            raise self._unknown() from exc
                    await self._bucket.pause(wait, deadline)
                    wait = min(wait * 2, LAST_RETRY)
        except TimeoutError as exc:
            if isinstance(exc, OutcomeUnknownError):
                raise
            raise self._unknown() from None
        except ConnectionError:
            raise self._unknown() from None

    async def _cancelled(self, resolving: asyncio.Task[int], after: AfterCancel | None) -> None:
        done, _ = await asyncio.wait([resolving], timeout=CANCEL_GRACE)
        if not done:
            resolving.cancel()
            return
        try:
            revision: int | None = resolving.result()
        except Conflict:
            revision = None
        except (NatsError, asyncio.CancelledError):
            return
        if after is not None:
            await after(revision)

    def _unknown(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"whether {self._name!r} was stored in bucket {self._bucket.name!r} could not be found out; "
            f"its chunks ({self._nuid}) are kept",
            bucket=self._bucket.name,
            name=self._name,
            nuid=self._nuid,
        )


class Patience:
    """Last writer wins: how often, and how long, a newer revision is met before giving up.

    At once at first, then after growing pauses of random length, so that many writers of one name get by each
    other; for :data:`RETRY_BUDGET` in all.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._random = bucket.client._connection.pool.rng.random
        self._deadline = asyncio.get_running_loop().time() + RETRY_BUDGET
        self._longest = 0.001

    async def again(self) -> bool:
        """Pause; false when it has been enough."""
        if asyncio.get_running_loop().time() > self._deadline:
            return False
        self._longest = min(self._longest * 1.5, 0.05)
        if self._longest > 0.002:
            await asyncio.sleep(self._longest * self._random())
        return True


def refused(exc: NatsError) -> bool:
    """True when nothing was stored for certain: an answer that says so, or an error before any byte."""
    if isinstance(exc, APIError):
        return not retryable(exc)
    return isinstance(exc, PermissionsViolationError | ValueError)


def lost_race(bucket: Bucket, name: str, expected: int | None, conflict: Conflict) -> RevisionConflictError:
    """The typed error for a compare-and-set the caller asked for."""
    return RevisionConflictError(
        f"{name!r} in bucket {bucket.name!r} is at revision {conflict.revision}, not {expected}",
        bucket=bucket.name,
        name=name,
        expected=expected,
        current=conflict.revision,
    )
