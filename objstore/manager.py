"""Buckets: create, open, delete. Asked for on the JetStream context (``js.object_store(…)`` and friends)."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from natsproto.errors import UnsupportedFeatureError
from natsproto.jetstream.api.errors import (
    StorageFullError,
    StreamConfigError,
    StreamNameInUseError,
    StreamNotFoundError,
)
from natsproto.jetstream.context import JetStreamContext

from ._bucket import Bucket, bind, missing, retrying
from .errors import BadBucketError, BucketAlreadyExistsError, StoreFullError
from .format.buckets import FIELD_MINIMUM_VERSION, config_matches, stream_config
from .format.models import ObjectStoreConfig
from .format.naming import check_bucket, stream_name
from .store import ObjectStore

CREATE_BUDGET = 10.0
"""Seconds a creation is retried: the same configuration again succeeds, so an unknown outcome is no harm."""


async def open_bucket(js: JetStreamContext, bucket: str) -> ObjectStore:
    """Open an existing bucket: one round trip.

    Raises:
        BadBucketError: not a bucket name.
        BucketNotFoundError: no such bucket; it is never created here.
    """
    return ObjectStore(await bind(js, bucket))


def build_config(config: ObjectStoreConfig | None, params: dict[str, Any]) -> ObjectStoreConfig:
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
    js: JetStreamContext, config: ObjectStoreConfig | None = None, params: dict[str, Any] | None = None
) -> ObjectStore:
    """Create a bucket; the same configuration again succeeds and opens it.

    Raises:
        BadBucketError: a configuration that cannot work, here or in the server's words.
        BucketAlreadyExistsError: it exists with another configuration.
        StoreFullError: the server or account has not that much room.
        UnsupportedFeatureError: the server dropped something asked for; the bucket is not kept.
    """
    wanted = build_config(config, params or {})
    document = stream_config(wanted)
    bucket = wanted.bucket
    try:
        info = await retrying(js.client, lambda: js.create_stream(document), CREATE_BUDGET)
    except StreamNameInUseError as exc:
        raise BucketAlreadyExistsError(
            f"bucket {bucket!r} exists with another configuration", bucket=bucket
        ) from exc
    except StorageFullError as exc:
        raise StoreFullError(
            f"bucket {bucket!r} cannot be created: {exc.description}", bucket=bucket, err_code=exc.err_code
        ) from exc
    except StreamConfigError as exc:
        raise BadBucketError(
            f"bucket {bucket!r} cannot be created: {exc.description}", bucket=bucket
        ) from exc
    dropped = config_matches(info.config.to_json(), document)
    if dropped:
        # Created by this call a moment ago, and empty: an older bucket would have been refused as different.
        if info.messages == 0:
            await js.delete_stream(info.config.name)
        raise UnsupportedFeatureError(
            f"{' and '.join(dropped)} of bucket {bucket!r}",
            max(FIELD_MINIMUM_VERSION.get(field, "2.10.0") for field in dropped),
            f"this server is {js.client.server_info.get('version', 'unknown')}",
        )
    return ObjectStore(Bucket(js, bucket, info))


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
