"""The server's time, as the server reports it."""

from __future__ import annotations

from datetime import UTC, datetime

from natsproto.errors import NatsError
from natsproto.jetstream.api.codec import parse_time
from natsproto.jetstream.api.models import StreamInfo

FIRST = datetime(2010, 1, 1, tzinfo=UTC)
"""No server existed before. Ages are subtracted from the time, and the result must fit a datetime."""


def server_time(stream: StreamInfo) -> datetime:
    """Return when the server sent this response; before nats-server 2.10 it does not say: use our clock."""
    told = stream.raw.get("ts")
    try:
        time = parse_time(told)
    except NatsError:
        return datetime.now(UTC)
    return time if time > FIRST else datetime.now(UTC)
