"""Translate the server's refusals into the object store's errors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from natsproto.errors import APIError, NatsError, PermissionsViolationError
from natsproto.jetstream.api.errors import (
    StorageFullError,
    StreamNotFoundError,
    StreamSealedError,
    retryable,
)

from ..errors import BucketNotFoundError, BucketSealedError, StoreFullError

if TYPE_CHECKING:
    from natsproto.aio.client import Client

NO_SPACE = "no space left on device"
"""Text in the server's errors on a full disk, if it responds at all."""

NO_RESOURCES = 10023
"""Code of the error where the server's storage is used up; also where no server of a bucket is there."""

ALL_BATCHES_OPEN = 10210
"""Code of the error where the server begins no other batch before some are committed or forgotten."""

LIMIT_OF = {
    10077: "the limits of its stream (max_bytes, max_msgs)",
    10002: "the JetStream limits of the account",
    10028: "the memory that account or server may use",
    10047: "the storage that account or server may use",
    NO_RESOURCES: "the server's max_file_store or max_memory_store",
}
"""The limit that was reached, by the code of the error."""

FIELD_OF: dict[int | str, str] = {
    10054: "max_msg_size",
    10111: "allow_rollup_hdrs",
    10098: "retention",  # a work queue allows no reader that leaves the messages in place
    "stream purge not permitted": "deny_purge",
    "message delete not permitted": "deny_delete",
}
"""The field of the stream's configuration behind a refusal, by its code or (where that is unclear) text."""


def sealed(bucket: str, name: str = "") -> BucketSealedError:
    """Return the error for a bucket that is read-only for good."""
    return BucketSealedError(f"bucket {bucket!r} is sealed (read-only)", bucket=bucket, name=name)


def missing(bucket: str) -> BucketNotFoundError:
    """Return the error for a bucket that does not exist."""
    return BucketNotFoundError(f"bucket {bucket!r} does not exist", bucket=bucket)


async def certainly_refused(client: Client, exc: NatsError, timeout: float) -> bool:
    """Whether a request that changes something was refused for certain, so that it has changed nothing.

    A permissions violation names a subject, but no request: it may be about another request to that subject,
    or about what the answer should have come to. It is certain when all that it may be about were refused.

    Args:
        client: the client that has sent the request.
        exc: how the request failed.
        timeout: seconds to wait for the refusals of the others.
    """
    if not isinstance(exc, PermissionsViolationError):
        return isinstance(exc, APIError | ValueError) and not retryable(exc)
    if not exc.certain and exc.operation == "publish":
        with contextlib.suppress(NatsError):  # the server refuses the others before it answers a PING
            await client.flush(timeout)
    return exc.certain


def recreated(bucket: str, name: str = "") -> BucketNotFoundError:
    """Return the error for a bucket that is not the one that was opened."""
    return BucketNotFoundError(
        f"bucket {bucket!r} was deleted and created again meanwhile", bucket=bucket, name=name
    )


def translated(exc: NatsError, bucket: str, name: str = "") -> NatsError:
    """Return the object store's error for a JetStream error; others are returned unchanged.

    Refusals by the stream's configuration keep their class and name the field: they occur only if it changed
    after it was checked.
    """
    if isinstance(exc, StreamNotFoundError):
        return recreated(bucket, name) if "created again" in exc.description else missing(bucket)
    if isinstance(exc, StreamSealedError):
        return sealed(bucket, name)
    if not isinstance(exc, APIError):
        return exc
    if isinstance(exc, StorageFullError):
        full = "is full, or has no server at the moment" if exc.err_code == NO_RESOURCES else "is full"
        return StoreFullError(
            f"bucket {bucket!r} {full}: {exc.description}: delete objects, or raise "
            + LIMIT_OF.get(exc.err_code, "the limit"),
            bucket=bucket,
            name=name,
            err_code=exc.err_code,
        )
    if NO_SPACE in exc.description:
        return StoreFullError(
            f"the disk under bucket {bucket!r} is full: {exc.description}", bucket=bucket, name=name
        )
    if exc.err_code == ALL_BATCHES_OPEN:
        return type(exc)(
            exc.code,
            exc.err_code,
            f"{exc.description}: other clients keep all batches open that bucket {bucket!r} may have",
        )
    field = FIELD_OF.get(exc.err_code) or FIELD_OF.get(exc.description)
    if field is None or field in exc.description:
        return exc
    return type(exc)(
        exc.code,
        exc.err_code,
        f"{exc.description}: change {field} of the stream of bucket {bucket!r}, and open the bucket again",
    )
