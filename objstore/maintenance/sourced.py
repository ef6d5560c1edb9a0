"""What the sources of a bucket still have to send: the meta of chunks that seem to be orphans, perhaps.

A source sends in order, but its link may be down for days, in the middle of an object, too. Meanwhile its
chunks grow old here.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from natsproto.headers import header_value

from ..bucket.clock import FIRST, server_time

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import StoredMessage, StreamInfo

    from ..bucket.bucket import Bucket

LOOKS = 10
"""Times that a source is looked at, until it has nothing under way: busy ones seldom have."""

PAUSE = 0.2
"""Seconds between them."""


def is_sourced(message: StoredMessage) -> bool:
    """Whether the message has come from a source of the stream."""
    return message.header is not None and header_value(message.header, b"Nats-Stream-Source") is not None


async def arrived_until(bucket: Bucket, stream: StreamInfo) -> datetime | None:
    """Return the time until when all that the bucket's sources had stored has arrived.

    Args:
        bucket: the bucket.
        stream: its stream, as it is now.

    Returns:
        A time of the server; ``None``: that is not known for each of them.
    """
    for look in range(LOOKS):
        if look:
            await asyncio.sleep(PAUSE)
            stream = await bucket.retrying(lambda: bucket.js.stream_info(bucket.stream))
        heard = _heard(stream)
        if heard is not None:
            return max(FIRST, server_time(stream) - heard)
    return None


def _heard(stream: StreamInfo) -> timedelta | None:
    """Return how long ago each source was heard last; ``None`` if one has more to send, or was not heard.

    Each one sends a heartbeat every second or so.
    """
    sources = stream.sources or []
    if len(sources) < len(stream.config.sources or ()):
        return None
    longest = 0
    for source in sources:
        lag, active = source.get("lag"), source.get("active")
        if type(lag) is not int or lag or type(active) is not int or not 0 <= active < 1 << 62:
            return None
        longest = max(longest, active)
    return timedelta(microseconds=longest // 1000 + 1)
