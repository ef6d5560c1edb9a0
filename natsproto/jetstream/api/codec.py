"""JSON in and out of the JetStream API, with the limits that keep a hostile peer harmless."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from typing import Any

from ...errors import RemoteProtocolError

MAX_DOCUMENT = 64 * 1024 * 1024
"""Bytes of a message, or of a page of a listing; a page of 100 000 subjects is far below."""

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of any other answer. The largest part is a configuration, with the subjects and metadata it names."""

MAX_VALUES = 500_000
"""Values of one answer. A page has 100 000 subjects at most; an empty list takes 64 bytes as an object."""

FEW = 256 * 1024
"""Bytes of an answer whose values are not counted: there is no room for many."""

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


def loads(payload: bytes | bytearray | memoryview, limit: int | None = None) -> dict[str, Any]:
    """Parse an API answer of at most ``limit`` bytes, by default :data:`MAX_ANSWER`.

    Raises:
        RemoteProtocolError: not JSON, not an object, too large, too deep, or of too many values.
    """
    size = len(payload)
    if size > (MAX_ANSWER if limit is None else limit):
        raise RemoteProtocolError(f"an API answer of {size} bytes is refused")
    if size > FEW and _values(bytes(payload)) > MAX_VALUES:
        raise RemoteProtocolError(f"an API answer of {size} bytes has too many values")
    try:
        document = _decode(str(payload, "utf-8"))
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"an API answer is not JSON: {type(exc).__name__}") from None
    if not isinstance(document, dict):
        raise RemoteProtocolError("an API answer is not a JSON object")
    return document


def _values(text: bytes) -> int:
    """How many values a document has at most: each but the first follows a comma or opens a list or object.

    Subjects may have these characters, too: strings are left out.
    """
    text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # what is left of quotes, begins or ends a string
    strings = text.count(b'"') // 2
    if strings > 2 * MAX_VALUES:  # names and values
        return strings
    rest = b"".join(text.split(b'"')[::2])
    return rest.count(b",") + rest.count(b"[") + rest.count(b"{")


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
