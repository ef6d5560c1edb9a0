"""Create, open, update, delete and list buckets; called by the methods of the JetStream context."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, replace

from natsproto._values import printable
from natsproto.backoff import Backoff
from natsproto.errors import (
    APIError,
    NatsError,
    PermissionsViolationError,
    RequestTimeoutError,
    UnsupportedFeatureError,
)
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

from .bucket.alone import check_alone
from .bucket.binding import bind, bind_info, why_none
from .bucket.bucket import HEADERS_WANTED, Bucket
from .bucket.refusals import missing, translated
from .bucket.retry import retrying
from .bucket.server import domain_of, server_version, told_in_clear
from .errors import (
    BadBucketError,
    BucketAlreadyExistsError,
    BucketNotFoundError,
    BucketSealedError,
    StoreFullError,
)
from .format.buckets import (
    FIELD_MINIMUM_VERSION,
    changes_of,
    config_matches,
    merge_config,
    store_status,
    stream_config,
)
from .format.limits import holds_bucket
from .format.models import BucketFields, ObjectStoreConfig, ObjectStoreStatus
from .format.naming import all_subject, check_bucket, stream_name
from .store import ObjectStore

LOOKS_AT_ONCE = 16
"""Streams whose info is requested at once."""

CREATE_BUDGET = 10.0
"""Seconds to retry a creation: repeating it with the same configuration succeeds, so this is safe."""


async def open_bucket(js: JetStreamContext, bucket: str, create: bool = False) -> ObjectStore:
    """Open a bucket: one round trip if it exists.

    A bucket whose stream somebody configured so that it cannot keep objects can be opened and read; writes
    are refused before any byte is sent (``BadBucketError``, see ``docs/buckets.md``).

    Args:
        create: create it, with the default configuration, if it does not exist.

    Raises:
        BadBucketError: the name is not valid; or a stream of that name exists and is not a bucket.
        BucketNotFoundError: the bucket does not exist, and ``create`` is false.
    """
    try:
        return ObjectStore(await bind(js, bucket))
    except BucketNotFoundError:
        if not create:
            raise
    try:
        return await create_bucket(js, bucket)
    except BucketAlreadyExistsError:  # somebody has just created it, with another configuration
        return ObjectStore(await bind(js, bucket))


def name_first(
    config: ObjectStoreConfig | str | None, params: BucketFields
) -> tuple[ObjectStoreConfig | None, BucketFields]:
    """Return a configuration and keywords, where a name may have been given instead of a configuration.

    Raises:
        TypeError: the name is given twice.
    """
    if not isinstance(config, str):
        return config, params
    if "bucket" in params:
        raise TypeError("the name of the bucket is given twice")
    return None, {**params, "bucket": config}


def build_config(config: ObjectStoreConfig | str | None, params: BucketFields) -> ObjectStoreConfig:
    """Merge a configuration, or the name of a bucket, and keywords into one configuration; keywords win.

    Raises:
        BadBucketError: neither is given, or ``config`` is neither an ``ObjectStoreConfig`` nor a name.
        TypeError: a keyword is unknown, or the name is given twice.
    """
    config, params = name_first(config, params)
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
    js: JetStreamContext, config: ObjectStoreConfig | str | None = None, params: BucketFields | None = None
) -> ObjectStore:
    """Create a bucket; if it exists with the same configuration, open it.

    Raises:
        BadBucketError: this library or the server refuses the configuration.
        BucketAlreadyExistsError: the bucket exists with another configuration.
        StoreFullError: the server or account does not have that much room.
        UnsupportedFeatureError: the server does not support a requested feature. If that is known before,
            nothing is created. Else (an older server behind the current one) the bucket stays as that server
            created it: others may already use it.
    """
    wanted = build_config(config, params or {})
    document = stream_config(wanted)
    js.client.connection.check_headers(HEADERS_WANTED)
    if _answers_itself(js) and (unknown := _unknown_to(server_version(js.client), document)):
        raise _unsupported(js, wanted.bucket, unknown)
    try:
        info = await _apply(js, wanted.bucket, lambda: js.create_stream(document), "created")
    except BucketAlreadyExistsError:
        if wanted.mirror is None or "mirror_direct" in document:
            raise
        # Earlier versions, or an origin that allows direct reads, created it this way: it is the same bucket.
        with_direct = {**document, "mirror_direct": True}
        info = await _apply(js, wanted.bucket, lambda: js.create_stream(with_direct), "created")
    dropped = config_matches(info.config.to_json(), document)
    if dropped:
        raise _unsupported(js, wanted.bucket, dropped, "; the bucket was created without it")
    return await _opened(js, wanted.bucket, info)


def _answers_itself(js: JetStreamContext) -> bool:
    """Whether the current server itself answers JetStream requests, and not a server behind it.

    INFO that was read in clear text is not trusted: nothing is refused because of it, and the domain is
    requested.
    """
    near = js.client.server_info
    return js.prefix == "$JS.API" and near.get("jetstream") is True and not told_in_clear(js.client)


def _unknown_to(version: tuple[int, ...] | None, document: Mapping[str, object]) -> list[str]:
    """Return the fields of a stream's configuration that a server of that version would drop."""
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
    """Open the created or changed bucket with its domain, which few servers report in these responses.

    If the current server answers JetStream requests itself and has no domain, nothing is requested. A user
    who may create the bucket, and not ask, gets it all the same; whatever needs the domain asks again.
    """
    near = js.client.connection.info
    may_have = not _answers_itself(js) or "domain" in near
    if may_have and domain_of(info) is None:
        try:
            info = await bind_info(js, bucket)
        except PermissionsViolationError as exc:
            if exc.operation != "publish":
                raise
            return ObjectStore(Bucket(js, bucket, info, domain_known=False))
    return ObjectStore(Bucket(js, bucket, info))


