"""JSON in and out of the JetStream API, with the limits that keep a hostile peer harmless."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from typing import Any

from ...errors import RemoteProtocolError

MAX_DOCUMENT = 64 * 1024 * 1024
"""Bytes of one answer; a page of 100 000 subjects is far below."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = 4_000_000_000_000_000_000  # ns, the year 2096: up to here seconds as a float tell the microseconds
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_decode = json.JSONDecoder().decode


def dumps(document: Mapping[str, Any]) -> bytes:
    """Return compact UTF-8 JSON."""
    return _encode(document).encode()


def dumps_str(text: str) -> bytes:
    """Return ``text`` as a JSON string, as :func:`dumps` writes it, at a tenth of the cost of a document."""
    return encode_basestring(text).encode()


def loads(payload: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Parse an API answer.

    Raises:
        RemoteProtocolError: not JSON, not an object, too large or too deep.
    """
    if len(payload) > MAX_DOCUMENT:
        raise RemoteProtocolError(f"an API answer of {len(payload)} bytes is refused")
    try:
        document = _decode(str(payload, "utf-8"))
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"an API answer is not JSON: {type(exc).__name__}") from None
    if not isinstance(document, dict):
        raise RemoteProtocolError("an API answer is not a JSON object")
    return document


def to_ns(value: timedelta) -> int:
    """Nanoseconds of a ``timedelta``, exactly."""
    return (value.days * 86_400 + value.seconds) * 1_000_000_000 + value.microseconds * 1000


def from_ns(value: Any) -> timedelta | None:
    """A ``timedelta`` from nanoseconds, cut to microseconds; ``None`` for what is no positive int64."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 63:
        return None
    return timedelta(microseconds=value // 1000)


def parse_time(text: Any) -> datetime:
    """An aware UTC ``datetime`` from the server's RFC 3339 (nanoseconds are cut to microseconds).

    Raises:
        RemoteProtocolError: no such text.
    """
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    if isinstance(text, str):
        try:
            time = datetime.fromisoformat(text)  # the usual form is understood as it is
            if time.tzinfo is UTC:
                return time
        except ValueError:
            pass
        head, dot, tail = text.partition(".")
        if dot:
            digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
            text = f"{head}.{digits[:6].ljust(6, '0')}{tail[len(digits) :]}"
        try:
            time = datetime.fromisoformat(text)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            pass
    raise RemoteProtocolError(f"not a time: {text!r}")


def time_from_ns(ns: int) -> datetime:
    """An aware UTC ``datetime`` from nanoseconds since the epoch; less than a microsecond is cut off."""
    if 0 <= ns < _EXACT:
        return datetime.fromtimestamp(ns // 1000 / 1e6, UTC)
    return _EPOCH + timedelta(0, 0, ns // 1000)
