"""JSON in and out of the JetStream API, with the limits that keep a hostile peer harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from typing import TypeGuard

from ..._values import brief
from ...errors import LocalProtocolError, RemoteProtocolError

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
_escaped_surrogate = re.compile(r"\\u[dD][89a-fA-F]").search


def dumps(document: Mapping[str, object]) -> bytes:
    """Return compact UTF-8 JSON.

    Raises:
        LocalProtocolError: a text in it is no Unicode, or it is nested too deeply.
    """
    try:
        return _encode(document).encode()
    except (UnicodeEncodeError, RecursionError) as exc:
        raise _unwritable(exc) from None


def dumps_str(text: str) -> bytes:
    """Return ``text`` as a JSON string, as :func:`dumps` writes it, at a tenth of the cost of a document."""
    try:
        return encode_basestring(text).encode()
    except UnicodeEncodeError as exc:
        raise _unwritable(exc) from None


def _unwritable(exc: Exception) -> LocalProtocolError:
    return LocalProtocolError(f"a request cannot be written as JSON: {type(exc).__name__}")


def loads(payload: bytes | bytearray | memoryview, limit: int | None = None) -> dict[str, object]:
    """Parse an API answer of at most ``limit`` bytes, by default :data:`MAX_ANSWER`.

    Raises:
        RemoteProtocolError: not JSON, not an object, too large, too deep, or of too many values; or a text
            has half a surrogate pair, as no server's has: it could be used in no request.
    """
    size = len(payload)
    if size > (MAX_ANSWER if limit is None else limit):
        raise RemoteProtocolError(f"an API answer of {size} bytes is refused")
    if size > FEW and _values(bytes(payload)) > MAX_VALUES:
        raise RemoteProtocolError(f"an API answer of {size} bytes has too many values")
    try:
        text = str(payload, "utf-8")
        document = _decode(text)
        if "\\" in text and _escaped_surrogate(text) is not None:
            _encode(document).encode()
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"an API answer is not JSON in Unicode: {type(exc).__name__}") from None
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


def is_number(value: object) -> TypeGuard[int]:
    """Whether a value is what servers count with: a number of 64 bits, not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def number(document: Mapping[str, object], key: str) -> int:
    """What an answer counts under ``key``; 0 when it says nothing of it, as some versions do.

    Raises:
        RemoteProtocolError: it is no such number.
    """
    value = document.get(key, 0)
    if not is_number(value):
        raise RemoteProtocolError(f"an API answer has {key!r} that is no number of 64 bits")
    return value


def to_ns(value: timedelta) -> int:
    """Nanoseconds of a ``timedelta``, exactly."""
    return (value.days * 86_400 + value.seconds) * 1_000_000_000 + value.microseconds * 1000


def from_ns(value: object) -> timedelta | None:
    """A ``timedelta`` from nanoseconds, cut to microseconds; ``None`` for what is no positive int64."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 63:
        return None
    return timedelta(microseconds=value // 1000)


def parse_time(text: object) -> datetime:
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
    raise RemoteProtocolError(f"not a time: {brief(text) if isinstance(text, str) else type(text).__name__}")


def time_from_ns(ns: int) -> datetime:
    """An aware UTC ``datetime`` from nanoseconds since the epoch; less than a microsecond is cut off.

    Raises:
        RemoteProtocolError: more than a ``datetime`` holds.
    """
    if 0 <= ns < _EXACT:
        return datetime.fromtimestamp(ns // 1000 / 1e6, UTC)
    try:
        return _EPOCH + timedelta(0, 0, ns // 1000)
    except OverflowError:
        raise RemoteProtocolError("a time lies beyond the year 9999") from None
