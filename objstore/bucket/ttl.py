"""A time to live per object (nats-server 2.11, bucket created with ``allow_msg_ttl``).

The meta message carries ``Nats-TTL``, and so do the chunks, for an hour longer: the name expires first,
running reads can finish, and the server removes the chunks by itself.

The put of an object determines when it ends. A change stores a new meta with the remaining time, rounded up
to whole seconds: each change would add up to a second, and after enough of them the name would outlive its
chunks. So a change also records the end itself, and the next change uses that. The remaining time is computed
by the server's clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from natsproto.errors import UnsupportedFeatureError
from natsproto.headers import header_value

from ..errors import BadObjectMetaError, ObjectNotFoundError
from .clock import server_time

if TYPE_CHECKING:
    from ..format.models import ObjectInfo
    from .bucket import Bucket

CHUNK_GRACE = timedelta(hours=1)
"""Chunks live this much longer than their meta; it is also the longest safe duration of an upload."""

MICROSECOND = timedelta(microseconds=1)

LAST = datetime(2262, 4, 11, tzinfo=UTC)
"""The latest end: the server counts nanoseconds since 1970 in 63 bits; later ones mostly expire at once."""

UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)
"""The expiry of a message whose time to live is unreadable: it may expire at any moment, or never."""

END = b"Natsproto-End"
"""The header that records the end of a changed object, in microseconds since 1970."""

_MOST_TEXT = 100
"""Characters of the longest time to live that is parsed."""

_NANOSECONDS = {
    "ns": 1,
    "us": 1e3,
    "\u00b5s": 1e3,  # the micro sign
    "\u03bcs": 1e3,  # the Greek letter
    "ms": 1e6,
    "s": 1e9,
    "m": 60e9,
    "h": 3600e9,
}
_PART = re.compile(rf"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)({'|'.join(_NANOSECONDS)})")
_DURATION = re.compile(rf"\+?(?:{_PART.pattern})+")


def check_ttl(bucket: Bucket, ttl: timedelta | None) -> timedelta | None:
    """Refuse an impossible time to live before any byte is sent.

    Raises:
        BadObjectMetaError: it is not a ``timedelta`` of at least a second, or ends after 2262.
        UnsupportedFeatureError: the bucket does not allow it.
    """
    if ttl is None:
        return None
    if not isinstance(ttl, timedelta) or ttl < timedelta(seconds=1):
        raise BadObjectMetaError("ttl must be a timedelta of at least one second", bucket=bucket.name)
    if ttl > LAST - datetime.now(UTC) - CHUNK_GRACE:
        raise BadObjectMetaError(
            "ttl ends after the year 2262, which servers do not count to: leave it out", bucket=bucket.name
        )
    if not bucket.msg_ttl:
        raise UnsupportedFeatureError(
            "a time to live per object", "2.11.0", f"create bucket {bucket.name!r} with allow_msg_ttl=True"
        )
    return ttl


def ttl_line(ttl: timedelta | None) -> bytes:
    """Return the header line, rounded up to whole seconds (the server's unit); empty for ``None``."""
    return b"" if ttl is None else b"Nats-TTL: %ds\r\n" % -(-ttl // timedelta(seconds=1))


def end_line(end: datetime | None) -> bytes:
    """Return the header line with the end of a changed object; empty for ``None``."""
    return b"" if end is None or end == UNKNOWN else b"%b: %d\r\n" % (END, (end - UNKNOWN) // MICROSECOND)


def chunk_header(ttl: timedelta | None) -> bytes:
    """Return the header block of a chunk; empty (a plain message) without a time to live."""
    return b"" if ttl is None else b"NATS/1.0\r\n" + ttl_line(ttl + CHUNK_GRACE) + b"\r\n"


def expired(info: ObjectInfo) -> bool:
    """Whether the object has expired: the server may have removed its chunks, but not yet its meta.

    A killed server may restore a removed meta, and never remove it again.
    """
    return info.expires is not None and UNKNOWN < info.expires < datetime.now(UTC)


def expiry(header: bytes | None, stored: datetime) -> datetime | None:
    """Return when a message with this header block, stored at ``stored``, expires; ``None`` = never.

    The server accepts a Go duration, or seconds. Any other value counts as :data:`UNKNOWN`, never as no time
    to live.
    """
    value = None if header is None else header_value(header, b"Nats-TTL")
    if value is None:
        return None
    seconds = _seconds(value.decode("utf-8", "replace"))
    if seconds == 0:
        return None
    if seconds is None or seconds > (LAST - stored).total_seconds():
        return UNKNOWN
    return min(stored + timedelta(seconds=seconds), _told_end(header))


def _told_end(header: bytes | None) -> datetime:
    """Return the end that the previous change recorded; it can only be earlier than the server's."""
    value = None if header is None else header_value(header, END)
    if value is None or not value.isdigit() or len(value) > len(b"%d" % ((LAST - UNKNOWN) // MICROSECOND)):
        return LAST
    return min(LAST, UNKNOWN + max(int(value), 1) * MICROSECOND)


def _seconds(text: str) -> float | None:
    """Return a time to live in whole seconds, 0 = for ever; ``None`` when the server would refuse it."""
    if not text or text.lower() == "never":
        return 0
    if len(text) > _MOST_TEXT:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    if _DURATION.fullmatch(text) is None:
        return None
    nanoseconds = sum(float(number) * _NANOSECONDS[unit] for number, unit in _PART.findall(text))
    if 0 < nanoseconds < 1e9:
        return None
    return nanoseconds // 1e9


def outlasts(new: datetime | None, old: datetime | None) -> bool:
    """Whether a meta that expires at ``new`` can replace one that expires at ``old``.

    A writer computes the remaining time by its own clock. That may be wrong by as much as chunks outlive
    their meta, but not by half of the remaining time.
    """
    if new is None:
        return True
    if old is None or UNKNOWN in (new, old):
        return False
    left = max(old - datetime.now(UTC), timedelta(0))
    return new >= old - min(CHUNK_GRACE, left / 2)


async def remaining(bucket: Bucket, end: datetime | None) -> timedelta | None:
    """Return the time left until ``end``, by the server's clock."""
    return None if end is None else left_of(end, await _now(bucket))


def left_of(end: datetime, now: datetime) -> timedelta | None:
    """Return the time left, at least a second.

    ``None`` for an unknown end: with one second, an object that may live for ever would expire.
    """
    return None if end == UNKNOWN else max(end - now, timedelta(seconds=1))


async def check_living(bucket: Bucket, info: ObjectInfo) -> None:
    """Refuse to change an expired object: each change would give it another second.

    Raises:
        ObjectNotFoundError: the object has expired, but the server has not removed it yet.
    """
    if info.expires is not None and UNKNOWN < info.expires <= await _now(bucket):
        raise ObjectNotFoundError(
            f"object {info.name!r} in bucket {info.bucket!r} has expired", bucket=info.bucket, name=info.name
        )


async def _now(bucket: Bucket) -> datetime:
    return server_time(await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream)))
