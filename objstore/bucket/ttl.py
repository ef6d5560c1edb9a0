"""A time to live per object (nats-server 2.11, bucket created with ``allow_msg_ttl``).

The meta message carries ``Nats-TTL``, and so do the chunks, for an hour longer: the name goes first, readers
under way can finish, and the server removes what is left by itself.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from natsproto.errors import UnsupportedFeatureError
from natsproto.headers import header_value

from ..errors import BadObjectMetaError

if TYPE_CHECKING:
    from ..format.models import ObjectInfo
    from .bucket import Bucket

CHUNK_GRACE = timedelta(hours=1)
"""How much longer chunks live than the meta that names them; also the longest upload that is safe."""

_PARTS = re.compile(r"(\d{1,12})(h|m|s)")


def check_ttl(bucket: Bucket, ttl: timedelta | None) -> timedelta | None:
    """Refuse a time to live that cannot be had, before any byte is sent.

    Raises:
        BadObjectMetaError: not a ``timedelta`` of at least a second.
        UnsupportedFeatureError: the bucket does not allow it.
    """
    if ttl is None:
        return None
    if not isinstance(ttl, timedelta) or ttl < timedelta(seconds=1):
        raise BadObjectMetaError("ttl must be a timedelta of at least one second", bucket=bucket.name)
    if not bucket.msg_ttl:
        raise UnsupportedFeatureError(
            "a time to live per object", "2.11.0", f"create bucket {bucket.name!r} with allow_msg_ttl=True"
        )
    return ttl


def ttl_line(ttl: timedelta | None) -> bytes:
    """The header line, rounded up to whole seconds (the server's unit); empty for ``None``."""
    return b"" if ttl is None else b"Nats-TTL: %ds\r\n" % -(-ttl // timedelta(seconds=1))


def chunk_header(ttl: timedelta | None) -> bytes:
    """The header block of a chunk; empty (a plain message) without a time to live."""
    return b"" if ttl is None else b"NATS/1.0\r\n" + ttl_line(ttl + CHUNK_GRACE) + b"\r\n"


def expired(info: ObjectInfo) -> bool:
    """Whether its time is over: the server may have removed its chunks, and not yet its meta.

    A server that was killed may bring a meta back that it had removed, and never look at it again.
    """
    return info.expires is not None and info.expires < datetime.now(UTC)


def expiry(header: bytes | None, stored: datetime) -> datetime | None:
    """When a message with this header block, stored at ``stored``, expires; ``None`` = never."""
    value = None if header is None else header_value(header, b"Nats-TTL")
    if value is None:
        return None
    text = value.decode("ascii", "replace")
    seconds = 0
    if text.isdigit() and len(text) < 13:
        seconds = int(text)
    elif "".join(match[0] for match in _PARTS.finditer(text)) == text:
        seconds = sum(int(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in _PARTS.findall(text))
    try:
        return stored + timedelta(seconds=seconds) if seconds else None
    except OverflowError:
        return None


def remaining(expires: datetime | None) -> timedelta | None:
    """What is left of a time to live, at least a second; by this machine's clock."""
    if expires is None:
        return None
    return max(expires - datetime.now(UTC), timedelta(seconds=1))
