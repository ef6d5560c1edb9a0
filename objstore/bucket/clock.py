"""The server's time, by its own word."""

from __future__ import annotations

from datetime import UTC, datetime

from natsproto.errors import NatsError
from natsproto.jetstream.api.codec import parse_time
from natsproto.jetstream.api.models import StreamInfo

FIRST = datetime(2010, 1, 1, tzinfo=UTC)
"""There was no server before. Ages are taken off the time: it must not get beyond what a datetime holds."""


def server_time(stream: StreamInfo) -> datetime:
    """When the server gave this answer; before nats-server 2.10 it does not say, and our clock has to do."""
    told = stream.raw.get("ts")
    try:
        time = parse_time(told)
    except NatsError:
        return datetime.now(UTC)
    return time if time > FIRST else datetime.now(UTC)
