"""Check a put before any byte is sent."""

from __future__ import annotations

from datetime import timedelta

from natsproto.errors import MaxPayloadError, NatsError

from ..bucket.bucket import NO_USER_META, Bucket, UserMeta
from ..bucket.ttl import check_ttl, chunk_header
from ..errors import BadBucketError, BadObjectMetaError
from ..format.chunking import requested_chunk_size, resolve_chunk_size
from ..format.codec import largest_meta
from ..format.models import ObjectInfo, ObjectMetaOptions, plain_options

PLAIN_META = 32 * 1024
"""Bytes: an upper bound for a meta that holds only a name, even a fully escaped one."""


def prepare(
    bucket: Bucket,
    name: str,
    about: UserMeta,
    options: ObjectMetaOptions | None,
    chunk_size: int | None,
    ttl: timedelta | None,
    room: int = 0,
) -> tuple[ObjectInfo, int]:
    """Check everything that can be checked before a byte is sent.

    Args:
        room: bytes of a message reserved for headers.

    Returns:
        The object's info without content, and the chunk size.
    """
    bucket.connection.check_open()
    bucket.check_writable()
    name = bucket.check_name(name)
    if options is not None and not isinstance(options, ObjectMetaOptions):
        raise BadObjectMetaError(
            f"options must be ObjectMetaOptions, not {type(options).__name__}", bucket=bucket.name, name=name
        )
    if options is not None and options.link is not None:
        raise BadObjectMetaError(
            "put() stores bytes: use add_link() or update_meta() to create a link",
            bucket=bucket.name,
            name=name,
        )
    if ttl is not None:
        check_ttl(bucket, ttl)
        room += len(chunk_header(ttl))
    limit = bucket.max_message - room
    whose = "max_msg_size of the bucket's stream" if bucket.limits_messages else "the server's max_payload"
    if room:
        whose += f" less {room} bytes for headers"
    size = resolve_chunk_size(
        requested_chunk_size(options) if chunk_size is None else chunk_size, limit, whose
    )
    template = bucket.template(name, about, plain_options(size))
    if about != NO_USER_META or limit < PLAIN_META:
        meta_size = largest_meta(template)
        if meta_size > limit:
            raise _too_large(bucket, name, meta_size, limit)
    return template, size


def _too_large(bucket: Bucket, name: str, size: int, limit: int) -> NatsError:
    what = f"the metadata of {name!r} takes up to {size} bytes with its headers"
    if bucket.limits_messages:
        value = bucket.limits.message
        return BadBucketError(
            f"{what}, and the stream of bucket {bucket.name!r} has max_msg_size {value}: "
            f"shorten the metadata, or set max_msg_size to at least {size + value - limit}",
            bucket=bucket.name,
            name=name,
            field="max_msg_size",
            value=value,
        )
    return MaxPayloadError(f"{what}, max_payload is {limit}", size=size, max_payload=limit)
