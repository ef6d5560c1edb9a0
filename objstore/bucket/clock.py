"""The server's time, by its own word."""

from __future__ import annotations

from datetime import UTC, datetime

from natsproto.errors import NatsError
from natsproto.jetstream.api.codec import parse_time
from natsproto.jetstream.api.models import StreamInfo


def server_time(stream: StreamInfo) -> datetime:
    """When the server gave this answer; before nats-server 2.10 it does not say, and our clock has to do."""
    told = stream.raw.get("ts")
    try:
        return parse_time(told) if isinstance(told, str) else datetime.now(UTC)
    except NatsError:
        return datetime.now(UTC)
