"""A time to live per object (nats-server 2.11, bucket created with ``allow_msg_ttl``).

The meta message carries ``Nats-TTL``, and so do the chunks, for an hour longer: the name goes first, readers
under way can finish, and the server removes what is left by itself.

When an object ends is settled by its put. A change stores a new meta, whose whole seconds count from then on,
rounded up: a second more with each, and after enough of them the name would outlive its chunks. So a change
says the end itself as well, and the next one goes by that; and what is left is told by the server's clock.
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
"""How much longer chunks live than the meta that names them; also the longest upload that is safe."""

MICROSECOND = timedelta(microseconds=1)

LAST = datetime(2262, 4, 11, tzinfo=UTC)
"""The server counts nanoseconds since 1970 in 63 bits: what is to expire later is mostly gone at once."""

UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)
"""When a message expires whose time to live is not understood: at any moment, maybe never."""

END = b"Natsproto-End"
"""The header that keeps the end of what was changed, in microseconds since 1970."""

_MOST_TEXT = 100
"""Characters of a time to live that are looked at."""

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
    """Refuse a time to live that cannot be had, before any byte is sent.

    Raises:
        BadObjectMetaError: not a ``timedelta`` of at least a second, or one that ends after 2262.
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
    """The header line, rounded up to whole seconds (the server's unit); empty for ``None``."""
    return b"" if ttl is None else b"Nats-TTL: %ds\r\n" % -(-ttl // timedelta(seconds=1))


def end_line(end: datetime | None) -> bytes:
    """The header line that says when the object ends that is changed; empty for ``None``."""
    return b"" if end is None or end == UNKNOWN else b"%b: %d\r\n" % (END, (end - UNKNOWN) // MICROSECOND)


def chunk_header(ttl: timedelta | None) -> bytes:
    """The header block of a chunk; empty (a plain message) without a time to live."""
    return b"" if ttl is None else b"NATS/1.0\r\n" + ttl_line(ttl + CHUNK_GRACE) + b"\r\n"


def expired(info: ObjectInfo) -> bool:
    """Whether its time is over: the server may have removed its chunks, and not yet its meta.

    A server that was killed may bring a meta back that it had removed, and never look at it again.
    """
    return info.expires is not None and UNKNOWN < info.expires < datetime.now(UTC)


def expiry(header: bytes | None, stored: datetime) -> datetime | None:
    """When a message with this header block, stored at ``stored``, expires; ``None`` = never.

    The server reads what Go reads as a duration, or seconds. Whatever else is there counts as
    :data:`UNKNOWN`, never as no time to live.
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
    """The end that the change before has kept; it can only be sooner than what the server does."""
    value = None if header is None else header_value(header, END)
    if value is None or not value.isdigit() or len(value) > len(b"%d" % ((LAST - UNKNOWN) // MICROSECOND)):
        return LAST
    return min(LAST, UNKNOWN + max(int(value), 1) * MICROSECOND)


def _seconds(text: str) -> float | None:
    """A time to live in whole seconds, 0 for ever; ``None``: it is none that a server takes."""
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
    """Whether what expires at ``new`` can take the place of what expires at ``old``.

    Who makes one of the other writes how much time is left by its own clock, which may go wrong by as much
    as chunks outlive their meta; but not by half of what is left.
    """
    if new is None:
        return True
    if old is None or UNKNOWN in (new, old):
        return False
    left = max(old - datetime.now(UTC), timedelta(0))
    return new >= old - min(CHUNK_GRACE, left / 2)


async def remaining(bucket: Bucket, end: datetime | None) -> timedelta | None:
    """What is left of a time to live that ends then; by the server's clock."""
    return None if end is None else left_of(end, await _now(bucket))


def left_of(end: datetime, now: datetime) -> timedelta | None:
    """What is left, at least a second.

    Of what is not understood nothing is passed on: a second would be the end of what may be there for ever.
    """
    return None if end == UNKNOWN else max(end - now, timedelta(seconds=1))


async def check_living(bucket: Bucket, info: ObjectInfo) -> None:
    """Change nothing whose time is over: it would have another second, again and again.

    Raises:
        ObjectNotFoundError: it is, and the server has not removed it yet.
    """
    if info.expires is not None and UNKNOWN < info.expires <= await _now(bucket):
        raise ObjectNotFoundError(
            f"object {info.name!r} in bucket {info.bucket!r} has expired", bucket=info.bucket, name=info.name
        )


async def _now(bucket: Bucket) -> datetime:
    return server_time(await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream)))
