"""Buckets: create, open, update, delete, enumerate. Asked for on the JetStream context."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, replace

from natsproto._values import printable
from natsproto.backoff import Backoff
from natsproto.errors import APIError, UnsupportedFeatureError
from natsproto.jetstream.api.errors import (
    NO_SUITABLE_PEERS,
    StorageFullError,
    StreamConfigError,
    StreamNameInUseError,
    StreamNotFoundError,
    StreamSealedError,
)
from natsproto.jetstream.api.models import StreamInfo
from natsproto.jetstream.context import JetStreamContext

from .bucket.bucket import Bucket, bind, bind_info, domain_of, server_version, told_in_clear
from .bucket.refusals import missing
from .bucket.retry import retrying
from .errors import BadBucketError, BucketAlreadyExistsError, BucketSealedError, StoreFullError
from .format.buckets import (
    FIELD_MINIMUM_VERSION,
    bucket_config,
    config_matches,
    merge_config,
    store_status,
    stream_config,
)
from .format.models import BucketFields, ObjectStoreConfig, ObjectStoreStatus
from .format.naming import check_bucket, stream_name
from .store import ObjectStore

CREATE_BUDGET = 10.0
"""Seconds a creation is retried: the same configuration again succeeds, so an unknown outcome is no harm."""


async def open_bucket(js: JetStreamContext, bucket: str) -> ObjectStore:
    """Open an existing bucket: one round trip.

    A stream whose configuration does not keep objects can be opened and read; what writes is refused there,
    before a byte is sent (``BadBucketError``, see ``docs/buckets.md``).

    Raises:
        BadBucketError: not a bucket name.
        BucketNotFoundError: no such bucket; it is never created here.
    """
    return ObjectStore(await bind(js, bucket))


def build_config(config: ObjectStoreConfig | None, params: BucketFields) -> ObjectStoreConfig:
    """One configuration out of a document and keywords; keywords win.

    Raises:
        BadBucketError: nothing given, or not an ``ObjectStoreConfig``.
        TypeError: an unknown keyword.
    """
    if config is not None and not isinstance(config, ObjectStoreConfig):
        raise BadBucketError(f"config must be an ObjectStoreConfig, not {type(config).__name__}")
    known = {field.name for field in fields(ObjectStoreConfig)}
    unknown = sorted(set(params) - known)
    if unknown:
        raise TypeError(f"unknown bucket parameter {unknown[0]!r}: use one of {', '.join(sorted(known))}")
    if config is None:
        if "bucket" not in params:
            raise BadBucketError("give a configuration, or at least bucket=…")
        return ObjectStoreConfig(**params)
    return replace(config, **params)


async def create_bucket(
    js: JetStreamContext, config: ObjectStoreConfig | None = None, params: BucketFields | None = None
) -> ObjectStore:
    """Create a bucket; the same configuration again succeeds and opens it.

    Raises:
        BadBucketError: a configuration that cannot work, here or in the server's words.
        BucketAlreadyExistsError: it exists with another configuration.
        StoreFullError: the server or account has not that much room.
        UnsupportedFeatureError: the server does not know something asked for. Where that is known before,
            nothing is created; else (an older server behind the one connected to) the bucket stays as that
            one has made it: others may use it by now.
    """
    wanted = build_config(config, params or {})
    document = stream_config(wanted)
    if _answers_itself(js) and (unknown := _unknown_to(server_version(js.client), document)):
        raise _unsupported(js, wanted.bucket, unknown)
    try:
        info = await _apply(js, wanted.bucket, lambda: js.create_stream(document), "created")
    except BucketAlreadyExistsError:
        if wanted.mirror is None or "mirror_direct" in document:
            raise
        # As earlier versions, or an origin that allows direct reads, have made it: the same bucket.
        with_direct = {**document, "mirror_direct": True}
        info = await _apply(js, wanted.bucket, lambda: js.create_stream(with_direct), "created")
    dropped = config_matches(info.config.to_json(), document)
    if dropped:
        raise _unsupported(js, wanted.bucket, dropped, "; the bucket is there, without it")
    return await _opened(js, wanted.bucket, info)


def _answers_itself(js: JetStreamContext) -> bool:
    """Whether JetStream is that of the server connected to, and not one behind it.

    What was read in clear is not believed: nothing is refused because of it, and the domain is asked for.
    """
    near = js.client.server_info
    return js.prefix == "$JS.API" and near.get("jetstream") is True and not told_in_clear(js.client)


def _unknown_to(version: tuple[int, ...] | None, document: Mapping[str, object]) -> list[str]:
    """The fields of a stream's configuration that a server of that version would drop."""
    if version is None:
        return []
    return [
        field
        for field, minimum in FIELD_MINIMUM_VERSION.items()
        if field in document
        and (field not in ("mirror", "sources") or "subject_transforms" in str(document[field]))
        and version < tuple(int(part) for part in minimum.split("."))
    ]


async def _opened(js: JetStreamContext, bucket: str, info: StreamInfo) -> ObjectStore:
    """The bucket that was created or changed, with its domain, which few servers name in these answers.

    Nobody is asked where the server connected to answers by itself and has none.
    """
    near = js.client.connection.info
    may_have = not _answers_itself(js) or "domain" in near
    if may_have and domain_of(info) is None:
        info = await bind_info(js, bucket)
    return ObjectStore(Bucket(js, bucket, info))


