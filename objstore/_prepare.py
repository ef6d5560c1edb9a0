"""What can be checked of a put before a byte is sent."""

from __future__ import annotations

from datetime import timedelta

from natsproto.errors import MaxPayloadError

from ._bucket import NOTHING_SAID, About, Bucket
from ._ttl import check_ttl, chunk_header
from .errors import BadObjectMetaError
from .format.chunking import requested_chunk_size, resolve_chunk_size
from .format.codec import encode_meta
from .format.models import ObjectInfo, ObjectMetaOptions, plain_options

META_ROOM = 512
"""Bytes a meta message may grow by: nuid, digest, counts, and its header block."""

PLAIN_META = 32 * 1024
"""More than the meta of an object takes of which nothing is said but its name, however that is escaped."""


def prepare(
    bucket: Bucket,
    name: str,
    about: About,
    options: ObjectMetaOptions | None,
    chunk_size: int | None,
    ttl: timedelta | None,
    room: int = 0,
) -> tuple[ObjectInfo, int]:
    """Check everything that can be checked before a byte is sent.

    Args:
        room: bytes of a message that headers will take.

    Returns:
        The object's info without content, and the chunk size.
    """
    bucket.client._check_usable()
    bucket.check_writable()
    name = bucket.check_name(name)
    if options is not None and not isinstance(options, ObjectMetaOptions):
        raise BadObjectMetaError(
            f"options must be ObjectMetaOptions, not {type(options).__name__}", bucket=bucket.name, name=name
        )
    if options is not None and options.link is not None:
        raise BadObjectMetaError(
            "put() stores bytes: use add_link() or update_meta() to make a link",
            bucket=bucket.name,
            name=name,
        )
    limit = bucket.client.max_payload - room
    if ttl is not None:
        check_ttl(bucket, ttl)
        limit -= len(chunk_header(ttl))
    size = resolve_chunk_size(requested_chunk_size(options) if chunk_size is None else chunk_size, limit)
    template = bucket.template(name, about, plain_options(size))
    meta_size = META_ROOM
    if about != NOTHING_SAID or limit < PLAIN_META:
        meta_size += len(encode_meta(template))
    if meta_size > limit:
        raise MaxPayloadError(
            f"the metadata of {name!r} takes about {meta_size} bytes, max_payload is {limit}",
            size=meta_size,
            max_payload=limit,
        )
    return template, size