async def update_bucket(
    js: JetStreamContext, config: ObjectStoreConfig | str | None = None, params: BucketFields | None = None
) -> ObjectStore:
    """Change a bucket's configuration.

    With ``config`` the bucket gets that configuration; with ``bucket=…`` and other keywords only those fields
    change. With the name alone the stream gets what it lacks to keep objects. The rest of the stream's
    configuration goes back as it came. So does what is asked for and there already: a mirror or source may be
    in another account, or filtered, which a ``BucketSource`` cannot say.

    Raises:
        BucketNotFoundError: no such bucket.
        BadBucketError: the server refuses the change (storage cannot change, for example).
        BucketSealedError: it is sealed.
        UnsupportedFeatureError: the server dropped a requested feature.
    """
    config, params = name_first(config, params or {})
    name = check_bucket(config.bucket if isinstance(config, ObjectStoreConfig) else params.get("bucket", ""))
    found = await bind_info(js, name)
    await check_alone(js, name, found)
    current = found.config.to_json()
    if current.get("sealed") is True:  # the server would change it, as far as the objects stay
        raise BucketSealedError(f"bucket {name!r} is sealed (read-only)", bucket=name)
    wanted = stream_config(build_config(config, params))
    changes = changes_of(current, wanted, params.keys() - {"bucket"} if config is None else None)
    merged = merge_config(current, changes)
    age, window = merged.get("max_age"), merged.get("duplicate_window")
    if isinstance(age, int) and isinstance(window, int) and 0 < age < window:
        merged["duplicate_window"] = age  # the server chose it for the old age, and refuses a longer one
    bucket = Bucket(js, name, found)
    info = await _apply(js, name, lambda: bucket.update_stream(merged), "changed")
    changes.pop("mirror_direct", None)  # servers set it as the origin has it, if they know that one
    dropped = config_matches(info.config.to_json(), changes)
    if dropped:
        raise _unsupported(js, name, dropped)
    return await _opened(js, name, info)