async def update_bucket(
    js: JetStreamContext, config: ObjectStoreConfig | None = None, params: BucketFields | None = None
) -> ObjectStore:
    """Change a bucket's configuration.

    With ``config`` it becomes that one; with ``bucket=…`` and other keywords only those fields change.
    Whatever this library does not know of the stream's configuration stays as it is.

    Raises:
        BucketNotFoundError: no such bucket.
        BadBucketError: a change the server refuses (storage cannot change, for one).
        UnsupportedFeatureError: the server dropped something asked for.
    """
    params = params or {}
    name = check_bucket(config.bucket if isinstance(config, ObjectStoreConfig) else params.get("bucket", ""))
    current = (await bind_info(js, name)).config.to_json()
    wanted = build_config(bucket_config(current) if config is None else config, params)
    document = stream_config(wanted)
    merged = merge_config(current, document)
    info = await _apply(js, name, lambda: js.update_stream(merged), "changed")
    dropped = config_matches(info.config.to_json(), document)
    if dropped:
        raise _unsupported(js, name, dropped)
    return await _opened(js, name, info)


async def create_or_update_bucket(
    js: JetStreamContext, config: ObjectStoreConfig | None = None, params: BucketFields | None = None
) -> ObjectStore:
    """Create a bucket, or change the existing one to that configuration. Errors as of both."""
    wanted = build_config(config, params or {})
    try:
        return await create_bucket(js, wanted)
    except BucketAlreadyExistsError:
        return await update_bucket(js, wanted)


async def bucket_names(js: JetStreamContext) -> list[str]:
    """Names of all buckets, mirrors included, sorted; one round trip per 1024 streams."""
    return sorted(name for name in map(bucket_of, await js.stream_names()) if name is not None)


async def bucket_statuses(js: JetStreamContext) -> list[ObjectStoreStatus]:
    """Status of all buckets, sorted by name; one round trip per 256 streams.

    ``count`` is -1: counting live objects means reading every meta, see :meth:`ObjectStore.status`.
    """
    found = [
        store_status(info.raw, -1) for info in await js.streams() if bucket_of(info.config.name) is not None
    ]
    return sorted(found, key=lambda status: status.bucket)


def bucket_of(stream: str) -> str | None:
    """The bucket a stream stands for, by its name; ``None`` for other streams."""
    name = stream.removeprefix("OBJ_")
    if name == stream:
        return None
    try:
        return check_bucket(name)
    except BadBucketError:
        return None


def _budget(js: JetStreamContext) -> float:
    return min(CREATE_BUDGET, js.client.connection.options.retry_budget)


STORE_FAILED = 10049
"""No place for a stream could be made. With the last stream of an account servers remove the folder of all of
them, and with it what is being made there for another one."""

STORE_TRIES = 5


async def _stored(call: Callable[[], Awaitable[StreamInfo]]) -> StreamInfo:
    """Try again for a quarter of a second where another stream may just have been deleted."""
    backoff = Backoff(0.01, 0.1)
    for _ in range(STORE_TRIES):
        try:
            return await call()
        except APIError as exc:
            if exc.err_code != STORE_FAILED:
                raise
        await asyncio.sleep(backoff.seconds)
        backoff.grow()
    return await call()


async def _apply(
    js: JetStreamContext, bucket: str, call: Callable[[], Awaitable[StreamInfo]], what: str
) -> StreamInfo:
    """Create or update, with the server's refusals in our words."""
    try:
        return await retrying(js.client, lambda: _stored(call), _budget(js))
    except StreamNameInUseError as exc:
        raise BucketAlreadyExistsError(
            f"bucket {bucket!r} exists with another configuration", bucket=bucket
        ) from exc
    except StorageFullError as exc:
        raise StoreFullError(
            f"bucket {bucket!r} cannot be {what}: {exc.description}", bucket=bucket, err_code=exc.err_code
        ) from exc
    except StreamSealedError as exc:
        raise BucketSealedError(f"bucket {bucket!r} is sealed (read-only)", bucket=bucket) from exc
    except StreamNotFoundError:
        raise missing(bucket) from None
    except APIError as exc:
        if exc.err_code == NO_SUITABLE_PEERS and "storage" in exc.description:  # a cluster, no node with room
            raise StoreFullError(
                f"bucket {bucket!r} cannot be {what}: {exc.description}", bucket=bucket, err_code=exc.err_code
            ) from exc
        if not isinstance(exc, StreamConfigError):
            raise
        raise BadBucketError(f"bucket {bucket!r} cannot be {what}: {exc.description}", bucket=bucket) from exc


def _unsupported(
    js: JetStreamContext, bucket: str, dropped: list[str], state: str = ""
) -> UnsupportedFeatureError:
    versions = (FIELD_MINIMUM_VERSION.get(field, "2.10.0") for field in dropped)
    return UnsupportedFeatureError(
        f"{' and '.join(dropped)} of bucket {bucket!r}",
        max(versions, key=lambda version: [int(part) for part in version.split(".")]),
        f"this server is {printable(str(js.client.server_info.get('version', 'unknown'))[:80])}{state}",
    )


async def delete_bucket(js: JetStreamContext, bucket: str) -> bool:
    """Delete a bucket with everything in it; returns ``True``.

    Raises:
        BadBucketError: not a bucket name.
        BucketNotFoundError: no such bucket.
    """
    try:
        await js.delete_stream(stream_name(check_bucket(bucket)))
    except StreamNotFoundError:
        raise missing(bucket) from None
    return True
