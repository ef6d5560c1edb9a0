"""Decode ordinary metas, as this library, nats.go and nats-py write them, by regular expressions.

This is for listings: it takes half the time of :func:`~objstore.format.codec.decode_meta`. It is only a
shortcut: metas that do not match byte for byte are left to ``decode_meta``, and both give the same result.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

from objstore.format.digest import PREFIX, URL_SAFE
from objstore.format.models import ObjectInfo, plain_info, plain_options

PlainReader = Callable[[bytes, bytes, int, datetime], ObjectInfo | None]
"""``reader(subject, payload, revision, timestamp)``; ``None``: use ``decode_meta``."""

_COUNT = rb"(0|[1-9][0-9]{0,17})"  # within 63 bits
_TEXT = rb'"[ !#-\[\]-~]{0,255}"'  # printable ASCII without escapes; the value does not matter
_NAME = rb'"([^"\\\x00-\x1f]{1,4096})"'  # so the whole message is far below the limit of decode_meta()
_NUID = rb'"([0-9A-Za-z_-]{0,64})"'
_DIGEST = rb'"SHA-256=([0-9A-Za-z_-]{43}=)"'
_SIZE = rb"([1-9][0-9]{0,17})"  # 0 would mean the default
_COMPACT = (  # this library and nats.go
    rb'\{"name":%b,(?:"options":\{"max_chunk_size":%b\},)?"bucket":%b,"nuid":%b,"size":%b,"mtime":%b,"chunks":%b,'
    rb'"digest":%b\}'
) % (_NAME, _SIZE, _TEXT, _NUID, _COUNT, _TEXT, _COUNT, _DIGEST)
_SPACED = (  # nats-py
    rb'\{"name": %b, "bucket": %b, "nuid": %b, "size": %b, "mtime": %b, "chunks": %b, "digest": %b, '
    rb'"deleted": false(?:, "options": \{"max_chunk_size": %b\})?\}'
) % (_NAME, _TEXT, _NUID, _COUNT, _TEXT, _COUNT, _DIGEST, _SIZE)
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")

Match = Callable[[bytes], re.Match[bytes] | None]


@lru_cache(maxsize=1)
def _shapes() -> tuple[Match, Match]:
    """Return the patterns, compiled on first use: that takes longer than the import of this module."""
    return re.compile(_COMPACT).fullmatch, re.compile(_SPACED).fullmatch


def plain_reader(bucket: str) -> PlainReader:
    """Return a reader for the metas of one bucket; the caller has checked its name."""
    compact, spaced = _shapes()
    prefix = f"$O.{bucket}.M.".encode()

    def read(subject: bytes, payload: bytes, revision: int, timestamp: datetime) -> ObjectInfo | None:
        if (found := compact(payload)) is not None:
            name, chunk_size, nuid, size, chunks, digest = found.groups()
        elif (found := spaced(payload)) is not None:
            name, nuid, size, chunks, digest, chunk_size = found.groups()
        else:
            return None
        if subject != prefix + b2a_base64(name, newline=False).translate(URL_SAFE):
            return None
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        return plain_info(
            text,
            bucket,
            None if chunk_size is None else plain_options(int(chunk_size)),
            timestamp,
            int(size),
            int(chunks),
            PREFIX + a2b_base64(digest.translate(_TO_STANDARD)).hex(),
            nuid.decode(),
            revision,
        )

    return read