async def create_or_update_bucket(
    js: JetStreamContext, config: ObjectStoreConfig | str | None = None, params: BucketFields | None = None
) -> ObjectStore:
    """Create a bucket, or change the existing one to that configuration. Raises the errors of both."""
    wanted = build_config(config, params or {})
    try:
        return await create_bucket(js, wanted)
    except BucketAlreadyExistsError:
        return await update_bucket(js, wanted)


async def bucket_names(js: JetStreamContext) -> list[str]:
    """Return the names of all buckets, mirrors included, sorted; two round trips per 1024 streams.

    Mirrors do not listen on any subject: each costs one more request. Other streams that are called
    ``OBJ_…`` are left out.
    """
    listening = set(await js.stream_names(all_subject("*")))
    names = {stream: name for stream in await js.stream_names() if (name := bucket_of(stream)) is not None}
    quiet = [stream for stream in names if stream not in listening]
    for at in range(0, len(quiet), LOOKS_AT_ONCE):
        part = quiet[at : at + LOOKS_AT_ONCE]
        looks = await asyncio.gather(*(_is_bucket(js, stream) for stream in part), return_exceptions=True)
        for stream, found in zip(part, looks, strict=True):
            if isinstance(found, BaseException):
                raise found
            if not found:
                del names[stream]
    return sorted(names.values())


async def _is_bucket(js: JetStreamContext, stream: str) -> bool:
    try:
        return holds_bucket((await js.stream_info(stream)).config.to_json())
    except StreamNotFoundError:
        return False  # deleted meanwhile
    except (APIError, PermissionsViolationError, RequestTimeoutError):
        return True  # without a leader, or not for this user: its name is all that is known


async def bucket_statuses(js: JetStreamContext) -> list[ObjectStoreStatus]:
    """Return the status of all buckets, sorted by name; one round trip per 256 streams.

    ``count`` is -1: counting live objects would read every meta, see :meth:`ObjectStore.status`.
    """
    return [store_status(info.raw, -1) for _, info in await bucket_streams(js)]


async def bucket_streams(js: JetStreamContext) -> list[tuple[str, StreamInfo]]:
    """Return the names of all buckets and the info of their streams, sorted; as :func:`bucket_statuses`."""
    found = [(bucket_of(info.config.name), info) for info in await js.streams()]
    return sorted(
        ((name, info) for name, info in found if name is not None and holds_bucket(info.config.to_json())),
        key=lambda bucket: bucket[0],
    )


def bucket_of(stream: str) -> str | None:
    """Return the name of the bucket that a stream of that name may hold; ``None`` for other names."""
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
"""Error code: the server could not create the store of a stream. With the last stream of an account a server
removes the folder of all its streams, and with it the files of a stream that is just being created."""

STORE_TRIES = 5
"""Attempts after such an error, before the last one."""


async def _stored(call: Callable[[], Awaitable[StreamInfo]]) -> StreamInfo:
    """Retry for a quarter of a second: another stream may just have been deleted."""
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
    """Create or update a stream; translate the server's refusals."""
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
    except StreamNotFoundError as exc:
        raise translated(exc, bucket) from None
    except APIError as exc:
        if exc.err_code == NO_SUITABLE_PEERS and "storage" in exc.description:  # no node of the cluster fits
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
    """Delete a bucket with everything in it; return ``True``.

    Raises:
        BadBucketError: the name is not valid; or a stream of that name exists and is not a bucket.
        BucketNotFoundError: no such bucket.
    """
    stream = stream_name(check_bucket(bucket))
    try:
        try:
            wrong = why_none(bucket, await js.stream_info(stream))
            if wrong is not None:
                raise wrong
        except (StreamNotFoundError, BadBucketError):
            raise
        except NatsError:
            pass  # a bucket without a leader can be deleted; or the user may not ask
        await js.delete_stream(stream)
    except StreamNotFoundError:
        raise missing(bucket) from None
    return True
